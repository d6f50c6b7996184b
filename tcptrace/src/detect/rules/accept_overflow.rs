//! accept-overflow: clients are turned away, because nobody takes finished connections fast enough.

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        rules::look_at_queues,
        seen::{
            Seen,
            listeners::{Listener, Sums},
            turned_away::Count,
        },
    },
    model::{Measure, Said, Severity, count},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "accept-overflow",
    about: "Clients are turned away: the accept queue of a listener is full",
    limits: &[&CLIENTS, &CRITICAL, &STUCK],
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
const CRITICAL: Limit = Limit {
    name: "critical",
    unit: Unit::Count,
    default: "10",
    about: "So many make it critical; so does a process that is stuck",
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
        let turned_away = sums.turned_away();
        if turned_away == 0 || turned_away < limits.count(&CLIENTS) {
            continue;
        }
        let since = seen.now.saturating_sub(SECONDS * 1_000_000_000);
        let mut clients = seen.turned_away.since(listener.cookie, since);
        // Without a hook on it nothing is known of the client whose SYN is dropped.
        let [syns, _] = sums.overflows();
        clients.at_least |= sums.held_back > 0 || !listener.exact && (syns > 0 || sums.unnamed_drops > 0);
        let pace = Pace::of(listener, &sums, seen.now, limits.ns(&STUCK));
        let critical = turned_away >= limits.count(&CRITICAL) || pace == Pace::Stuck;
        let severity = if critical { Severity::Critical } else { Severity::Warning };
        out.trouble(case(listener, &sums, clients, pace, severity, seen.now));
    }
}

/// What the process does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// It has not called accept() for long.
    Stuck,
    /// It accepts, and not fast enough.
    Slow,
    /// It accepts all that there is, but a burst was too much for the queue.
    KeepsUp,
    /// It accepts nothing, but not for long enough to tell; or nothing tells.
    Unknown,
}

impl Pace {
    fn of(listener: &Listener, sums: &Sums, now: u64, stuck_ns: u64) -> Self {
        let waits = listener.accept_queue.len.is_some_and(|len| len > 0);
        match sums.accepted {
            Some(_) if waits && silence(listener, now) >= stuck_ns => Self::Stuck,
            Some(1..) if listener.bursts.goes_on() || listener.bursts.sum(now).overloads > 0 => Self::Slow,
            Some(1..) => Self::KeepsUp,
            Some(0) | None => Self::Unknown,
        }
    }

    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Stuck => Some("stuck"),
            Self::Slow => Some("slow"),
            Self::KeepsUp => Some("keeps up"),
            Self::Unknown => None,
        }
    }
}

/// How long nothing was accepted, nanoseconds.
fn silence(listener: &Listener, now: u64) -> u64 {
    now.saturating_sub(listener.last_accept.unwrap_or(listener.since))
}

fn case(listener: &Listener, sums: &Sums, clients: Count, pace: Pace, severity: Severity, now: u64) -> Case {
    Case {
        subject: listener.subject.clone(),
        severity,
        since: None,
        summary: summary(listener, sums, clients, pace, now),
        evidence: evidence(listener, sums, clients, pace, now),
        advice: advice(sums, pace).to_owned(),
        look: look_at_queues(listener),
    }
}

