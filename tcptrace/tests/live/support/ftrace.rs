//! State transitions as ftrace sees them, on top of process 1.
//!
//! The kernel of some virtual machines runs no BPF program while a thread of process 1, an agent of the machine, is the current one:
//! what a softirq does that interrupts it passes all programs unseen, and no counter tells. ftrace is told of it. Where process 1 is
//! like any other, the programs see this, too.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::process;

const ROOT: &str = "/sys/kernel/tracing";

/// A buffer of ftrace's own, removed on drop.
pub struct Above1(PathBuf);

impl Above1 {
    /// Begin to watch.
    pub fn watch() -> Self {
        if !Path::new(ROOT).join("instances").exists() {
            process::run(Command::new("mount").args(["-t", "tracefs", "tracefs", ROOT]));
        }
        let instance = Self(Path::new(ROOT).join(format!("instances/tcptrace-test-{}", std::process::id())));
        fs::create_dir(&instance.0).expect("an instance of ftrace");
        let threads = fs::read_dir("/proc/1/task").expect("procfs").flatten();
        let filter: Vec<_> = threads.map(|thread| format!("common_pid == {}", thread.file_name().display())).collect();
        instance.write("filter", &filter.join(" || "));
        instance.write("enable", "1");
        instance
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join("events/sock/inet_sock_set_state").join(file), text).expect("an event of ftrace");
    }

    /// Local and remote port of each transition so far.
    pub fn ports(&self) -> Vec<(u64, u64)> {
        let text = fs::read_to_string(self.0.join("trace")).expect("tracefs");
        let number = |line: &str, name: &str| -> Option<u64> {
            line.split(' ').find_map(|word| word.strip_prefix(name))?.parse().ok()
        };
        text.lines().filter_map(|line| Some((number(line, "sport=")?, number(line, "dport=")?))).collect()
    }
}

impl Drop for Above1 {
    fn drop(&mut self) {
        // What is left is an empty buffer.
        let _ = fs::write(self.0.join("events/sock/inet_sock_set_state/enable"), "0");
        let _ = fs::remove_dir(&self.0);
    }
}
