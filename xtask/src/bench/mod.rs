//! `cargo xtask bench`: what tracing costs, tcptrace beside other tools, on this machine.
//!
//! Seven measurements, all but the last in rounds that interleave the subjects, each run with traffic in a network namespace of its own:
//! the connection rate that is left under a storm, the CPU time that tracing adds to a paced connection, what the kernel
//! programs cost by the kernel's own count, the SYN-ACKs that are left of a SYN flood, what watching listeners' queues costs beside
//! other work, what reading a long recording costs, and the memory of a flight recorder's ring. Medians are printed beside what tcptrace has
//! to keep.
//!
//! The added CPU time is that of the threads that make the connections, of the kernel's softirq threads and of the tracer, by
//! the scheduler's own clocks, less the same without a tracer right before or after. It has everything that runs in those
//! threads, colder caches included; not in it is what interrupts an idle CPU, which is timers.

mod check;
pub mod proc;
mod queues;
mod recording;
mod report;
mod ring;
mod stats;
pub mod tracefs;
mod tracer;

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use report::{Cost, Paced, Pair, Report, Storm};
use serde_json::Value;
use stats::StatsEnabled;
use tracer::{SUBJECTS, Subject, Tracer};

use crate::{apt, netns::Netns, sh};

/// The other tools, what reads the namespaces, and their executables.
const PACKAGES: [apt::Package; 3] =
    [("bpftrace", Some("bpftrace")), ("iproute2", Some("ip")), ("libbpf-tools", Some("tcpstates"))];

/// Connections per second of the paced run.
const PACED_RATE: u32 = 5000;
/// How long it is looked at, with and without a tracer.
const PACED_SLICE: Duration = Duration::from_secs(1);
/// Paced pairs of looks in a round. Other work on the host moves single pairs by some microseconds, so there are many.
const PACED_PAIRS: u32 = 8;

/// After a load has ended its last delayed ACKs may still be on their way, for 40 ms, and tcptrace looks at its rings every
/// 100 ms.
const SETTLE: Duration = Duration::from_millis(300);

/// What to do.
#[derive(clap::Args)]
pub struct Options {
    /// Rounds; the tables show their medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Connections of the storm, from two threads.
    #[arg(long, default_value_t = 40_000)]
    connections: u32,
    /// SYNs of a flood, from two threads. Few enough to be sent before the first SYN-ACK is sent again, a second later.
    #[arg(long, default_value_t = 200_000)]
    syns: u32,
    /// Only these subjects (and nothing attached), by their names in the tables.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these measurements.
    #[arg(long, value_delimiter = ',')]
    measure: Vec<Measure>,
    /// Print one JSON object in place of the tables.
    #[arg(long)]
    json: bool,
}

/// A measurement.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Measure {
    /// The rate that is left.
    Storm,
    /// The CPU time that a paced connection costs.
    Paced,
    /// Nanoseconds per run of the kernel programs.
    Cost,
    /// The SYN-ACKs per second that are left in a SYN flood.
    Flood,
    /// What `queues` costs beside other work with timers.
    Timers,
    /// How long `report` of ten million transitions takes.
    Report,
    /// The memory of a flight recorder's ring.
    Ring,
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether the person has had enough. Asked wherever this program waits; what it made is removed on the way out.
///
/// # Errors
/// Ctrl-C or SIGTERM.
fn interrupted() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

