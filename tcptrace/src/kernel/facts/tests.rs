//! Made-up hosts as directory trees, and this one.

use super::*;

/// A directory with these files.
fn host(files: &[(&str, &str)]) -> Facts {
    let dir = tempfile::tempdir().expect("a directory");
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("not the root")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    Facts::read(dir.path())
}

const SOUND: [(&str, &str); 3] = [
    ("proc/sys/kernel/osrelease", "6.1.0-28-cloud-amd64\n"),
    ("sys/kernel/btf/vmlinux", "four"),
    ("proc/self/status", "Name:\ttcptrace\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n"),
];

fn with(path: &'static str, text: &'static str) -> Facts {
    host(&SOUND.iter().filter(|(p, _)| *p != path).copied().chain([(path, text)]).collect::<Vec<_>>())
}

#[test]
fn reads_what_is_there() {
    let facts = host(
        &[
            &SOUND[..],
            &[
                ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
                ("proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
                ("proc/sys/net/core/bpf_jit_enable", "1\n"),
                ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
                ("proc/sys/net/core/somaxconn", "4096\n"),
                ("proc/kallsyms", "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _stext\n"),
                ("sys/kernel/tracing/events/header_page", ""),
                ("sys/bus/event_source/devices/kprobe/type", "6\n"),
            ],
        ]
        .concat(),
    );
    assert_eq!((facts.version(), facts.btf_bytes, facts.lockdown), (Some((6, 1)), Some(4), Lockdown::Integrity));
    assert_eq!((facts.unprivileged_bpf_disabled, facts.bpf_jit_enable), (Some(2), Some(1)));
    assert!(facts.tracefs && facts.kprobes && facts.kallsyms);
    let values: Vec<_> = facts.sysctls.iter().map(|s| (s.name.as_str(), s.value.as_str())).collect();
    assert_eq!(values, [("net.core.somaxconn", "4096"), ("net.ipv4.tcp_rmem", "4096 131072 6291456")]);
    assert!(check(&facts).is_ok());
}

#[test]
fn an_empty_host_has_nothing() {
    let facts = host(&[]);
    assert_eq!(facts, Facts::default());
    assert_eq!(check(&facts).expect_err("nothing works").exit_status(), 4);
    let hidden = with("proc/kallsyms", "0000000000000000 T _stext\n0000000000000000 T _text\n");
    assert!(!hidden.kallsyms, "addresses that are all 0 are hidden");
}

#[test]
fn an_old_kernel_and_one_without_btf_are_told_apart() {
    for (release, works) in [
        ("5.10.0-33-amd64", false),
        ("5.14.21", false),
        ("5.15.0", true),
        ("6.18.44", true),
        ("7.2.12", true),
        ("10.0", true),
    ] {
        let facts = Facts { release: release.to_owned(), ..with("proc/kallsyms", "") };
        assert_eq!(check(&facts).is_ok(), works, "{release}");
    }
    let error = check(&with("proc/sys/kernel/osrelease", "5.10.0-33-amd64")).expect_err("too old");
    assert_eq!(error.exit_status(), 4);
    assert!(error.to_string().contains("Linux 5.10.0-33-amd64 is older than 5.15"), "{error}");
    let error = check(&with("sys/kernel/btf/vmlinux", "")).expect_err("no type information");
    assert_eq!(error.exit_status(), 4);
    assert!(error.to_string().contains("CONFIG_DEBUG_INFO_BTF"), "{error}");
}

#[test]
fn a_missing_capability_is_named() {
    let bits = |numbers: &[u32]| Capabilities(numbers.iter().map(|n| 1 << n).sum());
    let facts = |capabilities| Facts { capabilities, ..with("proc/kallsyms", "") };
    for (set, named, other) in [
        (bits(&[]), "CAP_BPF and CAP_PERFMON are missing", "CAP_SYS_ADMIN"),
        (bits(&[39]), "CAP_PERFMON is missing", "CAP_BPF"),
        (bits(&[38, 12]), "CAP_BPF is missing", "CAP_PERFMON"),
    ] {
        let error = check(&facts(set)).expect_err(named);
        assert_eq!(error.exit_status(), 3);
        assert!(error.to_string().contains(named) && !error.to_string().contains(other), "{error}");
        assert!(error.to_string().contains("sudo"), "{error}");
    }
    assert!(check(&facts(bits(&[38, 39]))).is_ok());
    assert!(check(&facts(bits(&[21]))).is_ok(), "CAP_SYS_ADMIN includes both");
    let left: Vec<_> = bits(&[38, 39]).missing().map(|c| c.name).collect();
    assert_eq!(left, ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
}

#[test]
fn this_host() {
    let facts = Facts::gather();
    assert_eq!(facts.release.as_bytes(), rustix::system::uname().release().to_bytes());
    assert!(facts.sysctls.iter().any(|s| s.name == "net.ipv4.tcp_syncookies"));
    assert!(facts.btf_bytes > Some(1 << 20));
}
