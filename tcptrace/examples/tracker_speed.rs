//! Nanoseconds an event, of the tracker alone and with the decoder: ordinary connection churn, both ends on one host, a
//! thousand connections in flight. `cargo run --release --example tracker_speed`

use std::time::{Duration, Instant};

use tcptrace::{
    decode::decode,
    frame::Frames,
    model::{Connection, Final, Observer},
    tracker::Tracker,
};
use tcptrace_common::record::{
    Accepted, Child, Closed, Counters, Established, Handshake, Head, Open, Owner, Tuple, flag, kind,
};
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
        for step in 0..11 {
            for i in 0..IN_FLIGHT {
                ts += 1;
                push(&mut frames, step, first + batch * IN_FLIGHT + i, ts);
            }
        }
    }
    frames
}

fn push(frames: &mut Frames, step: u64, n: u64, ts: u64) {
    const BOTH: u16 = flag::RCV_SHUTDOWN | flag::SEND_SHUTDOWN | flag::DEAD;
    let head = |server: u64, kind: u8, from: u8, to: u8, seq: u16, flags: u16| Head {
        ts,
        sock: 2 + 2 * n + server,
        kind,
        from,
        to,
        err: 0,
        seq,
        flags,
    };
    let client = Tuple { lport: n as u16, rport: 80, netns: 1, family: 2, ..Tuple::default() };
    let server = Tuple { lport: 80, rport: n as u16, ..client };
    let handshake = Handshake { addr: n, ..Handshake::default() };
    let counters = Counters::default();
    match step {
        0 => {
            frames.push(0, Open { head: head(0, kind::OPEN, 7, 2, 1, 0), tuple: client, owner: process(1) }.as_bytes());
        }
        1 => frames.push(0, Child { head: head(1, kind::CHILD, 10, 3, 1, 0), tuple: server, addr: n }.as_bytes()),
        2 => {
            let head = head(1, kind::ESTABLISHED, 3, 1, 2, 0);
            frames.push(0, Established { head, tuple: server, handshake }.as_bytes());
        }
        3 => {
            let head = head(0, kind::ESTABLISHED, 2, 1, 2, 0);
            frames.push(0, Established { head, tuple: client, handshake }.as_bytes());
        }
        4 => frames
            .push(0, Accepted { head: head(1, kind::ACCEPTED, 1, 1, 3, 0), owner: process(2), addr: 0 }.as_bytes()),
        5 => frames.push(0, head(0, kind::STATE, 1, 4, 3, BOTH).as_bytes()),
        6 => frames.push(0, head(1, kind::STATE, 1, 8, 4, flag::RCV_SHUTDOWN | flag::DONE).as_bytes()),
        7 => frames.push(0, head(1, kind::STATE, 8, 9, 5, BOTH | flag::DONE).as_bytes()),
        8 => frames.push(0, head(0, kind::STATE, 4, 5, 4, BOTH).as_bytes()),
        9 => {
            let head = head(0, kind::CLOSED, 5, 7, 5, BOTH | flag::DONE);
            frames.push(0, Closed { head, counters, ..Closed::default() }.as_bytes());
        }
        _ => {
            let head = head(1, kind::CLOSED, 9, 7, 6, BOTH | flag::DONE);
            frames.push(0, Closed { head, counters, ..Closed::default() }.as_bytes());
        }
    }
}

fn process(pid: u32) -> Owner {
    Owner { pid, tid: pid, fd: 3, started: 1, ..Owner::default() }
}
