//! Network namespaces: their settings, how many sockets they have, and what the kernel counted of late.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::AddAssign,
    sync::Arc,
};

use super::window::Window;
use crate::model::{ClosedBy, Connection, Final, NetnsCounters, Orphans, Process, Role, State, address};

const SECOND: u64 = 1_000_000_000;
/// Seconds of counters that are kept.
const KEPT: u64 = 16;
/// How many timewait sockets there were is remembered for so long.
const MINUTE: u64 = 60 * SECOND;
/// Who closes is remembered in so many slots.
const SLOT: u64 = 10 * SECOND;
const SLOTS: u64 = 6;
/// Namespaces, and in each those that close and the peers that do not.
const NAMESPACES: usize = 1024;
const CLOSERS: usize = 1024;

/// Growth of counters, by name.
#[derive(Clone, Debug, Default)]
pub struct Counted(BTreeMap<String, u64>);

impl Counted {
    /// 0 where the kernel has no such counter.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

impl AddAssign<&Self> for Counted {
    fn add_assign(&mut self, other: &Self) {
        for (name, n) in &other.0 {
            *self.0.entry(name.clone()).or_default() += n;
        }
    }
}

/// Who closed connections first, or left them to the kernel.
#[derive(Debug)]
pub struct Closer {
    /// The process.
    pub owner: Option<Arc<Process>>,
    /// This end's side.
    pub role: Option<Role>,
    /// The service's port: of a server this end's, of a client the peer's; None where the side is not known.
    pub port: Option<u16>,
    /// Connections of the last minute.
    pub recent: Window<u64>,
}

impl Closer {
    fn new(c: &Connection) -> Self {
        let port = match c.role {
            Some(Role::Client) => Some(c.tuple.rport),
            Some(Role::Server | Role::Listener) => Some(c.tuple.lport),
            None => None,
        };
        Self { owner: c.owner.clone(), role: c.role, port, recent: Window::new(SLOT, SLOTS) }
    }

    /// Connections of the last minute.
    #[must_use]
    pub fn last_minute(&self, now: u64) -> u64 {
        self.recent.sum(now, SLOT * SLOTS)
    }
}

/// Process, side, port.
type CloserKey = (u32, Option<Role>, u16);

/// A namespace.
#[derive(Debug)]
pub struct Namespace {
    /// Inode number.
    pub netns: u32,
    /// Settings by name, below `net.ipv4`, as far as they were read.
    pub settings: BTreeMap<String, String>,
    /// How many sockets there were last, by name as in `/proc/net/sockstat`.
    pub gauges: BTreeMap<String, u64>,
    counted: Window<Counted>,
    /// (when, timewait sockets), oldest first, about one a second.
    time_waits: VecDeque<(u64, u64)>,
    /// Whose connections became timewait sockets.
    time_waiters: BTreeMap<CloserKey, Closer>,
    /// Whose connections were left to the kernel in FIN_WAIT2, by the peer as well.
    leavers: BTreeMap<(std::net::IpAddr, CloserKey), Closer>,
    /// Sockets in FIN_WAIT2 without a process; None: nobody counts them.
    pub orphans: Option<Orphans>,
    latest: u64,
}

impl Namespace {
    fn new(netns: u32) -> Self {
        Self {
            netns,
            settings: BTreeMap::new(),
            gauges: BTreeMap::new(),
            counted: Window::new(SECOND, KEPT),
            time_waits: VecDeque::new(),
            time_waiters: BTreeMap::new(),
            leavers: BTreeMap::new(),
            orphans: None,
            latest: 0,
        }
    }

    /// A setting that is one number.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<u64> {
        self.settings.get(name)?.parse().ok()
    }

    /// Growth of the kernel's counters in the last seconds before `now`.
    #[must_use]
    pub fn last(&self, now: u64, seconds: u64) -> Counted {
        self.counted.sum(now, seconds * SECOND)
    }

    /// How many more timewait sockets there are each second, over the last minute; None: not known yet.
    #[must_use]
    pub fn time_wait_growth(&self) -> Option<f64> {
        let ((first, before), (last, now)) = (self.time_waits.front()?, self.time_waits.back()?);
        (last > first).then(|| (*now as f64 - *before as f64) * 1e9 / (last - first) as f64)
    }

