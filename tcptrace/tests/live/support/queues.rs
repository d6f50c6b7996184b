//! Listeners under observation: `queues --json` beside the traffic, what its recording tells of the connections, and the kernel's own
//! word on both queues to hold them against.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::LazyLock};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    netns::Netns,
    now, process,
    run::{Run, brief, nothing_lost, parse},
    segment::flag::{ACK, SYN},
    tracer::{Live, netns_list, tcptrace, tier},
    tun::{Peer, Tun},
    wait_until,
};

/// How a signal is served: by its hook, which sees everything or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Every event passes the hook.
    Exact,
    /// A hook tells of some.
    Partly,
    /// No hook: counters at best.
    No,
}

/// What `doctor` says of the tier under test: signal → how it is served, and its hook.
static SIGNALS: LazyLock<BTreeMap<String, (Served, String)>> = LazyLock::new(|| {
    let output = process::run(tcptrace().args(["doctor", "--json", "--tier", &tier()]));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let signals = report["signals"].as_array().expect("signals").iter();
    signals
        .map(|s| {
            let served = match s["hook"].as_str() {
                None => Served::No,
                Some(hook) if hook.starts_with("counters") => Served::No,
                Some(_) if s["exact"] == true => Served::Exact,
                Some(_) => Served::Partly,
            };
            let hook = s["hook"].as_str().unwrap_or_default().to_owned();
            (s["name"].as_str().expect("a name").to_owned(), (served, hook))
        })
        .collect()
});

fn signal(name: &str) -> &'static (Served, String) {
    SIGNALS.get(name).unwrap_or_else(|| panic!("no signal {name} in {:?}", *SIGNALS))
}

/// How the tier under test serves `signal`.
pub fn served(name: &str) -> Served {
    signal(name).0
}

/// Its hook; empty without.
pub fn hook(name: &str) -> &'static str {
    &signal(name).1
}

/// Is it served by a hook that sees every event?
pub fn exact(signal: &str) -> bool {
    served(signal) == Served::Exact
}

/// The signal that tells an outcome of a request, and whether it is told.
fn outcome_is_told(outcome: &str) -> bool {
    let (outcome, detail) = outcome.split_once(':').unwrap_or((outcome, ""));
    match detail {
        "aborted" => return outcome_is_told("rst"),
        "fast_open" => return served("fast_open") != Served::No,
        _ => {}
    }
    match outcome {
        "queued" | "rst" | "synack_timeout" | "other" => served("half_open") != Served::No,
        // A request's timer, too, tells how it ends.
        "completed" => served("accept_queue") != Served::No || served("half_open") != Served::No,
        "syn_queue_full" | "accept_queue_full_syn" => served("syn_outcome") != Served::No,
        "accept_queue_full_ack" => served("overflow") != Served::No,
        // A tracepoint sees a cookie only when it comes back.
        "cookie_sent" => exact("cookies"),
        "cookie_completed" => served("cookies") != Served::No,
        outcome => panic!("no outcome {outcome}"),
    }
}

/// Is a count of `listener` objects told by a hook?
fn count_is_told(name: &str) -> bool {
    let signal = match name {
        "syns" | "dropped.syn_queue_full" | "dropped.accept_queue_full_syn" | "dropped.other" => "syn_outcome",
        "queued" | "dropped.rst" | "dropped.synack_timeout" | "dropped.listener_closed" => "half_open",
        "completed" => "accept_queue",
        "accepted" => return served("accept") != Served::No && served("accept_queue") != Served::No,
        "cookies_sent" => return exact("cookies"),
        "cookies_ok" => "cookies",
        "fast_opens" => "fast_open",
        "dropped.accept_queue_full_ack" => "overflow",
        "migrated" => "migration",
        "synack_retrans" => "synack_retransmit",
        name => panic!("no count {name}"),
    };
    served(signal) != Served::No
}

/// A count of a `listener` object, by its name (`dropped.rst`).
fn count_of(line: &Value, name: &str) -> Option<u64> {
    name.split('.').fold(line, |value, part| &value[part]).as_u64()
}

/// Lengths of both queues of a listener: half-open requests, connections that wait for accept().
pub type Depths = (u64, u64);

