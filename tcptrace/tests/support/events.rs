//! A scenario's event line → frame.
//!
//! `TIME KIND [STATE|FROM>TO] [LOCAL REMOTE] [key=value …] [FLAG …]`. Time is in microseconds. `TIME SNAPSHOT begin=TIME netns=N,… [all=1]`
//! closes the rows of a snapshot after a loss. Records of a socket (`sock=`) are
//! numbered in sequence unless `seq=` says otherwise or SEQ_ABSENT is set.

use std::{collections::HashMap, net::SocketAddr};

use tcptrace::{
    frame::{Frames, fact},
    model::State,
};
use tcptrace_common::record::{
    Bound, Child, Closed, Counters, Established, Handshake, Head, MiniSocket, Open, Owned, Owner, Socket, SynAck,
    Tuple, flag, kind, option,
};
use zerocopy::{Immutable, IntoBytes};

/// Sequence numbers by cookie.
#[derive(Default)]
pub struct Numbers(HashMap<u64, u16>);

/// Append the frame of one line.
pub fn push(frames: &mut Frames, numbers: &mut Numbers, line: &str) {
    let line = Line::parse(line);
    match line.kind {
        "TICK" => return frames.push_fact(fact::kind::TICK, line.ts, &()),
        "SNAPSHOT" => {
            let resync = line.has("begin").then(|| fact::Resync {
                begin: line.number("begin") * 1000,
                netns: line
                    .pairs
                    .get("netns")
                    .map_or(vec![], |list| list.split(',').map(|n| n.parse().unwrap()).collect()),
                all: line.has("all"),
            });
            let body = fact::Snapshot { hz: line.number("hz") as u32, resync, ..fact::Snapshot::default() };
            return frames.push_fact(fact::kind::SNAPSHOT, line.ts, &body);
        }
        "CGROUP" => {
            let body = fact::Cgroup { id: line.number("id"), path: line.pairs["path"].to_owned() };
            return frames.push_fact(fact::kind::CGROUP, line.ts, &body);
        }
        _ => {}
    }
    let (kind, numbered) = kind_number(line.kind);
    let (from, to) = line.states;
    let mut head = Head {
        ts: line.ts,
        sock: line.number("sock"),
        kind,
        from,
        to,
        err: line.number("err") as u8,
        seq: line.number("seq") as u16,
        flags: line.flags,
    };
    if numbered && head.flags & flag::SEQ_ABSENT == 0 {
        let last = numbers.0.entry(head.sock).or_default();
        if !line.has("seq") {
            head.seq = last.wrapping_add(1);
        }
        *last = head.seq;
    }
    let record: &dyn Bytes = match kind {
        kind::OPEN => &Open { head, tuple: line.tuple(), owner: line.owner() },
        kind::CHILD => &Child { head, tuple: line.tuple(), addr: line.number("addr") },
        kind::ESTABLISHED => &Established { head, tuple: line.tuple(), handshake: line.handshake() },
        kind::CLOSED => {
            &Closed { head, counters: line.counters(), lport: line.number("lport") as u16, ..Closed::default() }
        }
        kind::BOUND => &Bound { head, lport: line.number("lport") as u16, ..Bound::default() },
        kind::ACCEPTED | kind::ACTOR | kind::HOLDER => &Owned { head, owner: line.owner() },
        kind::SYNACK_RETRANSMIT => {
            &SynAck { head, tuple: line.tuple(), retrans: line.number("retrans") as u32, reserved: 0 }
        }
        kind::REQUEST | kind::TIME_WAIT => {
            &MiniSocket { head, tuple: line.tuple(), retrans: line.number("retrans") as u32, reserved: 0 }
        }
        kind::SOCKET | kind::FOUND => &Socket {
            head,
            tuple: line.tuple(),
            handshake: line.handshake(),
            counters: line.counters(),
            inode: line.number("ino"),
            jiffies: line.number("jiffies") as u32,
            active: line.number("active") as u32,
            uid: line.number("uid") as u32,
            syn_queue: line.number("syn_queue") as u32,
        },
        _ => &head,
    };
    frames.push(0, record.bytes());
}

trait Bytes {
    fn bytes(&self) -> &[u8];
}

