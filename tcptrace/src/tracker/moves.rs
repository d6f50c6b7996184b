//! Transitions: in order, after others that were lost, and late.

use tcptrace_common::record::{self, Closed, Established, Head, flag, option};

use super::{
    Stats, Tracker,
    ending::{self, Verdict},
    owners,
    pending::Waiting,
};
use crate::model::{
    CloseSegments, Connection, End, Entry, Inferred, Observer, Patterns, Role, Sequence, State, Timeline, Transition,
};

/// What a record says beside its head.
#[derive(Clone, Copy)]
pub(super) enum Detail<'a> {
    None,
    Sequence(&'a record::Sequence),
    Established(&'a Established),
    Closed(&'a Closed),
}

impl Detail<'_> {
    /// The sequence numbers that the record has.
    fn sequence(self) -> Option<Sequence> {
        match self {
            Self::Sequence(r) => Some(Sequence {
                snd_una: r.snd_una,
                snd_nxt: Some(r.snd_nxt),
                write_seq: r.write_seq,
                rcv_nxt: Some(r.rcv_nxt),
            }),
            // 0: not there.
            Self::Closed(r) if r.snd_una != 0 => Some(Sequence {
                snd_una: r.snd_una,
                snd_nxt: None,
                write_seq: r.snd_una.wrapping_add(r.counters.unsent),
                rcv_nxt: None,
            }),
            Self::None | Self::Established(_) | Self::Closed(_) => None,
        }
    }
}

/// Where a record stands among those of its socket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Order {
    /// Its number is not above that of the last one.
    pub behind: bool,
    /// Records between the last one and this.
    pub lost: u16,
}

impl Tracker {
    /// Both states of a record.
    pub(super) fn states(&mut self, head: &Head) -> Option<(State, State)> {
        let states = State::from_number(head.from).zip(State::from_number(head.to));
        self.stats.nonsense += u64::from(states.is_none());
        states
    }

    /// A transition of a socket that is not a birth.
    #[inline]
    pub(super) fn transition(&mut self, head: &Head, detail: Detail<'_>, out: &mut impl Observer) {
        let Some((from, to)) = self.states(head) else { return };
        if from == State::Close && to == State::Close {
            return;
        }
        let Some(slot) = self.subject(head, from, to, detail, out) else { return };
        let Some(c) = self.table.get_mut(slot) else { return };
        let before = head.ts < c.start_ns || c.notes.found && head.ts == c.start_ns;
        let last = last(c);
        let latest = c.start_ns.saturating_add(last.at);
        let order = number(c, head, &mut self.stats);
        let waits = c.notes.pending != u32::MAX;
        if to == State::Close && !waits {
            // Whatever its number is: nothing of this life follows it. One that is older than the timeline ended another.
            if before && !c.notes.found {
                self.stats.late += 1;
                return;
            }
        } else if before || waits || order.behind && (from != c.state || head.ts < latest) {
            return self.late(slot, head, from, to, detail, out);
        }
        self.stats.late += u64::from(order.behind);
        let at = head.ts.max(latest).saturating_sub(c.start_ns);
        let mut last = last;
        if from != c.state {
            if order.lost == 0 {
                c.gaps = c.gaps.saturating_add(1);
                self.stats.gaps += 1;
            }
            last = Entry { state: from, at, seen: false };
            c.states.push(last);
            c.state = from;
            ending::note_state(c, from);
        }
        let state_ns = last.seen.then(|| at.saturating_sub(last.at));
        ending::note(c, from, to, head, last.seen);
        if to == State::Close {
            return self.close(slot, head, from, (at, state_ns), detail, out);
        }
        // close() after shutdown() makes the kernel report the state again (`tcp_close_state`); nothing is entered.
        if from != to {
            c.states.push(Entry { state: to, at, seen: true });
            c.state = to;
        }
        if let Detail::Established(r) = detail
            && to == State::Established
        {
            self.complete(slot, from, r);
            if self.remnants.undecided()
                && let Some(c) = self.table.get(slot)
            {
                let since = c.start_ns;
                self.reuse(&r.tuple, since, out);
            }
        }
        let t = Transition { sequence: detail.sequence(), ..plain(head, from, to, state_ns) };
        self.report(slot, &t, out);
    }

