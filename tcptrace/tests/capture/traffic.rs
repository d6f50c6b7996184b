//! Connections of every kind, several at once.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use super::{
    random::Random,
    relay::{V4, V6},
};
use crate::support::{DEADLINE, netns::Netns, socket::Sock, wait_until};

/// Connections at a time.
const AT_ONCE: usize = 12;
/// The first of the ports.
const PORT: u16 = 7400;
/// Nobody listens here.
const REFUSED: u16 = 7399;

/// A SYN has room for so many bytes.
const IN_SYN: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    Client,
    Server,
    /// Neither waits for the other.
    Both,
    /// The client closes its side, the server goes on sending.
    HalfOfClient,
    HalfOfServer,
    /// A RST in place of a FIN.
    ResetByClient,
    ResetByServer,
    /// What came is not read.
    Unread,
}

const CLOSES: [Close; 8] = [
    Close::Client,
    Close::Server,
    Close::Both,
    Close::HalfOfClient,
    Close::HalfOfServer,
    Close::ResetByClient,
    Close::ResetByServer,
    Close::Unread,
];

#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Which of the addresses.
    way: usize,
    refused: bool,
    /// By TCP Fast Open: the SYN carries data.
    fast: bool,
    /// Payload bytes of the client, of the server, and of who goes on after the other's FIN.
    bytes: [usize; 3],
    close: Close,
}

impl Plan {
    fn new(random: &mut Random) -> Self {
        let way = random.below(4) as usize;
        // Through the relay a window of a few segments at a time gets there.
        let bits = if is_far(way) { 15 } else { 18 };
        Self {
            way,
            refused: random.below(20) == 0,
            fast: random.below(6) == 0,
            bytes: [random.size(bits), random.size(bits), random.size(12)],
            close: random.one_of(&CLOSES),
        }
    }
}

fn is_far(way: usize) -> bool {
    way >= 2
}

fn address(way: usize, port: u16) -> SocketAddr {
    match way {
        0 => (Ipv4Addr::LOCALHOST, port).into(),
        1 => (Ipv6Addr::LOCALHOST, port).into(),
        2 => (V4[1], port).into(),
        _ => (V6[1], port).into(),
    }
}

/// So many connections, from the first namespace to itself and to the other.
pub fn run([near, far]: [&Netns; 2], connections: usize, random: &mut Random) {
    std::thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            let mine = connections / AT_ONCE + usize::from(worker < connections % AT_ONCE);
            let plans: Vec<_> = (0..mine).map(|_| Plan::new(random)).collect();
            let port = PORT + worker as u16;
            let listeners = [0, 1, 2, 3]
                .map(|way| Sock::listen_fast_open(if is_far(way) { far } else { near }, address(way, port), 16));
            // Two threads take one step after the other together.
            let ((to_server, from_client), (to_client, from_server)) = (sync_channel(1), sync_channel(1));
            let (ours, theirs) = ((to_server, from_server), (to_client, from_client));
            let servers = plans.clone();
            scope.spawn(move || {
                for plan in servers.iter().filter(|plan| !plan.refused) {
                    serve(&listeners[plan.way], plan, &theirs);
                }
            });
            scope.spawn(move || {
                for plan in &plans {
                    let to = address(plan.way, if plan.refused { REFUSED } else { port });
                    let sock = Sock::new(near, to);
                    let early = if plan.fast && !plan.refused { plan.bytes[0].min(IN_SYN) } else { 0 };
                    if early > 0 {
                        sock.send_fast_open(to, &vec![b'c'; early]);
                    } else {
                        let connected = sock.connect(to);
                        assert_eq!(connected.is_err(), plan.refused, "{plan:?}: {connected:?}");
                    }
                    if !plan.refused {
                        ask(sock, plan, early, &ours);
                    }
                }
            });
        }
    });
}

type Partner = (SyncSender<()>, Receiver<()>);

fn meet((send, receive): &Partner) {
    send.send(()).expect("the other end of the connection");
    receive.recv_timeout(*DEADLINE).expect("the other end of the connection");
}

fn ask(sock: Sock, plan: &Plan, early: usize, server: &Partner) {
    let [own, peers, rest] = plan.bytes;
    sock.send(&vec![b'c'; own - early]);
    if plan.close != Close::Unread {
        take(&sock, peers);
    }
    meet(server);
    match plan.close {
        Close::Client => first(sock),
        Close::Server => second(sock),
        Close::Both => sock.close(),
        Close::HalfOfClient => {
            sock.shutdown();
            take(&sock, rest);
            second(sock);
        }
        Close::HalfOfServer => {
            drop(sock.receive_all());
            sock.send(&vec![b'r'; rest]);
            sock.close();
        }
        Close::ResetByClient => reset(sock),
        Close::ResetByServer | Close::Unread => second(sock),
    }
    meet(server);
}

fn serve(listener: &Sock, plan: &Plan, client: &Partner) {
    let sock = listener.accept();
    let [peers, own, rest] = plan.bytes;
    if plan.close == Close::Unread {
        if peers > 0 {
            wait_until("bytes to arrive", || rustix::io::ioctl_fionread(&sock).expect("FIONREAD") > 0);
        }
    } else {
        take(&sock, peers);
        sock.send(&vec![b's'; own]);
    }
    meet(client);
    match plan.close {
        Close::Client => second(sock),
        Close::Server => first(sock),
        Close::Both | Close::Unread => sock.close(),
        Close::HalfOfClient => {
            drop(sock.receive_all());
            sock.send(&vec![b'r'; rest]);
            sock.close();
        }
        Close::HalfOfServer => {
            sock.shutdown();
            take(&sock, rest);
            second(sock);
        }
        Close::ResetByClient => second(sock),
        Close::ResetByServer => reset(sock),
    }
    meet(client);
}

/// recv() of nothing waits for something.
fn take(sock: &Sock, bytes: usize) {
    if bytes > 0 {
        sock.receive(bytes);
    }
}

/// Close, and see the other end close.
fn first(sock: Sock) {
    sock.shutdown();
    second(sock);
}

/// See the other end close, or reset the connection, and close.
fn second(sock: Sock) {
    drop(sock.receive_all());
    sock.close();
}

fn reset(sock: Sock) {
    sock.linger_zero();
    sock.close();
}
