//! tshark in a namespace: what it captured, as segments.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    process::Stdio,
};

use tempfile::TempDir;

use crate::support::{
    netns::Netns,
    process::{self, Running},
    wait_until,
};

/// A TCP segment as it passed an interface.
#[derive(Clone, Debug)]
pub struct Seg {
    /// CLOCK_REALTIME, microseconds.
    pub at: i64,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// Bytes of payload.
    pub len: u32,
}

impl Seg {
    /// Does it have all of these flags?
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Sequence numbers that it takes.
    pub fn space(&self) -> u32 {
        self.len + u32::from(self.has(FIN)) + u32::from(self.has(SYN))
    }
}

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// A connection: the client's address, the server's, and the number of the client's SYN, because ports are used again.
pub type Key = (SocketAddr, SocketAddr, u32);

/// Captures until it is stopped.
pub struct Tshark<'a> {
    ns: &'a Netns,
    running: Running,
    dir: TempDir,
    /// Where a datagram to these goes is captured.
    ends: Vec<IpAddr>,
}

impl<'a> Tshark<'a> {
    /// On these interfaces, each of which a datagram to one of `ends` passes; returns when nothing that comes is missed.
    pub fn start(ns: &'a Netns, interfaces: &[&str], ends: &[IpAddr]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // What tshark captures with; tshark itself first asks for other things to capture, over TCP on the loopback interface, too.
        let mut command = ns.command("dumpcap");
        // Megabytes for what waits to be written; no more of a packet than its headers.
        command.args(["-q", "-B", "64", "-s", "160", "-f", "tcp or udp"]);
        // Packets and bytes between the threads of several interfaces and the file: not 1,000, which a slow disk fills.
        command.args(["-N", "1000000", "-C", "1000000000"]);
        command.args(interfaces.iter().flat_map(|name| ["-i", name]));
        command.arg("-w").arg(dir.path().join("capture.pcapng")).env("HOME", dir.path());
        let running = process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()));
        // A packet socket has its protocol, all of them, from when it captures.
        let captures = || {
            let sockets = ns.enter(|| fs::read_to_string("/proc/thread-self/net/packet")).expect("procfs");
            sockets.lines().filter(|line| line.split_whitespace().nth(3) == Some("0003")).count()
        };
        wait_until("dumpcap to capture", || captures() >= interfaces.len());
        Self { ns, running, dir, ends: ends.to_vec() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("capture.pcapng")
    }

    /// Everything until now, by connection: those whose SYN passed.
    pub fn stop(mut self) -> HashMap<Key, Vec<Seg>> {
        // What was captured before the last marks is in the file when they are.
        for (i, end) in self.ends.iter().enumerate() {
            let mark = format!("the end of this capture, {i}");
            wait_until("dumpcap to write what it has", || {
                self.ns.enter(|| {
                    let any: IpAddr = if end.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
                    let socket = UdpSocket::bind((any, 0)).expect("a socket");
                    socket.send_to(mark.as_bytes(), (*end, 9)).expect("a datagram");
                });
                let bytes = fs::read(self.file()).expect("dumpcap's file");
                bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
            });
        }
        self.running.signal(libc::SIGINT);
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.running.child().stderr.take().expect("piped"), &mut said)
            .expect("UTF-8 from dumpcap");
        assert!(self.running.wait().success(), "dumpcap: {said}");
        let counts: Vec<_> = said.lines().filter(|line| line.contains("received/dropped on interface")).collect();
        assert!(counts.len() == self.ends.len() && counts.iter().all(|line| line.contains("/0 (")), "dumpcap: {said}");
        by_connection(self.segments())
    }

    fn segments(&self) -> Vec<Seg> {
        let fields = [
            "frame.time_epoch",
            "ip.src",
            "ip.dst",
            "ipv6.src",
            "ipv6.dst",
            "tcp.srcport",
            "tcp.dstport",
            "tcp.seq_raw",
            "tcp.ack_raw",
            "tcp.flags",
            "tcp.len",
        ];
        let mut command = std::process::Command::new("tshark");
        command.args(["-n", "-Y", "tcp", "-T", "fields"]).arg("-r").arg(self.file()).env("HOME", self.dir.path());
        command.args(fields.iter().flat_map(|field| ["-e", field]));
        let text = String::from_utf8(process::run(&mut command).stdout).expect("UTF-8 from tshark");
        let mut segments: Vec<_> = text.lines().map(|line| segment(line).unwrap_or_else(|| panic!("{line}"))).collect();
        // Each interface has a thread of its own.
        segments.sort_by_key(|segment| segment.at);
        segments
    }
}

fn segment(line: &str) -> Option<Seg> {
    let fields: Vec<_> = line.split('\t').collect();
    let [time, src4, dst4, src6, dst6, sport, dport, seq, ack, flags, len] = fields[..] else { return None };
    let end = |v4: &str, v6: &str, port: &str| {
        let addr: IpAddr = if v4.is_empty() { v6.parse().ok()? } else { v4.parse().ok()? };
        Some(SocketAddr::new(addr, port.parse().ok()?))
    };
    let (seconds, rest) = time.split_once('.')?;
    Some(Seg {
        at: seconds.parse::<i64>().ok()? * 1_000_000 + rest.get(..6)?.parse::<i64>().ok()?,
        from: end(src4, src6, sport)?,
        to: end(dst4, dst6, dport)?,
        seq: seq.parse().ok()?,
        // Of a segment without ACK it is 0, or absent.
        ack: ack.parse().unwrap_or(0),
        flags: u16::from_str_radix(flags.strip_prefix("0x")?, 16).ok()? as u8,
        len: len.parse().ok()?,
    })
}

fn by_connection(segments: Vec<Seg>) -> HashMap<Key, Vec<Seg>> {
    let mut found: HashMap<Key, Vec<Seg>> = HashMap::new();
    let mut latest: HashMap<(SocketAddr, SocketAddr), u32> = HashMap::new();
    for s in segments {
        if s.has(SYN) && !s.has(ACK) {
            latest.insert((s.from, s.to), s.seq);
        }
        let key = [(s.from, s.to), (s.to, s.from)].into_iter().find_map(|(c, s)| Some((c, s, *latest.get(&(c, s))?)));
        if let Some(key) = key {
            found.entry(key).or_default().push(s);
        }
    }
    found
}
