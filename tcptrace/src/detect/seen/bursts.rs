//! Times in which a listener's accept queue was full: short ones are bursts that a longer queue would have taken, long ones are a process
//! that does not keep up.

use std::ops::AddAssign;

use super::window::Window;
use crate::model::Listening;

/// Nanoseconds of a slot, and how many are kept: a minute.
const SLOT: u64 = 5_000_000_000;
const KEPT: u64 = 12;
/// A burst is over when the queue is no more than a quarter full.
const EMPTIED: u32 = 4;
/// A queue that is full for longer is not full by a burst, nanoseconds.
const LONGEST_NS: u64 = 2_000_000_000;

/// Bursts of a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// The queue was full, and empty soon after.
    pub bursts: u64,
    /// It was full for long.
    pub overloads: u64,
    /// SYNs and final ACKs that met it full in bursts.
    pub turned_away: u64,
    /// Of them final ACKs.
    pub at_ack: u64,
    /// Most that waited.
    pub peak: u32,
    /// Most that would have waited in one of them, had there been room.
    pub wanted: u64,
    /// The longest burst, nanoseconds.
    pub longest: u64,
}

impl AddAssign<&Self> for Sum {
    fn add_assign(&mut self, other: &Self) {
        self.bursts += other.bursts;
        self.overloads += other.overloads;
        self.turned_away += other.turned_away;
        self.at_ack += other.at_ack;
        self.peak = self.peak.max(other.peak);
        self.wanted = self.wanted.max(other.wanted);
        self.longest = self.longest.max(other.longest);
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Bursts {
    /// The one that goes on: when it began, and what came of it so far.
    now: Option<(u64, Sum)>,
    window: Window<Sum>,
}

impl Default for Bursts {
    fn default() -> Self {
        Self { now: None, window: Window::new(SLOT, KEPT) }
    }
}

impl Bursts {
    /// `turned_away` segments met a full accept queue in this interval.
    pub(super) fn interval(&mut self, l: &Listening, turned_away: u64) {
        let Some(limit) = l.accept_queue.limit else { return };
        let full = l.accept_queue.was_full() || turned_away > 0;
        if !full && self.now.is_none() {
            return;
        }
        let begin = l.ts.saturating_sub(l.interval_us * 1000);
        let (since, sum) = self.now.get_or_insert((begin, Sum::default()));
        let at_ack = l.dropped[tcptrace_common::queue::drop::ACCEPT_QUEUE_FULL_ACK].unwrap_or(0);
        let peak = l.accept_queue.peak.unwrap_or(0);
        *sum += &Sum { turned_away, at_ack, peak, ..Sum::default() };
        let lasted = l.ts.saturating_sub(*since);
        if l.accept_queue.len.is_none_or(|len| len > limit / EMPTIED) {
            if lasted > LONGEST_NS {
                *self.window.at(l.ts) += &Sum { overloads: 1, ..Sum::default() };
            }
            return;
        }
        let wanted = u64::from(sum.peak) + sum.turned_away;
        let sum = Sum { bursts: 1, longest: lasted, wanted, ..*sum };
        self.now = None;
        let over = if lasted > LONGEST_NS { Sum { overloads: 1, ..Sum::default() } } else { sum };
        *self.window.at(l.ts) += &over;
    }

    /// Is the queue full now, or was it a moment ago?
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.now.is_some()
    }

    /// Of the last minute.
    #[must_use]
    pub fn sum(&self, now: u64) -> Sum {
        self.window.sum(now, SLOT * KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Depth;

    fn interval(bursts: &mut Bursts, i: u64, len: u32, peak: u32, turned_away: u64) {
        let accept_queue = Depth { len: Some(len), peak: Some(peak), limit: Some(8), ..Depth::default() };
        let l = Listening { ts: i * 500_000_000, interval_us: 500_000, accept_queue, ..Listening::default() };
        bursts.interval(&l, turned_away);
    }

    #[test]
    fn short_is_a_burst_and_long_is_an_overload() {
        let mut bursts = Bursts::default();
        interval(&mut bursts, 1, 0, 8, 0);
        assert_eq!(bursts.sum(500_000_000), Sum::default(), "it was not full");
        interval(&mut bursts, 2, 6, 9, 5);
        interval(&mut bursts, 3, 0, 9, 1);
        let sum = bursts.sum(1_500_000_000);
        assert_eq!((sum.bursts, sum.overloads, sum.turned_away, sum.wanted), (1, 0, 6, 15));
        assert_eq!(sum.longest, 1_000_000_000);
        (4..12).for_each(|i| interval(&mut bursts, i, 9, 9, 3));
        let sum = bursts.sum(6_000_000_000);
        assert_eq!((sum.bursts, sum.turned_away), (1, 6));
        assert!(sum.overloads > 0);
    }
}
