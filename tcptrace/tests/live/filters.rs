//! Only what was asked for: each filter against the same work, several tracers side by side.

use std::{net::SocketAddr, os::fd::AsRawFd, process::Stdio};

use serde_json::Value;

use crate::support::{
    netns::Netns,
    process::{self, fork},
    run::{Run, arrow, parse},
    socket::{Pair, Sock, close_in_order, local, pair},
    tracer::{Tracer, tcptrace, tier, traced},
};

/// (role, local port if it is not the kernel's choice, remote port likewise) of each connection, sorted.
fn shapes(run: &Run) -> Vec<String> {
    let chosen =
        |port: &Value| port.as_u64().filter(|p| (7000..8000).contains(p)).map_or("*".into(), |p| p.to_string());
    let connections = run.conns.iter().filter(|c| c.text("role") != "listener");
    let mut shapes: Vec<_> = connections
        .map(|c| {
            format!(
                "{} {}:{} {}:{}",
                c.text("role"),
                c.text("laddr"),
                chosen(&c.0["lport"]),
                c.text("raddr"),
                chosen(&c.0["rport"])
            )
        })
        .collect();
    shapes.sort();
    shapes
}

fn work(ns: &Netns, addr: SocketAddr) {
    let Pair { listener: _listener, client, server } = pair(ns, addr);
    client.send(b"x");
    server.receive(1);
    close_in_order(client, server);
}

#[test]
fn ports_and_addresses() {
    let ns = Netns::new();
    let v6: SocketAddr = "[::1]:7603".parse().expect("valid");
    let other: SocketAddr = "127.79.0.1:7601".parse().expect("valid");
    let (client, server) = ("client 127.0.0.1:* 127.0.0.1:7601", "server 127.0.0.1:7601 127.0.0.1:*");
    let (client2, server2) = ("client 127.0.0.1:* 127.0.0.1:7602", "server 127.0.0.1:7602 127.0.0.1:*");
    let (client6, server6) = ("client ::1:* ::1:7603", "server ::1:7603 ::1:*");
    let (far_client, far_server) = ("client 127.0.0.1:* 127.79.0.1:7601", "server 127.79.0.1:7601 127.0.0.1:*");
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &[client, client2, far_client, client6, server, server2, far_server, server6]),
        (&["--port", "7601"], &[client, far_client, server, far_server]),
        (&["--lport", "7601"], &[server, far_server]),
        (&["--rport", "7601"], &[client, far_client]),
        (&["--port", "7602-7603"], &[client2, client6, server2, server6]),
        (&["--port", "7601,7603", "--addr", "127.0.0.0/8"], &[client, far_client, server, far_server]),
        (&["--addr", "127.79.0.1"], &[far_client, far_server]),
        (&["--laddr", "127.79.0.0/16"], &[far_server]),
        (&["--raddr", "127.79.0.0/16"], &[far_client]),
        (&["--addr", "::1"], &[client6, server6]),
        (&["--raddr", "127.79.0.0/16,::/64"], &[far_client, client6, server6]),
        (&["--role", "client"], &[client, client2, far_client, client6]),
        (&["--role", "server", "--port", "7602"], &[server2]),
    ];
    let tracers: Vec<_> = cases.iter().map(|(args, _)| Tracer::start_with(&[&ns], args)).collect();
    for addr in [local(7601), local(7602), v6, other] {
        work(&ns, addr);
    }
    ns.quiet();
    for ((args, expected), tracer) in cases.iter().zip(tracers) {
        let mut expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
        expected.sort();
        assert_eq!(shapes(&tracer.stop()), expected, "{args:?}");
    }
}

/// The filter's maps are shared by all that is loaded, here by two kernel objects.
#[test]
fn queues_of_some_ports() {
    let ns = Netns::new();
    let _listeners = [7960, 7961, 7962].map(|port| Sock::listen(&ns, local(port), 4));
    let (netns, tier) = (ns.inum().to_string(), tier());
    let args = ["queues", "--once", "--json", "--netns", &netns, "--tier", &tier, "--port", "7961-7962,8000"];
    let output = process::run(tcptrace().args(args));
    let lines = parse(std::str::from_utf8(&output.stdout).expect("text"));
    let mut ports: Vec<_> = lines.iter().filter(|l| l["type"] == "listener").map(|l| l["lport"].as_u64()).collect();
    ports.sort();
    assert_eq!(ports, [Some(7961), Some(7962)]);
}

