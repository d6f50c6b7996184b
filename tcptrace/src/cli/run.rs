//! Carries a [`Config`] out.

use std::{future::Future, io::Write, path::Path, process::ExitCode, time::Duration};

use jiff::tz::TimeZone;
use tcptrace_common::settings::side;

use super::{
    Config, Queues, Record, Show,
    command::{CommandLine, Held},
    complete, man,
    stop::Signals,
};
use crate::{
    error::{Error, Result},
    explain::{self, PAGES, Page},
    filter::{Filter, Sides},
    frame::fact,
    group::Groups,
    kernel::{
        containers,
        doctor::{Report, Verdict},
        facts,
        load::{KernelFilter, Settings},
        monotonic,
        signal::Tier,
    },
    pipeline::{self, Gate, Messages, Records, Tape, say},
    sink::{
        Output, Sink,
        json::{ExplainObject, Json, encode::Encoder, events_markdown},
        output::{Reader, Stdout},
        text::{GroupsText, Headings, Look, QueuesText, Text, TimeMode, bytes, terminal_width},
        time::Stamp,
    },
    source::{
        Replay, Source,
        live::{self, Live},
    },
};

/// Carry it out.
///
/// # Errors
/// What ends the process with another status than 0.
pub fn run(config: Config) -> Result<ExitCode> {
    match config {
        Config::Show(config) => block_on(show(*config))?,
        Config::Record(config) => block_on(record(*config))?,
        Config::Doctor { json, tier, color } => doctor(json, tier, color),
        Config::Explain { page, json, color } => explain(page, json, color).map(|()| ExitCode::SUCCESS),
        Config::Completions(shell) => print(&complete::script(shell)).map(|()| ExitCode::SUCCESS),
        Config::DocsEvents => print(&events_markdown()).map(|()| ExitCode::SUCCESS),
        Config::DocsExplain => print(&explain::markdown()).map(|()| ExitCode::SUCCESS),
        Config::DocsMan(name) => manual(name.as_deref()).map(|()| ExitCode::SUCCESS),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::io("start the event loop", e))?;
    let result = runtime.block_on(future);
    // A thread that still reads standard input is not waited for.
    runtime.shutdown_background();
    Ok(result)
}

fn print(text: &str) -> Result<()> {
    Stdout.write_all(text.as_bytes()).map_err(|e| Error::io("write stdout", e))
}

/// Fork what `--` is followed by, and ask for what it and its descendants do.
async fn hold(line: Option<CommandLine>, filter: &mut Filter) -> Result<Option<Held>> {
    let Some(line) = line else { return Ok(None) };
    let held = Held::start(&line).await?;
    filter.pids.push(held.pid());
    filter.follow = true;
    Ok(Some(held))
}

async fn show(mut config: Show) -> Result<ExitCode> {
    // A replay is over when the time of its events is.
    let (wall, limit_ns) = match config.from {
        Some(_) => (None, config.duration.map(|d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))),
        None => (config.duration, None),
    };
    // Before anything is loaded: a signal during it is not lost.
    let mut signals = Signals::new()?;
    if let Some(path) = config.from.take() {
        let mut source = Replay::open(&path)?;
        show_from(&mut source, None, config, limit_ns, &mut signals).await?;
        return source.check().map(|()| ExitCode::SUCCESS);
    }
    let held = hold(config.command.take(), &mut config.filter).await?;
    let period = if Stdout::reader() == Reader::Waiting { live::PROMPT } else { live::RELAXED };
    let mut source = start(&config.filter, config.buffer, config.tier, config.queues, period, config.verbose)?;
    let tape = config.record.as_deref().map(Tape::create).transpose()?;
    signals.deadline = wall.map(live::after);
    if let Some(code) = signals.begin(held, &mut source, config.quiet).await? {
        return Ok(code);
    }
    let run = show_from(&mut source, tape, config, limit_ns, &mut signals).await;
    // Its programs and rings are of no use any more.
    drop(source);
    signals.exit_code(run).await
}

