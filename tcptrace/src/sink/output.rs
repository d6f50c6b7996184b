//! Large buffered writes to stdout, and when they leave the process.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use rustix::fs::FileType;

use crate::{
    error::{Error, Result},
    progress,
};

/// A buffer is written when it is this full, bytes.
const FULL: usize = 256 * 1024;
/// What a file waits for at most.
const PATIENCE: Duration = Duration::from_millis(200);

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Somebody may be waiting for every line: a terminal, a pipe or a socket. Written at the end of each batch.
    Waiting,
    /// A file. Written when the buffer is full, and after 200 ms at the latest.
    File,
}

/// The process' standard output without std's line buffer.
#[derive(Debug)]
pub struct Stdout;

impl Stdout {
    /// Who is behind it.
    #[must_use]
    pub fn reader() -> Reader {
        match rustix::fs::fstat(rustix::stdio::stdout()) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Reader::File,
            _ => Reader::Waiting,
        }
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        progress::output();
        Ok(rustix::io::write(rustix::stdio::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer with a buffer that sinks append whole lines to. A failed write is kept and told at the end of the batch.
#[derive(Debug)]
pub struct Output<W> {
    /// Lines that are not written yet; append here, then call [`Output::line`].
    pub buffer: Vec<u8>,
    to: W,
    reader: Reader,
    written: Option<Instant>,
    failed: Option<io::Error>,
}

impl<W: Write> Output<W> {
    /// Nothing written yet.
    pub fn new(to: W, reader: Reader) -> Self {
        // Room for one more long line, so that appending hardly ever allocates.
        Self { buffer: Vec::with_capacity(FULL + 4096), to, reader, written: None, failed: None }
    }

    /// A line was appended to the buffer.
    #[inline]
    pub fn line(&mut self) {
        if self.buffer.len() >= FULL {
            self.write();
        }
    }

    /// The end of a batch; `last`: of all.
    ///
    /// # Errors
    /// A write failed, now or since the last call.
    pub fn flush(&mut self, last: bool) -> Result<()> {
        let due = match self.reader {
            Reader::Waiting => true,
            Reader::File => self.written.get_or_insert_with(Instant::now).elapsed() >= PATIENCE,
        };
        if last || due {
            self.write();
        }
        match self.failed.take() {
            Some(e) => Err(Error::io("write stdout", e)),
            None => Ok(()),
        }
    }

    #[cold]
    fn write(&mut self) {
        if self.failed.is_none()
            && !self.buffer.is_empty()
            && let Err(e) = self.to.write_all(&self.buffer)
        {
            self.failed = Some(e);
        }
        self.buffer.clear();
        if self.reader == Reader::File {
            self.written = Some(Instant::now());
        }
    }

    /// What was written to, for tests.
    pub fn into_inner(self) -> W {
        self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Calls(Vec<usize>);

    impl Write for Calls {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn three_batches(reader: Reader) -> Vec<usize> {
        let mut out = Output::new(Calls::default(), reader);
        for last in [false, false, true] {
            out.buffer.extend_from_slice(b"a line\n");
            out.line();
            out.flush(last).expect("Calls never fails");
        }
        out.into_inner().0
    }

    #[test]
    fn a_reader_that_waits_gets_every_batch_and_a_file_gets_them_together() {
        assert_eq!(three_batches(Reader::Waiting), [7, 7, 7]);
        assert_eq!(three_batches(Reader::File), [21]);
    }

    #[test]
    fn a_full_buffer_is_written_inside_a_batch() {
        let mut out = Output::new(Calls::default(), Reader::File);
        for _ in 0..2 * FULL / 64 {
            out.buffer.extend_from_slice(&[b'x'; 64]);
            out.line();
        }
        assert_eq!(out.into_inner().0, [FULL, FULL]);
    }

    #[test]
    fn a_closed_pipe_is_told_at_the_end_of_the_batch() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = Output::new(Closed, Reader::Waiting);
        out.buffer.push(b'\n');
        assert!(matches!(out.flush(false), Err(Error::ClosedPipe)));
    }
}
