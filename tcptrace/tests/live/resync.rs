//! After a loss a fresh snapshot puts every timeline right: the collector is stopped, the rings fill, and what happens then is
//! seen by nobody.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tcptrace::model::State;

use crate::support::{
    netns::{LISTEN, Netns, TIME_WAIT},
    process::{self, Running, me},
    run::{Conn, nothing_lost, parse},
    socket::{Pair, close_in_order, local, pair},
    tracer::{replay, tcptrace},
    wait_until,
};

const FIN_WAIT2: u8 = 5;
const CLOSE_WAIT: u8 = 8;
/// More than fit into the smallest ring of a CPU, 256 KB.
const FILL: usize = 1500;
/// A filter: every connection of these tests but those that shall not be seen.
const PORTS: &str = "8000-8099";
const HIDDEN: u16 = 8100;

/// `conns --json` with the smallest rings.
struct Tracer {
    running: Running,
    dir: tempfile::TempDir,
}

impl Tracer {
    /// Returns when the start snapshot is complete.
    fn start(ns: &Netns, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str| File::create(dir.path().join(name)).expect("a temporary directory");
        let mut command = tcptrace();
        command.args(["conns", "--json", "-v", "--buffer", "512K", "--netns", &ns.inum().to_string()]);
        command.args(args).arg("--record").arg(dir.path().join("rec"));
        let mut running = process::spawn(command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")));
        let errors = dir.path().join("err");
        running.wait_for("at the start", || fs::read_to_string(&errors).expect("written"));
        Self { running, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.path("err")).expect("written")
    }

    /// Whole lines of its output so far.
    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("out")).expect("written");
        parse(&text[..text.rfind('\n').map_or(0, |end| end + 1)])
    }

    fn resyncs(&self) -> usize {
        self.errors().matches("fresh snapshot after the loss").count()
    }

    /// Stop it, fill all rings, do `unseen`, let it go on.
    fn blind<T>(&self, ns: &Netns, unseen: impl FnOnce() -> T) -> T {
        self.running.signal(libc::SIGSTOP);
        fill(ns);
        let done = unseen();
        self.running.signal(libc::SIGCONT);
        done
    }

    /// End it as Ctrl-C does; its connections and all of its output.
    fn stop(self) -> (Vec<Conn>, Vec<Value>) {
        self.running.signal(libc::SIGINT);
        self.ended()
    }

    /// The same of one that ends already: a second Ctrl-C would cut its end short.
    fn ended(mut self) -> (Vec<Conn>, Vec<Value>) {
        let status = self.running.wait();
        assert!(status.success(), "{status}: {}", self.errors());
        assert_eq!(replay("conns", &self.path("rec")), fs::read_to_string(self.path("out")).expect("written"));
        let lines = self.lines();
        (connections(&lines), lines)
    }
}

fn connections(lines: &[Value]) -> Vec<Conn> {
    lines.iter().filter(|line| line["type"] == "connection").cloned().map(Conn).collect()
}

/// Connections on every CPU, each to its end.
fn fill(ns: &Netns) {
    // Not what a CPU quota leaves: every CPU that a socket of these tests can be on.
    // SAFETY: an all-zero set is an empty one, and the call writes no more than it.
    let allowed = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set), 0, "CPUs");
        set
    };
    std::thread::scope(|scope| {
        // SAFETY: below the set's size.
        for cpu in (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &allowed) }) {
            scope.spawn(move || ns.enter(|| on_cpu(cpu)));
        }
    });
}

fn on_cpu(cpu: usize) {
    // SAFETY: an all-zero set is an empty one, `cpu` is below its size, and the call reads no more than it.
    let pinned = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(pinned, 0, "pinned to CPU {cpu}");
    let listener = TcpListener::bind(local(8010 + cpu as u16)).expect("loopback is up");
    let addr = listener.local_addr().expect("bound");
    for _ in 0..FILL {
        let client = TcpStream::connect(addr).expect("a listener");
        let (mut server, _) = listener.accept().expect("a connection");
        drop(client);
        assert_eq!(server.read(&mut [0]).expect("its FIN"), 0);
    }
    // What is left has room for none but the smallest records: those of RSTs and of their sockets' ends.
    for _ in 0..2 {
        let client = TcpStream::connect(addr).expect("a listener");
        let (mut server, _) = listener.accept().expect("a connection");
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).expect("an open socket");
        drop(client);
        server.read(&mut [0]).expect_err("its RST");
    }
}

