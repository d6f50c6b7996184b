//! The collector without the program around it: what it says at the end of each interval.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use tcptrace::{
    frame::{Frames, fact},
    kernel::{
        load::{KernelFilter, Queues, Settings},
        signal::Tier,
    },
    pipeline::Tape,
    source::{Source, live::Live},
};
use tcptrace_common::{
    queue::{ListenerSample, ListenerStats, RequestEvent},
    record::{Head, kind},
};
use zerocopy::FromBytes;

use super::{DEADLINE, netns::Netns, now};

/// Rows, counts and counters, with the single requests that came before them.
#[derive(Debug, Default)]
pub struct Interval {
    pub rows: Vec<ListenerSample>,
    pub stats: Vec<ListenerStats>,
    pub netns: Vec<fact::Netns>,
    pub requests: Vec<RequestEvent>,
    pub losses: Vec<fact::Loss>,
    pub fact: fact::Interval,
    /// CLOCK_MONOTONIC of its end.
    pub end: u64,
}

impl Interval {
    /// A counter of a namespace.
    pub fn counter(&self, ns: &Netns, name: &str) -> u64 {
        let found = self.netns.iter().find(|n| u64::from(n.netns) == ns.inum()).expect("the namespace");
        found.counters.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name} in {found:?}")).1
    }
}

/// Listeners of one namespace alone, by hooks of this tier (of any: `auto`) or lower ones.
pub fn only(ns: &Netns, tier: &str, interval: Duration) -> Settings {
    let tier = match tier {
        "fentry" | "auto" => Tier::Fentry,
        "kprobe" => Tier::Kprobe,
        "tracepoint" => Tier::Tracepoint,
        other => panic!("no tier {other}"),
    };
    Settings {
        filter: KernelFilter { netns: vec![ns.inum() as u32], ..KernelFilter::default() },
        period: Duration::from_millis(20),
        tier,
        queues: Queues::Only,
        interval,
        ..Settings::default()
    }
}

/// A running collector.
pub struct Collector {
    intervals: mpsc::Receiver<Interval>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Collector {
    /// Returns when its programs are attached.
    pub fn start(settings: Settings) -> Self {
        Self::begin(settings, None)
    }

    /// The same, recorded.
    pub fn recorded(settings: Settings, file: &Path) -> Self {
        Self::begin(settings, Some(Tape::create(file).expect("a temporary directory")))
    }

    fn begin(settings: Settings, mut tape: Option<Tape>) -> Self {
        let (send, intervals) = mpsc::channel();
        let (ready, attached) = mpsc::channel();
        let stop = Arc::<AtomicBool>::default();
        let ending = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut live = Live::start(&settings, fact::Start::default()).expect("the kernel lets us");
                ready.send(()).expect("the test waits");
                let (mut frames, mut interval) = (Frames::default(), Interval::default());
                loop {
                    let more = live.next(&mut frames).await.expect("the kernel goes on");
                    frames.iter().for_each(|record| take(record, &mut interval, &send));
                    if let Some(tape) = &mut tape {
                        tape.write(&frames).expect("room for the recording");
                    }
                    frames.clear();
                    if !more {
                        break;
                    }
                    if ending.load(Ordering::Relaxed) {
                        live.stop();
                    }
                }
                if let Some(tape) = tape {
                    tape.finish(0).expect("room for the recording");
                }
            });
        });
        attached.recv_timeout(*DEADLINE).expect("attached in time");
        Self { intervals, stop, thread }
    }

    /// The next interval.
    pub fn interval(&self) -> Interval {
        self.intervals.recv_timeout(*DEADLINE).expect("an interval")
    }

    /// The first interval that begins from now on: those before it may wait to be fetched.
    pub fn fresh(&self) -> Interval {
        let now = now();
        self.until("an interval that begins now", |i| i.end.saturating_sub(i.fact.interval_us * 1000) >= now)
    }

    /// The first interval that is as wanted.
    pub fn until(&self, what: &str, mut wanted: impl FnMut(&Interval) -> bool) -> Interval {
        let start = std::time::Instant::now();
        loop {
            let interval = self.interval();
            if wanted(&interval) {
                return interval;
            }
            assert!(start.elapsed() < *DEADLINE, "waited for {what}: {interval:?}");
        }
    }

    /// Stop it; the last interval.
    pub fn stop(self) -> Interval {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic");
        self.intervals.try_iter().last().expect("one at the end")
    }
}

/// Add a frame to what came since the last interval. Rows, counts, namespaces, end: in this order.
fn take(record: &[u8], interval: &mut Interval, send: &mpsc::Sender<Interval>) {
    let (head, body) = Head::read_from_prefix(record).expect("a head");
    match head.kind {
        kind::LISTENER => {
            assert!(interval.stats.is_empty() && interval.netns.is_empty());
            interval.rows.push(ListenerSample::read_from_bytes(record).expect("a row"));
        }
        kind::LISTENER_STATS => {
            assert!(interval.netns.is_empty());
            interval.stats.push(ListenerStats::read_from_bytes(record).expect("counts"));
        }
        fact::kind::NETNS => interval.netns.push(serde_json::from_slice(body).expect("JSON")),
        kind::REQUEST_EVENT => interval.requests.push(RequestEvent::read_from_bytes(record).expect("a request")),
        fact::kind::LOSS => interval.losses.push(serde_json::from_slice(body).expect("JSON")),
        fact::kind::INTERVAL => {
            interval.fact = serde_json::from_slice(body).expect("JSON");
            interval.end = head.ts;
            // Nobody listens any more at the end.
            let _ = send.send(std::mem::take(interval));
        }
        _ => {}
    }
}
