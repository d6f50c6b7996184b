//! docs/explain.md: all pages in Markdown.

use std::fmt::Write as _;

use super::{Arc, Kind, PAGES, Page, sysctl};
use crate::wrap::wrap;

const INTRODUCTION: &str = "\
# States and terms

<!-- Generated from tcptrace/src/explain by `tcptrace docs-explain`; do not edit. -->

What each TCP state and each word of the field means, and what to do about it. `tcptrace explain` prints the same for one of them, with
the values of its settings on the host that it runs on: `tcptrace explain CLOSE_WAIT`, `tcptrace explain half-open`. Case, `-`, `_` and
spaces make no difference, so the names that `ss` prints are understood, too.
";

/// As wide as the other documents.
const WIDTH: usize = 136;

/// All pages: docs/explain.md.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    for kind in Kind::ALL {
        section(&mut out, kind);
    }
    out
}

fn section(out: &mut String, kind: Kind) {
    let mut put = |line: String| writeln!(out, "{line}").expect("a String takes everything");
    put(format!("\n## {}\n", kind.plural()));
    put(format!("| {} | in one line |\n|---|---|", kind.name()));
    for page in PAGES.iter().filter(|p| p.kind == kind) {
        put(format!("| {} | {} |", link(page.name), page.summary));
    }
    PAGES.iter().filter(|p| p.kind == kind).for_each(|page| write_page(out, page));
}

fn write_page(out: &mut String, page: &Page) {
    let mut put = |line: &str| writeln!(out, "{line}").expect("a String takes everything");
    put(&format!("\n### {}\n", page.name));
    put(&fill(page.summary));
    if !page.aliases.is_empty() {
        put(&fill(&format!("Also: {}.", page.aliases.join(", "))));
    }
    for paragraph in page.text {
        put(&format!("\n{}", fill(paragraph)));
    }
    let mut list = |title: &str, items: Vec<String>| {
        if !items.is_empty() {
            put(&format!("\n**{title}**\n"));
            items.iter().for_each(|item| put(&bullet(item)));
        }
    };
    let arcs = |arcs: &[Arc]| arcs.iter().map(|&Arc(s, cause)| format!("{}: {cause}", link(s.name()))).collect();
    let settings = page.sysctls.iter().filter_map(|name| sysctl(name));
    let settings = settings.map(|s| format!("`{}`: {}", s.name, s.described()));
    list("On each side", page.sides.iter().map(|(side, text)| format!("{side}: {text}")).collect());
    list("Entered from", arcs(page.enters));
    list("Left for", arcs(page.leaves));
    list("On a healthy host", [page.healthy].iter().filter(|t| !t.is_empty()).map(|&t| t.to_owned()).collect());
    list(page.trouble_heading(), page.trouble.iter().map(|&text| text.to_owned()).collect());
    list("Look at it", page.look.iter().map(|(command, text)| format!("`{command}`: {text}")).collect());
    list("Settings", settings.collect());
    list("Socket options", page.options.iter().map(|(name, text)| format!("`{name}`: {text}")).collect());
    list("Standards", page.rfcs.iter().map(|rfc| format!("{}: {}", rfc.place(), rfc.about)).collect());
    if !page.see.is_empty() {
        let links: Vec<_> = page.see.iter().map(|name| link(name)).collect();
        put(&format!("\nSee also: {}.", links.join(", ")));
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
