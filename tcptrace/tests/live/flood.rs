//! A SYN flood from made-up sources: every SYN is accounted for, single records stay below their rate, the collector stays small, and a
//! legitimate client's connection is whole.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::LazyLock,
    thread,
    time::Instant,
};

use serde_json::Value;

use crate::support::{
    netns::Netns,
    process::{self, Running},
    queues::{Served, served},
    run::nothing_lost,
    setting,
    socket::Sock,
    tracer::{tcptrace, tier},
    wait_until,
};

#[path = "../../../xtask/src/flood/sender.rs"]
mod sender;

use sender::{Flood, PEER, VICTIM, VICTIM_MAC_TEXT};

/// SYNs; `TCPTRACE_TEST_SYNS` makes it fewer where everything is slow.
static SYNS: LazyLock<u64> = LazyLock::new(|| setting("TCPTRACE_TEST_SYNS").unwrap_or(200_000));
/// Distinct sources; each interval of a flood sees all of them, on a slow machine too.
static SOURCES: LazyLock<u32> = LazyLock::new(|| (*SYNS / 200) as u32);
const PORT: u16 = 80;
/// `--request-rate` of the traces.
const RATE: u64 = 2000;
/// That of `queues`, which has no such option.
const QUEUES_RATE: u64 = 20_000;
/// Resident memory that a flood may add to the collector.
const MAX_GROWTH_KB: u64 = 24 * 1024;
/// More than any flood here fills.
const ENDLESS: i32 = 1_000_000;

/// The victim's namespace and the other end's.
fn namespaces(syncookies: &str) -> (Netns, Netns) {
    let (victim, peer) = (Netns::new(), Netns::new());
    victim.veth(&peer, VICTIM.into(), PEER.into());
    victim.ip(&format!("link set veth0 address {VICTIM_MAC_TEXT}"));
    victim.ip(&format!("route add default via {PEER}"));
    victim.sysctl("net/core/somaxconn", &ENDLESS.to_string());
    victim.sysctl("net/ipv4/tcp_max_syn_backlog", &ENDLESS.to_string());
    victim.sysctl("net/ipv4/tcp_syncookies", syncookies);
    victim.sysctl("net/ipv4/tcp_synack_retries", "1");
    (victim, peer)
}

/// `tcptrace ARGS > out`, attached.
fn start(args: &[&str], ns: &Netns, out: &Path) -> Running {
    let stdout = File::create(out).expect("a temporary directory");
    let rate = RATE.to_string();
    let mut command = tcptrace();
    command.args(args).args(["--netns", &ns.inum().to_string(), "--tier", &tier()]);
    if args[0] != "queues" {
        command.args(["--requests", "--request-rate", &rate]);
    }
    let mut running = process::spawn(command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null()));
    running.started(out);
    running
}

fn stop(mut running: Running) {
    running.signal(libc::SIGINT);
    assert!(running.wait().success());
}

fn rss_kb(running: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).expect("a live process");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a process with memory");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

fn lines(path: &Path) -> Vec<Value> {
    let file = BufReader::new(File::open(path).expect("written"));
    file.lines().map(|line| serde_json::from_str(&line.expect("UTF-8")).expect("JSON")).collect()
}

/// TcpExt counters of a namespace that was fresh.
fn counter(ns: &Netns, name: &str) -> u64 {
    let text = ns.enter(|| fs::read_to_string("/proc/thread-self/net/netstat").expect("procfs"));
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (rows.next().expect("names"), rows.next().expect("values"));
    let at = names.split(' ').position(|n| n == name).unwrap_or_else(|| panic!("no {name}"));
    values.split(' ').nth(at).and_then(|v| v.parse().ok()).expect("a number")
}

/// What a flood left.
struct Outcome {
    victim: Netns,
    queues: PathBuf,
    conns: PathBuf,
    /// How long the flood took, rounded up.
    seconds: u64,
    /// SYNs of the client: the first, and those sent again.
    client_syns: u64,
    _dir: tempfile::TempDir,
}

impl Outcome {
    /// The listener saw so many SYNs: of those that the client sends again some may meet its request, or its connection.
    fn saw(&self, sums: &Sums, syns: u64) {
        let all = (*SYNS + 1).saturating_sub(sums.missed)..=*SYNS + self.client_syns;
        assert!(all.contains(&syns), "{syns}, not {all:?}");
    }
}

