//! Arguments → one validated [`Config`] → the command.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, error::ErrorKind};

use crate::{
    error::{Error, Result},
    filter::Filter,
    kernel::{load::Queues as Wanted, signal::Tier},
    pipeline::{Records, say},
    sink::text::TimeMode,
};

mod args;
mod run;

use args::{Arguments, Command, Filters, Time};

/// A command line that makes sense.
#[derive(Debug)]
pub enum Config {
    /// `trace`, `conns` and `queues`.
    Show(Box<Show>),
    /// `record`.
    Record(Box<Record>),
    /// `doctor`.
    Doctor {
        /// `--json`.
        json: bool,
        /// Best kind of hooks to try.
        tier: Tier,
        /// ANSI colours.
        color: bool,
    },
    /// `docs-events`.
    DocsEvents,
}

/// See [`Config::Show`].
#[derive(Debug)]
pub struct Show {
    /// What is printed.
    pub records: Records,
    /// Which connections.
    pub filter: Filter,
    /// A recording in place of the live kernel.
    pub from: Option<PathBuf>,
    /// A recording beside the output.
    pub record: Option<PathBuf>,
    /// Size of all rings, bytes; None: what suits the live source.
    pub buffer: Option<u64>,
    /// Best kind of hooks to use.
    pub tier: Tier,
    /// What is wanted about listeners' queues.
    pub queues: Queues,
    /// Print everything that happens to a half-open request.
    pub requests: bool,
    /// When to end.
    pub duration: Option<Duration>,
    /// After how many records to end.
    pub count: Option<u64>,
    /// JSON in place of text.
    pub json: bool,
    /// How text shows times.
    pub time: TimeMode,
    /// ANSI colours.
    pub color: bool,
    /// A line a second on stderr.
    pub stats: bool,
    /// `-v`.
    pub verbose: bool,
    /// `-q`.
    pub quiet: bool,
}

/// See [`Config::Record`].
#[derive(Debug)]
pub struct Record {
    /// The file, or `-`.
    pub file: PathBuf,
    /// Which connections, as far as the kernel can tell.
    pub filter: Filter,
    /// See [`Show::buffer`].
    pub buffer: Option<u64>,
    /// Best kind of hooks to use.
    pub tier: Tier,
    /// See [`Show::queues`].
    pub queues: Queues,
    /// When to end.
    pub duration: Option<Duration>,
    /// `-v`.
    pub verbose: bool,
    /// `-q`.
    pub quiet: bool,
}

/// What the live source is asked to tell about listeners' queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Which signals.
    pub wanted: Wanted,
    /// How often listeners are read.
    pub interval: Duration,
    /// Records of single half-open requests a second; 0: none.
    pub request_rate: u64,
}

/// Everything that the process does; its exit status.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    // A panic is a bug in tcptrace: one line about it, and no stack of it.
    std::panic::set_hook(Box::new(|info| {
        // Without a place the line is still worth saying.
        let at = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
        say(&format!("internal error{at}; please report it"));
        std::process::exit(1);
    }));
    let result = match parse(arguments) {
        Ok(Some(config)) => run::run(config),
        Ok(None) => Ok(ExitCode::SUCCESS),
        Err(e) => Err(e),
    };
    result.unwrap_or_else(|e| {
        if !matches!(e, Error::ClosedPipe) {
            use std::io::Write as _;
            // The exit status says it, too.
            let _ = writeln!(std::io::stderr(), "{}", e.line());
        }
        ExitCode::from(e.exit_status())
    })
}

/// None: help or the version was asked for and has been printed.
///
/// # Errors
/// [`Error::Usage`].
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Config>> {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // Nothing is lost if nobody reads it.
            let _ = e.print();
            return Ok(None);
        }
        Err(e) if e.kind() == ErrorKind::MissingSubcommand => {
            return Err(Error::Usage("which command? trace, conns, queues, record or doctor".to_owned()));
        }
        Err(e) => return Err(Error::Usage(one_line(&e))),
    };
    Ok(Some(match arguments.command {
        Command::Trace(c) => Config::Show(Box::new(connections(Records::Transitions, c)?)),
        Command::Conns(c) => Config::Show(Box::new(connections(Records::Connections, c)?)),
        Command::Queues(q) => {
            let mut show = show_config(Records::Queues, q.show)?;
            // Connections and single requests are not shown: the kernel's totals say all. A recording may be asked for them later.
            let defaults = Queues::default();
            let (wanted, request_rate) =
                if show.record.is_some() { (Wanted::Requests, defaults.request_rate) } else { (Wanted::Only, 0) };
            show.queues = Queues { wanted, interval: q.interval, request_rate };
            if q.once {
                show.count = Some(1);
            }
            Config::Show(Box::new(show))
        }
        Command::Record(r) => Config::Record(Box::new(Record {
            filter: filter(&r.filters)?,
            file: r.file,
            buffer: r.buffer,
            tier: r.tier.into(),
            queues: queues(r.queues || r.requests.requests, &r.requests),
            duration: r.duration,
            verbose: r.noise.verbose,
            quiet: r.noise.quiet,
        })),
        Command::Doctor(d) => Config::Doctor { json: d.json, tier: d.tier.into(), color: color(d.color) },
        Command::DocsEvents => Config::DocsEvents,
    }))
}

fn connections(records: Records, c: args::Connections) -> Result<Show> {
    let queues = queues(c.requests.requests, &c.requests);
    Ok(Show { queues, requests: c.requests.requests, ..show_config(records, c.show)? })
}

fn queues(all: bool, r: &args::Requests) -> Queues {
    let wanted = if all { Wanted::Requests } else { Wanted::IfCheap };
    Queues { wanted, request_rate: r.request_rate, ..Queues::default() }
}

