//! Parties, as many as there is room for: those that were heard of longest ago make room.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use super::party::{KEPT_NS, Party, Side};
use crate::model::{Connection, address};

/// Parties on each side.
const PARTIES: usize = 2048;

/// What makes two connections those of one party: network namespace, address of the peer (unspecified where this end serves), the port of
/// whoever serves, name of the process.
pub(super) type Key = (u32, IpAddr, u16, [u8; 16]);

pub(super) fn key(c: &Connection, side: Side) -> Key {
    let t = &c.tuple;
    let comm = c.owner.as_ref().map_or([0; 16], |owner| owner.comm);
    match side {
        Side::Asked => (t.netns, address(t.family, &t.raddr), t.rport, comm),
        Side::Served => (t.netns, Ipv4Addr::UNSPECIFIED.into(), t.lport, comm),
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    of: BTreeMap<Key, Party>,
    /// Number of the next one.
    next: u64,
}

impl Table {
    /// The party of a connection.
    pub fn get(&mut self, c: &Connection, side: Side, now: u64) -> &mut Party {
        let key = key(c, side);
        if self.of.len() >= PARTIES && !self.of.contains_key(&key) {
            self.make_room();
        }
        let next = &mut self.next;
        self.of.entry(key).or_insert_with(|| {
            *next += 1;
            Party::new(*next, key, c, side, now)
        })
    }

    pub fn has(&self, key: &Key) -> bool {
        self.of.contains_key(key)
    }

    /// Half of them go: one by one would cost a look at all of them each time.
    fn make_room(&mut self) {
        let mut heard: Vec<_> = self.of.values().map(|party| party.heard).collect();
        let (_, &mut middle, _) = heard.select_nth_unstable(PARTIES / 2);
        self.of.retain(|_, party| party.heard > middle);
    }

    pub fn advance(&mut self, now: u64) {
        self.of.retain(|_, party| {
            party.forget(now);
            party.heard.saturating_add(KEPT_NS) >= now
        });
    }

    /// In the order in which they were first seen.
    pub fn iter(&self) -> impl Iterator<Item = &Party> {
        let mut all: Vec<_> = self.of.values().collect();
        all.sort_unstable_by_key(|party| party.number);
        all.into_iter()
    }
}
