//! Segments that meet no socket: somebody tries a port where nobody listens.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::record::{Head, Tuple};

/// Bits of [`Probe::flags`], as the TCP header has them.
pub mod tcp_flag {
    #![expect(missing_docs, reason = "the names are those of RFC 9293")]
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 1 << 1;
    pub const RST: u8 = 1 << 2;
    pub const PSH: u8 = 1 << 3;
    pub const ACK: u8 = 1 << 4;
    pub const URG: u8 = 1 << 5;
}

/// [`kind::PROBE`](crate::record::kind::PROBE), 96 bytes: a segment that no socket takes, to be answered by a RST.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Probe {
    /// `sock` is 0; no number ([`flag::SEQ_ABSENT`](crate::record::flag)).
    pub head: Head,
    /// Both ends, seen from this host.
    pub tuple: Tuple,
    /// Sequence number of the segment.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Such segments of which the token bucket let no record pass, since the programs were attached.
    pub held_back: u64,
    /// See [`tcp_flag`].
    pub flags: u8,
    /// Not used.
    pub reserved: [u8; 7],
}

const _: () = assert!(size_of::<Probe>() == 96);
