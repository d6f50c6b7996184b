//! Whom processes here connect to, and which services of theirs are connected to: how that went, of late.
//!
//! A party is known by the name of the process, not by its number: a script that runs a client again and again is one.

mod party;
mod table;
mod tally;

use std::collections::BTreeMap;

use crate::model::{Connection, End, Final, Mark, Marked, Role, State, Transition, address};
pub use party::{Death, Failing, Party, Side};
use table::Table;
pub use tally::{Cut, Reset, Tally};

/// Connections at a time whose SYN was sent again and not answered.
const WAITING: usize = 4096;

/// A connection that waits for the answer to its SYN.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    party: table::Key,
    /// When connect() was called.
    since: u64,
    /// SYNs sent again.
    retrans: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Peers {
    asked: Table,
    served: Table,
    waiting: BTreeMap<u64, Waiting>,
}

impl Peers {
    pub(in crate::detect) fn transition(&mut self, c: &Connection, t: &Transition) {
        if t.to != State::Established || t.is_found() {
            return;
        }
        self.waiting.remove(&c.id);
        let now = t.ts;
        if let Some(party) = self.party(c, now) {
            party.second(now).established += 1;
            party.failing = None;
            party.succeeded = Some(now);
        }
    }

    pub(in crate::detect) fn mark(&mut self, c: &Connection, m: &Mark) {
        if m.what != Marked::Retransmit || m.state != State::SynSent || c.role != Some(Role::Client) {
            return;
        }
        if let Some(waiting) = self.waiting.get_mut(&c.id) {
            waiting.retrans += 1;
        } else if self.waiting.len() < WAITING {
            // Known from now on, so that its connections that wait are told.
            self.party(c, m.ts);
            self.waiting.insert(c.id, Waiting { party: table::key(c, Side::Asked), since: c.start_ns, retrans: 1 });
        }
    }

    pub(in crate::detect) fn connection(&mut self, c: &Connection, f: &Final) {
        self.waiting.remove(&c.id);
        let (Some(end), Some(side)) = (f.end, Side::of(c)) else { return };
        if end == End::Open || f.late {
            return;
        }
        let was = c.states.iter().filter(|(state, _)| *state != State::Close).last().map(|(state, _)| state);
        let Some(party) = self.party(c, f.ts) else { return };
        if was == Some(State::SynSent) {
            party.failed(c, f, end);
        } else if was.is_some_and(|state| state != State::SynRecv && state != State::NewSynRecv) {
            party.ended(c, f, end, side);
        }
    }

    pub(in crate::detect) fn advance(&mut self, now: u64) {
        self.asked.advance(now);
        self.served.advance(now);
        let asked = &self.asked;
        self.waiting.retain(|_, waiting| asked.has(&waiting.party));
    }

    /// Whom processes here connect to, in the order in which they were first seen.
    pub fn asked(&self) -> impl Iterator<Item = &Party> {
        self.asked.iter()
    }

    /// Services here that are connected to, likewise.
    pub fn served(&self) -> impl Iterator<Item = &Party> {
        self.served.iter()
    }

    /// Attempts to connect that wait for an answer although their SYN was sent again so often: how many, and since when the oldest does.
    #[must_use]
    pub fn waiting(&self, party: &Party, retrans: u32) -> (u32, Option<u64>) {
        let key = party.key;
        let waiting = || self.waiting.values().filter(|w| w.party == key && w.retrans >= retrans);
        (waiting().count() as u32, waiting().map(|w| w.since).min())
    }

    /// Does a process that asks `party` in vain get what it wants at another address? Names have several, and clients try one after the
    /// other: `::1`, then `127.0.0.1`.
    #[must_use]
    pub fn has_another_way(&self, party: &Party, now: u64, ns: u64, tries: u32) -> bool {
        let same = |other: &&Party| {
            other.key != party.key && other.subject.rport == party.subject.rport && other.comm() == party.comm()
        };
        let others = self.asked.iter().filter(same);
        let established: u32 = others.map(|other| other.recent.sum(now, ns).established).sum();
        established > 0 && u64::from(established) * 5 >= u64::from(tries) * 4
    }

    /// The party that a connection belongs to.
    fn party(&mut self, c: &Connection, now: u64) -> Option<&mut Party> {
        let side = Side::of(c)?;
        let table = match side {
            Side::Asked => &mut self.asked,
            Side::Served => &mut self.served,
        };
        let party = table.get(c, side, now);
        party.met(c, now);
        Some(party)
    }
}

/// The other end of a connection.
pub(super) fn peer(c: &Connection) -> std::net::IpAddr {
    address(c.tuple.family, &c.tuple.raddr)
}
