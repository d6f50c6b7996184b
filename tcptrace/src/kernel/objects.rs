//! The kernel objects: one for what works on every kernel, one for each kind of hook that some kernels refuse. Globals in, programs
//! that share their maps out.

use std::{
    cell::OnceCell,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Map, MapData},
    programs::Program,
};
use rustix::thread::UnshareFlags;
use tcptrace_common::settings::{Filter, Sides, Syscalls};
use zerocopy::IntoBytes as _;

use super::{Error, holes, offsets::Resolved};

/// A kernel object. A section that a kernel refuses stops a whole object, so each kind of hook has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// Connections, listeners, iterators.
    Core,
    /// Queues, by fentry and fexit.
    Fentry,
    /// Queues, by kprobe and kretprobe.
    Kprobe,
    /// Queues, by typed tracepoints.
    Tracepoint,
}

impl Object {
    const COUNT: usize = 4;

    /// As built by `cargo xtask bpf` and committed.
    fn bytes(self) -> &'static [u8] {
        static CORE: &[u8] = aya::include_bytes_aligned!(concat!(env!("TCPTRACE_BPF_DIR"), "/core.o"));
        static FENTRY: &[u8] = aya::include_bytes_aligned!(concat!(env!("TCPTRACE_BPF_DIR"), "/fentry.o"));
        static KPROBE: &[u8] = aya::include_bytes_aligned!(concat!(env!("TCPTRACE_BPF_DIR"), "/kprobe.o"));
        static TRACEPOINT: &[u8] = aya::include_bytes_aligned!(concat!(env!("TCPTRACE_BPF_DIR"), "/tracepoint.o"));
        match self {
            Self::Core => CORE,
            Self::Fentry => FENTRY,
            Self::Kprobe => KPROBE,
            Self::Tracepoint => TRACEPOINT,
        }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Core => "core.o",
            Self::Fentry => "fentry.o",
            Self::Kprobe => "kprobe.o",
            Self::Tracepoint => "tracepoint.o",
        })
    }
}

/// Values of the programs' read-only globals.
#[derive(Clone, Debug)]
pub(super) struct Globals {
    pub resolved: Resolved,
    pub filter: Filter,
    pub sides: Sides,
    pub syscalls: Syscalls,
    pub wake_bytes: u64,
    pub verbose: u32,
    pub queues: u32,
    pub listeners_only: u32,
    pub request_allowance: u64,
    pub stack_ring: u32,
    pub stack_allowance: u64,
    pub source_seed: u64,
    pub reqsk_timer: u64,
    pub tw_timer: u64,
    pub overflow_reason: u32,
    pub no_socket_reason: u32,
    /// Number of SKB_DROP_REASON_NO_SOCKET; 0: none.
    pub no_socket_drop: u32,
    pub cookie_sock_args: u32,
    pub hash_add_tells: u32,
}

/// The globals that each object was opened with.
pub(super) type Values = [OnceCell<Globals>; Object::COUNT];

/// Large maps that aya is never asked for: it does not look past the size that it made a map with.
const PROGRAMS_ALONE: [&str; 3] = ["LISTENERS", "WAITING", "SLOTS"];

/// Opens objects, by one loader. The values that it refers to outlive it.
pub(super) struct Opener<'a> {
    loader: EbpfLoader<'a>,
    values: &'a Values,
    sizes: &'a [(&'a str, u32)],
}

impl<'a> Opener<'a> {
    /// `sizes` of maps, by name.
    pub fn new(btf: &'a Btf, values: &'a Values, sizes: &'a [(&'a str, u32)]) -> Self {
        let mut loader = loader();
        loader.btf(Some(btf));
        Self { loader, values, sizes }
    }

    /// Large maps that `is_there` already are made as small as can be: the object gets the other ones.
    fn open(&mut self, object: Object, globals: &Globals, is_there: impl Fn(&str) -> bool) -> Result<Ebpf, Error> {
        let g = self.values[object as usize].get_or_init(|| globals.clone());
        for &(map, entries) in self.sizes {
            let is_copy = PROGRAMS_ALONE.contains(&map) && is_there(map);
            self.loader.map_max_entries(map, if is_copy { 1 } else { entries });
        }
        self.loader
            .override_global("FILTER", g.filter.as_bytes(), true)
            .override_global("SIDES", g.sides.as_bytes(), true)
            .override_global("SYSCALLS", g.syscalls.as_bytes(), true)
            .override_global("WAKE_BYTES", &g.wake_bytes, true)
            .override_global("VERBOSE", &g.verbose, true)
            .override_global("QUEUES", &g.queues, true)
            .override_global("LISTENERS_ONLY", &g.listeners_only, true)
            .override_global("REQUEST_ALLOWANCE", &g.request_allowance, true)
            .override_global("STACK_RING", &g.stack_ring, true)
            .override_global("STACK_ALLOWANCE", &g.stack_allowance, true)
            .override_global("SOURCE_SEED", &g.source_seed, true)
            .override_global("REQSK_TIMER", &g.reqsk_timer, true)
            .override_global("TW_TIMER", &g.tw_timer, true)
            .override_global("OVERFLOW_REASON", &g.overflow_reason, true)
            .override_global("NO_SOCKET_REASON", &g.no_socket_reason, true)
            .override_global("NO_SOCKET_DROP", &g.no_socket_drop, true)
            .override_global("COOKIE_SOCK_ARGS", &g.cookie_sock_args, true)
            .override_global("HASH_ADD_TELLS", &g.hash_add_tells, true);
        let filled = holes::fill(object.bytes(), &g.resolved);
        let filled = filled
            .map_err(|what| Error::load("writing offsets into the kernel programs", std::io::Error::other(what)))?;
        self.loader.load(filled.bytes()).map_err(|e| Error::load("making the kernel programs' maps", e))
    }
}

