//! What the live tests share: namespaces, sockets, processes, a scripted peer, and the tracer under test.

pub mod capture;
pub mod collector;
pub mod ftrace;
pub mod golden;
pub mod netns;
pub mod process;
pub mod programs;
pub mod queues;
pub mod run;
pub mod segment;
pub mod socket;
pub mod tracer;
pub mod tun;

use std::{
    env,
    str::FromStr,
    sync::LazyLock,
    time::{Duration, Instant},
};

/// How long anything may take before the test fails. Never a way to put things in order. See
/// [`slowness`].
pub static DEADLINE: LazyLock<Duration> = LazyLock::new(|| Duration::from_secs(30) * slowness());

/// How long [`wait_until`] sleeps between two looks: a look costs a slow machine as much more as all else.
static STEP: LazyLock<Duration> = LazyLock::new(|| Duration::from_millis(2) * slowness());

/// How many times longer than a host this machine may take.
pub fn slowness() -> u32 {
    setting("TCPTRACE_TEST_SLOWNESS").unwrap_or(1)
}

/// An environment variable of the live tests, set by `cargo xtask vm`.
pub fn setting<T: FromStr>(name: &str) -> Option<T> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

/// Say that `what` did not run because this kernel lacks `feature`. Past the capture of output: whoever reads the results decides
/// whether this kernel may lack it.
pub fn skipped(what: &str, feature: &str) {
    use std::io::Write as _;
    let line = format!("skipped: {what}: kernel has no {feature}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("stderr");
}

/// Poll until `done` says so, the more rarely the longer it takes: to ask may take as much of a slow CPU as what is waited for. Fails with
/// `what` at the deadline.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < *DEADLINE, "waited {:?} for {what}", *DEADLINE);
        std::thread::sleep(pause(start));
    }
}

/// How long to wait before something is asked for again that was first asked for at `start`. No test's moment is shorter.
pub fn pause(start: Instant) -> Duration {
    (start.elapsed() / 16).clamp(*STEP, Duration::from_millis(250))
}

/// CLOCK_MONOTONIC, as `mono_ns` has it.
pub fn now() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
