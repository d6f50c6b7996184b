//! How connections end.

use std::net::SocketAddr;

use crate::support::{
    netns::Netns,
    process::{self, comm, me},
    programs::nginx,
    run::brief,
    segment::flag::{ACK, FIN, RST, SYN},
    socket::{Pair, Sock, close_in_order, local, pair},
    tracer::{Tracer, traced},
    tun::Tun,
    wait_until,
};

const CLOSED_LOCALLY: &str = "SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT end=fin by=local";
const CLOSE_WAIT: u8 = 8;
const FIN_WAIT2: u8 = 5;
const ESTABLISHED: u8 = 1;

#[test]
fn quick_normal_close_by_the_client() {
    let run = traced(|ns| {
        let Pair { listener, client, server } = pair(ns, local(7001));
        client.send(b"hello");
        server.receive(5);
        server.send(b"welcome");
        client.receive(7);
        close_in_order(client, server);
        ns.quiet();
        drop(listener);
    });
    assert_eq!(
        run.lives(),
        [
            format!("client {CLOSED_LOCALLY}"),
            "server SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE end=fin by=remote".into()
        ]
    );
    for (role, sent, received) in [("client", 5, 7), ("server", 7, 5)] {
        let conn = run.only(role);
        conn.owned_by(&me());
        conn.carried(sent, received);
        assert_eq!([conn.number("unread"), conn.number("unsent"), conn.number("retrans")], [0; 3], "{}", conn.0);
        assert_eq!((conn.text("family"), conn.text("laddr"), conn.text("raddr")), ("ipv4", "127.0.0.1", "127.0.0.1"));
    }
    let (client, server) = (run.only("client"), run.only("server"));
    assert_eq!((client.number("rport"), server.number("lport")), (7001, 7001));
    assert_eq!(client.number("lport"), server.number("rport"));
    assert_eq!(client.0["isn_local"], server.0["isn_remote"]);
    assert_eq!(client.0["isn_remote"], server.0["isn_local"]);
    assert!(client.0["handshake_us"].is_u64(), "{}", client.0);
    assert!(server.0["accept_wait_us"].is_u64(), "{}", server.0);
}

#[test]
fn normal_close_by_the_server() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut curl, mut worker) = (0, 0);
    let run = traced(|ns| {
        let mut nginx = nginx(ns, dir.path(), 7002);
        worker = nginx.children()[0];
        assert_eq!(comm(worker), "nginx");
        // Without a length the client reads to the end of the stream: the server closes first.
        let mut client = process::spawn(
            ns.command("curl")
                .args(["-sS", "--http1.0", "--compressed", "http://127.0.0.1:7002/", "-o"])
                .arg("/dev/null"),
        );
        curl = client.pid();
        assert!(client.wait().success(), "curl");
        ns.quiet();
        nginx.signal(libc::SIGTERM);
        nginx.wait();
    });
    assert_eq!(
        run.lives(),
        [
            "client SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE end=fin by=remote",
            "server SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT end=fin by=local"
        ]
    );
    let (client, server) = (run.only("client"), run.only("server"));
    client.owned_by(&(curl, "curl".into()));
    server.owned_by(&(worker, "nginx".into()));
    client.carried(server.number("bytes_received"), server.number("bytes_sent"));
    assert!(server.number("bytes_sent") > 100, "headers and a page: {}", server.0);
}

#[test]
fn close_of_four_segments_by_the_kernel() {
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let mut peer = tun.peer(7003);
        let client = peer.connected_from(ns);
        client.shutdown();
        peer.expect(FIN | ACK);
        peer.send(ACK, b"");
        client.wait_state(FIN_WAIT2);
        peer.send(FIN | ACK, b"");
        peer.expect(ACK);
        client.close();
        ns.quiet();
    });
    assert_eq!(run.lives(), [format!("client {CLOSED_LOCALLY}")]);
    assert_eq!(run.only("client").0["close_segments"], 4);
    run.only("client").carried(0, 0);
}

