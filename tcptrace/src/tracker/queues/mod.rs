//! Listeners' queues: rows of each interval → what happened in it.
//!
//! An interval is a run of rows (samples and totals of listeners, counters of namespaces) that ends with the INTERVAL fact. Totals
//! are cumulative: differences are taken here. A row of a listener that is not known any more tells of the last moments of one
//! that was closed, or of one whose begin was lost.

use std::collections::BTreeMap;

use tcptrace_common::queue::{ListenerSample, ListenerStats, ListenerTotals, Window, drop};

use super::{Tracker, lives::Ended, signals::Signals};
use crate::{
    frame::fact,
    model::{Connection, Depth, LimitedBy, Listening, NetnsCounters, Observer, Residual, Role, State},
};

mod audit;
mod estimate;

use audit::{Moment, Sums};

/// Not known, in records.
const UNKNOWN: u32 = u32::MAX;

/// See the module.
#[derive(Default)]
pub(super) struct Queues {
    listeners: BTreeMap<u64, Known>,
    namespaces: BTreeMap<u32, Namespace>,
    /// Served by some hook.
    served: Signals,
    /// Served by a hook that sees everything.
    exact: Signals,
    /// The kernel programs see only a part: nothing to be reconciled.
    filtered: bool,
    /// Intervals are told of, or will be.
    expected: bool,
    residual: Option<Vec<Residual>>,
}

/// What is known of a listener.
#[derive(Default)]
struct Known {
    /// Argument of listen() and `somaxconn` at that time.
    listen: Option<(u32, u32)>,
    /// This interval's rows.
    sample: Option<ListenerSample>,
    stats: Option<(ListenerTotals, Window)>,
    /// The last interval's sample.
    before: Option<ListenerSample>,
    /// Totals up to the last interval.
    told: Option<ListenerTotals>,
    /// Number of its group.
    group: Option<u64>,
    closed: Option<Closed>,
    /// `sk_drops`, and ours, when reconciling began.
    drops: Option<(u32, ListenerTotals)>,
}

/// A listener that was closed: as it was then.
struct Closed {
    connection: Box<Connection>,
    ts: u64,
    /// Told of already; only counts may follow: its half-open requests end one by one.
    told: bool,
}

#[derive(Default)]
struct Namespace {
    sums: Sums,
    /// This interval's.
    counters: Option<Reading>,
    /// What was read last before.
    before: Option<Reading>,
    /// Settings that were read and not told yet: the first reading is none of an interval.
    settings: Vec<(String, String)>,
    base: Option<Moment>,
    last: Option<Moment>,
    /// Intervals since its counters were last read: it has no listeners, or is gone.
    absent: u32,
    /// Overflows at the final ACK that hooks have told of and the counters, which are read a little earlier, did not have yet.
    ahead: u64,
}

/// What a namespace's counters were, and when.
type Reading = (u64, fact::Netns);

/// Namespaces without listeners that are remembered, for what they come to at the end.
const ABSENT: usize = 1024;

impl Known {
    /// It, if it was closed by `ts`.
    fn closed_by(&self, ts: u64) -> Option<&Closed> {
        self.closed.as_ref().filter(|closed| closed.ts <= ts)
    }

    fn closed_connection(&self) -> Option<&Connection> {
        self.closed.as_ref().map(|closed| &*closed.connection)
    }
}

impl Queues {
    pub fn start(&mut self, start: &fact::Start) {
        self.served = Signals::served(start);
        self.exact = Signals::exact(start);
        self.filtered = start.filters.iter().any(|(name, _)| name != "netns");
        self.expected = self.served.queues();
    }

    /// What is left of it when a run is over.
    pub fn after(before: &Self) -> Self {
        Self { residual: before.residual.clone(), ..Self::default() }
    }

    /// listen().
    pub fn listen(&mut self, cookie: u64, backlog: u32, somaxconn: u32) {
        self.listeners.entry(cookie).or_default().listen = Some((backlog, somaxconn));
    }

