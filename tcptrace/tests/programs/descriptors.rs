//! Sockets that COMMAND did not open: inherited from who called tcptrace, or passed on by somebody else while it runs.

use std::{io::Write as _, path::Path, process::Stdio};

use serde_json::Value;

use crate::{
    PYTHON, Told, below, brief,
    support::{
        netns::Netns,
        process::{self, Running},
        run::{arrow, nothing_lost, parse},
        socket::{Sock, local},
        tracer::{Live, replay, tcptrace_output},
        wait_until,
    },
};

/// `python -c SETUP`, which execs `tcptrace ARGS -- python3 -c COMMAND` with what it has opened.
fn inherited(ns: &Netns, args: &[&str], setup: &str, command: &str) -> Told {
    let tcptrace = below(ns, args, &[PYTHON, "-c", command]);
    let words: Vec<_> = std::iter::once(tcptrace.get_program()).chain(tcptrace.get_args()).collect();
    let script = format!("import os, socket, sys\n{setup}\nos.execv(sys.argv[1], sys.argv[1:])");
    let mut caller = ns.command(PYTHON);
    Told::new(&process::output(caller.arg("-c").arg(script).args(words)))
}

/// A connection that is older than the trace, and one that the listener of the caller takes: both are COMMAND's.
#[test]
fn sockets_of_the_caller_are_the_commands() {
    let ns = Netns::new();
    let listener = Sock::listen(&ns, local(7530), 16);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("inherited.rec");
    let path = file.to_str().expect("UTF-8");
    // Another connection, which the caller closes before.
    let setup = "stranger = socket.create_connection(('127.0.0.1', 7530))
s = socket.create_connection(('127.0.0.1', 7530))
l = socket.create_server(('127.0.0.1', 7531))
os.dup2(os.dup2(s.fileno(), 20), 10); os.dup2(os.dup2(l.fileno(), 21), 11)
os.close(20); os.close(21)";
    // The name that it has by then is told.
    let command = "import socket
s, l = socket.socket(fileno=10), socket.socket(fileno=11)
s.sendall(b'of the caller')
c = socket.create_connection(('127.0.0.1', 7531))
a, _ = l.accept()
c.close(); a.recv(1); a.close(); s.close(); l.close()";
    let told = std::thread::scope(|scope| {
        let told = scope.spawn(|| inherited(&ns, &["conns", "--json", "--ladder", "--record", path], setup, command));
        let (stranger, server) = (listener.accept(), listener.accept());
        server.receive_all().expect("the end of the stream");
        server.close();
        stranger.close();
        told.join().expect("no panic")
    });
    assert_eq!(told.status, Some(0), "{}", told.stderr);
    let mut found: Vec<_> = told
        .conns
        .iter()
        .map(|c| (c["role"].as_str().unwrap_or("-"), c["lport"] == 7531, c["rport"].as_u64() == Some(7530), &c["comm"]))
        .collect();
    found.sort_by_key(|f| (f.0, f.1, f.2));
    let python = &"python3".into();
    let expected = [("-", false, true, python), ("client", false, false, python), ("server", true, false, python)];
    assert_eq!(found, expected, "{}", brief(&told.conns));
    let older: Vec<_> = told.conns.iter().filter(|c| c["preexisting"] == true).collect();
    assert_eq!(older.len(), 1, "{}", brief(&told.conns));
    assert_eq!((&older[0]["end"], &older[0]["closed_by"]), (&"fin".into(), &"local".into()), "{}", older[0]);
    // The same from the recording.
    let replayed = Told::new(&tcptrace_output(&["conns", "--json", "--ladder", "--from", path]));
    assert_eq!(replayed.conns, told.conns);
}

/// A command that has gone by the time at which a slow look would have seen what it has.
#[test]
fn a_command_that_only_closes_what_it_inherited() {
    let ns = Netns::new();
    let listener = Sock::listen(&ns, local(7532), 16);
    let told = std::thread::scope(|scope| {
        let setup = "s = socket.create_connection(('127.0.0.1', 7532)); os.dup2(s.fileno(), 10); s.close()";
        let told = scope.spawn(|| inherited(&ns, &["conns", "--json", "--ladder"], setup, "import os; os._exit(6)"));
        let server = listener.accept();
        server.receive_all().expect("the end of the stream");
        server.close();
        told.join().expect("no panic")
    });
    assert_eq!(told.status, Some(6), "{}", told.stderr);
    assert_eq!(told.conns.len(), 1, "{}", brief(&told.conns));
    assert_eq!(
        (&told.conns[0]["comm"], &told.conns[0]["end"]),
        (&"python3".into(), &"fin".into()),
        "{}",
        told.conns[0]
    );
}

