//! The SYN queue is full: with cookies off, on and always; the rule of `tcp_max_syn_backlog`; who comes in by a cookie.

use crate::support::{
    netns::Netns,
    queues::{Served, Watch, half_open, served},
    segment::flag::{ACK, SYN},
    socket::{Sock, local},
    tun::{Tun, at},
};

#[test]
fn without_cookies_the_syn_is_dropped() {
    let ns = Netns::new();
    ns.sysctl("net/ipv4/tcp_syncookies", "0");
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let listener = Sock::listen(&ns, at(8121), 1);
    watch.depths(8121, 0, 0);
    let mut peers = half_open(&tun, 8121, 42001..42003);
    watch.depths(8121, 2, 0);
    let mut late = tun.peer(42003);
    late.meets(8121);
    late.send(SYN, b"");
    watch.counted("TCPReqQFullDrop", 1);
    watch.depths(8121, 2, 0);
    peers[0].send(ACK, b"");
    watch.depths(8121, 1, 1);
    late.seq = late.seq.wrapping_sub(1);
    late.connect(8121);
    watch.depths(8121, 1, 2);
    drop((listener.accept(), listener.accept()));
    watch.depths(8121, 1, 0);
    let watched = watch.stop();

    watched.outcomes(
        8121,
        &[
            "42001 queued 1/0",
            "42002 queued 2/0",
            "42003 syn_queue_full 2/0",
            "42001 completed 1/1",
            "42003 queued 2/1",
            "42003 completed 1/2",
        ],
    );
    watched
        .totals(8121, &[("syns", 4), ("queued", 3), ("completed", 2), ("accepted", 2), ("dropped.syn_queue_full", 1)]);
    watched.peaks(8121, 2, 2);
    // By a hook, or concluded from the namespace's counters: there is no other listener.
    let full = |l: &&serde_json::Value| l["dropped"]["syn_queue_full"] == 1;
    assert_eq!(watched.listeners(8121).into_iter().filter(full).count(), 1);
}

/// The kernel keeps a quarter of it for peers that it knows, and counts such a drop in ListenDrops alone.
#[test]
fn without_cookies_the_last_quarter_of_tcp_max_syn_backlog_is_kept() {
    let ns = Netns::new();
    ns.sysctl("net/ipv4/tcp_syncookies", "0");
    ns.sysctl("net/ipv4/tcp_max_syn_backlog", "8");
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let listener = Sock::listen(&ns, at(8122), 64);
    watch.depths(8122, 0, 0);
    let peers = half_open(&tun, 8122, 42001..42008);
    watch.depths(8122, 7, 0);
    let mut late = tun.peer(42008);
    late.meets(8122);
    late.send(SYN, b"");
    watch.counted("ListenDrops", 1);
    watch.counted("TCPReqQFullDrop", 0);
    watch.depths(8122, 7, 0);
    let watched = watch.stop();
    drop((listener, peers));

    let queued: Vec<_> = (1..8).map(|n| format!("4200{n} queued {n}/0")).collect();
    let queued = queued.iter().map(String::as_str);
    watched.outcomes(8122, &queued.chain(["42008 syn_queue_full 7/0"]).collect::<Vec<_>>());
    watched.synacks(8122);
    watched.totals(8122, &[("syns", 8), ("queued", 7), ("dropped.syn_queue_full", 1)]);
    watched.peaks(8122, 7, 0);
    let drops: u64 = watched.listeners(8122).iter().map(|l| l["sk_drops"].as_u64().expect("a count")).sum();
    assert_eq!(drops, 1);
}

#[test]
fn a_full_syn_queue_answers_with_a_cookie() {
    let ns = Netns::new();
    ns.sysctl("net/ipv4/tcp_syncookies", "1");
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let listener = Sock::listen(&ns, at(8123), 1);
    watch.depths(8123, 0, 0);
    let mut peers = half_open(&tun, 8123, 42001..42003);
    watch.depths(8123, 2, 0);
    let mut late = half_open(&tun, 8123, 42003..42005);
    watch.counted("SyncookiesSent", 2);
    // The depth shows nothing of it.
    watch.depths(8123, 2, 0);
    late[0].send(ACK, b"");
    watch.depths(8123, 2, 1);
    peers[0].send(ACK, b"");
    watch.depths(8123, 1, 2);
    // A cookie that was never sent.
    let mut bogus = tun.peer(42009);
    bogus.meets(8123);
    bogus.ack = 77;
    bogus.send(ACK, b"");
    drop((listener.accept(), listener.accept()));
    watch.depths(8123, 1, 0);
    let watched = watch.stop();

    watched.outcomes(
        8123,
        &[
            "42001 queued 1/0",
            "42002 queued 2/0",
            "42003 cookie_sent 2/0",
            "42004 cookie_sent 2/0",
            "42003 cookie_completed 2/1",
            "42001 completed 1/2",
        ],
    );
    watched.totals(
        8123,
        &[("syns", 4), ("queued", 2), ("completed", 2), ("accepted", 2), ("cookies_sent", 2), ("cookies_ok", 1)],
    );
    watched.peaks(8123, 2, 2);
    // By a hook, or concluded from the namespace's counters: there is no other listener.
    let sent: u64 = watched.listeners(8123).iter().filter_map(|l| l["cookies_sent"].as_u64()).sum();
    assert_eq!(sent, 2);
    assert_eq!(watched.run.at_both(8123, 42003).has("options", "syncookie"), served("cookies") != Served::No);
    assert!(!watched.run.at_both(8123, 42001).has("options", "syncookie"));
}

#[test]
fn always_cookies_and_clients_that_come_in_by_them() {
    let ns = Netns::new();
    ns.sysctl("net/ipv4/tcp_syncookies", "2");
    let watch = Watch::start(&ns);
    let listener = Sock::listen(&ns, local(8124), 8);
    watch.depths(8124, 0, 0);
    let mut ports = Vec::new();
    let mut ends = Vec::new();
    for n in 1..=3 {
        let client = Sock::connected(&ns, local(8124));
        ports.push(client.local().port());
        watch.depths(8124, 0, n);
        ends.push(client);
    }
    (0..3).for_each(|_| ends.push(listener.accept()));
    watch.depths(8124, 0, 0);
    let watched = watch.stop();

    let lines: Vec<_> = ports
        .iter()
        .enumerate()
        .flat_map(|(n, port)| [format!("{port} cookie_sent 0/{n}"), format!("{port} cookie_completed 0/{}", n + 1)])
        .collect();
    watched.outcomes(8124, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    watched.synacks(8124);
    watched.totals(8124, &[("syns", 3), ("completed", 3), ("accepted", 3), ("cookies_sent", 3), ("cookies_ok", 3)]);
    watched.peaks(8124, 0, 3);
    for port in ports {
        let server = watched.run.at_both(8124, port);
        assert_eq!(server.has("options", "syncookie"), served("cookies") != Served::No, "{}", server.0);
        // No request was kept: its life begins at the final ACK.
        assert_eq!(server.0["states"][0]["state"], "SYN_RECV", "{}", server.0);
    }
}
