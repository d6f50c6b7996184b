//! Both queues of each listener over the last intervals, and its SYN rate of old.

use std::{collections::BTreeMap, ops::AddAssign};

use super::{
    bursts::Bursts,
    flow::{Flow, Flows},
    window::Window,
};
use crate::model::{Connection, Depth, Dropped, LimitedBy, Listening, NetnsCounters, Subject};
use tcptrace_common::queue::drop;

const SECOND: u64 = 1_000_000_000;
/// Seconds of intervals that are kept.
const KEPT: u64 = 16;
/// A listener that is not told of any more is gone.
const GONE_NS: u64 = 30 * SECOND;
/// Listeners that are told apart.
const LISTENERS: usize = 10_000;

/// Counts of intervals. A count is None where no interval has it: one that is concluded is there only when it grew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Microseconds of the intervals.
    pub us: u64,
    /// Connections put into the accept queue.
    pub completed: Option<u64>,
    /// Taken from it.
    pub accepted: Option<u64>,
    /// Cookies sent.
    pub cookies_sent: Option<u64>,
    /// By reason, in the order of [`drop`].
    pub dropped: Dropped,
    /// SYN-ACKs sent again.
    pub synack_retrans: Option<u64>,
    /// Growth of `sk_drops` while the accept queue was full, where nothing tells the reason: SYNs, most likely.
    pub unnamed_drops: u64,
    /// Records of single requests that were not made for their rate.
    pub held_back: u64,
    /// Connections that waited for accept(), most in an interval.
    pub accept_peak: Option<u32>,
    /// Distinct sources, most in an interval.
    pub sources: Option<u64>,
    /// The longest wait for accept(), microseconds.
    pub wait_max: Option<u64>,
    /// The slowest hundredth of waits, most in an interval, microseconds.
    pub wait_p99: Option<u64>,
}

impl Sums {
    fn of(l: &Listening) -> Self {
        Self {
            us: l.interval_us,
            completed: l.completed,
            accepted: l.accepted,
            cookies_sent: l.cookies_sent,
            dropped: l.dropped,
            synack_retrans: l.synack_retrans,
            unnamed_drops: unnamed_drops(l),
            held_back: l.held_back,
            accept_peak: l.accept_queue.peak,
            sources: l.sources,
            wait_max: l.waits.map(|w| w.max),
            wait_p99: l.waits.map(|w| w.p99),
        }
    }

    /// How many of `n` a second.
    #[must_use]
    pub fn per_second(&self, n: u64) -> f64 {
        if self.us == 0 { 0.0 } else { n as f64 * 1e6 / self.us as f64 }
    }

    /// Drops for this reason, 0 where no hook tells.
    #[must_use]
    pub fn dropped(&self, reason: usize) -> u64 {
        self.dropped[reason].unwrap_or(0)
    }

    /// SYNs and final ACKs that met a full accept queue.
    #[must_use]
    pub fn overflows(&self) -> [u64; 2] {
        [drop::ACCEPT_QUEUE_FULL_SYN, drop::ACCEPT_QUEUE_FULL_ACK].map(|reason| self.dropped(reason))
    }

    /// The same together with what most likely was one.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        self.overflows().iter().sum::<u64>() + self.unnamed_drops
    }
}

/// A final ACK that meets a full accept queue raises `sk_drops` twice.
fn unnamed_drops(l: &Listening) -> u64 {
    let named = l.dropped[drop::ACCEPT_QUEUE_FULL_SYN].is_some() || !l.accept_queue.was_full();
    let at_ack = 2 * l.dropped[drop::ACCEPT_QUEUE_FULL_ACK].unwrap_or(0);
    if named { 0 } else { l.sk_drops.unwrap_or(0).saturating_sub(at_ack) }
}

impl AddAssign<&Self> for Sums {
    fn add_assign(&mut self, other: &Self) {
        if other.us == 0 {
            return;
        }
        let add = |a: &mut Option<u64>, b: Option<u64>| {
            if let Some(b) = b {
                *a = Some(a.unwrap_or(0) + b);
            }
        };
        self.us += other.us;
        add(&mut self.completed, other.completed);
        add(&mut self.accepted, other.accepted);
        add(&mut self.cookies_sent, other.cookies_sent);
        self.dropped.iter_mut().zip(other.dropped).for_each(|(a, b)| add(a, b));
        add(&mut self.synack_retrans, other.synack_retrans);
        self.unnamed_drops += other.unnamed_drops;
        self.held_back += other.held_back;
        self.accept_peak = self.accept_peak.max(other.accept_peak);
        self.sources = self.sources.max(other.sources);
        self.wait_max = self.wait_max.max(other.wait_max);
        self.wait_p99 = self.wait_p99.max(other.wait_p99);
    }
}

