//! The one list of kernel fields that the programs read: (global ↔ struct and path in the kernel's BTF).
//!
//! The collector resolves every path at start and writes the offsets into the programs' instructions ([`hole`]). A field that the
//! running kernel lacks becomes [`ABSENT`]: the verifier prunes its reader, and `doctor` names it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offset of a field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// What stands in a kernel program's instructions for a place that is known only when it is loaded: numbers that nothing else there
/// has. Each range is counted in members of its struct, all of which are `u32`.
pub mod hole {
    /// Immediate of a move: plus the byte of a member of [`Offsets`](super::Offsets).
    pub const FIELD: i64 = 0x5e7a_0000;
    /// Immediate of a move: plus the byte of a member of a member of [`Bitfields`](super::Bitfields).
    pub const BITS: i64 = 0x5e7b_0000;
    /// Offset of a load: plus the index of a member of [`Offsets`](super::Offsets).
    pub const FIELD_AT: i64 = 0x4000;
    /// Offset of a load: plus the index of a word of [`Bitfields`](super::Bitfields), the byte that the field lies in.
    pub const BITS_AT: i64 = 0x5000;
    /// Immediate in place of [`ABSENT`](super::ABSENT).
    pub const NONE: u32 = 0x7fff_ffff;
    /// Immediate of a move: plus a [`structure`](super::structure), the number of its type.
    pub const TYPE: i64 = 0x5e7c_0000;
    /// Immediate of a move: 1 where the kernel has `bpf_rdonly_cast`, otherwise 0.
    pub const CASTS: i64 = 0x5e7d_0000;
    /// Immediate of a call: of `bpf_rdonly_cast`.
    pub const CAST: i64 = 0x5e7d_0001;
}

/// One entry of [`FIELDS`].
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Name of the global's member.
    pub name: &'static str,
    /// Kernel struct.
    pub structure: &'static str,
    /// Path inside it, dots between members.
    pub path: &'static str,
    /// Widths in bytes that the reader can load.
    pub sizes: &'static [u32],
    /// tcptrace cannot work without it.
    pub required: bool,
}

macro_rules! offsets {
    ($($name:ident: $structure:literal . $path:literal $sizes:tt $need:ident;)*) => {
        /// Byte offsets of kernel fields, in the order of [`FIELDS`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        #[expect(missing_docs, reason = "FIELDS names each one's struct and path")]
        pub struct Offsets { $(pub $name: u32,)* }

        impl Offsets {
            /// Nothing resolved.
            pub const UNKNOWN: Self = Self { $($name: ABSENT,)* };
            /// The members by their position in [`FIELDS`].
            pub fn set(&mut self, index: usize, offset: u32) {
                let mut i = 0;
                $(if i == index { self.$name = offset; } i += 1;)*
                let _ = i;
            }
        }
        /// What each offset is.
        pub const FIELDS: &[Spec] = &[$(Spec {
            name: stringify!($name), structure: $structure, path: $path, sizes: &$sizes, required: offsets!(@ $need),
        },)*];
    };
    (@ required) => { true };
    (@ optional) => { false };
}

