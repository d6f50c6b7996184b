//! A scenario's event line → frame.
//!
//! `TIME KIND [STATE|FROM>TO] [LOCAL REMOTE] [key=value …] [FLAG …]`. Time is in microseconds. `TIME SNAPSHOT begin=TIME netns=N,… [all=1]`
//! closes the rows of a snapshot after a loss. Records of a socket (`sock=`) are
//! numbered in sequence unless `seq=` says otherwise or SEQ_ABSENT is set. `REQUEST_EVENT` has `outcome=` (its name), `LISTENER_STATS`
//! the names of totals (`waits=BUCKET:N,…`, `sources=N` for so many registers at 1), `NETNS` those of counters, settings (`-` for a blank)
//! and gauges, `PROBE` `tcp=syn,fin,…`, `CLOSING` `close_wait=SOCK/UNREAD/UNSENT/SENT,…` and `fin_wait2=PEER/N,…`, `START` `NAME=HOOK`.

use std::{collections::HashMap, net::SocketAddr};

use tcptrace::{
    frame::{Frames, fact},
    model::State,
};
use tcptrace_common::{
    probe::{Probe, tcp_flag},
    queue::{Listen, ListenerSample, ListenerStats, ListenerTotals, RequestEvent, Window, depth, outcome},
    record::{
        Accepted, Bound, Child, Closed, Counters, Established, Forked, Handshake, Head, MiniSocket, Open, Owned, Owner,
        Received, Sequence, Socket, SynAck, TimeWaitEnd, Tuple, flag, kind, option,
    },
};
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// Sequence numbers by cookie.
#[derive(Default)]
pub struct Numbers(HashMap<u64, u16>);

