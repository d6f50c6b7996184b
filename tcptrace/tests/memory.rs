//! What a live connection costs: bytes that the allocator gave out, the index and the share of unfilled chunks included.

#[path = "support/heap.rs"]
mod heap;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use heap::{LIVE, PEAK};
use tcptrace::{decode::Event, model::Observer, tracker::Tracker};
use tcptrace_common::record::{Established, Handshake, Head, Open, Owner, Tuple, kind};

const CONNECTIONS: u64 = 200_000;
/// Of processes, as on a busy host: workers of a few programs.
const PROCESSES: u64 = 64;

struct Nobody;
impl Observer for Nobody {}

#[test]
fn a_live_connection_takes_at_most_300_bytes() {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let mut tracker = Tracker::new();
    for i in 0..CONNECTIONS {
        let head = |kind, from, to, seq| Head { ts: i * 1000, sock: 1 + i, kind, from, to, seq, ..Head::default() };
        let tuple = Tuple { rport: 443, lport: i as u16, netns: 1, family: 2, ..Tuple::default() };
        let owner = Owner { pid: 100 + (i % PROCESSES) as u32, fd: 3, inode: i, ..Owner::default() };
        tracker.event(&Event::Open(&Open { head: head(kind::OPEN, 7, 2, 1), tuple, owner }), &mut Nobody);
        let handshake = Handshake::default();
        let established = Established { head: head(kind::ESTABLISHED, 2, 1, 2), tuple, handshake };
        tracker.event(&Event::Established(&established), &mut Nobody);
    }
    let bytes = |counter: &AtomicUsize| (counter.load(Relaxed) - before) as u64;
    let (live, peak) = (bytes(&LIVE) / CONNECTIONS, bytes(&PEAK) / CONNECTIONS);
    println!("{live} bytes a connection, {peak} at the peak");
    assert_eq!(tracker.live() as u64, CONNECTIONS);
    assert!(live > 200, "{live} bytes: not counted");
    assert!(peak <= 300, "{live} bytes a connection, {peak} at the peak");

    tracker.finish(CONNECTIONS * 1000, &mut Nobody);
    assert_eq!(tracker.live(), 0);
    drop(tracker);
    // The test harness itself keeps a little for what is printed.
    assert!(LIVE.load(Relaxed) <= before + 64 * 1024, "leaked");
}
