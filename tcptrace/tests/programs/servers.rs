//! Servers whose listeners and connections pass from one process to another: each is told of the right one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::fd::AsRawFd as _,
    path::Path,
    process::Stdio,
};

use serde_json::Value;

use crate::{
    PYTHON, below, brief,
    support::{
        netns::Netns,
        process::{self, Running},
        run::parse,
        socket::{Sock, local},
        tracer::{Live, tcptrace},
        wait_until,
    },
};

const WORKERS: usize = 3;
const REQUESTS: usize = 60;

/// Says which worker answered whom.
fn prefork(dir: &Path, port: u16) -> String {
    let at = dir.display();
    let config = format!(
        "daemon off; worker_processes {WORKERS}; pid {at}/pid; error_log {at}/error.log; user root;
         events {{ worker_connections 64; accept_mutex off; }}
         http {{
             access_log off; keepalive_timeout 0;
             client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
             uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
             server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"$pid $remote_port\\n\"; }} }}
         }}"
    );
    fs::write(dir.join("nginx.conf"), config).expect("a temporary directory");
    dir.join("nginx.conf").to_str().expect("UTF-8").to_owned()
}

/// Port of the client → the worker that said it answered.
fn ask(ns: &Netns, port: u16) -> BTreeMap<u64, u64> {
    // Several at a time, so that several workers are awake.
    let url = format!("http://127.0.0.1:{port}/[1-{REQUESTS}]");
    let output = process::run(ns.command("curl").args(["-sS", "-Z", "--parallel-max", "12", &url]));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let pair = |line: &str| {
        let (worker, port) = line.split_once(' ').expect("two numbers");
        (port.parse().expect("a port"), worker.parse().expect("a process"))
    };
    text.lines().map(pair).collect()
}

/// nginx, whose workers end with it only if it ends in order.
struct Master(Running);

impl Drop for Master {
    fn drop(&mut self) {
        self.0.signal(libc::SIGTERM);
        self.0.wait();
    }
}

fn workers(master: u32) -> BTreeSet<u64> {
    let path = format!("/proc/{master}/task/{master}/children");
    fs::read_to_string(path).expect("nginx").split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
}

/// Each of the server's connections is of the worker that answered it, and nothing of that was concluded.
fn of_their_workers(conns: &[Value], answers: &BTreeMap<u64, u64>) {
    let servers: Vec<_> = conns.iter().filter(|c| c["role"] == "server").collect();
    assert_eq!(servers.len(), answers.len(), "{}", brief(conns));
    for c in servers {
        let worker = answers[&c["rport"].as_u64().expect("a port")];
        assert_eq!((c["pid"].as_u64(), &c["comm"]), (Some(worker), &"nginx".into()), "{c}");
        assert!(!c["inferred"].to_string().contains("pid"), "{c}");
    }
}

#[test]
fn a_prefork_server_is_the_command() {
    let (ns, dir) = (Netns::new(), tempfile::tempdir().expect("a temporary directory"));
    let config = prefork(dir.path(), 7510);
    let log = dir.path().join("error.log");
    let mut command = below(&ns, &["conns", "--json"], &["nginx", "-c", &config, "-e", log.to_str().expect("UTF-8")]);
    let mut running = process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let pid = || fs::read_to_string(dir.path().join("pid")).ok()?.trim().parse::<u32>().ok();
    wait_until("nginx and its workers", || {
        pid().is_some_and(|pid| workers(pid).len() == WORKERS) && !ns.rows().is_empty()
    });
    let workers = workers(pid().expect("just seen"));
    let answers = ask(&ns, 7510);
    assert!(answers.values().all(|worker| workers.contains(worker)), "{answers:?} {workers:?}");
    ns.quiet();
    running.signal(libc::SIGTERM);
    let (mut stdout, mut stderr) = (String::new(), String::new());
    running.child().stdout.take().expect("piped").read_to_string(&mut stdout).expect("UTF-8");
    running.child().stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
    assert_eq!(running.wait().code(), Some(0), "nginx ends in order: {stderr}");
    let conns: Vec<_> = parse(&stdout).into_iter().filter(|line| line["type"] == "connection").collect();
    assert!(conns.iter().all(|c| c["role"] == "server"), "curl is not below it: {}", brief(&conns));
    of_their_workers(&conns, &answers);
}

