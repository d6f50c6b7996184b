//! A trace that is cut: whatever frame the later part begins with, it tells what the whole trace tells from there on.
//!
//! The traces are the tracker's scenarios. What a part may tell otherwise is listed here, with the reason.

mod support;

use std::{fs, path::Path};

use proptest::prelude::*;
use serde::Deserialize;
use support::{events, print::Printer};
use tcptrace::{
    decode::{Event, decode},
    filter::Filter,
    frame::{Frames, fact},
    recording::carry::Carry,
    tracker::Tracker,
};
use tcptrace_common::record::{Forked, Head, flag, kind};
use zerocopy::{FromBytes, IntoBytes};

/// Scenarios of what only the whole trace can know.
const OTHERWISE: [(&str, &str); 5] = [
    ("cgroup", "what is told late of a cgroup is told at once"),
    ("cgroup_container", "likewise"),
    (
        "listener_without_bind",
        "a port that was concluded before the cut, from which listeners there were, is not known",
    ),
    ("preexisting_mini_sockets", "a row that comes a second time is told a second time"),
    ("resync_absent_is_over", "a record that comes after its socket was found to be over is of one that is not known"),
];

#[derive(Deserialize)]
struct Scenario {
    events: String,
}

/// Frames, one for each event, and when the run ends. Scenarios without rows get a start snapshot that has none, so that what is over
/// is let go of.
fn frames(events: &str) -> (Vec<Frames>, u64) {
    let (mut numbers, mut all, mut end) = (events::Numbers::default(), Vec::new(), 0);
    let lines: Vec<&str> = events.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    let has = |kind: &str| lines.iter().any(|line| line.split(' ').nth(1) == Some(kind));
    let mut start = Frames::default();
    if !has("START") {
        start.push_fact(fact::kind::START, 0, &fact::Start::default());
        all.push(start.clone());
        start.clear();
    }
    start.push_fact(fact::kind::SNAPSHOT, 0, &fact::Snapshot::default());
    let rows = ["SNAPSHOT", "SOCKET", "HOLDER", "REQUEST", "TIME_WAIT", "FOUND"].into_iter().any(has);
    for line in lines {
        if let Some(time) = line.strip_suffix(" FINISH") {
            end = time.parse::<u64>().expect("a time") * 1000;
            break;
        }
        let mut frames = Frames::default();
        events::push(&mut frames, &mut numbers, line);
        all.push(frames);
        if !rows && all.len() == 1 {
            all.push(start.clone());
        }
    }
    (all, end)
}

fn feed(tracker: &mut Tracker, frames: &Frames, out: &mut Printer) {
    for record in frames.iter() {
        tracker.event(&decode(record).expect("a record that was just made"), out);
    }
}

/// Lines without the numbers of timelines, which are given in the order of what a trace begins with. Left out are connections that
/// were closed before the cut, at `us`, for what is told later of how, and what becomes of a TIME_WAIT: they end with the part before.
fn told(out: &Printer, from: usize, us: u64) -> Vec<String> {
    let unnumbered = |line: &String| {
        line.split(' ')
            .filter(|word| !word.starts_with('#') && !word.starts_with("group="))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let before = |line: &String| {
        let ended = line.split(' ').next().and_then(|time| time.parse().ok()).is_some_and(|time: u64| time <= us);
        line.contains(" time_wait ") || line.contains(" connection ") && ended
    };
    let mut lines: Vec<String> = out.lines[from..].iter().map(unnumbered).filter(|line| !before(line)).collect();
    // Those of the end come in the order of numbers.
    lines.sort_unstable();
    lines
}

/// What is told from frame `cut` on: of the whole trace, of its later part.
fn both(all: &[Frames], end: u64, cut: usize) -> [Vec<String>; 2] {
    let (mut whole, mut before) = (Printer::default(), 0);
    let mut tracker = Tracker::new();
    for (i, frames) in all.iter().enumerate() {
        if i == cut {
            before = whole.lines.len();
        }
        feed(&mut tracker, frames, &mut whole);
    }
    tracker.finish(end, &mut whole);
    whole.residual(&[]);

    let mut carry = Carry::new(u64::MAX);
    all[..cut].iter().for_each(|frames| carry.absorb(frames.as_words()));
    let (mut part, mut tracker) = (Printer::default(), Tracker::new());
    feed(&mut tracker, &carry.frames(), &mut part);
    let carried = part.lines.len();
    all[cut..].iter().for_each(|frames| feed(&mut tracker, frames, &mut part));
    tracker.finish(end, &mut part);
    let times = all[..cut].iter().flat_map(Frames::iter).map(|r| Head::read_from_prefix(r).expect("a head").0.ts);
    let us = times.max().unwrap_or(0) / 1000;
    [told(&whole, before, us), told(&part, carried, us)]
}

#[test]
fn every_scenario_cut_at_every_frame() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut cuts, mut wrong, mut otherwise) = (0, Vec::new(), Vec::new());
    for file in files {
        let name = file.file_stem().expect("a name").to_str().expect("UTF-8");
        let scenario: Scenario = toml::from_str(&fs::read_to_string(&file).unwrap()).expect("a scenario");
        let (all, end) = frames(&scenario.events);
        for cut in 1..all.len() {
            cuts += 1;
            let [whole, part] = both(&all, end, cut);
            if whole == part {
                continue;
            }
            if let Some((name, _)) = OTHERWISE.iter().find(|(known, _)| *known == name) {
                otherwise.push(*name);
                continue;
            }
            let only = |of: &[String], other: &[String]| {
                of.iter().filter(|line| !other.contains(line)).cloned().collect::<Vec<_>>().join("\n  ")
            };
            wrong.push(format!("{name} at {cut}\n- {}\n+ {}", only(&whole, &part), only(&part, &whole)));
        }
    }
    assert!(cuts > 1000, "{cuts} cuts");
    assert!(wrong.is_empty(), "{} of {cuts} cuts:\n{}", wrong.len(), wrong.join("\n"));
    otherwise.dedup();
    assert_eq!(otherwise, OTHERWISE.map(|(name, _)| name), "a reason that is none any more");
}

