//! The recordings that tcptrace carries for the ladders of `explain`: each is made anew by real kernels, processes and segments, and
//! must tell the same as the one that is shipped. `TCPTRACE_BLESS=1` replaces those in `recordings/`. Not one of the live tests, which
//! run on other kernels, too: what they would say differs in what their hooks can see.

#[path = "support/recorded.rs"]
mod recorded;
#[path = "live_recordings/stage.rs"]
mod stage;
#[path = "live/support/mod.rs"]
#[expect(dead_code, reason = "the live tests use the rest")]
mod support;
#[path = "live_recordings/wire.rs"]
mod wire;

use std::time::Duration;

use crate::{
    stage::{End, Scene, address},
    support::{
        segment::{
            Segment,
            flag::{ACK, FIN, SYN},
        },
        socket::Sock,
        wait_until,
    },
    wire::{Fate, LEFT},
};

const ESTABLISHED: u8 = 1;
const FIN_WAIT2: u8 = 5;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const REQUEST: [u8; 120] = [b'q'; 120];
const ANSWER: [u8; 500] = [b'a'; 500];
/// More than any kernel delays an ACK.
const ACKED: Duration = Duration::from_millis(400);

/// Fate of the first segment of each direction that `is_it`; the others arrive.
fn first(fate: Fate, from: &'static [bool], is_it: fn(&Segment) -> bool) -> wire::Judge {
    let mut left = from.to_vec();
    Box::new(move |from, segment| {
        let Some(at) = left.iter().position(|&l| l == from).filter(|_| is_it(segment)) else { return Fate::Arrives };
        left.remove(at);
        fate
    })
}

/// Ask and be answered.
fn ask(sock: &Sock) {
    sock.send(&REQUEST);
    sock.receive(ANSWER.len());
}

fn answer(sock: &Sock) {
    sock.receive(REQUEST.len());
    sock.send(&ANSWER);
}

/// Close first: the other process closes when this one's FIN is acknowledged.
fn close_first(end: &End, sock: &Sock) {
    sock.shutdown();
    sock.wait_state(FIN_WAIT2);
    end.pass();
    sock.receive_all().expect("the end of the stream");
}

fn close_second(end: &End, sock: Sock) {
    sock.receive_all().expect("the end of the stream");
    end.wait();
    sock.close();
}

/// A client that asks and closes first.
fn client(end: End) {
    end.connect();
    ask(&end.sock);
    close_first(&end, &end.sock);
}

/// Its server.
fn server(end: End) {
    end.listen(16);
    let sock = end.sock.accept();
    answer(&sock);
    close_second(&end, sock);
}

#[test]
fn close_by_client() {
    Scene::new("close_by_client").play(client, server);
}

#[test]
fn close_by_server() {
    Scene::new("close_by_server").play(
        |end| {
            end.connect();
            ask(&end.sock);
            end.sock.receive_all().expect("the end of the stream");
            end.wait();
        },
        |end| {
            end.listen(16);
            let sock = end.sock.accept();
            answer(&sock);
            close_first(&end, &sock);
        },
    );
}

#[test]
fn half_close() {
    Scene::new("half_close").play(
        |end| {
            end.connect();
            end.sock.send(&REQUEST);
            end.sock.shutdown();
            end.sock.wait_state(FIN_WAIT2);
            end.pass();
            end.sock.receive(3000);
            end.pass();
            end.sock.receive_all().expect("the end of the stream");
        },
        |end| {
            end.listen(16);
            let sock = end.sock.accept();
            sock.receive_all().expect("the end of the stream");
            end.wait();
            sock.send(&[b'a'; 3000]);
            end.wait();
            sock.close();
        },
    );
}

#[test]
fn three_segments() {
    // The server's ACK waits for so short a time that it may have left when a busy machine lets the process close.
    Scene { or: Some("close_by_client"), ..Scene::new("three_segments") }.play(
        |end| {
            end.connect();
            ask(&end.sock);
            end.sock.shutdown();
            end.sock.receive_all().expect("the end of the stream");
        },
        |end| {
            end.listen(16);
            let sock = end.sock.accept();
            answer(&sock);
            sock.receive_all().expect("the end of the stream");
            sock.close();
        },
    );
}

