//! Half-open requests: one entry each, found by both ends, in the order of their SYNs. A flood fills a bounded table; then the
//! oldest makes room, so that one that is about to complete outlives those that nobody answers.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use tcptrace_common::record::Tuple;

/// Entries. At 20,000 records a second (what passes by default) a flood needs three seconds to push a request out.
pub(super) const REQUESTS: usize = 65_536;
/// A request is forgotten after this, nanoseconds: its end was not seen. The kernel gives one up after 63 s by default.
const FORGOTTEN_NS: u64 = 600_000_000_000;
const NONE: u32 = u32::MAX;

/// A half-open request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub tuple: Tuple,
    pub id: u64,
    /// CLOCK_MONOTONIC nanoseconds of its SYN.
    pub since: u64,
    /// Cookie of its listener.
    pub listener: u64,
    /// Cookie of its child, 0 while it has none.
    pub child: u64,
    /// When its child entered the accept queue; 0: not yet.
    pub completed: u64,
    pub rcv_isn: u32,
    pub snt_isn: u32,
    /// See [`Entry::claimant`].
    pub slot: u32,
    /// SYN-ACKs sent again.
    pub retrans: u8,
    /// Both initial sequence numbers are known.
    pub isn_known: bool,
    /// `since` was told by a later record.
    pub inferred: bool,
    /// Its final ACK met a full accept queue.
    pub overflowed: bool,
    /// Existed when the trace began.
    pub preexisting: bool,
    /// It was in NEW_SYN_RECV: not made by a cookie or by Fast Open.
    pub prefix: bool,
    /// Made by a returned cookie.
    pub by_cookie: bool,
    /// Neighbours in the order of age; the table's own.
    pub before: u32,
    pub after: u32,
}

impl Entry {
    pub fn new(tuple: Tuple, id: u64, since: u64) -> Self {
        Self {
            tuple,
            id,
            since,
            listener: 0,
            child: 0,
            completed: 0,
            rcv_isn: 0,
            snt_isn: 0,
            slot: NONE,
            retrans: 0,
            isn_known: false,
            inferred: false,
            overflowed: false,
            preexisting: false,
            prefix: true,
            by_cookie: false,
            before: NONE,
            after: NONE,
        }
    }

