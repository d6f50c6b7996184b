//! `cargo xtask vm`: the live tests on other kernels, as guests under software emulation.
//!
//! | module | what |
//! |---|---|
//! | [`kernels`] | which kernels, by `kernels.toml` |
//! | [`archive`] | their packages, from the machine's own mirror |
//! | [`modules`] | the modules that tests need |
//! | [`cpio`], [`image`] | the initramfs: tests, tcptrace, other programs, `init.sh` |
//! | [`guest`] | qemu |
//! | [`report`] | counts what a guest prints |

mod archive;
mod cpio;
mod guest;
mod image;
mod kernels;
mod modules;
mod report;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    thread::available_parallelism,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

pub use self::report::Counts;
use self::{
    kernels::{Expect, Kernel},
    report::{REFUSAL, Report},
};
use crate::{apt, sh};

/// What this needs beside what the live tests need.
const PACKAGES: [apt::Package; 5] = [
    ("binutils", Some("strip")),
    ("busybox-static", Some("busybox")),
    ("debian-archive-keyring", None),
    ("qemu-system-x86", Some(guest::QEMU)),
    ("xz-utils", Some("xz")),
];

/// Modules that tests and their programs need, where they are modules. A guest loads none by itself.
const MODULES: [&str; 10] =
    ["veth", "tun", "inet_diag", "tcp_diag", "crc32c_generic", "md5", "sha1_generic", "hmac", "sctp", "sctp_diag"];

/// How many times longer than on a host tests wait before they give up.
const SLOWNESS: u32 = 8;
/// Connections of a storm: a host takes more.
const CONNECTIONS: u32 = 2000;
/// SYNs of a flood.
const SYNS: u32 = 20_000;
/// Guests at the same time for each CPU, in halves: a guest keeps one CPU busy, but for a third of its time it waits.
const PARALLEL_HALVES: usize = 3;
/// Tests at the same time in a guest.
const THREADS: usize = 3;
/// Tests that rest on hooks of which there are several kinds: on who accepted a connection, on requests, on queues. They run with every
/// tier; all others rest on tracepoints, whatever the tier, and run with the one that adds nothing to these.
const TIER_TESTS: &str = "process:: accept tfo trap2 trap5 quick_normal quick_ipv6 flood:: queues_";
/// Half of all tests, by the time that they take: in one guest these, in another one all others. Guests that take equally long leave no
/// CPU without work in the end.
const HALF: [&str; 4] = ["close::", "open::", "queues_", "recording::"];
/// What the collector alone decides, whatever the kernel: tested on this host, not in guests.
const OF_COLLECTOR: &str = "groups::";

/// Run live tests on the kernel called `name`, or on all; counts of everything. `tests`: those whose names contain one of these, with the
/// tiers of `TCPTRACE_TEST_TIER`; empty: all, with each tier those that rest on it.
///
/// # Errors
/// What is needed cannot be installed, built or fetched. A guest's failure is counted.
pub fn run(name: Option<&str>, tests: &[String]) -> Result<Counts> {
    let kernels = kernels::chosen(name)?;
    apt::ensure(&PACKAGES)?;
    let cache = sh::target_dir()?.join("vm");
    fs::create_dir_all(&cache)?;
    let binaries = binaries()?;
    // What is tested is what is released: it takes the place of the one that the tests were built with.
    let release = sh::target_dir()?.join("release/tcptrace");
    sh::run(sh::cargo().args(["build", "--quiet", "--release", "--package", "tcptrace"]))?;
    let base = image::base(&binaries.tests, &release, &binaries.tcptrace)?;
    let mut jobs = Vec::new();
    // The newest first: it takes longest.
    for kernel in kernels.into_iter().rev() {
        let (runs, kernel) = (runs(kernel.expect, &binaries.tcptrace, tests), Arc::new(prepare(kernel, &cache)?));
        jobs.extend(runs.into_iter().map(|run| (Arc::clone(&kernel), run)));
    }
    let waiting = Mutex::new(jobs.into_iter());
    let next = || waiting.lock().ok().and_then(|mut jobs| jobs.next());
    let work = || {
        let mut counts = Counts::default();
        while let Some((kernel, run)) = next() {
            let guest = test(&kernel, &run, &cache, &base, &binaries.tcptrace).unwrap_or_else(|error| {
                eprintln!("{} {}: {error:#}", kernel.name, run.name);
                Counts { failed: 1, ..Counts::default() }
            });
            add(&mut counts, guest);
        }
        counts
    };
    let parallel = (available_parallelism()?.get() * PARALLEL_HALVES / 2).max(1);
    let mut all = Counts::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..parallel).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            add(&mut all, worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
    Ok(all)
}

fn add(to: &mut Counts, counts: Counts) {
    to.passed += counts.passed;
    to.failed += counts.failed;
    to.ignored += counts.ignored;
    to.skipped += counts.skipped;
}

/// A kernel that is there.
struct Prepared {
    name: String,
    lacks: Vec<String>,
    unpacked: archive::Unpacked,
    modules: Vec<modules::Module>,
}

fn prepare(kernel: Kernel, cache: &Path) -> Result<Prepared> {
    let unpacked = archive::fetch(&kernel, cache).with_context(|| kernel.name.clone())?;
    let modules = modules::closure(&unpacked.modules, &MODULES)?;
    Ok(Prepared { name: kernel.name, lacks: kernel.lacks, unpacked, modules })
}

