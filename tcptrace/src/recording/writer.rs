//! Frames in, a recording out.
//!
//! Frames are gathered into blocks of 256 KiB and compressed when one is full, all on the calling thread: with the traced load
//! on the same CPUs a second thread would cost more than it hides.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use zerocopy::{IntoBytes, byteorder::little_endian as le};

use super::{
    Error, delta,
    format::{BLOCK_MAGIC, BlockHeader, FileHeader, HEADER, Header as _, MAX_BLOCK, codec, kind},
};
use crate::frame::Header;

/// zstd level. Measured on a connection storm of 14 frames (984 bytes) a connection, one slow core, nanoseconds and bytes a connection:
/// level 3: 1417 and 116; 1: 969 and 105; -1: 944 and 111; **-3: 750 and 118**; -5: 739 and 168; -10: 861 and 303; -50: 460 and 662.
pub const DEFAULT_LEVEL: i32 = -3;

/// Words of frames in a block. Larger blocks gain little and lose more when damaged.
const TARGET: usize = (256 << 10) / 8;

/// Writes a recording. Without [`Writer::finish`] it lacks its trailer and reads as truncated.
pub struct Writer {
    output: Output,
    zstd: zstd::bulk::Compressor<'static>,
    /// Frames of the block that is being filled.
    words: Vec<u64>,
    frames: u32,
    differences: Vec<u64>,
    /// A block as it goes to the output.
    bytes: Vec<u8>,
    blocks: u64,
    frames_before: u64,
    /// Bytes of whole blocks written.
    written: u64,
}

enum Output {
    /// A regular file, which can be cut back to its last whole block.
    File(File),
    Stream(Box<dyn Write + Send>),
    /// It failed: the error was returned, nothing more is written.
    Failed,
}

