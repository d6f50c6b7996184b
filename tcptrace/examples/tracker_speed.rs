//! Nanoseconds an event, of the tracker alone and with the decoder: ordinary connection churn, both ends on one host, a
//! thousand connections in flight. `cargo run --release --example tracker_speed`

#[path = "../tests/support/churn.rs"]
mod churn;

use std::time::{Duration, Instant};

use churn::{STEPS, process, push};
use tcptrace::{
    decode::decode,
    frame::Frames,
    model::{Connection, Final, Observer},
    tracker::Tracker,
};
use tcptrace_common::record::{Head, Open, Tuple, kind};
use zerocopy::IntoBytes;

const CONNECTIONS: u64 = 10_000;
const IN_FLIGHT: u64 = 1000;
const ROUNDS: u64 = 40;
const LISTENER: u64 = 1;

#[derive(Default)]
struct Count(u64);

impl Observer for Count {
    fn connection(&mut self, _: &Connection, _: &Final) {
        self.0 += 1;
    }
}

fn main() {
    let mut tracker = Tracker::new();
    let mut out = Count::default();
    let mut best = (Duration::MAX, Duration::MAX);
    let mut events = 0;
    for round in 0..ROUNDS {
        let frames = churn(round);
        let start = Instant::now();
        let records: Vec<_> = frames.iter().map(|record| decode(record).expect("made here")).collect();
        let decoded = Instant::now();
        for event in &records {
            tracker.event(event, &mut out);
        }
        best.0 = best.0.min(decoded.elapsed());
        best.1 = best.1.min(start.elapsed());
        events = records.len() as u32;
    }
    assert_eq!(out.0, 2 * CONNECTIONS * ROUNDS, "every end of every connection is reported");
    assert_eq!(tracker.live(), 1, "the listener is left");
    assert_eq!(tracker.stats().gaps + tracker.stats().late + tracker.stats().impossible, 0);
    println!(
        "{events} events, best of {ROUNDS}: tracker {:.1} ns an event, decoder and tracker {:.1} ns",
        best.0.as_nanos() as f64 / f64::from(events),
        best.1.as_nanos() as f64 / f64::from(events)
    );
}

/// Lives of `CONNECTIONS` connections, `IN_FLIGHT` at a time: five records of the client, six of the server.
fn churn(round: u64) -> Frames {
    let mut frames = Frames::default();
    if round == 0 {
        let head = Head { ts: 1, sock: LISTENER, kind: kind::OPEN, from: 7, to: 10, seq: 1, ..Head::default() };
        let tuple = Tuple { lport: 80, netns: 1, family: 2, ..Tuple::default() };
        frames.push(0, Open { head, tuple, owner: process(2) }.as_bytes());
        frames.push_fact(tcptrace::frame::fact::kind::SNAPSHOT, 2, &tcptrace::frame::fact::Snapshot::default());
    }
    let first = round * CONNECTIONS;
    let mut ts = 2 + round * 1_000_000_000;
    for batch in 0..CONNECTIONS / IN_FLIGHT {
        for step in 0..STEPS {
            for i in 0..IN_FLIGHT {
                ts += 1;
                push(&mut frames, step, first + batch * IN_FLIGHT + i, ts);
            }
        }
    }
    frames
}
