//! Two processes called `client` and `server` on two kernels' ends of a wire, and the recorder under test beside them.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;

use crate::{
    recorded::without_this_host,
    support::{
        DEADLINE,
        ftrace::{Above1, STATE},
        netns::Netns,
        process::{self, fork},
        run::parse,
        socket::Sock,
        tracer::{netns_list, replay_with, tcptrace},
    },
    wire::{Fate, Judge, RIGHT, Wire},
};

/// Where the server listens.
pub fn address() -> SocketAddr {
    (RIGHT, 80).into()
}

/// One of the processes.
pub struct End {
    /// Its socket: the server's is bound to [`address`].
    pub sock: Sock,
    /// One more on the server's end.
    pub spare: Option<Sock>,
    other: UnixStream,
    stage: UnixStream,
    bell: Option<UnixStream>,
}

impl End {
    /// Let the other process go on.
    pub fn pass(&self) {
        (&self.other).write_all(b".").expect("the other process is there");
    }

    /// Wait for the other process to say so.
    pub fn wait(&self) {
        hear(&self.other);
    }

    /// Wait for the wire to say so.
    pub fn hear_bell(&self) {
        hear(self.bell.as_ref().expect("the server's"));
    }

    /// Keep what is open until the recording is over.
    pub fn stay(&self) {
        (&self.stage).write_all(b".").expect("the stage is there");
        assert_eq!((&self.stage).read(&mut [0]).expect("a stream"), 0, "the stage says no more");
    }

    /// Listen, and let the client know.
    pub fn listen(&self, backlog: i32) {
        rustix::net::listen(&self.sock, backlog).expect("listen");
        self.pass();
    }

    /// Connect once the server listens.
    pub fn connect(&self) {
        self.wait();
        self.sock.connect(address()).expect("the server listens");
    }
}

fn hear(mut stream: &UnixStream) {
    stream.read_exact(&mut [0]).expect("the other process gets there");
}

/// How a scene is set.
pub struct Scene {
    /// Name of its recording.
    pub name: &'static str,
    /// Sysctls of both ends.
    pub settings: &'static [(&'static str, &'static str)],
    /// Of the server's end of the wire.
    pub mtu: u32,
    /// Both ends wait so long for an ACK at least: a busy machine must not make them send anything again.
    pub patient: bool,
    /// What the wire does.
    pub judge: Judge,
    /// More arguments of the recorder.
    pub arguments: &'static [&'static str],
    /// Is all over, or as it is to stay, on the client's and the server's end?
    pub settle: fn([&Netns; 2]),
    /// Both ends do the same at once: which of two segments is drawn first is nobody's order.
    pub at_once: bool,
    /// Another recording that may be made instead, where a machine that is slow for a moment leads to it.
    pub or: Option<&'static str>,
}