/// Of this many records of one socket only the first are carried, and nothing seems to be lost.
#[test]
fn retransmissions_without_end_take_no_room() {
    let mut events = "0 START\n1 SNAPSHOT\n\
        2 OPEN sock=5 CLOSE>SYN_SENT 0.0.0.0:0 10.0.0.2:80 netns=1 pid=7 comm=curl fd=4\n\
        3 ESTABLISHED sock=5 SYN_SENT>ESTABLISHED 10.0.0.1:40000 10.0.0.2:80 netns=1\n"
        .to_owned();
    (0..10_000).for_each(|i| events += &format!("{} RETRANSMIT sock=5 ESTABLISHED\n", 4 + i));
    // One record was lost, and stays so.
    events +=
        "20000 RETRANSMIT sock=5 ESTABLISHED seq=10004\n20001 CLOSED sock=5 ESTABLISHED>CLOSE err=110\n20002 FINISH\n";
    let (all, end) = frames(&events);
    let mut carry = Carry::new(u64::MAX);
    all[..all.len() - 1].iter().for_each(|frames| carry.absorb(frames.as_words()));
    assert!(carry.held() < 4096, "{} bytes", carry.held());
    for cut in [5, 40, 5000, all.len() - 2, all.len() - 1] {
        let [whole, part] = both(&all, end, cut);
        assert_eq!(whole, part, "cut at {cut}");
        assert_eq!(part.iter().filter(|line| line.contains(" gaps=1 ")).count(), 1, "{part:?}");
    }
}

#[test]
fn a_flood_of_requests_leaves_the_connections_their_room() {
    let open = "0 START\n1 SNAPSHOT\n\
        2 OPEN sock=5 CLOSE>SYN_SENT 0.0.0.0:0 10.0.0.2:80 netns=1 pid=7 comm=curl fd=4\n";
    let (mut all, _) = frames(open);
    let mut numbers = events::Numbers::default();
    for i in 0..20_000 {
        let mut frames = Frames::default();
        let (a, b, port) = (i >> 8 & 255, i & 255, 1024 + i);
        let line = format!(
            "{} REQUEST_EVENT sock=2 NEW_SYN_RECV 10.0.0.1:80 10.9.{a}.{b}:{port} netns=1 outcome=queued",
            3 + i
        );
        events::push(&mut frames, &mut numbers, &line);
        all.push(frames);
    }
    let mut carry = Carry::new(1 << 20);
    for frames in &all {
        carry.absorb(frames.as_words());
        assert!(carry.held() <= 1 << 20, "{} bytes", carry.held());
    }
    assert!(carry.gone().requests > 15_000, "{:?}", carry.gone());
    assert_eq!((carry.gone().forgotten, carry.sockets()), (0, 1));
    // What was told of them at last is there.
    let told = carry.frames().iter().filter(|record| record.get(16) == Some(&kind::REQUEST_EVENT)).count() as u64;
    assert_eq!(told + carry.gone().requests, 20_000);
}

