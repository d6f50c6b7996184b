//! A connection as a ladder: the segments of its handshake and its teardown between two ends, and the states that they led to.
//!
//! What was observed of a connection ([`Moments`]) goes in, [`Step`]s come out. No packet is captured: a segment follows from a
//! state that the kernel reported, its numbers are those of the kernel's own variables at that moment. Sequence numbers are raw,
//! modulo 2^32.
//!
//! | file | |
//! |---|---|
//! | `moments` | what is kept of a connection while it lives |
//! | `one_end` | what one end tells: moments → steps |
//! | `merge` | what both ends tell: two lists of steps → one |

mod merge;
mod moments;
mod one_end;

use super::{Connection, Final, State};
pub use merge::Ends;
pub use moments::Moments;

/// One end of a ladder.
#[derive(Clone, Debug)]
pub struct Side {
    /// The connection as that end has it.
    pub connection: Connection,
    /// How it ended there.
    pub last: Final,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// The end at the left; of two the one that connected.
    pub left: Side,
    /// The end at the right, if it is on this host and told of the connection, too.
    pub right: Option<Side>,
    /// From the first to the last.
    pub steps: Vec<Step>,
    /// Segments sent again that there was no room to keep.
    pub forgotten: u32,
}

/// A segment and the states that it led to, or a state that none led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When the end at the left, and the one at the right, sent or received it: CLOCK_MONOTONIC nanoseconds; None: not known.
    pub times: [Option<u64>; 2],
    /// None: the state changed for another reason.
    pub segment: Option<Segment>,
    /// The states that the ends are in afterwards; None: as before, or not known.
    pub states: [Option<Beside>; 2],
    /// Records before it were lost, or it is the first that is known: what came before is not drawn.
    pub torn: Option<Torn>,
}

/// Why nothing is known before a [`Step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Torn {
    /// The connection was there before the trace began.
    Preexisting,
    /// Records were lost.
    Lost,
}

/// A state beside the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beside {
    /// The state.
    pub state: State,
    /// It was not seen: that end must have been in it.
    pub concluded: bool,
}

/// Where a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the left to the right.
    Out,
    /// From the right to the left.
    In,
}

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// SYN.
    Syn,
    /// SYN and ACK.
    SynAck,
    /// The ACK that ends the handshake.
    Ack,
    /// FIN; it has an ACK, too.
    Fin,
    /// FIN, and the ACK of the other end's FIN in the same segment.
    FinAck,
    /// The ACK of a FIN.
    AckOfFin,
    /// RST.
    Rst,
    /// Data or FIN: which was sent again is not known.
    DataOrFin,
}

/// A segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it goes.
    pub direction: Direction,
    /// What it is for.
    pub part: Part,
    /// It was sent before.
    pub again: bool,
    /// The number of the SYN, of the FIN (which follows the data of its segment), else of the segment.
    pub seq: Option<u32>,
    /// What it acknowledges: the next byte that its sender expects.
    pub ack: Option<u32>,
    /// It was not seen, but follows from the states.
    pub dashed: bool,
    /// What else is known of it.
    pub note: Option<Note>,
}

/// See [`Segment::note`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// So many unsent bytes were before it: it left later.
    Behind(u32),
    /// It was sent again so many times, when is not known.
    SentAgain(u32),
    /// By a SYN cookie.
    Cookie,
    /// TCP Fast Open: it carried data.
    FastOpen,
}

impl Part {
    /// The flags that a capture would show, without those that are not known.
    #[must_use]
    pub const fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Syn => &["SYN"],
            Self::SynAck => &["SYN", "ACK"],
            Self::Ack | Self::AckOfFin => &["ACK"],
            Self::Fin | Self::FinAck => &["FIN", "ACK"],
            Self::Rst => &["RST"],
            Self::DataOrFin => &[],
        }
    }

    /// Does it belong to the end of a connection?
    const fn ends(self) -> bool {
        match self {
            Self::Syn | Self::SynAck | Self::Ack => false,
            Self::Fin | Self::FinAck | Self::AckOfFin | Self::Rst | Self::DataOrFin => true,
        }
    }
}

impl Beside {
    const fn seen(state: State) -> Self {
        Self { state, concluded: false }
    }

    const fn concluded(state: State) -> Self {
        Self { state, concluded: true }
    }
}

impl Ladder {
    /// What one end tells.
    #[must_use]
    pub fn of_one(left: Side, moments: &Moments) -> Self {
        let steps = one_end::steps(&left, moments);
        Self { steps, right: None, forgotten: moments.forgotten, left }
    }

    /// What both ends tell.
    #[must_use]
    pub fn of_both(left: (Side, &Moments), right: (Side, &Moments)) -> Self {
        let steps = merge::merge(one_end::steps(&left.0, left.1), one_end::steps(&right.0, right.1));
        let forgotten = left.1.forgotten.saturating_add(right.1.forgotten);
        Self { left: left.0, right: Some(right.0), steps, forgotten }
    }

    /// How many steps belong to the handshake; None where data could not flow.
    #[must_use]
    pub fn handshake(&self) -> Option<usize> {
        let closed = |s: &Step| {
            let state = s.states[0].filter(|b| !b.concluded).map(|b| b.state);
            s.segment.is_none() && matches!(state, Some(State::Close | State::TimeWait))
        };
        let ends = |s: &Step| s.segment.is_some_and(|segment| segment.part.ends()) || closed(s);
        self.left.connection.handshake?;
        Some(self.steps.iter().position(ends).unwrap_or(self.steps.len()))
    }

    /// The steps as the end at the right sees them: its own side first.
    pub fn mirrored(&self) -> impl Iterator<Item = Step> {
        self.steps.iter().map(|step| step.mirrored())
    }
}

impl Step {
    fn mirrored(self) -> Self {
        let segment = self.segment.map(|s| Segment {
            direction: match s.direction {
                Direction::Out => Direction::In,
                Direction::In => Direction::Out,
            },
            ..s
        });
        let ([a, b], [x, y]) = (self.times, self.states);
        Self { times: [b, a], segment, states: [y, x], torn: self.torn }
    }
}
