//! How connections begin, or do not.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;

use crate::support::{
    netns::Netns,
    now,
    process::me,
    run::{arrow, brief},
    segment::flag::{ACK, FIN, SYN},
    skipped,
    socket::{Pair, Sock, close_in_order, local, pair},
    tracer::{Tracer, traced},
    tun::{KERNEL, Tun, at},
    wait_until,
};

const CLIENT: &str = "client SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT end=fin by=local";
const SERVER: &str = "server SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE end=fin by=remote";
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;

/// Carry a few bytes both ways and close, the client first.
fn talk(ns: &Netns, Pair { listener: _listener, client, server }: Pair) {
    client.send(b"ping");
    server.receive(4);
    server.send(b"pong!");
    client.receive(5);
    close_in_order(client, server);
    ns.quiet();
}

#[test]
fn quick_ipv6() {
    let run = traced(|ns| talk(ns, pair(ns, (Ipv6Addr::LOCALHOST, 7101).into())));
    assert_eq!(run.lives(), [CLIENT, SERVER]);
    for conn in run.conns.iter().filter(|c| c.text("role") != "listener") {
        assert_eq!((conn.text("family"), conn.text("laddr"), conn.text("raddr")), ("ipv6", "::1", "::1"));
        conn.owned_by(&me());
    }
    run.only("client").carried(4, 5);
    run.only("server").carried(5, 4);
}

#[test]
fn v4_mapped() {
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    let run = traced(|ns| {
        let listener = Sock::listen(ns, (Ipv6Addr::UNSPECIFIED, 7102).into(), 16);
        let client = Sock::connected(ns, (mapped, 7102).into());
        let server = listener.accept();
        talk(ns, Pair { listener, client, server });
    });
    assert_eq!(run.lives(), [CLIENT, SERVER]);
    for role in ["client", "server"] {
        let conn = run.only(role);
        let address = mapped.to_string();
        assert_eq!((conn.text("family"), conn.text("laddr"), conn.text("raddr")), ("ipv6", &*address, &*address));
    }
    run.only("client").carried(4, 5);
}

#[test]
fn quick_refused() {
    let run = traced(|ns| {
        let client = Sock::new(ns, local(7103));
        let err = client.connect(local(7103)).expect_err("nobody listens");
        assert_eq!(err.raw_os_error(), Some(libc::ECONNREFUSED));
    });
    assert_eq!(run.lives(), ["client SYN_SENT CLOSE end=refused by=remote"]);
    let client = run.only("client");
    client.owned_by(&me());
    client.carried(0, 0);
    assert_eq!((client.number("rport"), client.0["errno"].as_u64()), (7103, Some(libc::ECONNREFUSED as u64)));
    assert_ne!(client.number("lport"), 0);
}

#[test]
fn connect_timeout() {
    let run = traced(|ns| {
        ns.sysctl("net/ipv4/tcp_syn_retries", "1");
        let tun = Tun::new(ns);
        let peer = tun.peer(7104);
        let client = Sock::new(ns, peer.addr());
        let err = client.connect(peer.addr()).expect_err("the peer is silent");
        assert_eq!(err.raw_os_error(), Some(libc::ETIMEDOUT));
    });
    assert_eq!(run.lives(), ["client SYN_SENT CLOSE end=connect_timeout by=none"]);
    let client = run.only("client");
    client.owned_by(&me());
    // How many SYNs one retry makes changed in 6.5 (tcp_syn_linear_timeouts).
    assert!(client.number("syn_retrans") >= 1, "{}", client.0);
    assert_eq!(client.number("segs_out"), 1 + client.number("syn_retrans"), "{}", client.0);
    assert_eq!(client.number("segs_in"), 0, "{}", client.0);
    assert!(client.number("duration_us") > 1_000_000, "{}", client.0);
}

#[test]
fn unreachable() {
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let mut peer = tun.peer(7105);
        let client = Sock::new(ns, peer.addr());
        client.start_connect(peer.addr());
        let syn = peer.lose(SYN);
        peer.send_unreachable(&syn);
        let err = client.finish_connect().expect_err("the router said so");
        assert_eq!(err.raw_os_error(), Some(libc::EHOSTUNREACH));
    });
    assert_eq!(run.lives(), ["client SYN_SENT CLOSE end=unreachable by=none"]);
    run.only("client").owned_by(&me());
}