/// What the kernel shows of the listeners at `port`: how many rows SYN-RECV, and Recv-Q of the rows LISTEN, of one `ss -tan`.
pub fn ss(ns: &Netns, port: u16) -> Depths {
    let output = process::run(ns.command("ss").args(["-Htan", "sport", "=", &format!(":{port}")]));
    let text = String::from_utf8(output.stdout).expect("text");
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let half_open = rows.iter().filter(|row| row[0] == "SYN-RECV").count() as u64;
    let listening = rows.iter().filter(|row| row[0] == "LISTEN");
    let waiting = listening.map(|row| row[1].parse::<u64>().unwrap_or_else(|_| panic!("{row:?}"))).sum();
    (half_open, waiting)
}

/// The kernel's counter of this name in `/proc/net/netstat` of `ns`.
pub fn counter(ns: &Netns, name: &str) -> u64 {
    let text = ns.enter(|| fs::read_to_string("/proc/thread-self/net/netstat")).expect("procfs");
    let lines: Vec<_> = text.lines().filter(|l| l.starts_with("TcpExt:")).collect();
    let at = lines[0].split_whitespace().position(|n| n == name).unwrap_or_else(|| panic!("no counter {name}"));
    lines[1].split_whitespace().nth(at).and_then(|v| v.parse().ok()).expect("a number")
}

/// `queues`, watching one namespace, with a recording.
pub struct Watch<'a> {
    ns: &'a Netns,
    queues: Recorded,
}

/// A live `queues --json --record`.
pub struct Recorded {
    live: Live,
    dir: TempDir,
    recording: PathBuf,
}

impl Recorded {
    /// Nothing that happens to a listener in `ns` from now on is missed.
    pub fn start(ns: &Netns, interval: &str, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let recording = dir.path().join("queues.rec");
        let mut command = tcptrace();
        command.args(["queues", "--json", "--netns", &netns_list(&[ns]), "--interval", interval, "--record"]);
        Self { live: Live::start(command.arg(&recording), args), dir, recording }
    }

    /// See [`Live::wait_for`].
    pub fn wait_for(&self, what: &str, wanted: impl FnMut(&Value) -> bool) -> Value {
        self.live.wait_for(what, wanted)
    }

    /// Stop it as Ctrl-C does: what it printed and said, and what `trace --requests` and `conns` make of its recording.
    pub fn stop(self) -> (String, String, Run) {
        let (text, stderr) = self.live.stop();
        let run = Run::of_recording(&["--requests"], self.dir, self.recording);
        (text, stderr, run)
    }
}

impl<'a> Watch<'a> {
    /// Nothing that happens to a listener in `ns` from now on is missed.
    pub fn start(ns: &'a Netns) -> Self {
        Self::start_with(ns, "100ms")
    }

    /// The same with another interval than a short one.
    pub fn start_with(ns: &'a Netns, interval: &str) -> Self {
        Self { ns, queues: Recorded::start(ns, interval, &[]) }
    }

    /// The queues of the listener at `port` reach these lengths in the kernel, and the next whole interval ends with the same.
    pub fn depths(&self, port: u16, half_open: u64, waiting: u64) {
        let wanted = (half_open, waiting);
        wait_until(&format!("{wanted:?} in the kernel at {port}"), || ss(self.ns, port) == wanted);
        let shown = self.after(port, now());
        assert_eq!(shown, wanted, "shown at {port} against what ss shows");
        assert_eq!(ss(self.ns, port), wanted, "the kernel went on meanwhile");
    }

    /// Lengths at the end of the first interval that was wholly read after `mono_ns`.
    fn after(&self, port: u16, mono_ns: u64) -> Depths {
        let (mut ends, mut shown) = (0, (0, 0));
        self.queues.wait_for("an interval's end", |line| {
            if line["type"] != "listener" || line["lport"] != port || line["mono_ns"].as_u64() < Some(mono_ns) {
                return false;
            }
            // The last words of one that was closed.
            if line["syn_queue"]["len"].is_null() {
                return false;
            }
            // The first may have been read while it began.
            ends += 1;
            let len = |queue: &str| line[queue]["len"].as_u64().unwrap_or_else(|| panic!("{queue} in {line}"));
            shown = (len("syn_queue"), len("accept_queue"));
            ends == 2
        });
        shown
    }

