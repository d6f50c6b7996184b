//! Pages for made-up kernels, word for word.

use super::*;
use crate::kernel::facts::{Capabilities, Sysctl};

fn sound() -> Report {
    let sysctl = |name: &str, value: &str, decides| Sysctl { name: name.to_owned(), value: value.to_owned(), decides };
    let signal = |name: &'static str, hook: &str, refused: &[(&str, &str)]| Signal {
        name,
        hook: (!hook.is_empty()).then(|| hook.to_owned()),
        tier: Some(Tier::Tracepoint),
        exact: true,
        refused: refused.iter().map(|&(h, r)| (h.to_owned(), r.to_owned())).collect(),
        ..Signal::default()
    };
    Report {
        facts: Facts {
            release: "6.12.117-cloud-amd64".to_owned(),
            btf_bytes: Some(5_515_236),
            capabilities: Capabilities(u64::MAX),
            unprivileged_bpf_disabled: Some(2),
            bpf_jit_enable: Some(1),
            tracefs: true,
            kprobes: true,
            kallsyms: true,
            sysctls: vec![
                sysctl("net.core.somaxconn", "4096", "bound of a backlog, taken at listen()"),
                sysctl("net.ipv4.tcp_rmem", "4096 131072 6291456", "receive buffer in bytes: least, start, most"),
            ],
            ..Facts::default()
        },
        signals: vec![
            signal("state", "tp_btf inet_sock_set_state", &[]),
            signal(
                "accepted",
                "exit of accept and accept4",
                &[("fentry security_sock_graft", "the kernel refuses fentry (EPERM)")],
            ),
        ],
        ..Report::default()
    }
}

#[test]
fn ready() {
    insta::assert_snapshot!(sound().text(false));
}

#[test]
fn no_btf() {
    let mut report = sound();
    report.facts.btf_bytes = None;
    report.signals.clear();
    assert!(matches!(report.verdict(), Verdict::CannotRun(_, 4)));
    insta::assert_snapshot!(head(&report));
}

#[test]
fn too_old() {
    let mut report = sound();
    report.facts.release = "5.10.0-33-amd64".to_owned();
    assert!(matches!(report.verdict(), Verdict::CannotRun(_, 4)));
    insta::assert_snapshot!(head(&report));
}

#[test]
fn without_cap_perfmon() {
    let mut report = sound();
    report.facts.capabilities = Capabilities(1 << 39);
    assert!(matches!(report.verdict(), Verdict::CannotRun(_, 3)));
    insta::assert_snapshot!(head(&report));
}

#[test]
fn degraded() {
    let mut report = sound();
    report.facts.lockdown = Lockdown::Confidentiality;
    report.facts.bpf_jit_enable = Some(0);
    report.facts.capabilities = Capabilities(1 << 39 | 1 << 38);
    report.signals[1].hook = None;
    report.absent = vec![Absent {
        name: "probes_out",
        field: "inet_connection_sock.icsk_probes_out".to_owned(),
        reason: "4 bytes wide here".to_owned(),
    }];
    insta::assert_snapshot!(report.text(false));
}

/// A hook that sees less, one that costs something, and one that is no hook.
#[test]
fn sampled() {
    let mut report = sound();
    let signal = &mut report.signals[1];
    signal.exact = false;
    signal.costs = vec![
        Cost { program: "timer_start", hits_per_second: 1234.4, ns_per_hit: Some(61.6) },
        Cost { program: "timer_cancel", hits_per_second: 0.0, ns_per_hit: None },
    ];
    report.signals.push(Signal {
        name: "syn_outcome",
        hook: Some("counters:ListenDrops".to_owned()),
        refused: vec![("fentry:tcp_conn_request".to_owned(), "its argument 3 is not a struct sock * here".to_owned())],
        ..Signal::default()
    });
    insta::assert_snapshot!(report.text(false));
    insta::assert_snapshot!("sampled_json", report.json("2026-01-02T03:04:05.000000006Z", 7));
}

#[test]
fn a_load_that_failed() {
    let mut report = sound();
    report.failure = Some(("the kernel refused bpf(): Operation not permitted".to_owned(), 3));
    assert_eq!(report.verdict(), Verdict::CannotRun("the kernel refused bpf(): Operation not permitted".to_owned(), 3));
}

#[test]
fn json() {
    let mut report = sound();
    report.facts.unprivileged_bpf_disabled = None;
    insta::assert_snapshot!(report.json("2026-01-02T03:04:05.000000006Z", 7));
}

/// The verdict's lines.
fn head(report: &Report) -> String {
    report.text(false).split("\n\n").next().expect("a headline").to_owned()
}

#[test]
fn colour_changes_nothing_but_colour() {
    let mut report = sound();
    report.facts.capabilities = Capabilities(1 << 21);
    let (plain, coloured) = (report.text(false), report.text(true));
    let mut stripped = coloured.clone();
    while let Some(start) = stripped.find('\x1b') {
        let end = start + stripped[start..].find('m').expect("a sequence ends");
        stripped.replace_range(start..=end, "");
    }
    assert_eq!(stripped, plain);
    assert!(coloured.starts_with("\x1b[35mdegraded\x1b[0m: "), "{coloured}");
    assert!(plain.lines().all(|l| l.chars().count() <= 80), "{plain}");
}

#[test]
fn this_host_fits_in_80_columns() {
    let text = Report { facts: Facts::gather(), ..Report::default() }.text(false);
    assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
}

#[test]
fn settings_that_ask_for_trouble() {
    let mut report = sound();
    report.facts.sysctls[0].value = "128".to_owned();
    let text = report.text(false);
    let (_, advice) = text.split_once("Settings that ask for trouble\n").expect("a section");
    insta::assert_snapshot!(advice, @r"
      net.core.somaxconn = 128: whatever listen() asks for, an accept queue holds
      129 at most
        sysctl -w net.core.somaxconn=4096, then restart the servers: listen() reads
        it (`tcptrace explain backlog-too-small`)
    ");
    let json: serde_json::Value = serde_json::from_str(&report.json("", 0)).expect("JSON");
    assert_eq!(json["advice"][0]["setting"], "net.core.somaxconn");
    assert!(!sound().text(false).contains("ask for trouble"));
}