offsets! {
    state: "sock"."__sk_common.skc_state" [1] required;
    family: "sock"."__sk_common.skc_family" [2] required;
    num: "sock"."__sk_common.skc_num" [2] required;
    dport: "sock"."__sk_common.skc_dport" [2] required;
    daddr: "sock"."__sk_common.skc_daddr" [4] required;
    saddr: "sock"."__sk_common.skc_rcv_saddr" [4] required;
    daddr6: "sock"."__sk_common.skc_v6_daddr" [16] required;
    saddr6: "sock"."__sk_common.skc_v6_rcv_saddr" [16] required;
    net: "sock"."__sk_common.skc_net.net" [8] required;
    cookie: "sock"."__sk_common.skc_cookie" [8] required;
    sock_flags: "sock"."__sk_common.skc_flags" [8] required;
    protocol: "sock"."sk_protocol" [2] required;
    err: "sock"."sk_err" [4] required;
    shutdown: "sock"."sk_shutdown" [1] required;
    socket: "sock"."sk_socket" [8] required;
    sk_uid: "sock"."sk_uid" [4] optional;
    sk_ino: "sock"."sk_ino" [8] optional;
    ack_backlog: "sock"."sk_ack_backlog" [4] required;
    max_ack_backlog: "sock"."sk_max_ack_backlog" [4] required;
    net_inum: "net"."ns.inum" [4] required;
    tw_count: "net"."ipv4.tcp_death_row.tw_refcount" [4] optional;
    tw_max: "net"."ipv4.tcp_death_row.sysctl_max_tw_buckets" [4] optional;
    sport: "inet_sock"."inet_sport" [2] required;
    qlen: "inet_connection_sock"."icsk_accept_queue.qlen" [4] optional;
    defer_accept: "inet_connection_sock"."icsk_accept_queue.rskq_defer_accept" [1] optional;
    user_timeout: "inet_connection_sock"."icsk_user_timeout" [4] optional;
    probes_out: "inet_connection_sock"."icsk_probes_out" [1] optional;
    retransmits: "inet_connection_sock"."icsk_retransmits" [1] optional;
    lrcvtime: "inet_connection_sock"."icsk_ack.lrcvtime" [4] optional;
    lsndtime: "tcp_sock"."lsndtime" [4] optional;
    bytes_sent: "tcp_sock"."bytes_sent" [8] required;
    bytes_acked: "tcp_sock"."bytes_acked" [8] required;
    bytes_received: "tcp_sock"."bytes_received" [8] required;
    bytes_retrans: "tcp_sock"."bytes_retrans" [8] optional;
    segs_out: "tcp_sock"."segs_out" [4] required;
    segs_in: "tcp_sock"."segs_in" [4] required;
    total_retrans: "tcp_sock"."total_retrans" [4] required;
    packets_out: "tcp_sock"."packets_out" [4] required;
    srtt_us: "tcp_sock"."srtt_us" [4] required;
    rtt_min: "tcp_sock"."rtt_min.s[0].v" [4] optional;
    mss_cache: "tcp_sock"."mss_cache" [4] required;
    advmss: "tcp_sock"."advmss" [2] required;
    snd_una: "tcp_sock"."snd_una" [4] required;
    rcv_nxt: "tcp_sock"."rcv_nxt" [4] required;
    write_seq: "tcp_sock"."write_seq" [4] required;
    copied_seq: "tcp_sock"."copied_seq" [4] required;
    linger2: "tcp_sock"."linger2" [4] optional;
    ecn_flags: "tcp_sock"."ecn_flags" [1] optional;
    req_dport: "request_sock"."__req_common.skc_dport" [2] required;
    req_num: "request_sock"."__req_common.skc_num" [2] required;
    num_retrans: "request_sock"."num_retrans" [1] optional;
    tw_substate: "inet_timewait_sock"."tw_substate" [1] optional;
    tw_sport: "inet_timewait_sock"."tw_sport" [2] optional;
    socket_inode: "socket_alloc"."vfs_inode.i_ino" [8] optional;
    socket_sk: "socket"."sk" [8] optional;
    file_private: "file"."private_data" [8] optional;
    task_files: "task_struct"."files" [8] optional;
    task_leader: "task_struct"."group_leader" [8] required;
    task_parent: "task_struct"."real_parent" [8] required;
    task_tgid: "task_struct"."tgid" [4] required;
    task_pid: "task_struct"."pid" [4] required;
    task_comm: "task_struct"."comm" [16] required;
    task_start: "task_struct"."start_time" [8] required;
    task_cred: "task_struct"."cred" [8] optional;
    cred_uid: "cred"."uid" [4] optional;
    task_cgroups: "task_struct"."cgroups" [8] optional;
    css_dfl: "css_set"."dfl_cgrp" [8] optional;
    cgroup_kn: "cgroup"."kn" [8] optional;
    kn_id: "kernfs_node"."id" [8] optional;
    files_fdt: "files_struct"."fdt" [8] optional;
    fdt_fd: "fdtable"."fd" [8] optional;
    regs_fd: "pt_regs"."di" [8] optional;
    regs_nr: "pt_regs"."orig_ax" [8] optional;
    regs_si: "pt_regs"."si" [8] optional;
    young: "inet_connection_sock"."icsk_accept_queue.young" [4] optional;
    fastopen_qlen: "inet_connection_sock"."icsk_accept_queue.fastopenq.qlen" [4] optional;
    fastopen_max: "inet_connection_sock"."icsk_accept_queue.fastopenq.max_qlen" [4] optional;
    drops: "sock"."sk_drops" [4] optional;
    reuseport: "sock"."sk_reuseport_cb" [8] optional;
    somaxconn: "net"."core.sysctl_somaxconn" [4] optional;
    syncookies: "net"."ipv4.sysctl_tcp_syncookies" [1] optional;
    max_syn_backlog: "net"."ipv4.sysctl_max_syn_backlog" [4] optional;
    abort_on_overflow: "net"."ipv4.sysctl_tcp_abort_on_overflow" [1] optional;
    req_listener: "request_sock"."__req_common.skc_listener" [8] optional;
    req_pprev: "request_sock"."__req_common.skc_node.pprev" [8] optional;
    req_child: "request_sock"."sk" [8] optional;
    req_timer: "request_sock"."rsk_timer.function" [8] optional;
    rcv_isn: "tcp_request_sock"."rcv_isn" [4] optional;
    snt_isn: "tcp_request_sock"."snt_isn" [4] optional;
    snt_synack: "tcp_request_sock"."snt_synack" [8] optional;
    tw_timer: "inet_timewait_sock"."tw_timer.function" [8] optional;
    tw_expires: "inet_timewait_sock"."tw_timer.expires" [8] optional;
    timer_function: "timer_list"."function" [8] optional;
    timer_expires: "timer_list"."expires" [8] optional;
    skb_head: "sk_buff"."head" [8] optional;
    skb_network: "sk_buff"."network_header" [2] optional;
    skb_transport: "sk_buff"."transport_header" [2] optional;
    skb_dev: "sk_buff"."dev" [8] optional;
    dev_net: "net_device"."nd_net.net" [8] optional;
    snd_nxt: "tcp_sock"."snd_nxt" [4] required;
    regs_ip: "pt_regs"."ip" [8] optional;
    regs_sp: "pt_regs"."sp" [8] optional;
    regs_bp: "pt_regs"."bp" [8] optional;
    task_mm: "task_struct"."mm" [8] optional;
    mm_exec: "mm_struct"."exec_vm" [8] optional;
}

