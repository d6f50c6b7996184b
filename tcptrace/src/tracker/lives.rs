//! Births and deaths of timelines.

use tcptrace_common::record::{Bound, Child, Counters, Head, Open, Tuple, flag};

use super::{Tracker, ending, moves, owners};
use crate::model::{
    Connection, End, Entry, Final, Inferred, Notes, Observer, Patterns, Role, State, Timeline, Transition,
};

/// Cookies of timelines that ended lately, for records that come too late: a direct-mapped cache.
#[derive(Default)]
pub(super) struct Ended {
    places: Vec<(u64, u64)>,
}

const PLACES: usize = 1024;

impl Ended {
    #[inline]
    fn add(&mut self, cookie: u64, ts: u64) {
        if self.places.is_empty() {
            self.places.resize(PLACES, (0, 0));
        }
        self.places[cookie as usize % PLACES] = (cookie, ts);
    }

    /// Did a timeline of this cookie end at or after `ts`?
    pub fn covers(&self, cookie: u64, ts: u64) -> bool {
        self.places.get(cookie as usize % PLACES).is_some_and(|&(c, end)| c == cookie && ts <= end)
    }
}

impl Tracker {
    /// CLOSE→SYN_SENT, CLOSE→LISTEN.
    pub(super) fn open(&mut self, r: &Open, out: &mut impl Observer) {
        let Some((from, to)) = self.states(&r.head) else { return };
        let Some(slot) = self.birth(&r.head, to, out) else { return };
        let owner = self.processes.intern(&r.owner);
        let Some(c) = self.table.get_mut(slot) else { return };
        let role = if to == State::Listen { Role::Listener } else { Role::Client };
        if c.role.is_none() {
            c.role = Some(role);
        }
        if c.tuple.family == 0 {
            c.tuple = r.tuple;
        }
        if c.owner.is_none() || c.inferred.0 & Inferred::OWNER != 0 {
            c.owner = owner;
            c.inferred.0 &= !Inferred::OWNER;
        }
        if c.inode == 0 {
            c.inode = r.owner.inode;
        }
        if c.fd < 0 {
            c.fd = r.owner.fd;
        }
        if role == Role::Client && c.notes.syn_retrans == u16::MAX {
            c.notes.syn_retrans = 0;
        }
        if c.state == State::Listen {
            let tuple = c.tuple;
            self.listeners.add(&tuple, slot);
        }
        self.report_birth(slot, &r.head, from, to, out);
    }

    /// listen() without bind(): the port that the kernel chose after CLOSE→LISTEN.
    pub(super) fn bound(&mut self, r: &Bound, out: &mut impl Observer) {
        let Some(slot) = self.marked(&r.head, out) else { return };
        self.set_port(slot, r.lport, Inferred::default());
        if let Some(c) = self.table.get(slot) {
            out.owner(c);
        }
    }

    /// A child of a listener that was not bound, where nothing told of its port: once every listener is known, the only one
    /// without a port must be the child's.
    fn conclude_port(&mut self, child: &Tuple, out: &mut impl Observer) {
        // Before a cut there were listeners that are not told of any more.
        if self.start.is_none()
            && !self.carried
            && child.lport != 0
            && let Some(slot) = self.listeners.portless(&self.table, child)
        {
            self.set_port(slot, child.lport, Inferred(Inferred::LPORT));
            if let Some(c) = self.table.get(slot) {
                out.owner(c);
            }
        }
    }

    /// The port of a listener that had none, or one that was only concluded.
    pub(super) fn set_port(&mut self, slot: u32, lport: u16, inferred: Inferred) {
        let Some(c) = self.table.get_mut(slot) else { return };
        if lport == 0 || c.tuple.lport != 0 && c.inferred.0 & Inferred::LPORT == 0 {
            return;
        }
        let before = c.tuple;
        c.tuple.lport = lport;
        c.inferred.0 = c.inferred.0 & !Inferred::LPORT | inferred.0;
        if c.role == Some(Role::Listener) {
            let after = c.tuple;
            self.listeners.remove(&before, slot);
            self.listeners.add(&after, slot);
        }
    }

