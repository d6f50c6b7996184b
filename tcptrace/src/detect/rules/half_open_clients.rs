//! half-open-clients: the SYN of a few addresses comes, but they never go on: the SYN-ACK is lost on the way back, or the final ACK on its
//! way here.

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        seen::{Seen, half_opens::Source, listeners::Listener},
    },
    model::{Measure, Said, Severity, count},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "half-open-clients",
    about: "A few addresses send SYNs and never complete a handshake",
    limits: &[&ATTEMPTS, &SOURCES, &FLOOD],
    fires_after: "0s",
    resolves_after: "30s",
    check,
};

const ATTEMPTS: Limit = Limit {
    name: "attempts",
    unit: Unit::Count,
    default: "3",
    about: "So many requests of an address were sent SYN-ACKs in vain, and none was answered",
};
const SOURCES: Limit = Limit {
    name: "sources",
    unit: Unit::Count,
    default: "50",
    about: "More silent addresses than that are no clients: their sources are made up",
};
const FLOOD: Limit = Limit {
    name: "flood",
    unit: Unit::PerSecond,
    default: "100/s",
    about: "More requests that nobody answers than that are no clients' either",
};

/// For how long a request that is not answered counts, nanoseconds: a client tries again within it.
const KEPT_NS: u64 = 60_000_000_000;
/// Seconds of evidence about the listener.
const SECONDS: u64 = 15;
/// Addresses that are named.
const NAMED: usize = 5;

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    let since = seen.now.saturating_sub(KEPT_NS);
    // Listeners of a SO_REUSEPORT group share their clients: one tells of them.
    let mut told = std::collections::BTreeSet::new();
    for listener in seen.listeners.iter() {
        // It drops final ACKs on purpose, and sends SYN-ACKs again until data comes.
        if listener.defer_accept.is_some() || !told.insert(listener.group.map_or(listener.subject.id, Some)) {
            continue;
        }
        let limits = limits.at(listener.subject.lport);
        let all = seen.half_opens.of(&listener.subject);
        let flood = limits.number(&FLOOD);
        // What a flood leaves is half-open for a minute after it.
        if all.len() as u64 > limits.count(&SOURCES) || listener.flows.worst(seen.now) >= flood {
            continue;
        }
        let silent: Vec<Source> = all
            .into_iter()
            .filter(|s| {
                s.last >= since && s.attempts >= limits.count(&ATTEMPTS) && s.attempts as f64 <= flood * seconds(s)
            })
            .collect();
        if !silent.is_empty() {
            out.trouble(case(seen, listener, &silent));
        } else if seen.half_opens.overrun(since) {
            out.not_enough(&listener.subject);
        }
    }
}

/// How long it has tried; at least one.
fn seconds(source: &Source) -> f64 {
    source.last.saturating_sub(source.first) as f64 / 1e9 + 1.0
}

fn case(seen: &Seen, listener: &Listener, silent: &[Source]) -> Case {
    let attempts = silent.iter().map(|s| s.attempts).sum();
    let sums = listener.last(seen.now, SECONDS);
    let others = sums.completed.unwrap_or(0) > 0;
    let first = silent.iter().map(|s| s.first).min();
    let peers = silent.iter().take(NAMED).map(|s| s.addr.to_string()).collect::<Vec<_>>();
    let who = match &peers[..] {
        [one] => one.clone(),
        _ => count(silent.len() as u64, "address", "addresses"),
    };
    let mut summary = Said::new(format!("{} of {who} got SYN-ACKs", count(attempts, "SYN", "SYNs")));
    summary = summary.owner(listener.subject.owner.as_deref()).text(" and none was answered");
    summary = summary.text(if others { "; others connect" } else { "; nobody else connects either" });
    let named = silent.iter().take(NAMED).map(|s| {
        let addr = Measure::Text(s.addr.to_string());
        Measure::Fields(vec![("raddr", addr), ("attempts", Measure::Count(s.attempts))])
    });
    let mut evidence = vec![
        ("clients", Measure::Count(silent.len() as u64)),
        ("attempts", Measure::Count(attempts)),
        ("peers", Measure::List(named.collect())),
        ("oldest_us", Measure::Us(seen.now.saturating_sub(first.unwrap_or(seen.now)) / 1000)),
    ];
    let mut add = |name, n: Option<u64>| evidence.extend(n.map(|n| (name, Measure::Count(n))));
    add("synacks_again", sums.synack_retrans);
    add("timeouts", sums.dropped[tcptrace_common::queue::drop::SYNACK_TIMEOUT]);
    add("completed", sums.completed);
    add("half_open", listener.syn_queue.len.map(u64::from));
    let peer = silent.first().map_or_else(String::new, |s| s.addr.to_string());
    let port = listener.subject.lport.map_or_else(String::new, |port| format!(" and tcp port {port}"));
    let advice = if others {
        format!(
            "look at the way back: ip route get {peer}; a firewall that saw no SYN on this path drops SYN-ACKs (asymmetric \
             route), and so does one that is full"
        )
    } else {
        format!(
            "look at this host's own way out first: nft list ruleset (output), ip route get {peer}; then at the firewalls \
             between"
        )
    };
    Case {
        subject: listener.subject.clone(),
        severity: Severity::Warning,
        since: first,
        summary,
        evidence,
        advice,
        look: format!("tcpdump -ni any 'host {peer}{port}'"),
    }
}
