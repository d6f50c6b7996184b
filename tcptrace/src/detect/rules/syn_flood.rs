//! syn-flood: SYNs come in numbers and nobody goes on with the handshake. The SYN queue's depth is no sign of it: cookies hide it.

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        rules::look_at_queues,
        seen::{
            Seen,
            flow::{Balance, per_second},
            listeners::Listener,
        },
    },
    model::{Measure, Said, Severity, count},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "syn-flood",
    about: "SYNs come in numbers, and nobody answers the SYN-ACKs",
    limits: &[&UNANSWERED, &COMPLETED, &GROWTH, &SOURCES],
    fires_after: "0s",
    resolves_after: "10s",
    check,
};

const UNANSWERED: Limit = Limit {
    name: "unanswered",
    unit: Unit::PerSecond,
    default: "100/s",
    about: "So many SYN-ACKs stay unanswered, or SYNs find no room, at least",
};
const COMPLETED: Limit =
    Limit { name: "completed", unit: Unit::Percent, default: "50%", about: "Fewer handshakes than that are completed" };
const GROWTH: Limit = Limit {
    name: "growth",
    unit: Unit::Times,
    default: "10x",
    about: "Or so many times as many as usual stay unanswered, and one in ten",
};
const SOURCES: Limit = Limit {
    name: "sources",
    unit: Unit::Count,
    default: "50",
    about: "A slow flood holds the SYN queue full from so many addresses that never answer, at least",
};

/// Seconds of evidence about the queue.
const SECONDS: u64 = 5;
/// Seconds of the past that must be known before something is held against it.
const PAST: f64 = 10.0;
/// So few addresses can be blocked one by one.
const FEW: u64 = 16;

/// How a flood was told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Flood {
    balance: Balance,
    /// The SYN queue is held full by few SYNs that wait for long.
    slow: Option<u64>,
}

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    for listener in seen.listeners.iter() {
        if let Some(flood) = assess(seen, listener, &limits.at(listener.subject.lport)) {
            out.trouble(case(listener, &flood, seen.now));
        }
    }
}

/// Is it flooded, as these limits have it?
fn assess(seen: &Seen, listener: &Listener, limits: &Limits<'_>) -> Option<Flood> {
    let balance = listener.flows.balance(seen.now)?;
    let last = listener.flows.last()?;
    let least = limits.number(&UNANSWERED);
    let goes_on = last.pressure() >= least;
    let flood = Flood { balance, slow: None };
    // Nobody answers what was answered.
    let unanswered = per_second(balance.unanswered(), balance.ns);
    let few = balance.replies as f64 * 100.0 < balance.answered as f64 * limits.number(&COMPLETED);
    let past = listener.flows.past_s >= PAST;
    let unusual = past
        && unanswered >= listener.flows.usual_unanswered * limits.number(&GROWTH)
        && balance.unanswered() * 10 >= balance.answered;
    if goes_on && unanswered >= least && (few || unusual) {
        return Some(flood);
    }
    // There is no room, and those that have taken it do not go on: clients would make room in a round trip. Where the accept queue
    // was full they could not.
    let room = u64::from(listener.syn_queue.limit.unwrap_or(0) / 2).max(1);
    let no_room = per_second(balance.turned_away, balance.ns) >= least;
    if goes_on && no_room && balance.replies < room && !balance.accept_full {
        return Some(flood);
    }
    slow(seen, listener, &balance, limits).map(|sources| Flood { slow: Some(sources), ..flood })
}

/// Few SYNs a second hold the queue full, because none of them is answered.
fn slow(seen: &Seen, listener: &Listener, balance: &Balance, limits: &Limits<'_>) -> Option<u64> {
    let queue = listener.syn_queue;
    let (len, young, limit) = (queue.len?, queue.young?, queue.limit?);
    let old = len.saturating_sub(young);
    let sums = listener.last(seen.now, SECONDS);
    let no_room = sums.cookies_sent.unwrap_or(0) > 0 || balance.turned_away > 0;
    if len < limit.max(1) || old * 2 < len || !no_room || balance.accept_full || listener.defer_accept.is_some() {
        return None;
    }
    let sources = seen.half_opens.of(&listener.subject).len() as u64;
    (sources >= limits.count(&SOURCES)).then_some(sources)
}

fn case(listener: &Listener, flood: &Flood, now: u64) -> Case {
    let sums = listener.last(now, SECONDS);
    let b = &flood.balance;
    // Cookies of a namespace with several listeners cannot be told apart from drops.
    let dropped = sums.dropped(tcptrace_common::queue::drop::SYN_QUEUE_FULL);
    let severity = if dropped > 0 || flood.slow.is_some() { Severity::Critical } else { Severity::Warning };
    Case {
        subject: listener.subject.clone(),
        severity,
        since: (b.since > 0).then_some(b.since),
        summary: summary(listener, flood, sums.sources.filter(|_| listener.exact), dropped),
        evidence: evidence(listener, flood, now),
        advice: advice(listener, flood, dropped, sums.sources),
        look: look_at_queues(listener),
    }
}

