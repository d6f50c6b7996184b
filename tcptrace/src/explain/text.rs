//! Pages for a terminal: as wide as it is, and readable at 40 columns.

use super::{Arc, Draw, Kind, PAGES, Page, sysctl};
use crate::wrap::wrap;

/// How a page looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Columns.
    pub width: usize,
    /// Bold headings and names. No colour: bold suits dark and light terminals, and every eye.
    pub color: bool,
}

/// Lines longer than this are hard to read.
const WIDEST: usize = 100;
/// Narrower than this nothing would be left of a line.
const NARROWEST: usize = 20;

/// Names and summaries of all pages.
#[must_use]
pub fn index(look: Look) -> String {
    let mut out = Writer::new(look);
    for kind in Kind::ALL {
        out.title(kind.plural());
        // Wide enough for the longest name, so that summaries begin in one column; where that leaves little they follow below.
        let column = PAGES.iter().map(|p| p.name.len()).max().unwrap_or(0) + 4;
        for page in PAGES.iter().filter(|p| p.kind == kind) {
            out.entry(page.name, page.summary, column);
        }
    }
    out.text
}

/// A page. `value` gives the value of a sysctl on this host; those without one are left out. What `draw` draws looks as it likes.
#[must_use]
pub fn page(page: &Page, look: Look, value: &dyn Fn(&str) -> Option<String>, draw: Draw) -> String {
    let mut out = Writer::new(look);
    out.head(page);
    for paragraph in page.text {
        out.line("");
        out.paragraph(0, paragraph);
    }
    out.pairs("On each side", page.sides.iter().map(|&(side, text)| (side.to_owned(), text)));
    out.pairs("Entered from", page.enters.iter().map(|&Arc(state, cause)| (state.name().to_owned(), cause)));
    out.pairs("Left for", page.leaves.iter().map(|&Arc(state, cause)| (state.name().to_owned(), cause)));
    out.examples(page, draw);
    if !page.healthy.is_empty() {
        out.title("On a healthy host");
        out.paragraph(2, page.healthy);
    }
    if !page.trouble.is_empty() {
        out.title(page.trouble_heading());
        page.trouble.iter().for_each(|text| out.item(text));
    }
    out.blocks("Limits (`tcptrace watch --config`)", page.limits());
    out.blocks("Look at it", page.look.iter().map(|&(command, text)| (command.to_owned(), text)));
    let settings = page.sysctls.iter().filter_map(|name| {
        let sysctl = sysctl(name)?;
        Some((format!("{name} = {}", value(name)?), sysctl.decides))
    });
    out.blocks("Settings of this host", settings);
    out.pairs("Socket options", page.options.iter().map(|&(name, text)| (name.to_owned(), text)));
    out.pairs("Standards", page.rfcs.iter().map(|rfc| (rfc.place(), rfc.about)));
    if !page.see.is_empty() {
        out.title("See also");
        out.paragraph(2, &page.see.join(", "));
    }
    out.text
}

impl Page {
    /// Heading of [`Page::trouble`].
    pub(super) fn trouble_heading(&self) -> &'static str {
        match self.kind {
            Kind::State => "Too many",
            Kind::Term => "Trouble",
            Kind::Rule => "What helps",
        }
    }
}

struct Writer {
    text: String,
    width: usize,
    color: bool,
}

impl Writer {
    fn new(look: Look) -> Self {
        Self { text: String::new(), width: look.width.clamp(NARROWEST, WIDEST), color: look.color }
    }

    fn bold(&self, text: &str) -> String {
        if self.color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Name, other names, summary.
    fn head(&mut self, page: &Page) {
        let name = self.bold(page.name);
        self.line(&format!("{name} ({})", page.kind.name()));
        self.paragraph(0, page.summary);
        if !page.aliases.is_empty() {
            self.paragraph(0, &format!("Also: {}", page.aliases.join(", ")));
        }
    }

    fn title(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.line("");
        }
        let title = self.bold(title);
        self.line(&title);
    }

    fn paragraph(&mut self, indent: usize, text: &str) {
        for line in wrap(text, self.width - indent) {
            self.line(&format!("{:indent$}{line}", ""));
        }
    }

    /// One of several paragraphs.
    fn item(&mut self, text: &str) {
        self.hanging("- ", 2, text);
    }

    /// Name and text in two columns, or, where the second would be too narrow, the text below the name.
    fn entry(&mut self, name: &str, text: &str, column: usize) {
        if self.width < column + 2 * NARROWEST {
            let name = self.bold(name);
            self.line(&format!("  {name}"));
            self.paragraph(4, text);
        } else {
            let first = format!("{}{:2$}", self.bold(name), "", column - 2 - name.len());
            self.hanging(&first, column - 2, text);
        }
    }

    /// `first`, which takes `columns` on the screen, and beside it `text`, all of it indented.
    fn hanging(&mut self, first: &str, columns: usize, text: &str) {
        let mut start = format!("  {first}");
        for line in wrap(text, self.width - columns - 2) {
            self.line(&format!("{start}{line}"));
            start = " ".repeat(columns + 2);
        }
    }

    /// A section of names with their texts, in two columns if there is room.
    fn pairs(&mut self, title: &str, pairs: impl Iterator<Item = (String, &'static str)>) {
        let pairs: Vec<_> = pairs.collect();
        if let Some(longest) = pairs.iter().map(|(name, _)| name.len()).max() {
            self.title(title);
            pairs.iter().for_each(|(name, text)| self.entry(name, text, longest + 4));
        }
    }

    /// Ladders, each below what it shows.
    fn examples(&mut self, page: &Page, draw: Draw) {
        for (i, example) in page.examples.iter().enumerate() {
            if i == 0 {
                self.title(Page::EXAMPLES);
            } else {
                self.line("");
            }
            self.paragraph(2, example.shows);
            self.line("");
            for line in draw(example.recording, self.width - 2).trim_end().lines() {
                self.line(&format!("  {line}"));
            }
        }
    }

    /// A section of lines to be read or typed as they are, each with a text below.
    fn blocks(&mut self, title: &str, blocks: impl Iterator<Item = (String, &'static str)>) {
        let mut blocks = blocks.peekable();
        if blocks.peek().is_some() {
            self.title(title);
        }
        for (line, text) in blocks {
            let mut indent = 2;
            for part in wrap(&line, self.width - 4) {
                let part = self.bold(&part);
                self.line(&format!("{:indent$}{part}", ""));
                indent = 4;
            }
            self.paragraph(6, text);
        }
    }
}
