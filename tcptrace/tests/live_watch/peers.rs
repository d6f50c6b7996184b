//! Rules about peers: connections that are refused, unanswered, cut off, dead, too short, or lossy.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread::sleep,
    time::Duration,
};

use serde_json::Value;

use crate::{
    support::{
        netns::Netns,
        segment::flag::SYN,
        socket::{Pair, Sock, close_in_order, local, pair},
        tun::{PEER, Tun},
        wait_until,
    },
    watching::{Watching, number},
};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// Two namespaces side by side.
fn side_by_side() -> [Netns; 2] {
    let (here, there) = (Netns::new(), Netns::new());
    here.veth(&there, HERE, THERE);
    [here, there]
}

/// It is about connections of this process to that peer, and says something.
#[track_caller]
fn asks(finding: &Value, severity: &str, peer: SocketAddr) {
    let subject = &finding["subject"];
    assert_eq!(finding["severity"], severity, "{finding}");
    assert_eq!(
        (&subject["raddr"], &subject["rport"]),
        (&peer.ip().to_string().into(), &peer.port().into()),
        "{finding}"
    );
    assert_eq!(subject["pid"], std::process::id(), "{finding}");
    speaks(finding);
}

#[track_caller]
fn speaks(finding: &Value) {
    for text in ["summary", "advice", "look"] {
        assert!(finding[text].as_str().is_some_and(|text| !text.is_empty()), "{text}: {finding}");
    }
}

/// What gives events their order in time: a pause that is part of the scenario.
fn pause(ms: u64) {
    sleep(Duration::from_millis(ms));
}

#[test]
fn refused_connects() {
    let [here, there] = side_by_side();
    let watch = Watching::start(&[&here, &there], "[refused-connects]\nlasts = \"2s\"\nresolves_after = \"1s\"\n");
    let service = SocketAddr::new(THERE, 8601);
    for _ in 0..14 {
        Sock::new(&here, service).connect(service).expect_err("nobody listens");
        pause(200);
    }
    let finding = watch.fires("refused-connects");
    asks(&finding, "warning", service);
    assert!(number(&finding, "refused") >= 5.0, "{finding}");
    assert_eq!(finding["evidence"]["by"], "rst", "{finding}");
    // The service comes back.
    let Pair { listener, client, server } = {
        let listener = Sock::listen(&there, service, 16);
        let client = Sock::connected(&here, service);
        let server = listener.accept();
        Pair { listener, client, server }
    };
    watch.resolves("refused-connects");
    close_in_order(client, server);
    listener.close();
    watch.stop(&["refused-connects"]).keep("refused-connects.trouble");
}

/// A restart, and a name with two addresses.
#[test]
fn refused_connects_that_are_no_trouble() {
    let ns = Netns::new();
    let watch = Watching::start(&[&ns], "");
    let service = local(8602);
    for _ in 0..10 {
        Sock::new(&ns, service).connect(service).expect_err("not there yet");
        pause(100);
    }
    let listener = Sock::listen(&ns, service, 16);
    let other = "[::1]:8602".parse().expect("an address");
    for _ in 0..15 {
        Sock::new(&ns, other).connect(other).expect_err("IPv4 alone");
        let client = Sock::connected(&ns, service);
        close_in_order(client, listener.accept());
        pause(100);
    }
    listener.close();
    watch.finds_nothing().keep("refused-connects.alike");
}

#[test]
fn connect_timeouts() {
    let ns = Netns::new();
    // Nobody reads what comes out of the device.
    let _tun = Tun::new(&ns);
    let watch = Watching::start(&[&ns], "[connect-timeouts]\nlasts = \"2s\"\n");
    let service = SocketAddr::new(PEER.into(), 8603);
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let sock = Sock::new(&ns, service);
            sock.start_connect(service);
            sock
        })
        .collect();
    let finding = watch.fires("connect-timeouts");
    asks(&finding, "warning", service);
    assert_eq!(number(&finding, "waiting"), 3.0, "{finding}");
    assert!(number(&finding, "longest_us") >= 2e6, "{finding}");
    drop(waiting);
    watch.stop(&["connect-timeouts"]).keep("connect-timeouts.trouble");
}

