//! Listeners whose process accepts too slowly, too little or not at all, and clients that never complete a handshake.

use std::{os::fd::AsRawFd as _, thread, time::Duration};

use crate::{
    support::{
        netns::Netns,
        now,
        queues::half_open,
        segment::flag::{ACK, SYN},
        socket::{Sock, local},
        tun::{Tun, at},
    },
    watching::{Watching, in_time, is_ours, number},
};

const PORT: u16 = 80;
/// Long enough for rules to look at it several times.
const A_WHILE: Duration = Duration::from_millis(1700);

/// So many clients that have sent their SYNs.
fn clients(ns: &Netns, n: usize) -> Vec<Sock> {
    let one = |_| {
        let client = Sock::new(ns, local(PORT));
        client.start_connect(local(PORT));
        client
    };
    (0..n).map(one).collect()
}

/// Without SYN cookies: a client whose cookie meets a full accept queue is never heard of again until it sends data.
fn without_cookies() -> Netns {
    let ns = Netns::new();
    ns.sysctl("net/ipv4/tcp_syncookies", "0");
    ns
}

/// Accept them all; clients get in at the latest when they send their SYN again.
fn accept_all(listener: &Sock, clients: &[Sock]) -> Vec<Sock> {
    let accepted = clients.iter().map(|_| listener.accept()).collect();
    clients.iter().for_each(|client| client.finish_connect().expect("accepted"));
    accepted
}

/// A BPF program that gives every connection of its SO_REUSEPORT group to the first listener.
fn all_to_the_first(listener: &Sock) {
    let mut code = [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: code.as_mut_ptr() };
    // SAFETY: the program and its code live longer than the call.
    let r = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of_val(&program) as u32,
        )
    };
    assert_eq!(r, 0, "SO_ATTACH_REUSEPORT_CBPF: {}", std::io::Error::last_os_error());
}

/// A queue of three, four clients, and one more: its SYN comes in vain until somebody accepts.
#[test]
fn a_process_that_does_not_accept_turns_clients_away() {
    let ns = without_cookies();
    let watching = Watching::start(&[&ns], "[accept-overflow]\nresolves_after = \"1s\"\n");
    let listener = Sock::listen(&ns, local(PORT), 3);
    let began = now();
    let all = clients(&ns, 5);
    let finding = watching.fires("accept-overflow");
    in_time(&finding, began, Duration::from_secs(1));
    is_ours(&finding, "warning", PORT);
    assert_eq!((number(&finding, "limit"), number(&finding, "waiting")), (3.0, 4.0), "{finding}");
    let turned_away = ["syns_dropped", "acks_dropped", "other_drops"].map(|name| finding["evidence"][name].as_f64());
    assert!(turned_away.iter().flatten().sum::<f64>() >= 1.0, "{finding}");
    let stuck = watching.fires_as("accept-overflow", |finding| finding["evidence"]["process"] == "stuck");
    is_ours(&stuck, "critical", PORT);
    assert!(number(&stuck, "no_accept_us") >= 3e6, "{stuck}");
    assert!(stuck["advice"].as_str().is_some_and(|text| text.contains("does not call accept()")), "{stuck}");
    let _accepted = accept_all(&listener, &all);
    watching.resolves("accept-overflow");
    watching.stop(&["accept-overflow"]).keep("accept-overflow.trouble");
}

/// The queue is full to its last place, and that is all.
#[test]
fn a_process_that_is_late_turns_nobody_away() {
    let ns = Netns::new();
    let watching = Watching::start(&[&ns], "");
    let listener = Sock::listen(&ns, local(PORT), 16);
    let all = clients(&ns, 16);
    thread::sleep(A_WHILE);
    let _accepted = accept_all(&listener, &all);
    watching.stop(&[]).keep("accept-overflow.alike");
}

/// Twelve clients at once, a queue of four, and a process that takes all that there is.
#[test]
fn a_burst_asks_for_a_longer_backlog() {
    let ns = without_cookies();
    let watching = Watching::start(&[&ns], "");
    let listener = Sock::listen(&ns, local(PORT), 4);
    let all = clients(&ns, 12);
    let _accepted = accept_all(&listener, &all);
    let finding = watching.fires("backlog-too-small");
    is_ours(&finding, "warning", PORT);
    assert_eq!((number(&finding, "limit"), number(&finding, "backlog")), (4.0, 4.0), "{finding}");
    assert_eq!(finding["evidence"]["limited_by"], "backlog", "{finding}");
    let needed = number(&finding, "needed");
    assert!((8.0..=64.0).contains(&needed), "{finding}");
    assert!(
        finding["advice"].as_str().is_some_and(|text| text.contains(&format!("listen(fd, {needed})"))),
        "{finding}"
    );
    watching.stop(&["accept-overflow", "backlog-too-small"]).keep("backlog-too-small.trouble");
}

