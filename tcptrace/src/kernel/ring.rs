//! The rings, one per CPU: committed records in, [`Frames`] in time order out.
//!
//! The records wait in the rings themselves until nothing older can follow, so the merge needs no memory of its own. It rests
//! on one fact of the kernel side: a record's time stamp is read **after** its slot was reserved. So when the clock is read
//! first and a ring's end afterwards, whatever is reserved behind that end is younger than the clock.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use crate::frame::Frames;

/// Set in a record's length while it is being written.
const BUSY: u32 = 1 << 31;
/// Set in the length of a record that was given up.
const DISCARD: u32 = 1 << 30;
/// Bytes in front of each record: length and flags, page offset.
const HEADER: u64 = 8;

/// Read access to the memory of one ring.
pub struct Ring {
    /// Keeps the map alive and tells epoll about wakeups. In tests a file of the same layout.
    map: OwnedFd,
    memory: Mapping,
    /// Bytes of data, a power of two.
    size: u64,
    /// Next byte to read: what the consumer's page will say after [`Ring::publish`].
    position: u64,
    /// End of what is looked at in this cycle.
    end: u64,
    /// Time stamp of the last record read.
    last: u64,
}

/// Consumer page, producer page and the data. The kernel offers the data twice in a row, so that no record wraps, but
/// every page that is mapped counts as resident: once must do.
struct Mapping {
    consumer: NonNull<AtomicU64>,
    producer: NonNull<AtomicU64>,
    page: usize,
    size: usize,
}

// SAFETY: the mapping is this ring's own, and every access to it goes through `&mut Ring` or an atomic.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, size: usize) -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let page = rustix::param::page_size();
        // SAFETY: new mappings at addresses that the kernel chooses; ring maps allow writing only to the first page.
        let (consumer, producer) = unsafe {
            let null = std::ptr::null_mut();
            let rw = ProtFlags::READ | ProtFlags::WRITE;
            let consumer = mmap(null, page, rw, MapFlags::SHARED, fd, 0)?;
            match mmap(null, page + size, ProtFlags::READ, MapFlags::SHARED, fd, page as u64) {
                Ok(producer) => (consumer, producer),
                Err(e) => {
                    rustix::mm::munmap(consumer, page)?;
                    return Err(e.into());
                }
            }
        };
        let pointer = |p: *mut std::ffi::c_void| NonNull::new(p.cast()).ok_or(io::ErrorKind::InvalidData);
        Ok(Self { consumer: pointer(consumer)?, producer: pointer(producer)?, page, size })
    }

    /// The eight-byte word at data position `at` (a multiple of 8).
    #[inline]
    fn word(&self, at: u64) -> *const u64 {
        // SAFETY: `at` is masked to the data; the pointer stays in the mapping.
        unsafe { self.producer.as_ptr().byte_add(self.page + (at as usize & (self.size - 1))).cast() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with these sizes; nothing borrowed from it outlives `self`.
        let unmapped = unsafe {
            [
                rustix::mm::munmap(self.consumer.as_ptr().cast(), self.page),
                rustix::mm::munmap(self.producer.as_ptr().cast(), self.page + self.size),
            ]
        };
        debug_assert!(unmapped.iter().all(Result::is_ok), "mapped in `new`");
    }
}

/// A committed record: its time stamp, its length in bytes, its words up to the end of the data and from its begin on.
struct Oldest<'a> {
    ts: u64,
    words: [&'a [u64]; 2],
    bytes: u32,
}

impl Ring {
    /// Map the ring `map` of `size` bytes of data.
    ///
    /// # Errors
    /// The kernel's, from mmap.
    pub fn new(map: OwnedFd, size: u32) -> io::Result<Self> {
        let memory = Mapping::new(map.as_fd(), size as usize)?;
        Ok(Self { map, memory, size: u64::from(size), position: 0, end: 0, last: 0 })
    }

    /// Look at the ring's end: nothing before it will be added any more.
    fn look(&mut self) {
        // SAFETY: the producer's page is mapped for as long as `self` lives.
        self.end = unsafe { self.memory.producer.as_ref() }.load(Ordering::Acquire);
    }

