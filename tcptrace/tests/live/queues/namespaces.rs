//! Counters belong to a network namespace, and namespaces go away.

use serde_json::Value;

use crate::support::{
    netns::Netns,
    queues::{Served, counter, exact, served},
    run::{nothing_lost, parse},
    socket::{Sock, local},
    tracer::{Live, netns_list, tcptrace},
    wait_until,
};

fn watch(namespaces: &[&Netns]) -> Live {
    let mut command = tcptrace();
    command.args(["queues", "--json", "--interval", "100ms", "--netns", &netns_list(namespaces)]);
    Live::start(&mut command, &[])
}

/// Wait until two intervals began after now, for each of these namespaces.
fn two_intervals(queues: &Live, namespaces: &[&Netns]) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    for ns in namespaces {
        let mut seen = 0;
        queues.wait_for("two intervals", |line| {
            let here = line["type"] == "netns" && line["netns"] == ns.inum();
            seen += usize::from(here && line["mono_ns"].as_u64() > Some(now));
            seen == 2
        });
    }
}

fn grown(lines: &[Value], ns: &Netns, name: &str) -> u64 {
    let here = lines.iter().filter(|l| l["type"] == "netns" && l["netns"] == ns.inum());
    here.filter_map(|l| l["counters"][name].as_u64()).sum()
}

/// Sum of a listener's drops of one kind.
fn dropped(lines: &[Value], ns: &Netns, why: &str) -> u64 {
    let here = lines.iter().filter(|l| l["type"] == "listener" && l["netns"] == ns.inum());
    here.filter_map(|l| l["dropped"][why].as_u64()).sum()
}

/// What hooks see whole agrees with the kernel's counters.
fn reconciled(summary: &Value) {
    let residual = summary["residual"].as_array();
    assert_eq!(residual.is_some(), exact("syn_outcome"), "{summary}");
    for counter in residual.into_iter().flatten() {
        assert_eq!(counter["ours"], counter["kernel"], "{summary}");
    }
}

/// Trap 9: SYNs are dropped in one namespace; what the kernel counts there is told of that one alone, and given to its listener.
#[test]
fn trap9_counters_of_each_namespace() {
    let (full, idle) = (Netns::new(), Netns::new());
    let queues = watch(&[&full, &idle]);
    let listener = Sock::listen(&full, local(8231), 0);
    let other = Sock::listen(&idle, local(8231), 0);
    // Counters grow from here on.
    two_intervals(&queues, &[&full, &idle]);
    let first = Sock::connected(&full, local(8231));
    let second = Sock::new(&full, local(8231));
    second.start_connect(local(8231));
    wait_until("a drop", || counter(&full, "ListenOverflows") > 0);
    let fine = Sock::connected(&idle, local(8231));
    two_intervals(&queues, &[&full, &idle]);
    drop(listener.accept());
    second.finish_connect().expect("there is room at last");
    let kernel = counter(&full, "ListenOverflows");
    two_intervals(&queues, &[&full, &idle]);
    let (text, stderr) = queues.stop();
    let lines = parse(&text);
    drop((listener, other, first, second, fine));
    assert!(kernel > 0);
    for name in ["ListenOverflows", "ListenDrops"] {
        assert_eq!((grown(&lines, &full, name), grown(&lines, &idle, name)), (kernel, 0), "{name}: {stderr}");
    }
    // Exactly one listener can have caused it: no tier leaves it out.
    let tells = served("syn_outcome") != Served::No || served("overflow") != Served::No;
    let at_syn = dropped(&lines, &full, "accept_queue_full_syn");
    if tells {
        assert_eq!(at_syn, kernel);
    }
    assert_eq!(dropped(&lines, &idle, "accept_queue_full_syn"), 0);
    for line in lines.iter().filter(|l| l["type"] == "listener" && l["netns"] == idle.inum()) {
        assert_eq!(line["sk_drops"], 0, "{line}");
        assert!(line["inferred"].as_array().is_none_or(|list| !list.iter().any(|w| w != "limited_by")), "{line}");
    }
    let summary = lines.last().expect("a summary");
    reconciled(summary);
}

/// A namespace that is torn down between two looks, with connections in its queues.
#[test]
fn a_namespace_torn_down() {
    let (kept, gone) = (Netns::new(), Netns::new());
    let queues = watch(&[&kept, &gone]);
    let stays = Sock::listen(&kept, local(8232), 4);
    let inum = gone.inum();
    let goes = Sock::listen(&gone, local(8232), 4);
    let waiting = [Sock::connected(&kept, local(8232)), Sock::connected(&gone, local(8232))];
    two_intervals(&queues, &[&kept, &gone]);
    let [client, lost] = waiting;
    drop((goes, lost));
    drop(gone);
    two_intervals(&queues, &[&kept]);
    two_intervals(&queues, &[&kept]);
    let (text, stderr) = queues.stop();
    let lines = parse(&text);
    drop((stays, client));
    for word in ["panicked", "error", "failed", "os error"] {
        assert!(!stderr.contains(word), "{stderr}");
    }
    let of = |inum: u64| lines.iter().filter(|l| l["type"] == "listener" && l["netns"] == inum).collect::<Vec<_>>();
    let (last, ended) = (of(inum), lines.iter().rposition(|l| l["netns"] == inum).expect("it was there"));
    assert!(last.last().expect("it was there")["accept_queue"]["len"].is_null(), "its end is told: {last:?}");
    assert!(ended + 2 < lines.len(), "nothing is told of it once it is gone");
    for line in of(kept.inum()).iter().skip(2).filter(|l| l["mono_ns"].as_u64() > lines[ended]["mono_ns"].as_u64()) {
        assert_eq!(line["accept_queue"]["len"], 1, "{line}");
    }
    let sum = |inum: u64| of(inum).iter().filter_map(|l| l["completed"].as_u64()).sum::<u64>();
    let tells = u64::from(served("accept_queue") != Served::No);
    assert_eq!((sum(inum), sum(kept.inum())), (tells, tells));
    nothing_lost(&lines);
    reconciled(lines.last().expect("a summary"));
}
