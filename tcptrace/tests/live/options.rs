//! How a run ends by itself, and what its output may contain.

use std::process::Stdio;

use crate::support::{
    netns::Netns,
    process::{self, fork},
    run::parse,
    slowness,
    socket::{Sock, local},
    tracer::{netns_list, tcptrace, traced},
    wait_until,
};

/// `tcptrace ARGS` in a namespace of its own, where connections are refused until it ends: its output.
fn ends_by_itself(args: &[&str]) -> String {
    let ns = Netns::new();
    let mut command = tcptrace();
    command.args(args).args(["--netns", &netns_list(&[&ns])]);
    let mut child = process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut stdout = child.child().stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut text).expect("UTF-8");
        text
    });
    wait_until("the tracer to end", || {
        Sock::new(&ns, local(9)).connect(local(9)).expect_err("nobody listens");
        child.child().try_wait().expect("our child").is_some()
    });
    assert!(child.wait().success());
    reader.join().expect("reader")
}

#[test]
fn count() {
    for (command, kind) in [("trace", "transition"), ("conns", "connection")] {
        let lines = parse(&ends_by_itself(&[command, "--json", "--count", "3"]));
        assert_eq!(lines.iter().filter(|l| l["type"] == kind).count(), 3, "{command}: {lines:?}");
        assert_eq!(lines.last().expect("not empty")["type"], "summary");
    }
}

#[test]
fn duration() {
    let lines = parse(&ends_by_itself(&["trace", "--json", "--duration", "1s"]));
    let ns = |line: &serde_json::Value| line["mono_ns"].as_u64().expect("a number");
    let took = ns(lines.last().expect("not empty")) - ns(&lines[0]);
    // The second begins when everything is attached, a little before the first line is written.
    let slow = u64::from(slowness());
    assert!((1_000_000_000 - 100_000_000 * slow..10_000_000_000 * slow).contains(&took), "{took} ns");
    assert!(lines.iter().any(|l| l["type"] == "transition"), "{lines:?}");
}

#[test]
fn names_from_outside_are_escaped() {
    let run = traced(|ns| {
        let client = Sock::new(ns, local(7801));
        let child = fork(c"\x1b[31mred\x07\r\"\\", &[std::os::fd::AsRawFd::as_raw_fd(&client)], || {
            client.connect(local(7801)).expect_err("nobody listens");
        });
        child.join();
    });
    assert!(run.only("client").text("comm").contains("red"), "{}", run.only("client").0);
    for args in [&["trace"][..], &["conns"], &["trace", "--json"], &["conns", "--json"]] {
        let output = process::run(tcptrace().args(args).args(["--color", "never", "--from"]).arg(&run.recording));
        let text = std::str::from_utf8(&output.stdout).expect("UTF-8");
        assert!(text.contains("red"), "{args:?}: {text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{args:?}: {text:?}");
    }
}

#[test]
fn text_says_what_json_says() {
    let run = traced(|ns| {
        Sock::new(ns, local(7802)).connect(local(7802)).expect_err("nobody listens");
    });
    let client = run.only("client");
    let output = process::run(tcptrace().args(["trace", "--color", "never", "--from"]).arg(&run.recording));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let line = text.lines().find(|l| l.contains("refused")).unwrap_or_else(|| panic!("why it ended: {text}"));
    for word in [client.text("comm"), "127.0.0.1:7802", "SYN_SENT", "CLOSE"] {
        assert!(line.contains(word), "{word} in {line}");
    }
    let colour = process::run(tcptrace().args(["trace", "--color", "always", "--from"]).arg(&run.recording));
    assert!(colour.stdout.contains(&0x1b), "colours when asked for");
    let pipe = process::run(tcptrace().args(["trace", "--from"]).arg(&run.recording));
    assert!(!pipe.stdout.contains(&0x1b), "none in a pipe");
}
