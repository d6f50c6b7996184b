//! A recording as a source: a block of it a call.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::task::JoinHandle;

use crate::{
    frame::{Frames, fact},
    recording::{Ending, Error, Gap, Item, Reader},
};

const OPENING: &str = "opening the recording";

type Input = Reader<Box<dyn Read + Send>>;

/// Yields the frames of a recording.
#[derive(Debug)]
pub struct FileSource {
    reader: Where,
    ending: Option<Ending>,
    damage: Gap,
    /// Somebody asked for the end.
    stopped: bool,
}

/// Where the reader is. On a thread of its own it may block on a pipe while signals are served here.
#[derive(Debug)]
enum Where {
    Here(Box<Input>),
    There(JoinHandle<(Box<Input>, Frames, Result<Item, Error>)>),
    /// The thread died with it.
    Gone,
}

impl FileSource {
    /// Open FILE, or standard input for `-`.
    ///
    /// # Errors
    /// [`Error::Io`]. Whether it is a recording shows at the first [`FileSource::next`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let input: Box<dyn Read + Send> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).map_err(|source| Error::Io { operation: OPENING, source })?)
        };
        Self::new(input)
    }

    /// Read from any stream.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no memory for the decompressor.
    pub fn new(input: Box<dyn Read + Send>) -> Result<Self, Error> {
        Ok(Self {
            reader: Where::Here(Box::new(Reader::new(input)?)),
            ending: None,
            damage: Gap::default(),
            stopped: false,
        })
    }

    /// Replace `frames` by those of the next block; false when the recording is over. A damaged place comes as a
    /// [`fact::Loss`] of kind `recording` that counts the frames missing there. Cancelling loses nothing. Needs a Tokio runtime.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub async fn next(&mut self, frames: &mut Frames) -> Result<bool, Error> {
        frames.clear();
        loop {
            match self.item(frames).await? {
                Item::Block(_) => return Ok(true),
                Item::Gap(gap) => {
                    self.damage.bytes += gap.bytes;
                    self.damage.blocks += gap.blocks;
                    self.damage.frames += gap.frames;
                    self.damage.ts = gap.ts;
                    if gap.frames > 0 {
                        let loss =
                            fact::Loss { kind: "recording".to_owned(), count: gap.frames, ..fact::Loss::default() };
                        frames.push_fact(fact::kind::LOSS, gap.ts, &loss);
                        return Ok(true);
                    }
                }
                Item::End(ending) => {
                    self.ending = Some(ending);
                    return Ok(false);
                }
            }
        }
    }

    async fn item(&mut self, frames: &mut Frames) -> Result<Item, Error> {
        if let Where::Here(_) = self.reader
            && let Where::Here(mut reader) = std::mem::replace(&mut self.reader, Where::Gone)
        {
            let mut buffer = std::mem::take(frames);
            self.reader = Where::There(tokio::task::spawn_blocking(move || {
                let item = reader.next(&mut buffer);
                (reader, buffer, item)
            }));
        }
        let gone = |source| Error::Io { operation: "reading the recording", source };
        let Where::There(thread) = &mut self.reader else { return Err(gone(io::ErrorKind::Other.into())) };
        let (reader, buffer, item) = thread.await.map_err(|e| gone(io::Error::other(e)))?;
        self.reader = Where::Here(reader);
        *frames = buffer;
        item
    }

    /// How it ended, once [`FileSource::next`] returned false.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// All damaged places so far, added up.
    #[must_use]
    pub fn damage(&self) -> Gap {
        self.damage
    }

    /// What the caller should say on stderr when the recording is over: one line for each kind of defect.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let Gap { bytes, blocks, frames, .. } = self.damage;
        if bytes + blocks + frames > 0 {
            lines.push(format!(
                "the recording is damaged: {bytes} bytes were skipped, {blocks} blocks with {frames} frames are missing"
            ));
        }
        if let Some(Ending::Truncated { bytes }) = self.ending {
            lines.push(format!(
                "the recording was cut off: it has no trailer, and {bytes} bytes after its last whole block could not be read"
            ));
        }
        lines
    }
}

/// A recording under the name that the user gave it.
#[derive(Debug)]
pub struct Replay {
    file: FileSource,
    name: String,
    size: Option<u64>,
    read: Arc<AtomicU64>,
}

/// Counts what is read.
struct Counted(File, Arc<AtomicU64>);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.fetch_add(n as u64, Relaxed);
        Ok(n)
    }
}

impl Replay {
    /// Open FILE, or standard input for `-`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> crate::error::Result<Self> {
        let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        let (mut size, read) = (None, Arc::default());
        let file = if path == Path::new("-") {
            FileSource::open(path)
        } else {
            File::open(path).map_err(|source| Error::Io { operation: OPENING, source }).and_then(|file| {
                size = file.metadata().ok().filter(Metadata::is_file).map(|file| file.len());
                FileSource::new(Box::new(Counted(file, Arc::clone(&read))))
            })
        };
        match file {
            Ok(file) => Ok(Self { file, name, size, read }),
            Err(e) => Err(e.of(&name)),
        }
    }

    /// Of the file, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Was it read to its end?
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.file.ending().is_some()
    }

    /// Bytes of a regular file.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Bytes read so far.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// What is missing in it, once it was read to its end.
    ///
    /// # Errors
    /// [`crate::error::Error::Damaged`].
    pub fn check(&self) -> crate::error::Result<()> {
        let complaints = self.file.complaints();
        if complaints.is_empty() {
            return Ok(());
        }
        Err(crate::error::Error::Damaged { path: self.name.clone(), what: complaints.join("; ") })
    }
}