/// A listener.
#[derive(Debug)]
pub struct Listener {
    /// Its ends and its owner.
    pub subject: Subject,
    /// Its cookie, 0 where not known.
    pub cookie: u64,
    /// It listened before the trace began.
    pub preexisting: bool,
    /// SO_REUSEPORT group.
    pub group: Option<u64>,
    /// When it was first told of.
    pub since: u64,
    /// The end of its latest interval.
    pub latest: u64,
    /// The SYN queue then.
    pub syn_queue: Depth,
    /// The accept queue then.
    pub accept_queue: Depth,
    /// listen()'s argument.
    pub backlog: Option<u32>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u32>,
    /// Which of them set the limit.
    pub limited_by: Option<LimitedBy>,
    /// TCP_DEFER_ACCEPT, SYN-ACK timeouts.
    pub defer_accept: Option<u32>,
    /// Every event of it passes a hook.
    pub exact: bool,
    /// Connections put into the accept queue since it was first told of.
    pub completed: u64,
    /// Taken from it since then; None where no hook tells.
    pub accepted: Option<u64>,
    /// When something was last taken from it.
    pub last_accept: Option<u64>,
    /// Since when the accept queue has not been empty at an interval's end.
    pub waiting_since: Option<u64>,
    /// Its latest seconds.
    pub recent: Window<Sums>,
    /// Its latest intervals, and its past.
    pub flows: Flows,
    /// When its accept queue was full.
    pub bursts: Bursts,
}

impl Listener {
    fn new(c: &Connection, l: &Listening) -> Self {
        Self {
            subject: Subject::listener(c),
            cookie: c.cookie,
            preexisting: c.preexisting,
            group: l.group,
            since: l.ts,
            latest: l.ts,
            syn_queue: l.syn_queue,
            accept_queue: l.accept_queue,
            backlog: None,
            somaxconn: None,
            limited_by: None,
            defer_accept: None,
            exact: l.exact,
            completed: 0,
            accepted: Some(0),
            last_accept: None,
            waiting_since: None,
            recent: Window::new(SECOND, KEPT),
            flows: Flows::default(),
            bursts: Bursts::default(),
        }
    }

    /// What it came to in the last seconds before `now`.
    #[must_use]
    pub fn last(&self, now: u64, seconds: u64) -> Sums {
        self.recent.sum(now, seconds * SECOND)
    }

    fn interval(&mut self, c: &Connection, l: &Listening, counters: Option<&NetnsCounters>) {
        self.subject = Subject::listener(c);
        (self.group, self.latest, self.exact) = (l.group, l.ts, l.exact);
        (self.syn_queue, self.accept_queue) = (l.syn_queue, l.accept_queue);
        (self.backlog, self.somaxconn) = (l.backlog.or(self.backlog), l.somaxconn.or(self.somaxconn));
        (self.limited_by, self.defer_accept) = (l.limited_by.or(self.limited_by), l.defer_accept);
        self.completed += l.completed.unwrap_or(0);
        self.accepted = self.accepted.zip(l.accepted).map(|(sum, n)| sum + n);
        if l.accepted.is_some_and(|n| n > 0) {
            self.last_accept = Some(l.ts);
        }
        match l.accept_queue.len {
            Some(1..) => _ = self.waiting_since.get_or_insert(l.ts),
            Some(0) | None => self.waiting_since = None,
        }
        let sums = Sums::of(l);
        self.flows.push(Flow::of(l, counters));
        self.bursts.interval(l, sums.turned_away());
        *self.recent.at(l.ts) += &sums;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Listeners {
    of: BTreeMap<u64, Listener>,
    /// By network namespace: the kernel's counters over the latest interval.
    counters: BTreeMap<u32, NetnsCounters>,
}

impl Listeners {
    /// Counters come before the listeners of the same interval.
    pub(super) fn netns(&mut self, n: &NetnsCounters) {
        if self.counters.len() < LISTENERS || self.counters.contains_key(&n.netns) {
            self.counters.insert(n.netns, n.clone());
        }
    }

    pub(super) fn interval(&mut self, c: &Connection, l: &Listening) {
        if self.of.len() < LISTENERS || self.of.contains_key(&c.id) {
            let counters = self.counters.get(&c.tuple.netns).filter(|n| n.ts == l.ts);
            self.of.entry(c.id).or_insert_with(|| Listener::new(c, l)).interval(c, l, counters);
        }
    }

    pub(super) fn advance(&mut self, now: u64) {
        self.of.retain(|_, listener| listener.latest.saturating_add(GONE_NS) >= now);
        self.counters.retain(|_, counters| counters.ts.saturating_add(GONE_NS) >= now);
    }

    /// All of them, in the order in which they were first seen.
    pub fn iter(&self) -> impl Iterator<Item = &Listener> {
        self.of.values()
    }
}