    /// The timeline that a transition belongs to; a new one for a socket that was not known.
    #[inline]
    fn subject(
        &mut self,
        head: &Head,
        from: State,
        to: State,
        detail: Detail<'_>,
        out: &mut impl Observer,
    ) -> Option<u32> {
        self.report_row(head.sock, out);
        let found = self.table.find(head.sock);
        if let Detail::Established(r) = detail
            && from == State::SynRecv
            && let Some(child) = self.half_open.take_child(r.handshake.addr)
        {
            if found.is_none() && head.sock != 0 {
                self.table.set_cookie(child, head.sock);
                self.tell_child(child, &r.tuple, out);
                return Some(child);
            }
            self.table.remove(child);
            self.stats.phantoms += 1;
        }
        let Some(slot) = found else {
            if from == State::SynRecv && to == State::Close && self.half_open.has_children() {
                // A child that was born without a cookie, which it got too late for it to be told which one it is.
                self.stats.phantoms += 1;
                return None;
            }
            return self.begin(head, from);
        };
        let c = self.table.get_mut(slot)?;
        if from == State::SynRecv && to == State::Close && c.role != Some(Role::Client) {
            let established = c.states.entered(State::Established);
            if established.is_some_and(|at| c.start_ns.saturating_add(at) <= head.ts) {
                // Children have the cookie of their request, if it got one (`ss` gives it one): this was another child of the same. Both
                // count their records in one place, and two CPUs that do so at once may come to the same number.
                if !behind(c, head) {
                    number(c, head, &mut self.stats);
                }
                self.half_open.phantom_closed(head.sock, head.ts);
                self.stats.phantoms += 1;
                return None;
            }
        }
        let closed = self.pending.get(c.notes.pending).map(|w| w.ts);
        if closed.is_some_and(|closed| head.ts >= closed) && !behind(c, head) {
            // The next life of the socket, whose birth was lost.
            self.supersede(slot, head.ts, out);
            return self.begin(head, from);
        }
        Some(slot)
    }

    /// A transition that others, which came after it, have overtaken.
    #[cold]
    fn late(&mut self, slot: u32, head: &Head, from: State, to: State, detail: Detail<'_>, out: &mut impl Observer) {
        self.stats.late += 1;
        let Some(c) = self.table.get_mut(slot) else { return };
        let state_ns = insert_late(c, from, to, head.ts);
        ending::note(c, from, to, head, true);
        if to == State::FinWait1
            && c.notes.half_closed
            && c.notes.segments != Some(CloseSegments::Three)
            && c.states.iter().any(|(state, _)| state == State::FinWait2)
        {
            c.patterns.0 |= Patterns::HALF_CLOSE;
        }
        if let Detail::Established(r) = detail
            && to == State::Established
        {
            self.complete(slot, from, r);
        }
        let t = Transition { sequence: detail.sequence(), ..plain(head, from, to, state_ns) };
        self.report(slot, &t, out);
    }

    /// →ESTABLISHED: both ends and the handshake are known.
    fn complete(&mut self, slot: u32, from: State, r: &Established) {
        let synacks = self.half_open.take_synacks(&r.tuple);
        let Some(c) = self.table.get(slot) else { return };
        if c.role == Some(Role::Listener) {
            return;
        }
        if from == State::SynRecv {
            // Born and told of, or found: it keeps its number.
            let told = c.notes.born || c.notes.found || c.states.len() > 2;
            self.half_open.note_child();
            self.established_child(slot, &r.tuple, told);
        }
        let Some(c) = self.table.get(slot) else { return };
        if c.notes.joined && c.tuple != r.tuple {
            // It claimed what was not its own; under these ends it will not be found again.
            self.disclaim(slot, false);
        }
        let Some(c) = self.table.get(slot) else { return };
        let wants_listener = from == State::SynRecv && c.role != Some(Role::Client) && c.owner.is_none();
        let listener = if wants_listener { self.listeners.find(&self.table, &r.tuple) } else { None };
        let Some(c) = self.table.get_mut(slot) else { return };
        c.tuple = r.tuple;
        if c.role.is_none() && from == State::SynSent {
            c.role = Some(Role::Client);
        } else if c.role.is_none() && listener.is_some() {
            c.role = Some(Role::Server);
            c.inferred.0 |= Inferred::ROLE;
        }
        let mut handshake = r.handshake;
        if c.notes.cookie {
            handshake.options |= option::SYNCOOKIE;
        }
        match c.role {
            Some(Role::Client) => c.notes.syn_retrans = handshake.retrans.min(u32::from(u16::MAX - 1)) as u16,
            Some(Role::Server) => {
                handshake.isn_local = handshake.isn_local.wrapping_sub(1);
                // A child inherits the count of its request (`tcp_create_openreq_child`).
                raise_synacks(c, synacks);
                count_synacks(c, handshake.retrans);
            }
            Some(Role::Listener) | None => raise_synacks(c, synacks),
        }
        c.handshake = Some(handshake);
        // A handshake that went on was not ended by the RST that answered a stray segment.
        c.notes.rst_sent = false;
        if let Some(listener) = listener {
            owners::inherit(c, listener);
        }
        ending::note_self_connect(c);
    }

