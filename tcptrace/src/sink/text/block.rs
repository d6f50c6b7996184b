//! A table that is painted again and again: over itself on a terminal, one behind the other elsewhere.

use std::io::Write;

use super::{
    Look, Output,
    format::Clock,
    row::{Column, Row, Tone},
};
use crate::error::Result;

/// Lines of the block that is being made, and what became of the last one.
#[derive(Debug)]
pub struct Block<W> {
    out: Output<W>,
    pub look: Look,
    pub clock: Clock,
    /// The line that is being made.
    pub row: Row,
    /// Paint over the last block.
    repaint: bool,
    /// Lines of the last block.
    painted: usize,
    lines: Vec<Vec<u8>>,
}

impl<W: Write> Block<W> {
    /// `repaint`: the output is a terminal that shows the last block only.
    pub fn new(out: Output<W>, look: Look, repaint: bool) -> Self {
        let clock = Clock::new(look.time, look.zone.clone());
        Self { out, look, clock, row: Row::default(), repaint, painted: 0, lines: Vec::new() }
    }

    /// What was written to, for tests.
    pub fn into_inner(self) -> W {
        self.out.into_inner()
    }

    /// Everything that was painted, in memory.
    pub fn into_bytes(mut self) -> W {
        // A writer that is memory takes everything.
        let _ = self.out.flush(true);
        self.out.into_inner()
    }

    /// Is a block shown only until the next one comes?
    pub fn repaints(&self) -> bool {
        self.repaint
    }

    /// Columns that a line may have.
    pub fn width(&self) -> usize {
        self.look.width.unwrap_or(usize::MAX)
    }

    /// The row that was built becomes a line of the block.
    pub fn line(&mut self) {
        if let Some(width) = self.look.width {
            self.row.fit(width);
        }
        let mut line = Vec::new();
        self.row.write(&mut line, self.look.color);
        self.lines.push(line);
        self.row.clear();
    }

    /// Lines of words, two blanks between them.
    pub fn words(&mut self, indent: usize, parts: &[(String, Tone)]) {
        if parts.is_empty() {
            return;
        }
        let mut used = usize::MAX;
        for (text, tone) in parts {
            let chars = text.chars().count();
            if used != usize::MAX && used + 2 + chars > self.width() {
                self.line();
                used = usize::MAX;
            }
            let at = if used == usize::MAX { indent } else { used + 2 };
            self.row.cell(Column { at, width: 0, right: false }, *tone, |s| s.push_str(text));
            used = at + chars;
        }
        self.line();
    }

    /// Lines that a terminal has room for.
    pub fn room(&self) -> usize {
        let height = if self.repaint { terminal_height() } else { None };
        height.map_or(usize::MAX, |height| height.saturating_sub(2).max(3))
    }

    /// Lines so far.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Take back what was added since there were so many lines.
    pub fn truncate(&mut self, len: usize) {
        self.lines.truncate(len);
    }

    /// Write the block, as much of it as there is room for.
    pub fn paint(&mut self) {
        let left_out = self.lines.len().saturating_sub(self.room());
        self.paint_less((left_out > 0).then(|| format!("… {left_out} more lines")));
    }

    /// The same where `rest` says what the lines that there is room for leave out.
    pub fn paint_less(&mut self, rest: Option<String>) {
        if let Some(rest) = rest {
            self.lines.truncate(self.room());
            self.lines.push((rest + "\n").into_bytes());
        }
        if self.repaint && self.painted > 0 {
            write!(self.out.buffer, "\x1b[{}A\x1b[J", self.painted).expect("a Vec takes everything");
        } else if self.painted > 0 {
            self.out.buffer.push(b'\n');
        }
        for line in &self.lines {
            self.out.buffer.extend_from_slice(line);
        }
        self.painted = self.lines.len();
        self.lines.clear();
        self.out.line();
    }

    /// See [`Output::flush`].
    ///
    /// # Errors
    /// A write failed.
    pub fn flush(&mut self, last: bool) -> Result<()> {
        self.look.follow_terminal();
        self.out.flush(last)
    }
}

/// Rows of the terminal on stdout.
fn terminal_height() -> Option<usize> {
    let rows = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?.ws_row;
    (rows > 0).then_some(usize::from(rows))
}
