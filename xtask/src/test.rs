//! `cargo xtask test`: every check and test of the project in order, and one closing line `N passed, N failed`.
//!
//! A step counts as one test; cargo's own test results are counted one by one. A step that fails does not keep the others
//! from running.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use crate::{apt, bpf, docs, sh, tidy, vm};

/// What the live tests run: (package, executable). `tcpstates` is compared with, the servers and clients are peers, the browser draws reports,
/// shells complete, nss_wrapper knows users of its own, and programs of several compilers have stacks to unwind.
const PACKAGES: [apt::Package; 17] = [
    ("binutils", Some("strip")),
    ("chromium", Some("chromium")),
    ("curl", Some("curl")),
    ("fish", Some("fish")),
    ("g++", Some("c++")),
    ("gcc", Some("cc")),
    ("iproute2", Some("ip")),
    ("libbpf-tools", Some("tcpstates")),
    ("libnss-wrapper", None),
    ("nginx-light", Some("nginx")),
    ("openssh-client", Some("ssh-keyscan")),
    ("python3", Some("/usr/bin/python3")),
    ("systemd", Some("systemd-socket-activate")),
    ("tshark", Some("tshark")),
    ("util-linux", Some("unshare")),
    ("wget", Some("wget")),
    ("zsh", Some("zsh")),
];

/// Live tests that belong to `--quick` have names that start with this.
const QUICK: &str = "quick_";

/// Counts of what ran.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// Run everything, or with `quick` what fits in three minutes. True: nothing failed.
///
/// # Errors
/// None of its own: what goes wrong is a failed step.
pub fn run(quick: bool) -> Result<bool> {
    let mut all = Tally::default();
    let mut step = |name: &str, work: &mut dyn FnMut() -> Result<Tally>| {
        eprintln!("── {name}");
        let began = Instant::now();
        let tally = work().unwrap_or_else(|error| {
            eprintln!("{name}: {error:#}");
            Tally { failed: 1, ..Tally::default() }
        });
        let verdict = if tally.failed == 0 { "ok" } else { "FAILED" };
        eprintln!("── {name}: {verdict} ({:.1} s)", began.elapsed().as_secs_f64());
        all.add(&tally);
    };

    step("install", &mut || once(install(quick)));
    step("fmt", &mut || once(sh::run(sh::cargo().args(["fmt", "--all", "--check"]))));
    step("tidy", &mut || once(tidy::run()));
    step("clippy", &mut || once(clippy()));
    let mut rebuilt = None;
    if quick {
        step("kernel objects: hashes", &mut || once(bpf::check(bpf::Depth::Hashes).map(|_| ())));
    } else {
        step("kernel objects", &mut || {
            if let bpf::Checked::Rebuilt(dir) = bpf::check(bpf::Depth::Rebuild)? {
                rebuilt = Some(dir);
            }
            once(Ok(()))
        });
        step("clippy of the kernel programs", &mut || once(clippy_bpf()));
    }
    step("release build", &mut || once(sh::run(sh::cargo().args(["build", "--release", "--package", "tcptrace"]))));
    step("docs", &mut || once(docs::run(true)));
    if quick {
        step("tests", &mut || quick_tests());
    } else {
        step("tests", &mut || tests(&["--workspace"], &[], None));
        if let Some(dir) = &rebuilt {
            step("tests with the rebuilt kernel objects", &mut || tests(&["--package", "tcptrace"], &[], Some(dir)));
        }
    }
    if !quick {
        step("live tests on other kernels", &mut || on_guests());
    }
    if all.ignored > 0 {
        eprintln!("{} tests are marked as ignored and did not run", all.ignored);
    }
    std::io::stderr().flush()?;
    println!("{} passed, {} failed", all.passed, all.failed);
    Ok(all.failed == 0)
}

/// A step that is one test.
fn once(done: Result<()>) -> Result<Tally> {
    done.map(|()| Tally { passed: 1, ..Tally::default() })
}

