//! Connections by peer and by process, as many of each as there is room for.

use std::{collections::HashMap, hash::Hash, net::IpAddr};

use super::Owner;
use crate::{
    group::Group,
    model::{Connection, Container, End, Final, Role, State, address},
};

/// Values by key; what would need one more than there is room for goes into one of its own.
#[derive(Debug)]
pub struct Table<K, V> {
    known: HashMap<K, V>,
    /// Of keys that there was no room for.
    pub other: V,
    room: usize,
}

impl<K: Eq + Hash + Ord, V: Default> Table<K, V> {
    pub(super) fn new(room: usize) -> Self {
        Self { known: HashMap::new(), other: V::default(), room }
    }

    /// The value of a key.
    pub fn entry(&mut self, key: K) -> &mut V {
        if self.known.len() >= self.room && !self.known.contains_key(&key) {
            return &mut self.other;
        }
        self.known.entry(key).or_default()
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// No key was ever asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Every key with its value, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.known.iter()
    }

    /// Those with the most of something first; of equals, by their keys.
    pub fn busiest(&self, how_much: impl Fn(&V) -> u64) -> Vec<(&K, &V)> {
        let mut all: Vec<_> = self.known.iter().collect();
        all.sort_unstable_by(|a, b| how_much(b.1).cmp(&how_much(a.1)).then_with(|| a.0.cmp(b.0)));
        all
    }
}

/// Connections that have something in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many, how they ended, how long they took.
    pub group: Group,
    /// Segments sent.
    pub segs_out: u64,
    /// Segments sent again.
    pub retrans: u64,
}

impl Tally {
    pub(super) fn add(&mut self, c: &Connection, f: &Final) {
        self.group.add(c, f);
        if let Some(n) = &f.counters {
            self.segs_out += u64::from(n.segs_out);
            self.retrans += u64::from(n.retrans);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.group.merge(&other.group);
        self.segs_out += other.segs_out;
        self.retrans += other.retrans;
    }

    /// Refused, reset, timed out or given up.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.group.ends().filter(|(end, _)| end.is_some_and(End::is_failure)).map(|(_, n)| n).sum()
    }

    /// Ended by a RST, this end's or the peer's.
    #[must_use]
    pub fn reset(&self) -> u64 {
        self.group.ended(End::RstSent) + self.group.ended(End::RstReceived)
    }

    /// Of them, those that are over.
    #[must_use]
    pub fn over(&self) -> u64 {
        self.group.count - self.group.ended(End::Open)
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// Its address, never v4-mapped.
    pub addr: IpAddr,
    /// The port that it was asked at; None where it was the one that asked, or which it was is not known.
    pub port: Option<u16>,
    /// It connected.
    pub asks: bool,
}

impl Peer {
    /// None: the connection has no remote address.
    pub(super) fn of(c: &Connection) -> Option<Self> {
        let t = &c.tuple;
        let addr = (t.raddr != [0; 16]).then(|| address(t.family, &t.raddr))?;
        let port = (c.role == Some(Role::Client)).then_some(t.rport);
        Some(Self { addr, port, asks: c.role == Some(Role::Server) })
    }
}

impl Peer {
    /// The side of this end; None: not known.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match (self.port, self.asks) {
            (Some(_), _) => Some(Role::Client),
            (None, true) => Some(Role::Server),
            (None, false) => None,
        }
    }
}

/// Connections that stay in a state at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stuck {
    /// How many.
    pub count: u64,
    /// The longest that one of them has been in it, as far as that was seen, nanoseconds.
    pub oldest: u64,
}

impl Stuck {
    fn add(&mut self, ns: u64) {
        self.count += 1;
        self.oldest = self.oldest.max(ns);
    }
}

/// Connections of processes of one name.
#[derive(Clone, Debug, Default)]
pub struct ProcessTally {
    /// All of them.
    pub all: Tally,
    /// Of them, those that it asked for.
    pub clients: u64,
    /// Of them, those that it was asked for.
    pub servers: u64,
    /// The first process of that name.
    pub owner: Option<Owner>,
    /// Numbers of such processes, up to [`ProcessTally::PIDS`].
    pub pids: Vec<u32>,
    /// Containers that such processes are in, up to [`ProcessTally::PLACES`]: their names, or their ids.
    pub containers: Vec<Box<str>>,
    /// Likewise their systemd units.
    pub units: Vec<Box<str>>,
    /// Open in CLOSE_WAIT at the end, for [`ProcessTally::LONG`] at least.
    pub close_wait: Stuck,
    /// Open in FIN_WAIT2 at the end, likewise.
    pub fin_wait2: Stuck,
}

impl ProcessTally {
    /// More processes than these are not told apart.
    pub const PIDS: usize = 100;
    /// More containers than these are not kept, nor more units.
    pub const PLACES: usize = 10;
    /// What is in a closing state for so long is told, nanoseconds.
    pub const LONG: u64 = 60_000_000_000;

    pub(super) fn add(&mut self, owner: &Owner, c: &Connection, f: &Final) {
        self.all.add(c, f);
        match c.role {
            Some(Role::Client) => self.clients += 1,
            Some(Role::Server) => self.servers += 1,
            Some(Role::Listener) | None => {}
        }
        if self.owner.is_none() {
            self.owner = Some(owner.clone());
        }
        if let Err(at) = self.pids.binary_search(&owner.pid)
            && self.pids.len() < Self::PIDS
        {
            self.pids.insert(at, owner.pid);
        }
        if let Some(cgroup) = &owner.cgroup {
            let container = cgroup.container.as_ref();
            note(&mut self.containers, container.map(Container::label));
            // The scope of a container is named by its id and says no more.
            let is_its_scope = |unit: &&str| container.is_some_and(|c| unit.contains(&*c.id));
            note(&mut self.units, cgroup.unit.as_deref().filter(|unit| !is_its_scope(unit)));
        }
        if f.end == Some(End::Open)
            && let Some(last) = c.states.last()
        {
            // Where the entry was not seen it was earlier: it is at least this long.
            let ns = f.ts.saturating_sub(c.start_ns.saturating_add(last.at));
            match c.state {
                State::CloseWait if ns >= Self::LONG => self.close_wait.add(ns),
                State::FinWait2 if ns >= Self::LONG => self.fin_wait2.add(ns),
                _ => {}
            }
        }
    }
}

/// Keep a name in its place, if there is room.
fn note(names: &mut Vec<Box<str>>, name: Option<&str>) {
    if let Some(name) = name
        && let Err(at) = names.binary_search_by(|known| (**known).cmp(name))
        && names.len() < ProcessTally::PLACES
    {
        names.insert(at, name.into());
    }
}
