//! An hour of a healthy host, in simulated time: no rule fires.
//!
//! A web server with a burst after a deploy, an API with long connections, ssh; clients with a pool to a database that is restarted once, with
//! short connections to a few services, with a proxy's health checks. And what every host has of everything: a little loss, resets, clients that
//! vanish, a slow reader, a peer that is refused for a few seconds.

#[path = "support/random.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod random;
#[path = "support/rules.rs"]
mod rules;
#[path = "support/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use random::Random;
use tcptrace::{
    detect::config::Config,
    model::{Finding, Status},
};

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// A listener, and its totals so far.
struct Listener {
    sock: u64,
    end: &'static str,
    pid: u64,
    comm: &'static str,
    backlog: u64,
    totals: Totals,
}

#[derive(Clone, Copy, Default)]
struct Totals {
    syns: u64,
    completed: u64,
    synack_retrans: u64,
    synack_timeout: u64,
    rst: u64,
    /// Waits of a power of two of microseconds, 2^8.
    waits: u64,
    /// Most in the interval.
    accept_peak: u64,
}

struct Hour {
    random: Random,
    /// (when, in which order, line).
    lines: Vec<(u64, String)>,
    cookies: u64,
    ports: u64,
    /// (when, which listener, what is added to its totals).
    counts: Vec<(u64, usize, Totals)>,
}

impl Hour {
    fn line(&mut self, at: u64, text: String) {
        self.lines.push((at, format!("{at} {text}")));
    }

    fn cookie(&mut self) -> u64 {
        self.cookies += 1;
        self.cookies
    }

    fn port(&mut self) -> u64 {
        self.ports = (self.ports + 1) % 28_000;
        32_768 + self.ports
    }

    /// A client of a listener: for so long; some reset it, some lose a segment.
    fn served(&mut self, at: u64, number: usize, listener: &Listener, lasts: u64) {
        let (sock, port) = (self.cookie(), self.port());
        let peer = format!("198.51.{}.{}:{port}", self.random.range(0, 200), self.random.range(1, 250));
        let (local, server) = (listener.end, listener.sock);
        let isn = self.random.next() as u32;
        let request = format!(
            "sock={server} NEW_SYN_RECV {local} {peer} netns=1 rcv_isn={isn} snt_isn=7 addr={sock} since={at} limit={}",
            listener.backlog
        );
        let mut one = Totals { syns: 1, ..Totals::default() };
        if self.random.one_in(3000) {
            // It is gone before the handshake is over.
            one.synack_timeout = 1;
            one.synack_retrans = 5;
            self.counts.push((at, number, one));
            return self.line(
                at + 63 * SECOND,
                format!("REQUEST_EVENT {request} outcome=synack_timeout retrans=5 syn_queue=0 accept_queue=0"),
            );
        }
        let round_trip = self.random.range(2_000, 150_000);
        let (done, accepted) = (at + round_trip, at + round_trip + self.random.range(30, 400));
        (one.completed, one.waits, one.accept_peak) = (1, 1, 1);
        self.counts.push((at, number, one));
        self.line(done, format!("CHILD sock={sock} LISTEN>SYN_RECV {local} {peer} netns=1 NO_SOCKET"));
        self.line(done, format!("REQUEST_EVENT {request} outcome=completed child={sock} syn_queue=0 accept_queue=1"));
        self.line(
            done,
            format!(
                "ESTABLISHED sock={sock} SYN_RECV>ESTABLISHED {local} {peer} netns=1 isn=8 peer_isn={isn} NO_SOCKET"
            ),
        );
        self.line(
            accepted,
            format!(
                "ACCEPTED sock={sock} ESTABLISHED pid={} comm={} fd={} ino={sock}",
                listener.pid,
                listener.comm,
                10 + sock % 500
            ),
        );
        let end = accepted + lasts;
        let traffic = format!("sent={} acked={} received=900 segs_out=20", lasts / 20, lasts / 20 + 2);
        if self.random.one_in(50) {
            self.line(accepted + lasts / 2, format!("RETRANSMIT sock={sock} ESTABLISHED"));
        }
        if self.random.one_in(100) {
            self.line(end, format!("RESET_RECEIVED sock={sock} ESTABLISHED"));
            self.line(end, format!("CLOSED sock={sock} ESTABLISHED>CLOSE err=104 {traffic}"));
            return self.line(end + 1, format!("DESTROYED sock={sock} CLOSE"));
        }
        // A slow reader now and then: half a minute in CLOSE_WAIT.
        let reads = if self.random.one_in(2000) { 30 * SECOND } else { self.random.range(20, 5_000) };
        self.line(end, format!("STATE sock={sock} ESTABLISHED>CLOSE_WAIT RCV_SHUTDOWN DONE"));
        self.line(end + reads, format!("STATE sock={sock} CLOSE_WAIT>LAST_ACK RCV_SHUTDOWN SEND_SHUTDOWN DONE DEAD"));
        self.line(
            end + reads + round_trip,
            format!("CLOSED sock={sock} LAST_ACK>CLOSE RCV_SHUTDOWN SEND_SHUTDOWN DONE DEAD {traffic}"),
        );
    }

