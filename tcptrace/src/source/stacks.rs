//! Puts what is known of user-space stacks into the stream: frames in, the same with `Stack` and `OpenedAt` facts behind the records that
//! they belong to out.
//!
//! A record whose stack was copied holds the stream back until the copy is unwound, which mostly it is by the time that the record is taken
//! out of its ring, but no longer than [`PATIENCE`]: a file system that hangs delays nothing for long. What comes later is told when it is
//! there. While one is late, nobody waits for those behind it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tcptrace_common::record::{Head, flag, kind};
use zerocopy::FromBytes as _;

use crate::{
    frame::{
        Frames, Header,
        fact::{self, StackFrame},
    },
    kernel::{Error, ring::Ring},
    stack::{Answer, Resolver},
};

/// How long a record waits for its stack, nanoseconds. The first stack of a process has its files read.
const PATIENCE: u64 = 1_000_000_000;
/// When one that does not come is given up, nanoseconds.
const GIVEN_UP: u64 = 60 * PATIENCE;
/// No more than so many bytes are held back.
const HOLD: usize = 8 << 20;
/// How long the end of a run waits at a time.
const STEP: Duration = Duration::from_millis(10);
/// Answers that nobody came for, before the oldest is forgotten: the rings lost their records.
const UNCLAIMED: usize = 4096;

/// Cookie of the socket, and number of the record that told of the copy.
type Key = (u64, u16);

/// See the module.
pub struct Stacks {
    resolver: Resolver,
    stream: Stream,
}

impl Stacks {
    /// Begin to unwind what comes into these rings, one of each CPU.
    ///
    /// # Errors
    /// [`Error::Load`].
    pub fn start(rings: Vec<Ring>) -> Result<Self, Error> {
        let resolver = Resolver::start(rings).map_err(|e| Error::load("starting to unwind stacks", e))?;
        Ok(Self { resolver, stream: Stream::default() })
    }

    /// Are frames held back?
    pub fn is_holding(&self) -> bool {
        !self.stream.held.is_empty()
    }

    /// Wait a little for what frames are held back for: there is nothing else to do.
    pub fn wait(&mut self) {
        if let Ok(answer) = self.resolver.wait(STEP) {
            self.stream.add(answer);
        }
    }

    /// Take the batch `frames`, and leave what may go on at `now`.
    pub fn pass(&mut self, now: u64, frames: &mut Frames) {
        for answer in self.resolver.answers() {
            self.stream.add(answer);
        }
        self.stream.pass(now, frames);
    }
}

/// The stream, with what is known of stacks and not told yet.
#[derive(Default)]
struct Stream {
    /// What no record came for.
    answers: HashMap<Key, Arc<[StackFrame]>>,
    /// In the order in which they came; some were fetched.
    order: VecDeque<Key>,
    /// Records that went on without, with their times.
    late: HashMap<Key, u64>,
    held: Frames,
    /// The stacks that were told, with their numbers.
    told: HashMap<Arc<[StackFrame]>, u64>,
    last: u64,
}

impl Stream {
    fn add(&mut self, answer: Answer) {
        let key = (answer.sock, answer.seq);
        self.answers.insert(key, answer.frames);
        self.order.push_back(key);
        while self.order.len() > UNCLAIMED {
            if let Some(oldest) = self.order.pop_front() {
                self.answers.remove(&oldest);
            }
        }
    }

    fn pass(&mut self, now: u64, frames: &mut Frames) {
        let is_quiet = self.held.is_empty() && self.late.is_empty();
        if is_quiet && !frames.iter().any(|record| copied(record).is_some()) {
            return;
        }
        if self.waits_on(now) {
            self.held.extend(frames.as_bytes());
            frames.clear();
            return;
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend(frames.as_bytes());
        frames.clear();
        self.tell_late(now, frames);
        let crowded = held.len() > HOLD;
        let (mut from, mut at) = (0, 0);
        let bytes = held.as_bytes();
        for record in held.iter() {
            let begin = at;
            at += size_of::<Header>() + record.len().next_multiple_of(8);
            let Some((key, ts)) = copied(record) else { continue };
            if let Some(stack) = self.answers.remove(&key) {
                frames.extend(&bytes[from..at]);
                from = at;
                self.tell(key, ts, stack, frames);
            } else if !self.late.is_empty() || crowded || now.saturating_sub(ts) > PATIENCE {
                self.late.insert(key, ts);
            } else {
                frames.extend(&bytes[from..begin]);
                self.held.extend(&bytes[begin..]);
                return;
            }
        }
        frames.extend(&bytes[from..]);
    }

    /// Does what is held back stay? Its first record is what all of it waits for.
    fn waits_on(&self, now: u64) -> bool {
        let first = self.held.iter().next().and_then(copied);
        first
            .is_some_and(|(key, ts)| self.late.is_empty() && !self.answers.contains_key(&key) && self.has_time(now, ts))
    }

    /// May a record of `ts` wait for its stack?
    fn has_time(&self, now: u64, ts: u64) -> bool {
        self.held.len() <= HOLD && now.saturating_sub(ts) <= PATIENCE
    }

    /// Tell of what came too late for its record.
    fn tell_late(&mut self, now: u64, frames: &mut Frames) {
        let answers = &self.answers;
        let mut due: Vec<(Key, u64)> = self.late.extract_if(|key, _| answers.contains_key(key)).collect();
        due.sort_unstable_by_key(|(_, ts)| *ts);
        // One that never comes is not waited for longer than it may take.
        self.late.retain(|_, ts| now.saturating_sub(*ts) < GIVEN_UP);
        for (key, ts) in due {
            if let Some(stack) = self.answers.remove(&key) {
                self.tell(key, ts, stack, frames);
            }
        }
    }

    /// Tell where a socket was opened; if nothing is known of that, nothing.
    fn tell(&mut self, (sock, _): Key, ts: u64, stack: Arc<[StackFrame]>, frames: &mut Frames) {
        if stack.is_empty() {
            return;
        }
        let known = self.told.get(&stack).copied();
        let id = known.unwrap_or_else(|| {
            if self.told.len() >= fact::Stack::REMEMBERED {
                self.told.clear();
            }
            self.last += 1;
            frames.push_fact(fact::kind::STACK, ts, &fact::Stack { id: self.last, frames: stack.to_vec() });
            self.told.insert(stack, self.last);
            self.last
        });
        frames.push_fact(fact::kind::OPENED_AT, ts, &fact::OpenedAt { sock, stack: id });
    }
}

/// The record tells that a stack was copied: which, and its time.
fn copied(record: &[u8]) -> Option<(Key, u64)> {
    let (head, _) = Head::ref_from_prefix(record).ok()?;
    let opens = matches!(head.kind, kind::OPEN | kind::ACCEPTED);
    (opens && head.flags & flag::STACK != 0).then_some(((head.sock, head.seq), head.ts))
}

#[cfg(test)]
mod tests {
    use tcptrace_common::record::Open;
    use zerocopy::IntoBytes as _;

