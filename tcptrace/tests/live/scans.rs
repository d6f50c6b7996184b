//! Rules about SYNs that nobody meant: duplicates that come late, and ports that are tried one after the other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use serde_json::Value;

use crate::{
    support::{
        netns::Netns,
        segment::{
            Segment,
            flag::{ACK, FIN, RST, SYN},
        },
        socket::{Sock, close_in_order},
        tun::{KERNEL, PEER, Tun, at},
    },
    watching::{Watching, number},
};

/// A connection from the scripted peer to `listener`, from its SYN to its end, closed by the peer first: no TIME_WAIT stays here.
fn connection(tun: &Tun, listener: &Sock, from: u16, port: u16, isn: u32) {
    let mut peer = tun.peer(from);
    peer.meets(port);
    peer.send_at(isn, 0, SYN, b"");
    peer.expect(SYN | ACK);
    peer.send(ACK, b"");
    let server = listener.accept();
    peer.send(FIN | ACK, b"");
    server.receive_all().expect("the end of the stream");
    server.close();
    peer.expect_skipping(ACK, FIN | ACK);
    peer.send(ACK, b"");
}

/// A SYN that its sender does not know any more.
fn stray(tun: &Tun, from: u16, port: u16, isn: u32) {
    let mut peer = tun.peer(from);
    peer.meets(port);
    peer.send_at(isn, 0, SYN, b"");
    let answer = peer.expect(SYN | ACK);
    peer.send_at(answer.ack, 0, RST, b"");
}

#[test]
fn stale_syn() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watching::start(&[&ns], "[stale-syn]\nsyns = 3\n");
    let listener = Sock::listen(&ns, at(8701), 16);
    for n in 0..4 {
        connection(&tun, &listener, 40700 + n, 8701, 70_000 * u32::from(n));
        ns.quiet();
        stray(&tun, 40700 + n, 8701, 70_000 * u32::from(n));
    }
    let finding = watch.fires("stale-syn");
    let subject = &finding["subject"];
    assert_eq!((&finding["severity"], &subject["lport"]), (&"info".into(), &8701.into()), "{finding}");
    assert_eq!(subject["pid"], std::process::id(), "{finding}");
    assert!(number(&finding, "stale_syns") >= 3.0, "{finding}");
    assert_eq!(finding["evidence"]["source"], PEER.to_string(), "{finding}");
    listener.close();
    watch.stop(&["stale-syn"]).keep("stale-syn.trouble");
}

/// Clients that give up before the handshake is over: their SYNs are new ones.
#[test]
fn stale_syn_that_is_no_trouble() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watching::start(&[&ns], "[stale-syn]\nsyns = 3\n");
    let listener = Sock::listen(&ns, at(8702), 16);
    for n in 0..6 {
        connection(&tun, &listener, 40710, 8702, 70_000 * n);
        ns.quiet();
        stray(&tun, 40710, 8702, 70_000 * n + 35_000);
    }
    listener.close();
    watch.finds_nothing().keep("stale-syn.alike");
}

/// It names who tried, and what.
#[track_caller]
fn from(finding: &Value, source: IpAddr, target: IpAddr) {
    assert_eq!(finding["severity"], "warning", "{finding}");
    assert_eq!(finding["subject"]["raddr"], source.to_string(), "{finding}");
    assert_eq!(finding["evidence"]["target"], target.to_string(), "{finding}");
}

#[test]
fn port_scan_by_connect() {
    let (here, there) = (Netns::new(), Netns::new());
    let (target, source): (IpAddr, IpAddr) = (Ipv4Addr::new(10, 0, 0, 1).into(), Ipv4Addr::new(10, 0, 0, 2).into());
    here.veth(&there, target, source);
    let watch = Watching::start(&[&here], "");
    let open = Sock::listen(&here, SocketAddr::new(target, 8710), 16);
    for port in 8700..8740 {
        let addr = SocketAddr::new(target, port);
        let sock = Sock::new(&there, addr);
        assert_eq!(sock.connect(addr).is_ok(), port == 8710);
        if port == 8710 {
            close_in_order(sock, open.accept());
        }
    }
    let finding = watch.fires_as("port-scan", |f| f["evidence"]["ports"].as_u64() >= Some(15));
    from(&finding, source, target);
    assert!(number(&finding, "closed") >= 14.0, "{finding}");
    open.close();
    watch.stop(&["port-scan"]).keep("port-scan.trouble");
}

#[test]
fn port_scan_over_ipv6() {
    let (here, there) = (Netns::new(), Netns::new());
    let (target, source): (IpAddr, IpAddr) = ("fd00::1".parse().expect("IPv6"), "fd00::2".parse().expect("IPv6"));
    here.veth(&there, target, source);
    let watch = Watching::start(&[&here], "");
    for port in 8700..8730 {
        let addr = SocketAddr::new(target, port);
        Sock::new(&there, addr).connect(addr).expect_err("closed");
    }
    let finding = watch.fires("port-scan");
    from(&finding, source, target);
    watch.stop(&["port-scan"]);
}

/// FINs to a thousand ports at once, and segments without flags: more than the kernel programs tell one by one. What they held back is
/// counted.
#[test]
fn port_scan_by_fins() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watching::start(&[&ns], "");
    let writer = tun.writer();
    let try_port = |port: u16, flags: u8| {
        let (from, to) = (SocketAddrV4::new(PEER, 40720), SocketAddrV4::new(KERNEL, port));
        writer.write(&Segment { from, to, seq: 7, ack: 0, flags, window: 1024, payload: vec![] }.encode());
    };
    for port in 9000..11000 {
        try_port(port, if port % 4 == 0 { 0 } else { FIN });
    }
    let finding = watch.fires("port-scan");
    from(&finding, PEER.into(), KERNEL.into());
    for kind in ["fin", "no_flags"] {
        assert!(finding["evidence"]["segments"][kind].as_u64() > Some(0), "{finding}");
    }
    let told = number(&finding, "ports");
    let held_back = finding["evidence"]["held_back"].as_f64().unwrap_or(0.0);
    assert!(told <= 2000.0 && told + held_back <= 2000.0, "{finding}");
    watch.stop(&["port-scan"]);
}

/// Clients of a service that is down, and segments of connections that are not there any more.
#[test]
fn port_scan_that_is_none() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let watch = Watching::start(&[&ns], "");
    let writer = tun.writer();
    for n in 0..40 {
        for (port, ack, flags) in
            [(8720, 0, SYN), (20_000 + n, 9, ACK), (21_000 + n, 9, FIN | ACK), (22_000 + n, 9, SYN | ACK)]
        {
            let (from, to) = (SocketAddrV4::new(PEER, 40730 + n), SocketAddrV4::new(KERNEL, port));
            writer.write(&Segment { from, to, seq: 7, ack, flags, window: 1024, payload: vec![] }.encode());
        }
    }
    watch.finds_nothing().keep("port-scan.alike");
}