/// Flood a listener with this backlog, and in the middle of it connect to it, exchange a few bytes, and close.
fn flood(syncookies: &str, backlog: i32) -> Outcome {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (victim, peer) = namespaces(syncookies);
    let (queues, conns) = (dir.path().join("queues"), dir.path().join("conns"));
    let to = SocketAddr::new(VICTIM.into(), PORT);
    let recording = dir.path().join("queues.rec");
    let recorded = ["queues", "--json", "--record", recording.to_str().expect("UTF-8")];
    let tracers = [start(&recorded, &victim, &queues), start(&["conns", "--json"], &victim, &conns)];
    let listener = Sock::listen(&victim, to, backlog);
    // From here on whole intervals are seen, and the namespace's counters at their begin.
    wait_until("an interval of the listener", || {
        fs::read_to_string(&queues).is_ok_and(|text| text.matches("\"type\":\"listener\"").count() > 1)
    });
    let before = tracers.each_ref().map(rss_kb);
    let arrived = || victim.enter(|| sender::segments().expect("procfs").arrived);
    let began = Instant::now();
    thread::scope(|scope| {
        let flooder = scope.spawn(|| {
            let flood = Flood { port: PORT, sources: *SOURCES, rate: None };
            peer.enter(|| sender::send(&flood, 0..*SYNS).expect("root, and a pair"));
        });
        wait_until("half of the flood", || arrived() > *SYNS / 2);
        legitimate(&peer, &listener, to);
        flooder.join().expect("the flood");
    });
    let seconds = began.elapsed().as_secs() + 1;
    let segments = victim.enter(|| sender::segments().expect("procfs"));
    assert!(segments.arrived >= *SYNS, "a veth pair loses nothing that was sent: {segments:?}");
    assert!(segments.answered > 0, "{segments:?}");
    for (tracer, before) in tracers.iter().zip(before) {
        let growth = rss_kb(tracer).saturating_sub(before);
        assert!(growth < MAX_GROWTH_KB, "{growth} KB more than before the flood");
    }
    tracers.into_iter().for_each(stop);
    drop(listener);
    let client_syns = 1 + counter(&peer, "TCPSynRetrans");
    Outcome { victim, queues, conns, seconds, client_syns, _dir: dir }
}

/// A client that closes first. Its SYN may be dropped, and is sent again.
fn legitimate(peer: &Netns, listener: &Sock, to: SocketAddr) {
    let client = thread::scope(|scope| {
        let client = scope.spawn(|| peer.enter(|| TcpStream::connect(to).expect("an answer")));
        wait_until("the client", || {
            let mut ready = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one live entry.
            unsafe { libc::poll(&raw mut ready, 1, 0) == 1 }
        });
        client.join().expect("the client")
    });
    let server = listener.accept();
    (&client).write_all(b"hello").expect("a connection");
    server.receive(5);
    client.shutdown(Shutdown::Write).expect("a connection");
    assert_eq!(server.receive_all().expect("its FIN"), 0);
    server.close();
    assert_eq!((&client).read(&mut [0]).expect("its FIN"), 0);
}

/// Sums over a listener's intervals.
struct Sums {
    listener: Vec<Value>,
    /// Runs that the kernel skipped, on the whole host: only of programs on kprobes.
    missed: u64,
}

impl Sums {
    fn of(path: &Path) -> Self {
        let all = lines(path);
        let missed = nothing_lost(&all);
        Self { listener: all.into_iter().filter(|line| line["type"] == "listener").collect(), missed }
    }

    fn get(&self, pointer: &str) -> u64 {
        self.listener.iter().filter_map(|line| line.pointer(pointer)?.as_u64()).sum()
    }

    /// So many were counted, but for those among what was missed.
    #[track_caller]
    fn counted(&self, counted: u64, there: u64) {
        let told = there.saturating_sub(self.missed)..=there;
        assert!(told.contains(&counted), "{counted}, not {told:?}: {:?}", self.listener);
    }

    fn exact(&self) -> bool {
        self.listener.iter().all(|line| line["fidelity"] == "exact")
    }

    fn inferred(&self, field: &str) -> bool {
        let has = |line: &Value| line["inferred"].as_array().is_some_and(|names| names.iter().any(|n| n == field));
        self.listener.iter().filter(|line| line.pointer(&format!("/{}", field.replace('.', "/"))).is_some()).all(has)
    }
}

