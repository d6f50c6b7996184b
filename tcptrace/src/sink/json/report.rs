//! The object of `report`: what a recording comes to.

use super::{
    encode::{Encoder, Hex, Inner, Out, Text, Value, When},
    findings::Evidence,
    groups::{Ends, Rate},
    object::object,
    objects::some,
    queues::{Drops, Names, Residuals},
};
use crate::{
    group::Spread,
    model::{Process, Role, address, comm_str},
    report::{
        Listener, Notable, Part, Peak, Peer, Place, ProcessTally, Report, Stuck, Tally, Top, Totals as Sums, Trouble,
        Wrong,
    },
    sink::text::sentence,
};

object! {
    /// What a recording comes to (`report`): one object. Its time is that of the recording's end. Lists have as many entries as `--top`
    /// says, the largest first. Spreads of durations are `count`, `p50`, `p90`, `p99` (each within 3 %) and `max` (exact).
    pub struct ReportObject<'a> = "report" {
        /// The file, as it was given.
        file: Text<'a>,
        /// Why not all of it could be read: the rest is about what could.
        unread: Option<Text<'a>>,
        /// The recordings in the file: `host`, `boot_id`, `kernel`, `version`, `began`, `ended`, `span_us`, `filters` (option → value; those of the recording, and of the command line), `degraded` (signals that a lesser hook serves, or none); of a later part of a trace `records_before`, `lost_before`, `forgotten`, as in `start`.
        recordings: Items<'a, Part>,
        /// Microseconds that were watched, of all recordings together.
        span_us: u64,
        /// `connections`; of them `client`, `server`, `preexisting`, `open` (at the end), `opened` (begun within the recording), `counted` (with final counters, which the following are sums of): `bytes_sent`, `bytes_received`, `bytes_retrans`, `segs_out`, `segs_in`, `retrans`. `syn_retrans`, `syn_retrans_connections`, `synack_retrans`; `requests_failed` (half-open requests and SYNs that came to nothing, told singly); `time_waits` that were left (`expired`, `reused`, `killed`).
        totals: One<'a, Sums>,
        /// Transitions that passed the filters.
        transitions: Option<u64>,
        /// Connections begun a second, on average.
        opened_per_second: Rate,
        /// The busiest second: `at`, `over_us` (1,000,000; more in a recording of more than a day and a half), `opened`.
        opened_peak: Option<Peaked>,
        /// What rules found, as in `finding`: `rule`, `severity`, `since`, `resolved` (absent: it went on at the end), `lasted_us`, `subject`, `summary`, `evidence`, `advice`, `look`.
        findings: Items<'a, Trouble>,
        /// What looks wrong, by what the recording proves: `check` (a name), `count`, `text` (English; may change its wording), `next` (the command to read on with).
        wrong: Items<'a, Wrong>,
        /// `laddr` (absent: every address), `lport`, `netns`, the owner's `pid`, `comm`, `container` and `unit`; of the connections that came through it `connections`, `ends`, `accept_wait_us`; of the intervals that it was read in, if any, `intervals`, `sockets`, `syn_queue` and `accept_queue` (`peak`, `limit`), `syns`, `completed`, `accepted`, `cookies_sent`, `cookies_ok`, `longest_wait_us`, `sources` (most in an interval, estimated), `fidelity` (`exact`, `sampled`), `inferred`; `dropped` by reason, as in `listener`, where no interval tells as far as requests were told singly.
        listeners: Items<'a, (Place, Listener)>,
        /// How many listeners there are.
        listeners_in_all: u64,
        /// `raddr`, `rport` (of peers that were asked), `role` (of this end), and as in `group` `connections`, `ends`, `duration_us`, `handshake_us`, `srtt_us`, `bytes_sent`, `bytes_received`; `retrans`, `segs_out`.
        peers: Items<'a, (&'a Peer, &'a Tally)>,
        /// How many peers there are: at most 50,000 are told apart.
        peers_in_all: u64,
        /// By the name of the owner: `comm`, `pids` (how many, up to 100), `pid` (if there is one), `containers` and `units` (that such processes are in: up to 10 names of each), `client`, `server`, and what peers have; `close_wait` and `fin_wait2`: `count` of those that were in that state for a minute or more at the end, `oldest_us` (at least).
        processes: Items<'a, (&'a [u8; 16], &'a ProcessTally)>,
        /// Connections: `id` (as `connection` has it), `sock`, `start`, `laddr`, `lport`, `raddr`, `rport`, `role`, `pid`, `comm`, `container`, `unit`, `end`, `handshake_us`, `accept_wait_us`, `duration_us`, `srtt_us`, `retrans`, `syn_retrans`, `synack_retrans`.
        slowest_handshakes: Items<'a, Noted<'a>>,
        /// Likewise.
        longest_accept_waits: Items<'a, Noted<'a>>,
        /// Likewise.
        longest_lived: Items<'a, Noted<'a>>,
        /// Likewise.
        most_retransmitted: Items<'a, Noted<'a>>,
        /// How many ended how, by the names of `end` in `connection`; `open` at the end of the recording; `unknown`: the records that would tell were lost.
        ends: Ends<'a>,
        /// Who closed first, of those that are over: `local`, `remote`, `both`, `none`, `unknown`.
        closed_by: ClosedFirst<'a>,
        /// Lifetimes of connections that began and ended in the recording.
        duration_us: Option<Spans<'a>>,
        /// From the first SYN to ESTABLISHED.
        handshake_us: Option<Spans<'a>>,
        /// Smoothed round-trip times at the end.
        srtt_us: Option<Spans<'a>>,
        /// Between the accept queue and accept().
        accept_wait_us: Option<Spans<'a>>,
        /// Kernel records.
        events: Option<u64>,
        /// Events lost.
        lost: Option<u64>,
        /// Of them, by `kind` and `program`: `count`.
        losses: Items<'a, (&'a (String, String), &'a u64)>,
        /// Connections with lost records.
        gaps: Option<u64>,
        /// Transitions that neither RFC 9293 nor Linux knows.
        impossible: Option<u64>,
        /// Records that could not be understood.
        undecodable: Option<u64>,
        /// As in `summary`.
        residual: Option<Residuals<'a>>,
    }
}

