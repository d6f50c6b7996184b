//! How connections ended, who closed first, and how long things took.

use super::{Bar, Block, Page, Section, Span, Table, left, plain, right, time_cell};
use crate::{
    group::Spread,
    model::End,
    report::CLOSED_BY,
    sink::text::{Tone, why},
};

/// The class in HTML of an end: ends of one kind have one colour.
pub const fn class(end: Option<End>) -> &'static str {
    match end {
        Some(End::Fin) => "fin",
        Some(End::RstSent | End::RstReceived) => "rst",
        Some(End::Refused | End::Unreachable) => "refused",
        Some(End::ConnectTimeout | End::RetransmitTimeout | End::KeepaliveTimeout | End::UserTimeout) => "timeout",
        Some(End::ListenerClosed | End::Killed | End::Overflow | End::Aborted) => "given-up",
        Some(End::Open) => "open",
        None => "unknown",
    }
}

/// Classes, and what they stand for.
pub const CLASSES: [(&str, &str); 6] = [
    ("fin", "closed in order"),
    ("rst", "reset"),
    ("refused", "refused or unreachable"),
    ("timeout", "timed out"),
    ("given-up", "given up or killed"),
    ("unknown", "not known"),
];

impl Page<'_> {
    /// How many ended how.
    pub(super) fn ends(&self) -> Section {
        let group = &self.report.all.group;
        let mut ends: Vec<_> = group.ends().collect();
        ends.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
        let bar = |(end, count): (Option<End>, u64)| Bar {
            name: end.map_or_else(|| "not known".to_owned(), |end| end.name().replace('_', " ")),
            class: class(end),
            tone: end.map_or(Tone::Dim, why::end_tone),
            count,
            of: group.count,
        };
        let bars: Vec<_> = ends.into_iter().map(bar).collect();
        let mut blocks = Vec::new();
        if bars.is_empty() {
            blocks.push(Block::Note("No connection was seen.".to_owned()));
        } else {
            blocks.push(Block::Bars(bars));
            blocks.push(Block::Facts(vec![("closed first", self.closed_by())]));
        }
        Section { id: "ends", title: "How connections ended", blocks }
    }

    fn closed_by(&self) -> Vec<Span> {
        let t = &self.report.totals;
        let words = ["by this end", "by the peer", "by both at once", "by nobody"];
        let mut spans: Vec<_> = CLOSED_BY
            .iter()
            .zip(words)
            .map(|(by, words)| (t.closed_by[*by as usize], words))
            .filter(|(n, _)| *n > 0)
            .map(|(n, words)| plain(format!("{n} {words}")))
            .collect();
        let unknown = t.closed_unknown();
        if unknown > 0 {
            spans.push((format!("{unknown} not known"), Tone::Dim));
        }
        if spans.is_empty() {
            spans.push(plain("none is over"));
        }
        spans
    }

    /// How long things took.
    pub(super) fn times(&self) -> Section {
        let r = self.report;
        let group = &r.all.group;
        let spreads = [
            ("handshake", &group.handshake),
            ("round trip", &group.rtt),
            ("accept wait", &r.accept_wait),
            ("lifetime", &group.lifetime),
        ];
        let columns = vec![
            left("TIME", "within 3 %; the longest is exact", 0),
            right("50%", "half were not longer", 0),
            right("90%", "nine of ten", 0),
            right("99%", "99 of 100", 0),
            right("MAX", "the longest", 0),
            right("CONNS", "connections of which it is known", 1),
        ];
        let row = |(name, spread): (&str, &Spread)| {
            let quantile = |percent| time_cell(spread.quantile(percent));
            let (longest, n) = (time_cell(spread.most()), plain(spread.count().to_string()));
            vec![plain(name), quantile(50), quantile(90), quantile(99), longest, n]
        };
        let rows = spreads.into_iter().filter(|(_, s)| s.count() > 0).map(row).collect::<Vec<_>>();
        let block = if rows.is_empty() {
            Block::Note("None is known.".to_owned())
        } else {
            Block::Table(Table { columns, rows })
        };
        Section { id: "times", title: "How long it took", blocks: vec![block] }
    }
}
