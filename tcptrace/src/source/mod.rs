//! Where frames come from: the live kernel or a recording, behind one trait.

use std::future::Future;

mod file;
pub mod live;

pub use file::FileSource;

use crate::{error::Result, frame::Frames};

/// Yields frames in time order. The first is the `Start` fact, the last of a trace that ended cleanly the `End` fact.
pub trait Source {
    /// Frames come from the running kernel, not from a file.
    const LIVE: bool;

    /// Append the next batch to `frames`; false when there will be no more (the batch of that call counts too). A live
    /// source waits inside.
    ///
    /// Cancel safe: the caller may drop the future at any await; whatever was appended by then stays.
    ///
    /// # Errors
    /// The kernel or the file failed. What was appended before is good.
    fn next(&mut self, frames: &mut Frames) -> impl Future<Output = Result<bool>>;

    /// Ask for the end: a live source stops its programs, and its next batches hold what is left, then the `End` fact. A
    /// recording ends where it is.
    fn stop(&mut self);
}

/// Takes frames as they are: a recording file beside the output, or all that `record` does.
pub trait Recorder {
    /// Append whole frames.
    ///
    /// # Errors
    /// The file cannot be written: the disk is full …
    fn write(&mut self, frames: &Frames) -> Result<()>;

    /// Write what is buffered and close; the number of bytes of the recording.
    ///
    /// # Errors
    /// As [`Recorder::write`].
    fn finish(&mut self) -> Result<u64>;
}