#[test]
fn connect_timeouts_of_a_host_that_cannot_be_reached() {
    let [here, there] = side_by_side();
    let watch = Watching::start(&[&here, &there], "[connect-timeouts]\nlasts = \"1s\"\n");
    // Nobody has this address: no answer to ARP.
    let service: SocketAddr = "10.0.0.77:8604".parse().expect("an address");
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let sock = Sock::new(&here, service);
            sock.start_connect(service);
            sock
        })
        .collect();
    for sock in &waiting {
        let error = sock.finish_connect().expect_err("no route to host");
        assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH), "{error}");
    }
    let finding = watch.fires("connect-timeouts");
    asks(&finding, "warning", service);
    watch.stop(&["connect-timeouts"]);
}

/// SYNs that are lost now and then, and a client that gives up early because another address was faster.
#[test]
fn connect_timeouts_that_are_no_trouble() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watching::start(&[&ns], "[connect-timeouts]\nlasts = \"1s\"\n");
    let service = SocketAddr::new(PEER.into(), 8605);
    for _ in 0..3 {
        let early = Sock::new(&ns, service);
        early.start_connect(service);
        pause(100);
        early.close();
    }
    // One whose first SYN is lost, and its second, and which comes about then.
    let mut peer = tun.peer(8609);
    let sock = Sock::new(&ns, peer.addr());
    sock.start_connect(peer.addr());
    peer.lose(SYN);
    peer.lose(SYN);
    peer.accept();
    sock.finish_connect().expect("the third SYN is answered");
    watch.finds_nothing().keep("connect-timeouts.alike");
}

#[test]
fn reset_storm() {
    let [here, there] = side_by_side();
    let watch = Watching::start(&[&here, &there], "[reset-storm]\nresets = 10\nseconds = 2\n");
    let service = SocketAddr::new(HERE, 8611);
    let listener = Sock::listen(&here, service, 16);
    for _ in 0..16 {
        let client = Sock::connected(&there, service);
        let server = listener.accept();
        client.send(b"a question that nobody reads");
        server.wait_unread(28);
        server.close();
        client.receive_all().expect_err("it was reset");
        pause(200);
    }
    let both = [
        watch.fires_as("reset-storm", |f| f["subject"]["lport"] == 8611),
        watch.fires_as("reset-storm", |f| f["subject"]["rport"] == 8611),
    ];
    let [ours, theirs] = &both;
    assert_eq!(
        (&ours["severity"], &ours["subject"]["pid"]),
        (&"critical".into(), &std::process::id().into()),
        "{ours}"
    );
    assert!(number(ours, "resets_sent") >= 10.0 && number(ours, "resets_received") == 0.0, "{ours}");
    assert!(number(ours, "data_lost") >= 10.0, "{ours}");
    asks(theirs, "warning", service);
    assert!(number(theirs, "resets_received") >= 10.0 && number(theirs, "resets_sent") == 0.0, "{theirs}");
    both.iter().for_each(speaks);
    listener.close();
    watch.stop(&["reset-storm"]).keep("reset-storm.trouble");
}

