//! Lines for people: every transition, or every connection when it is over.
//!
//! A line fits the terminal: below 100 columns the local address is left out and words are shorter. `~` marks what was
//! concluded and not seen, `*` a socket that was there before the trace began.

use std::{io::Write, sync::Arc};

use jiff::tz::TimeZone;

use super::{Output, Sink, Summary};
use crate::{
    error::Result,
    frame::fact,
    model::{
        Connection, End, Final, Inferred, Observer, Outcome, Payload, Remnant, Request, Role, Shape, Stack, State,
        Transition, ladder::Ladder,
    },
};

mod block;
pub(super) mod cells;
mod findings;
mod format;
mod groups;
pub(super) mod ladder;
mod queues;
mod report;
mod row;
pub(super) mod sentence;
mod stack;
#[cfg(test)]
mod tests;
pub(super) mod why;

pub use findings::FindingsText;
pub(super) use findings::subject;
pub use format::{Clock, TimeMode, bytes, duration, rate};
pub use groups::GroupsText;
pub use queues::QueuesText;
pub use report::report;
pub(super) use row::Tone;
use row::{Column, Cut, Row};
pub(super) use sentence::{outside, sentence};

/// How lines look.
#[derive(Clone, Debug)]
pub struct Look {
    /// Columns of the terminal; None: as long as it takes.
    pub width: Option<usize>,
    /// The width is that of a terminal, which may change.
    pub follow: bool,
    /// ANSI colours.
    pub color: bool,
    /// `--time`.
    pub time: TimeMode,
    /// For [`TimeMode::Local`].
    pub zone: TimeZone,
    /// Begin with column headings.
    pub header: bool,
    /// Ladders in ASCII: the terminal has nothing else.
    pub ascii: bool,
}

impl Look {
    fn follow_terminal(&mut self) {
        if self.follow {
            self.width = terminal_width().or(self.width);
        }
    }
}

/// Place of the process in a line.
const PROCESS: usize = 1;
/// From this width on lines have everything.
const WIDE: usize = 100;

/// Columns of the terminal on stdout: 80 if it does not say; None if it is no terminal.
#[must_use]
pub fn terminal_width() -> Option<usize> {
    let stdout = rustix::stdio::stdout();
    if !rustix::termios::isatty(stdout) {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(stdout).map_or(0, |size| usize::from(size.ws_col));
    Some(if columns == 0 { 80 } else { columns })
}

/// Writes text.
#[derive(Debug)]
pub struct Text<W> {
    out: Output<W>,
    look: Look,
    clock: Clock,
    row: Row,
    /// Of the process of the line in `row`: see [`cells::owner`].
    marks: usize,
    headings: Headings,
}

/// Which lines will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headings {
    /// Of `trace`.
    Transitions,
    /// Of `conns`.
    Connections,
}

/// Columns of a line, from left to right, each with its width.
struct Plan {
    time: Column,
    process: Column,
    local: Column,
    remote: Column,
    rest: [Column; 6],
    decimals: usize,
    wide: bool,
}

impl<W: Write> Text<W> {
    /// Nothing is written before the first line.
    pub fn new(out: Output<W>, look: Look, headings: Headings) -> Self {
        let clock = Clock::new(look.time, look.zone.clone());
        Self { out, look, clock, row: Row::default(), marks: 0, headings }
    }

    /// What was written to, for tests.
    pub fn into_inner(self) -> W {
        self.out.into_inner()
    }

