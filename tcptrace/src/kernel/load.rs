//! Loads the kernel programs: resolved offsets and settings in, attached programs and their rings out.

use std::{
    hash::{BuildHasher as _, Hasher as _},
    io,
    os::fd::AsFd as _,
    time::Duration,
};

use aya::{
    Btf, Ebpf, Endianness,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, lpm_trie::Key},
};
use aya_log::EbpfLogger;
use tcptrace_common::{
    offsets::ABSENT,
    queue::ListenerEntry,
    settings::{CpuStats, Filter, MAX_LISTENERS, MAX_WAITING, SLOTS, Sides, Syscalls},
};

use super::{
    Error,
    bpf::{self, Walk},
    btf::Btf as Types,
    containers::PATIENCE,
    facts::{Facts, Lockdown},
    objects::{self, Globals, Object, Objects, Opener, Values},
    offsets::{self, Absent, Resolved},
    processes::Processes,
    received::Received,
    ring::Ring,
    sampler::Sampler,
    signal::{Attacher, Links, Signal, Tier},
    snapshot::{self, Iterators},
};

/// A CPU's ring for copies of stacks, bytes: twice what the token bucket lets pass at a time.
const STACK_RING: u32 = 512 * 1024;
/// Smallest ring of a CPU, bytes.
const MIN_RING: u32 = 256 * 1024;
/// Processes that a traced one and all that descend from it may come to.
const MAX_PROCESSES: u32 = 1 << 16;
/// The token bucket of single requests is filled once in so many nanoseconds.
const BUCKET_NS: u64 = 1 << 24;

/// What the kernel side filters by; empty lists let everything pass.
#[derive(Clone, Debug, Default)]
pub struct KernelFilter {
    /// Network namespaces.
    pub netns: Vec<u32>,
    /// (first port, last port, [`tcptrace_common::settings::side`] bit).
    pub ports: Vec<(u16, u16, u8)>,
    /// (address, prefix length, [`tcptrace_common::settings::side`] bit); IPv4 and IPv6.
    pub addrs: Vec<(std::net::IpAddr, u8, u8)>,
    /// Thread groups.
    pub pids: Vec<u32>,
    /// These and all that descend from them from now on.
    pub follow: bool,
}

/// How to load.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Kernel-side filter.
    pub filter: KernelFilter,
    /// Size of all rings together, bytes.
    pub buffer: u64,
    /// How often the rings are looked at when nothing wakes the collector.
    pub period: Duration,
    /// Best kind of hooks to use.
    pub tier: Tier,
    /// Let the kernel programs say what goes wrong.
    pub verbose: bool,
    /// What is wanted about listeners' queues.
    pub queues: Queues,
    /// Segments to closed ports are wanted, too.
    pub probes: bool,
    /// How often listeners and the kernel's counters are read, where anything is known about queues.
    pub interval: Duration,
    /// Read sockets that wait for one of their ends to close, too, where anything is known about queues.
    pub closing: bool,
    /// Records of single half-open requests that may pass, a second; what is held back is counted. 0: none, those of completed
    /// handshakes included.
    pub request_rate: u64,
    /// User-space stacks of who opens and accepts sockets that may be copied, a second; what is held back is counted. 0: none.
    pub stack_rate: u64,
    /// Listeners that there is room for.
    pub max_listeners: u32,
    /// What the name of a container is waited for.
    pub patience: Duration,
    /// Connections in accept queues that there is room for.
    pub max_waiting: u32,
    /// Of each pair of programs let the second alone see what passes, which is there for what the first must skip. For tests.
    pub seconds_only: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            filter: KernelFilter::default(),
            buffer: 0,
            period: Duration::from_millis(100),
            tier: Tier::default(),
            verbose: false,
            queues: Queues::default(),
            probes: false,
            interval: Duration::from_secs(1),
            closing: false,
            request_rate: 20_000,
            stack_rate: 0,
            patience: PATIENCE,
            max_listeners: MAX_LISTENERS,
            max_waiting: MAX_WAITING,
            seconds_only: false,
        }
    }
}

