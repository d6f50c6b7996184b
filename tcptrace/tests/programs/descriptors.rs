//! Sockets that COMMAND did not open: inherited from who called tcptrace.

use std::{io::Write as _, process::Stdio};

use crate::{
    PYTHON, Told, below, brief,
    support::{
        netns::Netns,
        process,
        socket::{Sock, local},
        tracer::tcptrace_output,
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