fn install(quick: bool) -> Result<()> {
    if !sh::succeeds(sh::cargo().args(["clippy", "--version"])) || !sh::succeeds(sh::cargo().args(["fmt", "--version"]))
    {
        sh::run(Command::new("rustup").args(["component", "add", "clippy", "rustfmt"]))?;
    }
    apt::ensure(&PACKAGES)?;
    if !quick {
        bpf::find_toolchain(true)?;
        bpf::install_clippy()?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    sh::run(sh::cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// The kernel programs as they are compiled for their own target: clippy where the compiler comes with one, else its warnings.
fn clippy_bpf() -> Result<()> {
    let toolchain = bpf::find_toolchain(true)?.context("no compiler for the kernel programs")?;
    let mut command = match &toolchain.clippy {
        Some(driver) => {
            let mut command = bpf::cargo(&toolchain, "check", &[])?;
            // How cargo-clippy hands options to its driver; through the compiler's flags they would rebuild every dependency.
            command.env("RUSTC_WORKSPACE_WRAPPER", driver).env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__");
            command
        }
        None => {
            eprintln!("no clippy for {}: its own warnings only", toolchain.version);
            bpf::cargo(&toolchain, "check", &["-Dwarnings"])?
        }
    };
    sh::run(command.arg("--quiet"))
}

/// Everything but the live tests, then those of them that are made for it.
fn quick_tests() -> Result<Tally> {
    let mut tally = Tally::default();
    let mut files: Vec<PathBuf> = Vec::new();
    if let Ok(dir) = fs::read_dir(sh::root().join("tcptrace/tests")) {
        for entry in dir {
            files.push(entry?.path());
        }
    }
    files.sort();
    let names =
        files.iter().filter(|f| f.extension().is_some_and(|e| e == "rs")).filter_map(|f| f.file_stem()?.to_str());
    let (live, others): (Vec<&str>, Vec<&str>) = names.partition(|name| name.starts_with("live"));
    tally.add(&tests(&["--workspace", "--lib", "--bins"], &[], None)?);
    for (names, filter) in [(others, None), (live, Some(QUICK))] {
        if !names.is_empty() {
            let chosen: Vec<&str> = names.iter().flat_map(|name| ["--test", name]).collect();
            tally.add(&tests(&[&["--package", "tcptrace"], &chosen[..]].concat(), filter.as_slice(), None)?);
        }
    }
    Ok(tally)
}

/// `cargo test`, its output passed on and its results counted. When not root, cargo builds as this user and each test binary runs
/// through sudo.
fn tests(selection: &[&str], filter: &[&str], objects: Option<&PathBuf>) -> Result<Tally> {
    let mut command = sh::cargo();
    command.args(["test", "--no-fail-fast"]).args(selection).arg("--").args(filter);
    if let Some(dir) = objects {
        command.env("TCPTRACE_BPF_DIR", dir);
    }
    if !sh::is_root() {
        let runner = sh::as_root("env")?;
        // sudo replaces PATH even when it keeps the rest.
        let path = env::var("PATH").context("PATH")?;
        command.env(format!("CARGO_TARGET_{}_RUNNER", host_triple()?), format!("{} PATH={path}", sh::shown(&runner)));
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("cargo test")?;
    let output = BufReader::new(child.stdout.take().context("cargo test")?);
    let mut tally = Tally::default();
    for line in output.lines() {
        let line = line?;
        println!("{line}");
        if let Some(result) = parse_result(&line) {
            tally.add(&result);
        }
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        eprintln!("`{}` failed: {status}", sh::shown(&command));
        tally.failed = 1;
    }
    ensure!(tally.passed + tally.failed > 0, "`{}` ran no test", sh::shown(&command));
    Ok(tally)
}

/// Live tests in every guest.
fn on_guests() -> Result<Tally> {
    let vm::Counts { passed, failed, ignored, .. } = vm::run(None, &[])?;
    Ok(Tally { passed, failed, ignored })
}

/// `x86_64-unknown-linux-gnu` as cargo spells it in names of variables.
fn host_triple() -> Result<String> {
    let verbose = sh::read(Command::new("rustc").arg("-vV"))?;
    let host = verbose.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV: host")?;
    Ok(host.to_uppercase().replace(['-', '.'], "_"))
}

/// `test result: ok. 5 passed; 0 failed; 1 ignored; …`, which cargo prints once for each test binary.
fn parse_result(line: &str) -> Option<Tally> {
    // A line of another form is none of cargo's.
    let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
    let mut tally = Tally::default();
    for count in counts.split("; ") {
        match count.split_once(' ')? {
            (number, "passed") => tally.passed = number.parse().ok()?,
            (number, "failed") => tally.failed = number.parse().ok()?,
            (number, "ignored") => tally.ignored = number.parse().ok()?,
            _ => {}
        }
    }
    Some(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_cargo_are_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 2 filtered out; finished in 1.02s";
        assert_eq!(parse_result(line), Some(Tally { passed: 12, failed: 3, ignored: 1 }));
        assert_eq!(parse_result("test tests::x ... ok"), None);
    }

    #[test]
    fn a_failed_step_counts_once() {
        let mut all = Tally::default();
        all.add(&once(Ok(())).unwrap());
        assert_eq!(all, Tally { passed: 1, failed: 0, ignored: 0 });
        assert!(once(Err(anyhow::anyhow!("no"))).is_err());
    }
}
