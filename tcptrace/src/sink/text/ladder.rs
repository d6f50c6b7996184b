//! `conns --ladder`: the handshake and the teardown as arrows between two ends, their states and times beside them.
//!
//! Below [`DRAWN`] columns the same is a list. Lines are composed in Unicode and translated where the terminal has none.

use std::{fmt::Write as _, io::Write};

use tcptrace_common::record::option;

use super::{
    Text, bytes, cells, duration,
    row::{Column, Cut, Row, Tone},
    stack, why,
};
use crate::model::{
    Connection, End, Inferred, Payload, Shape,
    ladder::{Beside, Direction, Ladder, Note, Part, Segment, Step, Torn},
};

/// From this width on it is a drawing.
const DRAWN: usize = 72;
/// Without a terminal.
const PIPE: usize = 80;
/// Longer arrows say no more.
const WIDEST: usize = 120;

const TIME: Column = Column { at: 0, width: 6, right: true };
const LEFT: Column = Column { at: 7, width: 12, right: false };
/// Where arrows begin.
const ARROW: usize = 20;
/// Where the list's second lines begin.
const INDENT: usize = 7;

impl<W: Write> Text<W> {
    /// A ladder and an empty line.
    pub(super) fn draw(&mut self, l: &Ladder) {
        let width = self.look.width.unwrap_or(PIPE).min(WIDEST);
        let mut out = std::mem::take(&mut self.out.buffer);
        let start = out.len();
        let mut lines = Lines { out: &mut out, width, color: self.look.color };
        let mut time = String::new();
        self.clock.write(&mut time, l.left.connection.start_ns, 3);
        lines.head(l, &time);
        let sides = [Some(&l.left), l.right.as_ref()];
        for stack in sides.into_iter().flatten().filter_map(|side| side.last.stack.as_ref()) {
            lines.out.extend_from_slice(stack::lines(stack, self.look.width, self.look.ascii).as_bytes());
        }
        let layout = Layout::new(width, l);
        let handshake = l.handshake();
        for (i, step) in l.steps.iter().enumerate() {
            if handshake == Some(i) {
                lines.data(l, &layout);
            }
            lines.torn(step.torn, &layout);
            let last = i + 1 == l.steps.len();
            if layout.drawn {
                lines.step(l, step, &layout, last);
            } else {
                lines.item(l, step, &layout, last);
            }
        }
        lines.out.push(b'\n');
        if self.look.ascii {
            let plain = ascii(&String::from_utf8_lossy(&out[start..]));
            out.truncate(start);
            out.extend_from_slice(plain.as_bytes());
        }
        self.out.buffer = out;
        self.out.line();
    }
}

/// Where things are.
struct Layout {
    drawn: bool,
    /// Columns of an arrow.
    arrow: usize,
    right: Column,
    /// Of the end at the right.
    time: Column,
    /// The first moment that is known, nanoseconds.
    base: u64,
}

impl Layout {
    fn new(width: usize, l: &Ladder) -> Self {
        // What is concluded has a mark, but then the other end has no times.
        let (state, time) = if l.right.is_some() { (12, 7) } else { (13, 0) };
        let arrow = width.saturating_sub(ARROW + 1 + state + time);
        let right = Column { at: ARROW + arrow + 1, width: state, right: false };
        let time = Column { at: right.at + state + 1, width: TIME.width, right: true };
        let base = l.steps.iter().flat_map(|s| s.times).flatten().min().unwrap_or(0);
        Self { drawn: width >= DRAWN, arrow, right, time, base }
    }

    fn time(&self, at: Option<u64>) -> String {
        let mut text = String::new();
        if let Some(at) = at {
            text.push('+');
            duration(&mut text, at.saturating_sub(self.base));
        }
        text
    }
}

/// Appends lines that fit.
struct Lines<'a> {
    out: &'a mut Vec<u8>,
    width: usize,
    color: bool,
}

