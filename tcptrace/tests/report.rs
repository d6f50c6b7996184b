//! `report` of a recording of real traffic, `recordings/mixed.rec`: what it prints, and that its numbers are those of `conns`.

#[path = "support/report.rs"]
mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use jiff::tz::TimeZone;
use serde_json::Value;
use support::{json, output, parsed, printed, recording, tcptrace, utf8};
use tcptrace::{
    detect::{self, Detect},
    filter::Filter,
    frame::{Frames, fact},
    pipeline::{self, Gate, Gather, Messages, Records, Stop},
    recording::Writer,
    report::Report,
    sink::{
        html,
        text::{self, Look, TimeMode},
    },
    source::Replay,
};
use tcptrace_common::record::{Head, Open, Owner, Tuple, kind};
use zerocopy::IntoBytes as _;

struct Never;
impl Stop for Never {
    async fn wanted(&mut self) {
        std::future::pending::<()>().await;
    }
}

/// What a file comes to, with ladders.
fn report(file: &Path) -> Report {
    let mut report = Report::new("mixed.rec".to_owned(), 5);
    let mut source = Replay::open(file).expect("it is there");
    let mut gate = Gate::new(Gather(&mut report), Records::Report, Filter::default(), None);
    gate.detect = Some(Box::new(Detect::new(detect::config::Config::default())));
    gate.ladders = Some(Box::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut never = Never;
    let run = pipeline::run(&mut source, None, gate, Messages::default(), None, &mut never);
    runtime.block_on(run).expect("a recording");
    report
}

fn look(width: usize) -> Look {
    let (time, zone) = (TimeMode::Utc, TimeZone::UTC);
    Look { width: Some(width), follow: false, color: false, time, zone, header: false, ascii: false }
}

fn page(look: Look) -> String {
    utf8(text::report(&report(&recording()), look))
}

/// The file's path is not the same everywhere.
fn without_path(text: &str) -> String {
    text.replace(recording().to_str().expect("UTF-8"), "mixed.rec")
}

#[test]
fn in_80_columns() {
    let text = printed(&["report", "--time", "utc"], &recording());
    insta::assert_snapshot!(without_path(&text));
    assert_eq!(page(look(80)), without_path(&text), "a pipe is as wide");
}

#[test]
fn in_40_and_in_120_columns() {
    insta::assert_snapshot!([40, 120].map(|width| page(look(width))).join("\n"));
}

#[test]
fn in_any_width_lines_fit() {
    for width in [20, 39, 50, 72, 79, 100, 300] {
        for line in page(look(width)).lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
}

#[test]
fn in_ascii() {
    let text = page(Look { ascii: true, ..look(80) });
    assert!(text.is_ascii(), "{text}");
    for (plain, unicode) in text.lines().zip(page(look(80)).lines()) {
        assert_eq!(plain.chars().count(), unicode.chars().count(), "{plain}");
    }
    let mut command = tcptrace(&["report"], &recording());
    assert!(utf8(command.env("LC_ALL", "C").output().expect("it runs").stdout).is_ascii());
}

#[test]
fn in_colour_it_says_the_same() {
    let colored = page(Look { color: true, ..look(80) });
    assert!(colored.contains("\x1b[1;31m"), "{colored}");
    let mut plain = String::new();
    let mut rest = colored.as_str();
    while let Some((text, code)) = rest.split_once("\x1b[") {
        plain.push_str(text);
        rest = code.split_once('m').expect("a colour").1;
    }
    assert_eq!(plain + rest, page(look(80)));
}

#[test]
fn as_json() {
    let text = printed(&["report", "--json"], &recording());
    insta::assert_snapshot!(without_path(&text));
}

/// Connections as `conns --json` tells them.
fn connections(file: &Path) -> Vec<Value> {
    let text = printed(&["conns", "--json", "--from"], file);
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|line| line["type"] == "connection").collect()
}

fn sum(connections: &[Value], field: &str) -> u64 {
    connections.iter().filter_map(|c| c[field].as_u64()).sum()
}

fn counts<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<String, u64> {
    names.fold(BTreeMap::new(), |mut counts, name| {
        *counts.entry(name.to_owned()).or_default() += 1;
        counts
    })
}

fn numbers(object: &Value) -> BTreeMap<String, u64> {
    let fields = object.as_object().expect("an object").iter();
    fields.filter_map(|(name, n)| n.as_u64().filter(|n| *n > 0).map(|n| (name.clone(), n))).collect()
}

/// The values of `field` that connections have, largest first.
fn largest(connections: &[Value], field: &str) -> Vec<u64> {
    let mut values: Vec<_> = connections.iter().filter_map(|c| c[field].as_u64()).collect();
    values.sort_unstable_by_key(|&n| std::cmp::Reverse(n));
    values
}

#[test]
fn its_numbers_are_those_of_conns() {
    let file = recording();
    let (report, conns) = (json(&["--top", "1000"], &file), connections(&file));
    assert!(conns.len() > 100);
    let totals = &report["totals"];
    assert_eq!(totals["connections"], conns.len());
    for role in ["client", "server"] {
        assert_eq!(totals[role], conns.iter().filter(|c| c["role"] == role).count(), "{role}");
    }
    assert_eq!(totals["preexisting"], conns.iter().filter(|c| c["preexisting"] == true).count());
    for field in ["bytes_sent", "bytes_received", "bytes_retrans", "segs_out", "segs_in", "retrans", "synack_retrans"] {
        assert_eq!(totals[field], sum(&conns, field), "{field}");
    }
    let clients: Vec<_> = conns.iter().filter(|c| c["role"] == "client").cloned().collect();
    assert_eq!(totals["syn_retrans"], sum(&clients, "syn_retrans"));
    assert_eq!(numbers(&report["ends"]), counts(conns.iter().filter_map(|c| c["end"].as_str())));
    let closed = conns.iter().filter(|c| c["end"] != "open").filter_map(|c| c["closed_by"].as_str());
    assert_eq!(numbers(&report["closed_by"]), counts(closed));

    for (spread, field) in [
        ("handshake_us", "handshake_us"),
        ("accept_wait_us", "accept_wait_us"),
        ("srtt_us", "srtt_us"),
        ("duration_us", "duration_us"),
    ] {
        let values = largest(&conns, field);
        assert_eq!(report[spread]["count"], values.len(), "{field}");
        assert_eq!(report[spread]["max"], values[0], "{field}");
        let median = values[values.len() / 2];
        let told = report[spread]["p50"].as_u64().expect("a median");
        assert!(told.abs_diff(median) * 100 <= median * 4, "{field}: {told}, should be {median}");
    }
    for (list, field) in [
        ("slowest_handshakes", "handshake_us"),
        ("longest_accept_waits", "accept_wait_us"),
        ("longest_lived", "duration_us"),
        ("most_retransmitted", "retrans"),
    ] {
        let told: Vec<_> =
            report[list].as_array().expect("a list").iter().map(|c| c[field].as_u64().expect(field)).collect();
        let mut want = largest(&conns, field);
        want.retain(|&n| n > 0 || field != "retrans");
        assert_eq!(told, want, "{list}");
        for c in report[list].as_array().expect("a list") {
            let same = conns.iter().find(|other| other["id"] == c["id"]).expect("its id is that of a connection");
            for name in c.as_object().expect("an object").keys() {
                assert_eq!(c[name], same[name], "{name} of {c}");
            }
        }
    }
    let peers = report["peers"].as_array().expect("peers");
    let all: u64 = peers.iter().map(|p| p["connections"].as_u64().expect("a number")).sum();
    assert_eq!(all, conns.len() as u64, "each has one peer");
    for p in peers {
        let of: Vec<_> = conns
            .iter()
            .filter(|c| c["raddr"] == p["raddr"] && c["role"] == p["role"])
            .filter(|c| p["rport"].is_null() || c["rport"] == p["rport"])
            .cloned()
            .collect();
        assert_eq!(p["connections"], of.len(), "{p}");
        assert_eq!(p["bytes_received"], sum(&of, "bytes_received"), "{p}");
    }
    for l in report["listeners"].as_array().expect("listeners") {
        let of = conns.iter().filter(|c| c["role"] == "server" && c["lport"] == l["lport"]);
        assert_eq!(l["connections"], of.count(), "{l}");
    }
}

#[test]
fn queues_are_those_of_queues() {
    let file = recording();
    let report = json(&["--top", "1000"], &file);
    let text = printed(&["queues", "--json", "--from"], &file);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for l in report["listeners"].as_array().expect("listeners") {
        let of: Vec<_> =
            lines.iter().filter(|line| line["type"] == "listener" && line["lport"] == l["lport"]).collect();
        assert_eq!(l["intervals"], of.len(), "{l}");
        for field in ["completed", "accepted"] {
            assert_eq!(l[field], of.iter().filter_map(|line| line[field].as_u64()).sum::<u64>(), "{field} of {l}");
        }
        for queue in ["syn_queue", "accept_queue"] {
            let peak = of.iter().filter_map(|line| line[queue]["peak"].as_u64()).max();
            assert_eq!(l[queue]["peak"].as_u64(), peak, "{queue} of {l}");
        }
        for (reason, n) in l["dropped"].as_object().expect("an object") {
            let sum: u64 = of.iter().filter_map(|line| line["dropped"][reason].as_u64()).sum();
            assert_eq!(n, sum, "{reason} of {l}");
        }
    }
}

#[test]
fn filters_are_those_of_conns() {
    let file = recording();
    let report = json(&["--rport", "9100"], &file);
    let of = connections(&file).iter().filter(|c| c["rport"] == 9100 && c["role"] != "listener").count();
    assert!(of > 5);
    assert_eq!(report["totals"]["connections"], of);
    assert_eq!(report["recordings"][0]["filters"]["rport"], "9100");
    let failed = json(&["--failed"], &file);
    assert_eq!(failed["ends"]["fin"], Value::Null);
    assert!(failed["ends"]["refused"].as_u64() > Some(5));
}

#[test]
fn what_looks_wrong_is_what_was_made() {
    let report = json(&[], &recording());
    let checks: Vec<_> =
        report["wrong"].as_array().expect("a list").iter().map(|w| w["check"].as_str().unwrap()).collect();
    assert_eq!(checks, ["accept-queue-full", "refused", "resets", "resets"]);
    // Each names a command that there is.
    for wrong in report["wrong"].as_array().expect("a list") {
        let next = wrong["next"].as_str().expect("a command");
        let arguments: Vec<_> = next.split(' ').skip(1).collect();
        let out = Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(&arguments).output().expect("it runs");
        assert!(out.status.success(), "{next}");
    }
    // Without the one that resets nothing of it is said.
    let healthy = json(&["--rport", "80"], &recording());
    assert_eq!(healthy["wrong"], Value::Array(vec![]), "{healthy}");
}

#[test]
fn the_page_is_well_formed_and_has_everything() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("page.html");
    let out = output(&["report", "--html", file.to_str().expect("UTF-8")], &recording());
    assert!(out.status.success() && out.stdout.is_empty());
    assert!(utf8(out.stderr).contains("page.html"));
    let html = fs::read_to_string(&file).expect("written");
    let document = parsed(&html);
    let sections: Vec<_> =
        document.descendants().filter(|n| n.has_tag_name("section")).filter_map(|n| n.attribute("id")).collect();
    for id in [
        "recording",
        "totals",
        "wrong",
        "listeners",
        "peers",
        "processes",
        "slowest",
        "waits",
        "longest",
        "retransmitted",
        "ends",
        "times",
        "loss",
        "ladders",
    ] {
        assert!(sections.contains(&id), "{id}");
    }
    let charts: Vec<_> =
        document.descendants().filter(|n| n.has_tag_name("svg")).filter_map(|n| n.attribute("id")).collect();
    for id in ["over-time", "queue-0", "handshakes", "lifetimes", "ladder-0"] {
        assert!(charts.contains(&id), "{id} of {charts:?}");
    }
    for svg in document.descendants().filter(|n| n.has_tag_name("svg")) {
        let names = ["title", "desc"].map(|name| svg.children().find(|n| n.has_tag_name(name)).and_then(|n| n.text()));
        assert!(names.iter().all(|text| text.is_some_and(|text| text.len() > 10)), "{names:?}");
    }
    // Text says the same.
    for text in ["10.7.0.1:8080", "4 SYNs dropped", "tcptrace explain backlog", "python3[", "connect timeout"] {
        assert!(html.contains(text), "{text}");
    }
    // To standard output, too.
    assert_eq!(printed(&["report", "--html", "-"], &recording()), html);
}

