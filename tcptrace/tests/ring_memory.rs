//! The ring of the flight recorder under a storm: bytes that the allocator gave out, and what its dump tells.

#[path = "support/churn.rs"]
mod churn;
#[path = "support/heap.rs"]
mod heap;

use std::{fs::File, path::Path, sync::atomic::Ordering::Relaxed};

use churn::{STEPS, noise, process, push};
use heap::{LIVE, PEAK};
use tcptrace::{
    decode::{Event, decode},
    frame::{Frames, fact},
    model::{Connection, End, Final, Observer},
    recording::{
        Item, Reader, Writer,
        ring::{Ring, Room},
    },
    tracker::Tracker,
};
use tcptrace_common::record::{Closed, Established, Handshake, Head, Open, Tuple, kind};
use zerocopy::IntoBytes;

const ROOM: u64 = 8 << 20;
/// In all they take five times the room.
const CONNECTIONS: u64 = 500_000;
/// Connections at a time.
const BATCH: u64 = 200;
/// The first cookie of connections that stay open.
const IDLE: u64 = 1 << 40;
const SECOND: u64 = 1_000_000_000;

fn start(frames: &mut Frames) {
    frames.push_fact(fact::kind::START, 1, &fact::Start { host: "host".into(), ..fact::Start::default() });
    frames.push_fact(fact::kind::CLOCK, 1, &fact::Clock { offset_ns: 5 });
    let head = Head { ts: 1, sock: 1, kind: kind::OPEN, from: 7, to: 10, seq: 1, ..Head::default() };
    let tuple = Tuple { lport: 80, netns: 1, family: 2, ..Tuple::default() };
    frames.push(0, Open { head, tuple, owner: process(2) }.as_bytes());
    frames.push_fact(fact::kind::SNAPSHOT, 2, &fact::Snapshot::default());
}

fn idle(n: u64, kind: u8, from: u8, to: u8, seq: u16, ts: u64) -> (Head, Tuple) {
    let tuple = Tuple { lport: n as u16, rport: 443, netns: 1, family: 2, ..Tuple::default() };
    (Head { ts, sock: IDLE + n, kind, from, to, seq, ..Head::default() }, tuple)
}

/// Open connections that stay so; what `n` was opened at is `SECOND + n`.
fn open_idle(ring: &mut Ring, n: u64) {
    let mut frames = Frames::default();
    for n in 0..n {
        let (head, tuple) = idle(n, kind::OPEN, 7, 2, 1, SECOND + n);
        frames.push(0, Open { head, tuple, owner: process(3) }.as_bytes());
        let (head, tuple) = idle(n, kind::ESTABLISHED, 2, 1, 2, SECOND + n);
        frames.push(0, Established { head, tuple, handshake: Handshake::default() }.as_bytes());
        if frames.len() > 1 << 20 {
            ring.write(frames.as_bytes()).expect("memory");
            frames.clear();
        }
    }
    ring.write(frames.as_bytes()).expect("memory");
}

/// A storm of connections, and what is asked after each batch.
fn storm(ring: &mut Ring, connections: u64, mut check: impl FnMut(&Ring)) {
    let mut frames = Frames::with_capacity(2 << 20);
    let mut ts = 2 * SECOND;
    for batch in 0..connections / BATCH {
        frames.clear();
        for step in 0..STEPS {
            for i in 0..BATCH {
                ts += 1000 + noise(ts) % 4096;
                push(&mut frames, step, batch * BATCH + i, ts);
            }
        }
        frames.push_fact(fact::kind::TICK, ts, &());
        ring.write(frames.as_bytes()).expect("memory");
        check(ring);
    }
}

/// What a recording tells.
#[derive(Default)]
struct Told {
    over: u64,
    open: u64,
    idle_from: Vec<(u64, u64)>,
    gaps: u64,
    preexisting: u64,
    listeners: u64,
}

impl Observer for Told {
    fn connection(&mut self, c: &Connection, f: &Final) {
        self.gaps += u64::from(c.gaps);
        self.preexisting += u64::from(c.preexisting);
        if f.end == Some(End::Open) {
            self.open += 1;
        } else {
            self.over += 1;
        }
        if c.cookie >= IDLE && !c.preexisting {
            self.idle_from.push((c.cookie - IDLE, c.start_ns));
        }
    }
}