fn summary(listener: &Listener, flood: &Flood, sources: Option<u64>, dropped: u64) -> Said {
    let b = &flood.balance;
    let owner = listener.subject.owner.as_deref();
    if let Some(sources) = flood.slow {
        let full = listener.syn_queue.len.unwrap_or(0);
        return Said::new(format!(
            "{full} half-open requests from {sources} addresses that never answer fill the SYN queue"
        ))
        .owner(owner)
        .text("; SYNs find no room");
    }
    let syns = per_second(b.answered + b.turned_away, b.ns);
    let share = completed_percent(b);
    let mut said = Said::new(format!("{syns:.0} SYNs a second")).owner(owner);
    if let Some(sources) = sources {
        said = said.text(format!(" from about {}", count(sources, "address", "addresses")));
    }
    said = match share {
        Some(share) => said.text(format!(", {share:.0} % of them complete the handshake: ")),
        None => said.text(", and nobody completes the handshake: "),
    };
    said.text(match (b.cookies > 0, dropped > 0) {
        (_, true) => "the SYN queue is full, and SYNs are dropped, clients' too",
        (true, false) => "the SYN queue is full, cookies answer",
        (false, false) if b.turned_away > 0 => "the SYN queue is full",
        (false, false) => "the SYN queue fills",
    })
}

/// None: of nothing.
fn completed_percent(b: &Balance) -> Option<f64> {
    let all = b.answered + b.turned_away;
    (all > 0).then(|| (b.replies as f64 * 100.0 / all as f64).min(100.0))
}

fn evidence(listener: &Listener, flood: &Flood, now: u64) -> Vec<(&'static str, Measure)> {
    let b = &flood.balance;
    let sums = listener.last(now, SECONDS);
    let mut evidence = vec![("syns_per_s", Measure::PerSecond(per_second(b.answered + b.turned_away, b.ns)))];
    let mut add = |name, measure: Option<Measure>| evidence.extend(measure.map(|measure| (name, measure)));
    let rate = |n: u64| Measure::PerSecond(per_second(n, b.ns));
    let past = listener.flows.past_s >= PAST;
    add("usual_syns_per_s", past.then_some(Measure::PerSecond(listener.flows.usual_syns)));
    add("unanswered_per_s", Some(rate(b.unanswered())));
    add("completed_percent", completed_percent(b).map(Measure::Percent));
    add("cookies_per_s", sums.cookies_sent.map(|_| rate(b.cookies)));
    // Of what finds no room, cookies that are sent by one of several listeners cannot be told from drops.
    let named = sums.dropped[tcptrace_common::queue::drop::SYN_QUEUE_FULL].is_some();
    let no_room = (named || b.turned_away > 0).then(|| rate(b.turned_away));
    add(if named { "dropped_per_s" } else { "no_room_per_s" }, no_room);
    // Of the SYNs that were queued alone, where no hook sees the others.
    add(
        if listener.exact { "sources" } else { "sources_at_least" },
        sums.sources.filter(|n| *n > 0).map(Measure::Count),
    );
    add("silent_sources", flood.slow.map(Measure::Count));
    let synacks = sums.synack_retrans.filter(|n| *n > 0);
    add("synacks_again_per_s", synacks.map(|n| Measure::PerSecond(sums.per_second(n))));
    add("half_open", listener.syn_queue.len.map(|n| Measure::Count(n.into())));
    add("limit", listener.syn_queue.limit.map(|n| Measure::Count(n.into())));
    evidence
}

fn advice(listener: &Listener, flood: &Flood, dropped: u64, sources: Option<u64>) -> String {
    let few = sources.filter(|n| listener.exact && (1..=FEW).contains(n));
    if let Some(few) = few {
        return format!(
            "few addresses ({few}) send them: drop theirs before they reach TCP (nft add rule ... ip saddr ADDRESS tcp flags \
             syn drop), after a look at whether they can be real"
        );
    }
    let text = if flood.slow.is_some() {
        "sysctl -w net.ipv4.tcp_synack_retries=2 frees requests after 7 s in place of 63 s; net.ipv4.tcp_syncookies=1 lets \
         clients in meanwhile"
    } else if dropped > 0 {
        "sysctl -w net.ipv4.tcp_syncookies=1: clients get in while the queue is full; then have the provider filter the \
         flood, for made-up sources cannot be blocked here"
    } else if flood.balance.cookies > 0 || flood.balance.turned_away > 0 {
        "net.ipv4.tcp_syncookies lets clients in; have the provider filter the flood, or limit SYNs here (nft: tcp flags \
         syn limit rate), for made-up sources cannot be blocked one by one"
    } else {
        "see that net.ipv4.tcp_syncookies is 1 before the queue is full, and have the provider filter the flood; sysctl -w \
         net.ipv4.tcp_synack_retries=2 keeps fewer requests"
    };
    text.to_owned()
}
