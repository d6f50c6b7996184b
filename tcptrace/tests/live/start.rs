//! What was there before the trace began: found once, marked, and followed from then on.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::net::sockopt;
use serde_json::Value;

use crate::support::{
    netns::Netns,
    process::me,
    run::{Conn, Run, brief},
    segment::flag::{ACK, FIN, SYN},
    socket::{Pair, Sock, close_in_order, local, pair},
    tracer::Tracer,
    tun::{KERNEL, Tun},
    wait_until,
};

const ESTABLISHED: u8 = 1;
const SYN_RECV: u8 = 3;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;

/// The only `socket` with this cookie.
fn found<'a>(run: &'a Run, cookie: &str) -> &'a Value {
    let found: Vec<_> = run.of_type("socket").filter(|s| s["sock"] == cookie).collect();
    assert_eq!(found.len(), 1, "sockets with cookie {cookie} in {}", brief(&run.text));
    assert_eq!(found[0]["preexisting"], true, "{}", found[0]);
    found[0]
}

/// The only connection with this cookie.
fn ended<'a>(run: &'a Run, cookie: &str) -> &'a Conn {
    let mut ended = run.conns.iter().filter(|c| c.text("sock") == cookie);
    let conn = ended.next().unwrap_or_else(|| panic!("{cookie} in {}", brief(&run.conns_text)));
    assert!(ended.next().is_none(), "{cookie} in {}", brief(&run.conns_text));
    conn
}

#[test]
fn sockets_alive_before_the_start() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    // Idle, with unread data.
    let Pair { listener, client, server } = pair(&ns, local(7301));
    client.send(b"unread yet");
    server.wait_unread(10);
    // In the accept queue.
    let queued = Sock::connected(&ns, local(7301));
    // Half-closed.
    let half = pair(&ns, local(7302));
    half.client.shutdown();
    half.client.wait_state(FIN_WAIT2);
    // In TIME_WAIT.
    let gone = pair(&ns, local(7303));
    let gone_port = gone.client.local().port();
    close_in_order(gone.client, gone.server);
    wait_until("TIME_WAIT", || ns.rows().iter().any(|r| (r.1, r.2) == (7303, 6)));
    // Half-open.
    let open = Sock::listen(&ns, (KERNEL, 7304).into(), 16);
    let mut peer = tun.peer(40304);
    peer.meets(7304);
    peer.send(SYN, b"");
    peer.expect(SYN | ACK);
    wait_until("the half-open request", || ns.rows().contains(&(7304, 40304, SYN_RECV)));

    let tracer = Tracer::start(&[&ns]);
    tracer.wait_for("the snapshot", |l| l["type"] == "socket" && l["lport"] == 7301);
    let cookies = [&client, &server, &queued, &half.client, &half.server, &listener].map(Sock::cookie);
    let inodes = [&client, &server, &queued, &half.client, &half.server, &listener].map(Sock::inode);
    server.receive(10);
    close_in_order(client, server);
    let late = listener.accept();
    close_in_order(queued, late);
    close_in_order(half.client, half.server);
    peer.send(ACK, b"");
    let opened = open.accept();
    peer.send(FIN | ACK, b"");
    opened.receive_all().expect("the end of the stream");
    opened.close();
    peer.expect_skipping(ACK, FIN | ACK);
    peer.send(ACK, b"");
    ns.quiet();
    let run = tracer.stop();

    let [client, server, queued, half_client, half_server, listener] = &cookies;
    for (cookie, inode, state, unread) in [
        (client, inodes[0], "ESTABLISHED", 0),
        (server, inodes[1], "ESTABLISHED", 10),
        (queued, inodes[2], "ESTABLISHED", 0),
        (half_client, inodes[3], "FIN_WAIT2", 0),
        // Recv-Q counts the FIN.
        (half_server, inodes[4], "CLOSE_WAIT", 1),
    ] {
        let socket = found(&run, cookie);
        assert_eq!((&socket["state"], &socket["inode"]), (&state.into(), &inode.into()), "{socket}");
        assert_eq!((socket["unread"].as_u64(), socket["unsent"].as_u64()), (Some(unread), Some(0)), "{socket}");
        assert_eq!((&socket["pid"], &socket["comm"]), (&me().0.into(), &me().1.as_str().into()), "{socket}");
        assert!(socket["fd"].is_u64() && socket["idle_us"].is_u64(), "{socket}");
    }
    let listening = found(&run, listener);
    assert_eq!(
        (&listening["state"], &listening["role"], &listening["inode"]),
        (&"LISTEN".into(), &"listener".into(), &inodes[5].into())
    );

    for (cookie, states, closed_by, received) in [
        (client, "ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT", "local", 0),
        (server, "ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE", "remote", 10),
        (queued, "ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT", "local", 0),
        (half_client, "FIN_WAIT2 TIME_WAIT", "local", 0),
        (half_server, "CLOSE_WAIT LAST_ACK CLOSE", "remote", 0),
    ] {
        let conn = ended(&run, cookie);
        assert_eq!(
            (&*conn.states(), conn.text("end"), conn.text("closed_by")),
            (states, "fin", closed_by),
            "{}",
            conn.0
        );
        assert_eq!((&conn.0["preexisting"], conn.number("bytes_received")), (&true.into(), received), "{}", conn.0);
        conn.owned_by(&me());
    }
    // The remnant and the request.
    let ports = |l: &Value| (l["lport"].as_u64(), l["rport"].as_u64());
    let remnants: Vec<_> = run.of_type("socket").filter(|s| s["state"] == "TIME_WAIT").map(ports).collect();
    assert_eq!(remnants, [(Some(u64::from(gone_port)), Some(7303))]);
    assert_eq!(run.of_type("request").map(ports).collect::<Vec<_>>(), [(Some(7304), Some(40304))]);
    assert_eq!(
        run.at_both(7304, 40304).life(),
        "server SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE end=fin by=remote"
    );
    // The queued child, its client, and nothing else.
    let others = run.conns.iter().filter(|c| c.text("role") != "listener").count();
    assert_eq!(others, 7, "{}", brief(&run.conns_text));
}

