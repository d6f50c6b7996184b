//! The accept queue is full: at the SYN, at the final ACK, and with `tcp_abort_on_overflow`.

use crate::support::{
    netns::Netns,
    queues::{Served, Watch, expect_again, half_open, served},
    segment::flag::{ACK, RST, SYN},
    socket::Sock,
    tun::{Tun, at},
};

#[test]
fn backlog_n_holds_n_and_one_and_the_next_syn_is_dropped() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let listener = Sock::listen(&ns, at(8111), 2);
    watch.depths(8111, 0, 0);
    for (i, port) in (41001..41004).enumerate() {
        tun.peer(port).connect(8111);
        watch.depths(8111, 0, i as u64 + 1);
    }
    let mut late = tun.peer(41004);
    late.meets(8111);
    late.send(SYN, b"");
    watch.counted("ListenOverflows", 1);
    watch.depths(8111, 0, 3);
    drop(listener.accept());
    watch.depths(8111, 0, 2);
    // The SYN again, as a client sends it: now there is room.
    late.seq = late.seq.wrapping_sub(1);
    late.connect(8111);
    watch.depths(8111, 0, 3);
    let watched = watch.stop();

    watched.outcomes(
        8111,
        &[
            "41001 queued 1/0",
            "41001 completed 0/1",
            "41002 queued 1/1",
            "41002 completed 0/2",
            "41003 queued 1/2",
            "41003 completed 0/3",
            "41004 accept_queue_full_syn 0/3",
            "41004 queued 1/2",
            "41004 completed 0/3",
        ],
    );
    watched.totals(
        8111,
        &[("syns", 5), ("queued", 4), ("completed", 4), ("accepted", 1), ("dropped.accept_queue_full_syn", 1)],
    );
    watched.audited(&["ListenDrops", "ListenOverflows", "PassiveOpens", "sk_drops"]);
    watched.peaks(8111, 1, 3);
    let drops: u64 = watched.listeners(8111).iter().map(|l| l["sk_drops"].as_u64().expect("a count")).sum();
    assert_eq!(drops, 1);
    if served("overflow") != Served::No {
        // By a hook, or concluded from the namespace's counters: there is no other listener.
        let full = |l: &&serde_json::Value| l["dropped"]["accept_queue_full_syn"] == 1;
        assert_eq!(watched.listeners(8111).into_iter().filter(full).count(), 1);
    }
}

/// Two wait for accept() of backlog 1, and a third is half-open: its final ACK comes too late.
fn overflown(ns: &Netns, tun: &Tun, port: u16, watch: &Watch<'_>) -> (Sock, crate::support::tun::Peer) {
    let listener = Sock::listen(ns, at(port), 1);
    watch.depths(port, 0, 0);
    let mut peers = half_open(tun, port, 41001..41003);
    watch.depths(port, 2, 0);
    peers[0].send(ACK, b"");
    watch.depths(port, 1, 1);
    let mut third = half_open(tun, port, 41003..41004).remove(0);
    watch.depths(port, 2, 1);
    peers[1].send(ACK, b"");
    watch.depths(port, 1, 2);
    third.send(ACK, b"");
    watch.counted("ListenOverflows", 1);
    (listener, third)
}

const BEFORE: [&str; 6] = [
    "41001 queued 1/0",
    "41002 queued 2/0",
    "41001 completed 1/1",
    "41003 queued 2/1",
    "41002 completed 1/2",
    "41003 accept_queue_full_ack 1/2",
];

#[test]
fn overflow_at_the_final_ack_and_its_later_completion() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let (listener, mut third) = overflown(&ns, &tun, 8112, &watch);
    watch.depths(8112, 1, 2);
    drop(listener.accept());
    watch.depths(8112, 1, 1);
    // The kernel did not take the ACK: it asks again.
    expect_again(&mut third);
    third.send(ACK, b"");
    watch.depths(8112, 0, 2);
    let watched = watch.stop();

    watched.outcomes(8112, &[&BEFORE[..], &["41003 completed 0/2"]].concat());
    watched.totals(
        8112,
        &[("syns", 3), ("queued", 3), ("completed", 3), ("accepted", 1), ("dropped.accept_queue_full_ack", 1)],
    );
    watched.peaks(8112, 2, 2);
    let last = *watched.requests(8112).last().expect("not empty");
    if served("accept_queue") != Served::No {
        assert!(last["synack_retrans"].as_u64() >= Some(1), "{last}");
        assert!(last["age_us"].as_u64() > Some(500_000), "{last}");
        let server = watched.run.at_both(8112, 41003);
        let same = (&server.0["id"], &server.0["synack_retrans"]);
        assert_eq!((&last["id"], &last["synack_retrans"]), same, "{last}");
    }
}

#[test]
fn overflow_at_the_final_ack_aborts_where_it_is_told_to() {
    let ns = Netns::new();
    ns.sysctl("net/ipv4/tcp_abort_on_overflow", "1");
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let (listener, mut third) = overflown(&ns, &tun, 8113, &watch);
    third.expect(RST);
    watch.depths(8113, 0, 2);
    let watched = watch.stop();
    drop(listener);

    watched.outcomes(8113, &[&BEFORE[..], &["41003 accept_queue_full_ack:aborted 0/2"]].concat());
    watched.totals(
        8113,
        &[("syns", 3), ("queued", 3), ("completed", 2), ("dropped.accept_queue_full_ack", 1), ("dropped.rst", 1)],
    );
    watched.peaks(8113, 2, 2);
}
