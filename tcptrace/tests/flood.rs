//! A SYN flood: the tracker's memory stays flat, and a handshake in the middle of it keeps its timeline.

#[path = "support/heap.rs"]
mod heap;

use std::sync::atomic::Ordering::Relaxed;

use heap::{LIVE, PEAK};
use tcptrace::{
    decode::Event,
    model::{Connection, Final, Observer, Request, State},
    tracker::Tracker,
};
use tcptrace_common::{
    queue::{RequestEvent, outcome},
    record::{Child, Closed, Established, Handshake, Head, Tuple, kind},
};

const FLOOD: u64 = 200_000;
/// One SYN in so many is of somebody who goes on.
const HONEST: u64 = 1000;
/// And answers after so many others.
const ROUND_TRIP: u64 = 10_000;
const MICROSECOND: u64 = 1000;

#[derive(Default)]
struct Seen {
    requests: u64,
    whole: u64,
    connections: u64,
}

impl Observer for Seen {
    fn request(&mut self, _: &Request) {
        self.requests += 1;
    }

    fn connection(&mut self, c: &Connection, f: &Final) {
        self.connections += 1;
        let first = c.states.entries().next();
        self.whole += u64::from(
            first.is_some_and(|e| e.state == State::NewSynRecv && e.seen)
                && f.handshake_ns == Some(ROUND_TRIP * MICROSECOND + 2),
        );
    }
}

fn tuple(i: u64) -> Tuple {
    let mut raddr = [0; 16];
    raddr[..4].copy_from_slice(&(i as u32).to_be_bytes());
    Tuple { raddr, lport: 80, rport: 1 + i as u16 % 60_000, netns: 1, family: 2, ..Tuple::default() }
}

fn request(i: u64, ts: u64, outcome: u8, child: u64) -> RequestEvent {
    let head = Head { ts, sock: 1, kind: kind::REQUEST_EVENT, from: 12, to: 12, ..Head::default() };
    RequestEvent {
        head,
        tuple: tuple(i),
        child,
        rcv_isn: i as u32,
        snt_isn: !i as u32,
        outcome,
        ..RequestEvent::default()
    }
}

fn answer(tracker: &mut Tracker, i: u64, ts: u64, out: &mut Seen) {
    let sock = 10 + i;
    let head = |ts, kind, from, to, seq| Head { ts, sock, kind, from, to, seq, ..Head::default() };
    let child = Child { head: head(ts, kind::CHILD, 10, 3, 1), tuple: tuple(i), addr: 0 };
    tracker.event(&Event::Child(&child), out);
    tracker.event(&Event::RequestEvent(&request(i, ts + 1, outcome::COMPLETED, sock)), out);
    let up = Established {
        head: head(ts + 2, kind::ESTABLISHED, 3, 1, 2),
        tuple: tuple(i),
        handshake: Handshake::default(),
    };
    tracker.event(&Event::Established(&up), out);
    let over = Closed { head: Head { err: 104, ..head(ts + 3, kind::CLOSED, 1, 7, 3) }, ..Closed::default() };
    tracker.event(&Event::Closed(&over), out);
}

#[test]
fn a_flood_leaves_memory_flat_and_handshakes_whole() {
    let mut tracker = Tracker::new();
    let mut seen = Seen::default();
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let mut half = 0;
    for i in 0..FLOOD {
        let ts = (1 + i) * MICROSECOND;
        tracker.event(&Event::RequestEvent(&request(i, ts, outcome::QUEUED, 0)), &mut seen);
        if let Some(first) = i.checked_sub(ROUND_TRIP)
            && first % HONEST == 0
        {
            answer(&mut tracker, first, ts, &mut seen);
        }
        if i == FLOOD / 2 {
            half = PEAK.load(Relaxed) - before;
        }
    }
    let peak = PEAK.load(Relaxed) - before;
    println!("{} MB at the peak, {} MB half-way", peak >> 20, half >> 20);
    let honest = (FLOOD - ROUND_TRIP).div_ceil(HONEST);
    assert_eq!((seen.connections, seen.whole), (honest, honest));
    assert_eq!(seen.requests, FLOOD + honest);
    assert!(half > 4 << 20, "{half} bytes: not counted");
    assert!(peak <= 16 << 20, "{peak} bytes");
    assert!(peak <= half + (64 << 10), "{half} bytes half-way, {peak} at the end: it grows");
    // All that is neither answered nor remembered was counted.
    assert_eq!(tracker.stats().requests_forgotten, FLOOD - honest - 65_536);
}