impl Writer {
    /// Create or replace a file. Anything that is not a regular file is written to as it is.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self, Error> {
        let file = File::create(path).map_err(|source| Error::Io { operation: "creating the recording", source })?;
        let regular = file.metadata().is_ok_and(|m| m.is_file());
        Self::start(if regular { Output::File(file) } else { Output::Stream(Box::new(file)) }, DEFAULT_LEVEL)
    }

    /// Write to a stream, for example standard output. Each block is one `write_all`, so no buffer is needed around it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new(stream: impl Write + Send + 'static) -> Result<Self, Error> {
        Self::start(Output::Stream(Box::new(stream)), DEFAULT_LEVEL)
    }

    fn start(output: Output, level: i32) -> Result<Self, Error> {
        let zstd = zstd::bulk::Compressor::new(level)
            .map_err(|source| Error::Io { operation: "starting the compressor", source })?;
        let mut writer = Self {
            output,
            zstd,
            words: Vec::with_capacity(TARGET),
            frames: 0,
            differences: Vec::new(),
            bytes: FileHeader::own().as_bytes().to_vec(),
            blocks: 0,
            frames_before: 0,
            written: 0,
        };
        // At once: a target that cannot be written to shows before the trace begins.
        writer.put()?;
        Ok(writer)
    }

    /// Append whole frames, as [`Frames::as_bytes`](crate::frame::Frames::as_bytes) has them. Writes whenever a block is full.
    ///
    /// # Errors
    /// [`Error::Io`] once: what was written before stays readable, and later calls do nothing. [`Error::Malformed`] at a frame
    /// that is incomplete or larger than a block may be; those before it are kept.
    pub fn write(&mut self, frames: &[u8]) -> Result<(), Error> {
        if matches!(self.output, Output::Failed) {
            return Ok(());
        }
        let mut rest = frames;
        while !rest.is_empty() {
            // As many frames as fit in the block.
            let room = TARGET.saturating_sub(self.words.len()) * 8;
            let (mut end, mut count) = (0, 0);
            while let Some(size) = frame_size(&rest[end..])? {
                if end + size > room {
                    break;
                }
                end += size;
                count += 1;
            }
            if end == 0 && self.words.is_empty() {
                // A frame larger than a block is meant to be has one of its own.
                (end, count) = (frame_size(rest)?.unwrap_or(0), 1);
            }
            let start = self.words.len();
            self.words.resize(start + end / 8, 0);
            self.words[start..].as_mut_bytes().copy_from_slice(&rest[..end]);
            self.frames += count;
            rest = &rest[end..];
            if !rest.is_empty() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Write the frames gathered so far as a block. To be called every second or so: it bounds what a crash can lose.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn flush(&mut self) -> Result<(), Error> {
        if self.words.is_empty() || matches!(self.output, Output::Failed) {
            return Ok(());
        }
        let (len, frames) = (self.words.len() * 8, self.frames);
        delta::encode(&self.words, &mut self.differences);
        self.bytes.resize(HEADER + zstd::zstd_safe::compress_bound(len), 0);
        let packed = self
            .zstd
            .compress_to_buffer(self.differences.as_bytes(), &mut self.bytes[HEADER..])
            .map_err(|source| Error::Io { operation: "compressing the recording", source })?;
        let codec = if packed < len {
            self.bytes.truncate(HEADER + packed);
            codec::DELTA_ZSTD
        } else {
            self.bytes.truncate(HEADER);
            self.bytes.extend_from_slice(self.words.as_bytes());
            codec::STORED
        };
        let (first_ts, last_ts) = times(&self.words);
        self.words.clear();
        self.frames = 0;
        self.seal(kind::FRAMES, codec, len, frames, first_ts, last_ts);
        self.put()?;
        self.blocks += 1;
        self.frames_before += u64::from(frames);
        Ok(())
    }

    /// Write what is left and the trailer, and bring a file to the disk. `lost` is the number of events that the kernel side
    /// could not deliver, in all.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn finish(mut self, lost: u64) -> Result<(), Error> {
        self.flush()?;
        self.bytes.clear();
        self.bytes.resize(HEADER, 0);
        self.bytes.extend(lost.to_le_bytes());
        self.seal(kind::TRAILER, codec::STORED, 8, 0, 0, 0);
        self.put()?;
        match &mut self.output {
            Output::File(file) => file.sync_all(),
            Output::Stream(stream) => stream.flush(),
            Output::Failed => Ok(()),
        }
        .map_err(|source| Error::Io { operation: "writing the recording", source })
    }

    /// Bytes written so far: what the file has, and what `--rotate` compares.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Fill in the header of the block in `bytes`.
    fn seal(&mut self, kind: u8, codec: u8, len: usize, frames: u32, first_ts: u64, last_ts: u64) {
        let header = BlockHeader {
            magic: BLOCK_MAGIC,
            kind,
            codec,
            reserved: [0; 2],
            len: le::U32::new(len as u32),
            stored: le::U32::new((self.bytes.len() - HEADER) as u32),
            frames: le::U32::new(frames),
            first_ts: le::U64::new(first_ts),
            last_ts: le::U64::new(last_ts),
            index: le::U64::new(self.blocks),
            frames_before: le::U64::new(self.frames_before),
            payload_crc: le::U32::new(crc32fast::hash(&self.bytes[HEADER..])),
            crc: le::U32::ZERO,
        };
        self.bytes[..HEADER].copy_from_slice(header.sealed().as_bytes());
    }

    /// Send `bytes` out.
    fn put(&mut self) -> Result<(), Error> {
        let result = match &mut self.output {
            Output::File(file) => file.write_all(&self.bytes),
            // A stream that buffers by itself would hold back what a crash must not lose.
            Output::Stream(stream) => stream.write_all(&self.bytes).and_then(|()| stream.flush()),
            Output::Failed => return Ok(()),
        };
        if let Err(source) = result {
            if let Output::File(file) = &self.output {
                // Half a block helps nobody. If this fails too, a reader still finds every whole block before it.
                let _ = file.set_len(self.written);
            }
            self.output = Output::Failed;
            return Err(Error::Io { operation: "writing the recording", source });
        }
        self.written += self.bytes.len() as u64;
        Ok(())
    }
}

/// Bytes of the first frame with its header and padding; `None` at the end.
fn frame_size(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some(len) = bytes.first_chunk() else {
        return if bytes.is_empty() { Ok(None) } else { Err(Error::Malformed) };
    };
    let size = size_of::<Header>() + (u32::from_ne_bytes(*len) as usize).next_multiple_of(8);
    if size > bytes.len() || size > MAX_BLOCK { Err(Error::Malformed) } else { Ok(Some(size)) }
}

/// Times of the first and the last frame that have one.
fn times(words: &[u64]) -> (u64, u64) {
    let (mut first, mut last, mut at) = (None, 0, 0);
    while let Some(len) = delta::frame_len(words, at) {
        if len > 1 {
            last = words[at + 1];
            first.get_or_insert(last);
        }
        at += len;
    }
    (first.unwrap_or(0), last)
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("blocks", &self.blocks).field("written", &self.written).finish_non_exhaustive()
    }
}

/// As [`io::Error`] tells a closed pipe, which ends a command well.
impl Error {
    /// The reader of a pipe is gone.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}
