//! Recordings that are whole, cut off, damaged, foreign or cannot be written.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;
use tcptrace_common::record::{Closed, Head, Open};
use zerocopy::IntoBytes;

use super::{format::*, *};
use crate::frame::Frames;

/// A stream whose bytes the test keeps; it fails when `room` is used up.
#[derive(Clone)]
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    room: usize,
}

impl Stream {
    fn new(room: usize) -> Self {
        Self { bytes: Arc::default(), room }
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().expect("not poisoned").clone()
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut bytes = self.bytes.lock().expect("not poisoned");
        let n = buf.len().min(self.room - bytes.len());
        if n == 0 && !buf.is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        bytes.extend(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Record batches, each as a block of its own, with a trailer.
fn record(batches: &[Frames]) -> Vec<u8> {
    let stream = Stream::new(usize::MAX);
    let mut writer = Writer::new(stream.clone()).expect("a vector takes it");
    for batch in batches {
        writer.write(batch.as_bytes()).expect("a vector takes it");
        writer.flush().expect("a vector takes it");
    }
    assert_eq!(writer.written(), stream.bytes().len() as u64);
    writer.finish(7).expect("a vector takes it");
    stream.bytes()
}

/// Everything that a reader gives back: frames, gaps, ending.
fn read(bytes: &[u8]) -> Result<(Vec<u8>, Vec<Gap>, Ending), Error> {
    let (mut frames, mut gaps) = (Frames::default(), Vec::new());
    let mut reader = Reader::new(bytes)?;
    loop {
        match reader.next(&mut frames)? {
            Item::Block(block) => assert!(block.frames > 0 && block.first_ts <= block.last_ts),
            Item::Gap(gap) => gaps.push(gap),
            Item::End(ending) => {
                assert_eq!(reader.next(&mut frames)?, Item::End(ending), "the end stays the end");
                return Ok((frames.as_bytes().to_vec(), gaps, ending));
            }
        }
    }
}

/// Three blocks of plausible frames, and one that does not compress.
fn sample() -> Vec<Frames> {
    let mut batches = vec![Frames::default(); 4];
    for i in 0..12u64 {
        let head = Head { ts: 1000 + i, sock: 40 + i / 3, kind: 1, from: 7, to: 2, seq: i as u16, ..Head::default() };
        let batch = &mut batches[i as usize / 4];
        batch.push(i as u16 % 2, Open { head, ..Open::default() }.as_bytes());
        batch.push(0, Closed { head, ..Closed::default() }.as_bytes());
        batch.push(1, head.as_bytes());
    }
    let noise: Vec<u8> = (0..40u32).map(|i| (i.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect();
    batches[3].push(3, &[&2000u64.to_ne_bytes()[..], &noise].concat());
    batches
}

fn joined<'a>(batches: impl IntoIterator<Item = &'a Frames>) -> Vec<u8> {
    batches.into_iter().flat_map(|b| b.as_bytes().to_vec()).collect()
}

/// Ends of the file header, of every block and of the trailer.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = vec![HEADER];
    while *ends.last().expect("not empty") < bytes.len() {
        let at = ends[ends.len() - 1];
        let stored = u32::from_le_bytes(*bytes[at + 16..].first_chunk().expect("a header")) as usize;
        ends.push(at + HEADER + stored);
    }
    ends
}

#[test]
fn whole() {
    let batches = sample();
    let bytes = record(&batches);
    assert_eq!(read(&bytes).expect("sound"), (joined(&batches), vec![], Ending::Clean { lost: 7 }));
    let codecs: Vec<u8> = ends(&bytes)[..4].iter().map(|&at| bytes[at + 9]).collect();
    assert_eq!(codecs, [1, 1, 1, 0], "both codecs are tested");
    assert_eq!(bytes, record(&batches), "the same frames give the same bytes");
    let nothing = record(&[]);
    assert_eq!(read(&nothing).expect("sound"), (vec![], vec![], Ending::Clean { lost: 7 }));
}

#[test]
fn cut_off_anywhere() {
    let batches = sample();
    let bytes = record(&batches);
    let ends = ends(&bytes);
    for cut in 1..bytes.len() {
        let whole = ends.iter().take_while(|&&end| end <= cut).count();
        let (frames, gaps, ending) = read(&bytes[..cut]).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        assert_eq!(frames, joined(&batches[..whole.saturating_sub(1)]), "cut at {cut}");
        let last = if whole == 0 { 0 } else { ends[whole - 1] };
        assert_eq!((gaps, ending), (vec![], Ending::Truncated { bytes: (cut - last) as u64 }), "cut at {cut}");
    }
}

#[test]
fn a_bit_flipped_anywhere() {
    let batches = sample();
    let bytes = record(&batches);
    let ends = ends(&bytes);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (frames, gaps, ending) = read(&damaged).unwrap_or_else(|e| panic!("bit {bit}: {e}"));
        // Part 0 is the file header, part 5 the trailer.
        let part = ends.iter().take_while(|&&end| end <= bit / 8).count();
        let intact = batches.iter().enumerate().filter(|(i, _)| i + 1 != part).map(|(_, b)| b);
        assert_eq!(frames, joined(intact), "bit {bit}");
        let size = (ends[part] - if part == 0 { 0 } else { ends[part - 1] }) as u64;
        if part == 5 {
            assert_eq!((gaps, ending), (vec![], Ending::Truncated { bytes: size }), "bit {bit}");
            continue;
        }
        let missing = if part == 0 { 0 } else { batches[part - 1].iter().count() as u64 };
        let ts = if part < 2 { 0 } else { 1000 + 4 * (part as u64 - 1) - 1 };
        let gap = Gap { bytes: size, blocks: u64::from(part > 0), frames: missing, ts };
        assert_eq!((gaps, ending), (vec![gap], Ending::Clean { lost: 7 }), "bit {bit}");
    }
}

#[test]
fn a_hole_in_the_middle() {
    let batches = sample();
    let bytes = record(&batches);
    let ends = ends(&bytes);
    // Two blocks gone without a trace, as a copy that skipped bad sectors leaves them.
    let holed = [&bytes[..ends[1]], &bytes[ends[3]..]].concat();
    let (frames, gaps, ending) = read(&holed).expect("readable");
    assert_eq!(frames, joined([&batches[0], &batches[3]]));
    assert_eq!(gaps, [Gap { bytes: 0, blocks: 2, frames: 24, ts: 1003 }]);
    assert_eq!(ending, Ending::Clean { lost: 7 });
    // Zeros in place of them, and more of them than the reader takes in at once.
    let zeroed = [&bytes[..ends[1]], &vec![0; 200_000], &bytes[ends[3]..]].concat();
    let (frames, gaps, _) = read(&zeroed).expect("readable");
    assert_eq!(frames, joined([&batches[0], &batches[3]]));
    assert_eq!(gaps, [Gap { bytes: 200_000, blocks: 2, frames: 24, ts: 1003 }]);
}

#[test]
fn concatenated() {
    let batches = sample();
    let bytes = record(&batches);
    let (frames, gaps, ending) = read(&[&bytes[..], &bytes[..]].concat()).expect("readable");
    assert_eq!(frames, [joined(&batches), joined(&batches)].concat());
    assert_eq!((gaps, ending), (vec![], Ending::Clean { lost: 7 }));
    let (frames, gaps, ending) = read(&[&bytes[..], b"something else"].concat()).expect("readable");
    assert_eq!(frames, joined(&batches));
    assert_eq!((gaps[0].bytes, ending), (14, Ending::Clean { lost: 7 }));
}

#[test]
fn not_a_recording() {
    assert!(matches!(read(b""), Err(Error::Empty)));
    let text = b"{\"v\":1,\"type\":\"start\"}\n".repeat(10);
    for foreign in [&text[..], &text[..9], &[0; 4096], b"\x7fELF", &[0x8f]] {
        let sound = foreign == [0x8f];
        assert_eq!(matches!(read(foreign), Err(Error::NotARecording)), !sound, "{foreign:?}");
    }
    // A pcap file has a magic number too.
    let mut pcap = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
    pcap.resize(500, 0);
    assert!(matches!(read(&pcap), Err(Error::NotARecording)));
}

#[test]
fn of_a_newer_version_or_another_byte_order() {
    let bytes = record(&sample());
    let newer = FileHeader { version: (VERSION + 1).into(), ..FileHeader::own() }.sealed();
    let error = read(&[newer.as_bytes(), &bytes[HEADER..]].concat()).expect_err("newer");
    assert!(matches!(error, Error::NewerVersion { found: 2, known: 1, .. }));
    assert!(error.to_string().contains("made by tcptrace 0.1.0"), "{error}");
    let foreign = FileHeader { order: ORDER.swap_bytes().to_ne_bytes(), ..FileHeader::own() }.sealed();
    assert!(matches!(read(&[foreign.as_bytes(), &bytes[HEADER..]].concat()), Err(Error::ByteOrder)));
}

#[test]
fn a_kind_of_block_that_is_not_known_is_skipped() {
    use zerocopy::FromBytes;
    let batches = sample();
    let bytes = record(&batches);
    let end = ends(&bytes)[1];
    let (mut header, _) = BlockHeader::read_from_prefix(&bytes[HEADER..]).expect("a header");
    (header.kind, header.codec) = (9, 9);
    let inserted = [&bytes[..end], header.sealed().as_bytes(), &bytes[2 * HEADER..end], &bytes[end..]].concat();
    assert_eq!(read(&inserted).expect("sound"), (joined(&batches), vec![], Ending::Clean { lost: 7 }));
}

#[test]
fn full_disk() {
    let error = Writer::create("/dev/full").expect_err("full from the start");
    assert!(error.to_string().contains("No space left"), "{error}");
    assert!(!error.is_closed_pipe());
}

#[test]
fn half_a_block_is_cut_off_again() {
    use std::os::fd::AsRawFd;
    // A file that is sealed while it is written: half of a block still fits, as on a disk that fills up.
    let file = rustix::fs::memfd_create("recording", rustix::fs::MemfdFlags::ALLOW_SEALING).expect("memory");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut writer = Writer::create(&path).expect("there is room");
    let batches = sample();
    writer.write(batches[0].as_bytes()).expect("there is room");
    writer.flush().expect("there is room");
    let whole = writer.written();
    assert_eq!(std::fs::metadata(&path).expect("it is there").len(), whole);

    rustix::fs::ftruncate(&file, 8192).expect("there is room");
    rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::GROW).expect("not sealed yet");
    let mut noise = Frames::default();
    let bytes: Vec<u8> = (0..40_000u32).map(|i| (i.wrapping_mul(i).wrapping_mul(0x9e37_79b1) >> 19) as u8).collect();
    noise.push(0, &bytes);
    writer.write(noise.as_bytes()).expect("not written yet");
    assert!(matches!(writer.flush(), Err(Error::Io { .. })));
    writer.write(batches[1].as_bytes()).expect("the error was told");
    writer.flush().expect("the error was told");
    writer.finish(0).expect("the error was told");
    let bytes = std::fs::read(&path).expect("readable");
    assert_eq!(bytes.len() as u64, whole);
    let (frames, gaps, ending) = read(&bytes).expect("a recording");
    assert_eq!((frames, gaps, ending), (joined(&batches[..1]), vec![], Ending::Truncated { bytes: 0 }));
}

#[test]
fn a_closed_pipe_is_told_once() {
    let batches = sample();
    let whole = record(&batches);
    let ends = ends(&whole);
    for room in HEADER..whole.len() {
        let stream = Stream::new(room);
        let mut writer = Writer::new(stream.clone()).expect("the header fits");
        let mut errors = 0;
        for batch in &batches {
            let result = writer.write(batch.as_bytes()).and_then(|()| writer.flush());
            errors += usize::from(result.is_err_and(|e| e.is_closed_pipe()));
        }
        errors += usize::from(writer.finish(7).is_err_and(|e| e.is_closed_pipe()));
        assert_eq!(errors, 1, "room for {room}");
        let blocks = ends.iter().filter(|&&end| end <= room).count() - 1;
        let (frames, gaps, ending) = read(&stream.bytes()).expect("a recording");
        assert_eq!((frames, gaps), (joined(&batches[..blocks]), vec![]), "room for {room}");
        assert_eq!(ending, Ending::Truncated { bytes: (room - ends[blocks]) as u64 });
    }
}

#[test]
fn malformed_frames_are_refused() {
    let stream = Stream::new(usize::MAX);
    let mut writer = Writer::new(stream.clone()).expect("a vector takes it");
    let good = sample().remove(0);
    assert!(matches!(writer.write(&good.as_bytes()[..good.len() - 8]), Err(Error::Malformed)));
    assert!(matches!(writer.write(&[1, 2, 3]), Err(Error::Malformed)));
    assert!(matches!(writer.write(&[255; 64]), Err(Error::Malformed)));
    writer.write(good.as_bytes()).expect("sound");
    writer.finish(0).expect("a vector takes it");
    assert_eq!(read(&stream.bytes()).expect("sound").2, Ending::Clean { lost: 0 });
}

#[test]
fn frames_larger_than_a_block() {
    let mut frames = sample().remove(0);
    frames.push(0, &vec![5; 1 << 20]);
    frames.extend(sample().remove(1).as_bytes());
    let bytes = record(std::slice::from_ref(&frames));
    assert_eq!(read(&bytes).expect("sound"), (frames.as_bytes().to_vec(), vec![], Ending::Clean { lost: 7 }));
    assert_eq!(ends(&bytes).len(), 5, "three blocks: before it, it alone, after it");
}

/// Records of any length, as a rule like the kernel's, and whether to flush after each.
fn records() -> impl Strategy<Value = Vec<(u16, Vec<u8>, bool)>> {
    let plausible = (0u8..4, any::<u64>(), any::<u8>()).prop_map(|(kind, ts, fill)| {
        let mut record = Head { ts, kind, ..Head::default() }.as_bytes().to_vec();
        record.resize(24 + usize::from(kind) * 40, fill);
        record
    });
    let record = prop_oneof![3 => plausible, 1 => prop::collection::vec(any::<u8>(), 0..300)];
    prop::collection::vec((any::<u16>(), record, prop::bool::weighted(0.1)), 0..200)
}

proptest! {
    #[test]
    fn round_trip(records in records()) {
        let stream = Stream::new(usize::MAX);
        let mut writer = Writer::new(stream.clone()).expect("a vector takes it");
        let (mut all, mut batch) = (Frames::default(), Frames::default());
        for (cpu, record, flush) in &records {
            all.push(*cpu, record);
            batch.push(*cpu, record);
            if *flush {
                writer.write(batch.as_bytes()).expect("whole frames");
                writer.flush().expect("a vector takes it");
                batch.clear();
            }
        }
        writer.write(batch.as_bytes()).expect("whole frames");
        writer.finish(1).expect("a vector takes it");
        let bytes = stream.bytes();
        let (mut frames, mut reader) = (Frames::default(), Reader::new(&bytes[..]).expect("memory"));
        while let Item::Block(_) = reader.next(&mut frames).expect("sound") {}
        prop_assert_eq!(reader.next(&mut frames).expect("sound"), Item::End(Ending::Clean { lost: 1 }));
        prop_assert!(frames.as_bytes() == all.as_bytes());
        prop_assert!(frames.iter().eq(records.iter().map(|(_, r, _)| &r[..])));
    }

    #[test]
    fn differences_are_reversible(words in prop::collection::vec(prop_oneof![0u64..40, any::<u64>()], 0..300)) {
        // Also of words that are no frames at all: the first part that is.
        let mut at = 0;
        while let Some(len) = delta::frame_len(&words, at) {
            at += len;
        }
        let mut differences = Vec::new();
        delta::encode(&words[..at], &mut differences);
        let count = delta::count(&words[..at]);
        prop_assert!(count.is_some());
        prop_assert_eq!(delta::decode(&mut differences), count);
        prop_assert_eq!(&differences[..], &words[..at]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        noise in prop::collection::vec(any::<u8>(), 0..2000),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
    ) {
        let mut bytes = record(&sample());
        bytes.extend(&noise);
        for (at, byte) in damage {
            let len = bytes.len();
            bytes[at.index(len)] = byte;
        }
        let _ = read(&bytes);
        let _ = read(&noise);
        let _ = delta::decode(&mut noise.chunks_exact(8).map(|c| u64::from_ne_bytes(c.try_into().expect("8"))).collect::<Vec<_>>());
    }
}
