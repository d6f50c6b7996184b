//! Connections that are not closed, ports that run out.

use std::process::Stdio;

use crate::{
    support::{
        netns::Netns,
        process::{self, Running, comm},
    },
    watching::Watching,
};

/// Debian's, whatever else is in PATH.
const PYTHON: &str = "/usr/bin/python3";

/// Two namespaces side by side: 10.0.0.1 and 10.0.0.2.
fn side_by_side() -> [Netns; 2] {
    let (here, there) = (Netns::new(), Netns::new());
    here.veth(&there, "10.0.0.1".parse().expect("an address"), "10.0.0.2".parse().expect("an address"));
    [here, there]
}

/// What every script begins with: it says `ready` once, reads a line where it waits, and ends with its standard input.
const BEGIN: &str = "
import os, socket, sys, threading, time
def ready():
    print('ready', flush=True)
def wait():
    if not sys.stdin.readline():
        os._exit(0)
def listen(port, backlog=128):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('0.0.0.0', port))
    s.listen(backlog)
    return s
def ending():
    sys.stdin.read()
    os._exit(0)
";

/// A python program in `ns`; returns when it is ready. It ends with the test.
fn python(ns: &Netns, script: &str) -> Running {
    let mut command = ns.command(PYTHON);
    command.args(["-c", &format!("{BEGIN}{script}")]);
    let mut running = process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let pipe = running.child().stdout.take().expect("piped");
    let (line, _) = process::first_line(pipe);
    assert_eq!(line, "ready\n", "{script}");
    running
}

/// Close its standard input: it ends.
fn end(mut running: Running) {
    drop(running.child().stdin.take());
    running.wait();
}

/// Limits that a test of a few seconds can meet.
const LEAKS: &str = "[close-wait-leak]\nheld = \"2s\"\nsockets = 10\nresolves_after = \"1s\"\n";

#[test]
fn a_server_that_forgets_to_close_on_one_path() {
    let [here, there] = side_by_side();
    let watch = Watching::start(&[&here], LEAKS);
    let server = python(
        &here,
        "
threading.Thread(target=ending).start()
s = listen(8080)
ready()
kept = []
while True:
    c, _ = s.accept()
    while data := c.recv(100):
        if data == b'bad':
            c.recv(100)
            # An early return, without close().
            kept.append(c)
            break
    else:
        c.close()
",
    );
    let client = python(
        &there,
        "
ready()
for i in range(60):
    c = socket.create_connection(('10.0.0.1', 8080))
    c.sendall(b'bad' if i % 2 else b'good')
    c.shutdown(socket.SHUT_WR)
    c.close()
    time.sleep(0.05)
",
    );
    let fired = watch.fires("close-wait-leak");
    assert_eq!((&fired["severity"], &fired["subject"]["lport"]), (&"warning".into(), &8080.into()), "{fired}");
    let name = comm(server.pid());
    assert_eq!((&fired["subject"]["pid"], &fired["subject"]["comm"]), (&server.pid().into(), &name.into()), "{fired}");
    let evidence = &fired["evidence"];
    assert_eq!(
        (&evidence["opened_by"], &evidence["peers"][0]["raddr"]),
        (&"accept".into(), &"10.0.0.2".into()),
        "{fired}"
    );
    assert!(evidence["sockets"].as_u64() >= Some(10) && evidence["sockets"].as_u64() <= Some(30), "{fired}");
    assert!(evidence["oldest_us"].as_u64() >= Some(2_000_000), "{fired}");
    assert!(evidence["growth_per_s"].as_f64().is_some_and(|rate| (0.5..30.0).contains(&rate)), "{fired}");
    assert_eq!(evidence["unread_bytes"], 0, "{fired}");
    assert!(evidence["read_to_the_end"].as_u64() >= Some(1), "{fired}");
    assert!(evidence["fds"].as_array().is_some_and(|fds| !fds.is_empty()), "{fired}");
    assert!(fired["advice"].as_str().is_some_and(|text| text.contains("close()")), "{fired}");
    end(client);
    end(server);
    watch.resolves("close-wait-leak");
    watch.stop(&["close-wait-leak"]).keep("close-wait-leak.trouble");
}

