//! `cargo xtask load`: as many short connections on loopback as the kernel can make, or a paced number of them.
//!
//! Each thread owns a listener and plays both ends, so that nothing but the kernel's work is between two connections. It
//! works in the network namespace that it is started in, and is to be started in a fresh one: every connection leaves a
//! local port in TIME_WAIT.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::bench::proc::{softirq_threads, thread_time};

/// What to do.
#[derive(clap::Args)]
pub struct Options {
    /// Threads; each plays both ends of its share.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Connections in all.
    #[arg(long, default_value_t = 40_000)]
    connections: u32,
    /// Connections per second in all, evenly spaced [default: as fast as it goes].
    #[arg(long)]
    rate: Option<u32>,
    /// Bytes that each client sends.
    #[arg(long, default_value_t = 0)]
    bytes: usize,
}

/// Payload travels in pieces that fit any socket buffer: one thread plays both ends and must never block on itself.
const PIECE: usize = 4096;

/// Run it and print `{"connections", "seconds", "per_second", "cpu_ns"}`; the last is the CPU time of the threads that make the
/// connections and of the kernel's own for softirqs. On loopback a segment is received in the softirq of the thread that sends
/// it, so this is both ends' whole work but for timers and what runs on top of an idle CPU.
///
/// # Errors
/// Impossible options, or a system call fails (no free local ports, for example).
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.threads > 0 && options.connections >= options.threads, "at least one connection for each thread");
    ensure!(options.rate != Some(0), "a rate of 0 never ends");
    let shares: Vec<u32> = (0..options.threads)
        .map(|i| options.connections / options.threads + u32::from(i < options.connections % options.threads))
        .collect();
    let gap = options.rate.map(|rate| Duration::from_secs(1) * options.threads / rate);
    let start = Barrier::new(shares.len() + 1);
    let (seconds, cpu) = thread::scope(|scope| {
        let workers: Vec<_> =
            shares.iter().map(|share| scope.spawn(|| worker(*share, gap, options.bytes, &start))).collect();
        let before = softirq_threads();
        start.wait();
        let began = Instant::now();
        let mut cpu = Duration::ZERO;
        for worker in workers {
            let Ok(done) = worker.join() else { bail!("a thread died") };
            cpu += done?;
        }
        Ok((began.elapsed().as_secs_f64(), cpu + softirq_threads()?.saturating_sub(before?)))
    })?;
    println!(
        r#"{{"connections":{},"seconds":{seconds:.6},"per_second":{:.0},"cpu_ns":{}}}"#,
        options.connections,
        f64::from(options.connections) / seconds,
        cpu.as_nanos()
    );
    Ok(())
}

/// Make the connections; the CPU time that they took.
fn worker(connections: u32, gap: Option<Duration>, bytes: usize, start: &Barrier) -> Result<Duration> {
    // The others wait for this thread, so what fails is told only after the start.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    start.wait();
    let listener = listener.context("listen")?;
    let address = listener.local_addr()?;
    let mut buffer = [0; PIECE];
    let (mut due, before) = (Instant::now(), thread_time()?);
    for done in 0..connections {
        if let Some(gap) = gap {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due += gap;
        }
        let mut client = TcpStream::connect(address).with_context(|| format!("connect, after {done} connections"))?;
        let (mut server, _) = listener.accept().context("accept")?;
        let mut left = bytes;
        while left > 0 {
            let piece = left.min(PIECE);
            client.write_all(&buffer[..piece]).context("write")?;
            server.read_exact(&mut buffer[..piece]).context("read")?;
            left -= piece;
        }
        drop(client);
        ensure!(server.read(&mut buffer).context("read")? == 0, "payload after the last byte");
        drop(server);
    }
    Ok(thread_time()?.saturating_sub(before))
}
