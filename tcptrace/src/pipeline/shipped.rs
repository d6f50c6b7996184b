//! A recording in memory → its ladders as text, as `conns --ladder --from` prints them.

use crate::{
    error::Result,
    filter::Filter,
    frame::Frames,
    recording::{Item, Reader},
    sink::{
        Output, output,
        text::{Headings, Look, Text},
    },
};

use super::{Gate, Messages, Records, Run};

/// All ladders of a recording, each with an empty line behind it.
///
/// # Errors
/// It is no recording, or not a whole one.
pub fn draw(recording: &[u8], look: Look) -> Result<String> {
    let damaged = |e: crate::recording::Error| e.of("a recording of tcptrace's own");
    let text = Text::new(Output::new(Vec::new(), output::Reader::Waiting), look, Headings::Connections);
    let mut gate = Gate::new(text, Records::Connections, Filter::default(), None);
    gate.ladders = Some(Box::default());
    let mut run = Run::new(gate, Messages::default(), None);
    let (mut reader, mut frames) = (Reader::new(recording).map_err(damaged)?, Frames::default());
    while let Item::Block(_) = reader.next(&mut frames).map_err(damaged)? {
        for record in frames.iter() {
            run.record(record)?;
        }
        frames.clear();
    }
    run.finish()?;
    Ok(String::from_utf8_lossy(&run.gate.sink.into_inner()).into_owned())
}