#[test]
fn quick_close_in_syn_sent() {
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let mut peer = tun.peer(7106);
        let client = Sock::new(ns, peer.addr());
        client.start_connect(peer.addr());
        peer.lose(SYN);
        assert_eq!(client.state(), SYN_SENT);
        client.close();
    });
    assert_eq!(run.lives(), ["client SYN_SENT CLOSE end=aborted by=local"]);
    run.only("client").owned_by(&me());
    assert!(run.only("client").0.get("actor").is_none(), "{}", run.only("client").0);
}

#[test]
fn simultaneous_open() {
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let mut peer = tun.peer(7107);
        let client = Sock::new(ns, peer.addr());
        client.start_connect(peer.addr());
        // Both SYNs are on their way at the same time.
        peer.lose(SYN);
        peer.send(SYN, b"");
        peer.expect(SYN | ACK);
        peer.send(ACK, b"");
        client.finish_connect().expect("open");
        peer.send(ACK, b"hi");
        client.receive(2);
        client.shutdown();
        peer.expect_skipping(ACK, FIN | ACK);
        peer.send(FIN | ACK, b"");
        client.receive_all().expect("the end of the stream");
        client.close();
        ns.quiet();
    });
    assert_eq!(run.lives(), ["client SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT end=fin by=local"]);
    let client = run.only("client");
    client.carried(0, 2);
    client.owned_by(&me());
    assert!(client.has("patterns", "simultaneous_open"), "{}", client.0);
}

#[test]
fn self_connect() {
    let run = traced(|ns| {
        let client = Sock::new(ns, local(7108));
        client.bind(local(7108));
        client.connect(local(7108)).expect("to itself");
        client.send(b"echo");
        client.receive(4);
        client.shutdown();
        client.receive_all().expect("its own end of the stream");
        client.close();
        ns.quiet();
    });
    assert_eq!(run.lives(), ["client SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 CLOSING TIME_WAIT end=fin by=both"]);
    let client = run.only("client");
    client.carried(4, 4);
    client.owned_by(&me());
    assert_eq!([client.number("lport"), client.number("rport")], [7108, 7108]);
    assert!(client.has("patterns", "self_connect"), "{}", client.0);
}

#[test]
fn tfo() {
    let run = traced(|ns| {
        ns.sysctl("net/ipv4/tcp_fastopen", "3");
        let listener = Sock::new(ns, local(7109));
        listener.bind(local(7109));
        listener.tcp_option(libc::TCP_FASTOPEN, 16);
        rustix::net::listen(&listener, 16).expect("listen");
        for message in [&b"gets a cookie"[..], b"in the SYN"] {
            let client = Sock::new(ns, local(7109));
            client.send_fast_open(local(7109), message);
            let server = listener.accept();
            server.receive(message.len());
            server.send(b"ok");
            client.receive(2);
            close_in_order(client, server);
            ns.quiet();
        }
    });
    assert_eq!(run.lives(), [CLIENT, CLIENT, SERVER, SERVER]);
    for (conn, (fast, sent, received)) in
        run.conns.iter().zip([(false, 13, 2), (true, 10, 2), (false, 2, 13), (true, 2, 10)])
    {
        conn.carried(sent, received);
        conn.owned_by(&me());
        assert_eq!(conn.has("options", "tfo"), fast, "{}", conn.0);
    }
}

#[test]
fn tfo_child_is_accepted_before_the_handshake_ends() {
    let run = traced(|ns| {
        // 0x200: data in a SYN needs no cookie.
        ns.sysctl("net/ipv4/tcp_fastopen", "515");
        let tun = Tun::new(ns);
        let listener = Sock::listen_fast_open(ns, at(7110), 16);
        let mut peer = tun.peer(40110);
        peer.meets(7110);
        peer.send(SYN, b"early");
        peer.expect(SYN | ACK);
        let server = listener.accept();
        assert_eq!(server.state(), SYN_RECV);
        server.receive(5);
        peer.send(ACK, b"");
        server.wait_state(ESTABLISHED);
        peer.send(FIN | ACK, b"");
        server.receive_all().expect("the end of the stream");
        server.close();
        peer.expect_skipping(ACK, FIN | ACK);
        peer.send(ACK, b"");
        ns.quiet();
    });
    assert_eq!(run.lives(), [SERVER]);
    run.only("server").carried(0, 5);
    run.only("server").owned_by(&me());
}

