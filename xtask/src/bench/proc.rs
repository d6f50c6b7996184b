//! What the kernel tells about processes, programs and the host: readers of `/proc`, no state.

use std::{fs, os::fd::AsRawFd as _, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use crate::empty;

/// CPU time of the calling thread, exact to the nanosecond, as the scheduler counts it: with the softirqs that ran on top of
/// it, unless the kernel is built to count those apart (CONFIG_IRQ_TIME_ACCOUNTING).
///
/// # Errors
/// The kernel has no such clock.
pub fn thread_time() -> Result<Duration> {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of a live process, all threads, exact as [`thread_time`].
///
/// # Errors
/// There is no such process.
pub fn process_time(pid: u32) -> Result<Duration> {
    let mut id = 0;
    // SAFETY: the pointer is to a live value of this frame.
    let error = unsafe { libc::clock_getcpuclockid(libc::pid_t::try_from(pid)?, &raw mut id) };
    ensure!(error == 0, "no CPU clock of process {pid}");
    clock(id)
}

fn clock(id: libc::clockid_t) -> Result<Duration> {
    // SAFETY: zero is a valid value of a struct of integers.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live value of this frame.
    ensure!(unsafe { libc::clock_gettime(id, &raw mut time) } == 0, "{}", std::io::Error::last_os_error());
    Ok(Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec)?))
}

/// CPU time of the kernel's softirq threads, which take over when there is more than the interrupted thread should bear.
///
/// # Errors
/// `/proc` or the kernel's scheduler statistics cannot be read.
pub fn softirq_threads() -> Result<Duration> {
    let mut sum = 0;
    for entry in fs::read_dir("/proc").context("/proc")?.flatten() {
        let path = entry.path();
        if !fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/")) {
            continue;
        }
        let times = fs::read_to_string(path.join("schedstat")).context("/proc/PID/schedstat")?;
        sum += times.split_whitespace().next().context("/proc/PID/schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

/// How long all CPUs together were not idle since boot, less a constant; steps of one clock tick.
///
/// Counted as what is left of the whole: the kernel measures idle time exactly, but samples busy time at its tick, which short
/// work that is woken by timers evades.
///
/// # Errors
/// `/proc/stat` or the clock cannot be read.
pub fn host_busy() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let cpus = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    let total = stat.lines().next().context("/proc/stat is empty")?;
    // What is no number leaves too few of them.
    let ticks: Vec<u64> = total.split_whitespace().skip(1).map_while(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal guest guest_nice
    let [_user, _nice, _system, idle, iowait, _irq, _softirq, steal, ..] = ticks[..] else {
        bail!("/proc/stat: `{total}`")
    };
    let uptime = fs::read_to_string("/proc/uptime").context("/proc/uptime")?;
    let uptime: f64 = uptime.split_whitespace().next().context("/proc/uptime is empty")?.parse()?;
    let whole = Duration::from_secs_f64(uptime * cpus as f64);
    Ok(whole.saturating_sub(from_ticks(idle + iowait + steal)))
}

/// CPU time of a live process, all threads, in user and kernel mode.
///
/// # Errors
/// There is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    // The name in parentheses may hold anything; fields 14 and 15 are counted from what follows it.
    let fields = stat.rsplit_once(')').context("/proc/PID/stat")?.1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(from_ticks(ticks))
}

/// Connections accepted so far in the network namespace of a live process.
///
/// # Errors
/// It is gone, or the kernel has no such counter.
pub fn passive_opens(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/snmp")).with_context(|| format!("process {pid}"))?;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().context("Tcp:")?, lines.next().context("Tcp:")?);
    let found = names.split_whitespace().zip(values.split_whitespace()).find(|(name, _)| *name == "PassiveOpens");
    Ok(found.context("PassiveOpens")?.1.parse()?)
}

/// Memory that a live process has resident, bytes.
///
/// # Errors
/// There is no such process.
pub fn rss(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    Ok(field(&status, "VmRSS:").context("VmRSS")? * 1024)
}

fn from_ticks(ticks: u64) -> Duration {
    // SAFETY: no pointers.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1).cast_unsigned();
    Duration::from_micros(ticks * 1_000_000 / per_second)
}

/// What a process holds of the kernel's tracing machinery.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Descriptors that keep programs attached: BPF links and perf events.
    pub hooks: usize,
    /// Ids of its programs, held directly or through links; sorted.
    pub programs: Vec<u32>,
}

/// Read what `pid` holds. Empty for one that is gone.
pub fn attached(pid: u32) -> Attached {
    let mut found = Attached::default();
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return found };
    for entry in descriptors.flatten() {
        // One that is closed meanwhile holds nothing.
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let info =
            fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().display())).unwrap_or_default();
        let is_event = target.to_str() == Some("anon_inode:[perf_event]");
        found.hooks += usize::from(is_event || info.contains("link_type:"));
        if let Some(id) = field(&info, "prog_id:") {
            found.programs.extend(u32::try_from(id));
        }
    }
    found.programs.sort_unstable();
    found.programs.dedup();
    found
}

fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// What a program cost while `kernel.bpf_stats_enabled` was 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProgramCost {
    /// Time spent in it.
    pub ns: u64,
    /// Times it ran.
    pub runs: u64,
}

/// Read a program's counters by its id.
///
/// # Errors
/// It is gone, or this process may not look at it.
pub fn program_cost(id: u32) -> Result<ProgramCost> {
    /// `BPF_PROG_GET_FD_BY_ID` of the bpf system call.
    const PROG_GET_FD_BY_ID: libc::c_long = 13;
    // The union's member for this command: id, next_id, open_flags.
    let attributes = [id, 0, 0];
    let fd = empty::bpf(PROG_GET_FD_BY_ID, &attributes).with_context(|| format!("program {id}"))?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let read = |name| field(&info, name).with_context(|| format!("{name} of program {id}"));
    Ok(ProgramCost { ns: read("run_time_ns:")?, runs: read("run_cnt:")? })
}
