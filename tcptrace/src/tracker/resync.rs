//! After a loss: rows of a fresh snapshot against what the tracker believes. What was not seen is marked, never made up.
//!
//! A timeline whose row has another state moves to that state, at a time that is not known. One that no row names, though its
//! network namespace was read, is over. Sockets that were not known enter with a gap. Rows come in the order of time with the
//! stream, so one that says no more than the stream did changes nothing.

use std::collections::HashSet;

use tcptrace_common::record::{Head, MiniSocket, Owned, Socket, Tuple};

use super::{Stats, Tracker, arcs, ending, holders::Holders, snapshot};
use crate::{
    frame::fact,
    model::{Connection, End, Entry, Final, Inferred, Observer, Patterns, Role, State, Transition},
};

/// What is kept until the rows are complete.
#[derive(Default)]
pub(super) struct Resync {
    /// Cookies of sockets that are there.
    named: HashSet<u64>,
    holders: Holders,
}

impl Tracker {
    /// The row of a socket.
    pub(super) fn resync_socket(&mut self, r: &Socket, out: &mut impl Observer) {
        let head = &r.head;
        let Some((state, _)) = self.states(head) else { return };
        if state == State::Close || head.sock == 0 {
            return;
        }
        self.resync.get_or_insert_default().named.insert(head.sock);
        let Some(slot) = self.table.find(head.sock) else { return self.discover(r, state, out) };
        let Some(c) = self.table.get_mut(slot) else { return };
        if head.ts <= latest(c) || stale(c, head) {
            return;
        }
        if c.notes.pending != u32::MAX {
            // Closed, and here it is again.
            self.supersede(slot, head.ts, out);
            return self.discover(r, state, out);
        }
        if another_life(c, r, state) {
            // What began since then must not pass for older than this end.
            self.conclude_unseen(slot, head.ts - 1, State::Close, out);
            return self.discover(r, state, out);
        }
        let ahead = catch_up(c, head, &mut self.stats);
        complete(&mut c.tuple, &r.tuple);
        snapshot::fill(c, r, state);
        let moved = c.state != state;
        if moved {
            if !ahead {
                missed_one(c, &mut self.stats);
            }
            if c.state == State::SynSent {
                c.notes.syn_retrans = u16::MAX;
            }
            self.stats.repaired += 1;
        }
        self.find_listener(slot, head.flags);
        if moved {
            self.jump(slot, head.ts, state, None, out);
        }
    }

    /// A process that has a socket open: wherever it is, it lives.
    pub(super) fn resync_holder(&mut self, r: &Owned, followed: bool) {
        let resync = self.resync.get_or_insert_default();
        resync.holders.add(r, followed, &mut self.processes);
        if r.head.sock != 0 && r.head.from != State::Close as u8 {
            resync.named.insert(r.head.sock);
        }
    }

    /// A half-open request, or what a connection left behind.
    pub(super) fn resync_mini(&mut self, r: &MiniSocket, state: State, out: &mut impl Observer) {
        let resync = self.resync.get_or_insert_default();
        if state == State::NewSynRecv {
            if let Some(before) = r.retrans.checked_sub(1) {
                self.half_open.synack(&r.tuple, before);
            }
            return;
        }
        resync.named.insert(r.head.sock);
        // Most belong to connections that are over.
        if let Some(slot) = self.table.find(r.head.sock)
            && let Some(c) = self.table.get_mut(slot)
            && c.notes.pending == u32::MAX
            && r.head.ts > latest(c)
        {
            complete(&mut c.tuple, &r.tuple);
            // Else it is what another life of the socket left.
            let follows = c.state == state || arcs::leads(c.state, state);
            self.conclude_unseen(slot, r.head.ts, if follows { state } else { State::Close }, out);
        }
    }

    /// Every row has come: who owns what, and which timelines are over.
    pub(super) fn resync_complete(&mut self, ts: u64, fact: &fact::Resync, out: &mut impl Observer) {
        let Resync { named, holders } = self.resync.take().map(|resync| *resync).unwrap_or_default();
        let mut slots: Vec<(u64, u32)> = self.table.slots().map(|(slot, c)| (c.id, slot)).collect();
        slots.sort_unstable();
        // Rows that came before the recording begins are missing: what has none may have had one.
        let whole = fact.begin >= self.cut.at;
        let covered: HashSet<u32> = fact.netns.iter().copied().filter(|_| whole).collect();
        for (_, slot) in slots {
            let Some(c) = self.table.get_mut(slot) else { continue };
            if c.cookie == 0 {
                continue;
            }
            if named.contains(&c.cookie) {
                // What was discovered is asked about here for the first time.
                let news = holders.adopt(c);
                if news || c.notes.discovered {
                    c.notes.discovered = false;
                    out.owner(c);
                }
                continue;
            }
            let unhashed = matches!(c.state, State::SynSent | State::SynRecv);
            let settled = latest(c).saturating_add(if unhashed { fact::Resync::UNHASHED_NS } else { 0 });
            let visible = whole && fact.all || c.tuple.family != 0 && covered.contains(&c.tuple.netns);
            if c.notes.pending == u32::MAX && settled < fact.begin && visible {
                self.conclude_unseen(slot, ts, State::Close, out);
            }
        }
    }