#[test]
fn close_of_three_segments_by_the_kernel() {
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let mut peer = tun.peer(7004);
        let client = peer.connected_from(ns);
        client.shutdown();
        peer.expect(FIN | ACK);
        peer.send(FIN | ACK, b"");
        peer.expect(ACK);
        client.close();
        ns.quiet();
    });
    assert_eq!(run.lives(), [format!("client {CLOSED_LOCALLY}")]);
    assert_eq!(run.only("client").0["close_segments"], 3);
}

#[test]
fn close_of_four_segments_by_the_peer() {
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let mut peer = tun.peer(7005);
        let client = peer.connected_from(ns);
        peer.send(FIN | ACK, b"");
        peer.expect(ACK);
        client.close();
        peer.expect(FIN | ACK);
        peer.send(ACK, b"");
        ns.quiet();
    });
    assert_eq!(run.lives(), ["client SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE end=fin by=remote"]);
    assert_eq!(run.only("client").0["close_segments"], 4);
}

#[test]
fn close_of_three_segments_by_the_peer() {
    // The kernel holds its ACK back for at most 40 ms, in which a busy machine may not let the process close. The peer counts.
    let mut segments = 0;
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let mut peer = tun.peer(7006);
        let client = peer.connected_from(ns);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                client.receive_all().expect("the end of the stream");
                client.close();
            });
            peer.send(FIN | ACK, b"");
            segments = if peer.expect_any(&[ACK, FIN | ACK]).flags & FIN == 0 {
                peer.expect(FIN | ACK);
                4
            } else {
                3
            };
            peer.send(ACK, b"");
        });
        ns.quiet();
    });
    assert_eq!(run.lives(), ["client SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE end=fin by=remote"]);
    assert_eq!(run.only("client").0["close_segments"], segments);
}

#[test]
fn half_close() {
    let run = traced(|ns| {
        let Pair { listener: _listener, client, server } = pair(ns, local(7007));
        client.send(b"question");
        client.shutdown();
        assert_eq!(server.receive_all().expect("a stream"), 8);
        client.wait_state(FIN_WAIT2);
        server.send(&[b'a'; 3000]);
        client.receive(3000);
        server.close();
        assert_eq!(client.receive_all().expect("a stream"), 0);
        client.close();
        ns.quiet();
    });
    assert_eq!(
        run.lives(),
        [
            format!("client {CLOSED_LOCALLY}"),
            "server SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE end=fin by=remote".into()
        ]
    );
    for (role, sent, received) in [("client", 8, 3000), ("server", 3000, 8)] {
        run.only(role).carried(sent, received);
        assert!(run.only(role).has("patterns", "half_close"), "{}", run.only(role).0);
    }
}

#[test]
fn close_wait_held() {
    let run = {
        let ns = Netns::new();
        let tracer = Tracer::start(&[&ns]);
        let Pair { listener: _listener, client, server } = pair(&ns, local(7008));
        client.send(b"bye");
        client.shutdown();
        assert_eq!(server.receive_all().expect("a stream"), 3);
        client.wait_state(FIN_WAIT2);
        let run = tracer.stop();
        assert_eq!(server.state(), CLOSE_WAIT);
        run
    };
    assert_eq!(
        run.lives(),
        [
            "client SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 end=open by=local",
            "server SYN_RECV ESTABLISHED CLOSE_WAIT end=open by=remote"
        ]
    );
    run.only("server").owned_by(&me());
}

#[test]
fn orphaned_fin_wait2() {
    let run = traced(|ns| {
        let Pair { listener: _listener, client, server } = pair(ns, local(7009));
        client.close();
        server.wait_state(CLOSE_WAIT);
        wait_until("the orphan", || ns.rows().iter().any(|row| row.1 == 7009 && row.2 == FIN_WAIT2));
        server.close();
        ns.quiet();
    });
    let client = run.only("client");
    assert_eq!(client.life(), "client SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 end=fin by=local");
    assert!(client.has("inferred", "end"), "nobody saw the peer's FIN: {}", client.0);
    assert!(client.has("patterns", "orphan"), "{}", client.0);
    let server = run.only("server");
    assert_eq!(server.life(), "server SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE end=fin by=remote");
}

