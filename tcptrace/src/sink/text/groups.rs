//! Connections by what they have in common: a table, the largest group first; on a terminal repainted every second.
//!
//! ```text
//! COMM   RPORT   COUNT RATE/s LIFE50 LIFE99     ↑     ↓
//! curl     443    1204    120  1.2ms   12ms 1.20K 34.0K
//!   fin 1190  refused 14  handshake 50% 1.2ms 99% 12ms  RTT 50% 1.0ms 99% 11ms
//! ```
//!
//! From [`WIDE`] columns on all of it stands on one line, if the ends have room there.

use std::{fmt::Write as _, io::Write};

use super::{
    Look,
    block::Block,
    format::{bytes, duration, rate},
    row::{Column, Cut, Tone},
    why,
};
use crate::{
    error::Result,
    frame::fact,
    group::{Group, Groups, Quantiles, Spread, Value},
    model::Observer,
    sink::{Output, Sink, Summary, escape},
};

/// From this width on handshakes and round-trip times have columns.
const WIDE: usize = 118;
/// Columns that the ends should have behind everything else, where there are that many.
const ENDS: usize = 28;
/// A key that gives way keeps so many columns.
const NARROWEST: usize = 6;

/// Writes a table.
#[derive(Debug)]
pub struct GroupsText<W> {
    block: Block<W>,
}

/// Columns of a table.
struct Plan {
    keys: Vec<Column>,
    count: Column,
    rate: Column,
    /// Lifetime; where there is room, handshake and RTT.
    spreads: Vec<[Column; 2]>,
    sent: Column,
    received: Column,
    ends: Column,
}

const SPREADS: [[&str; 2]; 3] = [["LIFE50", "LIFE99"], ["SHAKE50", "SHAKE99"], ["RTT50", "RTT99"]];

fn spreads(group: &Group) -> [&Spread; 3] {
    [&group.lifetime, &group.handshake, &group.rtt]
}

impl<W: Write> GroupsText<W> {
    /// Nothing is written before the end. `repaint`: the output is a terminal that shows how it stands every second.
    pub fn new(out: Output<W>, look: Look, repaint: bool) -> Self {
        Self { block: Block::new(out, look, repaint) }
    }

    /// What was written to, for tests.
    pub fn into_inner(self) -> W {
        self.block.into_inner()
    }

    /// `longest`: characters of each key's longest value.
    fn plan(&self, longest: &[usize]) -> Plan {
        let width = self.block.width();
        let shown = if width >= WIDE { 3 } else { 1 };
        let numbers = 8 + 7 + 6 + 6 + SPREADS[..shown].iter().flatten().map(|name| name.len() + 1).sum::<usize>();
        let behind = numbers + longest.len().saturating_sub(1) + if width >= WIDE { ENDS + 1 } else { 0 };
        let keys = shares(longest, width.saturating_sub(behind));
        let mut at = 0;
        let mut column = |width: usize, right: bool| {
            let column = Column { at, width, right };
            at += width + 1;
            column
        };
        let keys = keys.into_iter().map(|width| column(width, false)).collect();
        let (count, rate) = (column(7, true), column(6, true));
        let spreads = SPREADS[..shown].iter().map(|names| names.map(|name| column(name.len(), true))).collect();
        Plan { keys, count, rate, spreads, sent: column(5, true), received: column(5, true), ends: column(0, false) }
    }

    fn heading(&mut self, plan: &Plan, names: &[String]) {
        let row = &mut self.block.row;
        let mut name = |column: Column, text: &str| row.cell(column, Tone::Bold, |s| s.push_str(text));
        for (column, text) in plan.keys.iter().zip(names) {
            name(*column, text);
        }
        name(plan.count, "COUNT");
        name(plan.rate, "RATE/s");
        for (columns, names) in plan.spreads.iter().zip(SPREADS) {
            name(columns[0], names[0]);
            name(columns[1], names[1]);
        }
        name(plan.sent, "↑");
        name(plan.received, "↓");
        if plan.spreads.len() == SPREADS.len() {
            name(plan.ends, "ENDS");
        }
        self.block.line();
    }

    fn group(&mut self, plan: &Plan, values: &[String], group: &Group, elapsed_us: u64) {
        let width = self.block.width();
        let row = &mut self.block.row;
        for (column, text) in plan.keys.iter().zip(values) {
            row.cell(*column, Tone::Plain, |s| s.push_str(text));
            row.cut(Cut::Middle, [column.width, NARROWEST]);
            row.shorten_last(column.width);
        }
        row.cell(plan.count, Tone::Plain, |s| s.push_str(itoa::Buffer::new().format(group.count)));
        row.cell(plan.rate, Tone::Plain, |s| rate(s, Some(group.count), elapsed_us));
        for (columns, spread) in plan.spreads.iter().zip(spreads(group)) {
            let quantiles = spread.quantiles();
            for (column, us) in columns.iter().zip([quantiles.map(|q| q.p50), quantiles.map(|q| q.p99)]) {
                row.cell(*column, Tone::Plain, |s| match us {
                    Some(us) => duration(s, us * 1000),
                    None => s.push('-'),
                });
            }
        }
        for (column, n) in [(plan.sent, group.bytes_sent), (plan.received, group.bytes_received)] {
            row.cell(column, Tone::Plain, |s| bytes(s, n));
        }
        let mut parts: Vec<(String, Tone)> = group
            .ends()
            .map(|(end, n)| match end {
                Some(end) => (format!("{} {n}", end.name().replace('_', " ")), why::end_tone(end)),
                None => (format!("not known {n}"), Tone::Dim),
            })
            .collect();
        let wide = plan.spreads.len() == SPREADS.len();
        let long = parts.iter().map(|(text, _)| text.chars().count() + 2).sum::<usize>();
        if wide && row.width().max(plan.ends.at - 1) + long < width {
            for (i, (text, tone)) in parts.drain(..).enumerate() {
                if i == 0 {
                    row.cell(plan.ends, tone, |s| s.push_str(&text));
                } else {
                    row.attach(tone, |s| write!(s, "  {text}").expect("a String takes everything"));
                }
            }
        }
        self.block.line();
        if !wide {
            parts.extend(words("handshake", &group.handshake).into_iter().chain(words("RTT", &group.rtt)));
        }
        self.block.words(2, &parts);
    }