/// What holds of every flood: nothing lost, few records of single requests, the client's connection whole.
fn check(outcome: &Outcome) -> Sums {
    let sums = Sums::of(&outcome.queues);
    let (mut whole, mut records) = (0, 0);
    let conns = lines(&outcome.conns);
    nothing_lost(&conns);
    for line in conns {
        match line["type"].as_str() {
            Some("connection") => {
                assert_eq!(
                    (&line["gaps"], &line["end"], &line["role"]),
                    (&0.into(), &"fin".into(), &"server".into()),
                    "{line}"
                );
                assert_eq!((&line["bytes_received"], &line["closed_by"]), (&5.into(), &"remote".into()), "{line}");
                let states: Vec<_> = line["states"].as_array().expect("states").iter().map(|s| &s["state"]).collect();
                let last = ["ESTABLISHED", "CLOSE_WAIT", "LAST_ACK"];
                assert!(states.windows(3).any(|w| w == last), "{line}");
                assert!(line["accept_wait_us"].is_u64(), "{line}");
                whole += 1;
            }
            Some("request") if line["outcome"] != "completed" && line["outcome"] != "cookie_completed" => records += 1,
            _ => {}
        }
    }
    assert_eq!(whole, 1, "the client's connection");
    // A timeout a second later is a record too; the bucket is filled anew many times a second.
    let most = RATE * (outcome.seconds + 4);
    assert!(records <= most, "{records} records of single requests in {} s at {RATE} a second", outcome.seconds);
    // Not before Linux 6.4, by tracepoints alone.
    let counted = served("accept_queue") != Served::No;
    sums.counted(sums.get("/accepted"), u64::from(counted));
    sums
}

/// With enough room every SYN is queued.
#[test]
fn every_syn_of_a_flood_is_counted() {
    let outcome = flood("0", ENDLESS);
    let sums = check(&outcome);
    // The client's, too.
    sums.counted(sums.get("/queued"), *SYNS + 1);
    // Of requests queued and, later, timed out.
    let most = QUEUES_RATE * (outcome.seconds + 4);
    assert!(sums.get("/held_back") > 0 || *SYNS < most, "the flood is faster than the rate of records");
    if sums.exact() {
        outcome.saw(&sums, sums.get("/syns"));
    }
    let enough = |line: &&Value| line["queued"].as_u64().is_some_and(|n| n > 2 * u64::from(*SOURCES));
    let estimates: Vec<u64> = sums.listener.iter().filter(enough).filter_map(|line| line["sources"].as_u64()).collect();
    assert!(!estimates.is_empty());
    for estimate in estimates {
        let wrong = estimate.abs_diff((*SOURCES).into());
        assert!(wrong * 10 <= u64::from(*SOURCES) * 3, "{estimate} sources in place of {}", *SOURCES);
    }
}

/// The queue is full at once: the rest is answered with cookies.
#[test]
fn every_cookie_of_a_flood_is_counted() {
    let outcome = flood("1", 128);
    let sums = check(&outcome);
    let (queued, cookies) = (sums.get("/queued"), sums.get("/cookies_sent"));
    sums.counted(cookies, counter(&outcome.victim, "SyncookiesSent"));
    let syns = queued + cookies;
    outcome.saw(&sums, syns);
    if sums.exact() {
        sums.counted(sums.get("/syns").min(syns), sums.get("/syns").max(syns));
    } else {
        assert!(sums.inferred("cookies_sent"), "{:?}", sums.listener);
    }
}

/// The queue is full at once: the rest is dropped, the client's first SYN too.
#[test]
fn every_drop_of_a_flood_is_counted() {
    let outcome = flood("0", 128);
    let sums = check(&outcome);
    let (queued, dropped) = (sums.get("/queued"), sums.get("/dropped/syn_queue_full"));
    sums.counted(dropped, counter(&outcome.victim, "TCPReqQFullDrop"));
    let syns = queued + dropped;
    outcome.saw(&sums, syns);
    if sums.exact() {
        sums.counted(sums.get("/syns").min(syns), sums.get("/syns").max(syns));
    } else {
        assert!(sums.inferred("dropped.syn_queue_full"), "{:?}", sums.listener);
    }
}
