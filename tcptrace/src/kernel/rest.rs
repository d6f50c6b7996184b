//! Moments of rest: what the kernel counted and what hooks counted are the same twice, a grace period apart.
//!
//! The kernel raises a counter and a hook counts the same event a little later, or before: a reading of both in between has one of them
//! only. As all of that runs with bottom halves off, which is an RCU reader's section, it is over after a grace period, and the second
//! reading differs from the first.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    time::Duration,
};

use tcptrace_common::queue::ListenerSample;
use zerocopy::IntoBytes as _;

use super::listeners::Totals;
use crate::frame::fact;

/// How often a reading may wait for a grace period, nanoseconds: intervals can be shorter than that.
const EVERY: u64 = 100_000_000;
/// What is waited where the kernel offers no grace periods (`nohz_full`): longer than one packet takes.
const INSTEAD: Duration = Duration::from_millis(20);

/// All that is compared, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State(u64);

impl State {
    /// Of a reading: our totals and what the kernel says of its listeners and namespaces.
    pub fn of<'a>(
        totals: &Totals,
        samples: &[ListenerSample],
        counters: impl Iterator<Item = (u32, &'a [(String, u64)])>,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        for (cookie, (totals, _)) in totals {
            (cookie, totals.as_bytes()).hash(&mut hasher);
        }
        for sample in samples {
            (sample.head.sock, sample.drops).hash(&mut hasher);
        }
        for (netns, counters) in counters {
            netns.hash(&mut hasher);
            counters
                .iter()
                .filter(|(name, _)| fact::AUDITED.contains(&name.as_str()))
                .for_each(|c| c.hash(&mut hasher));
        }
        Self(hasher.finish())
    }
}

/// When the last moment of rest was, and what it looked like.
#[derive(Debug, Default)]
pub(super) struct Rest {
    seen: Option<State>,
    next: u64,
}

impl Rest {
    /// Was the reading that gave `state` made at rest? `again` makes it once more, after `wait`. A reading soon after one that waited
    /// does not wait, and tells of no rest, unless it `must`.
    pub fn holds(
        &mut self,
        now: u64,
        state: State,
        must: bool,
        wait: impl FnOnce(),
        again: impl FnOnce() -> io::Result<State>,
    ) -> bool {
        if self.seen == Some(state) {
            return true;
        }
        if now < self.next && !must {
            return false;
        }
        self.next = now + EVERY;
        wait();
        let rests = again().is_ok_and(|again| again == state);
        if rests {
            self.seen = Some(state);
        }
        rests
    }
}

/// Wait until all that runs with bottom halves off is over.
pub(super) fn grace_period() {
    // SAFETY: no pointers are passed.
    if unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0 {
        std::thread::sleep(INSTEAD);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What one event changes, one after the other.
    struct Kernel {
        done: Cell<[bool; 2]>,
    }

    impl Kernel {
        fn state(&self) -> State {
            let mut hasher = DefaultHasher::new();
            self.done.get().hash(&mut hasher);
            State(hasher.finish())
        }
    }

    #[test]
    fn an_event_that_one_side_has_counted_is_no_rest() {
        for first in [[true, false], [false, true]] {
            let kernel = Kernel { done: Cell::new(first) };
            let mut rest = Rest::default();
            let (end, again) = (|| kernel.done.set([true; 2]), || Ok(kernel.state()));
            assert!(!rest.holds(EVERY, kernel.state(), false, end, again), "{first:?}");
            assert!(rest.holds(2 * EVERY, kernel.state(), false, end, again));
        }
    }

    #[test]
    fn what_did_not_change_is_not_read_again() {
        let kernel = Kernel { done: Cell::new([true; 2]) };
        let mut rest = Rest::default();
        assert!(rest.holds(EVERY, kernel.state(), false, || {}, || Ok(kernel.state())));
        assert!(rest.holds(2 * EVERY, kernel.state(), false, || panic!("it waits"), || panic!("it reads")));
    }

    #[test]
    fn short_intervals_do_not_wait_each_time_but_the_last_one_does() {
        let kernel = Kernel { done: Cell::new([false; 2]) };
        let mut rest = Rest::default();
        assert!(rest.holds(EVERY, kernel.state(), false, || {}, || Ok(kernel.state())));
        kernel.done.set([true; 2]);
        assert!(!rest.holds(2 * EVERY - 1, kernel.state(), false, || panic!("it waits"), || Ok(kernel.state())));
        assert!(rest.holds(2 * EVERY - 1, kernel.state(), true, || {}, || Ok(kernel.state())));
    }

    #[test]
    fn what_cannot_be_read_again_is_no_rest() {
        let kernel = Kernel { done: Cell::new([true; 2]) };
        assert!(!Rest::default().holds(0, kernel.state(), true, || {}, || Err(io::ErrorKind::NotFound.into())));
    }
}
