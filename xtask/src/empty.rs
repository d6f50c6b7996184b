//! `cargo xtask empty`: programs that do nothing at the tracepoints where tcptrace's run, until Ctrl-C. What they cost, nothing that
//! looks there can stay below.

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

use crate::bench::tracefs;

/// The tracepoints that a plain connection passes; transitions have two programs (see `hooks/state.rs`).
const HOOKS: [&CStr; 3] = [c"tcp_destroy_sock", c"inet_sock_set_state", c"inet_sock_set_state"];
/// The exits of system calls.
const EXITS: [&str; 3] = ["sys_exit_accept4", "sys_exit_accept", "sys_exit_listen"];

const PROG_LOAD: libc::c_long = 5;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const RAW_TRACEPOINT: u32 = 17;
const TRACEPOINT: u32 = 5;
/// `PERF_TYPE_TRACEPOINT`, the whole of a `perf_event_attr`'s first version, `PERF_EVENT_IOC_SET_BPF`, `PERF_EVENT_IOC_ENABLE`.
const PERF_TRACEPOINT: u32 = 2;
const PERF_ATTR_BYTES: u32 = 64;
const PERF_SET_BPF: libc::Ioctl = 0x4004_2408;
const PERF_ENABLE: libc::Ioctl = 0x2400;
/// `r0 = 0; exit`.
const NOTHING: [u64; 2] = [0xb7, 0x95];

/// The beginning of `union bpf_attr` for a program.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    rest: [u64; 3],
}

/// The same for a raw tracepoint.
#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    reserved: u32,
}

/// bpf(2), for commands that return a new descriptor.
pub fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is what bpf(2) documents for this command, and what it points to outlives the call.
    descriptor(unsafe { libc::syscall(libc::SYS_bpf, command, core::ptr::from_ref(attr), size_of::<T>()) })
}

/// The beginning of `struct perf_event_attr`.
#[repr(C)]
struct Event {
    kind: u32,
    size: u32,
    config: u64,
    rest: [u64; 6],
}

fn empty(kind: u32) -> Result<OwnedFd> {
    let load = Load {
        kind,
        instructions: NOTHING.len() as u32,
        code: NOTHING.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        rest: [0; 3],
    };
    bpf(PROG_LOAD, &load).context("loading an empty program")
}

/// A descriptor from a system call's result.
fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

fn attach_to_exit(name: &str, program: &OwnedFd) -> Result<OwnedFd> {
    let id = fs::read_to_string(format!("/sys/kernel/tracing/events/syscalls/{name}/id"))?;
    let event = Event { kind: PERF_TRACEPOINT, size: PERF_ATTR_BYTES, config: id.trim().parse()?, rest: [0; 6] };
    // SAFETY: `event` is what perf_event_open(2) documents; every process, CPU 0, no group.
    let fd = descriptor(unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const event, -1, 0, -1, 0) })?;
    for (request, argument) in [(PERF_SET_BPF, program.as_raw_fd()), (PERF_ENABLE, 0)] {
        // SAFETY: both take an integer.
        anyhow::ensure!(unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) } == 0, io::Error::last_os_error());
    }
    Ok(fd)
}

/// Attach them and wait for a signal.
///
/// # Errors
/// The kernel refuses one, or has no tracefs.
pub fn run() -> Result<()> {
    tracefs::provide()?;
    let mut held = Vec::new();
    for name in HOOKS {
        let program = empty(RAW_TRACEPOINT)?;
        let open = Open { name: name.as_ptr() as u64, program: program.as_raw_fd() as u32, reserved: 0 };
        held.push((bpf(RAW_TRACEPOINT_OPEN, &open).with_context(|| format!("attaching to {name:?}"))?, program));
    }
    for name in EXITS {
        let program = empty(TRACEPOINT)?;
        held.push((attach_to_exit(name, &program).with_context(|| format!("attaching to {name}"))?, program));
    }
    loop {
        // SAFETY: no arguments.
        unsafe { libc::pause() };
    }
}
