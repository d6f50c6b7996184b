//! Sums over the last seconds, in slots: memory does not grow with what is counted.

use std::{collections::VecDeque, ops::AddAssign};

/// See the module.
#[derive(Clone, Debug)]
pub struct Window<T> {
    /// Nanoseconds of a slot.
    slot: u64,
    /// Slots that are kept.
    keep: u64,
    /// (number of the slot, what was counted in it), oldest first; empty ones are left out.
    slots: VecDeque<(u64, T)>,
}

impl<T: Default + for<'a> AddAssign<&'a T>> Window<T> {
    /// Slots of `slot_ns`, and how many of them.
    #[must_use]
    pub const fn new(slot_ns: u64, keep: u64) -> Self {
        Self { slot: slot_ns, keep, slots: VecDeque::new() }
    }

    /// What is counted at this moment. One before the oldest slot counts in that; times may come a little out of order.
    pub fn at(&mut self, ts: u64) -> &mut T {
        let number = ts / self.slot;
        if self.slots.back().is_none_or(|(last, _)| *last < number) {
            self.slots.push_back((number, T::default()));
            self.forget(ts);
        }
        let place = self.slots.iter().rposition(|(slot, _)| *slot <= number).unwrap_or(0);
        &mut self.slots[place].1
    }

    /// The sum of what was counted in the last `ns` before `now`: whole slots, that of `now` included.
    #[must_use]
    pub fn sum(&self, now: u64, ns: u64) -> T {
        let first = (now / self.slot).saturating_sub((ns / self.slot).saturating_sub(1));
        let mut sum = T::default();
        self.slots.iter().filter(|(slot, _)| *slot >= first).for_each(|(_, counted)| sum += counted);
        sum
    }

    /// The slots of the last `ns` before `now`, each with how many slots ago it was.
    pub fn slots(&self, now: u64, ns: u64) -> impl Iterator<Item = (u64, &T)> {
        let last = now / self.slot;
        let slots = self.slots.iter().map(move |(slot, counted)| (last.saturating_sub(*slot), counted));
        slots.filter(move |(ago, _)| *ago < ns / self.slot)
    }

    /// Let go of what is too old.
    pub fn forget(&mut self, now: u64) {
        let first = (now / self.slot + 1).saturating_sub(self.keep);
        while self.slots.front().is_some_and(|(slot, _)| *slot < first) {
            self.slots.pop_front();
        }
    }

    /// Let go of what is too old: is anything left?
    pub fn lives(&mut self, now: u64) -> bool {
        self.forget(now);
        !self.is_empty()
    }

    /// Is nothing left of it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_slots_go_and_late_ones_count() {
        let mut window = Window::<u64>::new(10, 3);
        *window.at(5) += 1;
        *window.at(15) += 2;
        *window.at(28) += 4;
        *window.at(14) += 8;
        assert_eq!((window.sum(29, 10), window.sum(29, 20), window.sum(29, 30)), (4, 14, 15));
        *window.at(31) += 16;
        assert_eq!(window.sum(31, 1000), 30, "slot 0 is gone");
        window.forget(1000);
        assert!(window.is_empty());
    }
}
