//! A network namespace that lives as long as its value.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

use crate::{
    flood::sender::{PEER, VICTIM, VICTIM_MAC_TEXT},
    sh,
};

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

    /// A victim and the namespace that floods it: see [`flood`](crate::flood). What the victim sends to made-up addresses ends in the
    /// other one, which is none of them and forwards nothing. `syncookies` is the victim's setting; its other limits are beyond reach.
    ///
    /// # Errors
    /// As [`Netns::new`], or the kernel has no veth.
    pub fn flooded(syncookies: &str) -> Result<(Self, Self)> {
        let (victim, peer) = (Self::new()?, Self::new()?);
        let ip = |ns: &Self, args: &str| sh::run(ns.command("ip").args(args.split_whitespace()));
        ip(&victim, &format!("link add veth0 type veth peer name veth0 netns {}", peer.name))?;
        ip(&victim, &format!("link set veth0 address {VICTIM_MAC_TEXT}"))?;
        for (ns, address) in [(&victim, VICTIM), (&peer, PEER)] {
            ip(ns, &format!("addr add {address}/24 dev veth0"))?;
            ip(ns, "link set veth0 up")?;
        }
        ip(&victim, &format!("route add default via {PEER}"))?;
        for (key, value) in [
            ("core/somaxconn", "1000000"),
            ("ipv4/tcp_max_syn_backlog", "1000000"),
            ("ipv4/tcp_syncookies", syncookies),
            ("ipv4/tcp_synack_retries", "1"),
        ] {
            sh::run(victim.command("sh").args(["-c", &format!("echo {value} > /proc/sys/net/{key}")]))?;
        }
        Ok((victim, peer))
    }

    /// As `ip netns` names it.
    pub fn name(&self) -> &str {
        &self.name
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
