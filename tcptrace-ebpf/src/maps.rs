//! Maps and globals: the programs' whole interface to the loader. Names are part of it.

use aya_ebpf::{
    Global,
    btf_maps::{ArrayOfMaps, RingBuf, SkStorage},
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, PerCpuArray, PerCpuHashMap},
};
use tcptrace_common::{
    queue::ListenerEntry,
    record::Head,
    settings::{Bucket, CpuStats, Filter, MAX_LISTENERS, MAX_WAITING, PerSocket, Sides, Syscalls, Waiting},
};

/// One ring per CPU. The inner type is the verifier's template; the loader makes the real ones, of any size.
#[btf_map]
pub static RINGS: ArrayOfMaps<RingBuf<Head, 4096>, 1> = ArrayOfMaps::new();

/// What was lost, per program ([`tcptrace_common::settings::program`]) and CPU.
#[map]
pub static STATS: PerCpuArray<CpuStats> = PerCpuArray::with_max_entries(1, 0);

/// Direct-mapped cache of per-socket data, indexed by the low bits of the cookie (see `per_socket`).
#[map]
pub static SLOTS: Array<PerSocket> = Array::with_max_entries(tcptrace_common::settings::SLOTS, 0);

/// Where a socket goes whose slot is taken by another.
#[btf_map]
pub static STORE: SkStorage<PerSocket> = SkStorage::new();

/// Marks the listeners that are sampled: what walks through it meets them and nothing else.
#[btf_map]
pub static LISTENING: SkStorage<u32> = SkStorage::new();

/// Wanted network namespaces.
#[map]
pub static NETNS: HashMap<u32, u8> = HashMap::with_max_entries(1024, 0);
/// Wanted ports: [`tcptrace_common::settings::side`] bits. The loader shrinks it to one entry when it is not used.
#[map]
pub static PORTS: Array<u8> = Array::with_max_entries(65536, 0);
/// Wanted IPv4 prefixes: side bits.
#[map]
pub static ADDRS_V4: LpmTrie<[u8; 4], u8> = LpmTrie::with_max_entries(1024, 0);
/// Wanted IPv6 prefixes: side bits.
#[map]
pub static ADDRS_V6: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(1024, 0);
/// Wanted processes (thread groups).
#[map]
pub static PIDS: HashMap<u32, u8> = HashMap::with_max_entries(1024, 0);

/// Totals and marks of each listener, by its cookie. Allocated in advance, as is [`WAITING`]: without, the kernel keeps a single
/// spare of this size, and the second listener that something happens to before it gets another would not be counted.
#[map]
pub static LISTENERS: PerCpuHashMap<u64, ListenerEntry> = PerCpuHashMap::with_max_entries(MAX_LISTENERS, 0);
/// A new listener's entry: zeroes, too many for the stack.
#[map]
pub static EMPTY: Array<ListenerEntry> = Array::with_max_entries(1, 0);
/// Connections in accept queues, by the child's kernel address.
#[map]
pub static WAITING: HashMap<u64, Waiting> = HashMap::with_max_entries(MAX_WAITING, 0);
/// The token buckets: for records of single requests, for copies of stacks, for records of segments to closed ports.
#[map]
pub static BUCKET: Array<Bucket> = Array::with_max_entries(tcptrace_common::settings::bucket::COUNT, 0);
/// Number of the running interval, which the collector counts up from 1; 0: not all is attached, nothing is counted.
#[map]
pub static EPOCH: Array<u32> = Array::with_max_entries(1, 0);

// The loader sets all of these. What stands here are numbers that nothing else has: the compiler may put a constant of the same bytes
// where a global is, and the program would read what the loader wrote there.

const UNSET: u32 = 0x5e7c_0000;

/// Which filters are on.
#[unsafe(no_mangle)]
pub static FILTER: Global<Filter> = Global::new(Filter { netns: UNSET, ports: UNSET, addrs: UNSET, pids: UNSET });
/// Which sides the port and address filters look at.
#[unsafe(no_mangle)]
pub static SIDES: Global<Sides> = Global::new(Sides { ports: UNSET, addrs: UNSET });
/// Wake the collector each time this many bytes (a power of two) went into a CPU's ring; 0: never.
#[unsafe(no_mangle)]
pub static WAKE_BYTES: Global<u64> = Global::new(UNSET as u64);
/// System call numbers of this architecture.
#[unsafe(no_mangle)]
pub static SYSCALLS: Global<Syscalls> =
    Global::new(Syscalls { connect: UNSET as u64, listen: UNSET as u64, accept: UNSET as u64, accept4: UNSET as u64 });
/// 1: say what went wrong through aya-log.
#[unsafe(no_mangle)]
pub static VERBOSE: Global<u32> = Global::new(UNSET);
/// 1: keep what listeners' queues need.
#[unsafe(no_mangle)]
pub static QUEUES: Global<u32> = Global::new(UNSET);
/// 1: say nothing of sockets other than listeners.
#[unsafe(no_mangle)]
pub static LISTENERS_ONLY: Global<u32> = Global::new(UNSET);
/// Records of single requests that may pass in a window of the token bucket; 0: none at all, completions included.
#[unsafe(no_mangle)]
pub static REQUEST_ALLOWANCE: Global<u64> = Global::new(UNSET as u64);
/// First slot of [`RINGS`] that takes copies of user-space stacks, one for each CPU, behind all others; 0: none are wanted.
#[unsafe(no_mangle)]
pub static STACK_RING: Global<u32> = Global::new(UNSET);
/// Copies of stacks that may pass in a window of the token bucket.
#[unsafe(no_mangle)]
pub static STACK_ALLOWANCE: Global<u64> = Global::new(UNSET as u64);
/// Of the estimator of distinct sources: random, so that nobody can choose sources that look like one, or like millions.
#[unsafe(no_mangle)]
pub static SOURCE_SEED: Global<u64> = Global::new(UNSET as u64);
/// Address of the kernel's `reqsk_timer_handler`.
#[unsafe(no_mangle)]
pub static REQSK_TIMER: Global<u64> = Global::new(UNSET as u64);
/// Address of the kernel's `tw_timer_handler`.
#[unsafe(no_mangle)]
pub static TW_TIMER: Global<u64> = Global::new(UNSET as u64);
/// 1: `inet_csk_reqsk_queue_hash_add` returns whether it queued the request; 0: it returns nothing and always does.
#[unsafe(no_mangle)]
pub static HASH_ADD_TELLS: Global<u32> = Global::new(UNSET);
/// Number of arguments of `tcp_get_cookie_sock`: 5 up to Linux 6.7, then 4.
#[unsafe(no_mangle)]
pub static COOKIE_SOCK_ARGS: Global<u32> = Global::new(UNSET);
/// Number of SKB_DROP_REASON_TCP_LISTEN_OVERFLOW on this kernel; 0: none.
#[unsafe(no_mangle)]
pub static OVERFLOW_REASON: Global<u32> = Global::new(UNSET);
/// Number of SK_RST_REASON_NO_SOCKET on this kernel; 0: none.
#[unsafe(no_mangle)]
pub static NO_SOCKET_REASON: Global<u32> = Global::new(UNSET);
/// Number of SKB_DROP_REASON_NO_SOCKET on this kernel; 0: none.
#[unsafe(no_mangle)]
pub static NO_SOCKET_DROP: Global<u32> = Global::new(UNSET);
