//! Recordings: what they give back, whole or damaged.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tcptrace::recording::format::{FileHeader, HEADER, Header, VERSION};
use zerocopy::{FromBytes, IntoBytes};

use crate::support::{
    netns::Netns,
    process,
    run::{Run, parse},
    socket::{Pair, Sock, close_in_order, local, pair},
    tracer::{Tracer, netns_list, replay, tcptrace, traced},
    wait_until,
};

/// Some of everything.
fn mixed(ns: &Netns) {
    for port in 7501..7511 {
        let Pair { listener, client, server } = pair(ns, local(port));
        client.send(b"request");
        server.receive(7);
        server.send(&[b'a'; 5000]);
        client.receive(5000);
        if port % 3 == 0 {
            client.linger_zero();
            client.close();
            server.close();
        } else {
            close_in_order(client, server);
        }
        listener.close();
        Sock::new(ns, local(port)).connect(local(port)).expect_err("nobody listens");
    }
    ns.quiet();
}

fn from(command: &str, file: &Path) -> Output {
    process::output(tcptrace().args([command, "--json", "--from"]).arg(file))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Status and a single line of complaint that holds all of `words`.
fn complains(output: &Output, status: i32, words: &[&str]) {
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{err}");
    assert_eq!(err.lines().count(), 1, "one line: {err}");
    for word in words {
        assert!(err.contains(word), "{word:?} in {err}");
    }
}

#[test]
fn live_output_and_replay_are_the_same_bytes() {
    let run = traced(mixed);
    assert_eq!(replay("trace", &run.recording), run.text);
    assert_eq!(replay("trace", &run.recording), run.text, "every time");
    assert_eq!(replay("conns", &run.recording), run.conns_text, "every time");
    // From a pipe too.
    let mut stdin = tcptrace();
    stdin.args(["conns", "--json", "--from", "-"]);
    let mut child =
        process::spawn(stdin.stdin(fs::File::open(&run.recording).expect("the recording")).stdout(Stdio::piped()));
    let mut piped = String::new();
    std::io::Read::read_to_string(&mut child.child().stdout.take().expect("piped"), &mut piped).expect("UTF-8");
    assert!(child.wait().success());
    assert_eq!(piped, run.conns_text);
}

#[test]
fn live_conns_and_replay_are_the_same_bytes() {
    let ns = Netns::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (out, file) = (dir.path().join("out"), dir.path().join("conns.rec"));
    let mut command = tcptrace();
    command.args(["conns", "--json", "--netns", &netns_list(&[&ns]), "--record"]).arg(&file);
    let mut child = process::spawn(command.stdout(fs::File::create(&out).expect("our directory")));
    child.started(&out);
    mixed(&ns);
    child.signal(libc::SIGTERM);
    assert!(child.wait().success());
    let live = fs::read_to_string(&out).expect("our file");
    assert_eq!(replay("conns", &file), live);
    assert_eq!(parse(&live).iter().filter(|l| l["type"] == "connection" && l["role"] != "listener").count(), 30);
}

#[test]
fn record_alone_is_enough() {
    let ns = Netns::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("only.rec");
    let mut command = tcptrace();
    command.args(["record", "--netns", &netns_list(&[&ns])]).arg(&file);
    let mut child = process::spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    // It says on stderr that it records once it does.
    let (line, _stderr) = process::first_line(child.child().stderr.take().expect("piped"));
    assert!(line.contains("only.rec"), "{line}");
    mixed(&ns);
    child.signal(libc::SIGINT);
    assert!(child.wait().success());
    let conns = replay("conns", &file);
    assert_eq!(parse(&conns).iter().filter(|l| l["type"] == "connection" && l["role"] != "listener").count(), 30);
    assert!(conns.ends_with('\n') && conns.lines().last().is_some_and(|l| l.contains("\"summary\"")), "{conns}");
}

/// The lines of `part` must be the first ones of `whole`, those about the end of a run aside.
fn is_prefix(part: &str, whole: &str) -> usize {
    let transitions = |text: &str| {
        text.lines().filter(|l| l.contains("\"type\":\"transition\"")).map(str::to_owned).collect::<Vec<_>>()
    };
    let (part, whole) = (transitions(part), transitions(whole));
    assert!(whole.starts_with(&part), "{} lines are not the first of {}", part.len(), whole.len());
    part.len()
}

#[test]
fn cut_off_anywhere() {
    let run = traced(mixed);
    let whole = fs::read(&run.recording).expect("the recording");
    let cut = run.recording.with_file_name("cut.rec");
    let mut most = 0;
    for percent in [30, 60, 90, 99] {
        fs::write(&cut, &whole[..whole.len() * percent / 100]).expect("our directory");
        let output = from("trace", &cut);
        complains(&output, 1, &["cut.rec", "cut off"]);
        most = most.max(is_prefix(text(&output.stdout), &run.text));
    }
    fs::write(&cut, &whole[..whole.len() - 1]).expect("our directory");
    let output = from("trace", &cut);
    complains(&output, 1, &["cut.rec", "cut off"]);
    is_prefix(text(&output.stdout), &run.text);
}

#[test]
fn killed_while_recording() {
    let ns = Netns::new();
    let tracer = Tracer::start(&[&ns]);
    mixed(&ns);
    tracer.wait_for("the last connection", |l| l["type"] == "transition" && l["rport"] == 7510);
    let (dir, file) = tracer.kill();
    let output = from("conns", &file);
    complains(&output, 1, &["trace.rec", "cut off"]);
    let conns = parse(text(&output.stdout));
    assert!(conns.iter().all(|l| l["type"] != "connection" || l["gaps"] == 0), "{conns:?}");
    drop(dir);
}

/// The recording with one bit of the byte at `percent` of it turned over.
fn flipped(run: &Run, percent: usize) -> Output {
    let mut bytes = fs::read(&run.recording).expect("the recording");
    let at = bytes.len() * percent / 100;
    bytes[at] ^= 0x10;
    let file = run.recording.with_file_name("flipped.rec");
    fs::write(&file, bytes).expect("our directory");
    from("trace", &file)
}

#[test]
fn one_bit_turned_over() {
    let run = traced(mixed);
    for percent in [20, 50, 80] {
        let output = flipped(&run, percent);
        complains(&output, 1, &["flipped.rec"]);
        // Timelines are numbered as they are found, and what was lost is not known of them: the rest is as it was.
        let fact = |l: &Value| ["sock", "mono_ns", "from", "to"].map(|name| l[name].clone());
        let known: Vec<_> = run.of_type("transition").map(fact).collect();
        for line in parse(text(&output.stdout)).iter().filter(|l| l["type"] == "transition") {
            assert!(known.contains(&fact(line)), "made up: {line}");
        }
    }
}

#[test]
fn quick_not_a_recording() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("file.txt");
    for content in [&b""[..], b"x", b"just some text\n", &[0; 4096]] {
        fs::write(&file, content).expect("our directory");
        let output = from("trace", &file);
        let what = if content.is_empty() { "empty" } else { "not a tcptrace recording" };
        complains(&output, 1, &["file.txt", what]);
        assert!(output.stdout.is_empty());
    }
    let output = from("trace", &dir.path().join("nothing"));
    complains(&output, 1, &["nothing"]);
    complains(&from("trace", dir.path()), 1, &[dir.path().to_str().expect("UTF-8")]);
}