async fn show_from<S: Source>(
    source: &mut S,
    tape: Option<Tape>,
    config: Show,
    limit_ns: Option<u64>,
    signals: &mut Signals,
) -> Result<()> {
    let out = Output::new(Stdout, Stdout::reader());
    // The last line of JSON says the same; a replay for programs has nothing else to say.
    let summary = !config.quiet && (S::LIVE || !config.json);
    let messages = Messages::new(summary, config.verbose, config.stats);
    if config.json {
        return trace(source, tape, Json::new(out), config, messages, limit_ns, signals).await;
    }
    let width = terminal_width();
    let look = Look {
        width,
        follow: width.is_some(),
        color: config.color,
        time: config.time,
        zone: if config.time == TimeMode::Local { TimeZone::system() } else { TimeZone::UTC },
        header: width.is_some() && !config.ladder,
        ascii: config.ascii,
    };
    let headings = match config.records {
        Records::Transitions => Headings::Transitions,
        Records::Connections if !config.by.is_empty() => {
            // How a recording ends is known at once.
            let sink = GroupsText::new(out, look, width.is_some() && S::LIVE);
            return trace(source, tape, sink, config, messages, limit_ns, signals).await;
        }
        Records::Connections => Headings::Connections,
        Records::Queues => {
            let repaint = width.is_some() && config.count != Some(1);
            let sink = QueuesText::new(out, look, repaint);
            return trace(source, tape, sink, config, messages, limit_ns, signals).await;
        }
    };
    trace(source, tape, Text::new(out, look, headings), config, messages, limit_ns, signals).await
}

async fn trace<S: Source, K: Sink>(
    source: &mut S,
    tape: Option<Tape>,
    sink: K,
    config: Show,
    messages: Messages,
    limit_ns: Option<u64>,
    signals: &mut Signals,
) -> Result<()> {
    let mut gate = Gate::new(sink, config.records, config.filter, config.count);
    gate.verbose = config.verbose;
    gate.requests = config.requests;
    gate.groups = (!config.by.is_empty()).then(|| Groups::new(config.by));
    gate.ladders = config.ladder.then(Box::default);
    pipeline::run(source, tape, gate, messages, limit_ns, signals).await
}

async fn record(mut config: Record) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let held = hold(config.command.take(), &mut config.filter).await?;
    let mut source = start(&config.filter, config.buffer, config.tier, config.queues, live::RELAXED, config.verbose)?;
    let tape = Tape::create(&config.file)?;
    signals.deadline = config.duration.map(live::after);
    let name = tape.name().to_owned();
    if !config.quiet {
        let until = match (&held, config.duration) {
            (Some(_), None) => " until the command ends",
            (_, Some(_)) => "",
            (None, None) => "; Ctrl-C ends it",
        };
        say(&format!("recording to {name}{until}"));
    }
    if let Some(code) = signals.begin(held, &mut source, config.quiet).await? {
        return Ok(code);
    }
    let recorded = pipeline::record(&mut source, tape, &mut signals).await;
    drop(source);
    if let Ok(done) = &recorded
        && !config.quiet
    {
        let mut size = String::new();
        bytes(&mut size, done.bytes);
        // What went into a pipe has no name to be read by.
        let next =
            if config.file == Path::new("-") { String::new() } else { format!("; `tcptrace conns --from {name}`") };
        say(&format!("{} records in {size}, {} events lost{next}", done.records, done.lost));
    }
    signals.exit_code(recorded.map(|_| ())).await
}

/// The live kernel.
fn start(
    filter: &Filter,
    buffer: Option<u64>,
    tier: Tier,
    queues: Queues,
    period: Duration,
    verbose: bool,
) -> Result<Live> {
    let buffer = buffer.unwrap_or(live::DEFAULT_BUFFER);
    let settings = Settings {
        filter: kernel_filter(filter),
        buffer,
        period,
        tier,
        verbose,
        queues: queues.wanted,
        interval: queues.interval,
        request_rate: queues.request_rate,
        patience: if filter.containers.is_empty() { containers::PATIENCE } else { containers::PATIENCE_OF_FILTERS },
        ..Settings::default()
    };
    let name = rustix::system::uname();
    let start = fact::Start {
        host: name.nodename().to_string_lossy().into_owned(),
        // Where there is none, the JSON has none.
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
        kernel: name.release().to_string_lossy().into_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        filters: filter.to_pairs(),
        ..fact::Start::default()
    };
    Ok(Live::start(&settings, start)?)
}

