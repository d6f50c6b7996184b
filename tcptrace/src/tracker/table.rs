//! Live connections: a slab in chunks, which grows without copying, an index by cookie, and beside it what few connections have.

use std::sync::Arc;

use hashbrown::{HashMap, HashTable};

use crate::model::{Connection, Stack};

const CHUNK: usize = 1024;
const NO_SLOT: u32 = u32::MAX;

#[expect(clippy::large_enum_variant, reason = "free slots are there to be filled")]
enum Slot {
    Live(Connection),
    /// The next free slot, or [`NO_SLOT`].
    Free(u32),
}

/// The index takes at most 12 more.
const _: () = assert!(size_of::<Slot>() <= 256);

/// See the module. Slots are numbers; one that is reused must be told apart by the connection's id.
pub(super) struct Table {
    /// Each has room for [`CHUNK`] slots from the start and never moves.
    chunks: Vec<Vec<Slot>>,
    free: u32,
    index: HashTable<u32>,
    live: usize,
    /// Where connections were opened, by their slots.
    stacks: HashMap<u32, Arc<Stack>>,
}

impl Table {
    pub fn new() -> Self {
        Self { chunks: Vec::new(), free: NO_SLOT, index: HashTable::new(), live: 0, stacks: HashMap::new() }
    }

    /// Connections, those without a cookie included.
    pub fn live(&self) -> usize {
        self.live
    }

    /// The slot of a cookie. 0 is no cookie.
    #[inline]
    pub fn find(&self, cookie: u64) -> Option<u32> {
        self.index.find(hash(cookie), |&slot| cookie_at(&self.chunks, slot) == cookie).copied()
    }

    #[inline]
    pub fn get(&self, slot: u32) -> Option<&Connection> {
        match self.chunks.get(slot as usize / CHUNK)?.get(slot as usize % CHUNK)? {
            Slot::Live(c) => Some(c),
            Slot::Free(_) => None,
        }
    }

    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        match self.chunks.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)? {
            Slot::Live(c) => Some(c),
            Slot::Free(_) => None,
        }
    }

    /// Add a connection. Its cookie, if it has one, must not be in the table.
    pub fn insert(&mut self, c: Connection) -> u32 {
        let cookie = c.cookie;
        let slot = self.store(c);
        self.live += 1;
        if cookie != 0 {
            self.enter(cookie, slot);
        }
        slot
    }

    /// Give a connection that has none its cookie, which must not be in the table.
    pub fn set_cookie(&mut self, slot: u32, cookie: u64) {
        if let Some(c) = self.get_mut(slot)
            && c.cookie == 0
            && cookie != 0
        {
            c.cookie = cookie;
            self.enter(cookie, slot);
        }
    }

    /// Where the connection in this slot was opened.
    pub fn set_stack(&mut self, slot: u32, stack: Arc<Stack>) {
        self.stacks.insert(slot, stack);
    }

    /// The same, if it was told.
    pub fn stack(&self, slot: u32) -> Option<Arc<Stack>> {
        self.stacks.get(&slot).cloned()
    }

    /// Forget a connection.
    pub fn remove(&mut self, slot: u32) {
        let Some(Slot::Live(c)) = self.slot_mut(slot) else { return };
        let cookie = c.cookie;
        if cookie != 0
            && let Ok(entry) = self.index.find_entry(hash(cookie), |&s| s == slot)
        {
            entry.remove();
        }
        let next = self.free;
        if let Some(place) = self.slot_mut(slot) {
            *place = Slot::Free(next);
            self.free = slot;
            self.live -= 1;
        }
        self.stacks.remove(&slot);
    }

    /// Every slot in use.
    pub fn slots(&self) -> impl Iterator<Item = (u32, &Connection)> {
        self.chunks.iter().enumerate().flat_map(|(i, chunk)| {
            chunk.iter().enumerate().filter_map(move |(j, slot)| match slot {
                Slot::Live(c) => Some(((i * CHUNK + j) as u32, c)),
                Slot::Free(_) => None,
            })
        })
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.chunks.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)
    }

    fn store(&mut self, c: Connection) -> u32 {
        let slot = self.free;
        if let Some(place) = self.slot_mut(slot) {
            let next = match place {
                Slot::Free(next) => *next,
                Slot::Live(_) => NO_SLOT,
            };
            *place = Slot::Live(c);
            self.free = next;
            return slot;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("a chunk with room was just made sure of");
        chunk.push(Slot::Live(c));
        (before + chunk.len() - 1) as u32
    }

    fn enter(&mut self, cookie: u64, slot: u32) {
        let chunks = &self.chunks;
        self.index.insert_unique(hash(cookie), slot, |&s| hash(cookie_at(chunks, s)));
    }
}

fn cookie_at(chunks: &[Vec<Slot>], slot: u32) -> u64 {
    match chunks.get(slot as usize / CHUNK).and_then(|chunk| chunk.get(slot as usize % CHUNK)) {
        Some(Slot::Live(c)) => c.cookie,
        Some(Slot::Free(_)) | None => 0,
    }
}

/// Cookies are handed out in sequence, and not by an attacker: an odd factor spreads them without collisions.
#[inline]
fn hash(cookie: u64) -> u64 {
    let h = cookie.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ h >> 32
}

#[cfg(test)]
mod tests {
    use super::super::Tracker;
    use crate::{decode::Event, model::Observer};
    use tcptrace_common::record::{Closed, Head, Open};

    #[derive(Default)]
    struct Reported(u32);
    impl Observer for Reported {
        fn connection(&mut self, _: &crate::model::Connection, _: &crate::model::Final) {
            self.0 += 1;
        }
    }

    fn head(ts: u64, sock: u64, from: u8, to: u8) -> Head {
        Head { ts, sock, from, to, seq: ts as u16, ..Head::default() }
    }

    #[test]
    fn slots_are_used_again_and_cookies_found_across_chunks() {
        let (mut tracker, mut out) = (Tracker::new(), Reported::default());
        for round in 0..3 {
            let cookies = 1 + round * 5000..=(round + 1) * 5000;
            for sock in cookies.clone() {
                let open = Open { head: head(1, sock, 7, 2), ..Open::default() };
                tracker.event(&Event::Open(&open), &mut out);
            }
            assert_eq!(tracker.live(), 5000);
            for sock in cookies.rev() {
                let closed = Closed { head: head(2, sock, 2, 7), ..Closed::default() };
                tracker.event(&Event::Closed(&closed), &mut out);
            }
            assert_eq!((tracker.live(), u64::from(out.0)), (0, (round + 1) * 5000));
        }
        assert_eq!(tracker.table.chunks.len(), 5);
    }

    #[test]
    fn what_is_forgotten_is_never_reported() {
        let (mut tracker, mut out) = (Tracker::new(), Reported::default());
        tracker.event(&Event::Open(&Open { head: head(1, 5, 7, 2), ..Open::default() }), &mut out);
        tracker.event(&Event::State(&head(2, 6, 1, 8)), &mut out);
        let closed = Closed { head: head(3, 6, 8, 7), ..Closed::default() };
        tracker.event(&Event::Closed(&closed), &mut out);
        // One is open, the other waits for a RST that would explain its end.
        assert_eq!(tracker.live(), 2);
        tracker.forget(5);
        tracker.forget(6);
        tracker.forget(7);
        tracker.finish(10, &mut out);
        assert_eq!((tracker.live(), out.0), (0, 0));
    }
}
