//! Who belongs where: users, cgroups, containers and units as filters, and groups of connections.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;

use crate::{
    cgroup::{Cgroup, Mount},
    support::{
        netns::Netns,
        process::{self, me},
        run::parse,
        socket::{Sock, close_in_order, local},
        tracer::{Tracer, netns_list, replay_with, tcptrace, tier},
        wait_until,
    },
};

/// An id that no runtime of this host has given.
const ID: &str = "9e073649debeec6d511391c9ec7627ee67ce3a3fb508b0fa0437a97f8e58ba98";

/// `curl` of a port, to its end, as `user` and in a cgroup.
fn curl(ns: &Netns, port: u16, user: u32, cgroup: Option<&Cgroup>) {
    let mut command = ns.command("curl");
    command.args(["-s", "--http0.9", &format!("http://127.0.0.1:{port}/")]).stdout(Stdio::null());
    if let Some(cgroup) = cgroup {
        let procs = cgroup.path().join("cgroup.procs");
        // SAFETY: opens and writes a file, without a lock.
        unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
    }
    // After the cgroup, which only root may enter.
    // SAFETY: a system call.
    unsafe {
        command.pre_exec(move || match libc::setuid(user) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    process::spawn(&mut command).wait();
}

/// Answers `n` connections, one after the other; the client closes first.
fn serve(listener: &Sock, n: usize) {
    for _ in 0..n {
        let server = listener.accept();
        server.send(b"ok");
        server.shutdown();
        server.receive_all().expect("a request");
        server.close();
    }
}

/// `(key, …) → count, ends` of each group in JSON.
fn groups(text: &str, keys: &[&str]) -> Vec<(Vec<String>, u64, String)> {
    let value = |v: &Value| v.as_str().map_or_else(|| v.to_string(), ToOwned::to_owned);
    let lines = parse(text);
    let groups = lines.iter().filter(|l| l["type"] == "group");
    groups
        .map(|g| {
            let values = keys.iter().map(|key| value(&g[key])).collect();
            (values, g["count"].as_u64().expect("a count"), g["ends"].to_string())
        })
        .collect()
}

fn owned(values: &[&str], count: u64, ends: &str) -> (Vec<String>, u64, String) {
    (values.iter().map(ToString::to_string).collect(), count, ends.to_owned())
}

#[test]
fn groups_of_two_users_and_two_processes() {
    let ns = Netns::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (out, file) = (dir.path().join("out"), dir.path().join("day.rec"));
    let listener = Sock::listen(&ns, local(7970), 16);
    let mut command = tcptrace();
    command.args(["conns", "--json", "--by", "comm,uid,role,rport,end", "--role", "client"]);
    command.args(["--tier", &tier(), "--netns", &netns_list(&[&ns]), "--record"]).arg(&file);
    let stdout = File::create(&out).expect("our directory");
    let mut tracer = process::spawn(command.stdout(stdout).stderr(Stdio::null()));
    tracer.started(&out);
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&listener, 6));
        for user in [0, 4711, 0, 0] {
            curl(&ns, 7970, user, None);
        }
        for _ in 0..2 {
            let client = Sock::connected(&ns, local(7970));
            client.shutdown();
            client.receive_all().expect("an answer");
            client.close();
        }
    });
    curl(&ns, 7971, 4711, None);
    ns.quiet();
    tracer.signal(libc::SIGTERM);
    assert!(tracer.wait().success());
    let text = fs::read_to_string(&out).expect("our file");
    let (_, comm) = me();
    let fin = |n| format!("{{\"fin\":{n}}}");
    let mut expected = vec![
        owned(&["curl", "0", "client", "7970", "fin"], 3, &fin(3)),
        owned(&[&comm, "0", "client", "7970", "fin"], 2, &fin(2)),
        owned(&["curl", "4711", "client", "7970", "fin"], 1, &fin(1)),
        owned(&["curl", "4711", "client", "7971", "refused"], 1, r#"{"refused":1}"#),
    ];
    assert_eq!(groups(&text, &["comm", "uid", "role", "rport", "end"]), expected, "{text}");
    let lines = parse(&text);
    let first = lines.iter().find(|l| l["type"] == "group").expect("groups");
    for time in ["duration_us", "handshake_us", "srtt_us"] {
        let [p50, p99] = ["p50", "p99"].map(|q| first[time][q].as_u64().unwrap_or_else(|| panic!("{time}: {first}")));
        assert!(0 < p50 && p50 <= p99, "{time}: {first}");
    }
    assert_eq!(first["bytes_received"], 6, "{first}");
    assert!(first["bytes_sent"].as_u64() > Some(0), "{first}");
    // The recording says the same, and more if it is asked.
    assert_eq!(replay_with("conns", &file, &["--by", "comm,uid,role,rport,end"]), text);
    let by_user = replay_with("conns", &file, &["--by", "uid", "--failed"]);
    assert_eq!(groups(&by_user, &["uid"]), [owned(&["4711"], 1, r#"{"refused":1}"#)]);
    expected.retain(|(values, ..)| values[1] == "4711");
    let of_user = replay_with("conns", &file, &["--by", "comm,uid,role,rport,end", "--uid", "4711"]);
    assert_eq!(groups(&of_user, &["comm", "uid", "role", "rport", "end"]), expected);
    let none = replay_with("conns", &file, &["--by", "uid", "--min-us", "1h"]);
    assert_eq!(groups(&none, &["uid"]), []);
}

#[test]
fn cgroups_containers_and_units_as_filters() {
    let (ns, mount) = (Netns::new(), Mount::new());
    let slice = Cgroup::at(mount.path().join(format!("tcptracetest-{}.slice", std::process::id())));
    let inside = |name: &str| Cgroup::at(slice.path().join(name));
    let (docker, unit) = (inside(&format!("docker-{ID}.scope")), inside("tcptracetest.service"));
    let below = Cgroup::at(unit.path().join("workers"));
    let path = |cgroup: &Cgroup| cgroup.below(mount.path());
    let listener = Sock::listen(&ns, local(7972), 16);
    let cases: &[(&[&str], &[&str])] = &[
        (&["--cgroup", &path(&slice)], &["below", "docker", "unit"]),
        (&["--cgroup", &path(&unit)], &["below", "unit"]),
        (&["--cgroup", &path(&below)], &["below"]),
        (&["--container", ID], &["docker"]),
        (&["--container", &ID[..12]], &["docker"]),
        (&["--container", "no-such-container"], &[]),
        (&["--unit", "tcptracetest"], &["below", "unit"]),
        (&["--unit", "tcptracetest.service,no-such-unit"], &["below", "unit"]),
        (&["--unit", "tcptracetest", "--uid", "4711"], &["below"]),
    ];
    let tracers: Vec<_> = cases.iter().map(|(args, _)| Tracer::start_with(&[&ns], args)).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&listener, 4));
        curl(&ns, 7972, 0, None);
        curl(&ns, 7972, 0, Some(&docker));
        curl(&ns, 7972, 0, Some(&unit));
        curl(&ns, 7972, 4711, Some(&below));
    });
    ns.quiet();
    for ((args, expected), tracer) in cases.iter().zip(tracers) {
        let run = tracer.stop();
        let mut found: Vec<_> = run
            .conns
            .iter()
            .filter(|c| c.text("role") == "client")
            .map(|c| match c.text("cgroup") {
                p if p == path(&below) => "below",
                p if p == path(&docker) => "docker",
                p if p == path(&unit) => "unit",
                p => panic!("{p}: {}", c.0),
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, *expected, "{args:?}");
        assert_eq!(run.conns.len(), expected.len(), "no server, which is in none of them: {args:?}");
        for c in &run.conns {
            let (container, unit) = match c.text("cgroup") {
                p if p == path(&docker) => (ID, format!("docker-{ID}.scope")),
                _ => ("", "tcptracetest.service".to_owned()),
            };
            assert_eq!((c.text("container"), c.text("unit")), (container, unit.as_str()), "{}", c.0);
        }
    }
}

