//! As many connections as two threads can open and close: nothing lost, nothing wrong, little memory; and what is lost when
//! the collector is stopped is counted and marked.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead, BufReader, Read as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Stdio,
    sync::LazyLock,
};

use serde_json::Value;

use crate::support::{
    ftrace::{Above1, STATE},
    netns::Netns,
    process::{self, Running},
    setting,
    socket::{Pair, local, pair},
    tracer::tcptrace,
    wait_until,
};

/// Connections of the storm; `TCPTRACE_TEST_CONNECTIONS` makes it smaller where everything is slow.
static CONNECTIONS: LazyLock<usize> = LazyLock::new(|| setting("TCPTRACE_TEST_CONNECTIONS").unwrap_or(40_000));
/// More than the smallest rings hold.
const FLOOD: usize = 4_000;
/// Connections that are open while the collector is stopped.
const HELD: u16 = 20;
/// As the kernel numbers it.
const CLOSE_WAIT: u8 = 8;
const THREADS: usize = 2;
/// Resident memory that the collector may have after the storm, rings included.
const MAX_RSS_KB: u64 = 30 * 1024;

/// Open and close `connections` on loopback, the client always first.
fn storm_among(ns: &Netns, connections: usize) {
    let work = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let addr = listener.local_addr().expect("bound");
        for _ in 0..connections / THREADS {
            let client = TcpStream::connect(addr).expect("a listener");
            let (mut server, _) = listener.accept().expect("a connection");
            drop(client);
            assert_eq!(server.read(&mut [0]).expect("its FIN"), 0);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| ns.enter(work));
        }
    });
}

/// The same, and wait until nothing else is open inside.
fn storm(ns: &Netns, connections: usize) {
    storm_among(ns, connections);
    ns.quiet();
}

/// `tcptrace ARGS > out`, attached.
fn start(args: &[&str], out: &Path) -> Running {
    let stdout = File::create(out).expect("a temporary directory");
    let mut running = process::spawn(tcptrace().args(args).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null()));
    running.started(out);
    running
}

fn rss_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a live process");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a process with memory");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

fn lines(path: &Path) -> impl Iterator<Item = Value> {
    let file = BufReader::new(File::open(path).expect("written"));
    file.lines().map(|line| serde_json::from_str(&line.expect("UTF-8")).expect("JSON"))
}

#[test]
fn every_connection_of_a_storm_is_whole() {
    let (ns, dir) = (Netns::new(), tempfile::tempdir().expect("a temporary directory"));
    let (out, recording, replayed) = (dir.path().join("conns"), dir.path().join("storm.rec"), dir.path().join("trace"));
    let netns = ns.inum().to_string();
    let recording_arg = recording.to_str().expect("UTF-8");
    let mut tracer = start(&["conns", "--json", "--netns", &netns, "--record", recording_arg], &out);
    let unseen = Above1::watch(&[STATE]);
    storm(&ns, *CONNECTIONS);
    let unseen = unseen.ports();
    let is_unseen =
        |line: &Value| line["lport"].as_u64().zip(line["rport"].as_u64()).is_some_and(|p| unseen.contains(&p));
    let rss = rss_kb(tracer.pid());
    tracer.signal(libc::SIGINT);
    assert!(tracer.wait().success());
    assert!(rss < MAX_RSS_KB, "{rss} KB resident after the storm");

    let mut connections = 0;
    for line in lines(&out) {
        match line["type"].as_str() {
            Some("connection") => {
                let whole = line["gaps"] == 0 && line["end"] == "fin";
                assert!(whole || is_unseen(&line), "{line}");
                connections += 1;
            }
            Some("summary") => assert_eq!(line["lost"], 0, "{line}"),
            Some("loss") => panic!("{line}"),
            _ => {}
        }
    }
    assert_eq!(connections, 2 * *CONNECTIONS, "both ends of each");

    let trace = File::create(&replayed).expect("a temporary directory");
    let status = process::spawn(tcptrace().args(["trace", "--json", "--from", recording_arg]).stdout(trace)).wait();
    assert!(status.success());
    let mut transitions: HashMap<u64, (String, u32)> = HashMap::new();
    for line in lines(&replayed).filter(|line| line["type"] == "transition" && line["role"] != "listener") {
        let (from, to) = (line["from"].as_str().expect("from"), line["to"].as_str().expect("to"));
        let life = transitions.entry(line["id"].as_u64().expect("id")).or_default();
        assert!(life.1 == 0 || life.0 == from || is_unseen(&line), "{} before {line}", life.0);
        *life = (to.to_owned(), life.1 + 1);
    }
    let total = transitions.values().map(|life| life.1 as usize).sum::<usize>();
    assert_eq!(transitions.len(), 2 * *CONNECTIONS);
    let missing = (10 * *CONNECTIONS).checked_sub(total).expect("none twice");
    assert!(missing <= unseen.len(), "{missing} transitions are missing, {} of them for a reason", unseen.len());
}