#[test]
fn simultaneous_open() {
    let judge = first(Fate::Held, &[true, false], |s| s.flags == SYN);
    Scene { judge, at_once: true, ..Scene::new("simultaneous_open") }.play(
        |end| {
            end.sock.bind((LEFT, 80).into());
            end.sock.start_connect(address());
            end.pass();
            end.sock.finish_connect().expect("both connect");
            ask(&end.sock);
            close_first(&end, &end.sock);
        },
        |end| {
            end.wait();
            end.sock.connect((LEFT, 80).into()).expect("both connect");
            answer(&end.sock);
            end.sock.receive_all().expect("the end of the stream");
            end.wait();
        },
    );
}

#[test]
fn simultaneous_close() {
    let judge = first(Fate::Held, &[true, false], |s| s.flags & FIN != 0);
    Scene { judge, at_once: true, ..Scene::new("simultaneous_close") }.play(
        |end| {
            end.connect();
            ask(&end.sock);
            end.sock.shutdown();
            end.pass();
            end.sock.receive_all().expect("the end of the stream");
        },
        |end| {
            end.listen(16);
            let sock = end.sock.accept();
            answer(&sock);
            end.wait();
            sock.shutdown();
            sock.receive_all().expect("the end of the stream");
            sock.close();
        },
    );
}

#[test]
fn rst() {
    Scene::new("rst").play(
        |end| {
            end.connect();
            ask(&end.sock);
            end.sock.linger_zero();
        },
        |end| {
            end.listen(16);
            let sock = end.sock.accept();
            answer(&sock);
            assert_eq!(sock.receive_all().expect_err("a reset").raw_os_error(), Some(libc::ECONNRESET));
            sock.close();
        },
    );
}

#[test]
fn refused() {
    Scene::new("refused").play(
        |end| {
            let error = end.sock.connect(address()).expect_err("nobody listens");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        },
        |_| {},
    );
}

#[test]
fn no_answer() {
    let settings = &[("net/ipv4/tcp_syn_retries", "2"), ("net/ipv4/tcp_syn_linear_timeouts", "0")];
    Scene { settings, judge: Box::new(|_, _| Fate::Lost), ..Scene::new("no_answer") }.play(
        |end| {
            let error = end.sock.connect(address()).expect_err("nothing arrives");
            assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
        },
        |_| {},
    );
}

#[test]
fn half_open() {
    let judge = first(Fate::Lost, &[true], |s| s.flags == ACK);
    Scene { judge, ..Scene::new("half_open") }.play(
        |end| {
            end.connect();
            // The server speaks first.
            end.sock.receive(ANSWER.len());
            close_first(&end, &end.sock);
        },
        |end| {
            end.listen(16);
            let sock = end.sock.accept();
            sock.send(&ANSWER);
            close_second(&end, sock);
        },
    );
}

#[test]
fn backlog() {
    let judge = first(Fate::Rings, &[true], |s| s.flags == SYN);
    // Without the connection that fills the queue, which is the server's own.
    Scene { judge, arguments: &["--addr", "10.77.0.1"], ..Scene::new("backlog") }.play(client, |mut end| {
        let filler = end.spare.take().expect("the server's");
        rustix::net::listen(&end.sock, 0).expect("listen");
        filler.connect(address()).expect("room for one");
        end.pass();
        // The client's SYN came, and there was no room.
        end.hear_bell();
        end.sock.accept().close();
        let sock = end.sock.accept();
        answer(&sock);
        close_second(&end, sock);
    });
}

#[test]
fn cookies() {
    Scene { settings: &[("net/ipv4/tcp_syncookies", "2")], ..Scene::new("cookies") }.play(client, server);
}

#[test]
fn fast_open() {
    // Both sides, and without a cookie of an earlier connection.
    Scene { settings: &[("net/ipv4/tcp_fastopen", "519")], ..Scene::new("fast_open") }.play(
        |end| {
            end.wait();
            end.sock.send_fast_open(address(), &REQUEST);
            end.sock.receive(ANSWER.len());
            close_first(&end, &end.sock);
        },
        |end| {
            end.sock.tcp_option(libc::TCP_FASTOPEN, 16);
            end.listen(16);
            let sock = end.sock.accept();
            sock.receive(REQUEST.len());
            sock.wait_state(ESTABLISHED);
            sock.send(&ANSWER);
            close_second(&end, sock);
        },
    );
}