    /// LISTEN→SYN_RECV: the final ACK of a passive open, not its SYN.
    pub(super) fn child(&mut self, r: &Child, out: &mut impl Observer) {
        let Some((from, to)) = self.states(&r.head) else { return };
        self.half_open.note_child();
        let slot = if r.head.sock == 0 {
            // Up to Linux 6.12 the child still carries its listener's cookie here and has no remote end yet.
            let slot = self.insert(&r.head, to, true);
            // Which request it comes of is known only then, too.
            if (self.requests.heard || self.signals.accept_queue)
                && let Some(c) = self.table.get_mut(slot)
            {
                c.notes.untold = true;
            }
            if let Some(other) = self.half_open.add_child(r.addr, slot, r.head.ts) {
                self.table.remove(other);
                self.stats.phantoms += 1;
            }
            slot
        } else {
            let Some(slot) = self.birth(&r.head, to, out) else { return };
            slot
        };
        let synacks = self.half_open.take_synacks(&r.tuple);
        self.conclude_port(&r.tuple, out);
        let listener = self.listeners.find(&self.table, &r.tuple);
        let Some(c) = self.table.get_mut(slot) else { return };
        moves::set_role(c, Role::Server);
        if c.tuple.family == 0 {
            c.tuple = r.tuple;
        }
        moves::raise_synacks(c, synacks);
        if let Some(listener) = listener {
            owners::inherit(c, listener);
        }
        if c.notes.untold {
            return;
        }
        if r.tuple.rport != 0 {
            let tuple = r.tuple;
            let since = c.start_ns;
            // A late record of a birth: the child was told of under its own number.
            if c.states.len() == 1 && !c.notes.found {
                self.claim(slot, &tuple);
            }
            self.reuse(&tuple, since, out);
        }
        self.report_birth(slot, &r.head, from, to, out);
    }

    /// A child got its cookie and its remote end: now its birth can be told of, as its request's next step.
    pub(super) fn tell_child(&mut self, slot: u32, tuple: &Tuple, out: &mut impl Observer) {
        let Some(c) = self.table.get_mut(slot).filter(|c| c.notes.untold) else { return };
        c.notes.untold = false;
        c.tuple = *tuple;
        let head = Head { ts: c.start_ns, sock: c.cookie, ..Head::default() };
        let since = c.start_ns;
        self.claim(slot, tuple);
        self.reuse(tuple, since, out);
        self.report_birth(slot, &head, State::Listen, State::SynRecv, out);
    }

    /// The timeline of a birth: a new one, or, where this record is late, the one that began without it. None: the record is
    /// older than a timeline that has ended.
    fn birth(&mut self, head: &Head, to: State, out: &mut impl Observer) -> Option<u32> {
        if head.sock == 0 {
            self.stats.nonsense += 1;
            return None;
        }
        self.report_row(head.sock, out);
        let Some(slot) = self.table.find(head.sock) else {
            if self.ended.covers(head.sock, head.ts) {
                self.stats.late += 1;
                return None;
            }
            return Some(self.insert(head, to, true));
        };
        let c = self.table.get_mut(slot)?;
        let older = head.ts < c.start_ns || c.notes.found && head.ts == c.start_ns;
        if older && c.notes.born {
            // The birth of an earlier timeline, which was already concluded.
            self.stats.late += 1;
            return None;
        }
        if older {
            moves::number(c, head, &mut self.stats);
            self.stats.late += 1;
            c.notes.born = true;
            c.preexisting = false;
            return Some(slot);
        }
        self.supersede(slot, head.ts, out);
        Some(self.insert(head, to, true))
    }

    /// Report the transition of a birth, and put a late one in front of what is known.
    fn report_birth(&mut self, slot: u32, head: &Head, from: State, to: State, out: &mut impl Observer) {
        let Some(c) = self.table.get_mut(slot) else { return };
        if head.ts < c.start_ns || c.notes.found {
            moves::insert_late(c, from, to, head.ts);
        }
        let mut t = moves::plain(head, from, to, None);
        let first = c.states.entries().next();
        if let Some(syn) = first.filter(|e| e.state == State::NewSynRecv && from == State::Listen) {
            t.from = State::NewSynRecv;
            t.kernel = Some((from, to));
            t.state_ns = syn.seen.then(|| head.ts.saturating_sub(c.start_ns));
        }
        self.report(slot, &t, out);
    }

    /// A record of a socket in the middle of its life: a timeline whose beginning is not known. None where the record is of
    /// one that is over.
    pub(super) fn begin(&mut self, head: &Head, state: State) -> Option<u32> {
        if head.sock == 0 {
            self.stats.nonsense += 1;
            return None;
        }
        if self.ended.covers(head.sock, head.ts) {
            self.stats.late += 1;
            return None;
        }
        let slot = self.insert(head, state, false);
        let before = self.start.is_some() || self.cut.forgot(head.sock);
        let c = self.table.get_mut(slot)?;
        if before {
            c.preexisting = true;
        } else {
            c.gaps = 1;
            self.stats.gaps += 1;
        }
        c.role = match state {
            State::SynSent => Some(Role::Client),
            State::Listen => Some(Role::Listener),
            State::Established
            | State::SynRecv
            | State::FinWait1
            | State::FinWait2
            | State::TimeWait
            | State::Close
            | State::CloseWait
            | State::LastAck
            | State::Closing
            | State::NewSynRecv => None,
        };
        ending::note_state(c, state);
        Some(slot)
    }

