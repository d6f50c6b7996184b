//! What the collector says about listeners at the end of each interval: rows, counts, and the kernel's counters.

use std::{collections::BTreeMap, time::Duration};

use tcptrace_common::queue::depth;

use crate::support::{
    collector::{Collector, Interval, only},
    netns::Netns,
    process,
    socket::{Sock, local},
    wait_until,
};

const INTERVAL: Duration = Duration::from_millis(150);

/// `ss -ltn` in a namespace: local port → (Recv-Q, Send-Q).
fn ss(ns: &Netns) -> BTreeMap<u16, (u32, u32)> {
    let output = process::run(ns.command("ss").args(["-Hltn"]));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines()
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let port = words[3].rsplit(':').next().expect("address:port");
            let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("{line}"));
            (port.parse().expect("a port"), (number(words[1]), number(words[2])))
        })
        .collect()
}

/// Rows of an interval in one namespace: local port → (accept queue, limit).
fn rows(interval: &Interval, ns: &Netns) -> BTreeMap<u16, (u32, u32)> {
    let here = interval.rows.iter().filter(|row| u64::from(row.tuple.netns) == ns.inum());
    here.map(|row| (row.tuple.lport, (row.accept_queue, row.limit))).collect()
}

#[test]
fn rows_are_what_ss_shows() {
    let ns = Netns::new();
    let listener = Sock::listen(&ns, local(7801), 5);
    let v6 = Sock::listen(&ns, "[::1]:7802".parse().expect("an address"), 9);
    let queued: Vec<_> = (0..3).map(|_| Sock::connected(&ns, local(7801))).collect();
    wait_until("three in the accept queue", || ss(&ns)[&7801].0 == 3);
    let collector = Collector::start(only(&ns, "fentry", INTERVAL));
    let first = collector.interval();
    assert_eq!(first.fact.interval_us, 0, "counters at the start are of no interval");
    let shown = ss(&ns);
    assert_eq!(shown, [(7801, (3, 5)), (7802, (0, 9))].into());
    assert_eq!(rows(&collector.interval(), &ns), shown);
    drop(listener.accept());
    assert_eq!(rows(&collector.fresh(), &ns), ss(&ns));
    let row = collector.fresh().rows.iter().find(|row| row.tuple.lport == 7801).copied().expect("a row");
    assert_eq!(format!("{:x}", row.head.sock), listener.cookie().trim_start_matches("0x"));
    drop((queued, v6));
    drop(collector.stop());
}

/// A namespace that had no listeners when the collector started, nor when it last looked at all of them.
#[test]
fn a_listener_in_another_namespace_is_seen_at_once() {
    let (ns, other) = (Netns::new(), Netns::new());
    let mut settings = only(&ns, "fentry", INTERVAL);
    settings.filter.netns = vec![ns.inum() as u32, other.inum() as u32];
    let collector = Collector::start(settings);
    collector.interval();
    let listener = Sock::listen(&other, local(7803), 1);
    assert_eq!(rows(&collector.fresh(), &other), [(7803, (0, 1))].into(), "in the next whole interval");
    drop(listener);
    drop(collector.stop());
}

#[test]
fn totals_and_counters_agree() {
    let ns = Netns::new();
    let listener = Sock::listen(&ns, local(7804), 16);
    let collector = Collector::start(only(&ns, "fentry", INTERVAL));
    let start = collector.interval();
    let before = start.counter(&ns, "PassiveOpens");
    let clients: Vec<_> = (0..10).map(|_| Sock::connected(&ns, local(7804))).collect();
    let servers: Vec<_> = (0..4).map(|_| listener.accept()).collect();
    let cookie = u64::from_str_radix(listener.cookie().trim_start_matches("0x"), 16).expect("hex");
    let ended = collector.until("ten completions and four accepts", |i| {
        i.stats.iter().any(|s| s.head.sock == cookie && (s.totals.completed, s.totals.accepted) == (10, 4))
    });
    let stats = ended.stats.iter().find(|s| s.head.sock == cookie).expect("counts");
    assert_eq!((stats.totals.queued, stats.totals.waits.iter().sum::<u32>()), (10, 4), "{stats:?}");
    let still = collector.until("rest", |i| i.fact.rest);
    assert_eq!(still.counter(&ns, "PassiveOpens") - before, 10);
    assert!(still.fact.interval_us.abs_diff(INTERVAL.as_micros() as u64) < 1_000_000, "{:?}", still.fact);
    drop((clients, servers));
    let rest = collector.stop();
    assert!(rest.requests.iter().filter(|r| r.head.sock == cookie).all(|r| r.known & depth::ACCEPT_QUEUE != 0));
}

#[test]
fn a_listener_that_is_gone_is_forgotten() {
    let ns = Netns::new();
    let listener = Sock::listen(&ns, local(7805), 16);
    let cookie = u64::from_str_radix(listener.cookie().trim_start_matches("0x"), 16).expect("hex");
    let collector = Collector::start(only(&ns, "fentry", INTERVAL));
    // Nothing is counted before.
    collector.interval();
    let clients = Sock::connected(&ns, local(7805));
    let server = listener.accept();
    let has = |i: &Interval| i.stats.iter().any(|s| s.head.sock == cookie);
    collector.until("its counts", has);
    drop(listener);
    collector.until("no row", |i| !i.rows.iter().any(|row| row.head.sock == cookie));
    collector.until("no counts", |i| !has(i));
    drop((clients, server));
    drop(collector.stop());
}

#[test]
fn a_namespace_that_vanishes_is_skipped() {
    let (ns, gone) = (Netns::new(), Netns::new());
    let inum = gone.inum() as u32;
    let listeners = (Sock::listen(&ns, local(7806), 1), Sock::listen(&gone, local(7806), 1));
    let mut settings = only(&ns, "fentry", INTERVAL);
    settings.filter.netns.push(inum);
    let collector = Collector::start(settings);
    let first = collector.interval();
    assert_eq!((first.rows.len(), first.netns.len()), (2, 2));
    let (kept, closed) = listeners;
    drop(closed);
    drop(gone);
    let last = collector.until("one namespace", |i| i.rows.len() == 1 && i.netns.len() == 1);
    assert_eq!(u64::from(last.netns[0].netns), ns.inum());
    drop(kept);
    drop(collector.stop());
}