    /// →CLOSE, `at` nanoseconds from the start of the timeline and after `state_ns` in `from`.
    fn close(
        &mut self,
        slot: u32,
        head: &Head,
        from: State,
        (at, state_ns): (u64, Option<u64>),
        detail: Detail<'_>,
        out: &mut impl Observer,
    ) {
        if let Detail::Closed(r) = detail {
            self.set_port(slot, r.lport, Inferred::default());
        }
        let Some(c) = self.table.get_mut(slot) else { return };
        let ts = c.start_ns.saturating_add(at);
        let mut t = Transition { sequence: detail.sequence(), ..plain(head, from, State::Close, state_ns) };
        if from == State::Listen {
            c.states.push(Entry { state: State::Close, at, seen: true });
            c.state = State::Close;
            self.report(slot, &t, out);
            return self.remove(slot, ts);
        }
        let (closed, counters) = match detail {
            Detail::Closed(r) => (*r, Some(r.counters)),
            Detail::None | Detail::Sequence(_) | Detail::Established(_) => {
                (Closed { head: *head, ..Closed::default() }, None)
            }
        };
        let verdict = ending::judge(c, from, &closed);
        // The kernel said so itself, if it had room for one.
        let remnant = c.notes.remnant.filter(|_| head.flags & flag::TW_FULL == 0);
        let verdict = match remnant {
            Some(State::TimeWait) => Verdict::TimeWait,
            Some(State::FinWait2) => Verdict::Orphan,
            Some(_) | None => verdict,
        };
        let mut to = State::Close;
        match verdict {
            Verdict::TimeWait => {
                to = State::TimeWait;
                t.end = Some(End::Fin);
            }
            Verdict::Orphan => {
                to = State::FinWait2;
                t.end = Some(End::Fin);
                // The peer's FIN may never come.
                t.inferred.0 |= Inferred::END;
                c.inferred.0 |= Inferred::END;
                c.patterns.0 |= Patterns::ORPHAN;
                c.notes.segments = Some(CloseSegments::Four);
            }
            Verdict::Over(end) => t.end = Some(end),
            Verdict::Undecided { otherwise, past_destroy } => {
                let waiting = Waiting { slot, ts, errno: head.err, counters: closed.counters, otherwise, past_destroy };
                c.notes.pending = self.pending.push(waiting);
            }
            Verdict::Phantom => self.stats.phantoms += 1,
        }
        if to != State::Close {
            t.to = to;
            t.kernel = Some((from, State::Close));
            if remnant.is_none() {
                t.inferred.0 |= Inferred::TO;
            }
        }
        if to != from {
            c.states.push(Entry { state: to, at, seen: true });
            c.state = to;
        }
        self.keep_remnant(slot, to, ts);
        self.report(slot, &t, out);
        match (t.end, verdict) {
            (Some(end), _) => self.over(slot, ts, end, head.err, counters, out),
            (None, Verdict::Phantom) => {
                self.disclaim(slot, true);
                self.remove(slot, ts);
            }
            (None, _) => {}
        }
    }
}

/// A transition as the record has it.
pub(super) fn plain(head: &Head, from: State, to: State, state_ns: Option<u64>) -> Transition {
    Transition {
        ts: head.ts,
        from,
        to,
        state_ns,
        kernel: None,
        errno: head.err,
        end: None,
        flags: head.flags,
        sequence: None,
        inferred: Inferred::default(),
    }
}