#[test]
fn quick_time_wait_is_what_the_kernel_calls_close() {
    let run = traced(|ns| {
        let Pair { listener: _listener, client, server } = pair(ns, local(7010));
        close_in_order(client, server);
        ns.quiet();
    });
    let last: Vec<_> = run.of_type("transition").filter(|t| t["to"] == "TIME_WAIT").collect();
    assert_eq!(last.len(), 1, "{}", brief(&run.text));
    assert_eq!((&last[0]["kernel"], &last[0]["from"]), (&"FIN_WAIT2>CLOSE".into(), &"FIN_WAIT2".into()));
    let server = run.transitions(run.only("server").number("id"));
    assert_eq!(server.last().map(String::as_str), Some("LAST_ACK>CLOSE"));
}

#[test]
fn quick_reset_by_linger_zero() {
    let run = traced(|ns| {
        let Pair { listener: _listener, client, server } = pair(ns, local(7011));
        client.send(b"lost");
        server.wait_unread(4);
        client.linger_zero();
        client.close();
        // A ksoftirqd may bring the RST later, and until then the data can be read.
        server.wait_state(7);
        assert_eq!(server.receive_all().expect_err("a reset").raw_os_error(), Some(libc::ECONNRESET));
        server.close();
        ns.quiet();
    });
    assert_eq!(
        run.lives(),
        [
            "client SYN_SENT ESTABLISHED CLOSE end=rst_sent by=local",
            "server SYN_RECV ESTABLISHED CLOSE end=rst_received by=remote"
        ]
    );
    run.only("client").carried(4, 0);
    let server = run.only("server");
    assert_eq!([server.number("bytes_received"), server.number("unread")], [4, 4], "{}", server.0);
    server.owned_by(&me());
}

#[test]
fn reset_by_unread_data() {
    let run = traced(|ns| {
        let Pair { listener: _listener, client, server } = pair(ns, local(7012));
        client.send(b"never read");
        server.wait_unread(10);
        server.close();
        assert_eq!(client.receive_all().expect_err("a reset").raw_os_error(), Some(libc::ECONNRESET));
        client.close();
        ns.quiet();
    });
    assert_eq!(
        run.lives(),
        [
            "client SYN_SENT ESTABLISHED CLOSE end=rst_received by=remote",
            "server SYN_RECV ESTABLISHED CLOSE end=rst_sent by=local"
        ]
    );
    run.only("client").carried(10, 0);
    assert_eq!(run.only("server").number("bytes_received"), 10);
}

#[test]
fn reset_in_the_accept_queue() {
    let run = traced(|ns| {
        let listener = Sock::listen(ns, local(7013), 16);
        let client = Sock::connected(ns, local(7013));
        client.linger_zero();
        client.close();
        wait_until("the reset", || ns.rows().iter().all(|row| row.2 != ESTABLISHED));
        let server = listener.accept();
        assert_eq!(server.receive_all().expect_err("a reset").raw_os_error(), Some(libc::ECONNRESET));
        server.close();
        ns.quiet();
    });
    assert_eq!(
        run.lives(),
        [
            "client SYN_SENT ESTABLISHED CLOSE end=rst_sent by=local",
            "server SYN_RECV ESTABLISHED CLOSE end=rst_received by=remote"
        ]
    );
    run.only("server").owned_by(&me());
}

#[test]
fn listener_closed_under_queued_children() {
    let run = traced(|ns| {
        let listener = Sock::listen(ns, local(7014), 16);
        let clients: Vec<_> = (0..3).map(|_| Sock::connected(ns, local(7014))).collect();
        wait_until("the queue", || ns.rows().iter().filter(|r| (r.0, r.2) == (7014, ESTABLISHED)).count() == 3);
        listener.close();
        for client in clients {
            assert_eq!(client.receive_all().expect_err("a reset").raw_os_error(), Some(libc::ECONNRESET));
        }
        ns.quiet();
    });
    let client = "client SYN_SENT ESTABLISHED CLOSE end=rst_received by=remote";
    let server = "server SYN_RECV ESTABLISHED CLOSE end=listener_closed by=local";
    assert_eq!(run.lives(), [client, client, client, server, server, server]);
    let listener: Vec<_> =
        run.of_type("transition").filter(|t| t["role"] == "listener").map(crate::support::run::arrow).collect();
    assert_eq!(listener, ["CLOSE>LISTEN", "LISTEN>CLOSE"]);
}

