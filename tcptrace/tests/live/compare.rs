//! The same as others say in the same run: `ss` about what exists, `tcpstates` about what happens.

use std::{
    collections::BTreeMap,
    io::BufRead,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::{Arc, Mutex},
};

use serde_json::Value;

use crate::support::{
    netns::Netns,
    process,
    segment::flag::{ACK, SYN},
    socket::{Pair, Sock, close_in_order, local, pair},
    tracer::Tracer,
    tun::{KERNEL, Tun},
    wait_until,
};

/// State, both ends, inode, Recv-Q, Send-Q.
type Row = (String, String, u64, u64, u64);

/// An address and port as `ss` writes them, in one spelling: unspecified ends are `*:PORT`, a port that is none 0.
fn end(text: &str) -> String {
    let (addr, port) = text.rsplit_once(':').expect("address:port");
    let addr = addr.trim_matches(['[', ']']);
    let addr = match addr.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() => ip.to_string(),
        _ => "*".into(),
    };
    format!("{addr}:{}", if port == "*" { "0" } else { port })
}

fn ss(ns: &Netns) -> BTreeMap<String, Row> {
    let output = process::run(ns.command("ss").args(["-tanOeH"]));
    let text = String::from_utf8(output.stdout).expect("ASCII");
    let rows = text.lines().map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let state = match words[0] {
            "ESTAB" => "ESTABLISHED",
            "SYN-RECV" => "NEW_SYN_RECV",
            "FIN-WAIT-1" => "FIN_WAIT1",
            "FIN-WAIT-2" => "FIN_WAIT2",
            other => &other.replace('-', "_"),
        };
        let tagged = |tag: &str| words.iter().find_map(|w| w.strip_prefix(tag)).unwrap_or("0");
        let number = |word: &str| word.parse::<u64>().expect("a number");
        let ends = format!("{} {}", end(words[3]), end(words[4]));
        let row = (state.to_owned(), ends, number(tagged("ino:")), number(words[1]), number(words[2]));
        (tagged("sk:").to_owned(), row)
    });
    rows.collect()
}

fn ours(socket: &Value) -> Row {
    let end = |addr: &str, port: &str| {
        let port = socket[port].as_u64().unwrap_or(0);
        end(&format!("[{}]:{port}", socket[addr].as_str().unwrap_or("::")))
    };
    let number = |name: &str| socket[name].as_u64().unwrap_or(0);
    let state = if socket["type"] == "request" { "NEW_SYN_RECV" } else { socket["state"].as_str().expect("a state") };
    (
        state.to_owned(),
        format!("{} {}", end("laddr", "lport"), end("raddr", "rport")),
        number("inode"),
        number("unread"),
        number("unsent"),
    )
}

#[test]
fn sockets_at_the_start_equal_ss() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let mut keep: Vec<Sock> = Vec::new();
    let addresses: [SocketAddr; 4] = [
        local(7401),
        "[::1]:7402".parse().expect("valid"),
        "[::]:7403".parse().expect("valid"),
        "0.0.0.0:7404".parse().expect("valid"),
    ];
    for (i, addr) in addresses.into_iter().enumerate() {
        let listener = Sock::listen(&ns, addr, 5 + i as i32);
        let to: SocketAddr = if addr.ip().is_unspecified() { local(addr.port()) } else { addr };
        for unread in 0..4 {
            let client = Sock::connected(&ns, to);
            let server = listener.accept();
            client.send(&vec![0; unread * 100 + 1]);
            server.wait_unread(unread * 100 + 1);
            keep.extend([client, server]);
        }
        for _ in 0..=i {
            keep.push(Sock::connected(&ns, to));
        }
        wait_until("the accept queue", || ns.rows().iter().all(|r| r.2 != 3));
        keep.push(listener);
    }
    let Pair { listener, client, server } = pair(&ns, local(7405));
    close_in_order(client, server);
    let half = (Sock::connected(&ns, local(7405)), listener.accept());
    half.0.shutdown();
    half.0.wait_state(5);
    let orphan = (Sock::connected(&ns, local(7405)), listener.accept());
    orphan.0.close();
    orphan.1.wait_state(8);
    keep.extend([listener, half.0, half.1, orphan.1]);
    let silent = tun.peer(7406);
    keep.push(Sock::new(&ns, silent.addr()));
    keep.last().expect("just pushed").start_connect(silent.addr());
    keep.push(Sock::listen(&ns, (KERNEL, 7407).into(), 16));
    let mut peer = tun.peer(40407);
    peer.meets(7407);
    peer.send(SYN, b"");
    peer.expect(SYN | ACK);

    let run = Tracer::start(&[&ns]).stop();
    let theirs = ss(&ns);
    assert!(theirs.len() >= 50, "{theirs:#?}");
    let mini =
        |row: &Row| ["NEW_SYN_RECV", "TIME_WAIT"].contains(&row.0.as_str()) || (row.0 == "FIN_WAIT2" && row.2 == 0);
    let by_cookie: BTreeMap<_, _> = run
        .of_type("socket")
        .map(|s| (s["sock"].as_str().unwrap_or("").to_owned(), ours(s)))
        .filter(|(_, row)| !mini(row))
        .collect();
    let full: BTreeMap<_, _> =
        theirs.iter().filter(|(_, row)| !mini(row)).map(|(k, v)| (k.clone(), v.clone())).collect();
    assert_eq!(by_cookie, full);
    // Requests and remnants have a cookie only if somebody asked for one; `ss` shows other queues for them.
    let sorted = |rows: Vec<Row>| {
        let mut rows: Vec<_> = rows.into_iter().filter(mini).map(|r| (r.0, r.1)).collect();
        rows.sort();
        rows
    };
    let minis = sorted(run.of_type("socket").chain(run.of_type("request")).map(ours).collect());
    assert_eq!(minis, sorted(theirs.into_values().collect()));
    assert_eq!(minis.len(), 3, "TIME_WAIT, an orphaned FIN_WAIT2, a request: {minis:?}");
}

