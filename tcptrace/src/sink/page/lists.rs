//! The busiest listeners, peers and processes, and single connections that stand out.

use super::{
    Block, Head, Page, Section, Span, Table, bad, ends, left, number, outside, owner, percent, plain, process, right,
    size, time_cell,
};
use crate::{
    model::{Inferred, comm_str},
    report::{Listener, Notable, Peak, Place, Tally, Top},
    sink::text::{Tone, rate, why},
};

fn header(name: &'static str, title: &'static str) -> Head {
    left(name, title, 0)
}

fn all_columns(first: Head, rest: &[Head]) -> Vec<Head> {
    std::iter::once(first).chain(rest.iter().copied()).collect()
}

/// `5/4`, the most and the limit; full is bad.
fn peak(p: &Peak) -> Span {
    let n = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let text = if p.most.is_none() { "-".to_owned() } else { format!("{}/{}", n(p.most), n(p.limit)) };
    (text, if p.was_full() { Tone::Bad } else { Tone::Plain })
}

/// `web`, `web +2`, `-`; a container's id as short as its runtime shows it.
fn places(names: &[Box<str>]) -> Span {
    let Some((first, others)) = names.split_first() else { return ("-".to_owned(), Tone::Dim) };
    let is_id = first.len() == 64 && first.bytes().all(|b| b.is_ascii_hexdigit());
    let short = first.get(..12).filter(|_| is_id).unwrap_or(first);
    let mut text = outside(short.as_bytes());
    if !others.is_empty() {
        let more = if names.len() == crate::report::ProcessTally::PLACES { "+" } else { "" };
        text.push_str(&format!(" +{}{more}", others.len()));
    }
    plain(text)
}

/// `*:80`, `10.0.0.1:80`.
pub fn place(p: &Place) -> String {
    match p.addr {
        Some(addr) => std::net::SocketAddr::new(addr, p.port).to_string(),
        None => format!("*:{}", p.port),
    }
}

