//! Frames to blocks and back, without a file around them.

use std::sync::Arc;

use zerocopy::{FromZeros, IntoBytes, byteorder::little_endian as le};

use super::{
    Error, delta,
    format::{BLOCK_MAGIC, BlockHeader, HEADER, MAX_BLOCK, codec, kind},
};
use crate::frame::Header;

/// Words of frames in a block. Larger blocks gain little and lose more when damaged.
const TARGET: usize = (256 << 10) / 8;

/// A block that is kept in memory, to be written later.
#[derive(Clone, Debug)]
pub struct Packed {
    /// But for its place in a file.
    pub(super) header: BlockHeader,
    pub(super) payload: Arc<[u8]>,
}

/// Gathers frames until they fill a block.
pub(super) struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    /// Frames of the block that is being filled.
    words: Vec<u64>,
    frames: u32,
    differences: Vec<u64>,
}

impl Packer {
    /// # Errors
    /// [`Error::Io`] if there is no memory for the compressor.
    pub fn new(level: i32) -> Result<Self, Error> {
        let zstd = zstd::bulk::Compressor::new(level)
            .map_err(|source| Error::Io { operation: "starting the compressor", source })?;
        Ok(Self { zstd, words: Vec::with_capacity(TARGET), frames: 0, differences: Vec::new() })
    }

    /// Take as many whole frames as fit in the block: what is left has to wait until it was packed.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn fill<'a>(&mut self, frames: &'a [u8]) -> Result<&'a [u8], Error> {
        let room = TARGET.saturating_sub(self.words.len()) * 8;
        let (mut end, mut count) = (0, 0);
        while let Some(size) = frame_size(&frames[end..])? {
            if end + size > room {
                break;
            }
            end += size;
            count += 1;
        }
        if end == 0
            && self.words.is_empty()
            && let Some(size) = frame_size(frames)?
        {
            // A frame larger than a block is meant to be has one of its own.
            (end, count) = (size, 1);
        }
        let start = self.words.len();
        self.words.resize(start + end / 8, 0);
        self.words[start..].as_mut_bytes().copy_from_slice(&frames[..end]);
        self.frames += count;
        Ok(&frames[end..])
    }

    /// Make a block of what was gathered, if anything: its payload is in `bytes` behind the room for its header.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pack(&mut self, bytes: &mut Vec<u8>) -> Result<Option<BlockHeader>, Error> {
        if self.words.is_empty() {
            return Ok(None);
        }
        let len = self.words.len() * 8;
        delta::encode(&self.words, &mut self.differences);
        bytes.resize(HEADER + zstd::zstd_safe::compress_bound(len), 0);
        let packed = self
            .zstd
            .compress_to_buffer(self.differences.as_bytes(), &mut bytes[HEADER..])
            .map_err(|source| Error::Io { operation: "compressing the recording", source })?;
        let codec = if packed < len {
            bytes.truncate(HEADER + packed);
            codec::DELTA_ZSTD
        } else {
            bytes.truncate(HEADER);
            bytes.extend_from_slice(self.words.as_bytes());
            codec::STORED
        };
        let (first_ts, last_ts) = times(&self.words);
        let header = BlockHeader {
            len: le::U32::new(len as u32),
            frames: le::U32::new(self.frames),
            first_ts: le::U64::new(first_ts),
            last_ts: le::U64::new(last_ts),
            ..header(kind::FRAMES, codec)
        };
        self.words.clear();
        self.frames = 0;
        Ok(Some(header))
    }
}

/// One that says nothing yet.
pub(super) fn header(kind: u8, codec: u8) -> BlockHeader {
    BlockHeader { magic: BLOCK_MAGIC, kind, codec, ..BlockHeader::new_zeroed() }
}

/// The frames of a payload, in place of what `words` held; their number, None if it is not sound. `words` is as long as the header says
/// and is not a trailer's or an unknown kind's business.
pub(super) fn unpack(
    header: &BlockHeader,
    payload: &[u8],
    zstd: &mut zstd::bulk::Decompressor<'static>,
    words: &mut Vec<u64>,
) -> Option<u32> {
    let len = header.len.get() as usize;
    words.clear();
    words.resize(len / 8, 0);
    let bytes = words.as_mut_bytes();
    match header.codec {
        codec::STORED if payload.len() == len => {
            bytes.copy_from_slice(payload);
            delta::count(words)
        }
        codec::DELTA_ZSTD => match zstd.decompress_to_buffer(payload, bytes) {
            Ok(n) if n == len => delta::decode(words),
            Ok(_) | Err(_) => None,
        },
        _ => None,
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
