//! The start snapshot: sockets that existed before the stream of records, merged with it by cookie and time.
//!
//! A row makes a timeline at once, so that records which follow find it, but is reported only when its owner can be known:
//! when the snapshot is complete, or right before the first change of the socket.

use std::collections::{HashMap, HashSet};

use tcptrace_common::record::{MiniSocket, Owned, Socket, Tuple, flag};

use super::{Tracker, ending, holders::Holders, moves, owners};
use crate::{
    frame::fact,
    model::{Connection, Found, Inferred, Mini, Observer, Role, State},
};

/// What is kept until the snapshot is complete.
#[derive(Default)]
pub(super) struct Start {
    rows: Vec<Row>,
    /// Cookie → place in `rows` of one that was not reported.
    unreported: HashMap<u64, usize>,
    pub(super) holders: Holders,
    /// Cookies whose timelines ended: a row of one is older than its end.
    ended: HashSet<u64>,
    mini: HashSet<(Tuple, u64)>,
}

struct Row {
    cookie: u64,
    found: Found,
    jiffies: u32,
    active: u32,
    flags: u16,
}

impl Start {
    /// Is there a row of this socket that was not reported?
    pub fn has_row(&self, cookie: u64) -> bool {
        self.unreported.contains_key(&cookie)
    }

    pub fn ended(&mut self, cookie: u64) {
        self.ended.insert(cookie);
        self.unreported.remove(&cookie);
    }
}

impl Tracker {
    /// A socket that existed before the trace (a row), or (FOUND) when something happened to it for the first time.
    pub(super) fn socket(&mut self, r: &Socket) {
        let head = &r.head;
        let Some((state, _)) = self.states(head) else { return };
        if state == State::Close || head.sock == 0 {
            return;
        }
        let known = self.table.find(head.sock);
        let slot = match known {
            Some(slot) => slot,
            None if self.start.as_ref().is_some_and(|s| s.ended.contains(&head.sock)) => return,
            None if self.is_nameless_child(&r.tuple, state) => return,
            None => {
                let Some(slot) = self.begin(head, state) else { return };
                slot
            }
        };
        let Some(c) = self.table.get_mut(slot) else { return };
        // Nothing that the stream said is changed by a row; a timeline whose birth was seen is no concern of the snapshot's.
        if c.notes.born || c.notes.found {
            return;
        }
        // First seen in the stream long after the start: older than the trace and overlooked by the snapshot, or its first
        // records were missed. Nobody can tell, so it counts as a timeline with a gap.
        let overlooked = self.start.is_none();
        c.preexisting |= !overlooked;
        c.notes.found = known.is_none();
        if known.is_none() {
            if !overlooked {
                self.stats.gaps -= u64::from(c.gaps);
                c.gaps = 0;
            }
            c.notes.seq = head.seq;
            c.notes.numbered = true;
        }
        fill(c, r, state);
        if state == State::Listen && c.state == State::Listen {
            let tuple = c.tuple;
            self.listeners.add(&tuple, slot);
        }
        let Some(start) = &mut self.start else { return };
        let row = Row {
            cookie: head.sock,
            found: found(r, state),
            jiffies: r.jiffies,
            active: if state == State::Listen { 0 } else { r.active },
            flags: head.flags,
        };
        if !start.unreported.contains_key(&head.sock) {
            start.unreported.insert(head.sock, start.rows.len());
            start.rows.push(row);
        }
    }

    /// A child that was born without a cookie has a timeline already, which ESTABLISHED will find.
    pub(super) fn is_nameless_child(&self, tuple: &Tuple, state: State) -> bool {
        let at =
            |slot| self.table.get(slot).is_some_and(|c| (c.tuple.netns, c.tuple.lport) == (tuple.netns, tuple.lport));
        state == State::SynRecv && self.half_open.children().any(at)
    }

    /// A process that has a socket open.
    pub(super) fn holder(&mut self, r: &Owned) {
        let followed = self.followed.has(r.owner.pid);
        match &mut self.start {
            Some(start) => start.holders.add(r, followed, &mut self.processes),
            None => self.resync_holder(r, followed),
        }
    }

    /// A half-open request or a TIME_WAIT remnant that exists.
    pub(super) fn mini_socket(&mut self, r: &MiniSocket, out: &mut impl Observer) {
        let Some((state, _)) = self.states(&r.head) else { return };
        let cookie = r.head.sock;
        let Some(start) = &mut self.start else { return self.resync_mini(r, state, out) };
        if cookie != 0 && start.ended.contains(&cookie) || !start.mini.insert((r.tuple, cookie)) {
            return;
        }
        if self.table.find(cookie).is_some() {
            return;
        }
        if self.requests.get(&r.tuple).is_some() && state == State::NewSynRecv || self.remnants.contains(cookie) {
            return;
        }
        self.ids += 1;
        self.keep_mini(r, state);
        out.mini_socket(&Mini { ts: r.head.ts, id: self.ids, cookie, state, tuple: r.tuple, retrans: r.retrans });
    }

