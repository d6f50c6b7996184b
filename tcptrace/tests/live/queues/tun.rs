//! What depends on the order of segments, played by a scripted peer: SYNs that come again, cookies nobody sent, data in a SYN, an ACK
//! that a listener passes over on purpose.

use crate::support::{
    netns::Netns,
    queues::{Served, Watch, counter, served, tcp_counter},
    segment::{
        Segment,
        flag::{ACK, FIN, RST, SYN},
    },
    socket::Sock,
    tun::{Tun, at},
    wait_until,
};

#[test]
fn a_duplicate_syn_is_the_same_request() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let listener = Sock::listen(&ns, at(8201), 4);
    let mut peer = tun.peer(40201);
    peer.meets(8201);
    peer.send(SYN, b"");
    let answer = peer.expect(SYN | ACK);
    watch.depths(8201, 1, 0);
    // As if that answer had been lost.
    peer.ack = answer.seq;
    peer.send_at(1000, 0, SYN, b"");
    assert_eq!(peer.expect(SYN | ACK).seq, answer.seq);
    watch.depths(8201, 1, 0);
    peer.send(ACK, b"");
    watch.depths(8201, 0, 1);
    let server = listener.accept();
    let again = tcp_counter(&ns, "RetransSegs");
    assert!(again >= 1, "the answer to the duplicate");
    watch.depths(8201, 0, 0);
    drop(server);
    let watched = watch.stop();
    watched.outcomes(8201, &["40201 queued 1/0", "40201 completed 0/1"]);
    watched.totals(8201, &[("syns", 1), ("queued", 1), ("completed", 1), ("accepted", 1), ("synack_retrans", again)]);
    watched.peaks(8201, 1, 1);
    assert_eq!(watched.run.only("server").number("synack_retrans"), again);
    for r in watched.requests(8201).into_iter().filter(|r| r["outcome"] == "completed") {
        assert_eq!(r["synack_retrans"], again, "{r}");
    }
}

/// A SYN of an older connection is answered with an ACK and changes nothing; one inside the window ends the request.
#[test]
fn a_stale_syn() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let listener = Sock::listen(&ns, at(8202), 4);
    watch.depths(8202, 0, 0);
    let mut peer = tun.peer(40202);
    peer.meets(8202);
    peer.send_at(500_000, 0, SYN, b"");
    let answer = peer.expect(SYN | ACK);
    peer.send_at(1000, 0, SYN, b"");
    peer.expect_any(&[ACK]);
    watch.depths(8202, 1, 0);
    peer.send_at(500_001, answer.seq + 1, ACK, b"");
    watch.depths(8202, 0, 1);
    let server = listener.accept();
    watch.depths(8202, 0, 0);

    let mut peer = tun.peer(40203);
    peer.meets(8202);
    peer.send_at(500_000, 0, SYN, b"");
    peer.expect(SYN | ACK);
    watch.depths(8202, 1, 0);
    peer.send_at(500_100, 0, SYN, b"");
    let reset = peer.expect_any(&[RST, RST | ACK]);
    assert_eq!(reset.ack, 500_101);
    watch.depths(8202, 0, 0);
    watch.counted("EmbryonicRsts", 1);
    let again = tcp_counter(&ns, "RetransSegs");
    drop(server);
    let watched = watch.stop();
    watched.outcomes(8202, &["40202 queued 1/0", "40202 completed 0/1", "40203 queued 1/0", "40203 rst 0/0"]);
    watched.totals(
        8202,
        &[("syns", 2), ("queued", 2), ("completed", 1), ("accepted", 1), ("dropped.rst", 1), ("synack_retrans", again)],
    );
    watched.audited(&["EmbryonicRsts", "PassiveOpens", "sk_drops"]);
    assert_eq!(watched.grown("EmbryonicRsts"), 1);
}

/// "Host unreachable" about a SYN-ACK ends the request; about another segment it does not. Where no hook sees it, it passes for a RST.
#[test]
fn an_icmp_error() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let _listener = Sock::listen(&ns, at(8206), 4);
    watch.depths(8206, 0, 0);
    let mut peer = tun.peer(40207);
    peer.meets(8206);
    peer.send(SYN, b"");
    let answer = peer.expect(SYN | ACK);
    watch.depths(8206, 1, 0);
    peer.send_unreachable(&Segment { seq: answer.seq.wrapping_add(1), ..answer.clone() });
    watch.counted("OutOfWindowIcmps", 1);
    watch.depths(8206, 1, 0);
    peer.send_unreachable(&answer);
    watch.counted("ListenDrops", 1);
    watch.depths(8206, 0, 0);
    let watched = watch.stop();
    let (outcome, total) = if served("icmp_error") == Served::Exact {
        ("other:icmp_error", "dropped.other")
    } else {
        ("rst", "dropped.rst")
    };
    let ended = format!("40207 {outcome} 0/0");
    watched.outcomes(8206, &["40207 queued 1/0", &ended]);
    watched.totals(8206, &[("syns", 1), ("queued", 1), (total, 1)]);
    watched.audited(&["ListenDrops", "sk_drops"]);
}

