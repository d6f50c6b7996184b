//! Sockets that wait for one of their ends to close, as a reading of the kernel's tables has them.

use super::Tracker;
use crate::{
    frame::fact,
    model::{Observer, Orphans, State, Unread},
};

impl Tracker {
    /// What sockets in CLOSE_WAIT hold; those that are not known, or have left it, are passed over.
    pub(super) fn closing(&mut self, ts: u64, fact: &fact::Closing, out: &mut impl Observer) {
        for row in &fact.close_wait {
            let slot = self.table.find(row.sock);
            if let Some(c) = slot.and_then(|slot| self.table.get(slot)).filter(|c| c.state == State::CloseWait) {
                // The FIN has a sequence number, too.
                let (unread, at_end) = (row.unread.saturating_sub(1), row.unread == 0);
                out.unread(c, &Unread { ts, unread, at_end, unsent: row.unsent, sent: row.sent });
            }
        }
        out.orphans(&Orphans { ts, netns: fact.netns, peers: fact.fin_wait2.clone(), total: fact.orphans });
    }
}
