//! Which hooks serve which signal here, why better ones do not, what they cost, and that no command loads more than it needs.

use std::{collections::HashSet, fs, time::Duration};

use serde_json::Value;

use crate::support::{
    collector::{Collector, only},
    netns::Netns,
    process, setting,
    tracer::{Tracer, tcptrace},
};

/// Hooks that other work passes too: programs that only queues need, as the kernel cuts their names.
const HOT: [&str; 6] =
    ["timer_start", "timer_cancel", "timer_expire_entry", "timer_expire_exit", "sk_data_ready", "kfree_skb"];

/// (signal, does a tracepoint tell something of it).
const QUEUES: [(&str, bool); 8] = [
    ("half_open", true),
    ("syn_outcome", false),
    ("accept_queue", true),
    ("overflow", true),
    ("cookies", true),
    ("fast_open", true),
    ("migration", true),
    ("time_wait", true),
];

fn doctor(args: &[&str]) -> Value {
    let output = process::run(tcptrace().args(["doctor", "--json"]).args(args));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn signal<'a>(report: &'a Value, name: &str) -> &'a Value {
    let signals = report["signals"].as_array().expect("signals");
    signals.iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("{name} in {report}"))
}

fn reasons(signal: &Value) -> Vec<(&str, &str)> {
    let refused = signal["refused"].as_array().expect("a list");
    refused.iter().map(|r| (r["hook"].as_str().expect("a hook"), r["reason"].as_str().expect("a reason"))).collect()
}

#[test]
fn doctor_tells_how_each_signal_about_queues_is_served() {
    let report = doctor(&[]);
    let offered: String = setting("TCPTRACE_TEST_TIERS").unwrap_or_default();
    for (name, by_tracepoint) in QUEUES {
        let signal = signal(&report, name);
        let reasons = reasons(signal);
        for (hook, reason) in &reasons {
            assert!(!reason.is_empty() && !reason.contains("os error"), "{name}: {hook}: {reason}");
        }
        match signal["tier"].as_str() {
            Some("fentry") => assert_eq!((reasons.len(), &signal["exact"]), (0, &true.into()), "{signal}"),
            Some("kprobe") => {
                assert!(!offered.contains("fentry") || name == "overflow", "fentry is offered: {signal}");
                assert!(reasons[0].0.starts_with("fentry:") && signal["exact"] == true, "{signal}");
            }
            tier => {
                assert!(!offered.contains("kprobe"), "kprobe is offered: {signal}");
                assert!(reasons[0].0.starts_with("fentry:") && reasons[1].0.starts_with("kprobe:"), "{signal}");
                assert_eq!(
                    (tier, &signal["exact"]),
                    (by_tracepoint.then_some("tracepoint"), &false.into()),
                    "{signal}"
                );
            }
        }
    }
}

/// What the tracepoint tier is made of: on a kernel that refuses fentry and has no kprobes it serves because of that, on others
/// because it was asked for.
#[test]
fn tracepoints_serve_where_nothing_else_works() {
    let report = doctor(&["--tier", "tracepoint"]);
    let alone = report["kprobes"] == false;
    for (name, hook, everywhere) in [
        ("half_open", "tp_btf:inet_sock_set_state+timer_start+timer_cancel+timer_expire_entry+timer_expire_exit", true),
        ("accept_queue", "tp_btf:inet_sock_set_state+sk_data_ready", false),
        ("overflow", "tp_btf:kfree_skb", false),
        ("syn_outcome", "counters:ListenDrops+TCPReqQFullDrop+sk_drops", true),
    ] {
        let signal = signal(&report, name);
        if everywhere || alone {
            assert_eq!(signal["hook"], hook, "{signal}");
        }
    }
    if alone {
        let report = doctor(&[]);
        for (name, _) in QUEUES {
            let signal = signal(&report, name);
            let reasons = reasons(signal);
            assert!(reasons[0].1.contains("refused by this kernel: Operation not permitted"), "{signal}");
            assert!(reasons[1].1.contains("cannot be attached"), "{signal}");
        }
        assert_eq!(report["verdict"], "degraded");
    }
}

#[test]
fn doctor_measures_hooks_that_other_work_passes() {
    let report = doctor(&["--tier", "tracepoint"]);
    let mut measured = HashSet::new();
    for (name, _) in QUEUES {
        for cost in signal(&report, name)["costs"].as_array().into_iter().flatten() {
            measured.insert(cost["program"].as_str().expect("a program").to_owned());
            let hits = cost["hits_per_second"].as_f64().expect("a rate");
            let ns = cost["ns_per_hit"].as_f64();
            assert_eq!(hits > 0.0, ns.is_some(), "{cost}");
            assert!(ns.is_none_or(|ns| ns > 1.0 && ns < 1e6), "{cost}");
        }
    }
    // 6.1 has no such tracepoint; kfree_skb is of no use where its reasons do not tell an overflow.
    let has =
        |p: &str| p != "kfree_skb" && (p != "sk_data_ready" || !signal(&report, "accept_queue")["hook"].is_null());
    for program in HOT.iter().filter(|p| has(p)) {
        assert!(measured.contains(*program), "{program} in {measured:?}");
    }
}

/// Names of the programs that a process holds, as far as the kernel keeps them.
fn programs(pid: u32) -> Vec<String> {
    let ids: HashSet<u32> = fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .expect("a process")
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(|info| info.lines().find_map(|l| l.strip_prefix("prog_id:")?.trim().parse().ok()))
        .collect();
    let all = aya::programs::loaded_programs().filter_map(Result::ok);
    all.filter(|p| ids.contains(&p.id())).filter_map(|p| p.name_as_str().map(str::to_owned)).collect()
}

fn hot(programs: &[String]) -> Vec<&String> {
    programs.iter().filter(|name| HOT.iter().any(|hot| hot[..hot.len().min(15)] == name[..])).collect()
}

#[test]
fn commands_about_connections_load_no_hot_hooks() {
    let ns = Netns::new();
    for tier in ["fentry", "tracepoint"] {
        let tracer = Tracer::start_with(&[&ns], &["--tier", tier]);
        let loaded = programs(tracer.pid());
        assert!(loaded.iter().any(|name| name == "inet_sock_set_s"), "{loaded:?}");
        assert_eq!(hot(&loaded), Vec::<&String>::new());
        let run = tracer.stop();
        let signals = run.lines[0]["signals"].as_object().expect("signals");
        let inexact =
            |name: &str| signals.get(name).is_some_and(|hook| hook.as_str().expect("text").starts_with("tp_btf"));
        assert!(!QUEUES.iter().any(|(name, _)| inexact(name)), "{signals:?}");
    }
}

#[test]
fn queues_load_them_where_they_must() {
    let ns = Netns::new();
    let collector = Collector::start(only(&ns, "tracepoint", Duration::from_millis(200)));
    let mine = programs(std::process::id());
    // The timers' four; what else there is differs between kernels.
    assert!(hot(&mine).len() >= 4, "{mine:?}");
    drop(collector.stop());
}
