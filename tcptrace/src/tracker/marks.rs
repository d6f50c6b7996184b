//! What happens to a connection without changing its state: accept(), other processes, RSTs, retransmissions, errors.

use tcptrace_common::record::{Accepted, Head, Owned, flag};

use super::{Tracker, moves, owners};
use crate::model::{Inferred, Mark, Marked, Observer, Role, State};

impl Tracker {
    /// The timeline that a record belongs to; a new one for a socket that is alive and was not known.
    pub(super) fn marked(&mut self, head: &Head, out: &mut impl Observer) -> Option<u32> {
        let (state, _) = self.states(head)?;
        if head.sock == 0 {
            return None;
        }
        self.report_row(head.sock, out);
        if let Some(slot) = self.table.find(head.sock) {
            let c = self.table.get_mut(slot)?;
            if head.ts < c.start_ns && c.notes.born {
                self.stats.late += 1;
                return None;
            }
            self.stats.late += u64::from(moves::number(c, head, &mut self.stats).behind);
            return Some(slot);
        }
        match state {
            State::Established
            | State::SynSent
            | State::SynRecv
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::LastAck
            | State::Closing => {
                let slot = self.begin(head, state)?;
                moves::number(self.table.get_mut(slot)?, head, &mut self.stats);
                Some(slot)
            }
            // Its timeline is over, or it never had one.
            State::Close | State::TimeWait | State::Listen | State::NewSynRecv => None,
        }
    }

    /// The child that TCP Fast Open let be accepted before it is established, which is when one that was born without a cookie is told
    /// of by it.
    fn fast_open_child(&self, r: &Accepted) -> Option<u32> {
        let early = State::from_number(r.head.from) == Some(State::SynRecv) && self.table.find(r.head.sock).is_none();
        if early { self.half_open.child(r.addr) } else { None }
    }

    /// A process took the connection from an accept queue.
    pub(super) fn accepted(&mut self, r: &Accepted, out: &mut impl Observer) {
        let Some(slot) = self.fast_open_child(r).or_else(|| self.marked(&r.head, out)) else { return };
        let owner = self.processes.intern(&r.owner);
        let Some(c) = self.table.get_mut(slot) else { return };
        if c.role != Some(Role::Client) && c.role != Some(Role::Listener) {
            moves::set_role(c, Role::Server);
            c.inferred.0 &= !Inferred::ROLE;
        }
        if owner.is_some() {
            c.owner = owner;
            c.inferred.0 &= !Inferred::OWNER;
        }
        if r.owner.fd >= 0 {
            c.fd = r.owner.fd;
        }
        if r.owner.inode != 0 {
            c.inode = r.owner.inode;
        }
        c.notes.accepted = true;
        if std::mem::take(&mut c.notes.in_queue) {
            c.notes.accept_wait = r.head.ts.saturating_sub(c.notes.accept_wait);
            return out.owner(c);
        }
        // A child that was opened by TFO can be accepted before it is established: then nobody waited.
        if let Some(established) = c.states.entered(State::Established) {
            c.notes.accept_wait = r.head.ts.saturating_sub(c.start_ns.saturating_add(established));
        }
        out.owner(c);
    }

    /// Another process than the known owner makes the next transition.
    pub(super) fn actor(&mut self, r: &Owned, out: &mut impl Observer) {
        const ECONNABORTED: u8 = 103;
        let Some(slot) = self.marked(&r.head, out) else { return };
        let Some(process) = self.processes.intern(&r.owner) else { return };
        let Some(c) = self.table.get_mut(slot) else { return };
        let flags = r.head.flags;
        if let Some(owner) = c.owner.as_mut().filter(|owner| owners::same_process(owner, &process)) {
            // It may run another program since it was seen to have the socket.
            if owner.comm != process.comm && r.head.err != ECONNABORTED {
                *owner = process;
                out.owner(c);
            }
            return;
        }
        if r.head.err == ECONNABORTED {
            c.actor = Some(process);
            return;
        }
        if flags & flag::INHERITED != 0 {
            c.owner = Some(process);
            c.fd = -1;
            c.inferred.0 &= !Inferred::OWNER;
            return out.owner(c);
        }
        let queued = flags & flag::NO_SOCKET != 0 && flags & flag::DEAD == 0;
        let inferred = c.inferred.0 & Inferred::OWNER != 0;
        match c.owner {
            // It was taken from the accept queue, or it was passed on, and that was not seen: who closes it has it.
            Some(_) if inferred && !queued => {
                c.owner = Some(process);
                c.fd = -1;
            }
            Some(_) => {
                c.actor = Some(process);
                return;
            }
            None => {
                c.owner = Some(process);
                c.inferred.0 |= Inferred::OWNER;
            }
        }
        out.owner(c);
    }

    /// The socket sent a RST.
    pub(super) fn reset_sent(&mut self, head: &Head, out: &mut impl Observer) {
        let Some(slot) = self.marked(head, out) else { return };
        let Some(c) = self.table.get_mut(slot) else { return };
        c.notes.rst_sent = true;
        let number = c.notes.pending;
        self.tell_mark(slot, head, Marked::ResetSent, out);
        if number != u32::MAX {
            self.settle(number, out);
        }
    }

    /// The socket received a RST.
    pub(super) fn reset_received(&mut self, head: &Head, out: &mut impl Observer) {
        let Some(slot) = self.marked(head, out) else { return };
        let Some(c) = self.table.get_mut(slot) else { return };
        c.notes.rst_received = true;
        self.tell_mark(slot, head, Marked::ResetReceived, out);
    }

    /// A segment was sent again.
    pub(super) fn retransmit(&mut self, head: &Head, out: &mut impl Observer) {
        let Some(slot) = self.marked(head, out) else { return };
        let Some(c) = self.table.get_mut(slot) else { return };
        let server = c.role == Some(Role::Server);
        if head.from == State::SynSent as u8 && !server && c.notes.syn_retrans < u16::MAX - 1 {
            c.notes.syn_retrans += 1;
        }
        if server && c.states.entered(State::Established).is_none() && c.notes.syn_retrans != u16::MAX - 1 {
            c.notes.syn_retrans = if c.notes.syn_retrans == u16::MAX { 1 } else { c.notes.syn_retrans + 1 };
        }
        self.tell_mark(slot, head, Marked::Retransmit, out);
    }

    fn tell_mark(&self, slot: u32, head: &Head, what: Marked, out: &mut impl Observer) {
        if let Some((c, state)) = self.table.get(slot).zip(State::from_number(head.from)) {
            out.mark(c, &Mark { ts: head.ts, state, what });
        }
    }

    /// An error was reported to the socket: the last one comes again with the transition that it causes.
    pub(super) fn error(&mut self, head: &Head, out: &mut impl Observer) {
        self.marked(head, out);
    }
}