impl Scene {
    /// Nothing special.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            settings: &[],
            mtu: 1500,
            patient: true,
            judge: Box::new(|_, _| Fate::Arrives),
            arguments: &[],
            settle: |ends| ends.iter().for_each(|ns| ns.quiet()),
            at_once: false,
            or: None,
        }
    }

    /// Record it, and compare with the recording that is shipped; or, with `TCPTRACE_BLESS` set, replace that.
    pub fn play(self, client: impl FnOnce(End), server: impl FnOnce(End)) {
        let (name, or, at_once) = (self.name, self.or, self.at_once);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("scene.rec");
        let unseen = Above1::watch(&[STATE, "tcp/tcp_retransmit_skb", "tcp/tcp_retransmit_synack"]);
        self.record(&file, client, server);
        without_this_host(&file);
        if std::env::var_os("TCPTRACE_BLESS").is_some() {
            fs::copy(&file, shipped(name)).expect("our directory");
            return;
        }
        let shape = |file: &Path| {
            let mut lines = shape(file);
            if at_once {
                lines.sort();
            }
            lines.join("\n")
        };
        let made = shape(&file);
        let known: Vec<_> = [Some(name), or].into_iter().flatten().map(|name| shape(&shipped(name))).collect();
        // No tracer can tell what a kernel keeps from all of them.
        let unseen: Vec<_> = unseen.ports().into_iter().filter(|ports| ports_of(&file).contains(ports)).collect();
        assert!(known.contains(&made) || !unseen.is_empty(), "made now:\n{made}\nshipped:\n{}", known.join("\nor:\n"));
    }

    fn record(self, file: &Path, client: impl FnOnce(End), server: impl FnOnce(End)) {
        let (near, far) = (Netns::new(), Netns::new());
        let ends = [&near, &far];
        let (ringer, bell) = UnixStream::pair().expect("sockets");
        let wire = Wire::new(ends, self.mtu, self.judge, ringer);
        for ns in ends {
            for (key, value) in self.settings {
                ns.sysctl(key, value);
            }
            if self.patient {
                ns.sysctl("net/ipv4/tcp_early_retrans", "0");
                ns.ip("route change 10.77.0.0/24 dev tun0 rto_min 1s");
            }
        }
        let mut command = tcptrace();
        command.args(["record", "--tier", "tracepoint", "--requests", "--netns", &netns_list(&ends)]);
        let mut recorder =
            process::spawn(command.args(self.arguments).arg(file).stdout(Stdio::null()).stderr(Stdio::piped()));
        // It says on stderr that it records once it does.
        let (_, mut messages) = process::first_line(recorder.child().stderr.take().expect("piped"));

        let (one, other) = UnixStream::pair().expect("sockets");
        let [to_client, to_server] = [(), ()].map(|()| UnixStream::pair().expect("sockets"));
        for stream in [&one, &other, &to_client.0, &to_server.0, &bell] {
            stream.set_read_timeout(Some(*DEADLINE)).expect("a socket");
        }
        let (sock, bound) = (Sock::new(&near, address()), Sock::new(&far, address()));
        bound.bind(address());
        let spare = Sock::new(&far, address());
        let client = {
            let keep = [sock.as_raw_fd(), one.as_raw_fd(), to_client.1.as_raw_fd()];
            let end = End { sock, spare: None, other: one, stage: to_client.1, bell: None };
            fork(c"client", &keep, move || begin(end, client))
        };
        let server = {
            let kept = [&other, &to_server.1, &bell].map(AsRawFd::as_raw_fd);
            let keep = [&[bound.as_raw_fd(), spare.as_raw_fd()], &kept[..]].concat();
            let end = End { sock: bound, spare: Some(spare), other, stage: to_server.1, bell: Some(bell) };
            fork(c"server", &keep, move || begin(end, server))
        };
        // Now that no socket is this process', too.
        let stages = [to_client.0, to_server.0];
        stages.iter().for_each(|mut stage| stage.write_all(b".").expect("it waits"));
        stages.iter().for_each(hear);
        (self.settle)(ends);
        recorder.signal(libc::SIGINT);
        assert!(recorder.wait().success());
        let mut text = String::new();
        messages.read_to_string(&mut text).expect("UTF-8");
        assert!(text.contains(" 0 events lost"), "{text}");
        drop(stages);
        client.join();
        server.join();
        drop(wire);
    }
}

/// The part of a process, from when it may begin.
fn begin(end: End, part: impl FnOnce(End)) {
    hear(&end.stage);
    let stage = end.stage.try_clone().expect("another descriptor");
    part(end);
    // One that stayed is not waited for any more.
    let _ = (&stage).write_all(b".");
}

/// A recording that tcptrace carries.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("recordings/{name}.rec"))
}

/// Local and remote port of each end of each connection in a recording.
fn ports_of(file: &Path) -> Vec<(u64, u64)> {
    let lines = parse(&replay_with("conns", file, &[]));
    let ports = |line: &Value| line["lport"].as_u64().zip(line["rport"].as_u64());
    lines.iter().filter_map(ports).flat_map(|(local, remote)| [(local, remote), (remote, local)]).collect()
}

/// What a recording's ladders say, but for times and numbers.
fn shape(file: &Path) -> Vec<String> {
    let lines = parse(&replay_with("conns", file, &["--ladder"]));
    let mut connections: Vec<_> = lines.iter().filter(|line| line["type"] == "connection").collect();
    connections.sort_by_key(|c| c["role"].to_string());
    let mut shape = Vec::new();
    for c in connections {
        let words = ["role", "comm", "end", "closed_by", "patterns", "options", "gaps"].map(|name| c[name].to_string());
        shape.push(words.join(" "));
        for step in c["ladder"].as_array().expect("a ladder") {
            let words = ["direction", "flags", "state", "peer_state", "inferred", "again", "sent_again", "torn"];
            let known = ["at_us", "peer_at_us", "seq", "ack", "behind"].map(|name| step.get(name).is_some());
            // With the end that tells it: each tells all.
            let step = words.map(|name| word(&step[name])).join(" ");
            shape.push(format!("  {} {step} {known:?}", c["comm"]));
        }
    }
    shape
}

fn word(value: &Value) -> String {
    if value.is_null() { "-".to_owned() } else { value.to_string() }
}
