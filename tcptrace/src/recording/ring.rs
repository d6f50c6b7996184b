//! The latest frames in memory, as blocks of a recording: frames in, at any time a whole recording out.
//!
//! Blocks are compressed when they are full and kept as they are; the oldest go when there is no more room or they are too old. What
//! of them is still needed is carried (`carry.rs`), within the same room.

use std::collections::VecDeque;

use super::{
    Error, Writer,
    carry::{Carry, Gone},
    format::HEADER,
    pack::{Packed, Packer, unpack},
    writer::DEFAULT_LEVEL,
};
use crate::frame::Frames;

/// What a block takes beside its payload: its place in the queue, which may be half empty, and the allocation.
const BLOCK: u64 = 2 * size_of::<Packed>() as u64 + 32;
/// What is carried takes half of the room at most, and no more than this: to put a recording together takes a tenth of a second then.
const MOST_CARRIED: u64 = 64 << 20;
/// What a ring works with beside what it keeps: a block that fills, its differences, one that is compressed, one that goes, and what
/// compresses them.
const WORK: u64 = 3 << 20;
/// A ring that keeps a time keeps up to one such part more.
const PARTS: u64 = 32;
/// The smallest ring, bytes.
pub const SMALLEST: u64 = 4 << 20;

/// How much a ring keeps: whichever is less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes of memory, at least [`SMALLEST`]; None: as many as it takes.
    pub bytes: Option<u64>,
    /// Nanoseconds; None: from the start on.
    pub ns: Option<u64>,
}

/// See the module.
pub struct Ring {
    room: Room,
    packer: Packer,
    unzstd: zstd::bulk::Decompressor<'static>,
    blocks: VecDeque<Packed>,
    /// What they take.
    held: u64,
    carry: Carry,
    /// Time of the first frame that is in no block yet, and of the latest one.
    began: Option<u64>,
    newest: u64,
    /// A block as it is made.
    bytes: Vec<u8>,
    /// Frames of one that goes.
    words: Vec<u64>,
}

/// A recording that is to be written.
#[derive(Debug)]
pub struct Dump {
    start: Frames,
    blocks: Vec<Packed>,
    /// What it does not hold.
    pub gone: Gone,
    /// Nanoseconds that it holds everything of: from what was let go of last to its last frame. None: it holds all.
    pub span_ns: Option<u64>,
}

impl Ring {
    /// An empty one.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no memory for the compressor.
    pub fn new(room: Room) -> Result<Self, Error> {
        let unzstd = zstd::bulk::Decompressor::new()
            .map_err(|source| Error::Io { operation: "starting the decompressor", source })?;
        let carried = room.bytes.map_or(MOST_CARRIED, |bytes| (bytes / 2).min(MOST_CARRIED));
        Ok(Self {
            room,
            packer: Packer::new(DEFAULT_LEVEL)?,
            unzstd,
            blocks: VecDeque::new(),
            held: 0,
            carry: Carry::new(carried),
            began: None,
            newest: 0,
            bytes: Vec::new(),
            words: Vec::new(),
        })
    }

    /// Append whole frames.
    ///
    /// # Errors
    /// [`Error::Io`] if the compressor fails, [`Error::Malformed`].
    pub fn write(&mut self, frames: &[u8]) -> Result<(), Error> {
        if let Some(ts) = frames.get(8..16).and_then(|ts| ts.try_into().ok()).map(u64::from_ne_bytes) {
            // Only whole blocks can be too old.
            let part = self.room.ns.map_or(u64::MAX, |ns| ns / PARTS);
            if self.began.is_some_and(|began| ts.saturating_sub(began) >= part) {
                self.flush()?;
            }
            self.began.get_or_insert(ts);
            self.newest = self.newest.max(ts);
        }
        let mut rest = self.packer.fill(frames)?;
        while !rest.is_empty() {
            self.flush()?;
            rest = self.packer.fill(rest)?;
        }
        self.make_room();
        Ok(())
    }

    /// Make a block of what was gathered.
    fn flush(&mut self) -> Result<(), Error> {
        self.began = None;
        let Some(header) = self.packer.pack(&mut self.bytes)? else { return Ok(()) };
        let block = Packed { header, payload: self.bytes[HEADER..].into() };
        self.held += BLOCK + block.payload.len() as u64;
        self.blocks.push_back(block);
        self.newest = self.newest.max(header.last_ts.get());
        self.make_room();
        Ok(())
    }

    /// Let go of blocks, but not of the last one.
    fn make_room(&mut self) {
        while self.blocks.len() > 1
            && let Some(oldest) = self.blocks.front()
            && (self.room.bytes.is_some_and(|room| self.held() > room)
                || self.room.ns.is_some_and(|ns| oldest.header.last_ts.get().saturating_add(ns) < self.newest))
        {
            self.evict();
        }
    }

    fn evict(&mut self) {
        let Some(Packed { header, payload }) = self.blocks.pop_front() else { return };
        self.held -= BLOCK + payload.len() as u64;
        // What was packed here can be unpacked.
        if unpack(&header, &payload, &mut self.unzstd, &mut self.words).is_some() {
            self.carry.absorb(&self.words);
        }
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn held(&self) -> u64 {
        WORK + self.held + self.carry.held()
    }

    /// What it does not hold any more.
    #[must_use]
    pub fn gone(&self) -> Gone {
        self.carry.gone()
    }

    /// All that it holds. Blocks are shared with it, nothing is written yet.
    ///
    /// # Errors
    /// As [`Ring::write`].
    pub fn dump(&mut self) -> Result<Dump, Error> {
        self.flush()?;
        let (gone, blocks) = (self.gone(), self.blocks.iter().cloned().collect());
        let span_ns = (gone.frames > 0).then(|| self.newest.saturating_sub(self.carry.until()));
        Ok(Dump { start: self.carry.frames(), blocks, gone, span_ns })
    }
}

impl Dump {
    /// Write it as a whole recording: its size. `lost` events were lost in what it holds.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn write(self, mut writer: Writer, lost: u64) -> Result<u64, Error> {
        writer.write(self.start.as_bytes())?;
        drop(self.start);
        // What the ring has let go of meanwhile takes no more memory once it is written.
        for block in self.blocks {
            writer.append(&block)?;
        }
        writer.finish(lost)
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("blocks", &self.blocks.len()).field("held", &self.held()).finish_non_exhaustive()
    }
}
