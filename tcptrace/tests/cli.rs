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
    for arguments in [
        &["--help"][..],
        &["trace", "--help"],
        &["conns", "-h"],
        &["record", "--help"],
        &["report", "--help"],
        &["doctor", "--help"],
        &["explain", "--help"],
        &["completions", "--help"],
    ] {
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
        &["queues", "--", "true"],
        &["trace", "--from", "a", "--buffer", "1M"],
        &["completions", "tcsh"],
        &["docs-man", "tcptrace.9"],
        &["conns", "--uid", "no-such-user"],
        &["conns", "--unit", ""],
        &["conns", "--min-us", "soon"],
        &["conns", "--min-us", "1.5s"],
        &["trace", "--failed"],
        &["queues", "--min-us", "1s"],
        &["record", "x", "--failed"],
        &["conns", "--by", "port"],
        &["conns", "--by", "comm,,uid"],
        &["conns", "--by", "comm,pid,comm"],
        &["conns", "--by", "comm", "--requests"],
        &["trace", "--by", "comm"],
    ] {
        let out = output(arguments);
        let err = text(&out.stderr);
        assert_eq!((out.status.code(), text(&out.stdout)), (Some(2), ""), "{arguments:?}: {err}");
        assert!(err.starts_with("tcptrace: ") && err.ends_with("--help` shows what there is\n"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn wrong_usage_says_what_to_do() {
    for (arguments, says) in [
        (&["conns", "--uid", "no-such-user"][..], "no user `no-such-user` on this system; give the number"),
        (&["conns", "--by", "port"], "`port` is nothing to group by: comm pid uid role laddr lport raddr rport netns"),
        (&["conns", "--by", "comm,pid,comm"], "--by: `comm` is there twice"),
        (&["trace", "--failed"], "--failed: known only when a connection is over; `tcptrace conns` has it"),
        (&["record", "x", "--min-us", "1s"], "record without it, then `tcptrace conns --from FILE` with it"),
    ] {
        let err = output(arguments).stderr;
        assert!(text(&err).contains(says), "{arguments:?}: {}", text(&err));
    }
}

#[test]
fn groups_of_a_recording() {
    let (_dir, path) = recording(3);
    let by = |more: &[&str]| {
        let out = output(&[&["conns", "--role", "listener", "--by", "lport", "--from", &path], more].concat());
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        text(&out.stdout).to_owned()
    };
    assert_eq!(by(&["--time", "utc"]).lines().next(), Some("12:03:05  0 groups, 0 connections, over 999ms"));
    assert_eq!(by(&["--json"]).lines().count(), 2, "start and summary");
}

#[test]
fn the_event_reference_is_what_the_binary_prints() {
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md"));
    assert_eq!(text(&output(&["docs-events"]).stdout), committed.expect("docs/events.md is committed"));
}

#[test]
fn manual_pages_are_what_the_binary_prints() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../man");
    let names = output(&["docs-man"]);
    let mut names: Vec<&str> = text(&names.stdout).lines().collect();
    assert!(
        names.contains(&"tcptrace.1") && names.contains(&"tcptrace-trace.1") && names.contains(&"tcptrace-explain.7")
    );
    for name in &names {
        let committed = std::fs::read_to_string(format!("{dir}/{name}")).expect("it is committed");
        assert_eq!(text(&output(&["docs-man", name]).stdout), committed, "{name}: run `cargo xtask docs`");
    }
    let files = std::fs::read_dir(dir).expect("man/ is there").map(|file| file.expect("a file").file_name());
    let mut files: Vec<_> = files.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort_unstable();
    files.sort_unstable();
    assert_eq!(files, names);
}

#[test]
fn explain_prints_a_page_with_this_hosts_settings() {
    let out = output(&["explain", "Time-Wait"]);
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), ""));
    let page = text(&out.stdout);
    assert!(page.starts_with("TIME_WAIT (state)\n"), "{page}");
    let reuse = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_tw_reuse").expect("every Linux has it");
    assert!(page.contains(&format!("  net.ipv4.tcp_tw_reuse = {}\n", reuse.trim())), "{page}");
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    assert_eq!(text(&output(&["explain", "half", "open"]).stdout), text(&output(&["explain", "half-open"]).stdout));
    let all = output(&["explain"]);
    assert!(text(&all.stdout).contains("\n  LAST_ACK ") && text(&all.stdout).contains("\n  syncookies "), "{all:?}");
}

