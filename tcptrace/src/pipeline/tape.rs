//! The recording beside the output, and `record`, which is nothing else.

use std::{
    fmt::{self, Write as _},
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use zerocopy::FromBytes;

use super::{FIRST_FACT, Stop, next_batch, say};
use crate::{
    error::{Error, Result},
    frame::{Frames, fact},
    recording::Writer,
    sink::text::{bytes, duration},
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
        let name = name(path);
        let writer = if path == Path::new("-") {
            rustix::io::dup(rustix::stdio::stdout())
                .map_err(|e| Error::io("write standard output", e.into()))
                .and_then(|fd| Writer::new(File::from(fd)).map_err(|e| e.of(&name)))
        } else {
            Writer::create(path).map_err(|e| e.of(&name))
        }?;
        Ok(Self::new(writer, name))
    }

    /// One whose file is there.
    pub(super) fn new(writer: Writer, name: String) -> Self {
        Self { writer, name, flushed: None }
    }

    /// What is written to.
    pub(super) fn into_writer(self) -> Writer {
        self.writer
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
        self.writer.finish(lost).map_err(|e| e.of(&self.name))
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.writer.written()
    }
}

/// Of a file, for messages.
pub(super) fn name(path: &Path) -> String {
    if path == Path::new("-") { "standard output".to_owned() } else { path.display().to_string() }
}

/// What `record` has taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Kernel records.
    pub records: u64,
    /// Events lost.
    pub lost: u64,
}

/// What `record` came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What is in the files.
    pub recorded: Recorded,
    /// Bytes of them.
    pub bytes: u64,
    /// Where not everything was kept: nanoseconds that it is everything of.
    pub span_ns: Option<u64>,
    /// How many there are.
    pub files: usize,
    /// Name of the last.
    pub name: String,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("{} records", self.recorded.records);
        if let Some(ns) = self.span_ns {
            line.push_str(" of the last ");
            duration(&mut line, ns);
        }
        line.push_str(" in ");
        bytes(&mut line, self.bytes);
        if self.files > 1 {
            write!(line, " and {} files", self.files)?;
        }
        write!(f, "{line}, {} events lost", self.recorded.lost)
    }
}

/// Where `record` puts what it gets.
pub trait Deck {
    /// Append a batch. `so_far` counts it.
    ///
    /// # Errors
    /// The disk is full; what was written stays readable.
    fn write(&mut self, frames: &Frames, so_far: Recorded) -> Result<()>;

    /// Somebody sent SIGUSR1.
    fn poked(&mut self, so_far: Recorded);

    /// Nothing follows.
    ///
    /// # Errors
    /// As [`Deck::write`].
    fn finish(self, so_far: Recorded) -> Result<Kept>;
}

impl Deck for Tape {
    fn write(&mut self, frames: &Frames, _: Recorded) -> Result<()> {
        Self::write(self, frames)
    }

    fn poked(&mut self, so_far: Recorded) {
        let kept = Kept { recorded: so_far, bytes: self.written(), files: 1, ..Kept::default() };
        say(&format!("{}: {kept} so far", self.name));
    }

    fn finish(self, so_far: Recorded) -> Result<Kept> {
        let name = self.name.clone();
        let bytes = Self::finish(self, so_far.lost)?;
        Ok(Kept { recorded: so_far, bytes, span_ns: None, files: 1, name })
    }
}

/// All of `record`: frames from the source to the deck, as they are. Only facts are looked at, for what was lost.
///
/// # Errors
/// The source or a file failed. What was written before stays readable.
pub async fn record<S: Source>(source: &mut S, mut deck: impl Deck, stop: &mut impl Stop) -> Result<Kept> {
    let mut done = Recorded::default();
    let result = copy(source, &mut deck, &mut done, stop).await;
    let finished = deck.finish(done);
    result?;
    finished
}

async fn copy<S: Source>(
    source: &mut S,
    deck: &mut impl Deck,
    done: &mut Recorded,
    stop: &mut impl Stop,
) -> Result<()> {
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
        deck.write(&frames, *done)?;
        frames.clear();
        if stop.poked() {
            deck.poked(*done);
        }
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
