//! Nanoseconds an event, of the tracker alone and with the decoder: ordinary connection churn, both ends on one host, a
//! thousand connections in flight (`churn.rs`). `cargo run --release --example tracker_speed`

#[path = "../tests/support/churn.rs"]
mod churn;

use std::time::{Duration, Instant};

use churn::{IN_FLIGHT, LISTENERS};
use tcptrace::{
    decode::decode,
    frame::Frames,
    model::{Connection, Final, Observer},
    tracker::Tracker,
};

const CONNECTIONS: u64 = 10_000;
const ROUNDS: u64 = 40;

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
        let frames = frames(round);
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
    assert_eq!(tracker.live() as u64, LISTENERS, "listeners are left");
    assert_eq!(tracker.stats().gaps + tracker.stats().late + tracker.stats().impossible, 0);
    println!(
        "{events} events, best of {ROUNDS}: tracker {:.1} ns an event, decoder and tracker {:.1} ns",
        best.0.as_nanos() as f64 / f64::from(events),
        best.1.as_nanos() as f64 / f64::from(events)
    );
}

/// Lives of `CONNECTIONS` connections.
fn frames(round: u64) -> Frames {
    let mut frames = Frames::default();
    if round == 0 {
        churn::begin(&mut frames);
    }
    let mut ts = 2 + round * 1_000_000_000;
    for batch in 0..CONNECTIONS / IN_FLIGHT {
        ts = churn::batch(&mut frames, round * CONNECTIONS + batch * IN_FLIGHT, ts, 1);
    }
    frames
}