    /// Widths of the columns behind the ends: (width, right-aligned).
    fn plan(&self, rest: [(usize, bool); 6]) -> Plan {
        let width = self.look.width.unwrap_or(usize::MAX);
        let wide = width >= WIDE;
        let decimals = match self.look.width {
            Some(_) if wide => 3,
            Some(_) => 0,
            None => 6,
        };
        let mut at = 0;
        let mut column = |width: usize, right: bool| {
            let c = Column { at, width, right };
            // A column without a width has no blank before it, either.
            at += width + usize::from(width > 0);
            c
        };
        let time = column(self.clock.width(decimals), self.look.time == TimeMode::Delta);
        let process = column(if wide { 15 } else { 12 }, false);
        let local = column(if wide { 18 } else { 5 }, !wide);
        let mut remote = match (wide, self.headings) {
            (true, _) => column(20, false),
            (false, Headings::Transitions) => column(14, false),
            (false, Headings::Connections) => column(17, false),
        };
        if !wide {
            // It follows the port at once.
            remote.at -= 1;
            remote.width += 1;
        }
        Plan { time, process, local, remote, rest: rest.map(|(width, right)| column(width, right)), decimals, wide }
    }

    fn transition_plan(&self) -> Plan {
        self.plan([(21, false), (5, true), (0, false), (0, false), (0, false), (0, false)])
    }

    fn connection_plan(&self) -> Plan {
        let optional = if self.look.width.is_none_or(|w| w >= WIDE) { 5 } else { 0 };
        self.plan([(5, true), (optional, true), (5, true), (5, true), (5, true), (optional.min(3), true)])
    }

    /// Time, process and ends.
    fn begin(&mut self, ts: u64, c: &Connection, plan: &Plan) {
        let Self { row, clock, marks, .. } = self;
        row.clear();
        row.cell(plan.time, Tone::Dim, |s| clock.write(s, ts, plan.decimals));
        let mut keep = 0;
        let mut name = String::new();
        row.cell(plan.process, Tone::Plain, |s| {
            (keep, *marks) = cells::owner(&mut name, c);
            s.push_str(&name);
        });
        row.cut(Cut::Before(keep), [plan.process.width.max(keep + 5), keep + 3]);
        row.cell(plan.local, Tone::Plain, |s| cells::local(s, c, plan.wide));
        if plan.wide {
            row.cut(Cut::Middle, [plan.local.width; 2]);
            row.cell(plan.remote, Tone::Plain, |s| cells::remote(s, c, true));
        } else {
            row.attach(Tone::Plain, |s| cells::remote(s, c, false));
        }
        row.cut(Cut::Middle, [plan.remote.width.max(22), 12]);
    }

    fn finish(&mut self, last: Column, tone: Tone, long: &str, short: &str) {
        let row = &mut self.row;
        row.cell(last, tone, |s| s.push_str(long));
        if let Some(width) = self.look.width {
            row.absorb(PROCESS, self.marks);
            if row.width() > width {
                row.replace_last(|s| s.push_str(short));
            }
            row.cut(Cut::End, [usize::MAX, 1]);
            row.fit(width);
        }
        row.write(&mut self.out.buffer, self.look.color);
        self.out.line();
    }

    fn header(&mut self) {
        let mut row = Row::default();
        let mut add = |column: Column, text: &str| {
            if column.width > 0 {
                row.cell(column, Tone::Bold, |s| s.push_str(text));
            }
        };
        let ends = |plan: &Plan| {
            if plan.wide {
                [(plan.local, "LOCAL"), (plan.remote, "→ REMOTE")]
            } else {
                [(plan.local, "PORT"), (plan.remote, "→REMOTE")]
            }
        };
        match self.headings {
            Headings::Transitions => {
                let plan = self.transition_plan();
                add(plan.time, "TIME");
                add(plan.process, "PROCESS");
                for (column, text) in ends(&plan) {
                    add(column, text);
                }
                add(plan.rest[0], "FROM→TO");
                add(plan.rest[1], "AFTER");
                add(Column { width: 3, ..plan.rest[2] }, "WHY");
            }
            Headings::Connections => {
                let plan = self.connection_plan();
                add(plan.time, "TIME");
                add(plan.process, "PROCESS");
                for (column, text) in ends(&plan) {
                    add(column, text);
                }
                for (column, text) in plan.rest.iter().zip(["FOR", "SHAKE", "RTT", "↑", "↓", "RTX"]) {
                    add(*column, text);
                }
                add(last_column(&plan), "END");
            }
        }
        if let Some(width) = self.look.width {
            row.fit(width);
        }
        row.write(&mut self.out.buffer, self.look.color);
        self.out.line();
    }
}