#[test]
fn deferred_accept() {
    let mut before_data = 0;
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let addr = (KERNEL, 7111).into();
        let listener = Sock::new(ns, addr);
        listener.bind(addr);
        listener.tcp_option(libc::TCP_DEFER_ACCEPT, 10);
        rustix::net::listen(&listener, 16).expect("listen");
        let mut peer = tun.peer(40111);
        peer.connect(7111);
        before_data = now();
        assert!(ns.rows().contains(&(7111, 40111, SYN_RECV)), "still half-open: {:?}", ns.rows());
        peer.send(ACK, b"data");
        let server = listener.accept();
        server.receive(4);
        peer.send(FIN | ACK, b"");
        server.receive_all().expect("the end of the stream");
        server.close();
        peer.expect_skipping(ACK, FIN | ACK);
        peer.send(ACK, b"");
        ns.quiet();
    });
    assert_eq!(run.lives(), [SERVER]);
    let server = run.only("server");
    server.carried(0, 4);
    server.owned_by(&me());
    let first = run.of_type("transition").find(|t| arrow(t) == "LISTEN>SYN_RECV").expect("a child");
    assert!(first["mono_ns"].as_u64() >= Some(before_data), "the ACK without data makes no child: {first}");
}

#[test]
fn retransmitted_syn() {
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let mut peer = tun.peer(7112);
        let client = Sock::new(ns, peer.addr());
        client.start_connect(peer.addr());
        peer.lose(SYN);
        peer.accept();
        client.finish_connect().expect("open");
        client.send(b"x");
        peer.expect(ACK);
        client.shutdown();
        peer.expect_skipping(ACK, FIN | ACK);
        peer.send(FIN | ACK, b"");
        client.receive_all().expect("the end of the stream");
        client.close();
        ns.quiet();
    });
    assert_eq!(run.lives(), [CLIENT]);
    let client = run.only("client");
    assert_eq!(client.number("syn_retrans"), 1, "{}", client.0);
    assert_eq!([client.number("bytes_acked"), client.number("bytes_received")], [1, 0], "{}", client.0);
    assert!(client.number("handshake_us") > 900_000, "{}", client.0);
}

#[test]
fn retransmitted_syn_ack() {
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let listener = Sock::listen(ns, (KERNEL, 7113).into(), 16);
        let mut peer = tun.peer(40113);
        peer.meets(7113);
        peer.send(SYN, b"");
        peer.lose(SYN | ACK);
        peer.expect(SYN | ACK);
        peer.send(ACK, b"");
        let server = listener.accept();
        peer.send(FIN | ACK, b"");
        server.receive_all().expect("the end of the stream");
        server.close();
        peer.expect_skipping(ACK, FIN | ACK);
        peer.send(ACK, b"");
        ns.quiet();
    });
    assert_eq!(run.lives(), [SERVER]);
    assert_eq!(run.only("server").number("synack_retrans"), 1, "{}", run.only("server").0);
}