    /// A process asks a peer: for so long. `vanishes`: the peer does.
    fn asks(&mut self, at: u64, peer: &str, process: &str, lasts: u64, vanishes: bool) {
        let (sock, port) = (self.cookie(), self.port());
        let local = format!("10.0.0.1:{port}");
        self.line(at, format!("OPEN sock={sock} CLOSE>SYN_SENT {local} {peer} netns=1 {process} fd=9 ino={sock}"));
        let again = u64::from(self.random.one_in(400));
        if again > 0 {
            self.line(at + SECOND, format!("RETRANSMIT sock={sock} SYN_SENT"));
        }
        let up = at + again * SECOND + self.random.range(300, 2_000);
        self.line(
            up,
            format!(
                "ESTABLISHED sock={sock} SYN_SENT>ESTABLISHED {local} {peer} netns=1 isn=5 peer_isn=6 retrans={again}"
            ),
        );
        let end = up + lasts;
        if vanishes {
            self.line(end, format!("RESET_SENT sock={sock} ESTABLISHED"));
            return self.line(
                end,
                format!("CLOSED sock={sock} ESTABLISHED>CLOSE err=110 sent=500 acked=501 received=900 segs_out=30"),
            );
        }
        for _ in 0..lasts / (5 * MINUTE) {
            let when = self.random.range(up, end);
            self.line(when, format!("RETRANSMIT sock={sock} ESTABLISHED"));
        }
        let shut = "SEND_SHUTDOWN RCV_SHUTDOWN DEAD";
        self.line(end, format!("STATE sock={sock} ESTABLISHED>FIN_WAIT1 {shut}"));
        self.line(end + 400, format!("STATE sock={sock} FIN_WAIT1>FIN_WAIT2 {shut}"));
        self.line(end + 900, format!("TIME_WAIT_BEGIN sock={sock} FIN_WAIT2>TIME_WAIT"));
        self.line(
            end + 901,
            format!("CLOSED sock={sock} FIN_WAIT2>CLOSE {shut} DONE sent=500 acked=502 received=9000 segs_out=15"),
        );
        self.line(end + 60 * SECOND, format!("TIME_WAIT_END sock={sock} TIME_WAIT>CLOSE EXPIRED"));
    }

    fn refused(&mut self, at: u64, peer: &str, process: &str) {
        let (sock, port) = (self.cookie(), self.port());
        self.line(at, format!("OPEN sock={sock} CLOSE>SYN_SENT 10.0.0.1:{port} {peer} netns=1 {process}"));
        self.line(at + 300, format!("RESET_RECEIVED sock={sock} SYN_SENT"));
        self.line(at + 300, format!("CLOSED sock={sock} SYN_SENT>CLOSE err=111"));
        self.line(at + 301, format!("DESTROYED sock={sock} CLOSE"));
    }

    fn unanswered(&mut self, at: u64, peer: &str, process: &str) {
        let (sock, port) = (self.cookie(), self.port());
        self.line(at, format!("OPEN sock={sock} CLOSE>SYN_SENT 10.0.0.1:{port} {peer} netns=1 {process}"));
        for again in [1, 3, 7] {
            self.line(at + again * SECOND, format!("RETRANSMIT sock={sock} SYN_SENT"));
        }
        self.line(at + 15 * SECOND, format!("CLOSED sock={sock} SYN_SENT>CLOSE err=110 retrans=3"));
    }

    /// Every `mean` microseconds on average.
    fn times(&mut self, mean: u64) -> Vec<u64> {
        let mut times = Vec::new();
        let mut at = SECOND;
        loop {
            at += self.random.range(1, 2 * mean);
            if at >= HOUR - MINUTE {
                return times;
            }
            times.push(at);
        }
    }

    /// Listeners and counters at the end of each second.
    fn intervals(&mut self, listeners: &mut [Listener]) {
        self.counts.sort_by_key(|(at, ..)| *at);
        let counts = std::mem::take(&mut self.counts);
        let mut counts = counts.into_iter().peekable();
        for second in 0..HOUR / SECOND {
            let at = second * SECOND + 100;
            listeners.iter_mut().for_each(|l| l.totals.accept_peak = 0);
            while let Some((_, number, one)) = counts.next_if(|(when, ..)| *when < at) {
                let t = &mut listeners[number].totals;
                t.syns += one.syns;
                t.completed += one.completed;
                t.synack_retrans += one.synack_retrans;
                t.synack_timeout += one.synack_timeout;
                t.waits += one.waits;
                t.accept_peak = (t.accept_peak + one.accept_peak).min(90);
            }
            for l in &*listeners {
                let Listener { sock, end, backlog, totals: t, .. } = l;
                let sample =
                    format!("{at} LISTENER sock={sock} LISTEN {end} 0.0.0.0:0 netns=1 limit={backlog} somaxconn=4096");
                self.lines.push((at, sample));
                let peaks = format!(
                    "accept_peak={} syn_peak={} wait_max=400 sources={}",
                    t.accept_peak,
                    t.accept_peak,
                    t.accept_peak.min(50)
                );
                let stats = format!(
                    "{at} LISTENER_STATS sock={sock} syns={} queued={} completed={} accepted={} synack_retrans={} synack_timeout={} rst={} waits=8:{} {peaks}",
                    t.syns, t.syns, t.completed, t.completed, t.synack_retrans, t.synack_timeout, t.rst, t.waits
                );
                self.lines.push((at, stats));
            }
            let us = if second == 0 { 0 } else { SECOND };
            self.lines.push((at, format!("{at} INTERVAL us={us} exact=1")));
            self.lines.push((at + 1, format!("{} TICK", at + 1)));
        }
    }
}

