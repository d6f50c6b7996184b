//! A report as text: sections of facts, tables and bars, as wide as the terminal.

use super::{
    Look, Output,
    block::Block as Lines,
    ladder, outside,
    row::{Column, Cut, Tone},
};
use crate::{
    report::Report,
    sink::{
        output::Reader,
        page::{self, Bar, Block, Head, Span, Table},
    },
    wrap::wrap,
};

/// Blanks before what a section says.
const INDENT: usize = 2;
/// A first column that gives way keeps so many columns.
const NARROWEST: usize = 12;
/// Columns of a bar, at most.
const BAR: usize = 40;

/// The page.
#[must_use]
pub fn report(report: &Report, look: Look) -> Vec<u8> {
    let ascii = look.ascii;
    let sections = page::Page { report, look: &look }.sections();
    let mut lines = Lines::new(Output::new(Vec::new(), Reader::File), look, false);
    let title = outside(report.file.as_bytes());
    lines.words(0, &[(title, Tone::Bold)]);
    for (i, section) in sections.iter().enumerate() {
        // The file's name is the heading of the first.
        if i > 0 {
            lines.line();
            lines.words(0, &[(section.title.to_uppercase(), Tone::Bold)]);
        }
        for block in &section.blocks {
            match block {
                Block::Facts(facts) => write_facts(&mut lines, facts),
                Block::Table(table) => write_table(&mut lines, table),
                Block::Bars(bars) => write_bars(&mut lines, bars),
                Block::Wrong(sentence, next) => write_wrong(&mut lines, sentence, next),
                Block::Note(text) => write_text(&mut lines, INDENT, Tone::Dim, text),
            }
        }
    }
    lines.paint();
    let bytes = lines.into_bytes();
    if ascii { ladder::ascii(&String::from_utf8_lossy(&bytes)).into_bytes() } else { bytes }
}

type Page = Lines<Vec<u8>>;

fn cell(lines: &mut Page, at: usize, tone: Tone, text: &str) {
    lines.row.cell(Column { at, width: text.chars().count(), right: false }, tone, |s| s.push_str(text));
}

fn write_text(lines: &mut Page, at: usize, tone: Tone, text: &str) {
    for line in wrap(text, lines.width().saturating_sub(at).max(1)) {
        cell(lines, at, tone, &line);
        lines.line();
    }
}

/// Names in a column, what belongs to each behind it, as many lines as it takes.
fn write_facts(lines: &mut Page, facts: &[(&'static str, Vec<Span>)]) {
    let names = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let width = lines.width();
    // In few columns what belongs to a name stands below it.
    let at = if width < 50 { 2 * INDENT } else { INDENT + names + 2 };
    for (name, spans) in facts {
        cell(lines, INDENT, Tone::Dim, name);
        let mut used = if width < 50 {
            lines.line();
            None
        } else {
            Some(at)
        };
        for (text, tone) in spans {
            for (i, part) in wrap(text, width.saturating_sub(at).max(1)).iter().enumerate() {
                let chars = part.chars().count();
                let from = match used {
                    Some(from) if from == at => at,
                    Some(from) if i == 0 && from + 2 + chars <= width => from + 2,
                    Some(_) => {
                        lines.line();
                        at
                    }
                    None => at,
                };
                cell(lines, from, *tone, part);
                used = Some(from + chars);
            }
        }
        lines.line();
    }
}

fn write_table(lines: &mut Page, table: &Table) {
    let chars = |text: &str| text.chars().count();
    let width = lines.width().saturating_sub(INDENT);
    let mut shown: Vec<usize> = (0..table.columns.len()).collect();
    let mut widths: Vec<usize> = table
        .columns
        .iter()
        .enumerate()
        .map(|(i, head)| table.rows.iter().map(|row| chars(&row[i].0)).fold(chars(head.name), usize::max))
        .collect();
    let needed = |shown: &[usize], widths: &[usize]| shown.iter().map(|&i| widths[i] + 1).sum::<usize>() - 1;
    // First columns go, then the first one gives way, then lines end early.
    while needed(&shown, &widths) > width
        && let Some(spare) = shown.iter().map(|&i| table.columns[i].spare).max().filter(|&spare| spare > 0)
    {
        shown.retain(|&i| table.columns[i].spare != spare);
    }
    let over = needed(&shown, &widths).saturating_sub(width);
    widths[0] = widths[0].saturating_sub(over).max(NARROWEST.min(widths[0]));
    let mut at = INDENT;
    let mut columns = Vec::new();
    for &i in &shown {
        let Head { right, .. } = table.columns[i];
        columns.push((i, Column { at, width: widths[i], right }));
        at += widths[i] + 1;
    }
    for &(i, column) in &columns {
        lines.row.cell(column, Tone::Bold, |s| s.push_str(table.columns[i].name));
    }
    lines.line();
    for row in &table.rows {
        for &(i, column) in &columns {
            let (text, tone) = &row[i];
            lines.row.cell(column, *tone, |s| s.push_str(text));
            if i == 0 {
                lines.row.cut(Cut::Middle, [column.width; 2]);
                lines.row.shorten_last(column.width);
            }
        }
        lines.line();
    }
}

fn write_bars(lines: &mut Page, bars: &[Bar]) {
    let names = bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or(0);
    let counts = bars.iter().map(|bar| bar.count.to_string().len()).max().unwrap_or(0);
    let count = Column { at: INDENT + names + 1, width: counts, right: true };
    let share = Column { at: count.at + counts + 1, width: 7, right: true };
    let at = share.at + share.width + 1;
    let room = lines.width().saturating_sub(at).min(BAR) as u64;
    for bar in bars {
        cell(lines, INDENT, bar.tone, &bar.name);
        lines.row.cell(count, Tone::Plain, |s| s.push_str(&bar.count.to_string()));
        lines.row.cell(share, Tone::Plain, |s| s.push_str(&bar.share()));
        // Never nothing, where there is something.
        let blocks = (bar.count * room).div_ceil(bar.of.max(1));
        cell(lines, at, bar.tone, &"█".repeat(blocks as usize));
        lines.line();
    }
}

fn write_wrong(lines: &mut Page, sentence: &str, next: &str) {
    let width = lines.width().saturating_sub(2 * INDENT).max(1);
    for (i, line) in wrap(sentence, width).iter().enumerate() {
        if i == 0 {
            cell(lines, INDENT, Tone::Bad, "!");
        }
        cell(lines, 2 * INDENT, Tone::Plain, line);
        lines.line();
    }
    write_text(lines, 2 * INDENT, Tone::Dim, next);
}
