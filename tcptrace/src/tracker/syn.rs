//! What becomes of a SYN: half-open requests, and how each joins the timeline of its child.
//!
//! The record of a child's birth, of its request's completion and of ESTABLISHED can come in any order, and each can be lost.
//! Whichever comes first and names both ends lets the child *claim* the request: it shows the request's timeline as its own, under
//! the request's number. Two CPUs can clone one request (a phantom child); the record of completion says which child it was.

use std::sync::Arc;

use tcptrace_common::{
    queue::{RequestEvent, depth, outcome},
    record::{Head, SynAck, Tuple, option},
};

use super::{Tracker, moves, requests::Entry};
use crate::model::{Connection, Detail, Inferred, Observer, Outcome, Process, Request, Role, State, Timeline};

impl Tracker {
    /// Something happened to a SYN, a half-open request or at the final ACK.
    pub(super) fn request_event(&mut self, r: &RequestEvent, out: &mut impl Observer) {
        self.requests.heard = true;
        match r.outcome {
            outcome::QUEUED => self.queued(r, out),
            outcome::COMPLETED | outcome::COOKIE_COMPLETED | outcome::FAST_OPEN => self.became(r, out),
            outcome::COOKIE_SENT => self.no_request(r, Outcome::CookieSent, out),
            outcome::SYN_QUEUE_FULL => self.no_request(r, Outcome::SynQueueFull, out),
            outcome::ACCEPT_QUEUE_FULL_SYN => self.no_request(r, Outcome::AcceptQueueFullSyn, out),
            outcome::ACCEPT_QUEUE_FULL_ACK => self.overflowed(r, out),
            outcome::RST => self.gone(r, Outcome::Rst, None, out),
            outcome::SYNACK_TIMEOUT => self.gone(r, Outcome::SynAckTimeout, None, out),
            outcome::LISTENER_CLOSED => self.gone(r, Outcome::Other, Some(Detail::ListenerClosed), out),
            outcome::ABORTED => self.gone(r, Outcome::AcceptQueueFullAck, Some(Detail::Aborted), out),
            outcome::ICMP_ERROR => self.gone(r, Outcome::Other, Some(Detail::IcmpError), out),
            outcome::OTHER => self.gone(r, Outcome::Other, None, out),
            outcome::MIGRATED => self.migrated(r, out),
            outcome::CHILD_MIGRATED => self.child_migrated(r, out),
            _ => self.stats.nonsense += 1,
        }
    }

    /// The SYN-ACK of a request was sent again.
    pub(super) fn synack_retransmit(&mut self, r: &SynAck) {
        match self.requests.get_mut(&r.tuple) {
            Some(entry) => entry.retrans = entry.retrans.max(count(r.retrans.saturating_add(1))),
            None => self.half_open.synack(&r.tuple, r.retrans),
        }
    }

    /// The entry of the request that a record is about; one with the same ends that it has outlived is over.
    fn entry(&mut self, r: &RequestEvent, out: &mut impl Observer) -> Option<Entry> {
        let entry = *self.requests.get(&r.tuple)?;
        let same = !entry.isn_known || (entry.rcv_isn, entry.snt_isn) == (r.rcv_isn, r.snt_isn);
        if same {
            return Some(entry);
        }
        if r.head.ts > entry.since && (r.since == 0 || r.since / 1000 > entry.since / 1000) {
            self.give_up(&entry, r.head.ts, out);
        }
        None
    }

    /// The end of a request was not seen.
    fn give_up(&mut self, entry: &Entry, ts: u64, out: &mut impl Observer) {
        self.requests.remove(&entry.tuple);
        if entry.claimant().is_none() && entry.completed == 0 {
            let r = RequestEvent {
                head: Head { ts, sock: entry.listener, ..Head::default() },
                tuple: entry.tuple,
                rcv_isn: entry.rcv_isn,
                snt_isn: entry.snt_isn,
                ..RequestEvent::default()
            };
            let told = Told { over: true, ..Told::of(entry) };
            self.tell(&r, None, told, out);
        }
    }

    /// A new entry for the request of a record that is not its first.
    fn entry_since(&mut self, r: &RequestEvent) -> Entry {
        self.ids += 1;
        // The time of its first SYN-ACK has microseconds; it is not later than anything that the record tells.
        let since = if r.since == 0 { r.head.ts } else { r.since.min(r.head.ts) };
        Entry { inferred: true, ..self.entry_of(r, since) }
    }

