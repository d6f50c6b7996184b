//! What was told of one socket or half-open request: its frames, and what they say that matters at a cut.

use tcptrace_common::record::{Head, flag};
use zerocopy::{FromBytes, IntoBytes};

use crate::frame::Header;

pub(super) const ESTABLISHED: u8 = 1;
pub(super) const SYN_SENT: u8 = 2;
pub(super) const SYN_RECV: u8 = 3;
pub(super) const TIME_WAIT: u8 = 6;
pub(super) const CLOSE: u8 = 7;
pub(super) const LISTEN: u8 = 10;
pub(super) const NEW_SYN_RECV: u8 = 12;

/// Marks of one socket that are carried: retransmissions, RSTs, errors.
pub(super) const MARKS: u8 = 32;
/// What an entry takes beside its frames: itself, its place in the index (which may be half empty), in the order, the allocation.
pub(super) const ENTRY: u64 = 2 * size_of::<(u64, Entry)>() as u64 + 48;

/// What was told of one socket or request.
#[derive(Default)]
pub(super) struct Entry {
    /// `[order: u64][header][record …][padding]` each.
    pub frames: Vec<u8>,
    /// Order of the first.
    pub first: u64,
    /// Number of the stack that it was opened at; 0: none was told.
    pub stack: u64,
    /// When it last changed its state.
    pub moved: u64,
    pub netns: u32,
    /// Number of its last record.
    pub seq: u16,
    pub numbered: bool,
    pub state: u8,
    pub marks: u8,
    /// Children of its request that share its cookie, were closed and not yet destroyed.
    pub phantoms: u8,
    pub established: bool,
    /// Its owner was told.
    pub owned: bool,
    /// A request: it is one no more, its child is to claim it.
    pub completed: bool,
    /// The snapshot that is being absorbed has a row of it.
    pub named: bool,
    /// It is over, and goes when the snapshot or the interval is that may still tell of it.
    pub over: bool,
}

impl Entry {
    pub fn push(&mut self, order: u64, frame: &[u8]) {
        if self.frames.is_empty() {
            self.first = order;
        }
        self.frames.reserve_exact(8 + frame.len());
        self.frames.extend_from_slice(&order.to_ne_bytes());
        self.frames.extend_from_slice(frame);
    }

    pub fn cost(&self) -> u64 {
        ENTRY + self.frames.capacity() as u64
    }

    /// (order, frame) of each.
    pub fn each(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut rest = &self.frames[..];
        std::iter::from_fn(move || {
            let (order, behind) = rest.split_first_chunk()?;
            let (header, _) = Header::read_from_prefix(behind).ok()?;
            let size = size_of::<Header>() + (header.len as usize).next_multiple_of(8);
            let (frame, behind) = behind.split_at_checked(size)?;
            rest = behind;
            Some((u64::from_ne_bytes(*order), frame))
        })
    }

    /// A record that is not carried had the next number: those before it move up.
    pub fn skip(&mut self) {
        let mut at = 0;
        while let Some((header, _)) = self.frames.get(at + 8..).and_then(|f| Header::read_from_prefix(f).ok()) {
            let record = at + 8 + size_of::<Header>();
            if let Some(place) = self.frames.get_mut(record..record + size_of::<Head>())
                && let Ok(mut head) = Head::read_from_bytes(place)
                && head.flags & flag::SEQ_ABSENT == 0
                && head.seq != 0
            {
                head.seq = head.seq.wrapping_add(1);
                place.copy_from_slice(head.as_bytes());
            }
            at = record + (header.len as usize).next_multiple_of(8);
        }
        self.seq = self.seq.wrapping_add(1);
    }

    /// Take a record's number; is it above the last one?
    pub fn number(&mut self, head: &Head) -> bool {
        if head.flags & flag::SEQ_ABSENT != 0 {
            return false;
        }
        let ahead = !self.numbered || head.seq.wrapping_sub(self.seq) as i16 > 0;
        if ahead {
            self.seq = head.seq;
            self.numbered = true;
        }
        ahead
    }
}

/// Does a mark in this state tell of a socket that was not known?
pub(super) fn is_alive(state: u8) -> bool {
    !matches!(state, 0 | TIME_WAIT | CLOSE | LISTEN | NEW_SYN_RECV)
}
