//! `watch` on a recording: what it prints, its exit status, the command that gets findings, configurations that make no sense.

#[path = "support/parts.rs"]
mod parts;
#[path = "support/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use support::events;
use tcptrace::{
    frame::{Frames, fact},
    recording::Writer,
};
use tempfile::TempDir;

/// A server that accepts too slowly for a while, in twenty seconds.
fn overflow() -> (TempDir, String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/findings/accept_overflow_slow.toml");
    let table: toml::Table = toml::from_str(&fs::read_to_string(file).expect("a scenario")).expect("TOML");
    let parts: Vec<parts::Part> = table["part"].clone().try_into().expect("parts");
    let mut frames = Frames::default();
    let signals = ["half_open", "syn_outcome", "accept_queue", "overflow", "accept"]
        .map(|n| (n.to_owned(), "fentry:x".to_owned()));
    let start = fact::Start { host: "host".into(), signals: signals.to_vec(), ..fact::Start::default() };
    frames.push_fact(fact::kind::START, 1, &start);
    frames.push_fact(fact::kind::CLOCK, 1, &fact::Clock { offset_ns: 1_795_262_584_000_000_000 });
    let mut numbers = events::Numbers::default();
    parts::lines(&parts).iter().for_each(|line| events::push(&mut frames, &mut numbers, line));
    frames.push_fact(fact::kind::END, 60_000_000_000, &fact::End::default());
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("slow.rec").to_str().expect("UTF-8").to_owned();
    let mut writer = Writer::create(&path).expect("our directory");
    writer.write(frames.as_bytes()).expect("room");
    writer.finish(0).expect("room");
    (dir, path)
}

fn watch(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.arg("watch").args(arguments).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
    command.output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn findings(json: &[u8]) -> Vec<Value> {
    let lines = text(json).lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|line| line["type"] == "finding").collect()
}

