//! connect-timeouts: processes here ask a peer that does not answer, or that the network says is not there.

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        seen::{
            Seen,
            peers::{Failing, Party},
        },
    },
    model::{Measure, Said, Severity, count},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "connect-timeouts",
    about: "A peer does not answer SYNs, or cannot be reached",
    limits: &[&ATTEMPTS, &SYNS, &LASTS],
    fires_after: "0s",
    resolves_after: "30s",
    check,
};

const SECOND: u64 = 1_000_000_000;
/// What was tried last so long ago is not tried any more.
const TRIES_NS: u64 = 180 * SECOND;
const RECENT_NS: u64 = 60 * SECOND;

const ATTEMPTS: Limit = Limit {
    name: "attempts",
    unit: Unit::Count,
    default: "3",
    about: "So many attempts to connect to a port of a peer are without an answer, those that still wait included, and none succeeded",
};
const SYNS: Limit = Limit {
    name: "syns",
    unit: Unit::Count,
    default: "2",
    about: "One that waits counts when its SYN was sent again so often: a single one can get lost",
};
const LASTS: Limit =
    Limit { name: "lasts", unit: Unit::Time, default: "5s", about: "The oldest of them began so long ago" };

/// Errno: no route to host, network is unreachable.
const ENETUNREACH: u8 = 101;
const EHOSTUNREACH: u8 = 113;

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    for party in seen.peers.asked() {
        let limits = limits.at(party.subject.rport);
        let (waiting, oldest) = seen.peers.waiting(party, limits.count(&SYNS) as u32);
        let failing = party.failing.filter(|failing| failing.last.saturating_add(TRIES_NS) >= seen.now);
        let failed = failing.map_or(0, |f| f.timed_out + f.gave_up + f.unreachable);
        if failing.is_some_and(|f| f.refused + f.icmp > failed) {
            continue;
        }
        let attempts = u64::from(failed + waiting);
        let Some(since) = failing.filter(|_| failed > 0).map(|f| f.since).into_iter().chain(oldest).min() else {
            continue;
        };
        // One that succeeded after these began says that others are answered.
        let answered = party.succeeded.is_some_and(|ts| ts >= since);
        if attempts < limits.count(&ATTEMPTS)
            || seen.now.saturating_sub(since) < limits.ns(&LASTS)
            || answered
            || seen.peers.has_another_way(party, seen.now, RECENT_NS, attempts as u32)
        {
            continue;
        }
        out.trouble(case(seen, party, failing, waiting, since));
    }
}

fn case(seen: &Seen, party: &Party, failing: Option<Failing>, waiting: u32, since: u64) -> Case {
    let f = failing.unwrap_or(Failing { since, last: seen.now, ..Failing::default() });
    let silent = f.timed_out + f.gave_up + waiting;
    let unreachable = f.unreachable > silent;
    let n = u64::from(silent + f.unreachable);
    let said = Said::new(format!("{} to {}", count(n, "connection", "connections"), party.remote()));
    let mut summary = party.said(said);
    let longest = f.longest.max(if waiting > 0 { seen.now.saturating_sub(since) } else { 0 }) / 1000;
    summary = if unreachable {
        summary.text(match f.errno {
            EHOSTUNREACH => " failed: no route to host",
            ENETUNREACH => " failed: the network is unreachable",
            _ => " failed: the network reported an error",
        })
    } else {
        summary.text(" got no answer, not even a RST; the longest waited ").us(longest)
    };
    let mut evidence = vec![
        ("timed_out", Measure::Count(f.timed_out.into())),
        ("gave_up", Measure::Count(f.gave_up.into())),
        ("waiting", Measure::Count(waiting.into())),
        ("unreachable", Measure::Count(f.unreachable.into())),
        ("longest_us", Measure::Us(longest)),
    ];
    evidence.extend((f.errno != 0).then(|| ("errno", Measure::Count(f.errno.into()))));
    evidence.push(("source", Measure::Text(party.laddr.to_string())));
    evidence.extend(party.succeeded.map(|ts| ("succeeded_before_us", Measure::Us(seen.now.saturating_sub(ts) / 1000))));
    evidence.extend(party.processes());
    let addr = party.subject.raddr.map_or_else(String::new, |addr| addr.to_string());
    let advice = if unreachable {
        format!(
            "`ip route get {addr}` says which way is taken and `ip neigh show to {addr}` whether the next hop answers; a router or a \
             firewall on the way may say so, too"
        )
    } else {
        format!(
            "the host is down, or a firewall drops SYNs or the answers to them: `ip route get {addr}`, then tcpdump there. Until then let the \
             client wait less: a timeout of its own or TCP_USER_TIMEOUT, else it is net.ipv4.tcp_syn_retries that decides"
        )
    };
    let port = party.subject.rport.unwrap_or(0);
    Case {
        subject: party.subject.clone(),
        severity: Severity::Warning,
        since: Some(since),
        summary,
        evidence,
        advice,
        look: format!("tcptrace conns --failed --rport {port} --raddr {addr}"),
    }
}
