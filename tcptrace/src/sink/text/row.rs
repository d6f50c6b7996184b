//! One line of aligned cells that fits the terminal.
//!
//! Every cell has a column where it would like to start. One that is too long pushes the next ones to the right, which then
//! catch up where they have room to spare. Only when the line as a whole is too long are cells shortened.

/// What a cell means, which decides its colour.
///
/// A colour says nothing that the words do not say, too. Of the terminal's own colours these can be read on dark and on light ground
/// (yellow and bright ones cannot on light, blue cannot on dark) and are told apart by people who see red and green as one: cyan and
/// magenta differ in how blue they are, and red, the darkest, is bold. What is as it should be has no colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// No colour.
    #[default]
    Plain,
    /// Times, and what is there for completeness.
    Dim,
    /// Headings.
    Bold,
    /// A connection on its way up.
    Opening,
    /// Established.
    Good,
    /// Closing.
    Warn,
    /// Reset, refused, timed out.
    Bad,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain | Self::Good => "",
            Self::Dim => "\x1b[2m",
            Self::Bold => "\x1b[1m",
            Self::Opening => "\x1b[36m",
            Self::Warn => "\x1b[35m",
            Self::Bad => "\x1b[1;31m",
        }
    }
}

const RESET: &str = "\x1b[0m";

/// How a cell is shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Not at all.
    Never,
    /// In the middle: addresses.
    Middle,
    /// Before its last `n` characters: a name before `[pid]`.
    Before(usize),
    /// At its end.
    End,
}

/// Where a cell goes.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Columns from the left.
    pub at: usize,
    /// Columns that it may fill before it pushes the next one.
    pub width: usize,
    /// Aligned to the right.
    pub right: bool,
}

#[derive(Clone, Debug)]
struct Cell {
    /// In `Row::text`.
    end: usize,
    chars: usize,
    column: Column,
    /// Blanks before it, at least.
    gap: usize,
    tone: Tone,
    cut: Cut,
    /// Not shortened below the first before every other cell was, nor below the second at all.
    least: [usize; 2],
}

/// Cells from left to right. Kept between lines for its memory.
#[derive(Clone, Debug, Default)]
pub struct Row {
    text: String,
    cells: Vec<Cell>,
    /// Cells start so many columns further left than they would like to.
    squeeze: usize,
    /// What is still longer is cut off there.
    limit: Option<usize>,
}

impl Row {
    /// Forget the cells.
    pub fn clear(&mut self) {
        self.text.clear();
        self.cells.clear();
        self.squeeze = 0;
        self.limit = None;
    }

    /// Add a cell whose text `f` appends.
    pub fn cell(&mut self, column: Column, tone: Tone, f: impl FnOnce(&mut String)) {
        let start = self.text.len();
        f(&mut self.text);
        let chars = self.text[start..].chars().count();
        let gap = usize::from(!self.cells.is_empty());
        self.cells.push(Cell { end: self.text.len(), chars, column, gap, tone, cut: Cut::Never, least: [0; 2] });
    }

    /// Add a cell that follows the last one at once, in another tone.
    pub fn attach(&mut self, tone: Tone, f: impl FnOnce(&mut String)) {
        self.cell(Column { at: 0, width: 0, right: false }, tone, f);
        if let Some(cell) = self.cells.last_mut() {
            cell.gap = 0;
        }
    }

    /// The last cell may be shortened so: to `least[0]` columns, and, if all cells together do not give enough, to `least[1]`.
    pub fn cut(&mut self, cut: Cut, least: [usize; 2]) {
        if let Some(cell) = self.cells.last_mut() {
            cell.cut = cut;
            cell.least = least;
        }
    }

    /// Shorten the last cell to so many columns.
    pub fn shorten_last(&mut self, to: usize) {
        if let Some(last) = self.cells.len().checked_sub(1) {
            self.shorten(last, to);
        }
    }

    /// Columns that the line takes.
    #[must_use]
    pub fn width(&self) -> usize {
        self.cells.iter().fold(0, |at, cell| cell.start(at, self.squeeze) + cell.chars)
    }