#[test]
fn trap1_ports_that_the_kernel_has_not_chosen_yet_or_has_cleared() {
    let (mut chosen, mut listening) = (0, 0);
    let run = traced(|ns| {
        let listener = Sock::new(ns, local(0));
        rustix::net::listen(&listener, 16).expect("listen() binds");
        listening = listener.local().port();
        let client = Sock::connected(ns, local(listening));
        chosen = client.local().port();
        let server = listener.accept();
        close_in_order(client, server);
        ns.quiet();
        listener.close();
        let bound = Sock::new(ns, local(7114));
        bound.bind(local(7114));
        bound.connect(local(7115)).expect_err("nobody listens");
    });
    let lines = |rport: u16| run.of_type("transition").filter(move |t| t["role"] == "client" && t["rport"] == rport);
    for t in lines(listening) {
        // Known from SYN_SENT>ESTABLISHED on; before that absent, never 0.
        assert!(t["lport"] == chosen || (arrow(t) == "CLOSE>SYN_SENT" && t.get("lport").is_none()), "{t}");
    }
    assert_eq!(lines(listening).count(), 5);
    // Bound: known at once, and still after the kernel has cleared both ports.
    let refused: Vec<_> = lines(7115).map(|t| (arrow(t), t["lport"].as_u64())).collect();
    assert_eq!(refused, [("CLOSE>SYN_SENT".into(), Some(7114)), ("SYN_SENT>CLOSE".into(), Some(7114))]);
    // listen() without bind(): the port is chosen after the transition.
    let at: Vec<_> = run.of_type("transition").filter(|t| t["role"] == "listener").collect();
    assert_eq!(at.iter().map(|t| arrow(t)).collect::<Vec<_>>(), ["CLOSE>LISTEN", "LISTEN>CLOSE"]);
    assert!(at[0].get("lport").is_none_or(|p| *p == listening), "absent, never 0: {}", at[0]);
    assert_eq!(at[1]["lport"], listening, "{}", at[1]);
    assert_eq!(run.at(chosen).number("rport"), u64::from(listening));
}

/// Up to 6.12 a child reports LISTEN>SYN_RECV with its listener's cookie and without a remote port.
#[test]
fn trap2_a_child_never_passes_for_its_listener() {
    let (mut listening, mut children) = (String::new(), Vec::new());
    let run = traced(|ns| {
        let listener = Sock::listen(ns, local(7124), 16);
        // A cookie that exists is what the child would inherit.
        listening = listener.cookie();
        for _ in 0..3 {
            let client = Sock::connected(ns, local(7124));
            let server = listener.accept();
            children.push((server.cookie(), u64::from(client.local().port())));
            close_in_order(client, server);
        }
        ns.quiet();
    });
    for t in run.of_type("transition") {
        assert_eq!(t["sock"] == listening, t["role"] == "listener", "{t}");
    }
    let servers: Vec<_> = run.conns.iter().filter(|c| c.text("role") == "server").collect();
    let found: Vec<_> = servers.iter().map(|c| (c.text("sock").to_owned(), c.number("rport"))).collect();
    assert_eq!(found, children);
    for server in servers {
        let first = run.of_type("transition").find(|t| t["id"] == server.number("id")).expect("transitions");
        assert_eq!(arrow(first), "LISTEN>SYN_RECV");
        assert!(first["rport"].is_null() || first["rport"] == server.0["rport"], "absent, never wrong: {first}");
    }
}

#[test]
fn trap4_reconnect_on_the_same_descriptor() {
    let mut cookie = String::new();
    let run = traced(|ns| {
        let client = Sock::new(ns, local(7116));
        client.connect(local(7116)).expect_err("nobody listens yet");
        cookie = client.cookie();
        let listener = Sock::listen(ns, local(7116), 16);
        client.connect(local(7116)).expect("now somebody does");
        let server = listener.accept();
        talk(ns, Pair { listener, client, server });
    });
    assert_eq!(run.lives(), ["client SYN_SENT CLOSE end=refused by=remote", CLIENT, SERVER]);
    let [refused, open] = [&run.conns[0], &run.conns[1]];
    assert_eq!([refused.text("sock"), open.text("sock")], [&cookie, &cookie]);
    assert_ne!(refused.number("id"), open.number("id"));
    refused.carried(0, 0);
    open.carried(4, 5);
    open.owned_by(&me());
}

#[test]
fn trap4_disconnect_and_connect_again() {
    let run = traced(|ns| {
        let Pair { listener, client, server } = pair(ns, local(7117));
        rustix::net::connect_unspec(&client).expect("disconnect");
        assert_eq!(server.receive_all().expect_err("a reset").raw_os_error(), Some(libc::ECONNRESET));
        server.close();
        client.connect(local(7117)).expect("connect again");
        let server = listener.accept();
        talk(ns, Pair { listener, client, server });
    });
    assert_eq!(
        run.lives(),
        [
            "client SYN_SENT ESTABLISHED CLOSE end=rst_sent by=local",
            CLIENT,
            "server SYN_RECV ESTABLISHED CLOSE end=rst_received by=remote",
            SERVER
        ]
    );
    assert_eq!(run.conns[0].text("sock"), run.conns[1].text("sock"));
}