#[test]
fn orphans_before_the_start() {
    const SENT: usize = 100_000;
    let ns = Netns::new();
    let listener = Sock::listen(&ns, local(7305), 16);
    let client = Sock::new(&ns, local(7305));
    sockopt::set_socket_recv_buffer_size(&client, 4096).expect("SO_RCVBUF");
    client.connect(local(7305)).expect("connect");
    let server = listener.accept();
    sockopt::set_socket_send_buffer_size_force(&server, 1 << 20).expect("SO_SNDBUFFORCE");
    let (client_port, cookie) = (client.local().port(), server.cookie());
    server.send(&[0; SENT]);
    // More than the reader has room for: the FIN waits behind it, and no process holds the socket.
    server.close();
    assert!(ns.rows().contains(&(7305, client_port, FIN_WAIT1)), "{:?}", ns.rows());
    let tracer = Tracer::start(&[&ns]);
    tracer.wait_for("the snapshot", |l| l["type"] == "socket" && l["state"] == "FIN_WAIT1");
    client.receive(SENT);
    client.receive_all().expect("the end of the stream");
    client.close();
    ns.quiet();
    let run = tracer.stop();
    let orphan = ended(&run, &cookie);
    assert!(orphan.states().starts_with("FIN_WAIT1 "), "{}", orphan.0);
    assert_eq!(orphan.number("rport"), u64::from(client_port));
    assert_eq!(orphan.0.get("fd"), None, "nobody holds it: {}", orphan.0);
    assert_eq!(orphan.number("bytes_acked"), SENT as u64, "{}", orphan.0);
}

#[test]
fn closed_before_the_snapshot_reads_it() {
    // How far the snapshot is when they close is left to chance: nothing may depend on it but the line `socket`.
    let ns = Netns::new();
    let listener = Sock::listen(&ns, local(7307), 64);
    let pairs: Vec<_> = (0..32).map(|_| (Sock::connected(&ns, local(7307)), listener.accept())).collect();
    let cookies: Vec<_> = pairs.iter().map(|(client, server)| (client.cookie(), server.cookie())).collect();
    let tracer = Tracer::start(&[&ns]);
    for (client, server) in pairs {
        close_in_order(client, server);
    }
    ns.quiet();
    let run = tracer.stop();
    for (client, server) in &cookies {
        for (cookie, states) in
            [(client, "ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT"), (server, "ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE")]
        {
            let conn = ended(&run, cookie);
            assert_eq!((&*conn.states(), conn.text("end")), (states, "fin"), "{}", conn.0);
            assert_eq!([conn.number("netns"), conn.number("gaps")], [ns.inum(), 0], "{}", conn.0);
            assert_eq!((conn.text("laddr"), conn.text("raddr")), ("127.0.0.1", "127.0.0.1"), "{}", conn.0);
        }
    }
}

#[test]
fn start_under_churn() {
    let ns = Netns::new();
    let addr = local(7306);
    let listener = Sock::listen(&ns, addr, 64);
    let held: Vec<_> = (0..20).map(|_| (Sock::connected(&ns, addr), listener.accept())).collect();
    let (stop, started) = (AtomicBool::new(false), AtomicBool::new(false));
    let after_start = Mutex::new(HashSet::new());
    let run = std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let client = Sock::new(&ns, addr);
                if started.load(Ordering::SeqCst) {
                    after_start.lock().expect("no panic while locked").insert(client.cookie());
                }
                client.connect(addr).expect("connect");
                let server = listener.accept();
                close_in_order(client, server);
            }
        });
        let tracer = Tracer::start(&[&ns]);
        started.store(true, Ordering::SeqCst);
        wait_until("churn", || after_start.lock().expect("no panic while locked").len() >= 100);
        stop.store(true, Ordering::Relaxed);
        churn.join().expect("no panic");
        wait_until("connections to end", || {
            ns.rows().iter().all(|r| r.2 == 10 || r.2 == 6 || (r.2 == ESTABLISHED))
                && ns.rows().iter().filter(|r| r.2 == ESTABLISHED).count() == 2 * held.len()
        });
        tracer.stop()
    });
    for (client, server) in &held {
        for sock in [client, server] {
            found(&run, &sock.cookie());
            let conn = ended(&run, &sock.cookie());
            assert_eq!((&*conn.states(), conn.text("end")), ("ESTABLISHED", "open"), "{}", conn.0);
        }
    }
    let sockets: Vec<_> = run.of_type("socket").filter_map(|s| s["sock"].as_str()).collect();
    assert_eq!(sockets.len(), sockets.iter().collect::<HashSet<_>>().len(), "each socket once");
    for cookie in &*after_start.lock().expect("no panic while locked") {
        let conn = ended(&run, cookie);
        assert_eq!(conn.life(), "client SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT end=fin by=local");
        assert_ne!(conn.0["preexisting"], true, "{}", conn.0);
    }
    for conn in run.conns.iter().filter(|c| c.0["preexisting"] != true && c.text("role") != "listener") {
        let states = conn.states();
        assert!(states.starts_with("SYN_SENT ESTABLISHED") || states.starts_with("SYN_RECV ESTABLISHED"), "{}", conn.0);
    }
}
