//! What the live tests share: namespaces, sockets, processes, a scripted peer, and the tracer under test.

pub mod netns;
pub mod process;
pub mod programs;
pub mod run;
pub mod segment;
pub mod socket;
pub mod tracer;
pub mod tun;

use std::time::{Duration, Instant};

/// How long anything may take before the test fails. Never a way to put things in order.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Poll until `done` says so; fails with `what` at the deadline.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