#[test]
fn explain_knows_what_was_nearly_right() {
    for (asked, says) in [
        (
            "clos_wait",
            "tcptrace: there is no state, rule or term `clos_wait` (nearest: CLOSE_WAIT); `tcptrace explain` lists all\n",
        ),
        ("xyzzyplugh", "tcptrace: there is no state, rule or term `xyzzyplugh`; `tcptrace explain` lists all\n"),
        ("\x1b[31m", "tcptrace: there is no state, rule or term `\\x1b[31m`; `tcptrace explain` lists all\n"),
    ] {
        let out = output(&["explain", asked]);
        assert_eq!((out.status.code(), text(&out.stdout), text(&out.stderr)), (Some(2), "", says));
    }
}

#[test]
fn explain_speaks_json() {
    let page = output(&["explain", "--json", "rst"]);
    let page: serde_json::Value = serde_json::from_slice(&page.stdout).expect("one object");
    assert_eq!((&page["v"], &page["type"]), (&1.into(), &"explain".into()));
    assert_eq!((&page["kind"], &page["name"]), (&"term".into(), &"rst".into()));
    assert!(page["ts"].is_string() && page["mono_ns"].is_u64(), "{page}");
    let overflow = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_abort_on_overflow").expect("every Linux has it");
    let sysctl = &page["sysctls"][0];
    assert_eq!(
        (&sysctl["name"], &sysctl["value"]),
        (&"net.ipv4.tcp_abort_on_overflow".into(), &overflow.trim().into())
    );
    assert!(page.get("enters").is_none(), "a term has no arcs");
    let all = output(&["explain", "--json"]);
    let names: Vec<serde_json::Value> =
        text(&all.stdout).lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert!(
        names.iter().any(|page| page["name"] == "CLOSING" && page["enters"][0]["state"] == "FIN_WAIT1"),
        "{names:?}"
    );
}

#[test]
fn explain_suits_narrow_and_dumb_terminals() {
    let narrow = on_a_terminal_of(40, "explain TIME_WAIT", ("TERM", "xterm"));
    assert!(narrow.contains("\x1b[1mTIME_WAIT\x1b[0m"), "{narrow:?}");
    let plain = on_a_terminal_of(40, "explain TIME_WAIT", ("TERM", "dumb"));
    assert!(!plain.contains('\x1b') && plain.lines().all(|line| line.len() <= 40), "{plain:?}");
    assert!(plain.lines().any(|line| line.len() > 30), "{plain:?}");
    assert!(plain.contains("\n    +0us -> SYN seq="), "a ladder as a list: {plain}");
    assert!(on_a_terminal_of(80, "explain", ("LC_ALL", "C")).is_ascii());
    // Every page, whatever the terminal lacks.
    let pages: Vec<String> = tcptrace::explain::PAGES.iter().map(|page| format!("explain {}", page.name)).collect();
    let script = pages.join(&format!("; {} ", env!("CARGO_BIN_EXE_tcptrace")));
    for width in [40, 80] {
        let ascii = on_a_terminal_of(width, &script, ("LC_ALL", "C"));
        assert!(ascii.is_ascii() && ascii.contains("\x1b["), "{ascii}");
        let utf8 = on_a_terminal_of(width, &script, ("LC_ALL", "C.UTF-8"));
        assert_eq!(utf8.contains("──→"), width == 80, "{utf8}");
        for text in [ascii, utf8] {
            let lines = text.lines().map(without_colours);
            assert!(lines.clone().all(|line| line.chars().count() <= width), "{text}");
            assert!(lines.clone().any(|line| line.chars().count() == width), "{width} columns are used: {text}");
        }
    }
}