    /// A new timeline that starts in `state`, with the next id.
    pub(super) fn insert(&mut self, head: &Head, state: State, born: bool) -> u32 {
        self.ids += 1;
        let mut states = Timeline::default();
        states.push(Entry { state, at: 0, seen: born });
        let numbered = born && head.flags & flag::SEQ_ABSENT == 0;
        self.table.insert(Connection {
            id: self.ids,
            cookie: head.sock,
            start_ns: head.ts,
            tuple: Tuple::default(),
            owner: None,
            actor: None,
            inode: 0,
            states,
            handshake: None,
            fd: -1,
            gaps: 0,
            synack_retrans: 0,
            state,
            role: None,
            preexisting: false,
            inferred: Inferred::default(),
            patterns: Patterns::default(),
            notes: Notes { seq: head.seq, numbered, born, ..Notes::default() },
        })
    }

    /// The socket is gone. A record is made only where CLOSE may not have been the last word.
    pub(super) fn destroyed(&mut self, head: &Head, out: &mut impl Observer) {
        self.report_row(head.sock, out);
        let Some(slot) = self.table.find(head.sock) else { return };
        let Some(c) = self.table.get_mut(slot) else { return };
        if head.ts < c.start_ns {
            self.stats.late += 1;
            return;
        }
        moves::number(c, head, &mut self.stats);
        if self.half_open.is_phantoms_end(head.sock, head.ts) {
            return;
        }
        let number = c.notes.pending;
        if self.pending.get(number).is_some_and(|w| w.past_destroy) {
            return;
        }
        self.supersede(slot, head.ts, out);
    }

    /// Another life begins on this socket, or it is destroyed: what was left of the one before is over.
    pub(super) fn supersede(&mut self, slot: u32, ts: u64, out: &mut impl Observer) {
        let Some(c) = self.table.get_mut(slot) else { return };
        let number = c.notes.pending;
        if number != u32::MAX {
            return self.settle(number, out);
        }
        c.gaps = c.gaps.saturating_add(1);
        self.stats.gaps += 1;
        let end = ending::unseen(c);
        self.over(slot, ts, end, 0, None, out);
    }

    /// Report a connection that is over and forget it.
    pub(super) fn over(
        &mut self,
        slot: u32,
        ts: u64,
        end: End,
        errno: u8,
        counters: Option<Counters>,
        out: &mut impl Observer,
    ) {
        let Some(c) = self.table.get_mut(slot) else { return };
        // A child of Fast Open that was over before its handshake.
        let early = c.role == Some(Role::Server)
            && c.gaps == 0
            && c.states.entered(State::SynRecv).is_some()
            && c.states.entered(State::Established).is_none();
        if let Some(counters) = counters.filter(|_| early) {
            moves::count_synacks(c, counters.retrans);
        }
        let Some(c) = self.table.get(slot) else { return };
        if c.role != Some(Role::Listener) {
            let stack = self.table.stack(slot);
            out.connection(c, &Final { stack, ..ending::conclude(c, ts, Some(end), errno, counters) });
        }
        self.remove(slot, ts);
    }

    /// Forget a timeline and note that it ended at `ts`.
    pub(super) fn remove(&mut self, slot: u32, ts: u64) {
        self.disclaim(slot, false);
        let Some(c) = self.table.get(slot) else { return };
        self.ended.add(c.cookie, ts);
        if let Some(start) = &mut self.start {
            start.ended(c.cookie);
        }
        if c.role == Some(Role::Listener) {
            let tuple = c.tuple;
            self.listeners.remove(&tuple, slot);
            if let Some(c) = self.table.get(slot) {
                self.queues.closed(c, ts);
            }
        }
        self.table.remove(slot);
    }

    /// Decide a pending end with what is known now.
    pub(super) fn settle(&mut self, number: u32, out: &mut impl Observer) {
        let Some(w) = self.pending.take(number) else { return };
        let Some(c) = self.table.get(w.slot).filter(|c| c.notes.pending == number) else { return };
        let end = if c.notes.rst_sent { End::RstSent } else { w.otherwise };
        self.over(w.slot, w.ts, end, w.errno, Some(w.counters), out);
    }

    /// Decide the ends that no RST will explain any more, in the order of closing.
    pub(super) fn expire(&mut self, now: u64, out: &mut impl Observer) {
        while let Some(number) = self.pending.expired(now) {
            self.settle(number, out);
        }
    }

    /// Report a transition, and whether it is one that cannot be.
    pub(super) fn report(&mut self, slot: u32, t: &Transition, out: &mut impl Observer) {
        let Some(c) = self.table.get(slot) else { return };
        out.transition(c, t);
        let (from, to) = t.kernel.unwrap_or((t.from, t.to));
        if !super::arcs::legal(from, to) {
            self.stats.impossible += 1;
            out.impossible(c, t);
        }
    }
}
