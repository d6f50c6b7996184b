//! A network namespace that lives as long as its value.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

use crate::sh;

/// A fresh namespace with loopback up; removed on drop.
pub struct Netns {
    name: String,
    inode: u64,
}

impl Netns {
    /// Make one. Needs root and iproute2.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tcptrace-bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        sh::run(Command::new("ip").args(["netns", "add", &name]))?;
        let mut made = Self { name, inode: 0 };
        sh::run(made.command("ip").args(["link", "set", "lo", "up"]))?;
        made.inode = fs::metadata(format!("/run/netns/{}", made.name)).context("the namespace's file")?.ino();
        Ok(made)
    }

    /// The number by which the kernel and tcptrace know it.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = sh::run(Command::new("ip").args(["netns", "del", &self.name])) {
            eprintln!("{error:#}");
        }
    }
}
