//! Where in their programs sockets were opened and accepted.

use std::sync::Arc;

use hashbrown::HashMap;

use super::Tracker;
use crate::{
    frame::fact,
    model::{Observer, Stack},
};

/// The stacks that were told, by their numbers.
#[derive(Default)]
pub(super) struct Stacks(HashMap<u64, Arc<Stack>>);

impl Stacks {
    pub fn add(&mut self, stack: &Stack) {
        if self.0.len() >= Stack::REMEMBERED {
            self.0.clear();
        }
        self.0.insert(stack.id, Arc::new(stack.clone()));
    }
}

impl Tracker {
    /// It may come late: when its connection is over, or on a socket that was used again.
    pub(super) fn opened_at(&mut self, ts: u64, fact: &fact::OpenedAt, out: &mut impl Observer) {
        let Some(stack) = self.stacks.0.get(&fact.stack).cloned() else { return };
        let Some(slot) = self.table.find(fact.sock) else { return };
        let Some(c) = self.table.get(slot).filter(|c| c.start_ns <= ts) else { return };
        out.opened_at(c, ts, &stack);
        self.table.set_stack(slot, stack);
    }
}
