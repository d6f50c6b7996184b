//! The flight recorder: the latest frames stay in memory, and are written when somebody asks for it and at the end.
//!
//! A dump is a write of bytes that are there, by a thread of its own; the ring goes on meanwhile.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use super::{
    numbered::Numbered,
    say,
    tape::{Deck, Kept, Recorded, Tape, name},
};
use crate::{
    error::{Error, Result},
    frame::Frames,
    recording::{
        Writer,
        ring::{Dump, Ring, Room},
    },
};

/// See the module.
#[derive(Debug)]
pub struct Flight {
    ring: Ring,
    path: PathBuf,
    /// None: not a regular file, which can be written once.
    numbered: Option<Numbered>,
    quiet: bool,
    /// The dump that is being written.
    writing: Option<JoinHandle<Result<Kept>>>,
    /// Another one was asked for meanwhile.
    again: bool,
    /// The first failure of a dump.
    failed: Option<Error>,
}

impl Flight {
    /// One that will write to `path`, or next to it when asked for. A file that is there keeps its content until then.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn new(path: &Path, room: Room, quiet: bool) -> Result<Self> {
        let mut numbered = None;
        if path != Path::new("-") {
            // A target that cannot be written to shows before the trace begins.
            let file: File = OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .map_err(|source| Error::io(format!("create {}", name(path)), source))?;
            numbered = file.metadata().is_ok_and(|file| file.is_file()).then(|| Numbered::new(path));
        }
        let ring = Ring::new(room).map_err(|e| e.of(&name(path)))?;
        Ok(Self { ring, path: path.to_owned(), numbered, quiet, writing: None, again: false, failed: None })
    }

    /// Of the file, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        name(&self.path)
    }

    /// What SIGUSR1 writes next; None: nothing.
    #[must_use]
    pub fn next(&self) -> Option<String> {
        self.numbered.as_ref().map(|numbered| name(&numbered.name()))
    }

    fn dump(&mut self, so_far: Recorded) -> Result<(Dump, Kept)> {
        let dump = self.ring.dump().map_err(|e| e.of(&name(&self.path)))?;
        let recorded =
            Recorded { records: so_far.records - dump.gone.records, lost: so_far.lost.saturating_sub(dump.gone.lost) };
        let span_ns = dump.span_ns;
        Ok((dump, Kept { recorded, bytes: 0, span_ns, files: 1, name: String::new() }))
    }

    /// Begin to write what the ring holds into a file of its own.
    fn begin(&mut self, so_far: Recorded) -> Result<()> {
        let Some(numbered) = &mut self.numbered else {
            say(&format!(
                "{} takes one recording, at the end; to have some before, record to a file",
                name(&self.path)
            ));
            return Ok(());
        };
        let (writer, made) = numbered.create()?;
        let (dump, kept) = self.dump(so_far)?;
        let name = name(&made.path);
        let write = move || write(dump, writer, Kept { name, ..kept });
        let thread = std::thread::Builder::new().name("dump".to_owned());
        self.writing = Some(thread.spawn(write).map_err(|source| Error::io("start a thread", source))?);
        Ok(())
    }

    /// Tell of the dump that was being written, and begin the next one. `wait`: until it is.
    fn reap(&mut self, so_far: Recorded, wait: bool) {
        while let Some(thread) = self.writing.take_if(|thread| wait || thread.is_finished()) {
            match thread.join() {
                Ok(Ok(kept)) if !self.quiet => say(&format!("wrote {}: {kept}", kept.name)),
                Ok(Ok(_)) => {}
                Ok(Err(e)) => self.fail(e),
                // The hook of panics has ended the process.
                Err(_) => {}
            }
            if std::mem::take(&mut self.again) {
                self.start(so_far);
            }
        }
    }

    fn start(&mut self, so_far: Recorded) {
        if let Err(e) = self.begin(so_far) {
            self.fail(e);
        }
    }

    fn fail(&mut self, e: Error) {
        say(&format!("{e}; the recording goes on"));
        self.failed.get_or_insert(e);
    }
}

fn write(dump: Dump, writer: Writer, kept: Kept) -> Result<Kept> {
    let bytes = dump.write(writer, kept.recorded.lost).map_err(|e| e.of(&kept.name))?;
    Ok(Kept { bytes, ..kept })
}

impl Deck for Flight {
    fn write(&mut self, frames: &Frames, so_far: Recorded) -> Result<()> {
        self.ring.write(frames.as_bytes()).map_err(|e| e.of(&name(&self.path)))?;
        self.reap(so_far, false);
        Ok(())
    }

    fn poked(&mut self, so_far: Recorded) {
        if self.writing.is_some() {
            self.again = true;
        } else {
            self.start(so_far);
        }
    }

    fn finish(mut self, so_far: Recorded) -> Result<Kept> {
        self.reap(so_far, true);
        let (dump, kept) = self.dump(so_far)?;
        let tape = Tape::create(&self.path)?;
        let name = tape.name().to_owned();
        let kept = write(dump, tape.into_writer(), Kept { name, ..kept })?;
        self.failed.map_or(Ok(kept), Err)
    }
}