    /// A listener is gone; its last counts may follow.
    pub fn closed(&mut self, c: &Connection, ts: u64) {
        if self.expected {
            let closed = Closed { connection: Box::new(c.clone()), ts, told: false };
            self.listeners.entry(c.cookie).or_default().closed = Some(closed);
        } else {
            self.listeners.remove(&c.cookie);
        }
    }

    pub fn sample(&mut self, r: &ListenerSample) {
        self.listeners.entry(r.head.sock).or_default().sample = Some(*r);
    }

    pub fn stats(&mut self, r: &ListenerStats) {
        self.listeners.entry(r.head.sock).or_default().stats = Some((r.totals, r.window));
    }

    pub fn netns(&mut self, ts: u64, fact: &fact::Netns) {
        let namespace = self.namespaces.entry(fact.netns).or_default();
        if !fact.settings.is_empty() {
            namespace.settings.clone_from(&fact.settings);
        }
        namespace.counters = Some((ts, fact.clone()));
    }

    /// Kernel counters against ours between the first and the last moment of rest.
    pub fn residual(&self) -> Option<&[Residual]> {
        self.residual.as_deref()
    }

    fn reconcile(&mut self, rest: bool) {
        let claims = self.exact.syn_outcome || self.exact.half_open || self.exact.cookies || self.exact.accept_queue;
        if self.filtered || !claims {
            return;
        }
        for namespace in self.namespaces.values_mut() {
            let Some((_, counters)) = &namespace.counters else { continue };
            let went_back = |b: &Moment| {
                counters.counters.iter().any(|(name, v)| b.counters.get(name).is_some_and(|before| v < before))
            };
            if namespace.base.as_ref().is_some_and(went_back) {
                // Another namespace with the number of one that is gone.
                namespace.base = None;
                namespace.last = None;
            }
            let now = Moment { counters: counters.counters.iter().cloned().collect(), sums: namespace.sums, rest };
            if namespace.base.as_ref().is_none_or(|base| !base.rest && rest) {
                namespace.base = Some(now.clone());
            }
            if rest {
                namespace.last = Some(now);
            }
        }
        if !rest {
            return;
        }
        let mut residual = Vec::new();
        for (&netns, namespace) in &self.namespaces {
            if let (Some(base), Some(now)) = (&namespace.base, &namespace.last) {
                audit::compare(netns, base, now, &self.exact, &mut residual);
            }
        }
        let claimed = self.exact.syn_outcome && self.exact.overflow && self.exact.segments_not_taken;
        for (&cookie, known) in &mut self.listeners {
            let (Some(sample), Some(told)) = (known.sample.filter(|_| claimed), known.told) else { continue };
            let (base, before) = *known.drops.get_or_insert((sample.drops, told));
            let kernel = u64::from(sample.drops.wrapping_sub(base));
            let ours = audit::listener_drops(&difference(&told, Some(&before)));
            if kernel != 0 || ours != 0 {
                let counter = "sk_drops".to_owned();
                residual.push(Residual { netns: sample.tuple.netns, counter, listener: Some(cookie), kernel, ours });
            }
        }
        self.residual = Some(residual);
    }
}

impl Tracker {
    /// Rows of a listener's sample: one that is not known gets a timeline, unless it is known to be over.
    pub(super) fn listener_sample(&mut self, r: &ListenerSample) {
        let cookie = r.head.sock;
        if cookie == 0 {
            self.stats.nonsense += 1;
            return;
        }
        match self.table.find(cookie).and_then(|slot| self.table.get(slot)) {
            Some(c) if c.role == Some(Role::Listener) => {}
            Some(_) => return,
            None if over(&self.queues, &self.ended, cookie, r.head.ts) => return,
            // It is over and was told of before the cut.
            None if self.was_told(r.head.ts) => return,
            None => {
                let slot = self.insert(&r.head, State::Listen, false);
                let starting = self.start.is_some() || self.cut.forgot(cookie);
                if let Some(c) = self.table.get_mut(slot) {
                    c.role = Some(Role::Listener);
                    c.tuple = r.tuple;
                    c.preexisting = starting;
                    c.notes.found = true;
                }
                self.listeners.add(&r.tuple, slot);
            }
        }
        self.queues.sample(r);
    }

