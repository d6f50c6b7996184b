//! Both queues of every listener: a block at the end of each interval, repainted in place on a terminal.
//!
//! ```text
//! LISTENER               PROCESS         SYN QUEUE n/peak/max ACCEPT Q. n/peak/max
//! *:8080                 nginx[1234]     ███▌░░ 70/129/128    ██···· 2/5/4
//!   120 SYN/s  118 done/s  117 accepted/s  wait 50% 1.2ms 99% 12ms max 95ms
//!   12 final ACKs dropped, accept queue full  limit: listen()'s backlog
//! ```
//!
//! From [`WIDE`] columns on the rates stand on the first line.

use std::{fmt::Write as _, io::Write};

use super::{
    Look,
    block::Block,
    cells,
    format::{duration, rate},
    row::{Column, Cut, Tone},
};
use crate::{
    error::Result,
    frame::fact,
    model::{Connection, Depth, LimitedBy, Listening, NetnsCounters, Observer, State},
    sink::{Output, Sink, Summary},
};

/// From this width on a listener's rates have columns.
const WIDE: usize = 118;
/// Columns of a bar.
const BAR: usize = 6;

/// Writes blocks.
#[derive(Debug)]
pub struct QueuesText<W> {
    block: Block<W>,
    listeners: Vec<(Connection, Listening)>,
    netns: Vec<NetnsCounters>,
}

impl<W: Write> QueuesText<W> {
    /// Nothing is written before the first interval is over. `repaint`: the output is a terminal that shows the last block only.
    pub fn new(out: Output<W>, look: Look, repaint: bool) -> Self {
        Self { block: Block::new(out, look, repaint), listeners: Vec::new(), netns: Vec::new() }
    }

    /// What was written to, for tests.
    pub fn into_inner(self) -> W {
        self.block.into_inner()
    }

    fn is_wide(&self) -> bool {
        self.block.width() >= WIDE
    }

    /// LISTENER PROCESS, both queues, and where there is room SYN/s DONE/s ACC/s and three waits.
    fn columns(&self) -> [Column; 10] {
        let rates = if self.is_wide() { 6 } else { 0 };
        let mut at = 0;
        [22, 15, 20, 20, rates, rates, rates, rates, rates, rates].map(|width: usize| {
            let column = Column { at, width, right: width == rates };
            at += width + 1;
            column
        })
    }

    fn heading(&mut self, ts: u64, interval_us: u64) {
        let mut text = String::new();
        self.block.clock.write(&mut text, ts, 0);
        let n = self.listeners.len();
        write!(text, "  {n} listener{}, over ", if n == 1 { "" } else { "s" }).expect("a String takes everything");
        duration(&mut text, interval_us * 1000);
        self.block.words(0, &[(text, Tone::Dim)]);
        let names = ["LISTENER", "PROCESS", "SYN QUEUE n/peak/max", "ACCEPT Q. n/peak/max", "SYN/s", "DONE/s", "ACC/s"];
        let waits = ["WAIT50", "WAIT99", "WAITMX"];
        for (column, name) in self.columns().into_iter().zip(names.into_iter().chain(waits)) {
            if column.width > 0 {
                self.block.row.cell(column, Tone::Bold, |s| s.push_str(name));
            }
        }
        self.block.line();
    }

    fn listener_lines(&mut self, c: &Connection, l: &Listening) {
        let columns = self.columns();
        let row = &mut self.block.row;
        row.cell(columns[0], Tone::Plain, |s| cells::local(s, c, true));
        row.cut(Cut::Middle, [columns[0].width, 12]);
        let mut keep = 0;
        row.cell(columns[1], Tone::Plain, |s| {
            let mut name = String::new();
            (keep, _) = cells::owner(&mut name, c);
            s.push_str(&name);
        });
        row.cut(Cut::Before(keep), [columns[1].width.max(keep + 3), keep + 2]);
        for (column, depth) in [(columns[2], &l.syn_queue), (columns[3], &l.accept_queue)] {
            row.cell(column, tone(depth), |s| bar(s, depth));
            row.attach(if depth.was_full() { Tone::Bad } else { Tone::Plain }, |s| {
                let numbers = numbers(depth);
                write!(s, " {numbers:<13}").expect("a String takes everything");
                s.truncate(s.trim_end().len());
            });
        }
        let rates = [l.syns, l.completed, l.accepted];
        let waits = l.waits.map(|w| [w.p50, w.p99, w.max]);
        if self.is_wide() {
            let row = &mut self.block.row;
            for (column, n) in columns[4..7].iter().zip(rates) {
                row.cell(*column, Tone::Plain, |s| rate(s, n, l.interval_us));
            }
            for (i, column) in columns[7..].iter().enumerate() {
                row.cell(*column, Tone::Plain, |s| match waits {
                    Some(waits) => duration(s, waits[i] * 1000),
                    None => s.push('-'),
                });
            }
            self.block.line();
        } else {
            self.block.line();
            let mut parts = Vec::new();
            for (n, name) in rates.into_iter().zip(["SYN/s", "done/s", "accepted/s"]) {
                if n.is_some() {
                    let mut text = String::new();
                    rate(&mut text, n, l.interval_us);
                    parts.push((format!("{text} {name}"), Tone::Plain));
                }
            }
            if let Some(waits) = waits {
                let mut text = String::from("wait");
                for (us, name) in waits.into_iter().zip(["50%", "99%", "max"]) {
                    write!(text, " {name} ").expect("a String takes everything");
                    duration(&mut text, us * 1000);
                }
                parts.push((text, Tone::Plain));
            }
            if rates.iter().flatten().any(|&n| n > 0) || waits.is_some() {
                self.block.words(2, &parts);
            }
        }
        self.block.words(2, &more(c, l));
    }