impl Page<'_> {
    fn per_second(&self, n: u64) -> Span {
        let mut text = String::new();
        rate(&mut text, Some(n), self.report.lasted() / 1000);
        plain(text)
    }

    /// How many more there are than a list has.
    fn more(&self, all: usize, other: u64, one: &str, many: &str) -> Option<Block> {
        let left_out = all.saturating_sub(self.top());
        let mut words = Vec::new();
        words.extend((left_out > 0).then(|| format!("{left_out} more {}", if left_out == 1 { one } else { many })));
        words.extend((other > 0).then(|| format!("{other} connections of {many} that there was no room for")));
        (!words.is_empty()).then(|| Block::Note(format!("{}.", words.join("; "))))
    }

    fn top(&self) -> usize {
        self.report.top
    }

    /// Listeners.
    pub(super) fn listeners(&self) -> Section {
        let r = self.report;
        let all = r.listeners();
        let read = r.has_queues();
        let mut columns = all_columns(
            header("LISTENER", "where it listens; * is every address"),
            &[
                left("PROCESS", "the first that was seen", 3),
                right("CONNS", "connections that came through it", 0),
                right("RATE/s", "of them, a second", 4),
                right("WAIT50", "time between the accept queue and accept(): half were not longer", 2),
                right("WAIT99", "likewise, 99 of 100", 1),
                right("WAITMX", "likewise, the longest", 1),
            ],
        );
        if read {
            columns.extend([
                right("SYNQ", "most entries of the SYN queue, and its limit", 2),
                right("ACCQ", "most entries of the accept queue, and its limit", 0),
            ]);
        }
        columns.push(right("DROPS", "SYNs, half-open requests and final ACKs that came to nothing", 0));
        let several = all.iter().any(|(p, _)| p.netns != all[0].0.netns);
        if several {
            columns.push(left("NETNS", "network namespace", 5));
        }
        let row = |(p, l): &(Place, Listener)| {
            let conns = l.tally.group.count;
            let quantile = |percent| time_cell(l.accept_wait.quantile(percent));
            let mut row = vec![
                plain(place(p)),
                plain(process(l.owner.as_deref())),
                number(conns),
                self.per_second(conns),
                quantile(50),
                quantile(99),
                time_cell(l.longest()),
            ];
            if read {
                row.extend([peak(&l.syn_queue), peak(&l.accept_queue)]);
            }
            row.push(bad(l.all_dropped()));
            if several {
                row.push(plain(p.netns.to_string()));
            }
            row
        };
        let rows: Vec<_> = all.iter().take(self.top()).map(row).collect();
        let mut blocks = Vec::new();
        if rows.is_empty() {
            blocks.push(Block::Note("None: nothing was accepted.".to_owned()));
        } else {
            blocks.push(Block::Table(Table { columns, rows }));
        }
        if !read && !all.is_empty() {
            let words = "Queues were not recorded: `tcptrace record --queues` has their depths, and drops by reason.";
            blocks.push(Block::Note(words.to_owned()));
        }
        blocks.extend(self.more(all.len(), r.other_listeners(), "listener", "listeners"));
        Section { id: "listeners", title: "Busiest listeners", blocks }
    }

    /// Columns that peers and processes share.
    fn tally(&self, t: &Tally) -> Vec<Span> {
        let g = &t.group;
        vec![
            bad(t.failed()),
            time_cell(g.handshake.quantile(50)),
            time_cell(g.rtt.quantile(50)),
            time_cell(g.lifetime.quantile(50)),
            plain(size(g.bytes_sent)),
            plain(size(g.bytes_received)),
            if t.retrans == 0 { number(0) } else { (t.retrans.to_string(), Tone::Warn) },
        ]
    }

    /// Peers.
    pub(super) fn peers(&self) -> Section {
        let peers = &self.report.peers;
        let columns = all_columns(
            header("PEER", "→ asked from here, ← asks"),
            &[right("CONNS", "connections", 0), right("RATE/s", "a second", 4)],
        );
        let columns = [columns, TALLY.to_vec()].concat();
        let all = peers.busiest(|t| t.group.count);
        let row = |(peer, t): &(&crate::report::Peer, &Tally)| {
            let shown = peer
                .port
                .map_or_else(|| peer.addr.to_string(), |port| std::net::SocketAddr::new(peer.addr, port).to_string());
            let arrow = match (peer.port, peer.asks) {
                (Some(_), _) => '→',
                (None, true) => '←',
                (None, false) => '↔',
            };
            let first = vec![plain(format!("{arrow} {shown}")), number(t.group.count), self.per_second(t.group.count)];
            [first, self.tally(t)].concat()
        };
        let rows: Vec<_> = all.iter().take(self.top()).map(row).collect();
        let mut blocks = vec![table_or_none(columns, rows)];
        blocks.extend(self.more(all.len(), peers.other.group.count, "peer", "peers"));
        Section { id: "peers", title: "Busiest peers", blocks }
    }

    /// Processes by name.
    pub(super) fn processes(&self) -> Section {
        let processes = &self.report.processes;
        let all = processes.busiest(|t| t.all.group.count);
        let shown = || all.iter().take(self.top()).map(|(_, t)| t);
        let (contained, in_units) = (shown().any(|t| !t.containers.is_empty()), shown().any(|t| !t.units.is_empty()));
        let mut columns = vec![header("PROCESS", "its name, and its number or how many of that name there were")];
        if contained {
            columns.push(left("CONTAINER", "that it is in, and in how many others of that name are", 1));
        }
        if in_units {
            columns.push(left(
                "UNIT",
                "the systemd unit that it is part of, and of how many others of that name are",
                3,
            ));
        }
        columns.extend([
            right("CONNS", "connections", 0),
            right("→", "that it asked for", 3),
            right("←", "that it was asked for", 3),
        ]);
        let columns = [columns, TALLY.to_vec()].concat();
        let row = |(comm, t): &(&[u8; 16], &crate::report::ProcessTally)| {
            let which = match t.pids.len() {
                1 => format!("[{}]", t.pids[0]),
                n => format!(" ×{n}{}", if n >= crate::report::ProcessTally::PIDS { "+" } else { "" }),
            };
            let name = outside(comm_str(comm));
            let mut first = vec![plain(format!("{name}{which}"))];
            first.extend(contained.then(|| places(&t.containers)));
            first.extend(in_units.then(|| places(&t.units)));
            first.extend([number(t.all.group.count), number(t.clients), number(t.servers)]);
            [first, self.tally(&t.all)].concat()
        };
        let rows: Vec<_> = all.iter().take(self.top()).map(row).collect();
        let mut blocks = vec![table_or_none(columns, rows)];
        blocks.extend(self.more(all.len(), processes.other.all.group.count, "name", "names"));
        Section { id: "processes", title: "By process", blocks }
    }

    /// Connections that stand out by something.
    pub(super) fn notable(
        &self,
        id: &'static str,
        title: &'static str,
        value: &'static str,
        meaning: &'static str,
        top: &Top<Notable>,
    ) -> Section {
        let columns = vec![
            header("CONNECTION", "→ from here, ← to here"),
            left("PROCESS", "who owned it", 1),
            right(value, meaning, 0),
            right("SYN×", "SYNs or SYN+ACKs sent again", 4),
            right("RTT", "smoothed round-trip time", 5),
            right("↑", "payload bytes out", 6),
            right("↓", "payload bytes in", 6),
            left("END", "how it ended", 2),
            left("START", "when it began, or was first seen", 3),
            right("ID", "its id in `tcptrace conns --json --from FILE`", 0),
        ];
        let row = |(value, n): (u64, &Notable)| {
            let (c, f) = (&n.connection, &n.last);
            let first = match id {
                "retransmitted" => {
                    let segs = f.counters.map_or(0, |n| n.segs_out);
                    plain(format!("{value} ({})", percent(value, segs.into())))
                }
                _ => time_cell(Some(value / 1000)),
            };
            let again = f.syn_retrans.map_or(0, u64::from) + u64::from(c.synack_retrans);
            let payload = f.counters.map(|n| crate::model::Payload::new(&n, crate::model::Shape::of(c)));
            let bytes = |n: Option<u64>| plain(n.map_or_else(|| "-".to_owned(), size));
            let mut end = String::new();
            why::end(&mut end, c, f, self.look.width.is_none_or(|width| width >= 100));
            if c.inferred.0 & Inferred::END != 0 && f.end.is_some_and(|end| end != crate::model::End::Open) {
                end.push('~');
            }
            vec![
                plain(ends(c)),
                plain(owner(c)),
                first,
                if again == 0 { number(0) } else { (again.to_string(), Tone::Warn) },
                time_cell(f.srtt_us(c).map(u64::from)),
                bytes(payload.map(|p| p.sent)),
                bytes(payload.map(|p| p.received)),
                (end, why::final_tone(c, f)),
                (self.time(n.start, self.decimals()), Tone::Dim),
                (format!("#{}", c.id), Tone::Dim),
            ]
        };
        let rows: Vec<_> = top.sorted().into_iter().map(row).collect();
        Section { id, title, blocks: vec![table_or_none(columns, rows)] }
    }
}

/// Of peers and processes.
const TALLY: [Head; 7] = [
    right("FAILED", "refused, reset, timed out or given up", 0),
    right("SHAKE50", "handshakes: half were not longer", 2),
    right("RTT50", "smoothed round-trip times at the end: half were not longer", 4),
    right("LIFE50", "lifetimes: half were not longer", 3),
    right("↑", "payload bytes out", 1),
    right("↓", "payload bytes in", 1),
    right("RTX", "segments sent again", 2),
];

fn table_or_none(columns: Vec<Head>, rows: Vec<Vec<Span>>) -> Block {
    if rows.is_empty() { Block::Note("None.".to_owned()) } else { Block::Table(Table { columns, rows }) }
}
