//! Child processes, started so that none of them inherits a socket of another test by accident.
//!
//! Between fork and exec a child holds a copy of every descriptor of this process. A socket that another thread closes in
//! that moment would live on until the exec, and be closed by the wrong process. So closing a socket excludes starting one.

use std::{
    ffi::CStr,
    io::{BufRead, BufReader},
    os::{fd::RawFd, unix::process::CommandExt},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{DEADLINE, pause, wait_until};

static STARTING: RwLock<()> = RwLock::new(());
/// In a forked child, where nobody would ever release the lock.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Hold this to close a socket, or to keep other tests' children from being seen holding one.
pub fn no_start() -> Option<RwLockReadGuard<'static, ()>> {
    (!FORKED.load(Ordering::Relaxed)).then(|| STARTING.read().unwrap_or_else(PoisonError::into_inner))
}

/// This process, as the tracer should name the owner of a socket that a test opened: (pid, name of the main thread).
pub fn me() -> (u32, String) {
    (std::process::id(), comm(std::process::id()))
}

/// Name of a process.
pub fn comm(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("a live process").trim_end().to_owned()
}

/// Threads of this process that block in accept4() on descriptor `fd`.
pub fn blocked_in_accept(fd: RawFd) -> usize {
    let call = format!("{} {fd:#x} ", libc::SYS_accept4);
    let threads = std::fs::read_dir("/proc/self/task").expect("procfs");
    // A thread may end meanwhile.
    let calls = threads.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("syscall")).ok());
    calls.filter(|text| text.starts_with(&call)).count()
}

/// A child that ends with the test.
pub struct Running(Child);

/// Start `command`; when this returns, the child has given up its copies of this process' descriptors.
pub fn spawn(command: &mut Command) -> Running {
    // With a hook std forks and waits for the exec by a pipe, which the kernel closes with the other descriptors. Without
    // one it uses vfork, which lets this process go on before.
    // SAFETY: does nothing.
    unsafe { command.pre_exec(|| Ok(())) };
    let _starting = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    Running(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")))
}

/// Run `command` to its end, which must be a success; its output.
pub fn run(command: &mut Command) -> Output {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Run `command` to its end.
pub fn output(command: &mut Command) -> Output {
    let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let (out, err) = (child.0.stdout.take(), child.0.stderr.take());
    std::thread::scope(|scope| {
        let out = scope.spawn(|| read(out));
        let err = scope.spawn(|| read(err));
        let status = child.wait();
        Output { status, stdout: out.join().expect("reader"), stderr: err.join().expect("reader") }
    })
}

/// The first line that a child prints, and the pipe to read on; fails at the deadline.
pub fn first_line<R: std::io::Read + Send + 'static>(pipe: R) -> (String, BufReader<R>) {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = String::new();
        pipe.read_line(&mut line).expect("UTF-8");
        // Nobody receives it after the deadline.
        let _ = send.send((line, pipe));
    });
    receive.recv_timeout(*DEADLINE).expect("a first line")
}

fn read(from: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.expect("piped").read_to_end(&mut bytes).expect("a pipe");
    bytes
}

impl Running {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The child itself, to take its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Wait for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("a child to end", || {
            status = self.0.try_wait().expect("our child");
            status.is_some()
        });
        status.expect("just seen")
    }

    /// Wait until what it printed, as `text` reads it, has `wanted` in it. Fails if it ends before, and at the deadline with what its
    /// threads wait for in the kernel.
    pub fn wait_for(&mut self, wanted: &str, text: impl Fn() -> String) {
        let began = Instant::now();
        loop {
            // Asked first: it may have printed until its end.
            let ended = self.0.try_wait().expect("our child");
            let text = text();
            if text.contains(wanted) {
                return;
            }
            assert!(ended.is_none(), "{ended:?} without {wanted}: {text}");
            assert!(began.elapsed() < *DEADLINE, "waited {:?} for {wanted}: {text}\n{}", *DEADLINE, self.stacks());
            std::thread::sleep(pause(began));
        }
    }

    /// [`Running::wait_for`] the line `start` in the file that its output goes to.
    pub fn started(&mut self, out: &Path) {
        self.wait_for("\"type\":\"start\"", || std::fs::read_to_string(out).expect("our file"));
    }

    fn stacks(&self) -> String {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("a live process");
        let read = |task: &Path, file: &str| std::fs::read_to_string(task.join(file)).unwrap_or_else(|e| e.to_string());
        let tasks = tasks.map(|task| task.expect("a thread").path());
        tasks.map(|task| format!("{}{}\n", read(&task, "comm"), read(&task, "stack"))).collect()
    }

    /// Send a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is our child and has not been waited for.
        unsafe { libc::kill(self.pid() as i32, signal) };
    }

    /// The children of this process.
    pub fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        let list = std::fs::read_to_string(path).expect("a live process");
        list.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// A forked copy of this process.
pub struct Forked(libc::pid_t);

/// Fork; the child calls itself `name`, keeps the descriptors `keep` only, runs `body` and ends with status 0, or 1 after a
/// panic. `body` may use sockets and pipes; it must not print.
pub fn fork(name: &CStr, keep: &[RawFd], body: impl FnOnce()) -> Forked {
    let mut keep = keep.to_vec();
    let mut ready = [0; 2];
    // SAFETY: `ready` has room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(ready.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    keep.push(ready[1]);
    keep.sort_unstable();
    let _starting = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the child keeps to system calls and to memory that exists; glibc makes malloc usable after fork.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        FORKED.store(true, Ordering::Relaxed);
        let mut first = 3;
        for fd in keep.into_iter().chain([RawFd::MAX]) {
            if fd > first {
                // SAFETY: closes descriptors that nothing in the child uses.
                unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
            }
            first = fd.saturating_add(1);
        }
        // SAFETY: `name` is a C string; `ready` is open; _exit does not return.
        unsafe {
            libc::prctl(libc::PR_SET_NAME, name.as_ptr());
            libc::write(ready[1], c"r".as_ptr().cast(), 1);
            libc::close(ready[1]);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            libc::_exit(i32::from(result.is_err()));
        }
    }
    let mut byte = 0u8;
    // SAFETY: `byte` has room for one; both descriptors are ours.
    unsafe {
        libc::close(ready[1]);
        assert_eq!(libc::read(ready[0], (&raw mut byte).cast(), 1), 1, "the child did not get as far as its body");
        libc::close(ready[0]);
    }
    Forked(pid)
}

impl Forked {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.0 as u32
    }

    /// Wait for its end, which must be a success.
    pub fn join(mut self) {
        let mut status = 0;
        let pid = std::mem::take(&mut self.0);
        wait_until("a forked child to end", || {
            // SAFETY: `pid` is our child.
            unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) == pid }
        });
        assert_eq!(status, 0, "the forked child failed");
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        if self.0 > 0 {
            // SAFETY: our child, not waited for.
            unsafe {
                libc::kill(self.0, libc::SIGKILL);
                libc::waitpid(self.0, std::ptr::null_mut(), 0);
            }
        }
    }
}
