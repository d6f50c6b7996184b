//! A peer that processes of one name connect to, or a service of theirs that is connected to.

use std::{collections::VecDeque, net::IpAddr};

use super::{
    super::window::Window,
    peer,
    table::Key,
    tally::{Cut, Reset, Tally},
};
use crate::model::{Connection, End, Final, Measure, Payload, Role, Said, Shape, Subject, address, comm_str, finding};

const SECOND: u64 = 1_000_000_000;
/// Seconds of counts that are kept.
const SECONDS: u64 = 61;
/// How long a party is remembered after it was last heard of, and its connections that died.
pub(super) const KEPT_NS: u64 = 300 * SECOND;
/// Connections of a party that are remembered one by one: the latest.
const LATEST: usize = 128;
/// Processes of a party that are told apart.
const PROCESSES: usize = 64;

/// Which end asked for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This one: the party is the peer.
    Asked,
    /// The other: the party is the service here.
    Served,
}

impl Side {
    pub(super) fn of(c: &Connection) -> Option<Self> {
        match c.role? {
            Role::Client => Some(Self::Asked),
            Role::Server => Some(Self::Served),
            Role::Listener => None,
        }
    }
}

/// Attempts to connect that came to nothing, since the last one that did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failing {
    /// When the first of them began.
    pub since: u64,
    /// When the last of them ended.
    pub last: u64,
    /// Answered by a RST.
    pub refused: u32,
    /// Answered by an ICMP error that is as good as one.
    pub icmp: u32,
    /// Never answered.
    pub timed_out: u32,
    /// Given up by the process, after the SYN was sent again in vain.
    pub gave_up: u32,
    /// The network said that there is no way.
    pub unreachable: u32,
    /// What it said last, errno.
    pub errno: u8,
    /// The longest time that a process waited, nanoseconds.
    pub longest: u64,
}

/// How a connection died whose peer did not answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// When.
    pub ts: u64,
    /// The peer.
    pub raddr: IpAddr,
    /// By which timer.
    pub end: End,
    /// How long it had lasted, where that is known, nanoseconds.
    pub lasted: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Party {
    pub(super) number: u64,
    pub(super) key: Key,
    /// When something was last heard of it.
    pub(super) heard: u64,
    /// The peer, or the service here. Its process is the first that was seen: others of the same name may have followed.
    pub subject: Subject,
    /// This end's address.
    pub laddr: IpAddr,
    /// Its processes.
    processes: Vec<u32>,
    /// By second.
    pub recent: Window<Tally>,
    /// Attempts in vain.
    pub failing: Option<Failing>,
    /// When a handshake was last finished.
    pub succeeded: Option<u64>,
    /// The latest that were cut off by a RST.
    pub resets: VecDeque<Reset>,
    /// The latest that died because the peer did not answer.
    pub deaths: VecDeque<Death>,
}

impl Party {
    pub(super) fn new(number: u64, key: Key, c: &Connection, side: Side, now: u64) -> Self {
        let t = &c.tuple;
        let mut subject = Subject { netns: finding::netns(t.netns), owner: c.owner.clone(), ..Subject::default() };
        match side {
            Side::Asked => (subject.raddr, subject.rport) = (Some(peer(c)), Some(t.rport)),
            Side::Served => subject.lport = Some(t.lport),
        }
        Self {
            number,
            key,
            heard: now,
            subject,
            laddr: address(t.family, &t.laddr),
            processes: Vec::new(),
            recent: Window::new(SECOND, SECONDS),
            failing: None,
            succeeded: None,
            resets: VecDeque::new(),
            deaths: VecDeque::new(),
        }
    }

    pub(super) fn met(&mut self, c: &Connection, now: u64) {
        self.heard = self.heard.max(now);
        self.laddr = address(c.tuple.family, &c.tuple.laddr);
        if let Some(owner) = &c.owner
            && self.processes.len() < PROCESSES
            && !self.processes.contains(&owner.pid)
        {
            self.processes.push(owner.pid);
        }
    }

    pub(super) fn second(&mut self, now: u64) -> &mut Tally {
        self.recent.at(now)
    }

