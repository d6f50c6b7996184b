//! A guest under qemu's software emulation: kernel and initramfs in, the lines of its second serial port out.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";

/// Both CPUs take turns in one thread of the host. In threads of their own they run a quarter faster, and now and then a breakpoint
/// that the kernel had in its text while it patched it: qemu before 8.1 may keep a translation of text that has changed meanwhile.
/// The kernel then panics with `int3`.
const ACCELERATOR: &str = "tcg,thread=single";

/// A guest that is still on after this is switched off.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// No mitigations: they only cost here. A panic ends the guest. A busy host makes guests measure the TSC's frequency wrong, and their
/// clocks run several times too fast; the HPET's is known.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off tsc=unstable clocksource=hpet";

/// Boot and call `each` for every line until the guest is off. The kernel's own messages go to the file `console`.
///
/// # Errors
/// qemu cannot be started.
pub fn run(kernel: &Path, initrd: &Path, console: &Path, mut each: impl FnMut(&str)) -> Result<()> {
    fs::write(console, "")?;
    let mut command = Command::new(QEMU);
    command.args([
        "-accel",
        ACCELERATOR,
        "-cpu",
        "Nehalem",
        "-smp",
        "2",
        "-m",
        "1536",
        "-nodefaults",
        "-no-user-config",
    ]);
    command.args(["-display", "none", "-no-reboot", "-append", COMMAND_LINE]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
    command.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context(QEMU)?;
    let output = BufReader::new(child.stdout.take().context(QEMU)?);
    let watch = Watch::over(child);
    for line in output.split(b'\n') {
        let line = line?;
        each(String::from_utf8_lossy(&line).trim_end_matches('\r'));
    }
    if watch.end()? {
        each("vm: switched off after too long");
    }
    Ok(())
}

/// Ends a child that takes too long.
struct Watch {
    thread: thread::JoinHandle<Result<()>>,
    over: mpsc::Sender<()>,
    late: Arc<AtomicBool>,
}

impl Watch {
    fn over(mut child: Child) -> Self {
        let (over, ended) = mpsc::channel();
        let late = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&late);
        let thread = thread::spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                shared.store(true, Ordering::Relaxed);
                child.kill()?;
            }
            child.wait()?;
            Ok(())
        });
        Self { thread, over, late }
    }

    /// The child has closed its output: wait for it. True: it had to be ended.
    fn end(self) -> Result<bool> {
        // Nobody listens any more if it had to be ended.
        let _ = self.over.send(());
        match self.thread.join() {
            Ok(done) => done.context(QEMU)?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(self.late.load(Ordering::Relaxed))
    }
}
