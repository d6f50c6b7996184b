//! What a recording comes to, as sections of facts, tables and bars, for whoever writes text or HTML. Text from outside is made safe for
//! a terminal here; HTML has more to do.

pub mod ends;
mod head;
pub mod lists;

use std::fmt::Write as _;

use super::text::{Clock, Look, Tone, bytes, cells, duration, outside, sentence};
use crate::{
    model::{Connection, Process},
    report::{Moment, Report},
};

/// A part of the page.
#[derive(Debug)]
pub struct Section {
    /// Its place in the page.
    pub id: &'static str,
    /// Heading.
    pub title: &'static str,
    /// What it says.
    pub blocks: Vec<Block>,
}

/// A part of a section.
#[derive(Debug)]
pub enum Block {
    /// Names and what belongs to them.
    Facts(Vec<(&'static str, Vec<Span>)>),
    /// A table.
    Table(Table),
    /// How much of a whole each is.
    Bars(Vec<Bar>),
    /// What looks wrong: a sentence, and the command to read on with.
    Wrong(String, String),
    /// A remark.
    Note(String),
}

/// Words of one tone.
pub type Span = (String, Tone);

/// See [`Block::Bars`].
#[derive(Debug)]
pub struct Bar {
    /// What.
    pub name: String,
    /// Its class in HTML.
    pub class: &'static str,
    /// Its colour in text.
    pub tone: Tone,
    /// How many.
    pub count: u64,
    /// Of so many.
    pub of: u64,
}

impl Bar {
    /// `12.3 %`
    pub fn share(&self) -> String {
        percent(self.count, self.of)
    }
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Short, in capitals.
    pub name: &'static str,
    /// What it means.
    pub title: &'static str,
    /// Aligned to the right.
    pub right: bool,
    /// Where there is no room, those with the highest number go first; 0: never.
    pub spare: u8,
}

/// See [`Block::Table`].
#[derive(Debug)]
pub struct Table {
    /// Columns; the first is shortened where there is no room.
    pub columns: Vec<Head>,
    /// Cells, one for each column.
    pub rows: Vec<Vec<Span>>,
}

const fn left(name: &'static str, title: &'static str, spare: u8) -> Head {
    Head { name, title, right: false, spare }
}

const fn right(name: &'static str, title: &'static str, spare: u8) -> Head {
    Head { name, title, right: true, spare }
}

/// Makes sections of a report.
pub struct Page<'a> {
    pub report: &'a Report,
    pub look: &'a Look,
}

impl<'a> Page<'a> {
    /// All sections, in order.
    pub fn sections(&self) -> Vec<Section> {
        let sections = [
            self.recording(),
            self.totals(),
            self.findings(),
            self.wrong(),
            self.listeners(),
            self.peers(),
            self.processes(),
            self.notable(
                "slowest",
                "Slowest handshakes",
                "SHAKE",
                "from the first SYN to ESTABLISHED",
                &self.report.slowest_handshakes,
            ),
            self.notable(
                "waits",
                "Longest accept waits",
                "WAIT",
                "between the accept queue and accept()",
                &self.report.longest_waits,
            ),
            self.notable(
                "longest",
                "Longest-lived connections",
                "FOR",
                "how long it lasted, or was seen",
                &self.report.longest_lived,
            ),
            self.notable(
                "retransmitted",
                "Most retransmitted",
                "RTX",
                "segments sent again",
                &self.report.most_retransmitted,
            ),
            self.ends(),
            self.times(),
            self.loss(),
        ];
        sections.into()
    }

    /// `2026-11-21 12:03:04 +00:00`, or seconds since boot.
    pub fn date(&self, at: Moment) -> String {
        self.dated(at, "%Y-%m-%d %H:%M:%S %:z")
    }

    /// The same without the date, as the lists have it.
    pub fn time(&self, at: Moment, decimals: usize) -> String {
        let mut clock = Clock::new(self.look.time, self.look.zone.clone());
        if let Some(offset) = at.offset {
            clock.set_offset(offset);
        }
        let mut text = String::new();
        clock.write(&mut text, at.mono, decimals);
        text
    }

    /// Digits behind the second that there is room for.
    fn decimals(&self) -> usize {
        if self.look.width.is_some_and(|width| width < 100) { 0 } else { 3 }
    }

    fn dated(&self, at: Moment, format: &str) -> String {
        let wall = at.offset.filter(|_| self.look.time != super::text::TimeMode::Mono);
        let stamp = wall.and_then(|_| jiff::Timestamp::from_nanosecond(at.wall().into()).ok());
        match stamp {
            Some(stamp) => stamp.to_zoned(self.look.zone.clone()).strftime(format).to_string(),
            None => format!("{}.{:03} s after boot", at.mono / 1_000_000_000, at.mono / 1_000_000 % 1000),
        }
    }
}

pub fn plain(text: impl Into<String>) -> Span {
    (text.into(), Tone::Plain)
}

/// A duration, or `-`.
fn time_cell(us: Option<u64>) -> Span {
    let mut text = String::new();
    match us {
        Some(us) => duration(&mut text, us * 1000),
        None => text.push('-'),
    }
    plain(text)
}

fn size(n: u64) -> String {
    let mut text = String::new();
    bytes(&mut text, n);
    text
}

/// A count; 0 is dim.
fn number(n: u64) -> Span {
    (n.to_string(), if n == 0 { Tone::Dim } else { Tone::Plain })
}

/// A count of what is no good.
fn bad(n: u64) -> Span {
    (n.to_string(), if n == 0 { Tone::Dim } else { Tone::Bad })
}

/// `nginx[80]`, or `-`.
fn process(owner: Option<&Process>) -> String {
    let mut text = String::new();
    match owner {
        Some(owner) => cells::process(&mut text, owner),
        None => text.push('-'),
    }
    text
}

/// `*curl[1234]~`
fn owner(c: &Connection) -> String {
    let mut text = String::new();
    cells::owner(&mut text, c);
    text
}

/// `10.0.0.1:4000 → 10.0.0.2:80`
fn ends(c: &Connection) -> String {
    let mut text = String::new();
    cells::local(&mut text, c, true);
    text.push(' ');
    cells::remote(&mut text, c, true);
    text
}

/// `12.3 %`, with as many digits as say something; `<0.01 %`.
fn percent(n: u64, of: u64) -> String {
    let hundredths = (u128::from(n) * 10_000 / u128::from(of.max(1))) as u64;
    let mut text = String::new();
    match hundredths {
        0 if n > 0 => text.push_str("<0.01"),
        0 => text.push('0'),
        1..1000 => write!(text, "{}.{:02}", hundredths / 100, hundredths % 100).expect("a String takes everything"),
        _ => write!(text, "{}.{}", hundredths / 100, hundredths / 10 % 10).expect("a String takes everything"),
    }
    text.push_str(" %");
    text
}
