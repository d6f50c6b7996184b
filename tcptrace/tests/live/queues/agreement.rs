//! Tiers side by side, watching the same traffic: fentry and kprobes agree in everything, tracepoints in what docs/kernels.md lists.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::support::{
    netns::{Netns, TIME_WAIT},
    now,
    queues::{Recorded, counter, expect_again, half_open, named},
    run::{Run, parse},
    segment::{
        Segment,
        flag::{ACK, RST, SYN},
    },
    setting, skipped,
    socket::{Sock, close_in_order, local},
    tun::{Tun, at},
    wait_until,
};

/// What one tier says.
struct Said {
    tier: &'static str,
    signals: Map<String, Value>,
    /// Counts of each listener over all intervals, by port and cookie, with the names in docs/kernels.md.
    counts: BTreeMap<(u64, String), BTreeMap<String, u64>>,
    run: Run,
}

/// A field of `listener` in docs/kernels.md.
struct Field {
    name: String,
    signal: String,
    tracepoint: String,
}

fn fields() -> Vec<Field> {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kernels.md"));
    let table = text.split("| `listener` | signal | tracepoint tier |").nth(1).expect("the table of fields");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let fields: Vec<_> = rows
        .map(|row| {
            let mut cells = row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
            let mut next = || cells.next().expect("three columns");
            Field { name: next(), signal: next(), tracepoint: next() }
        })
        .collect();
    assert!(fields.len() > 10, "{}", fields.len());
    fields
}

fn field_of<'a>(line: &'a Value, name: &str) -> &'a Value {
    name.split('.').fold(line, |value, part| &value[part])
}

struct Watching {
    tier: &'static str,
    queues: Recorded,
}

impl Watching {
    fn start(ns: &Netns, tier: &'static str) -> Self {
        Self { tier, queues: Recorded::start(ns, "100ms", &["--tier", tier]) }
    }

    fn stop(self, fields: &[Field]) -> Said {
        let (text, stderr, run) = self.queues.stop();
        let lines = parse(&text);
        assert_eq!(lines.last().expect("a summary")["lost"], 0, "{stderr}");
        let signals = lines[0]["signals"].as_object().expect("signals").clone();
        let mut counts = BTreeMap::<_, BTreeMap<_, _>>::new();
        for line in lines.iter().filter(|l| l["type"] == "listener") {
            let key = (line["lport"].as_u64().expect("a port"), line["sock"].as_str().expect("a cookie").to_owned());
            let sums = counts.entry(key).or_default();
            let inferred = |name: &str| line["inferred"].as_array().is_some_and(|list| list.iter().any(|n| n == name));
            for field in fields.iter().filter(|f| !inferred(&f.name)) {
                if let Some(n) = field_of(line, &field.name).as_u64() {
                    let sum: &mut u64 = sums.entry(field.name.clone()).or_default();
                    *sum = if field.name.ends_with(".peak") { n.max(*sum) } else { *sum + n };
                }
            }
        }
        Said { tier: self.tier, signals, counts, run }
    }
}

impl Said {
    /// Everything that was said, without times.
    fn all(&self) -> Vec<Value> {
        const TIMES: [&str; 9] =
            ["ts", "mono_ns", "start", "state_us", "age_us", "duration_us", "handshake_us", "accept_wait_us", "us"];
        let mut lines: Vec<Value> = self.run.lines.iter().chain(self.run.conns.iter().map(|c| &c.0)).cloned().collect();
        lines.retain(|l| !["start", "summary"].contains(&l["type"].as_str().expect("a type")));
        for line in &mut lines {
            let line = line.as_object_mut().expect("an object");
            line.retain(|name, _| !TIMES.contains(&name.as_str()));
            for state in line.get_mut("states").and_then(Value::as_array_mut).into_iter().flatten() {
                state
                    .as_object_mut()
                    .expect("an object")
                    .retain(|name, _| !TIMES.contains(&name.as_str()) && name != "at_us");
            }
        }
        lines
    }