/// What is wanted about listeners' queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Queues {
    /// What fentry or kprobe tell, which cost nothing while nothing happens to a listener: for commands about connections.
    #[default]
    IfCheap,
    /// The same by any hook, those that other work passes too included.
    Requests,
    /// Queues by any hook, and of connections only what is about listeners.
    Only,
}

/// The loaded and attached programs. Dropping it detaches them.
pub struct Loaded {
    /// Keeps the programs attached; the first to go.
    pub(super) links: Links,
    /// Keeps programs and maps alive.
    pub(super) objects: Objects,
    /// For the start snapshot and those after losses.
    pub iterators: Option<Iterators>,
    /// Looks for sockets that processes which are followed were given; None: none are.
    pub received: Option<Received>,
    /// Which hook serves which signal.
    pub signals: Vec<Signal>,
    /// Reads listeners and the kernel's counters; None: nothing is known about queues.
    pub sampler: Option<Sampler>,
    /// Take copies of user-space stacks, by CPU; none: they are not wanted.
    pub stacks: Vec<Ring>,
    /// Reads what the programs say, when they were told to.
    log: Option<EbpfLogger<Printer>>,
    /// Loss counters.
    pub(super) stats: PerCpuArray<MapData, Stats>,
}

/// [`CpuStats`], wrapped because only a local type may be declared plain old data to aya.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Stats(pub CpuStats);
// SAFETY: repr(transparent) over a struct of integers without padding.
unsafe impl aya::Pod for Stats {}

/// Resolve the fields that the programs read, as far as this kernel lets them; with the type information that they come from.
///
/// # Errors
/// [`Error::KernelUnsupported`] naming a required field; [`Error::Btf`].
pub fn resolve(facts: &Facts) -> Result<(Resolved, Types), Error> {
    let (mut resolved, types) = offsets::from_running_kernel()?;
    if facts.lockdown == Lockdown::Confidentiality {
        // Before 6.18 a socket's inode number can be read only with bpf_probe_read_kernel, which lockdown refuses. Direct loads go
        // on working, so do without this one field.
        resolved.offsets.socket_inode = ABSENT;
    }
    if facts.bpf_jit_enable == Some(0) {
        // An interpreted program calls helpers only.
        resolved.cast = None;
    }
    Ok((resolved, types))
}

/// Load and attach every signal, measure hooks that other work passes too, and let go again: what serves which signal, and what the
/// kernel lacks.
///
/// # Errors
/// As [`load`].
pub fn try_out(facts: &Facts, tier: Tier) -> Result<(Vec<Signal>, Vec<Absent>), Error> {
    let (resolved, types) = resolve(facts)?;
    let settings = Settings { tier, queues: Queues::Requests, probes: true, ..Settings::default() };
    let (mut loaded, _) = load(&resolved, types, &settings)?;
    super::hot::measure(&mut loaded);
    Ok((loaded.signals, resolved.absent))
}

