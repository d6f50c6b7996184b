//! Whose connection it is, also where the kernel did it in softirq on top of somebody else.

use std::{os::fd::AsRawFd, process::Stdio};

use crate::support::{
    process::{self, fork, me},
    programs::nginx,
    run::arrow,
    socket::{Pair, Sock, close_in_order, local, pair},
    tracer::traced,
};

const CLIENT: &str = "client SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT end=fin by=local";
const SERVER: &str = "server SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE end=fin by=remote";

#[test]
fn accepted_in_a_forked_child() {
    let mut child = 0;
    let run = traced(|ns| {
        let listener = Sock::listen(ns, local(7201), 16);
        let forked = fork(c"tt-acceptor", &[listener.as_raw_fd()], || {
            let server = listener.accept();
            server.receive(2);
            server.receive_all().expect("the end of the stream");
            server.close();
        });
        child = forked.pid();
        let client = Sock::connected(ns, local(7201));
        client.send(b"hi");
        client.shutdown();
        client.receive_all().expect("the end of the stream");
        client.close();
        forked.join();
        ns.quiet();
    });
    assert_eq!(run.lives(), [CLIENT, SERVER]);
    run.only("client").owned_by(&me());
    run.only("server").owned_by(&(child, "tt-acceptor".into()));
    run.only("server").carried(0, 2);
    let listener = run.of_type("transition").find(|t| arrow(t) == "CLOSE>LISTEN").expect("a listener");
    assert_eq!((&listener["pid"], &listener["comm"]), (&me().0.into(), &me().1.as_str().into()));
}

#[test]
fn inherited_over_fork() {
    let mut child = 0;
    let run = traced(|ns| {
        let Pair { listener: _listener, client, server } = pair(ns, local(7202));
        let mut pipe = [0; 2];
        // SAFETY: `pipe` has room for two descriptors.
        assert_eq!(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        let forked = fork(c"tt-heir", &[server.as_raw_fd(), pipe[0]], || {
            // Until the parent has closed its copy.
            let mut byte = 0u8;
            // SAFETY: `byte` has room for one; the descriptor was kept.
            unsafe { libc::read(pipe[0], (&raw mut byte).cast(), 1) };
            server.receive_all().expect("the end of the stream");
            server.send(b"from the child");
            // SAFETY: the child's copy of the descriptor, used no more.
            unsafe { libc::close(server.as_raw_fd()) };
        });
        child = forked.pid();
        server.close();
        // SAFETY: both are ours.
        unsafe {
            libc::close(pipe[1]);
            libc::close(pipe[0]);
        }
        client.shutdown();
        client.receive(14);
        client.receive_all().expect("the end of the stream");
        client.close();
        forked.join();
        ns.quiet();
    });
    assert_eq!(run.lives(), [CLIENT, SERVER]);
    run.only("server").owned_by(&(child, "tt-heir".into()));
    run.only("server").carried(14, 0);
    run.only("client").owned_by(&me());
}

#[test]
fn every_transition_names_the_program() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut worker, mut curls) = (0, Vec::new());
    let run = traced(|ns| {
        let mut nginx = nginx(ns, dir.path(), 7203);
        worker = nginx.children()[0];
        for _ in 0..5 {
            let mut curl =
                process::spawn(ns.command("curl").args(["-sS", "http://127.0.0.1:7203/"]).stdout(Stdio::null()));
            curls.push(u64::from(curl.pid()));
            assert!(curl.wait().success(), "curl");
        }
        ns.quiet();
        nginx.signal(libc::SIGTERM);
        nginx.wait();
    });
    assert_eq!(run.conns.iter().filter(|c| c.text("role") == "client").count(), curls.len());
    for t in run.of_type("transition") {
        match t["role"].as_str().expect("a role") {
            "client" => {
                assert!(t["comm"] == "curl" && t["pid"].as_u64().is_some_and(|p| curls.contains(&p)), "{t}");
            }
            // Not accepted yet: nobody's, or already known to be the listener's; never the interrupted process.
            "server" if ["LISTEN>SYN_RECV", "SYN_RECV>ESTABLISHED"].contains(&arrow(t).as_str()) => {
                assert!(t.get("comm").is_none() || t["comm"] == "nginx", "{t}");
            }
            "server" => assert!(t["comm"] == "nginx" && t["pid"] == worker, "{t}"),
            role => assert!(role == "listener" && t["comm"] == "nginx", "{t}"),
        }
    }
    for conn in run.conns.iter().filter(|c| c.text("role") == "server") {
        conn.owned_by(&(worker, "nginx".into()));
    }
}

#[test]
fn a_thread_belongs_to_its_process() {
    let run = traced(|ns| {
        let listener = Sock::listen(ns, local(7204), 16);
        let client = Sock::connected(ns, local(7204));
        let server = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("tt-thread".into())
                .spawn_scoped(scope, || listener.accept())
                .expect("a thread")
                .join()
                .expect("accepted")
        });
        close_in_order(client, server);
        ns.quiet();
    });
    assert_eq!(run.lives(), [CLIENT, SERVER]);
    let server = run.only("server");
    server.owned_by(&me());
    assert_ne!(server.0["tid"], server.0["pid"]);
    assert_eq!(server.number("uid"), 0);
}
