//! The layout of a recording. Integers are little-endian; frames are in the byte order that the file header's mark tells.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    byteorder::little_endian::{U32, U64},
};

/// Of the file header; the high bit and the line end show a transfer that mangled the file.
pub const FILE_MAGIC: [u8; 8] = *b"\x8ftcptr\r\n";
/// Of a block header.
pub const BLOCK_MAGIC: [u8; 8] = *b"\x8fTCPblk\n";
/// The version that this program writes, and the latest that it reads.
pub const VERSION: u32 = 1;
/// [`FileHeader::order`] as the writing machine stores it.
pub const ORDER: u32 = 0x0a0b_0c0d;
/// Bytes of either header.
pub const HEADER: usize = 64;
/// Most bytes of frames that a block may hold, and most bytes that it may take in the file.
pub const MAX_BLOCK: usize = 16 << 20;

/// Starts the file. Its layout is the same in every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FileHeader {
    /// [`FILE_MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: U32,
    /// [`ORDER`] in the byte order of the frames.
    pub order: [u8; 4],
    /// Version of the program that wrote it, NUL-padded.
    pub program: [u8; 24],
    /// Zero.
    pub reserved: [u8; 20],
    /// CRC-32 of what precedes.
    pub crc: U32,
}

/// What follows a [`BlockHeader`]. A reader skips kinds that it does not know.
pub mod kind {
    /// Frames.
    pub const FRAMES: u8 = 0;
    /// The end: `index` and `frames_before` are the totals, the payload is the number of lost events as a 64-bit integer.
    pub const TRAILER: u8 = 1;
}

/// How a block's payload is stored.
pub mod codec {
    /// Frames as they are.
    pub const STORED: u8 = 0;
    /// Frames as differences (see `delta.rs`), compressed with zstd.
    pub const DELTA_ZSTD: u8 = 1;
}

/// Starts a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BlockHeader {
    /// [`BLOCK_MAGIC`].
    pub magic: [u8; 8],
    /// See [`kind`].
    pub kind: u8,
    /// See [`codec`].
    pub codec: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// Bytes of the frames.
    pub len: U32,
    /// Bytes of the payload that follows.
    pub stored: U32,
    /// Number of frames.
    pub frames: U32,
    /// Time of the first frame, `CLOCK_MONOTONIC` nanoseconds.
    pub first_ts: U64,
    /// Time of the last frame.
    pub last_ts: U64,
    /// Blocks before this one.
    pub index: U64,
    /// Frames before this block.
    pub frames_before: U64,
    /// CRC-32 of the payload.
    pub payload_crc: U32,
    /// CRC-32 of what precedes.
    pub crc: U32,
}

const _: () = assert!(size_of::<FileHeader>() == HEADER && size_of::<BlockHeader>() == HEADER);

/// What both headers have in common: [`HEADER`] bytes that begin with a mark and end with the CRC-32 of what precedes it.
pub trait Header: FromBytes + IntoBytes + Immutable + Sized {
    /// The mark.
    const MAGIC: [u8; 8];

    /// With its checksum.
    #[must_use]
    fn sealed(mut self) -> Self {
        let crc = crc(self.as_bytes());
        self.as_mut_bytes()[HEADER - 4..].copy_from_slice(crc.as_bytes());
        self
    }

    /// Is it one, undamaged?
    #[must_use]
    fn is_intact(&self) -> bool {
        let bytes = self.as_bytes();
        bytes[..8] == Self::MAGIC && bytes[HEADER - 4..] == *crc(bytes).as_bytes()
    }
}

impl Header for FileHeader {
    const MAGIC: [u8; 8] = FILE_MAGIC;
}

impl Header for BlockHeader {
    const MAGIC: [u8; 8] = BLOCK_MAGIC;
}

fn crc(header: &[u8]) -> U32 {
    U32::new(crc32fast::hash(&header[..HEADER - 4]))
}

impl FileHeader {
    /// That of this program on this machine.
    #[must_use]
    pub fn own() -> Self {
        let mut program = [0; 24];
        let version = env!("CARGO_PKG_VERSION").as_bytes();
        let len = version.len().min(program.len());
        program[..len].copy_from_slice(&version[..len]);
        Self {
            magic: FILE_MAGIC,
            version: U32::new(VERSION),
            order: ORDER.to_ne_bytes(),
            program,
            reserved: [0; 20],
            crc: U32::ZERO,
        }
        .sealed()
    }

    /// Is it one that was damaged? The first 16 bytes are the same in every file that this program can read; a damaged one
    /// still has most of them.
    #[must_use]
    pub fn resembles_own(&self) -> bool {
        let same = self.as_bytes().iter().zip(Self::own().as_bytes()).take(16).filter(|(a, b)| a == b).count();
        same >= 12
    }
}

impl BlockHeader {
    /// Is it one, undamaged and within the limits?
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.is_intact() && self.len.get() as usize <= MAX_BLOCK && self.stored.get() as usize <= MAX_BLOCK
    }
}