#[test]
fn processes_and_namespaces() {
    let (here, there) = (Netns::new(), Netns::new());
    here.veth(&there, [10, 79, 0, 1].into(), [10, 79, 0, 2].into());
    let me = std::process::id().to_string();
    let cases: [(&[&Netns], &[&str], &[&str]); 5] = [
        (&[&here], &[], &["client"]),
        (&[&there], &[], &["server"]),
        (&[&here, &there], &["--pid", &me], &["server"]),
        (&[&here, &there], &["--comm", "curl"], &["client"]),
        (&[&here, &there], &["--comm", "nobody"], &[]),
    ];
    let tracers: Vec<_> = cases.iter().map(|(namespaces, args, _)| Tracer::start_with(namespaces, args)).collect();
    let addr: SocketAddr = ([10, 79, 0, 2], 7611).into();
    let listener = Sock::listen(&there, addr, 16);
    let mut curl =
        process::spawn(here.command("curl").args(["-sS", "--http0.9", "http://10.79.0.2:7611/"]).stdout(Stdio::null()));
    let server = listener.accept();
    server.shutdown();
    // curl reads to the end, then closes.
    assert!(server.receive_all().expect("a request") > 0);
    server.close();
    curl.wait();
    here.quiet();
    there.quiet();
    for ((_, args, expected), tracer) in cases.iter().zip(tracers) {
        let run = tracer.stop();
        let roles: Vec<_> = run.conns.iter().map(|c| c.text("role")).filter(|r| *r != "listener").collect();
        assert_eq!(roles, *expected, "{args:?}");
    }
}

#[test]
fn a_connection_of_the_wanted_listener_from_its_first_transition_on() {
    let ns = Netns::new();
    let me = std::process::id().to_string();
    let tracer = Tracer::start_with(&[&ns], &["--pid", &me]);
    let listener = Sock::listen(&ns, local(7612), 16);
    let (client, other) = (Sock::connected(&ns, local(7612)), Sock::connected(&ns, local(7612)));
    let (port, other_port) = (client.local().port(), other.local().port());
    // Nobody has accepted either of them.
    let established =
        |port: u16| move |l: &Value| l["role"] == "server" && l["rport"] == port && l["to"] == "ESTABLISHED";
    tracer.wait_for("the server", established(port));
    tracer.wait_for("the other server", established(other_port));
    let server = listener.accept();
    close_in_order(client, server);
    // A worker has the second one: it is not asked for any more.
    let worker = fork(c"tt-worker", &[listener.as_raw_fd()], || {
        let server = listener.accept();
        server.receive_all().expect("the end of the stream");
        server.close();
    });
    other.shutdown();
    other.receive_all().expect("the end of the stream");
    other.close();
    worker.join();
    ns.quiet();
    let run = tracer.stop();
    // A child's first transition may not have its remote end.
    let of = |port: u16| {
        let mut servers = run.of_type("transition").filter(|t| t["role"] == "server");
        let id = &servers.find(|t| t["rport"] == port).expect("a server")["id"];
        run.of_type("transition").filter(move |t| t["id"] == *id)
    };
    let arrows: Vec<_> = of(port).map(arrow).collect();
    assert_eq!(
        arrows,
        ["LISTEN>SYN_RECV", "SYN_RECV>ESTABLISHED", "ESTABLISHED>CLOSE_WAIT", "CLOSE_WAIT>LAST_ACK", "LAST_ACK>CLOSE"]
    );
    let concluded: Vec<_> = of(port).map(|t| t["inferred"].to_string().contains("pid")).collect();
    assert_eq!(concluded, [true, true, false, false, false], "accept() settles it");
    let arrows: Vec<_> = of(other_port).map(arrow).collect();
    assert_eq!(&arrows[..2], ["LISTEN>SYN_RECV", "SYN_RECV>ESTABLISHED"]);
    assert!(!arrows.iter().any(|a| a.ends_with(">LAST_ACK") || a.ends_with(">CLOSE")), "{arrows:?}");
}

#[test]
fn states_select_output_and_never_tracking() {
    let run = traced(|ns| {
        work(ns, local(7621));
        ns.quiet();
    });
    let replayed = |args: &[&str]| {
        let output = process::run(tcptrace().args(["trace", "--json", "--from"]).arg(&run.recording).args(args));
        parse(std::str::from_utf8(&output.stdout).expect("UTF-8"))
    };
    let lines = replayed(&["--state", "CLOSE_WAIT"]);
    let shown: Vec<_> = lines.iter().filter(|l| l["type"] == "transition").collect();
    assert!(shown.iter().all(|t| t["to"] == "CLOSE_WAIT" || t["from"] == "CLOSE_WAIT"), "{shown:?}");
    let entered: Vec<_> = shown.into_iter().filter(|t| t["to"] == "CLOSE_WAIT").collect();
    let whole = run.of_type("transition").find(|t| t["to"] == "CLOSE_WAIT").expect("the server passes it");
    assert_eq!(entered, [whole], "its identity and the time in the state before are those of the whole run");
}