    /// Replace the last cell's text.
    pub fn replace_last(&mut self, f: impl FnOnce(&mut String)) {
        let start = self.cells.len().checked_sub(2).map_or(0, |i| self.cells[i].end);
        self.text.truncate(start);
        f(&mut self.text);
        let chars = self.text[start..].chars().count();
        if let Some(cell) = self.cells.last_mut() {
            cell.end = self.text.len();
            cell.chars = chars;
        }
    }

    /// If the cells behind cell `i` are out of place by `most` columns or less, it is shortened so that they are not.
    pub fn absorb(&mut self, i: usize, most: usize) {
        let (mut at, mut pushed) = (0, 0);
        for (number, cell) in self.cells.iter().enumerate() {
            let start = cell.start(at, self.squeeze);
            // What is attached has no place of its own.
            if number > i && cell.chars > 0 && cell.gap > 0 {
                pushed = pushed.max(start - cell.place(self.squeeze));
            }
            at = start + cell.chars;
        }
        if (1..=most).contains(&pushed) {
            let to = self.cells[i].chars - pushed;
            // One more column is for the ellipsis.
            if let Cut::Before(n) = self.cells[i].cut
                && to > n + 1
            {
                self.shorten(i, to);
            }
        }
    }

    /// Give up alignment until the line fits into `width` columns, as far as that helps; true if it fits now.
    pub fn squeeze(&mut self, width: usize) -> bool {
        // Blanks anywhere left of the cell that sticks out can go: at most all of them.
        while self.width() > width && self.squeeze < width {
            self.squeeze += 1;
        }
        self.width() <= width
    }

    /// Make the line fit into `width` columns: first alignment goes, then parts of cells, then the line's end.
    pub fn fit(&mut self, width: usize) {
        if self.squeeze(width) {
            return;
        }
        for step in 0..2 {
            for i in 0..self.cells.len() {
                let over = self.width().saturating_sub(width);
                if over > 0 && self.cells[i].cut != Cut::Never {
                    let to = self.cells[i].chars.saturating_sub(over).max(self.cells[i].least[step]);
                    self.shorten(i, to);
                }
            }
        }
        self.limit = Some(width);
    }

    fn shorten(&mut self, i: usize, to: usize) {
        let start = if i == 0 { 0 } else { self.cells[i - 1].end };
        let Cell { end, chars, cut, .. } = self.cells[i];
        if to >= chars || to == 0 {
            return;
        }
        // One column is for the ellipsis.
        let (head, tail) = match cut {
            Cut::Never => return,
            Cut::Middle => (to / 2, to - 1 - to / 2),
            Cut::Before(n) => (to.saturating_sub(1 + n), n.min(to - 1)),
            Cut::End => (to - 1, 0),
        };
        let text = &self.text[start..end];
        let at = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
        let range = start + at(head)..start + at(chars - tail);
        let before = self.text.len();
        self.text.replace_range(range, "…");
        let after = self.text.len();
        self.cells[i].chars = head + 1 + tail;
        for cell in &mut self.cells[i..] {
            cell.end = cell.end + after - before;
        }
    }

    /// Append the line.
    pub fn write(&self, out: &mut Vec<u8>, color: bool) {
        let (mut at, mut from) = (0, 0);
        for cell in &self.cells {
            let start = cell.start(at, self.squeeze);
            let mut text = &self.text[from..cell.end];
            from = cell.end;
            // A part of a number must not pass for the whole.
            let mut cut_off = "";
            if let Some(room) = self.limit.map(|limit| limit.saturating_sub(start))
                && cell.chars > room
            {
                let end = text.char_indices().nth(room.saturating_sub(1)).map_or(text.len(), |(end, _)| end);
                text = &text[..end];
                cut_off = if room > 0 { "…" } else { "" };
            }
            if text.is_empty() && cut_off.is_empty() {
                continue;
            }
            out.resize(out.len() + (start - at), b' ');
            let colored = color && !cell.tone.code().is_empty();
            if colored {
                out.extend_from_slice(cell.tone.code().as_bytes());
            }
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(cut_off.as_bytes());
            if colored {
                out.extend_from_slice(RESET.as_bytes());
            }
            at = start + cell.chars;
        }
        out.push(b'\n');
    }
}