/// The report as a line.
#[must_use]
pub fn report_line(report: &Report) -> Vec<u8> {
    let s = report.summary.as_ref();
    let listeners = report.listeners();
    let wrong = report.wrong();
    let peers = report.peers.busiest(|t| t.group.count);
    let processes = report.processes.busiest(|t| t.all.group.count);
    let noted = [&report.slowest_handshakes, &report.longest_waits, &report.longest_lived, &report.most_retransmitted]
        .map(|top: &Top<Notable>| top.sorted().into_iter().map(|(_, n)| Noted(n)).collect::<Vec<_>>());
    let losses: Vec<_> = report.lost.iter().collect();
    let dated = report.parts.iter().all(|part| part.from.offset.is_some());
    let peak = report.opened.peak(|&n| n.into());
    let spans = |spread| (Spread::count(spread) > 0).then_some(Spans(spread));
    let group = &report.all.group;
    let object = ReportObject {
        file: Text(report.file.as_bytes()),
        unread: report.unread.as_ref().map(|why| Text(why.as_bytes())),
        recordings: Items(&report.parts),
        span_us: report.lasted() / 1000,
        totals: One(&report.totals),
        transitions: s.map(|s| s.transitions),
        opened_per_second: Rate { n: report.totals.opened, us: report.lasted() / 1000 },
        opened_peak: peak.map(|(begin, width, n)| Peaked {
            at: dated.then_some(begin),
            over_us: width / 1000,
            opened: n,
        }),
        findings: Items(report.findings.all()),
        wrong: Items(&wrong),
        listeners: Items(head(&listeners, report.top)),
        listeners_in_all: listeners.len() as u64,
        peers: Items(head(&peers, report.top)),
        peers_in_all: peers.len() as u64,
        processes: Items(head(&processes, report.top)),
        slowest_handshakes: Items(&noted[0]),
        longest_accept_waits: Items(&noted[1]),
        longest_lived: Items(&noted[2]),
        most_retransmitted: Items(&noted[3]),
        ends: Ends(group),
        closed_by: ClosedFirst(&report.totals),
        duration_us: spans(&group.lifetime),
        handshake_us: spans(&group.handshake),
        srtt_us: spans(&group.rtt),
        accept_wait_us: spans(&report.accept_wait),
        events: s.map(|s| s.events),
        lost: s.map(|s| s.lost),
        losses: Items(&losses),
        gaps: s.map(|s| s.gaps),
        impossible: s.and_then(|s| some(s.impossible)),
        undecodable: s.and_then(|s| some(s.undecodable)),
        residual: s.and_then(|s| s.residual.as_deref()).map(Residuals),
    };
    let end = report.parts.last().map(|part| part.to).unwrap_or_default();
    let mut encoder = Encoder::default();
    encoder.offset_ns = end.offset;
    let mut line = Vec::new();
    object.encode(end.mono, &mut line, &mut encoder);
    line
}