    /// Wait until this kernel counter of the namespace has grown to `n`.
    pub fn counted(&self, name: &str, n: u64) {
        wait_until(&format!("{name} to be {n}"), || counter(self.ns, name) >= n);
        assert_eq!(counter(self.ns, name), n, "{name}");
    }

    /// Wait until this count of the listeners at `port` has grown to `n` over the intervals shown, if a hook tells it; to less, where runs
    /// of hooks were missed and are counted: see [`nothing_lost`].
    pub fn told(&self, port: u16, count: &str, n: u64) {
        if !count_is_told(count) {
            return;
        }
        let (mut sum, mut missed) = (0, 0);
        self.queues.wait_for(&format!("{n} {count}"), |line| {
            if line["type"] == "listener" && line["lport"] == port {
                sum += count_of(line, count).unwrap_or(0);
            }
            if line["kind"] == "missed_run" {
                missed += line["count"].as_u64().unwrap_or(0);
            }
            (n.saturating_sub(missed)..=n).contains(&sum)
        });
    }

    /// Stop it; what it and its recording say, checked for what holds of every run.
    pub fn stop(self) -> Watched {
        let (text, stderr, run) = self.queues.stop();
        let watched = Watched { lines: parse(&text), text, run };
        watched.check(&stderr);
        watched
    }
}

/// `OUTCOME` or `OUTCOME:DETAIL` of a request.
pub fn named(request: &Value) -> String {
    let outcome = request["outcome"].as_str().unwrap_or("unknown");
    request["detail"].as_str().map_or_else(|| outcome.to_owned(), |detail| format!("{outcome}:{detail}"))
}

/// What `queues` said, and what `trace --requests` makes of its recording.
pub struct Watched {
    text: String,
    lines: Vec<Value>,
    /// The trace.
    pub run: Run,
}

impl Watched {
    fn check(&self, stderr: &str) {
        assert!(!stderr.contains("panicked") && !stderr.contains("RUST_BACKTRACE"), "{stderr}");
        assert_eq!(self.lines.first().map(|l| &l["type"]), Some(&"start".into()), "{}", brief(&self.text));
        let missed = nothing_lost(&self.lines);
        let summary = self.summary();
        assert_eq!(summary["type"], "summary", "{}", brief(&self.text));
        // As the tier claims: what hooks see whole must agree with the kernel's own counters; without, nothing is claimed.
        let claims = ["syn_outcome", "half_open", "cookies", "accept_queue"].iter().any(|signal| exact(signal));
        let residual = summary["residual"].as_array();
        assert_eq!(residual.is_some(), claims, "{summary}");
        for counter in residual.into_iter().flatten() {
            let [ours, kernel] = ["ours", "kernel"].map(|side| counter[side].as_u64().expect("a count"));
            let agrees = (kernel.saturating_sub(missed)..=kernel).contains(&ours);
            assert!(agrees, "{summary}, {missed} missed\n{}", brief(&self.text));
        }
        for line in self.lines.iter().filter(|l| l["type"] == "listener") {
            let fidelity = if claims { "exact" } else { "sampled" };
            assert_eq!(line["fidelity"], fidelity, "{line}");
            for queue in ["syn_queue", "accept_queue"] {
                let queue = &line[queue];
                assert!(queue["peak"].as_u64() >= queue["len"].as_u64(), "{line}");
            }
        }
    }

    /// Those kernel counters agree with ours, and more happened than nothing: after the first interval, which they are compared from.
    pub fn audited(&self, counters: &[&str]) {
        let Some(residual) = self.summary()["residual"].as_array() else {
            // Nothing is claimed: `check` looked.
            return;
        };
        let mut found: Vec<_> = residual.iter().map(|c| c["counter"].as_str().expect("a name")).collect();
        found.sort_unstable();
        assert_eq!(found, counters, "{}", self.summary());
    }

    /// The last line of `queues`.
    pub fn summary(&self) -> &Value {
        self.lines.last().expect("not empty")
    }

    /// `listener` objects of a port, in order.
    pub fn listeners(&self, port: u16) -> Vec<&Value> {
        let found: Vec<_> = self.lines.iter().filter(|l| l["type"] == "listener" && l["lport"] == port).collect();
        assert!(!found.is_empty(), "no listener at {port} in {}", brief(&self.text));
        found
    }

