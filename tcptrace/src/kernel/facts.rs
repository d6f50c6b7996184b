//! What is so on this host: files under /proc and /sys in, [`Facts`] out. Nothing is tried; the loader does that.

use std::{fs, path::Path};

use serde::Serialize;

use super::Error;

/// What `doctor` shows and [`check`] judges. A value that could not be read is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// `uname -r`.
    #[serde(rename = "kernel")]
    pub release: String,
    /// Bytes of the kernel's own type information (BTF).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub btf_bytes: Option<u64>,
    /// Lockdown mode.
    pub lockdown: Lockdown,
    /// Effective capabilities.
    pub capabilities: Capabilities,
    /// `kernel.unprivileged_bpf_disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unprivileged_bpf_disabled: Option<i64>,
    /// `net.core.bpf_jit_enable`: 0 means that programs are interpreted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_jit_enable: Option<i64>,
    /// tracefs is mounted.
    pub tracefs: bool,
    /// The kernel has kprobes. Whether it lets one in shows when one is attached.
    pub kprobes: bool,
    /// Kernel symbols have addresses in /proc/kallsyms.
    pub kallsyms: bool,
    /// The TCP settings of this network namespace, in the order of [`SYSCTLS`]; those that this kernel lacks are left out.
    #[serde(serialize_with = "as_object")]
    pub sysctls: Vec<Sysctl>,
}

/// `/sys/kernel/security/lockdown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lockdown {
    /// Off, or not built in.
    #[default]
    None,
    /// Nobody changes the running kernel. No matter for tcptrace.
    Integrity,
    /// Nobody reads the running kernel's memory either, `bpf_probe_read_kernel` included.
    Confidentiality,
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// For example `net.ipv4.tcp_syncookies`.
    pub name: String,
    /// As the kernel prints it, single spaces between numbers.
    pub value: String,
    /// What it decides.
    pub decides: &'static str,
}

/// A set of capabilities: bit n is capability number n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

/// A capability that tcptrace can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// For example `CAP_BPF`.
    pub name: &'static str,
    /// Number (include/uapi/linux/capability.h).
    pub number: u32,
    /// Nothing works without it.
    pub required: bool,
    /// What is missing without it.
    pub without: &'static str,
}

/// The capabilities that tcptrace can use. `CAP_SYS_ADMIN` includes the first two.
pub const CAPABILITIES: [Capability; 5] = [
    Capability { name: "CAP_BPF", number: 39, required: true, without: "no kernel program can be loaded" },
    Capability { name: "CAP_PERFMON", number: 38, required: true, without: "no kernel program can read the kernel" },
    Capability {
        name: "CAP_SYS_ADMIN",
        number: SYS_ADMIN,
        required: false,
        without: "sockets that exist in other network namespaces at the start are not found",
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        number: 19,
        required: false,
        without: "the network namespaces of other users' processes are not found",
    },
    Capability {
        name: "CAP_DAC_READ_SEARCH",
        number: 2,
        required: false,
        without: "network namespaces in other users' directories are not found",
    },
];

const SYS_ADMIN: u32 = 21;

impl Capabilities {
    /// Is it in the set, by itself or included in `CAP_SYS_ADMIN`?
    #[must_use]
    pub fn has(self, capability: Capability) -> bool {
        let has = |number: u32| self.0 >> number & 1 != 0;
        has(capability.number) || capability.required && has(SYS_ADMIN)
    }

    /// Those of [`CAPABILITIES`] that are not in the set.
    pub fn missing(self) -> impl Iterator<Item = Capability> {
        CAPABILITIES.into_iter().filter(move |&c| !self.has(c))
    }
}

impl Serialize for Capabilities {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(CAPABILITIES.iter().filter(|&&c| self.has(c)).map(|c| c.name))
    }
}

fn as_object<S: serde::Serializer>(sysctls: &[Sysctl], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(sysctls.iter().map(|s| (&s.name, &s.value)))
}

/// The TCP settings that matter, and what each decides.
pub const SYSCTLS: [(&str, &str); 26] = [
    ("net.core.somaxconn", "bound of a backlog, taken at listen()"),
    ("net.ipv4.tcp_max_syn_backlog", "SYN queue bound if cookies are off"),
    ("net.ipv4.tcp_syncookies", "1: when the SYN queue is full; 2: always"),
    ("net.ipv4.tcp_abort_on_overflow", "1: a full accept queue answers RST"),
    ("net.ipv4.tcp_synack_retries", "SYN-ACKs sent again per half-open"),
    ("net.ipv4.tcp_syn_retries", "SYNs sent again before connect() fails"),
    ("net.ipv4.tcp_fin_timeout", "seconds of an orphan in FIN_WAIT2"),
    ("net.ipv4.tcp_tw_reuse", "connect() reuses TIME_WAIT; 2: on lo"),
    ("net.ipv4.tcp_max_tw_buckets", "TIME_WAIT sockets kept at most"),
    ("net.ipv4.tcp_keepalive_time", "idle seconds before the first probe"),
    ("net.ipv4.tcp_keepalive_intvl", "seconds between probes"),
    ("net.ipv4.tcp_keepalive_probes", "unanswered probes that end it"),
    ("net.ipv4.tcp_retries1", "retransmits before a new route look-up"),
    ("net.ipv4.tcp_retries2", "retransmits before it times out"),
    ("net.ipv4.ip_local_port_range", "ports that connect() picks from"),
    ("net.ipv4.tcp_fastopen", "bits: 1 client, 2 server"),
    ("net.ipv4.tcp_max_orphans", "orphaned sockets; more are reset"),
    ("net.ipv4.tcp_orphan_retries", "retransmits of an orphan; 0 means 8"),
    ("net.ipv4.tcp_ecn", "1: ask for ECN; 2: only when asked"),
    ("net.ipv4.tcp_timestamps", "0: no RTT per segment, no safe reuse"),
    ("net.ipv4.tcp_window_scaling", "0: windows of at most 64 KB"),
    ("net.ipv4.tcp_sack", "0: slow recovery from several losses"),
    ("net.ipv4.tcp_rmem", "receive buffer in bytes: least, start, most"),
    ("net.ipv4.tcp_wmem", "send buffer in bytes: least, start, most"),
    ("net.ipv4.tcp_mem", "pages for all of TCP: low, pressure, most"),
    ("net.ipv4.tcp_congestion_control", "algorithm of new connections"),
];