    /// How the members of a SO_REUSEPORT group share what comes.
    fn group_line(&mut self, members: &[(Connection, Listening)]) {
        let shares: Vec<u64> = members.iter().filter_map(|(_, l)| l.completed).collect();
        let total: u64 = shares.iter().sum();
        let mut text = format!("{} listeners share ", members.len());
        if let Some((c, _)) = members.first() {
            cells::local(&mut text, c, true);
        }
        let mut tone = Tone::Dim;
        if total > 0 && shares.len() == members.len() {
            let (most, least) = (shares.iter().max().unwrap_or(&0), shares.iter().min().unwrap_or(&0));
            let percent = |n: &u64| (n * 100 + total / 2) / total;
            write!(text, ": {} % to the busiest, {} % to the idlest", percent(most), percent(least))
                .expect("a String takes everything");
            // More than twice its share, of more than a handful.
            if total >= 20 && most * members.len() as u64 > 2 * total {
                tone = Tone::Warn;
            }
        }
        self.block.words(0, &[(text, tone)]);
    }

    /// What a namespace's counters say beside its listeners.
    fn namespace_line(&mut self, netns: u32, several: bool) {
        let counted = self.netns.iter().find(|n| n.netns == netns);
        let mut parts = Vec::new();
        if several {
            parts.push((format!("netns {netns}"), Tone::Bold));
        }
        let shown = [
            ("ListenOverflows", "accept queue overflows"),
            ("ListenDrops", "drops"),
            ("TCPReqQFullDrop", "SYN queue full"),
            ("SyncookiesSent", "cookies sent"),
            ("SyncookiesFailed", "bad cookies"),
            ("TCPDeferAcceptDrop", "ACKs deferred"),
        ];
        for (name, words) in shown {
            let grown = counted.and_then(|n| n.counters.iter().find(|(counter, n)| counter == name && *n > 0));
            if let Some((_, n)) = grown {
                if parts.len() == usize::from(several) {
                    parts.push(("the kernel counted".to_owned(), Tone::Dim));
                }
                parts.push((format!("{n} {words}"), Tone::Dim));
            }
        }
        self.block.words(0, &parts);
    }

    fn paint(&mut self, ts: u64, interval_us: u64) {
        self.heading(ts, interval_us);
        let listeners = std::mem::take(&mut self.listeners);
        let several = listeners
            .first()
            .is_some_and(|(first, _)| listeners.iter().any(|(c, _)| c.tuple.netns != first.tuple.netns));
        for namespace in listeners.chunk_by(|(a, _), (b, _)| a.tuple.netns == b.tuple.netns) {
            self.namespace_line(namespace[0].0.tuple.netns, several);
            for group in namespace.chunk_by(|(_, a), (_, b)| a.group.is_some() && a.group == b.group) {
                if group.len() > 1 {
                    self.group_line(group);
                }
                for (c, l) in group {
                    self.listener_lines(c, l);
                }
            }
        }
        self.netns.clear();
        self.block.paint();
    }
}

fn tone(d: &Depth) -> Tone {
    match d.limit.zip(d.peak) {
        _ if d.was_full() => Tone::Bad,
        Some((limit, peak)) if u64::from(peak) * 5 >= u64::from(limit) * 4 && peak > 0 => Tone::Warn,
        _ => Tone::Good,
    }
}

/// Now in full blocks, up to the peak in light ones.
fn bar(s: &mut String, d: &Depth) {
    let limit = u64::from(d.limit.unwrap_or(0)) + 1;
    let eighths = |n: u32| (u64::from(n) * 8 * BAR as u64).div_ceil(limit).min(8 * BAR as u64) as usize;
    let (now, peak) = (eighths(d.len.unwrap_or(0)), eighths(d.peak.unwrap_or(0)));
    for cell in 0..BAR {
        let in_cell = now.saturating_sub(cell * 8).min(8);
        s.push(match in_cell {
            8 => '█',
            0 if peak > cell * 8 => '░',
            0 => '·',
            n => ['▏', '▎', '▍', '▌', '▋', '▊', '▉'][n - 1],
        });
    }
}

/// `now/peak/limit`.
fn numbers(d: &Depth) -> String {
    let n = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    format!("{}/{}/{}", n(d.len), n(d.peak), n(d.limit))
}