impl Default for Queues {
    fn default() -> Self {
        Self { wanted: Wanted::IfCheap, interval: Duration::from_secs(1), request_rate: 20_000 }
    }
}

fn show_config(records: Records, s: args::Show) -> Result<Show> {
    Ok(Show {
        records,
        filter: filter(&s.filters)?,
        from: s.from,
        record: s.record,
        buffer: s.buffer,
        tier: s.tier.into(),
        queues: Queues::default(),
        requests: false,
        duration: s.duration,
        count: s.count,
        json: s.json,
        time: match s.time {
            Time::Local => TimeMode::Local,
            Time::Utc => TimeMode::Utc,
            Time::Mono => TimeMode::Mono,
            Time::Delta => TimeMode::Delta,
        },
        color: color(s.color),
        stats: s.stats,
        verbose: s.noise.verbose,
        quiet: s.noise.quiet,
    })
}

fn filter(given: &Filters) -> Result<Filter> {
    let mut filter = Filter::default();
    for (name, value) in given.given() {
        filter.set(name, value).map_err(Error::Usage)?;
    }
    Ok(filter)
}

fn color(when: args::Color) -> bool {
    match when {
        args::Color::Always => true,
        args::Color::Never => false,
        args::Color::Auto => {
            let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
            let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
            !refused && !dumb && rustix::termios::isatty(rustix::stdio::stdout())
        }
    }
}

/// clap's message without its usage, which `--help` shows, with its hints.
fn one_line(e: &clap::Error) -> String {
    let text = e.render().to_string();
    let mut parts: Vec<&str> = Vec::new();
    let mut message = true;
    for line in text.lines() {
        let line = line.trim();
        message &= !line.is_empty() && !line.starts_with("Usage:");
        if message || line.starts_with("tip:") {
            parts.push(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    let mut line = String::new();
    for part in parts {
        if !line.is_empty() {
            line.push_str(if part.starts_with("tip:") { "; " } else { " " });
        }
        line.push_str(part.strip_prefix("tip: ").unwrap_or(part));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(line: &str) -> Result<Option<Config>> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn show(line: &str) -> Show {
        match config(line) {
            Ok(Some(Config::Show(show))) => *show,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn filters_and_options_arrive() {
        let s = show(
            "tcptrace conns --port 80,443 --port 8000-8100 -p 7 --count 3 --duration 2m --buffer 1M --time utc -q",
        );
        assert_eq!(s.filter.to_pairs(), [("port".into(), "80,443,8000-8100".into()), ("pid".into(), "7".into())]);
        assert_eq!((s.count, s.duration, s.buffer), (Some(3), Some(Duration::from_secs(120)), Some(1 << 20)));
        assert_eq!((s.records, s.time, s.quiet, s.json), (Records::Connections, TimeMode::Utc, true, false));
        assert!(show("tcptrace trace").filter.is_empty());
    }

    #[test]
    fn queues_are_asked_for() {
        let q = show("tcptrace queues --once --interval 500ms --lport 443");
        assert_eq!((q.records, q.count), (Records::Queues, Some(1)));
        assert_eq!((q.queues.wanted, q.queues.interval), (Wanted::Only, Duration::from_millis(500)));
        let recorded = show("tcptrace queues --record x");
        assert_eq!((recorded.queues.wanted, recorded.queues.request_rate), (Wanted::Requests, 20_000));
        let t = show("tcptrace trace --requests --request-rate 5");
        assert_eq!((t.requests, t.queues.wanted, t.queues.request_rate), (true, Wanted::Requests, 5));
        assert_eq!(show("tcptrace conns").queues, Queues::default());
        let record = |line: &str| match config(line) {
            Ok(Some(Config::Record(r))) => r.queues.wanted,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(record("tcptrace record x --queues"), Wanted::Requests);
        assert_eq!(record("tcptrace record x"), Wanted::IfCheap);
    }

    #[test]
    fn colour_is_asked_for_or_not() {
        assert!(show("tcptrace trace --color always").color);
        assert!(!show("tcptrace trace --color never").color);
    }

    #[test]
    fn what_makes_no_sense_is_one_line() {
        for (line, says) in [
            ("tcptrace", "which command? trace, conns, queues, record or doctor"),
            ("tcptrace trase", "unrecognized subcommand 'trase'; a similar subcommand exists: 'trace'"),
            ("tcptrace trace --jsn", "unexpected argument '--jsn' found; a similar argument exists: '--json'"),
            ("tcptrace record", "the following required arguments were not provided: <FILE>"),
            (
                "tcptrace trace --from a --record b",
                "the argument '--from <FILE>' cannot be used with '--record <FILE>'",
            ),
            (
                "tcptrace trace --color red",
                "invalid value 'red' for '--color <WHEN>' [possible values: auto, always, never]",
            ),
            ("tcptrace trace --count 0", "invalid value '0' for '--count <N>': 0 is not in 1..18446744073709551615"),
            (
                "tcptrace trace --duration soon",
                "invalid value 'soon' for '--duration <TIME>': not a time such as 500ms, 10s, 2m or 1h",
            ),
            ("tcptrace trace --role peer", "--role: `peer` is not a role: client, server or listener"),
            ("tcptrace trace --port=99999", "--port: `99999` is not a port or a range of ports such as 8000-8100"),
            ("tcptrace trace -q -v", "the argument '--quiet' cannot be used with '--verbose'"),
            ("tcptrace trace x", "unexpected argument 'x' found"),
        ] {
            match config(line) {
                Err(Error::Usage(e)) => assert_eq!(e, says, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
