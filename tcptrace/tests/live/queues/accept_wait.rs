//! How long connections waited in the accept queue, against what the test measured itself; and queues that nothing is kept of for
//! want of room.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tcptrace::kernel::load::Settings;

use crate::support::{
    collector::{Collector, only},
    netns::Netns,
    process,
    queues::{Served, Watch, served},
    run::parse,
    slowness,
    socket::{Sock, local},
    tracer::{replay, tcptrace, tier},
    wait_until,
};

/// Bounds that the test can put around a wait, microseconds.
struct Measured {
    at_least: u64,
    at_most: u64,
}

#[test]
fn waits_are_what_the_test_measured() {
    const WAITS: u64 = 12;
    let ns = Netns::new();
    // One interval, which the end of the run ends.
    let watch = Watch::start_with(&ns, "10m");
    let listener = Sock::listen(&ns, local(8221), 64);
    let mut measured = Vec::new();
    let mut servers = Vec::new();
    for n in 0..WAITS {
        let before = Instant::now();
        let client = Sock::connected(&ns, local(8221));
        wait_until("the queue", || crate::support::queues::ss(&ns, 8221) == (0, 1));
        let queued = Instant::now();
        // 1, 2, 4 … 32 ms, twice.
        wait_until("a while", || queued.elapsed() >= Duration::from_millis(1 << (n % 6)));
        let at_least = queued.elapsed().as_micros() as u64;
        let server = listener.accept();
        measured.push(Measured { at_least, at_most: before.elapsed().as_micros() as u64 });
        servers.push((client, server));
    }
    let watched = watch.stop();
    let rows = watched.listeners(8221);
    assert_eq!(rows.len(), 1, "one interval");
    let told = &rows[0]["accept_wait_us"];
    let mut waits: Vec<u64> =
        watched.run.conns.iter().filter(|c| c.text("role") == "server").map(|c| c.number("accept_wait_us")).collect();
    assert_eq!(waits.len(), measured.len());
    for (wait, m) in waits.iter().zip(&measured) {
        assert!((m.at_least..=m.at_most).contains(wait), "{wait} is not in {}..={}", m.at_least, m.at_most);
    }
    if served("accept_queue") == Served::No || served("accept") == Served::No {
        assert!(told.is_null(), "{told}");
        return;
    }
    let number = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("{name} in {told}"));
    let longest = measured.iter().map(|m| m.at_least).max()..=measured.iter().map(|m| m.at_most).max();
    assert!(longest.contains(&Some(number("max"))), "{told}");
    waits.sort_unstable();
    // From a histogram of powers of two: right within a factor of two, and the records' own clock reading apart.
    let slack = 200 * u64::from(slowness());
    for (name, rank) in [("p50", waits.len().div_ceil(2)), ("p99", waits.len())] {
        let (got, exact) = (number(name), waits[rank - 1]);
        assert!(got + slack >= exact / 2 && got <= exact * 2 + slack, "{name}: {got}, measured {exact}: {waits:?}");
    }
    assert!(number("p50") <= number("p99") && number("p99") <= number("max"), "{told}");
}

const INTERVAL: Duration = Duration::from_millis(150);

fn cookie(sock: &Sock) -> u64 {
    u64::from_str_radix(&sock.cookie(), 16).expect("hex")
}

/// Room for one listener, and two that are used.
#[test]
fn no_room_for_another_listener() {
    let ns = Netns::new();
    let listeners = [Sock::listen(&ns, local(8222), 4), Sock::listen(&ns, local(8223), 4)];
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("rec");
    let collector = Collector::recorded(Settings { max_listeners: 1, ..only(&ns, &tier(), INTERVAL) }, &file);
    assert!(collector.interval().losses.is_empty());
    let clients = [Sock::connected(&ns, local(8222)), Sock::connected(&ns, local(8223))];
    let lost = collector.until("a loss", |i| !i.losses.is_empty());
    assert!(lost.losses.iter().all(|l| l.kind == "map_full" && l.count > 0), "{:?}", lost.losses);
    let seen = collector.until("counts", |i| !i.stats.is_empty());
    let cookies: Vec<_> = seen.stats.iter().map(|s| (s.head.sock, s.totals.completed)).collect();
    assert_eq!(cookies, [(cookie(&listeners[0]), 1)], "the first that something happened to");
    // What the other has is still seen in each interval.
    assert_eq!(seen.rows.iter().filter(|row| row.accept_queue == 1).count(), 2, "{:?}", seen.rows);
    drop(clients);
    drop(collector.stop());
    let lost: u64 = lost.losses.iter().map(|l| l.count).sum();
    shown(&file, lost);
}

/// A recording in which events were `lost` because a map was full says so to programs and to people.
fn shown(file: &Path, lost: u64) {
    let lines = parse(&replay("queues", file));
    let losses: Vec<_> = lines.iter().filter(|line| line["type"] == "loss").collect();
    assert!(losses.iter().all(|loss| loss["kind"] == "map_full"), "{losses:?}");
    let told: u64 = losses.iter().map(|loss| loss["count"].as_u64().expect("a count")).sum();
    assert!(told >= lost, "{told} of {lost}: {losses:?}");
    assert_eq!(lines.last().expect("a summary")["lost"], told);
    let output = process::run(tcptrace().args(["queues", "--from"]).arg(file));
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(stderr.contains(" events lost (map_full in "), "{stderr}");
}

/// Room for one waiting connection, and three that wait.
#[test]
fn no_room_for_another_waiting_connection() {
    let ns = Netns::new();
    let listener = Sock::listen(&ns, local(8224), 4);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("rec");
    let collector = Collector::recorded(Settings { max_waiting: 1, ..only(&ns, &tier(), INTERVAL) }, &file);
    collector.interval();
    let clients: Vec<_> = (0..3).map(|_| Sock::connected(&ns, local(8224))).collect();
    let servers: Vec<_> = (0..3).map(|_| listener.accept()).collect();
    let (mut lost, mut totals) = (0, None);
    collector.until("both losses and all counts", |i| {
        lost += i.losses.iter().filter(|l| l.kind == "map_full").map(|l| l.count).sum::<u64>();
        totals = i.stats.iter().find(|s| s.head.sock == cookie(&listener)).map(|s| s.totals).or(totals);
        lost >= 2 && totals.is_some_and(|t| t.completed == 3)
    });
    let totals = totals.expect("just seen");
    assert_eq!((lost, totals.failed, totals.accepted), (2, 2, 1), "{totals:?}");
    drop((clients, servers));
    drop(collector.stop());
    shown(&file, lost);
}
