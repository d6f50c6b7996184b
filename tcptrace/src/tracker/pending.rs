//! Connections that reached CLOSE and whose end is not yet decided: the kernel sets the state first and sends the RST that
//! explains it after (close() with unread data, SO_LINGER 0, disconnect).

use std::collections::VecDeque;

use tcptrace_common::record::Counters;

use crate::model::End;

/// How long a RST is waited for, nanoseconds. It follows within the same system call or segment, in which a busy host may well
/// preempt the process for longer than a slice of the scheduler.
pub(super) const WAIT_NS: u64 = 1_000_000_000;

/// One that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub slot: u32,
    /// When it reached CLOSE.
    pub ts: u64,
    pub errno: u8,
    pub counters: Counters,
    /// The end if no RST is sent.
    pub otherwise: End,
    /// The RST follows even the destruction of the socket.
    pub past_destroy: bool,
}

/// In the order of closing. A number stands for a place, so that one in the middle is found at once.
#[derive(Default)]
pub(super) struct Queue {
    places: VecDeque<Option<Waiting>>,
    /// Number of the first place.
    first: u32,
}

impl Queue {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Add one; its number, never `u32::MAX`.
    pub fn push(&mut self, waiting: Waiting) -> u32 {
        let mut number = self.first.wrapping_add(self.places.len() as u32);
        if number == u32::MAX {
            self.places.push_back(None);
            number = 0;
        }
        self.places.push_back(Some(waiting));
        number
    }

    pub fn get(&self, number: u32) -> Option<&Waiting> {
        self.places.get(number.wrapping_sub(self.first) as usize)?.as_ref()
    }

    pub fn take(&mut self, number: u32) -> Option<Waiting> {
        let taken = self.places.get_mut(number.wrapping_sub(self.first) as usize)?.take();
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        taken
    }

    /// The number of the oldest.
    pub fn oldest(&self) -> Option<u32> {
        self.places.front().map(|_| self.first)
    }

    /// The number of the oldest, if it reached CLOSE more than [`WAIT_NS`] before `now`.
    pub fn expired(&self, now: u64) -> Option<u32> {
        self.places.front()?.as_ref().filter(|w| now > w.ts.saturating_add(WAIT_NS)).map(|_| self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(slot: u32, ts: u64) -> Waiting {
        Waiting { slot, ts, errno: 0, counters: Counters::default(), otherwise: End::Aborted, past_destroy: false }
    }

    #[test]
    fn numbers_survive_what_is_taken_before_and_the_wrap() {
        let mut queue = Queue { first: u32::MAX - 1, ..Queue::default() };
        let numbers: Vec<u32> = (0..3).map(|i| queue.push(waiting(i, 0))).collect();
        assert_eq!(numbers, [u32::MAX - 1, 0, 1]);
        assert_eq!(queue.take(0).map(|w| w.slot), Some(1));
        assert_eq!(queue.take(u32::MAX - 1).map(|w| w.slot), Some(0));
        assert_eq!(queue.get(1).map(|w| w.slot), Some(2));
        assert_eq!(queue.expired(WAIT_NS), None);
        assert_eq!(queue.expired(WAIT_NS + 1), Some(1));
        assert_eq!(queue.take(1).map(|w| w.slot), Some(2));
        assert!(queue.is_empty());
    }
}