    fn entry_of(&self, r: &RequestEvent, since: u64) -> Entry {
        Entry {
            listener: r.head.sock,
            rcv_isn: r.rcv_isn,
            snt_isn: r.snt_isn,
            isn_known: true,
            retrans: r.retrans,
            ..Entry::new(r.tuple, self.ids, since)
        }
    }

    fn queued(&mut self, r: &RequestEvent, out: &mut impl Observer) {
        self.reuse(&r.tuple, r.head.ts, out);
        let entry = match self.entry(r, out) {
            Some(known) => {
                // Its first record comes late: now its begin is known.
                let entry = self.requests.get_mut(&r.tuple);
                if let Some(entry) = entry.filter(|e| e.inferred) {
                    entry.since = r.head.ts;
                    entry.inferred = false;
                }
                known
            }
            None if self.requests.get(&r.tuple).is_some() => return self.stats.late += 1,
            None => {
                self.ids += 1;
                let entry = self.entry_of(r, r.head.ts);
                self.requests.insert(entry);
                entry
            }
        };
        self.tell(r, Some(Outcome::Queued), Told::of(&entry), out);
    }

    /// It became a connection: by the final ACK, by a cookie, by Fast Open.
    fn became(&mut self, r: &RequestEvent, out: &mut impl Observer) {
        let by_cookie = r.outcome == outcome::COOKIE_COMPLETED;
        let half_open = r.outcome == outcome::COMPLETED;
        let known = if half_open { self.entry(r, out) } else { None };
        if r.outcome == outcome::FAST_OPEN && r.child != 0 && self.table.find(r.child).is_none() {
            // Born without a cookie, and about to be accepted by it.
            if let Some(slot) = self.half_open.take_child(r.addr) {
                self.table.set_cookie(slot, r.child);
                self.tell_child(slot, &r.tuple, out);
            }
        }
        let by_address = || if r.outcome == outcome::FAST_OPEN { self.half_open.child(r.addr) } else { None };
        let slot = self.table.find(r.child).or_else(by_address).filter(|&slot| self.is_child(slot));
        let ts = r.head.ts;
        let mut told = match (slot, known) {
            (Some(slot), known) => {
                if let Some(mut entry) = known {
                    entry.retrans = entry.retrans.max(r.retrans);
                    self.requests.remove(&r.tuple);
                    self.settle_claim(slot, &entry);
                    // It was born and told of before its request.
                    self.join(slot, &entry, false);
                } else if half_open && r.since != 0 {
                    let entry = Entry { since: r.since, inferred: true, ..self.entry_of(r, r.since) };
                    self.join(slot, &entry, false);
                }
                if let Some(c) = self.table.get_mut(slot) {
                    enter_queue(c, ts);
                    c.notes.cookie |= by_cookie;
                    if let Some(handshake) = c.handshake.as_mut().filter(|_| by_cookie) {
                        handshake.options |= option::SYNCOOKIE;
                    }
                }
                let id = self.table.get(slot).map_or(0, |c| c.id);
                Told { id, ..known.as_ref().map_or_else(Told::default, Told::of) }
            }
            (None, known) => {
                let entry = known.unwrap_or_else(|| self.entry_since(r));
                let prefix = half_open && (known.is_some() || r.since != 0);
                let entry = Entry { child: r.child, completed: ts, prefix, by_cookie, ..entry };
                self.requests.remove(&r.tuple);
                if self.half_open.seen() && !self.ended.covers(r.child, ts) {
                    self.requests.insert(entry);
                }
                Told::of(&entry)
            }
        };
        if known.is_none() {
            told.since = (r.since != 0).then_some(r.since);
            told.inferred = r.since != 0;
        }
        told.over = true;
        told.detail = (r.outcome == outcome::FAST_OPEN).then_some(Detail::FastOpen);
        let what = if by_cookie { Outcome::CookieCompleted } else { Outcome::Completed };
        self.tell(r, Some(what), told, out);
    }

    /// A SYN of which nothing was kept.
    fn no_request(&mut self, r: &RequestEvent, what: Outcome, out: &mut impl Observer) {
        self.ids += 1;
        let told = Told { id: self.ids, since: Some(r.head.ts), over: true, ..Told::default() };
        self.tell(r, Some(what), told, out);
    }

    fn overflowed(&mut self, r: &RequestEvent, out: &mut impl Observer) {
        let entry = match self.entry(r, out) {
            Some(entry) => entry,
            // The ACK of a cookie: no request stays.
            None if r.since == 0 || self.requests.get(&r.tuple).is_some() => {
                return self.no_request(r, Outcome::AcceptQueueFullAck, out);
            }
            None => {
                let entry = self.entry_since(r);
                self.requests.insert(entry);
                entry
            }
        };
        if let Some(entry) = self.requests.get_mut(&r.tuple) {
            entry.overflowed = true;
        }
        self.tell(r, Some(Outcome::AcceptQueueFullAck), Told::of(&entry), out);
    }