extern "C" fn on_signal(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Measure and print. True: every requirement is met.
///
/// # Errors
/// Not root, a tool is missing or fails, Ctrl-C. Namespaces, files and settings are put back.
pub fn run(options: &Options) -> Result<bool> {
    ensure!(sh::is_root(), "needs root: run `sudo -E env PATH=$PATH cargo xtask bench`");
    let subjects = chosen(&options.only)?;
    apt::ensure(&PACKAGES)?;
    if subjects.iter().any(|subject| subject.is_ours()) {
        sh::run(sh::cargo().args(["build", "--quiet", "--release", "--package", "tcptrace"]))?;
    }
    tracefs::provide()?;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does nothing but store a flag.
        unsafe { libc::signal(signal, on_signal as *const () as libc::sighandler_t) };
    }
    let bench = Bench { subjects, connections: options.connections, files: Files::new()? };
    let wanted = |measure| options.measure.is_empty() || options.measure.contains(&measure);
    let mut report = Report::new(options.rounds, options.connections, busy_before()?);
    for round in 0..options.rounds {
        for subject in bench.order(round) {
            if wanted(Measure::Storm) {
                eprintln!("storm {}/{}: {}", round + 1, options.rounds, subject.name);
                report.storm(subject, bench.storm(subject)?);
            }
        }
    }
    for round in 0..options.rounds {
        for subject in bench.order(round) {
            if wanted(Measure::Paced) && subject.name != SUBJECTS[0].name {
                eprintln!("paced {}/{}: {}", round + 1, options.rounds, subject.name);
                for pair in bench.paced(subject)? {
                    report.paced(subject, pair);
                }
            }
        }
    }
    if wanted(Measure::Cost) {
        let _enabled = StatsEnabled::set()?;
        for subject in bench.subjects.iter().filter(|subject| subject.name != SUBJECTS[0].name) {
            eprintln!("cost of the programs: {}", subject.name);
            report.cost(subject, bench.cost(subject)?);
        }
    }
    let (mut queues, out) = (queues::Queues::default(), bench.files.0.join("out"));
    for round in 0..options.rounds {
        if wanted(Measure::Flood) {
            queues.flood(round, options.syns, &out)?;
        }
    }
    if wanted(Measure::Timers) {
        let _enabled = StatsEnabled::set()?;
        for round in 0..options.rounds {
            queues.timers(round, &out)?;
        }
    }
    let mut recording = recording::Recording::default();
    for round in 0..options.rounds {
        if wanted(Measure::Report) {
            recording.round(round, &bench.files.0)?;
        }
    }
    let mut ring = ring::Ring::default();
    if wanted(Measure::Ring) {
        ring.run()?;
    }
    let met = report.met() && queues.met() && recording.met() && ring.met();
    if options.json {
        let mut object = report.to_json();
        object["queues"] = queues.to_json();
        object["recording"] = recording.to_json();
        object["ring"] = ring.to_json();
        object["met"] = met.into();
        println!("{object}");
    } else {
        print!("{}{}{}{}", report.to_text(), queues.to_text(), recording.to_text(), ring.to_text());
    }
    Ok(met)
}

/// Share of the host's CPU time that something else takes, before anything is measured.
fn busy_before() -> Result<f64> {
    let (began, before) = (Instant::now(), proc::host_busy()?);
    thread::sleep(Duration::from_secs(2));
    let whole = began.elapsed().as_secs_f64() * thread::available_parallelism()?.get() as f64;
    Ok((proc::host_busy()?.saturating_sub(before).as_secs_f64() / whole).min(1.0))
}

fn chosen(only: &[String]) -> Result<Vec<&'static Subject>> {
    for name in only {
        let known: Vec<&str> = SUBJECTS.iter().map(|subject| subject.name).collect();
        ensure!(known.contains(&name.as_str()), "no subject `{name}`; there are: {}", known.join(", "));
    }
    let wanted = |subject: &Subject| {
        only.is_empty() || subject.name == SUBJECTS[0].name || only.iter().any(|name| name == subject.name)
    };
    Ok(SUBJECTS.iter().filter(|subject| wanted(subject)).collect())
}

struct Bench {
    subjects: Vec<&'static Subject>,
    connections: u32,
    files: Files,
}