/// The part of a filter that the kernel programs apply: roles, names and states stay with the collector.
fn kernel_filter(f: &Filter) -> KernelFilter {
    fn marked<T: Copy, U>(sides: &Sides<T>, entry: impl Fn(T, u8) -> U) -> Vec<U> {
        let lists = [(&sides.local, side::LOCAL), (&sides.remote, side::REMOTE), (&sides.either, side::EITHER)];
        lists
            .iter()
            .flat_map(|&(list, bit)| list.iter().map(move |&t| (t, bit)))
            .map(|(t, bit)| entry(t, bit))
            .collect()
    }
    KernelFilter {
        netns: f.netns.clone(),
        ports: marked(&f.ports, |p, bit| (p.first, p.last, bit)),
        addrs: marked(&f.addrs, |p, bit| (p.addr, p.len, bit)),
        pids: f.pids.clone(),
        follow: f.follow,
    }
}

fn doctor(json: bool, tier: Tier, color: bool) -> Result<ExitCode> {
    let report = Report::examine(tier);
    let text = if json {
        let mut ts = Vec::new();
        Stamp::default().write(&mut ts, wall_clock());
        report.json(&String::from_utf8_lossy(&ts), monotonic()) + "\n"
    } else {
        report.text(color)
    };
    print(&text)?;
    Ok(match report.verdict() {
        Verdict::CannotRun(_, status) => ExitCode::from(status),
        Verdict::Ready | Verdict::Degraded(_) => ExitCode::SUCCESS,
    })
}

fn explain(page: Option<&'static Page>, json: bool, color: bool) -> Result<()> {
    let value = |name: &str| facts::sysctl(Path::new("/"), name);
    if json {
        let now = monotonic();
        let mut encoder = Encoder::default();
        encoder.offset_ns = Some(wall_clock().wrapping_sub(now as i64));
        let mut lines = Vec::new();
        for page in PAGES.iter().filter(|p| page.is_none_or(|wanted| wanted.name == p.name)) {
            ExplainObject::new(page, &value).encode(now, &mut lines, &mut encoder);
        }
        return print(&String::from_utf8_lossy(&lines));
    }
    let look = explain::Look { width: terminal_width().unwrap_or(80), color };
    match page {
        Some(page) => print(&explain::page(page, look, &value)),
        None => print(&explain::index(look)),
    }
}

fn manual(name: Option<&str>) -> Result<()> {
    match name {
        None => print(&(man::names().join("\n") + "\n")),
        Some(name) => match man::page(name) {
            Some(page) => print(&page),
            None => Err(Error::Usage(format!("no manual page is called that; there are {}", man::names().join(", ")))),
        },
    }
}

/// CLOCK_REALTIME, nanoseconds.
fn wall_clock() -> i64 {
    let real = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    real.tv_sec * 1_000_000_000 + real.tv_nsec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_gets_what_it_can_decide() {
        let mut f = Filter::default();
        for (name, value) in [
            ("lport", "1-9"),
            ("port", "80"),
            ("raddr", "::ffff:10.0.0.0/104"),
            ("netns", "7"),
            ("pid", "3"),
            ("comm", "curl"),
            ("role", "client"),
        ] {
            f.set(name, value).expect("a good filter");
        }
        let k = kernel_filter(&f);
        assert_eq!(k.ports, [(1, 9, side::LOCAL), (80, 80, side::EITHER)]);
        assert_eq!(k.addrs, [([10, 0, 0, 0].into(), 8, side::REMOTE)]);
        assert_eq!((k.netns, k.pids), (vec![7], vec![3]));
    }
}
