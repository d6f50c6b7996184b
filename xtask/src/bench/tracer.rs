//! What is measured: a table of subjects, and one of them at work, from its start until it has ended.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{interrupted, proc};
use crate::sh;

/// One thing to measure.
pub struct Subject {
    /// As the tables show it.
    pub name: &'static str,
    /// How it is started.
    pub program: Program,
    /// It must leave at least this share of the connection rate, if it is ours.
    pub keeps: Option<f64>,
}

/// How a subject is started. Its standard output goes to a file.
pub enum Program {
    /// Nothing is attached.
    Nothing,
    /// tcptrace with these arguments; `{out}` is the file to write, for a command that does not print.
    Tcptrace(&'static [&'static str]),
    /// A task of this program.
    Task(&'static [&'static str]),
    /// Another tool.
    Other(&'static str, &'static [&'static str]),
}

/// All subjects; the first is what the others are compared with.
pub const SUBJECTS: [Subject; 9] = [
    Subject { name: "nothing", program: Program::Nothing, keeps: None },
    Subject { name: "tcptrace record", program: Program::Tcptrace(&["record", "{out}"]), keeps: Some(0.88) },
    Subject { name: "tcptrace conns", program: Program::Tcptrace(&["conns", "--json"]), keeps: Some(0.88) },
    Subject { name: "tcptrace trace", program: Program::Tcptrace(&["trace", "--json"]), keeps: Some(0.72) },
    // What nothing that looks where tcptrace looks can stay below.
    Subject { name: "empty programs", program: Program::Task(&["empty"]), keeps: None },
    // What nothing that tells of each transition can stay below, even if nobody listens.
    Subject { name: "writing programs", program: Program::Task(&["empty", "--write"]), keeps: None },
    Subject { name: "tcpstates", program: Program::Other("tcpstates", &[]), keeps: None },
    Subject { name: "tcplife", program: Program::Other("tcplife", &[]), keeps: None },
    Subject {
        name: "bpftrace",
        program: Program::Other(
            "bpftrace",
            &[
                "-e",
                r#"tracepoint:sock:inet_sock_set_state { printf("%d %s %d %d %d %d\n", pid, comm, args->sport, args->dport, args->oldstate, args->newstate); }"#,
            ],
        ),
        keeps: None,
    },
];

impl Subject {
    /// Whether it is tcptrace, to which the requirements apply.
    pub fn is_ours(&self) -> bool {
        matches!(self.program, Program::Tcptrace(_))
    }

    /// The command that traces the namespace `inode` (other tools trace all of them) into `out`; None: nothing is attached.
    fn command(&self, inode: u64, out: &Path) -> Result<Option<Command>> {
        let (mut command, args) = match self.program {
            Program::Nothing => return Ok(None),
            Program::Tcptrace(args) => (Command::new(tcptrace()?), args),
            Program::Task(args) => (Command::new(std::env::current_exe().context("where this binary is")?), args),
            Program::Other(name, args) => (Command::new(sh::which(name).with_context(|| format!("no {name}"))?), args),
        };
        for &arg in args {
            if arg == "{out}" {
                command.arg(out).stdout(Stdio::null());
            } else {
                command.arg(arg);
            }
        }
        if !args.contains(&"{out}") {
            command.stdout(File::create(out)?);
        }
        if self.is_ours() {
            command.args(["--netns", &inode.to_string()]);
        }
        Ok(Some(command))
    }
}

/// The release binary.
///
/// # Errors
/// As [`sh::target_dir`].
pub fn tcptrace() -> Result<PathBuf> {
    Ok(sh::target_dir()?.join("release/tcptrace"))
}

/// A tracer that is attached. Killed on drop if it was not ended.
pub struct Tracer {
    name: &'static str,
    child: Child,
    ended: bool,
    cpu_at_start: Duration,
    messages: PathBuf,
}

/// What a tracer left.
#[derive(Clone, Copy, Default)]
pub struct Ended {
    /// CPU time in user and kernel mode since it was attached.
    pub cpu: Duration,
    /// Most memory resident, bytes.
    pub rss: u64,
}

impl Tracer {
    /// Start it, and wait until it is attached. None for the subject that is nothing.
    ///
    /// # Errors
    /// It cannot be started, ends, or is not attached within 30 s.
    pub fn start(subject: &Subject, inode: u64, out: &Path) -> Result<Option<Self>> {
        let Some(mut command) = subject.command(inode, out)? else { return Ok(None) };
        let messages = out.with_extension("messages");
        command.stdin(Stdio::null()).stderr(File::create(&messages)?);
        let child = command.spawn().with_context(|| format!("cannot start `{}`", sh::shown(&command)))?;
        let mut tracer = Self { name: subject.name, child, ended: false, cpu_at_start: Duration::ZERO, messages };
        tracer.wait_attached()?;
        tracer.cpu_at_start = proc::cpu_time(tracer.pid())?;
        Ok(Some(tracer))
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of all its threads so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu(&self) -> Result<Duration> {
        proc::process_time(self.pid())
    }

    /// Programs that it holds.
    pub fn programs(&self) -> Vec<u32> {
        proc::attached(self.pid()).programs
    }

    /// Attached means: it holds hooks, has held the same ones for half a second, and has next to nothing to do.
    fn wait_attached(&mut self) -> Result<()> {
        const STEP: Duration = Duration::from_millis(50);
        const QUIET_STEPS: u32 = 10;
        let give_up = Instant::now() + Duration::from_secs(30);
        let mut quiet = 0;
        let mut before = (proc::Attached::default(), Duration::ZERO);
        while quiet < QUIET_STEPS {
            interrupted()?;
            if let Some(status) = self.child.try_wait()? {
                self.ended = true;
                bail!("{} ended before it was attached: {status}\n{}", self.name, self.said());
            }
            ensure!(Instant::now() < give_up, "{} was not attached within 30 s\n{}", self.name, self.said());
            thread::sleep(STEP);
            let now = (proc::attached(self.pid()), proc::cpu_time(self.pid())?);
            let settled = now.0.hooks > 0 && now.0 == before.0 && now.1 - before.1 < STEP / 2;
            quiet = if settled { quiet + 1 } else { 0 };
            before = now;
        }
        Ok(())
    }

    /// What it wrote to stderr.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.messages).unwrap_or_else(|e| format!("{}: {e}", self.messages.display()))
    }

    /// End it as Ctrl-C does and wait for it.
    ///
    /// # Errors
    /// It does not end within 60 s, or tcptrace ends with another status than 0.
    pub fn end(mut self, strict: bool) -> Result<Ended> {
        let pid = self.pid();
        let rss = proc::rss(pid)?;
        let handle = libc::pid_t::try_from(pid)?;
        // SAFETY: a child that has not been waited for, so the number is still its own.
        ensure!(unsafe { libc::kill(handle, libc::SIGINT) } == 0, "cannot end {}", self.name);
        let give_up = Instant::now() + Duration::from_secs(60);
        let (status, cpu) = loop {
            let mut status = 0;
            // SAFETY: zero is a valid value of a struct of integers.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            // SAFETY: both pointers are to live values of this frame.
            let waited = unsafe { libc::wait4(handle, &raw mut status, libc::WNOHANG, &raw mut usage) };
            if waited == handle {
                break (status, duration(usage.ru_utime) + duration(usage.ru_stime));
            }
            ensure!(waited == 0 && Instant::now() < give_up, "{} does not end", self.name);
            thread::sleep(Duration::from_millis(20));
        };
        self.ended = true;
        let status: ExitStatus = std::os::unix::process::ExitStatusExt::from_raw(status);
        ensure!(!strict || status.success(), "{} failed: {status}\n{}", self.name, self.said());
        Ok(Ended { cpu: cpu.saturating_sub(self.cpu_at_start), rss })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if !self.ended {
            // Already gone is as good as killed.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_micros(time.tv_sec.cast_unsigned() * 1_000_000 + time.tv_usec.cast_unsigned())
}