/// One guest, from its boot to its last line.
fn test(kernel: &Prepared, run: &Run, cache: &Path, base: &[u8], tcptrace: &Path) -> Result<Counts> {
    let Prepared { unpacked, modules, .. } = kernel;
    let name = &format!("{} {}", kernel.name, run.name);
    let file = format!("{}-{}", kernel.name, run.name);
    let initrd = cache.join(format!("{file}.initrd"));
    fs::write(&initrd, [base, &image::own(modules, &plan(run, tcptrace))].concat())?;
    let console = cache.join(format!("{file}.console"));
    println!("{name}: booting {} {}", unpacked.package, unpacked.version);
    let began = Instant::now();
    let mut report = Report::new(&kernel.lacks);
    guest::run(&unpacked.image, &initrd, &console, |line| {
        println!("{name}: {line}");
        report.line(line);
    })?;
    report.finish(std::slice::from_ref(&run.name));
    if report.counts.failed > 0 {
        let text = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].iter().for_each(|line| println!("{name}: console: {line}"));
        report.wrong.iter().for_each(|wrong| println!("{name}: FAILED: {wrong}"));
    }
    let Counts { passed, failed, skipped, .. } = report.counts;
    let seconds = began.elapsed().as_secs();
    println!("{name}: {}: {passed} passed, {failed} failed, {skipped} skipped ({seconds} s)", report.release);
    fs::remove_file(&initrd)?;
    Ok(report.counts)
}

/// What a guest does.
struct Run {
    name: String,
    command: String,
}

/// What a kernel is tested with.
fn runs(expect: Expect, tcptrace: &Path, tests: &[String]) -> Vec<Run> {
    if expect == Expect::Refused {
        return vec![Run { name: REFUSAL.to_owned(), command: format!("{} trace", tcptrace.display()) }];
    }
    let settings =
        format!("TCPTRACE_TEST_SLOWNESS={SLOWNESS} TCPTRACE_TEST_CONNECTIONS={CONNECTIONS} TCPTRACE_TEST_SYNS={SYNS}");
    let run = |name: &str, tier: &str, tests: &str| Run {
        name: name.to_owned(),
        command: format!(
            "env {settings} TCPTRACE_TEST_TIER={tier} TCPTRACE_TEST_TIERS=fentry,kprobe,tracepoint {} --test-threads {THREADS} {tests}",
            image::TESTS
        ),
    };
    if tests.is_empty() {
        return vec![
            run("tracepoint-1", "tracepoint", &HALF.join(" ")),
            run("auto", "auto", TIER_TESTS),
            run("kprobe", "kprobe", TIER_TESTS),
            run("tracepoint-2", "tracepoint", &format!("--skip {} --skip {OF_COLLECTOR}", HALF.join(" --skip "))),
        ];
    }
    let tiers = env::var("TCPTRACE_TEST_TIER").unwrap_or_else(|_| "auto".to_owned());
    tiers.split(',').map(|tier| run(tier, tier, &tests.join(" "))).collect()
}

/// What `/init` does. What `doctor` says goes to the console's file, for whoever looks into a failure.
fn plan(Run { name, command, .. }: &Run, tcptrace: &Path) -> String {
    format!(
        "{} doctor --color never >/dev/ttyS0 2>&1\necho 'vm: begin {name}'\n{command}\necho \"vm: end {name} $?\"\n",
        tcptrace.display()
    )
}

struct Binaries {
    tests: PathBuf,
    tcptrace: PathBuf,
}

/// Build the live tests and the tcptrace that they call.
fn binaries() -> Result<Binaries> {
    let mut command = sh::cargo();
    command.args([
        "test",
        "--package",
        "tcptrace",
        "--test",
        "live",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]);
    let output = command.stderr(Stdio::inherit()).output().context("cargo test")?;
    ensure!(output.status.success(), "`{}` failed: {}", sh::shown(&command), output.status);
    let text = String::from_utf8(output.stdout)?;
    let artifacts: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let find = |kind: &str, name: &str| {
        let found = artifacts.iter().find(|a| a["target"]["kind"][0] == kind && a["target"]["name"] == name);
        found
            .and_then(|a| a["executable"].as_str())
            .map(PathBuf::from)
            .with_context(|| format!("cargo built no {name}"))
    };
    Ok(Binaries { tests: find("test", "live")?, tcptrace: find("bin", "tcptrace")? })
}

/// The task: true if nothing failed.
///
/// # Errors
/// As [`run`].
pub fn task(name: Option<&str>, names: &[String]) -> Result<bool> {
    let Counts { passed, failed, skipped, .. } = run(name, names)?;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reports_its_run() {
        let runs = runs(Expect::Works, Path::new("/t"), &[]);
        let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(names, ["tracepoint-1", "auto", "kprobe", "tracepoint-2"]);
        let half = |run: &Run| run.command.split_once("--test-threads 3 ").expect("tests").1.to_owned();
        let (first, second) = (half(&runs[0]), half(&runs[3]));
        assert_eq!(first, "close:: open:: queues_ recording::");
        assert_eq!(second, format!("--skip {} --skip groups::", first.replace(' ', " --skip ")), "each once");
        let plan = plan(&runs[2], Path::new("/t"));
        assert!(plan.contains("\necho 'vm: begin kprobe'\n"), "{plan}");
        assert!(plan.contains("\necho \"vm: end kprobe $?\"\n"), "{plan}");
        assert_eq!(super::runs(Expect::Works, Path::new("/t"), &["close".to_owned()]).len(), 1);
        assert_eq!(super::runs(Expect::Refused, Path::new("/t"), &[])[0].command, "/t trace");
    }
}