/// What bash offers for the last of `words`, as it asks at the Tab key.
fn bash_offers(words: &[&str]) -> Vec<String> {
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_tcptrace"));
    let path = format!("{}:{}", binary.parent().expect("a directory").display(), std::env::var("PATH").expect("PATH"));
    let script = "source <(tcptrace completions bash); complete -p tcptrace >&2 || exit 1; COMP_WORDS=(\"$@\"); \
                  COMP_CWORD=$(($# - 1)); COMP_TYPE=9; _clap_complete_tcptrace tcptrace \"${@: -1}\"; \
                  printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script, "bash", "tcptrace"]).args(words).env("PATH", path).stdin(Stdio::null());
    let out = bash.output().expect("bash runs");
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    assert!(text(&out.stderr).contains("-F _clap_complete_tcptrace tcptrace"), "{out:?}");
    text(&out.stdout).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_what_is_on_this_host() {
    assert_eq!(bash_offers(&["expl"]), ["explain"]);
    assert_eq!(bash_offers(&["explain", "CLOSE_"]), ["CLOSE_WAIT"]);
    assert_eq!(bash_offers(&["conns", "--lp"]), ["--lport"]);
    assert_eq!(
        bash_offers(&["trace", "--state", "TIME_WAIT,CLOS"]),
        ["CLOSE", "CLOSE_WAIT", "CLOSING"].map(|s| format!("TIME_WAIT,{s}"))
    );

    let comm = std::fs::read_to_string("/proc/self/comm").expect("every process has a name");
    assert!(bash_offers(&["conns", "--comm", &comm[..3]]).contains(&comm.trim().to_owned()), "{comm}");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let here = listener.local_addr().expect("bound").port().to_string();
    let client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("room in the backlog");
    let there = client.local_addr().expect("bound").port().to_string();
    assert!(bash_offers(&["conns", "--lport", &here[..2]]).contains(&here), "{here}");
    assert!(bash_offers(&["conns", "--rport", &here[..2]]).contains(&here), "{here}");
    assert!(bash_offers(&["conns", "--port", ""]).contains(&here), "{here}");
    assert!(!bash_offers(&["conns", "--rport", ""]).contains(&there), "an accepted connection's: {there}");
}

#[test]
fn every_shell_gets_its_script() {
    for (shell, calls) in [
        ("bash", "TCPTRACE_COMPLETE=\"bash\""),
        ("zsh", "TCPTRACE_COMPLETE=\"zsh\""),
        ("fish", "TCPTRACE_COMPLETE=fish"),
    ] {
        let out = output(&["completions", shell]);
        assert!(text(&out.stdout).contains(calls), "{out:?}");
    }
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
fn on_a_terminal(arguments: &str, variable: (&str, &str)) -> String {
    on_a_terminal_of(80, arguments, variable)
}

fn on_a_terminal_of(columns: usize, arguments: &str, (name, value): (&str, &str)) -> String {
    let mut script = Command::new("script");
    let run = format!("stty cols {columns}; {} {arguments}", env!("CARGO_BIN_EXE_tcptrace"));
    script.args(["-qec", &run, "/dev/null"]);
    script.env_remove("NO_COLOR").env("TERM", "xterm").env(name, value).stdin(Stdio::null());
    let out = script.output().expect("script of util-linux runs");
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    text(&out.stdout).to_owned()
}

/// A line of text without its SGR sequences.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').expect("a sequence ends").1)
}

#[test]
fn every_command_keeps_colours_for_terminals_that_want_them() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/recordings/rst.rec");
    for command in ["trace", "conns", "conns --by comm,end", "conns --ladder", "queues"] {
        let command = format!("{command} -q --time utc --from {path}");
        let coloured = on_a_terminal(&command, ("TERM", "xterm"));
        assert!(coloured.contains("\x1b["), "{command}: {coloured:?}");
        let plain = on_a_terminal(&command, ("NO_COLOR", "1"));
        assert!(!plain.contains('\x1b'), "{command}: {plain:?}");
        assert_eq!(coloured.lines().map(without_colours).collect::<Vec<_>>(), plain.lines().collect::<Vec<_>>());
        // Nor does a dumb terminal move its cursor.
        let dumb = on_a_terminal(&command, ("TERM", "dumb"));
        assert!(!dumb.contains('\x1b'), "{command}: {dumb:?}");
        let never = on_a_terminal(&format!("{command} --color never"), ("TERM", "xterm"));
        assert_eq!(never, plain, "{command}");
        let words: Vec<&str> = command.split(' ').collect();
        assert!(!output(&words).stdout.contains(&0x1b), "{command}: none in a pipe");
        let always = output(&[&words[..], &["--color", "always"]].concat());
        assert!(text(&always.stdout).contains("\x1b["), "{command}: {always:?}");
        // Green and red, which many cannot tell apart, do not both appear; and nothing is yellow on a light ground.
        for code in coloured.split("\x1b[").skip(1).map(|part| part.split('m').next().unwrap_or_default()) {
            assert!(["0", "1", "2", "35", "36", "1;31"].contains(&code), "{command}: colour {code}");
        }
    }
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
    for arguments in
        [&["trace", "--json", "--from", &path][..], &["trace", "--from", &path], &["docs-events"], &["explain"]]
    {
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