/// Listeners that share a port, and a program that gives everything to one of them.
#[test]
fn one_of_a_group_gets_everything() {
    let ns = without_cookies();
    let watching = Watching::start(&[&ns], "");
    let listeners: Vec<_> = (0..3).map(|_| Sock::listen_in_group(&ns, local(PORT), 16)).collect();
    all_to_the_first(&listeners[0]);
    // As many as shares are judged from, then more than its queue takes.
    for _ in 0..6 {
        let some = clients(&ns, 8);
        accept_all(&listeners[0], &some);
    }
    let more = clients(&ns, 20);
    let finding = watching.fires_as("backlog-too-small", |finding| finding["evidence"]["share_percent"].is_number());
    assert_eq!((number(&finding, "listeners"), number(&finding, "share_percent")), (3.0, 100.0), "{finding}");
    assert!(finding["summary"].as_str().is_some_and(|text| text.contains("3 listeners")), "{finding}");
    let _accepted = accept_all(&listeners[0], &more);
    watching.stop(&["accept-overflow", "backlog-too-small"]);
}

/// Bursts that the queue takes.
#[test]
fn a_burst_that_fits_asks_for_nothing() {
    let ns = Netns::new();
    let watching = Watching::start(&[&ns], "");
    let listener = Sock::listen(&ns, local(PORT), 16);
    for _ in 0..3 {
        let all = clients(&ns, 16);
        let _accepted = accept_all(&listener, &all);
        thread::sleep(A_WHILE / 3);
    }
    watching.stop(&[]).keep("backlog-too-small.alike");
}

/// Two clients wait, nobody is accepted; then both are.
#[test]
fn nobody_is_ever_accepted() {
    let ns = Netns::new();
    let watching = Watching::start(&[&ns], "[dead-listener]\nnever = \"2s\"\nresolves_after = \"1s\"\n");
    let listener = Sock::listen(&ns, local(PORT), 16);
    let all = clients(&ns, 2);
    let finding = watching.fires("dead-listener");
    is_ours(&finding, "warning", PORT);
    assert_eq!((number(&finding, "waiting"), number(&finding, "accepted")), (2.0, 0.0), "{finding}");
    assert!(number(&finding, "no_accept_us") >= 2e6, "{finding}");
    let _accepted = accept_all(&listener, &all);
    watching.resolves("dead-listener");
    watching.stop(&["dead-listener"]).keep("dead-listener.trouble");
}

/// One listener that nobody asks, one whose client waits for less than the limit, and one that is asked again and again.
#[test]
fn nobody_waits_for_an_idle_listener() {
    let ns = Netns::new();
    let watching = Watching::start(&[&ns], "[dead-listener]\nnever = \"2s\"\nstopped = \"3s\"\n");
    let _idle = Sock::listen(&ns, local(PORT + 1), 16);
    let listener = Sock::listen(&ns, local(PORT), 16);
    for _ in 0..3 {
        let late = clients(&ns, 1);
        thread::sleep(Duration::from_secs(1));
        let _accepted = accept_all(&listener, &late);
    }
    watching.stop(&[]).keep("dead-listener.alike");
}

/// A client's SYNs come, and it answers no SYN-ACK; then it does.
#[test]
fn a_client_hears_nothing() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watching = Watching::start(&[&ns], "[half-open-clients]\nresolves_after = \"1s\"\n");
    let listener = Sock::listen(&ns, at(PORT), 16);
    let mut peers = half_open(&tun, PORT, 4000..4003);
    let finding = watching.fires("half-open-clients");
    is_ours(&finding, "warning", PORT);
    assert_eq!((number(&finding, "clients"), number(&finding, "attempts")), (1.0, 3.0), "{finding}");
    assert_eq!(finding["evidence"]["peers"][0]["raddr"], "10.77.0.2", "{finding}");
    assert!(finding["advice"].as_str().is_some_and(|text| text.contains("ip route get 10.77.0.2")), "{finding}");
    peers[0].send(ACK, b"");
    let _accepted = listener.accept();
    watching.resolves("half-open-clients");
    watching.stop(&["half-open-clients"]).keep("half-open-clients.trouble");
}

/// Clients that lose the first SYN-ACK and answer the second; one that is gone.
#[test]
fn clients_that_answer_late_hear_us() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watching = Watching::start(&[&ns], "");
    let listener = Sock::listen(&ns, at(PORT), 16);
    let mut late: Vec<_> = (4000..4004).map(|port| tun.peer(port)).collect();
    for peer in &mut late {
        peer.meets(PORT);
        peer.send(SYN, b"");
        peer.lose(SYN | ACK);
    }
    let _gone = tun.half_open(4010, PORT);
    for peer in &mut late {
        peer.expect(SYN | ACK);
        peer.send(ACK, b"");
    }
    let _accepted: Vec<_> = late.iter().map(|_| listener.accept()).collect();
    thread::sleep(Duration::from_secs(3));
    watching.stop(&[]).keep("half-open-clients.alike");
}
