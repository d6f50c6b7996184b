//! Where frames come from: the live kernel or a recording, behind one trait.

use std::future::Future;

mod file;
mod intervals;
pub mod live;
mod received;
mod snapshots;
mod stacks;

pub use file::{FileSource, Replay};

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
