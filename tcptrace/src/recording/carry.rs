//! What must be carried over a cut: frames that are let go of in, those of them that what follows cannot do without out.
//!
//! That is the start with what it says of the host, the clock, the cgroups, the stacks, the processes that are followed, the last totals of
//! listeners, and every frame of a socket or half-open request that is not over. A reader takes them like any others, in their order.
//! Nothing but facts is made here, with two exceptions: a mark beyond the 32nd of a socket is left out, and the numbers of its
//! records before that one are moved up, so that nothing seems to be lost; and the processes that are followed are told as if the first of
//! them had forked them all.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use tcptrace_common::record::{Forked, Head, Tuple, flag, kind};
use zerocopy::{FromBytes, IntoBytes};

use super::delta;
use crate::frame::{Frames, Header, fact};

mod entry;
mod facts;
mod requests;
mod sockets;

use entry::Entry;

/// Share of the room that half-open requests may take: a SYN flood is not to drive the connections out.
const REQUESTS_SHARE: u64 = 4;
/// A half-open request whose end never came is let go of after this, nanoseconds. So is a child without a cookie.
const FORGOTTEN_NS: u64 = 600_000_000_000;
/// No interval is longer, nanoseconds.
const INTERVAL_NS: u64 = 60_000_000_000;

/// What is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Frames, facts included.
    pub frames: u64,
    /// Kernel records.
    pub records: u64,
    /// Events that were lost among them.
    pub lost: u64,
    /// Sockets that were not over and of which nothing is carried.
    pub forgotten: u64,
    /// Half-open requests, likewise.
    pub requests: u64,
}

/// See the module.
pub struct Carry {
    start: Option<(u64, fact::Start)>,
    /// (order, frame): the clock at the start, and when it changed.
    clocks: Vec<(u64, Box<[u8]>)>,
    /// The end of the start snapshot.
    snapshot: Option<(u64, Box<[u8]>)>,
    /// The end of the latest of the later ones: nothing follows from rows that are missing here, for what did was done.
    resync: Option<(u64, Box<[u8]>)>,
    cgroups: BTreeMap<u64, Box<[u8]>>,
    stacks: BTreeMap<u64, Box<[u8]>>,
    /// Processes that are followed: those asked for, and all.
    roots: Vec<u32>,
    followed: BTreeMap<u32, bool>,
    sockets: HashMap<u64, Entry>,
    requests: HashMap<Tuple, Entry>,
    /// Children that have no cookie yet, by their addresses in the kernel.
    children: HashMap<u64, Entry>,
    /// Until the start snapshot is complete: who has sockets open that had no cookie then, and cookies, by inode number.
    holders: HashMap<u64, Entry>,
    inodes: HashMap<u64, u64>,
    /// Sockets but listeners, and requests, by their first frames; some are gone.
    oldest: VecDeque<(u64, u64)>,
    oldest_requests: VecDeque<(u64, Tuple)>,
    /// Listeners that are over: an interval may still tell of them.
    leaving: Vec<u64>,
    /// The latest rows of listeners and namespaces: what the next interval's totals are to be compared with.
    rows: BTreeMap<(u8, u64), Box<[u8]>>,
    /// The end of the latest interval, as one that only they are compared with, and when that was.
    interval: Option<(u64, Box<[u8]>)>,
    interval_ts: u64,
    /// Rows of an interval that is not complete.
    coming: Vec<(u64, Box<[u8]>)>,
    gone: Gone,
    forgotten_up_to: u64,
    /// Of the sockets that were forgotten those that were over, but that a row of the start snapshot may still have told of.
    forgotten_over: u64,
    /// Of the last frame.
    ts: u64,
    order: u64,
    /// Bytes that facts, sockets and requests take.
    facts: u64,
    taken: u64,
    by_requests: u64,
    limit: u64,
}

