//! The binary under test: started, waited for, stopped.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    DEADLINE,
    netns::Netns,
    process::{self, Running},
    run::{Run, brief},
    setting,
};

/// The binary, to be given arguments.
pub fn tcptrace() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tcptrace"))
}

/// The tier that live commands are to use: `TCPTRACE_TEST_TIER`.
pub fn tier() -> String {
    setting("TCPTRACE_TEST_TIER").unwrap_or_else(|| "auto".into())
}

/// `tcptrace ARGS`, run to its end.
pub fn tcptrace_output(args: &[&str]) -> Output {
    process::output(tcptrace().args(args))
}

/// The value of `--netns` for these namespaces.
pub fn netns_list(namespaces: &[&Netns]) -> String {
    namespaces.iter().map(|ns| ns.inum().to_string()).collect::<Vec<_>>().join(",")
}

/// Lines that a child has printed so far.
#[derive(Default)]
struct Lines {
    text: Mutex<(String, bool)>,
    more: Condvar,
}

/// A live command that prints JSON.
pub struct Live {
    running: Running,
    lines: Arc<Lines>,
    stdout: JoinHandle<()>,
    stderr: JoinHandle<String>,
}

impl Live {
    /// Start `command` with the tier under test; returns when nothing that happens from now on is missed.
    pub fn start(command: &mut Command, args: &[&str]) -> Self {
        command.args(args);
        if !args.contains(&"--tier") {
            command.args(["--tier", &tier()]);
        }
        Self::started(command)
    }

    /// Start a command that has all its arguments.
    pub fn started(command: &mut Command) -> Self {
        let mut running = process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        let lines = Arc::<Lines>::default();
        let stdout = running.child().stdout.take().expect("piped");
        let mut errors = running.child().stderr.take().expect("piped");
        let shared = Arc::clone(&lines);
        let stdout = std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            loop {
                let mut line = String::new();
                let n = stdout.read_line(&mut line).expect("UTF-8 from the tracer");
                let mut text = shared.text.lock().expect("no panic while locked");
                text.0.push_str(&line);
                text.1 = n == 0;
                shared.more.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).expect("UTF-8 from the tracer");
            text
        });
        let live = Self { running, lines, stdout, stderr };
        live.wait_for("the line `start`", |line| line["type"] == "start");
        live
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Wait until a line was printed that `wanted` takes, which is asked about each once, in order.
    pub fn wait_for(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let mut seen = 0;
        let mut text = self.lines.text.lock().expect("no panic while locked");
        loop {
            for line in text.0[seen..].lines() {
                let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
                if wanted(&value) {
                    return value;
                }
            }
            seen = text.0.len();
            assert!(!text.1, "the tracer ended before it printed {what}");
            let (again, timeout) = self.lines.more.wait_timeout(text, *DEADLINE).expect("no panic while locked");
            if timeout.timed_out() {
                let printed = again.0.clone();
                drop(again);
                panic!("waited {:?} for {what}; printed last: {}", *DEADLINE, brief(&printed));
            }
            text = again;
        }
    }

    /// Kill it without a chance to clean up.
    pub fn kill(mut self) {
        self.running.signal(libc::SIGKILL);
        self.running.wait();
    }

    /// Stop it as Ctrl-C does: what it printed on stdout and on stderr.
    pub fn stop(self) -> (String, String) {
        self.running.signal(libc::SIGINT);
        self.ended()
    }

    /// Wait for it to end by itself: what it printed on stdout and on stderr.
    pub fn ended(mut self) -> (String, String) {
        let status = self.running.wait();
        self.stdout.join().expect("reader");
        let stderr = self.stderr.join().expect("reader");
        assert!(status.success(), "{status}: {stderr}");
        (std::mem::take(&mut self.lines.text.lock().expect("no panic while locked").0), stderr)
    }
}

/// A live `trace --json --record`.
pub struct Tracer {
    live: Live,
    dir: TempDir,
    recording: PathBuf,
}

impl Tracer {
    /// Start tracing everything in these namespaces; returns when nothing that happens from now on is missed.
    pub fn start(namespaces: &[&Netns]) -> Self {
        Self::start_with(namespaces, &[])
    }

    /// The same with further arguments.
    pub fn start_with(namespaces: &[&Netns], args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let recording = dir.path().join("trace.rec");
        let mut command = tcptrace();
        command.args(["trace", "--json", "--netns", &netns_list(namespaces), "--record"]).arg(&recording);
        Self { live: Live::start(&mut command, args), dir, recording }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.live.pid()
    }

    /// See [`Live::wait_for`].
    pub fn wait_for(&self, what: &str, wanted: impl FnMut(&Value) -> bool) -> Value {
        self.live.wait_for(what, wanted)
    }

    /// Kill it without a chance to clean up: what is left of the recording.
    pub fn kill(self) -> (TempDir, PathBuf) {
        self.live.kill();
        (self.dir, self.recording)
    }

    /// Stop it as Ctrl-C does, check its output for what holds of every run, and read its recording as connections.
    pub fn stop(self) -> Run {
        let (text, stderr) = self.live.stop();
        Run::new(text, stderr, self.dir, self.recording)
    }
}

/// `COMMAND --json --from RECORDING`: its output.
pub fn replay(command: &str, recording: &Path) -> String {
    replay_with(command, recording, &[])
}

/// The same with more arguments.
pub fn replay_with(command: &str, recording: &Path, args: &[&str]) -> String {
    let output = process::run(tcptrace().args([command, "--json", "--from"]).arg(recording).args(args));
    String::from_utf8(output.stdout).expect("JSON is UTF-8")
}

/// Trace what `scenario` does in a namespace of its own.
pub fn traced(scenario: impl FnOnce(&Netns)) -> Run {
    let ns = Netns::new();
    let tracer = Tracer::start(&[&ns]);
    scenario(&ns);
    tracer.stop()
}
