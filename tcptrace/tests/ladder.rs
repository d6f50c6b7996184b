//! `conns --ladder`: scenarios, through the tracker and the sinks, as golden text.
//!
//! Most are made for it (`ladder_*.toml`); the others are what older recordings hold: states without sequence numbers.

#[path = "support/events.rs"]
mod events;

use std::{fs, path::Path};

use events::Numbers;
use jiff::tz::TimeZone;
use serde::Deserialize;
use tcptrace::{
    decode::{Event, decode},
    filter::Filter,
    frame::Frames,
    pipeline::{Gate, Records},
    sink::{
        Output, Sink,
        json::Json,
        output::Reader,
        text::{Headings, Look, Text, TimeMode},
    },
    tracker::Tracker,
};

#[derive(Deserialize)]
struct Scenario {
    events: String,
}

const OLD: [&str; 12] = [
    "normal_close_client",
    "normal_close_server",
    "three_segment_close",
    "simultaneous_open",
    "self_connect",
    "orphan_fin_wait2",
    "rst_received",
    "rst_linger0",
    "killed_by_actor",
    "preexisting_in_close_wait",
    "lost_records_close",
    "resync_moves_to_the_row",
];

/// What `sink` is told of a scenario.
fn drawn<S: Sink>(name: &str, sink: S) -> S {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scenarios/{name}.toml"));
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let scenario: Scenario = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let (mut tracker, mut numbers) = (Tracker::new(), Numbers::default());
    let mut gate = Gate::new(sink, Records::Connections, Filter::default(), None);
    gate.ladders = Some(Box::default());
    gate.sink.clock(1_795_262_584_000_000_000);
    for line in scenario.events.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(time) = line.strip_suffix(" FINISH") {
            let ts = time.parse::<u64>().expect("a time") * 1000;
            tracker.finish(ts, &mut gate);
            gate.draw(ts, true);
            continue;
        }
        let mut frames = Frames::default();
        events::push(&mut frames, &mut numbers, line);
        for record in frames.iter() {
            let event = decode(record).expect("a record that was just made");
            tracker.event(&event, &mut gate);
            if let Event::Tick(ts) = event {
                gate.draw(ts, false);
            }
        }
    }
    gate.sink.flush(true).expect("a Vec takes everything");
    gate.sink
}

fn look(width: usize) -> Look {
    let (time, zone) = (TimeMode::Utc, TimeZone::UTC);
    Look { width: Some(width), follow: false, color: false, time, zone, header: false, ascii: false }
}

/// A scenario's ladders. No line is longer than the terminal.
fn ladder(name: &str, look: Look) -> String {
    let width = look.width;
    let text = Text::new(Output::new(Vec::new(), Reader::Waiting), look, Headings::Connections);
    let text = String::from_utf8(drawn(name, text).into_inner()).expect("text is UTF-8");
    for line in text.lines() {
        assert!(width.is_none_or(|width| line.chars().count() <= width), "{name}: {line}");
    }
    text
}

/// Every scenario that is made for ladders.
fn made_for_it() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let names = fs::read_dir(&folder).expect("scenarios").map(|e| e.expect("an entry").file_name());
    let names = names.map(|n| n.into_string().expect("UTF-8"));
    let mut names: Vec<_> =
        names.filter_map(|n| n.strip_suffix(".toml").filter(|n| n.starts_with("ladder_")).map(str::to_owned)).collect();
    names.sort();
    assert!(names.len() >= 18, "{} found in {}", names.len(), folder.display());
    names
}

#[test]
fn in_80_columns() {
    for name in made_for_it() {
        insta::assert_snapshot!(name.clone(), ladder(&name, look(80)));
    }
}

#[test]
fn of_older_recordings() {
    for name in OLD {
        insta::assert_snapshot!(format!("old_{name}"), ladder(name, look(80)));
    }
}

#[test]
fn in_40_columns_it_is_a_list() {
    let names = ["ladder_both_ends", "ladder_close_by_client", "ladder_lost", "ladder_silence"];
    insta::assert_snapshot!(names.map(|n| ladder(n, look(40))).concat());
}

#[test]
fn in_any_width_lines_fit() {
    for name in made_for_it() {
        for width in [1, 10, 30, 39, 71, 72, 79, 100, 500] {
            ladder(&name, look(width));
        }
    }
}

#[test]
fn in_120_columns_with_relative_numbers() {
    insta::assert_snapshot!(["ladder_both_ends", "ladder_close_by_client"].map(|n| ladder(n, look(120))).concat());
}

#[test]
fn in_ascii() {
    let text = [80, 40].map(|width| ladder("ladder_close_by_client", Look { ascii: true, ..look(width) })).concat();
    assert!(text.is_ascii(), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn in_colour_it_says_the_same() {
    let colored = ladder("ladder_refused", Look { color: true, width: None, ..look(80) });
    assert!(colored.contains("\x1b[1;31m"), "{colored}");
    let mut plain = String::new();
    let mut rest = colored.as_str();
    while let Some((text, code)) = rest.split_once("\x1b[") {
        plain.push_str(text);
        rest = code.split_once('m').expect("a colour").1;
    }
    assert_eq!(plain + rest, ladder("ladder_refused", look(80)));
}

#[test]
fn as_json() {
    let lines = |name| {
        let json = drawn(name, Json::new(Output::new(Vec::new(), Reader::Waiting)));
        String::from_utf8(json.into_inner()).expect("JSON is UTF-8")
    };
    let mut steps = String::new();
    for name in ["ladder_both_ends", "ladder_lost", "ladder_fin_behind_data"] {
        for line in lines(name).lines().filter(|line| line.contains("\"type\":\"connection\"")) {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let own: Vec<_> = line["ladder"].as_array().expect("a ladder").iter().map(ToString::to_string).collect();
            steps += &format!("{name} {}\n{}\n", line["role"], own.join("\n"));
        }
    }
    insta::assert_snapshot!(steps);
}
