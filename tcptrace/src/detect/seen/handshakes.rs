//! Handshakes of late: a SYN that comes again after its connection is over is known by the initial sequence number that it carries.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use tcptrace_common::record::Tuple;

use crate::model::{Connection, Outcome, Process, Request, Role, State, Subject, Transition, address, finding};

const SECOND: u64 = 1_000_000_000;
/// Handshakes that are remembered.
const HANDSHAKES: usize = 65_536;
/// For so long: a segment may live for two minutes (RFC 9293, MSL).
const KEPT_NS: u64 = 120 * SECOND;
/// Late SYNs that are remembered one by one.
const LATEST: usize = 256;

/// The latest handshake between two ends.
#[derive(Clone, Copy, Debug)]
struct Handshake {
    isn: u32,
    /// Number of its timeline.
    id: u64,
    /// When its SYN came.
    began: u64,
    /// When it was last heard of.
    ts: u64,
}

/// A SYN that came again after its connection or its request was over, made another request, and was answered by a RST.
#[derive(Clone, Debug)]
pub struct Stale {
    /// When that request ended.
    pub ts: u64,
    /// Where it came to: network namespace, port.
    pub at: (u32, u16),
    /// That end's address.
    pub laddr: IpAddr,
    /// The peer's.
    pub raddr: IpAddr,
    /// How long after the first SYN of this number it came, nanoseconds.
    pub late_ns: u64,
    /// The listener's process.
    pub owner: Option<Arc<Process>>,
}

impl Stale {
    /// The port that it came to.
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject {
            netns: finding::netns(self.at.0),
            lport: Some(self.at.1),
            owner: self.owner.clone(),
            ..Subject::default()
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Handshakes {
    of: BTreeMap<Tuple, Handshake>,
    /// The latest that came too late.
    pub stale: VecDeque<Stale>,
}

impl Handshakes {
    pub(in crate::detect) fn transition(&mut self, c: &Connection, t: &Transition) {
        if t.to == State::Established
            && c.role == Some(Role::Server)
            && let Some(handshake) = c.handshake
        {
            self.remember(c.tuple, handshake.isn_remote, c.id, c.start_ns, t.ts);
        }
    }

    pub(in crate::detect) fn connection(&mut self, c: &Connection, ts: u64) {
        if let Some(known) = self.of.get_mut(&c.tuple).filter(|known| known.id == c.id) {
            known.ts = ts;
        }
    }

    /// Something happened to a request. True: it was that of a late duplicate.
    pub(in crate::detect) fn request(&mut self, r: &Request) -> bool {
        let Some(isn) = r.rcv_isn.filter(|_| r.over) else { return false };
        let began = r.ts.saturating_sub(r.age_ns.unwrap_or(0));
        let known = self.of.get(&r.tuple).copied();
        // What a client sends while its first request is there makes no other one.
        let before = known.filter(|known| known.isn == isn && known.id != r.id && known.ts <= began);
        match before {
            Some(known) if r.outcome == Some(Outcome::Rst) => {
                if self.stale.len() == LATEST {
                    self.stale.pop_front();
                }
                let t = &r.tuple;
                self.stale.push_back(Stale {
                    ts: r.ts,
                    at: (t.netns, t.lport),
                    laddr: address(t.family, &t.laddr),
                    raddr: address(t.family, &t.raddr),
                    late_ns: began.saturating_sub(known.began),
                    owner: r.owner.clone(),
                });
                self.remember(r.tuple, isn, r.id, known.began, r.ts);
                true
            }
            _ => {
                self.remember(r.tuple, isn, r.id, began, r.ts);
                false
            }
        }
    }

    fn remember(&mut self, tuple: Tuple, isn: u32, id: u64, began: u64, ts: u64) {
        if self.of.len() >= HANDSHAKES && !self.of.contains_key(&tuple) {
            self.make_room();
        }
        self.of.insert(tuple, Handshake { isn, id, began, ts });
    }

    /// The older half goes.
    fn make_room(&mut self) {
        let mut times: Vec<_> = self.of.values().map(|known| known.ts).collect();
        let (_, &mut middle, _) = times.select_nth_unstable(HANDSHAKES / 2);
        self.of.retain(|_, known| known.ts > middle);
    }

    pub(in crate::detect) fn advance(&mut self, now: u64) {
        let old = now.saturating_sub(KEPT_NS);
        self.of.retain(|_, known| known.ts >= old);
        while self.stale.front().is_some_and(|stale| stale.ts < old) {
            self.stale.pop_front();
        }
    }
}
