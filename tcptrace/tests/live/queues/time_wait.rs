//! TIME_WAIT from its begin to its end: reused by a SYN or by connect(), killed by a RST or with its namespace, expired.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{
    netns::{Netns, TIME_WAIT},
    queues::{Served, served},
    run::Run,
    segment::flag::{ACK, FIN, RST, SYN},
    socket::{Sock, close_in_order, local},
    tracer::Tracer,
    tun::{KERNEL, Tun},
    wait_until,
};

const FIN_WAIT2: u8 = 5;

fn trace(ns: &Netns) -> Tracer {
    Tracer::start_with(&[ns], &["--requests"])
}

/// The only `time_wait` object; None where no hook tells.
fn only(run: &Run) -> Option<&Value> {
    let found: Vec<_> = run.of_type("time_wait").collect();
    if served("time_wait") == Served::No {
        assert!(found.is_empty(), "{found:?}");
        return None;
    }
    assert_eq!(found.len(), 1, "{}", crate::support::run::brief(&run.text));
    Some(found[0])
}

fn told(tracer: &Tracer) {
    if served("time_wait") != Served::No {
        tracer.wait_for("the end of TIME_WAIT", |line| line["type"] == "time_wait");
    }
}

/// Server that closed first, at the same ends again: `first` is what its remnant was of.
fn check(line: &Value, id: u64, state: &str, how: &str, us: std::ops::RangeInclusive<u64>) {
    assert_eq!((&line["id"], &line["state"], &line["how"]), (&id.into(), &state.into(), &how.into()), "{line}");
    assert!(us.contains(&line["us"].as_u64().expect("its begin was seen")), "{us:?}: {line}");
}

fn us(from: Instant) -> u64 {
    from.elapsed().as_micros() as u64
}

/// The ends of the connection that was there before, in a new SYN.
#[test]
fn reused_by_a_syn() {
    let ns = Netns::new();
    let tracer = trace(&ns);
    let listener = Sock::listen(&ns, local(8241), 4);
    let from = local(40241);
    let connect = || {
        let client = Sock::new(&ns, from);
        client.bind(from);
        client.connect(local(8241)).expect("connect");
        (client, listener.accept())
    };
    let (client, server) = connect();
    let before = Instant::now();
    close_in_order(server, client);
    wait_until("TIME_WAIT", || ns.rows().contains(&(8241, 40241, TIME_WAIT)));
    let begun = Instant::now();
    wait_until("a while", || begun.elapsed() > Duration::from_millis(20));
    let at_least = us(begun);
    let (client, server) = connect();
    let at_most = us(before);
    told(&tracer);
    client.linger_zero();
    drop((client, server));
    ns.quiet();
    let run = tracer.stop();
    let first = run.conns.iter().find(|c| c.text("role") == "server").expect("a server");
    assert!(first.states().ends_with("TIME_WAIT"), "{}", first.0);
    if let Some(line) = only(&run) {
        check(line, first.number("id"), "TIME_WAIT", "reused", at_least..=at_most);
        assert_eq!((&line["lport"], &line["rport"]), (&8241.into(), &40241.into()));
    }
}

/// tcp_tw_reuse: a client that connects to the same end takes the place of its own remnant.
#[test]
fn reused_by_connect() {
    let ns = Netns::new();
    ns.sysctl("net/ipv4/tcp_tw_reuse", "1");
    ns.sysctl("net/ipv4/ip_local_port_range", "40242 40242");
    let tracer = trace(&ns);
    let listener = Sock::listen(&ns, local(8242), 4);
    let client = Sock::connected(&ns, local(8242));
    let server = listener.accept();
    let before = Instant::now();
    close_in_order(client, server);
    wait_until("TIME_WAIT", || ns.rows().contains(&(40242, 8242, TIME_WAIT)));
    let begun = Instant::now();
    // The kernel wants its timestamp to have moved on: by a second.
    let again = Sock::new(&ns, local(8242));
    wait_until("the port to be free", || again.connect(local(8242)).is_ok());
    let (at_least, at_most) = (1_000_000.min(us(begun)), us(before));
    let second = listener.accept();
    told(&tracer);
    // Its RST comes first: a FIN before it might leave another remnant.
    second.linger_zero();
    drop(second);
    drop(again);
    ns.quiet();
    let run = tracer.stop();
    let first = run.conns.iter().find(|c| c.text("role") == "client").expect("a client");
    if let Some(line) = only(&run) {
        check(line, first.number("id"), "TIME_WAIT", "reused", at_least / 2..=at_most);
    }
}

#[test]
fn killed_by_a_reset() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let tracer = trace(&ns);
    let mut peer = tun.peer(8243);
    let client = peer.connected_from(&ns);
    let port = client.local().port();
    client.close();
    peer.expect(FIN | ACK);
    let before = Instant::now();
    peer.send(FIN | ACK, b"");
    peer.expect(ACK);
    let begun = Instant::now();
    assert!(ns.rows().contains(&(port, 8243, TIME_WAIT)));
    wait_until("a while", || begun.elapsed() > Duration::from_millis(100));
    let at_least = us(begun);
    peer.send(RST, b"");
    wait_until("the end of TIME_WAIT", || ns.rows().is_empty());
    let at_most = us(before);
    told(&tracer);
    let run = tracer.stop();
    if let Some(line) = only(&run) {
        check(line, run.only("client").number("id"), "TIME_WAIT", "killed", at_least..=at_most);
    }
}