/// Load and attach what the settings ask for, and make one ring per possible CPU.
///
/// # Errors
/// [`Error::Signal`] when a signal that everything rests on has no hook; [`Error::NotPermitted`] when the kernel refuses bpf()
/// altogether; [`Error::Load`] for the rest.
pub fn load(resolved: &Resolved, types: Types, settings: &Settings) -> Result<(Loaded, Vec<Ring>), Error> {
    let points = super::signal::attach_points(settings.tier);
    let names = points.chain(snapshot::TARGETS.map(|target| format!("bpf_iter_{target}")));
    let btf = Btf::parse(&types.extract(&names.collect()).map_err(offsets::malformed)?, Endianness::default());
    let btf = btf.map_err(|e| Error::load("reading the kernel's BTF", e))?;
    drop(types);
    let cpus = cpu_slots().map_err(|e| Error::load("reading the list of CPUs", e))?;
    let ring_bytes = ring_size(settings.buffer, cpus);
    let f = &settings.filter;
    let mut globals = globals(resolved, settings, ring_bytes);
    globals.stack_ring = if settings.stack_rate > 0 { cpus } else { 0 };
    let sizes = [
        ("RINGS", if settings.stack_rate > 0 { 2 * cpus } else { cpus }),
        ("PORTS", if f.ports.is_empty() { 1 } else { 65536 }),
        ("LISTENERS", settings.max_listeners.min(listeners_for(cpus))),
        ("WAITING", settings.max_waiting),
        ("SLOTS", SLOTS),
        ("PIDS", if f.follow { MAX_PROCESSES } else { 1024 }),
    ];
    let values = Values::default();
    let mut opener = Opener::new(&btf, &values, &sizes);
    let mut objects = Objects::default();
    let mut attacher = Attacher::new(&mut objects, &mut opener, &mut globals, &btf, &resolved.prototypes, settings);
    // Before the programs that make timelines; what happens meanwhile is nobody's, because there are no rings yet.
    let mut queues = attacher.queues(settings.queues != Queues::IfCheap)?;
    if settings.queues == Queues::IfCheap {
        queues.retain(|signal| signal.hook.is_some());
    }
    let about_queues = !queues.is_empty();
    attacher.globals.queues = u32::from(about_queues);
    attacher.objects.open(Object::Core, attacher.globals, attacher.opener)?;
    let core = attacher.objects.get_mut(Object::Core)?;
    fill_filters(core, f)?;
    let mut sizes = vec![ring_bytes; cpus as usize];
    if settings.stack_rate > 0 {
        sizes.resize(2 * cpus as usize, STACK_RING);
    }
    let mut rings = make_rings(core, &sizes)?;
    let stacks = rings.split_off(cpus as usize);
    let mut signals = attacher.connections(settings.queues == Queues::Only)?;
    let exact = about_queues && queues.iter().all(|signal| signal.exact);
    signals.append(&mut queues);
    let links = attacher.into_links();
    let listening = objects.map_fd("LISTENING")?;
    let core = objects.get_mut(Object::Core)?;
    let log = settings.verbose.then(|| EbpfLogger::init_with_logger(core, Printer)).transpose();
    let log = log.map_err(|e| Error::load("opening the kernel programs' log", e))?;
    let iterators = Some(Iterators::new(core, &btf)?);
    let received = match f.pids.is_empty() || settings.queues == Queues::Only {
        true => None,
        false => Some(snapshot::load(core, &btf, "iter_received", snapshot::TASK_FILE)?),
    };
    let sampler = match about_queues {
        true => {
            let mark = snapshot::link(core, &btf, "iter_mark_listeners", snapshot::TCP, Walk::All)?;
            let read = snapshot::link(core, &btf, "iter_listeners", snapshot::SOCKET_STORAGE, Walk::Map(&listening))?;
            Some(Sampler::new(mark, read, &objects, settings, &signals, exact)?)
        }
        false => None,
    };
    let stats = objects.get_mut(Object::Core)?.take_map("STATS").ok_or_else(|| Error::missing("STATS"))?;
    let stats = PerCpuArray::try_from(stats).map_err(|e| Error::load("opening the loss counters", e))?;
    let received = received.map(|program| Ok(Received::new(program, Processes::of(&objects)?))).transpose()?;
    // Not to be kept for the whole run.
    drop(opener);
    Ok((Loaded { links, objects, iterators, received, signals, sampler, stacks, log, stats }, rings))
}

