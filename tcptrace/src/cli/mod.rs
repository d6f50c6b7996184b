//! Arguments → one validated [`Config`] → the command.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory as _, Parser, error::ErrorKind};

use crate::{
    error::{Error, Result},
    explain::{self, Page},
    filter::Filter,
    group::Key,
    kernel::{load::Queues as Wanted, signal::Tier},
    pipeline::{Records, say},
    recording::ring::{Room, SMALLEST},
    sink::{escape, text::TimeMode},
};

mod args;
mod command;
mod complete;
mod examples;
mod exec;
mod man;
mod report;
mod run;
mod stop;
#[cfg(test)]
mod tests;
mod watch;

use args::{Arguments, Command, Filters, Shell};
use command::CommandLine;
use watch::Watch;

/// A command line that makes sense.
#[derive(Debug)]
pub enum Config {
    /// `trace`, `conns`, `queues` and `watch`.
    Show(Box<Show>),
    /// `record`.
    Record(Box<Record>),
    /// `report`.
    Report(Box<report::Config>),
    /// `doctor`.
    Doctor {
        /// `--json`.
        json: bool,
        /// Best kind of hooks to try.
        tier: Tier,
        /// ANSI colours.
        color: bool,
    },
    /// `explain`.
    Explain {
        /// The page; None: all of them.
        page: Option<&'static Page>,
        /// `--json`.
        json: bool,
        /// Where it is shown.
        look: Terminal,
    },
    /// `completions`.
    Completions(Shell),
    /// `watch --print-config`.
    PrintConfig,
    /// `docs-events`.
    DocsEvents,
    /// `docs-explain`.
    DocsExplain,
    /// `docs-man`: the file name of a page; None: the names of all.
    DocsMan(Option<String>),
}

/// What the terminal can show and is wanted to.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// ANSI colours.
    pub color: bool,
    /// Nothing but ASCII.
    pub ascii: bool,
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
    /// Run and traced.
    pub command: Option<CommandLine>,
    /// Size of all rings, bytes; None: what suits the live source.
    pub buffer: Option<u64>,
    /// Best kind of hooks to use.
    pub tier: Tier,
    /// What is wanted about listeners' queues.
    pub queues: Queues,
    /// Copies of user-space stacks a second; 0: none.
    pub stack_rate: u64,
    /// Print everything that happens to a half-open request.
    pub requests: bool,
    /// What connections are grouped by; none: each is told.
    pub by: Vec<Key>,
    /// Draw connections as ladders.
    pub ladder: bool,
    /// What `watch` does.
    pub watch: Option<Watch>,
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
    /// Ladders in ASCII.
    pub ascii: bool,
    /// The terminal cannot move its cursor.
    pub dumb: bool,
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
    /// What of it is kept.
    pub keeps: Keeps,
    /// Which connections, as far as the kernel can tell.
    pub filter: Filter,
    /// Run and traced.
    pub command: Option<CommandLine>,
    /// See [`Show::buffer`].
    pub buffer: Option<u64>,
    /// Best kind of hooks to use.
    pub tier: Tier,
    /// See [`Show::queues`].
    pub queues: Queues,
    /// See [`Show::stack_rate`].
    pub stack_rate: u64,
    /// When to end.
    pub duration: Option<Duration>,
    /// `-v`.
    pub verbose: bool,
    /// `-q`.
    pub quiet: bool,
}

/// What `record` keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Everything, in one file.
    All,
    /// The latest.
    Ring(Room),
    /// Parts of this size, the latest so many of them.
    Parts(Room, Option<u32>),
}