impl Lines<'_> {
    fn row(&mut self, row: &mut Row) {
        row.fit(self.width);
        row.write(self.out, self.color);
    }

    /// One cell from column `at` on.
    fn text(&mut self, at: usize, tone: Tone, text: &str) {
        let mut row = Row::default();
        row.cell(Column { at, width: text.chars().count(), right: false }, tone, |s| s.push_str(text));
        row.cut(Cut::End, [1; 2]);
        self.row(&mut row);
    }

    /// Words, as many to a line as fit.
    fn words(&mut self, at: usize, words: &[String]) {
        let mut line = String::new();
        for word in words {
            if !line.is_empty() && at + line.chars().count() + 2 + word.chars().count() > self.width {
                line.push(',');
                self.text(at, Tone::Plain, &line);
                line.clear();
            }
            if !line.is_empty() {
                line.push_str(", ");
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            self.text(at, Tone::Plain, &line);
        }
    }

    /// In the middle of the arrows.
    fn middle(&mut self, tone: Tone, text: &str, layout: &Layout) {
        let chars = text.chars().count();
        let at = if layout.drawn { ARROW + layout.arrow.saturating_sub(chars) / 2 } else { INDENT };
        self.text(at, tone, text);
    }

    /// Who, where, how it ended, what was settled.
    fn head(&mut self, l: &Ladder, time: &str) {
        let (c, f) = (&l.left.connection, &l.left.last);
        let mut who = format!("{time} ");
        cells::owner(&mut who, c);
        if let Some(right) = &l.right {
            who.push_str(" → ");
            cells::owner(&mut who, &right.connection);
        }
        self.text(0, Tone::Bold, &who);
        let (mut left, mut right) = (String::new(), String::new());
        cells::endpoint(&mut left, c.tuple.family, &c.tuple.laddr, c.tuple.lport);
        cells::endpoint(&mut right, c.tuple.family, &c.tuple.raddr, c.tuple.rport);
        let (a, b) = (left.chars().count(), right.chars().count());
        let indent = if self.width < DRAWN { 0 } else { LEFT.at };
        if indent + a + b + 2 <= self.width {
            let mut row = Row::default();
            row.cell(Column { at: indent, width: a, right: false }, Tone::Plain, |s| s.push_str(&left));
            row.cell(Column { at: self.width - b, width: b, right: false }, Tone::Plain, |s| s.push_str(&right));
            self.row(&mut row);
        } else {
            self.text(indent, Tone::Plain, &left);
            self.text(self.width.saturating_sub(b), Tone::Plain, &right);
        }
        let mut end = String::new();
        why::end(&mut end, c, f, true);
        if c.inferred.0 & Inferred::END != 0 && f.end.is_some_and(|end| end != End::Open) {
            end.push('~');
        }
        if !c.preexisting && !f.late {
            end.push_str(" after ");
            duration(&mut end, f.ts.saturating_sub(c.start_ns));
        }
        self.text(indent, why::final_tone(c, f), &end);
        self.words(indent, &settled(c, f.counters.as_ref().map_or(0, |n| n.options)));
        let gaps = c.gaps + l.right.as_ref().map_or(0, |r| r.connection.gaps);
        if gaps > 0 {
            let s = if gaps == 1 { "" } else { "s" };
            self.text(indent, Tone::Warn, &format!("{gaps} record{s} lost: not all of it is here"));
        }
        if l.forgotten > 0 {
            self.text(indent, Tone::Warn, &format!("{} more sent again than are drawn", l.forgotten));
        }
    }

    /// What flowed between handshake and teardown.
    fn data(&mut self, l: &Ladder, layout: &Layout) {
        let Some(n) = l.left.last.counters else { return };
        let p = Payload::new(&n, Shape::of(&l.left.connection));
        let mut text = String::from("→ ");
        bytes(&mut text, p.acked.unwrap_or(p.sent));
        text.push_str("   ← ");
        bytes(&mut text, p.received);
        let sides = [Some(&l.left), l.right.as_ref()];
        let again: u32 = sides.iter().flatten().filter_map(|s| s.last.counters).map(|n| n.retrans).sum();
        let drawn: u32 = l.steps.iter().filter_map(|s| s.segment).map(|s| drawn_again(&s)).sum();
        let data = again.saturating_sub(drawn).saturating_sub(l.forgotten);
        if data > 0 {
            write!(text, "   {data} sent again").expect("a String takes everything");
        }
        self.middle(Tone::Plain, &text, layout);
    }

    fn torn(&mut self, torn: Option<Torn>, layout: &Layout) {
        match torn {
            Some(Torn::Preexisting) => self.middle(Tone::Dim, "was there before the trace", layout),
            Some(Torn::Lost) => self.middle(Tone::Warn, "records lost here", layout),
            None => {}
        }
    }

    fn step(&mut self, l: &Ladder, step: &Step, layout: &Layout, last: bool) {
        let mut row = Row::default();
        row.cell(TIME, Tone::Dim, |s| s.push_str(&layout.time(step.times[0])));
        state(&mut row, LEFT, step.states[0]);
        let middle = Column { at: ARROW, width: layout.arrow, right: false };
        match &step.segment {
            Some(segment) => {
                let text = arrow(segment, &labels(segment, l), layout.arrow);
                row.cell(middle, tone(segment), |s| s.push_str(&text));
            }
            None => {
                let text = if last { reason(l) } else { String::new() };
                let at = ARROW + layout.arrow.saturating_sub(text.chars().count()) / 2;
                row.cell(Column { at, ..middle }, why::final_tone(&l.left.connection, &l.left.last), |s| {
                    s.push_str(&text);
                });
            }
        }
        state(&mut row, layout.right, step.states[1]);
        row.cell(layout.time, Tone::Dim, |s| s.push_str(&layout.time(step.times[1])));
        self.row(&mut row);
    }

    /// The same where there is no room for arrows.
    fn item(&mut self, l: &Ladder, step: &Step, layout: &Layout, last: bool) {
        let mut row = Row::default();
        row.cell(TIME, Tone::Dim, |s| s.push_str(&layout.time(step.times[0].or(step.times[1]))));
        let rest = Column { at: INDENT, width: 0, right: false };
        let mut below = None;
        match &step.segment {
            Some(segment) => {
                let labels = labels(segment, l);
                let way = match (segment.direction, segment.dashed) {
                    (Direction::Out, false) => "─→ ",
                    (Direction::Out, true) => "┄→ ",
                    (Direction::In, false) => "←─ ",
                    (Direction::In, true) => "←┄ ",
                };
                let fits = |label: &&String| INDENT + 3 + label.chars().count() <= self.width;
                let raw = &labels[1];
                let text = labels.iter().take(2).find(fits).unwrap_or_else(|| {
                    below = Some(numbers(segment));
                    labels.last().unwrap_or(raw)
                });
                row.cell(rest, tone(segment), |s| write!(s, "{way}{text}").expect("a String takes everything"));
            }
            None if last => {
                let tone = why::final_tone(&l.left.connection, &l.left.last);
                row.cell(rest, tone, |s| s.push_str(&reason(l)));
            }
            None => {}
        }
        // A state without a time has only the line below.
        if row.width() > 0 {
            self.row(&mut row);
        }
        if let Some(text) = below.filter(|text| !text.is_empty()) {
            self.text(INDENT, Tone::Plain, &text);
        }
        if step.states != [None; 2] {
            let [left, right] = step.states.map(|b| b.map(name).unwrap_or_default());
            let between = if left.is_empty() || right.is_empty() { "" } else { " " };
            let bar = if right.is_empty() { "" } else { "| " };
            self.text(INDENT, Tone::Plain, &format!("{left}{between}{bar}{right}"));
        }
    }
}