    /// Slot of the child that shows the request's timeline.
    pub fn claimant(&self) -> Option<u32> {
        (self.slot != NONE).then_some(self.slot)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Requests {
    entries: Vec<Entry>,
    /// Places of `entries` that are free.
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Oldest and youngest entry; meaningless while there is none.
    ends: Option<(u32, u32)>,
    /// Requests that were given up for want of room, or because their end never came.
    pub forgotten: u64,
    /// Single requests are told of in this trace.
    pub heard: bool,
}

impl Requests {
    pub fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    fn place(&self, tuple: &Tuple) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        self.index.find(self.hasher.hash_one(tuple), |&i| self.entries[i as usize].tuple == *tuple).copied()
    }

    #[inline]
    pub fn get(&self, tuple: &Tuple) -> Option<&Entry> {
        self.place(tuple).map(|i| &self.entries[i as usize])
    }

    #[inline]
    pub fn get_mut(&mut self, tuple: &Tuple) -> Option<&mut Entry> {
        self.place(tuple).map(|i| &mut self.entries[i as usize])
    }

    /// Add one, whose ends must not be in the table. The oldest that no child shows makes room for it.
    pub fn insert(&mut self, entry: Entry) {
        if self.entries.len() - self.free.len() >= REQUESTS {
            self.evict();
        }
        let last = self.ends.map_or(NONE, |(_, last)| last);
        let entry = Entry { before: last, after: NONE, ..entry };
        let i = match self.free.pop() {
            Some(i) => {
                self.entries[i as usize] = entry;
                i
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        if let Some(last) = self.entries.get_mut(last as usize) {
            last.after = i;
        }
        self.ends = Some((self.ends.map_or(i, |(first, _)| first), i));
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index.insert_unique(hasher.hash_one(entry.tuple), i, |&i| hasher.hash_one(entries[i as usize].tuple));
    }

    fn evict(&mut self) {
        let Some((first, _)) = self.ends else { return };
        // A child is there for microseconds between its birth and its record of completion: few are, and they are young.
        let mut i = first;
        while let Some(entry) = self.entries.get(i as usize) {
            if entry.slot == NONE {
                break;
            }
            i = entry.after;
        }
        let victim = self.entries.get(i as usize).or_else(|| self.entries.get(first as usize)).map(|e| e.tuple);
        if let Some(tuple) = victim {
            self.remove(&tuple);
            self.forgotten += 1;
        }
    }

    pub fn remove(&mut self, tuple: &Tuple) -> Option<Entry> {
        if self.is_empty() {
            return None;
        }
        let entries = &self.entries;
        let found = self.index.find_entry(self.hasher.hash_one(tuple), |&i| entries[i as usize].tuple == *tuple);
        let (i, _) = found.ok()?.remove();
        let entry = self.entries[i as usize];
        if let Some(before) = self.entries.get_mut(entry.before as usize) {
            before.after = entry.after;
        }
        if let Some(after) = self.entries.get_mut(entry.after as usize) {
            after.before = entry.before;
        }
        self.ends = match self.ends {
            Some((first, last)) if first == i && last == i => None,
            Some((first, last)) if first == i => Some((entry.after, last)),
            Some((first, last)) if last == i => Some((first, entry.before)),
            ends => ends,
        };
        self.free.push(i);
        Some(entry)
    }

    /// A child shows the request's timeline from now on, or (None) no longer does.
    pub fn claim(&mut self, tuple: &Tuple, slot: Option<u32>) {
        if let Some(entry) = self.get_mut(tuple) {
            entry.slot = slot.unwrap_or(NONE);
        }
    }

    /// Forget those whose end should have come long ago.
    pub fn expire(&mut self, now: u64) {
        while let Some((first, _)) = self.ends
            && let Some(entry) = self.entries.get(first as usize)
            && now > entry.since.saturating_add(FORGOTTEN_NS)
        {
            let tuple = entry.tuple;
            self.remove(&tuple);
            self.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(n: usize) -> Tuple {
        Tuple { rport: n as u16, netns: (n >> 16) as u32, ..Tuple::default() }
    }

    impl Requests {
        /// Every entry, oldest first.
        fn iter(&self) -> impl Iterator<Item = &Entry> {
            let mut next = self.ends.map_or(NONE, |(first, _)| first);
            std::iter::from_fn(move || {
                let entry = self.entries.get(next as usize)?;
                next = entry.after;
                Some(entry)
            })
        }
    }

    fn ids(requests: &Requests) -> Vec<u64> {
        requests.iter().map(|e| e.id).collect()
    }

    #[test]
    fn entries_stay_in_order_wherever_one_goes() {
        let mut requests = Requests::default();
        (0..5).for_each(|n| requests.insert(Entry::new(tuple(n), n as u64, 0)));
        for n in [2, 0, 4] {
            assert_eq!(requests.remove(&tuple(n)).map(|e| e.id), Some(n as u64));
        }
        assert!(requests.remove(&tuple(2)).is_none());
        requests.insert(Entry::new(tuple(9), 9, 0));
        assert_eq!(ids(&requests), [1, 3, 9]);
        for n in [1, 3, 9] {
            requests.remove(&tuple(n));
        }
        assert!(requests.is_empty() && requests.get(&tuple(1)).is_none());
    }

    #[test]
    fn the_oldest_makes_room_but_not_one_that_a_child_shows() {
        let mut requests = Requests::default();
        (0..REQUESTS).for_each(|n| requests.insert(Entry::new(tuple(n), n as u64, 0)));
        requests.claim(&tuple(0), Some(7));
        requests.insert(Entry::new(tuple(REQUESTS), 0, 0));
        assert_eq!((requests.forgotten, requests.iter().count()), (1, REQUESTS));
        assert!(requests.get(&tuple(0)).is_some() && requests.get(&tuple(1)).is_none());
        assert_eq!(requests.entries.len(), REQUESTS);
    }

    #[test]
    fn what_never_ended_is_forgotten() {
        let mut requests = Requests::default();
        (0..3).for_each(|n| requests.insert(Entry::new(tuple(n), n as u64, n as u64 * 1000)));
        requests.expire(FORGOTTEN_NS + 1001);
        assert_eq!((ids(&requests), requests.forgotten), (vec![2], 2));
    }
}