/// What COMMAND reads from is closed when it closes it: tcptrace has it no longer.
#[test]
fn who_writes_to_a_command_is_told_that_it_reads_no_more() {
    let ns = Netns::new();
    let script = "read line; exec <&-; echo closed; while kill -0 $line; do sleep 0.05; done 2>/dev/null";
    let mut command = below(&ns, &["conns", "-q"], &["sh", "-c", script]);
    let mut running = process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut stdin = running.child().stdin.take().expect("piped");
    let mut idle = process::spawn(std::process::Command::new("sleep").arg("1000").stdin(Stdio::null()));
    stdin.write_all(format!("{}\n", idle.pid()).as_bytes()).expect("it reads");
    let (line, _) = process::first_line(running.child().stdout.take().expect("piped"));
    assert_eq!(line, "closed\n");
    wait_until("the pipe to be closed", || stdin.write_all(b"more\n").is_err());
    idle.signal(libc::SIGTERM);
    idle.wait();
    assert!(running.wait().success());
}

/// A process that has nothing to do with the trace: when somebody connects to the Unix socket `u` in `dir` it runs `GIVE` with `to`, and
/// goes on when its standard input says so.
fn broker(ns: &Netns, dir: &Path, open: &str, give: &str) -> Running {
    let script = format!(
        "import os, socket, sys
{open}
u = socket.socket(socket.AF_UNIX); u.bind('{}/u'); u.listen()
print('ready', flush=True)
to, _ = u.accept()
{give}
sys.stdin.readline()
try: to.send(b'.'); to.recv(1)
except ConnectionError: pass",
        dir.display()
    );
    let mut broker = ns.command(PYTHON);
    let mut broker = process::spawn(broker.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()));
    let (line, _) = process::first_line(broker.child().stdout.take().expect("piped"));
    assert_eq!(line, "ready\n");
    broker
}

/// What COMMAND does to be given `n` descriptors by [`broker`].
fn receive(dir: &Path, n: usize) -> String {
    format!(
        "import socket
u = socket.socket(socket.AF_UNIX); u.connect('{}/u')
_, fds, _, _ = socket.recv_fds(u, 1, {n})",
        dir.display()
    )
}