/// Traced from outside: it begins during the trace, or was there before.
#[test]
fn a_prefork_server_beside_the_trace() {
    let (ns, dir) = (Netns::new(), tempfile::tempdir().expect("a temporary directory"));
    let config = prefork(dir.path(), 7511);
    let netns = ns.inum().to_string();
    let start = || {
        let mut command = ns.command("nginx");
        Master(process::spawn(command.args(["-c", &config, "-e"]).arg(dir.path().join("error.log"))))
    };
    let ready = |nginx: &Master| {
        wait_until("nginx and its workers", || !ns.rows().is_empty() && nginx.0.children().len() == WORKERS);
    };
    let trace = || Live::start(&mut tcptrace(), &["trace", "--json", "--netns", &netns]);
    let conns = || Live::start(&mut tcptrace(), &["conns", "--json", "--netns", &netns]);
    let (tracing, telling) = (trace(), conns());
    let nginx = start();
    ready(&nginx);
    let answers = ask(&ns, 7511);
    ns.quiet();
    let (traced, told) = (parse(&tracing.stop().0), parse(&telling.stop().0));
    of_their_workers(&told, &answers);
    let listens = traced.iter().find(|line| line["to"] == "LISTEN").expect("a listener");
    assert_eq!(listens["pid"], nginx.0.pid(), "the master: {listens}");
    // Now it is there already, and the master and its workers have the listener open.
    let (tracing, telling) = (trace(), conns());
    let row = tracing.wait_for("the listener", |line| line["type"] == "socket" && line["state"] == "LISTEN");
    let concluded = row["inferred"].as_array().is_some_and(|names| names.contains(&"pid".into()));
    assert_eq!((&row["pid"], concluded), (&nginx.0.pid().into(), true), "several have it: {row}");
    let answers = ask(&ns, 7511);
    ns.quiet();
    tracing.stop();
    of_their_workers(&parse(&telling.stop().0), &answers);
}

/// Accepts, receives, sends and closes by a ring alone, until it is asked to end.
fn ring_worker(listener: i32) {
    use io_uring::{IoUring, opcode, squeue::Entry, types::Fd};
    let mut ring = IoUring::new(8).expect("io_uring");
    let mut one = |entry: Entry| {
        // SAFETY: what the entry points to outlives the wait for it.
        unsafe { ring.submission().push(&entry).expect("room for one") };
        ring.submit_and_wait(1).expect("io_uring_enter");
        ring.completion().next().expect("completed").result()
    };
    loop {
        let none = std::ptr::null_mut();
        let fd = one(opcode::Accept::new(Fd(listener), none, none.cast()).build());
        assert!(fd >= 0, "accept: {fd}");
        let mut question = [0; 16];
        let n = one(opcode::Recv::new(Fd(fd), question.as_mut_ptr(), question.len() as u32).build());
        let answer = std::process::id().to_string();
        let sent = one(opcode::Send::new(Fd(fd), answer.as_ptr(), answer.len() as u32).build());
        assert_eq!(sent as usize, answer.len());
        assert_eq!(one(opcode::Close::new(Fd(fd)).build()), 0);
        if question.starts_with(b"end") || n <= 0 {
            return;
        }
    }
}

/// Where only the ends of system calls tell who accepted, who closes a connection tells: until then it is its listener's, as far as
/// anybody knows.
#[test]
fn workers_that_accept_by_io_uring() {
    let ns = Netns::new();
    let netns = ns.inum().to_string();
    let telling = Live::start(&mut tcptrace(), &["conns", "--json", "--netns", &netns]);
    let listener = Sock::listen(&ns, local(7515), 16);
    let fd = listener.as_raw_fd();
    let workers = [c"ring-worker", c"ring-worker"].map(|name| process::fork(name, &[fd], || ring_worker(fd)));
    let pids: BTreeSet<u64> = workers.iter().map(|worker| u64::from(worker.pid())).collect();
    let answers: BTreeMap<u64, u64> =
        (0..20).map(|_| "who?").chain(["end", "end"]).map(|question| asked(&ns, 7515, question)).collect();
    workers.into_iter().for_each(process::Forked::join);
    ns.quiet();
    listener.close();
    let lines = parse(&telling.stop().0);
    let servers: Vec<_> = lines.iter().filter(|c| c["type"] == "connection" && c["role"] == "server").collect();
    assert_eq!((servers.len(), answers.len()), (22, 22), "{}", brief(&lines));
    for c in servers {
        let worker = answers[&c["rport"].as_u64().expect("a port")];
        assert!(pids.contains(&worker), "{worker} of {pids:?}");
        assert_eq!((c["pid"].as_u64(), &c["comm"]), (Some(worker), &"ring-worker".into()), "{c}");
    }
}