    /// Every row has come.
    pub(super) fn snapshot_complete(&mut self, ts: u64, fact: &fact::Snapshot, out: &mut impl Observer) {
        match &fact.resync {
            Some(resync) if self.start.is_none() => self.resync_complete(ts, resync, out),
            _ => self.report_rows(fact.hz, out),
        }
    }

    /// Report what was not yet reported, in the order of time, and go on without a snapshot.
    pub(super) fn report_rows(&mut self, hz: u32, out: &mut impl Observer) {
        let Some(start) = &mut self.start else { return };
        let mut rows = std::mem::take(&mut start.rows);
        let unreported = std::mem::take(&mut start.unreported);
        let mut order: Vec<usize> = unreported.into_values().collect();
        order.sort_unstable_by_key(|&i| rows.get(i).map(|row| (row.found.ts, i)));
        // A listener's owner is its children's.
        for row in order.iter().filter_map(|&i| rows.get(i)) {
            self.adopt(row.cookie);
        }
        for i in order {
            if let Some(row) = rows.get_mut(i) {
                self.report_found(row, hz, out);
            }
        }
        self.adopt_changed(out);
        self.start = None;
    }

    /// Report the row of a socket before its first change.
    #[inline]
    pub(super) fn report_row(&mut self, cookie: u64, out: &mut impl Observer) {
        if self.start.is_some() {
            self.report_row_now(cookie, out);
        }
    }

    fn report_row_now(&mut self, cookie: u64, out: &mut impl Observer) {
        let Some(start) = &mut self.start else { return };
        let Some(i) = start.unreported.remove(&cookie) else { return };
        let Some(row) = start.rows.get(i) else { return };
        let row = Row { ..*row };
        self.adopt(cookie);
        self.report_found(&row, 0, out);
    }

    /// Give a socket the process that has it open.
    fn adopt(&mut self, cookie: u64) -> bool {
        let (Some(start), Some(slot)) = (&self.start, self.table.find(cookie)) else { return false };
        self.table.get_mut(slot).is_some_and(|c| start.holders.adopt(c))
    }

    /// Holders of sockets that the stream told of first.
    fn adopt_changed(&mut self, out: &mut impl Observer) {
        let Some(start) = &self.start else { return };
        let ownerless = |cookie: &u64| {
            self.table.find(*cookie).and_then(|slot| self.table.get(slot)).is_some_and(|c| c.owner.is_none())
        };
        let cookies: Vec<u64> = start.holders.cookies().filter(ownerless).collect();
        for cookie in cookies {
            if self.adopt(cookie)
                && let Some(c) = self.table.find(cookie).and_then(|slot| self.table.get(slot))
            {
                out.owner(c);
            }
        }
    }

    /// A connection whose role is not known is a server if there is a listener that it can be a child of.
    pub(super) fn find_listener(&mut self, slot: u32, flags: u16) {
        let Some(c) = self.table.get(slot) else { return };
        let listener = if c.role.is_none() { self.listeners.find(&self.table, &c.tuple) } else { None };
        let Some(c) = self.table.get_mut(slot) else { return };
        if let Some(listener) = listener {
            moves::set_role(c, Role::Server);
            c.inferred.0 |= Inferred::ROLE;
            // Without a `struct socket` and not orphaned: it waits in the accept queue.
            if flags & flag::NO_SOCKET != 0 && flags & flag::DEAD == 0 {
                owners::inherit(c, listener);
            }
        }
        ending::note_self_connect(c);
    }

    fn report_found(&mut self, row: &Row, hz: u32, out: &mut impl Observer) {
        let Some(slot) = self.table.find(row.cookie) else { return };
        self.find_listener(slot, row.flags);
        let Some(c) = self.table.get(slot) else { return };
        let idle = (row.active != 0 && hz != 0).then(|| {
            let ticks = row.jiffies.wrapping_sub(row.active) as i32;
            u64::from(ticks.max(0) as u32) * 1_000_000 / u64::from(hz)
        });
        out.socket(c, &Found { idle_us: idle, ..row.found });
    }
}

/// What a row says of the moment when it was read, but for how long nothing had happened.
pub(super) fn found(r: &Socket, state: State) -> Found {
    Found {
        ts: r.head.ts,
        unread: r.counters.unread,
        unsent: r.counters.unsent,
        idle_us: None,
        syn_queue: (state == State::Listen).then_some(r.syn_queue),
        counters: r.counters,
    }
}

/// Let a row add what the stream did not say.
pub(super) fn fill(c: &mut Connection, r: &Socket, state: State) {
    if c.tuple.family == 0 {
        c.tuple = r.tuple;
    }
    let shaken = !matches!(state, State::Listen | State::SynSent | State::SynRecv | State::NewSynRecv);
    if c.handshake.is_none() && shaken {
        c.handshake = Some(r.handshake);
        if c.role == Some(Role::Server) {
            // Makes the number of a passive open the true one.
            c.role = None;
            moves::set_role(c, Role::Server);
        }
    }
    if c.inode == 0 {
        c.inode = r.inode;
    }
}