    /// The request is gone, and is no connection.
    fn gone(&mut self, r: &RequestEvent, what: Outcome, detail: Option<Detail>, out: &mut impl Observer) {
        let told = match self.entry(r, out) {
            Some(entry) => {
                self.requests.remove(&r.tuple);
                let overflowed = entry.overflowed.then_some(Detail::Overflowed);
                Told { detail: detail.or(overflowed), ..Told::of(&entry) }
            }
            // A SYN for which no request could be made.
            None if r.addr == 0 => return self.no_request(r, what, out),
            None => Told { detail, ..Told::of(&self.entry_since(r)) },
        };
        self.tell(r, Some(what), Told { over: true, ..told }, out);
    }

    /// It went to another listener of its group: of the SYN queue, or (no entry) of the accept queue.
    fn migrated(&mut self, r: &RequestEvent, out: &mut impl Observer) {
        let told = match self.entry(r, out) {
            Some(entry) => Told::of(&entry),
            None => Told::of(&self.entry_since(r)),
        };
        if let Some(entry) = self.requests.get_mut(&r.tuple) {
            entry.listener = r.child;
        }
        let mut moved = *r;
        moved.head.sock = r.child;
        moved.child = 0;
        self.tell(&moved, Some(Outcome::Queued), Told { detail: Some(Detail::Migrated), ..told }, out);
    }

    /// A connection that waits to be accepted goes on at another listener.
    fn child_migrated(&mut self, r: &RequestEvent, out: &mut impl Observer) {
        let child = self.table.find(r.child).and_then(|slot| self.table.get(slot));
        let told = match child {
            Some(c) => Told {
                id: c.id,
                since: Some(c.start_ns),
                detail: None,
                retrans: r.retrans,
                over: false,
                preexisting: c.preexisting,
                inferred: c.inferred.0 & Inferred::START != 0,
            },
            None => Told::of(&self.entry_since(r)),
        };
        let mut moved = *r;
        moved.head.sock = r.addr;
        self.tell(&moved, Some(Outcome::Completed), Told { detail: Some(Detail::Migrated), ..told }, out);
    }

    fn tell(&mut self, r: &RequestEvent, what: Option<Outcome>, told: Told, out: &mut impl Observer) {
        let known = |bit: u8| r.known & bit != 0;
        out.request(&Request {
            ts: r.head.ts,
            id: told.id,
            child: r.child,
            listener: r.head.sock,
            owner: self.owner_of(r.head.sock, &r.tuple),
            tuple: r.tuple,
            outcome: what,
            detail: told.detail,
            over: told.over,
            synack_retrans: u32::from(told.retrans.max(r.retrans)),
            rcv_isn: Some(r.rcv_isn),
            snt_isn: (r.snt_isn != 0 || r.addr != 0).then_some(r.snt_isn),
            age_ns: told.since.filter(|_| !told.preexisting).map(|since| r.head.ts.saturating_sub(since)),
            syn_queue: known(depth::SYN_QUEUE).then_some((r.syn_queue, r.young)),
            accept_queue: known(depth::ACCEPT_QUEUE).then_some(r.accept_queue),
            limit: (r.known != 0).then_some(r.limit),
            preexisting: told.preexisting,
            inferred: Inferred(if told.inferred { Inferred::START } else { 0 }),
        });
    }

    fn owner_of(&self, listener: u64, tuple: &Tuple) -> Option<Arc<Process>> {
        match self.table.find(listener).and_then(|slot| self.table.get(slot)) {
            Some(c) => c.owner.clone(),
            None => self.listeners.find(&self.table, tuple)?.owner,
        }
    }

    fn is_child(&self, slot: u32) -> bool {
        self.table.get(slot).is_some_and(|c| !matches!(c.role, Some(Role::Client | Role::Listener)))
    }

    /// A child that was just born shows its request's timeline, if it is the first. True: it does.
    pub(super) fn claim(&mut self, slot: u32, tuple: &Tuple) -> bool {
        let Some(&entry) = self.requests.get(tuple) else { return false };
        if entry.claimant().is_some() || !self.is_child(slot) {
            return false;
        }
        self.requests.claim(tuple, Some(slot));
        self.join(slot, &entry, true);
        self.table.get(slot).is_some_and(|c| c.notes.joined)
    }

