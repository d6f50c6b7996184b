//! `cargo xtask empty`: programs that do nothing at the tracepoints where tcptrace's run, until Ctrl-C. What they cost, nothing that
//! looks there can stay below.

use std::{
    ffi::CStr,
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

/// The tracepoints that a plain connection passes; transitions have two programs (see `hooks/state.rs`).
const HOOKS: [&CStr; 4] = [c"sys_exit", c"tcp_destroy_sock", c"inet_sock_set_state", c"inet_sock_set_state"];

const PROG_LOAD: libc::c_long = 5;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const RAW_TRACEPOINT: u32 = 17;
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

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is what bpf(2) documents for this command, and what it points to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, core::ptr::from_ref(attr), size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attach them and wait for a signal.
///
/// # Errors
/// The kernel refuses one.
pub fn run() -> Result<()> {
    let mut held = Vec::new();
    for name in HOOKS {
        let load = Load {
            kind: RAW_TRACEPOINT,
            instructions: NOTHING.len() as u32,
            code: NOTHING.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            rest: [0; 3],
        };
        let program = bpf(PROG_LOAD, &load).context("loading an empty program")?;
        let open =
            Open { name: name.as_ptr() as u64, program: std::os::fd::AsRawFd::as_raw_fd(&program) as u32, reserved: 0 };
        held.push((bpf(RAW_TRACEPOINT_OPEN, &open).with_context(|| format!("attaching to {name:?}"))?, program));
    }
    loop {
        // SAFETY: no arguments.
        unsafe { libc::pause() };
    }
}
