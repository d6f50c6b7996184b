//! tcptrace-explain(7): all pages as a manual page.

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::{Arc, Draw, Kind, PAGES, Page, sysctl};

/// Columns of a ladder: with the indentation of a manual page they fit a terminal of 80.
const WIDTH: usize = 72;

/// All pages, as source of tcptrace-explain(7). `draw` is to draw in ASCII, which every formatter and every font has.
#[must_use]
pub fn man(draw: Draw) -> String {
    let mut roff = Roff::new();
    let source = concat!("tcptrace ", env!("CARGO_PKG_VERSION"));
    // No date, so that the same source makes the same page: an empty argument has to be written as two quotes.
    roff.control("TH", ["tcptrace-explain", "7", "\"\"", source]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("tcptrace-explain - what TCP states, terms and rules mean, and what to do about them")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([
        bold("tcptrace explain"),
        roman(" NAME prints one of these sections, with the values of its settings on this host."),
    ]);
    for kind in Kind::ALL {
        roff.control("SH", [kind.plural().to_uppercase().as_str()]);
        PAGES.iter().filter(|page| page.kind == kind).for_each(|page| write_page(&mut roff, page, draw));
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("tcptrace"), roman("(1), "), bold("tcp"), roman("(7), "), bold("ss"), roman("(8)")]);
    roff.render()
}

fn write_page(roff: &mut Roff, page: &Page, draw: Draw) {
    roff.control("SS", [page.name]);
    roff.text([roman(page.summary)]);
    if !page.aliases.is_empty() {
        roff.control("br", []);
        roff.text([roman(format!("Also: {}.", page.aliases.join(", ")))]);
    }
    for paragraph in page.text {
        roff.control("PP", []);
        roff.text([roman(*paragraph)]);
    }
    let arcs = |arcs: &'static [Arc]| arcs.iter().map(|&Arc(state, cause)| (bold(state.name()), cause));
    list(roff, "On each side", page.sides.iter().map(|&(side, text)| (italic(side), text)));
    list(roff, "Entered from", arcs(page.enters));
    list(roff, "Left for", arcs(page.leaves));
    for (i, example) in page.examples.iter().enumerate() {
        if i == 0 {
            heading(roff, Page::EXAMPLES);
        } else {
            roff.control("PP", []);
        }
        roff.text([roman(example.shows)]);
        roff.control("PP", []);
        roff.control("EX", []);
        for line in draw(example.recording, WIDTH).trim_end().lines() {
            roff.text([roman(line)]);
        }
        roff.control("EE", []);
    }
    if !page.healthy.is_empty() {
        heading(roff, "On a healthy host");
        roff.text([roman(page.healthy)]);
    }
    if !page.trouble.is_empty() {
        heading(roff, page.trouble_heading());
    }
    for text in page.trouble {
        roff.control("IP", ["\\(bu", "2"]);
        roff.text([roman(*text)]);
    }
    list(roff, "Limits (tcptrace watch --config)", page.limits().map(|(limit, text)| (bold(limit), text)));
    list(roff, "Look at it", page.look.iter().map(|&(command, text)| (bold(command), text)));
    let settings = page.sysctls.iter().filter_map(|name| sysctl(name));
    list(roff, "Settings", settings.map(|s| (bold(s.name), s.described())));
    list(roff, "Socket options", page.options.iter().map(|&(name, text)| (bold(name), text)));
    list(roff, "Standards", page.rfcs.iter().map(|rfc| (roman(rfc.place()), rfc.about)));
    if !page.see.is_empty() {
        heading(roff, "See also");
        roff.text([roman(page.see.join(", "))]);
    }
}

fn heading(roff: &mut Roff, title: &str) {
    roff.control("PP", []);
    roff.text([italic(title)]);
    roff.control("br", []);
}

/// Names, each with its text below.
fn list<T: Into<String>>(roff: &mut Roff, title: &str, items: impl Iterator<Item = (Inline, T)>) {
    let mut items = items.peekable();
    if items.peek().is_some() {
        heading(roff, title);
    }
    for (name, text) in items {
        roff.control("TP", []);
        roff.text([name]);
        roff.text([roman(text)]);
    }
}
