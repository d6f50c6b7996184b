//! Frames from memory in, JSON out.

use tcptrace_common::record::{self, Closed, Established, Open, Tuple, kind};
use zerocopy::IntoBytes;

use super::*;
use crate::{
    group::Groups,
    model::fixture::{OFFSET, v4},
    sink::{Output, json::Json, output::Reader},
};

/// Hands out batches that a test made.
struct Memory {
    batches: std::vec::IntoIter<Frames>,
    stopped: bool,
}

impl Source for Memory {
    const LIVE: bool = false;

    async fn next(&mut self, frames: &mut Frames) -> Result<bool> {
        match self.batches.next().filter(|_| !self.stopped) {
            Some(batch) => {
                frames.extend(batch.as_bytes());
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn stop(&mut self) {
        self.stopped = true;
    }
}

struct Never;

impl Stop for Never {
    async fn wanted(&mut self) {
        std::future::pending::<()>().await;
    }
}

fn head(ts: u64, sock: u64, kind: u8, from: u8, to: u8, seq: u16) -> record::Head {
    record::Head { ts, sock, kind, from, to, err: 0, seq, flags: 0 }
}

fn tuple(lport: u16) -> Tuple {
    v4([127, 0, 0, 1], lport, [127, 0, 0, 1], 80)
}

fn started(filters: &[(&str, &str)]) -> Frames {
    let mut frames = Frames::default();
    let filters = filters.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
    let start = fact::Start { host: "host".into(), version: "0.1.0".into(), filters, ..fact::Start::default() };
    frames.push_fact(fact::kind::START, 1_000, &start);
    frames.push_fact(fact::kind::CLOCK, 1_000, &fact::Clock { offset_ns: OFFSET });
    frames.push_fact(fact::kind::SNAPSHOT, 2_000, &fact::Snapshot::default());
    frames
}

/// connect(), SYN+ACK, and (with `closed`) a reset.
fn client(frames: &mut Frames, ts: u64, cookie: u64, closed: bool) {
    let lport = 40_000 + cookie as u16;
    let open = Open { head: head(ts, cookie, kind::OPEN, 7, 2, 1), tuple: tuple(0), ..Open::default() };
    frames.push(0, open.as_bytes());
    let up = Established {
        head: head(ts + 1_000, cookie, kind::ESTABLISHED, 2, 1, 2),
        tuple: tuple(lport),
        ..Established::default()
    };
    frames.push(0, up.as_bytes());
    if closed {
        let over = Closed { head: head(ts + 9_000, cookie, kind::CLOSED, 1, 7, 3), ..Closed::default() };
        frames.push(0, over.as_bytes());
        frames.push(0, head(ts + 9_500, cookie, kind::DESTROYED, 7, 7, 4).as_bytes());
    }
}

fn ended(ts: u64) -> Frames {
    let mut frames = Frames::default();
    frames.push_fact(fact::kind::END, ts, &fact::End { records: 9, ..fact::End::default() });
    frames
}

fn json(records: Records, filter: Filter, count: Option<u64>, limit_ns: Option<u64>, batches: Vec<Frames>) -> String {
    grouped(records, filter, count, limit_ns, batches, None)
}

fn grouped(
    records: Records,
    filter: Filter,
    count: Option<u64>,
    limit_ns: Option<u64>,
    batches: Vec<Frames>,
    groups: Option<Groups>,
) -> String {
    let mut source = Memory { batches: batches.into_iter(), stopped: false };
    let mut out = Vec::new();
    let sink = Json::new(Output::new(&mut out, Reader::Waiting));
    let mut gate = Gate::new(sink, records, filter, count);
    gate.groups = groups;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime
        .block_on(run(&mut source, None, gate, Messages::default(), limit_ns, &mut Never))
        .expect("memory does not fail");
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// Of each line: its type, and of a transition where it leads, of a connection how it ended.
fn brief(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| {
            let v: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            let more = v["to"].as_str().or(v["end"].as_str()).unwrap_or("");
            format!("{} {more}", v["type"].as_str().expect("a type")).trim_end().to_owned()
        })
        .collect()
}

fn two_clients() -> Vec<Frames> {
    let mut frames = started(&[]);
    client(&mut frames, 10_000, 1, true);
    let mut second = Frames::default();
    client(&mut second, 30_000, 2, false);
    vec![frames, second, ended(10_000_000)]
}

#[test]
fn a_trace_begins_with_start_and_ends_with_summary() {
    let text = json(Records::Transitions, Filter::default(), None, None, two_clients());
    assert_eq!(
        brief(&text),
        [
            "start",
            "transition SYN_SENT",
            "transition ESTABLISHED",
            "transition CLOSE",
            "transition SYN_SENT",
            "transition ESTABLISHED",
            "summary"
        ]
    );
    // The start has waited for the clock.
    assert!(
        text.starts_with(r#"{"v":1,"type":"start","ts":"2026-11-21T12:03:04.000001000Z","mono_ns":1000,"#),
        "{text}"
    );
    assert!(text.ends_with("\"peak_rate\":0}\n"), "{text}");
}

#[test]
fn connections_that_are_open_at_the_end_are_reported() {
    let text = json(Records::Connections, Filter::default(), None, None, two_clients());
    let lines = brief(&text);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!((lines[2].as_str(), lines[3].as_str()), ("connection open", "summary"));
    assert!(text.contains(r#""mono_ns":10000000,"id":2,"#), "{text}");
}

#[test]
fn without_an_end_what_was_received_is_reported() {
    let mut batches = two_clients();
    batches.pop();
    let text = json(Records::Connections, Filter::default(), None, None, batches);
    assert_eq!(brief(&text).len(), 4);
    assert!(text.contains(r#""mono_ns":31000,"id":2,"#), "{text}");
}

#[test]
fn the_recordings_filters_and_the_command_lines_both_apply() {
    let mut own = Filter::default();
    own.set("rport", "80").expect("a port");
    let mut frames = started(&[("lport", "40002")]);
    client(&mut frames, 10_000, 1, true);
    client(&mut frames, 30_000, 2, true);
    let text = json(Records::Connections, own, None, None, vec![frames, ended(90_000)]);
    assert_eq!(brief(&text).len(), 3, "{text}");
    assert!(text.contains(r#""lport":40002,"#), "{text}");
    assert!(text.contains(r#""filters":{"lport":"40002","rport":"80"}"#), "{text}");
}

#[test]
fn a_count_ends_the_output_but_not_the_account() {
    let text = json(Records::Transitions, Filter::default(), Some(2), None, two_clients());
    assert_eq!(brief(&text), ["start", "transition SYN_SENT", "transition ESTABLISHED", "summary"]);
    assert!(text.contains(r#""events":9,"#), "{text}");
}

#[test]
fn a_duration_cuts_a_replay_by_the_time_of_its_events() {
    let text = json(Records::Connections, Filter::default(), None, Some(10_500), two_clients());
    assert_eq!(brief(&text), ["start", "connection open", "summary"]);
    assert!(text.contains(r#""mono_ns":11500,"id":1,"#), "{text}");
}

#[test]
fn what_cannot_be_decoded_is_counted() {
    let mut frames = started(&[]);
    frames.push(0, &[0; 10]);
    frames.push(0, head(5_000, 1, 31, 0, 0, 0).as_bytes());
    let text = json(Records::Transitions, Filter::default(), None, None, vec![frames]);
    assert!(text.contains(r#""undecodable":2"#), "{text}");
}

#[test]
fn connections_that_the_kernel_filter_stops_are_forgotten() {
    let sink = Json::new(Output::new(std::io::sink(), Reader::Waiting));
    let mut own = Filter::default();
    own.set("lport", "40002").expect("a port");
    let mut run = Run::new(Gate::new(sink, Records::Transitions, own, None), Messages::default(), None);
    let mut frames = started(&[("lport", "40002")]);
    // Both begin without a local port; the kernel tells of the first one up to where it is known.
    client(&mut frames, 10_000, 1, false);
    client(&mut frames, 30_000, 2, false);
    for record in frames.iter() {
        run.record(record).expect("facts are good");
    }
    assert_eq!((run.tracker.live(), run.gate.counts.transitions), (1, 2));
}

#[test]
fn losses_are_added_up() {
    let mut frames = started(&[]);
    for ts in [3_000, 4_000] {
        let loss = fact::Loss { kind: "ring_full".into(), count: 5, cpu: Some(1), program: "p".into() };
        frames.push_fact(fact::kind::LOSS, ts, &loss);
    }
    let text = json(Records::Transitions, Filter::default(), None, None, vec![frames]);
    assert_eq!(brief(&text), ["start", "loss", "loss", "summary"]);
    assert!(text.contains(r#""lost":10,"#), "{text}");
}

#[test]
fn what_is_no_trace_prints_nothing() {
    assert_eq!(json(Records::Transitions, Filter::default(), None, None, vec![]), "");
}

#[test]
fn groups_are_told_once_at_the_end() {
    let mut frames = two_clients();
    frames[1].push_fact(fact::kind::TICK, 1_000_000, &());
    let by = |keys: &[&str]| Some(Groups::new(keys.iter().map(|key| key.parse().expect("a key")).collect()));
    let run = |keys, count, limit_ns| {
        grouped(Records::Connections, Filter::default(), count, limit_ns, frames.clone(), by(keys))
    };
    let whole = run(&["rport", "end"], None, None);
    assert_eq!(brief(&whole), ["start", "group aborted", "group open", "summary"], "{whole}");
    let open = r#""mono_ns":10000000,"elapsed_us":9999,"rport":80,"end":"open","count":1,"per_second":100.010,"ends":{"open":1},"#;
    assert!(whole.contains(open), "{whole}");
    let together = run(&["raddr"], None, None);
    assert!(together.contains(r#""raddr":"127.0.0.1","count":2,"#), "{together}");
    // Only what was counted until then.
    let cut = run(&["end"], None, Some(20_000));
    assert!(cut.contains(r#""elapsed_us":20,"end":"aborted","count":1,"per_second":50000.000,"#), "{cut}");
    let counted = run(&["end"], Some(1), None);
    assert!(counted.contains(r#""elapsed_us":18,"end":"aborted","count":1,"#), "{counted}");
    assert_eq!(brief(&counted), ["start", "group aborted", "summary"]);
    let none =
        grouped(Records::Connections, Filter::default(), None, None, vec![started(&[]), ended(2_000)], by(&["pid"]));
    assert_eq!(brief(&none), ["start", "summary"]);
}