impl super::Source for Replay {
    const LIVE: bool = false;

    /// Replaces `frames`, which the pipeline has emptied.
    async fn next(&mut self, frames: &mut Frames) -> crate::error::Result<bool> {
        if self.file.stopped {
            return Ok(false);
        }
        self.file.next(frames).await.map_err(|e| e.of(&self.name))
    }

    fn stop(&mut self) {
        self.file.stopped = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decode::{Event, decode},
        recording::Writer,
    };
    use std::io::Write as _;
    use tcptrace_common::record::Head;
    use zerocopy::IntoBytes;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
    }

    /// Three blocks of two frames each.
    fn recorded() -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut writer = Writer::create(file.path()).expect("there is room");
        for ts in 0..3 {
            let mut frames = Frames::default();
            frames.push(0, Head { ts: ts * 10, kind: 1, ..Head::default() }.as_bytes());
            frames.push(1, Head { ts: ts * 10 + 1, kind: 8, ..Head::default() }.as_bytes());
            writer.write(frames.as_bytes()).and_then(|()| writer.flush()).expect("there is room");
        }
        writer.finish(0).expect("there is room");
        std::fs::read(file.path()).expect("readable")
    }

    async fn drain(source: &mut FileSource) -> Vec<Vec<String>> {
        let (mut frames, mut batches) = (Frames::default(), Vec::new());
        while source.next(&mut frames).await.expect("readable") {
            let name = |record: &[u8]| match decode(record).expect("known") {
                Event::State(head) => format!("state {}", head.ts),
                Event::Destroyed(head) => format!("destroyed {}", head.ts),
                Event::Loss(ts, loss) => format!("{} {} at {ts}", loss.kind, loss.count),
                other => panic!("{other:?}"),
            };
            batches.push(frames.iter().map(name).collect());
        }
        assert!(frames.is_empty());
        batches
    }

    #[test]
    fn a_block_a_call_through_a_pipe() {
        let bytes = recorded();
        let (input, mut output) = io::pipe().expect("a pipe");
        // One byte at a time: no read gives a whole header.
        let feeder = std::thread::spawn(move || bytes.iter().for_each(|b| output.write_all(&[*b]).expect("read")));
        let mut source = FileSource::new(Box::new(input)).expect("memory");
        let batches = block_on(drain(&mut source));
        feeder.join().expect("fed");
        assert_eq!(batches, [["state 0", "destroyed 1"], ["state 10", "destroyed 11"], ["state 20", "destroyed 21"]]);
        assert_eq!((source.ending(), source.complaints()), (Some(Ending::Clean { lost: 0 }), vec![]));
    }

    #[test]
    fn damage_becomes_a_loss_where_it_is() {
        let mut bytes = recorded();
        let second = bytes.windows(8).enumerate().filter(|(_, w)| *w == crate::recording::format::BLOCK_MAGIC).nth(1);
        let second = second.expect("three blocks").0;
        bytes[second + 70] ^= 4;
        bytes.truncate(bytes.len() - 5);
        let mut source = FileSource::new(Box::new(io::Cursor::new(bytes))).expect("memory");
        let batches = block_on(drain(&mut source));
        assert_eq!(
            batches,
            [vec!["state 0", "destroyed 1"], vec!["recording 2 at 1"], vec!["state 20", "destroyed 21"]]
        );
        let complaints = source.complaints().join("\n");
        assert!(complaints.contains("1 blocks with 2 frames are missing"), "{complaints}");
        assert!(complaints.contains("no trailer, and 67 bytes"), "{complaints}");
    }

    #[test]
    fn cancelling_loses_nothing() {
        let (input, mut output) = io::pipe().expect("a pipe");
        let mut source = FileSource::new(Box::new(input)).expect("memory");
        block_on(async {
            let mut frames = Frames::default();
            let cut = tokio::time::timeout(std::time::Duration::from_millis(1), source.next(&mut frames)).await;
            assert!(cut.is_err(), "nothing was written to the pipe yet");
            output.write_all(&recorded()).expect("room in the pipe");
            drop(output);
            assert_eq!(drain(&mut source).await.len(), 3);
        });
    }

    #[test]
    fn what_cannot_be_opened_says_so() {
        let error = FileSource::open(Path::new("/nonexistent/trace")).expect_err("it is not there");
        assert_eq!(error.to_string(), "opening the recording: No such file or directory (os error 2)");
        let mut source = FileSource::open(Path::new("/dev/null")).expect("it opens");
        assert!(matches!(block_on(source.next(&mut Frames::default())), Err(Error::Empty)));
    }
}
