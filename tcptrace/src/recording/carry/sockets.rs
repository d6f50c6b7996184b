//! Records of sockets: kept until the socket is over.

use tcptrace_common::record::{
    Accepted, Child, Established, Forked, Head, MiniSocket, Owned, Socket, SynAck, Tuple, flag, kind,
};
use zerocopy::FromBytes;

use super::{
    Carry,
    entry::{CLOSE, ENTRY, ESTABLISHED, Entry, LISTEN, MARKS, SYN_RECV, is_alive},
};

impl Carry {
    pub(super) fn record(&mut self, head: &Head, record: &[u8], frame: &[u8]) {
        match head.kind {
            kind::OPEN | kind::LISTEN => self.birth(head, record, frame),
            kind::CHILD if head.sock != 0 => {
                self.birth(head, record, frame);
                self.claim(head.sock, record, false);
            }
            kind::CHILD => {
                if let Ok((child, _)) = Child::ref_from_prefix(record) {
                    let mut entry = Entry { moved: head.ts, ..Entry::default() };
                    entry.push(self.order, frame);
                    self.taken += entry.cost();
                    if let Some(before) = self.children.insert(child.addr, entry) {
                        self.taken -= before.cost();
                    }
                }
            }
            kind::ESTABLISHED => self.established(head, record, frame),
            kind::ACCEPTED if head.sock == 0 => {
                if let Ok((accepted, _)) = Accepted::ref_from_prefix(record)
                    && let Some(child) = self.children.get_mut(&accepted.addr)
                {
                    self.taken -= child.cost();
                    child.push(self.order, frame);
                    self.taken += child.cost();
                }
            }
            kind::STATE | kind::SEQUENCE | kind::CLOSED => self.transition(head, frame),
            kind::DESTROYED => self.destroyed(head, frame),
            kind::RESET_SENT | kind::RESET_RECEIVED | kind::RETRANSMIT | kind::ERROR => self.mark(head, frame),
            kind::ACCEPTED | kind::ACTOR if self.sockets.contains_key(&head.sock) || is_alive(head.from) => {
                self.add(head, record, frame);
            }
            kind::BOUND | kind::TIME_WAIT_BEGIN => self.keep(head, frame),
            kind::RECEIVED => self.add(head, record, frame),
            kind::SOCKET | kind::FOUND => self.row(head, record, frame),
            kind::HOLDER => self.holder(head, record, frame),
            kind::FORKED => {
                if let Ok((fork, _)) = Forked::ref_from_prefix(record) {
                    let is = self.followed.get(&fork.parent) == Some(&true);
                    if is || self.followed.contains_key(&fork.child) {
                        self.followed.insert(fork.child, is);
                    }
                    // One that was never asked for need not be told of.
                    if !is && !self.roots.contains(&fork.child) {
                        self.followed.remove(&fork.child);
                    }
                }
            }
            kind::REQUEST_EVENT => self.request_event(record, frame),
            kind::SYNACK_RETRANSMIT => {
                if let Ok((r, _)) = SynAck::ref_from_prefix(record) {
                    self.mark_request(r.tuple, head.ts, frame);
                }
            }
            kind::REQUEST => {
                if let Ok((r, _)) = MiniSocket::ref_from_prefix(record) {
                    self.mark_request(r.tuple, head.ts, frame);
                }
            }
            kind::TIME_WAIT if self.sockets.get(&head.sock).is_some_and(|entry| entry.moved < head.ts) => {
                self.over(head.sock);
            }
            kind::LISTENER | kind::LISTENER_STATS => {
                // One whose beginning is not known.
                if head.kind == kind::LISTENER && head.ts > self.interval_ts && !self.sockets.contains_key(&head.sock) {
                    self.add(head, record, frame);
                }
                // Else it is over and was told of.
                if self.sockets.contains_key(&head.sock) {
                    self.come(frame);
                }
            }
            _ => {}
        }
    }

