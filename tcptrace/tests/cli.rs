//! The binary, run with arguments that need no kernel: usage, recordings, closed and full outputs.

use std::{
    fs::File,
    process::{Command, Output, Stdio},
};

use tcptrace::{
    frame::{Frames, fact},
    recording::Writer,
};
use tcptrace_common::record::{Head, Open, kind};
use tempfile::TempDir;
use zerocopy::IntoBytes;

fn tcptrace(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    tcptrace(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// A recording of `n` listeners, one after the other.
fn recording(n: u64) -> (TempDir, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("day.rec").to_str().expect("UTF-8").to_owned();
    let mut frames = Frames::default();
    frames.push_fact(fact::kind::START, 1, &fact::Start { host: "host".into(), ..fact::Start::default() });
    frames.push_fact(fact::kind::CLOCK, 1, &fact::Clock { offset_ns: 1_795_262_584_000_000_000 });
    frames.push_fact(fact::kind::SNAPSHOT, 2, &fact::Snapshot::default());
    for i in 1..=n {
        let head = Head { ts: 1000 * i, sock: i, kind: kind::OPEN, from: 7, to: 10, seq: 1, ..Head::default() };
        frames.push(0, Open { head, ..Open::default() }.as_bytes());
    }
    frames.push_fact(fact::kind::END, 1_000_000_000, &fact::End::default());
    let mut writer = Writer::create(&path).expect("our directory");
    writer.write(frames.as_bytes()).expect("room");
    writer.finish(0).expect("room");
    (dir, path)
}

#[test]
fn help_and_version() {
    for arguments in
        [&["--help"][..], &["trace", "--help"], &["conns", "-h"], &["record", "--help"], &["doctor", "--help"]]
    {
        let out = output(arguments);
        assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), ""), "{arguments:?}");
        assert!(text(&out.stdout).contains("Usage: tcptrace"), "{arguments:?}");
    }
    assert_eq!(text(&output(&["--version"]).stdout), concat!("tcptrace ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn wrong_usage_is_one_line_with_a_hint_and_status_2() {
    for arguments in [
        &[][..],
        &["trase"],
        &["trace", "--port", "0"],
        &["conns", "--laddr", "10.0.0.0/33"],
        &["record"],
        &["trace", "--", "true"],
        &["trace", "--from", "a", "--buffer", "1M"],
    ] {
        let out = output(arguments);
        let err = text(&out.stderr);
        assert_eq!((out.status.code(), text(&out.stdout)), (Some(2), ""), "{arguments:?}: {err}");
        assert!(err.starts_with("tcptrace: ") && err.ends_with("--help` shows what there is\n"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn the_event_reference_is_what_the_binary_prints() {
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md"));
    assert_eq!(text(&output(&["docs-events"]).stdout), committed.expect("docs/events.md is committed"));
}

#[test]
fn a_replay_has_one_line_a_transition() {
    let (_dir, path) = recording(3);
    let out = output(&["trace", "--time", "utc", "--from", &path]);
    assert_eq!(out.status.code(), Some(0));
    let first = text(&out.stdout).lines().next().expect("three lines");
    assert!(first.starts_with("12:03:04.000001 ") && first.ends_with(" listen()"), "{first}");
    assert!(first.contains(" CLOSE→LISTEN "), "{first}");
    assert_eq!(text(&out.stdout).lines().count(), 3);
    assert_eq!(text(&out.stderr), "tcptrace: 0 connections, 3 transitions, 0 events lost in 999ms\n");
}

#[test]
fn quiet_and_json_leave_stderr_alone() {
    let (_dir, path) = recording(3);
    for arguments in [&["trace", "-q", "--from", &path][..], &["trace", "--json", "--from", &path]] {
        assert_eq!(text(&output(arguments).stderr), "", "{arguments:?}");
    }
    let json = output(&["trace", "--json", "--from", &path]);
    assert_eq!(text(&json.stdout).lines().count(), 5);
    assert!(!text(&json.stdout).contains('\x1b'));
}

#[test]
fn verbose_says_more() {
    let (_dir, path) = recording(1);
    let err = output(&["trace", "-v", "--from", &path]).stderr;
    assert!(
        text(&err).starts_with("tcptrace: 0 sockets were there at the start, in 0 network namespaces\n"),
        "{err:?}"
    );
    assert!(text(&err).ends_with(" events lost in 999ms\n"), "{err:?}");
    // Only the summary without it.
    assert_eq!(text(&output(&["trace", "--from", &path]).stderr).lines().count(), 1);
}

/// What a terminal of 80 columns gets, with one more variable in the environment.
fn on_a_terminal(arguments: &str, (name, value): (&str, &str)) -> String {
    let mut script = Command::new("script");
    script.args(["-qec", &format!("stty cols 80; {} {arguments}", env!("CARGO_BIN_EXE_tcptrace")), "/dev/null"]);
    script.env_remove("NO_COLOR").env("TERM", "xterm").env(name, value).stdin(Stdio::null());
    let out = script.output().expect("script of util-linux runs");
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    text(&out.stdout).to_owned()
}

#[test]
fn a_terminal_gets_headings_and_colours_unless_it_wants_none() {
    let (_dir, path) = recording(1);
    let trace = format!("trace -q --time utc --from {path}");
    let coloured = on_a_terminal(&trace, ("TERM", "xterm"));
    assert!(coloured.contains("TIME") && coloured.contains("\x1b["), "{coloured:?}");
    for plain in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let shown = on_a_terminal(&trace, plain);
        assert!(
            shown.contains("TIME") && shown.contains("CLOSE→LISTEN") && !shown.contains('\x1b'),
            "{plain:?}: {shown:?}"
        );
    }
    assert!(on_a_terminal(&trace, ("NO_COLOR", "")).contains("\x1b["), "an empty NO_COLOR asks for nothing");
    let always = on_a_terminal(&format!("{trace} --color always"), ("NO_COLOR", "1"));
    assert!(always.contains("\x1b["), "{always:?}");
    assert!(!output(&["trace", "--from", &path]).stdout.contains(&0x1b), "none in a pipe");
}

#[test]
fn a_recording_from_standard_input() {
    let (_dir, path) = recording(2);
    let out = tcptrace(&["trace", "--json", "--from", "-"]).stdin(File::open(&path).expect("ours")).output();
    assert_eq!(out.expect("the binary runs").stdout, output(&["trace", "--json", "--from", &path]).stdout);
}

#[test]
fn a_full_disk_is_one_line_and_status_1() {
    let (_dir, path) = recording(2);
    for arguments in [&["trace", "--json", "--from", &path][..], &["trace", "--from", &path], &["docs-events"]] {
        let full = File::options().write(true).open("/dev/full").expect("every Linux has it");
        let out = tcptrace(arguments).stdout(full).output().expect("the binary runs");
        assert_eq!(out.status.code(), Some(1), "{arguments:?}");
        let line = "tcptrace: cannot write stdout: No space left on device; make room, or write elsewhere\n";
        assert_eq!(text(&out.stderr), line, "{arguments:?}");
    }
}

#[test]
fn a_closed_pipe_ends_it_well() {
    // More than a pipe holds.
    let (_dir, path) = recording(5000);
    for arguments in [&["trace", "--json", "--from", &path][..], &["trace", "--from", &path]] {
        let mut child =
            tcptrace(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        drop(child.stdout.take());
        let out = child.wait_with_output().expect("our child");
        assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn what_is_no_recording() {
    let out = output(&["conns", "--from", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(1), ""));
    assert!(text(&out.stderr).contains("Cargo.toml is not a tcptrace recording; `tcptrace record FILE`"));
}
