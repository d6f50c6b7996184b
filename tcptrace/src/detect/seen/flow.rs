//! What a listener was sent and what came back, interval by interval: SYNs, SYN-ACKs and cookies, and who went on with the handshake.

use std::{collections::VecDeque, ops::AddAssign};

use super::window::Window;
use crate::model::{Listening, NetnsCounters};
use tcptrace_common::queue::drop;

const SECOND: f64 = 1e9;
/// Intervals that are kept, at most.
const KEPT: usize = 16;
/// And at least, however long they are: replies are looked for in the one after.
const LEAST: usize = 2;
/// How long one counts as the present, nanoseconds. Older ones are the past.
const PRESENT_NS: u64 = 3_000_000_000;
/// Replies take a round trip: they are looked for in SYNs that are at least so old, nanoseconds.
const ROUND_TRIP_NS: u64 = 400_000_000;
/// Nanoseconds of a slot of the worst times, and how many are kept: a minute and a half, which is longer than a request lives.
const SLOT: u64 = 10_000_000_000;
const SLOTS: u64 = 9;
/// So few a second that nobody answers are no bad times.
const BAD: f64 = 10.0;
/// So many times as many SYNs as before are something new.
const CALM: f64 = 4.0;
/// Seconds over which the past is smoothed.
const MEMORY: f64 = 60.0;

/// One interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Its end, CLOCK_MONOTONIC nanoseconds.
    pub ts: u64,
    /// Its length, nanoseconds.
    pub ns: u64,
    /// SYNs that got a SYN-ACK: queued, or answered with a cookie.
    pub answered: u64,
    /// Final ACKs, those that met a full accept queue and those that TCP_DEFER_ACCEPT dropped included.
    pub replies: u64,
    /// SYNs that met a full SYN queue and were dropped, or were answered with a cookie that cannot be told from those of other listeners.
    pub turned_away: u64,
    /// SYNs in all, as far as known.
    pub syns: u64,
    /// Cookies sent.
    pub cookies: u64,
    /// The accept queue was full.
    pub accept_full: bool,
}

impl Flow {
    /// `counters` are those of the listener's network namespace over the same interval.
    pub(super) fn of(l: &Listening, counters: Option<&NetnsCounters>) -> Self {
        let counter = |name: &str| counters.and_then(|n| n.counters.iter().find(|(c, _)| c == name)).map(|(_, n)| *n);
        let accept_full = l.accept_queue.was_full() || l.dropped[drop::ACCEPT_QUEUE_FULL_SYN].is_some_and(|n| n > 0);
        let syn_full = l.syn_queue.limit.zip(l.syn_queue.peak).is_some_and(|(limit, peak)| peak >= limit.max(1));
        let cookies = l.cookies_sent.unwrap_or(0);
        // sk_drops is the listener's own, where the reason of a drop is known of the namespace alone.
        let dropped =
            l.dropped[drop::SYN_QUEUE_FULL].or_else(|| l.sk_drops.filter(|_| syn_full && !accept_full)).unwrap_or(0);
        let shared = counter("SyncookiesSent").filter(|_| l.cookies_sent.is_none() && syn_full).unwrap_or(0);
        let deferred = counter("TCPDeferAcceptDrop").filter(|_| l.defer_accept.is_some()).unwrap_or(0);
        let answered = l.queued.unwrap_or(0) + cookies;
        let turned_away = dropped + shared;
        Self {
            ts: l.ts,
            ns: l.interval_us * 1000,
            answered,
            replies: l.completed.unwrap_or(0) + l.dropped[drop::ACCEPT_QUEUE_FULL_ACK].unwrap_or(0) + deferred,
            turned_away,
            syns: l.syns.unwrap_or(answered + turned_away),
            cookies,
            accept_full,
        }
    }

    /// SYNs that need something of the SYN queue, a second.
    #[must_use]
    pub fn pressure(&self) -> f64 {
        per_second(self.answered + self.turned_away, self.ns)
    }
}

/// How many a second.
#[must_use]
pub fn per_second(n: u64, ns: u64) -> f64 {
    if ns == 0 { 0.0 } else { n as f64 * SECOND / ns as f64 }
}

/// The present, summed: what was sent long enough ago to have been answered, and what came back until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// When the first of these intervals that had something began.
    pub since: u64,
    /// Their length, nanoseconds.
    pub ns: u64,
    /// As in [`Flow`].
    pub answered: u64,
    /// As in [`Flow`].
    pub turned_away: u64,
    /// As in [`Flow`].
    pub cookies: u64,
    /// Until now.
    pub replies: u64,
    /// The accept queue was full in one of them or since.
    pub accept_full: bool,
}

impl Balance {
    /// SYN-ACKs that nobody answered.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.answered.saturating_sub(self.replies)
    }

    /// Those, and SYNs that found no room, a second.
    #[must_use]
    pub fn in_vain(&self) -> f64 {
        per_second(self.unanswered() + self.turned_away, self.ns)
    }
}

/// The highest of several rates.
#[derive(Clone, Copy, Debug, Default)]
struct Worst(f64);

impl AddAssign<&Self> for Worst {
    fn add_assign(&mut self, other: &Self) {
        self.0 = self.0.max(other.0);
    }
}