impl Cell {
    /// Where it starts when the one before ended at `at`.
    fn start(&self, at: usize, squeeze: usize) -> usize {
        if self.chars == 0 {
            return at;
        }
        (at + self.gap).max(self.place(squeeze))
    }

    /// Where it would like to start.
    fn place(&self, squeeze: usize) -> usize {
        let indent = if self.column.right { self.column.width.saturating_sub(self.chars) } else { 0 };
        (self.column.at + indent).saturating_sub(squeeze)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(at: usize, width: usize) -> Column {
        Column { at, width, right: false }
    }

    fn line(row: &Row, color: bool) -> String {
        let mut out = Vec::new();
        row.write(&mut out, color);
        String::from_utf8(out).expect("cells are text")
    }

    #[test]
    fn a_long_cell_pushes_and_the_next_ones_catch_up() {
        let mut row = Row::default();
        row.cell(column(0, 4), Tone::Plain, |s| s.push_str("abcdef"));
        row.cell(column(5, 4), Tone::Plain, |s| s.push_str("gh"));
        row.cell(Column { at: 10, width: 4, right: true }, Tone::Plain, |s| s.push_str("1µs"));
        assert_eq!(line(&row, false), "abcdef gh  1µs\n");
        assert_eq!(row.width(), 14);
    }

    fn two() -> Row {
        let mut row = Row::default();
        row.cell(column(0, 20), Tone::Plain, |s| s.push_str("postgres[12345]"));
        row.cut(Cut::Before(7), [12, 9]);
        row.cell(column(21, 4), Tone::Plain, |s| s.push_str("2001:db8:1:2:3:4:5:6"));
        row.cut(Cut::Middle, [12, 10]);
        row
    }

    #[test]
    fn alignment_goes_first_then_parts_of_cells_then_the_end() {
        let fitted = |width| {
            let mut row = two();
            row.fit(width);
            line(&row, false)
        };
        assert_eq!(fitted(80), "postgres[12345]      2001:db8:1:2:3:4:5:6\n");
        assert_eq!(fitted(38), "postgres[12345]   2001:db8:1:2:3:4:5:6\n");
        assert_eq!(fitted(35), "postgr…[12345] 2001:db8:1:2:3:4:5:6\n");
        assert_eq!(fitted(30), "post…[12345] 2001:db8…:3:4:5:6\n");
        assert_eq!(fitted(20), "p…[12345] 2001:…:5:6\n");
        assert_eq!(fitted(15), "p…[12345] 2001…\n");
    }

    #[test]
    fn a_number_that_has_no_room_is_not_told_in_part() {
        let mut row = Row::default();
        row.cell(column(0, 4), Tone::Plain, |s| s.push_str("abcdef"));
        row.cell(column(5, 5), Tone::Plain, |s| s.push_str("190µs"));
        row.cell(column(11, 5), Tone::Plain, |s| s.push_str("why"));
        let fitted = |width| {
            let mut row = row.clone();
            row.fit(width);
            line(&row, false)
        };
        assert_eq!(fitted(12), "abcdef 190µs\n");
        assert_eq!(fitted(9), "abcdef 1…\n");
        assert_eq!(fitted(8), "abcdef …\n");
        assert_eq!(fitted(6), "abcdef\n");
    }

    #[test]
    fn colours_do_not_count_as_columns() {
        let mut row = Row::default();
        row.cell(column(0, 4), Tone::Dim, |s| s.push_str("ab"));
        row.attach(Tone::Bad, |s| s.push_str("cd"));
        assert_eq!(line(&row, true), "\x1b[2mab\x1b[0m\x1b[1;31mcd\x1b[0m\n");
        assert_eq!(row.width(), 4);
    }
}