#[test]
fn text_says_what_where_and_what_to_do() {
    let (_dir, path) = overflow();
    let out = watch(&["--from", &path, "--time", "utc"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    insta::assert_snapshot!(text(&out.stdout));
}

#[test]
fn json_has_a_finding_and_its_end() {
    let (_dir, path) = overflow();
    let out = watch(&["--from", &path, "--json"]);
    let found = findings(&out.stdout);
    let status: Vec<_> = found.iter().map(|f| (f["id"].as_u64(), f["rule"].as_str(), f["status"].as_str())).collect();
    assert_eq!(
        status,
        [(Some(1), Some("accept-overflow"), Some("firing")), (Some(1), Some("accept-overflow"), Some("resolved"))]
    );
    let first = &found[0];
    assert_eq!((&first["v"], &first["severity"]), (&1.into(), &"critical".into()));
    assert_eq!((&first["subject"]["lport"], &first["subject"]["comm"]), (&80.into(), &"slow".into()));
    assert_eq!(first["since"], found[1]["since"]);
    assert!(first["evidence"]["syns_dropped"].as_u64() > Some(0), "{first}");
    for field in ["summary", "advice", "look"] {
        assert!(first[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {first}");
    }
    let types: Vec<_> =
        text(&out.stdout).lines().map(|l| serde_json::from_str::<Value>(l).expect("JSON")["type"].clone()).collect();
    assert_eq!((&types[0], types.last()), (&"start".into(), Some(&"summary".into())));
}

#[test]
fn the_exit_status_tells_scripts() {
    let (_dir, path) = overflow();
    let code = |arguments: &[&str]| watch(&[&["--from", &path][..], arguments].concat()).status.code();
    assert_eq!(code(&["--fail-on", "warning"]), Some(10));
    assert_eq!(code(&["--fail-on", "critical"]), Some(10));
    assert_eq!(code(&["--fail-on", "critical", "--json", "--count", "1"]), Some(10));
    assert_eq!(code(&[]), Some(0));
    // Another port's trouble is not ours.
    assert_eq!(code(&["--fail-on", "info", "--lport", "81"]), Some(0));
    let config = _dir.path().join("off.toml");
    fs::write(&config, "[accept-overflow]\non = false\n").expect("our directory");
    assert_eq!(code(&["--fail-on", "info", "--config", config.to_str().expect("UTF-8")]), Some(0));
}

#[test]
fn a_command_gets_each_finding() {
    let (dir, path) = overflow();
    let told = dir.path().join("told");
    let command = format!("cat >> {}; echo to nobody", told.display());
    let out = watch(&["--from", &path, "--json", "--exec", &command]);
    assert!(out.status.success());
    assert_eq!(findings(&fs::read(&told).expect("it ran")), findings(&out.stdout), "the same, in their order");
    assert!(!text(&out.stdout).contains("to nobody"), "standard output is for data");
}

#[test]
fn a_command_that_fails_is_said_once_and_loses_nothing() {
    let (_dir, path) = overflow();
    for (command, says) in [
        ("exit 3", "tcptrace: --exec: it failed with status 3; findings go on"),
        ("kill -9 $$", "tcptrace: --exec: signal 9 ended it; findings go on"),
        ("no-such-command 2>/dev/null", "tcptrace: --exec: there is no such command (status 127); findings go on"),
    ] {
        let out = watch(&["--from", &path, "--json", "--exec", command]);
        assert_eq!((out.status.code(), findings(&out.stdout).len()), (Some(0), 2), "{command}");
        let said: Vec<_> = text(&out.stderr).lines().filter(|line| line.contains("--exec")).collect();
        assert_eq!(said, [says, "tcptrace: --exec: 1 times more"], "{command}");
    }
}

#[test]
fn a_command_that_hangs_is_ended() {
    let (_dir, path) = overflow();
    let out = watch(&["--from", &path, "--json", "--exec", "sleep 1000"]);
    assert_eq!((out.status.code(), findings(&out.stdout).len()), (Some(0), 2));
    let stderr = text(&out.stderr);
    assert!(stderr.contains("--exec: it did not end within 10 s, and was ended; findings go on"), "{stderr}");
    assert!(stderr.contains("--exec: 1 finding was not handed over: the command took too long"), "{stderr}");
}

#[test]
fn the_configuration_that_is_printed_is_one() {
    let out = watch(&["--print-config"]);
    assert!(out.status.success());
    let (dir, path) = overflow();
    let file = dir.path().join("watch.toml");
    fs::write(&file, &out.stdout).expect("our directory");
    let again = watch(&["--from", &path, "--json", "--config", file.to_str().expect("UTF-8")]);
    assert_eq!(findings(&again.stdout), findings(&watch(&["--from", &path, "--json"]).stdout));
}

#[test]
fn a_configuration_that_makes_no_sense_is_one_line() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("watch.toml");
    let name = file.to_str().expect("UTF-8");
    for (config, says) in [
        ("[accept-overflow]\nclients = -3\n", ":2:11: clients: -3 is not a number such as 100"),
        (
            "[accept-overflow]\nstuck = \"3kg\"\n",
            ":2:9: stuck: 3kg is not a time such as \"500ms\", \"10s\", \"5m\" or \"1h\"",
        ),
        ("\n[no-such-rule]\n", ":2:2: there is no rule \"no-such-rule\"; there are "),
        ("[accept-overflow\n", ":1:"),
    ] {
        fs::write(&file, config).expect("our directory");
        let out = watch(&["--config", name]);
        let stderr = text(&out.stderr);
        assert_eq!((out.status.code(), stderr.lines().count()), (Some(2), 1), "{config}: {stderr}");
        assert!(stderr.starts_with(&format!("tcptrace: {name}{says}")), "{config}: {stderr}");
    }
    fs::write(&file, b"\xff").expect("our directory");
    assert!(text(&watch(&["--config", name]).stderr).contains("is not text in UTF-8"));
    let out = watch(&["--config", "/nonexistent/watch.toml"]);
    assert_eq!(out.status.code(), Some(2));
    assert_eq!(
        text(&out.stderr),
        "tcptrace: --config: cannot read /nonexistent/watch.toml: No such file or directory; `tcptrace watch --print-config` prints one with every rule and limit\n"
    );
}

#[test]
fn report_has_the_findings() {
    let (_dir, path) = overflow();
    let report = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        command.args(["report", &path]).args(arguments).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
        command.output().expect("the binary runs").stdout
    };
    let json: Value = serde_json::from_str(text(&report(&["--json"]))).expect("JSON");
    let found = findings(&watch(&["--from", &path, "--json"]).stdout);
    let told = json["findings"].as_array().expect("a list");
    assert_eq!(told.len(), 1, "{told:?}");
    for field in ["rule", "severity", "since", "subject", "summary", "evidence", "advice", "look"] {
        assert_eq!(told[0][field], found[0][field], "{field}");
    }
    assert_eq!((&told[0]["resolved"], told[0]["lasted_us"].as_u64()), (&found[1]["ts"], Some(20_000_000)));
    let page = report(&["--time", "utc"]);
    let page = text(&page);
    let (_, section) = page.split_once("\nFINDINGS\n").expect("a section");
    assert!(
        section.starts_with("  ! critical accept-overflow *:80 slow[20], since 12:03:04, for 20.0s: "),
        "{section}"
    );
}
