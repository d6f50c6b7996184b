//! Listeners at the end of an interval: the kernel's iterator, our totals, the kernel's counters and settings of every namespace that has
//! listeners, and where they are asked for the sockets that wait for one of their ends to close in, frames out. Runs on a thread of its
//! own, which it moves between network namespaces.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::mpsc,
    time::Duration,
};

use rustix::thread::LinkNameSpaceType;
use tcptrace_common::{
    queue::{ListenerSample, ListenerStats, ListenerTotals, drop},
    record::{Head, kind},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{
    Error, bpf,
    closing::Closing,
    counters,
    listeners::{Listeners, Totals},
    load::Settings,
    monotonic,
    objects::Objects,
    rest::{self, Rest},
    signal::{Signal, Tier},
    snapshot,
    sysctls::{self, Sysctls},
};
use crate::frame::{Frames, fact};

/// How often all namespaces are searched for listeners, nanoseconds. It is the first time that matters: what listens later is marked by
/// the program that sees it, unless its run was missed.
const SCAN: u64 = 60_000_000_000;
/// A half-open request of a listener that is gone counts when its timer ends it: within 63 s, by default.
const LINGER: u64 = 70_000_000_000;

/// See the module.
pub struct Sampler {
    /// Marks the listeners of the namespace that it is opened in.
    mark: OwnedFd,
    /// Reads those that are marked.
    read: OwnedFd,
    /// The namespace of this process.
    home: File,
    listeners: Listeners,
    /// Restricts the namespaces; empty: all.
    wanted: Vec<u32>,
    /// See [`fact::Interval::exact`].
    exact: bool,
    /// How often to ask.
    pub interval: Duration,
    /// A path into each namespace: an open file would keep the namespace alive.
    paths: BTreeMap<u32, PathBuf>,
    next_scan: u64,
    /// End of the last interval; 0: none yet.
    last: u64,
    fates: HashMap<u64, Fate>,
    rest: Rest,
    sysctls: Sysctls,
    /// Sockets that wait for one of their ends to close, and how many there are of each kind; None: nobody asks.
    closing: Option<Closing>,
}

/// What a [`Sampler`] can be told.
pub enum Ask {
    /// End the interval.
    Sample {
        /// No other follows.
        last: bool,
    },
    /// A process has a socket in a namespace.
    Lives {
        /// Inode number of the namespace.
        netns: u32,
        /// The process.
        pid: u32,
    },
}

/// What became of a listener that has totals.
struct Fate {
    totals: ListenerTotals,
    /// Namespace and half-open requests when a row told of it last; None: none ever did.
    row: Option<(u32, u32)>,
    /// When it was there last, or its totals changed.
    since: u64,
    /// Readings since then.
    still: u32,
}

impl Fate {
    /// Is nothing more to come? A row tells of half-open requests too late, where they came and the listener went between two readings.
    fn is_over(&self, now: u64) -> bool {
        match self.row {
            // The walk may pass one over while another goes.
            Some((_, 0)) if half_open(&self.totals) == 0 => self.still > 1,
            _ => self.still > 0 && now >= self.since + LINGER,
        }
    }
}

/// Requests that entered the SYN queue and were not seen to leave it, by the counts: at least as many as are in it. What is counted of
/// others, too (migrations, ICMP errors), is not taken for the end of one.
fn half_open(t: &ListenerTotals) -> u64 {
    let completed = t.completed.saturating_sub(t.cookies_ok + t.fast_opens);
    let ended = [drop::RST, drop::SYNACK_TIMEOUT, drop::LISTENER_CLOSED].iter().map(|&why| t.dropped[why]);
    t.queued.saturating_sub(completed + ended.sum::<u64>())
}

/// What the namespaces' listeners look like.
#[derive(Default)]
struct Rows {
    samples: Vec<ListenerSample>,
    /// Cookie → namespace, half-open requests.
    listeners: HashMap<u64, (u32, u32)>,
    counters: Vec<fact::Netns>,
    closing: Vec<fact::Closing>,
}

impl Sampler {
    /// `mark` and `read` are the links of the programs `iter_mark_listeners` and `iter_listeners`; `exact` as in [`fact::Interval`].
    pub(super) fn new(
        mark: OwnedFd,
        read: OwnedFd,
        objects: &Objects,
        settings: &Settings,
        signals: &[Signal],
        exact: bool,
    ) -> Result<Self, Error> {
        let probed = signals.iter().any(|signal| signal.tier == Some(Tier::Kprobe));
        Ok(Self {
            mark,
            read,
            home: File::open("/proc/self/ns/net").map_err(|e| Error::load("opening the own network namespace", e))?,
            listeners: Listeners::new(objects, probed)?,
            wanted: settings.filter.netns.clone(),
            exact,
            interval: settings.interval,
            paths: BTreeMap::new(),
            next_scan: 0,
            last: 0,
            fates: HashMap::new(),
            sysctls: Sysctls::default(),
            rest: Rest::default(),
            closing: settings.closing.then(Closing::default),
        })
    }

    /// Do as asked until nobody asks any more. Every [`Ask::Sample`] is answered: with the rows, counts and counters of an interval, its
    /// end last; or with nothing, where the kernel did not let them be read.
    pub fn run(mut self, asked: &mpsc::Receiver<Ask>, answer: &mpsc::Sender<Frames>) {
        for ask in asked {
            match ask {
                Ask::Lives { netns, pid } => {
                    if self.wanted.is_empty() || self.wanted.contains(&netns) {
                        self.paths.insert(netns, format!("/proc/{pid}/ns/net").into());
                    }
                }
                Ask::Sample { last } => {
                    if answer.send(self.sample(last).unwrap_or_default()).is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn sample(&mut self, last: bool) -> io::Result<Frames> {
        let frames = self.look(last);
        // A namespace that a thread is in does not go away.
        rustix::thread::move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network))?;
        frames
    }

    fn look(&mut self, last: bool) -> io::Result<Frames> {
        let ended = self.listeners.epoch()?;
        let first = self.last == 0;
        if first {
            // Nothing is counted before: from here on our counts and the kernel's go together.
            self.listeners.begin(ended.wrapping_add(1))?;
        }
        let mut rows = self.rows(monotonic())?;
        if !first {
            self.listeners.begin(ended.wrapping_add(1))?;
        }
        // Not later than the last look at the totals: what is older is in them.
        let now = monotonic();
        let totals = self.listeners.read(ended)?;
        let interval = fact::Interval {
            interval_us: if first { 0 } else { now.saturating_sub(self.last) / 1000 },
            exact: self.exact,
            rest: self.rests(now, first || last, ended, &totals, &rows),
        };
        self.last = now;
        self.bury(&totals, &rows, now);
        // The trace waits for the first reading: it is to be short.
        if !first {
            self.look_at_closing(now, &mut rows);
        }
        let mut frames = Frames::default();
        rows.samples.iter().for_each(|sample| frames.push(0, sample.as_bytes()));
        for (cookie, (totals, window)) in totals {
            let head = Head { ts: now, sock: cookie, kind: kind::LISTENER_STATS, ..Head::default() };
            frames.push(0, ListenerStats { head, totals, window }.as_bytes());
        }
        for netns in &rows.counters {
            frames.push_fact(fact::kind::NETNS, now, netns);
        }
        for closing in &rows.closing {
            frames.push_fact(fact::kind::CLOSING, now, closing);
        }
        frames.push_fact(fact::kind::INTERVAL, now, &interval);
        Ok(frames)
    }

    /// Read the marked listeners, and the counters of their namespaces. From time to time, mark all that there are.
    fn rows(&mut self, now: u64) -> io::Result<Rows> {
        if now >= self.next_scan {
            self.next_scan = now + SCAN;
            self.paths = snapshot::namespaces(&self.wanted);
            self.sysctls.retain(|netns| self.paths.contains_key(&netns));
            for inum in self.paths.keys().copied().collect::<Vec<_>>() {
                // One that vanished has no listeners; one that a process hides is found by what happens in it.
                let _ = self.enter(inum).and_then(|()| read(&self.mark));
            }
        }
        let samples = samples(&self.read)?;
        let listeners: HashMap<_, _> =
            samples.iter().map(|sample| (sample.head.sock, (sample.tuple.netns, sample.syn_queue))).collect();
        // A listener that is gone may still have half-open requests.
        let told = self.fates.values().filter_map(|fate| fate.row);
        let inhabited: BTreeSet<u32> = listeners.values().copied().chain(told).map(|(netns, _)| netns).collect();
        let mut rows = Rows { samples, listeners, ..Rows::default() };
        for netns in inhabited {
            let read = self.enter(netns).and_then(|()| {
                let gauges = self.closing.as_ref().map(|_| counters::gauges()).transpose()?;
                Ok((counters::read()?, gauges.unwrap_or_default()))
            });
            if let Ok((counters, gauges)) = read {
                let settings = self.sysctls.due(netns, now, sysctls::read);
                rows.counters.push(fact::Netns { netns, counters, settings, gauges });
            }
        }
        Ok(rows)
    }

    /// Was nothing under way while that was read? The totals, which change most often, are looked at first.
    fn rests(&mut self, now: u64, must: bool, ended: u32, totals: &Totals, rows: &Rows) -> bool {
        let mut rest = std::mem::take(&mut self.rest);
        let counters = rows.counters.iter().map(|fact| (fact.netns, fact.counters.as_slice()));
        let state = rest::State::of(totals, &rows.samples, counters);
        let again = || {
            let now = self.listeners.read(ended)?;
            if !now.iter().map(|(c, (t, _))| (c, t)).eq(totals.iter().map(|(c, (t, _))| (c, t))) {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            let samples = samples(&self.read)?;
            let counters = rows
                .counters
                .iter()
                .map(|fact| self.enter(fact.netns).and_then(|()| Ok((fact.netns, counters::read()?))));
            let counters = counters.collect::<io::Result<Vec<_>>>()?;
            Ok(rest::State::of(&now, &samples, counters.iter().map(|(netns, counters)| (*netns, counters.as_slice()))))
        };
        let rests = rest.holds(now, state, must, rest::grace_period, again);
        self.rest = rest;
        rests
    }

    /// Sockets that wait for one of their ends to close, of every namespace that has sockets, and the counters of those that were not read
    /// yet. What this finds out has no part in the totals of listeners.
    fn look_at_closing(&mut self, now: u64, rows: &mut Rows) {
        let Some(mut closing) = self.closing.take_if(|closing| closing.is_due(now)) else { return };
        closing.begin(now);
        let read: BTreeSet<u32> = rows.counters.iter().map(|fact| fact.netns).collect();
        for netns in self.paths.keys().copied().collect::<Vec<_>>() {
            // One that vanished has no sockets.
            if self.enter(netns).is_err() {
                continue;
            }
            if !read.contains(&netns) {
                let Ok(gauges) = counters::gauges() else { continue };
                if self.wanted.is_empty() && !has_sockets(&gauges) {
                    // Nothing to tell of, not even its settings.
                    self.sysctls.forget(netns);
                    continue;
                }
                let Ok(counters) = counters::read() else { continue };
                let settings = self.sysctls.due(netns, now, sysctls::read);
                rows.counters.push(fact::Netns { netns, counters, settings, gauges });
            }
            rows.closing.extend(closing.read(netns).ok().flatten());
        }
        closing.end(now, monotonic());
        self.closing = Some(closing);
    }

    /// Move this thread into a namespace.
    fn enter(&mut self, inum: u32) -> io::Result<()> {
        let path = self.paths.get(&inum).cloned().unwrap_or_default();
        let again = || {
            let path = snapshot::namespaces(&[inum]).remove(&inum)?;
            self.paths.insert(inum, path.clone());
            Some(path)
        };
        snapshot::reach(path, again, |path| snapshot::enter(path, inum)).ok_or(io::ErrorKind::NotFound)?
    }

    /// Delete the totals of listeners that are gone, once they were reported and change no more.
    fn bury(&mut self, totals: &Totals, rows: &Rows, now: u64) {
        for (&cookie, (totals, _)) in totals {
            let row = rows.listeners.get(&cookie).copied();
            let fate = self.fates.entry(cookie).or_insert(Fate { totals: *totals, row, since: now, still: 0 });
            if row.is_some() {
                fate.row = row;
            }
            if row.is_some() || fate.totals != *totals {
                (fate.totals, fate.since, fate.still) = (*totals, now, 0);
            } else {
                fate.still += 1;
            }
        }
        self.fates.retain(|&cookie, fate| {
            // One that is gone from the map is forgotten.
            !(fate.is_over(now) && self.listeners.delete(cookie).is_ok()) && totals.contains_key(&cookie)
        });
    }
}

/// Is a TCP socket in it, or was one a moment ago?
fn has_sockets(gauges: &[(String, u64)]) -> bool {
    gauges.iter().any(|(name, n)| name != "orphan" && *n > 0)
}

/// The marked listeners.
fn samples(link: &OwnedFd) -> io::Result<Vec<ListenerSample>> {
    let bytes = read(link)?;
    let mut left = bytes.as_slice();
    let next = || {
        let (sample, after) = ListenerSample::read_from_prefix(left).ok()?;
        left = after;
        (sample.head.kind == kind::LISTENER).then_some(sample)
    };
    Ok(std::iter::from_fn(next).collect())
}

/// Run the iterator. Its program stops it with EAGAIN behind the last listener: what follows are all connections of the host.
fn read(link: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut file: File = bpf::run_iterator(link)?;
    let mut bytes = Vec::new();
    match file.read_to_end(&mut bytes) {
        Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    #[test]
    fn a_listener_that_went_with_half_open_requests_is_kept_until_they_are_over() {
        let mut totals = ListenerTotals { queued: 5, completed: 3, cookies_ok: 1, ..ListenerTotals::new_zeroed() };
        totals.dropped[drop::RST] = 1;
        // Both of the last row, which was read before they came.
        let fate = |totals, still| Fate { totals, row: Some((7, 0)), since: 10, still };
        assert_eq!(half_open(&totals), 2);
        assert!(!fate(totals, 2).is_over(11) && !fate(totals, 0).is_over(10 + LINGER));
        assert!(fate(totals, 1).is_over(10 + LINGER), "what ended them was not seen");
        totals.dropped[drop::LISTENER_CLOSED] = 2;
        assert!(fate(totals, 2).is_over(11) && !fate(totals, 1).is_over(11));
        // Without a row nobody knows.
        assert!(!Fate { row: None, ..fate(totals, 2) }.is_over(11));
    }
}
