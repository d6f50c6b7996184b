//! Kinds of hooks: `--tier` passes better ones over, and what is traced stays the same.

use std::os::fd::AsRawFd;

use serde_json::Value;

use crate::support::{
    netns::Netns,
    process::{self, fork},
    setting,
    socket::{Sock, local},
    tracer::{Tracer, tcptrace},
};

/// (value of `--tier`, what the names of its hooks begin with), best first.
const TIERS: [(&str, &str); 3] = [("fentry", "fentry:"), ("kprobe", "kprobe:"), ("tracepoint", "tp")];

/// `hook` must belong to `tier` or a lower one; where `TCPTRACE_TEST_TIERS` says that the kernel offers it, to no other.
fn belongs(hook: &str, tier: &str) {
    let asked = TIERS.iter().position(|(name, _)| *name == tier).expect("a tier");
    let found = TIERS.iter().position(|(_, prefix)| hook.starts_with(prefix)).expect("a hook of a tier");
    assert!(found >= asked, "{hook} with --tier {tier}");
    let offered: String = setting("TCPTRACE_TEST_TIERS").unwrap_or_default();
    assert!(found == asked || !offered.split(',').any(|name| name == tier), "this kernel offers {tier}: {hook}");
}

fn doctor(args: &[&str]) -> Value {
    let output = process::run(tcptrace().args(["doctor", "--json"]).args(args));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn accept(report: &Value) -> &Value {
    let signals = report["signals"].as_array().expect("signals");
    signals.iter().find(|s| s["name"] == "accept").expect("accept")
}

#[test]
fn doctor_tries_the_tier_and_says_what_it_passed_over() {
    for (at, (tier, _)) in TIERS.iter().enumerate() {
        let report = doctor(&["--tier", tier]);
        let accept = accept(&report);
        belongs(accept["hook"].as_str().expect("a hook"), tier);
        let refused = accept["refused"].as_array().expect("a list");
        let passed = refused.iter().filter(|r| r["reason"] == format!("passed over by --tier {tier}"));
        assert_eq!(passed.count(), at, "{accept}");
    }
    let (auto, fentry) = (doctor(&[]), doctor(&["--tier", "fentry"]));
    assert_eq!(accept(&auto)["hook"], accept(&fentry)["hook"]);
}

/// The peer's RST ends what a forked child accepted: only the accept signal tells whose it was.
#[test]
fn every_tier_tells_who_accepted() {
    for (tier, _) in TIERS {
        let ns = Netns::new();
        let tracer = Tracer::start_with(&[&ns], &["--tier", tier]);
        let listener = Sock::listen(&ns, local(7950), 16);
        let child = fork(c"tt-acceptor", &[listener.as_raw_fd()], || {
            let server = listener.accept();
            server.send(b"accepted");
            server.receive_all().expect_err("a RST");
        });
        let pid = child.pid();
        let client = Sock::connected(&ns, local(7950));
        client.receive(8);
        client.linger_zero();
        client.close();
        child.join();
        ns.quiet();
        let run = tracer.stop();
        belongs(run.lines[0]["signals"]["accept"].as_str().expect("a hook"), tier);
        run.only("server").owned_by(&(pid, "tt-acceptor".into()));
    }
}

#[test]
fn record_obeys_the_tier() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("tier.rec");
    let mut command = tcptrace();
    process::run(command.args(["record", "--tier", "tracepoint", "--duration", "500ms"]).arg(&file));
    let output = process::run(tcptrace().args(["trace", "--json", "--from"]).arg(&file));
    let first = output.stdout.split(|&byte| byte == b'\n').next().expect("a line");
    let start: Value = serde_json::from_slice(first).expect("JSON");
    belongs(start["signals"]["accept"].as_str().expect("a hook"), "tracepoint");
}

/// The kernel's own list is the other way to learn them.
#[test]
fn addresses_of_kernel_functions() {
    let list = std::fs::read_to_string("/proc/kallsyms").expect("symbols");
    for name in ["reqsk_timer_handler", "tw_timer_handler", "tcp_conn_request"] {
        let line = list.lines().find(|line| line.split(' ').nth(2) == Some(name)).expect(name);
        let listed = u64::from_str_radix(line.split(' ').next().expect("an address"), 16).expect("a number");
        assert_eq!(tcptrace::kernel::symbols::address(name).expect("an answer"), Some(listed), "{name}");
    }
    // Eight characters, which need a ninth byte.
    for nothing in ["", "tcp", "no_such_", "no_such_function_here"] {
        assert_eq!(tcptrace::kernel::symbols::address(nothing).expect("an answer"), None, "`{nothing}`");
    }
}
