//! TIME_WAIT, where hooks see its begin and its end: the remnant keeps the number of its connection.

use tcptrace_common::record::{Head, MiniSocket, TimeWaitEnd, Tuple, flag};

use super::{Tracker, remnants::Kept, requests::Entry};
use crate::model::{Observer, State};

impl Tracker {
    /// A timewait socket takes over. The record comes right before the socket's transition to CLOSE.
    pub(super) fn time_wait_begin(&mut self, head: &Head, out: &mut impl Observer) {
        // The state before is not known to every hook.
        let Some(to) = State::from_number(head.to) else {
            self.stats.nonsense += 1;
            return;
        };
        self.remnants.heard = true;
        self.report_row(head.sock, out);
        let Some(slot) = self.table.find(head.sock) else { return };
        let Some(c) = self.table.get_mut(slot) else { return };
        if matches!(to, State::TimeWait | State::FinWait2) && head.ts >= c.start_ns {
            c.notes.remnant = Some(to);
            let kept = Kept { id: c.id, tuple: c.tuple, owner: c.owner.clone(), state: to, since: Some(head.ts) };
            self.remnants.add(head.sock, kept);
        }
    }

    /// A timewait socket is gone.
    pub(super) fn time_wait_end(&mut self, r: &TimeWaitEnd, out: &mut impl Observer) {
        self.remnants.heard = true;
        let expired = r.head.flags & flag::EXPIRED != 0;
        let ts = r.head.ts.saturating_sub(r.late_ns);
        if let Some(remnant) = self.remnants.end(r.head.sock, ts, expired) {
            out.time_wait(&remnant);
        }
    }

    /// A connection ended in `to` at `ts`: was that the begin of a remnant after all?
    pub(super) fn keep_remnant(&mut self, slot: u32, to: State, ts: u64) {
        if !self.remnants.heard {
            return;
        }
        let Some(c) = self.table.get(slot).filter(|c| c.cookie != 0) else { return };
        if matches!(to, State::TimeWait | State::FinWait2) {
            let kept = Kept { id: c.id, tuple: c.tuple, owner: c.owner.clone(), state: to, since: Some(ts) };
            self.remnants.add(c.cookie, kept);
        } else {
            self.remnants.cancel(c.cookie);
        }
    }

    /// A request or connection with these ends began at `since`: a remnant may have made room for it.
    pub(super) fn reuse(&mut self, tuple: &Tuple, since: u64, out: &mut impl Observer) {
        if let Some(remnant) = self.remnants.reused(tuple, since) {
            out.time_wait(&remnant);
        }
    }

    /// Decide about the remnants that nothing took the place of in time.
    pub(super) fn expire_remnants(&mut self, now: u64, out: &mut impl Observer) {
        while let Some(remnant) = self.remnants.expired(now) {
            out.time_wait(&remnant);
        }
    }

    /// A request or a remnant that the start snapshot found goes on under the number that it just got, where hooks tell more.
    pub(super) fn keep_mini(&mut self, r: &MiniSocket, state: State) {
        let ts = r.head.ts;
        if state == State::NewSynRecv {
            if self.signals.half_open && self.start.is_some() {
                let retrans = r.retrans.min(u32::from(u8::MAX)) as u8;
                self.requests.insert(Entry { preexisting: true, retrans, ..Entry::new(r.tuple, self.ids, ts) });
            }
        } else if self.signals.time_wait && r.head.sock != 0 {
            let kept = Kept { id: self.ids, tuple: r.tuple, owner: None, state, since: None };
            self.remnants.add(r.head.sock, kept);
        }
    }
}