#[test]
fn newer_version() {
    let run = traced(|_| {});
    let mut bytes = fs::read(&run.recording).expect("the recording");
    let (header, _) = FileHeader::read_from_prefix(&bytes).expect("a header");
    let newer =
        FileHeader { version: (VERSION + 1).into(), program: *b"99.0.0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", ..header }
            .sealed();
    bytes[..HEADER].copy_from_slice(newer.as_bytes());
    let file = run.recording.with_file_name("newer.rec");
    fs::write(&file, bytes).expect("our directory");
    let output = from("trace", &file);
    complains(&output, 1, &["newer.rec", "newer", &(VERSION + 1).to_string()]);
    assert!(output.stdout.is_empty());
}

#[test]
fn full_disk() {
    let ns = Netns::new();
    let mut command = tcptrace();
    command.args(["record", "--netns", &netns_list(&[&ns]), "/dev/full"]);
    let mut child = process::spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    let stderr = child.child().stderr.take().expect("piped");
    wait_until("the recorder to give up", || {
        Sock::new(&ns, local(9)).connect(local(9)).expect_err("nobody listens");
        child.child().try_wait().expect("our child").is_some()
    });
    assert_eq!(child.wait().code(), Some(1));
    let err: Vec<_> = BufReader::new(stderr).lines().map_while(Result::ok).collect();
    assert!(err.last().is_some_and(|l| l.contains("/dev/full") && l.contains("No space left")), "{err:?}");
}