/// The latest intervals, and what was usual before.
#[derive(Clone, Debug)]
pub struct Flows {
    latest: VecDeque<Flow>,
    worst: Window<Worst>,
    /// Seconds of the past.
    pub past_s: f64,
    /// SYNs a second in the past.
    pub usual_syns: f64,
    /// SYN-ACKs a second that nobody answered in the past.
    pub usual_unanswered: f64,
}

impl Default for Flows {
    fn default() -> Self {
        let worst = Window::new(SLOT, SLOTS);
        Self { latest: VecDeque::new(), worst, past_s: 0.0, usual_syns: 0.0, usual_unanswered: 0.0 }
    }
}

impl Flows {
    pub(super) fn push(&mut self, flow: Flow) {
        self.latest.push_back(flow);
        while let Some(oldest) = self.latest.front().copied()
            && (self.latest.len() > KEPT || self.latest.len() > LEAST && oldest.ts + PRESENT_NS < flow.ts)
        {
            self.latest.pop_front();
            self.pass(&oldest);
        }
        if let Some(rate) = self.balance(flow.ts).map(|b| b.in_vain()).filter(|rate| *rate >= BAD) {
            *self.worst.at(flow.ts) += &Worst(rate);
        }
    }

    /// SYNs a second that came to nothing, most in the last minute and a half.
    #[must_use]
    pub fn worst(&self, now: u64) -> f64 {
        self.worst.sum(now, SLOT * SLOTS).0
    }

    /// An interval becomes a part of the past. What is far out of it counts little: a flood does not become usual soon.
    fn pass(&mut self, flow: &Flow) {
        let seconds = flow.ns as f64 / SECOND;
        self.past_s += seconds;
        let share = (seconds / MEMORY.min(self.past_s).max(seconds)).min(1.0);
        for (usual, n) in [
            (&mut self.usual_syns, flow.syns),
            (&mut self.usual_unanswered, flow.answered.saturating_sub(flow.replies)),
        ] {
            let rate = per_second(n, flow.ns).min(*usual * 2.0 + 100.0);
            *usual += (rate - *usual) * share;
        }
    }

    /// The latest interval.
    #[must_use]
    pub fn last(&self) -> Option<&Flow> {
        self.latest.back()
    }

    /// Of what goes on now: intervals before it, in which far fewer SYNs came, do not count. None: not enough was seen
    /// yet, or the listener is gone.
    #[must_use]
    pub fn balance(&self, now: u64) -> Option<Balance> {
        let last = self.last().filter(|last| last.ts + PRESENT_NS.max(2 * last.ns) >= now)?;
        let (now, calm) = (last.ts, last.pressure() / CALM);
        let first = self.latest.iter().rposition(|flow| flow.pressure() < calm).map_or(0, |i| i + 1);
        let mut sum = Balance::default();
        for flow in self.latest.iter().skip(first) {
            sum.replies += flow.replies;
            sum.accept_full |= flow.accept_full;
            if flow.ts + ROUND_TRIP_NS > now {
                continue;
            }
            if sum.since == 0 && flow.answered + flow.turned_away > 0 {
                sum.since = flow.ts.saturating_sub(flow.ns);
            }
            sum.ns += flow.ns;
            sum.answered += flow.answered;
            sum.turned_away += flow.turned_away;
            sum.cookies += flow.cookies;
        }
        (sum.ns > 0).then_some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(i: u64, answered: u64, replies: u64) -> Flow {
        Flow { ts: i * 500_000_000, ns: 500_000_000, answered, replies, syns: answered, ..Flow::default() }
    }

    #[test]
    fn replies_have_a_round_trip_to_come() {
        let mut flows = Flows::default();
        flows.push(flow(1, 100, 0));
        assert!(flows.balance(500_000_000).is_none(), "nobody had the time to answer");
        flows.push(flow(2, 100, 95));
        let balance = flows.balance(1_000_000_000).expect("half a second");
        assert_eq!((balance.answered, balance.replies, balance.unanswered()), (100, 95, 5));
        assert_eq!(balance.since, 0);
        assert!(flows.balance(10_000_000_000).is_none(), "it is gone");
    }

    #[test]
    fn what_was_before_does_not_thin_it() {
        let mut flows = Flows::default();
        (1..4).for_each(|i| flows.push(flow(i, 10, 10)));
        (4..7).for_each(|i| flows.push(flow(i, 5000, 10)));
        let balance = flows.balance(3_000_000_000).expect("a second");
        assert_eq!((balance.answered, balance.ns, balance.since), (10_000, 1_000_000_000, 1_500_000_000));
    }

    #[test]
    fn long_intervals_are_compared_too() {
        let mut flows = Flows::default();
        for i in 1..4 {
            flows.push(Flow { ts: i * 10_000_000_000, ns: 10_000_000_000, ..flow(0, 5000, 0) });
        }
        assert!(flows.balance(39_000_000_000).is_some_and(|b| b.unanswered() == 5000), "{flows:?}");
    }

    #[test]
    fn a_flood_does_not_become_usual_at_once() {
        let mut flows = Flows::default();
        (1..200).for_each(|i| flows.push(flow(i, 50, 49)));
        assert!((flows.usual_syns - 100.0).abs() < 1.0 && flows.usual_unanswered < 3.0, "{flows:?}");
        (200..240).for_each(|i| flows.push(flow(i, 5000, 49)));
        assert!(flows.usual_unanswered < 100.0, "{flows:?}");
        assert!(flows.balance(239 * 500_000_000).is_some_and(|b| b.unanswered() > 10_000));
    }
}