/// Takes one connection on the listener that it was given.
const SERVICE: &str = "import os, socket
listener = socket.socket(fileno=3)
connection, _ = listener.accept()
connection.recv(100)
connection.sendall(b'%d' % os.getpid())
connection.close()
listener.close()";

/// The port of a client, and the service's own word for who it is.
fn asked(ns: &Netns, port: u16, question: &str) -> (u64, u64) {
    let (own, answer) = ns.enter(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        stream.write_all(question.as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("UTF-8");
        (stream.local_addr().expect("connected").port(), answer)
    });
    (u64::from(own), answer.parse().expect("a process"))
}

fn only_server(lines: &[Value]) -> &Value {
    let mut servers = lines.iter().filter(|line| line["type"] == "connection" && line["role"] == "server");
    let server = servers.next().expect("a server");
    assert!(servers.next().is_none(), "{}", brief(lines));
    server
}

/// As PID 1 does it: the activator keeps the listener and a child gets it.
#[test]
fn a_socket_activated_service() {
    let ns = Netns::new();
    let netns = ns.inum().to_string();
    let activator = format!(
        "import os, select, socket
listener = socket.create_server(('127.0.0.1', 7512))
open('/proc/self/comm', 'w').write('activator')
select.select([listener], [], [])
pid = os.fork()
if pid == 0:
    os.dup2(os.dup2(listener.fileno(), 10), 3)
    os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
    os.execv('{PYTHON}', ['service', '-c', '''{SERVICE}'''])
os.waitpid(pid, 0)"
    );
    let telling = Live::start(&mut tcptrace(), &["conns", "--json", "--netns", &netns]);
    let mut activator = process::spawn(ns.command(PYTHON).args(["-c", &activator]));
    wait_until("the listener", || !ns.rows().is_empty());
    let (_, service) = asked(&ns, 7512, "who?");
    assert_ne!(service, u64::from(activator.pid()));
    assert!(activator.wait().success());
    ns.quiet();
    let lines = parse(&telling.stop().0);
    let server = only_server(&lines);
    assert_eq!((server["pid"].as_u64(), &server["comm"]), (Some(service), &"python3".into()), "{server}");
    assert!(server.get("inferred").is_none(), "{server}");
}

/// systemd's own, which becomes the service, and the one that accepts for it.
#[test]
fn systemd_socket_activate() {
    for (port, arguments, script) in [
        (7513, vec![], SERVICE.to_owned()),
        (
            7514,
            vec!["--accept", "--inetd"],
            "import os, socket
connection = socket.socket(fileno=0)
connection.recv(100)
connection.sendall(b'%d' % os.getpid())
connection.close()"
                .to_owned(),
        ),
    ] {
        let ns = Netns::new();
        let netns = ns.inum().to_string();
        let telling = Live::start(&mut tcptrace(), &["conns", "--json", "--netns", &netns]);
        let mut command = ns.command("systemd-socket-activate");
        command.args(["-l", &format!("127.0.0.1:{port}")]).args(&arguments).args([PYTHON, "-c", &script]);
        let mut activator = process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        wait_until("the listener", || !ns.rows().is_empty());
        let (_, service) = asked(&ns, port, "who?");
        ns.quiet();
        if arguments.is_empty() {
            assert!(activator.wait().success());
        } else {
            activator.signal(libc::SIGTERM);
            activator.wait();
        }
        let lines = parse(&telling.stop().0);
        let server = only_server(&lines);
        assert_eq!(
            (server["pid"].as_u64(), &server["comm"]),
            (Some(service), &"python3".into()),
            "{arguments:?}: {server}"
        );
    }
}
