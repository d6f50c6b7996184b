//! accept-overflow: clients are turned away, because nobody takes finished connections fast enough.

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        seen::{Seen, listeners::Listener},
    },
    model::{Measure, Said, Severity, count},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "accept-overflow",
    about: "Clients are turned away: the accept queue of a listener is full",
    limits: &[&CLIENTS, &STUCK],
    fires_after: "0s",
    resolves_after: "10s",
    check,
};

/// Seconds that are looked at.
const SECONDS: u64 = 5;

/// Segments that were turned away.
pub const CLIENTS: Limit = Limit {
    name: "clients",
    unit: Unit::Count,
    default: "1",
    about: "So many SYNs and final ACKs met a full accept queue within five seconds",
};
const STUCK: Limit = Limit {
    name: "stuck",
    unit: Unit::Time,
    default: "3s",
    about: "A process that has accepted nothing for so long while clients waited is stuck, not slow",
};

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    for listener in seen.listeners.iter() {
        let limits = limits.at(listener.subject.lport);
        let sums = listener.last(seen.now, SECONDS);
        let [syns, acks] = sums.overflows();
        if syns + acks == 0 || syns + acks < limits.count(&CLIENTS) {
            continue;
        }
        out.trouble(case(listener, seen.now, limits.ns(&STUCK), SECONDS));
    }
}

fn case(listener: &Listener, now: u64, stuck_ns: u64, seconds: u64) -> Case {
    let sums = listener.last(now, seconds);
    let [syns, acks] = sums.overflows();
    let owner = listener.subject.owner.as_deref();
    let mut what = Vec::new();
    what.extend((syns > 0).then(|| count(syns, "SYN", "SYNs")));
    what.extend((acks > 0).then(|| count(acks, "final ACK", "final ACKs")));
    let silent = now.saturating_sub(listener.last_accept.unwrap_or(listener.since));
    let stuck = sums.accepted == Some(0) && silent >= stuck_ns;
    let mut summary = Said::new(format!("{} dropped in {seconds} s: the accept queue", what.join(" and ")));
    summary = summary.owner(owner);
    if let Some(limit) = listener.accept_queue.limit {
        summary = summary.text(format!(" is full, limit {limit}"));
    }
    summary = if stuck {
        summary.text("; nothing was accepted for ").us(silent / 1000)
    } else if let Some(accepted) = sums.accepted {
        summary.text(format!("; {:.0} are accepted a second", sums.per_second(accepted)))
    } else {
        summary
    };
    let mut evidence = vec![("syns_dropped", Measure::Count(syns)), ("acks_dropped", Measure::Count(acks))];
    evidence.extend(listener.accept_queue.limit.map(|n| ("limit", Measure::Count(n.into()))));
    evidence.extend(sums.accept_peak.map(|n| ("peak", Measure::Count(n.into()))));
    evidence.extend(sums.accepted.map(|n| ("accepted_per_s", Measure::PerSecond(sums.per_second(n)))));
    evidence.extend(sums.completed.map(|n| ("completed_per_s", Measure::PerSecond(sums.per_second(n)))));
    evidence.extend(sums.wait_p99.map(|us| ("accept_wait_p99_us", Measure::Us(us))));
    evidence.extend(sums.wait_max.map(|us| ("accept_wait_max_us", Measure::Us(us))));
    evidence.extend(listener.limited_by.map(|by| ("limited_by", Measure::Text(by.name().to_owned()))));
    let advice = if stuck {
        "the process does not call accept(): look at what its accepting thread waits for (its stack, a lock, a limit of descriptors)"
    } else {
        "accept faster (more workers, no slow work between two accept() calls); a longer queue only helps against bursts"
    };
    let port = listener.subject.lport.map_or_else(String::new, |port| format!(" --lport {port}"));
    Case {
        subject: listener.subject.clone(),
        severity: Severity::Critical,
        since: None,
        summary,
        evidence,
        advice: advice.to_owned(),
        look: format!("tcptrace queues{port}"),
    }
}
