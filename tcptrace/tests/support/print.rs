//! A change → one line. Times are in microseconds; what is not known, or ordinary, is left out.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tcptrace::model::{
    CloseSegments, Connection, Container, DROPPED, Depth, Final, Found, Inferred, Listening, Mini, NetnsCounters,
    Observer, Patterns, Process, Remnant, Request, Residual, Stack, Transition, comm_str,
};
use tcptrace_common::record::Tuple;

/// Collects lines.
#[derive(Default)]
pub struct Printer {
    pub lines: Vec<String>,
}

impl Observer for Printer {
    fn transition(&mut self, c: &Connection, t: &Transition) {
        let mut line = format!("{} #{} {}>{}", t.ts / 1000, c.id, t.from, t.to);
        if let Some(ns) = t.state_ns {
            write!(line, " after={}", ns / 1000).unwrap();
        }
        if let Some((from, to)) = t.kernel {
            write!(line, " kernel={from}>{to}").unwrap();
        }
        if t.errno != 0 {
            write!(line, " err={}", t.errno).unwrap();
        }
        if let Some(end) = t.end {
            write!(line, " end={}", end.name()).unwrap();
        }
        inferred(&mut line, t.inferred);
        self.lines.push(line);
    }

    fn owner(&mut self, c: &Connection) {
        let mut line = format!("#{} owner", c.id);
        owners(&mut line, c);
        inferred(&mut line, c.inferred);
        self.lines.push(line);
    }

    fn opened_at(&mut self, c: &Connection, ts: u64, stack: &Arc<Stack>) {
        self.lines.push(format!("{} #{} opened_at {}", ts / 1000, c.id, functions(stack)));
    }

    fn connection(&mut self, c: &Connection, f: &Final) {
        let mut line = format!("{} #{} connection", f.ts / 1000, c.id);
        facts(&mut line, c);
        write!(line, " states={}", states(c)).unwrap();
        if let Some(end) = f.end {
            write!(line, " end={}", end.name()).unwrap();
        }
        if f.late {
            line.push_str(" late");
        }
        if let Some(by) = f.closed_by {
            write!(line, " by={}", by.name()).unwrap();
        }
        match f.close_segments {
            Some(CloseSegments::Three) => line.push_str(" segments=3"),
            Some(CloseSegments::Four) => line.push_str(" segments=4"),
            None => {}
        }
        if f.errno != 0 {
            write!(line, " err={}", f.errno).unwrap();
        }
        for (name, ns) in [("handshake", f.handshake_ns), ("accept_wait", f.accept_wait_ns)] {
            if let Some(ns) = ns {
                write!(line, " {name}={}", ns / 1000).unwrap();
            }
        }
        if let Some(n) = f.syn_retrans {
            write!(line, " syn_retrans={n}").unwrap();
        }
        if c.synack_retrans != 0 {
            write!(line, " synack_retrans={}", c.synack_retrans).unwrap();
        }
        if let Some(counters) = f.counters.filter(|c| c.bytes_sent != 0) {
            write!(line, " sent={}", counters.bytes_sent).unwrap();
        }
        if let Some(stack) = &f.stack {
            write!(line, " stack={}", functions(stack)).unwrap();
        }
        self.lines.push(line);
    }

    fn socket(&mut self, c: &Connection, f: &Found) {
        let mut line = format!("{} #{} socket {}", f.ts / 1000, c.id, c.state);
        facts(&mut line, c);
        write!(line, " unread={} unsent={}", f.unread, f.unsent).unwrap();
        if let Some(us) = f.idle_us {
            write!(line, " idle={us}").unwrap();
        }
        if let Some(n) = f.syn_queue {
            write!(line, " syn_queue={n}").unwrap();
        }
        self.lines.push(line);
    }

    fn mini_socket(&mut self, m: &Mini) {
        let mut line = format!("{} #{} mini {}", m.ts / 1000, m.id, m.state);
        ends(&mut line, &m.tuple);
        write!(line, " retrans={}", m.retrans).unwrap();
        self.lines.push(line);
    }