#[test]
fn a_slow_reader_closes_in_the_end() {
    let [here, there] = side_by_side();
    let watch = Watching::start(&[&here], &LEAKS.replace("2s", "5s"));
    let server = python(
        &here,
        "
threading.Thread(target=ending).start()
s = listen(8080)
ready()
def serve(c):
    # Of 8000 bytes 500 in each half second.
    while c.recv(500):
        time.sleep(0.5)
    c.close()
while True:
    threading.Thread(target=serve, args=(s.accept()[0],)).start()
",
    );
    let client = python(
        &there,
        "
ready()
for i in range(24):
    c = socket.create_connection(('10.0.0.1', 8080))
    c.sendall(b'x' * 8000)
    c.close()
    time.sleep(0.1)
",
    );
    // All of them have come and gone.
    let began = std::time::Instant::now();
    while here.rows().iter().any(|row| row.2 != 10) || began.elapsed().as_secs() < 4 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    end(client);
    end(server);
    watch.stop(&[]).keep("close-wait-leak.alike");
}

#[test]
fn a_peer_that_never_closes() {
    let [here, there] = side_by_side();
    let watch = Watching::start(&[&here], "[fin-wait2-orphans]\nfires_after = \"0s\"\nresolves_after = \"1s\"\n");
    let server = python(
        &here,
        "
threading.Thread(target=ending).start()
s = listen(8080)
ready()
while True:
    s.accept()[0].close()
",
    );
    let client = python(
        &there,
        "
kept = [socket.create_connection(('10.0.0.1', 8080)) for i in range(60)]
ready()
ending()
",
    );
    // The first ones may be told before all have come.
    let fired = watch.fires("fin-wait2-orphans");
    assert_eq!((&fired["severity"], &fired["subject"]["raddr"]), (&"warning".into(), &"10.0.0.2".into()), "{fired}");
    assert!(fired["evidence"]["orphans"].as_u64() >= Some(50), "{fired}");
    let closed_by = &fired["evidence"]["closed_by"][0];
    assert_eq!(
        (&closed_by["pid"], &closed_by["port"], &closed_by["role"]),
        (&server.pid().into(), &8080.into(), &"server".into()),
        "{fired}"
    );
    assert_eq!(fired["evidence"]["tcp_fin_timeout_us"], 60_000_000, "{fired}");
    end(client);
    watch.resolves("fin-wait2-orphans");
    end(server);
    watch.stop(&["fin-wait2-orphans"]).keep("fin-wait2-orphans.trouble");
}

#[test]
fn peers_that_close_a_little_later() {
    let [here, there] = side_by_side();
    let watch = Watching::start(&[&here], "[fin-wait2-orphans]\nfires_after = \"0s\"\n");
    let server = python(
        &here,
        "
threading.Thread(target=ending).start()
s = listen(8080)
ready()
while True:
    s.accept()[0].close()
",
    );
    let client = python(
        &there,
        "
ready()
for i in range(8):
    kept = [socket.create_connection(('10.0.0.1', 8080)) for i in range(10)]
    time.sleep(0.4)
    for c in kept:
        c.close()
ending()
",
    );
    let ended = || here.rows().iter().filter(|row| row.2 == super::support::netns::TIME_WAIT).count() == 80;
    super::support::wait_until("all connections to be in TIME_WAIT", ended);
    end(client);
    end(server);
    watch.stop(&[]).keep("fin-wait2-orphans.alike");
}

/// One connection after the other to a server in `there`, closed first by this end, so many a second.
fn closes_first(here: &Netns, there: &Netns, connections: u32) -> [Running; 2] {
    let server = python(
        there,
        "
threading.Thread(target=ending).start()
s = listen(8080)
ready()
while True:
    c, _ = s.accept()
    c.recv(1)
    c.close()
",
    );
    let client = python(
        here,
        &format!(
            "
ready()
for i in range({connections}):
    c = socket.create_connection(('10.0.0.2', 8080))
    c.close()
    time.sleep(0.05)
ending()
"
        ),
    );
    [server, client]
}