impl Facts {
    /// Those of the running kernel and of this process.
    #[must_use]
    pub fn gather() -> Self {
        Self::read(Path::new("/"))
    }

    /// The same from a copy of /proc and /sys under another root.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        // What cannot be read is not known, and shown so; the kernel decides in the end.
        let text = |path: &str| fs::read_to_string(root.join(path)).ok().map(|t| t.trim().to_owned());
        let number = |path: &str| text(path).and_then(|t| t.parse().ok());
        let exists = |path: &str| root.join(path).exists();
        let sysctls = SYSCTLS
            .iter()
            .filter_map(|&(name, decides)| Some(Sysctl { name: name.to_owned(), value: sysctl(root, name)?, decides }));
        Self {
            // Then there is no version, either.
            release: text("proc/sys/kernel/osrelease").unwrap_or_default(),
            btf_bytes: fs::metadata(root.join("sys/kernel/btf/vmlinux")).ok().map(|m| m.len()),
            lockdown: text("sys/kernel/security/lockdown").as_deref().map_or(Lockdown::None, lockdown),
            capabilities: text("proc/self/status").as_deref().map_or_else(Capabilities::default, effective),
            unprivileged_bpf_disabled: number("proc/sys/kernel/unprivileged_bpf_disabled"),
            bpf_jit_enable: number("proc/sys/net/core/bpf_jit_enable"),
            tracefs: exists("sys/kernel/tracing/events") || exists("sys/kernel/debug/tracing/events"),
            kprobes: exists("proc/sys/debug/kprobes-optimization")
                || exists("sys/kernel/debug/kprobes")
                || exists("sys/bus/event_source/devices/kprobe"),
            kallsyms: has_addresses(&root.join("proc/kallsyms")),
            sysctls: sysctls.collect(),
        }
    }

    /// Major and minor number of the release.
    #[must_use]
    pub fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
        Some((numbers.next()??, numbers.next()??))
    }
}

/// The value of a sysctl under a root, single spaces between numbers; those of the network belong to this process's namespace. None: this
/// kernel lacks it, or it cannot be read.
#[must_use]
pub fn sysctl(root: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(root.join("proc/sys").join(name.replace('.', "/"))).ok()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Can tcptrace work here? To be asked before anything is loaded: without capabilities the kernel's own answers mislead.
///
/// # Errors
/// [`Error::KernelUnsupported`] below Linux 5.15 (`bpf_get_socket_cookie` in `tp_btf` programs) or without BTF;
/// [`Error::NotPermitted`] naming the capabilities that are missing.
pub fn check(facts: &Facts) -> Result<(), Error> {
    let unsupported = |what: String, remedy: &str| Err(Error::KernelUnsupported { what, remedy: remedy.to_owned() });
    if facts.version().is_some_and(|version| version < (5, 15)) {
        return unsupported(
            format!("Linux {} is older than 5.15, the first whose tracepoints tell sockets apart", facts.release),
            "update the kernel",
        );
    }
    if facts.btf_bytes.is_none_or(|bytes| bytes == 0) {
        return unsupported(
            "it has no type information (/sys/kernel/btf/vmlinux)".to_owned(),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of the distributions are",
        );
    }
    let missing: Vec<_> = facts.capabilities.missing().filter(|c| c.required).map(|c| c.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let verb = if missing.len() == 1 { "is" } else { "are" };
    Err(Error::NotPermitted {
        what: format!("{} {verb} missing", missing.join(" and ")),
        remedy: "run tcptrace as root, for example with sudo".to_owned(),
    })
}

/// `none [integrity] confidentiality` has the mode in brackets.
fn lockdown(text: &str) -> Lockdown {
    if text.contains("[confidentiality]") {
        Lockdown::Confidentiality
    } else if text.contains("[integrity]") {
        Lockdown::Integrity
    } else {
        Lockdown::None
    }
}

fn effective(status: &str) -> Capabilities {
    let set =
        status.lines().find_map(|l| l.strip_prefix("CapEff:")).and_then(|l| u64::from_str_radix(l.trim(), 16).ok());
    Capabilities(set.unwrap_or(0))
}

/// Does the first symbol have an address? They are all 0 for those who may not see them. The file has megabytes: only its start
/// is read.
fn has_addresses(path: &Path) -> bool {
    use std::io::Read as _;
    let mut start = String::new();
    let read = fs::File::open(path).and_then(|f| f.take(4096).read_to_string(&mut start));
    // The first symbols are per-CPU offsets, which may be 0 truly.
    read.is_ok()
        && start.lines().filter_map(|l| l.split(' ').next()).any(|a| a.len() == 16 && a.bytes().any(|b| b != b'0'))
}

#[cfg(test)]
mod tests;