/// Opened or accepted by somebody else, before the trace and during it, and passed on (SCM_RIGHTS): from then on they are COMMAND's, and
/// nothing else is.
#[test]
fn sockets_that_are_passed_on_are_the_commands() {
    let (ns, dir) = (Netns::new(), tempfile::tempdir().expect("a temporary directory"));
    let peer = Sock::listen(&ns, local(7533), 16);
    let mut broker = broker(
        &ns,
        dir.path(),
        "older = socket.create_connection(('127.0.0.1', 7533))
l = socket.create_server(('127.0.0.1', 7534))",
        "younger = socket.create_connection(('127.0.0.1', 7533))
stranger = socket.create_connection(('127.0.0.1', 7534))
accepted, _ = l.accept()
passed = [l, older, younger, accepted]
socket.send_fds(to, [b'.'], [s.fileno() for s in passed])
for s in passed: s.close()",
    );
    let command = format!(
        "{}
l, older, younger, accepted = [socket.socket(fileno=fd) for fd in fds]
u.recv(1)
child, _ = l.accept()
for s in (older, younger, accepted, child, l): s.close()",
        receive(dir.path(), 4)
    );
    let file = dir.path().join("passed.rec");
    let path = file.to_str().expect("UTF-8");
    let mut tcptrace = below(&ns, &["trace", "--json", "--record", path], &[PYTHON, "-c", &command]);
    // It has a tier, before the command.
    let live = Live::started(&mut tcptrace);
    let mut found = 0;
    live.wait_for("the sockets that were passed", |line| {
        found += usize::from(line["type"] == "socket");
        found == 4
    });
    let client = Sock::connected(&ns, local(7534));
    broker.child().stdin.take().expect("piped").write_all(b"\n").expect("it reads");
    client.receive_all().expect("the end of the stream");
    client.close();
    for server in [peer.accept(), peer.accept()] {
        server.receive_all().expect("the end of the stream");
        server.close();
    }
    assert!(broker.wait().success());
    let (stdout, stderr) = live.ended();
    let lines = parse(&stdout);
    nothing_lost(&lines);
    let ends = |line: &Value| (line["lport"] == 7534, line["rport"] == 7533);
    let mut sockets: Vec<_> =
        lines.iter().filter(|line| line["type"] == "socket").map(|s| (ends(s), s["state"].as_str())).collect();
    sockets.sort_unstable();
    let (connected, accepted) = ((false, true), (true, false));
    let expected = [
        (connected, Some("ESTABLISHED")),
        (connected, Some("ESTABLISHED")),
        (accepted, Some("ESTABLISHED")),
        (accepted, Some("LISTEN")),
    ];
    assert_eq!(sockets, expected, "{stdout}{stderr}");
    for socket in lines.iter().filter(|line| line["type"] == "socket") {
        assert_eq!((&socket["comm"], &socket["preexisting"]), (&"python3".into(), &true.into()), "{socket}");
        assert!(socket["fd"].as_u64().is_some(), "{socket}");
    }
    // What they do from then on, and the child of the listener from its birth: it is nobody else's.
    let of = |wanted: (bool, bool), role: &str| {
        let mut of: Vec<_> = lines.iter().filter(|line| line["type"] == "transition" && ends(line) == wanted).collect();
        // Whether what the kernel keeps then is an orphan is up to the other end.
        of.retain(|line| line["role"].as_str().unwrap_or("-") == role && line["from"] != "FIN_WAIT2");
        of.iter().map(|t| (arrow(t), t["comm"].as_str().unwrap_or("-"))).collect::<Vec<_>>()
    };
    let python = |arrows: &[&str]| arrows.iter().map(|a| ((*a).to_owned(), "python3")).collect::<Vec<_>>();
    let closed = ["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>FIN_WAIT2"];
    let mut connections = of(connected, "-");
    connections.sort();
    let mut both: Vec<_> = python(&closed).into_iter().flat_map(|t| [t.clone(), t]).collect();
    both.sort();
    assert_eq!(connections, both, "{stdout}");
    assert_eq!(of(accepted, "listener"), python(&["LISTEN>CLOSE"]), "{stdout}");
    let mut children = of(accepted, "server");
    children.sort();
    let mut born = python(&["LISTEN>SYN_RECV", "SYN_RECV>ESTABLISHED"]);
    born.extend(both);
    born.sort();
    assert_eq!(children, born, "{stdout}");
    let pids: std::collections::BTreeSet<_> = lines.iter().filter_map(|line| line["pid"].as_u64()).collect();
    assert_eq!(pids.len(), 1, "one process: {stdout}");
    // The same from the recording.
    let same = |text: &str| {
        let mut lines = parse(text);
        lines.retain(|line| line["type"] == "socket" || line["type"] == "transition");
        lines
    };
    assert_eq!(same(&replay("trace", &file)), same(&stdout));
}

/// Closed before anybody has looked at what COMMAND has: whose it is shows when it is closed.
#[test]
fn what_was_passed_on_and_is_closed_at_once() {
    let (ns, dir) = (Netns::new(), tempfile::tempdir().expect("a temporary directory"));
    let peer = Sock::listen(&ns, local(7535), 16);
    let mut broker = broker(
        &ns,
        dir.path(),
        "older = socket.create_connection(('127.0.0.1', 7535))
l = socket.create_server(('127.0.0.1', 7536))",
        "stranger = socket.create_connection(('127.0.0.1', 7536))
accepted, _ = l.accept()
socket.send_fds(to, [b'.'], [older.fileno(), accepted.fileno()])
older.close(); accepted.close()",
    );
    broker.child().stdin.take().expect("piped").write_all(b"\n").expect("a pipe");
    let told = std::thread::scope(|scope| {
        let command = format!("{}\nu.recv(1)\nimport os\nos._exit(9)", receive(dir.path(), 2));
        let told = scope.spawn({
            let ns = &ns;
            move || Told::of(ns, &[PYTHON, "-c", &command])
        });
        let server = peer.accept();
        server.receive_all().expect("the end of the stream");
        server.close();
        told.join().expect("no panic")
    });
    assert!(broker.wait().success());
    assert_eq!(told.status, Some(9), "{}", told.stderr);
    let mut ends: Vec<_> = told.conns.iter().map(|c| (c["lport"] == 7536, &c["comm"], &c["end"], &c["gaps"])).collect();
    ends.sort_by_key(|end| end.0);
    let (python, fin, none) = (&"python3".into(), &"fin".into(), &0.into());
    assert_eq!(ends, [(false, python, fin, none), (true, python, fin, none)], "{}", brief(&told.conns));
    assert!(told.conns.iter().all(|c| c["preexisting"] == true), "{}", brief(&told.conns));
}