/// A loader without type information. aya reads all of the kernel's for each new one, a tenth of the time that a tracer takes to
/// start, whatever it is given later; without a message it does without where the file is not to be found. So the loader is made in a
/// thread for which it is not. Where that is not permitted it only takes longer.
fn loader<'a>() -> EbpfLoader<'a> {
    /// Has no such file below it.
    const ELSEWHERE: &str = "/proc/self/fdinfo";
    let make = || {
        // SAFETY: the thread gets a root directory of its own, and shares all else as before.
        if unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.is_ok() {
            let _ = rustix::process::chroot(ELSEWHERE);
        }
        EbpfLoader::new()
    };
    std::thread::scope(|scope| match std::thread::Builder::new().spawn_scoped(scope, make) {
        Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(_) => EbpfLoader::new(),
    })
}

/// Objects that were opened.
#[derive(Default)]
pub(super) struct Objects {
    open: [Option<Ebpf>; Object::COUNT],
}

impl Objects {
    /// Make an object's maps and prepare its programs, once. A map whose name an open object has, too, is that object's map.
    ///
    /// # Errors
    /// [`Error::Load`] and its kin; [`Error::Maps`] when two objects define a map differently.
    pub fn open(&mut self, object: Object, globals: &Globals, opener: &mut Opener<'_>) -> Result<(), Error> {
        if self.open[object as usize].is_some() {
            return Ok(());
        }
        let ebpf = opener.open(object, globals, |name| self.map(name).is_some())?;
        for (name, map) in ebpf.maps().filter(|(name, _)| !name.starts_with('.')) {
            if let Some(first) = self.map(name) {
                share(name, data(first), data(map))?;
            }
        }
        self.open[object as usize] = Some(ebpf);
        Ok(())
    }

    /// An open object.
    pub fn get_mut(&mut self, object: Object) -> Result<&mut Ebpf, Error> {
        self.open[object as usize].as_mut().ok_or_else(|| Error::missing("a program"))
    }

    /// A program of an open object.
    pub fn program(&self, object: Object, name: &str) -> Option<&Program> {
        self.open[object as usize].as_ref()?.program(name)
    }

    /// The same, to be loaded.
    pub fn program_mut(&mut self, object: Object, name: &'static str) -> Result<&mut Program, Error> {
        let ebpf = self.open[object as usize].as_mut();
        ebpf.and_then(|ebpf| ebpf.program_mut(name)).ok_or_else(|| Error::missing(name))
    }

    /// Close an object none of whose programs is attached; its maps stay with the others that have them.
    pub fn close(&mut self, object: Object) {
        self.open[object as usize] = None;
    }

    /// A map, in whichever open object has it.
    fn map(&self, name: &str) -> Option<&Map> {
        self.open.iter().flatten().find_map(|open| open.map(name))
    }

    /// A descriptor of a map.
    pub fn map_fd(&self, name: &'static str) -> Result<OwnedFd, Error> {
        let map = self.map(name).ok_or_else(|| Error::missing(name))?;
        data(map).fd().as_fd().try_clone_to_owned().map_err(|e| Error::load("keeping a map", e))
    }
}

/// What makes two maps interchangeable to the programs that use them. The number of entries does not: the kernel checks programs
/// against the map that they get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Definition {
    kind: u32,
    key: u32,
    value: u32,
    flags: u32,
}

impl Definition {
    fn of(map: &MapData) -> Result<Self, Error> {
        let info = map.info().map_err(|e| Error::load("asking for a map's definition", e))?;
        Ok(Self {
            kind: info.map_type().map_err(|e| Error::load("asking for a map's type", e))? as u32,
            key: info.key_size(),
            value: info.value_size(),
            flags: info.map_flags(),
        })
    }
}

/// Let `map` of an object whose programs are not loaded yet be `first`. Their instructions hold descriptor numbers, which the kernel
/// looks up when it loads them: behind the same number there is now another map.
fn share(name: &str, first: &MapData, map: &MapData) -> Result<(), Error> {
    if Definition::of(first)? != Definition::of(map)? {
        return Err(Error::Maps(name.to_owned()));
    }
    let (from, to) = (first.fd().as_fd().as_raw_fd(), map.fd().as_fd().as_raw_fd());
    // SAFETY: both are open; `to` stays owned by `map`, which closes it in the end, whatever it refers to.
    if unsafe { libc::dup3(from, to, libc::O_CLOEXEC) } < 0 {
        return Err(Error::load("sharing a map between the kernel objects", std::io::Error::last_os_error()));
    }
    Ok(())
}

pub(super) fn data(map: &Map) -> &MapData {
    use Map::*;
    match map {
        Array(d)
        | ArrayOfMaps(d)
        | BloomFilter(d)
        | CgroupArray(d)
        | CgroupStorage(d)
        | CgrpStorage(d)
        | CpuMap(d)
        | DevMap(d)
        | DevMapHash(d)
        | HashMap(d)
        | HashOfMaps(d)
        | InodeStorage(d)
        | LpmTrie(d)
        | LruHashMap(d)
        | PerCpuArray(d)
        | PerCpuCgroupStorage(d)
        | PerCpuHashMap(d)
        | PerCpuLruHashMap(d)
        | PerfEventArray(d)
        | ProgramArray(d)
        | Queue(d)
        | ReusePortSockArray(d)
        | RingBuf(d)
        | SockHash(d)
        | SockMap(d)
        | SkStorage(d)
        | Stack(d)
        | StackTraceMap(d)
        | Unsupported(d)
        | XskMap(d) => d,
    }
}