fn head<T>(all: &[T], top: usize) -> &[T] {
    &all[..all.len().min(top)]
}

/// Something with fields of its own.
trait Fields {
    fn fields(&self, inner: &mut Inner);
}

/// An inner object.
#[derive(Clone, Debug)]
pub struct One<'a, T>(&'a T);

impl<T: Fields> Value for One<'_, T> {
    const JSON: &'static str = "object";
    fn write(&self, out: &mut Out) {
        let mut inner = Inner::new(out);
        self.0.fields(&mut inner);
        inner.end();
    }
}

/// A list of inner objects.
#[derive(Clone, Debug)]
pub struct Items<'a, T>(&'a [T]);

impl<T: Fields> Value for Items<'_, T> {
    const JSON: &'static str = "array of objects";
    fn write(&self, out: &mut Out) {
        out.raw(b"[");
        for (i, item) in self.0.iter().enumerate() {
            if i > 0 {
                out.raw(b",");
            }
            One(item).write(out);
        }
        out.raw(b"]");
    }
}

impl Fields for Part {
    fn fields(&self, inner: &mut Inner) {
        inner.field("host", Some(Text(self.start.host.as_bytes())));
        inner.field("boot_id", Some(Text(self.start.boot_id.as_bytes())).filter(|id| !id.0.is_empty()));
        inner.field("kernel", Some(Text(self.start.kernel.as_bytes())));
        inner.field("version", Some(Text(self.start.version.as_bytes())));
        for (name, at) in [("began", self.from), ("ended", self.to)] {
            inner.field(name, at.offset.map(|_| Wall(at.wall())));
        }
        inner.field("span_us", Some(self.lasted() / 1000));
        inner.field("filters", Some(super::encode::Map(&self.filters)));
        inner.field("degraded", Some(super::encode::Texts(&self.start.degraded)));
        let cut = self.start.cut;
        inner.field("records_before", cut.map(|cut| cut.records));
        inner.field("lost_before", cut.map(|cut| cut.lost));
        inner.field("forgotten", cut.map(|cut| cut.forgotten));
    }
}

/// A wall-clock time, nanoseconds since 1970.
struct Wall(u64);

impl Value for Wall {
    const JSON: &'static str = "string";
    fn write(&self, out: &mut Out) {
        let before = out.encoder.offset_ns.replace(0);
        When(self.0).write(out);
        out.encoder.offset_ns = before;
    }
}

/// The busiest second.
#[derive(Clone, Copy, Debug)]
pub struct Peaked {
    at: Option<u64>,
    over_us: u64,
    opened: u64,
}

impl Value for Peaked {
    const JSON: &'static str = "object";
    fn write(&self, out: &mut Out) {
        let mut inner = Inner::new(out);
        inner.field("at", self.at.map(Wall));
        inner.field("over_us", Some(self.over_us));
        inner.field("opened", Some(self.opened));
        inner.end();
    }
}

impl Fields for Sums {
    fn fields(&self, inner: &mut Inner) {
        for (name, n) in [
            ("connections", self.connections),
            ("client", self.clients),
            ("server", self.servers),
            ("preexisting", self.preexisting),
            ("open", self.open),
            ("opened", self.opened),
            ("counted", self.counted),
            ("bytes_sent", self.bytes_sent),
            ("bytes_received", self.bytes_received),
            ("bytes_retrans", self.bytes_retrans),
            ("segs_out", self.segs_out),
            ("segs_in", self.segs_in),
            ("retrans", self.retrans),
            ("syn_retrans", self.syn_retrans),
            ("syn_retrans_connections", self.syn_again),
            ("synack_retrans", self.synack_retrans),
            ("requests_failed", self.requests_failed),
        ] {
            inner.field(name, Some(n));
        }
        inner.field(
            "time_waits",
            Some(Counts([("expired", 0), ("reused", 1), ("killed", 2)].map(|(name, i)| (name, self.remnants[i])))),
        );
    }
}

