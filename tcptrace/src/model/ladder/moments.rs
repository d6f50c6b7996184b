//! What is kept of a live connection so that it can be drawn when it is over.

use tcptrace_common::record::flag;

use crate::model::{Mark, Marked, Sequence, State, Transition};

/// A connection that goes on sending segments again is told of up to here; then they are counted.
const MOST: usize = 64;

/// Something observed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    Change(Change),
    /// What changed none.
    Mark(Mark),
}

/// A change of state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub ts: u64,
    pub from: State,
    pub to: State,
    pub sequence: Option<Sequence>,
    /// FIN and ACK were one segment.
    pub same_segment: bool,
    /// The peer's FIN was received.
    pub done: bool,
    /// What the connection was found in after a loss.
    pub found: bool,
}

impl Moment {
    fn ts(&self) -> u64 {
        match self {
            Self::Change(change) => change.ts,
            Self::Mark(mark) => mark.ts,
        }
    }
}

/// Moments of a connection in the order of time.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    pub(super) list: Vec<Moment>,
    pub(super) forgotten: u32,
}

impl Moments {
    /// Keep a change of state.
    pub fn transition(&mut self, t: &Transition) {
        // close() after shutdown() reports the state again, and an orphan stays in FIN_WAIT2: no segment is behind either.
        if t.from == t.to {
            return;
        }
        let has = |bit: u16| t.flags & bit != 0;
        self.insert(Moment::Change(Change {
            ts: t.ts,
            from: t.from,
            to: t.to,
            sequence: t.sequence,
            same_segment: has(flag::SAME_SEGMENT) && !has(flag::DATA_AFTER_FIN),
            done: has(flag::DONE),
            found: t.is_found(),
        }));
    }

    /// Keep a mark, if it is one that a ladder shows.
    pub fn mark(&mut self, mark: &Mark) {
        // Data that was sent again between handshake and teardown is told by the connection's counters.
        let of_data = matches!(mark.state, State::Established | State::CloseWait | State::FinWait2);
        if mark.what == Marked::Retransmit && of_data {
            return;
        }
        if self.list.len() >= MOST {
            self.forgotten = self.forgotten.saturating_add(1);
            return;
        }
        self.insert(Moment::Mark(*mark));
    }

    /// Late ones go where they belong.
    fn insert(&mut self, moment: Moment) {
        let behind = self.list.iter().rev().take_while(|m| m.ts() > moment.ts()).count();
        self.list.insert(self.list.len() - behind, moment);
    }
}