#[test]
fn trap4_addresses_reused_at_once() {
    const CONNECTIONS: usize = 300;
    let run = traced(|ns| {
        let listener = Sock::listen(ns, local(7118), 16);
        for _ in 0..CONNECTIONS {
            // Both ends go at once, so that the allocator hands the same memory out again.
            let client = Sock::connected(ns, local(7118));
            let server = listener.accept();
            client.linger_zero();
            client.close();
            server.wait_state(7);
            server.close();
        }
        ns.quiet();
    });
    let client = "client SYN_SENT ESTABLISHED CLOSE end=rst_sent by=local";
    let server = "server SYN_RECV ESTABLISHED CLOSE end=rst_received by=remote";
    let lives = run.lives();
    let odd: Vec<_> =
        run.conns.iter().filter(|c| c.text("role") != "listener" && ![client, server].contains(&&*c.life())).collect();
    assert!(odd.is_empty(), "{:?}", odd.iter().map(|c| &c.0).collect::<Vec<_>>());
    assert_eq!(lives.iter().filter(|l| *l == client).count(), CONNECTIONS);
    assert_eq!(lives.len(), 2 * CONNECTIONS);
    let cookies: std::collections::HashSet<_> = run.conns.iter().map(|c| c.text("sock")).collect();
    assert_eq!(cookies.len(), run.conns.len(), "a cookie each");
}

#[test]
fn trap5_the_first_event_of_a_server_is_the_final_ack() {
    let (mut syn, mut ack) = (0, 0);
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let listener = Sock::listen(ns, (KERNEL, 7119).into(), 16);
        let mut peer = tun.peer(40119);
        peer.meets(7119);
        syn = now();
        peer.send(SYN, b"");
        peer.expect(SYN | ACK);
        wait_until("the half-open request", || ns.rows().contains(&(7119, 40119, SYN_RECV)));
        ack = now();
        peer.send(ACK, b"");
        let server = listener.accept();
        peer.send(FIN | ACK, b"");
        server.receive_all().expect("the end of the stream");
        server.close();
        peer.expect_skipping(ACK, FIN | ACK);
        peer.send(ACK, b"");
        ns.quiet();
    });
    assert_eq!(run.lives(), [SERVER]);
    let id = run.only("server").number("id");
    let first = run.of_type("transition").find(|t| t["id"] == id).expect("transitions");
    assert_eq!(arrow(first), "LISTEN>SYN_RECV");
    assert!(syn < ack && first["mono_ns"].as_u64() >= Some(ack), "{first}");
}

#[test]
fn trap11_only_tcp() {
    let run = traced(|ns| {
        let udp = ns.enter(|| std::net::UdpSocket::bind("127.0.0.1:7120").expect("UDP"));
        udp.connect("127.0.0.1:7120").expect("to itself");
        udp.send(b"noise").expect("send");
        let mptcp = rustix::net::Protocol::from_raw(262.try_into().expect("not zero"));
        let addr: SocketAddr = local(7121);
        let listener = Sock::with_protocol(ns, addr, Some(mptcp)).expect("MPTCP");
        listener.bind(addr);
        rustix::net::listen(&listener, 16).expect("listen");
        let client = Sock::with_protocol(ns, addr, Some(mptcp)).expect("MPTCP");
        client.connect(addr).expect("connect");
        let server = listener.accept();
        client.send(b"subflow");
        server.receive(7);
        close_in_order(client, server);
        ns.quiet();
        // SCTP shares the tracepoint.
        let sctp = rustix::net::Protocol::from_raw(132.try_into().expect("not zero"));
        if let Ok(listener) = Sock::with_protocol(ns, local(7122), Some(sctp)) {
            listener.bind(local(7122));
            rustix::net::listen(&listener, 16).expect("listen");
            let client = Sock::with_protocol(ns, local(7122), Some(sctp)).expect("SCTP");
            client.connect(local(7122)).expect("connect");
            drop((client, listener));
        } else {
            skipped("trap11_only_tcp", "SCTP");
        }
    });
    // A subflow is an ordinary TCP connection; the MPTCP socket above it is none.
    let opened: Vec<_> = run
        .of_type("transition")
        .filter(|t| ["CLOSE>LISTEN", "CLOSE>SYN_SENT", "LISTEN>SYN_RECV"].contains(&arrow(t).as_str()))
        .map(arrow)
        .collect();
    assert_eq!(opened, ["CLOSE>LISTEN", "CLOSE>SYN_SENT", "LISTEN>SYN_RECV"]);
    for role in ["client", "server"] {
        assert!(run.only(role).states().contains("ESTABLISHED"), "{}", run.only(role).0);
    }
    run.only("client").owned_by(&me());
    let ports: Vec<_> =
        ["lport", "rport"].iter().flat_map(|p| run.lines.iter().filter_map(|l| l[*p].as_u64())).collect();
    assert!(ports.contains(&7121) && !ports.contains(&7120) && !ports.contains(&7122), "{}", brief(&run.text));
}