/// A recording through the tracker, with what follows it: what it tells, its cut, the ends that come behind what is carried.
fn replay(path: &Path, after: &Frames) -> (Told, fact::Cut, u64) {
    let mut reader = Reader::new(File::open(path).expect("the dump")).expect("memory");
    let (mut tracker, mut told, mut cut, mut ends, mut carried) = (Tracker::new(), Told::default(), None, 0, true);
    let mut frames = Frames::default();
    let mut more = true;
    while more {
        frames.clear();
        match reader.next(&mut frames).expect("a recording") {
            Item::Block(_) => {}
            Item::Gap(gap) => panic!("{gap:?}"),
            Item::End(_) => {
                frames.extend(after.as_bytes());
                more = false;
            }
        }
        for record in frames.iter() {
            let event = decode(record).expect("whole records");
            match &event {
                Event::Start(start) => cut = start.cut,
                Event::Tick(_) => carried = false,
                Event::Closed(_) => ends += u64::from(!carried),
                _ => {}
            }
            tracker.event(&event, &mut told);
        }
    }
    told.listeners = tracker.live() as u64;
    tracker.finish(u64::MAX / 2, &mut told);
    told.listeners -= told.open;
    assert_eq!(tracker.stats().impossible + tracker.stats().late + tracker.stats().gaps, 0, "{:?}", tracker.stats());
    (told, cut.expect("something was let go of"), ends)
}

fn dumped(ring: &mut Ring) -> tempfile::TempPath {
    let file = tempfile::NamedTempFile::new().expect("a temporary file").into_temp_path();
    let dump = ring.dump().expect("memory");
    dump.write(Writer::create(&file).expect("our file"), 0).expect("room");
    file
}

#[test]
fn a_ring_keeps_to_its_room_and_tells_of_what_is_open() {
    let before = LIVE.load(Relaxed);
    let mut ring = Ring::new(Room { bytes: Some(ROOM), ns: None }).expect("memory");
    let mut frames = Frames::default();
    start(&mut frames);
    ring.write(frames.as_bytes()).expect("memory");
    open_idle(&mut ring, 1000);
    // What a batch takes is the feeder's.
    let batch = 2 << 20;
    PEAK.store(LIVE.load(Relaxed), Relaxed);
    storm(&mut ring, CONNECTIONS, |ring| assert!(ring.held() <= ROOM, "{} bytes", ring.held()));
    let peak = (PEAK.load(Relaxed) - before - batch) as u64;
    println!("{} held, {peak} at the peak, {:?} gone", ring.held(), ring.gone());
    assert!(ring.held() > ROOM / 2, "{} bytes: not full", ring.held());
    assert!(peak <= ROOM, "{peak} bytes for a ring of {ROOM}");
    assert!(ring.gone().records > 3 * CONNECTIONS, "{:?}", ring.gone());

    let (told, cut, ends) = replay(&dumped(&mut ring), &Frames::default());
    assert_eq!((told.gaps, told.preexisting, told.listeners, cut.forgotten), (0, 0, 1, 0));
    assert_eq!((told.over, told.open), (ends, 1000));
    assert!(ends > 50_000, "{ends}");
    assert_eq!(told.idle_from.len(), 1000);
    assert!(told.idle_from.iter().all(|&(n, from)| from == SECOND + n), "{:?}", told.idle_from);

    drop(ring);

    // Far more connections that stay open than half of the ring has room for.
    let mut ring = Ring::new(Room { bytes: Some(ROOM), ns: None }).expect("memory");
    ring.write(frames.as_bytes()).expect("memory");
    open_idle(&mut ring, 60_000);
    storm(&mut ring, CONNECTIONS / 4, |ring| assert!(ring.held() <= ROOM, "{} bytes", ring.held()));
    let file = dumped(&mut ring);
    // Now they end.
    let mut after = Frames::default();
    for n in 0..60_000 {
        let (head, _) = idle(n, kind::CLOSED, 1, 7, 3, 1_000_000 * SECOND);
        after.push(0, Closed { head, ..Closed::default() }.as_bytes());
    }
    let (told, cut, ends) = replay(&file, &after);
    assert!(cut.forgotten > 30_000 && cut.forgotten < 60_000, "{cut:?}");
    // None is told with a beginning that is not its own, none as one of which something was lost.
    assert_eq!((told.gaps, told.preexisting, told.open, told.over), (0, cut.forgotten, 0, ends));
    assert_eq!(told.idle_from.len() as u64, 60_000 - cut.forgotten);
    assert!(told.idle_from.iter().all(|&(n, from)| from == SECOND + n));

    drop((ring, after, told, file));

    // What was over before the start snapshot was complete is not forgotten, though there was no room to wait for it.
    let mut ring = Ring::new(Room { bytes: Some(ROOM), ns: None }).expect("memory");
    frames.clear();
    frames.push_fact(fact::kind::START, 1, &fact::Start::default());
    ring.write(frames.as_bytes()).expect("memory");
    storm(&mut ring, CONNECTIONS / 4, |ring| assert!(ring.held() <= ROOM, "{} bytes", ring.held()));
    assert!(ring.gone().forgotten > 10_000, "{:?}", ring.gone());
    frames.clear();
    frames.push_fact(fact::kind::SNAPSHOT, u64::MAX / 4, &fact::Snapshot::default());
    ring.write(frames.as_bytes()).expect("memory");
    storm(&mut ring, CONNECTIONS / 4, |_| {});
    assert_eq!(ring.gone().forgotten, 0);

    drop((ring, frames));
    assert!(LIVE.load(Relaxed) <= before + 64 * 1024, "leaked");
}
