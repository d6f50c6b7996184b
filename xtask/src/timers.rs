//! `cargo xtask timers`: kernel timers that have nothing to do with listeners, at a steady rate.
//!
//! Switching a connection's keepalive on starts a timer of the kernel's (`timer_start`), switching it off cancels it (`timer_cancel`).
//! Nothing else in user space is as direct: timerfd, sleeps and timeouts of system calls are high-resolution timers, another kind.

use std::{
    io::Write as _,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::bench::proc::thread_time;

/// What to do.
#[derive(clap::Args)]
pub struct Options {
    /// Timers per second, each started and cancelled.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1000..))]
    rate: u32,
    /// For how long.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
}

/// The pace is kept in steps of this.
const STEP: Duration = Duration::from_millis(2);

/// Run it and print `{"timers", "seconds", "per_second", "cpu_ns"}`; the last is this thread's CPU time.
///
/// # Errors
/// A system call fails.
pub fn run(options: &Options) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
    let mut client = TcpStream::connect(listener.local_addr()?).context("connect")?;
    let (_server, _) = listener.accept().context("accept")?;
    client.write_all(b"x")?;
    let (began, cpu) = (Instant::now(), thread_time()?);
    let total = u64::from(options.rate) * u64::from(options.seconds);
    let per_step = u64::from(options.rate) * u64::try_from(STEP.as_millis())? / 1000;
    let mut done = 0;
    while done < total {
        for _ in 0..per_step {
            keepalive(&client, 1)?;
            keepalive(&client, 0)?;
        }
        done += per_step;
        let due = began + Duration::from_secs_f64(done as f64 / f64::from(options.rate));
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), thread_time()?.saturating_sub(cpu));
    println!(
        r#"{{"timers":{done},"seconds":{seconds:.6},"per_second":{:.0},"cpu_ns":{}}}"#,
        done as f64 / seconds,
        cpu.as_nanos()
    );
    Ok(())
}

fn keepalive(socket: &TcpStream, on: libc::c_int) -> Result<()> {
    let (fd, size) = (socket.as_raw_fd(), size_of_val(&on) as u32);
    // SAFETY: the address is of a live value of the size told.
    let set = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, (&raw const on).cast(), size) };
    ensure!(set == 0, "SO_KEEPALIVE: {}", std::io::Error::last_os_error());
    Ok(())
}
