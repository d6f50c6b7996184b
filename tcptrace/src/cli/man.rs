//! Manual pages, made from the definition of the command line: tcptrace(1) and one page for each command.

use clap::{Command, CommandFactory as _};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::args::Arguments;
use crate::explain::{self, Draw};

/// The page that is not about a command.
const EXPLAIN: &str = "tcptrace-explain.7";

/// File names of all pages.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = commands().iter().map(file_name).collect();
    names.push(EXPLAIN.to_owned());
    names
}

/// Source of the page with that file name; `draw` draws its ladders.
pub fn page(name: &str, draw: Draw) -> Option<String> {
    if name == EXPLAIN {
        return Some(explain::man(draw));
    }
    commands().iter().find(|command| file_name(command) == name).map(render)
}

/// tcptrace itself, then its commands; hidden ones have no page.
fn commands() -> Vec<Command> {
    let mut root = Arguments::command().disable_help_subcommand(true);
    root.build();
    let mut all = vec![root.clone()];
    all.extend(root.get_subcommands().filter(|c| !c.is_hide_set()).cloned());
    all
}

fn title(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn file_name(command: &Command) -> String {
    format!("{}.1", title(command))
}

fn render(command: &Command) -> String {
    // No date, so that the same source makes the same page: an empty argument has to be written as two quotes.
    let source = concat!("tcptrace ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).date("\"\"").source(source);
    let mut page = Vec::new();
    let mut write = || {
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        if command.has_subcommands() {
            man.render_subcommands_section(&mut page)?;
        }
        more(command).to_writer(&mut page)
    };
    write().expect("a Vec takes everything");
    String::from_utf8_lossy(&page).into_owned()
}

/// What `--help` shows below the options, section by section, its lines as they are.
fn more(command: &Command) -> Roff {
    let mut roff = Roff::new();
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut open = false;
    for line in text.lines() {
        if let Some(heading) = line.strip_suffix(':').filter(|l| !l.starts_with(' ')) {
            if open {
                roff.control("fi", []);
            }
            roff.control("SH", [heading.to_uppercase().as_str()]);
            roff.control("nf", []);
            open = true;
        } else {
            roff.text([roman(line)]);
        }
    }
    if open {
        roff.control("fi", []);
    }
    roff.control("SH", ["SEE ALSO"]);
    if title(command) != "tcptrace" {
        roff.text([bold("tcptrace"), roman("(1),")]);
    }
    roff.text([bold("tcptrace-explain"), roman("(7)")]);
    roff
}
