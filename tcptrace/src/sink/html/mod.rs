//! A report as one HTML file that needs nothing else: no script, no font, no picture, nothing from a network.
//!
//! It is well-formed XML, too. All text goes through [`escape`]: names from outside are made safe for a terminal first, then for HTML.
//!
//! | file | |
//! |---|---|
//! | `style` | how it looks |
//! | `chart` | something over time, or by how long it took |
//! | `ladder` | a connection's segments between two ends |

mod chart;
mod ladder;
mod style;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use super::{
    page::{Bar, Block, Page, Section, Span, Table},
    text::{Look, Tone, outside, rate},
};
use crate::report::Report;

/// The page.
#[must_use]
pub fn page(report: &Report, look: &Look) -> String {
    let look = Look { width: None, ..look.clone() };
    let page = Page { report, look: &look };
    let sections = page.sections();
    let mut out = String::with_capacity(1 << 16);
    let file = escape(&outside(report.file.as_bytes()));
    let mut put = |text: &str| out.push_str(text);
    put("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
    // A page that a name from outside broke out into could still do nothing.
    put("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n");
    put("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n");
    put(&format!(
        "<title>{file} – tcptrace report</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n",
        style::STYLE
    ));
    put(&format!("<header>\n<h1>{file}</h1>\n"));
    tiles(&mut out, &page);
    let ladders = ladder::section(&page);
    navigation(&mut out, &sections, ladders.is_some());
    out.push_str("</header>\n");
    for section in &sections {
        write!(out, "<section id=\"{}\">\n<h2>{}</h2>\n", section.id, section.title)
            .expect("a String takes everything");
        blocks(&mut out, section);
        match section.id {
            "totals" => chart::connections(&mut out, &page),
            "listeners" => chart::queues(&mut out, &page),
            "times" => chart::times(&mut out, &page),
            _ => {}
        }
        out.push_str("</section>\n");
    }
    out.extend(ladders);
    let version = env!("CARGO_PKG_VERSION");
    write!(
        out,
        "<footer>Made by tcptrace {version}. → this end connected, ← the peer did; ~ concluded, not seen; * was there before the \
         recording began; #12 is a connection’s id in <code>tcptrace conns --json --from FILE</code>.</footer>\n</main>\n</body>\n</html>\n"
    )
    .expect("a String takes everything");
    out
}

/// Text, safe between tags and between quotes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // No characters of XML.
            '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The numbers that a reader looks for first.
fn tiles(out: &mut String, page: &Page) {
    let r = page.report;
    let t = &r.totals;
    let mut per_second = String::new();
    rate(&mut per_second, Some(t.opened), r.lasted() / 1000);
    let failed = r.all.failed();
    let lost = r.summary.as_ref().map_or(0, |s| s.lost);
    let wrong = r.wrong().len() + r.findings.all().len();
    let alarm = |n: u64| if n > 0 { "bad" } else { "" };
    out.push_str("<ul class=\"tiles\">\n");
    for (value, name, class) in [
        (t.connections.to_string(), "connections", ""),
        (per_second, "opened a second", ""),
        (failed.to_string(), "refused, reset, timed out or given up", ""),
        (t.open.to_string(), "open at the end", ""),
        (wrong.to_string(), if wrong == 1 { "thing looks wrong" } else { "things look wrong" }, alarm(wrong as u64)),
        (lost.to_string(), "events lost", alarm(lost)),
    ] {
        writeln!(out, "<li><b class=\"{class}\">{}</b><span>{name}</span></li>", escape(&value))
            .expect("a String takes everything");
    }
    out.push_str("</ul>\n");
}

fn navigation(out: &mut String, sections: &[Section], ladders: bool) {
    out.push_str("<nav>\n");
    let more = ladders.then_some(("ladders", "Ladders"));
    for (id, title) in sections.iter().map(|s| (s.id, s.title)).chain(more) {
        writeln!(out, "<a href=\"#{id}\">{title}</a>").expect("a String takes everything");
    }
    out.push_str("</nav>\n");
}

fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain | Tone::Opening => "",
        Tone::Dim => "dim",
        Tone::Bold => "strong",
        Tone::Good => "good",
        Tone::Warn => "warn",
        Tone::Bad => "bad",
    }
}

fn blocks(out: &mut String, section: &Section) {
    let wrong: Vec<_> = section.blocks.iter().filter(|b| matches!(b, Block::Wrong(..))).collect();
    if !wrong.is_empty() {
        out.push_str("<ul class=\"wrong\">\n");
        for block in wrong {
            if let Block::Wrong(sentence, next) = block {
                writeln!(out, "<li>{}<code>{}</code></li>", escape(sentence), escape(next))
                    .expect("a String takes everything");
            }
        }
        out.push_str("</ul>\n");
    }
    for block in &section.blocks {
        match block {
            Block::Facts(all) => facts(out, all),
            Block::Table(all) => table(out, all),
            Block::Bars(all) => bars(out, all),
            Block::Wrong(..) => {}
            Block::Note(text) => {
                let class = if section.id == "wrong" { "fine" } else { "note" };
                writeln!(out, "<p class=\"{class}\">{}</p>", escape(text)).expect("a String takes everything");
            }
        }
    }
}

fn facts(out: &mut String, facts: &[(&'static str, Vec<Span>)]) {
    out.push_str("<dl>\n");
    for (name, spans) in facts {
        write!(out, "<dt>{}</dt><dd>", escape(name)).expect("a String takes everything");
        for (text, tone) in spans {
            write!(out, "<span class=\"{}\">{}</span>", class(*tone), escape(text)).expect("a String takes everything");
        }
        out.push_str("</dd>\n");
    }
    out.push_str("</dl>\n");
}

fn table(out: &mut String, table: &Table) {
    out.push_str("<div class=\"scroll\"><table>\n<thead><tr>");
    let side = |right: bool| if right { " class=\"r\"" } else { "" };
    for head in &table.columns {
        write!(
            out,
            "<th scope=\"col\"{} title=\"{}\">{}</th>",
            side(head.right),
            escape(head.title),
            escape(head.name)
        )
        .expect("a String takes everything");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (head, (text, tone)) in table.columns.iter().zip(row) {
            let r = if head.right { "r " } else { "" };
            write!(out, "<td class=\"{r}{}\">{}</td>", class(*tone), escape(text)).expect("a String takes everything");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n");
}

fn bars(out: &mut String, bars: &[Bar]) {
    out.push_str("<div class=\"scroll\"><table class=\"bars\">\n<tbody>\n");
    let most = bars.iter().map(|bar| bar.count).max().unwrap_or(1).max(1);
    for bar in bars {
        let width = bar.count as f64 * 100.0 / most as f64;
        writeln!(
            out,
            "<tr><td>{}</td><td class=\"r\">{}</td><td class=\"r\">{}</td><td class=\"bar\"><i class=\"{}\" \
             style=\"width:{width:.2}%\"></i></td></tr>",
            escape(&bar.name),
            bar.count,
            bar.share(),
            bar.class
        )
        .expect("a String takes everything");
    }
    out.push_str("</tbody>\n</table></div>\n");
}
