//! `conns --ladder` live: one ladder for both ends of a connection on this host, and its numbers against a packet capture.

use std::{collections::HashMap, net::Ipv4Addr, sync::LazyLock};

use serde_json::Value;

use crate::support::{
    capture::Capture,
    netns::Netns,
    process,
    run::is_served,
    segment::{
        Segment,
        flag::{ACK, FIN, RST, SYN},
    },
    setting,
    socket::{Pair, Sock, close_in_order, local, pair},
    tracer::{Live, Tracer, netns_list, tcptrace},
    tun::Tun,
};

const FIN_WAIT2: u8 = 5;
/// Connections whose numbers are compared with a capture; `TCPTRACE_TEST_CONNECTIONS` makes them fewer where everything is slow.
static COMPARED: LazyLock<usize> =
    LazyLock::new(|| setting("TCPTRACE_TEST_CONNECTIONS").map_or(1000, |n: usize| n / 20));

/// The only `connection` with this role.
fn only<'a>(lines: &'a [Value], role: &str) -> &'a Value {
    let mut found = connections_of(lines).filter(|c| c["role"] == role);
    let conn = found.next().unwrap_or_else(|| panic!("a {role} in {lines:?}"));
    assert!(found.next().is_none(), "one {role} in {lines:?}");
    conn
}

