//! How a command ends, or goes on without anybody to wait for it.

use std::{io::Read as _, process::Stdio};

use crate::{
    PYTHON, Told, below, brief,
    support::{
        netns::Netns,
        process,
        run::parse,
        socket::{Sock, local},
        wait_until,
    },
};

/// A daemon as shells' init scripts know it: a child of a child, which has ended, in a session of its own, its descriptors elsewhere. It is
/// followed to its end.
#[test]
fn a_command_that_daemonises() {
    let ns = Netns::new();
    let listener = Sock::listen(&ns, local(7520), 16);
    let script = "import os, socket, sys
child = os.fork()
if child:
    os.waitpid(child, 0)
    os._exit(4)
os.setsid()
if os.fork(): os._exit(0)
null = os.open('/dev/null', os.O_RDWR)
for fd in 0, 1, 2: os.dup2(null, fd)
s = socket.create_connection(('127.0.0.1', 7520))
s.sendall(b'%d' % os.getpid())
s.recv(1)";
    let mut command = below(&ns, &["conns", "--json"], &[PYTHON, "-c", script]);
    let mut running = process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let server = listener.accept();
    let (said, mut rest) = process::first_line(running.child().stderr.take().expect("piped"));
    let left = "tcptrace: the command has ended; one process that it started still runs: Ctrl-C ends the trace\n";
    assert_eq!(said, left);
    // It runs on until now.
    server.close();
    let (mut stdout, mut stderr) = (String::new(), String::new());
    running.child().stdout.take().expect("piped").read_to_string(&mut stdout).expect("UTF-8");
    rest.read_to_string(&mut stderr).expect("UTF-8");
    assert_eq!(running.wait().code(), Some(4), "the command's own: {stderr}");
    let conns: Vec<_> = parse(&stdout).into_iter().filter(|line| line["type"] == "connection").collect();
    assert_eq!(conns.len(), 1, "{}", brief(&conns));
    assert_eq!((&conns[0]["comm"], &conns[0]["role"]), (&"python3".into(), &"client".into()), "{}", conns[0]);
}

/// The user is that of the moment at which the socket was opened.
#[test]
fn a_command_that_changes_its_user() {
    let ns = Netns::new();
    let _listener = Sock::listen(&ns, local(7521), 16);
    let script = "import os, socket
def get():
    s = socket.create_connection(('127.0.0.1', 7521))
    s.close()
get()
os.setgid(65534); os.setuid(65534)
get()
os.execv('/bin/sh', ['sh', '-c', 'exec curl -s -m 1 http://127.0.0.1:7521/'])";
    let told = Told::of(&ns, &[PYTHON, "-c", script]);
    assert_eq!(told.status, Some(28), "curl's own: {}", told.stderr);
    let mut conns: Vec<_> = told.conns.iter().collect();
    conns.sort_by_key(|c| c["id"].as_u64());
    let users: Vec<_> = conns.iter().map(|c| (c["comm"].as_str().expect("a name"), c["uid"].as_u64())).collect();
    assert_eq!(
        users,
        [("python3", Some(0)), ("python3", Some(65534)), ("curl", Some(65534))],
        "{}",
        brief(&told.conns)
    );
}

/// Its connections are told to their end, and the status is what a shell says of the signal.
#[test]
fn a_command_that_is_killed() {
    let ns = Netns::new();
    let listener = Sock::listen(&ns, local(7522), 16);
    let script = "import os, signal, socket
s = socket.create_connection(('127.0.0.1', 7522))
s.recv(1)
os.kill(os.getpid(), signal.SIGKILL)";
    let told = std::thread::scope(|scope| {
        let told = scope.spawn(|| Told::of(&ns, &[PYTHON, "-c", script]));
        let server = listener.accept();
        server.send(b"x");
        server.receive_all().expect("the end of the stream");
        server.close();
        told.join().expect("no panic")
    });
    assert_eq!((told.status, told.conns.len()), (Some(137), 1), "{}\n{}", told.stderr, brief(&told.conns));
    assert_eq!(
        (&told.conns[0]["end"], &told.conns[0]["closed_by"]),
        (&"fin".into(), &"local".into()),
        "{}",
        told.conns[0]
    );
    wait_until("the connection to be over", || ns.rows().len() <= 2);
}