    /// The oldest record. `Err(true)`: it is still being written; `Err(false)`: there is none.
    #[inline]
    fn peek(&mut self) -> Result<Oldest<'_>, bool> {
        while self.position < self.end {
            let at = self.memory.word(self.position);
            // SAFETY: `at` is in the mapping and aligned; the kernel writes the length as a whole.
            let len = unsafe { &*at.cast::<AtomicU32>() }.load(Ordering::Acquire);
            if len & BUSY != 0 {
                return Err(true);
            }
            let bytes = len & !DISCARD;
            if len & DISCARD == 0 {
                return Ok(self.oldest(bytes));
            }
            self.skip(bytes);
        }
        Err(false)
    }

    /// The words of the committed record at the reading position.
    #[inline]
    fn oldest(&self, bytes: u32) -> Oldest<'_> {
        let all = (bytes as usize).div_ceil(8).min(self.size as usize / 8);
        let begin = self.position + HEADER;
        let to_end = ((self.size - (begin & (self.size - 1))) / 8) as usize;
        let first = all.min(to_end);
        // SAFETY: `first` words from `begin` on end no later than the data does, the rest starts over at its begin and is
        // shorter than the data. The record is committed and not overwritten before `publish` gives its room back.
        let words = unsafe {
            [
                std::slice::from_raw_parts(self.memory.word(begin), first),
                std::slice::from_raw_parts(self.memory.word(0), all - first),
            ]
        };
        Oldest { ts: words[0].first().copied().unwrap_or(0), words, bytes }
    }

    #[inline]
    fn skip(&mut self, bytes: u32) {
        self.position += (u64::from(bytes) + HEADER).next_multiple_of(8);
    }

    /// Give the room of everything read back to the kernel.
    fn publish(&self) {
        // SAFETY: the consumer's page is mapped for as long as `self` lives.
        unsafe { self.memory.consumer.as_ref() }.store(self.position, Ordering::Release);
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// Merges the rings of all CPUs by time.
pub struct Merge {
    rings: Vec<Ring>,
    /// (time stamp of the oldest record, ring): kept to avoid its allocation.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    /// Time stamp of the last record handed out.
    last: u64,
    /// Records that were older than one handed out before.
    pub late: u64,
    /// Records handed out.
    pub records: u64,
}

impl Merge {
    /// Merge these rings; a ring's index is its CPU.
    #[must_use]
    pub fn new(rings: Vec<Ring>) -> Self {
        Self { rings, heads: BinaryHeap::new(), last: 0, late: 0, records: 0 }
    }

    /// The rings, by CPU.
    #[must_use]
    pub fn rings(&self) -> &[Ring] {
        &self.rings
    }

    /// Append to `out`, in time order, what no later record can precede, until `out` holds `limit` bytes. `now` is
    /// CLOCK_MONOTONIC and must be read by this call's caller right before it. False: `limit` was reached, there is more.
    pub fn drain(&mut self, now: u64, out: &mut Frames, limit: usize) -> bool {
        let mut until = now;
        self.heads.clear();
        // An interrupted record may carry a later time stamp than the one that interrupted it, hence `look` at all first.
        for ring in &mut self.rings {
            ring.look();
        }
        for (i, ring) in self.rings.iter_mut().enumerate() {
            match ring.peek() {
                Ok(oldest) => self.heads.push(Reverse((oldest.ts, i))),
                // What is being written is no older than what was read before it.
                Err(true) => until = until.min(ring.last),
                Err(false) => {}
            }
        }
        let mut complete = true;
        while let Some(Reverse((ts, i))) = self.heads.pop() {
            if ts > until {
                break;
            }
            if out.len() >= limit {
                complete = false;
                break;
            }
            // Everything up to the next ring's oldest record can go in one run.
            let next = self.heads.peek().map_or(u64::MAX, |Reverse((ts, _))| *ts).min(until);
            let ring = &mut self.rings[i];
            loop {
                match ring.peek() {
                    Ok(Oldest { ts, words, bytes }) => {
                        if ts > next || out.len() >= limit {
                            self.heads.push(Reverse((ts, i)));
                            break;
                        }
                        out.push_words(i as u16, bytes, words);
                        self.late += u64::from(ts < self.last);
                        self.last = self.last.max(ts);
                        self.records += 1;
                        ring.last = ring.last.max(ts);
                        ring.skip(bytes);
                    }
                    Err(busy) => {
                        if busy {
                            until = until.min(ring.last);
                        }
                        break;
                    }
                }
            }
        }
        for ring in &self.rings {
            ring.publish();
        }
        complete
    }
}

#[cfg(test)]
mod tests;