/// Would the record's number not be above that of the last one?
fn behind(c: &Connection, head: &Head) -> bool {
    c.notes.numbered && head.flags & flag::SEQ_ABSENT == 0 && (head.seq.wrapping_sub(c.notes.seq) as i16) <= 0
}

/// Take a record's number: what lies between it and the last one was lost, or comes late.
#[inline]
pub(super) fn number(c: &mut Connection, head: &Head, stats: &mut Stats) -> Order {
    if head.flags & flag::SEQ_ABSENT != 0 {
        return Order::default();
    }
    let ahead = head.seq.wrapping_sub(c.notes.seq) as i16;
    if !c.notes.numbered {
        c.notes.seq = head.seq;
        c.notes.numbered = true;
        return Order::default();
    }
    if ahead <= 0 {
        // Two CPUs can number a record of one socket at once (accept() and a segment): equal numbers are no loss.
        // Nor are they one when it was a row that had the number first.
        let found_again = ahead < 0 || std::mem::take(&mut c.notes.row_numbered);
        if found_again && c.gaps > 0 {
            c.gaps -= 1;
            stats.gaps = stats.gaps.saturating_sub(1);
        }
        return Order { behind: true, lost: 0 };
    }
    let lost = ahead as u16 - 1;
    c.notes.row_numbered = false;
    c.notes.seq = head.seq;
    c.gaps = c.gaps.saturating_add(u32::from(lost));
    stats.gaps += u64::from(lost);
    Order { behind: false, lost }
}

/// The latest state of a timeline; each has one.
fn last(c: &Connection) -> Entry {
    c.states.last().unwrap_or(Entry { state: c.state, at: 0, seen: false })
}

/// Make a role known that was not, or that was only inferred.
pub(super) fn set_role(c: &mut Connection, role: Role) {
    if role == Role::Server
        && c.role != Some(Role::Server)
        && let Some(h) = &mut c.handshake
    {
        // Of a passive open the kernel counts from the first byte after the SYN.
        h.isn_local = h.isn_local.wrapping_sub(1);
    }
    c.role = Some(role);
}

/// Of what a server had sent again by the end of its handshake, or of itself, the SYN-ACKs.
pub(super) fn count_synacks(c: &mut Connection, retrans: u32) {
    let others = if c.notes.syn_retrans == u16::MAX { 0 } else { u32::from(c.notes.syn_retrans) };
    raise_synacks(c, retrans.saturating_sub(others));
}

pub(super) fn raise_synacks(c: &mut Connection, count: u32) {
    c.synack_retrans = c.synack_retrans.max(count.min(u32::from(u16::MAX)) as u16);
}

/// Put a late transition where it belongs, at `ts`; the latest state stays the latest. Nanoseconds spent in `from`, where
/// both ends of that are known.
#[cold]
pub(super) fn insert_late(c: &mut Connection, from: State, to: State, ts: u64) -> Option<u64> {
    let absolute = |e: Entry| Entry { at: c.start_ns.saturating_add(e.at), ..e };
    let mut entries: Vec<Entry> = c.states.entries().map(absolute).collect();
    let ts = entries.last().map_or(ts, |e| ts.min(e.at));
    // The states that later records implied have no time of entry yet; this may be it.
    let implied = entries.iter().position(|e| !e.seen && e.state == to && e.at >= ts);
    let mut i = implied
        .unwrap_or_else(|| entries.iter().take_while(|e| e.at <= ts).count().min(entries.len().saturating_sub(1)));
    let entry = Entry { state: to, at: ts, seen: true };
    match entries.get_mut(i) {
        Some(place) if implied.is_some() => *place = entry,
        _ => entries.insert(i, entry),
    }
    if i == 0 && !matches!(from, State::Close | State::Listen) {
        entries.insert(0, Entry { state: from, at: ts, seen: false });
        i = 1;
    }
    let mut floor = 0;
    for e in &mut entries {
        e.at = e.at.max(floor);
        floor = e.at;
    }
    let spent = match (entries.get(i.wrapping_sub(1)), entries.get(i)) {
        (Some(before), Some(e)) if before.seen && before.state == from => Some(e.at - before.at),
        _ => None,
    };
    let start = entries.first().map_or(c.start_ns, |e| e.at);
    c.states = Timeline::collect(entries.into_iter().map(|e| Entry { at: e.at - start, ..e }));
    c.start_ns = start;
    spent
}
