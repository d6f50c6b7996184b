//! Records of half-open requests: kept until the request is over, or with its child.

use tcptrace_common::{
    queue::{RequestEvent, outcome},
    record::{Head, Tuple, kind},
};
use zerocopy::FromBytes;

use super::{
    Carry,
    entry::{ENTRY, Entry, MARKS},
};
use crate::frame::Header;

impl Carry {
    pub(super) fn request_event(&mut self, record: &[u8], frame: &[u8]) {
        let Ok((r, _)) = RequestEvent::ref_from_prefix(record) else { return };
        match r.outcome {
            outcome::QUEUED => {
                if !self.is_same(r) {
                    self.take_request(&r.tuple);
                }
                self.request(r.tuple, r.head.ts, frame);
            }
            outcome::ACCEPT_QUEUE_FULL_ACK | outcome::MIGRATED if self.is_same(r) => {
                self.mark_request(r.tuple, r.head.ts, frame);
            }
            outcome::ACCEPT_QUEUE_FULL_ACK | outcome::MIGRATED => {}
            outcome::COMPLETED | outcome::COOKIE_COMPLETED | outcome::FAST_OPEN => {
                if self.sockets.contains_key(&r.child) {
                    let request = self.take_request(&r.tuple);
                    self.keep(&Head { sock: r.child, ..r.head }, frame);
                    request.iter().for_each(|request| self.join(r.child, request));
                } else {
                    // The child's own record says whose it is.
                    self.request(r.tuple, r.head.ts, frame).completed = true;
                }
            }
            outcome::CHILD_MIGRATED => self.keep(&Head { sock: r.child, ..r.head }, frame),
            // A SYN of which nothing was kept, or the end.
            _ if self.is_same(r) => drop(self.take_request(&r.tuple)),
            _ => {}
        }
    }

    /// Is it about the request that is known by these ends?
    pub(super) fn is_same(&self, r: &RequestEvent) -> bool {
        self.requests.get(&r.tuple).is_some_and(|entry| {
            let records = entry.each().map(|(_, frame)| &frame[size_of::<Header>()..]);
            let mut events = records.filter(|record| record.get(16) == Some(&kind::REQUEST_EVENT));
            let first = events.next().and_then(|record| RequestEvent::read_from_prefix(record).ok());
            first.is_none_or(|(first, _)| (first.rcv_isn, first.snt_isn) == (r.rcv_isn, r.snt_isn))
        })
    }

    /// A frame of a half-open request.
    pub(super) fn request(&mut self, tuple: Tuple, ts: u64, frame: &[u8]) -> &mut Entry {
        let order = self.order;
        let entry = self.requests.entry(tuple).or_insert_with(|| {
            self.taken += ENTRY;
            self.by_requests += ENTRY;
            self.oldest_requests.push_back((order, tuple));
            Entry { first: order, moved: ts, ..Entry::default() }
        });
        let before = entry.cost();
        entry.push(order, frame);
        self.taken += entry.cost() - before;
        self.by_requests += entry.cost() - before;
        entry
    }

    /// Something that happens to it again and again: there is an end to what is carried of that.
    pub(super) fn mark_request(&mut self, tuple: Tuple, ts: u64, frame: &[u8]) {
        if self.requests.get(&tuple).is_none_or(|entry| entry.marks < MARKS) {
            self.request(tuple, ts, frame).marks += 1;
        }
    }

    pub(super) fn take_request(&mut self, tuple: &Tuple) -> Option<Entry> {
        let entry = self.requests.remove(tuple)?;
        self.taken -= entry.cost();
        self.by_requests -= entry.cost();
        Some(entry)
    }
}