#[test]
fn simultaneous_close() {
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let mut peer = tun.peer(7015);
        let client = peer.connected_from(ns);
        client.shutdown();
        let fin = peer.expect(FIN | ACK);
        // The peer's FIN leaves before the kernel's arrives.
        peer.send_at(peer.seq, fin.seq, FIN | ACK, b"");
        peer.expect(ACK);
        peer.send(ACK, b"");
        wait_until("TIME_WAIT", || ns.rows().iter().all(|row| row.2 == 6));
        client.close();
    });
    assert_eq!(run.lives(), ["client SYN_SENT ESTABLISHED FIN_WAIT1 CLOSING TIME_WAIT end=fin by=both"]);
    let client = run.only("client");
    assert!(client.has("patterns", "simultaneous_close"), "{}", client.0);
    client.carried(0, 0);
}

#[test]
fn reset_by_the_peer_in_every_state() {
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let mut peer = tun.peer(7016);
        let client = peer.connected_from(ns);
        peer.send(RST | ACK, b"");
        wait_until("the reset", || ns.rows().is_empty());
        client.close();

        let mut peer = tun.peer(7017);
        let client = peer.connected_from(ns);
        client.shutdown();
        peer.expect(FIN | ACK);
        peer.send(RST | ACK, b"");
        wait_until("the reset", || ns.rows().is_empty());
        client.close();

        let mut peer = tun.peer(7018);
        let client = peer.connected_from(ns);
        peer.send(FIN | ACK, b"");
        peer.expect(ACK);
        peer.send(RST | ACK, b"");
        wait_until("the reset", || ns.rows().is_empty());
        client.close();

        let mut peer = tun.peer(7019);
        let client = peer.connected_from(ns);
        peer.send(FIN | ACK, b"");
        peer.expect(ACK);
        client.close();
        peer.expect(FIN | ACK);
        peer.send(RST | ACK, b"");
        wait_until("the reset", || ns.rows().is_empty());
    });
    assert_eq!(
        run.lives(),
        [
            "client SYN_SENT ESTABLISHED CLOSE end=rst_received by=remote",
            "client SYN_SENT ESTABLISHED FIN_WAIT1 CLOSE end=rst_received by=local",
            "client SYN_SENT ESTABLISHED CLOSE_WAIT CLOSE end=rst_received by=remote",
            "client SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE end=rst_received by=remote",
        ]
    );
    for conn in &run.conns {
        conn.owned_by(&me());
    }
}

#[test]
fn killed_by_ss() {
    let mut ss = 0;
    let run = traced(|ns| {
        let Pair { listener: _listener, client, server } = pair(ns, local(7020));
        let mut kill = process::spawn(
            ns.command("ss")
                .args(["-K", "-t", "dst", "127.0.0.1", "dport", "=", ":7020"])
                .stdout(std::process::Stdio::null()),
        );
        ss = kill.pid();
        assert!(kill.wait().success(), "ss -K");
        assert_eq!(client.receive_all().expect_err("killed").raw_os_error(), Some(libc::ECONNABORTED));
        assert_eq!(server.receive_all().expect_err("a reset").raw_os_error(), Some(libc::ECONNRESET));
        client.close();
        server.close();
        ns.quiet();
    });
    assert_eq!(
        run.lives(),
        [
            "client SYN_SENT ESTABLISHED CLOSE end=killed by=local",
            "server SYN_RECV ESTABLISHED CLOSE end=rst_received by=remote"
        ]
    );
    let client = run.only("client");
    client.owned_by(&me());
    assert_eq!((&client.0["actor"]["comm"], &client.0["actor"]["pid"]), (&"ss".into(), &ss.into()));
    assert!(run.only("server").0.get("actor").is_none(), "{}", run.only("server").0);
}