#[test]
fn processes_that_are_followed_are_known_after_the_cut() {
    let mut all = Frames::default();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let filters = vec![pair("pid", "10"), pair("follow", "children")];
    all.push_fact(fact::kind::START, 1, &fact::Start { filters: filters.clone(), ..fact::Start::default() });
    // 12 is somebody else's by now, 13 ended up nowhere, and so is 10 itself.
    let forks = [(10, 11), (11, 12), (99, 13), (12, 14), (98, 12), (97, 10)];
    for (n, (parent, child)) in forks.into_iter().enumerate() {
        let head = Head { ts: 2 + n as u64, kind: kind::FORKED, ..Head::default() };
        all.push(0, Forked { head, parent, child }.as_bytes());
    }
    let wanted = |frames: &Frames| {
        let mut filter = Filter::from_pairs(&filters).expect("good filters");
        for record in frames.iter() {
            if let Ok(Event::Forked(fork)) = decode(record) {
                filter.forked(fork.parent, fork.child);
            }
        }
        filter
    };
    let mut carry = Carry::new(u64::MAX);
    carry.absorb(all.as_words());
    assert_eq!(wanted(&carry.frames()), wanted(&all));
    let nobody = Frames::default();
    assert_ne!(wanted(&all), wanted(&nobody));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes: it is counted once, what is carried can be read, and what is let go of takes no room.
    #[test]
    fn any_frames(
        events in prop::collection::vec((0u8..80, 0u64..4, 0u8..13, 0u8..13, 0u16..9, any::<bool>(), 0u8..20), 0..80),
        room in 0u64..8192,
    ) {
        let mut carry = Carry::new(room);
        let mut frames = Frames::default();
        frames.push_fact(fact::kind::START, 0, &fact::Start::default());
        for (n, &(kind, sock, from, to, seq, numbered, filled)) in events.iter().enumerate() {
            let flags = if numbered { 0 } else { flag::SEQ_ABSENT };
            let head = Head { ts: n as u64 * 1_000_000_000, sock, kind, from, to, err: 0, seq, flags };
            let resync = fact::Resync { begin: head.ts.saturating_sub(5_000_000_000), netns: vec![], all: filled < 5 };
            match kind {
                fact::kind::SNAPSHOT => {
                    let resync = (to > 6).then_some(resync);
                    frames.push_fact(kind, head.ts, &fact::Snapshot { resync, ..fact::Snapshot::default() });
                }
                fact::kind::TICK => frames.push_fact(kind, head.ts, &()),
                fact::kind::INTERVAL => frames.push_fact(kind, head.ts, &fact::Interval::default()),
                fact::kind::START => {}
                // Small numbers everywhere: outcomes, cookies and addresses meet.
                _ => frames.push(0, &[head.as_bytes(), &[filled; 480]].concat()),
            }
        }
        carry.absorb(frames.as_words());
        prop_assert_eq!(carry.gone().frames, frames.iter().count() as u64);
        let (mut tracker, mut out) = (Tracker::new(), Printer::default());
        let mut again = Carry::new(u64::MAX);
        let told = carry.frames();
        again.absorb(told.as_words());
        for record in told.iter() {
            if let Ok(event) = decode(record) {
                tracker.event(&event, &mut out);
            }
        }
        prop_assert!(told.iter().count() > 1);
        // Ten minutes later, and when nothing is there any more.
        let mut end = Frames::default();
        end.push_fact(fact::kind::SNAPSHOT, u64::MAX / 4, &fact::Snapshot::default());
        let resync = Some(fact::Resync { begin: u64::MAX / 2, netns: vec![], all: true });
        end.push_fact(fact::kind::SNAPSHOT, u64::MAX / 4, &fact::Snapshot { resync, ..fact::Snapshot::default() });
        for ts in [u64::MAX / 2 + 1, u64::MAX / 2 + 2] {
            end.push_fact(fact::kind::TICK, ts, &());
            end.push_fact(fact::kind::SNAPSHOT, ts, &fact::Snapshot {
                resync: Some(fact::Resync { begin: u64::MAX / 2, netns: vec![], all: true }),
                ..fact::Snapshot::default()
            });
        }
        for mut carry in [carry, again] {
            carry.absorb(end.as_words());
            prop_assert_eq!(carry.sockets(), 0);
        }
    }
}