#[test]
fn a_bogus_cookie() {
    let ns = Netns::new();
    ns.sysctl("net/ipv4/tcp_syncookies", "2");
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let listener = Sock::listen(&ns, at(8203), 4);
    // Counters grow from here on.
    watch.depths(8203, 0, 0);
    let mut peer = tun.peer(40204);
    peer.meets(8203);
    peer.send(SYN, b"");
    let cookie = peer.expect(SYN | ACK).seq;
    watch.depths(8203, 0, 0);
    peer.send_at(1001, cookie.wrapping_add(0x1234_5678), ACK, b"");
    peer.expect_any(&[RST]);
    watch.counted("SyncookiesFailed", 1);
    watch.depths(8203, 0, 0);
    peer.send_at(1001, cookie.wrapping_add(1), ACK, b"");
    watch.depths(8203, 0, 1);
    let server = listener.accept();
    watch.depths(8203, 0, 0);
    drop(server);
    let watched = watch.stop();
    watched.outcomes(8203, &["40204 cookie_sent 0/0", "40204 cookie_completed 0/1"]);
    watched.totals(8203, &[("syns", 1), ("cookies_sent", 1), ("cookies_ok", 1), ("completed", 1), ("accepted", 1)]);
    watched.audited(&["PassiveOpens", "SyncookiesRecv", "SyncookiesSent", "TCPReqQFullDoCookies"]);
    let told = ["SyncookiesSent", "SyncookiesFailed", "SyncookiesRecv"].map(|name| watched.grown(name));
    assert_eq!(told, [1, 1, 1], "in the namespace's counters");
    assert_eq!(watched.run.only("server").has("options", "syncookie"), served("cookies") != Served::No);
}

/// Data in the SYN: a process has the connection before its handshake ends.
#[test]
fn fast_open() {
    let ns = Netns::new();
    // 0x200: data in a SYN needs no cookie.
    ns.sysctl("net/ipv4/tcp_fastopen", "515");
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let listener = Sock::listen_fast_open(&ns, at(8204), 4);
    let mut peer = tun.peer(40205);
    peer.meets(8204);
    peer.send(SYN, b"early");
    peer.expect(SYN | ACK);
    // The child is in SYN_RECV, but no half-open request: `ss` does not tell them apart.
    let queued = watch.row(8204);
    assert_eq!((&queued["syn_queue"]["len"], &queued["accept_queue"]["len"]), (&0.into(), &1.into()), "{queued}");
    assert_eq!((&queued["fast_open_queue"]["len"], &queued["fast_open_queue"]["limit"]), (&1.into(), &16.into()));
    let server = listener.accept();
    server.receive(5);
    peer.send(ACK, b"");
    watch.depths(8204, 0, 0);
    assert_eq!(watch.row(8204)["fast_open_queue"]["len"], 0);
    let again = tcp_counter(&ns, "RetransSegs");
    peer.send(FIN | ACK, b"");
    server.receive_all().expect("the end of the stream");
    server.close();
    peer.expect_skipping(ACK, FIN | ACK);
    peer.send(ACK, b"");
    ns.quiet();
    let watched = watch.stop();
    watched.outcomes(8204, &["40205 completed:fast_open 0/1"]);
    watched
        .totals(8204, &[("syns", 1), ("completed", 1), ("fast_opens", 1), ("accepted", 1), ("synack_retrans", again)]);
    let server = watched.run.only("server");
    server.carried(0, 5);
    assert_eq!(server.0["accept_wait_us"].is_u64(), served("fast_open") != Served::No, "{}", server.0);
}

/// The first ACK is passed over on purpose: the request stays until data comes, and is no sign of a flood.
#[test]
fn deferred_accept() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watch::start(&ns);
    let addr = at(8205);
    let listener = Sock::new(&ns, addr);
    listener.bind(addr);
    listener.tcp_option(libc::TCP_DEFER_ACCEPT, 60);
    rustix::net::listen(&listener, 4).expect("listen");
    // Counters grow from here on.
    watch.depths(8205, 0, 0);
    let mut peer = tun.peer(40206);
    peer.meets(8205);
    peer.send(SYN, b"");
    peer.expect(SYN | ACK);
    peer.send(ACK, b"");
    watch.counted("TCPDeferAcceptDrop", 1);
    watch.depths(8205, 1, 0);
    assert!(watch.row(8205)["defer_accept"].as_u64() > Some(0));
    let start = std::time::Instant::now();
    // Past the time of its first SYN-ACK: it is not sent again, for it was answered.
    wait_until("a second to pass", || start.elapsed().as_millis() > 1300);
    watch.depths(8205, 1, 0);
    let again = tcp_counter(&ns, "RetransSegs");
    peer.send(ACK, b"data");
    watch.depths(8205, 0, 1);
    let server = listener.accept();
    server.receive(4);
    watch.depths(8205, 0, 0);
    drop(server);
    assert_eq!(counter(&ns, "ListenDrops"), 0);
    let watched = watch.stop();
    watched.outcomes(8205, &["40206 queued 1/0", "40206 completed 0/1"]);
    watched.totals(8205, &[("syns", 1), ("queued", 1), ("completed", 1), ("accepted", 1), ("synack_retrans", again)]);
    assert_eq!(watched.grown("TCPDeferAcceptDrop"), 1);
    if served("half_open") != Served::No {
        let age = watched.requests(8205).last().and_then(|r| r["age_us"].as_u64());
        assert!(age > Some(1_300_000), "{age:?}");
    }
}