    /// `request` objects of a port, in order.
    pub fn requests(&self, port: u16) -> Vec<&Value> {
        self.run.of_type("request").filter(|r| r["lport"] == port).collect()
    }

    /// What became of each SYN at `port`, in order, against `PEER_PORT OUTCOME[:DETAIL] HALF_OPEN/WAITING` each: the lengths are those
    /// right after the event. What the tier does not tell must not be there. A peer without a port of its own: `-`. Absent are no more than
    /// hooks missed runs, as counted.
    pub fn outcomes(&self, port: u16, wanted: &[&str]) {
        let peers = !wanted.iter().any(|w| w.starts_with('-'));
        let found: Vec<_> = self
            .requests(port)
            .into_iter()
            .map(|r| {
                let peer = if peers { r["rport"].to_string() } else { "-".to_owned() };
                format!("{peer} {} {}/{}", named(r), r["syn_queue"]["len"], r["accept_queue"]["len"])
            })
            .collect();
        let outcome = |w: &str| w.split(' ').nth(1).expect("PEER OUTCOME DEPTHS").to_owned();
        // An ACK that is answered with a RST ends the request, and its end tells of both.
        let aborts = |i: usize| wanted.get(i + 1).is_some_and(|next| outcome(next).ends_with(":aborted"));
        let told = |i: usize, w: &str| outcome_is_told(&outcome(w)) || aborts(i) && outcome_is_told("rst");
        let wanted: Vec<_> = wanted.iter().enumerate().filter(|(i, w)| told(*i, w)).map(|(_, w)| w).collect();
        let mut left = found.iter().peekable();
        let absent: Vec<_> = wanted.iter().filter(|wanted| left.next_if_eq(*wanted).is_none()).collect();
        let missed = nothing_lost(&self.lines);
        assert!(
            left.len() == 0 && absent.len() as u64 <= missed,
            "requests at {port}: {found:?}, not {wanted:?}; {missed} missed"
        );
    }

    /// Growth of a counter of the namespace over all intervals, as `queues` shows it.
    pub fn grown(&self, name: &str) -> u64 {
        self.lines.iter().filter(|l| l["type"] == "netns").filter_map(|l| l["counters"][name].as_u64()).sum()
    }

    /// SYN-ACKs sent again at the only listener of the namespace, over all intervals. How many depends on the time that the test takes:
    /// as many as segments that the kernel says it sent again, where nothing else was.
    pub fn synacks(&self, port: u16) -> u64 {
        let sum = self.listeners(port).iter().map(|l| l["synack_retrans"].as_u64().expect("a count")).sum();
        assert_eq!(sum, self.grown("RetransSegs"), "{}", brief(&self.text));
        sum
    }

    /// Sums over all intervals, by name (`dropped.rst`); every count that is not named must be 0. One that no hook tells is absent, or
    /// concluded from the namespace's counters, named so, and right. Less by no more than hooks missed runs, as counted.
    pub fn totals(&self, port: u16, wanted: &[(&str, u64)]) {
        const NAMES: [&str; 15] = [
            "syns",
            "queued",
            "completed",
            "accepted",
            "cookies_sent",
            "cookies_ok",
            "fast_opens",
            "migrated",
            "dropped.syn_queue_full",
            "dropped.accept_queue_full_syn",
            "dropped.accept_queue_full_ack",
            "dropped.rst",
            "dropped.synack_timeout",
            "dropped.other",
            "dropped.listener_closed",
        ];
        // How many SYN-ACKs were sent again depends on the time that the test takes: asked for where it is known.
        let again = wanted.iter().map(|(name, _)| *name).filter(|name| *name == "synack_retrans");
        let names: Vec<_> = NAMES.into_iter().chain(again).collect();
        assert!(wanted.iter().all(|(name, _)| names.contains(name)), "{wanted:?}");
        let (lines, missed) = (self.listeners(port), nothing_lost(&self.lines));
        for name in names {
            let n = wanted.iter().find(|(w, _)| *w == name).map_or(0, |(_, n)| *n);
            let found: Vec<_> = lines.iter().filter_map(|line| count_of(line, name).map(|n| (n, line))).collect();
            let sum: u64 = found.iter().map(|(n, _)| n).sum();
            if count_is_told(name) {
                assert_eq!(found.len(), lines.len(), "{name} is in every interval: {}", brief(&self.text));
                let agrees = (n.saturating_sub(missed)..=n).contains(&sum);
                assert!(agrees, "{name} at {port}: {sum}, not {n}; {missed} missed: {}", brief(&self.text));
                continue;
            }
            for (_, line) in &found {
                let inferred = line["inferred"].as_array().is_some_and(|list| list.iter().any(|word| word == name));
                assert!(inferred, "{name} comes from no hook: {line}");
            }
            assert!(found.is_empty() || sum == n, "{name} at {port}: {sum}, not {n}: {}", brief(&self.text));
        }
    }