/// Clients that close by RST when they have their answer, probes that ask nothing, and a server that ends with all of its connections.
#[test]
fn reset_storm_that_is_no_trouble() {
    let ns = Netns::new();
    let watch = Watching::start(&[&ns], "[reset-storm]\nresets = 10\nseconds = 3\n");
    let service = local(8612);
    let listener = Sock::listen(&ns, service, 64);
    for n in 0..24 {
        let client = Sock::connected(&ns, service);
        let server = listener.accept();
        if n % 2 == 0 {
            client.send(b"question");
            server.receive(8);
            server.send(b"answer");
            client.receive(6);
            client.linger_zero();
            client.close();
            server.receive_all().expect_err("it was reset");
        } else {
            // On this host the prober is seen, too: it closes by FIN.
            close_in_order(client, server);
        }
        pause(100);
    }
    let pairs: Vec<_> = (0..12)
        .map(|_| {
            let client = Sock::connected(&ns, service);
            let server = listener.accept();
            client.send(b"question");
            server.wait_unread(8);
            (client, server)
        })
        .collect();
    let (clients, servers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    // In one second or, at its turn, two: within a few hundred microseconds.
    drop(servers);
    drop(clients);
    listener.close();
    watch.finds_nothing().keep("reset-storm.alike");
}

/// Connections from `here` that keep alive by a probe a second, of which two may go unanswered.
fn kept_alive(here: &Netns, there: &Netns, service: SocketAddr, n: usize) -> (Sock, Vec<(Sock, Sock)>) {
    let listener = Sock::listen(there, service, 16);
    let connect = || {
        let client = Sock::connected(here, service);
        rustix::net::sockopt::set_socket_keepalive(&client, true).expect("SO_KEEPALIVE");
        client.tcp_option(libc::TCP_KEEPIDLE, 1);
        client.tcp_option(libc::TCP_KEEPINTVL, 1);
        client.tcp_option(libc::TCP_KEEPCNT, 2);
        let server = listener.accept();
        (client, server)
    };
    let pairs = (0..n).map(|_| connect()).collect();
    (listener, pairs)
}

#[test]
fn keepalive_deaths() {
    let [here, there] = side_by_side();
    let watch = Watching::start(&[&here], "");
    let service = SocketAddr::new(THERE, 8621);
    let (listener, pairs) = kept_alive(&here, &there, service, 4);
    // It hears the probes, and its answers go nowhere.
    there.ip("route add blackhole 10.0.0.1/32");
    let finding = watch.fires("keepalive-deaths");
    asks(&finding, "warning", service);
    assert!(number(&finding, "keepalive") >= 3.0, "{finding}");
    assert_eq!(number(&finding, "retransmit"), 0.0, "{finding}");
    drop(pairs);
    listener.close();
    watch.stop(&["keepalive-deaths"]).keep("keepalive-deaths.trouble");
}

/// Idle connections whose probes are answered, and one that dies.
#[test]
fn keepalive_deaths_that_are_no_trouble() {
    let [here, there] = side_by_side();
    let watch = Watching::start(&[&here], "");
    let service = SocketAddr::new(THERE, 8622);
    let (listener, pairs) = kept_alive(&here, &there, service, 4);
    // Answers to one of them go nowhere.
    let port = pairs[0].0.local().port();
    there.ip("route add blackhole 10.0.0.1/32 table 100");
    there.ip(&format!("rule add sport 8622 dport {port} ipproto tcp table 100"));
    wait_until("one to die", || pairs[0].0.state() == 7);
    // The others have been probed as often.
    assert!(pairs[1..].iter().all(|(client, _)| client.state() == 1));
    for (client, server) in pairs {
        if client.state() == 1 {
            close_in_order(client, server);
        }
    }
    listener.close();
    watch.finds_nothing().keep("keepalive-deaths.alike");
}

/// A question and an answer.
fn exchange(client: &Sock, server: &Sock) {
    client.send(b"question");
    server.receive(8);
    server.send(b"answer");
    client.receive(6);
}

#[test]
fn short_lived_churn() {
    let ns = Netns::new();
    let config = "[short-lived-churn]\nrate = \"1.5/s\"\nhandshake = \"0%\"\nseconds = 4\nresolves_after = \"0s\"\n";
    let watch = Watching::start(&[&ns], config);
    let service = local(8631);
    let listener = Sock::listen(&ns, service, 16);
    for _ in 0..36 {
        let client = Sock::connected(&ns, service);
        let server = listener.accept();
        exchange(&client, &server);
        close_in_order(client, server);
        pause(140);
    }
    let finding = watch.fires("short-lived-churn");
    asks(&finding, "warning", service);
    assert!(number(&finding, "connections_per_s") >= 1.5, "{finding}");
    assert_eq!(number(&finding, "bytes"), 14.0, "{finding}");
    assert_eq!(number(&finding, "would_do"), 1.0, "{finding}");
    assert_eq!(number(&finding, "closed_here_percent"), 100.0, "{finding}");
    listener.close();
    watch.stop(&["short-lived-churn"]).keep("short-lived-churn.trouble");
}

/// One connection that carries as many questions; checks of many services, one after the other.
#[test]
fn short_lived_churn_that_is_no_trouble() {
    let ns = Netns::new();
    let config = "[short-lived-churn]\nrate = \"1.5/s\"\nhandshake = \"0%\"\nseconds = 4\n";
    let watch = Watching::start(&[&ns], config);
    let Pair { listener, client, server } = pair(&ns, local(8640));
    let services: Vec<_> = (8641..8646).map(|port| Sock::listen(&ns, local(port), 16)).collect();
    for n in 0..32 {
        exchange(&client, &server);
        let service = &services[n % services.len()];
        let check = Sock::connected(&ns, service.local());
        close_in_order(check, service.accept());
        pause(140);
    }
    close_in_order(client, server);
    listener.close();
    drop(services);
    watch.finds_nothing().keep("short-lived-churn.alike");
}

#[test]
fn retransmit_burst() {
    let [here, there] = side_by_side();
    // A queue of a few segments in front of a slow line: what does not fit in is dropped.
    here.sysctl("net/ipv4/tcp_wmem", "4096 262144 262144");
    let tc = here.command("tc").args("qdisc add dev veth0 root tbf rate 3mbit burst 3kb limit 4kb".split(' ')).output();
    assert!(tc.expect("iproute2").status.success());
    let config = "[retransmit-burst]\nsegments = 20\n";
    let watch = Watching::start(&[&here], config);
    // The kernel's counters are read where somebody listens.
    let idle = Sock::listen(&here, SocketAddr::new(HERE, 8651), 16);
    let service = SocketAddr::new(THERE, 8652);
    let listener = Sock::listen(&there, service, 16);
    let clients: Vec<_> = (0..3).map(|_| (Sock::connected(&here, service), listener.accept())).collect();
    std::thread::scope(|scope| {
        for (client, server) in &clients {
            scope.spawn(|| client.send(&vec![b'x'; 400_000]));
            scope.spawn(|| server.receive(400_000));
        }
    });
    let finding = watch.fires("retransmit-burst");
    assert_eq!(
        (&finding["severity"], &finding["subject"]["raddr"]),
        (&"warning".into(), &"10.0.0.2".into()),
        "{finding}"
    );
    assert!(number(&finding, "retransmits") >= 20.0, "{finding}");
    assert!(number(&finding, "share_percent") >= 1.0, "{finding}");
    speaks(&finding);
    drop(clients);
    idle.close();
    listener.close();
    watch.stop(&["retransmit-burst"]).keep("retransmit-burst.trouble");
}

/// A connection that dies sends its last segment again and again.
#[test]
fn retransmit_burst_that_is_no_trouble() {
    let [here, there] = side_by_side();
    let watch = Watching::start(&[&here], "[retransmit-burst]\nsegments = 5\nalone = 20\n");
    let service = SocketAddr::new(THERE, 8653);
    let listener = Sock::listen(&there, service, 16);
    let client = Sock::connected(&here, service);
    let server = listener.accept();
    exchange(&client, &server);
    there.ip("route add blackhole 10.0.0.1/32");
    client.send(b"into the void");
    pause(4000);
    there.ip("route del blackhole 10.0.0.1/32");
    server.receive(13);
    wait_until("the answer to what was sent", || client.state() == 1);
    close_in_order(client, server);
    listener.close();
    watch.finds_nothing().keep("retransmit-burst.alike");
}