    pub(super) fn forget(&mut self, now: u64) {
        self.recent.forget(now);
        while self.deaths.front().is_some_and(|death| death.ts.saturating_add(KEPT_NS) < now) {
            self.deaths.pop_front();
        }
    }

    /// An attempt to connect came to nothing.
    pub(super) fn failed(&mut self, c: &Connection, f: &Final, end: End) {
        let begun = c.start_ns.min(f.ts);
        let fresh = Failing { since: begun, last: f.ts, ..Failing::default() };
        let mut failing = self.failing.unwrap_or(fresh);
        let count = match end {
            End::Refused if c.notes.rst_received => &mut failing.refused,
            End::Refused => &mut failing.icmp,
            End::ConnectTimeout => &mut failing.timed_out,
            End::Unreachable => &mut failing.unreachable,
            // Who gives up before a SYN was sent again did not wait: another address was faster.
            End::Aborted if f.syn_retrans.is_some_and(|n| n > 0) => &mut failing.gave_up,
            _ => return,
        };
        *count += 1;
        if end == End::Unreachable {
            failing.errno = f.errno;
        }
        failing.last = f.ts;
        failing.longest = failing.longest.max(f.ts - begun);
        self.failing = Some(failing);
        self.second(f.ts).refused += u32::from(end == End::Refused);
    }

    /// A connection that was established is over.
    pub(super) fn ended(&mut self, c: &Connection, f: &Final, end: End, side: Side) {
        let cut = Cut::of(c, f, side == Side::Asked);
        let lasted = f.lasted_ns(c);
        let second = self.second(f.ts);
        second.ended += 1;
        if end == End::Fin {
            second.closed += 1;
            second.closed_here += u32::from(f.closed_by == Some(crate::model::ClosedBy::Local));
            if let Some((lasted, counters)) = lasted.zip(f.counters) {
                let payload = Payload::new(&counters, Shape::of(c));
                second.timed += 1;
                second.lasted_us += lasted / 1000;
                second.handshake_us += f.handshake_ns.unwrap_or(0) / 1000;
                second.bytes += payload.sent + payload.received;
                second.busy_seconds = 1;
            }
        }
        if let Some(cut) = cut {
            match end {
                End::RstSent => second.cut_here += 1,
                _ => second.cut_there += 1,
            }
            second.cut_seconds = 1;
            push(&mut self.resets, Reset { ts: f.ts, raddr: peer(c), cut, lasted_us: lasted.map(|ns| ns / 1000) });
        }
        if matches!(end, End::KeepaliveTimeout | End::RetransmitTimeout | End::UserTimeout) {
            push(&mut self.deaths, Death { ts: f.ts, raddr: peer(c), end, lasted });
        }
    }

    /// Name of its processes, NUL-padded; all zero where it is not known.
    #[must_use]
    pub const fn comm(&self) -> &[u8; 16] {
        &self.key.3
    }

    /// ` (curl[7])` or ` (curl, 12 processes)` follows, where that is known.
    #[must_use]
    pub fn said(&self, said: Said) -> Said {
        match self.processes.len() {
            0 | 1 => said.owner(self.subject.owner.as_deref()),
            n => said
                .text(" (")
                .name(comm_str(self.comm()))
                .text(format!(", {n}{} processes)", if n == PROCESSES { " or more" } else { "" })),
        }
    }

    /// How many processes it has, where that is more than the one that is named anyway.
    #[must_use]
    pub fn processes(&self) -> Option<(&'static str, Measure)> {
        (self.processes.len() > 1).then_some(("processes", Measure::Count(self.processes.len() as u64)))
    }

    /// `10.0.0.2:80`, of one that is asked.
    #[must_use]
    pub fn remote(&self) -> String {
        std::net::SocketAddr::new(self.key.1, self.key.2).to_string()
    }
}

/// The oldest makes room.
fn push<T>(latest: &mut VecDeque<T>, item: T) {
    if latest.len() == LATEST {
        latest.pop_front();
    }
    latest.push_back(item);
}
