//! The flight recorder and recordings in parts, with real traffic. Not among the live tests, which run on emulated machines, too: nothing
//! here depends on the kernel.

#[path = "live/support/mod.rs"]
#[expect(dead_code, reason = "the live tests use the rest")]
mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    netns::Netns,
    process::{self, Running},
    run::parse,
    socket::{Pair, Sock, close_in_order, local, pair},
    tracer::{netns_list, replay, tcptrace, tier},
    wait_until,
};

/// A running `tcptrace record`.
struct Recorder {
    child: Running,
    dir: TempDir,
    err: PathBuf,
}

impl Recorder {
    /// To a file of this name. Returns when nothing that happens from now on is missed.
    fn start(ns: &Netns, args: &[&str], name: &str) -> Self {
        Self::start_in(ns, args, tempfile::tempdir().expect("a temporary directory"), name)
    }

    fn start_in(ns: &Netns, args: &[&str], dir: TempDir, name: &str) -> Self {
        let err = dir.path().join("err");
        let mut command = tcptrace();
        command
            .args(["record", "--tier", &tier(), "--netns", &netns_list(&[ns])])
            .args(args)
            .arg(dir.path().join(name));
        command.stdout(Stdio::null()).stderr(fs::File::create(&err).expect("our directory"));
        let mut child = process::spawn(&mut command);
        child.wait_for("Ctrl-C ends it", || fs::read_to_string(&err).expect("our file"));
        Self { child, dir, err }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn messages(&self) -> String {
        fs::read_to_string(&self.err).expect("our file")
    }

    /// Ask for a dump, or how far it is, and wait for the line that has `wanted`.
    fn poke(&mut self, wanted: &str) {
        self.child.signal(libc::SIGUSR1);
        let err = self.err.clone();
        self.child.wait_for(wanted, || fs::read_to_string(&err).expect("our file"));
    }

    /// End it as SIGTERM does: its status and what it said.
    fn stop(&mut self) -> (Option<i32>, String) {
        self.child.signal(libc::SIGTERM);
        let status = self.child.wait().code();
        (status, self.messages())
    }
}

/// The connections that a recording tells, its start, its summary.
fn told(file: &Path) -> (Vec<Value>, Value, Value) {
    let mut lines = parse(&replay("conns", file));
    let (start, summary) = (lines.remove(0), lines.pop().expect("a summary"));
    assert_eq!((&start["type"], &summary["type"]), (&"start".into(), &"summary".into()), "{lines:?}");
    assert_eq!(summary["lost"], 0, "{summary}");
    lines.retain(|line| line["type"] == "connection");
    for line in &lines {
        assert_eq!(line["gaps"], 0, "{line}");
    }
    (lines, start, summary)
}

fn at(lines: &[Value], lport: u16, rport: u16) -> Option<&Value> {
    let mut found = lines.iter().filter(|line| line["lport"] == lport && line["rport"] == rport);
    let one = found.next();
    assert!(found.next().is_none(), "two of {lport} and {rport}: {lines:?}");
    one
}

/// Both ends of an open connection are told, whole.
fn is_whole(lines: &[Value], pair: &Pair) {
    let (client, server) = (pair.client.local().port(), pair.server.local().port());
    for (lport, rport, role, first) in [(client, server, "client", "SYN_SENT"), (server, client, "server", "SYN_RECV")]
    {
        let line = at(lines, lport, rport).unwrap_or_else(|| panic!("{lport} to {rport} in {lines:?}"));
        assert_eq!((&line["role"], &line["end"]), (&role.into(), &"open".into()), "{line}");
        assert!(line["preexisting"].is_null() && line["start"].is_string(), "{line}");
        let states = line["states"].as_array().expect("states");
        let names: Vec<_> = states.iter().map(|s| s["state"].as_str().expect("a name")).collect();
        assert!(names.contains(&first) && names.last() == Some(&"ESTABLISHED"), "{line}");
        assert_eq!(line["pid"], std::process::id(), "{line}");
    }
}

/// Wait until all but so many sockets are over: listeners and TIME_WAIT remain.
fn settled(ns: &Netns, open: usize) {
    wait_until("the rest to end", || ns.rows().iter().filter(|row| ![6, 10].contains(&row.2)).count() == open);
}

/// One that begins and ends.
fn short(ns: &Netns, port: u16) {
    let Pair { listener, client, server } = pair(ns, local(port));
    close_in_order(client, server);
    listener.close();
}

#[test]
fn dumps_by_time_have_the_latest_and_what_is_open() {
    let ns = Netns::new();
    let mut recorder = Recorder::start(&ns, &["--ring", "5s"], "crash.rec");
    let open = pair(&ns, local(7601));
    short(&ns, 7602);
    // Older than what the ring keeps.
    std::thread::sleep(Duration::from_secs(8));
    short(&ns, 7603);
    settled(&ns, 2);
    recorder.poke("crash.rec.0001: ");
    short(&ns, 7604);
    settled(&ns, 2);
    recorder.poke("crash.rec.0002: ");
    let (status, messages) = recorder.stop();
    assert_eq!(status, Some(0), "{messages}");
    let summary = messages.lines().last().expect("the last line");
    assert!(summary.contains(" of the last ") && summary.contains("tcptrace conns --from"), "{messages}");
    assert_eq!(messages.matches("tcptrace: wrote ").count(), 2, "{messages}");
    for (name, ended) in [("crash.rec.0001", &[7603][..]), ("crash.rec.0002", &[7603, 7604]), ("crash.rec", &[7604])] {
        let (lines, start, _) = told(&recorder.path(name));
        assert!(start["records_before"].as_u64() > Some(0) && start["cut_mono_ns"].is_u64(), "{name}: {start}");
        assert_eq!((&start["lost_before"], &start["forgotten"]), (&0.into(), &0.into()), "{name}: {start}");
        is_whole(&lines, &open);
        assert!(
            !lines.iter().any(|l| l["lport"] == 7602 || l["rport"] == 7602),
            "{name} is older than that: {lines:?}"
        );
        for port in ended {
            let ends: Vec<_> = lines.iter().filter(|l| l["lport"] == *port || l["rport"] == *port).collect();
            assert_eq!(ends.len(), 2, "{name}: {lines:?}");
            assert!(ends.iter().all(|l| l["end"] == "fin" && l["preexisting"].is_null()), "{name}: {ends:?}");
        }
        // Transitions, and ladders, too.
        let trace = replay("trace", &recorder.path(name));
        assert!(parse(&trace).iter().any(|l| l["type"] == "transition" && l["lport"] == 7604) || name.ends_with('1'));
    }
    drop(open);
}

#[test]
fn a_ring_by_size_lets_go_of_what_is_over() {
    let ns = Netns::new();
    let mut recorder = Recorder::start(&ns, &["--ring", "4M"], "storm.rec");
    let open = pair(&ns, local(7611));
    let listener = Sock::listen(&ns, local(7612), 16);
    // Until the ring has let go of something: its dump says so.
    let mut dumps = 0;
    wait_until("the ring to fill", || {
        for _ in 0..2500 {
            let client = Sock::connected(&ns, local(7612));
            let server = listener.accept();
            client.close();
            server.close();
        }
        dumps += 1;
        let name = format!("storm.rec.{dumps:04}");
        recorder.poke(&format!("{name}: "));
        let start = replay("trace", &recorder.path(&name)).lines().next().map(str::to_owned).expect("a start");
        parse(&start)[0]["records_before"].as_u64() > Some(0)
    });
    let (status, messages) = recorder.stop();
    assert_eq!(status, Some(0), "{messages}");
    let (lines, start, summary) = told(&recorder.path("storm.rec"));
    assert_eq!(start["forgotten"], 0, "{start}");
    is_whole(&lines, &open);
    let over: Vec<_> = lines.iter().filter(|l| l["end"] != "open").collect();
    assert!(over.len() > 5000, "{summary}");
    assert!(over.iter().all(|l| l["preexisting"].is_null() && l["end"] == "fin"), "{summary}");
    // What is over and was let go of is not told.
    let records = start["records_before"].as_u64().expect("a number");
    assert!(summary["events"].as_u64() < Some(records + over.len() as u64 * 8), "{start} {summary}");
    drop(open);
    // To a report, too, what is carried was there before.
    let report = process::run(tcptrace().args(["report", "--json"]).arg(recorder.path("storm.rec")));
    let report = parse(&String::from_utf8(report.stdout).expect("UTF-8")).remove(0);
    assert_eq!(report["recordings"][0]["records_before"], records, "{report}");
    assert_eq!(report["totals"]["connections"], lines.len(), "{report}");
    // Both ends of the one that stayed open, and at most what was open in the moment of the cut.
    let before = report["totals"]["preexisting"].as_u64().expect("a count");
    assert!((2..10).contains(&before), "{report}");
}

#[test]
fn a_dump_that_fails_is_told_and_the_recorder_goes_on() {
    let ns = Netns::new();
    let outer = tempfile::tempdir().expect("a temporary directory");
    let (dir, away) = (outer.path().join("dir"), outer.path().join("away"));
    fs::create_dir(&dir).expect("our directory");
    let mut recorder = Recorder::start_in(&ns, &["--ring", "4M"], outer, "dir/a.rec");
    fs::rename(&dir, &away).expect("our directory");
    recorder.poke("a.rec.0001: No such file or directory; the recording goes on");
    fs::rename(&away, &dir).expect("our directory");
    short(&ns, 7621);
    recorder.poke("wrote ");
    let (status, messages) = recorder.stop();
    // Not everything that was asked for is there.
    assert_eq!(status, Some(1), "{messages}");
    for name in ["a.rec.0001", "a.rec.0002", "a.rec"] {
        assert_eq!(dir.join(name).exists(), name != "a.rec.0001", "{name}: {messages}");
    }
}

#[test]
fn sigusr1_without_a_ring_says_how_far_it_is() {
    let ns = Netns::new();
    let mut recorder = Recorder::start(&ns, &[], "day.rec");
    short(&ns, 7631);
    settled(&ns, 0);
    recorder.poke(" so far");
    let (status, messages) = recorder.stop();
    assert_eq!(status, Some(0), "{messages}");
    assert_eq!(messages.lines().count(), 3, "{messages}");
    assert_eq!(told(&recorder.path("day.rec")).0.len(), 2);
}

#[test]
fn a_ring_goes_into_a_pipe_at_the_end() {
    let ns = Netns::new();
    let mut command = tcptrace();
    command.args(["record", "--tier", &tier(), "--ring", "4M", "--netns", &netns_list(&[&ns]), "-"]);
    let mut child = process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let (line, mut stderr) = process::first_line(child.child().stderr.take().expect("piped"));
    assert!(line.contains("the latest 4.00M") && line.contains("standard output"), "{line}");
    let mut show = tcptrace();
    show.args(["conns", "--json", "--from", "-"]).stdin(child.child().stdout.take().expect("piped"));
    let mut show = process::spawn(show.stdout(Stdio::piped()).stderr(Stdio::piped()));
    short(&ns, 7641);
    ns.quiet();
    child.signal(libc::SIGUSR1);
    let mut said = String::new();
    std::io::BufRead::read_line(&mut stderr, &mut said).expect("UTF-8");
    assert!(said.contains("one recording, at the end"), "{said}");
    child.signal(libc::SIGTERM);
    assert!(child.wait().success());
    let mut out = String::new();
    std::io::Read::read_to_string(&mut show.child().stdout.take().expect("piped"), &mut out).expect("UTF-8");
    assert!(show.wait().success());
    assert_eq!(parse(&out).iter().filter(|l| l["end"] == "fin").count(), 2, "{out}");
}

/// What of a connection does not depend on who traced it: name, then how often.
fn counted(lines: &[Value]) -> BTreeMap<String, u32> {
    let mut counted = BTreeMap::new();
    for line in lines {
        let states = line["states"].as_array().expect("states").iter().map(|s| s["state"].to_string());
        let states = states.collect::<Vec<_>>().join(">");
        let fields = [
            "sock",
            "lport",
            "rport",
            "role",
            "end",
            "closed_by",
            "bytes_sent",
            "bytes_received",
            "pid",
            "preexisting",
        ];
        let fields = fields.map(|name| line[name].to_string()).join(" ");
        *counted.entry(format!("{fields} {states}")).or_default() += 1;
    }
    counted
}

#[test]
fn parts_tell_together_what_the_whole_tells() {
    let ns = Netns::new();
    let mut whole = Recorder::start(&ns, &[], "whole.rec");
    // Not one of its own.
    let mut parts = Recorder::start(&ns, &["--rotate", "64K"], "part.rec");
    let open = pair(&ns, local(7651));
    let across = pair(&ns, local(7652));
    let listener = Sock::listen(&ns, local(7653), 16);
    let there = |parts: &Recorder, n: u32| parts.path(&format!("part.rec.{n:04}")).exists();
    wait_until("four parts", || {
        for _ in 0..100 {
            let client = Sock::connected(&ns, local(7653));
            let server = listener.accept();
            client.send(b"request");
            server.receive(7);
            close_in_order(client, server);
        }
        there(&parts, 4)
    });
    close_in_order(across.client, across.server);
    settled(&ns, 2);
    let (status, messages) = parts.stop();
    assert_eq!(status, Some(0), "{messages}");
    assert!(messages.lines().last().is_some_and(|l| l.contains(" files, 0 events lost")), "{messages}");
    assert_eq!(whole.stop().0, Some(0));
    let (mut together, mut last) = (Vec::new(), 0);
    for n in (1..).take_while(|&n| there(&parts, n)) {
        last = n;
        let (lines, start, _) = told(&parts.path(&format!("part.rec.{n:04}")));
        assert_eq!(start["records_before"].is_null(), n == 1, "{start}");
        is_whole(&lines, &open);
        together.extend(lines.into_iter().filter(|line| line["end"] != "open"));
    }
    assert!(last >= 4, "{last} parts");
    let (mut lines, ..) = told(&whole.path("whole.rec"));
    lines.retain(|line| line["end"] != "open");
    assert!(lines.len() > 400, "{} connections", lines.len());
    let (together, lines) = (counted(&together), counted(&lines));
    let only = |a: &BTreeMap<String, u32>, b: &BTreeMap<String, u32>| {
        a.iter().filter(|(k, n)| b.get(*k) != Some(n)).map(|(k, _)| k.clone()).take(5).collect::<Vec<_>>()
    };
    assert!(
        together == lines,
        "only in the parts: {:#?}\nonly in the whole: {:#?}",
        only(&together, &lines),
        only(&lines, &together)
    );
    drop(open);
}

#[test]
fn the_latest_parts_are_kept_and_nobody_elses_touched() {
    let ns = Netns::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let others = dir.path().join("day.rec.0007");
    fs::write(&others, "mine").expect("our directory");
    let path = dir.path().to_owned();
    let mut recorder = Recorder::start_in(&ns, &["--rotate", "1s", "--keep", "2"], dir, "day.rec");
    let exists = |n: u32| path.join(format!("day.rec.{n:04}")).exists();
    wait_until("the first part to go", || exists(8));
    // Somebody puts another file in the place of one that was made here.
    wait_until("the second part", || exists(9));
    let (mine, place) = (path.join("other"), path.join("day.rec.0009"));
    fs::write(&mine, "mine, too").expect("our directory");
    fs::rename(&mine, &place).expect("our directory");
    wait_until("more parts", || exists(12));
    let (status, messages) = recorder.stop();
    assert_eq!(status, Some(0), "{messages}");
    assert_eq!(fs::read_to_string(&others).expect("still there"), "mine");
    assert_eq!(fs::read_to_string(&place).expect("still there"), "mine, too");
    let mut left: Vec<_> =
        fs::read_dir(&path).expect("our directory").map(|e| e.expect("a file").file_name()).collect();
    left.sort();
    let last = (1..100).rev().find(|&n| exists(n)).expect("a part");
    assert!(last >= 12 && !exists(8) && !exists(last - 2), "{left:?}");
    // Two of each, and what was said.
    assert_eq!(left.len(), 5, "{left:?}");
    for n in [last - 1, last] {
        told(&path.join(format!("day.rec.{n:04}")));
    }
    assert!(messages.contains(" and 2 files"), "{messages}");
}

#[test]
fn a_full_disk_ends_it_with_what_was_written() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ns = Netns::new();
    let (mount, copies, err) = (dir.path().join("mount"), dir.path().join("copies"), dir.path().join("err"));
    fs::create_dir(&mount).expect("our directory");
    fs::create_dir(&copies).expect("our directory");
    let script = "mount -t tmpfs -o size=200k tmpfs \"$1\" && \
                  { \"$0\" record --rotate 64K --netns \"$2\" \"$1/small.rec\"; r=$?; cp \"$1\"/* \"$3\"; exit $r; }";
    let mut shell = Command::new("unshare");
    shell
        .args(["-m", "sh", "-c", script])
        .arg(tcptrace().get_program())
        .arg(&mount)
        .arg(netns_list(&[&ns]))
        .arg(&copies);
    let mut child = process::spawn(shell.stderr(fs::File::create(&err).expect("our directory")));
    wait_until("the recorder to give up", || {
        for _ in 0..200 {
            Sock::new(&ns, local(9)).connect(local(9)).expect_err("nobody listens");
        }
        child.child().try_wait().expect("our child").is_some()
    });
    assert_eq!(child.wait().code(), Some(1));
    let err = fs::read_to_string(err).expect("our file");
    assert_eq!(err.lines().count(), 2, "{err}");
    assert!(err.ends_with(": No space left on device; make room, or write elsewhere\n"), "{err}");
    let mut files: Vec<_> = fs::read_dir(&copies).expect("our directory").map(|e| e.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() > 2, "{files:?}");
    let last = files.pop().expect("some");
    for file in files {
        assert!(told(&file).0.len() > 100, "{}", file.display());
    }
    let output = process::output(tcptrace().args(["conns", "--json", "--from"]).arg(&last));
    let complaint = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(complaint.contains("cut off") || complaint.contains("empty"), "{complaint}");
}