    /// Everything of an interval has come.
    pub(super) fn interval(&mut self, ts: u64, fact: &fact::Interval, out: &mut impl Observer) {
        self.queues.expected = true;
        let deltas = self.count_up();
        self.queues.reconcile(fact.rest);
        if fact.interval_us == 0 {
            // How things were when the first interval began. Of a cut, by how much hooks were ahead is known only at rest.
            let unknown = if self.cut.at > 0 && !fact.rest { u64::MAX } else { 0 };
            self.queues.namespaces.values_mut().for_each(|namespace| namespace.ahead = unknown);
            return self.next_interval(ts);
        }
        self.groups();
        let mut reports: Vec<(u64, Listening)> = Vec::new();
        for (&cookie, known) in &self.queues.listeners {
            let gone = known.closed_by(ts);
            let delta = deltas.get(&cookie);
            let silent = match gone {
                Some(closed) => closed.told && delta.is_none_or(is_nothing),
                None => known.sample.is_none() && known.stats.is_none(),
            };
            if silent {
                continue;
            }
            let window = known.stats.map(|(_, window)| window);
            let listening = report(known, delta, window, &self.queues, fact, ts);
            reports.push((cookie, listening));
        }
        self.tell_namespaces(ts, fact, &mut reports, out);
        let mut order: Vec<(&Connection, &Listening)> = reports
            .iter()
            .filter_map(|(cookie, l)| {
                let known = self.queues.listeners.get(cookie)?;
                let live = self.table.find(*cookie).and_then(|slot| self.table.get(slot));
                Some((live.or(known.closed_connection())?, l))
            })
            .collect();
        order.sort_by_key(|(c, _)| (c.tuple.netns, c.tuple.lport, c.tuple.laddr, c.id));
        for (c, l) in order {
            out.listener(c, l);
        }
        out.interval(ts, fact.interval_us);
        self.next_interval(ts);
    }

    /// Differences of the totals, which go into the sums of their namespaces.
    fn count_up(&mut self) -> BTreeMap<u64, ListenerTotals> {
        let mut deltas = BTreeMap::new();
        let Queues { listeners, namespaces, .. } = &mut self.queues;
        for (&cookie, known) in listeners {
            let Some((totals, _)) = known.stats else { continue };
            // A smaller total is of another listener with the cookie of the first: not possible; or of a damaged recording.
            let delta = difference(&totals, known.told.as_ref());
            known.told = Some(totals);
            let live = self.table.find(cookie).and_then(|slot| self.table.get(slot));
            let netns =
                known.sample.map(|s| s.tuple.netns).or(live.or(known.closed_connection()).map(|c| c.tuple.netns));
            if let Some(netns) = netns {
                namespaces.entry(netns).or_default().sums.add(&delta);
            }
            deltas.insert(cookie, delta);
        }
        deltas
    }

    /// Number the SO_REUSEPORT groups: by the lowest timeline number that was ever in one.
    fn groups(&mut self) {
        let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
        for (&cookie, known) in &self.queues.listeners {
            let Some(sample) = known.sample.filter(|s| s.group != 0) else { continue };
            let Some(c) = self.table.find(cookie).and_then(|slot| self.table.get(slot)) else { continue };
            let number = known.group.unwrap_or(c.id).min(c.id);
            numbers.entry(sample.group).and_modify(|n| *n = number.min(*n)).or_insert(number);
        }
        for known in self.queues.listeners.values_mut() {
            if let Some(sample) = &known.sample {
                known.group = numbers.get(&sample.group).copied();
            }
        }
    }

