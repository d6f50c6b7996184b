//! Findings for people: a line that says what, where and how bad, then the sentence, the evidence, what to change and what to look at.
//!
//! ```text
//! 10:30:01.123 CRITICAL accept-overflow *:80 nginx[80]
//!     12 SYNs dropped in 5 s: the accept queue (nginx[80]) is full, limit 128; 30 are accepted a second
//!     syns_dropped 12, acks_dropped 0, limit 128, peak 129
//!     → accept faster …
//!     tcptrace queues --lport 80
//! 10:31:11.123 resolved accept-overflow *:80 nginx[80] after 1m10s
//! ```

use std::{fmt::Write as _, io::Write};

use super::{
    Look, Output, cells, duration,
    format::Clock,
    row::{Column, Cut, Row, Tone},
    sentence::{outside, sentence},
};
use crate::{
    error::Result,
    frame::fact,
    model::{Finding, Measure, Observer, Severity, Status, Subject},
    sink::{Sink, Summary},
    wrap::wrap,
};

/// Columns before everything but the first line.
const INDENT: usize = 4;
/// Lines are not longer where there is no terminal: sentences are to be read.
const WIDEST: usize = 120;

/// Writes findings.
#[derive(Debug)]
pub struct FindingsText<W> {
    out: Output<W>,
    look: Look,
    clock: Clock,
}

impl<W: Write> FindingsText<W> {
    /// Nothing is written before the first finding.
    pub fn new(out: Output<W>, look: Look) -> Self {
        let clock = Clock::new(look.time, look.zone.clone());
        Self { out, look, clock }
    }

    fn head(&mut self, finding: &Finding) {
        let decimals = if self.look.width.is_some_and(|width| width < 100) { 0 } else { 3 };
        let (word, tone) = match (finding.status, finding.severity) {
            (Status::Resolved, _) => ("resolved", Tone::Plain),
            (Status::Firing, Severity::Info) => ("info", Tone::Opening),
            (Status::Firing, Severity::Warning) => ("WARNING", Tone::Warn),
            (Status::Firing, Severity::Critical) => ("CRITICAL", Tone::Bad),
        };
        let mut row = Row::default();
        let column = |at, width| Column { at, width, right: false };
        let time = column(0, self.clock.width(decimals));
        let clock = &mut self.clock;
        row.cell(time, Tone::Dim, |s| clock.write(s, finding.ts, decimals));
        row.cell(column(time.width + 1, 8), tone, |s| s.push_str(word));
        row.cell(column(time.width + 10, 0), Tone::Bold, |s| s.push_str(finding.rule));
        row.cell(column(0, 0), Tone::Plain, |s| subject(s, &finding.subject));
        row.cut(Cut::Middle, [24, 12]);
        if finding.status == Status::Resolved {
            row.cell(column(0, 0), Tone::Dim, |s| {
                s.push_str("after ");
                duration(s, finding.ts.saturating_sub(finding.since));
            });
        }
        self.finish(&mut row);
    }

    fn finish(&mut self, row: &mut Row) {
        if let Some(width) = self.look.width {
            row.fit(width);
        }
        row.write(&mut self.out.buffer, self.look.color);
        self.out.line();
    }

    fn lines(&mut self, text: &str, begin: &str, tone: Tone) {
        let width = self.look.width.unwrap_or(WIDEST).min(WIDEST);
        let indent = INDENT + begin.chars().count();
        for (i, line) in wrap(text, width.saturating_sub(indent).max(20)).iter().enumerate() {
            let mut row = Row::default();
            let at = if i == 0 { INDENT } else { indent };
            row.cell(Column { at, width: 0, right: false }, tone, |s| {
                if i == 0 {
                    s.push_str(begin);
                }
                s.push_str(line);
            });
            self.finish(&mut row);
        }
    }
}

/// `10.0.0.1:80`, `*:80`, `10.0.0.1`, `:80`.
fn end(addr: Option<std::net::IpAddr>, port: Option<u16>) -> String {
    match (addr, port) {
        (Some(addr), Some(port)) if addr.is_unspecified() => format!("*:{port}"),
        (Some(addr), Some(port)) => std::net::SocketAddr::new(addr, port).to_string(),
        (Some(addr), None) => addr.to_string(),
        (None, Some(port)) => format!(":{port}"),
        (None, None) => String::new(),
    }
}

/// What a finding is about: `*:80 nginx[80]`, `→ 10.0.0.2:5432 app[7]`.
pub fn subject(out: &mut String, subject: &Subject) {
    let local = end(subject.laddr, subject.lport);
    let remote = end(subject.raddr, subject.rport);
    let mut parts = Vec::new();
    parts.extend((!local.is_empty()).then_some(local));
    parts.extend((!remote.is_empty()).then(|| format!("→ {remote}")));
    if let Some(owner) = &subject.owner {
        let mut text = String::new();
        cells::process(&mut text, owner);
        parts.push(text);
    }
    if parts.is_empty()
        && let Some(netns) = subject.netns
    {
        parts.push(format!("network namespace {netns}"));
    }
    out.push_str(&parts.join(" "));
}

/// `limit 128, peak 129`; names lose their units, values have them.
fn evidence(list: &[(&'static str, Measure)]) -> String {
    let mut text = String::new();
    for (name, measure) in list {
        if !text.is_empty() {
            text.push_str(", ");
        }
        let short = ["_us", "_per_s", "_percent"].iter().find_map(|unit| name.strip_suffix(unit)).unwrap_or(name);
        text.push_str(&short.replace('_', " "));
        text.push(' ');
        value(&mut text, measure);
    }
    text
}

fn value(out: &mut String, measure: &Measure) {
    let _ = match measure {
        Measure::Count(n) => write!(out, "{n}"),
        Measure::PerSecond(n) => write!(out, "{}/s", short(*n)),
        Measure::Percent(n) => write!(out, "{} %", short(*n)),
        Measure::Text(text) => write!(out, "{text}"),
        Measure::Name(name) => write!(out, "{}", outside(name)),
        Measure::Us(us) => {
            duration(out, us * 1000);
            Ok(())
        }
        Measure::List(list) => {
            for (i, measure) in list.iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                value(out, measure);
            }
            Ok(())
        }
        Measure::Fields(fields) => write!(out, "({})", evidence(fields)),
    };
}

/// One digit behind the point where it says something.
fn short(n: f64) -> String {
    if n < 10.0 && n.fract() >= 0.05 { format!("{n:.1}") } else { format!("{n:.0}") }
}

impl<W: Write> Observer for FindingsText<W> {}

impl<W: Write> Sink for FindingsText<W> {
    fn clock(&mut self, offset_ns: i64) {
        self.clock.set_offset(offset_ns);
    }

    fn start(&mut self, _: u64, _: &fact::Start, _: &[(String, String)]) {}

    fn loss(&mut self, _: u64, _: &fact::Loss) {}

    fn finding(&mut self, finding: &Finding) {
        self.head(finding);
        if finding.status == Status::Resolved {
            return;
        }
        self.lines(&sentence(&finding.summary.0), "", Tone::Plain);
        self.lines(&evidence(&finding.evidence), "", Tone::Dim);
        let begin = if self.look.ascii { "-> " } else { "→ " };
        self.lines(&finding.advice, begin, Tone::Plain);
        if !finding.look.is_empty() {
            self.lines(&finding.look, "", Tone::Dim);
        }
    }

    fn summary(&mut self, _: u64, _: &Summary) {}

    fn flush(&mut self, last: bool) -> Result<()> {
        self.look.follow_terminal();
        self.out.flush(last)
    }
}
