//! Carries a [`Config`] out.

use std::{future::Future, io::Write, path::Path, process::ExitCode, time::Duration};

use jiff::tz::TimeZone;
use tcptrace_common::settings::side;

use super::{
    Config, Keeps, Queues, Record, Show, Terminal,
    command::{CommandLine, Held},
    complete, man, report,
    stop::Signals,
    watch::{Watch, Watcher},
};
use crate::{
    detect::{self, Detect},
    error::{Error, Result},
    explain::{self, PAGES, Page},
    filter::{Filter, Sides},
    frame::fact,
    group::Groups,
    kernel::{
        cgroup, containers,
        doctor::{Report, Verdict},
        facts,
        load::{KernelFilter, Settings},
        monotonic,
        signal::Tier,
    },
    pipeline::{self, Deck, Flight, Gate, Messages, Records, Rotation, Tape, Watched, say},
    recording::ring::Room,
    sink::{
        Output, Sink,
        json::{ExplainObject, Json, encode::Encoder, events_markdown},
        output::{Reader, Stdout},
        text::{FindingsText, GroupsText, Headings, Look, QueuesText, Text, TimeMode, bytes, duration, terminal_width},
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
        Config::Report(config) => block_on(report::run(*config))?,
        Config::Doctor { json, tier, color } => doctor(json, tier, color),
        Config::Explain { page, json, look } => explain(page, json, look).map(|()| ExitCode::SUCCESS),
        Config::Completions(shell) => print(&complete::script(shell)).map(|()| ExitCode::SUCCESS),
        Config::PrintConfig => print(&detect::config::printed()).map(|()| ExitCode::SUCCESS),
        Config::DocsEvents => print(&events_markdown()).map(|()| ExitCode::SUCCESS),
        Config::DocsExplain => {
            print(&explain::markdown(&|name, width| ladder(name, width, PRINTED))).map(|()| ExitCode::SUCCESS)
        }
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

pub(super) fn print(text: &str) -> Result<()> {
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
    let verdict = config.watch.as_ref().map(Watch::verdict).unwrap_or_default();
    // Before anything is loaded: a signal during it is not lost.
    let mut signals = Signals::new()?;
    if let Some(path) = config.from.take() {
        let mut source = Replay::open(&path)?;
        let quiet = config.quiet;
        show_from(&mut Watched::new(&mut source, !quiet), None, config, limit_ns, &mut signals).await?;
        return source.check().map(|()| verdict.exit_code());
    }
    let held = hold(config.command.take(), &mut config.filter).await?;
    let period = if Stdout::reader() == Reader::Waiting { live::PROMPT } else { live::RELAXED };
    let how = How { tier: config.tier, stack_rate: config.stack_rate, period, verbose: config.verbose };
    let mut source = start(&config.filter, config.buffer, config.queues, how)?;
    let tape = config.record.as_deref().map(Tape::create).transpose()?;
    signals.deadline = wall.map(live::after);
    if let Some(code) = signals.begin(held, &mut source, config.quiet).await? {
        return Ok(code);
    }
    if config.watch.is_some() && !config.quiet {
        // Nothing is printed while all is well.
        say("watching; `tcptrace explain` lists the rules, Ctrl-C ends it");
    }
    let run = show_from(&mut source, tape, config, limit_ns, &mut signals).await;
    // Its programs and rings are of no use any more.
    drop(source);
    if verdict.fires() {
        return run.map(|()| verdict.exit_code());
    }
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
        if let Some(watch) = &config.watch {
            let sink = Watcher::new(Json::new(out), watch)?;
            return trace(source, tape, sink, config, messages, limit_ns, signals).await;
        }
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
    // A table is painted over the one before.
    let repaint = width.is_some() && !config.dumb;
    let headings = match config.records {
        Records::Transitions => Headings::Transitions,
        Records::Connections if !config.by.is_empty() => {
            // How a recording ends is known at once.
            let sink = GroupsText::new(out, look, repaint && S::LIVE);
            return trace(source, tape, sink, config, messages, limit_ns, signals).await;
        }
        Records::Connections | Records::Report => Headings::Connections,
        Records::Findings => {
            let sink = FindingsText::new(out, look);
            let Some(watch) = &config.watch else { return Ok(()) };
            let sink = Watcher::new(sink, watch)?;
            return trace(source, tape, sink, config, messages, limit_ns, signals).await;
        }
        Records::Queues => {
            let sink = QueuesText::new(out, look, repaint && config.count != Some(1));
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
    gate.detect = config.watch.map(|watch| Box::new(Detect::new(watch.config)));
    pipeline::run(source, tape, gate, messages, limit_ns, signals).await
}

async fn record(mut config: Record) -> Result<ExitCode> {
    let signals = Signals::new()?.with_user()?;
    fits_in_memory(config.keeps)?;
    let held = hold(config.command.take(), &mut config.filter).await?;
    let how = How { tier: config.tier, stack_rate: config.stack_rate, period: live::RELAXED, verbose: config.verbose };
    let source = start(&config.filter, config.buffer, config.queues, how)?;
    match config.keeps {
        Keeps::All => {
            let tape = Tape::create(&config.file)?;
            let begin = format!("recording to {}", tape.name());
            record_to(tape, &begin, source, held, signals, &config).await
        }
        Keeps::Ring(room) => {
            let flight = Flight::new(&config.file, room, config.quiet)?;
            let next = flight.next().map_or_else(String::new, |next| format!(", SIGUSR1 to {next}"));
            let begin = format!("keeping the latest {}: the end writes it to {}{next}", keeping(room), flight.name());
            record_to(flight, &begin, source, held, signals, &config).await
        }
        Keeps::Parts(room, keep) => {
            let rotation = Rotation::create(&config.file, room, keep.map(|n| n as usize))?;
            let begin = format!("recording to {}, {} each", rotation.name(), keeping(room));
            record_to(rotation, &begin, source, held, signals, &config).await
        }
    }
}

async fn record_to(
    deck: impl Deck,
    begin: &str,
    mut source: Live,
    held: Option<Held>,
    mut signals: Signals,
    config: &Record,
) -> Result<ExitCode> {
    signals.deadline = config.duration.map(live::after);
    if !config.quiet {
        let until = match (&held, config.duration) {
            (Some(_), None) => " until the command ends",
            (_, Some(_)) => "",
            (None, None) => "; Ctrl-C ends it",
        };
        say(&format!("{begin}{until}"));
    }
    if let Some(code) = signals.begin(held, &mut source, config.quiet).await? {
        return Ok(code);
    }
    let recorded = pipeline::record(&mut source, deck, &mut signals).await;
    drop(source);
    if let Ok(kept) = &recorded
        && !config.quiet
    {
        // What went into a pipe has no name to be read by.
        let to_pipe = config.file == Path::new("-");
        let next = if to_pipe { String::new() } else { format!("; `tcptrace conns --from {}`", kept.name) };
        say(&format!("{kept}{next}"));
    }
    signals.exit_code(recorded.map(|_| ())).await
}

/// A ring that this machine could not hold.
fn fits_in_memory(keeps: Keeps) -> Result<()> {
    let info = rustix::system::sysinfo();
    let memory = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
    match keeps {
        Keeps::Ring(Room { bytes: Some(asked), .. }) if asked > memory => {
            let mut most = String::new();
            bytes(&mut most, memory);
            Err(Error::Usage(format!("--ring: more than the memory of this machine, which is {most}: ask for less")))
        }
        Keeps::All | Keeps::Ring(_) | Keeps::Parts(..) => Ok(()),
    }
}

/// `64.0M`, `5m00s`, `64.0M or 5m00s`.
fn keeping(room: Room) -> String {
    let mut text = String::new();
    if let Some(n) = room.bytes {
        bytes(&mut text, n);
    }
    if let Some(ns) = room.ns {
        text.push_str(if text.is_empty() { "" } else { " or " });
        duration(&mut text, ns);
    }
    text
}

/// How the live kernel is watched.
struct How {
    tier: Tier,
    stack_rate: u64,
    period: Duration,
    verbose: bool,
}

/// The live kernel.
fn start(filter: &Filter, buffer: Option<u64>, queues: Queues, how: How) -> Result<Live> {
    if let Some(option) = filter.asks_for_cgroup() {
        if !cgroup::is_mounted() {
            // Nothing would ever match.
            return Err(Error::NoCgroups { option });
        }
        if cgroup::children("/").is_empty() {
            say(&format!(
                "--{option}: the cgroup v2 hierarchy has no cgroups yet, and those of v1 are not seen: nothing matches until \
                 one is made there"
            ));
        }
    }
    let buffer = buffer.unwrap_or(live::DEFAULT_BUFFER);
    let settings = Settings {
        filter: kernel_filter(filter),
        buffer,
        period: how.period,
        tier: how.tier,
        verbose: how.verbose,
        stack_rate: how.stack_rate,
        queues: queues.wanted,
        probes: queues.probes,
        interval: queues.interval,
        closing: queues.closing,
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

fn explain(page: Option<&'static Page>, json: bool, terminal: Terminal) -> Result<()> {
    let value = |name: &str| facts::sysctl(Path::new("/"), name);
    if json {
        let now = monotonic();
        let mut encoder = Encoder::default();
        encoder.offset_ns = Some(wall_clock().wrapping_sub(now as i64));
        let mut lines = Vec::new();
        for page in PAGES.iter().filter(|p| page.is_none_or(|wanted| wanted.name == p.name)) {
            let draw = |name: &str, width| ladder(name, width, PRINTED);
            ExplainObject::new(page, &value, &draw).encode(now, &mut lines, &mut encoder);
        }
        return print(&String::from_utf8_lossy(&lines));
    }
    let look = explain::Look { width: terminal_width().unwrap_or(80), color: terminal.color };
    match page {
        Some(page) => print(&explain::page(page, look, &value, &|name, width| ladder(name, width, terminal))),
        None => print(&explain::index(look)),
    }
}

/// What is printed for no terminal in particular.
const PRINTED: Terminal = Terminal { color: false, ascii: false };

/// The ladder of a recording that tcptrace carries. A test draws all of them: none is missing or damaged.
fn ladder(name: &str, width: usize, terminal: Terminal) -> String {
    let Terminal { color, ascii } = terminal;
    let (time, zone) = (TimeMode::Utc, TimeZone::UTC);
    let look = Look { width: Some(width), follow: false, color, time, zone, header: false, ascii };
    explain::recording(name).map(|bytes| pipeline::draw(bytes, look)).transpose().ok().flatten().unwrap_or_default()
}

fn manual(name: Option<&str>) -> Result<()> {
    match name {
        None => print(&(man::names().join("\n") + "\n")),
        Some(name) => match man::page(name, &|name, width| ladder(name, width, Terminal { ascii: true, ..PRINTED })) {
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
