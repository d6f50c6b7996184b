//! What looks wrong: each check is a function of what the recording came to, and says only what that proves.
//!
//! [`CHECKS`] is the list, in the order of the page; thresholds are constants before it.

use tcptrace_common::queue::drop;

use super::{Owner, Peer, Place, ProcessTally, Report, Stuck, Tally};
use crate::model::{End, LimitedBy, Piece, Said, comm_str, count};

/// Subjects of one check that are told; the rest is counted.
const SUBJECTS: usize = 3;
/// Refused by one peer: so many, and half of what it was asked.
const REFUSED: u64 = 10;
/// Unanswered by one peer.
const UNANSWERED: u64 = 3;
/// Half-open requests of one listener that timed out: so many, and one in [`HALF_OPEN_SHARE`] of its SYNs.
const HALF_OPEN: u64 = 10;
const HALF_OPEN_SHARE: u64 = 20;
/// Segments sent again to one peer: so many, and one in [`RETRANS_SHARE`].
const RETRANS: u64 = 20;
const RETRANS_SHARE: u64 = 50;
/// Connections whose SYN was sent again: so many, and one in [`SYN_AGAIN_SHARE`].
const SYN_AGAIN: u64 = 10;
const SYN_AGAIN_SHARE: u64 = 20;
/// Connections with one peer that ended by a RST: so many, and one in [`RESET_SHARE`] of those that are over.
const RESET: u64 = 20;
const RESET_SHARE: u64 = 5;
/// Connections that waited for accept(): so many, and one in a hundred of them for so long, microseconds.
const SLOW_ACCEPTS: u64 = 20;
const SLOW_ACCEPT_US: u64 = 1_000_000;

/// Something that looks wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Name of the check.
    pub check: &'static str,
    /// How many of what the sentence is about.
    pub count: u64,
    /// The sentence.
    pub said: Vec<Piece>,
    /// The command to read on with.
    pub next: &'static str,
}

type Check = fn(&Report, &mut Found);

const CHECKS: [(&str, &str, Check); 18] = [
    ("unread", "tcptrace record", unread),
    ("events-lost", "tcptrace doctor", events_lost),
    ("residual", "tcptrace doctor", residual),
    ("accept-queue-full", "tcptrace explain backlog", accept_queue_full),
    ("slow-accept", "tcptrace explain backlog", slow_accept),
    ("syn-queue-full", "tcptrace explain half-open", syn_queue_full),
    ("cookies", "tcptrace explain syncookies", cookies),
    ("half-open", "tcptrace explain NEW_SYN_RECV", half_open),
    ("refused", "tcptrace explain rst", refused),
    ("connect-timeout", "tcptrace explain SYN_SENT", connect_timeout),
    ("syn-again", "tcptrace explain SYN_SENT", syn_again),
    ("retransmits", "tcptrace explain ESTABLISHED", retransmits),
    ("resets", "tcptrace explain rst", resets),
    ("no-ack", "tcptrace explain ESTABLISHED", no_ack),
    ("keepalive", "tcptrace explain keepalive", keepalive),
    ("close-wait", "tcptrace explain CLOSE_WAIT", close_wait),
    ("fin-wait2", "tcptrace explain FIN_WAIT2", fin_wait2),
    ("time-wait", "tcptrace explain TIME_WAIT", time_wait),
];

/// Everything that looks wrong.
pub(super) fn all(report: &Report) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for (check, next, of) in CHECKS {
        let mut found = Found::default();
        of(report, &mut found);
        found.0.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.0.cmp(&y.0)));
        let more: u64 = found.0.iter().skip(SUBJECTS).map(|(count, _)| *count).sum();
        let left_out = found.0.len().saturating_sub(SUBJECTS);
        for (count, said) in found.0.into_iter().take(SUBJECTS) {
            wrong.push(Wrong { check, count, said: said.0, next });
        }
        if left_out > 0 {
            let said = Said::new(format!(
                "{more} more of the same kind in {}",
                count(left_out as u64, "other place", "other places")
            ));
            wrong.push(Wrong { check, count: more, said: said.0, next });
        }
    }
    wrong
}

/// (how many, the sentence).
#[derive(Debug, Default)]
struct Found(Vec<(u64, Said)>);

impl Found {
    fn add(&mut self, count: u64, said: Said) {
        self.0.push((count, said));
    }
}

/// ` at 10.0.0.1:80 (nginx[80])`
fn at(said: Said, place: &Place, owner: Option<&Owner>) -> Said {
    said.text(format!(" at {}", shown(place))).owner(owner.map(AsRef::as_ref))
}

fn end(addr: std::net::IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(addr, port).to_string()
}

/// `10.0.0.1:80`, `*:80`
fn shown(place: &Place) -> String {
    place.addr.map_or_else(|| format!("*:{}", place.port), |addr| end(addr, place.port))
}

/// `10.0.0.1:443`, or of one that asks `10.0.0.1`.
fn peer(p: &Peer) -> String {
    p.port.map_or_else(|| p.addr.to_string(), |port| end(p.addr, port))
}

