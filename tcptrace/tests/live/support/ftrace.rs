//! What sockets do as ftrace sees it, on top of process 1.
//!
//! The kernel of some virtual machines runs no BPF program while a thread of process 1, an agent of the machine, is the current one:
//! what a softirq does that interrupts it passes all programs unseen, and no counter tells. ftrace is told of it. Where process 1 is
//! like any other, the programs see this, too.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use super::process;

const ROOT: &str = "/sys/kernel/tracing";
/// Changes of state.
pub const STATE: &str = "sock/inet_sock_set_state";

/// A buffer of ftrace's own, removed on drop.
pub struct Above1 {
    instance: PathBuf,
    events: &'static [&'static str],
}

impl Above1 {
    /// Begin to watch these events.
    pub fn watch(events: &'static [&'static str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !Path::new(ROOT).join("instances").exists() {
            process::run(Command::new("mount").args(["-t", "tracefs", "tracefs", ROOT]));
        }
        let name = format!("instances/tcptrace-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let watching = Self { instance: Path::new(ROOT).join(name), events };
        fs::create_dir(&watching.instance).expect("an instance of ftrace");
        let threads = fs::read_dir("/proc/1/task").expect("procfs").flatten();
        let filter: Vec<_> = threads.map(|thread| format!("common_pid == {}", thread.file_name().display())).collect();
        for event in events {
            let event = watching.instance.join("events").join(event);
            fs::write(event.join("filter"), filter.join(" || ")).expect("an event of ftrace");
            fs::write(event.join("enable"), "1").expect("an event of ftrace");
        }
        watching
    }

    /// Local and remote port of each event so far.
    pub fn ports(&self) -> Vec<(u64, u64)> {
        let text = fs::read_to_string(self.instance.join("trace")).expect("tracefs");
        let number = |line: &str, name: &str| -> Option<u64> {
            line.split(' ').find_map(|word| word.strip_prefix(name))?.parse().ok()
        };
        text.lines().filter_map(|line| Some((number(line, "sport=")?, number(line, "dport=")?))).collect()
    }
}

impl Drop for Above1 {
    fn drop(&mut self) {
        // What is left is an empty buffer.
        for event in self.events {
            let _ = fs::write(self.instance.join("events").join(event).join("enable"), "0");
        }
        let _ = fs::remove_dir(&self.instance);
    }
}
