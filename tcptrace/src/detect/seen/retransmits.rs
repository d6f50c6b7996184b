//! Segments that were sent again, by peer and connection.

use std::{collections::BTreeMap, net::IpAddr, ops::AddAssign};

use super::window::Window;
use crate::model::{Connection, Mark, Marked, State, address};

const SECOND: u64 = 1_000_000_000;
/// Seconds that are kept.
const SECONDS: u64 = 16;
/// Peers and connections that are told apart.
const PEERS: usize = 4096;
const FLOWS: usize = 8192;
/// A retransmission timer that runs out again and again waits twice as long each time; less than half as long again, or more than three
/// times, is another's doing.
const DOUBLED: std::ops::RangeInclusive<u64> = 16..=30;

/// Network namespace and address of a peer.
pub type Host = (u32, IpAddr);

/// Counts of a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// Segments sent again by connections that go on.
    pub segments: u64,
    /// By connections that hear nothing any more: each time they wait twice as long.
    pub backed_off: u64,
    /// 1: connections that go on sent segments again in this second.
    pub seconds: u64,
}

impl AddAssign<&Self> for Again {
    fn add_assign(&mut self, other: &Self) {
        self.segments += other.segments;
        self.backed_off += other.backed_off;
        self.seconds += other.seconds;
    }
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    host: Host,
    last: u64,
    gap: u64,
    doubled: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Retransmits {
    hosts: BTreeMap<Host, Window<Again>>,
    flows: BTreeMap<u64, Flow>,
}

impl Retransmits {
    pub(in crate::detect) fn mark(&mut self, c: &Connection, m: &Mark) {
        if m.what != Marked::Retransmit || matches!(m.state, State::SynSent | State::SynRecv | State::NewSynRecv) {
            return;
        }
        let host = (c.tuple.netns, address(c.tuple.family, &c.tuple.raddr));
        let room = self.flows.len() < FLOWS || self.flows.contains_key(&c.id);
        let mut backs_off = false;
        if room {
            let flow = self.flows.entry(c.id).or_insert(Flow { host, last: m.ts, gap: 0, doubled: 0 });
            let gap = m.ts.saturating_sub(flow.last);
            let doubled = flow.gap > 0 && DOUBLED.contains(&(gap.saturating_mul(10) / flow.gap));
            flow.doubled = if doubled { flow.doubled + 1 } else { 0 };
            (flow.last, flow.gap) = (m.ts, gap);
            backs_off = doubled;
        }
        if self.hosts.len() >= PEERS && !self.hosts.contains_key(&host) {
            return;
        }
        let second = self.hosts.entry(host).or_insert_with(|| Window::new(SECOND, SECONDS)).at(m.ts);
        if backs_off {
            second.backed_off += 1;
        } else {
            second.segments += 1;
            second.seconds = 1;
        }
    }

    pub(in crate::detect) fn over(&mut self, c: &Connection) {
        self.flows.remove(&c.id);
    }

    pub(in crate::detect) fn advance(&mut self, now: u64) {
        let old = now.saturating_sub(SECONDS * SECOND);
        self.flows.retain(|_, flow| flow.last >= old);
        self.hosts.retain(|_, window| window.lives(now));
    }

    /// Peers that segments were sent to again, in the order of their addresses.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.keys()
    }

    /// What was sent again to a peer in the last `ns`.
    #[must_use]
    pub fn to(&self, host: &Host, now: u64, ns: u64) -> Again {
        self.hosts.get(host).map(|window| window.sum(now, ns)).unwrap_or_default()
    }

    /// By how many connections that are not over.
    #[must_use]
    pub fn flows(&self, host: &Host, now: u64, ns: u64) -> usize {
        self.flows.values().filter(|flow| flow.host == *host && flow.last.saturating_add(ns) >= now).count()
    }
}