/// A recording made on a host that is called `name`, of a refused connection of each of the processes.
fn recorded(name: &[u8; 16], cgroups: &[fact::Cgroup], owners: &[Owner], dir: &Path) -> PathBuf {
    let file = dir.join("hostile.rec");
    let mut frames = Frames::default();
    let host = String::from_utf8_lossy(name).into_owned();
    let degraded = vec![host.clone()];
    frames.push_fact(fact::kind::START, 1, &fact::Start { host, degraded, ..fact::Start::default() });
    frames.push_fact(fact::kind::CLOCK, 1, &fact::Clock { offset_ns: 1_795_262_584_000_000_000 });
    frames.push_fact(fact::kind::SNAPSHOT, 2, &fact::Snapshot::default());
    cgroups.iter().for_each(|cgroup| frames.push_fact(fact::kind::CGROUP, 3, cgroup));
    for (sock, &owner) in (9..).zip(owners) {
        let head = Head { ts: 1000, sock, kind: kind::OPEN, from: 7, to: 2, seq: 1, ..Head::default() };
        let tuple = Tuple { raddr: [7; 16], rport: 80, family: 10, netns: 1, ..Tuple::default() };
        frames.push(0, Open { head, tuple, owner }.as_bytes());
        let closed = tcptrace_common::record::Closed {
            head: Head { ts: 9000, kind: kind::CLOSED, from: 2, to: 7, err: 111, seq: 2, ..head },
            ..tcptrace_common::record::Closed::default()
        };
        frames.push(0, closed.as_bytes());
    }
    frames.push_fact(fact::kind::END, 1_000_000_000, &fact::End::default());
    let mut writer = Writer::create(&file).expect("our directory");
    writer.write(frames.as_bytes()).expect("room");
    writer.finish(0).expect("room");
    file
}

