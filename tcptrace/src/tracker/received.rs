//! Sockets that a process which is followed was given by one that is not. From then on they are the trace's as those are that it was
//! started with; what happened to them before is not.

use tcptrace_common::record::{Owned, Received};

use super::{Tracker, owners, resync, snapshot};
use crate::model::{Connection, Inferred, Observer, Role, State};

impl Tracker {
    /// A process that is followed has a socket that the kernel side did not know to be of one of them.
    pub(super) fn received(&mut self, r: &Received, out: &mut impl Observer) {
        let head = &r.socket.head;
        let Some((state, _)) = self.states(head) else { return };
        if state == State::Close || head.sock == 0 {
            return;
        }
        if self.start.as_ref().is_some_and(|start| start.has_row(head.sock)) {
            // It is told of with its holders.
            return self.holder(&Owned { head: *head, owner: r.owner });
        }
        let Some(slot) = self.table.find(head.sock) else { return self.take_in(r, state, None, out) };
        let Some(c) = self.table.get(slot) else { return };
        if c.notes.pending != u32::MAX {
            // Closed, and here it is again.
            self.supersede(slot, head.ts, out);
            return self.take_in(r, state, None, out);
        }
        if resync::stale(c, head) || self.is_own(c) {
            return self.has(slot, r, state, out);
        }
        // What was told of it waits for an owner, and is not what the trace is about.
        let (id, gaps) = (c.id, c.gaps);
        self.stats.gaps = self.stats.gaps.saturating_sub(u64::from(gaps));
        self.forget(head.sock);
        self.take_in(r, state, Some(id), out);
    }

    /// Did this socket belong to the trace before? One that was accepted may not have been told of yet.
    fn is_own(&self, c: &Connection) -> bool {
        match &c.owner {
            Some(owner) => self.followed.has(owner.pid),
            None => c.notes.born && c.role == Some(Role::Server) && !c.notes.accepted,
        }
    }

    /// A process has a socket of the trace.
    fn has(&mut self, slot: u32, r: &Received, state: State, out: &mut impl Observer) {
        let Some(process) = self.processes.intern(&r.owner) else { return };
        let Some(c) = self.table.get_mut(slot) else { return };
        let same = c.owner.as_ref().is_some_and(|owner| owners::same_process(owner, &process));
        // Of several that have had it since before the trace the first is told, until another one closes it.
        let closes = r.owner.fd < 0;
        let guessed = c.inferred.0 & Inferred::OWNER != 0 && !c.preexisting;
        let news = match &c.owner {
            Some(owner) if same => owner.comm != process.comm,
            Some(_) => closes || guessed,
            None => true,
        };
        if !news {
            return;
        }
        if c.owner.is_none() && !c.notes.born {
            // Its first record for this trace came while it was looked at.
            self.stats.gaps = self.stats.gaps.saturating_sub(u64::from(c.gaps));
            c.gaps = 0;
            c.preexisting = true;
            snapshot::fill(c, &r.socket, state);
        }
        c.owner = Some(process);
        if !same {
            c.fd = r.owner.fd;
            c.inferred.0 |= Inferred::OWNER;
        }
        if c.inode == 0 {
            c.inode = r.owner.inode;
        }
        out.owner(c);
    }

    /// Begin its timeline, under the number `id` if it has one.
    fn take_in(&mut self, r: &Received, state: State, id: Option<u64>, out: &mut impl Observer) {
        let head = &r.socket.head;
        if self.was_told(head.ts) || self.is_nameless_child(&r.socket.tuple, state) {
            return;
        }
        let Some(slot) = self.begin(head, state) else { return };
        let process = self.processes.intern(&r.owner);
        let Some(c) = self.table.get_mut(slot) else { return };
        // Nothing of it was lost: none of its records were for this trace.
        self.stats.gaps -= u64::from(c.gaps);
        c.gaps = 0;
        if let Some(id) = id {
            c.id = id;
            self.ids -= 1;
        }
        c.preexisting = true;
        c.notes.found = true;
        c.notes.numbered = true;
        snapshot::fill(c, &r.socket, state);
        c.owner = process;
        c.fd = r.owner.fd;
        c.inferred.0 |= Inferred::OWNER;
        if state == State::Listen {
            let tuple = c.tuple;
            self.listeners.add(&tuple, slot);
        }
        self.find_listener(slot, head.flags);
        if let Some(c) = self.table.get(slot) {
            out.socket(c, &snapshot::found(&r.socket, state));
        }
    }
}
