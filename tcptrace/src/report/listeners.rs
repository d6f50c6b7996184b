//! Both queues of each listener over all intervals, and the connections that came through it.
//!
//! A listener is known by where it listens: sockets of a SO_REUSEPORT group, and those of a server that was started again, are one.
//! Connections are counted by their local end until the listener that they belong to is asked for: it may be told after them.

use std::{collections::HashMap, net::IpAddr};

use tcptrace_common::{queue::drop, record::Tuple};

use super::{Merge, Owner, Series, Tally};
use crate::{
    group::Spread,
    model::{Connection, DROPPED, Depth, Final, LimitedBy, Listening, Outcome, Request, Waits, address},
};

/// Listeners that are told apart, and ends of connections.
const ROOM: usize = 4096;
/// Slots of the depths over time.
const SLOTS: usize = 256;
/// Sockets of a listener that are told apart.
const SOCKETS: usize = 1024;

/// Where something listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Network namespace.
    pub netns: u32,
    /// None: every address.
    pub addr: Option<IpAddr>,
    /// Port.
    pub port: u16,
}

impl Place {
    fn of(t: &Tuple) -> Self {
        let addr = (t.laddr != [0; 16]).then(|| address(t.family, &t.laddr));
        Self { netns: t.netns, addr, port: t.lport }
    }
}

/// The most that there was in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// Entries; None: not known.
    pub most: Option<u32>,
    /// The queue's limit at that time: full when there are more than that.
    pub limit: Option<u32>,
}

impl Peak {
    fn add(&mut self, depth: &Depth) {
        // Of several sockets the one that came closest to its limit counts: compared crosswise, without fractions.
        let (most, limit) = (u64::from(self.most.unwrap_or(0)), u64::from(self.limit.unwrap_or(0)) + 1);
        let (now, its_limit) = (u64::from(depth.peak.unwrap_or(0)), u64::from(depth.limit.unwrap_or(0)) + 1);
        if self.most.is_none() || now * limit > most * its_limit {
            (self.most, self.limit) = (depth.peak, depth.limit);
        }
    }

    /// Was it ever full?
    #[must_use]
    pub fn was_full(&self) -> bool {
        self.most.zip(self.limit).is_some_and(|(most, limit)| most > limit)
    }
}

/// The most entries of both queues in a slot of time, of all sockets of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// SYN queue; None: not read in it.
    pub syn: Option<u32>,
    /// Accept queue.
    pub accept: Option<u32>,
    /// Limit of both.
    pub limit: Option<u32>,
}

impl Merge for Depths {
    fn merge(&mut self, other: &Self) {
        self.syn = self.syn.max(other.syn);
        self.accept = self.accept.max(other.accept);
        self.limit = self.limit.max(other.limit);
    }
}

/// What is known of a listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its process, the first that was seen.
    pub owner: Option<Owner>,
    /// Connections that came through it.
    pub tally: Tally,
    /// Their times between the accept queue and accept().
    pub accept_wait: Spread,
    /// Requests and SYNs that came to nothing, told singly, by [`Outcome`].
    pub failed: [u64; 10],
    /// Intervals at whose end it was read; what follows is known only of these.
    pub intervals: u64,
    /// Sockets, up to 1,024.
    pub sockets: Vec<u64>,
    /// Every event of it passed a hook.
    pub exact: bool,
    /// SYN queue.
    pub syn_queue: Peak,
    /// Accept queue.
    pub accept_queue: Peak,
    /// listen()'s argument.
    pub backlog: Option<u32>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u32>,
    /// Which of them set the limit.
    pub limited_by: Option<LimitedBy>,
    /// SYNs that reached it.
    pub syns: Option<u64>,
    /// Connections put into the accept queue.
    pub completed: Option<u64>,
    /// Taken from it.
    pub accepted: Option<u64>,
    /// Cookies sent.
    pub cookies_sent: Option<u64>,
    /// Connections made by a returned cookie.
    pub cookies_ok: Option<u64>,
    /// SYNs, requests and final ACKs that came to nothing.
    pub dropped: [Option<u64>; drop::COUNT],
    /// The longest time in the accept queue, microseconds, exact.
    pub longest_wait: Option<u64>,
    /// The most distinct sources in an interval, estimated.
    pub sources: Option<u64>,
    /// Both depths over time.
    pub depths: Series<Depths>,
    /// Names of fields that were concluded in some interval.
    pub inferred: Vec<&'static str>,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            owner: None,
            tally: Tally::default(),
            accept_wait: Spread::default(),
            failed: [0; 10],
            intervals: 0,
            sockets: Vec::new(),
            exact: true,
            syn_queue: Peak::default(),
            accept_queue: Peak::default(),
            backlog: None,
            somaxconn: None,
            limited_by: None,
            syns: None,
            completed: None,
            accepted: None,
            cookies_sent: None,
            cookies_ok: None,
            dropped: [None; drop::COUNT],
            longest_wait: None,
            sources: None,
            depths: Series::new(100_000_000, SLOTS),
            inferred: Vec::new(),
        }
    }
}

/// A count that some intervals have.
fn sum(to: &mut Option<u64>, n: Option<u64>) {
    if let Some(n) = n {
        *to = Some(to.unwrap_or(0) + n);
    }
}

