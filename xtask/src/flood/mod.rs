//! `cargo xtask flood`: a SYN flood from made-up sources against a listener of its own, between two namespaces.
//!
//! Run in the victim's namespace, with the name of the one that its `veth0` leads to. Sending a SYN on a veth pair is receiving it: the
//! sending thread's softirq does the victim's work, and the receiving of the answer too.

pub mod sender;

use std::{
    fs::File,
    net::SocketAddrV4,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use sender::{Flood, VICTIM};

use crate::bench::proc::{softirq_threads, thread_time};

/// What to do.
#[derive(clap::Args)]
pub struct Options {
    /// Namespace at the other end, as `ip netns` names it
    #[arg(long)]
    peer: String,
    /// SYNs in all.
    #[arg(long, default_value_t = 200_000)]
    count: u64,
    /// Threads that send.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Distinct sources.
    #[arg(long, default_value_t = 2000)]
    sources: u32,
    /// SYNs per second in all [default: as fast as it goes].
    #[arg(long)]
    rate: Option<u32>,
    /// listen()'s argument.
    #[arg(long, default_value_t = 128)]
    backlog: i32,
}

/// Run it and print `{"arrived", "answered", "seconds", "per_second", "cpu_ns"}`: SYNs that the victim received, SYN-ACKs that it sent for
/// the first time, how many of these a second, and the CPU time of the threads that send and of the kernel's own for softirqs.
///
/// # Errors
/// Not permitted, or there is no such namespace, or no pair.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.threads > 0 && options.rate != Some(0), "no threads or a rate of 0 never end");
    let (_listener, port) = listen(options.backlog)?;
    let path = format!("/run/netns/{}", options.peer);
    let peer = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    let threads = u64::from(options.threads);
    let flood = Flood { port, sources: options.sources, rate: options.rate.map(|rate| rate / options.threads) };
    let before = (sender::segments()?, softirq_threads()?);
    let began = Instant::now();
    let senders = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|i| {
                let (peer, range) = (&peer, options.count * i / threads..options.count * (i + 1) / threads);
                scope.spawn(move || -> Result<Duration> {
                    // SAFETY: an open namespace file; only this thread moves.
                    let entered = unsafe { libc::setns(peer.as_raw_fd(), libc::CLONE_NEWNET) } == 0;
                    ensure!(entered, "setns: {}", std::io::Error::last_os_error());
                    let before = thread_time()?;
                    sender::send(&flood, range)?;
                    Ok(thread_time()?.saturating_sub(before))
                })
            })
            .collect();
        let mut cpu = Duration::ZERO;
        for worker in workers {
            let Ok(done) = worker.join() else { bail!("a thread died") };
            cpu += done?;
        }
        Ok(cpu)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let after = (sender::segments()?, softirq_threads()?);
    let cpu = senders + after.1.saturating_sub(before.1);
    let (arrived, answered) = (after.0.arrived - before.0.arrived, after.0.answered - before.0.answered);
    println!(
        r#"{{"arrived":{arrived},"answered":{answered},"seconds":{seconds:.6},"per_second":{:.0},"cpu_ns":{}}}"#,
        answered as f64 / seconds,
        cpu.as_nanos()
    );
    Ok(())
}

/// A listener that nobody accepts from, and its port. The library's own has a fixed backlog.
fn listen(backlog: i32) -> Result<(OwnedFd, u16)> {
    // SAFETY: no pointers; a new descriptor that nobody else knows.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        ensure!(fd >= 0, "socket: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    let address = SocketAddrV4::new(VICTIM, 80);
    // SAFETY: zero is a valid value of a struct of integers.
    let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    raw.sin_family = libc::AF_INET as u16;
    raw.sin_addr.s_addr = u32::from(*address.ip()).to_be();
    raw.sin_port = address.port().to_be();
    // SAFETY: the address is of a live value of the size told.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), size_of_val(&raw) as u32) };
    ensure!(bound == 0, "bind: {}", std::io::Error::last_os_error());
    // SAFETY: no pointers.
    ensure!(unsafe { libc::listen(socket.as_raw_fd(), backlog) } == 0, "listen: {}", std::io::Error::last_os_error());
    Ok((socket, address.port()))
}