/// How many segments that were sent again it stands for.
fn drawn_again(s: &Segment) -> u32 {
    match s.note {
        _ if s.again => 1,
        Some(Note::SentAgain(n)) => n,
        Some(Note::Behind(_) | Note::Cookie | Note::FastOpen) | None => 0,
    }
}

/// The options that the handshake settled.
pub fn settled(c: &Connection, later: u16) -> Vec<String> {
    let Some(h) = &c.handshake else { return Vec::new() };
    let options = h.options | later;
    let mut words = Vec::new();
    if h.snd_mss > 0 {
        words.push(format!("MSS {}", h.snd_mss));
    }
    if h.adv_mss > 0 {
        words.push(format!("advertised {}", h.adv_mss));
    }
    if h.options & option::WSCALE != 0 {
        words.push(format!("window scale → {} ← {}", h.wscale_rcv, h.wscale_snd));
    }
    for (bit, name) in [
        (option::SACK, "SACK"),
        (option::TIMESTAMPS, "timestamps"),
        (option::ECN, "ECN"),
        (option::TFO, "Fast Open"),
        (option::SYNCOOKIE, "SYN cookie"),
    ] {
        if options & bit != 0 {
            words.push(name.to_owned());
        }
    }
    words
}

/// Why it is over, where no segment tells.
pub fn reason(l: &Ladder) -> String {
    let end = l.left.last.end.map_or("end not seen", |end| why::ended(end).long);
    format!("({end})")
}

