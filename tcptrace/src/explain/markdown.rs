//! docs/explain.md: all pages in Markdown.

use std::fmt::Write as _;

use super::{Arc, Draw, Kind, PAGES, Page, sysctl};
use crate::wrap::wrap;

const INTRODUCTION: &str = "\
# States, terms and rules

<!-- Generated from tcptrace/src/explain by `tcptrace docs-explain`; do not edit. -->

What each TCP state, each word of the field and each rule of `tcptrace watch` means, and what to do about it. `tcptrace explain` prints the same for one of them, with
the values of its settings on the host that it runs on: `tcptrace explain CLOSE_WAIT`, `tcptrace explain half-open`. Case, `-`, `_` and
spaces make no difference, so the names that `ss` prints are understood, too.

The ladders are drawn from recordings of real connections between two network namespaces, 5 ms apart: time, state and process of the end
that connected at the left, of the other one at the right, and between them the segments. Dashed is what was not seen but follows from the
states, and `~` marks what was concluded; numbers in parentheses count from the initial sequence number.
";

/// As wide as the other documents.
const WIDTH: usize = 136;
/// Of a ladder: more would be scrolled.
const LADDER: usize = 100;

/// All pages: docs/explain.md.
#[must_use]
pub fn markdown(draw: Draw) -> String {
    let mut out = String::from(INTRODUCTION);
    for kind in Kind::ALL {
        section(&mut out, kind, draw);
    }
    out
}

fn section(out: &mut String, kind: Kind, draw: Draw) {
    put(out, &format!("\n## {}\n", kind.plural()));
    put(out, &format!("| {} | in one line |\n|---|---|", kind.name()));
    for page in PAGES.iter().filter(|p| p.kind == kind) {
        put(out, &format!("| {} | {} |", link(page.name), page.summary));
    }
    PAGES.iter().filter(|p| p.kind == kind).for_each(|page| write_page(out, page, draw));
}

fn write_page(out: &mut String, page: &Page, draw: Draw) {
    put(out, &format!("\n### {}\n", page.name));
    put(out, &fill(page.summary));
    if !page.aliases.is_empty() {
        put(out, &fill(&format!("Also: {}.", page.aliases.join(", "))));
    }
    for paragraph in page.text {
        put(out, &format!("\n{}", fill(paragraph)));
    }
    let arcs = |arcs: &[Arc]| arcs.iter().map(|&Arc(s, cause)| format!("{}: {cause}", link(s.name()))).collect();
    let settings = page.sysctls.iter().filter_map(|name| sysctl(name));
    let settings = settings.map(|s| format!("`{}`: {}", s.name, s.described()));
    list(out, "On each side", page.sides.iter().map(|(side, text)| format!("{side}: {text}")).collect());
    list(out, "Entered from", arcs(page.enters));
    list(out, "Left for", arcs(page.leaves));
    examples(out, page, draw);
    list(out, "On a healthy host", [page.healthy].iter().filter(|t| !t.is_empty()).map(|&t| t.to_owned()).collect());
    list(out, page.trouble_heading(), page.trouble.iter().map(|&text| text.to_owned()).collect());
    list(out, "Limits (`tcptrace watch --config`)", page.limits().map(|(l, text)| format!("`{l}`: {text}")).collect());
    list(out, "Look at it", page.look.iter().map(|(command, text)| format!("`{command}`: {text}")).collect());
    list(out, "Settings", settings.collect());
    list(out, "Socket options", page.options.iter().map(|(name, text)| format!("`{name}`: {text}")).collect());
    list(out, "Standards", page.rfcs.iter().map(|rfc| format!("{}: {}", rfc.place(), rfc.about)).collect());
    if !page.see.is_empty() {
        let links: Vec<_> = page.see.iter().map(|name| link(name)).collect();
        put(out, &format!("\nSee also: {}.", links.join(", ")));
    }
}

fn put(out: &mut String, line: &str) {
    writeln!(out, "{line}").expect("a String takes everything");
}

fn list(out: &mut String, title: &str, items: Vec<String>) {
    if !items.is_empty() {
        put(out, &format!("\n**{title}**\n"));
        items.iter().for_each(|item| put(out, &bullet(item)));
    }
}

/// Ladders, each below what it shows.
fn examples(out: &mut String, page: &Page, draw: Draw) {
    for (i, example) in page.examples.iter().enumerate() {
        if i == 0 {
            put(out, &format!("\n**{}**", Page::EXAMPLES));
        }
        let ladder = draw(example.recording, LADDER);
        put(out, &format!("\n{}\n\n```text\n{}\n```", fill(example.shows), ladder.trim_end()));
    }
}

/// To the page's heading in the same document.
fn link(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}

fn fill(text: &str) -> String {
    wrap(text, WIDTH).join("\n")
}

fn bullet(text: &str) -> String {
    format!("* {}", wrap(text, WIDTH - 2).join("\n  "))
}