impl Carry {
    /// Of sockets and requests it takes no more than `limit` bytes: the oldest make room and are counted.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            start: None,
            clocks: Vec::new(),
            snapshot: None,
            resync: None,
            cgroups: BTreeMap::new(),
            stacks: BTreeMap::new(),
            roots: Vec::new(),
            followed: BTreeMap::new(),
            sockets: HashMap::new(),
            requests: HashMap::new(),
            children: HashMap::new(),
            holders: HashMap::new(),
            inodes: HashMap::new(),
            oldest: VecDeque::new(),
            oldest_requests: VecDeque::new(),
            leaving: Vec::new(),
            rows: BTreeMap::new(),
            interval: None,
            interval_ts: 0,
            coming: Vec::new(),
            gone: Gone::default(),
            forgotten_up_to: 0,
            forgotten_over: 0,
            ts: 0,
            order: 0,
            facts: 0,
            taken: 0,
            by_requests: 0,
            limit,
        }
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.facts + self.taken
    }

    /// What was absorbed.
    #[must_use]
    pub fn gone(&self) -> Gone {
        self.gone
    }

    /// CLOCK_MONOTONIC nanoseconds: of the last frame that was absorbed.
    #[must_use]
    pub fn until(&self) -> u64 {
        self.ts
    }

    /// Sockets of which something is carried.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Take whole frames that go.
    pub fn absorb(&mut self, words: &[u64]) {
        let mut at = 0;
        while let Some(len) = delta::frame_len(words, at) {
            let frame = words[at..at + len].as_bytes();
            let record = &frame[size_of::<Header>()..][..words[at] as u32 as usize];
            at += len;
            self.order += 1;
            self.gone.frames += 1;
            let Ok((head, _)) = Head::ref_from_prefix(record) else { continue };
            if head.kind < fact::kind::START {
                self.gone.records += 1;
                // Rows are older than what they come after.
                self.ts = self.ts.max(head.ts);
                self.record(head, record, frame);
            } else {
                self.ts = self.ts.max(head.ts);
                self.fact(head, record, frame);
            }
        }
        self.make_room();
    }

    /// The beginning of what follows the cut; empty if nothing was absorbed.
    #[must_use]
    pub fn frames(&self) -> Frames {
        let Some((ts, start)) = &self.start else { return Frames::default() };
        let mut frames = Frames::with_capacity(self.held() as usize);
        let Gone { records, lost, forgotten, .. } = self.gone;
        let cut = fact::Cut { at: self.ts, records, lost, forgotten, forgotten_up_to: self.forgotten_up_to };
        frames.push_fact(fact::kind::START, *ts, &fact::Start { cut: Some(cut), ..start.clone() });
        let mut clocks = self.clocks.iter();
        if let Some((_, frame)) = clocks.next() {
            frames.extend(frame);
        }
        self.cgroups.values().chain(self.stacks.values()).for_each(|frame| frames.extend(frame));
        self.push_followed(*ts, &mut frames);
        let entries = self.sockets.values().chain(self.requests.values());
        let entries = entries.chain(self.children.values()).chain(self.holders.values());
        let mut order: Vec<(u64, &[u8])> = entries.flat_map(Entry::each).collect();
        let interval = self.interval.iter().map(|(order, _)| *order);
        order.extend(interval.flat_map(|order| self.rows.values().map(move |frame| (order, &**frame))));
        let facts = clocks.chain(&self.snapshot).chain(&self.resync).chain(&self.interval).chain(&self.coming);
        order.extend(facts.map(|(order, frame)| (*order, &**frame)));
        order.sort_by_key(|(order, _)| *order);
        order.iter().for_each(|(_, frame)| frames.extend(frame));
        frames.push_fact(fact::kind::TICK, self.ts, &());
        frames
    }

    /// The processes that are followed, as forks of one of those asked for.
    fn push_followed(&self, ts: u64, frames: &mut Frames) {
        let Some(&parent) = self.roots.first() else { return };
        let mut fork = |parent: u32, child: u32| {
            let head = Head { ts, kind: kind::FORKED, flags: flag::SEQ_ABSENT, ..Head::default() };
            frames.push(0, Forked { head, parent, child }.as_bytes());
        };
        let others = self.followed.iter().filter(|(pid, _)| **pid != parent);
        others.filter(|(_, is)| **is).for_each(|(&pid, _)| fork(parent, pid));
        // Numbers that others have now.
        let is_not = |pid: &&u32| self.followed.get(pid) == Some(&false);
        self.roots.iter().rev().filter(is_not).for_each(|&pid| fork(0, pid));
    }

    /// A second has passed.
    fn expire(&mut self, now: u64) {
        let old = |entry: &Entry| entry.moved.saturating_add(FORGOTTEN_NS) < now;
        while let Some(&(order, tuple)) = self.oldest_requests.front() {
            match self.requests.get(&tuple) {
                Some(entry) if entry.first == order && !old(entry) => break,
                Some(entry) if entry.first == order => drop(self.take_request(&tuple)),
                Some(_) | None => {}
            }
            self.oldest_requests.pop_front();
        }
        // Intervals come every few seconds, if at all.
        self.forget_leaving(now.saturating_sub(INTERVAL_NS));
        let Self { children, taken, .. } = self;
        children.retain(|_, child| {
            *taken -= if old(child) { child.cost() } else { 0 };
            !old(child)
        });
    }

    /// Keep to the limit, and the lists of the oldest to what there is.
    fn make_room(&mut self) {
        while self.by_requests > self.limit / REQUESTS_SHARE
            && let Some((order, tuple)) = self.oldest_requests.pop_front()
        {
            if self.requests.get(&tuple).is_some_and(|entry| entry.first == order) {
                self.take_request(&tuple);
                self.gone.requests += 1;
            }
        }
        while self.taken > self.limit
            && let Some((order, cookie)) = self.oldest.pop_front()
        {
            if let Some(entry) = self.sockets.get(&cookie).filter(|entry| entry.first <= order) {
                self.forgotten_over += u64::from(entry.over);
                self.remove(cookie);
                self.gone.forgotten += 1;
                self.forgotten_up_to = self.forgotten_up_to.max(cookie);
            }
        }
        if self.oldest.len() > 2 * self.sockets.len() + 1024 {
            let sockets = &self.sockets;
            self.oldest.retain(|(order, cookie)| sockets.get(cookie).is_some_and(|entry| entry.first <= *order));
        }
        if self.oldest_requests.len() > 2 * self.requests.len() + 1024 {
            let requests = &self.requests;
            self.oldest_requests.retain(|(order, tuple)| requests.get(tuple).is_some_and(|e| e.first == *order));
        }
    }
}

impl std::fmt::Debug for Carry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carry")
            .field("sockets", &self.sockets.len())
            .field("requests", &self.requests.len())
            .field("gone", &self.gone)
            .finish_non_exhaustive()
    }
}
