//! Frames: what flows from a source to the decoder and what a recording stores.
//!
//! A frame is an 8-byte [`Header`] and a record, padded to 8 bytes: `[len: u32][cpu: u16][0: u16][record …][padding]`. Records start
//! with [`Head`], so a frame's kind and time are at fixed places. Kinds from 64 on are facts that the collector adds; their
//! record is a [`Head`] followed by JSON (the structs in [`fact`]).

use tcptrace_common::record::Head;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod fact;

/// Precedes every record in a [`Frames`] buffer, 8 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Bytes of the record, without this header and padding.
    pub len: u32,
    /// CPU that made the record.
    pub cpu: u16,
    /// Zero.
    pub reserved: u16,
}

/// A run of frames in one 8-aligned buffer.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    words: Vec<u64>,
}

impl Frames {
    /// An empty buffer with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { words: Vec::with_capacity(bytes / 8) }
    }

    /// Append a record's bytes as a frame.
    pub fn push(&mut self, cpu: u16, record: &[u8]) {
        let header = Header { len: record.len() as u32, cpu, reserved: 0 };
        self.words.push(u64::from_le_bytes(zerocopy::transmute!(header)));
        let start = self.words.len();
        self.words.resize(start + record.len().div_ceil(8), 0);
        self.words[start..].as_mut_bytes()[..record.len()].copy_from_slice(record);
    }

    /// Append a record of `len` bytes given as whole words in two parts, as a ring holds one that wraps around its end.
    #[inline]
    pub fn push_words(&mut self, cpu: u16, len: u32, [head, tail]: [&[u64]; 2]) {
        let header = Header { len, cpu, reserved: 0 };
        self.words.push(u64::from_le_bytes(zerocopy::transmute!(header)));
        self.words.extend_from_slice(head);
        if !tail.is_empty() {
            self.words.extend_from_slice(tail);
        }
    }

    /// Append a fact: a [`Head`] of `kind` at `ts` and `body` as JSON.
    pub fn push_fact(&mut self, kind: u8, ts: u64, body: &impl serde::Serialize) {
        let mut record = Head { ts, kind, ..Head::default() }.as_bytes().to_vec();
        serde_json::to_writer(&mut record, body)
            .expect("facts are plain data: maps with string keys, no failing writer");
        self.push(0, &record);
    }

    /// Append frames as they are, for example a block of a recording. `bytes` must be whole frames; see [`Frames::iter`] for
    /// what happens to others.
    pub fn extend(&mut self, bytes: &[u8]) {
        let start = self.words.len();
        self.words.resize(start + bytes.len().div_ceil(8), 0);
        self.words[start..].as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
    }

    /// Put other frames at byte `at`, which must be between two frames.
    pub fn insert(&mut self, at: usize, other: &Self) {
        self.words.splice(at / 8..at / 8, other.words.iter().copied());
    }

    /// All bytes: a multiple of 8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.words.as_bytes()
    }

    /// The same as words.
    #[must_use]
    pub fn as_words(&self) -> &[u64] {
        &self.words
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len() * 8
    }

    /// No frame?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Forget all frames, keep the memory.
    pub fn clear(&mut self) {
        self.words.clear();
    }

    /// The records in order. Ends early at a header that points past the buffer, which only a damaged block can hold.
    pub fn iter(&self) -> Iter<'_> {
        self.iter_from(0)
    }

    /// [`Frames::iter`] from byte `from` on, which must be between two frames.
    pub fn iter_from(&self, from: usize) -> Iter<'_> {
        Iter { rest: self.as_bytes().get(from..).unwrap_or_default() }
    }
}

/// See [`Frames::iter`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    /// A record, 8-aligned.
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (header, rest) = Header::read_from_prefix(self.rest).ok()?;
        let len = header.len as usize;
        let record = rest.get(..len)?;
        self.rest = rest.get(len.next_multiple_of(8)..)?;
        Some(record)
    }
}
