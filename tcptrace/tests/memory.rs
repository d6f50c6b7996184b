//! What a live connection costs: bytes that the allocator gave out, the index and the share of unfilled chunks included.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use tcptrace::{decode::Event, model::Observer, tracker::Tracker};
use tcptrace_common::record::{Established, Handshake, Head, Open, Owner, Tuple, kind};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