fn summary(listener: &Listener, sums: &Sums, clients: Count, pace: Pace, now: u64) -> Said {
    let [syns, acks] = sums.overflows();
    let mut what = Vec::new();
    what.extend((syns > 0).then(|| count(syns, "SYN", "SYNs")));
    what.extend((acks > 0).then(|| count(acks, "final ACK", "final ACKs")));
    what.extend((sums.unnamed_drops > 0).then(|| count(sums.unnamed_drops, "segment", "segments")));
    let mut text = what.join(" and ");
    if clients.clients > 0 {
        let least = if clients.at_least { "at least " } else { "" };
        text += &format!(" of {least}{}", count(clients.clients, "client", "clients"));
    }
    let mut said = Said::new(format!("{text} dropped in {SECONDS} s: the accept queue"));
    said = said.owner(listener.subject.owner.as_deref());
    said = said.text(if pace == Pace::KeepsUp { " was full for a moment" } else { " is full" });
    if let Some(limit) = listener.accept_queue.limit {
        said = said.text(format!(", limit {limit}"));
    }
    match (pace, sums.accepted) {
        (Pace::Stuck, _) => said.text("; nothing was accepted for ").us(silence(listener, now) / 1000),
        (Pace::Slow | Pace::KeepsUp, Some(accepted)) => {
            said.text(format!("; {} accepted a second", rate(sums.per_second(accepted))))
        }
        (Pace::Unknown, Some(0)) => said.text("; nothing was accepted meanwhile"),
        _ => said,
    }
}

/// `0.4`, `12`.
fn rate(n: f64) -> String {
    if n < 10.0 { format!("{n:.1}") } else { format!("{n:.0}") }
}

fn evidence(listener: &Listener, sums: &Sums, clients: Count, pace: Pace, now: u64) -> Vec<(&'static str, Measure)> {
    let [syns, acks] = sums.overflows();
    let mut evidence = vec![("syns_dropped", Measure::Count(syns)), ("acks_dropped", Measure::Count(acks))];
    let mut add = |name, measure: Option<Measure>| evidence.extend(measure.map(|measure| (name, measure)));
    let some = |n: u64| (n > 0).then_some(Measure::Count(n));
    add("other_drops", some(sums.unnamed_drops));
    add(if clients.at_least { "clients_at_least" } else { "clients" }, some(clients.clients));
    add("client_addresses", some(clients.hosts));
    add("limit", listener.accept_queue.limit.map(|n| Measure::Count(n.into())));
    add("waiting", listener.accept_queue.len.map(|n| Measure::Count(n.into())));
    add("peak", sums.accept_peak.map(|n| Measure::Count(n.into())));
    add("accepted_per_s", sums.accepted.map(|n| Measure::PerSecond(sums.per_second(n))));
    add("completed_per_s", sums.completed.map(|n| Measure::PerSecond(sums.per_second(n))));
    add("accept_wait_p99_us", sums.wait_p99.map(Measure::Us));
    add("accept_wait_max_us", sums.wait_max.map(Measure::Us));
    let silent = silence(listener, now) / 1000;
    let idle = silent > 0 && (sums.accepted == Some(0) || pace == Pace::Stuck);
    add("no_accept_us", idle.then_some(Measure::Us(silent)));
    add("process", pace.name().map(|name| Measure::Text(name.to_owned())));
    add("limited_by", listener.limited_by.map(|by| Measure::Text(by.name().to_owned())));
    evidence
}

fn advice(sums: &Sums, pace: Pace) -> &'static str {
    let [_, acks] = sums.overflows();
    match pace {
        Pace::Stuck => {
            "the process does not call accept(): look at what its accepting thread waits for \
             (/proc/PID/task/*/stack and wchan, a lock, RLIMIT_NOFILE: accept() fails with EMFILE at it)"
        }
        Pace::Slow if acks > 0 => {
            "accept faster: more workers, no slow work between two accept() calls; a longer queue only helps against \
             bursts. Clients whose final ACK was dropped believe that they are connected"
        }
        Pace::Slow => {
            "accept faster: more workers, no slow work between two accept() calls; a longer queue only helps against \
             bursts"
        }
        Pace::KeepsUp => {
            "the process keeps up, the queue is too short for bursts: a larger argument of listen(), as far as net.core.somaxconn \
             lets it be"
        }
        Pace::Unknown => {
            "look whether the process calls accept() at all: if it does, more workers help, or a longer queue if this \
             was a burst; if it does not, look at what its accepting thread waits for"
        }
    }
}
