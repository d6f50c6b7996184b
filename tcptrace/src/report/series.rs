//! Something over time, in a bounded number of slots: when there would be too many, each becomes twice as wide.

use std::collections::VecDeque;

/// What is in a slot.
pub trait Merge: Default + Clone {
    /// Both slots become one.
    fn merge(&mut self, other: &Self);
}

/// See the module. Times are nanoseconds and may come in any order.
#[derive(Clone, Debug)]
pub struct Series<T> {
    room: usize,
    /// Nanoseconds of a slot.
    width: u64,
    /// Where the first slot begins: a multiple of `width`.
    begin: u64,
    slots: VecDeque<T>,
}

/// A series as it is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns<T> {
    /// Where the first begins, nanoseconds.
    pub begin: u64,
    /// Nanoseconds of each.
    pub width: u64,
    /// One behind the other.
    pub slots: Vec<T>,
}

impl<T: Merge> Series<T> {
    /// Nothing yet; slots of `width` nanoseconds, `room` of them at most.
    #[must_use]
    pub fn new(width: u64, room: usize) -> Self {
        Self { room, width, begin: 0, slots: VecDeque::new() }
    }

    /// The slot of a moment.
    pub fn at(&mut self, ts: u64) -> &mut T {
        if self.slots.is_empty() {
            self.begin = ts - ts % self.width;
            self.slots.push_back(T::default());
        }
        loop {
            if ts < self.begin {
                let before = (self.begin - ts).div_ceil(self.width);
                if before.saturating_add(self.slots.len() as u64) <= self.room as u64 {
                    (0..before).for_each(|_| self.slots.push_front(T::default()));
                    self.begin -= before * self.width;
                    return &mut self.slots[0];
                }
            } else {
                let number = (ts - self.begin) / self.width;
                if number < self.room as u64 {
                    let number = number as usize;
                    if number >= self.slots.len() {
                        self.slots.resize_with(number + 1, T::default);
                    }
                    return &mut self.slots[number];
                }
            }
            self.widen();
        }
    }

    /// Slots of twice the width, which begin at multiples of it: in the end one begins at 0.
    fn widen(&mut self) {
        if !(self.begin / self.width).is_multiple_of(2) {
            self.slots.push_front(T::default());
            self.begin -= self.width;
        }
        let slots = std::mem::take(&mut self.slots);
        self.slots = pairs(slots.into()).into();
        self.width = self.width.saturating_mul(2);
    }

    /// All of it in at most `most` columns.
    #[must_use]
    pub fn columns(&self, most: usize) -> Columns<T> {
        let mut all = Columns { begin: self.begin, width: self.width, slots: self.slots.iter().cloned().collect() };
        while all.slots.len() > most.max(1) {
            all.slots = pairs(all.slots);
            all.width = all.width.saturating_mul(2);
        }
        all
    }

    /// The slot with the most of something: (when it begins, its width, how much), the first of equals.
    #[must_use]
    pub fn peak(&self, how_much: impl Fn(&T) -> u64) -> Option<(u64, u64, u64)> {
        let mut best: Option<(usize, u64)> = None;
        for (i, n) in self.slots.iter().map(how_much).enumerate() {
            if best.is_none_or(|(_, most)| n > most) {
                best = Some((i, n));
            }
        }
        best.map(|(i, n)| (self.begin + i as u64 * self.width, self.width, n))
    }

    /// Nothing was ever added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

/// Two become one.
fn pairs<T: Merge>(slots: Vec<T>) -> Vec<T> {
    let mut merged: Vec<T> = Vec::with_capacity(slots.len().div_ceil(2));
    for (i, slot) in slots.into_iter().enumerate() {
        match merged.last_mut() {
            Some(last) if i % 2 == 1 => last.merge(&slot),
            _ => merged.push(slot),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(times: &[u64], width: u64, room: usize) -> Series<u32> {
        let mut series = Series::new(width, room);
        times.iter().for_each(|&ts| *series.at(ts) += 1);
        series
    }

    #[test]
    fn slots_grow_when_there_are_too_many() {
        let s = series(&[100, 101, 110, 139], 10, 4);
        assert_eq!(s.columns(9), Columns { begin: 100, width: 10, slots: vec![2, 1, 0, 1] });
        let s = series(&[100, 101, 110, 139, 140], 10, 4);
        assert_eq!(s.columns(9), Columns { begin: 100, width: 20, slots: vec![3, 1, 1] });
        assert_eq!(s.columns(2), Columns { begin: 100, width: 40, slots: vec![4, 1] });
        assert_eq!(s.peak(|&n| n.into()), Some((100, 20, 3)));
    }

    #[test]
    fn what_came_before_the_first_has_its_slots_too() {
        let s = series(&[100, 75], 10, 4);
        assert_eq!(s.columns(9), Columns { begin: 70, width: 10, slots: vec![1, 0, 0, 1] });
        let s = series(&[100, 5], 10, 4);
        assert_eq!(s.columns(9).slots.iter().sum::<u32>(), 2);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_everything_is_in_its_slot(times in proptest::collection::vec(0..u64::MAX / 4, 1..60), room in 1usize..20) {
            let s = series(&times, 7, room);
            let all = s.columns(usize::MAX);
            prop_assert!(all.slots.len() <= room);
            for (i, &n) in all.slots.iter().enumerate() {
                let from = all.begin.saturating_add(i as u64 * all.width);
                let inside = times.iter().filter(|&&ts| ts >= from && ts - from < all.width).count();
                prop_assert_eq!(inside, n as usize, "slot {} of {:?}", i, all);
            }
            prop_assert_eq!(all.slots.iter().sum::<u32>() as usize, times.len());
        }
    }
}
