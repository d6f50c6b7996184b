//! What flows in: transitions, connections, facts. What flows out: text or JSON on a writer.

use crate::{
    error::Result,
    frame::fact,
    group::Groups,
    model::{Finding, Observer, ladder::Ladder},
};

pub mod escape;
pub mod html;
pub mod json;
pub mod output;
mod page;
pub mod text;
pub mod time;

pub use crate::model::Summary;
pub use output::Output;

/// Prints what it is told of, in the order it is told.
pub trait Sink: Observer {
    /// What CLOCK_REALTIME is from here on: `offset_ns` more than CLOCK_MONOTONIC.
    fn clock(&mut self, offset_ns: i64);

    /// The first line. `filters` are those of the recording and of the command line.
    fn start(&mut self, ts: u64, start: &fact::Start, filters: &[(String, String)]);

    /// Events were lost.
    fn loss(&mut self, ts: u64, loss: &fact::Loss);

    /// Connections by what they have in common, counted for `elapsed_us`: at every tick how it stands, and at the end the `last`.
    fn groups(&mut self, _ts: u64, _elapsed_us: u64, _groups: &Groups, _last: bool) {}
    /// A connection is over, or the run is: `conns --ladder`, in place of [`Observer::connection`].
    #[expect(unused_variables, reason = "no other command asks for ladders")]
    fn ladder(&mut self, ladder: &Ladder) {}

    /// Trouble was found, grew worse or is over.
    #[expect(unused_variables, reason = "most commands look for none")]
    fn finding(&mut self, finding: &Finding) {}

    /// Nothing more comes of this trace, which ended at `ts`; another one may follow in the same file.
    fn ended(&mut self, _ts: u64) {}

    /// The last line.
    fn summary(&mut self, ts: u64, summary: &Summary);

    /// A batch is over: hand on what a reader may be waiting for; everything when it was the `last`.
    ///
    /// # Errors
    /// The output cannot be written, now or since the last call.
    fn flush(&mut self, last: bool) -> Result<()>;
}
