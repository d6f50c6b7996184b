//! A recording in, frames out. Reads a stream: nothing is sought.

use std::io::{self, Read};

use zerocopy::{FromBytes, IntoBytes};

use super::{
    Error,
    format::{BLOCK_MAGIC, BlockHeader, FILE_MAGIC, FileHeader, HEADER, Header as _, ORDER, VERSION, kind},
    pack::unpack,
};
use crate::frame::Frames;

/// What [`Reader::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// Frames.
    Block(Block),
    /// Something is missing here; the next item comes after it.
    Gap(Gap),
    /// Nothing follows.
    End(Ending),
}

/// What a block's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Number of frames.
    pub frames: u32,
    /// Time of the first one, `CLOCK_MONOTONIC` nanoseconds.
    pub first_ts: u64,
    /// Time of the last one.
    pub last_ts: u64,
}

/// A damaged place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Bytes of the file that were skipped.
    pub bytes: u64,
    /// Blocks that are missing.
    pub blocks: u64,
    /// Frames that are missing: exact, the blocks after it tell.
    pub frames: u64,
    /// Time of the last frame before it, `CLOCK_MONOTONIC` nanoseconds; 0 at the start.
    pub ts: u64,
}

/// How the recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As its writer meant it to.
    Clean {
        /// Events that the kernel side could not deliver while recording.
        lost: u64,
    },
    /// It was cut off: a crash, a full disk, or still being written.
    Truncated {
        /// Bytes after the last whole block, of which nothing could be read; 0 if the cut fell between two blocks.
        bytes: u64,
    },
}

/// Reads a recording.
pub struct Reader<R> {
    input: R,
    zstd: zstd::bulk::Decompressor<'static>,
    /// What was read ahead: `buffer[position..]`.
    buffer: Vec<u8>,
    position: usize,
    /// A block's frames.
    words: Vec<u64>,
    started: bool,
    /// Number of the next block and of its first frame, if nothing is missing.
    expected: (u64, u64),
    /// Bytes skipped since the last whole block.
    skipped: u64,
    last_ts: u64,
    /// Lost events from the trailer, once it was read.
    trailer: Option<u64>,
}

impl<R: Read> Reader<R> {
    /// Nothing is read yet.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no memory for the decompressor.
    pub fn new(input: R) -> Result<Self, Error> {
        let zstd = zstd::bulk::Decompressor::new()
            .map_err(|source| Error::Io { operation: "starting the decompressor", source })?;
        Ok(Self {
            input,
            zstd,
            buffer: Vec::new(),
            position: 0,
            words: Vec::new(),
            started: false,
            expected: (0, 0),
            skipped: 0,
            last_ts: 0,
            trailer: None,
        })
    }

    /// The next block's frames are appended to `frames`; any other item leaves it as it is. After the end, the end again.
    ///
    /// # Errors
    /// [`Error::Io`]; at the start also [`Error::Empty`], [`Error::NotARecording`], [`Error::NewerVersion`],
    /// [`Error::ByteOrder`].
    pub fn next(&mut self, frames: &mut Frames) -> Result<Item, Error> {
        if !self.started {
            self.start()?;
            self.started = true;
        }
        loop {
            self.fill(HEADER)?;
            let rest = &self.buffer[self.position..];
            if rest.is_empty() {
                return Ok(self.end());
            }
            if let Ok((header, _)) = BlockHeader::read_from_prefix(rest)
                && header.is_sound()
                && self.load(&header)?
            {
                if let Some(item) = self.accept(&header, frames) {
                    return Ok(item);
                }
            } else if let Ok((header, _)) = FileHeader::read_from_prefix(&self.buffer[self.position..])
                && header.is_intact()
            {
                // Another recording, concatenated: its blocks count anew.
                check(&header)?;
                (self.expected, self.trailer) = ((0, 0), None);
                self.position += HEADER;
            } else {
                self.skip()?;
            }
        }
    }

    fn start(&mut self) -> Result<(), Error> {
        self.fill(HEADER)?;
        let Some(header) = self.buffer.first_chunk::<HEADER>() else {
            return match self.buffer.len() {
                0 => Err(Error::Empty),
                // Cut off inside of its header: `next` counts the bytes.
                len if FileHeader::own().as_bytes()[..len] == self.buffer => Ok(()),
                _ => Err(Error::NotARecording),
            };
        };
        let header = FileHeader::read_from_bytes(header).expect("the length is that of a header");
        if header.is_intact() {
            check(&header)?;
            self.position += HEADER;
            Ok(())
        } else if header.resembles_own() {
            // Damaged: `next` skips it.
            Ok(())
        } else {
            Err(Error::NotARecording)
        }
    }

