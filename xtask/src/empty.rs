//! `cargo xtask empty`: programs that do nothing at the tracepoints where tcptrace's run, until Ctrl-C. What they cost, nothing that
//! looks there can stay below. With `--write` they write as many bytes as tcptrace's, always the same ones, which nobody reads: what that
//! costs, nothing that tells of each transition can stay below.

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::bench::tracefs;

/// The tracepoints that a plain connection passes; each has two programs (see `pair.rs`).
const HOOKS: [&CStr; 4] = [c"tcp_destroy_sock", c"tcp_destroy_sock", c"inet_sock_set_state", c"inet_sock_set_state"];
/// The first program on transitions.
const FIRST: usize = 2;
/// The exits of system calls.
const EXITS: [&str; 3] = ["sys_exit_accept4", "sys_exit_accept", "sys_exit_listen"];

const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const RINGBUF: u32 = 27;
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

/// The same for a map.
#[repr(C)]
struct Create {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    rest: [u32; 14],
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

fn load(kind: u32, code: &[u64]) -> Result<OwnedFd> {
    let load = Load {
        kind,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        rest: [0; 3],
    };
    bpf(PROG_LOAD, &load).context("loading a program")
}

/// Bytes of a record: a connection's 984, of ten transitions and four other events, by ten.
const RECORD: i16 = 96;
/// Bytes of a ring.
const RING: usize = 4 << 20;

/// `bpf_ringbuf_output(ring, 96 bytes of zeroes, 96, BPF_RB_NO_WAKEUP)`.
fn write_to(ring: &OwnedFd) -> Vec<u64> {
    const STORE_ZERO: u64 = 0x7a;
    const OUTPUT: u64 = 130;
    let instruction = |code: u64, to: u64, from: u64, offset: i16, number: u64| {
        code | to << 8 | from << 12 | u64::from(offset as u16) << 16 | (number & 0xffff_ffff) << 32
    };
    let mut code: Vec<_> = (1..=RECORD / 8).map(|word| instruction(STORE_ZERO, 10, 0, -8 * word, 0)).collect();
    code.extend([
        // r1: the map of this descriptor.
        instruction(0x18, 1, 1, 0, ring.as_raw_fd() as u64),
        0,
        // r2 = r10 - 96, r3 = 96, r4 = 1.
        instruction(0xbf, 2, 10, 0, 0),
        instruction(0x07, 2, 0, 0, -i64::from(RECORD) as u64),
        instruction(0xb7, 3, 0, 0, RECORD as u64),
        instruction(0xb7, 4, 0, 0, 1),
        instruction(0x85, 0, 0, 0, OUTPUT),
    ]);
    code.extend(NOTHING);
    code
}

/// A ring, and its reader's position, which is all that is ever moved on.
struct Ring {
    fd: OwnedFd,
    consumer: &'static AtomicU64,
    producer: &'static AtomicU64,
}

impl Ring {
    fn new() -> Result<Self> {
        let fd = bpf(MAP_CREATE, &Create { kind: RINGBUF, key: 0, value: 0, entries: RING as u32, rest: [0; 14] })?;
        // SAFETY: a constant of the system.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })?;
        let position = |at: usize, rights| {
            // SAFETY: a new mapping of one page, which stays.
            let mapped =
                unsafe { libc::mmap(std::ptr::null_mut(), page, rights, libc::MAP_SHARED, fd.as_raw_fd(), at as i64) };
            anyhow::ensure!(mapped != libc::MAP_FAILED, io::Error::last_os_error());
            // SAFETY: it begins with a position, which the kernel reads and writes atomically.
            Ok(unsafe { &*mapped.cast::<AtomicU64>() })
        };
        let (consumer, producer) = (position(0, libc::PROT_READ | libc::PROT_WRITE)?, position(page, libc::PROT_READ)?);
        Ok(Self { fd, consumer, producer })
    }

    fn forget(&self) {
        self.consumer.store(self.producer.load(Ordering::Acquire), Ordering::Release);
    }
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

/// Attach them and wait for a signal; `write`: the first programs on transitions write.
///
/// # Errors
/// The kernel refuses one, or has no tracefs.
pub fn run(write: bool) -> Result<()> {
    tracefs::provide()?;
    let ring = if write { Some(Ring::new().context("making a ring")?) } else { None };
    let first = ring.as_ref().map_or_else(|| NOTHING.to_vec(), |ring| write_to(&ring.fd));
    let mut held = Vec::new();
    for (at, name) in HOOKS.into_iter().enumerate() {
        let program = load(RAW_TRACEPOINT, if at == FIRST { &first } else { &NOTHING })?;
        let open = Open { name: name.as_ptr() as u64, program: program.as_raw_fd() as u32, reserved: 0 };
        held.push((bpf(RAW_TRACEPOINT_OPEN, &open).with_context(|| format!("attaching to {name:?}"))?, program));
    }
    for name in EXITS {
        let program = load(TRACEPOINT, &NOTHING)?;
        held.push((attach_to_exit(name, &program).with_context(|| format!("attaching to {name}"))?, program));
    }
    loop {
        match &ring {
            Some(ring) => {
                thread::sleep(Duration::from_millis(100));
                ring.forget();
            }
            None => thread::park(),
        }
    }
}