/// All but what depends on the outcome of attaching.
fn globals(resolved: &Resolved, settings: &Settings, ring_bytes: u32) -> Globals {
    let f = &settings.filter;
    Globals {
        resolved: resolved.clone(),
        filter: Filter {
            netns: match f.netns.as_slice() {
                [] => 0,
                // A comparison costs a tenth of a look-up.
                [only] => *only,
                _ => Filter::SEVERAL,
            },
            ports: u32::from(!f.ports.is_empty()),
            addrs: u32::from(!f.addrs.is_empty()),
            pids: u32::from(!f.pids.is_empty()),
        },
        sides: Sides {
            ports: f.ports.iter().fold(0, |s, p| s | u32::from(p.2)),
            addrs: f.addrs.iter().fold(0, |s, a| s | u32::from(a.2)),
        },
        syscalls: Syscalls {
            connect: libc::SYS_connect as u64,
            listen: libc::SYS_listen as u64,
            accept: libc::SYS_accept as u64,
            accept4: libc::SYS_accept4 as u64,
        },
        wake_bytes: u64::from(ring_bytes) / 4,
        verbose: u32::from(settings.verbose),
        queues: 1,
        listeners_only: u32::from(settings.queues == Queues::Only),
        request_allowance: allowance(settings.request_rate),
        stack_ring: 0,
        stack_allowance: allowance(settings.stack_rate),
        // What the standard library seeds its own tables with.
        source_seed: std::hash::RandomState::new().build_hasher().finish(),
        reqsk_timer: 0,
        tw_timer: 0,
        overflow_reason: resolved.overflow_reason.unwrap_or(0),
        no_socket_reason: resolved.no_socket_reason.unwrap_or(0),
        no_socket_drop: resolved.no_socket_drop.unwrap_or(0),
        cookie_sock_args: resolved.prototypes.arity("tcp_get_cookie_sock").map_or(4, |arity| arity as u32),
        hash_add_tells: u32::from(resolved.prototypes.hash_add_tells()),
    }
}

/// Records that a filling of the token bucket lets pass: at least one, unless none is wanted.
fn allowance(per_second: u64) -> u64 {
    let share = u128::from(per_second) * u128::from(BUCKET_NS) / 1_000_000_000;
    share.clamp(u128::from(per_second.min(1)), u128::from(u64::MAX)) as u64
}

impl Loaded {
    /// Print what the kernel programs said since the last call.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }
}

/// Prints the kernel programs' messages to stderr.
struct Printer;

impl log::Log for Printer {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("tcptrace: kernel program: {}", record.args());
    }

    fn flush(&self) {}
}

/// Number of slots that a CPU number can index: the highest possible CPU + 1 (the list may have holes).
fn cpu_slots() -> io::Result<u32> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    // Nothing is no number: an error below.
    let last = list.trim().rsplit([',', '-']).next().unwrap_or_default();
    last.parse::<u32>().map(|n| n + 1).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("`{list}`")))
}

/// Listeners that there is room for in the kernel memory that their totals, kept per CPU, may take.
fn listeners_for(cpus: u32) -> u32 {
    const MEMORY: usize = 32 << 20;
    (MEMORY / size_of::<ListenerEntry>() / cpus as usize).max(256) as u32
}

/// A CPU's share of `buffer`, a power of two.
fn ring_size(buffer: u64, cpus: u32) -> u32 {
    let share = (buffer / u64::from(cpus)).clamp(u64::from(MIN_RING), 1 << 30);
    1 << share.ilog2()
}

/// Rings of these sizes, in the slots of their order.
fn make_rings(ebpf: &Ebpf, sizes: &[u32]) -> Result<Vec<Ring>, Error> {
    let outer = objects::data(ebpf.map("RINGS").ok_or_else(|| Error::missing("RINGS"))?);
    let make = |(slot, &bytes): (usize, &u32)| {
        let kind = aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32;
        let definition = aya_obj::Map::new_from_params(kind, 0, 0, bytes, 0);
        let map =
            MapData::create(definition, &format!("ring_{slot}"), None).map_err(|e| Error::load("making a ring", e))?;
        // aya's RingBuf maps it twice over; with the descriptor alone its memory is ours to map.
        map.fd().as_fd().try_clone_to_owned().map_err(|e| Error::load("keeping a ring", e))
    };
    let rings = sizes.iter().enumerate().map(make).collect::<Result<Vec<_>, _>>()?;
    bpf::set_maps(outer.fd(), &rings).map_err(|e| Error::load("hanging in the rings", e))?;
    let map = |(fd, &bytes): (_, &u32)| Ring::new(fd, bytes).map_err(|e| Error::load("mapping a ring", e));
    rings.into_iter().zip(sizes).map(map).collect()
}