/// The struct of that name, as a number: the first entry of [`FIELDS`] that is in it.
///
/// # Panics
/// There is none: the program does not compile.
#[must_use]
pub const fn structure(name: &str) -> usize {
    let mut i = 0;
    while i < FIELDS.len() {
        if is_same(FIELDS[i].structure, name) {
            return i;
        }
        i += 1;
    }
    panic!("no field of that struct")
}

const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// A bitfield: the byte that holds it, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bits {
    /// Byte offset, [`ABSENT`] where the kernel does not have it.
    pub offset: u32,
    /// Bits to the right of it.
    pub shift: u32,
    /// Mask after the shift.
    pub mask: u32,
}

impl Bits {
    /// Not resolved.
    pub const UNKNOWN: Self = Self { offset: ABSENT, shift: 0, mask: 0 };
}

/// The bitfields that the programs read, in the order of [`BITFIELDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "BITFIELDS names each one's struct and path")]
pub struct Bitfields {
    pub sack_ok: Bits,
    pub tstamp_ok: Bits,
    pub wscale_ok: Bits,
    pub snd_wscale: Bits,
    pub rcv_wscale: Bits,
    pub nonagle: Bits,
    pub syn_data_acked: Bits,
    pub syn_fastopen_child: Bits,
    pub num_timeout: Bits,
}

impl Bitfields {
    /// Built from its members in the order of [`BITFIELDS`].
    #[must_use]
    pub const fn from_array(bits: [Bits; BITFIELDS.len()]) -> Self {
        let [
            sack_ok,
            tstamp_ok,
            wscale_ok,
            snd_wscale,
            rcv_wscale,
            nonagle,
            syn_data_acked,
            syn_fastopen_child,
            num_timeout,
        ] = bits;
        Self {
            sack_ok,
            tstamp_ok,
            wscale_ok,
            snd_wscale,
            rcv_wscale,
            nonagle,
            syn_data_acked,
            syn_fastopen_child,
            num_timeout,
        }
    }
}

/// (struct, path) of each member of [`Bitfields`].
pub const BITFIELDS: [(&str, &str); 9] = [
    ("tcp_sock", "rx_opt.sack_ok"),
    ("tcp_sock", "rx_opt.tstamp_ok"),
    ("tcp_sock", "rx_opt.wscale_ok"),
    ("tcp_sock", "rx_opt.snd_wscale"),
    ("tcp_sock", "rx_opt.rcv_wscale"),
    ("tcp_sock", "nonagle"),
    ("tcp_sock", "syn_data_acked"),
    ("tcp_sock", "syn_fastopen_child"),
    ("request_sock", "num_timeout"),
];