    /// Deepest both queues were at `port`. Where hooks see each event, exactly so; else what stood at the end of an interval at least.
    pub fn peaks(&self, port: u16, half_open: u64, waiting: u64) {
        for (queue, signal, wanted) in
            [("syn_queue", "half_open", half_open), ("accept_queue", "accept_queue", waiting)]
        {
            let peak = self.listeners(port).iter().filter_map(|l| l[queue]["peak"].as_u64()).max();
            if served(signal) == Served::No {
                assert!(peak <= Some(wanted), "{queue} at {port}: {peak:?}, not {wanted}");
            } else {
                assert_eq!(peak, Some(wanted), "{queue} at {port}: {}", brief(&self.text));
            }
        }
    }
}

/// Peers at these ports, each half-open at the listener at `port`: their SYNs were answered, in this order.
pub fn half_open(tun: &Tun, port: u16, peers: std::ops::Range<u16>) -> Vec<Peer> {
    peers.map(|from| tun.half_open(from, port)).collect()
}

/// The kernel sends `peer` its SYN-ACK again.
pub fn expect_again(peer: &mut Peer) {
    // As if it had not come the first time.
    peer.ack = peer.ack.wrapping_sub(1);
    peer.expect(SYN | ACK);
}

impl Watched {
    /// Objects of this type that `queues` printed.
    pub fn of_type(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(move |line| line["type"] == kind)
    }

    /// Is this line the last about a listener?
    pub fn is_last(&self, row: &Value) -> bool {
        self.of_type("listener").last().is_some_and(|last| std::ptr::eq(last, row))
    }
}

/// The kernel's counter of this name in the row `Tcp` of `/proc/net/snmp` of `ns`.
pub fn tcp_counter(ns: &Netns, name: &str) -> u64 {
    let text = ns.enter(|| fs::read_to_string("/proc/thread-self/net/snmp")).expect("procfs");
    let lines: Vec<_> = text.lines().filter(|l| l.starts_with("Tcp:")).collect();
    let at = lines[0].split_whitespace().position(|n| n == name).unwrap_or_else(|| panic!("no counter {name}"));
    lines[1].split_whitespace().nth(at).and_then(|v| v.parse().ok()).expect("a number")
}

impl Watch<'_> {
    /// The `listener` object of `port` in the first interval that was wholly read after this call; there is one such listener.
    pub fn row(&self, port: u16) -> Value {
        self.rows(port, 1).remove(0)
    }

    /// The same for `n` listeners that share the port.
    pub fn rows(&self, port: u16, n: usize) -> Vec<Value> {
        let mono_ns = now();
        let mut found = BTreeMap::new();
        self.queues.wait_for("an interval's end", |line| {
            if line["type"] != "listener" || line["lport"] != port || line["mono_ns"].as_u64() < Some(mono_ns) {
                return false;
            }
            // The first may have been read while it began.
            let rows: &mut Vec<Value> = found.entry(line["sock"].to_string()).or_default();
            rows.push(line.clone());
            found.len() == n && found.values().all(|rows| rows.len() >= 2)
        });
        found.into_values().filter_map(|mut rows| rows.pop()).collect()
    }

    /// The queues of the listeners that share `port` hold so many together, in the kernel and as shown.
    pub fn depths_of_group(&self, port: u16, listeners: usize, half_open: u64, waiting: u64) {
        wait_until("the queues", || ss(self.ns, port) == (half_open, waiting));
        let rows = self.rows(port, listeners);
        let sum = |queue: &str| rows.iter().map(|row| row[queue]["len"].as_u64().expect("a length")).sum::<u64>();
        assert_eq!((sum("syn_queue"), sum("accept_queue")), (half_open, waiting), "{rows:?}");
    }
}
