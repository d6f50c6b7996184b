//! The recordings that tcptrace carries for the ladders of `explain`: whole, small, and about nothing but what they show.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;
use tcptrace::{
    explain::{PAGES, RECORDINGS, recording},
    frame::{Frames, fact},
    recording::{Ending, Item, Reader},
};
use tcptrace_common::record::Head;
use zerocopy::FromBytes;

/// What the binary prints, which must succeed.
fn output(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    let out = command.args(arguments).env("LC_ALL", "C.UTF-8").output().expect("the binary runs");
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/recordings"))
}

#[test]
fn each_file_is_carried_and_each_that_is_carried_is_a_file() {
    let files = fs::read_dir(folder()).expect("the recordings").map(|file| file.expect("an entry").file_name());
    let files: BTreeSet<_> = files.map(|name| name.into_string().expect("UTF-8")).collect();
    assert_eq!(files, RECORDINGS.iter().map(|(name, _)| format!("{name}.rec")).collect());
    for (name, bytes) in RECORDINGS {
        assert_eq!(bytes, fs::read(folder().join(format!("{name}.rec"))).expect("it is there"), "{name}");
    }
}

#[test]
fn each_is_whole_small_and_says_nothing_of_the_host_that_made_it() {
    for (name, bytes) in RECORDINGS {
        assert!(bytes.len() < 4096, "{name}: {} bytes", bytes.len());
        let (mut reader, mut frames) = (Reader::new(bytes).expect("memory"), Frames::default());
        let ending = loop {
            match reader.next(&mut frames).expect("a recording") {
                Item::Block(_) => {}
                Item::Gap(gap) => panic!("{name}: {gap:?}"),
                Item::End(ending) => break ending,
            }
        };
        assert_eq!(ending, Ending::Clean { lost: 0 }, "{name}");
        for record in frames.iter() {
            let (head, body) = Head::read_from_prefix(record).expect("a head");
            assert!(![fact::kind::CGROUP, fact::kind::LOSS].contains(&head.kind), "{name}: {head:?}");
            if head.kind == fact::kind::START {
                let start: fact::Start = serde_json::from_slice(body).expect("JSON");
                assert_eq!((start.host.as_str(), start.boot_id.as_str()), ("host", ""), "{name}");
                assert!(start.kernel.bytes().all(|b| b.is_ascii_digit() || b == b'.'), "{name}: {}", start.kernel);
            }
        }
    }
}

#[test]
fn each_replays_as_one_connection_of_a_client_and_a_server() {
    for (name, _) in RECORDINGS {
        let file = folder().join(format!("{name}.rec"));
        let text = output(&["conns", "--ladder", "--json", "--from", file.to_str().expect("UTF-8")]);
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let summary = lines.last().expect("a summary");
        assert_eq!((&summary["type"], &summary["lost"]), (&"summary".into(), &0.into()), "{name}");
        assert!(summary.get("undecodable").is_none_or(|n| *n == 0), "{name}: {summary}");
        let mut roles = Vec::new();
        for c in lines.iter().filter(|line| line["type"] == "connection") {
            assert_eq!(c["gaps"], 0, "{name}: {c}");
            assert!(c["ladder"].as_array().is_some_and(|steps| steps.len() > 1), "{name}: {c}");
            assert!(c["comm"] == "client" || c["comm"] == "server", "{name}: {c}");
            roles.push(c["comm"].as_str().expect("a name"));
        }
        let alone = ["no_answer", "refused"].contains(&name);
        assert_eq!(roles.contains(&"server"), !alone, "{name}: {roles:?}");
        assert_eq!((roles.contains(&"client"), roles.len()), (true, if alone { 1 } else { 2 }), "{name}: {roles:?}");
        let drawn = output(&["conns", "--ladder", "-q", "--from", file.to_str().expect("UTF-8")]);
        assert_eq!(drawn.matches("\n\n").count(), 1, "{name} is one ladder: {drawn}");
    }
}

/// The ladder in a page as the terminal gets it is the one that `conns --ladder` draws of the recording.
#[test]
fn a_page_shows_what_conns_draws() {
    for page in &PAGES {
        let shown = output(&["explain", page.name]);
        for example in page.examples {
            assert!(recording(example.recording).is_some(), "{}", example.recording);
            let file = folder().join(format!("{}.rec", example.recording));
            let drawn = output(&["conns", "--ladder", "-q", "--time", "utc", "--from", file.to_str().expect("UTF-8")]);
            // In a pipe it is drawn for 80 columns, in a page for the two less that it is indented by: the words are the same.
            let words = |text: &str| -> Vec<String> {
                let plain: String = text.chars().map(|c| if "─┄→←".contains(c) { ' ' } else { c }).collect();
                plain.split_whitespace().filter(|w| !w.contains('(') && !w.contains('=')).map(str::to_owned).collect()
            };
            let (drawn, shown) = (words(&drawn), words(&shown));
            assert!(shown.windows(drawn.len()).any(|part| part == drawn), "{}: {drawn:?} in {shown:?}", page.name);
        }
    }
}

#[test]
fn the_document_is_what_the_binary_prints() {
    let committed = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/explain.md"));
    assert!(output(&["docs-explain"]) == committed.expect("docs/explain.md is committed"), "run `cargo xtask docs`");
}