    /// Counts of all listeners of a port: a connection that moved from one to another is accepted there, or here.
    fn by_port(&self) -> BTreeMap<u64, BTreeMap<String, u64>> {
        let mut ports = BTreeMap::<_, BTreeMap<String, u64>>::new();
        for ((port, _), counts) in &self.counts {
            let sums = ports.entry(*port).or_default();
            for (name, n) in counts {
                let sum: &mut u64 = sums.entry(name.clone()).or_default();
                *sum = if name.ends_with(".peak") { *n.max(sum) } else { *sum + n };
            }
        }
        ports
    }

    /// Does a hook of the tracepoint tier tell the signal?
    fn tells(&self, signal: &str) -> bool {
        self.signals.get(signal).and_then(Value::as_str).is_some_and(|hook| hook.starts_with("tp_btf"))
    }
}

/// A bit of everything that can become of a SYN.
fn traffic(ns: &Netns, settle: &dyn Fn()) {
    let tun = Tun::new(ns);
    let listen = |port: u16, backlog: i32| Sock::listen(ns, at(port), backlog);
    // Both overflows: at the SYN, and at a final ACK that is answered later.
    let small = listen(8301, 1);
    settle();
    // Two half-open requests fill the SYN queue, two connections the accept queue.
    let mut peers = half_open(&tun, 8301, 41001..41003);
    peers[0].send(ACK, b"");
    peers.extend(half_open(&tun, 8301, 41003..41004));
    peers[1].send(ACK, b"");
    peers[2].send(ACK, b"");
    wait_until("an overflow", || counter(ns, "ListenOverflows") == 1);
    let mut late = tun.peer(41004);
    late.meets(8301);
    late.send(SYN, b"");
    wait_until("another", || counter(ns, "ListenOverflows") == 2);
    let taken = small.accept();
    expect_again(&mut peers[2]);
    peers[2].send(ACK, b"");
    settle();
    // Ends of half-open requests.
    let quiet = listen(8302, 8);
    let mut ends = half_open(&tun, 8302, 41011..41012);
    ends[0].send(RST, b"");
    let mut unreachable = tun.peer(41012);
    unreachable.meets(8302);
    unreachable.send(SYN, b"");
    let answer = unreachable.expect(SYN | ACK);
    unreachable.send_unreachable(&Segment { seq: answer.seq.wrapping_add(1), ..answer.clone() });
    unreachable.send_unreachable(&answer);
    let mut stale = tun.peer(41013);
    stale.meets(8302);
    stale.send_at(500_000, 0, SYN, b"");
    stale.expect(SYN | ACK);
    stale.send_at(500_100, 0, SYN, b"");
    stale.expect_any(&[RST, RST | ACK]);
    settle();
    // A listener that is closed over a half-open request and a connection.
    let closed = listen(8303, 8);
    let mut left = half_open(&tun, 8303, 41021..41023);
    left[0].send(ACK, b"");
    settle();
    closed.close();
    left[0].expect_skipping(SYN | ACK, RST | ACK);
    wait_until("its request to go", || !ns.rows().iter().any(|row| row.0 == 8303));
    // A group whose first listener goes: a request and a connection move.
    let member = || Sock::listen_in_group(ns, at(8304), 8);
    let first = member();
    let mut moving = half_open(&tun, 8304, 41031..41033);
    moving[0].send(ACK, b"");
    settle();
    let second = member();
    first.close();
    moving[1].send(ACK, b"");
    let moved = [second.accept(), second.accept()];
    settle();
    // Data in a SYN.
    let early = Sock::listen_fast_open(ns, at(8305), 4);
    let mut eager = tun.peer(41041);
    eager.meets(8305);
    eager.send(SYN, b"early");
    eager.expect(SYN | ACK);
    let opened = early.accept();
    eager.send(ACK, b"");
    opened.wait_state(1);
    settle();
    // Cookies for all: one comes back, one is nobody's.
    ns.sysctl("net/ipv4/tcp_syncookies", "2");
    let cookies = listen(8306, 8);
    let mut baker = tun.peer(41051);
    baker.meets(8306);
    baker.send(SYN, b"");
    let cookie = baker.expect(SYN | ACK).seq;
    baker.send_at(1001, cookie.wrapping_add(0x1234_5678), ACK, b"");
    baker.expect_any(&[RST]);
    baker.send_at(1001, cookie.wrapping_add(1), ACK, b"");
    let baked = cookies.accept();
    settle();
    // A whole life, TIME_WAIT included.
    let plain = Sock::listen(ns, local(8307), 8);
    let client = Sock::connected(ns, local(8307));
    close_in_order(client, plain.accept());
    wait_until("TIME_WAIT", || ns.rows().iter().any(|row| row.1 == 8307 && row.2 == TIME_WAIT));
    settle();
    for sock in [taken, opened, baked].iter().chain(&moved) {
        sock.linger_zero();
    }
    drop((small, quiet, second, early, cookies, plain));
}

