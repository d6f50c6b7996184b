//! Who sends SYNs and does not answer the SYN-ACK, by address: in bounded memory, which a flood fills in vain.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use crate::model::{Mini, Outcome, Request, State, Subject, address};
use tcptrace_common::record::Tuple;

/// Requests that are watched. A flood fills this; then nothing more is said.
const OPEN: usize = 4096;
/// Addresses that are remembered.
const SOURCES: usize = 1024;
/// A request that is not answered for so long was sent a SYN-ACK two or three times in vain, nanoseconds.
const UNANSWERED_NS: u64 = 3_500_000_000;
/// An address is remembered for so long after its latest request that was not answered, nanoseconds.
const KEPT_NS: u64 = 90_000_000_000;
/// A request that never ends was not seen ending, nanoseconds.
const FORGOTTEN_NS: u64 = 300_000_000_000;

/// A request.
#[derive(Clone, Copy, Debug)]
struct Open {
    since: u64,
    /// It counts as not answered.
    counted: bool,
}

/// An address that answers no SYN-ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Network namespace and both addresses, this end's first.
    pub netns: u32,
    /// This end's address and port.
    pub local: (IpAddr, u16),
    /// Its own.
    pub addr: IpAddr,
    /// SYN of its first request that was not answered.
    pub first: u64,
    /// And of the latest.
    pub last: u64,
    /// How many there were.
    pub attempts: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct HalfOpens {
    open: BTreeMap<Tuple, Open>,
    /// Those that may be counted, oldest first.
    young: VecDeque<(u64, Tuple)>,
    sources: BTreeMap<(u32, u16, [u8; 16], [u8; 16]), Source>,
    /// When there was last no room.
    full: Option<u64>,
    swept: u64,
}

impl HalfOpens {
    pub(super) fn mini_socket(&mut self, m: &Mini) {
        if m.state == State::NewSynRecv {
            self.add(&m.tuple, m.ts);
        }
    }

    pub(super) fn request(&mut self, r: &Request) {
        match r.outcome {
            Some(Outcome::Queued) => self.add(&r.tuple, r.ts),
            Some(Outcome::SynAckTimeout) => {
                if let Some(open) = self.open.remove(&r.tuple)
                    && !open.counted
                {
                    self.unanswered(&r.tuple, open.since);
                }
            }
            Some(Outcome::Completed | Outcome::CookieCompleted | Outcome::AcceptQueueFullAck | Outcome::Rst) => {
                self.open.remove(&r.tuple);
                if !self.sources.is_empty() {
                    self.sources.remove(&key(&r.tuple));
                }
            }
            _ if r.over => _ = self.open.remove(&r.tuple),
            _ => {}
        }
    }

    fn add(&mut self, tuple: &Tuple, since: u64) {
        if self.open.len() >= OPEN || self.young.len() >= 2 * OPEN {
            self.full = Some(since);
            return;
        }
        self.open.insert(*tuple, Open { since, counted: false });
        self.young.push_back((since, *tuple));
    }

    fn unanswered(&mut self, tuple: &Tuple, since: u64) {
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&key(tuple)) {
            self.full = Some(since);
            return;
        }
        let source = self.sources.entry(key(tuple)).or_insert_with(|| Source {
            netns: tuple.netns,
            local: (address(tuple.family, &tuple.laddr), tuple.lport),
            addr: address(tuple.family, &tuple.raddr),
            first: since,
            last: since,
            attempts: 0,
        });
        source.last = source.last.max(since);
        source.attempts += 1;
    }

    pub(super) fn advance(&mut self, now: u64) {
        while let Some((since, tuple)) = self.young.front().copied()
            && since + UNANSWERED_NS <= now
        {
            self.young.pop_front();
            // The same ends may have come again meanwhile.
            let open = self.open.get_mut(&tuple).filter(|open| open.since == since && !open.counted);
            if let Some(open) = open {
                open.counted = true;
                self.unanswered(&tuple, since);
            }
        }
        if now.saturating_sub(self.swept) >= UNANSWERED_NS {
            self.swept = now;
            self.open.retain(|_, open| open.since.saturating_add(FORGOTTEN_NS) >= now);
            self.sources.retain(|_, source| source.last.saturating_add(KEPT_NS) >= now);
        }
    }

    /// Was there no room for some since then?
    #[must_use]
    pub fn overrun(&self, since: u64) -> bool {
        self.full.is_some_and(|full| full >= since)
    }

    /// Addresses that do not answer a listener, most attempts first.
    #[must_use]
    pub fn of(&self, listener: &Subject) -> Vec<Source> {
        let here = |source: &&Source| {
            Some(source.local.1) == listener.lport
                && listener.netns.is_none_or(|netns| netns == source.netns)
                && listener.laddr.is_none_or(|addr| addr.is_unspecified() || addr == source.local.0)
        };
        let mut sources: Vec<Source> = self.sources.values().filter(here).copied().collect();
        sources.sort_unstable_by_key(|source| (std::cmp::Reverse(source.attempts), source.addr));
        sources
    }
}

fn key(tuple: &Tuple) -> (u32, u16, [u8; 16], [u8; 16]) {
    (tuple.netns, tuple.lport, tuple.laddr, tuple.raddr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(source: u8, port: u16) -> Tuple {
        let mut raddr = [0; 16];
        raddr[..4].copy_from_slice(&[10, 0, 0, source]);
        Tuple { raddr, lport: 80, rport: port, netns: 1, family: 2, ..Tuple::default() }
    }

    const LISTENER: Subject =
        Subject { id: None, netns: Some(1), laddr: None, lport: Some(80), raddr: None, rport: None, owner: None };

    #[test]
    fn one_that_answers_late_is_forgotten_and_one_that_never_does_is_counted() {
        let mut seen = HalfOpens::default();
        (0..3).for_each(|port| seen.add(&tuple(1, port), 0));
        seen.advance(UNANSWERED_NS - 1);
        assert!(seen.of(&LISTENER).is_empty());
        seen.advance(UNANSWERED_NS);
        assert_eq!(seen.of(&LISTENER).iter().map(|s| s.attempts).collect::<Vec<_>>(), [3]);
        assert!(seen.of(&Subject { lport: Some(81), ..LISTENER }).is_empty());
        assert!(seen.of(&Subject { laddr: Some([10, 0, 0, 9].into()), ..LISTENER }).is_empty());
        seen.advance(2 * KEPT_NS);
        assert!(seen.of(&LISTENER).is_empty());
    }

    #[test]
    fn a_flood_fills_what_there_is_and_no_more() {
        let mut seen = HalfOpens::default();
        for i in 0..100_000u32 {
            seen.add(&Tuple { rport: i as u16, netns: i >> 16, ..tuple(1, 0) }, 1);
        }
        seen.advance(UNANSWERED_NS * 2);
        assert!(seen.overrun(1) && seen.open.len() <= OPEN && seen.sources.len() <= SOURCES);
    }
}