    /// Counters of namespaces, and what of them only one listener can have caused.
    fn tell_namespaces(
        &mut self,
        ts: u64,
        fact: &fact::Interval,
        reports: &mut [(u64, Listening)],
        out: &mut impl Observer,
    ) {
        let Self { queues: Queues { listeners, namespaces, served, exact, .. }, table, .. } = self;
        for (&netns, namespace) in namespaces {
            let settings = std::mem::take(&mut namespace.settings);
            let Some((read, now)) = &namespace.counters else {
                if !settings.is_empty() {
                    out.netns(&NetnsCounters { ts, netns, settings, ..NetnsCounters::default() });
                }
                continue;
            };
            let before = namespace.before.as_ref();
            let all = before.map(|(_, before)| growth(before, now)).unwrap_or_default();
            // It has had no listener for a while: what happened then is none of theirs, and not of this interval.
            let counters = if namespace.absent == 0 { all.as_slice() } else { &[] };
            let mine = |cookie: u64| {
                let known = listeners.get(&cookie);
                let live = table.find(cookie).and_then(|slot| table.get(slot));
                live.or(known.and_then(|k| k.closed_connection())).is_some_and(|c| c.tuple.netns == netns)
            };
            let places: Vec<usize> = (0..reports.len()).filter(|&i| mine(reports[i].0)).collect();
            let at_ack = places.iter().filter_map(|&i| reports[i].1.dropped[drop::ACCEPT_QUEUE_FULL_ACK]);
            let told = at_ack.fold(namespace.ahead, u64::saturating_add);
            attribute(counters, &places, reports, (served, exact), told);
            // At rest both have the same.
            namespace.ahead = if fact.rest { 0 } else { told.saturating_sub(grown(counters, OVERFLOWS).unwrap_or(0)) };
            let listeners = places.iter().filter(|&&i| reports[i].1.syn_queue.len.is_some()).count() as u32;
            let interval_us = match before {
                Some((last, _)) if namespace.absent > 0 => read.saturating_sub(*last) / 1000,
                _ => fact.interval_us,
            };
            let gauges = now.gauges.clone();
            out.netns(&NetnsCounters { ts, interval_us, netns, listeners, counters: all, settings, gauges });
        }
    }

    fn next_interval(&mut self, ts: u64) {
        let Self { queues, table, .. } = self;
        queues.listeners.retain(|&cookie, known| {
            if let Some(sample) = known.sample.take() {
                known.before = Some(sample);
            }
            let counted = known.stats.take().is_some();
            match &mut known.closed {
                // What was read is older than its end.
                Some(closed) if closed.ts > ts => true,
                Some(closed) => {
                    closed.told = true;
                    counted
                }
                // Forgotten or never known: nothing more will be told of it.
                None => table.find(cookie).is_some(),
            }
        });
        for namespace in queues.namespaces.values_mut() {
            let now = namespace.counters.take();
            namespace.absent = if now.is_some() { 0 } else { namespace.absent.saturating_add(1) };
            namespace.before = now.or_else(|| namespace.before.take());
        }
        while queues.namespaces.len() > ABSENT
            && let Some((&netns, longest)) = queues.namespaces.iter().max_by_key(|(_, n)| n.absent)
            && longest.absent > 0
        {
            queues.namespaces.remove(&netns);
        }
    }
}

/// Is a listener with this cookie known to be gone?
fn over(queues: &Queues, ended: &Ended, cookie: u64, ts: u64) -> bool {
    queues.listeners.get(&cookie).is_some_and(|known| known.closed.is_some()) || ended.covers(cookie, ts)
}

fn is_nothing(totals: &ListenerTotals) -> bool {
    zerocopy::IntoBytes::as_bytes(totals).iter().all(|&byte| byte == 0)
}