#[test]
fn what_a_stopped_collector_loses_is_counted_and_marked() {
    let (ns, dir) = (Netns::new(), tempfile::tempdir().expect("a temporary directory"));
    let out = dir.path().join("conns");
    let netns = ns.inum().to_string();
    let mut tracer = start(&["conns", "--json", "--netns", &netns, "--buffer", "512K"], &out);
    let held: Vec<Pair> = (0..HELD).map(|i| pair(&ns, local(7901 + i))).collect();
    tracer.signal(libc::SIGSTOP);
    storm_among(&ns, FLOOD);
    // Nobody records that these clients close; that their servers do, later, shows what is missing.
    let servers: Vec<_> = held
        .into_iter()
        .map(|Pair { listener, client, server }| {
            client.close();
            server.wait_state(CLOSE_WAIT);
            (listener, server)
        })
        .collect();
    tracer.signal(libc::SIGCONT);
    // What comes after the loss is whole again.
    wait_until("the loss to be told", || lines_so_far(&out).contains("\"type\":\"loss\""));
    drop(servers);
    storm(&ns, 100);
    tracer.signal(libc::SIGINT);
    assert!(tracer.wait().success());

    let (mut lost, mut gaps, mut whole, mut summary) = (0, 0, 0, None);
    for line in lines(&out) {
        match line["type"].as_str() {
            Some("loss") => {
                assert_eq!(line["kind"], "ring_full", "{line}");
                assert!(line["program"].is_string() && line["cpu"].is_u64(), "{line}");
                lost += line["count"].as_u64().expect("count");
            }
            Some("connection") => {
                gaps += line["gaps"].as_u64().expect("gaps");
                whole += u64::from(line["gaps"] == 0 && line["end"] == "fin");
            }
            Some("summary") => summary = Some(line),
            _ => {}
        }
    }
    assert!(lost > 0, "a ring of 256 KB a CPU cannot hold {FLOOD} connections");
    assert!(gaps <= lost, "{gaps} records missing in timelines, {lost} lost");
    assert!(gaps >= u64::from(HELD), "{gaps} records missing in timelines: those of {HELD} held connections at least");
    assert!(whole >= 200, "the connections after the loss: {whole} whole ones");
    assert_eq!(summary.expect("a last line")["lost"], lost);
}

fn lines_so_far(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_storm_elsewhere_never_reaches_the_rings() {
    let (ns, other, dir) = (Netns::new(), Netns::new(), tempfile::tempdir().expect("a temporary directory"));
    let out = dir.path().join("trace");
    let mut tracer = start(&["trace", "--json", "--netns", &ns.inum().to_string()], &out);
    storm(&other, 1000);
    tracer.signal(libc::SIGINT);
    assert!(tracer.wait().success());
    assert_eq!(lines(&out).filter(|line| line["type"] == "transition").count(), 0);
    let summary = lines(&out).last().expect("a last line");
    assert_eq!((summary["type"].as_str(), summary["events"].as_u64()), (Some("summary"), Some(0)), "{summary}");
}