#[test]
fn killed_with_its_namespace() {
    let ns = Netns::new();
    let tracer = trace(&ns);
    let listener = Sock::listen(&ns, local(8244), 4);
    let client = Sock::connected(&ns, local(8244));
    close_in_order(listener.accept(), client);
    listener.close();
    wait_until("TIME_WAIT", || ns.rows().iter().all(|row| row.2 == TIME_WAIT));
    drop(ns);
    if served("time_wait") != Served::No {
        tracer.wait_for("the end of TIME_WAIT", |line| line["type"] == "time_wait" && line["lport"] == 8244);
    }
    let run = tracer.stop();
    // The number of a namespace that is gone may belong to another one by now: only what is at these ends counts.
    let mut ends = run.of_type("time_wait").filter(|line| line["lport"] == 8244);
    let (line, more) = (ends.next(), ends.next());
    assert!(more.is_none(), "{more:?}");
    assert_eq!(line.is_some(), served("time_wait") != Served::No, "{}", crate::support::run::brief(&run.text));
    if let Some(line) = line {
        assert_eq!((&line["id"], &line["how"]), (&run.at(8244).0["id"], &"killed".into()), "{line}");
    }
}

/// An orphan waits for its peer's FIN as long as tcp_fin_timeout says, in a timewait socket whose state is FIN_WAIT2.
#[test]
fn an_orphan_expires() {
    let ns = Netns::new();
    ns.sysctl("net/ipv4/tcp_fin_timeout", "1");
    let tun = Tun::new(&ns);
    let tracer = trace(&ns);
    let mut peer = tun.peer(8245);
    let client = peer.connected_from(&ns);
    let port = client.local().port();
    client.close();
    peer.expect(FIN | ACK);
    let before = Instant::now();
    peer.send(ACK, b"");
    wait_until("FIN_WAIT2", || ns.rows().iter().any(|row| (row.0, row.2) == (port, FIN_WAIT2)));
    wait_until("the end of FIN_WAIT2", || ns.rows().is_empty());
    let at_most = us(before);
    told(&tracer);
    let run = tracer.stop();
    assert!(run.only("client").has("patterns", "orphan"), "{}", run.only("client").0);
    if let Some(line) = only(&run) {
        check(line, run.only("client").number("id"), "FIN_WAIT2", "expired", 900_000..=at_most);
    }
}

/// The same orphan, when its peer's FIN does come: one remnant, from its begin as FIN_WAIT2 to its end as TIME_WAIT.
#[test]
fn an_orphan_whose_peer_closes_later() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let tracer = trace(&ns);
    ns.sysctl("net/ipv4/tcp_fin_timeout", "20");
    let listener = Sock::listen(&ns, (KERNEL, 8246).into(), 4);
    let mut peer = tun.peer(40246);
    peer.connect(8246);
    listener.accept().close();
    peer.expect(FIN | ACK);
    let before = Instant::now();
    peer.send(ACK, b"");
    wait_until("FIN_WAIT2", || ns.rows().contains(&(8246, 40246, FIN_WAIT2)));
    let begun = Instant::now();
    peer.send(FIN | ACK, b"");
    peer.expect(ACK);
    wait_until("TIME_WAIT", || ns.rows().contains(&(8246, 40246, TIME_WAIT)));
    let at_least = us(begun);
    // A new connection with the same ends.
    peer.seq = peer.seq.wrapping_add(100_000);
    peer.send(SYN, b"");
    peer.expect(SYN | ACK);
    let at_most = us(before);
    told(&tracer);
    peer.send(RST, b"");
    ns.quiet();
    let run = tracer.stop();
    if let Some(line) = only(&run) {
        check(line, run.only("server").number("id"), "FIN_WAIT2", "reused", at_least..=at_most);
    }
}

/// One timeline from the SYN to the end of TIME_WAIT, a minute later.
#[test]
fn a_minute_of_time_wait() {
    // TCP_TIMEWAIT_LEN; the kernel's timer wheel is two seconds coarse at this distance, and rounds up.
    const LENGTH: Duration = Duration::from_secs(60);
    let ns = Netns::new();
    let tracer = trace(&ns);
    let listener = Sock::listen(&ns, local(8247), 4);
    let client = Sock::connected(&ns, local(8247));
    let before = Instant::now();
    close_in_order(client, listener.accept());
    wait_until("TIME_WAIT", || ns.rows().iter().any(|row| (row.1, row.2) == (8247, TIME_WAIT)));
    // Longer than a deadline.
    std::thread::sleep(LENGTH.saturating_sub(before.elapsed()).saturating_sub(Duration::from_secs(1)));
    wait_until("the end of TIME_WAIT", || ns.rows().iter().all(|row| row.2 != TIME_WAIT));
    let at_most = us(before);
    told(&tracer);
    drop(listener);
    let run = tracer.stop();
    let client = run.only("client");
    assert!(client.states().ends_with("FIN_WAIT1 FIN_WAIT2 TIME_WAIT"), "{}", client.0);
    if let Some(line) = only(&run) {
        let at_least = LENGTH.as_micros() as u64 - 100_000;
        check(line, client.number("id"), "TIME_WAIT", "expired", at_least..=at_most);
    }
}
