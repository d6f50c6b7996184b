//! A guest under qemu's software emulation: kernel and initramfs in, the lines of its second serial port out.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";

/// Both CPUs take turns in one thread of the host. With a thread for each, guests ran faster, and two of a few dozen panicked with a
/// breakpoint (`int3`) in text that the kernel was patching, where it has put one for that time.
const ACCELERATOR: &str = "tcg,thread=single";

/// A guest that is still on after this is switched off.
const LIMIT: Duration = Duration::from_secs(25 * 60);

/// A panic ends the guest. The rest is hardening that tests do not look at and that an emulated CPU pays dearly for: a fifth of a test,
/// and another fifth for programs that begin at a new address each time, which the emulator translates anew. Last, a smaller table of
/// connections: tests that wait for a socket read all of it again and again. Half as many may be in TIME_WAIT, as a storm leaves them.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr norandmaps randomize_kstack_offset=off \
    init_on_alloc=0 hardened_usercopy=off kfence.sample_interval=0 audit=0 apparmor=0 cgroup_disable=memory nowatchdog thash_entries=8192";

/// [`clock`], measured once.
static CLOCK: LazyLock<String> = LazyLock::new(clock);

/// The guest's clock. Its time stamp counter is this CPU's own, and a guest on a busy host measures its frequency wrong by several
/// times: it is told. The HPET has a known one, but each look at it leaves the emulated CPU.
#[cfg(target_arch = "x86_64")]
fn clock() -> String {
    // SAFETY: every x86-64 CPU has the counter, and Linux lets user space read it.
    let ticks = || unsafe { std::arch::x86_64::_rdtsc() };
    let (began, first) = (Instant::now(), ticks());
    thread::sleep(Duration::from_millis(100));
    let (ticks, elapsed) = (ticks() - first, began.elapsed());
    format!("tsc=reliable clocksource=tsc tsc_early_khz={}", u128::from(ticks) * 1_000_000 / elapsed.as_nanos())
}

#[cfg(not(target_arch = "x86_64"))]
fn clock() -> String {
    "tsc=unstable clocksource=hpet".to_owned()
}

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
    command.args(["-display", "none", "-no-reboot", "-append"]).arg(format!("{} {COMMAND_LINE}", *CLOCK));
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