    /// Another life of a socket begins.
    fn birth(&mut self, head: &Head, record: &[u8], frame: &[u8]) {
        if head.sock == 0 {
            return;
        }
        if self.sockets.get(&head.sock).is_some_and(|entry| entry.moved <= head.ts) {
            self.remove(head.sock);
        }
        self.add(head, record, frame);
        if let Some(entry) = self.sockets.get_mut(&head.sock) {
            entry.owned |= head.kind != kind::CHILD;
        }
    }

    /// A record of a socket that is alive.
    fn add(&mut self, head: &Head, record: &[u8], frame: &[u8]) {
        let moves = head.kind < kind::ACCEPTED || matches!(head.kind, kind::LISTEN | kind::SEQUENCE);
        let state = if moves { head.to } else { head.from };
        if head.sock == 0 || state == CLOSE && !self.sockets.contains_key(&head.sock) {
            return;
        }
        let order = self.order;
        let entry = self.sockets.entry(head.sock).or_insert_with(|| {
            self.taken += ENTRY;
            if state != LISTEN {
                self.oldest.push_back((order, head.sock));
            }
            // Of one that was forgotten something is known again.
            let born = matches!(head.kind, kind::OPEN | kind::LISTEN | kind::CHILD);
            self.gone.forgotten -= u64::from(!born && head.sock <= self.forgotten_up_to && self.gone.forgotten > 0);
            Entry { first: order, ..Entry::default() }
        });
        self.taken -= entry.cost();
        entry.push(order, frame);
        self.taken += entry.cost();
        entry.number(head);
        entry.owned |= matches!(head.kind, kind::ACCEPTED | kind::ACTOR | kind::RECEIVED);
        let has_ends =
            [kind::OPEN, kind::LISTEN, kind::CHILD, kind::ESTABLISHED, kind::FOUND, kind::RECEIVED, kind::SOCKET];
        if has_ends.contains(&head.kind)
            && let Some(Ok((tuple, _))) = record.get(size_of::<Head>()..).map(Tuple::read_from_prefix)
        {
            entry.netns = tuple.netns;
        }
        if entry.state != state && state != 0 {
            entry.state = state;
            entry.moved = entry.moved.max(head.ts);
        }
        entry.established |= state == ESTABLISHED;
    }

    fn transition(&mut self, head: &Head, frame: &[u8]) {
        if head.to != CLOSE {
            return self.add(head, &[], frame);
        }
        let Some(entry) = self.sockets.get_mut(&head.sock) else {
            // One whose beginning is gone has now gone with it.
            self.gone.forgotten -= u64::from(head.sock <= self.forgotten_up_to && self.gone.forgotten > 0);
            return;
        };
        if head.from == SYN_RECV && entry.established {
            // Another child of its request, which has its cookie.
            entry.phantoms = entry.phantoms.saturating_add(1);
            return self.keep(head, frame);
        }
        if self.snapshot.is_none() || entry.state == LISTEN {
            entry.over = true;
            if entry.state == LISTEN {
                entry.moved = head.ts;
                self.leaving.push(head.sock);
            }
            return self.keep(head, frame);
        }
        self.remove(head.sock);
    }

    /// A record that changes nothing but is numbered.
    pub(super) fn keep(&mut self, head: &Head, frame: &[u8]) {
        let order = self.order;
        if let Some(entry) = self.sockets.get_mut(&head.sock) {
            self.taken -= entry.cost();
            entry.push(order, frame);
            self.taken += entry.cost();
            entry.number(head);
        }
    }

    fn destroyed(&mut self, head: &Head, frame: &[u8]) {
        let Some(entry) = self.sockets.get_mut(&head.sock) else { return };
        if entry.phantoms > 0 {
            entry.phantoms -= 1;
            return self.keep(head, frame);
        }
        if entry.over { self.keep(head, frame) } else { self.over(head.sock) }
    }

    /// A socket is over, unless rows of a snapshot may still tell of it.
    fn over(&mut self, cookie: u64) {
        match self.sockets.get_mut(&cookie) {
            Some(entry) if self.snapshot.is_none() => entry.over = true,
            Some(_) => self.remove(cookie),
            None => {}
        }
    }

