//! `-- COMMAND`: a command line in, a process that does nothing until it is traced, its exit status out.
//!
//! It has the terminal, the process group and the descriptors that tcptrace was started with. Ctrl-C reaches it as it would without
//! tcptrace, which leaves it to the command.

use std::{
    ffi::{CString, OsStr, OsString},
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::MetadataExt as _,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::Path,
    process::{Command, ExitCode, ExitStatus},
    thread,
};

use rustix::{
    io::{Errno, FdFlags, fcntl_getfd},
    net::{ipproto, sockopt},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::sync::oneshot;

use crate::error::{Error, Result};

mod user;

use user::User;

/// What follows `--`, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The program and its arguments; never empty.
    pub argv: Vec<OsString>,
    /// `--user`.
    pub user: Option<String>,
}

/// A process that waits to become the command.
pub struct Held {
    pid: u32,
    inherited: Inherited,
    go: OwnedFd,
    running: Running,
}

/// The command.
pub struct Running {
    /// By which a signal reaches it and nobody else, once it has ended.
    process: Option<OwnedFd>,
    name: OsString,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
    status: Option<io::Result<ExitStatus>>,
}

impl Held {
    /// Fork.
    ///
    /// # Errors
    /// No such user, or not permitted to become it.
    pub async fn start(line: &CommandLine) -> Result<Self> {
        only_initial_pid_namespace()?;
        let user = User::wanted(line.user.as_deref())?;
        let failed = |e: Errno| Error::io("make a pipe", e.into());
        let (told, tell) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let name = line.argv.first().cloned().unwrap_or_default();
        let mut command = Command::new(&name);
        command.args(line.argv.iter().skip(1));
        if let Some(user) = &user {
            user.prepare(&mut command);
        }
        let (unused, inherited) = (go.as_raw_fd(), Inherited::find());
        let shown = short(&name);
        // SAFETY: between fork and exec there are system calls alone, on descriptors and memory that were made before.
        unsafe {
            command.pre_exec(move || {
                // Or the end of tcptrace would not end the wait.
                libc::close(unused);
                // Whoever is told of it before it runs is told of the command.
                rustix::thread::set_name(&shown)?;
                if let Some(user) = &user {
                    user.become_it()?;
                }
                rustix::io::write(&tell, &(libc::getpid() as u32).to_ne_bytes())?;
                match rustix::io::read(&wait, &mut [0_u8; 1])? {
                    0 => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
                    _ => Ok(()),
                }
            });
        }
        let (sender, ended) = oneshot::channel();
        // spawn() returns when the command runs, or cannot.
        let watch = move || {
            let status = command.spawn().and_then(|mut child| {
                drop(command);
                child.wait()
            });
            // Nobody asks any more.
            let _ = sender.send(status);
        };
        thread::Builder::new().spawn(watch).map_err(|e| Error::io("start a thread", e))?;
        let mut pid = [0; 4];
        let told = rustix::io::read(&told, &mut pid).map_err(|e| Error::io("hear of the command", e.into()))?;
        let mut running = Running { process: None, name, ended, status: None };
        if told != pid.len() {
            running.ended().await;
            return Err(running.failure());
        }
        let pid = u32::from_ne_bytes(pid);
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let process = process.ok_or(Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        running.process = Some(process.map_err(|e| Error::io("hold on to the command", e.into()))?);
        Ok(Self { pid, inherited, go, running })
    }

    /// Its number, which the command will have.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Does it have TCP sockets of who started tcptrace, which the command will have, too?
    pub fn has_sockets(&self) -> bool {
        self.inherited.sockets
    }

    /// Let it become the command. From now on what both were started with is the command's alone: who is at the other end of a pipe or a
    /// socket is to see that it closes it.
    ///
    /// # Errors
    /// It is gone.
    pub fn release(self) -> Result<Running> {
        rustix::io::write(&self.go, &[1]).map_err(|e| Error::io("start the command", e.into()))?;
        drop(self.inherited);
        if let Ok(null) = std::fs::File::open("/dev/null") {
            // Not closed: what is opened next would become standard input. Where it cannot be had, nobody reads it either.
            let _ = rustix::stdio::dup2_stdin(null);
        }
        Ok(self.running)
    }
}

impl Running {
    /// Resolves when it has ended. Cancel safe.
    pub async fn ended(&mut self) {
        if self.status.is_none() {
            let lost = || Err(io::Error::other("nobody waited for it"));
            self.status = Some((&mut self.ended).await.unwrap_or_else(|_| lost()));
        }
    }

    /// Has it not ended?
    pub fn runs(&self) -> bool {
        self.status.is_none()
    }

    /// Pass SIGTERM on.
    pub fn terminate(&self) {
        if let Some(process) = &self.process {
            // It may have ended just now.
            let _ = pidfd_send_signal(process, Signal::TERM);
        }
    }

    /// Its exit status, as shells give it: 128 and the signal's number where one ended it.
    ///
    /// # Errors
    /// It could not be run.
    pub fn exit_code(&self) -> Result<ExitCode> {
        match &self.status {
            Some(Ok(status)) => {
                let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
                Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
            }
            _ => Err(self.failure()),
        }
    }

    fn failure(&self) -> Error {
        let source = match &self.status {
            Some(Err(e)) => {
                e.raw_os_error().map_or_else(|| io::Error::new(e.kind(), e.to_string()), io::Error::from_raw_os_error)
            }
            _ => io::Error::other("it did not start"),
        };
        Error::Command { name: shown(&self.name), source }
    }
}

/// The kernel programs know processes by their numbers in the initial pid namespace, and this process by another one does not know those.
fn only_initial_pid_namespace() -> Result<()> {
    /// PROC_PID_INIT_INO of include/linux/proc_ns.h.
    const INITIAL: u64 = 0xefff_fffc;
    // Where there is no procfs nobody can tell, and it is the initial one as a rule.
    match std::fs::metadata("/proc/self/ns/pid") {
        Ok(namespace) if namespace.ino() != INITIAL => Err(Error::Usage(
            "COMMAND cannot be followed from inside of a pid namespace: run tcptrace on the host, or in a container that shares the host's"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

/// Descriptors that tcptrace was started with, and that who it starts has, too.
struct Inherited {
    /// Those behind standard error.
    _more: Vec<OwnedFd>,
    /// A TCP socket is among all of them.
    sockets: bool,
}

impl Inherited {
    /// To be called before anything else is opened that is handed down.
    fn find() -> Self {
        let (mut more, mut sockets) = (Vec::new(), false);
        let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let found: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        for fd in found {
            // SAFETY: looked at only, and if it is not open any more that is an error.
            let open = unsafe { BorrowedFd::borrow_raw(fd) };
            if !fcntl_getfd(open).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
                continue;
            }
            sockets |= sockopt::socket_protocol(open) == Ok(Some(ipproto::TCP));
            if fd > libc::STDERR_FILENO {
                // SAFETY: open, and nobody's: what this process opens is closed by exec.
                more.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        Self { _more: more, sockets }
    }
}

/// What the kernel will call a command of this name.
fn short(name: &OsStr) -> CString {
    let file = Path::new(name).file_name().unwrap_or(name);
    // A name with a zero byte cannot be run.
    CString::new(file.as_bytes().get(..15).unwrap_or(file.as_bytes())).unwrap_or_default()
}

fn shown(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}
