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
    Error,
    format::{BlockHeader, FileHeader, HEADER, Header as _, codec, kind},
    pack::{Packed, Packer, header},
};

/// zstd level. Measured on a connection storm of 14 frames (984 bytes) a connection, one slow core, nanoseconds and bytes a connection:
/// level 3: 1417 and 116; 1: 969 and 105; -1: 944 and 111; **-3: 750 and 118**; -5: 739 and 168; -10: 861 and 303; -50: 460 and 662.
pub const DEFAULT_LEVEL: i32 = -3;

/// Writes a recording. Without [`Writer::finish`] it lacks its trailer and reads as truncated.
pub struct Writer {
    output: Output,
    packer: Packer,
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
        Self::open(File::create(path))
    }

    /// Create a file where there is none.
    ///
    /// # Errors
    /// [`Error::Io`], of kind `AlreadyExists` where there is one.
    pub fn create_new(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open(File::create_new(path))
    }

    fn open(file: io::Result<File>) -> Result<Self, Error> {
        let file = file.map_err(|source| Error::Io { operation: "creating the recording", source })?;
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
        let mut writer = Self {
            output,
            packer: Packer::new(level)?,
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
        let mut rest = self.packer.fill(frames)?;
        while !rest.is_empty() {
            self.flush()?;
            rest = self.packer.fill(rest)?;
        }
        Ok(())
    }

    /// Write the frames gathered so far as a block. To be called every second or so: it bounds what a crash can lose.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn flush(&mut self) -> Result<(), Error> {
        if matches!(self.output, Output::Failed) {
            return Ok(());
        }
        match self.packer.pack(&mut self.bytes)? {
            Some(header) => self.put_block(header),
            None => Ok(()),
        }
    }

    /// Write a block that was made before, behind what was gathered.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn append(&mut self, block: &Packed) -> Result<(), Error> {
        self.flush()?;
        self.bytes.truncate(0);
        self.bytes.resize(HEADER, 0);
        self.bytes.extend_from_slice(&block.payload);
        self.put_block(block.header)
    }

    fn put_block(&mut self, header: BlockHeader) -> Result<(), Error> {
        self.seal(header);
        self.put()?;
        self.blocks += 1;
        self.frames_before += u64::from(header.frames.get());
        Ok(())
    }

    /// Write what is left and the trailer, and bring a file to the disk; the bytes written. `lost` is the number of events that the
    /// kernel side could not deliver, in all.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn finish(mut self, lost: u64) -> Result<u64, Error> {
        self.flush()?;
        self.bytes.clear();
        self.bytes.resize(HEADER, 0);
        self.bytes.extend(lost.to_le_bytes());
        self.seal(BlockHeader { len: le::U32::new(8), ..header(kind::TRAILER, codec::STORED) });
        self.put()?;
        match &mut self.output {
            Output::File(file) => file.sync_all(),
            Output::Stream(stream) => stream.flush(),
            Output::Failed => Ok(()),
        }
        .map_err(|source| Error::Io { operation: "writing the recording", source })?;
        Ok(self.written)
    }

    /// Bytes written so far: what the file has, and what `--rotate` compares.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Put the header in front of the block in `bytes`, with its place in the file.
    fn seal(&mut self, header: BlockHeader) {
        let header = BlockHeader {
            stored: le::U32::new((self.bytes.len() - HEADER) as u32),
            index: le::U64::new(self.blocks),
            frames_before: le::U64::new(self.frames_before),
            payload_crc: le::U32::new(crc32fast::hash(&self.bytes[HEADER..])),
            ..header
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