    /// Whose connections became timewait sockets in the last minute: the most first.
    #[must_use]
    pub fn time_waiters(&self, now: u64) -> Vec<&Closer> {
        most(self.time_waiters.values(), now)
    }

    /// Whose connections with this peer were left to the kernel in the last minute: the most first.
    #[must_use]
    pub fn leavers(&self, peer: std::net::IpAddr, now: u64) -> Vec<&Closer> {
        most(self.leavers.iter().filter(|((addr, _), _)| *addr == peer).map(|(_, closer)| closer), now)
    }
}

fn most<'a>(closers: impl Iterator<Item = &'a Closer>, now: u64) -> Vec<&'a Closer> {
    let mut all: Vec<_> = closers.map(|closer| (closer.last_minute(now), closer)).filter(|(n, _)| *n > 0).collect();
    all.sort_by_key(|(n, closer)| (std::cmp::Reverse(*n), closer.owner.as_ref().map(|o| o.pid), closer.port));
    all.into_iter().map(|(_, closer)| closer).collect()
}

/// See the module.
#[derive(Debug, Default)]
pub struct Namespaces(BTreeMap<u32, Namespace>);

impl Namespaces {
    fn entry(&mut self, netns: u32, ts: u64) -> Option<&mut Namespace> {
        if self.0.len() >= NAMESPACES && !self.0.contains_key(&netns) {
            let oldest = self.0.values().min_by_key(|n| n.latest).map(|n| n.netns)?;
            self.0.remove(&oldest);
        }
        let namespace = self.0.entry(netns).or_insert_with(|| Namespace::new(netns));
        namespace.latest = namespace.latest.max(ts);
        Some(namespace)
    }

    pub(super) fn counters(&mut self, n: &NetnsCounters) {
        let Some(namespace) = self.entry(n.netns, n.ts) else { return };
        namespace.settings.extend(n.settings.iter().cloned());
        namespace.gauges.extend(n.gauges.iter().cloned());
        let grown = n.counters.iter().filter(|(_, n)| *n > 0).cloned().collect();
        *namespace.counted.at(n.ts) += &Counted(grown);
        let Some((_, tw)) = n.gauges.iter().find(|(name, _)| name == "tw") else { return };
        let waits = &mut namespace.time_waits;
        if waits.back().is_none_or(|(ts, _)| ts + SECOND / 2 < n.ts) {
            waits.push_back((n.ts, *tw));
        }
        while waits.front().is_some_and(|(ts, _)| ts + MINUTE < n.ts) {
            waits.pop_front();
        }
    }

    pub(super) fn orphans(&mut self, o: &Orphans) {
        if let Some(namespace) = self.entry(o.netns, o.ts) {
            namespace.orphans = Some(o.clone());
        }
    }

    /// A connection is over: who closed it?
    pub(super) fn connection(&mut self, c: &Connection, f: &Final) {
        let last = c.states.last().map(|entry| entry.state);
        if !matches!(last, Some(State::TimeWait | State::FinWait2)) || f.closed_by == Some(ClosedBy::Remote) {
            return;
        }
        let Some(namespace) = self.entry(c.tuple.netns, f.ts) else { return };
        let closer = Closer::new(c);
        let key = (closer.owner.as_ref().map_or(0, |o| o.pid), closer.role, closer.port.unwrap_or(0));
        let peer = address(c.tuple.family, &c.tuple.raddr);
        let entry = match last {
            Some(State::TimeWait)
                if namespace.time_waiters.len() < CLOSERS || namespace.time_waiters.contains_key(&key) =>
            {
                namespace.time_waiters.entry(key).or_insert(closer)
            }
            Some(State::FinWait2)
                if namespace.leavers.len() < CLOSERS || namespace.leavers.contains_key(&(peer, key)) =>
            {
                namespace.leavers.entry((peer, key)).or_insert(closer)
            }
            _ => return,
        };
        *entry.recent.at(f.ts) += &1;
    }

    pub(super) fn advance(&mut self, now: u64) {
        for namespace in self.0.values_mut() {
            namespace.counted.forget(now);
            namespace.time_waiters.retain(|_, closer| closer.recent.lives(now));
            namespace.leavers.retain(|_, closer| closer.recent.lives(now));
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.0.values()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, netns: u32) -> Option<&Namespace> {
        self.0.get(&netns)
    }
}
