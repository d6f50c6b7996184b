//! What reading a long recording costs: `report` of ten million transitions, beside `conns --from` of the same.

use std::{
    fmt::Write as _,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{interrupted, report::median, tracer};
use crate::sh;

const TRANSITIONS: &str = "10000000";
/// What `report` may take, seconds and bytes.
const MAX_SECONDS: f64 = 10.0;
const MAX_RSS: f64 = 200e6;

/// (name, arguments before the file, is it what has to keep within the limits?).
const COMMANDS: [(&str, &[&str], bool); 3] = [
    ("report", &["report"], true),
    ("report --html -", &["report", "--html", "-"], true),
    ("conns --from", &["conns", "--quiet", "--from"], false),
];

/// Runs of one command.
#[derive(Default)]
struct Runs {
    seconds: Vec<f64>,
    rss: Vec<f64>,
}

/// All runs so far.
#[derive(Default)]
pub struct Recording {
    file: Option<PathBuf>,
    bytes: u64,
    runs: [Runs; COMMANDS.len()],
}

impl Recording {
    /// One run of each command. The recording is made before the first.
    ///
    /// # Errors
    /// It cannot be made, or a command fails.
    pub fn round(&mut self, round: u32, dir: &Path) -> Result<()> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => {
                eprintln!("making a recording of {TRANSITIONS} transitions");
                let file = dir.join("storm.rec");
                let mut make = sh::cargo();
                make.args([
                    "run",
                    "--quiet",
                    "--release",
                    "--package",
                    "tcptrace",
                    "--example",
                    "storm_recording",
                    "--",
                ]);
                sh::run(make.arg(&file).arg(TRANSITIONS))?;
                self.bytes = std::fs::metadata(&file)?.len();
                self.file.insert(file).clone()
            }
        };
        for ((name, arguments, _), runs) in COMMANDS.iter().zip(&mut self.runs) {
            interrupted()?;
            eprintln!("recording {}: {name}", round + 1);
            let (seconds, rss) = measured(Command::new(tracer::tcptrace()?).args(*arguments).arg(&file))?;
            runs.seconds.push(seconds);
            runs.rss.push(rss);
        }
        Ok(())
    }

    /// Are the limits kept, where it was measured?
    pub fn met(&self) -> bool {
        self.medians().all(|(_, limited, seconds, rss)| !limited || seconds < MAX_SECONDS && rss < MAX_RSS)
    }

    fn medians(&self) -> impl Iterator<Item = (&'static str, bool, f64, f64)> {
        COMMANDS.iter().zip(&self.runs).filter_map(|((name, _, limited), runs)| {
            let of = |values: &[f64]| median(values.iter().copied());
            Some((*name, *limited, of(&runs.seconds)?, of(&runs.rss)?))
        })
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        self.medians()
            .map(|(name, _, seconds, rss)| json!({ "command": name, "seconds": seconds, "rss": rss }))
            .collect()
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        if self.file.is_some() {
            let (mb, limit) = (self.bytes as f64 / 1e6, MAX_RSS / 1e6);
            writeln!(text, "\na recording of {TRANSITIONS} transitions, {mb:.0} MB; report: less than {MAX_SECONDS} s and {limit} MB")
                .expect("a String takes everything");
        }
        for (name, _, seconds, rss) in self.medians() {
            writeln!(text, "  {name:<16} {seconds:6.2} s {:7.1} MB", rss / 1e6).expect("a String takes everything");
        }
        text
    }
}

/// Seconds until it ends, and the most memory that it had resident, bytes.
fn measured(command: &mut Command) -> Result<(f64, f64)> {
    let null = File::options().write(true).open("/dev/null").context("/dev/null")?;
    let began = Instant::now();
    let child = command.stdout(null).stdin(Stdio::null()).spawn().with_context(|| sh::shown(command))?;
    let mut status = 0;
    // SAFETY: zero is a valid value of a struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let pid = libc::pid_t::try_from(child.id())?;
    // SAFETY: both pointers are to live values of this frame, and the child has not been waited for.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    let seconds = began.elapsed().as_secs_f64();
    ensure!(waited == pid && status == 0, "`{}` failed", sh::shown(command));
    Ok((seconds, usage.ru_maxrss as f64 * 1024.0))
}
