//! Segments to ports where nobody listens.

use tcptrace_common::{probe::tcp_flag, record::Tuple};

/// A segment that met no socket: the kernel answers it by a RST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// CLOCK_MONOTONIC nanoseconds.
    pub ts: u64,
    /// Both ends, seen from this host.
    pub tuple: Tuple,
    /// TCP flags.
    pub flags: u8,
    /// Its sequence number.
    pub seq: u32,
    /// Its acknowledgment number; it means something only with ACK among the flags.
    pub ack: u32,
    /// Such segments since the start of which there is no record, for their rate.
    pub held_back: u64,
}

/// What a segment looks like that tries a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the flags that it has")]
pub enum Kind {
    Syn,
    Fin,
    FinPshUrg,
    None,
}

impl Kind {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Fin => "fin",
            Self::FinPshUrg => "fin_psh_urg",
            Self::None => "no_flags",
        }
    }
}

impl Probe {
    /// None: it belongs to a connection that is not there (any more), or answers one.
    #[must_use]
    pub const fn kind(&self) -> Option<Kind> {
        use tcp_flag::{ACK, FIN, PSH, RST, SYN, URG};
        match self.flags & (ACK | FIN | PSH | RST | SYN | URG) {
            SYN => Some(Kind::Syn),
            FIN => Some(Kind::Fin),
            0 => Some(Kind::None),
            flags if flags == FIN | PSH | URG => Some(Kind::FinPshUrg),
            _ => None,
        }
    }
}
