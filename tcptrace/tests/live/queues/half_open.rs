//! Half-open requests that never become connections: nobody answers, or the peer resets them.

use crate::support::{
    netns::Netns,
    process::me,
    queues::{Served, Watch, expect_again, half_open, served},
    segment::flag::{ACK, RST},
    slowness,
    socket::Sock,
    tun::{Tun, at},
};

#[test]
fn a_half_open_request_times_out_after_its_retransmits() {
    let ns = Netns::new();
    // Enough for the second peer to answer in time on a slow machine.
    let retries = if slowness() > 1 { 3 } else { 2 };
    ns.sysctl("net/ipv4/tcp_synack_retries", &retries.to_string());
    let tun = Tun::new(&ns);
    // Looks at a listener where little happens for many seconds.
    let watch = Watch::start_with(&ns, "300ms");
    let listener = Sock::listen(&ns, at(8131), 4);
    watch.depths(8131, 0, 0);
    let mut peers = half_open(&tun, 8131, 43001..43003);
    watch.depths(8131, 2, 0);
    // The first is silent; the second answers another SYN-ACK.
    expect_again(&mut peers[1]);
    peers[1].send(ACK, b"");
    watch.depths(8131, 1, 1);
    watch.depths(8131, 0, 1);
    watch.told(8131, "dropped.synack_timeout", 1);
    let watched = watch.stop();
    drop(listener);

    watched
        .outcomes(8131, &["43001 queued 1/0", "43002 queued 2/0", "43002 completed 1/1", "43001 synack_timeout 0/1"]);
    watched.totals(8131, &[("syns", 2), ("queued", 2), ("completed", 1), ("dropped.synack_timeout", 1)]);
    watched.peaks(8131, 2, 1);
    let young: Vec<_> = watched.listeners(8131).iter().map(|l| l["syn_queue"]["young"].as_u64()).collect();
    assert!(young.contains(&Some(2)) && young.last() == Some(&Some(0)), "{young:?}");
    if served("half_open") != Served::No {
        let gone = *watched.requests(8131).last().expect("not empty");
        assert_eq!((&gone["synack_retrans"], &gone["pid"]), (&retries.into(), &me().0.into()), "{gone}");
        // One second to the next SYN-ACK, then twice as long each time.
        let end = (1_000_000 << (retries + 1)) - 1_000_000;
        assert!(gone["age_us"].as_u64().is_some_and(|us| us > end - 500_000), "{gone}");
        assert_eq!((&gone["peer"], gone.get("sock")), (&"10.77.0.2:43001".into(), None), "{gone}");
    }
}

#[test]
fn a_reset_ends_a_half_open_request() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let listener = Sock::listen(&ns, at(8132), 4);
    watch.depths(8132, 0, 0);
    let mut peers = half_open(&tun, 8132, 43001..43004);
    watch.depths(8132, 3, 0);
    peers[1].send(RST, b"");
    watch.counted("EmbryonicRsts", 1);
    watch.depths(8132, 2, 0);
    peers[0].send(ACK, b"");
    watch.depths(8132, 1, 1);
    peers[2].send(RST, b"");
    watch.depths(8132, 0, 1);
    drop(listener.accept());
    watch.depths(8132, 0, 0);
    let watched = watch.stop();

    watched.outcomes(
        8132,
        &[
            "43001 queued 1/0",
            "43002 queued 2/0",
            "43003 queued 3/0",
            "43002 rst 2/0",
            "43001 completed 1/1",
            "43003 rst 0/1",
        ],
    );
    watched.synacks(8132);
    watched.totals(8132, &[("syns", 3), ("queued", 3), ("completed", 1), ("accepted", 1), ("dropped.rst", 2)]);
    watched.peaks(8132, 3, 1);
    let requests = watched.requests(8132);
    for (i, request) in requests.iter().enumerate() {
        let twin = requests.iter().find(|r| r["peer"] == request["peer"]).expect("itself at least");
        assert_eq!(
            (&twin["id"], &twin["rcv_isn"], &twin["snt_isn"]),
            (&request["id"], &request["rcv_isn"], &request["snt_isn"]),
            "{i}"
        );
    }
}