#[test]
fn trap12_inode_whatever_its_width() {
    let mut inodes = [0; 3];
    let run = traced(|ns| {
        let all = pair(ns, local(7123));
        inodes = [all.client.inode(), all.server.inode(), all.listener.inode()];
        talk(ns, all);
    });
    let [client, server, listener] = inodes;
    assert_eq!([run.only("client").number("inode"), run.only("server").number("inode")], [client, server]);
    let listening = run.of_type("transition").find(|t| t["role"] == "listener").expect("CLOSE>LISTEN");
    assert_eq!(listening["inode"], listener);
}

/// Its port is chosen inside of listen(), after CLOSE>LISTEN.
#[test]
fn listener_without_bind() {
    let ns = Netns::new();
    let tracer = Tracer::start(&[&ns]);
    // With a filter by port the transition waits until the port is known.
    let (inside, outside) =
        (Tracer::start_with(&[&ns], &["--lport", "1024-65535"]), Tracer::start_with(&[&ns], &["--lport", "1"]));
    let listener = Sock::new(&ns, local(1));
    rustix::net::listen(&listener, 16).expect("listen");
    let port = listener.local().port();
    // The exit of listen() tells the port at once; where accept has a better hook than system calls' exits, the first child does.
    let start = tracer.wait_for("the start", |l| l["type"] == "start");
    let at_once = start["signals"]["accept"].as_str().expect("a hook").contains("sys_exit");
    if at_once {
        inside.wait_for("the listener", |l| l["role"] == "listener" && l["lport"] == port);
    }
    let client = Sock::connected(&ns, local(port));
    tracer.wait_for("the server", |l| l["role"] == "server" && l["to"] == "ESTABLISHED");
    let server = listener.accept();
    close_in_order(client, server);
    listener.close();
    ns.quiet();
    let run = tracer.stop();
    let first = run.of_type("transition").find(|t| t["role"] == "server").expect("a server");
    assert_eq!((&first["lport"], &first["pid"]), (&port.into(), &me().0.into()), "its listener's: {first}");
    let listening: Vec<_> = run.of_type("transition").filter(|t| t["role"] == "listener").collect();
    let ports: Vec<_> = listening.iter().map(|t| (arrow(t), t.get("lport").and_then(Value::as_u64))).collect();
    // What had been printed by then does not say it.
    assert_eq!(ports, [("CLOSE>LISTEN".to_owned(), None), ("LISTEN>CLOSE".to_owned(), Some(u64::from(port)))]);
    if at_once {
        assert!(listening.iter().all(|t| t.get("inferred").is_none()), "seen, not concluded: {listening:?}");
    }
    let run = inside.stop();
    let ports: Vec<_> = run.of_type("transition").map(|t| (arrow(t), t["lport"].as_u64())).collect();
    assert!(ports.iter().all(|p| p.1.is_some_and(|p| p >= 1024)), "{ports:?}");
    assert!(ports.contains(&("CLOSE>LISTEN".to_owned(), Some(u64::from(port)))), "{ports:?}");
    assert!(!at_once || ports[0].0 == "CLOSE>LISTEN", "{ports:?}");
    let run = outside.stop();
    assert_eq!(run.of_type("transition").count(), 0, "{}", run.text);
}