/// The only connection with this cookie.
fn of<'a>(connections: &'a [Conn], cookie: &str) -> &'a Conn {
    let mut found = connections.iter().filter(|c| c.text("sock") == cookie);
    let one = found.next().unwrap_or_else(|| panic!("no connection with cookie {cookie}"));
    assert!(found.next().is_none(), "one line: {}", one.0);
    one
}

/// Over, with records lost, at a time that nobody knows, in `states`.
fn over_unseen(c: &Conn, states: &str, end: &str, closed_by: &str) {
    assert_eq!((&*c.states(), c.text("end"), c.text("closed_by")), (states, end, closed_by), "{}", c.0);
    assert!(c.number("gaps") > 0 && c.has("inferred", "states"), "{}", c.0);
    assert!(c.0["duration_us"].is_null() && c.0["bytes_sent"].is_null(), "{}", c.0);
}

/// (local port, remote port, state) of what is open, as /proc/net/tcp and so `ss` has it.
fn open_in_kernel(ns: &Netns) -> BTreeSet<(u64, u64, &'static str)> {
    let name = |state| State::from_number(state).expect("a state").name();
    let open = ns.rows().into_iter().filter(|row| row.2 != LISTEN && row.2 != TIME_WAIT);
    open.map(|(lport, rport, state)| (lport.into(), rport.into(), name(state))).collect()
}

fn open_at_the_end(connections: &[Conn]) -> BTreeSet<(u64, u64, String)> {
    let open = connections.iter().filter(|c| c.text("end") == "open");
    open.map(|c| (c.number("lport"), c.number("rport"), c.states().split(' ').next_back().expect("a state").to_owned()))
        .collect()
}

fn both(pair: &Pair) -> [String; 2] {
    [pair.client.cookie(), pair.server.cookie()]
}