#[test]
fn tiers_agree() {
    let offered: String = setting("TCPTRACE_TEST_TIERS").unwrap_or_else(|| "tracepoint".to_owned());
    let tiers: Vec<_> = ["fentry", "kprobe", "tracepoint"].into_iter().filter(|t| offered.contains(t)).collect();
    let fields = fields();
    let ns = Netns::new();
    ns.sysctl("net/ipv4/tcp_fastopen", "515");
    ns.sysctl("net/ipv4/tcp_migrate_req", "1");
    let watching: Vec<_> = tiers.iter().map(|tier| Watching::start(&ns, tier)).collect();
    // Every tier has ended an interval that began after now: what happens next is nobody's first.
    let settle = || {
        let after = now();
        for watching in &watching {
            let mut ends = 0;
            watching.queues.wait_for("two intervals' ends", |line| {
                ends += usize::from(line["type"] == "netns" && line["mono_ns"].as_u64() > Some(after));
                ends == 2
            });
        }
    };
    traffic(&ns, &settle);
    let said: Vec<_> = watching.into_iter().map(|w| w.stop(&fields)).collect();

    let find = |tier: &str| said.iter().find(|s| s.tier == tier);
    if let (Some(a), Some(b)) = (find("fentry"), find("kprobe")) {
        assert_eq!(a.counts, b.counts, "listeners");
        for (x, y) in a.all().iter().zip(&b.all()) {
            assert_eq!(x, y);
        }
        assert_eq!(a.all().len(), b.all().len());
    } else {
        skipped("agreement of fentry and kprobe", "fentry or kprobes");
    }
    let tracepoint = find("tracepoint").expect("every kernel has it");
    told_as_listed(tracepoint, find("fentry"), &fields);
}

/// What the tracepoint tier says of `fields` is what docs/kernels.md lists: beside `exact`, which saw everything.
fn told_as_listed(tracepoint: &Said, exact: Option<&Said>, fields: &[Field]) {
    let exact_counts = exact.map(Said::by_port);
    for (port, counts) in &tracepoint.by_port() {
        for field in fields {
            let told = counts.get(&field.name).copied();
            let why = format!("{} at {port}: {}", field.name, field.tracepoint);
            let exact = exact_counts.as_ref().map(|exact| exact[port][&field.name]);
            if field.tracepoint == "absent" || !tracepoint.tells(&field.signal) {
                // Without a hook, a peak is that of the lengths at the ends of intervals.
                let sampled = field.name.ends_with(".peak") && exact.is_none_or(|exact| told <= Some(exact));
                assert!(told.is_none() || sampled, "{why}: {told:?}");
                continue;
            }
            let told = told.unwrap_or_else(|| panic!("{why}"));
            let Some(exact) = exact else { continue };
            match field.tracepoint.as_str() {
                "same" => assert_eq!(told, exact, "{why}"),
                "at most" => assert!(told <= exact, "{why}: {told}, not {exact}"),
                "at least" => assert!(told >= exact, "{why}: {told}, not {exact}"),
                other => panic!("{other}"),
            }
        }
    }
    let Some(exact) = exact else { return };
    // Connections are the same; requests that it tells of end as they did.
    let ends = |said: &Said| {
        let conns = said.run.conns.iter().filter(|c| c.text("role") == "client");
        conns.map(|c| (c.states(), c.text("end").to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(ends(tracepoint), ends(exact));
    let requests = |said: &Said| -> Vec<_> {
        let requests = said.run.of_type("request").filter(|r| r["outcome"] == "queued" || r["outcome"] == "completed");
        requests.filter(|r| r["detail"] != "migrated").map(|r| format!("{} {}", r["rport"], named(r))).collect()
    };
    if tracepoint.tells("accept_queue") && tracepoint.tells("fast_open") {
        assert_eq!(requests(tracepoint), requests(exact));
    }
}