#[test]
fn keepalive() {
    let mut segments = 0;
    let judge: wire::Judge = Box::new(move |_, _| {
        segments += 1;
        // The handshake, and then nothing.
        if segments > 3 { Fate::Lost } else { Fate::Arrives }
    });
    Scene { judge, settle: |[near, _]| near.quiet(), ..Scene::new("keepalive") }.play(
        |end| {
            for option in [libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT] {
                end.sock.tcp_option(option, 1);
            }
            rustix::net::sockopt::set_socket_keepalive(&end.sock, true).expect("SO_KEEPALIVE");
            end.connect();
            let error = end.sock.receive_all().expect_err("nobody answers");
            assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
        },
        |end| {
            end.listen(16);
            let _sock = end.sock.accept();
            end.stay();
        },
    );
}

#[test]
fn close_wait() {
    let settle: fn([&support::netns::Netns; 2]) = |[near, far]| {
        wait_until("the orphan", || near.rows().iter().any(|row| row.2 == FIN_WAIT2));
        wait_until("the leak", || far.rows().iter().any(|row| row.2 == CLOSE_WAIT));
    };
    Scene { settle, ..Scene::new("close_wait") }.play(
        |end| {
            end.connect();
            ask(&end.sock);
        },
        |end| {
            end.listen(16);
            let sock = end.sock.accept();
            answer(&sock);
            sock.receive_all().expect("the end of the stream");
            end.stay();
        },
    );
}

#[test]
fn fin_wait2() {
    Scene::new("fin_wait2").play(
        |end| {
            end.connect();
            ask(&end.sock);
        },
        |end| {
            end.listen(16);
            let sock = end.sock.accept();
            answer(&sock);
            sock.receive_all().expect("the end of the stream");
            std::thread::sleep(ACKED);
            sock.close();
        },
    );
}

#[test]
fn window() {
    const MUCH: usize = 100_000;
    Scene::new("window").play(
        |end| {
            rustix::net::sockopt::set_socket_send_buffer_size(&end.sock, 2 * MUCH).expect("SO_SNDBUF");
            end.connect();
            end.sock.send(&[b'q'; MUCH]);
            // The window is full, and most of it has not left yet.
            end.sock.shutdown();
            end.pass();
            end.sock.wait_state(FIN_WAIT2);
            end.pass();
            end.sock.receive_all().expect("the end of the stream");
        },
        |end| {
            rustix::net::sockopt::set_socket_recv_buffer_size(&end.sock, 8192).expect("SO_RCVBUF");
            end.listen(16);
            let sock = end.sock.accept();
            end.wait();
            std::thread::sleep(ACKED);
            assert_eq!(sock.receive_all().expect("the end of the stream"), MUCH);
            end.wait();
            sock.close();
        },
    );
}

#[test]
fn nagle() {
    const ROUNDS: usize = 10;
    Scene::new("nagle").play(
        |end| {
            end.connect();
            for _ in 0..ROUNDS {
                end.sock.send(b"head");
                end.sock.send(b"body");
                end.sock.receive(6);
            }
            close_first(&end, &end.sock);
        },
        |end| {
            end.listen(16);
            let sock = end.sock.accept();
            for _ in 0..ROUNDS {
                sock.receive(8);
                sock.send(b"answer");
            }
            close_second(&end, sock);
        },
    );
}

#[test]
fn long() {
    const ROUNDS: usize = 50;
    Scene::new("long").play(
        |end| {
            end.connect();
            for _ in 0..ROUNDS {
                ask(&end.sock);
            }
            close_first(&end, &end.sock);
        },
        |end| {
            end.listen(16);
            let sock = end.sock.accept();
            for _ in 0..ROUNDS {
                answer(&sock);
            }
            close_second(&end, sock);
        },
    );
}

#[test]
fn mss() {
    Scene { mtu: 1400, ..Scene::new("mss") }.play(client, server);
}

#[test]
fn fin_again() {
    let judge = first(Fate::Lost, &[true], |s| s.flags & FIN != 0);
    Scene { judge, patient: false, ..Scene::new("fin_again") }.play(client, server);
}

#[test]
fn rst_after_close() {
    Scene::new("rst_after_close").play(
        |end| {
            end.connect();
            end.sock.send(&REQUEST);
        },
        |end| {
            end.listen(16);
            let sock = end.sock.accept();
            assert_eq!(sock.receive_all().expect("the end of the stream"), REQUEST.len());
            std::thread::sleep(ACKED);
            // Nobody is there to take it.
            sock.send(&ANSWER);
            sock.wait_state(CLOSE);
            sock.close();
        },
    );
}
