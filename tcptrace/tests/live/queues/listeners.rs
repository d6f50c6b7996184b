//! Listeners that come and go under their queues, groups that share a port, both address families.

use std::{os::fd::AsRawFd, time::Duration};

use serde_json::Value;

use crate::support::{
    netns::Netns,
    queues::{Served, Watch, exact, hook, served, tcp_counter},
    run::Conn,
    segment::flag::{ACK, RST, SYN},
    slowness,
    socket::{Sock, local},
    tracer::{replay, tcptrace},
    tun::{PEER, Tun, at},
    wait_until,
};

const ESTABLISHED: u8 = 1;

#[test]
fn a_listener_closed_over_full_queues() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let listener = Sock::listen(&ns, at(8211), 4);
    let _half_open = [tun.half_open(40211, 8211), tun.half_open(40212, 8211)];
    let mut queued = tun.half_open(40213, 8211);
    queued.send(ACK, b"");
    watch.depths(8211, 2, 1);
    listener.close();
    queued.expect_skipping(SYN | ACK, RST | ACK);
    watch.told(8211, "dropped.listener_closed", 2);
    wait_until("the requests to go", || ns.rows().is_empty());
    let again = tcp_counter(&ns, "RetransSegs");
    let watched = watch.stop();
    let mut outcomes = vec!["40211 queued 1/0", "40212 queued 2/0", "40213 queued 3/0", "40213 completed 2/1"];
    // Which timer is first is the kernel's choice.
    outcomes.extend(["- other:listener_closed 1/0", "- other:listener_closed 0/0"]);
    let without_port = |text: &str| text.split_once(' ').map(|(_, rest)| format!("- {rest}")).expect("PEER OUTCOME");
    let outcomes: Vec<_> = outcomes.into_iter().map(without_port).collect();
    watched.outcomes(8211, &outcomes.iter().map(String::as_str).collect::<Vec<_>>());
    watched.totals(
        8211,
        &[("syns", 3), ("queued", 3), ("completed", 1), ("synack_retrans", again), ("dropped.listener_closed", 2)],
    );
    let server = watched.run.only("server");
    assert_eq!((server.text("end"), &server.0["accept_wait_us"]), ("listener_closed", &Value::Null), "{}", server.0);
}

/// Trap 6: requests and waiting connections of a listener that is closed go to another of its group.
#[test]
fn trap6_a_group_takes_over_what_its_closed_listener_had() {
    let ns = Netns::new();
    ns.sysctl("net/ipv4/tcp_migrate_req", "1");
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let addr = at(8212);
    let first = Sock::listen_in_group(&ns, addr, 8);
    let mut waiting = tun.half_open(40222, 8212);
    waiting.send(ACK, b"");
    let mut at_timer = tun.half_open(40223, 8212);
    // The last, so that its ACK comes before its timer expires, unless the machine is slow.
    let mut at_ack = tun.half_open(40221, 8212);
    watch.depths(8212, 2, 1);
    let second = Sock::listen_in_group(&ns, addr, 8);
    let cookies = (first.cookie(), second.cookie());
    first.close();
    at_ack.send(ACK, b"");
    at_timer.ack = at_timer.ack.wrapping_sub(1);
    at_timer.expect(SYN | ACK);
    // The kernel sends it before it has put the new request in the place of the old one: an ACK in between finds the old one, which is
    // moved once more, and the timer's is thrown away.
    std::thread::sleep(Duration::from_millis(20) * slowness());
    at_timer.send(ACK, b"");
    let servers: Vec<_> = (0..3).map(|_| second.accept()).collect();
    watch.depths(8212, 0, 0);
    let again = tcp_counter(&ns, "RetransSegs");
    drop(servers);
    let watched = watch.stop();
    assert!(again >= 1);
    let mut totals = vec![("syns", 3), ("queued", 3), ("completed", 3), ("accepted", 3), ("synack_retrans", again)];
    // A tracepoint sees requests move, not what waits in the accept queue.
    totals.push(("migrated", if exact("migration") { 3 } else { 2 }));
    watched.totals(8212, &totals);
    let moved: Vec<_> = watched.requests(8212).into_iter().filter(|r| r["detail"] == "migrated").collect();
    if exact("migration") {
        assert_eq!(moved.len(), 3, "{moved:?}");
    }
    assert!(moved.iter().all(|r| r["listener"] == cookies.1.as_str()), "{moved:?}");
    for r in watched.requests(8212) {
        assert!([&cookies.0, &cookies.1].contains(&&r["listener"].as_str().expect("a cookie").to_owned()), "{r}");
    }
    // Each request has one timeline, wherever it went.
    for port in [40221, 40222, 40223] {
        let conn = watched.run.at_both(8212, port);
        assert!(conn.0["accept_wait_us"].is_u64(), "{}", conn.0);
        let ids: Vec<_> = watched.requests(8212).into_iter().filter(|r| r["rport"] == port).map(|r| &r["id"]).collect();
        assert!(ids.iter().all(|id| **id == conn.0["id"]), "{port}: {ids:?} {}", conn.0);
    }
}

#[test]
fn a_group_and_its_imbalance() {
    let ns = Netns::new();
    let watch = Watch::start(&ns);
    let group: Vec<_> = (0..3).map(|_| Sock::listen_in_group(&ns, local(8213), 64)).collect();
    let alone = Sock::listen(&ns, local(8214), 4);
    let clients: Vec<_> = (0..30).map(|_| Sock::connected(&ns, local(8213))).collect();
    watch.depths_of_group(8213, 3, 0, 30);
    let rows = watch.rows(8213, 3);
    assert!(rows.iter().all(|row| row["group"] == rows[0]["group"] && row["group"].is_u64()), "{rows:?}");
    let lens: u64 = rows.iter().map(|row| row["accept_queue"]["len"].as_u64().expect("a length")).sum();
    assert_eq!(lens, 30);
    assert_eq!(watch.row(8214)["group"], Value::Null);
    let watched = watch.stop();
    drop((group, alone, clients));
    watched.totals(8213, &[("syns", 30), ("queued", 30), ("completed", 30)]);
    let text = tcptrace_text(&watched.run.recording);
    assert!(text.lines().any(|line| line.starts_with("3 listeners share ")), "{text}");
}