    /// Is the block's payload there and sound? Its frames are in `words` then, a trailer's number too.
    fn load(&mut self, header: &BlockHeader) -> Result<bool, Error> {
        let stored = header.stored.get() as usize;
        self.fill(HEADER + stored)?;
        let Some(payload) = self.buffer.get(self.position + HEADER..self.position + HEADER + stored) else {
            return Ok(false);
        };
        let len = header.len.get() as usize;
        if crc32fast::hash(payload) != header.payload_crc.get() || !len.is_multiple_of(8) {
            return Ok(false);
        }
        let frames = unpack(header, payload, &mut self.zstd, &mut self.words);
        Ok(match header.kind {
            kind::FRAMES => frames == Some(header.frames.get()),
            kind::TRAILER => self.words.len() == 1,
            // Made by a newer version that the format's version still allows for: skipped as a whole.
            _ => true,
        })
    }

    /// A sound block is at the position, its frames in `words`.
    fn accept(&mut self, header: &BlockHeader, frames: &mut Frames) -> Option<Item> {
        let (index, before) = (header.index.get(), header.frames_before.get());
        let gap = Gap {
            bytes: self.skipped,
            blocks: index.saturating_sub(self.expected.0),
            frames: before.saturating_sub(self.expected.1),
            ts: self.last_ts,
        };
        if gap.bytes + gap.blocks + gap.frames > 0 && matches!(header.kind, kind::FRAMES | kind::TRAILER) {
            // The block stays where it is for the next call.
            (self.expected, self.skipped) = ((index, before), 0);
            return Some(Item::Gap(gap));
        }
        self.position += HEADER + header.stored.get() as usize;
        match header.kind {
            kind::FRAMES => {
                frames.extend(self.words.as_bytes());
                self.expected = (index + 1, before.saturating_add(u64::from(header.frames.get())));
                self.last_ts = header.last_ts.get();
                let (first_ts, last_ts) = (header.first_ts.get(), header.last_ts.get());
                Some(Item::Block(Block { frames: header.frames.get(), first_ts, last_ts }))
            }
            kind::TRAILER => {
                self.trailer = Some(u64::from_le(self.words[0]));
                None
            }
            _ => None,
        }
    }

    fn end(&mut self) -> Item {
        match self.trailer {
            // Bytes after the trailer: foreign ones, or a concatenated recording without its start.
            Some(_) if self.skipped > 0 => {
                Item::Gap(Gap { bytes: std::mem::take(&mut self.skipped), ts: self.last_ts, ..Gap::default() })
            }
            Some(lost) => Item::End(Ending::Clean { lost }),
            None => Item::End(Ending::Truncated { bytes: self.skipped }),
        }
    }

    /// Go on to the next place after this one where a header may start, or to the end.
    fn skip(&mut self) -> Result<(), Error> {
        let mut from = 1;
        loop {
            let rest = &self.buffer[self.position..];
            let found = rest.get(from..).and_then(|r| {
                r.windows(BLOCK_MAGIC.len())
                    .position(|w| w[0] == BLOCK_MAGIC[0] && (w == BLOCK_MAGIC || w == FILE_MAGIC))
            });
            let over = rest.len().saturating_sub(BLOCK_MAGIC.len() - 1).max(from);
            if let Some(found) = found {
                self.advance(from + found);
                return Ok(());
            }
            // The magic number may start in the last bytes.
            self.advance(over.min(rest.len()));
            let left = self.buffer.len() - self.position;
            if !self.fill(left + (64 << 10))? && self.buffer.len() - self.position == left {
                self.advance(left);
                return Ok(());
            }
            from = 0;
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.position += bytes;
        self.skipped += bytes as u64;
    }

    /// Read until `bytes` bytes are there. False at the end of the input.
    fn fill(&mut self, bytes: usize) -> Result<bool, Error> {
        if self.buffer.len() - self.position >= bytes {
            return Ok(true);
        }
        self.buffer.drain(..self.position);
        self.position = 0;
        while self.buffer.len() < bytes {
            let start = self.buffer.len();
            self.buffer.resize(bytes.max(start + 4096), 0);
            let read = self.input.read(&mut self.buffer[start..]);
            self.buffer.truncate(start + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Io { operation: "reading the recording", source }),
            }
        }
        Ok(true)
    }
}

/// Can this program read what follows a sound file header?
fn check(header: &FileHeader) -> Result<(), Error> {
    if header.version.get() > VERSION {
        // There is always a first part.
        let program = header.program.split(|&b| b == 0).next().unwrap_or_default();
        let program = String::from_utf8_lossy(program).escape_debug().to_string();
        return Err(Error::NewerVersion { found: header.version.get(), known: VERSION, program });
    }
    if header.order == ORDER.swap_bytes().to_ne_bytes() {
        return Err(Error::ByteOrder);
    }
    Ok(())
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("expected", &self.expected)
            .field("skipped", &self.skipped)
            .finish_non_exhaustive()
    }
}
