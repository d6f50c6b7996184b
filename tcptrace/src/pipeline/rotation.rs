//! A recording in parts, each a file that can be read alone.

use std::{collections::VecDeque, path::Path, thread::JoinHandle};

use super::{
    numbered::{Made, Numbered},
    say,
    tape::{Deck, Kept, Recorded, Tape, name},
};
use crate::{
    error::{Error, Result},
    frame::Frames,
    recording::{carry::Carry, ring::Room},
};

/// What a part begins with takes half of it at most, and no more than this.
const MOST_CARRIED: u64 = 64 << 20;

/// See the module.
#[derive(Debug)]
pub struct Rotation {
    numbered: Numbered,
    /// How much a part has.
    part: Room,
    /// How many are kept; None: all.
    keep: Option<usize>,
    carry: Carry,
    tape: Tape,
    /// Those that are there, the current one included.
    files: VecDeque<Made>,
    /// When the current one began.
    began: Option<u64>,
    /// What was in the parts before it, and what was written by now.
    before: Recorded,
    until: Recorded,
    /// The last one is brought to the disk, which can take long.
    closing: Option<JoinHandle<Result<u64>>>,
    /// What is in those that are complete and still there, and their bytes.
    complete: VecDeque<(Recorded, u64)>,
}

impl Rotation {
    /// Create the first part: `FILE.0001`, or with the first number above those that are taken.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn create(path: &Path, part: Room, keep: Option<usize>) -> Result<Self> {
        let mut numbered = Numbered::new(path);
        let (writer, made) = numbered.create()?;
        let tape = Tape::new(writer, name(&made.path));
        let carried = part.bytes.map_or(MOST_CARRIED, |bytes| (bytes / 2).min(MOST_CARRIED));
        Ok(Self {
            numbered,
            part,
            keep,
            carry: Carry::new(carried),
            tape,
            files: VecDeque::from([made]),
            began: None,
            before: Recorded::default(),
            until: Recorded::default(),
            closing: None,
            complete: VecDeque::new(),
        })
    }

    /// Of the current part, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        self.tape.name()
    }

    /// Go on in the next file.
    fn turn(&mut self) -> Result<()> {
        self.close()?;
        let (writer, made) = self.numbered.create()?;
        let tape = std::mem::replace(&mut self.tape, Tape::new(writer, name(&made.path)));
        let recorded = self.recorded(self.until);
        self.before = self.until;
        self.began = None;
        self.complete.push_back((recorded, tape.written()));
        let thread = std::thread::Builder::new().name("close".to_owned());
        let thread = thread.spawn(move || tape.finish(recorded.lost));
        self.closing = Some(thread.map_err(|source| Error::io("start a thread", source))?);
        self.files.push_back(made);
        self.tape.write(&self.carry.frames())?;
        while self.keep.is_some_and(|keep| self.files.len() > keep)
            && let Some(oldest) = self.files.pop_front()
        {
            self.complete.pop_front();
            oldest.delete();
        }
        Ok(())
    }

    /// What is in the current part.
    fn recorded(&self, so_far: Recorded) -> Recorded {
        Recorded { records: so_far.records - self.before.records, lost: so_far.lost - self.before.lost }
    }

    /// The last part is on the disk.
    fn close(&mut self) -> Result<()> {
        match self.closing.take().map(JoinHandle::join) {
            Some(Ok(closed)) => closed.map(|_| ()),
            // The hook of panics has ended the process.
            Some(Err(_)) | None => Ok(()),
        }
    }
}

impl Deck for Rotation {
    fn write(&mut self, frames: &Frames, so_far: Recorded) -> Result<()> {
        let ts = frames.as_words().get(1).copied();
        let began = self.began.or(ts);
        let full = self.part.bytes.is_some_and(|bytes| self.tape.written() >= bytes)
            || self.part.ns.is_some_and(|ns| ts.zip(began).is_some_and(|(ts, began)| ts.saturating_sub(began) >= ns));
        if full && !frames.is_empty() {
            self.turn()?;
        }
        self.began = self.began.or(ts);
        self.tape.write(frames)?;
        self.carry.absorb(frames.as_words());
        self.until = so_far;
        Ok(())
    }

    fn poked(&mut self, so_far: Recorded) {
        let bytes = self.tape.written();
        let kept = Kept { recorded: self.recorded(so_far), bytes, files: 1, ..Kept::default() };
        say(&format!("{}: {kept} so far", self.tape.name()));
    }

    fn finish(mut self, so_far: Recorded) -> Result<Kept> {
        let closed = self.close();
        let name = self.tape.name().to_owned();
        let mut recorded = self.recorded(so_far);
        let mut bytes = self.tape.finish(recorded.lost)?;
        closed?;
        for (part, size) in self.complete {
            recorded.records += part.records;
            recorded.lost += part.lost;
            bytes += size;
        }
        Ok(Kept { recorded, bytes, span_ns: None, files: self.files.len(), name })
    }
}