/// Names with counts.
struct Counts<const N: usize>([(&'static str, u64); N]);

impl<const N: usize> Value for Counts<N> {
    const JSON: &'static str = "object of integers";
    fn write(&self, out: &mut Out) {
        let mut inner = Inner::new(out);
        self.0.iter().for_each(|&(name, n)| inner.field(name, Some(n)));
        inner.end();
    }
}

impl Fields for Trouble {
    fn fields(&self, inner: &mut Inner) {
        let f = &self.finding;
        let text = |text: &'static str| Some(Text(text.as_bytes()));
        inner.field("rule", text(f.rule));
        inner.field("severity", text(f.severity.name()));
        inner.field("since", self.since.offset.map(|_| Wall(self.since.wall())));
        inner.field("resolved", self.until.filter(|at| at.offset.is_some()).map(|at| Wall(at.wall())));
        inner.field("lasted_us", self.until.map(|at| at.mono.saturating_sub(self.since.mono) / 1000));
        inner.field("subject", Some(&f.subject));
        inner.field("summary", Some(Text(sentence(&f.summary.0).as_bytes())));
        inner.field("evidence", Some(Evidence(&f.evidence)));
        inner.field("advice", Some(Text(f.advice.as_bytes())));
        inner.field("look", Some(Text(f.look.as_bytes())));
    }
}

impl Fields for Wrong {
    fn fields(&self, inner: &mut Inner) {
        inner.field("check", Some(Text(self.check.as_bytes())));
        inner.field("count", Some(self.count));
        inner.field("text", Some(Text(sentence(&self.said).as_bytes())));
        inner.field("next", Some(Text(self.next.as_bytes())));
    }
}

fn owner(inner: &mut Inner, owner: Option<&Process>) {
    inner.field("pid", owner.map(|o| o.pid));
    inner.field("comm", owner.map(|o| Text(comm_str(&o.comm))));
    let cgroup = owner.and_then(|o| o.cgroup.as_deref());
    inner.field("container", cgroup.and_then(|c| c.container.as_ref()).map(|c| Text(c.label().as_bytes())));
    inner.field("unit", cgroup.and_then(|c| c.unit.as_deref()).map(|unit| Text(unit.as_bytes())));
}

impl Fields for (Place, Listener) {
    fn fields(&self, inner: &mut Inner) {
        let (place, l) = self;
        inner.field("laddr", place.addr);
        inner.field("lport", Some(place.port));
        inner.field("netns", some(place.netns));
        owner(inner, l.owner.as_deref());
        inner.field("connections", Some(l.tally.group.count));
        inner.field("ends", Some(Ends(&l.tally.group)));
        inner.field("accept_wait_us", (l.accept_wait.count() > 0).then_some(Spans(&l.accept_wait)));
        if l.intervals > 0 {
            inner.field("intervals", Some(l.intervals));
            inner.field("sockets", Some(l.sockets.len() as u64));
            inner.field("syn_queue", Some(l.syn_queue).filter(|p| p.most.is_some()));
            inner.field("accept_queue", Some(l.accept_queue).filter(|p| p.most.is_some()));
            inner.field("syns", l.syns);
            inner.field("completed", l.completed);
            inner.field("accepted", l.accepted);
            inner.field("cookies_sent", l.cookies_sent);
            inner.field("cookies_ok", l.cookies_ok);
            inner.field("longest_wait_us", l.longest_wait);
            inner.field("sources", l.sources);
            inner.field("fidelity", Some(Text(if l.exact { b"exact" } else { b"sampled" })));
            inner.field("inferred", (!l.inferred.is_empty()).then_some(Names(&l.inferred)));
        }
        let told = |reason| Some(l.dropped(reason)).filter(|&n| n > 0 || l.dropped[reason].is_some());
        inner.field("dropped", Some(Drops(std::array::from_fn(told))));
    }
}

impl Value for Peak {
    const JSON: &'static str = "object of integers";
    fn write(&self, out: &mut Out) {
        let mut inner = Inner::new(out);
        inner.field("peak", self.most);
        inner.field("limit", self.limit);
        inner.end();
    }
}

impl Fields for Tally {
    fn fields(&self, inner: &mut Inner) {
        let g = &self.group;
        inner.field("connections", Some(g.count));
        inner.field("ends", Some(Ends(g)));
        for (name, spread) in [("duration_us", &g.lifetime), ("handshake_us", &g.handshake), ("srtt_us", &g.rtt)] {
            inner.field(name, (spread.count() > 0).then_some(Spans(spread)));
        }
        inner.field("bytes_sent", Some(g.bytes_sent));
        inner.field("bytes_received", Some(g.bytes_received));
        inner.field("retrans", Some(self.retrans));
        inner.field("segs_out", Some(self.segs_out));
    }
}

impl Fields for (&Peer, &Tally) {
    fn fields(&self, inner: &mut Inner) {
        let (peer, tally) = self;
        inner.field("raddr", Some(peer.addr));
        inner.field("rport", peer.port);
        inner.field("role", peer.role());
        tally.fields(inner);
    }
}

impl Fields for (&[u8; 16], &ProcessTally) {
    fn fields(&self, inner: &mut Inner) {
        let (comm, t) = self;
        inner.field("comm", Some(Text(comm_str(comm))));
        inner.field("pids", Some(t.pids.len() as u64));
        inner.field("pid", t.pids.first().copied().filter(|_| t.pids.len() == 1));
        for (name, places) in [("containers", &t.containers), ("units", &t.units)] {
            inner.field(name, (!places.is_empty()).then_some(Names(places)));
        }
        inner.field("client", Some(t.clients));
        inner.field("server", Some(t.servers));
        t.all.fields(inner);
        for (name, Stuck { count, oldest }) in [("close_wait", t.close_wait), ("fin_wait2", t.fin_wait2)] {
            inner.field(name, (count > 0).then_some(Counts([("count", count), ("oldest_us", oldest / 1000)])));
        }
    }
}

/// A connection that stands out.
#[derive(Clone, Copy, Debug)]
pub struct Noted<'a>(&'a Notable);

impl Fields for Noted<'_> {
    fn fields(&self, inner: &mut Inner) {
        let Notable { connection: c, last: f, start } = self.0;
        let t = &c.tuple;
        let addr = |bytes: &[u8; 16]| (*bytes != [0; 16]).then(|| address(t.family, bytes));
        inner.field("id", Some(c.id));
        inner.field("sock", some(c.cookie).map(Hex));
        inner.field("start", start.offset.filter(|_| !c.preexisting).map(|_| Wall(start.wall())));
        inner.field("laddr", addr(&t.laddr));
        inner.field("lport", some(t.lport));
        inner.field("raddr", addr(&t.raddr));
        inner.field("rport", some(t.rport));
        inner.field("role", c.role);
        owner(inner, c.owner.as_deref());
        inner.field("end", f.end);
        inner.field("handshake_us", f.handshake_ns.map(|ns| ns / 1000));
        inner.field("accept_wait_us", f.accept_wait_ns.map(|ns| ns / 1000));
        inner.field("duration_us", f.lasted_ns(c).map(|ns| ns / 1000));
        inner.field("srtt_us", f.srtt_us(c));
        inner.field("retrans", f.counters.map(|n| n.retrans));
        inner.field("syn_retrans", f.syn_retrans);
        inner.field("synack_retrans", (c.role == Some(Role::Server)).then_some(c.synack_retrans));
    }
}

/// Who closed first.
#[derive(Clone, Copy, Debug)]
pub struct ClosedFirst<'a>(&'a Sums);