/// One transition: `LADDR:LPORT RADDR:RPORT FROM>TO`.
fn theirs(line: &str) -> Option<String> {
    // SKADDR PID COMM LADDR LPORT RADDR RPORT OLDSTATE -> NEWSTATE MS; COMM may hold blanks.
    let mut words = line.split_whitespace().rev();
    let (_ms, to, _arrow, from) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let (rport, raddr, lport, laddr) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let own = own_address().to_string();
    let mine = |addr: &str| addr == own;
    (mine(laddr) || mine(raddr))
        .then(|| format!("{} {} {from}>{to}", end(&format!("{laddr}:{lport}")), end(&format!("{raddr}:{rport}"))))
}

/// An address that no other run of this test uses meanwhile: tcpstates sees the whole host.
fn own_address() -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 77 + (std::process::id() >> 16) as u8 % 64, high, low.max(1))
}

#[test]
fn every_transition_of_tcpstates_and_no_other() {
    let ns = Netns::new();
    // It needs the names of tracepoints where not every host mounts them.
    let script = "test -e /sys/kernel/tracing/events || mount -t tracefs tracefs /sys/kernel/tracing && exec stdbuf -oL tcpstates";
    let mut command = std::process::Command::new("unshare");
    let mut tcpstates = process::spawn(command.args(["-m", "sh", "-c", script]).stdout(Stdio::piped()));
    let (header, stdout) = process::first_line(tcpstates.child().stdout.take().expect("piped"));
    assert!(header.starts_with("SKADDR"), "{header}");
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let shared = Arc::clone(&seen);
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            shared.lock().expect("no panic while locked").extend(theirs(&line));
        }
    });

    let tracer = Tracer::start(&[&ns]);
    let at = |port: u16| -> SocketAddr { (own_address(), port).into() };
    for round in 0..10 {
        let Pair { listener, client, server } = pair(&ns, at(7410 + round));
        let mut more: Vec<_> = (0..4).map(|_| (Sock::connected(&ns, at(7410 + round)), listener.accept())).collect();
        close_in_order(client, server);
        let (client, server) = more.pop().expect("four");
        close_in_order(server, client);
        let (client, server) = more.pop().expect("four");
        client.linger_zero();
        client.close();
        server.close();
        let (client, server) = more.pop().expect("four");
        client.send(b"never read");
        server.wait_unread(10);
        server.close();
        client.close();
        let (client, server) = more.pop().expect("four");
        client.close();
        server.wait_state(8);
        server.close();
        let queued = Sock::connected(&ns, at(7410 + round));
        listener.close();
        queued.close();
        Sock::new(&ns, at(9)).connect(at(9)).expect_err("nobody listens");
    }
    ns.quiet();
    let run = tracer.stop();

    let mut ours: Vec<_> = run
        .of_type("transition")
        .map(|t| {
            let text = |name: &str| t[name].as_str().unwrap_or("").to_owned();
            let end = |addr: &str, port: &str| {
                let addr = t[addr].as_str().unwrap_or("0.0.0.0");
                end(&format!("{addr}:{}", t[port].as_u64().unwrap_or(0)))
            };
            let change =
                if text("kernel").is_empty() { format!("{}>{}", text("from"), text("to")) } else { text("kernel") };
            format!("{} {} {change}", end("laddr", "lport"), end("raddr", "rport"))
        })
        .collect();
    wait_until("tcpstates to print as much", || seen.lock().expect("no panic while locked").len() >= ours.len());
    let mut theirs = seen.lock().expect("no panic while locked").clone();
    // Up to 6.12 the tracepoint does not know a child's remote end; where a hook tells of half-open requests, we do.
    if !theirs.iter().any(|row| row.ends_with(" LISTEN>SYN_RECV") && !row.ends_with(" *:0 LISTEN>SYN_RECV")) {
        for row in ours.iter_mut().filter(|row| row.ends_with(" LISTEN>SYN_RECV")) {
            let local = row.split(' ').next().expect("the local end");
            *row = format!("{local} *:0 LISTEN>SYN_RECV");
        }
    }
    ours.sort();
    theirs.sort();
    assert!(ours.len() > 400, "{}", ours.len());
    let without = |a: &[String], b: &[String]| {
        let mut left = b.to_vec();
        let mut only = Vec::new();
        for row in a {
            match left.iter().position(|r| r == row) {
                Some(i) => drop(left.swap_remove(i)),
                None => only.push(row.clone()),
            }
        }
        only
    };
    let (only_ours, only_theirs) = (without(&ours, &theirs), without(&theirs, &ours));
    assert!(only_ours.is_empty() && only_theirs.is_empty(), "only ours: {only_ours:#?}\nonly theirs: {only_theirs:#?}");
}
