//! Manual pages, made from the definition of the command line: tcptrace(1) and one page for each command.

use clap::{Arg, Command, CommandFactory as _, builder::PossibleValue};
use clap_mangen::{
    Man,
    roff::{Roff, bold, italic, roman},
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
        synopsis(command).to_writer(&mut page)?;
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

/// How it is called: each option with its value, each list as such, and what must be set apart by `--`.
fn synopsis(command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut line = vec![bold(name)];
    let arguments = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let (positional, options): (Vec<&Arg>, Vec<&Arg>) = arguments.partition(|arg| arg.is_positional());
    for option in options {
        let names = [option.get_short().map(|c| format!("-{c}")), option.get_long().map(|long| format!("--{long}"))];
        line.push(roman(" ["));
        for (i, name) in names.into_iter().flatten().enumerate() {
            if i > 0 {
                line.push(roman(" | "));
            }
            line.push(bold(name));
            line.extend(value(option).into_iter().flat_map(|value| [roman(" "), italic(value)]));
        }
        line.push(roman("]"));
    }
    if command.has_subcommands() {
        line.extend([roman(" "), italic("COMMAND"), roman(" ["), italic("ARGUMENT"), roman(" ...]")]);
    }
    for argument in positional {
        let name = value(argument).unwrap_or_else(|| argument.get_id().to_string().to_uppercase());
        let several = argument.get_num_args().is_some_and(|n| n.max_values() > 1);
        let open = if argument.is_last_set() { " [-- " } else { " [" };
        let required = argument.is_required_set();
        line.extend([roman(if required { " " } else { open }), italic(name)]);
        line.extend(several.then(|| roman(" ...")));
        line.extend((!required).then(|| roman("]")));
    }
    roff.text(line);
    roff
}

/// What an option takes: the name of its value, or the values that there are.
fn value(arg: &Arg) -> Option<String> {
    let takes = arg.get_action().takes_values();
    let possible = arg.get_possible_values();
    let names = arg.get_value_names().map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    if takes && !possible.is_empty() {
        let values: Vec<&str> = possible.iter().filter(|v| !v.is_hide_set()).map(PossibleValue::get_name).collect();
        return Some(values.join("|"));
    }
    names.filter(|_| takes)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The synopsis without fonts.
    fn shown(name: &str) -> String {
        let command = commands().into_iter().find(|c| title(c) == name).expect("a command");
        let text = synopsis(&command).to_roff();
        let text = text.lines().last().expect("a line").replace("\\-", "-");
        ["\\fB", "\\fI", "\\fR"].iter().fold(text, |text, font| text.replace(font, ""))
    }

    #[test]
    fn a_synopsis_has_values_and_what_stands_behind() {
        let conns = shown("tcptrace-conns");
        assert!(conns.starts_with("tcptrace conns [--port PORTS] [--lport PORTS] "), "{conns}");
        for part in [
            " [-p PIDS | --pid PIDS]",
            " [--tier auto|fentry|kprobe|tracepoint]",
            " [--color auto|always|never]",
            " [--json]",
            " [-f | --follow]",
            " [-h | --help]",
        ] {
            assert!(conns.contains(part), "{part} in {conns}");
        }
        assert!(conns.ends_with(" [-- COMMAND ...]"), "{conns}");
        assert!(shown("tcptrace-record").contains("] FILE"), "{}", shown("tcptrace-record"));
        assert!(shown("tcptrace-explain").ends_with(" [STATE|RULE|TERM ...]"), "{}", shown("tcptrace-explain"));
        assert_eq!(shown("tcptrace-completions"), "tcptrace completions [-h | --help] bash|zsh|fish");
        assert!(shown("tcptrace").ends_with(" COMMAND [ARGUMENT ...]"), "{}", shown("tcptrace"));
    }
}