/// A recording of a process that is called `name`, in a container and a unit that are called so, too.
fn hostile(name: &[u8; 16], dir: &Path) -> PathBuf {
    let text = String::from_utf8_lossy(name).replace('/', "-");
    let path = format!("/system.slice/{text}.service/docker-{}.scope", "0".repeat(64));
    let cgroup = fact::Cgroup { id: 3, path, container: Some(text), pod: None };
    recorded(name, &[cgroup], &[Owner { pid: 5, tid: 5, comm: *name, cgroup: 3, ..Owner::default() }], dir)
}

#[test]
fn processes_are_told_with_where_they_are() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let cgroup = |id: u64, path: String, container: Option<&str>| fact::Cgroup {
        id,
        path,
        container: container.map(str::to_owned),
        pod: None,
    };
    let docker = |digit: &str| format!("/system.slice/docker-{}.scope", digit.repeat(64));
    let cgroups = [
        cgroup(1, docker("a"), None),
        cgroup(2, docker("b"), Some("web")),
        cgroup(3, "/system.slice/backup.service".to_owned(), None),
    ];
    let named = |comm: &[u8], pid, cgroup| {
        let mut owner = Owner { pid, tid: pid, cgroup, ..Owner::default() };
        owner.comm[..comm.len()].copy_from_slice(comm);
        owner
    };
    let owners = [
        named(b"python3", 5, 1),
        named(b"python3", 6, 2),
        named(b"python3", 6, 2),
        named(b"rsync", 7, 3),
        named(b"rsync", 8, 0),
        named(b"curl", 9, 0),
    ];
    let file = recorded(b"a host, nameless", &cgroups, &owners, dir.path());
    let text = utf8(text::report(&report(&file), look(120)));
    let table: Vec<_> = text.lines().skip_while(|line| !line.trim_start().starts_with("PROCESS ")).take(4).collect();
    let starts = [
        "PROCESS    CONTAINER       UNIT ",
        "python3 ×2 aaaaaaaaaaaa +1 - ",
        "rsync ×2   -               backup.service ",
    ];
    for (line, start) in table.iter().zip(starts) {
        assert!(line.trim_start().starts_with(start), "{line:?} in {text}");
    }
    assert!(table[3].contains("curl[9]") && !table[3].contains(".service"), "{text}");
    for width in [40, 60, 80] {
        let text = utf8(text::report(&report(&file), look(width)));
        assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
    }
    let json = json(&[], &file);
    let [python, rsync, curl] = [0, 1, 2].map(|i| &json["processes"][i]);
    assert_eq!(python["containers"], serde_json::json!(["a".repeat(64), "web"]));
    assert_eq!(rsync["units"], serde_json::json!(["backup.service"]));
    assert!(rsync.get("containers").is_none() && curl.get("units").is_none(), "{json}");
    let html = html::page(&report(&file), &look(80));
    let document = parsed(&html);
    let section = document.descendants().find(|n| n.attribute("id") == Some("processes")).expect("a section");
    let text: String = section.descendants().filter_map(|n| n.text()).collect();
    assert!(["aaaaaaaaaaaa +1", "backup.service"].iter().all(|name| text.contains(name)), "{text}");
}