    fn mark(&mut self, head: &Head, frame: &[u8]) {
        let Some(entry) = self.sockets.get_mut(&head.sock) else {
            if is_alive(head.from) {
                self.add(head, &[], frame);
            }
            return;
        };
        if entry.marks < MARKS {
            entry.marks += 1;
            return self.keep(head, frame);
        }
        let seq = entry.seq;
        if entry.number(head) {
            // What was lost before it stays lost.
            let ahead = entry.seq;
            entry.seq = seq;
            entry.skip();
            entry.seq = ahead;
        }
    }

    /// A row of a snapshot. Of a later one, those that say nothing new are not needed.
    fn row(&mut self, head: &Head, record: &[u8], frame: &[u8]) {
        if head.kind == kind::SOCKET
            && self.snapshot.is_some()
            && let Some(entry) = self.sockets.get_mut(&head.sock)
        {
            entry.named = true;
            let ahead = entry.numbered && head.seq != 0 && head.seq.wrapping_sub(entry.seq) as i16 > 0;
            if entry.state == head.to && !ahead {
                return;
            }
        }
        if self.snapshot.is_some() && head.ts < self.ts && !self.sockets.contains_key(&head.sock) {
            // Older than its end may be.
            return;
        }
        self.add(head, record, frame);
        if let Some(entry) = self.sockets.get_mut(&head.sock) {
            entry.named = true;
            if self.snapshot.is_none()
                && let Ok((row, _)) = Socket::ref_from_prefix(record)
                && row.inode != 0
            {
                self.inodes.insert(row.inode, head.sock);
            }
        }
    }

    /// A process that has a socket open.
    fn holder(&mut self, head: &Head, record: &[u8], frame: &[u8]) {
        let starting = self.snapshot.is_none();
        if head.sock == 0
            && starting
            && let Ok((r, _)) = Owned::ref_from_prefix(record)
        {
            let holder = self.holders.entry(r.owner.inode).or_default();
            let before = if holder.frames.is_empty() { 0 } else { holder.cost() };
            holder.push(self.order, frame);
            self.taken += holder.cost() - before;
            return;
        }
        let Some(entry) = self.sockets.get_mut(&head.sock) else {
            // Its row may come later.
            if starting {
                self.add(head, record, frame);
            }
            return;
        };
        entry.named |= head.from != CLOSE;
        if starting || !std::mem::replace(&mut entry.owned, true) {
            self.keep(&Head { flags: flag::SEQ_ABSENT, ..*head }, frame);
        }
    }

    fn established(&mut self, head: &Head, record: &[u8], frame: &[u8]) {
        let Ok((r, _)) = Established::ref_from_prefix(record) else { return };
        let child = if head.from == SYN_RECV { self.children.remove(&r.handshake.addr) } else { None };
        if let Some(child) = &child {
            self.taken -= child.cost();
        }
        if head.sock == 0 {
            return;
        }
        let known = self.sockets.contains_key(&head.sock);
        self.add(head, record, frame);
        if let Some(child) = child
            && !known
        {
            self.join(head.sock, &child);
        }
        if head.from == SYN_RECV {
            self.claim(head.sock, record, true);
        }
    }

    /// A child's request is told with it: once it is established, or the request said that it is one no more.
    fn claim(&mut self, cookie: u64, record: &[u8], established: bool) {
        if self.requests.is_empty() {
            return;
        }
        let Some(Ok((tuple, _))) = record.get(size_of::<Head>()..).map(Tuple::read_from_prefix) else { return };
        if (established || self.requests.get(&tuple).is_some_and(|entry| entry.completed))
            && let Some(request) = self.take_request(&tuple)
        {
            self.join(cookie, &request);
        }
    }

    /// Frames of another entry become a socket's.
    pub(super) fn join(&mut self, cookie: u64, other: &Entry) {
        if let Some(entry) = self.sockets.get_mut(&cookie) {
            self.taken -= entry.cost();
            let first = entry.first.min(other.first);
            other.each().for_each(|(order, frame)| entry.push(order, frame));
            entry.first = first;
            self.taken += entry.cost();
        }
    }

    pub(super) fn remove(&mut self, cookie: u64) {
        if let Some(entry) = self.sockets.remove(&cookie) {
            self.taken -= entry.cost();
        }
    }
}