impl Bench {
    /// The subjects, each round starting with another one: a machine that changes its speed changes it for all.
    fn order(&self, round: u32) -> impl Iterator<Item = &'static Subject> {
        let first = round as usize % self.subjects.len();
        let (before, after) = self.subjects.split_at(first);
        after.iter().chain(before).copied().collect::<Vec<_>>().into_iter()
    }

    fn storm(&self, subject: &Subject) -> Result<Storm> {
        let connections = self.connections.to_string();
        let (load, run) = self.one(subject, &["--connections", &connections], |_, _| Ok(()))?;
        let load_us = number(&load, "cpu_ns")? / 1e3 / number(&load, "connections")?;
        let mut storm = Storm { rate: number(&load, "per_second")?, load_us, ..Storm::default() };
        if let Some(run) = run {
            storm.rss = run.ended.rss;
            storm.cpu = run.ended.cpu;
            let printed = fs::metadata(&run.out)?.len();
            let silent = matches!(subject.program, tracer::Program::Task(_));
            ensure!(silent || printed > 0, "{} wrote nothing", subject.name);
            storm.counts = match subject.program {
                tracer::Program::Nothing | tracer::Program::Task(_) | tracer::Program::Other(..) => None,
                tracer::Program::Tcptrace(["record", ..]) => Some(check::count_recording(&run.out)?),
                tracer::Program::Tcptrace(_) => Some(check::count_file(&run.out)?),
            };
            storm.lost = match storm.counts {
                Some(counts) => counts.lost.with_context(|| format!("{}: no summary", subject.name))?,
                None => check::lost_in(&run.messages) + lost_in_file(&run.out)?,
            };
        }
        Ok(storm)
    }

    /// One load goes on all the time while the tracer comes and goes: what the machine does meanwhile moves the cost of a connection
    /// by more than a tracer does, from one ten seconds to the next.
    fn paced(&self, subject: &Subject) -> Result<Vec<Pair>> {
        let netns = Netns::new()?;
        let mut load = Paceload::start(&netns)?;
        let out = self.files.0.join("out");
        let mut pairs = Vec::new();
        for _ in 0..PACED_PAIRS {
            let before = load.slice(None)?;
            let tracer = Tracer::start(subject, netns.inode(), &out)?;
            let with = load.slice(tracer.as_ref())?;
            if let Some(tracer) = tracer {
                tracer.end(subject.is_ours())?;
            }
            let after = load.slice(None)?;
            let without = Paced { load_us: (before.load_us + after.load_us) / 2.0, ..before };
            pairs.push(Pair { without, with });
        }
        Ok(pairs)
    }

    fn cost(&self, subject: &Subject) -> Result<Vec<Cost>> {
        let connections = self.connections.to_string();
        let mut costs = Vec::new();
        self.one(subject, &["--connections", &connections], |tracer, when| {
            if when == When::Before {
                return Ok(());
            }
            for id in tracer.map_or_else(Vec::new, Tracer::programs) {
                costs.push(Cost { id, cost: proc::program_cost(id)? });
            }
            Ok(())
        })?;
        Ok(costs)
    }

    /// One run: a fresh namespace, the tracer attached, the load with `look` before and after it, the end.
    fn one(
        &self,
        subject: &Subject,
        load: &[&str],
        mut look: impl FnMut(Option<&Tracer>, When) -> Result<()>,
    ) -> Result<(Value, Option<Run>)> {
        interrupted()?;
        let netns = Netns::new()?;
        let out = self.files.0.join("out");
        if let Err(e) = fs::remove_file(&out)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            return Err(e).with_context(|| format!("cannot remove {}", out.display()));
        }
        let tracer = Tracer::start(subject, netns.inode(), &out)?;
        let xtask = env::current_exe().context("where this binary is")?;
        let mut command = netns.command(xtask);
        look(tracer.as_ref(), When::Before)?;
        let printed = sh::read(command.arg("load").args(load))?;
        interrupted()?;
        look(tracer.as_ref(), When::After)?;
        let load = serde_json::from_str(&printed).context("the load's result")?;
        let Some(tracer) = tracer else { return Ok((load, None)) };
        // The last connections close after the load has ended: delayed ACKs take 40 ms.
        thread::sleep(SETTLE);
        let messages = self.files.0.join("out.messages");
        let ended = tracer.end(subject.is_ours())?;
        Ok((load, Some(Run { ended, out, messages: fs::read_to_string(messages)? })))
    }
}

/// A load at a steady rate. Killed on drop.
struct Paceload(std::process::Child);

impl Paceload {
    fn start(netns: &Netns) -> Result<Self> {
        let xtask = env::current_exe().context("where this binary is")?;
        let (rate, endless) = (PACED_RATE.to_string(), u32::MAX.to_string());
        let mut command = netns.command(xtask);
        command.args(["load", "--rate", &rate, "--connections", &endless]).stdout(std::process::Stdio::null());
        let load = Self(command.spawn().context("starting the load")?);
        thread::sleep(PACED_SLICE);
        Ok(load)
    }

    /// CPU times of one slice.
    fn slice(&mut self, tracer: Option<&Tracer>) -> Result<Paced> {
        interrupted()?;
        // What was attached or let go a moment ago.
        thread::sleep(SETTLE);
        ensure!(self.0.try_wait()?.is_none(), "the load ended");
        let cpu = || Ok::<_, anyhow::Error>(proc::process_time(self.0.id())? + proc::softirq_threads()?);
        let tracer_cpu = || tracer.map_or(Ok(Duration::ZERO), Tracer::cpu);
        let opened = || proc::passive_opens(self.0.id());
        let (began, first, before, tracer_before) = (Instant::now(), opened()?, cpu()?, tracer_cpu()?);
        thread::sleep(PACED_SLICE);
        let (seconds, after, tracer_after, last) = (began.elapsed().as_secs_f64(), cpu()?, tracer_cpu()?, opened()?);
        let connections = last.saturating_sub(first) as f64;
        ensure!(connections > 0.0, "the load makes no connections");
        let us = |from: Duration, to: Duration| (to - from).as_secs_f64() * 1e6 / connections;
        Ok(Paced {
            load_us: us(before, after),
            tracer_us: us(tracer_before, tracer_after),
            rate: connections / seconds,
        })
    }
}

impl Drop for Paceload {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// When a run is looked at: the tracer is attached, and the load has not begun or has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    After,
}

/// What a run left.
struct Run {
    ended: tracer::Ended,
    out: PathBuf,
    messages: String,
}

/// bpftrace tells what it lost among its output; it is at the end, if anywhere.
fn lost_in_file(out: &Path) -> Result<u64> {
    Ok(check::lost_in(&String::from_utf8_lossy(&fs::read(out)?)))
}

fn number(load: &Value, name: &str) -> Result<f64> {
    load[name].as_f64().with_context(|| format!("the load's result has no {name}"))
}

/// A directory for outputs, removed on drop.
struct Files(PathBuf);

impl Files {
    fn new() -> Result<Self> {
        let dir = sh::target_dir()?.join(format!("bench-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}