fn difference(now: &ListenerTotals, before: Option<&ListenerTotals>) -> ListenerTotals {
    let Some(b) = before else { return *now };
    let mut d = *now;
    d.with(b, u64::saturating_sub, u32::wrapping_sub);
    d
}

/// By name; a namespace whose counters went back is another one with the same number: nothing is known of its growth.
fn growth(before: &fact::Netns, now: &fact::Netns) -> Vec<(String, u64)> {
    let was = |name: &str| before.counters.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
    let growth: Option<Vec<_>> = now
        .counters
        .iter()
        .filter_map(|(name, v)| was(name).map(|before| v.checked_sub(before).map(|d| (name.clone(), d))))
        .collect();
    growth.unwrap_or_default()
}

fn report(
    known: &Known,
    delta: Option<&ListenerTotals>,
    window: Option<Window>,
    Queues { served, exact, .. }: &Queues,
    fact: &fact::Interval,
    ts: u64,
) -> Listening {
    let sample = known.sample.filter(|_| known.closed_by(ts).is_none());
    let latest = known.sample.or(known.before);
    let none = ListenerTotals { ..zerocopy::FromZeros::new_zeroed() };
    let d = delta.unwrap_or(&none);
    let count = |served: bool, n: u64| served.then_some(n);
    let mut inferred = Vec::new();
    let deepest = |of: fn(&ListenerSample) -> u32, window: Option<u32>, served: bool| {
        let samples = known.before.iter().chain(&known.sample).map(of).max();
        if served { samples.into_iter().chain(window).max() } else { samples }
    };
    let limit = latest.map(|s| s.limit);
    let (backlog, somaxconn) = backlog(known, latest.as_ref());
    let limited_by = limit.and_then(|limit| match (backlog, somaxconn) {
        (Some(backlog), Some(max)) if backlog > max => Some(LimitedBy::Somaxconn),
        (Some(_), Some(_)) => Some(LimitedBy::Backlog),
        (None, Some(max)) if limit < max => {
            // Unless somaxconn was smaller when listen() was called.
            inferred.push("limited_by");
            Some(LimitedBy::Backlog)
        }
        _ => None,
    });
    // Where nothing passed a hook nothing was accepted.
    let waits = (served.accept && served.accept_queue)
        .then(|| estimate::waits(&d.waits.map(u64::from), window.map_or(0, |w| u64::from(w.wait_max_us))))
        .flatten();
    let mut dropped = [None; drop::COUNT];
    for (i, served) in [
        (drop::SYN_QUEUE_FULL, served.syn_outcome),
        (drop::ACCEPT_QUEUE_FULL_SYN, served.syn_outcome),
        (drop::ACCEPT_QUEUE_FULL_ACK, served.overflow),
        (drop::RST, served.half_open),
        (drop::SYNACK_TIMEOUT, served.half_open),
        (drop::OTHER, served.syn_outcome),
        (drop::LISTENER_CLOSED, served.half_open),
    ] {
        dropped[i] = count(served, d.dropped[i]);
    }
    let drops_before = match (&known.before, known.listen) {
        (Some(before), _) => Some(before.drops),
        // Its whole life was seen.
        (None, Some(_)) => Some(0),
        (None, None) => None,
    };
    Listening {
        ts,
        interval_us: fact.interval_us,
        group: known.group,
        syn_queue: Depth {
            len: sample.map(|s| s.syn_queue),
            young: sample.map(|s| s.young),
            peak: deepest(|s| s.syn_queue, window.map(|w| w.syn_peak), served.half_open),
            limit,
        },
        accept_queue: Depth {
            len: sample.map(|s| s.accept_queue),
            young: None,
            peak: deepest(|s| s.accept_queue, window.map(|w| w.accept_peak), served.accept_queue),
            limit,
        },
        backlog,
        somaxconn,
        limited_by,
        syns: count(served.syn_outcome, d.syns),
        queued: count(served.half_open, d.queued),
        completed: count(served.accept_queue, d.completed),
        // What was in no accept queue that is known is nobody's.
        accepted: count(served.accept && served.accept_queue, d.accepted),
        // A tracepoint sees a cookie only when it comes back.
        cookies_sent: count(exact.cookies, d.cookies_sent),
        cookies_ok: count(served.cookies, d.cookies_ok),
        fast_opens: count(served.fast_open, d.fast_opens),
        dropped,
        synack_retrans: count(served.synack_retransmit, d.synack_retrans),
        migrated: count(served.migration, d.migrated),
        held_back: d.held_back,
        not_taken: count(served.segments_not_taken, d.not_taken),
        sk_drops: sample.zip(drops_before).map(|(s, before)| u64::from(s.drops.wrapping_sub(before))),
        sources: (served.syn_outcome || served.half_open).then(|| window.map_or(0, |w| estimate::sources(&w.sources))),
        waits,
        fast_open_queue: sample.filter(|s| s.fast_open_limit != 0).map(|s| (s.fast_open_queue, s.fast_open_limit)),
        defer_accept: sample.map(|s| s.defer_accept).filter(|&n| n != 0),
        exact: fact.exact && d.failed == 0,
        inferred,
    }
}

