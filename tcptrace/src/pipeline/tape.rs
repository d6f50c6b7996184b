//! The recording beside the output, and `record`, which is nothing else.

use std::{
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use zerocopy::FromBytes;

use super::{FIRST_FACT, Stop, next_batch};
use crate::{
    error::{Error, Result},
    frame::{Frames, fact},
    recording::Writer,
    source::Source,
};

/// What a crash can lose at most.
const FLUSH: Duration = Duration::from_secs(1);

/// A recording that is being written.
#[derive(Debug)]
pub struct Tape {
    writer: Writer,
    name: String,
    /// None before the first batch, which has a block of its own: without the start and the clock the rest is worth little,
    /// and a small block is seldom hit.
    flushed: Option<Instant>,
}

impl Tape {
    /// Create or replace `path`; `-` is standard output.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn create(path: &Path) -> Result<Self> {
        let stdout = path == Path::new("-");
        let name = if stdout { "standard output".to_owned() } else { path.display().to_string() };
        let writer = if stdout {
            rustix::io::dup(rustix::stdio::stdout())
                .map_err(|e| Error::io("write standard output", e.into()))
                .and_then(|fd| Writer::new(File::from(fd)).map_err(|e| e.of(&name)))
        } else {
            Writer::create(path).map_err(|e| e.of(&name))
        }?;
        Ok(Self { writer, name, flushed: None })
    }

    /// Of the file, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Append a batch.
    ///
    /// # Errors
    /// The disk is full; what was written stays readable.
    pub fn write(&mut self, frames: &Frames) -> Result<()> {
        let mut result = self.writer.write(frames.as_bytes());
        if result.is_ok() && !frames.is_empty() && self.flushed.is_none_or(|at| at.elapsed() >= FLUSH) {
            self.flushed = Some(Instant::now());
            result = self.writer.flush();
        }
        result.map_err(|e| e.of(&self.name))
    }

    /// Write the rest and say that nothing follows; the bytes written. `lost` events were lost.
    ///
    /// # Errors
    /// As [`Tape::write`].
    pub fn finish(self, lost: u64) -> Result<u64> {
        let written = self.writer.written();
        let name = self.name;
        self.writer.finish(lost).map_err(|e| e.of(&name))?;
        Ok(written)
    }
}

/// What `record` came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Bytes of the file, without what it ends with.
    pub bytes: u64,
    /// Kernel records.
    pub records: u64,
    /// Events lost.
    pub lost: u64,
}

/// All of `record`: frames from the source to the file, as they are. Only facts are looked at, for what was lost.
///
/// # Errors
/// The source or the file failed. What was written before stays readable.
pub async fn record<S: Source>(source: &mut S, mut tape: Tape, stop: &mut impl Stop) -> Result<Recorded> {
    let mut done = Recorded::default();
    let result = copy(source, &mut tape, &mut done, stop).await;
    let finished = tape.finish(done.lost);
    result?;
    done.bytes = finished?;
    Ok(done)
}

async fn copy<S: Source>(source: &mut S, tape: &mut Tape, done: &mut Recorded, stop: &mut impl Stop) -> Result<()> {
    let mut frames = Frames::with_capacity(1 << 20);
    let mut stopping = false;
    loop {
        let Some(more) = next_batch(source, &mut frames, stop, &mut stopping).await else { return Ok(()) };
        for record in frames.iter() {
            match record.get(16) {
                Some(&fact::kind::LOSS) => done.lost += lost(record),
                Some(&kind) if kind < FIRST_FACT => done.records += 1,
                _ => {}
            }
        }
        tape.write(&frames)?;
        frames.clear();
        if !more? {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

fn lost(record: &[u8]) -> u64 {
    let body = tcptrace_common::record::Head::ref_from_prefix(record).map_or(&[][..], |(_, body)| body);
    serde_json::from_slice::<fact::Loss>(body).map_or(0, |loss| loss.count)
}
