//! Sockets that wait for one of their ends to close, reading by reading: what changed since the last one is told, all of it from time to
//! time.

use std::{
    collections::{HashMap, HashSet},
    io,
};

use super::diag::{self, Found};
use crate::frame::fact;

/// How often they are read, nanoseconds, if that does not take long.
const EVERY: u64 = 2_000_000_000;
/// The time between two readings is so many times what the last one took: every namespace costs a pass over the tables of the host.
const SHARE: u64 = 100;
/// How often what did not change is told again: a recording may begin in the middle.
const AGAIN: u64 = 60_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Closing {
    next: u64,
    /// When all of them are told again.
    next_all: u64,
    /// By namespace and cookie.
    told: HashMap<u32, HashMap<u64, fact::CloseWait>>,
    /// Namespaces of which orphans were told last time.
    orphans: HashSet<u32>,
}

impl Closing {
    /// Is it time for a reading?
    pub fn is_due(&self, now: u64) -> bool {
        now >= self.next
    }

    /// A reading begins.
    pub fn begin(&mut self, now: u64) {
        if now >= self.next_all {
            self.next_all = now.saturating_add(AGAIN);
            // Namespaces that are gone with the others.
            self.told.clear();
        }
    }

    /// Read the namespace that the calling thread is in; None: there is nothing to tell.
    pub fn read(&mut self, netns: u32) -> io::Result<Option<fact::Closing>> {
        Ok(self.tell(netns, diag::closing()?))
    }

    fn tell(&mut self, netns: u32, found: Found) -> Option<fact::Closing> {
        let (fin_wait2, orphans) = found.peers();
        let now: HashMap<u64, fact::CloseWait> = found.close_wait.into_iter().map(|row| (row.sock, row)).collect();
        let before = self.told.remove(&netns).unwrap_or_default();
        let changed = |row: &&fact::CloseWait| before.get(&row.sock) != Some(*row);
        let mut close_wait: Vec<fact::CloseWait> = now.values().filter(changed).copied().collect();
        close_wait.sort_unstable_by_key(|row| row.sock);
        if !now.is_empty() {
            self.told.insert(netns, now);
        }
        let had = if orphans > 0 { !self.orphans.insert(netns) } else { self.orphans.remove(&netns) };
        (!close_wait.is_empty() || orphans > 0 || had).then_some(fact::Closing {
            netns,
            close_wait,
            fin_wait2,
            orphans,
        })
    }

    /// The reading that began at `began` has been made.
    pub fn end(&mut self, began: u64, now: u64) {
        self.next = now.saturating_add((now.saturating_sub(began) * SHARE).max(EVERY));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_and_all_of_it_from_time_to_time() {
        let row = |sock, unread| fact::CloseWait { sock, unread, ..fact::CloseWait::default() };
        let found = |close_wait| Found { close_wait, ..Found::default() };
        let socks = |told: Option<fact::Closing>| -> Vec<u64> {
            told.iter().flat_map(|fact| fact.close_wait.iter().map(|row| row.sock)).collect()
        };
        let mut closing = Closing::default();
        closing.begin(5);
        assert_eq!(socks(closing.tell(7, found(vec![row(2, 1), row(1, 1)]))), [1, 2]);
        closing.end(5, 5 + EVERY / 10);
        assert!(!closing.is_due(5 + EVERY * 10) && closing.is_due(5 + EVERY / 10 + EVERY * 10), "it took long");
        closing.begin(6);
        assert_eq!(closing.tell(7, found(vec![row(2, 1), row(1, 1)])), None);
        assert_eq!(socks(closing.tell(7, found(vec![row(2, 0), row(1, 1), row(3, 0)]))), [2, 3]);
        assert_eq!(socks(closing.tell(8, found(vec![row(9, 0)]))), [9]);
        closing.begin(5 + AGAIN);
        assert_eq!(socks(closing.tell(7, found(vec![row(2, 0)]))), [2]);
        closing.begin(6 + AGAIN);
        assert_eq!(socks(closing.tell(7, found(vec![row(1, 1), row(2, 0)]))), [1], "back again");
    }
}
