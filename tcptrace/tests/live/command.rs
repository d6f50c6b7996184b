//! `-- COMMAND`: its sockets and those of all that descends from it, as itself in every other way.

use std::{
    io::{Read as _, Write as _},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::support::{
    netns::Netns,
    process::{self, Running},
    programs::nginx,
    run::parse,
    socket::{Sock, local},
    tracer::{tcptrace, tcptrace_output, tier},
    wait_until,
};

/// A web server in a namespace, and tcptrace in the same one.
struct Server {
    ns: Netns,
    dir: tempfile::TempDir,
    nginx: Running,
    port: u16,
}

impl Server {
    fn new(port: u16) -> Self {
        let (ns, dir) = (Netns::new(), tempfile::tempdir().expect("a temporary directory"));
        let nginx = nginx(&ns, dir.path(), port);
        Self { ns, dir, nginx, port }
    }

    /// `curl` and its arguments, for `sh`.
    fn curl(&self) -> String {
        format!("curl -sS -o {}/page http://127.0.0.1:{}/", self.dir.path().display(), self.port)
    }

    /// `tcptrace ARGS -- sh -c SCRIPT`.
    fn traced(&self, args: &[&str], script: &str) -> Command {
        let mut command = self.ns.command(env!("CARGO_BIN_EXE_tcptrace"));
        let netns = self.ns.inum().to_string();
        command.args(args).args(["--netns", &netns, "--tier", &tier(), "--", "sh", "-c", script]);
        command
    }

    fn end(mut self) {
        self.nginx.signal(libc::SIGTERM);
        self.nginx.wait();
    }
}

/// The connections in JSON.
fn connections(output: &Output) -> Vec<Value> {
    let lines = parse(std::str::from_utf8(&output.stdout).expect("UTF-8"));
    lines.into_iter().filter(|line| line["type"] == "connection" && line["role"] != "listener").collect()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

#[test]
fn quick_a_command_and_its_children_and_nobody_else() {
    let server = Server::new(7701);
    let curl = server.curl();
    // Another one meanwhile, of somebody else.
    let stranger = server.dir.path().join("stranger");
    let script = format!("{curl} & {curl}; wait; echo > {}; read line; exit 7", stranger.display());
    let mut command = server.traced(&["conns", "--json"], &script);
    let mut running = process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    wait_until("both transfers to end", || stranger.exists());
    process::run(server.ns.command("sh").args(["-c", &curl]));
    drop(running.child().stdin.take());
    let mut stdout = String::new();
    running.child().stdout.take().expect("piped").read_to_string(&mut stdout).expect("UTF-8");
    let status = running.wait();
    assert_eq!(status.code(), Some(7), "{stdout}");
    let lines = parse(&stdout);
    let conns: Vec<_> = lines.iter().filter(|line| line["type"] == "connection").collect();
    assert_eq!(conns.len(), 2, "{stdout}");
    for conn in conns {
        assert_eq!(
            (&conn["comm"], &conn["role"], &conn["end"]),
            (&"curl".into(), &"client".into(), &"fin".into()),
            "{conn}"
        );
        assert_eq!(conn["gaps"], 0, "{conn}");
    }
    server.end();
}

#[test]
fn a_recording_of_a_command_replays() {
    let server = Server::new(7702);
    let file = server.dir.path().join("command.rec");
    let path = file.to_str().expect("UTF-8");
    let output = process::output(&mut server.traced(&["conns", "--json", "--record", path], &server.curl()));
    assert!(output.status.success(), "{}", stderr(&output));
    let replayed = tcptrace_output(&["conns", "--json", "--from", path]);
    assert_eq!(connections(&output).len(), 1, "{}", stderr(&output));
    assert_eq!(connections(&output), connections(&replayed));
    let recorded = process::output(&mut server.traced(&["record", path, "-q"], &server.curl()));
    assert!(recorded.status.success() && recorded.stdout.is_empty(), "{}", stderr(&recorded));
    let replayed = tcptrace_output(&["conns", "--json", "--from", path]);
    let conns = connections(&replayed);
    assert_eq!(conns.len(), 1, "{conns:?}");
    assert_eq!((&conns[0]["comm"], &conns[0]["end"]), (&"curl".into(), &"fin".into()));
    server.end();
}

#[test]
fn what_a_command_leaves_behind_is_traced_to_its_end() {
    let server = Server::new(7703);
    // The shell ends; the one in its background waits for the file and goes on.
    let go = server.dir.path().join("go");
    let script = format!("while ! [ -e {} ]; do :; done; {}", go.display(), server.curl());
    let mut command = server.traced(&["conns", "--json"], &format!("({script}) </dev/null >/dev/null 2>&1 & exit 3"));
    let mut running = process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let errors = running.child().stderr.take().expect("piped");
    let (line, mut rest) = process::first_line(errors);
    assert_eq!(
        line,
        "tcptrace: the command has ended; one process that it started still runs: Ctrl-C ends the trace\n"
    );
    std::fs::write(&go, "").expect("a temporary directory");
    let mut text = (String::new(), String::new());
    running.child().stdout.take().expect("piped").read_to_string(&mut text.0).expect("UTF-8");
    rest.read_to_string(&mut text.1).expect("UTF-8");
    let status = running.wait();
    let (stdout, stderr) = text;
    assert_eq!(status.code(), Some(3), "{stderr}");
    let conns: Vec<_> = parse(&stdout).into_iter().filter(|line| line["type"] == "connection").collect();
    assert_eq!(conns.len(), 1, "{stdout}");
    assert_eq!((&conns[0]["comm"], &conns[0]["end"]), (&"curl".into(), &"fin".into()), "{stdout}");
    server.end();
}

#[test]
fn its_status_is_the_commands() {
    let status = |script: &str| {
        let output = tcptrace_output(&["conns", "-q", "--port", "7704", "--tier", &tier(), "--", "sh", "-c", script]);
        assert!(output.stdout.is_empty(), "{output:?}");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    assert_eq!(status("exit 0"), (Some(0), String::new()));
    assert_eq!(status("exit 42"), (Some(42), String::new()));
    assert_eq!(status("kill -KILL $$"), (Some(137), String::new()));
    assert_eq!(status("echo from the command >&2; exit 1"), (Some(1), "from the command\n".to_owned()));
}

#[test]
fn a_command_that_cannot_be_run_is_said() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "").expect("a temporary directory");
    let plain = plain.to_str().expect("UTF-8");
    for (args, status, says) in [
        (
            vec!["conns", "-q", "--", "no-such-program-here"],
            127,
            "cannot run `no-such-program-here`: No such file or directory; give the name of a program in PATH, or its path"
                .to_owned(),
        ),
        (vec!["record", "-q", "/dev/null", "--", plain], 126, format!("cannot run `{plain}`: Permission denied")),
        (vec!["trace", "--user", "nobody-of-that-name", "--", "sh"], 2, "--user: no user `nobody-of-that-name`; `tcptrace --help` shows what there is".to_owned()),
        (vec!["conns", "-p", "1", "--", "sh"], 2, "--pid and COMMAND both say whose sockets are meant: leave one out; `tcptrace --help` shows what there is".to_owned()),
        (vec!["trace", "--from", "x", "--", "sh"], 2, "a recording has no processes to follow: leave out --from, or COMMAND and --follow; `tcptrace --help` shows what there is".to_owned()),
    ] {
        let output = tcptrace_output(&args);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {output:?}");
        assert_eq!(stderr(&output), format!("tcptrace: {says}\n"), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn it_runs_as_whom_it_shall() {
    let id =
        ["conns", "-q", "--port", "7705", "--tier", &tier(), "--", "sh", "-c", "echo $USER; cat /proc/self/status"];
    let lines = |output: Output| {
        assert!(output.status.success(), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(|ids| ids.trim().to_owned());
        (text.lines().next().expect("a line").to_owned(), of("Uid:").expect("status"), of("Gid:").expect("status"))
    };
    let root = lines(process::output(tcptrace().args(id).env("USER", "me").env_remove("SUDO_UID")));
    assert_eq!(root, ("me".into(), "0\t0\t0\t0".into(), "0\t0\t0\t0".into()));
    let mut named = id.to_vec();
    named.splice(1..1, ["--user", "65534"]);
    let nobody =
        ("nobody".to_owned(), "65534\t65534\t65534\t65534".to_owned(), "65534\t65534\t65534\t65534".to_owned());
    assert_eq!(lines(process::output(tcptrace().args(&named))), nobody);
    let called = process::output(tcptrace().args(id).env("SUDO_UID", "65534").env("SUDO_GID", "65534"));
    assert_eq!(lines(called), nobody);
    // Not as root, where who called cannot be told.
    let unknown = process::output(tcptrace().args(id).env("PKEXEC_UID", "3999999").env_remove("SUDO_UID"));
    assert_eq!(unknown.status.code(), Some(2));
    let says = "tcptrace: PKEXEC_UID names no user: say with --user who COMMAND is to run as; `tcptrace --help` shows what there is\n";
    assert_eq!((stderr(&unknown), &*unknown.stdout), (says, &[][..]));
}

#[test]
fn signals_are_the_commands() {
    let start = || {
        let mut command = tcptrace();
        command.args([
            "conns",
            "-q",
            "--port",
            "7706",
            "--tier",
            &tier(),
            "--",
            "sh",
            "-c",
            "echo ready; read line; exit 5",
        ]);
        let mut running = process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let (line, _) = process::first_line(running.child().stdout.take().expect("piped"));
        assert_eq!(line, "ready\n");
        running
    };
    // Ctrl-C is the terminal's business: here it comes to tcptrace alone, which goes on.
    let mut running = start();
    running.signal(libc::SIGINT);
    running.signal(libc::SIGQUIT);
    running.child().stdin.take().expect("piped").write_all(b"\n").expect("it still reads");
    assert_eq!(running.wait().code(), Some(5));
    // Handed on.
    let mut running = start();
    running.signal(libc::SIGTERM);
    assert_eq!(running.wait().code(), Some(128 + libc::SIGTERM));
}

#[test]
fn a_connection_that_stays_open_does_not_cut_the_end_short() {
    let ns = Netns::new();
    // Its server never accepts, so this end waits in FIN_WAIT2 until the run is over.
    let _listener = Sock::listen(&ns, local(7708), 16);
    let mut command = ns.command(env!("CARGO_BIN_EXE_tcptrace"));
    let netns = ns.inum().to_string();
    command.args(["conns", "--json", "--netns", &netns, "--tier", &tier(), "--", "curl", "-s", "-m", "0.2"]);
    let output = process::output(command.arg("http://127.0.0.1:7708/"));
    assert_eq!(output.status.code(), Some(28), "curl's own: {}", stderr(&output));
    let lines = parse(std::str::from_utf8(&output.stdout).expect("UTF-8"));
    let last = lines.last().expect("lines");
    assert!(last["type"] == "summary" && last["collector_cpu_us"].is_u64(), "the source was drained: {last}");
    assert_eq!(connections(&output).len(), 1, "{}", stderr(&output));
}

#[test]
fn the_status_is_the_commands_also_if_nobody_reads_on() {
    let server = Server::new(7709);
    let script = format!("for i in 1 2 3; do {}; done; read line; exit 7", server.curl());
    let mut command = server.traced(&["trace", "--json"], &script);
    let mut running = process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()));
    // The first line, and no more is read.
    let (line, rest) = process::first_line(running.child().stdout.take().expect("piped"));
    assert!(line.contains(r#""type":"start""#), "{line}");
    drop(rest);
    drop(running.child().stdin.take());
    assert_eq!(running.wait().code(), Some(7));
    server.end();
}

#[test]
fn children_of_a_process_that_runs_are_followed() {
    let server = Server::new(7707);
    let script = format!("read line; {}; exit 0", server.curl());
    let mut parent = process::spawn(server.ns.command("sh").args(["-c", &script]).stdin(Stdio::piped()));
    let netns = server.ns.inum().to_string();
    let pid = parent.pid().to_string();
    let live =
        crate::support::tracer::Live::start(&mut tcptrace(), &["conns", "--json", "--netns", &netns, "-p", &pid, "-f"]);
    parent.child().stdin.take().expect("piped").write_all(b"\n").expect("it still reads");
    live.wait_for("curl's connection", |line| line["type"] == "connection" && line["comm"] == "curl");
    assert!(parent.wait().success());
    let (stdout, stderr) = live.stop();
    let conns = parse(&stdout).into_iter().filter(|line| line["type"] == "connection").count();
    assert_eq!(conns, 1, "{stdout}{stderr}");
    server.end();
}
