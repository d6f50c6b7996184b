//! Recordings: [`Frames`](crate::frame::Frames) to bytes ([`Writer`]) and back ([`Reader`]).
//!
//! ```text
//! file header │ block │ block │ … │ trailer
//! ```
//!
//! Every part starts with 64 bytes that carry a magic number and a checksum of their own, so that a reader can
//! find the next block after a damaged one. A block holds whole frames and depends on no other block; a file that was
//! cut off gives back every whole one. Blocks number themselves and their frames, so that a reader knows how many are missing.
//! The trailer says that nothing was to follow. Recordings can be concatenated. See [`mod@format`] for the layout.
//!
//! A [`Ring`](ring::Ring) keeps the latest blocks in memory; [`Carry`](carry::Carry) is what a part of a trace needs of those before it.

use std::io;

pub mod carry;
mod delta;
pub mod format;
mod pack;
mod reader;
pub mod ring;
mod writer;

pub use pack::Packed;
pub use reader::{Block, Ending, Gap, Item, Reader};
pub use writer::{DEFAULT_LEVEL, Writer};

/// Why a recording cannot be read or written. What is merely damaged is no error, see [`Item::Gap`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("{operation}: {source}")]
    Io {
        /// What was tried, for example `writing the recording`.
        operation: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Not one byte.
    #[error("the recording is empty: nothing was recorded, or the file was cut off at its start")]
    Empty,
    /// Something else.
    #[error("this is not a tcptrace recording (`tcptrace record FILE` makes one)")]
    NotARecording,
    /// Made by a newer tcptrace.
    #[error(
        "the recording has format version {found}, made by tcptrace {program}; this tcptrace reads up to version {known}: \
         read it with a newer one"
    )]
    NewerVersion {
        /// Of the file.
        found: u32,
        /// The latest that this program knows.
        known: u32,
        /// Version of the program that made it.
        program: String,
    },
    /// Made on a machine with another byte order.
    #[error("the recording was made on a machine of the other byte order: read it on one of that kind")]
    ByteOrder,
    /// What was to be written is not a run of whole frames, or one of them is larger than a block may be.
    #[error("malformed frames cannot be recorded")]
    Malformed,
}

impl Error {
    /// The same as the program tells it, with the file's name.
    #[must_use]
    pub fn of(self, name: &str) -> crate::error::Error {
        use crate::error::Error as Told;
        let path = name.to_owned();
        match self {
            Self::Io { operation, source } => {
                let verb = match operation.split_once(' ').map_or(operation, |(verb, _)| verb) {
                    "opening" => "open",
                    "reading" => "read",
                    "creating" => "create",
                    _ => "write",
                };
                Told::io(format!("{verb} {name}"), source)
            }
            Self::NotARecording => Told::NotARecording { path },
            Self::NewerVersion { found, known, .. } => Told::NewerVersion { path, found, known },
            Self::Empty | Self::ByteOrder | Self::Malformed => Told::Damaged { path, what: self.to_string() },
        }
    }
}

#[cfg(test)]
mod tests;