/// What is not ordinary: drops by reason, cookies, retransmissions, where it all came from, what set the limit.
fn more(c: &Connection, l: &Listening) -> Vec<(String, Tone)> {
    use tcptrace_common::queue::drop;
    let mut parts = Vec::new();
    let mark = |field: &str| if l.inferred.contains(&field) { "~" } else { "" };
    let counted = |n: u64, [one, many]: [&str; 2]| format!("{n} {}", if n == 1 { one } else { many });
    for (i, field, words) in [
        (
            drop::SYN_QUEUE_FULL,
            "dropped.syn_queue_full",
            ["SYN dropped, SYN queue full", "SYNs dropped, SYN queue full"],
        ),
        (
            drop::ACCEPT_QUEUE_FULL_SYN,
            "dropped.accept_queue_full_syn",
            ["SYN dropped, accept queue full", "SYNs dropped, accept queue full"],
        ),
        (
            drop::ACCEPT_QUEUE_FULL_ACK,
            "",
            ["final ACK dropped, accept queue full", "final ACKs dropped, accept queue full"],
        ),
        (drop::RST, "", ["reset while half-open"; 2]),
        (drop::SYNACK_TIMEOUT, "", ["timed out half-open"; 2]),
        (drop::OTHER, "", ["dropped: no memory, no route or ICMP error"; 2]),
        (drop::LISTENER_CLOSED, "", ["half-open when it was closed"; 2]),
    ] {
        if let Some(n) = l.dropped[i].filter(|&n| n > 0) {
            parts.push((format!("{}{}", mark(field), counted(n, words)), Tone::Bad));
        }
    }
    let known = |i: usize| l.dropped[i].unwrap_or(0);
    // `sk_drops` has a final ACK that met a full accept queue twice: as tcp_listendrop() in tcp_v4_syn_recv_sock(), and as a segment
    // that its request did not take.
    let told = known(drop::SYN_QUEUE_FULL)
        + known(drop::ACCEPT_QUEUE_FULL_SYN)
        + known(drop::ACCEPT_QUEUE_FULL_ACK)
        + known(drop::OTHER)
        + l.not_taken.unwrap_or(known(drop::ACCEPT_QUEUE_FULL_ACK));
    if let Some(n) = l.sk_drops.filter(|&n| n > told) {
        parts.push((format!("{} dropped, reason not known", n - told), Tone::Bad));
    }
    if let Some(n) = l.cookies_sent.filter(|&n| n > 0) {
        parts.push((format!("{}{}", mark("cookies_sent"), counted(n, ["cookie sent", "cookies sent"])), Tone::Warn));
    }
    let mut count = |n: Option<u64>, words: [&str; 2], tone| {
        if let Some(n) = n.filter(|&n| n > 0) {
            parts.push((counted(n, words), tone));
        }
    };
    count(l.cookies_ok, ["cookie returned", "cookies returned"], Tone::Plain);
    count(l.fast_opens, ["Fast Open", "Fast Opens"], Tone::Plain);
    count(l.migrated, ["moved to another listener"; 2], Tone::Plain);
    count(l.synack_retrans, ["SYN+ACK sent again", "SYN+ACKs sent again"], Tone::Warn);
    let sources = l.sources.filter(|_| l.syns.or(l.queued).unwrap_or(0) > 0);
    count(sources, ["source (estimate)", "sources (estimate)"], Tone::Plain);
    if c.state == State::Close {
        parts.push(("closed".to_owned(), Tone::Dim));
    } else if l.accept_queue.was_full() || l.syn_queue.was_full() {
        let by = match (l.limited_by, l.backlog, l.somaxconn) {
            (Some(LimitedBy::Somaxconn), Some(backlog), _) => {
                format!("limit: net.core.somaxconn, listen() asked for {backlog}")
            }
            (Some(LimitedBy::Backlog), ..) => format!("limit: listen()'s backlog{}", mark("limited_by")),
            _ => return parts,
        };
        parts.push((by, Tone::Plain));
    }
    parts
}

impl<W: Write> Observer for QueuesText<W> {
    fn netns(&mut self, n: &NetnsCounters) {
        self.netns.push(n.clone());
    }

    fn listener(&mut self, c: &Connection, l: &Listening) {
        self.listeners.push((c.clone(), l.clone()));
    }

    fn interval(&mut self, ts: u64, interval_us: u64) {
        self.paint(ts, interval_us);
    }
}

impl<W: Write> Sink for QueuesText<W> {
    fn clock(&mut self, offset_ns: i64) {
        self.block.clock.set_offset(offset_ns);
    }

    fn start(&mut self, _: u64, _: &fact::Start, _: &[(String, String)]) {}

    /// On stderr only.
    fn loss(&mut self, _: u64, _: &fact::Loss) {}

    /// On stderr only.
    fn summary(&mut self, _: u64, _: &Summary) {}

    fn flush(&mut self, last: bool) -> Result<()> {
        self.block.flush(last)
    }
}

#[cfg(test)]
mod tests;
