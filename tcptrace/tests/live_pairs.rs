//! Second programs, which take what the first must skip: with these taken away they tell the same. Not one of the live tests, which run
//! on emulated machines, too: there one program alone is interrupted so often that runs of it are missed.

#[path = "live/support/mod.rs"]
#[expect(dead_code, reason = "the live tests use the rest")]
mod support;

use std::time::Duration;

use serde_json::Value;
use tcptrace::kernel::load::{Queues, Settings};

use crate::support::{
    collector::{Collector, only},
    netns::Netns,
    run::Run,
    segment::flag::{ACK, SYN},
    socket::{Pair, Sock, close_in_order, local, pair},
    tracer::{Tracer, tier},
    tun::{Tun, at},
};

const CLOSE: u8 = 7;
const INTERVAL: Duration = Duration::from_millis(100);

/// Passes every hook that has two programs.
fn traffic(ns: &Netns, tun: &Tun) {
    let closes = pair(ns, local(7951));
    close_in_order(closes.client, closes.server);
    let Pair { listener: _listener, client, server } = pair(ns, local(7952));
    client.linger_zero();
    client.close();
    server.wait_state(CLOSE);
    server.close();
    Sock::new(ns, local(7953)).connect(local(7953)).expect_err("nobody listens");
    let mut peer = tun.peer(7954);
    let client = Sock::new(ns, peer.addr());
    client.start_connect(peer.addr());
    peer.lose(SYN);
    peer.accept();
    client.finish_connect().expect("open");
    client.linger_zero();
    client.close();
    let listener = Sock::listen(ns, at(7955), 0);
    let mut peers = [40951, 40952].map(|port| tun.half_open(port, 7955));
    peers.iter_mut().for_each(|peer| peer.send(ACK, b""));
    let server = listener.accept();
    server.linger_zero();
    server.close();
    listener.close();
    ns.quiet();
}

/// What the lines of a trace say, but for times and numbers, in an order of its own: that of CPUs is none.
fn said(run: &Run) -> Vec<String> {
    const FIELDS: [&str; 13] = [
        "type",
        "lport",
        "rport",
        "role",
        "from",
        "to",
        "kernel",
        "errno",
        "end",
        "outcome",
        "detail",
        "state",
        "closed_by",
    ];
    let brief = |line: &Value| FIELDS.map(|field| line[field].to_string()).join(" ");
    let told = |line: &&Value| !["start", "summary"].contains(&line["type"].as_str().expect("a type"));
    let mut said: Vec<_> =
        run.lines.iter().filter(told).map(brief).chain(run.conns.iter().map(|c| brief(&c.0))).collect();
    said.sort_unstable();
    said
}

#[test]
fn second_programs_tell_what_the_first_would() {
    let ns = Netns::new();
    let tun = Tun::new(&ns);
    let tracer = Tracer::start_with(&[&ns], &["--requests"]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("seconds.rec");
    let settings = only(&ns, &tier(), INTERVAL);
    let seconds = Collector::recorded(Settings { queues: Queues::Requests, seconds_only: true, ..settings }, &file);
    traffic(&ns, &tun);
    drop(seconds.stop());
    let first = tracer.stop();
    let second = Run::of_recording(&["--requests"], dir, file);
    assert!(first.lines.len() > 30, "{}", first.text);
    assert_eq!(said(&second), said(&first));
}