#[test]
fn user_timeout_and_keepalive_timeout() {
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let mut peer = tun.peer(7021);
        let client = peer.connected_from(ns);
        client.tcp_option(libc::TCP_USER_TIMEOUT, 300);
        client.send(b"into the void");
        wait_until("the user timeout", || ns.rows().is_empty());
        assert_eq!(client.receive_all().expect_err("a timeout").raw_os_error(), Some(libc::ETIMEDOUT));
        client.close();

        let mut peer = tun.peer(7022);
        let client = peer.connected_from(ns);
        for option in [libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT] {
            client.tcp_option(option, 1);
        }
        rustix::net::sockopt::set_socket_keepalive(&client, true).expect("SO_KEEPALIVE");
        wait_until("the keepalive timeout", || ns.rows().is_empty());
        assert_eq!(client.receive_all().expect_err("a timeout").raw_os_error(), Some(libc::ETIMEDOUT));
        client.close();
    });
    assert_eq!(
        run.lives(),
        [
            "client SYN_SENT ESTABLISHED CLOSE end=user_timeout by=none",
            "client SYN_SENT ESTABLISHED CLOSE end=keepalive_timeout by=none"
        ]
    );
    let [lost, idle] = [&run.conns[0], &run.conns[1]];
    assert_eq!([lost.number("bytes_acked"), lost.number("unsent")], [0, 13], "{}", lost.0);
    idle.carried(0, 0);
}

#[test]
fn retransmit_timeout() {
    let run = traced(|ns| {
        ns.sysctl("net/ipv4/tcp_retries2", "1");
        let tun = Tun::new(ns);
        let mut peer = tun.peer(7023);
        let client = peer.connected_from(ns);
        client.send(b"into the void");
        wait_until("the retransmit timeout", || ns.rows().is_empty());
        client.close();
    });
    assert_eq!(run.lives(), ["client SYN_SENT ESTABLISHED CLOSE end=retransmit_timeout by=none"]);
    let client = run.only("client");
    assert!(client.number("retrans") >= 1, "{}", client.0);
    assert_eq!(client.number("bytes_retrans"), 13 * client.number("retrans"), "{}", client.0);
}

#[test]
fn syn_of_a_peer_in_established_changes_nothing() {
    let run = traced(|ns| {
        let tun = Tun::new(ns);
        let mut peer = tun.peer(7024);
        let client = peer.connected_from(ns);
        let seq = peer.seq;
        peer.send_at(seq.wrapping_add(1000), 0, SYN, b"");
        // RFC 5961: answered by a challenge ACK.
        peer.expect(ACK);
        peer.seq = seq;
        peer.send(ACK, b"still here");
        client.receive(10);
        client.shutdown();
        peer.expect_skipping(ACK, FIN | ACK);
        peer.send(FIN | ACK, b"");
        client.receive_all().expect("the end of the stream");
        client.close();
        ns.quiet();
    });
    assert_eq!(run.lives(), [format!("client {CLOSED_LOCALLY}")]);
    run.only("client").carried(0, 10);
}

/// Two namespaces, the connection between them seen from both.
#[test]
fn close_between_two_namespaces() {
    let (here, there) = (Netns::new(), Netns::new());
    here.veth(&there, [10, 78, 0, 1].into(), [10, 78, 0, 2].into());
    let tracer = Tracer::start(&[&here, &there]);
    let addr: SocketAddr = ([10, 78, 0, 2], 7025).into();
    let listener = Sock::listen(&there, addr, 16);
    let client = Sock::connected(&here, addr);
    let server = listener.accept();
    server.send(&[0; 100_000]);
    client.receive(100_000);
    close_in_order(client, server);
    here.quiet();
    there.quiet();
    drop(listener);
    let run = tracer.stop();
    assert_eq!(
        run.lives(),
        [
            format!("client {CLOSED_LOCALLY}"),
            "server SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE end=fin by=remote".into()
        ]
    );
    let (client, server) = (run.only("client"), run.only("server"));
    assert_eq!([client.number("netns"), server.number("netns")], [here.inum(), there.inum()]);
    assert_eq!([client.number("bytes_received"), server.number("bytes_acked")], [100_000, 100_000]);
}