/// All that live `conns --json --ladder` prints about what `scenario` does.
fn ladders(namespaces: &[&Netns], scenario: impl FnOnce()) -> Vec<Value> {
    let mut command = tcptrace();
    let live = Live::start(command.args(["conns", "--json", "--ladder", "--netns", &netns_list(namespaces)]), &[]);
    scenario();
    namespaces.iter().for_each(|ns| ns.quiet());
    let (text, _) = live.stop();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn connections_of(lines: &[Value]) -> impl Iterator<Item = &Value> {
    lines.iter().filter(|line| line["type"] == "connection")
}

/// `out SYN SYN_SENT -`: a step of a connection without its times and numbers; `~` behind what was concluded.
fn shape(step: &Value) -> String {
    let concluded = |name: &str| step["inferred"].as_array().is_some_and(|list| list.iter().any(|n| n == name));
    let mark = |name: &str| if concluded(name) { "~" } else { "" };
    let state = |name: &str| step[name].as_str().map_or("-".to_owned(), |state| format!("{state}{}", mark(name)));
    let flags: Vec<_> = step["flags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let way = step["direction"].as_str().unwrap_or("-");
    format!("{way} {}{} {} {}", flags.join("+"), mark("segment"), state("state"), state("peer_state"))
}

/// Both ends tell one ladder: the peer's is the same from its side, and each has the other's times.
fn is_shared(client: &Value, server: &Value) {
    let steps = |c: &Value| c["ladder"].as_array().unwrap_or_else(|| panic!("a ladder in {c}")).clone();
    let (ours, theirs) = (steps(client), steps(server));
    assert_eq!(ours.len(), theirs.len(), "{client}\n{server}");
    for (a, b) in ours.iter().zip(&theirs) {
        assert_eq!((&a["flags"], &a["seq"], &a["ack"]), (&b["flags"], &b["seq"], &b["ack"]));
        assert_ne!(a["direction"], b["direction"], "{a} {b}");
        assert_eq!((&a["state"], &a["peer_state"]), (&b["peer_state"], &b["state"]));
        assert_eq!(a["at_us"].is_i64(), b["peer_at_us"].is_i64(), "{a} {b}");
    }
}

/// A connection that the client closes, as both ends tell it.
fn closed_by_client(lines: &[Value]) {
    let (client, server) = (only(lines, "client"), only(lines, "server"));
    is_shared(client, server);
    let shapes: Vec<_> = client["ladder"].as_array().expect("a ladder").iter().map(shape).collect();
    // Without a hook for half-open requests nothing tells of the server before the final ACK.
    let asked = if is_served(lines, "half_open") { "NEW_SYN_RECV" } else { "-" };
    let mut expected = vec![
        format!("out SYN SYN_SENT {asked}"),
        "in SYN+ACK ESTABLISHED -".to_owned(),
        "out ACK - ESTABLISHED".to_owned(),
        "out FIN+ACK FIN_WAIT1 CLOSE_WAIT".to_owned(),
    ];
    // The server's ACK may wait for its FIN.
    match client["close_segments"].as_u64() {
        Some(3) => {}
        Some(4) => expected.push("in ACK FIN_WAIT2 -".to_owned()),
        other => panic!("{other:?} segments in {client}"),
    }
    expected.extend(["in FIN+ACK TIME_WAIT LAST_ACK".to_owned(), "out ACK - CLOSE".to_owned()]);
    assert_eq!(shapes, expected, "{client}");
}

#[test]
fn quick_loopback_has_one_ladder() {
    let ns = Netns::new();
    let lines = ladders(&[&ns], || {
        let Pair { listener: _listener, client, server } = pair(&ns, local(7301));
        client.send(b"hello");
        server.receive(5);
        close_in_order(client, server);
    });
    closed_by_client(&lines);
}

#[test]
fn two_namespaces_have_one_ladder() {
    let (near, far) = (Netns::new(), Netns::new());
    let [here, there] = [1, 2].map(|n| Ipv4Addr::new(10, 73, 0, n));
    near.veth(&far, here.into(), there.into());
    let lines = ladders(&[&near, &far], || {
        let addr = (there, 7302).into();
        let listener = Sock::listen(&far, addr, 16);
        let client = Sock::connected(&near, addr);
        let server = listener.accept();
        client.send(b"hello");
        server.receive(5);
        close_in_order(client, server);
    });
    assert_ne!(only(&lines, "client")["netns"], only(&lines, "server")["netns"]);
    closed_by_client(&lines);
}

/// Numbers of the segments with these flags in a connection's ladder: those that were sent first, and those that were sent again.
fn numbers(conn: &Value, direction: &str, flags: &[&str]) -> [Vec<u32>; 2] {
    let steps = conn["ladder"].as_array().expect("a ladder").iter();
    let wanted = steps.filter(|step| step["direction"] == direction && step["flags"] == Value::from(flags));
    let (again, first): (Vec<_>, Vec<_>) = wanted.partition(|step| step["again"] == true);
    [first, again].map(|steps| steps.iter().map(|s| s["seq"].as_u64().expect("a number") as u32).collect())
}

#[test]
fn what_is_sent_again_has_the_number_that_it_had() {
    let ns = Netns::new();
    let (mut syn, mut fin, mut peers) = (0, 0, 0);
    let lines = ladders(&[&ns], || {
        let tun = Tun::new(&ns);
        let mut peer = tun.peer(7305);
        let client = Sock::new(&ns, peer.addr());
        client.start_connect(peer.addr());
        syn = peer.lose(SYN).seq;
        peer.accept();
        client.finish_connect().expect("open");
        client.shutdown();
        fin = peer.lose(FIN | ACK).seq;
        peer.lose(FIN | ACK);
        peer.expect(FIN | ACK);
        peer.send(ACK, b"");
        client.wait_state(FIN_WAIT2);
        peers = peer.seq;
        peer.send(FIN | ACK, b"");
        peer.expect(ACK);
        client.close();
    });
    let client = only(&lines, "client");
    // A slow machine sends more again.
    for (flags, number, least) in [(&["SYN"][..], syn, 1), (&["FIN", "ACK"], fin, 2)] {
        let [first, again] = numbers(client, "out", flags);
        assert_eq!(first, [number], "{client}");
        assert!(again.len() >= least && again.iter().all(|n| *n == number), "{client}");
    }
    assert_eq!(numbers(client, "in", &["FIN", "ACK"]), [vec![peers], vec![]], "{client}");
}

#[test]
fn a_refused_syn_has_its_number() {
    let ns = Netns::new();
    let capture = Capture::start(&ns);
    let lines = ladders(&[&ns], || {
        Sock::new(&ns, local(7306)).connect(local(7306)).expect_err("nobody listens");
    });
    let client = only(&lines, "client");
    let shapes: Vec<_> = client["ladder"].as_array().expect("a ladder").iter().map(shape).collect();
    assert_eq!(shapes, ["out SYN SYN_SENT -", "in RST CLOSE -"], "{client}");
    let syns: Vec<u32> = capture.segments().iter().filter(|s| s.flags == SYN).map(|s| s.seq).collect();
    assert_eq!(numbers(client, "out", &["SYN"]), [syns, vec![]], "{client}");
}

/// A SYN, FIN or RST: who sent it, which flags, its number (the FIN's own; none of a RST, which no hook tells) and its ACK's.
type Mark = (bool, Vec<&'static str>, Option<u32>, Option<u32>);

fn captured(s: &Segment, client: u16) -> Option<Mark> {
    let flags = match s.flags & (SYN | FIN | RST | ACK) {
        SYN => vec!["SYN"],
        f if f == SYN | ACK => vec!["SYN", "ACK"],
        f if f & FIN != 0 => vec!["FIN", "ACK"],
        f if f & RST != 0 => return Some((s.from.port() == client, vec!["RST"], None, None)),
        _ => return None,
    };
    let number = s.seq.wrapping_add(s.payload.len() as u32);
    Some((s.from.port() == client, flags, Some(number), (s.flags & ACK != 0).then_some(s.ack)))
}

fn told(step: &Value) -> Option<Mark> {
    let number = |name: &str| step[name].as_u64().map(|n| n as u32);
    let flags: Vec<_> = step["flags"].as_array()?.iter().filter_map(Value::as_str).collect();
    let flags = match flags[..] {
        ["SYN"] => vec!["SYN"],
        ["SYN", "ACK"] => vec!["SYN", "ACK"],
        ["FIN", "ACK"] => vec!["FIN", "ACK"],
        ["RST"] => vec!["RST"],
        _ => return None,
    };
    Some((step["direction"] == "out", flags, number("seq"), number("ack")))
}

/// One after the other: either end closes first, after so many bytes each way, some halfway, some by a RST.
fn connections(ns: &Netns, listener: &Sock, port: u16) {
    for i in 0..*COMPARED {
        let client = Sock::connected(ns, local(port));
        let server = listener.accept();
        for (from, to, n) in [(&client, &server, 1 + i * 37 % 5000), (&server, &client, 1 + i * i * 101 % 9000)] {
            from.send(&vec![b'x'; n]);
            to.receive(n);
        }
        let (first, second) = if i % 2 == 0 { (client, server) } else { (server, client) };
        match i % 8 {
            0..6 => close_in_order(first, second),
            6 => {
                first.shutdown();
                second.receive_all().expect("the end of the stream");
                second.send(b"later");
                first.receive(5);
                second.close();
                first.receive_all().expect("the end of the stream");
                first.close();
            }
            _ => {
                first.linger_zero();
                first.close();
                second.receive_all().expect_err("a RST");
                second.close();
            }
        }
    }
}

#[test]
fn numbers_are_those_of_a_packet_capture() {
    const PORT: u16 = 7303;
    let ns = Netns::new();
    let capture = Capture::start(&ns);
    let lines = ladders(&[&ns], || {
        let listener = Sock::listen(&ns, local(PORT), 16);
        connections(&ns, &listener, PORT);
    });
    // A port serves more than one of them, one after the other: by port and initial sequence number.
    let mut by_client: HashMap<(u16, u32), Vec<Mark>> = HashMap::new();
    let (mut latest, mut closed) = (HashMap::new(), HashMap::<_, [bool; 2]>::new());
    for s in capture.segments() {
        let client = if s.from.port() == PORT { s.to.port() } else { s.from.port() };
        if s.flags == SYN {
            latest.insert(client, s.seq);
        }
        let connection = (client, latest[&client]);
        let fins = closed.entry(connection).or_default();
        fins[usize::from(s.from.port() == PORT)] |= s.flags & FIN != 0;
        // What still comes to an end that is over is answered by a RST without ACK, which is no socket's: here after both FINs ...
        if s.flags == RST && *fins == [true; 2] {
            continue;
        }
        by_client.entry(connection).or_default().extend(captured(&s, client));
    }
    // ... and here after the end's own RST.
    by_client.values_mut().for_each(|marks| marks.dedup_by(|later, mark| mark.1 == ["RST"] && later == mark));
    let clients: Vec<_> = connections_of(&lines).filter(|c| c["role"] == "client").collect();
    assert_eq!((clients.len(), by_client.len()), (*COMPARED, *COMPARED));
    for conn in clients {
        let port = conn["lport"].as_u64().expect("a port") as u16;
        let told: Vec<_> = conn["ladder"].as_array().expect("a ladder").iter().filter_map(told).collect();
        let isn = conn["isn_local"].as_u64().expect("a number") as u32;
        assert_eq!(told, by_client[&(port, isn)], "told, captured: {conn}");
    }
}

/// A ladder's text without what differs from run to run: `SYN_SENT SYN → NEW_SYN_RECV`.
fn sketch(line: &str) -> String {
    let kept = |word: &&str| !word.starts_with(['+', '(']) && !word.starts_with("seq=") && !word.starts_with("ack=");
    // A label that fills its arrow has no blanks.
    let text = line.replace(['─', '┄'], " ");
    text.split_whitespace().filter(kept).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_recording_is_drawn() {
    let ns = Netns::new();
    let tracer = Tracer::start(&[&ns]);
    let Pair { listener, client, server } = pair(&ns, local(7304));
    client.send(b"hello");
    server.receive(5);
    server.linger_zero();
    server.close();
    client.receive_all().expect_err("a RST");
    client.close();
    ns.quiet();
    drop(listener);
    let run = tracer.stop();
    let mut command = tcptrace();
    command
        .env("LC_ALL", "C.UTF-8")
        .env("TERM", "xterm")
        .args(["conns", "--ladder", "-q", "--from"])
        .arg(&run.recording);
    let text = String::from_utf8(process::run(&mut command).stdout).expect("UTF-8");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let drawn: Vec<_> = text.lines().skip_while(|line| !line.contains("SYN_SENT")).map(sketch).collect();
    let asked = if is_served(&run.lines, "half_open") { " NEW_SYN_RECV" } else { "" };
    let expected = [
        format!("SYN_SENT SYN →{asked}"),
        "ESTABLISHED ← SYN+ACK".to_owned(),
        "ACK → ESTABLISHED".to_owned(),
        "→ 5B ← 0B".to_owned(),
        "CLOSE ← RST CLOSE".to_owned(),
        String::new(),
    ];
    assert_eq!(drawn, expected, "{text}");
    // The same for a terminal that has nothing but ASCII.
    let plain = process::run(command.env("LC_ALL", "C")).stdout;
    assert!(plain.is_ascii() && plain.len() < text.len(), "{}", String::from_utf8_lossy(&plain));
}