pub fn name(b: Beside) -> String {
    format!("{}{}", b.state.name(), if b.concluded { "~" } else { "" })
}

fn state(row: &mut Row, column: Column, beside: Option<Beside>) {
    let tone = beside.filter(|b| !b.concluded).map_or(Tone::Dim, |b| why::state_tone(b.state));
    row.cell(column, tone, |s| s.push_str(&beside.map(name).unwrap_or_default()));
}

fn tone(s: &Segment) -> Tone {
    match s.part {
        Part::Rst => Tone::Bad,
        _ if s.again => Tone::Warn,
        _ if s.dashed => Tone::Dim,
        Part::Syn | Part::SynAck | Part::Ack => Tone::Opening,
        Part::Fin | Part::FinAck | Part::AckOfFin | Part::DataOrFin => Tone::Warn,
    }
}

/// What stands on the arrow, the longest first: all, without relative numbers, without the ACK's number, without any.
pub fn labels(s: &Segment, l: &Ladder) -> [String; 4] {
    let mut name = String::from(match s.part {
        Part::Syn => "SYN",
        Part::SynAck => "SYN+ACK",
        Part::Ack | Part::AckOfFin => "ACK",
        Part::Fin => "FIN",
        Part::FinAck => "FIN+ACK",
        Part::Rst => "RST",
        Part::DataOrFin => "data or FIN",
    });
    if s.again {
        name.push_str(" again");
    }
    match s.note {
        Some(Note::Behind(n)) => {
            name.push_str(" behind ");
            bytes(&mut name, n.into());
        }
        Some(Note::SentAgain(n)) => write!(name, " ×{}", n + 1).expect("a String takes everything"),
        Some(Note::Cookie) => name.push_str(" cookie"),
        Some(Note::FastOpen) => name.push_str(" with data"),
        None => {}
    }
    let c = &l.left.connection;
    let (own, peer) = (c.isn_local(), c.handshake.map(|h| h.isn_remote));
    let (from, to) = match s.direction {
        Direction::Out => (own, peer),
        Direction::In => (peer, own),
    };
    let with = |number: &str, n: Option<u32>, isn: Option<u32>| match (n, isn) {
        (Some(n), Some(isn)) => format!(" {number}={n} ({})", n.wrapping_sub(isn)),
        (Some(n), None) => format!(" {number}={n}"),
        (None, _) => String::new(),
    };
    [
        format!("{name}{}{}", with("seq", s.seq, from), with("ack", s.ack, to)),
        format!("{name}{}{}", with("seq", s.seq, None), with("ack", s.ack, None)),
        format!("{name}{}", with("seq", s.seq, None)),
        name,
    ]
}

/// Its numbers alone.
fn numbers(s: &Segment) -> String {
    let mut text = String::new();
    for (name, n) in [("seq", s.seq), ("ack", s.ack)] {
        if let Some(n) = n {
            write!(text, "{}{name}={n}", if text.is_empty() { "" } else { " " }).expect("a String takes everything");
        }
    }
    text
}

/// An arrow of so many columns with the longest label that fits.
fn arrow(s: &Segment, labels: &[String; 4], columns: usize) -> String {
    // A piece of line and the head.
    let room = columns.saturating_sub(2);
    let fits = |label: &&String| label.chars().count() <= room;
    let label = labels.iter().find(fits).unwrap_or(&labels[3]);
    let chars = label.chars().count();
    let blanks = if chars + 2 <= room { " " } else { "" };
    let rest = columns.saturating_sub(1 + chars + 2 * blanks.len());
    let line = if s.dashed { "┄" } else { "─" };
    let (before, after) = (line.repeat(rest / 2), line.repeat(rest - rest / 2));
    match s.direction {
        Direction::Out => format!("{before}{blanks}{label}{blanks}{after}→"),
        Direction::In => format!("←{after}{blanks}{label}{blanks}{before}"),
    }
}

/// For a terminal that has nothing else. As many columns as before.
pub fn ascii(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\0'..='\x7f' => c,
            '─' => '-',
            '┄' => '.',
            '→' => '>',
            '←' => '<',
            'µ' => 'u',
            '×' => 'x',
            '…' => '.',
            '█' => '#',
            '↔' => '-',
            '↑' => '^',
            '↓' => 'v',
            _ => '?',
        })
        .collect()
}
