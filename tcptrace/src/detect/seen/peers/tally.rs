//! How connections of a party came about and ended, in numbers.

use std::ops::AddAssign;

use crate::model::{Connection, End, Final, Payload, Shape};

/// Counts of a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Handshakes that were finished.
    pub established: u32,
    /// SYNs that were answered by a RST, or as good as one.
    pub refused: u32,
    /// Connections that are over.
    pub ended: u32,
    /// Of these, by FINs.
    pub closed: u32,
    /// Of these, by FINs, and this end's came first.
    pub closed_here: u32,
    /// Cut off by a RST of this end: see [`Reset`].
    pub cut_here: u32,
    /// Cut off by a RST of the peer.
    pub cut_there: u32,
    /// 1: something was cut off in this second.
    pub cut_seconds: u32,
    /// Of connections closed by FINs whose begin was seen: how many.
    pub timed: u32,
    /// How long they lasted, microseconds in all.
    pub lasted_us: u64,
    /// How long their handshakes took, microseconds in all.
    pub handshake_us: u64,
    /// Their payload in both directions.
    pub bytes: u64,
    /// 1: connections were closed by FINs in this second.
    pub busy_seconds: u32,
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        // Exhaustive, so that a new count is not forgotten.
        let Self {
            established,
            refused,
            ended,
            closed,
            closed_here,
            cut_here,
            cut_there,
            cut_seconds,
            timed,
            lasted_us,
            handshake_us,
            bytes,
            busy_seconds,
        } = *other;
        self.established += established;
        self.refused += refused;
        self.ended += ended;
        self.closed += closed;
        self.closed_here += closed_here;
        self.cut_here += cut_here;
        self.cut_there += cut_there;
        self.cut_seconds += cut_seconds;
        self.timed += timed;
        self.lasted_us += lasted_us;
        self.handshake_us += handshake_us;
        self.bytes += bytes;
        self.busy_seconds += busy_seconds;
    }
}

impl Tally {
    /// Connections that a RST cut off.
    #[must_use]
    pub const fn cut(&self) -> u32 {
        self.cut_here + self.cut_there
    }
}

/// A connection that was cut off by a RST while somebody still wanted something of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// When.
    pub ts: u64,
    /// The other end.
    pub raddr: std::net::IpAddr,
    /// What was lost.
    pub cut: Cut,
    /// How long it lasted, where that is known, microseconds.
    pub lasted_us: Option<u64>,
}

/// What a RST cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Data that was received and not read, or sent and not acknowledged.
    Data,
    /// A question without an answer.
    Answer,
    /// A connection of ours that never carried anything.
    Empty,
}

impl Cut {
    /// What the end of an established connection by RST cut off. None: nothing. Who is done with an exchange may close by RST, which
    /// spares it TIME_WAIT, and a probe of a load balancer asks nothing.
    #[must_use]
    pub fn of(c: &Connection, f: &Final, asked: bool) -> Option<Self> {
        let Some(End::RstSent | End::RstReceived) = f.end else { return None };
        let p = Payload::new(&f.counters?, Shape::of(c));
        // A RST that answers data which came after close() leaves nothing unread.
        if p.unread > 0 || p.unsent > 0 {
            return Some(Self::Data);
        }
        match (p.sent > 0, p.received > 0) {
            (true, true) => None,
            (false, false) => asked.then_some(Self::Empty),
            (true, false) | (false, true) => Some(Self::Answer),
        }
    }
}