/// `12 %`, rounded down; `<1 %`.
fn percent(n: u64, of: u64) -> String {
    match n * 100 / of.max(1) {
        0 if n > 0 => "<1 %".to_owned(),
        share => format!("{share} %"),
    }
}

fn unread(r: &Report, found: &mut Found) {
    if r.unread.is_some() {
        found.add(1, Said::new("Not all of the file could be read: the rest of this page is about what could"));
    }
}

fn events_lost(r: &Report, found: &mut Found) {
    for ((kind, program), &n) in r.lost.iter().filter(|((kind, _), n)| kind != "recording" && **n > 0) {
        let said = Said::new(count(n, "event was lost (", "events were lost (")).name(kind.as_bytes());
        let said = if program.is_empty() { said } else { said.text(" in ").name(program.as_bytes()) };
        let way_out = if kind == "ring_full" { "): record with a larger --buffer" } else { "): counts are too low" };
        found.add(n, said.text(way_out));
    }
}

fn residual(r: &Report, found: &mut Found) {
    let residuals = r.summary.iter().filter_map(|s| s.residual.as_ref()).flatten();
    for r in residuals.filter(|r| r.kernel != r.ours) {
        let said = Said::new("The kernel's ").name(r.counter.as_bytes());
        let said = said.text(format!(" in namespace {} grew by {}; seen: {}", r.netns, r.kernel, r.ours));
        found.add(r.kernel.abs_diff(r.ours), said);
    }
}

fn accept_queue_full(r: &Report, found: &mut Found) {
    for (place, l) in r.listeners() {
        let (syns, acks) = (l.dropped(drop::ACCEPT_QUEUE_FULL_SYN), l.dropped(drop::ACCEPT_QUEUE_FULL_ACK));
        if syns + acks == 0 {
            continue;
        }
        let mut what = Vec::new();
        what.extend((syns > 0).then(|| count(syns, "SYN", "SYNs")));
        what.extend((acks > 0).then(|| count(acks, "final ACK", "final ACKs")));
        let said = Said::new(format!("{} dropped: accept queue full", what.join(" and ")));
        let mut said = at(said, &place, l.owner.as_ref());
        if let Some(limit) = l.accept_queue.limit {
            let by = match l.limited_by {
                Some(LimitedBy::Backlog) => " set by listen()'s backlog",
                Some(LimitedBy::Somaxconn) => " set by net.core.somaxconn",
                None => "",
            };
            said = said.text(format!(", limit {limit}{by}"));
        }
        found.add(syns + acks, said);
    }
    let attributed: u64 = found.0.iter().map(|(count, _)| count).sum();
    let counted = kernel(r, "ListenOverflows");
    if counted > 0 && attributed == 0 {
        let what = count(counted, "accept queue overflow", "accept queue overflows");
        found.add(counted, Said::new(format!("The kernel counted {what}; of which listener is not known")));
    }
}

/// Growth of a counter in all namespaces: it counts what filters hold back, too.
fn kernel(r: &Report, name: &str) -> u64 {
    if r.is_filtered() {
        return 0;
    }
    r.counters.iter().filter(|((_, counter), _)| counter == name).map(|(_, n)| n).sum()
}

fn slow_accept(r: &Report, found: &mut Found) {
    for (place, l) in r.listeners() {
        let waited = l.accept_wait.count();
        let long: u64 = l.accept_wait.iter().filter(|(us, _)| *us >= SLOW_ACCEPT_US).map(|(_, n)| u64::from(n)).sum();
        if waited >= SLOW_ACCEPTS && long * 100 >= waited {
            let said = Said::new(format!("{long} of {waited} connections waited for accept() for a second or longer"));
            let said = at(said, &place, l.owner.as_ref());
            found.add(long, said.text(", the longest ").us(l.accept_wait.most().unwrap_or(0)));
        }
    }
}

fn syn_queue_full(r: &Report, found: &mut Found) {
    for (place, l) in r.listeners() {
        let n = l.dropped(drop::SYN_QUEUE_FULL);
        if n > 0 {
            let said = Said::new(format!("{} dropped: SYN queue full", count(n, "SYN", "SYNs")));
            found.add(n, at(said, &place, l.owner.as_ref()));
        }
    }
}

fn cookies(r: &Report, found: &mut Found) {
    for (place, l) in r.listeners() {
        if let Some(n) = l.cookies_sent.filter(|&n| n > 0) {
            let back = l.cookies_ok.map_or(String::new(), |ok| format!(", {ok} came back"));
            let said = Said::new(format!("{} sent", count(n, "SYN cookie", "SYN cookies")));
            found.add(n, at(said, &place, l.owner.as_ref()).text(back));
        }
    }
}

fn half_open(r: &Report, found: &mut Found) {
    for (place, l) in r.listeners() {
        let n = l.dropped(drop::SYNACK_TIMEOUT);
        let connections = l.tally.group.count;
        // Where SYNs were not counted, what became a connection stands for the rest.
        let (all, of) = match l.syns {
            Some(syns) => (syns, format!("of {syns} SYNs")),
            None => (connections + n, format!("beside {}", count(connections, "connection", "connections"))),
        };
        if n >= HALF_OPEN && n * HALF_OPEN_SHARE >= all {
            let said = Said::new(format!("{n} half-open requests timed out, {of},"));
            found.add(n, at(said, &place, l.owner.as_ref()));
        }
    }
}