#[test]
fn a_containers_name_is_what_its_runtime_says() {
    let (ns, mount) = (Netns::new(), Mount::new());
    let slice = Cgroup::at(mount.path().join(format!("tcptracenames-{}.slice", std::process::id())));
    let container = Cgroup::at(slice.path().join(format!("docker-{ID}.scope")));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (out, file) = (dir.path().join("out"), dir.path().join("day.rec"));
    // A runtime's files that the tracer alone sees.
    let state = dir.path().join("lib/docker/containers").join(ID);
    fs::create_dir_all(&state).expect("our directory");
    // A pipe, as files on a slow disk: its reader waits, and so must a filter that rests on what it reads.
    let config = state.join("config.v2.json");
    mknodat(CWD, &config, FileType::Fifo, Mode::RUSR, 0).expect("our directory");
    let script = r#"mount -o bind "$3" /var/lib &&
        exec "$0" conns --json --container web --netns "$1" --record "$2" --tier "$4""#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(tcptrace().get_program()).arg(netns_list(&[&ns]));
    command.arg(&file).arg(dir.path().join("lib")).arg(tier());
    let stdout = File::create(&out).expect("our directory");
    let mut tracer = process::spawn(command.stdout(stdout).stderr(Stdio::null()));
    tracer.started(&out);
    let listener = Sock::listen(&ns, local(7978), 16);
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&listener, 2));
        scope.spawn(|| {
            let mut pipe = None;
            wait_until("a reader of the container's file", || {
                pipe = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&config).ok();
                pipe.is_some()
            });
            thread::sleep(Duration::from_millis(100));
            pipe.expect("waited for").write_all(br#"{"Name":"/web","Config":{}}"#).expect("a pipe");
        });
        curl(&ns, 7978, 0, None);
        curl(&ns, 7978, 0, Some(&container));
    });
    ns.quiet();
    tracer.signal(libc::SIGTERM);
    assert!(tracer.wait().success());
    let text = fs::read_to_string(&out).expect("our file");
    let lines = parse(&text);
    let told: Vec<_> = lines.iter().filter(|l| l["type"] == "connection").collect();
    let [web] = told[..] else { panic!("{text}") };
    assert_eq!([&web["container"], &web["container_id"], &web["comm"]], ["web", ID, "curl"], "{web}");
    // The name is in the recording: this process does not see those files.
    assert_eq!(replay_with("conns", &file, &[]), text);
    let by_name = replay_with("conns", &file, &["--by", "container"]);
    assert_eq!(groups(&by_name, &["container"]), [owned(&["web"], 1, r#"{"fin":1}"#)]);
}

#[test]
fn failed_alone() {
    let ns = Netns::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file: PathBuf = dir.path().join("day.rec");
    let out = dir.path().join("out");
    let mut command = tcptrace();
    command.args(["conns", "--json", "--failed", "--tier", &tier(), "--netns", &netns_list(&[&ns]), "--record"]);
    let mut tracer =
        process::spawn(command.arg(&file).stdout(File::create(&out).expect("our directory")).stderr(Stdio::null()));
    tracer.started(&out);
    let listener = Sock::listen(&ns, local(7974), 16);
    let client = Sock::connected(&ns, local(7974));
    let server = listener.accept();
    Sock::new(&ns, local(9)).connect(local(9)).expect_err("nobody listens");
    close_in_order(client, server);
    ns.quiet();
    tracer.signal(libc::SIGTERM);
    assert!(tracer.wait().success());
    let text = fs::read_to_string(&out).expect("our file");
    let lines = parse(&text);
    let ends: Vec<_> = lines.iter().filter(|l| l["type"] == "connection").map(|l| l["end"].as_str()).collect();
    assert_eq!(ends, [Some("refused")], "{text}");
    assert_eq!(lines[0]["filters"]["failed"], "true");
    // What a recording was made with is asked of its replay, too.
    assert_eq!(replay_with("conns", &file, &[]), text);
    let transitions = replay_with("trace", &file, &[]);
    assert!(parse(&transitions).iter().any(|l| l["type"] == "transition" && l["to"] == "ESTABLISHED"), "{transitions}");
}

/// The table of a run that is not JSON, in a pipe.
#[test]
fn a_table_at_the_end() {
    let ns = Netns::new();
    let listener = Sock::listen(&ns, local(7976), 16);
    let mut command: Command = tcptrace();
    command.args(["conns", "--by", "comm,rport", "--role", "client", "--count", "2", "--tier", &tier()]);
    command.args(["--netns", &netns_list(&[&ns])]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let out = dir.path().join("out");
    let messages = dir.path().join("err");
    let mut tracer = process::spawn(
        command
            .arg("-v")
            .stdout(File::create(&out).expect("our directory"))
            .stderr(File::create(&messages).expect("our directory")),
    );
    tracer.wait_for("at the start", || fs::read_to_string(&messages).expect("our file"));
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&listener, 2));
        (0..2).for_each(|_| curl(&ns, 7976, 0, None));
    });
    assert!(tracer.wait().success());
    let text = fs::read_to_string(&out).expect("our file");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("  1 group, 2 connections, over "), "{text}");
    let words: Vec<_> = lines[2].split_whitespace().collect();
    assert_eq!((&words[..3], &words[words.len() - 2..]), (&["curl", "7976", "2"][..], &["fin", "2"][..]), "{text}");
    assert_eq!(lines.len(), 3, "{text}");
}