impl<T: IntoBytes + Immutable> Bytes for T {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Number of a kind, and whether its records are numbered.
fn kind_number(word: &str) -> (u8, bool) {
    match word {
        "STATE" => (kind::STATE, true),
        "OPEN" => (kind::OPEN, true),
        "CHILD" => (kind::CHILD, true),
        "ESTABLISHED" => (kind::ESTABLISHED, true),
        "CLOSED" => (kind::CLOSED, true),
        "BOUND" => (kind::BOUND, true),
        "ACCEPTED" => (kind::ACCEPTED, true),
        "ACTOR" => (kind::ACTOR, true),
        "DESTROYED" => (kind::DESTROYED, true),
        "RESET_SENT" => (kind::RESET_SENT, true),
        "RESET_RECEIVED" => (kind::RESET_RECEIVED, true),
        "RETRANSMIT" => (kind::RETRANSMIT, true),
        "ERROR" => (kind::ERROR, true),
        "SYNACK_RETRANSMIT" => (kind::SYNACK_RETRANSMIT, false),
        "SOCKET" => (kind::SOCKET, false),
        "FOUND" => (kind::FOUND, false),
        "HOLDER" => (kind::HOLDER, false),
        "REQUEST" => (kind::REQUEST, false),
        "TIME_WAIT" => (kind::TIME_WAIT, false),
        other => panic!("unknown kind {other:?}"),
    }
}

struct Line<'a> {
    ts: u64,
    kind: &'a str,
    states: (u8, u8),
    ends: Vec<SocketAddr>,
    pairs: HashMap<&'a str, &'a str>,
    flags: u16,
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Self {
        let mut words = text.split_whitespace();
        let ts: u64 = words.next().and_then(|w| w.parse().ok()).unwrap_or_else(|| panic!("no time in {text:?}"));
        let kind = words.next().unwrap_or_else(|| panic!("no kind in {text:?}"));
        let mut line = Self { ts: ts * 1000, kind, states: (0, 0), ends: Vec::new(), pairs: HashMap::new(), flags: 0 };
        for word in words {
            if let Some((key, value)) = word.split_once('=') {
                line.pairs.insert(key, value);
            } else if let Some((from, to)) = word.split_once('>') {
                line.states = (state(from), state(to));
            } else if let Ok(end) = word.parse() {
                line.ends.push(end);
            } else if let Some(bit) = flag_bit(word) {
                line.flags |= bit;
            } else {
                line.states = (state(word), state(word));
            }
        }
        line
    }

    fn has(&self, key: &str) -> bool {
        self.pairs.contains_key(key)
    }

    fn number(&self, key: &str) -> u64 {
        self.pairs.get(key).map_or(0, |v| v.parse().unwrap_or_else(|_| panic!("{key}={v} is no number")))
    }

    fn tuple(&self) -> Tuple {
        let mut t = Tuple { netns: self.number("netns") as u32, family: 2, ..Tuple::default() };
        let mut fill = |end: Option<&SocketAddr>| {
            let mut bytes = [0; 16];
            match end {
                Some(SocketAddr::V4(a)) => bytes[..4].copy_from_slice(&a.ip().octets()),
                Some(SocketAddr::V6(a)) => {
                    t.family = 10;
                    bytes = a.ip().octets();
                }
                None => {}
            }
            (bytes, end.map_or(0, SocketAddr::port))
        };
        let (laddr, lport) = fill(self.ends.first());
        let (raddr, rport) = fill(self.ends.get(1));
        Tuple { laddr, lport, raddr, rport, ..t }
    }

    fn owner(&self) -> Owner {
        let mut comm = [0; 16];
        let name = self.pairs.get("comm").map_or(&b""[..], |name| name.as_bytes());
        comm[..name.len()].copy_from_slice(name);
        let pid = self.number("pid") as u32;
        Owner {
            pid,
            tid: if self.has("tid") { self.number("tid") as u32 } else { pid },
            uid: self.number("uid") as u32,
            fd: if self.has("fd") { self.number("fd") as i32 } else { -1 },
            comm,
            cgroup: self.number("cgroup"),
            inode: self.number("ino"),
            started: self.number("started"),
        }
    }

    fn handshake(&self) -> Handshake {
        Handshake {
            isn_local: self.number("isn") as u32,
            isn_remote: self.number("peer_isn") as u32,
            retrans: self.number("retrans") as u32,
            addr: self.number("addr"),
            ..Handshake::default()
        }
    }

    fn counters(&self) -> Counters {
        Counters {
            bytes_sent: self.number("sent"),
            unread: self.number("unread") as u32,
            unsent: self.number("unsent") as u32,
            packets_out: self.number("packets_out") as u32,
            options: if self.has("user_timeout") { option::USER_TIMEOUT } else { 0 },
            ..Counters::default()
        }
    }
}

fn state(name: &str) -> u8 {
    let found = State::ALL.iter().find(|s| s.name() == name);
    *found.unwrap_or_else(|| panic!("{name:?} is neither a state nor a flag")) as u8
}

fn flag_bit(name: &str) -> Option<u16> {
    Some(match name {
        "RCV_SHUTDOWN" => flag::RCV_SHUTDOWN,
        "SEND_SHUTDOWN" => flag::SEND_SHUTDOWN,
        "DONE" => flag::DONE,
        "DEAD" => flag::DEAD,
        "LINGER2" => flag::LINGER2,
        "NO_SOCKET" => flag::NO_SOCKET,
        "SAME_SEGMENT" => flag::SAME_SEGMENT,
        "DATA_AFTER_FIN" => flag::DATA_AFTER_FIN,
        "INHERITED" => flag::INHERITED,
        "SEQ_ABSENT" => flag::SEQ_ABSENT,
        "TW_FULL" => flag::TW_FULL,
        _ => return None,
    })
}
