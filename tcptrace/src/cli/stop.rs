//! What ends a run, and with which status: signals, `--duration` and the command in, [`Stop`] out.

use std::{process::ExitCode, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};

use super::command::{Held, Running};
use crate::{
    error::{Error, Result},
    kernel::processes::Processes,
    pipeline::{Stop, say},
    source::live::Live,
};

/// After the command's end the trace goes on until its connections are closed, but no longer than this.
const SETTLE: Duration = Duration::from_secs(1);
/// What the kernel told before the command's end has arrived after this.
const ARRIVED: Duration = Duration::from_millis(200);
/// How often processes are looked at that the command left behind.
const LOOK: Duration = Duration::from_millis(100);

/// Ctrl-C, SIGTERM, the end of `--duration`, and that of the command.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// The end of `--duration`, once it is known.
    pub deadline: Option<Instant>,
    command: Option<Traced>,
}

/// The command and what descends from it.
struct Traced {
    command: Running,
    /// Ctrl-\ is the command's business, too.
    quit: Signal,
    processes: Processes,
    /// When it is looked next whether anything that descends from it runs, and how often in a row nothing did.
    look: Instant,
    nothing: u32,
    /// When nothing did any more.
    over: Option<Instant>,
    /// The end of the run was asked for: that the command is over asks for it no more.
    asked: bool,
    quiet: bool,
}

impl Signals {
    /// Listen to them from now on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new() -> Result<Self> {
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            deadline: None,
            command: None,
        })
    }

    /// Let the command begin; the status to exit with at once, if a signal came before that.
    ///
    /// # Errors
    /// It is gone.
    pub async fn begin(&mut self, held: Option<Held>, source: &mut Live, quiet: bool) -> Result<Option<ExitCode>> {
        let Some(held) = held else { return Ok(None) };
        if held.has_sockets() {
            source.look_around();
        }
        let (processes, quit) = (source.processes()?, listen(SignalKind::quit())?);
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => return Ok(Some(ExitCode::from(130))),
            _ = self.terminate.recv() => return Ok(Some(ExitCode::from(143))),
            () = std::future::ready(()) => {}
        }
        let command = held.release()?;
        let (look, asked) = (Instant::now(), false);
        self.command = Some(Traced { command, quit, processes, look, nothing: 0, over: None, asked, quiet });
        Ok(None)
    }

    /// How the run went, or the command's status once it has ended: that is what its caller wants to know, also if nobody reads on.
    ///
    /// # Errors
    /// The run's, and [`Error::Command`].
    pub async fn exit_code(self, run: Result<()>) -> Result<ExitCode> {
        let Self { mut interrupt, mut terminate, command, .. } = self;
        let Some(mut traced) = command else { return run.map(|()| ExitCode::SUCCESS) };
        if traced.command.runs() && !traced.quiet {
            say("the trace is over, the command runs on; SIGTERM ends it");
        }
        let mut told = false;
        while traced.command.runs() {
            tokio::select! {
                () = traced.command.ended() => {}
                _ = terminate.recv() => {
                    if std::mem::replace(&mut told, true) {
                        return Ok(ExitCode::from(143));
                    }
                    traced.command.terminate();
                }
                // Those are the command's.
                _ = interrupt.recv() => {}
                _ = traced.quit.recv() => {}
            }
        }
        match run {
            Ok(()) | Err(Error::ClosedPipe) => traced.command.exit_code(),
            Err(e) => Err(e),
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|e| Error::io("listen to signals", e))
}

impl Traced {
    /// Until nothing that descends from the command runs, and its connections have had their time; for ever if the end was asked for
    /// already. Cancel safe.
    async fn is_over(&mut self) {
        if self.asked {
            return std::future::pending().await;
        }
        self.command.ended().await;
        if self.command.exit_code().is_err() {
            return;
        }
        while self.over.is_none() {
            sleep_until(self.look).await;
            let began = Instant::now();
            let left = self.processes.running();
            // One that forks while the list is read can be passed over.
            self.nothing = if left == 0 { self.nothing + 1 } else { 0 };
            if self.nothing > 1 {
                self.over = Some(began);
            }
            // A long list takes its time.
            self.look = Instant::now() + LOOK.max(began.elapsed() * 10);
            if left > 0 && !std::mem::replace(&mut self.quiet, true) {
                let (them, run) = if left == 1 { ("one process", "runs") } else { ("processes", "run") };
                say(&format!("the command has ended; {them} that it started still {run}: Ctrl-C ends the trace"));
            }
        }
        if let Some(over) = self.over {
            sleep_until(over + SETTLE).await;
        }
    }
}

impl Stop for Signals {
    async fn wanted(&mut self) {
        loop {
            let Self { interrupt, terminate, deadline, command } = self;
            let late = async {
                match deadline {
                    Some(at) => sleep_until(*at).await,
                    None => std::future::pending().await,
                }
            };
            let Some(traced) = command else {
                let over = tokio::select! {
                    _ = interrupt.recv() => false,
                    _ = terminate.recv() => false,
                    () = late => true,
                };
                if over {
                    *deadline = None;
                }
                return;
            };
            if !traced.command.runs() {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    () = late => *deadline = None,
                    () = traced.is_over() => {}
                }
                return;
            }
            tokio::select! {
                // From a terminal the command has it, too.
                _ = interrupt.recv() => {}
                _ = traced.quit.recv() => {}
                _ = terminate.recv() => traced.command.terminate(),
                () = traced.command.ended() => {}
                () = late => {
                    *deadline = None;
                    return;
                }
            }
        }
    }

    fn is_settling(&self) -> bool {
        let over = self.command.as_ref().and_then(|traced| traced.over);
        over.is_some_and(|over| over.elapsed() >= ARRIVED)
    }

    fn stopped(&mut self) {
        if let Some(traced) = &mut self.command {
            traced.asked = true;
        }
    }
}