/// Behind all planned ones.
fn last_column(plan: &Plan) -> Column {
    let before = plan.rest.iter().rfind(|c| c.width > 0).unwrap_or(&plan.remote);
    Column { at: before.at + before.width + 1, width: 3, right: false }
}

impl<W: Write> Observer for Text<W> {
    fn transition(&mut self, c: &Connection, t: &Transition) {
        let plan = self.transition_plan();
        self.begin(t.ts, c, &plan);
        let mark = |bit| if t.inferred.0 & bit != 0 { "~" } else { "" };
        let bad = t.end.map(why::end_tone).filter(|&tone| tone == Tone::Bad);
        self.row.cell(plan.rest[0], Tone::Dim, |s| {
            s.push_str(t.from.name());
            s.push_str(mark(Inferred::FROM));
            s.push('→');
        });
        self.row.attach(bad.unwrap_or(why::state_tone(t.to)), |s| {
            s.push_str(t.to.name());
            s.push_str(mark(Inferred::TO));
        });
        self.row.cell(plan.rest[1], Tone::Plain, |s| {
            if let Some(ns) = t.state_ns {
                duration(s, ns);
            }
        });
        let words = why::transition(c, t);
        let mut long = String::from(words.long);
        why::by(&mut long, c, t.end);
        long.push_str(mark(Inferred::END));
        self.finish(plan.rest[2], bad.unwrap_or_default(), &long, words.short);
    }

    fn connection(&mut self, c: &Connection, f: &Final) {
        let plan = self.connection_plan();
        self.begin(f.ts, c, &plan);
        let counters = f.counters.as_ref();
        let payload = counters.map(|n| Payload::new(n, Shape::of(c)));
        let up = payload.map(|p| p.acked.unwrap_or(p.sent));
        let retrans = counters.map_or(0, |n| n.retrans);
        let row = &mut self.row;
        let [lasted, shake, round_trip, sent, received, again] = plan.rest;
        let mut time = |column: Column, tone, ns: Option<u64>| {
            row.cell(column, tone, |s| {
                if let Some(ns) = ns.filter(|_| column.width > 0) {
                    duration(s, ns);
                }
            });
        };
        time(lasted, Tone::Plain, f.lasted_ns(c));
        time(shake, Tone::Plain, f.handshake_ns);
        time(round_trip, Tone::Plain, f.srtt_us(c).map(|us| u64::from(us) * 1000));
        for (column, n) in [(sent, up), (received, payload.map(|p| p.received))] {
            row.cell(column, Tone::Plain, |s| {
                if let Some(n) = n {
                    bytes(s, n);
                }
            });
        }
        row.cell(again, Tone::Warn, |s| {
            if retrans > 0 && again.width > 0 {
                s.push_str(itoa::Buffer::new().format(retrans));
            }
        });
        let (mut long, mut short) = (String::new(), String::new());
        why::end(&mut long, c, f, plan.wide);
        why::end(&mut short, c, f, false);
        if c.inferred.0 & Inferred::END != 0 && f.end.is_some_and(|end| end != End::Open) {
            long.push('~');
            short.push('~');
        }
        self.finish(last_column(&plan), why::final_tone(c, f), &long, &short);
        if let Some(stack) = &f.stack {
            self.stack(stack);
        }
    }

    fn opened_at(&mut self, c: &Connection, ts: u64, stack: &Arc<Stack>) {
        let plan = self.transition_plan();
        self.begin(ts, c, &plan);
        self.row.cell(plan.rest[0], why::state_tone(c.state), |s| s.push_str(c.state.name()));
        let words = if c.role == Some(Role::Server) { "accepted at" } else { "opened at" };
        self.finish(plan.rest[2], Tone::Plain, words, words);
        self.stack(stack);
    }

