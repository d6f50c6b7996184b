//! bpf(2) where aya has no call for it: batch look-ups and updates, single updates and deletions, iterators, programs that run once, run
//! statistics.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const MAP_UPDATE_BATCH: libc::c_long = 26;
const LINK_CREATE: libc::c_long = 28;
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const ENABLE_STATS: libc::c_long = 32;
const ITER_CREATE: libc::c_long = 33;
const TRACE_ITER: u32 = 28;
const PROG_TYPE_SYSCALL: u32 = 31;
const SLEEPABLE: u32 = 1 << 4;
/// `BPF_LINK_TYPE_PERF_EVENT`, and of those `BPF_PERF_EVENT_KPROBE` and `BPF_PERF_EVENT_KRETPROBE`.
const LINK_PERF_EVENT: u32 = 7;
const KPROBES: [u32; 2] = [3, 4];

/// The members of `union bpf_attr` for one element.
#[repr(C)]
struct Element {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The member `batch`.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The members for loading a program, as far as one without type information has them.
#[repr(C)]
struct Load {
    kind: u32,
    insn_count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The member `test`.
#[derive(Default)]
#[repr(C)]
struct TestRun {
    program_fd: u32,
    returned: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

/// The member `link_create`.
#[derive(Default)]
#[repr(C)]
struct LinkCreate {
    program_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    reserved: u32,
}

/// The member `iter_create`.
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// The member `enable_stats`.
#[repr(C)]
struct EnableStats {
    kind: u32,
}

/// The member that gets objects by their number.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The member `info`.
#[repr(C)]
struct Info {
    fd: u32,
    length: u32,
    to: u64,
}

fn call<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: every caller hands over what bpf(2) documents for its command, with buffers that outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, core::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// As [`call`], for commands that return a new descriptor.
fn descriptor<T>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = call(command, attr)?;
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn element(map: &impl AsFd, key: u64, value: u64) -> Element {
    Element { map_fd: map.as_fd().as_raw_fd() as u32, reserved: 0, key, value, flags: 0 }
}

/// Set element 0 of an array of u32.
pub(super) fn set_u32(map: &impl AsFd, value: u32) -> io::Result<()> {
    let key = 0u32;
    let mut attr = element(map, (&raw const key).addr() as u64, (&raw const value).addr() as u64);
    call(MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Element 0 of an array of u32.
pub(super) fn get_u32(map: &impl AsFd) -> io::Result<u32> {
    let (key, mut value) = (0u32, 0u32);
    let mut attr = element(map, (&raw const key).addr() as u64, (&raw mut value).addr() as u64);
    call(MAP_LOOKUP_ELEM, &mut attr)?;
    Ok(value)
}

/// Delete an element; one that is not there is none.
pub(super) fn delete(map: &impl AsFd, key: u64) -> io::Result<()> {
    let mut attr = element(map, (&raw const key).addr() as u64, 0);
    match call(MAP_DELETE_ELEM, &mut attr) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Every entry of a hash map with keys of 8 bytes and values of `words` words (of a per-CPU map: of all CPUs together). `entry` gets
/// key and value. An entry that comes or goes meanwhile may be missed or not; none comes twice.
pub(super) fn for_each(map: &impl AsFd, words: usize, mut entry: impl FnMut(u64, &[u64])) -> io::Result<()> {
    // A call gives whole buckets: fewer than the longest chain is refused, and then more are asked for.
    let mut room = 64usize;
    let (mut keys, mut values) = (vec![0u64; room], vec![0u64; room * words]);
    // A hash map's position is the number of a bucket.
    let mut position: Option<u32> = None;
    loop {
        let (from, mut to) = (position.unwrap_or(0), 0u32);
        let mut attr = Batch {
            in_batch: if position.is_some() { (&raw const from).addr() as u64 } else { 0 },
            out_batch: (&raw mut to).addr() as u64,
            keys: keys.as_mut_ptr().addr() as u64,
            values: values.as_mut_ptr().addr() as u64,
            count: room as u32,
            map_fd: map.as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        let last = match call(MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => false,
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && room < 1 << 16 => {
                room *= 4;
                keys.resize(room, 0);
                values.resize(room * words, 0);
                continue;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        for (key, value) in keys.iter().zip(values.chunks_exact(words)).take(attr.count as usize) {
            entry(*key, value);
        }
        if last {
            return Ok(());
        }
        position = Some(to);
    }
}

/// The same, entry by entry. The kernel runs no program on kprobes where it looks entries up: with a batch, while it passes one empty
/// bucket after the other; here, for as long as it copies one entry. Nobody else may delete entries meanwhile.
pub(super) fn for_each_key(map: &impl AsFd, words: usize, mut entry: impl FnMut(u64, &[u64])) -> io::Result<()> {
    let mut value = vec![0u64; words];
    let mut position: Option<u64> = None;
    loop {
        let (from, mut key) = (position.unwrap_or(0), 0u64);
        let from = if position.is_some() { (&raw const from).addr() as u64 } else { 0 };
        match call(MAP_GET_NEXT_KEY, &mut element(map, from, (&raw mut key).addr() as u64)) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        }
        call(MAP_LOOKUP_ELEM, &mut element(map, (&raw const key).addr() as u64, value.as_mut_ptr().addr() as u64))?;
        entry(key, &value);
        position = Some(key);
    }
}

/// Set the first elements of an array of maps. The kernel waits for programs that may still use what was there before, for each call,
/// and before Linux 6.8 for each element.
pub(super) fn set_maps(array: &impl AsFd, maps: &[OwnedFd]) -> io::Result<()> {
    let keys: Vec<u32> = (0..).take(maps.len()).collect();
    let values: Vec<u32> = maps.iter().map(|map| map.as_raw_fd() as u32).collect();
    let mut attr = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr().addr() as u64,
        values: values.as_ptr().addr() as u64,
        count: maps.len() as u32,
        map_fd: array.as_fd().as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    call(MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// Load a program that runs when it is told to ([`run_syscall`]).
pub(super) fn load_syscall(insns: &[u64]) -> io::Result<OwnedFd> {
    let mut attr = Load {
        kind: PROG_TYPE_SYSCALL,
        insn_count: insns.len() as u32,
        insns: insns.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: SLEEPABLE,
    };
    descriptor(PROG_LOAD, &mut attr)
}

/// Run such a program with a context that it may change.
pub(super) fn run_syscall(program: &OwnedFd, context: &mut u64) -> io::Result<()> {
    let mut attr = TestRun {
        program_fd: program.as_raw_fd() as u32,
        ctx_size_in: size_of::<u64>() as u32,
        ctx_in: core::ptr::from_mut(context).addr() as u64,
        ..TestRun::default()
    };
    call(PROG_TEST_RUN, &mut attr).map(drop)
}

/// Let the kernel count runs and run times of all programs for as long as the descriptor is open.
pub(super) fn run_statistics() -> io::Result<OwnedFd> {
    descriptor(ENABLE_STATS, &mut EnableStats { kind: 0 })
}

/// What an iterator goes through.
#[derive(Clone, Copy)]
pub(super) enum Walk<'a> {
    /// All that there is.
    All,
    /// The entries of a map.
    Map(&'a OwnedFd),
    /// What a process (thread group) has. Kernels before 6.1 refuse it.
    Process(u32),
}

/// Attach an iterator's program. aya gives an iterator's link away only together with its file, but one link serves every namespace.
pub(super) fn link_iterator(program: impl AsFd, walk: Walk<'_>) -> io::Result<OwnedFd> {
    // `union bpf_iter_link_info`: `map.map_fd`, or `task` with `tid` and `pid`.
    let info: [u32; 4] = match walk {
        Walk::All => [0; 4],
        Walk::Map(map) => [map.as_raw_fd() as u32, 0, 0, 0],
        Walk::Process(pid) => [0, pid, 0, 0],
    };
    let mut attr =
        LinkCreate { program_fd: program.as_fd().as_raw_fd() as u32, attach_type: TRACE_ITER, ..LinkCreate::default() };
    if !matches!(walk, Walk::All) {
        attr.iter_info = (&raw const info) as u64;
        attr.iter_info_len = size_of_val(&info) as u32;
    }
    descriptor(LINK_CREATE, &mut attr)
}

/// A new run of an iterator, to be read.
pub(super) fn run_iterator(link: &OwnedFd) -> io::Result<File> {
    descriptor(ITER_CREATE, &mut IterCreate { link_fd: link.as_raw_fd() as u32, flags: 0 }).map(File::from)
}

/// Another descriptor of a link: aya keeps its own to itself.
pub(super) fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    descriptor(LINK_GET_FD_BY_ID, &mut ById { id, next_id: 0, open_flags: 0 })
}

/// How often the kernel hit a kprobe or kretprobe and could not run what is attached: another one was being handled on that CPU, or
/// there was no free instance to note the return address in. Kernels before 6.7 do not tell: 0.
pub(super) fn missed_hits(link: &OwnedFd) -> io::Result<u64> {
    let mut info = [0u64; 8];
    let to = (&raw mut info).addr() as u64;
    call(OBJ_GET_INFO_BY_FD, &mut Info { fd: link.as_raw_fd() as u32, length: size_of_val(&info) as u32, to })?;
    Ok(missed_in(&info))
}

/// The member `perf_event.kprobe.missed` of a `struct bpf_link_info`, if it is one's.
fn missed_in(info: &[u64; 8]) -> u64 {
    let (kind, event) = (info[0] as u32, info[2] as u32);
    if kind == LINK_PERF_EVENT && KPROBES.contains(&event) { info[6] } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_hits_are_those_of_kprobes() {
        // type and id; program; kind of event; name; its length and the offset; address; missed; cookie
        let info = |kind: u64, event: u64| [kind | 5 << 32, 77, event, 0, 0, 0xffff_ffff_8100_0000, 9, 1];
        assert_eq!((missed_in(&info(7, 3)), missed_in(&info(7, 4))), (9, 9));
        assert_eq!((missed_in(&info(7, 5)), missed_in(&info(2, 3))), (0, 0), "a tracepoint, an fentry program");
    }
}
