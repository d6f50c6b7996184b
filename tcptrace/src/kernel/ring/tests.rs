//! Rings in files of the kernel's layout: a page for the consumer, one for the producer, the data.

use std::{fs::File, os::unix::fs::FileExt as _};

use tcptrace_common::record::Head;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::*;

const SIZE: u64 = 4096;

/// Writes what the kernel would.
struct Producer {
    file: File,
    position: u64,
}

impl Producer {
    fn new() -> (Self, Ring) {
        let page = rustix::param::page_size() as u64;
        let file = File::from(rustix::fs::memfd_create("ring", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(2 * page + SIZE).unwrap();
        let ring = Ring::new(file.try_clone().unwrap().into(), SIZE as u32).unwrap();
        (Self { file, position: 0 }, ring)
    }

    /// Reserve a record of a head and nothing else; its place.
    fn reserve(&mut self, flags: u32) -> u64 {
        let at = self.position;
        self.header(at, flags);
        self.position += HEADER + size_of::<Head>() as u64;
        let page = rustix::param::page_size() as u64;
        self.file.write_all_at(&self.position.to_le_bytes(), page).unwrap();
        at
    }

    fn header(&self, at: u64, flags: u32) {
        self.write(at, &(size_of::<Head>() as u32 | flags).to_le_bytes());
    }

    fn commit(&self, at: u64, ts: u64, seq: u16) {
        self.write(at + HEADER, Head { ts, seq, ..Head::default() }.as_bytes());
        self.header(at, 0);
    }

    fn record(&mut self, ts: u64, seq: u16) {
        let at = self.reserve(BUSY);
        self.commit(at, ts, seq);
    }

    /// Bytes at data position `at`.
    fn write(&self, at: u64, bytes: &[u8]) {
        let data = 2 * rustix::param::page_size() as u64;
        for (i, byte) in (0u64..).zip(bytes) {
            let place = (at + i) % SIZE;
            self.file.write_all_at(&[*byte], data + place).unwrap();
        }
    }

    fn consumed(&self) -> u64 {
        let mut word = [0; 8];
        self.file.read_exact_at(&mut word, 0).unwrap();
        u64::from_le_bytes(word)
    }
}

fn drain(merge: &mut Merge, now: u64) -> Vec<(u64, u16)> {
    let mut out = Frames::default();
    assert!(merge.drain(now, &mut out, usize::MAX));
    out.iter().map(|r| Head::read_from_bytes(r).unwrap()).map(|h| (h.ts, h.seq)).collect()
}

#[test]
fn two_cpus_come_out_in_time_order() {
    let ((mut a, ring_a), (mut b, ring_b)) = (Producer::new(), Producer::new());
    let mut merge = Merge::new(vec![ring_a, ring_b]);
    for ts in [10, 11, 20, 40] {
        a.record(ts, 1);
    }
    for ts in [5, 15, 30, 31] {
        b.record(ts, 2);
    }
    let order = drain(&mut merge, 100);
    assert_eq!(order, [(5, 2), (10, 1), (11, 1), (15, 2), (20, 1), (30, 2), (31, 2), (40, 1)]);
    assert_eq!((merge.records, merge.late), (8, 0));
    assert_eq!(a.consumed(), a.position, "the room goes back to the kernel");
}

#[test]
fn what_is_younger_than_the_clock_waits_for_its_elders() {
    let ((mut a, ring_a), (mut b, ring_b)) = (Producer::new(), Producer::new());
    let mut merge = Merge::new(vec![ring_a, ring_b]);
    a.record(50, 1);
    // Read at 40: a record of CPU 1 may still come with a stamp between 40 and 50.
    assert_eq!(drain(&mut merge, 40), []);
    assert_eq!(a.consumed(), 0);
    b.record(45, 2);
    assert_eq!(drain(&mut merge, 60), [(45, 2), (50, 1)]);
    assert_eq!(merge.late, 0);
}

#[test]
fn a_record_being_written_holds_back_what_may_follow_it() {
    let ((mut a, ring_a), (mut b, ring_b)) = (Producer::new(), Producer::new());
    let mut merge = Merge::new(vec![ring_a, ring_b]);
    a.record(10, 1);
    let open = a.reserve(BUSY);
    a.record(12, 3);
    b.record(11, 4);
    // The open record is no older than 10, but may be older than 11.
    assert_eq!(drain(&mut merge, 100), [(10, 1)]);
    a.commit(open, 11, 2);
    assert_eq!(drain(&mut merge, 100), [(11, 2), (11, 4), (12, 3)]);
    assert_eq!(merge.late, 0);
}

#[test]
fn given_up_records_are_passed_over() {
    let (mut a, ring) = Producer::new();
    let mut merge = Merge::new(vec![ring]);
    a.record(1, 1);
    a.reserve(DISCARD);
    a.record(2, 2);
    assert_eq!(drain(&mut merge, 100), [(1, 1), (2, 2)]);
}

#[test]
fn a_record_may_wrap_around_the_end() {
    let (mut a, ring) = Producer::new();
    let mut merge = Merge::new(vec![ring]);
    let mut seen = 0;
    for n in 0..1000u64 {
        a.record(n, n as u16);
        let order = drain(&mut merge, u64::MAX);
        assert_eq!(order, [(n, n as u16)], "after {} bytes", a.position);
        seen += order.len();
    }
    assert!(a.position > 7 * SIZE, "several rounds");
    assert_eq!(seen, 1000);
}

#[test]
fn an_interrupted_record_is_late_and_counted() {
    let (mut a, ring) = Producer::new();
    let mut merge = Merge::new(vec![ring]);
    // Reserved first, stamped last: the one that interrupted it has the earlier stamp.
    a.record(21, 1);
    a.record(20, 2);
    assert_eq!(drain(&mut merge, 100), [(21, 1), (20, 2)]);
    assert_eq!(merge.late, 1);
}

#[test]
fn a_full_batch_leaves_the_rest_in_the_ring() {
    let (mut a, ring) = Producer::new();
    let mut merge = Merge::new(vec![ring]);
    for ts in 0..10 {
        a.record(ts, ts as u16);
    }
    let mut out = Frames::default();
    assert!(!merge.drain(100, &mut out, 3 * 32), "there is more");
    assert_eq!(out.iter().count(), 3);
    assert_eq!(drain(&mut merge, 100).len(), 7);
}