    fn request(&mut self, r: &Request) {
        let outcome = r.outcome.map_or("?", |o| o.name());
        let mut line = format!("{} #{} request {outcome}", r.ts / 1000, r.id);
        if let Some(detail) = r.detail {
            write!(line, "/{}", detail.name()).unwrap();
        }
        ends(&mut line, &r.tuple);
        for (name, n) in [
            ("age", r.age_ns.map(|ns| ns / 1000)),
            ("retrans", (r.synack_retrans != 0).then_some(u64::from(r.synack_retrans))),
            ("syn_queue", r.syn_queue.map(|(len, _)| u64::from(len))),
            ("accept_queue", r.accept_queue.map(u64::from)),
            ("child", (r.child != 0).then_some(r.child)),
        ] {
            if let Some(n) = n {
                write!(line, " {name}={n}").unwrap();
            }
        }
        if let Some(p) = &r.owner {
            write!(line, " owner={}/{}", p.pid, String::from_utf8_lossy(comm_str(&p.comm))).unwrap();
        }
        for (yes, word) in [(r.over, "over"), (r.failed(), "failed"), (r.preexisting, "preexisting")] {
            if yes {
                write!(line, " {word}").unwrap();
            }
        }
        inferred(&mut line, r.inferred);
        self.lines.push(line);
    }

    fn time_wait(&mut self, r: &Remnant) {
        let mut line = format!("{} #{} time_wait {}", r.ts / 1000, r.id, r.how.name());
        if let Some(ns) = r.ns {
            write!(line, " us={}", ns / 1000).unwrap();
        }
        if r.state != tcptrace::model::State::TimeWait {
            write!(line, " state={}", r.state).unwrap();
        }
        if r.preexisting {
            line.push_str(" preexisting");
        }
        self.lines.push(line);
    }

    fn netns(&mut self, n: &NetnsCounters) {
        let mut line = format!("{} netns {} listeners={}", n.ts / 1000, n.netns, n.listeners);
        for (name, n) in n.counters.iter().filter(|(_, n)| *n != 0) {
            write!(line, " {name}={n}").unwrap();
        }
        self.lines.push(line);
    }

    fn listener(&mut self, c: &Connection, l: &Listening) {
        let mut line = format!("{} #{} listener", l.ts / 1000, c.id);
        ends(&mut line, &c.tuple);
        owners(&mut line, c);
        if let Some(group) = l.group {
            write!(line, " group={group}").unwrap();
        }
        depths(&mut line, "syn", &l.syn_queue);
        depths(&mut line, "accept", &l.accept_queue);
        let mut numbers = vec![
            ("backlog", l.backlog.map(u64::from)),
            ("somaxconn", l.somaxconn.map(u64::from)),
            ("syns", l.syns),
            ("queued", l.queued),
            ("completed", l.completed),
            ("accepted", l.accepted),
            ("cookies_sent", l.cookies_sent),
            ("cookies_ok", l.cookies_ok),
            ("fast_opens", l.fast_opens),
            ("synack_retrans", l.synack_retrans),
            ("migrated", l.migrated),
            ("held_back", Some(l.held_back)),
            ("sk_drops", l.sk_drops),
            ("sources", l.sources),
        ];
        numbers.extend(DROPPED.into_iter().zip(l.dropped));
        // Of counts, what is not zero; the rest of what is known is told by `known=`.
        for (name, n) in &numbers {
            if let Some(n) = n.filter(|&n| n != 0) {
                write!(line, " {name}={n}").unwrap();
            }
        }
        write!(line, " known={}", numbers.iter().filter(|(_, n)| n.is_some()).count()).unwrap();
        if let Some(by) = l.limited_by {
            write!(line, " by={}", by.name()).unwrap();
        }
        if let Some(w) = l.waits {
            write!(line, " waits={}/{}/{}", w.p50, w.p99, w.max).unwrap();
        }
        if l.exact {
            line.push_str(" exact");
        }
        if !l.inferred.is_empty() {
            write!(line, " inferred={}", l.inferred.join(",")).unwrap();
        }
        self.lines.push(line);
    }

    fn interval(&mut self, ts: u64, _: u64) {
        self.lines.push(format!("{} interval", ts / 1000));
    }

    fn impossible(&mut self, c: &Connection, t: &Transition) {
        self.lines.push(format!("{} #{} impossible {}>{}", t.ts / 1000, c.id, t.from, t.to));
    }
}

impl Printer {
    /// One line each.
    pub fn residual(&mut self, residual: &[Residual]) {
        for r in residual {
            let of = r.listener.map_or(String::new(), |cookie| format!(" sock={cookie}"));
            let line = format!("residual {} {}{of} kernel={} ours={}", r.netns, r.counter, r.kernel, r.ours);
            self.lines.push(line);
        }
    }
}