#[test]
fn names_from_outside_stay_names() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in [
        b"</title><script>",
        b"'\"><svg onload= ",
        b"&lt;&amp;\x1b[2J\x00\x00\x00",
        b"]]>\xff\xfe\xef\xbf\xbe<!--\x00\x00\x00\x00",
    ] {
        let file = hostile(name, dir.path());
        let html = html::page(&report(&file), &look(80));
        let document = parsed(&html);
        let mut shown = Vec::new();
        tcptrace::sink::escape::text(&mut shown, name.split(|&b| b == 0).next().expect("a name"));
        let shown = utf8(shown).replace('\u{fffe}', "\u{fffd}");
        let text: Vec<_> = document.descendants().filter_map(|n| n.text()).collect();
        assert!(text.iter().any(|text| text.contains(&shown)), "{shown:?} in {text:?}");
        let page = utf8(text::report(&report(&file), look(80)));
        assert!(!page.contains('\x1b') && page.contains("[5]"), "{page}");
        let process = &json(&[], &file)["processes"][0];
        assert_eq!((&process["pid"], process["containers"].as_array().map(Vec::len)), (&5.into(), Some(1)));
    }
}

#[test]
fn a_pipe_in_and_a_pipe_that_closes() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(["report", "-", "--time", "utc"]).env("LC_ALL", "C.UTF-8");
    let out = command.stdin(fs::File::open(recording()).expect("it is there")).output().expect("it runs");
    assert!(out.status.success());
    let text = utf8(out.stdout);
    assert!(text.starts_with("standard input\n"), "{text}");
    assert_eq!(text.replacen("standard input", "mixed.rec", 1), page(look(80)));
    // Nobody reads: the end of the work, not a failure.
    for arguments in [&["report"][..], &["report", "--json"], &["report", "--html", "-"]] {
        let mut child = tcptrace(arguments, &recording());
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        drop(child.stdout.take());
        let status = child.wait().expect("our child");
        let mut err = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut err).expect("UTF-8");
        assert!(status.success() && err.is_empty(), "{status}: {err}");
    }
}
