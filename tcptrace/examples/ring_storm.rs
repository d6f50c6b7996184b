//! An hour of a connection storm, as fast as the ring of a flight recorder takes it: resident memory, nanoseconds a connection, its
//! dump and that dump's replay as one line of JSON. `cargo run --release --example ring_storm [MEGABYTES [SECONDS [RATE [IDLE]]]]`, IDLE
//! connections being open all the time

#[path = "../tests/support/churn.rs"]
mod churn;

use std::time::{Duration, Instant};

use churn::{STEPS, noise, process, push};
use tcptrace::{
    decode::decode,
    frame::{Frames, fact},
    model::{Connection, Final, Observer},
    recording::{
        Item, Reader, Writer,
        ring::{Ring, Room},
    },
    tracker::Tracker,
};
use tcptrace_common::record::{Head, Open, Tuple, kind};
use zerocopy::IntoBytes;

const BATCH: u64 = 500;

#[derive(Default)]
struct Count {
    over: u64,
    gaps: u64,
}

impl Observer for Count {
    fn connection(&mut self, c: &Connection, _: &Final) {
        self.over += 1;
        self.gaps += u64::from(c.gaps);
    }
}

/// Resident bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn main() {
    let argument = |n, default| std::env::args().nth(n).map_or(default, |text| text.parse::<u64>().expect("a number"));
    let (megabytes, seconds, rate, idle) = (argument(1, 64), argument(2, 3600), argument(3, 5000), argument(4, 0));
    let mut frames = Frames::with_capacity(1 << 20);
    frames.push_fact(fact::kind::START, 1, &fact::Start::default());
    frames.push_fact(fact::kind::CLOCK, 1, &fact::Clock::default());
    let head = Head { ts: 1, sock: 1, kind: kind::OPEN, from: 7, to: 10, seq: 1, ..Head::default() };
    let tuple = Tuple { lport: 80, netns: 1, family: 2, ..Tuple::default() };
    frames.push(0, Open { head, tuple, owner: process(2) }.as_bytes());
    frames.push_fact(fact::kind::SNAPSHOT, 2, &fact::Snapshot::default());
    let before = resident();
    let mut ring = Ring::new(Room { bytes: Some(megabytes << 20), ns: None }).expect("memory");
    ring.write(frames.as_bytes()).expect("memory");
    for n in 0..idle {
        frames.clear();
        // Cookies that no other connection has.
        (0..5).for_each(|step| push(&mut frames, step, (1 << 40) + n, 3 + n));
        ring.write(frames.as_bytes()).expect("memory");
    }
    let (mut spent, mut most, mut ts) = (Duration::ZERO, 0, 1_000_000_000);
    let connections = seconds * rate / BATCH * BATCH;
    for batch in 0..connections / BATCH {
        frames.clear();
        for step in 0..STEPS {
            for i in 0..BATCH {
                ts += noise(ts) % (2_000_000_000 / rate / STEPS);
                push(&mut frames, step, batch * BATCH + i, ts);
            }
        }
        frames.push_fact(fact::kind::TICK, ts, &());
        let began = Instant::now();
        ring.write(frames.as_bytes()).expect("memory");
        spent += began.elapsed();
        if batch % 100 == 0 {
            most = most.max(resident() - before);
        }
    }
    let path = std::env::temp_dir().join(format!("ring_storm.{}.rec", std::process::id()));
    let began = Instant::now();
    let dump = ring.dump().expect("memory");
    let stopped = began.elapsed();
    let size = dump.write(Writer::create(&path).expect("a temporary file"), 0).expect("room");
    let written = began.elapsed();
    most = most.max(resident() - before);
    let gone = ring.gone();
    drop(ring);
    let mut reader = Reader::new(std::fs::File::open(&path).expect("the dump")).expect("memory");
    let (mut tracker, mut told) = (Tracker::new(), Count::default());
    loop {
        frames.clear();
        match reader.next(&mut frames).expect("a recording") {
            Item::Block(_) => {}
            Item::Gap(gap) => panic!("{gap:?}"),
            Item::End(_) => break,
        }
        for record in frames.iter() {
            tracker.event(&decode(record).expect("whole records"), &mut told);
        }
    }
    std::fs::remove_file(&path).expect("our file");
    println!(
        "{{\"connections\":{connections},\"idle\":{idle},\"forgotten\":{},\"grown_bytes\":{most},\"ns_per_connection\":{:.0},\"dump_bytes\":{size},\
         \"dump_stops_ms\":{:.1},\"dump_ms\":{:.1},\"gone_records\":{},\"told\":{},\"gaps\":{}}}",
        gone.forgotten,
        spent.as_nanos() as f64 / connections as f64,
        stopped.as_secs_f64() * 1e3,
        written.as_secs_f64() * 1e3,
        gone.records,
        told.over,
        told.gaps
    );
}