/// What the live source is asked to tell about listeners' queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Which signals.
    pub wanted: Wanted,
    /// Segments to closed ports, too.
    pub probes: bool,
    /// How often listeners are read.
    pub interval: Duration,
    /// Records of single half-open requests a second; 0: none.
    pub request_rate: u64,
    /// Sockets that wait for one of their ends to close, too.
    pub closing: bool,
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
    let arguments: Vec<OsString> = arguments.collect();
    let result = match complete::answer(&arguments) {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => parse(arguments.into_iter()).and_then(|config| config.map_or(Ok(ExitCode::SUCCESS), run::run)),
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
            let commands = Arguments::command();
            let names: Vec<_> =
                commands.get_subcommands().filter(|c| !c.is_hide_set()).map(clap::Command::get_name).collect();
            return Err(Error::Usage(format!("which command? {}", names.join(", "))));
        }
        Err(e) => return Err(Error::Usage(one_line(&e))),
    };
    Ok(Some(match arguments.command {
        Command::Trace(c) => Config::Show(Box::new(connections(Records::Transitions, c)?)),
        Command::Conns(c) => {
            if let Some(key) = c.by.iter().enumerate().find_map(|(i, key)| c.by[..i].contains(key).then_some(key)) {
                return Err(Error::Usage(format!("--by: `{key}` is there twice")));
            }
            let show = connections(Records::Connections, c.connections)?;
            Config::Show(Box::new(Show { by: c.by, ladder: c.ladder, ..show }))
        }
        Command::Queues(q) => {
            let mut show = show_config(Records::Queues, q.show)?;
            // Connections and single requests are not shown: the kernel's totals say all. A recording may be asked for them later.
            let defaults = Queues::default();
            let (wanted, request_rate) =
                if show.record.is_some() { (Wanted::Requests, defaults.request_rate) } else { (Wanted::Only, 0) };
            show.queues = Queues { wanted, interval: q.interval, request_rate, ..defaults };
            if q.once {
                show.count = Some(1);
            }
            Config::Show(Box::new(show))
        }
        Command::Watch(w) => watch::config(w)?,
        Command::Record(r) => {
            let filter = filter(&r.filters, None, r.processes.follow)?;
            let command = command_line(r.processes, &filter)?;
            Config::Record(Box::new(Record {
                filter,
                command,
                keeps: keeps(&r.file, r.ring, r.rotate, r.keep)?,
                file: r.file,
                buffer: r.buffer,
                tier: r.tier.into(),
                queues: queues(r.queues || r.requests.requests, &r.requests),
                stack_rate: r.stacks.rate(),
                duration: r.duration,
                verbose: r.noise.verbose,
                quiet: r.noise.quiet,
            }))
        }
        Command::Report(r) => Config::Report(Box::new(report::Config::new(r)?)),
        Command::Doctor(d) => Config::Doctor { json: d.json, tier: d.tier.into(), color: color(d.color) },
        Command::Explain(e) => {
            let look = Terminal { color: color(e.color), ascii: ascii() };
            Config::Explain { page: page(&e.name.join(" "))?, json: e.json, look }
        }
        Command::Completions { shell } => Config::Completions(shell),
        Command::DocsEvents => Config::DocsEvents,
        Command::DocsExplain => Config::DocsExplain,
        Command::DocsMan { name } => Config::DocsMan(name),
    }))
}

fn connections(records: Records, c: args::Connections) -> Result<Show> {
    let queues = queues(c.requests.requests, &c.requests);
    let mut show = show_config(records, c.show)?;
    show.filter.follow = c.processes.follow;
    let command = command_line(c.processes, &show.filter)?;
    // clap's own words for it name nothing that was typed.
    if show.from.is_some() && (command.is_some() || show.filter.follow) {
        return Err(Error::Usage(
            "a recording has no processes to follow: leave out --from, or COMMAND and --follow".to_owned(),
        ));
    }
    let stack_rate = stack_rate(&show, &c.stacks)?;
    Ok(Show { queues, requests: c.requests.requests, stack_rate, command, ..show })
}

/// Copies of stacks a second that are wanted.
fn stack_rate(show: &Show, stacks: &args::Stacks) -> Result<u64> {
    if show.from.is_some() && stacks.stacks {
        return Err(Error::Usage("--stacks: a recording shows the stacks that it was made with".to_owned()));
    }
    Ok(stacks.rate())
}

/// The command, if there is one: then it says which processes are meant.
fn command_line(p: args::Processes, filter: &Filter) -> Result<Option<CommandLine>> {
    if p.command.is_empty() {
        return Ok(None);
    }
    if !filter.pids.is_empty() {
        return Err(Error::Usage("--pid and COMMAND both say whose sockets are meant: leave one out".to_owned()));
    }
    Ok(Some(CommandLine { argv: p.command, user: p.user }))
}

fn queues(all: bool, r: &args::Requests) -> Queues {
    let wanted = if all { Wanted::Requests } else { Wanted::IfCheap };
    Queues { wanted, request_rate: r.request_rate, ..Queues::default() }
}

impl Default for Queues {
    fn default() -> Self {
        Self {
            wanted: Wanted::IfCheap,
            probes: false,
            interval: Duration::from_secs(1),
            request_rate: 20_000,
            closing: false,
        }
    }
}

