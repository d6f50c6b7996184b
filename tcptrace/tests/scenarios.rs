//! The tracker's behaviour, specified by `tests/scenarios/*.toml`: events in, changes out, every line compared.
//!
//! With `TCPTRACE_BLESS=1` the expected lines are written instead of compared, to be read before they are committed.

mod support;

use std::{fs, path::Path};

use serde::Deserialize;
use support::{events, print::Printer};
use tcptrace::{decode::decode, frame::Frames, tracker::Tracker};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What it shows.
    about: String,
    /// One line an event, see `support::events`; `TIME FINISH` ends the run.
    events: String,
    /// One line a change, and one of counts if any is not zero.
    expect: String,
}

#[test]
fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 40, "{} scenarios found in {}", files.len(), folder.display());
    let bless = std::env::var_os("TCPTRACE_BLESS").is_some();
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let scenario: Scenario = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(!scenario.about.is_empty() && !scenario.events.is_empty(), "{} is empty", file.display());
        let got = run(&scenario.events);
        if bless {
            let (before, _) = text.split_once("expect = \"\"\"").expect("an expect field");
            fs::write(&file, format!("{before}expect = \"\"\"\n{got}\"\"\"\n")).unwrap();
        } else if got != scenario.expect {
            wrong.push(format!("{}\n-- expected\n{}-- got\n{got}", file.display(), scenario.expect));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn run(events: &str) -> String {
    let mut numbers = events::Numbers::default();
    let mut tracker = Tracker::new();
    let mut out = Printer::default();
    for line in events.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(time) = line.strip_suffix(" FINISH") {
            tracker.finish(time.parse::<u64>().expect("a time") * 1000, &mut out);
            continue;
        }
        let mut frames = Frames::default();
        events::push(&mut frames, &mut numbers, line);
        for record in frames.iter() {
            tracker.event(&decode(record).expect("a record that was just made"), &mut out);
        }
    }
    out.residual(tracker.residual().unwrap_or_default());
    let stats = tracker.stats();
    let counts: String = [
        ("live", tracker.live() as u64),
        ("gaps", stats.gaps),
        ("late", stats.late),
        ("impossible", stats.impossible),
        ("phantoms", stats.phantoms),
        ("nonsense", stats.nonsense),
        ("repaired", stats.repaired),
        ("concluded", stats.concluded),
        ("discovered", stats.discovered),
        ("requests_forgotten", stats.requests_forgotten),
        ("remnants_forgotten", stats.remnants_forgotten),
    ]
    .iter()
    .filter(|(_, n)| *n != 0)
    .map(|(name, n)| format!(" {name}={n}"))
    .collect();
    if !counts.is_empty() {
        out.lines.push(format!("counts{counts}"));
    }
    out.lines.iter().map(|line| format!("{line}\n")).collect()
}
