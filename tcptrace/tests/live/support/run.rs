//! What a run of the tracer said, checked for what holds of every run, in a form that tests compare at a glance.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    golden, process,
    tracer::{replay, tcptrace},
};

/// The end of a `connection`.
pub struct Conn(pub Value);

impl Conn {
    /// A text field, empty where there is none.
    pub fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or("")
    }

    /// A number; fails where there is none.
    pub fn number(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("{name} in {}", self.0))
    }

    /// Does the list `name` hold `word`?
    pub fn has(&self, name: &str, word: &str) -> bool {
        self.0[name].as_array().is_some_and(|list| list.iter().any(|w| w == word))
    }

    /// Its states in order, separated by spaces, as a trace tells them that sees no half-open requests: NEW_SYN_RECV, where a
    /// hook for it is in use, is left out ([`half_open_is_told`] has made sure that it is there).
    pub fn states(&self) -> String {
        let states = self.0["states"].as_array().unwrap_or_else(|| panic!("states in {}", self.0));
        let names = states.iter().map(|s| s["state"].as_str().expect("a name"));
        names.skip_while(|name| *name == "NEW_SYN_RECV").collect::<Vec<_>>().join(" ")
    }

    /// `client SYN_SENT ESTABLISHED … end=fin by=local`.
    pub fn life(&self) -> String {
        format!("{} {} end={} by={}", self.text("role"), self.states(), self.text("end"), self.text("closed_by"))
    }

    /// The owner must be process `pid` called `comm`.
    pub fn owned_by(&self, (pid, comm): &(u32, String)) {
        assert_eq!((self.number("pid"), self.text("comm")), (u64::from(*pid), comm.as_str()), "owner of {}", self.0);
    }

    /// Payload bytes sent (all acknowledged, none twice) and received.
    pub fn carried(&self, sent: u64, received: u64) {
        let found = ["bytes_sent", "bytes_acked", "bytes_received", "bytes_retrans"].map(|name| self.number(name));
        assert_eq!(found, [sent, sent, received, 0], "sent, acked, received, retransmitted of {}", self.0);
    }
}

/// A finished run.
pub struct Run {
    /// What `trace --json` printed.
    pub text: String,
    /// The same, parsed.
    pub lines: Vec<Value>,
    /// What `conns --json --from` makes of its recording.
    pub conns_text: String,
    /// Its connections, by role, then by start.
    pub conns: Vec<Conn>,
    /// Messages of `trace`.
    pub stderr: String,
    /// The recording.
    pub recording: PathBuf,
    _dir: TempDir,
}