    use super::*;

    fn frame(function: &str) -> StackFrame {
        StackFrame { function: Some(function.to_owned()), ..StackFrame::default() }
    }

    fn answer(sock: u64, functions: &[&str]) -> Answer {
        Answer { sock, seq: 1, frames: functions.iter().map(|name| frame(name)).collect() }
    }

    /// connect() of a socket whose stack was copied.
    fn open(frames: &mut Frames, sock: u64, ts: u64) {
        let head = Head { sock, ts, kind: kind::OPEN, seq: 1, flags: flag::STACK, ..Head::default() };
        frames.push(0, Open { head, ..Open::default() }.as_bytes());
    }

    fn other(frames: &mut Frames, ts: u64) {
        frames.push(0, Head { ts, kind: kind::STATE, ..Head::default() }.as_bytes());
    }

    /// Kinds and times of what goes on when `frames` come at `now`.
    fn passed(stream: &mut Stream, now: u64, mut frames: Frames) -> Vec<(u8, u64)> {
        stream.pass(now, &mut frames);
        let head = |record: &[u8]| Head::read_from_prefix(record).expect("a head").0;
        frames.iter().map(|record| (head(record).kind, head(record).ts)).collect()
    }

    const STACK: u8 = fact::kind::STACK;
    const OPENED_AT: u8 = fact::kind::OPENED_AT;

    #[test]
    fn a_stack_follows_its_record_and_is_told_once() {
        let mut stream = Stream::default();
        stream.add(answer(7, &["connect", "main"]));
        stream.add(answer(8, &["connect", "main"]));
        let mut frames = Frames::default();
        other(&mut frames, 1);
        open(&mut frames, 7, 2);
        other(&mut frames, 3);
        open(&mut frames, 8, 4);
        let told = [(kind::STATE, 1), (kind::OPEN, 2), (STACK, 2), (OPENED_AT, 2), (kind::STATE, 3), (kind::OPEN, 4)];
        assert_eq!(passed(&mut stream, 5, frames), [&told[..], &[(OPENED_AT, 4)]].concat());
        let mut frames = Frames::default();
        open(&mut frames, 9, 6);
        stream.add(answer(9, &[]));
        assert_eq!(passed(&mut stream, 7, frames), [(kind::OPEN, 6)], "nothing is known of it");
    }

    #[test]
    fn the_stream_waits_for_a_stack() {
        let mut stream = Stream::default();
        let mut frames = Frames::default();
        other(&mut frames, 1);
        open(&mut frames, 7, 2);
        other(&mut frames, 3);
        assert_eq!(passed(&mut stream, 4, frames), [(kind::STATE, 1)]);
        let mut frames = Frames::default();
        other(&mut frames, 5);
        assert_eq!(passed(&mut stream, 6, frames), []);
        stream.add(answer(7, &["connect"]));
        let told = [(kind::OPEN, 2), (STACK, 2), (OPENED_AT, 2), (kind::STATE, 3), (kind::STATE, 5)];
        assert_eq!(passed(&mut stream, 7, Frames::default()), told);
        assert!(stream.held.is_empty());
    }

    #[test]
    fn but_not_for_long() {
        let mut stream = Stream::default();
        let mut frames = Frames::default();
        open(&mut frames, 7, 2);
        assert_eq!(passed(&mut stream, PATIENCE, frames), []);
        assert_eq!(passed(&mut stream, PATIENCE + 3, Frames::default()), [(kind::OPEN, 2)]);
        // While one is late nobody waits.
        let mut frames = Frames::default();
        open(&mut frames, 8, PATIENCE + 4);
        assert_eq!(passed(&mut stream, PATIENCE + 5, frames), [(kind::OPEN, PATIENCE + 4)]);
        stream.add(answer(8, &["connect"]));
        stream.add(answer(7, &["connect"]));
        let told = [(STACK, 2), (OPENED_AT, 2), (OPENED_AT, PATIENCE + 4)];
        assert_eq!(passed(&mut stream, PATIENCE + 6, Frames::default()), told);
        let mut frames = Frames::default();
        open(&mut frames, 9, PATIENCE + 7);
        assert_eq!(passed(&mut stream, PATIENCE + 8, frames), [], "it has caught up");
    }
}