impl Listener {
    fn interval(&mut self, at: u64, c: &Connection, l: &Listening) {
        self.intervals += 1;
        if self.owner.is_none() {
            self.owner.clone_from(&c.owner);
        }
        if let Err(place) = self.sockets.binary_search(&c.id)
            && self.sockets.len() < SOCKETS
        {
            self.sockets.insert(place, c.id);
        }
        self.exact &= l.exact;
        self.syn_queue.add(&l.syn_queue);
        self.accept_queue.add(&l.accept_queue);
        self.backlog = l.backlog.or(self.backlog);
        self.somaxconn = l.somaxconn.or(self.somaxconn);
        self.limited_by = l.limited_by.or(self.limited_by);
        for (to, n) in [
            (&mut self.syns, l.syns),
            (&mut self.completed, l.completed),
            (&mut self.accepted, l.accepted),
            (&mut self.cookies_sent, l.cookies_sent),
            (&mut self.cookies_ok, l.cookies_ok),
        ] {
            sum(to, n);
        }
        self.dropped.iter_mut().zip(l.dropped).for_each(|(to, n)| sum(to, n));
        self.longest_wait = self.longest_wait.max(l.waits.map(|Waits { max, .. }| max));
        self.sources = self.sources.max(l.sources);
        for name in &l.inferred {
            if !self.inferred.contains(name) {
                self.inferred.push(name);
            }
        }
        let depths = Depths { syn: l.syn_queue.peak, accept: l.accept_queue.peak, limit: l.accept_queue.limit };
        self.depths.at(at).merge(&depths);
    }

    /// Drops of one reason, by [`drop`]: exact totals where intervals have them, else what was told singly.
    #[must_use]
    pub fn dropped(&self, reason: usize) -> u64 {
        let outcome = match reason {
            drop::SYN_QUEUE_FULL => Outcome::SynQueueFull,
            drop::ACCEPT_QUEUE_FULL_SYN => Outcome::AcceptQueueFullSyn,
            drop::ACCEPT_QUEUE_FULL_ACK => Outcome::AcceptQueueFullAck,
            drop::RST => Outcome::Rst,
            drop::SYNACK_TIMEOUT => Outcome::SynAckTimeout,
            _ => Outcome::Other,
        };
        let singly = if reason == drop::LISTENER_CLOSED { 0 } else { self.failed[outcome as usize] };
        self.dropped.get(reason).copied().flatten().unwrap_or(singly)
    }

    /// All drops.
    #[must_use]
    pub fn all_dropped(&self) -> u64 {
        (0..DROPPED.len()).map(|reason| self.dropped(reason)).sum()
    }

    /// Is the count of this reason concluded?
    #[must_use]
    pub fn is_inferred(&self, field: &str) -> bool {
        self.inferred.contains(&field)
    }

    /// The longest time in its accept queue, microseconds.
    #[must_use]
    pub fn longest(&self) -> Option<u64> {
        self.accept_wait.most().max(self.longest_wait)
    }
}

/// What came through an end of connections, or was asked of it.
#[derive(Debug, Default)]
struct Served {
    /// Of the first connection.
    first: Option<Owner>,
    tally: Tally,
    accept_wait: Spread,
    failed: [u64; 10],
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    read: HashMap<Place, Listener>,
    served: HashMap<Place, Served>,
    other: u64,
}

impl Listeners {
    fn served(&mut self, place: Place) -> Option<&mut Served> {
        if self.served.len() >= ROOM && !self.served.contains_key(&place) {
            return None;
        }
        Some(self.served.entry(place).or_default())
    }

    pub fn connection(&mut self, c: &Connection, f: &Final) {
        let Some(served) = self.served(Place::of(&c.tuple)) else {
            self.other += 1;
            return;
        };
        served.tally.add(c, f);
        if let Some(ns) = f.accept_wait_ns {
            served.accept_wait.add(ns / 1000);
        }
        if served.first.is_none() {
            served.first.clone_from(&c.owner);
        }
    }

    /// A request that came to nothing.
    pub fn request(&mut self, r: &Request) {
        if let Some(outcome) = r.outcome
            && let Some(served) = self.served(Place::of(&r.tuple))
        {
            served.failed[outcome as usize] += 1;
            if served.first.is_none() {
                served.first.clone_from(&r.owner);
            }
        }
    }

    pub fn interval(&mut self, at: u64, c: &Connection, l: &Listening) {
        let place = Place::of(&c.tuple);
        if self.read.len() >= ROOM && !self.read.contains_key(&place) {
            return;
        }
        self.read.entry(place).or_default().interval(at, c, l);
    }

    pub fn were_read(&self) -> bool {
        !self.read.is_empty()
    }

    pub fn other(&self) -> u64 {
        self.other
    }

    /// The busiest first: by connections and drops.
    pub fn busiest(&self) -> Vec<(Place, Listener)> {
        let mut all = self.read.clone();
        for (place, served) in &self.served {
            let anywhere = Place { addr: None, ..*place };
            // Where nothing was read at an interval's end, the connections tell where something listens.
            let place = if !all.contains_key(place) && self.read.contains_key(&anywhere) { anywhere } else { *place };
            let to = all.entry(place).or_default();
            to.tally.merge(&served.tally);
            to.accept_wait.merge(&served.accept_wait);
            to.failed.iter_mut().zip(served.failed).for_each(|(n, more)| *n += more);
            if to.owner.is_none() {
                to.owner.clone_from(&served.first);
            }
        }
        let mut all: Vec<_> = all.into_iter().collect();
        let busy = |l: &Listener| (l.tally.group.count.max(l.completed.unwrap_or(0)) + l.all_dropped(), l.intervals);
        all.sort_unstable_by(|(a, left), (b, right)| busy(right).cmp(&busy(left)).then_with(|| a.cmp(b)));
        all
    }
}
