//! The sysctls that pages name, and what each decides.

use crate::kernel::facts;

/// A sysctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// For example `net.ipv4.tcp_syncookies`.
    pub name: &'static str,
    /// What it decides.
    pub decides: &'static str,
    /// First kernel that has it, if that is not every kernel that tcptrace supports.
    pub since: Option<(u32, u32)>,
}

impl Sysctl {
    /// What it decides, and since when if not every kernel has it.
    pub(super) fn described(self) -> String {
        let since = self.since.map(|(major, minor)| format!(" (since Linux {major}.{minor})")).unwrap_or_default();
        format!("{}{since}", self.decides)
    }
}

/// Those that `doctor` does not show.
const MORE: [Sysctl; 18] = [
    all("net.core.rmem_max", "bytes that SO_RCVBUF may ask for at most"),
    all("net.core.wmem_max", "bytes that SO_SNDBUF may ask for at most"),
    all("net.ipv4.ip_local_reserved_ports", "ports that connect() leaves alone"),
    all("net.ipv4.ip_no_pmtu_disc", "0: discover the path's MTU"),
    all("net.ipv4.tcp_autocorking", "1: collect small writes while a packet waits in a queue"),
    all("net.ipv4.tcp_base_mss", "MSS that probing starts with"),
    all("net.ipv4.tcp_challenge_ack_limit", "challenge ACKs a second"),
    all("net.ipv4.tcp_ecn_fallback", "1: without ECN if the SYN with it goes wrong"),
    all("net.ipv4.tcp_migrate_req", "1: requests of a closed listener move to another of its group"),
    all("net.ipv4.tcp_min_snd_mss", "smallest MSS that a peer can impose"),
    all("net.ipv4.tcp_moderate_rcvbuf", "1: size receive buffers automatically"),
    all("net.ipv4.tcp_mtu_probing", "1: probe the MTU after a black hole; 2: always"),
    all("net.ipv4.tcp_rfc1337", "1: a RST does not end TIME_WAIT"),
    all("net.ipv4.tcp_slow_start_after_idle", "1: small congestion window after an idle time"),
    since((6, 5), "net.ipv4.tcp_syn_linear_timeouts", "SYNs sent again at a steady pace, before it slows down"),
    since((6, 7), "net.ipv4.tcp_pingpong_thresh", "answers sent before ACKs are delayed for them"),
    since((6, 14), "net.ipv4.tcp_tw_reuse_delay", "milliseconds of TIME_WAIT before connect() may reuse it"),
    since((6, 15), "net.ipv4.tcp_rto_max_ms", "longest time between two retransmits"),
];

const fn all(name: &'static str, decides: &'static str) -> Sysctl {
    Sysctl { name, decides, since: None }
}

const fn since(version: (u32, u32), name: &'static str, decides: &'static str) -> Sysctl {
    Sysctl { name, decides, since: Some(version) }
}

/// The sysctl of that name.
#[must_use]
pub fn sysctl(name: &str) -> Option<Sysctl> {
    let shown_by_doctor = facts::SYSCTLS.iter().map(|&(name, decides)| all(name, decides));
    shown_by_doctor.chain(MORE).find(|s| s.name == name)
}