    /// The table, of `groups` as many as fit into so many lines.
    fn paint(&mut self, ts: u64, elapsed_us: u64, groups: &Groups, room: usize) {
        let names: Vec<String> = groups.keys().iter().map(|key| key.name().to_ascii_uppercase()).collect();
        // Each has a line at least.
        let largest = groups.largest(room);
        let mut rows: Vec<(Vec<String>, &Group)> =
            largest.iter().map(|(values, group)| (values.iter().map(shown).collect(), *group)).collect();
        if let Some(other) = groups.other() {
            let mut values = vec![String::new(); names.len()];
            values[0].push_str("(other)");
            rows.push((values, other));
        }
        let chars = |i: usize, text: &str| {
            rows.iter().map(|(values, _)| values[i].chars().count()).fold(text.chars().count(), usize::max)
        };
        let longest: Vec<usize> = names.iter().enumerate().map(|(i, name)| chars(i, name)).collect();
        let plan = self.plan(&longest);

        let mut text = String::new();
        self.block.clock.write(&mut text, ts, 0);
        let all = groups.len();
        let (count, connections) = (all as u64, groups.connections());
        write!(text, "  {}, {}, over ", counted(count, "group"), counted(connections, "connection"))
            .expect("a String takes everything");
        duration(&mut text, elapsed_us * 1000);
        if groups.other().is_some() {
            write!(text, "; (other): groups beyond the first {all}").expect("a String takes everything");
        }
        self.block.words(0, &[(text, Tone::Dim)]);
        self.heading(&plan, &names);
        let total = all + usize::from(groups.other().is_some());
        let mut done = 0;
        for (values, group) in rows {
            let before = self.block.len();
            self.group(&plan, &values, group, elapsed_us);
            if self.block.len() > room {
                // Half a group would pass for a whole one.
                self.block.truncate(before);
                break;
            }
            done += 1;
        }
        let rest = (total - done) as u64;
        self.block.paint_less((rest > 0).then(|| format!("… {}", counted(rest, "more group"))));
    }
}

fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Columns of each key: those that would like the most give way until all of them have room.
fn shares(longest: &[usize], room: usize) -> Vec<usize> {
    let mut shares = longest.to_vec();
    while shares.iter().sum::<usize>() > room
        && let Some(most) = shares.iter_mut().max().filter(|most| **most > NARROWEST)
    {
        *most -= 1;
    }
    shares
}

/// `RTT 50% 1.0ms 99% 11ms`.
fn words(name: &str, spread: &Spread) -> Option<(String, Tone)> {
    let Quantiles { p50, p99 } = spread.quantiles()?;
    let mut text = format!("{name} 50% ");
    duration(&mut text, p50 * 1000);
    text.push_str(" 99% ");
    duration(&mut text, p99 * 1000);
    Some((text, Tone::Plain))
}

/// A value as a cell; a container's id as short as its runtime shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(n) => n.to_string(),
        Value::Address(addr) => addr.to_string(),
        Value::Text(text) if text.len() == 64 && text.iter().all(u8::is_ascii_hexdigit) => {
            String::from_utf8_lossy(&text[..12]).into_owned()
        }
        Value::Text(text) => {
            let mut out = Vec::new();
            escape::text(&mut out, text);
            String::from_utf8_lossy(&out).into_owned()
        }
        Value::None => "-".to_owned(),
    }
}

impl<W: Write> Observer for GroupsText<W> {}

impl<W: Write> Sink for GroupsText<W> {
    fn clock(&mut self, offset_ns: i64) {
        self.block.clock.set_offset(offset_ns);
    }

    fn start(&mut self, _: u64, _: &fact::Start, _: &[(String, String)]) {}

    /// On stderr only.
    fn loss(&mut self, _: u64, _: &fact::Loss) {}

    fn groups(&mut self, ts: u64, elapsed_us: u64, groups: &Groups, last: bool) {
        if last || self.block.repaints() {
            let room = self.block.room();
            self.paint(ts, elapsed_us, groups, room);
        }
    }

    /// On stderr only.
    fn summary(&mut self, _: u64, _: &Summary) {}

    fn flush(&mut self, last: bool) -> Result<()> {
        self.block.flush(last)
    }
}

#[cfg(test)]
mod tests;