    /// A socket that was not known.
    fn discover(&mut self, r: &Socket, state: State, out: &mut impl Observer) {
        let head = &r.head;
        // What is older than the cut was told before it.
        let over = self.was_told(head.ts) || self.ended.covers(head.sock, head.ts);
        if over || self.is_nameless_child(&r.tuple, state) {
            return;
        }
        let Some(slot) = self.begin(head, state) else { return };
        let Some(c) = self.table.get_mut(slot) else { return };
        // Of all its records none was seen.
        let more = if c.preexisting { 0 } else { u32::from(head.seq).saturating_sub(c.gaps) };
        c.gaps += more;
        self.stats.gaps += u64::from(more);
        c.notes.numbered = head.seq != 0;
        c.notes.found = true;
        c.notes.discovered = true;
        snapshot::fill(c, r, state);
        if state == State::Listen {
            let tuple = c.tuple;
            self.listeners.add(&tuple, slot);
        }
        self.stats.discovered += 1;
        self.find_listener(slot, head.flags);
        if let Some(c) = self.table.get(slot) {
            out.owner(c);
        }
    }

    /// A timeline whose last transitions were lost is over at `ts`, or earlier: `to` is CLOSE, or the state of its remnant.
    fn conclude_unseen(&mut self, slot: u32, ts: u64, to: State, out: &mut impl Observer) {
        let Some(c) = self.table.get_mut(slot) else { return };
        missed_one(c, &mut self.stats);
        self.stats.concluded += 1;
        let end = match to {
            State::TimeWait => Some(End::Fin),
            State::FinWait2 => {
                c.patterns.0 |= Patterns::ORPHAN;
                c.inferred.0 |= Inferred::END;
                Some(End::Fin)
            }
            _ => {
                let end = ending::lost(c);
                c.inferred.0 |= if end.is_some() { Inferred::END } else { 0 };
                end
            }
        };
        self.jump(slot, ts, to, end, out);
        let Some(c) = self.table.get(slot) else { return };
        if c.role != Some(Role::Listener) {
            let stack = self.table.stack(slot);
            out.connection(c, &Final { late: true, stack, ..ending::conclude(c, ts, end, 0, None) });
        }
        self.remove(slot, ts);
    }

    /// Move a timeline to the state that it was found in at `ts`; no diagram knows which way it came.
    fn jump(&mut self, slot: u32, ts: u64, to: State, end: Option<End>, out: &mut impl Observer) {
        let Some(c) = self.table.get_mut(slot) else { return };
        let from = c.state;
        ending::note_state(c, to);
        if from != to {
            let at = ts.max(latest(c)).saturating_sub(c.start_ns);
            c.states.push(Entry { state: to, at, seen: false });
            c.state = to;
        }
        c.inferred.0 |= Inferred::TO;
        let inferred = Inferred(Inferred::TO | if end.is_some() { c.inferred.0 & Inferred::END } else { 0 });
        let t = Transition {
            ts,
            from,
            to,
            state_ns: None,
            kernel: None,
            errno: 0,
            end,
            flags: 0,
            sequence: None,
            inferred,
        };
        out.transition(c, &t);
    }
}

/// When the latest state was entered, or first known.
fn latest(c: &Connection) -> u64 {
    c.start_ns.saturating_add(c.states.last().map_or(0, |e| e.at))
}

/// How far the row's number is ahead of the last record's; None where a number is not known.
fn ahead(c: &Connection, head: &Head) -> Option<i16> {
    (c.notes.numbered && head.seq != 0).then(|| head.seq.wrapping_sub(c.notes.seq) as i16)
}

/// Has the stream said more than the row?
pub(super) fn stale(c: &Connection, head: &Head) -> bool {
    ahead(c, head).is_some_and(|ahead| ahead < 0)
}

/// The records between the last one and the row are lost, as far as numbers tell; are there any?
fn catch_up(c: &mut Connection, head: &Head, stats: &mut Stats) -> bool {
    let lost = ahead(c, head).map_or(0, |ahead| ahead.max(0) as u32);
    c.gaps = c.gaps.saturating_add(lost);
    stats.gaps += u64::from(lost);
    c.notes.row_numbered |= lost > 0;
    if head.seq != 0 {
        c.notes.seq = head.seq;
        c.notes.numbered = true;
    }
    lost > 0
}

/// A record of this timeline was lost that no number tells of.
fn missed_one(c: &mut Connection, stats: &mut Stats) {
    c.gaps = c.gaps.saturating_add(1);
    stats.gaps += 1;
}

/// Was the socket closed and used again? Then it has another peer, or is in a state that does not follow.
fn another_life(c: &Connection, r: &Socket, state: State) -> bool {
    let (a, b) = (&c.tuple, &r.tuple);
    let known = |t: &Tuple| t.rport != 0 && t.raddr != [0; 16];
    let moved = known(a) && known(b) && (a.raddr, a.rport) != (b.raddr, b.rport);
    moved || c.state != state && !arcs::leads(c.state, state)
}

/// Fill in what of both ends was not known.
fn complete(known: &mut Tuple, row: &Tuple) {
    if known.family == 0 {
        *known = *row;
        return;
    }
    if known.lport == 0 {
        known.lport = row.lport;
    }
    if known.rport == 0 || known.raddr == [0; 16] {
        known.laddr = row.laddr;
        known.raddr = row.raddr;
        known.rport = row.rport;
    }
}
