//! The kernel map of listeners: per-CPU entries in, one total and the marks of one interval a listener out.

use std::{collections::BTreeMap, io, os::fd::OwnedFd};

use tcptrace_common::queue::{ListenerEntry, ListenerTotals, Window};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use super::{Error, bpf, objects::Objects};

/// The maps `LISTENERS` and `EPOCH`.
pub(super) struct Listeners {
    map: OwnedFd,
    epoch: OwnedFd,
    cpus: usize,
    /// Kprobes tell of them, which must not wait for long.
    probed: bool,
}

/// What is known about each listener, by cookie.
pub(super) type Totals = BTreeMap<u64, (ListenerTotals, Window)>;

impl Listeners {
    pub fn new(objects: &Objects, probed: bool) -> Result<Self, Error> {
        let cpus = aya::util::nr_cpus().map_err(|(_, e)| Error::load("counting the CPUs", e))?;
        Ok(Self { map: objects.map_fd("LISTENERS")?, epoch: objects.map_fd("EPOCH")?, cpus, probed })
    }

    /// Number of the running interval.
    pub fn epoch(&self) -> io::Result<u32> {
        bpf::get_u32(&self.epoch)
    }

    /// Begin interval `epoch`.
    pub fn begin(&self, epoch: u32) -> io::Result<()> {
        bpf::set_u32(&self.epoch, epoch)
    }

    /// Every listener's totals, and its marks of interval `epoch`.
    pub fn read(&self, epoch: u32) -> io::Result<Totals> {
        const ENTRY: usize = size_of::<ListenerEntry>();
        const { assert!(ENTRY.is_multiple_of(8)) }
        let mut all = Totals::new();
        let words = ENTRY / 8 * self.cpus;
        let entry = |cookie: u64, words: &[u64]| {
            let cpus =
                words.as_bytes().chunks_exact(ENTRY).filter_map(|bytes| ListenerEntry::ref_from_bytes(bytes).ok());
            all.insert(cookie, merge(cpus, epoch));
        };
        if self.probed {
            bpf::for_each_key(&self.map, words, entry)?;
        } else {
            bpf::for_each(&self.map, words, entry)?;
        }
        Ok(all)
    }

    /// Forget a listener.
    pub fn delete(&self, cookie: u64) -> io::Result<()> {
        bpf::delete(&self.map, cookie)
    }
}

/// One out of the entries of all CPUs. A CPU that saw nothing in an interval still holds the marks of an older one.
fn merge<'a>(cpus: impl Iterator<Item = &'a ListenerEntry>, epoch: u32) -> (ListenerTotals, Window) {
    let (mut totals, mut window) = (ListenerTotals::new_zeroed(), Window::new_zeroed());
    window.epoch = epoch;
    for entry in cpus {
        totals.with(&entry.totals, |sum, cpu| sum + cpu, u32::wrapping_add);
        let marks = &entry.windows[(epoch & 1) as usize];
        if marks.epoch == epoch {
            window.syn_peak = window.syn_peak.max(marks.syn_peak);
            window.accept_peak = window.accept_peak.max(marks.accept_peak);
            window.wait_max_us = window.wait_max_us.max(marks.wait_max_us);
            for (register, seen) in window.sources.iter_mut().zip(marks.sources) {
                *register = (*register).max(seen);
            }
        }
    }
    (totals, window)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(change: impl FnOnce(&mut ListenerEntry)) -> ListenerEntry {
        let mut entry = ListenerEntry::new_zeroed();
        change(&mut entry);
        entry
    }

    #[test]
    fn counts_are_summed() {
        let cpu = |n: u64| {
            entry(|e| {
                // Every word of the totals, so that none is left out.
                let words = [n << 32 | n; size_of::<ListenerTotals>() / 8];
                e.totals = ListenerTotals::read_from_bytes(words.as_bytes()).expect("as many bytes");
            })
        };
        let (sum, _) = merge([cpu(1), cpu(2)].iter(), 0);
        assert_eq!(sum, cpu(3).totals);
    }

    #[test]
    fn waits_wrap() {
        let cpu = |n| entry(|e| e.totals.waits[3] = n);
        assert_eq!(merge([cpu(u32::MAX), cpu(2)].iter(), 0).0.waits[3], 1);
    }

    #[test]
    fn marks_of_the_wanted_interval_alone() {
        let cpu = |epoch: u32, peak: u32| {
            entry(|e| {
                let w = &mut e.windows[(epoch & 1) as usize];
                (w.epoch, w.syn_peak, w.accept_peak, w.wait_max_us) = (epoch, peak, peak + 1, peak + 2);
                w.sources[peak as usize] = 9;
                w.sources[0] = peak as u8;
            })
        };
        // The last writes into the other half, the first's marks are those of an older interval.
        let (_, w) = merge([cpu(4, 100), cpu(6, 3), cpu(6, 5), cpu(7, 90)].iter(), 6);
        assert_eq!((w.epoch, w.syn_peak, w.accept_peak, w.wait_max_us), (6, 5, 6, 7));
        let sources: Vec<_> = w.sources.iter().enumerate().filter(|(_, r)| **r != 0).map(|(i, r)| (i, *r)).collect();
        assert_eq!(sources, [(0, 5), (3, 9), (5, 9)]);
    }

    #[test]
    fn nothing_in_the_interval() {
        let (_, w) = merge([entry(|e| e.windows[0].syn_peak = 4)].iter(), 8);
        assert_eq!(w, Window { epoch: 8, ..Window::new_zeroed() });
    }
}