fn show_config(records: Records, s: args::Show) -> Result<Show> {
    Ok(Show {
        records,
        filter: filter(&s.filters, Some(records), false)?,
        from: s.from,
        record: s.record,
        command: None,
        buffer: s.buffer,
        tier: s.tier.into(),
        queues: Queues::default(),
        stack_rate: 0,
        requests: false,
        by: Vec::new(),
        ladder: false,
        watch: None,
        duration: s.duration,
        count: s.count,
        json: s.json,
        time: s.time.into(),
        color: color(s.color),
        ascii: ascii(),
        dumb: is_dumb(),
        stats: s.stats,
        verbose: s.noise.verbose,
        quiet: s.noise.quiet,
    })
}

/// What is asked of what is printed; None: of what is recorded.
fn filter(given: &Filters, records: Option<Records>, follow: bool) -> Result<Filter> {
    let mut filter = Filter::default();
    filter.follow = follow;
    for (name, value) in given.given() {
        filter.set(name, value).map_err(Error::Usage)?;
    }
    if filter.asks_for_outcome() && !matches!(records, Some(Records::Connections | Records::Report)) {
        let name = if filter.failed { "failed" } else { "min-us" };
        let way_out = match records {
            Some(Records::Transitions) => "`tcptrace conns` has it",
            Some(Records::Queues) => "listeners have no such end",
            Some(Records::Findings) => "a rule looks at all of them",
            Some(Records::Connections | Records::Report) | None => {
                "record without it, then `tcptrace conns --from FILE` with it"
            }
        };
        return Err(Error::Usage(format!("--{name}: known only when a connection is over; {way_out}")));
    }
    Ok(filter)
}

fn keeps(file: &Path, ring: Option<Room>, rotate: Option<Room>, keep: Option<u32>) -> Result<Keeps> {
    const SECOND: u64 = 1_000_000_000;
    if keep.is_some() && rotate.is_none() {
        return Err(Error::Usage("--keep: says how many of the files of --rotate stay; add --rotate 100M".to_owned()));
    }
    let (name, room, least) = match (ring, rotate) {
        (Some(room), _) => ("ring", room, SMALLEST),
        (None, Some(room)) => ("rotate", room, 64 << 10),
        (None, None) => return Ok(Keeps::All),
    };
    let usage = |what: &str| Err(Error::Usage(format!("--{name}: {what}")));
    if room.bytes.is_some_and(|bytes| bytes < least) {
        return usage(&format!("too little to record into: {}K at least", least >> 10));
    }
    if room.ns.is_some_and(|ns| ns < SECOND) {
        return usage("too short to record anything: 1s at least");
    }
    if ring.is_some() {
        return Ok(Keeps::Ring(room));
    }
    if file == Path::new("-") {
        return usage("standard output is one stream, without a next file: give FILE a name, or leave out --rotate");
    }
    Ok(Keeps::Parts(room, keep))
}

/// None: no page was asked for.
fn page(asked: &str) -> Result<Option<&'static Page>> {
    if asked.is_empty() {
        return Ok(None);
    }
    explain::find(asked).map(Some).ok_or_else(|| {
        let mut shown = Vec::new();
        escape::text(&mut shown, asked.as_bytes());
        Error::NoPage { asked: String::from_utf8_lossy(&shown).into_owned(), nearest: explain::nearest(asked) }
    })
}

fn color(when: args::Color) -> bool {
    match when {
        args::Color::Always => true,
        args::Color::Never => false,
        args::Color::Auto => {
            let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
            !refused && !is_dumb() && rustix::termios::isatty(rustix::stdio::stdout())
        }
    }
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|v| v == "dumb")
}

/// Has the terminal nothing but ASCII? The first of these that is set names the locale (locale(7)).
fn ascii() -> bool {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| std::env::var_os(name).filter(|v| !v.is_empty()));
    let utf8 = locale.is_some_and(|v| {
        let name = v.to_string_lossy().to_ascii_lowercase();
        name.contains("utf-8") || name.contains("utf8")
    });
    is_dumb() || !utf8
}

/// clap's message without its usage, which `--help` shows, with its hints.
fn one_line(e: &clap::Error) -> String {
    let text = e.render().to_string();
    let mut parts: Vec<&str> = Vec::new();
    let mut message = true;
    for line in text.lines() {
        let line = line.trim();
        message &= !line.is_empty() && !line.starts_with("Usage:");
        // That the wrong option could be the name of a command is no help.
        if message || line.starts_with("tip:") && !line.starts_with("tip: to pass") {
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