fn hour() -> Vec<String> {
    let listener =
        |sock, end, pid, comm, backlog| Listener { sock, end, pid, comm, backlog, totals: Totals::default() };
    let mut listeners = [
        listener(2, "10.0.0.1:443", 20, "nginx", 511),
        listener(3, "10.0.0.1:8080", 30, "api", 4096),
        listener(4, "0.0.0.0:22", 40, "sshd", 128),
    ];
    let mut hour = Hour { random: Random::new(7), lines: Vec::new(), cookies: 100, ports: 0, counts: Vec::new() };
    let signals = "half_open=fentry:a syn_outcome=fexit:b accept_queue=fexit:c overflow=fexit:d cookies=fentry:e fast_open=fexit:f \
                   migration=fexit:g time_wait=fentry:h accept=fentry:i synack_retransmit=tp_btf:j";
    hour.line(0, format!("START {signals}"));
    for l in &listeners {
        hour.line(1, format!("LISTEN sock={} CLOSE>LISTEN {} 0.0.0.0:0 netns=1 pid={} comm={} fd=6 started=5 backlog={} somaxconn=4096", l.sock, l.end, l.pid, l.comm, l.backlog));
    }
    for at in hour.times(SECOND / 20) {
        let lasts = hour.random.range(3_000, 400_000);
        hour.served(at, 0, &listeners[0], lasts);
    }
    // A deploy: everybody comes back within a second.
    for i in 0..500 {
        hour.served(30 * MINUTE + i * 2_000, 0, &listeners[0], 200_000);
    }
    for at in hour.times(SECOND / 2) {
        let lasts = hour.random.range(30 * SECOND, 10 * MINUTE);
        hour.served(at, 1, &listeners[1], lasts);
    }
    for at in hour.times(5 * MINUTE) {
        let lasts = hour.random.range(MINUTE, 30 * MINUTE);
        hour.served(at, 2, &listeners[2], lasts);
    }
    // A pool of ten, renewed every ten minutes; the database is away for eight seconds.
    for i in 0..60 {
        hour.asks(
            2 * SECOND + i / 10 * 10 * MINUTE + i % 10 * 3_000,
            "10.0.1.5:5432",
            "pid=30 comm=api",
            10 * MINUTE - SECOND,
            false,
        );
    }
    for i in 0..8 {
        hour.refused(20 * MINUTE + i * SECOND, "10.0.1.5:5432", "pid=31 comm=worker");
    }
    for at in hour.times(SECOND / 2) {
        let peer = ["10.0.1.6:80", "10.0.1.7:80", "10.0.1.8:9200"][hour.random.range(0, 3) as usize];
        let lasts = hour.random.range(5_000, 80_000);
        hour.asks(at, peer, "pid=30 comm=api", lasts, false);
    }
    // Health checks of four servers, every two seconds.
    for i in 0..4 * (HOUR - MINUTE) / (2 * SECOND) {
        hour.asks(SECOND + i * SECOND / 2, &format!("10.0.2.{}:8080", 1 + i % 4), "pid=50 comm=haproxy", 1_500, false);
    }
    for at in hour.times(10 * MINUTE) {
        hour.unanswered(at, "192.0.2.9:443", "pid=60 comm=curl");
    }
    hour.asks(5 * MINUTE, "192.0.2.10:443", "pid=61 comm=agent", 40 * MINUTE, true);
    hour.intervals(&mut listeners);
    hour.lines.sort_by_key(|(at, _)| *at);
    hour.lines.into_iter().map(|(_, line)| line).collect()
}

#[test]
fn no_rule_fires_in_an_hour_of_a_healthy_host() {
    let lines = hour();
    assert!(lines.len() > 500_000, "{} lines are no hour", lines.len());
    let (findings, stats) = rules::play(Config::default(), &lines);
    assert_eq!((stats.impossible, stats.gaps, stats.nonsense), (0, 0, 0), "{stats:?}");
    let fired: Vec<&Finding> = findings.iter().filter(|f| f.status == Status::Firing).collect();
    assert!(fired.is_empty(), "{fired:#?}");
}
