//! Who met a full accept queue: clients, not segments, because a client sends its SYN again.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Outcome, Request};

/// Clients that are remembered, in all. An attacker is not to fill the memory.
const CLIENTS: usize = 16_384;
/// How long, nanoseconds.
const KEPT_NS: u64 = 60_000_000_000;

/// A client: its address and its port.
type Client = ([u8; 16], u16);

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Connections that were asked for.
    pub clients: u64,
    /// Addresses that they came from.
    pub hosts: u64,
    /// There may be more: not all of them could be remembered.
    pub at_least: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct TurnedAway {
    /// By the listener's cookie: when it met a full queue last.
    of: BTreeMap<u64, BTreeMap<Client, u64>>,
    len: usize,
    /// When there was no room.
    full: Option<u64>,
}

impl TurnedAway {
    pub(super) fn request(&mut self, r: &Request) {
        let met = matches!(r.outcome, Some(Outcome::AcceptQueueFullSyn | Outcome::AcceptQueueFullAck));
        if !met || r.listener == 0 {
            return;
        }
        let client = (r.tuple.raddr, r.tuple.rport);
        let room = self.len < CLIENTS;
        let clients = self.of.entry(r.listener).or_default();
        if let Some(last) = clients.get_mut(&client) {
            *last = r.ts;
        } else if room {
            clients.insert(client, r.ts);
            self.len += 1;
        } else {
            self.full = Some(r.ts);
        }
    }

    pub(super) fn advance(&mut self, now: u64) {
        if self.len == 0 {
            return;
        }
        self.of.retain(|_, clients| {
            clients.retain(|_, last| last.saturating_add(KEPT_NS) >= now);
            !clients.is_empty()
        });
        self.len = self.of.values().map(BTreeMap::len).sum();
    }

    /// Those of the listener with this cookie since then.
    #[must_use]
    pub fn since(&self, listener: u64, since: u64) -> Count {
        let Some(clients) = self.of.get(&listener) else { return Count::default() };
        let met = || clients.iter().filter(|(_, last)| **last >= since).map(|(client, _)| client);
        let hosts: BTreeSet<_> = met().map(|(addr, _)| addr).collect();
        Count {
            clients: met().count() as u64,
            hosts: hosts.len() as u64,
            at_least: self.full.is_some_and(|full| full >= since),
        }
    }
}