impl Run {
    /// What `trace ARGS` and `conns` make of a recording.
    pub fn of_recording(args: &[&str], dir: TempDir, recording: PathBuf) -> Self {
        let output = process::run(tcptrace().args(["trace", "--json", "--from"]).arg(&recording).args(args));
        let [text, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8"));
        Self::new(text, stderr, dir, recording)
    }

    pub(super) fn new(text: String, stderr: String, dir: TempDir, recording: PathBuf) -> Self {
        let conns_text = replay("conns", &recording);
        let lines = parse(&text);
        let mut conns: Vec<_> =
            parse(&conns_text).into_iter().filter(|line| line["type"] == "connection").map(Conn).collect();
        conns.sort_by_key(|c| (c.text("role").to_owned(), c.text("start").to_owned(), c.number("id")));
        let mut run = Self { text, lines, conns_text, conns, stderr, recording, _dir: dir };
        run.without_half_open();
        run.check();
        golden::check(&run.recording, is_served(&run.lines, "half_open"));
        run
    }

    /// Lines of this type.
    pub fn of_type(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(move |line| line["type"] == kind)
    }

    /// [`Conn::life`] of each connection, listeners left out.
    pub fn lives(&self) -> Vec<String> {
        self.conns.iter().filter(|c| c.text("role") != "listener").map(Conn::life).collect()
    }

    /// The only connection with this role.
    pub fn only(&self, role: &str) -> &Conn {
        let mut found = self.conns.iter().filter(|c| c.text("role") == role);
        let conn = found.next().unwrap_or_else(|| panic!("no {role} in {}", brief(&self.conns_text)));
        assert!(found.next().is_none(), "one {role} in {}", brief(&self.conns_text));
        conn
    }

    /// The connection whose local port is `lport`; there must be exactly one.
    pub fn at(&self, lport: u16) -> &Conn {
        self.one(|c| c.0["lport"] == lport)
    }

    /// The connection with these ports; there must be exactly one.
    pub fn at_both(&self, lport: u16, rport: u16) -> &Conn {
        self.one(|c| c.0["lport"] == lport && c.0["rport"] == rport)
    }

    fn one(&self, wanted: impl Fn(&Conn) -> bool) -> &Conn {
        let mut found = self.conns.iter().filter(|c| c.text("role") != "listener" && wanted(c));
        let conn = found.next().unwrap_or_else(|| panic!("not there: {}", brief(&self.conns_text)));
        assert!(found.next().is_none(), "more than one: {}", brief(&self.conns_text));
        conn
    }

    /// Transitions of a timeline, `FROM>TO` each.
    pub fn transitions(&self, id: u64) -> Vec<String> {
        self.of_type("transition").filter(|t| t["id"] == id).map(arrow).collect()
    }

    /// Make of the transitions what a trace says that sees no half-open requests, after a check that this one told of them if
    /// it could.
    fn without_half_open(&mut self) {
        let served = is_served(&self.lines, "half_open");
        // What began before the trace said that it has begun may have come before its first hook.
        let begin = self.lines[0]["ts"].as_str().expect("a time").to_owned();
        for c in self.conns.iter().filter(|c| *c.text("start") > *begin) {
            half_open_is_told(c, served, is_served(&self.lines, "cookies"));
        }
        for line in self.lines.iter_mut().filter(|l| l["from"] == "NEW_SYN_RECV") {
            assert_eq!((&line["to"], &line["kernel"]), (&"SYN_RECV".into(), &"LISTEN>SYN_RECV".into()), "{line}");
            let line = line.as_object_mut().expect("an object");
            line.insert("from".to_owned(), "LISTEN".into());
            line.remove("kernel");
            line.remove("state_us");
        }
    }

    fn check(&self) {
        assert!(!self.stderr.contains("panicked") && !self.stderr.contains("RUST_BACKTRACE"), "{}", self.stderr);
        assert_eq!(self.lines.first().map(|l| &l["type"]), Some(&"start".into()), "{}", brief(&self.text));
        assert_eq!(self.lines.last().map(|l| &l["type"]), Some(&"summary".into()), "{}", brief(&self.text));
        nothing_lost(&self.lines);
        let mut last: HashMap<u64, &Value> = HashMap::new();
        for t in self.of_type("transition") {
            let id = t["id"].as_u64().expect("every transition has a timeline");
            if let Some(before) = last.insert(id, t) {
                assert_eq!(before["to"], t["from"], "a state came out of nowhere:\n{before}\n{t}");
                assert!(before["mono_ns"].as_u64() <= t["mono_ns"].as_u64(), "out of order:\n{before}\n{t}");
            }
        }
        let mut seen = HashSet::new();
        for c in &self.conns {
            let id = c.number("id");
            assert!(seen.insert(id), "two ends of timeline {id}: {}", brief(&self.conns_text));
            assert_eq!(c.number("gaps"), 0, "{}\n{}", c.0, self.stderr);
            let (states, mut passed) = (c.states(), self.transitions(id));
            // The kernel may report a state again (close() after shutdown(), MPTCP's close, a socket that leaves a
            // remnant in FIN_WAIT2 behind): a transition that enters nothing.
            passed.retain(|t| t.split_once('>').is_none_or(|(from, to)| from != to));
            let mut words: Vec<_> = states.split(' ').collect();
            words.dedup();
            // A child that another one of the same request was told of before it (trap 3).
            if words.first() == Some(&"NEW_SYN_RECV") && passed.first().is_some_and(|t| t == "LISTEN>SYN_RECV") {
                passed[0] = "NEW_SYN_RECV>SYN_RECV".to_owned();
            }
            let arrows: Vec<_> = words.windows(2).map(|w| format!("{}>{}", w[0], w[1])).collect();
            assert!(passed.ends_with(&arrows), "`conns` says {states}, `trace` says {passed:?}");
            assert!(passed.len() - arrows.len() <= 1, "`conns` says {states}, `trace` says {passed:?}");
        }
    }
}

/// Does a hook tell this signal in the trace?
pub fn is_served(lines: &[Value], signal: &str) -> bool {
    lines[0]["signals"].get(signal).is_some_and(|hook| hook != "none")
}

/// A server's timeline begins with NEW_SYN_RECV exactly where a hook tells of it. No request precedes a child that a cookie (which
/// `cookies` would tell) or Fast Open made, and it may be among what was lost.
fn half_open_is_told(c: &Conn, served: bool, cookies: bool) {
    let first = c.0["states"].get(0).map(|s| &s["state"]);
    if first == Some(&"NEW_SYN_RECV".into()) {
        assert!(served, "no hook tells of half-open requests: {}", c.0);
    } else if served && c.text("role") == "server" && first == Some(&"SYN_RECV".into()) {
        let none = c.has("options", "tfo") || c.has("options", "syncookie") || !cookies || c.number("gaps") > 0;
        assert!(none, "the half-open request is missing: {}", c.0);
    }
}

/// At most the last few thousand bytes of `text`, for messages.
pub fn brief(text: &str) -> &str {
    let from = text.len().saturating_sub(4000);
    text[from..].split_once('\n').filter(|_| from > 0).map_or(text, |(_, rest)| rest)
}

/// No line tells of a loss, and the summary of none. Only where kprobes serve a signal runs may have been missed: the kernel skips what a
/// softirq meets on top of a process' kprobe. It counts that for the whole host, and so does what is returned; the rest of a test's
/// assertions tell whether its own namespace missed any.
pub fn nothing_lost(lines: &[Value]) -> u64 {
    let signals = lines.iter().find(|line| line["type"] == "start").and_then(|start| start["signals"].as_object());
    let kprobes = signals.is_some_and(|s| s.values().filter_map(Value::as_str).any(|hook| hook.starts_with("kprobe:")));
    let is_missed = |line: &&Value| kprobes && line["kind"] == "missed_run";
    let (missed, losses): (Vec<_>, Vec<_>) = lines.iter().filter(|line| line["type"] == "loss").partition(is_missed);
    assert!(losses.is_empty(), "{losses:?}");
    let missed = missed.iter().filter_map(|line| line["count"].as_u64()).sum();
    for summary in lines.iter().filter(|line| line["type"] == "summary") {
        assert_eq!(summary["lost"], missed, "{summary}");
    }
    missed
}

/// `FROM>TO` of a transition.
pub fn arrow(t: &Value) -> String {
    format!("{}>{}", t["from"].as_str().expect("from"), t["to"].as_str().expect("to"))
}

/// JSON lines; each must have what every line has.
pub fn parse(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert_eq!(value["v"], 1, "{line}");
            assert!(value["type"].is_string() && value["ts"].is_string() && value["mono_ns"].is_u64(), "{line}");
            value
        })
        .collect()
}