/// Append the frame of one line.
pub fn push(frames: &mut Frames, numbers: &mut Numbers, line: &str) {
    let line = Line::parse(line);
    match line.kind {
        "TICK" => return frames.push_fact(fact::kind::TICK, line.ts, &()),
        "START" => {
            let (filters, signals) = line.words().partition(|(name, _)| *name == "filter");
            let body = fact::Start {
                filters: named("filter", filters),
                signals: named("", signals),
                ..fact::Start::default()
            };
            return frames.push_fact(fact::kind::START, line.ts, &body);
        }
        "NETNS" => {
            let mut body = fact::Netns { netns: line.number("netns") as u32, ..fact::Netns::default() };
            for (name, value) in line.words().filter(|(name, _)| *name != "netns") {
                let count = || value.parse().expect("a number");
                if fact::SETTINGS.contains(&name) {
                    body.settings.push((name.to_owned(), value.replace('-', " ")));
                } else if fact::GAUGES.contains(&name) {
                    body.gauges.push((name.to_owned(), count()));
                } else {
                    body.counters.push((name.to_owned(), count()));
                }
            }
            return frames.push_fact(fact::kind::NETNS, line.ts, &body);
        }
        "CLOSING" => {
            let parts =
                |key: &str| line.pairs.get(key).copied().unwrap_or_default().split(',').filter(|part| !part.is_empty());
            let row = |text: &str| {
                let mut numbers = text.split('/').map(|n| n.parse::<u64>().expect("SOCK/UNREAD/UNSENT/SENT"));
                let mut next = || numbers.next().unwrap_or(0);
                fact::CloseWait { sock: next(), unread: next() as u32, unsent: next() as u32, sent: next() }
            };
            let peer = |text: &str| {
                let (addr, n) = text.split_once('/').expect("ADDRESS/N");
                (addr.parse().expect("an address"), n.parse().expect("a number"))
            };
            let body = fact::Closing {
                netns: line.number("netns") as u32,
                close_wait: parts("close_wait").map(row).collect(),
                fin_wait2: parts("fin_wait2").map(peer).collect(),
                orphans: line.number("orphans") as u32,
            };
            return frames.push_fact(fact::kind::CLOSING, line.ts, &body);
        }
        "INTERVAL" => {
            let body = fact::Interval {
                interval_us: line.number("us"),
                exact: line.number("exact") != 0,
                rest: line.number("rest") != 0,
            };
            return frames.push_fact(fact::kind::INTERVAL, line.ts, &body);
        }
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
            let name = |key: &str| line.pairs.get(key).map(|&name| name.to_owned());
            let body = fact::Cgroup {
                id: line.number("id"),
                path: line.pairs["path"].to_owned(),
                container: name("container"),
                pod: name("pod"),
            };
            return frames.push_fact(fact::kind::CGROUP, line.ts, &body);
        }
        "STACK" => {
            let frame = |name: &str| fact::StackFrame { function: Some(name.to_owned()), ..Default::default() };
            let frames_of = line.pairs["functions"].split(',').map(frame).collect();
            let body = fact::Stack { id: line.number("id"), frames: frames_of };
            return frames.push_fact(fact::kind::STACK, line.ts, &body);
        }
        "OPENED_AT" => {
            let body = fact::OpenedAt { sock: line.number("sock"), stack: line.number("stack") };
            return frames.push_fact(fact::kind::OPENED_AT, line.ts, &body);
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
        kind::LISTEN => {
            let open = Open { head, tuple: line.tuple(), owner: line.owner() };
            &Listen { open, backlog: line.known("backlog"), somaxconn: line.known("somaxconn") }
        }
        kind::REQUEST_EVENT => &line.request_event(head),
        kind::LISTENER => &line.sample(head),
        kind::LISTENER_STATS => &line.stats(head),
        kind::CHILD => &Child { head, tuple: line.tuple(), addr: line.number("addr") },
        kind::ESTABLISHED => &Established { head, tuple: line.tuple(), handshake: line.handshake() },
        kind::CLOSED => &Closed {
            head,
            counters: line.counters(),
            lport: line.number("lport") as u16,
            snd_una: line.number("snd_una") as u32,
            ..Closed::default()
        },
        kind::SEQUENCE => &Sequence {
            head,
            snd_una: line.number("snd_una") as u32,
            snd_nxt: line.number("snd_nxt") as u32,
            write_seq: line.number("write_seq") as u32,
            rcv_nxt: line.number("rcv_nxt") as u32,
        },
        kind::BOUND => &Bound { head, lport: line.number("lport") as u16, ..Bound::default() },
        kind::ACCEPTED => &Accepted { head, owner: line.owner(), addr: line.number("addr") },
        kind::ACTOR | kind::HOLDER => &Owned { head, owner: line.owner() },
        kind::SYNACK_RETRANSMIT => {
            &SynAck { head, tuple: line.tuple(), retrans: line.number("retrans") as u32, reserved: 0 }
        }
        kind::PROBE => &Probe {
            head,
            tuple: line.tuple(),
            seq: line.number("isn") as u32,
            ack: line.number("ack") as u32,
            held_back: line.number("held_back"),
            flags: line.pairs.get("tcp").map_or(0, |list| list.split(',').fold(0, |bits, f| bits | tcp_flag_bit(f))),
            ..Probe::default()
        },
        kind::TIME_WAIT_END => &TimeWaitEnd { head, late_ns: line.number("late") * 1000 },
        kind::REQUEST | kind::TIME_WAIT => {
            &MiniSocket { head, tuple: line.tuple(), retrans: line.number("retrans") as u32, reserved: 0 }
        }
        kind::SOCKET | kind::FOUND => &line.socket(head),
        kind::RECEIVED => &Received { socket: line.socket(head), owner: line.owner() },
        kind::FORKED => &Forked { head, parent: line.number("parent") as u32, child: line.number("child") as u32 },
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
        "SEQUENCE" => (kind::SEQUENCE, true),
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
        "REQUEST_EVENT" => (kind::REQUEST_EVENT, false),
        "LISTEN" => (kind::LISTEN, true),
        "TIME_WAIT_BEGIN" => (kind::TIME_WAIT_BEGIN, false),
        "TIME_WAIT_END" => (kind::TIME_WAIT_END, false),
        "PROBE" => (kind::PROBE, false),
        "LISTENER" => (kind::LISTENER, false),
        "LISTENER_STATS" => (kind::LISTENER_STATS, false),
        "SOCKET" => (kind::SOCKET, false),
        "FOUND" => (kind::FOUND, false),
        "FORKED" => (kind::FORKED, false),
        "RECEIVED" => (kind::RECEIVED, false),
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
    /// `pairs` in their order.
    words: Vec<(&'a str, &'a str)>,
    flags: u16,
}

fn named(prefix: &str, words: Vec<(&str, &str)>) -> Vec<(String, String)> {
    let one = |(name, value): (&str, &str)| match value.split_once(':') {
        Some((name, value)) if !prefix.is_empty() => (name.to_owned(), value.to_owned()),
        _ => (name.to_owned(), value.to_owned()),
    };
    words.into_iter().map(one).collect()
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Self {
        let mut words = text.split_whitespace();
        let ts: u64 = words.next().and_then(|w| w.parse().ok()).unwrap_or_else(|| panic!("no time in {text:?}"));
        let kind = words.next().unwrap_or_else(|| panic!("no kind in {text:?}"));
        let mut line = Self {
            ts: ts * 1000,
            kind,
            states: (0, 0),
            ends: Vec::new(),
            pairs: HashMap::new(),
            words: Vec::new(),
            flags: 0,
        };
        for word in words {
            if let Some((key, value)) = word.split_once('=') {
                line.pairs.insert(key, value);
                line.words.push((key, value));
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

    fn words(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.words.iter().copied()
    }

    /// A number, or what stands for one that is not known.
    fn known(&self, key: &str) -> u32 {
        if self.has(key) { self.number(key) as u32 } else { u32::MAX }
    }

    fn request_event(&self, head: Head) -> RequestEvent {
        let known = [("syn_queue", depth::SYN_QUEUE), ("accept_queue", depth::ACCEPT_QUEUE)];
        RequestEvent {
            head,
            tuple: self.tuple(),
            child: self.number("child"),
            addr: self.number("addr"),
            since: self.number("since") * 1000,
            rcv_isn: self.number("rcv_isn") as u32,
            snt_isn: self.number("snt_isn") as u32,
            syn_queue: self.number("syn_queue") as u32,
            young: self.number("young") as u32,
            accept_queue: self.number("accept_queue") as u32,
            limit: self.number("limit") as u32,
            retrans: self.number("retrans") as u8,
            outcome: outcome_number(self.pairs.get("outcome").expect("an outcome")),
            known: known.iter().filter(|(key, _)| self.has(key)).fold(0, |bits, (_, bit)| bits | bit),
            ..RequestEvent::default()
        }
    }

    fn socket(&self, head: Head) -> Socket {
        Socket {
            head,
            tuple: self.tuple(),
            handshake: self.handshake(),
            counters: self.counters(),
            inode: self.number("ino"),
            jiffies: self.number("jiffies") as u32,
            active: self.number("active") as u32,
            uid: self.number("uid") as u32,
            syn_queue: self.number("syn_queue") as u32,
        }
    }

    fn sample(&self, head: Head) -> ListenerSample {
        let n = |key| self.number(key) as u32;
        ListenerSample {
            head,
            tuple: self.tuple(),
            group: self.number("group"),
            syn_queue: n("syn_queue"),
            young: n("young"),
            accept_queue: n("accept_queue"),
            limit: n("limit"),
            drops: n("drops"),
            somaxconn: self.known("somaxconn"),
            fast_open_queue: n("fast_open_queue"),
            fast_open_limit: n("fast_open_limit"),
            defer_accept: n("defer_accept"),
            reserved: 0,
        }
    }

    fn stats(&self, head: Head) -> ListenerStats {
        let names = [
            "syn_queue_full",
            "accept_queue_full_syn",
            "accept_queue_full_ack",
            "rst",
            "synack_timeout",
            "other",
            "listener_closed",
        ];
        let mut totals = ListenerTotals {
            syns: self.number("syns"),
            queued: self.number("queued"),
            completed: self.number("completed"),
            accepted: self.number("accepted"),
            cookies_sent: self.number("cookies_sent"),
            cookies_ok: self.number("cookies_ok"),
            fast_opens: self.number("fast_opens"),
            dropped: names.map(|name| self.number(name)),
            synack_retrans: self.number("synack_retrans"),
            migrated: self.number("migrated"),
            held_back: self.number("held_back"),
            failed: self.number("failed"),
            by_rule: self.number("by_rule"),
            phantoms: self.number("phantoms"),
            not_taken: self.number("not_taken"),
            ..ListenerTotals::new_zeroed()
        };
        for bucket in self.pairs.get("waits").into_iter().flat_map(|text| text.split(',')) {
            let (bucket, n) = bucket.split_once(':').expect("BUCKET:N");
            totals.waits[bucket.parse::<usize>().expect("a bucket")] = n.parse().expect("a number");
        }
        let mut window = Window {
            syn_peak: self.number("syn_peak") as u32,
            accept_peak: self.number("accept_peak") as u32,
            wait_max_us: self.number("wait_max") as u32,
            ..Window::new_zeroed()
        };
        window.sources.iter_mut().take(self.number("sources") as usize).for_each(|r| *r = 1);
        ListenerStats { head, totals, window }
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
            snd_mss: self.number("mss") as u32,
            adv_mss: self.number("adv_mss") as u16,
            wscale_snd: self.number("wscale_snd") as u8,
            wscale_rcv: self.number("wscale_rcv") as u8,
            options: self
                .pairs
                .get("options")
                .map_or(0, |list| list.split(',').fold(0, |bits, o| bits | option_bit(o))),
            addr: self.number("addr"),
            ..Handshake::default()
        }
    }

    fn counters(&self) -> Counters {
        Counters {
            bytes_sent: self.number("sent"),
            bytes_acked: self.number("acked"),
            bytes_received: self.number("received"),
            segs_out: self.number("segs_out") as u32,
            retrans: self.number("retrans") as u32,
            unread: self.number("unread") as u32,
            unsent: self.number("unsent") as u32,
            packets_out: self.number("packets_out") as u32,
            options: if self.has("user_timeout") { option::USER_TIMEOUT } else { 0 },
            ..Counters::default()
        }
    }
}

fn option_bit(name: &str) -> u16 {
    match name {
        "sack" => option::SACK,
        "timestamps" => option::TIMESTAMPS,
        "wscale" => option::WSCALE,
        "ecn" => option::ECN,
        "tfo" => option::TFO,
        other => panic!("{other:?} is no option"),
    }
}

fn tcp_flag_bit(name: &str) -> u8 {
    match name {
        "fin" => tcp_flag::FIN,
        "syn" => tcp_flag::SYN,
        "rst" => tcp_flag::RST,
        "psh" => tcp_flag::PSH,
        "ack" => tcp_flag::ACK,
        "urg" => tcp_flag::URG,
        other => panic!("{other:?} is no flag of a segment"),
    }
}

fn state(name: &str) -> u8 {
    let found = State::ALL.iter().find(|s| s.name() == name);
    *found.unwrap_or_else(|| panic!("{name:?} is neither a state nor a flag")) as u8
}

fn outcome_number(name: &str) -> u8 {
    match name {
        "queued" => outcome::QUEUED,
        "completed" => outcome::COMPLETED,
        "cookie_sent" => outcome::COOKIE_SENT,
        "cookie_completed" => outcome::COOKIE_COMPLETED,
        "syn_queue_full" => outcome::SYN_QUEUE_FULL,
        "accept_queue_full_syn" => outcome::ACCEPT_QUEUE_FULL_SYN,
        "accept_queue_full_ack" => outcome::ACCEPT_QUEUE_FULL_ACK,
        "rst" => outcome::RST,
        "synack_timeout" => outcome::SYNACK_TIMEOUT,
        "other" => outcome::OTHER,
        "fast_open" => outcome::FAST_OPEN,
        "migrated" => outcome::MIGRATED,
        "listener_closed" => outcome::LISTENER_CLOSED,
        "aborted" => outcome::ABORTED,
        "icmp_error" => outcome::ICMP_ERROR,
        "child_migrated" => outcome::CHILD_MIGRATED,
        number => number.parse().unwrap_or_else(|_| panic!("{number:?} is no outcome")),
    }
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
        "EXPIRED" => flag::EXPIRED,
        _ => return None,
    })
}