    /// A child is established: the request is its own, whichever child showed it so far. `told`: the child has been told of.
    pub(super) fn established_child(&mut self, slot: u32, tuple: &Tuple, told: bool) {
        let Some(entry) = self.requests.get(tuple) else { return };
        if entry.child != 0 && self.table.get(slot).is_some_and(|c| c.cookie != entry.child) {
            // A record that is late, of an older connection with the same ends.
            return;
        }
        if !self.is_child(slot) {
            return;
        }
        let Some(entry) = self.requests.remove(tuple) else { return };
        self.settle_claim(slot, &entry);
        self.join(slot, &entry, !told);
    }

    /// The request is `slot`'s. Another child that showed it takes the number that `slot` had, and its own time.
    fn settle_claim(&mut self, slot: u32, entry: &Entry) {
        let Some(other) = entry.claimant().filter(|&other| other != slot) else { return };
        let Some(id) = self.table.get(slot).map(|c| c.id) else { return };
        let Some(loser) = self.table.get_mut(other).filter(|c| c.notes.joined && c.id == entry.id) else { return };
        part(loser);
        loser.id = id;
        if let Some(c) = self.table.get_mut(slot) {
            c.id = entry.id;
        }
    }

    /// Put the request's time before the child's; `number`: the child takes the request's number, too.
    fn join(&mut self, slot: u32, entry: &Entry, number: bool) {
        let Some(c) = self.table.get_mut(slot) else { return };
        moves::raise_synacks(c, u32::from(entry.retrans));
        c.notes.cookie |= entry.by_cookie;
        if entry.completed != 0 {
            enter_queue(c, entry.completed);
        }
        if number {
            c.id = entry.id;
        }
        let has = c.notes.joined || c.states.iter().any(|(state, _)| state == State::NewSynRecv);
        if !has && entry.prefix {
            prefix(c, entry);
        }
        c.notes.joined = true;
    }

    /// A child is forgotten. If it showed a request that is not settled, another may (`again`), or none.
    pub(super) fn disclaim(&mut self, slot: u32, again: bool) {
        let Some(c) = self.table.get(slot).filter(|c| c.notes.joined) else { return };
        let tuple = c.tuple;
        if self.requests.get(&tuple).is_some_and(|e| e.claimant() == Some(slot)) {
            if again {
                self.requests.claim(&tuple, None);
            } else {
                self.requests.remove(&tuple);
            }
        }
    }
}

/// What is told of a request beside its record.
#[derive(Clone, Copy, Default)]
struct Told {
    id: u64,
    since: Option<u64>,
    detail: Option<Detail>,
    retrans: u8,
    over: bool,
    preexisting: bool,
    inferred: bool,
}

impl Told {
    fn of(entry: &Entry) -> Self {
        Self {
            id: entry.id,
            since: Some(entry.since),
            detail: None,
            retrans: entry.retrans,
            over: false,
            preexisting: entry.preexisting,
            inferred: entry.inferred,
        }
    }
}

/// NEW_SYN_RECV comes first.
fn prefix(c: &mut Connection, entry: &Entry) {
    let start = entry.since.min(c.start_ns);
    let shift = c.start_ns - start;
    let first = crate::model::Entry { state: State::NewSynRecv, at: 0, seen: !entry.preexisting };
    let rest = c.states.entries().map(|e| crate::model::Entry { at: e.at.saturating_add(shift), ..e });
    c.states = Timeline::collect(std::iter::once(first).chain(rest.collect::<Vec<_>>()));
    c.start_ns = start;
    c.preexisting |= entry.preexisting;
    if entry.inferred && !entry.preexisting {
        c.inferred.0 |= Inferred::START;
    }
}

/// The opposite.
fn part(c: &mut Connection) {
    c.notes.joined = false;
    c.inferred.0 &= !Inferred::START;
    let mut entries: Vec<_> = c.states.entries().collect();
    if entries.first().is_none_or(|e| e.state != State::NewSynRecv) || entries.len() < 2 {
        return;
    }
    entries.remove(0);
    let shift = entries.first().map_or(0, |e| e.at);
    c.states = Timeline::collect(entries.into_iter().map(|e| crate::model::Entry { at: e.at - shift, ..e }));
    c.start_ns = c.start_ns.saturating_add(shift);
}

/// The child went into the accept queue.
fn enter_queue(c: &mut Connection, ts: u64) {
    if !c.notes.accepted {
        c.notes.accept_wait = ts;
        c.notes.in_queue = true;
    }
}

fn count(n: u32) -> u8 {
    n.min(u32::from(u8::MAX)) as u8
}
