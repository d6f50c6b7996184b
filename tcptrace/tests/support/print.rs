//! A change → one line. Times are in microseconds; what is not known, or ordinary, is left out.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tcptrace::model::{
    CloseSegments, Connection, Final, Found, Inferred, Mini, Observer, Patterns, Process, Transition, comm_str,
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

    fn impossible(&mut self, c: &Connection, t: &Transition) {
        self.lines.push(format!("{} #{} impossible {}>{}", t.ts / 1000, c.id, t.from, t.to));
    }
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

fn owners(line: &mut String, c: &Connection) {
    let name = |p: &Process| format!("{}/{}", p.pid, String::from_utf8_lossy(comm_str(&p.comm)));
    if let Some(p) = &c.owner {
        write!(line, " owner={}", name(p)).unwrap();
        if let Some(path) = &p.cgroup_path {
            write!(line, " cgroup={path}").unwrap();
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