#[test]
fn record_into_a_pipe() {
    let ns = Netns::new();
    let mut command = tcptrace();
    command.args(["record", "--netns", &netns_list(&[&ns]), "-"]);
    let mut child = process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let (line, mut stderr) = process::first_line(child.child().stderr.take().expect("piped"));
    assert!(line.contains("standard output"), "{line}");
    let mut show = tcptrace();
    show.args(["conns", "--json", "--from", "-"]).stdin(child.child().stdout.take().expect("piped"));
    let mut show = process::spawn(show.stdout(Stdio::piped()).stderr(Stdio::piped()));
    Sock::new(&ns, local(7512)).connect(local(7512)).expect_err("nobody listens");
    ns.quiet();
    child.signal(libc::SIGTERM);
    assert!(child.wait().success());
    let (mut err, mut out) = (String::new(), String::new());
    std::io::Read::read_to_string(&mut stderr, &mut err).expect("UTF-8");
    assert!(err.contains(" events lost") && !err.contains("--from"), "{err}");
    std::io::Read::read_to_string(&mut show.child().stdout.take().expect("piped"), &mut out).expect("UTF-8");
    assert!(show.wait().success());
    let lines = parse(&out);
    assert_eq!(lines.iter().filter(|l| l["end"] == "refused" && l["rport"] == 7512).count(), 1, "{lines:?}");
    assert_eq!(lines.last().map(|l| &l["type"]), Some(&"summary".into()));
}

/// A recorder (`tcptrace COMMAND --netns NS OPTION FILE`) on a file system of one page, until it gives up: its standard output. Its file
/// must hold whole blocks.
fn disk_fills_up(command: &str, option: &str) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ns = Netns::new();
    // Seen by the tracer alone; its content is copied out when the tracer has given up.
    let script = "mount -t tmpfs -o size=4k tmpfs \"$1\" && { \"$0\" $4 --netns \"$2\" $5 \"$1/small.rec\"; r=$?; \
                  cat \"$1/small.rec\" >\"$3\"; exit $r; }";
    let (mount, copy) = (dir.path().join("mount"), dir.path().join("copy.rec"));
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    fs::create_dir(&mount).expect("our directory");
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-c", script]).arg(tcptrace().get_program()).arg(&mount).arg(netns_list(&[&ns]));
    shell.arg(&copy).args([command, option]);
    shell.stdout(fs::File::create(&out).expect("our directory")).stderr(fs::File::create(&err).expect("our directory"));
    let mut child = process::spawn(&mut shell);
    wait_until("the recorder to give up", || {
        for _ in 0..50 {
            Sock::new(&ns, local(9)).connect(local(9)).expect_err("nobody listens");
        }
        child.child().try_wait().expect("our child").is_some()
    });
    assert_eq!(child.wait().code(), Some(1));
    let err = fs::read_to_string(err).expect("our file");
    assert!(err.ends_with("small.rec: No space left on device; make room, or write elsewhere\n"), "{err}");
    let output = from("trace", &copy);
    complains(&output, 1, &["copy.rec", "cut off"]);
    parse(text(&output.stdout));
    fs::read_to_string(out).expect("our file")
}

#[test]
fn full_disk_leaves_whole_blocks() {
    assert_eq!(disk_fills_up("record", ""), "");
}

#[test]
fn full_disk_beside_the_output() {
    // What was received is printed all the same, to the last line.
    let lines = parse(&disk_fills_up("trace --json", "--record"));
    assert_eq!(lines.first().map(|l| &l["type"]), Some(&"start".into()), "{lines:?}");
    assert!(lines.iter().any(|l| l["type"] == "transition"), "{lines:?}");
    assert_eq!(lines.last().map(|l| &l["type"]), Some(&"summary".into()), "{lines:?}");
}

#[test]
fn closed_pipe() {
    let ns = Netns::new();
    // Something to tell of queues.
    let _listener = Sock::listen(&ns, local(10), 4);
    for command in ["trace", "conns", "queues"] {
        let mut tracer = tcptrace();
        tracer.args([command, "--json", "--netns", &netns_list(&[&ns])]);
        let mut child = process::spawn(tracer.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let (line, stdout) = process::first_line(child.child().stdout.take().expect("piped"));
        assert!(line.contains("\"start\""), "{line}");
        drop(stdout);
        wait_until("the tracer to notice", || {
            Sock::new(&ns, local(9)).connect(local(9)).expect_err("nobody listens");
            child.child().try_wait().expect("our child").is_some()
        });
        let status = child.wait();
        let mut err = String::new();
        std::io::Read::read_to_string(&mut child.child().stderr.take().expect("piped"), &mut err).expect("UTF-8");
        assert_eq!(status.code(), Some(0), "{err}");
        assert!(!err.contains("panicked") && !err.contains("pipe"), "{err}");
    }
}