fn fill_filters(ebpf: &mut Ebpf, f: &KernelFilter) -> Result<(), Error> {
    let failed = |e| Error::load("setting a filter", e);
    let mut netns: HashMap<_, u32, u8> =
        HashMap::try_from(ebpf.map_mut("NETNS").ok_or_else(|| Error::missing("NETNS"))?).map_err(failed)?;
    for n in &f.netns {
        netns.insert(n, 1, 0).map_err(failed)?;
    }
    let mut pids: HashMap<_, u32, u8> =
        HashMap::try_from(ebpf.map_mut("PIDS").ok_or_else(|| Error::missing("PIDS"))?).map_err(failed)?;
    for pid in &f.pids {
        pids.insert(pid, 1, 0).map_err(failed)?;
    }
    if !f.ports.is_empty() {
        let mut ports: Array<_, u8> =
            Array::try_from(ebpf.map_mut("PORTS").ok_or_else(|| Error::missing("PORTS"))?).map_err(failed)?;
        let mut sides = vec![0u8; 65536];
        for &(first, last, side) in &f.ports {
            sides[usize::from(first)..=usize::from(last)].iter_mut().for_each(|s| *s |= side);
        }
        for (port, side) in (0u32..).zip(sides).filter(|(_, side)| *side != 0) {
            ports.set(port, side, 0).map_err(failed)?;
        }
    }
    fill_prefixes(ebpf, f)
}

/// The programs find the longest prefix only, so each entry also carries the sides of every prefix that contains it.
fn fill_prefixes(ebpf: &mut Ebpf, f: &KernelFilter) -> Result<(), Error> {
    use std::net::IpAddr;
    let failed = |e| Error::load("setting an address filter", e);
    for &(addr, len, _) in &f.addrs {
        let sides = f.addrs.iter().filter(|(a, l, _)| contains(*a, *l, addr, len)).fold(0, |s, x| s | x.2);
        match addr {
            IpAddr::V4(a) => {
                let map = ebpf.map_mut("ADDRS_V4").ok_or_else(|| Error::missing("ADDRS_V4"))?;
                let mut trie: LpmTrie<_, [u8; 4], u8> = LpmTrie::try_from(map).map_err(failed)?;
                trie.insert(&Key::new(u32::from(len), a.octets()), sides, 0).map_err(failed)?;
            }
            IpAddr::V6(a) => {
                let map = ebpf.map_mut("ADDRS_V6").ok_or_else(|| Error::missing("ADDRS_V6"))?;
                let mut trie: LpmTrie<_, [u8; 16], u8> = LpmTrie::try_from(map).map_err(failed)?;
                trie.insert(&Key::new(u32::from(len), a.octets()), sides, 0).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Does prefix `outer/outer_len` contain `inner/inner_len`?
fn contains(outer: std::net::IpAddr, outer_len: u8, inner: std::net::IpAddr, inner_len: u8) -> bool {
    use std::net::IpAddr::{V4, V6};
    let same = |a: u128, b: u128, width: u32, len: u8| len == 0 || (a ^ b) >> (width - u32::from(len).min(width)) == 0;
    outer_len <= inner_len
        && match (outer, inner) {
            (V4(a), V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32, outer_len),
            (V6(a), V6(b)) => same(a.into(), b.into(), 128, outer_len),
            _ => false,
        }
}