fn put_right(ns: &Netns, args: &[&str]) {
    let tracer = Tracer::start(ns, args);
    let at = |port: u16| -> SocketAddr { local(8000 + port) };
    let held = pair(ns, at(0));
    let (closes, resets, half, left) = (pair(ns, at(1)), pair(ns, at(2)), pair(ns, at(3)), pair(ns, at(4)));
    let hidden = pair(ns, local(HIDDEN));
    let [closed_client, closed_server] = both(&closes);
    let [reset_client, reset_server] = both(&resets);
    let [left_client, left_server] = both(&left);
    let before = tracer.resyncs();
    let (fresh, gone, _listeners) = tracer.blind(ns, || {
        close_in_order(closes.client, closes.server);
        resets.client.linger_zero();
        resets.client.close();
        half.client.shutdown();
        half.client.wait_state(FIN_WAIT2);
        half.server.wait_state(CLOSE_WAIT);
        let port = left.client.local().port();
        left.client.close();
        wait_until("the ACK of its FIN", || ns.rows().contains(&(port, 8004, FIN_WAIT2)));
        // The reset connection's other end is closed in the kernel; its descriptor is no concern of anybody's.
        resets.server.close();
        let gone = pair(ns, at(5));
        let cookies = both(&gone);
        close_in_order(gone.client, gone.server);
        (pair(ns, at(6)), cookies, (closes.listener, resets.listener, gone.listener))
    });
    wait_until("the fresh snapshot", || tracer.resyncs() > before);
    // What is over is told now, not at the end of the run.
    let over = [&closed_client, &closed_server, &reset_client, &reset_server, &left_client];
    wait_until("connections that are over", || {
        let told = connections(&tracer.lines());
        over.iter().all(|&cookie| told.iter().any(|c| c.text("sock") == cookie))
    });
    let told = connections(&tracer.lines());
    over_unseen(of(&told, &closed_client), "SYN_SENT ESTABLISHED TIME_WAIT", "fin", "");
    over_unseen(of(&told, &closed_server), "SYN_RECV ESTABLISHED CLOSE", "", "");
    over_unseen(of(&told, &reset_client), "SYN_SENT ESTABLISHED CLOSE", "", "");
    over_unseen(of(&told, &reset_server), "SYN_RECV ESTABLISHED CLOSE", "", "");
    over_unseen(of(&told, &left_client), "SYN_SENT ESTABLISHED FIN_WAIT2", "fin", "local");
    assert!(of(&told, &left_client).has("patterns", "orphan"));

    // What follows is whole again: of timelines that were put right, and of new ones.
    left.server.close();
    let later = pair(ns, at(7));
    let [later_client, later_server] = both(&later);
    close_in_order(later.client, later.server);
    wait_until("the last end", || connections(&tracer.lines()).iter().any(|c| c.text("sock") == later_server));
    let cookies = [both(&held), both(&half), both(&fresh)];
    let (hidden_cookies, mut open) = (both(&hidden), open_in_kernel(ns));
    assert_eq!(open.len(), 8, "{open:?}");
    let (connections, lines) = tracer.stop();

    let server = of(&connections, &left_server);
    assert_eq!((&*server.states(), server.text("end")), ("SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE", "fin"));
    assert!(server.number("gaps") > 0 && server.0["bytes_sent"].is_u64(), "{}", server.0);
    for (cookie, closed_by) in [(&later_client, "local"), (&later_server, "remote")] {
        let c = of(&connections, cookie);
        assert_eq!((c.number("gaps"), c.text("end"), c.text("closed_by")), (0, "fin", closed_by), "{}", c.0);
    }
    for cookie in &cookies[2] {
        let c = of(&connections, cookie);
        assert!(c.number("gaps") > 0 && c.0["preexisting"].is_null(), "{}", c.0);
        c.owned_by(&me());
    }
    for cookie in &cookies[0] {
        assert_eq!(of(&connections, cookie).number("gaps"), 0);
    }
    assert!(!connections.iter().any(|c| gone.contains(&c.0["sock"].as_str().unwrap_or("").to_owned())));
    if !args.is_empty() {
        assert!(!connections.iter().any(|c| hidden_cookies.contains(&c.text("sock").to_owned())), "not asked for");
        open.retain(|(lport, rport, _)| ![*lport, *rport].contains(&HIDDEN.into()));
    }
    let open: BTreeSet<_> = open.into_iter().map(|(l, r, state)| (l, r, state.to_owned())).collect();
    assert_eq!(open_at_the_end(&connections), open);
    assert!(lines.iter().any(|line| line["type"] == "loss"), "the rings were full");
}

#[test]
fn a_fresh_snapshot_puts_right_what_a_loss_left_wrong() {
    put_right(&Netns::new(), &[]);
}

#[test]
fn filtered_it_ends_nothing_that_was_not_asked_for() {
    put_right(&Netns::new(), &["--port", PORTS]);
}

#[test]
fn a_run_that_ends_right_after_a_loss_is_put_right_too() {
    let ns = Netns::new();
    let tracer = Tracer::start(&ns, &[]);
    let (held, closes) = (pair(&ns, local(8000)), pair(&ns, local(8001)));
    let [client, server] = both(&closes);
    tracer.blind(&ns, || {
        close_in_order(closes.client, closes.server);
        // Waits for the collector to go on.
        tracer.running.signal(libc::SIGINT);
    });
    let open = open_in_kernel(&ns);
    let (connections, _) = tracer.ended();
    over_unseen(of(&connections, &client), "SYN_SENT ESTABLISHED TIME_WAIT", "fin", "");
    over_unseen(of(&connections, &server), "SYN_RECV ESTABLISHED CLOSE", "", "");
    let open: BTreeSet<_> = open.into_iter().map(|(l, r, state)| (l, r, state.to_owned())).collect();
    assert_eq!(open_at_the_end(&connections), open);
    drop(held);
}

/// Nothing is read again where nothing was lost.
#[test]
fn without_a_loss_there_is_one_snapshot() {
    let ns = Netns::new();
    let tracer = Tracer::start(&ns, &[]);
    let Pair { client, server, listener: _listener } = pair(&ns, local(8000));
    close_in_order(client, server);
    ns.quiet();
    assert_eq!(tracer.resyncs(), 0);
    let (connections, lines) = tracer.stop();
    assert!(connections.iter().all(|c| c.number("gaps") == 0 && c.text("end") == "fin"));
    nothing_lost(&lines);
}