impl Value for ClosedFirst<'_> {
    const JSON: &'static str = "object of integers";
    fn write(&self, out: &mut Out) {
        let t = self.0;
        let mut inner = Inner::new(out);
        for by in crate::report::CLOSED_BY {
            inner.field(by.name(), Some(t.closed_by[by as usize]));
        }
        inner.field("unknown", some(t.closed_unknown()));
        inner.end();
    }
}

/// How durations are spread.
#[derive(Clone, Copy, Debug)]
pub struct Spans<'a>(&'a Spread);

impl Value for Spans<'_> {
    const JSON: &'static str = "object of integers";
    fn write(&self, out: &mut Out) {
        let mut inner = Inner::new(out);
        inner.field("count", Some(self.0.count()));
        for (name, percent) in [("p50", 50), ("p90", 90), ("p99", 99)] {
            inner.field(name, self.0.quantile(percent));
        }
        inner.field("max", self.0.most());
        inner.end();
    }
}

impl Fields for (&(String, String), &u64) {
    fn fields(&self, inner: &mut Inner) {
        let ((kind, program), n) = self;
        inner.field("kind", Some(Text(kind.as_bytes())));
        inner.field("program", Some(program).filter(|p| !p.is_empty()).map(|p| Text(p.as_bytes())));
        inner.field("count", Some(**n));
    }
}