    fn request(&mut self, r: &Request) {
        self.request_line(r);
    }

    fn time_wait(&mut self, r: &Remnant) {
        // A connection has one line, which is already there.
        if self.headings == Headings::Connections {
            return;
        }
        let mut c = Connection::of(r.id, r.tuple, r.owner.clone(), None);
        c.preexisting = r.preexisting;
        let plan = self.transition_plan();
        self.begin(r.ts, &c, &plan);
        self.row.cell(plan.rest[0], Tone::Dim, |s| {
            s.push_str(r.state.name());
            s.push('→');
        });
        self.row.attach(why::state_tone(State::Close), |s| s.push_str("CLOSE"));
        self.row.cell(plan.rest[1], Tone::Plain, |s| {
            if let Some(ns) = r.ns {
                duration(s, ns);
            }
        });
        let words = why::left(r.how);
        self.finish(plan.rest[2], Tone::Plain, words.long, words.short);
    }
}

impl<W: Write> Text<W> {
    /// A request's line: what happened, after how long, why, and how full the queue was that was too full.
    fn request_line(&mut self, r: &Request) {
        let mut c = Connection::of(r.id, r.tuple, r.owner.clone(), Some(Role::Server));
        c.preexisting = r.preexisting;
        let (what, words, tone) = why::request(r);
        let mut long = String::from(words.long);
        let full = match r.outcome {
            Some(Outcome::SynQueueFull) => r.syn_queue.map(|(len, _)| len),
            Some(Outcome::AcceptQueueFullSyn | Outcome::AcceptQueueFullAck) => r.accept_queue,
            _ => None,
        };
        if let Some((len, limit)) = full.zip(r.limit) {
            let queue = long.strip_suffix(" full").unwrap_or(&long).to_owned();
            long = format!("{queue} {len}/{limit}");
        } else if r.outcome == Some(Outcome::SynAckTimeout) {
            long = format!("no ACK to {} SYN+ACKs", r.synack_retrans + 1);
        }
        match self.headings {
            Headings::Transitions => {
                let plan = self.transition_plan();
                self.begin(r.ts, &c, &plan);
                self.row.cell(plan.rest[0], tone, |s| s.push_str(what));
                self.row.cell(plan.rest[1], Tone::Plain, |s| {
                    if let Some(ns) = r.age_ns {
                        duration(s, ns);
                    }
                });
                self.finish(plan.rest[2], if tone == Tone::Bad { tone } else { Tone::Plain }, &long, words.short);
            }
            Headings::Connections => {
                let plan = self.connection_plan();
                self.begin(r.ts, &c, &plan);
                self.row.cell(plan.rest[0], Tone::Plain, |s| {
                    if let Some(ns) = r.age_ns {
                        duration(s, ns);
                    }
                });
                let long = if plan.wide { format!("{what}: {long}") } else { words.short.to_owned() };
                self.finish(last_column(&plan), tone, &long, words.short);
            }
        }
    }
}

impl<W: Write> Sink for Text<W> {
    fn clock(&mut self, offset_ns: i64) {
        self.clock.set_offset(offset_ns);
    }

    fn start(&mut self, _: u64, _: &fact::Start, _: &[(String, String)]) {
        if self.look.header {
            self.header();
        }
    }

    /// On stderr only.
    fn loss(&mut self, _: u64, _: &fact::Loss) {}

    fn ladder(&mut self, ladder: &Ladder) {
        self.draw(ladder);
    }

    /// On stderr only.
    fn summary(&mut self, _: u64, _: &Summary) {}

    fn flush(&mut self, last: bool) -> Result<()> {
        self.look.follow_terminal();
        self.out.flush(last)
    }
}
