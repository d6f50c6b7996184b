//! A recording of a long storm: `cargo run --release --example storm_recording FILE TRANSITIONS` writes so many transitions, some
//! thousand connections a second, with listeners' rows at the end of each second as `record --queues` has them.

#[path = "../tests/support/churn.rs"]
mod churn;

use anyhow::{Context as _, Result};
use tcptrace::{
    frame::{Frames, fact},
    recording::Writer,
};
use tcptrace_common::{
    queue::ListenerSample,
    record::{Head, Tuple, kind},
};
use zerocopy::IntoBytes;

/// Nanoseconds from one record to the next.
const PACE: u64 = 10_000;
const SECOND: u64 = 1_000_000_000;
/// Transitions of a connection, both ends.
const TRANSITIONS: u64 = churn::STEPS - 1;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (file, transitions) = arguments.next().zip(arguments.next()).context("FILE TRANSITIONS")?;
    let transitions: u64 = transitions.parse().context("TRANSITIONS")?;
    let mut writer = Writer::create(file)?;
    let mut frames = Frames::default();
    let signals = [("accept_queue".to_owned(), "made for a test".to_owned())].into();
    let start = fact::Start { host: "storm".into(), signals, ..fact::Start::default() };
    frames.push_fact(fact::kind::START, 1, &start);
    frames.push_fact(fact::kind::CLOCK, 1, &fact::Clock { offset_ns: 1_795_262_584_000_000_000 });
    churn::begin(&mut frames);
    let (mut ts, mut second, mut records) = (2, 0, 0);
    for batch in 0..transitions.div_ceil(TRANSITIONS * churn::IN_FLIGHT) {
        ts = churn::batch(&mut frames, batch * churn::IN_FLIGHT, ts, PACE);
        records += churn::STEPS * churn::IN_FLIGHT;
        if ts / SECOND > second {
            second = ts / SECOND;
            interval(&mut frames, ts);
        }
        writer.write(frames.as_bytes())?;
        frames.clear();
    }
    frames.push_fact(fact::kind::END, ts, &fact::End { records, ..fact::End::default() });
    writer.write(frames.as_bytes())?;
    writer.finish(0)?;
    Ok(())
}

/// Every listener as it stands.
fn interval(frames: &mut Frames, ts: u64) {
    for i in 0..churn::LISTENERS {
        let head = Head { ts, sock: 1 + i, kind: kind::LISTENER, from: 10, to: 10, ..Head::default() };
        let tuple = Tuple { lport: 80 + i as u16, netns: 1, family: 2, ..Tuple::default() };
        let sample = ListenerSample {
            head,
            tuple,
            accept_queue: (ts / SECOND % 7) as u32,
            limit: 128,
            ..ListenerSample::default()
        };
        frames.push(0, sample.as_bytes());
    }
    let interval = fact::Interval { interval_us: SECOND / 1000, exact: false, rest: false };
    frames.push_fact(fact::kind::INTERVAL, ts, &interval);
    frames.push_fact(fact::kind::TICK, ts, &());
}
