//! The few largest of many.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

/// See the module.
#[derive(Clone, Debug)]
pub struct Top<T> {
    room: usize,
    /// The smallest of them is at its top.
    heap: BinaryHeap<Reverse<Ranked<T>>>,
}

#[derive(Clone, Debug)]
struct Ranked<T> {
    value: u64,
    order: u64,
    what: Box<T>,
}

impl<T> Ranked<T> {
    fn rank(&self) -> (u64, Reverse<u64>) {
        (self.value, Reverse(self.order))
    }
}

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}
impl<T> Eq for Ranked<T> {}
impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Ranked<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl<T> Top<T> {
    /// Nothing yet; `room` for so many.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self { room, heap: BinaryHeap::new() }
    }

    /// One more; of equal values those with the smaller `order` stay. `make` is called only if it stays.
    #[inline]
    pub fn add(&mut self, value: u64, order: u64, make: impl FnOnce() -> T) {
        if self.heap.len() >= self.room {
            let smallest = self.heap.peek().map(|least| least.0.rank());
            if smallest.is_none_or(|least| (value, Reverse(order)) <= least) {
                return;
            }
            self.heap.pop();
        }
        self.heap.push(Reverse(Ranked { value, order, what: Box::new(make()) }));
    }

    /// The largest first.
    #[must_use]
    pub fn sorted(&self) -> Vec<(u64, &T)> {
        let mut all: Vec<_> = self.heap.iter().map(|r| &r.0).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.into_iter().map(|r| (r.value, &*r.what)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_the_first_of_all_when_sorted(values in proptest::collection::vec(0..20u64, 0..60), room in 0usize..8) {
            let mut top = Top::new(room);
            for (order, &value) in values.iter().enumerate() {
                top.add(value, order as u64, || order);
            }
            let mut all: Vec<_> = values.iter().copied().enumerate().map(|(order, value)| (Reverse(value), order)).collect();
            all.sort_unstable();
            let expected: Vec<_> = all.into_iter().take(room).map(|(Reverse(value), order)| (value, order)).collect();
            let found: Vec<_> = top.sorted().into_iter().map(|(value, &order)| (value, order)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