/// listen()'s argument, and `somaxconn` at that time. The first is not known once the limit is not what follows from both:
/// listen() was called again.
fn backlog(known: &Known, latest: Option<&ListenerSample>) -> (Option<u32>, Option<u32>) {
    let known_u32 = |n: u32| (n != UNKNOWN).then_some(n);
    let now = latest.and_then(|s| known_u32(s.somaxconn));
    let Some((backlog, somaxconn)) = known.listen else { return (None, now) };
    // A negative argument of listen() is the largest there is; only `UNKNOWN` itself cannot be told from it.
    let (backlog, max) = (known_u32(backlog), known_u32(somaxconn).or(now));
    match (backlog, max, latest) {
        (Some(b), Some(max), Some(sample)) if sample.limit != b.min(max) => (None, now),
        _ => (backlog, max),
    }
}

/// SYNs and final ACKs that met a full accept queue.
const OVERFLOWS: &str = "ListenOverflows";

/// By how much a counter has grown.
fn grown(counters: &[(String, u64)], name: &str) -> Option<u64> {
    counters.iter().find(|(n, _)| n == name).map(|(_, n)| *n)
}

/// Give a namespace's counts to the one listener that can have caused them, where no hook tells. `at_ack` of the overflows were at the
/// final ACK.
fn attribute(
    counters: &[(String, u64)],
    places: &[usize],
    reports: &mut [(u64, Listening)],
    (served, exact): (&Signals, &Signals),
    at_ack: u64,
) {
    let grown = |name: &str| grown(counters, name);
    // Each of these drops raises the listener's own sk_drops, too.
    let dropping: Vec<usize> =
        places.iter().copied().filter(|&i| reports[i].1.sk_drops.is_none_or(|n| n > 0)).collect();
    if !served.syn_outcome
        && let [only] = dropping[..]
        && let l = &mut reports[only].1
    {
        if let Some(n) = grown("TCPReqQFullDrop").filter(|&n| n > 0) {
            l.dropped[drop::SYN_QUEUE_FULL] = Some(n);
            l.inferred.push("dropped.syn_queue_full");
        }
        let at_syn = grown(OVERFLOWS).filter(|_| served.overflow).and_then(|n| n.checked_sub(at_ack));
        if let Some(n) = at_syn.filter(|&n| n > 0) {
            l.dropped[drop::ACCEPT_QUEUE_FULL_SYN] = Some(n);
            l.inferred.push("dropped.accept_queue_full_syn");
        }
    }
    if !exact.cookies
        && let [only] = places[..]
        && let l = &mut reports[only].1
        && let Some(n) = grown("SyncookiesSent").filter(|&n| n > 0)
    {
        l.cookies_sent = Some(n);
        l.inferred.push("cookies_sent");
    }
}
