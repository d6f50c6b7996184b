//! `report`: a recording is read to its end, then its page is written.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use jiff::tz::TimeZone;

use super::{args, ascii, color, filter, stop::Signals};
use crate::{
    detect::{self, Detect},
    error::{Error, Result},
    filter::Filter,
    pipeline::{self, Gate, Gather, Messages, Records, Watched, say},
    report::Report,
    sink::{
        html,
        json::report_line,
        output::Stdout,
        text::{self, Look, TimeMode, terminal_width},
    },
    source::Replay,
};

/// Columns where there is no terminal.
const WIDTH: usize = 80;

/// See [`super::Config::Report`].
#[derive(Debug)]
pub struct Config {
    file: PathBuf,
    filter: Filter,
    /// Where the page for browsers goes.
    html: Option<PathBuf>,
    json: bool,
    top: usize,
    time: TimeMode,
    color: bool,
    ascii: bool,
    verbose: bool,
    quiet: bool,
}

impl Config {
    /// # Errors
    /// [`Error::Usage`].
    pub(super) fn new(r: args::Report) -> Result<Self> {
        if r.time == args::Time::Delta {
            return Err(Error::Usage("--time delta: a page has no line before; local, utc or mono".to_owned()));
        }
        if r.json && r.html.as_deref() == Some(Path::new("-")) {
            return Err(Error::Usage("--html - and --json both write standard output: give --html a file".to_owned()));
        }
        Ok(Self {
            filter: filter(&r.filters, Some(Records::Report), false)?,
            file: r.file,
            html: r.html,
            json: r.json,
            top: r.top.into(),
            time: r.time.into(),
            color: color(r.color),
            ascii: ascii(),
            verbose: r.noise.verbose,
            quiet: r.noise.quiet,
        })
    }
}

/// Read, then write.
///
/// # Errors
/// The file is no recording, or something is missing in it (the page is about the rest then), or the output cannot be written.
pub async fn run(config: Config) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut source = Replay::open(&config.file)?;
    let mut report = Report::new(source.name().to_owned(), config.top);
    let mut gate = Gate::new(Gather(&mut report), Records::Report, config.filter.clone(), None);
    gate.verbose = config.verbose;
    gate.ladders = config.html.is_some().then(Box::default);
    gate.detect = Some(Box::new(Detect::new(detect::config::Config::default())));
    let messages = Messages::new(false, config.verbose, false);
    let read =
        pipeline::run(&mut Watched::new(&mut source, !config.quiet), None, gate, messages, None, &mut signals).await;
    let read = read.and_then(|()| source.check());
    // Nothing of it is a recording.
    if report.parts.is_empty() {
        return match read {
            // Somebody had enough before it began.
            Ok(()) if !source.is_over() => Ok(ExitCode::SUCCESS),
            Ok(()) => Err(Error::Damaged { path: source.name().to_owned(), what: "it holds no trace".to_owned() }),
            Err(e) => Err(e),
        };
    }
    report.unread = match &read {
        Err(Error::Damaged { what, .. }) => Some(what.clone()),
        Err(e) => Some(e.to_string()),
        Ok(()) => (!source.is_over()).then(|| "reading it was interrupted".to_owned()),
    };
    write(&report, &config)?;
    read.map(|()| ExitCode::SUCCESS)
}

fn write(report: &Report, config: &Config) -> Result<()> {
    let zone = if config.time == TimeMode::Local { TimeZone::system() } else { TimeZone::UTC };
    let look = Look {
        width: Some(terminal_width().unwrap_or(WIDTH)),
        follow: false,
        color: config.color,
        time: config.time,
        zone,
        header: false,
        ascii: config.ascii,
    };
    let stdout = |bytes: &[u8]| Stdout.write_all(bytes).map_err(|e| Error::io("write stdout", e));
    if config.json {
        stdout(&report_line(report))?;
    }
    match &config.html {
        Some(to) if to == Path::new("-") => stdout(html::page(report, &look).as_bytes()),
        Some(to) => {
            let name = to.display();
            std::fs::write(to, html::page(report, &look)).map_err(|e| Error::io(format!("write {name}"), e))?;
            if !config.quiet {
                say(&format!("the page is in {name}"));
            }
            Ok(())
        }
        None if config.json => Ok(()),
        None => stdout(&text::report(report, look)),
    }
}
