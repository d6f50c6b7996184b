//! `watch`: findings only, to the output and to a command; the worst decides the exit status.

use std::{cell::Cell, path::PathBuf, process::ExitCode, rc::Rc, time::Duration};

use super::{Queues, Show, args, exec::Exec, show_config, stack_rate};
use crate::{
    detect::config::{Config, Wrong},
    error::{Error, Result},
    frame::fact,
    kernel::load::Queues as Wanted,
    model::{Finding, Observer, Severity, Status},
    pipeline::Records,
    sink::{Sink, Summary, json},
};

/// How often listeners are read: an overflow is to be told within a second.
const INTERVAL: Duration = Duration::from_millis(500);
/// `--fail-on` fired.
const FIRED: u8 = 10;

/// What `watch` does beside printing.
#[derive(Debug)]
pub struct Watch {
    /// Limits of rules.
    pub config: Config,
    /// A command that gets each finding.
    pub exec: Option<String>,
    /// The run ends with status 10 if something as bad was found.
    pub fail_on: Option<Severity>,
    /// The worst so far.
    pub worst: Rc<Cell<Option<Severity>>>,
}

impl Watch {
    /// What will have been found.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict { fail_on: self.fail_on, worst: self.worst.clone() }
    }
}

/// What a run comes to, as an exit status.
#[derive(Debug, Default)]
pub struct Verdict {
    fail_on: Option<Severity>,
    worst: Rc<Cell<Option<Severity>>>,
}

impl Verdict {
    /// Was something as bad found as `--fail-on` asks for?
    #[must_use]
    pub fn fires(&self) -> bool {
        self.fail_on.zip(self.worst.get()).is_some_and(|(least, worst)| worst >= least)
    }

    /// The exit status of a run that went well.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        if self.fires() { ExitCode::from(FIRED) } else { ExitCode::SUCCESS }
    }
}

/// # Errors
/// [`Error::Usage`], [`Error::Config`].
pub(super) fn config(w: args::Watch) -> Result<super::Config> {
    if w.print_config {
        return Ok(super::Config::PrintConfig);
    }
    let watch = Watch {
        config: w.config.map_or_else(|| Ok(Config::default()), read)?,
        exec: w.exec,
        fail_on: w.fail_on.map(Severity::from),
        worst: Rc::default(),
    };
    let queues =
        Queues { wanted: Wanted::Requests, probes: true, interval: INTERVAL, closing: true, ..Queues::default() };
    let show = show_config(Records::Findings, w.show)?;
    let stack_rate = stack_rate(&show, &w.stacks)?;
    Ok(super::Config::Show(Box::new(Show { queues, stack_rate, watch: Some(watch), ..show })))
}

fn read(path: PathBuf) -> Result<Config> {
    let name = path.display();
    let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => Error::Config(format!("--config: {name} is not text in UTF-8")),
        _ => Error::Config(format!("--config: cannot read {name}: {}", crate::error::reason(&e))),
    })?;
    Config::parse(&text)
        .map_err(|Wrong { line, column, what }| Error::Config(format!("{name}:{line}:{column}: {what}")))
}

/// Hands findings on to a sink and to a command, and remembers the worst. No other record comes here.
#[derive(Debug)]
pub struct Watcher<K> {
    sink: K,
    worst: Rc<Cell<Option<Severity>>>,
    exec: Option<Exec>,
    encoder: json::encode::Encoder,
}

impl<K: Sink> Watcher<K> {
    /// # Errors
    /// No thread could be had for the command.
    pub fn new(sink: K, watch: &Watch) -> Result<Self> {
        let exec = watch.exec.as_deref().map(Exec::start).transpose()?;
        Ok(Self { sink, worst: watch.worst.clone(), exec, encoder: json::encode::Encoder::default() })
    }
}

impl<K> Observer for Watcher<K> {}

impl<K: Sink> Sink for Watcher<K> {
    fn clock(&mut self, offset_ns: i64) {
        self.encoder.offset_ns = Some(offset_ns);
        self.sink.clock(offset_ns);
    }

    fn start(&mut self, ts: u64, start: &fact::Start, filters: &[(String, String)]) {
        self.sink.start(ts, start, filters);
    }

    fn loss(&mut self, ts: u64, loss: &fact::Loss) {
        self.sink.loss(ts, loss);
    }

    fn finding(&mut self, finding: &Finding) {
        if finding.status == Status::Firing {
            self.worst.set(self.worst.get().max(Some(finding.severity)));
        }
        self.sink.finding(finding);
        if let Some(exec) = &self.exec {
            let mut line = Vec::new();
            json::finding_line(finding, &mut line, &mut self.encoder);
            exec.tell(line);
        }
    }

    fn ended(&mut self, ts: u64) {
        self.sink.ended(ts);
    }

    fn summary(&mut self, ts: u64, summary: &Summary) {
        self.sink.summary(ts, summary);
    }

    fn flush(&mut self, last: bool) -> Result<()> {
        let flushed = self.sink.flush(last);
        if last && let Some(exec) = self.exec.take() {
            exec.finish();
        }
        flushed
    }
}