fn tcptrace_text(recording: &std::path::Path) -> String {
    let output = crate::support::process::run(tcptrace().args(["queues", "--from"]).arg(recording));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn ipv6_and_v4_mapped_are_counted_once() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let listener = Sock::listen(&ns, "[::]:8215".parse().expect("an address"), 1);
    let six = Sock::connected(&ns, "[::1]:8215".parse().expect("an address"));
    let six_port = six.local().port();
    watch.depths(8215, 0, 1);
    let mut second = tun.half_open(40231, 8215);
    let mut third = tun.half_open(40232, 8215);
    watch.depths(8215, 2, 1);
    second.send(ACK, b"");
    watch.depths(8215, 1, 2);
    third.send(ACK, b"");
    watch.counted("ListenOverflows", 1);
    watch.depths(8215, 1, 2);
    let servers = [listener.accept(), listener.accept()];
    watch.depths(8215, 1, 0);
    third.send(ACK, b"");
    watch.depths(8215, 0, 1);
    let last = listener.accept();
    watch.depths(8215, 0, 0);
    let again = tcp_counter(&ns, "RetransSegs");
    drop((servers, last, six));
    let watched = watch.stop();
    watched.outcomes(
        8215,
        &[
            &format!("{six_port} queued 1/0"),
            &format!("{six_port} completed 0/1"),
            "40231 queued 1/1",
            "40232 queued 2/1",
            "40231 completed 1/2",
            "40232 accept_queue_full_ack 1/2",
            "40232 completed 0/1",
        ],
    );
    watched.totals(
        8215,
        &[
            ("syns", 3),
            ("queued", 3),
            ("completed", 3),
            ("accepted", 3),
            ("dropped.accept_queue_full_ack", 1),
            ("synack_retrans", again),
        ],
    );
    for r in watched.requests(8215) {
        assert_eq!(r["family"], "ipv6", "the listener's: {r}");
        if r["rport"] != six_port {
            assert_eq!(r["raddr"], format!("::ffff:{PEER}"), "{r}");
        }
    }
    assert!(watched.requests(8215).is_empty() || watched.of_type("listener").any(|l| l["sources"] == 1));
}

/// Trap 10: acceptors that block do not use up what sees an accept.
#[test]
fn trap10_many_blocked_acceptors() {
    const ACCEPTORS: usize = 120;
    let ns = Netns::new();
    let watch = Watch::start(&ns);
    let listener = Sock::listen(&ns, local(8216), 256);
    std::thread::scope(|scope| {
        let acceptors: Vec<_> = (0..ACCEPTORS).map(|_| scope.spawn(|| listener.accept())).collect();
        let waiting = || crate::support::process::blocked_in_accept(listener.as_raw_fd());
        wait_until("all of them to block", || waiting() >= ACCEPTORS);
        let clients: Vec<_> = (0..ACCEPTORS).map(|_| Sock::connected(&ns, local(8216))).collect();
        let servers: Vec<_> = acceptors.into_iter().map(|a| a.join().expect("no panic")).collect();
        watch.depths(8216, 0, 0);
        drop((clients, servers));
    });
    let watched = watch.stop();
    let n = ACCEPTORS as u64;
    let again = watched.listeners(8216).iter().filter_map(|l| l["synack_retrans"].as_u64()).sum();
    watched.totals(8216, &[("syns", n), ("queued", n), ("completed", n), ("accepted", n), ("synack_retrans", again)]);
    let servers: Vec<_> = watched.run.conns.iter().filter(|c| c.text("role") == "server").collect();
    assert_eq!(servers.len(), ACCEPTORS);
    // A hook inside of accept() sees the socket before it has a descriptor.
    let fd = !["fentry", "kprobe"].iter().any(|kind| hook("accept").starts_with(kind));
    let accepted = |c: &&Conn| c.0["accept_wait_us"].is_u64() && (!fd || c.0["fd"].is_u64());
    assert!(servers.iter().all(accepted), "accepted, each of them");
}

/// A listener that is closed at any moment of an interval: every count is of a listener that is told of, and none is told twice.
#[test]
fn listeners_that_vanish_between_two_looks() {
    let ns = Netns::new();
    let watch = Watch::start(&ns);
    const ROUNDS: u64 = 60;
    for round in 0..ROUNDS {
        let listener = Sock::listen(&ns, local(8217), 4);
        let client = Sock::connected(&ns, local(8217));
        wait_until("the final ACK", || ns.rows().contains(&(8217, client.local().port(), ESTABLISHED)));
        if round % 2 == 0 {
            drop(listener.accept());
        }
        drop((listener, client));
        ns.quiet();
    }
    let watched = watch.stop();
    watched.totals(8217, &[("syns", ROUNDS), ("queued", ROUNDS), ("completed", ROUNDS), ("accepted", ROUNDS / 2)]);
    for line in watched.of_type("listener") {
        assert!(line["sock"].is_string() && line["lport"] == 8217 && line["pid"].is_u64(), "{line}");
    }
    let replayed = replay("queues", &watched.run.recording);
    assert!(replayed.lines().count() > 2);
    let told = served("accept") != Served::No && served("accept_queue") != Served::No;
    assert_eq!(told, watched.of_type("listener").any(|l| l["accepted"] == 1));
}
