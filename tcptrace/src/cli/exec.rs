//! `--exec`: a command that gets each finding as a line of JSON on its standard input. It never holds up the trace.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{
    error::{Error, Result},
    model::count,
    pipeline::say,
};

/// One run of it takes so long at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// What it did not get at the end of the trace, it gets within this time.
const AT_THE_END: Duration = Duration::from_secs(10);
/// What goes wrong is said so often at most.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked whether it is over.
const LOOK: Duration = Duration::from_millis(10);

/// Hands findings to a thread that runs the command for one after the other.
#[derive(Debug)]
pub struct Exec {
    lines: Sender<Vec<u8>>,
    /// See [`Runs::end`].
    end: Arc<OnceLock<Instant>>,
    thread: JoinHandle<()>,
}

impl Exec {
    /// `command` is for `sh -c`.
    ///
    /// # Errors
    /// No thread could be had.
    pub fn start(command: &str) -> Result<Self> {
        let (lines, told) = channel();
        let end = Arc::default();
        let mut runs = Runs { command: command.to_owned(), end: Arc::clone(&end), wrong: Wrong::default() };
        let thread = std::thread::Builder::new()
            .name("exec".to_owned())
            .spawn(move || runs.all(&told))
            .map_err(|e| Error::io("start a thread for --exec", e))?;
        Ok(Self { lines, end, thread })
    }

    /// Hand over a finding.
    pub fn tell(&self, line: Vec<u8>) {
        // The thread lives as long as this does.
        let _ = self.lines.send(line);
    }

    /// Nothing more will come: wait until the command had what is still to be handed over, ten seconds at most.
    pub fn finish(self) {
        let Self { lines, end, thread } = self;
        let _ = end.set(Instant::now() + AT_THE_END);
        std::mem::drop(lines);
        let _ = thread.join();
    }
}

struct Runs {
    command: String,
    /// Until when findings are handed over; not set: more may come.
    end: Arc<OnceLock<Instant>>,
    wrong: Wrong,
}

/// What went wrong since it was said last.
#[derive(Default)]
struct Wrong {
    said: Option<Instant>,
    since: u64,
}

impl Runs {
    fn all(&mut self, lines: &Receiver<Vec<u8>>) {
        let mut late = 0_u64;
        while let Ok(line) = lines.recv() {
            if self.is_over() {
                late += 1;
            } else if let Err(what) = self.one(&line) {
                self.wrong.say(&what);
            }
        }
        self.wrong.say_rest();
        if late > 0 {
            let what = count(late, "finding was", "findings were");
            say(&format!("--exec: {what} not handed over: the command took too long"));
        }
    }

    fn is_over(&self) -> bool {
        self.end.get().is_some_and(|end| Instant::now() >= *end)
    }

    /// One finding; what went wrong.
    fn one(&self, line: &[u8]) -> std::result::Result<(), String> {
        let mut child = Command::new("sh")
            .args(["-c", &self.command])
            .stdin(Stdio::piped())
            // Standard output is for data.
            .stdout(std::io::stderr())
            // Ctrl-C is for tcptrace, and what hangs is ended with all that it started.
            .process_group(0)
            .spawn()
            .map_err(|e| format!("cannot run sh: {e}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A finding fits into a pipe. The command need not read it.
            let _ = stdin.write_all(line);
        }
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().map_err(|e| format!("cannot wait for it: {e}"))? {
                return if status.success() { Ok(()) } else { Err(failed(status)) };
            }
            if began.elapsed() >= PATIENCE || self.is_over() {
                kill(&mut child);
                return Err(format!("it did not end within {} s, and was ended", PATIENCE.as_secs()));
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn failed(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(127), _) => "there is no such command (status 127)".to_owned(),
        (Some(code), _) => format!("it failed with status {code}"),
        (None, Some(signal)) => format!("signal {signal} ended it"),
        (None, None) => "it failed".to_owned(),
    }
}

fn kill(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It is gone already if that fails.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

impl Wrong {
    /// Once a minute.
    fn say(&mut self, what: &str) {
        if self.said.is_some_and(|said| said.elapsed() < SAID_EVERY) {
            self.since += 1;
            return;
        }
        let before = std::mem::take(&mut self.since);
        let more =
            if before > 0 { format!("; {before} times more since the last word about it") } else { String::new() };
        say(&format!("--exec: {what}{more}; findings go on"));
        self.said = Some(Instant::now());
    }

    fn say_rest(&mut self) {
        if self.since > 0 {
            say(&format!("--exec: {} times more", self.since));
        }
    }
}