/// ` syn=LEN/PEAK/LIMIT`.
fn depths(line: &mut String, name: &str, d: &Depth) {
    let n = |n: Option<u32>| n.map_or("-".to_owned(), |n| n.to_string());
    write!(line, " {name}={}/{}/{}", n(d.len), n(d.peak), n(d.limit)).unwrap();
}

/// `SYN_SENT@0,ESTABLISHED@10`; `?` where the entry was not seen.
fn states(c: &Connection) -> String {
    let one = |e: tcptrace::model::Entry| {
        if e.seen { format!("{}@{}", e.state, e.at / 1000) } else { format!("{}@?", e.state) }
    };
    c.states.entries().map(one).collect::<Vec<_>>().join(",")
}

fn facts(line: &mut String, c: &Connection) {
    ends(line, &c.tuple);
    if let Some(role) = c.role {
        write!(line, " {}", role.name()).unwrap();
    }
    owners(line, c);
    if c.inode != 0 {
        write!(line, " ino={}", c.inode).unwrap();
    }
    if let Some(isn) = c.isn_local() {
        write!(line, " isn={isn}").unwrap();
    }
    if let Some(h) = c.handshake {
        write!(line, " peer_isn={}", h.isn_remote).unwrap();
    }
    if c.preexisting {
        line.push_str(" preexisting");
    }
    if c.gaps != 0 {
        write!(line, " gaps={}", c.gaps).unwrap();
    }
    for (bit, name) in [
        (Patterns::SIMULTANEOUS_OPEN, "simultaneous_open"),
        (Patterns::SIMULTANEOUS_CLOSE, "simultaneous_close"),
        (Patterns::SELF_CONNECT, "self_connect"),
        (Patterns::HALF_CLOSE, "half_close"),
        (Patterns::ORPHAN, "orphan"),
    ] {
        if c.patterns.0 & bit != 0 {
            write!(line, " {name}").unwrap();
        }
    }
    inferred(line, c.inferred);
}

fn functions(stack: &Stack) -> String {
    let names: Vec<&str> = stack.frames.iter().filter_map(|frame| frame.function.as_deref()).collect();
    names.join(",")
}

fn owners(line: &mut String, c: &Connection) {
    let name = |p: &Process| format!("{}/{}", p.pid, String::from_utf8_lossy(comm_str(&p.comm)));
    if let Some(p) = &c.owner {
        write!(line, " owner={}", name(p)).unwrap();
        if let Some(cgroup) = &p.cgroup {
            write!(line, " cgroup={}", cgroup.path).unwrap();
            for (name, text) in [
                ("container", cgroup.container.as_ref().map(Container::label)),
                ("pod", cgroup.pod.as_deref()),
                ("unit", cgroup.unit.as_deref()),
            ] {
                if let Some(text) = text {
                    write!(line, " {name}={text}").unwrap();
                }
            }
        }
    }
    if c.fd >= 0 {
        write!(line, " fd={}", c.fd).unwrap();
    }
    if let Some(p) = &c.actor {
        write!(line, " actor={}", name(p)).unwrap();
    }
}

fn inferred(line: &mut String, inferred: Inferred) {
    let names: Vec<&str> = [
        (Inferred::TO, "to"),
        (Inferred::LPORT, "lport"),
        (Inferred::OWNER, "owner"),
        (Inferred::ROLE, "role"),
        (Inferred::FROM, "from"),
        (Inferred::END, "end"),
        (Inferred::START, "start"),
    ]
    .iter()
    .filter(|(bit, _)| inferred.0 & bit != 0)
    .map(|(_, name)| *name)
    .collect();
    if !names.is_empty() {
        write!(line, " inferred={}", names.join(",")).unwrap();
    }
}

fn ends(line: &mut String, t: &Tuple) {
    for (addr, port) in [(t.laddr, t.lport), (t.raddr, t.rport)] {
        let ip = match t.family {
            0 => {
                line.push_str(" ?");
                continue;
            }
            10 => IpAddr::from(Ipv6Addr::from(addr)),
            _ => IpAddr::from([addr[0], addr[1], addr[2], addr[3]]),
        };
        write!(line, " {}", SocketAddr::new(ip, port)).unwrap();
    }
}