#[test]
fn no_room_for_time_wait() {
    let [here, there] = side_by_side();
    here.sysctl("net/ipv4/tcp_max_tw_buckets", "30");
    let watch = Watching::start(&[&here], "[time-wait-pressure]\noverflows = 5\n");
    let [server, client] = closes_first(&here, &there, 120);
    let fired = watch.fires_as("time-wait-pressure", |f| f["severity"] == "warning");
    assert_eq!(fired["subject"]["netns"], here.inum(), "{fired}");
    let evidence = &fired["evidence"];
    assert!(evidence["overflows"].as_u64() >= Some(5), "{fired}");
    assert_eq!(evidence["tcp_max_tw_buckets"], 30, "{fired}");
    assert_eq!(evidence["closed_by"][0]["pid"], client.pid(), "{fired}");
    assert!(fired["advice"].as_str().is_some_and(|text| text.contains("net.ipv4.tcp_max_tw_buckets=")), "{fired}");
    end(client);
    end(server);
    watch.stop(&["time-wait-pressure"]).keep("time-wait-pressure.trouble");
}

#[test]
fn room_enough_for_time_wait() {
    let [here, there] = side_by_side();
    here.sysctl("net/ipv4/tcp_max_tw_buckets", "200");
    let watch = Watching::start(&[&here], "");
    let clients = closes_first(&here, &there, 80);
    let waiting = || here.rows().iter().filter(|row| row.2 == super::support::netns::TIME_WAIT).count() == 80;
    super::support::wait_until("80 in TIME_WAIT", waiting);
    clients.into_iter().rev().for_each(end);
    watch.stop(&[]).keep("time-wait-pressure.alike");
}

/// A server that keeps what it accepts, at so many ports from 8080 on.
fn keeps(there: &Netns, ports: u16) -> Running {
    python(
        there,
        &format!(
            "
def serve(s):
    kept = []
    while True:
        kept.append(s.accept()[0])
for port in range({ports}):
    threading.Thread(target=serve, args=(listen(8080 + port),)).start()
threading.Thread(target=ending).start()
ready()
"
        ),
    )
}

#[test]
fn a_client_that_runs_out_of_ports() {
    let [here, there] = side_by_side();
    here.sysctl("net/ipv4/ip_local_port_range", "40000 40019");
    let watch = Watching::start(&[&here], "[ephemeral-ports]\nresolves_after = \"1s\"\n");
    let server = keeps(&there, 1);
    let client = python(
        &here,
        "
kept = [socket.create_connection(('10.0.0.2', 8080)) for i in range(20)]
for i in range(3):
    try:
        socket.create_connection(('10.0.0.2', 8080))
        sys.exit('a port was free')
    except OSError as e:
        assert e.errno == 99, e
ready()
ending()
",
    );
    let fired = watch.fires_as("ephemeral-ports", |f| f["severity"] == "critical");
    let subject = &fired["subject"];
    assert_eq!(
        (&subject["laddr"], &subject["raddr"], &subject["rport"]),
        (&"10.0.0.1".into(), &"10.0.0.2".into(), &8080.into()),
        "{fired}"
    );
    let evidence = &fired["evidence"];
    assert_eq!(
        (&evidence["failed"], &evidence["open"], &evidence["ports"]),
        (&3.into(), &20.into(), &20.into()),
        "{fired}"
    );
    assert_eq!(evidence["ip_local_port_range"], "40000 40019", "{fired}");
    assert_eq!(evidence["processes"][0]["pid"], client.pid(), "{fired}");
    end(client);
    end(server);
    watch.stop(&["ephemeral-ports"]).keep("ephemeral-ports.trouble");
}

#[test]
fn a_client_of_several_services_shares_ports() {
    let [here, there] = side_by_side();
    here.sysctl("net/ipv4/ip_local_port_range", "40000 40019");
    let watch = Watching::start(&[&here], "");
    let server = keeps(&there, 3);
    let client = python(
        &here,
        "
kept = [socket.create_connection(('10.0.0.2', 8080 + i % 3)) for i in range(45)]
try:
    socket.create_connection(('10.0.0.2', 9))
except ConnectionRefusedError:
    pass
ready()
ending()
",
    );
    // For several readings.
    std::thread::sleep(std::time::Duration::from_secs(3));
    end(client);
    end(server);
    watch.stop(&[]).keep("ephemeral-ports.alike");
}