/// Peers that this host asked, with the connections that are over.
fn asked(r: &Report) -> impl Iterator<Item = (&Peer, &Tally)> {
    r.peers.iter().filter(|(peer, tally)| peer.port.is_some() && tally.over() > 0)
}

fn refused(r: &Report, found: &mut Found) {
    for (p, t) in asked(r) {
        let n = t.group.ended(End::Refused);
        if n >= REFUSED && n * 2 >= t.over() {
            found.add(n, Said::new(format!("{} refused {n} of {} connections", peer(p), t.over())));
        }
    }
}

fn connect_timeout(r: &Report, found: &mut Found) {
    for (p, t) in asked(r) {
        let n = t.group.ended(End::ConnectTimeout) + t.group.ended(End::Unreachable);
        if n >= UNANSWERED {
            let what = format!(
                "{n} of {} connections to {} got no answer, or only that it cannot be reached",
                t.over(),
                peer(p)
            );
            found.add(n, Said::new(what));
        }
    }
}

fn syn_again(r: &Report, found: &mut Found) {
    let (n, of) = (r.totals.syn_again, r.totals.clients);
    if n >= SYN_AGAIN && n * SYN_AGAIN_SHARE >= of {
        let share = percent(n, of);
        found.add(n, Said::new(format!("{n} of {of} connections ({share}) had to send their SYN again")));
    }
}

fn retransmits(r: &Report, found: &mut Found) {
    for (p, t) in r.peers.iter() {
        if t.retrans >= RETRANS && t.retrans * RETRANS_SHARE >= t.segs_out {
            let share = percent(t.retrans, t.segs_out);
            let said = format!("{} of {} segments ({share}) to {} were sent again", t.retrans, t.segs_out, peer(p));
            found.add(t.retrans, Said::new(said));
        }
    }
}

fn resets(r: &Report, found: &mut Found) {
    for (p, t) in r.peers.iter() {
        let (n, over) = (t.reset(), t.over());
        if n >= RESET && n * RESET_SHARE >= over {
            let (ours, theirs) = (t.group.ended(End::RstSent), t.group.ended(End::RstReceived));
            let who = format!("{ours} by this end, {theirs} by the peer");
            let what = format!("{n} of {over} connections with {} ended by a RST: {who}", peer(p));
            found.add(n, Said::new(what));
        }
    }
}

/// Ends of one kind, by peer.
fn ended(r: &Report, ends: &[End], words: [&str; 2], found: &mut Found) {
    for (p, t) in r.peers.iter() {
        let n = ends.iter().map(|&end| t.group.ended(end)).sum();
        if n > 0 {
            let said =
                format!("{} with {} {}", count(n, "connection", "connections"), peer(p), words[usize::from(n > 1)]);
            found.add(n, Said::new(said));
        }
    }
}

fn no_ack(r: &Report, found: &mut Found) {
    let words = ["was given up: nothing was acknowledged any more", "were given up: nothing was acknowledged any more"];
    ended(r, &[End::RetransmitTimeout, End::UserTimeout], words, found);
}

fn keepalive(r: &Report, found: &mut Found) {
    let words = ["ended: no keepalive probe was answered", "ended: no keepalive probe was answered"];
    ended(r, &[End::KeepaliveTimeout], words, found);
}

fn stuck(r: &Report, state: &str, of: fn(&ProcessTally) -> Stuck, found: &mut Found) {
    for (comm, t) in r.processes.iter() {
        let Stuck { count: n, oldest } = of(t);
        if n == 0 {
            continue;
        }
        let processes = match t.pids.len() {
            1 => format!("[{}]", t.pids[0]),
            ProcessTally::PIDS.. => format!(" ({} processes or more)", ProcessTally::PIDS),
            n => format!(" ({n} processes)"),
        };
        let sockets = count(n, "socket", "sockets");
        let said = Said::new(format!("{sockets} of ")).name(comm_str(comm)).text(processes);
        let said = said.text(format!(" in {state} for a minute or longer, the oldest for ")).us(oldest / 1000);
        found.add(n, said.text(" at least"));
    }
}

fn close_wait(r: &Report, found: &mut Found) {
    stuck(r, "CLOSE_WAIT", |t| t.close_wait, found);
}

fn fin_wait2(r: &Report, found: &mut Found) {
    stuck(r, "FIN_WAIT2", |t| t.fin_wait2, found);
}

fn time_wait(r: &Report, found: &mut Found) {
    let killed = r.totals.time_wait_killed;
    if killed > 0 {
        let what = count(killed, "remnant was", "remnants were");
        found.add(killed, Said::new(format!("{what} removed from TIME_WAIT before the time was up")));
    }
    let full = kernel(r, "TCPTimeWaitOverflow");
    if full > 0 {
        let what = count(full, "connection", "connections");
        let what = format!("{what} had no TIME_WAIT: net.ipv4.tcp_max_tw_buckets were full");
        found.add(full, Said::new(what));
    }
}
