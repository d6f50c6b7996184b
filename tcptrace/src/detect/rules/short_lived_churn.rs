//! short-lived-churn: a process makes many short connections to one peer where one that stays would do.

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        seen::{
            Seen,
            peers::{Party, Tally},
        },
    },
    model::{Measure, Said, Severity},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "short-lived-churn",
    about: "Many short connections to one peer where one that stays would do",
    limits: &[&RATE, &BUSY, &LIFETIME, &BYTES, &HANDSHAKE, &SECONDS],
    fires_after: "0s",
    resolves_after: "30s",
    check,
};

const SECOND: u64 = 1_000_000_000;
/// What is looked at.
const WINDOW: u64 = 20;

const RATE: Limit = Limit {
    name: "rate",
    unit: Unit::PerSecond,
    default: "20/s",
    about: "So many connections to one port of one peer begin and end by FINs, over 20 seconds",
};
const BUSY: Limit = Limit {
    name: "busy",
    unit: Unit::PerSecond,
    default: "200/s",
    about: "From so many on the share of the handshake does not matter: ports and TIME_WAIT do",
};
const LIFETIME: Limit =
    Limit { name: "lifetime", unit: Unit::Time, default: "1s", about: "They last less than that on average" };
const BYTES: Limit = Limit {
    name: "bytes",
    unit: Unit::Count,
    default: "65536",
    about: "They carry fewer bytes than that on average, both directions together",
};
const HANDSHAKE: Limit = Limit {
    name: "handshake",
    unit: Unit::Percent,
    default: "5%",
    about: "The handshake takes at least so much of their time",
};
const SECONDS: Limit = Limit {
    name: "seconds",
    unit: Unit::Count,
    default: "15",
    about: "In so many of the 20 seconds there were some: a batch of work is no habit",
};

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    for party in seen.peers.asked() {
        let limits = limits.at(party.subject.rport);
        let sum = party.recent.sum(seen.now, WINDOW * SECOND);
        let Some(churn) = Churn::of(&sum) else { continue };
        if churn.per_second >= limits.number(&RATE)
            && churn.lifetime_us < limits.number(&LIFETIME) * 1e6
            && churn.bytes < limits.number(&BYTES)
            && (churn.handshake_percent >= limits.number(&HANDSHAKE) || churn.per_second >= limits.number(&BUSY))
            && u64::from(sum.busy_seconds) >= limits.count(&SECONDS)
        {
            out.trouble(case(party, &sum, &churn));
        }
    }
}

/// A connection on average.
struct Churn {
    per_second: f64,
    lifetime_us: f64,
    handshake_us: f64,
    handshake_percent: f64,
    bytes: f64,
    at_once: f64,
}

impl Churn {
    fn of(sum: &Tally) -> Option<Self> {
        let n = f64::from(sum.timed);
        (sum.timed > 0).then(|| Self {
            per_second: n / WINDOW as f64,
            lifetime_us: sum.lasted_us as f64 / n,
            handshake_us: sum.handshake_us as f64 / n,
            handshake_percent: sum.handshake_us as f64 * 100.0 / sum.lasted_us.max(1) as f64,
            bytes: sum.bytes as f64 / n,
            // Little's law.
            at_once: sum.lasted_us as f64 / 1e6 / WINDOW as f64,
        })
    }
}

fn case(party: &Party, sum: &Tally, churn: &Churn) -> Case {
    let said = Said::new(format!("{:.0} connections a second to {}", churn.per_second, party.remote()));
    let summary = party.said(said).text(" last ").us(churn.lifetime_us as u64).text(format!(
        " and carry {:.0} bytes on average; {:.0} % of their time is the handshake",
        churn.bytes, churn.handshake_percent
    ));
    let connections = churn.at_once.ceil().max(1.0);
    let mut evidence = vec![
        ("connections_per_s", Measure::PerSecond(churn.per_second)),
        ("lifetime_us", Measure::Us(churn.lifetime_us as u64)),
        ("handshake_us", Measure::Us(churn.handshake_us as u64)),
        ("handshake_percent", Measure::Percent(churn.handshake_percent)),
        ("bytes", Measure::Count(churn.bytes as u64)),
        ("would_do", Measure::Count(connections as u64)),
        ("closed_here_percent", Measure::Percent(f64::from(sum.closed_here) * 100.0 / f64::from(sum.closed.max(1)))),
    ];
    evidence.extend(party.processes());
    let advice = format!(
        "let the client keep its connections: HTTP keep-alive (nginx: `keepalive` in the upstream block and proxy_http_version 1.1), a pool of \
         {connections:.0} for a database; look whether the server says `Connection: close`"
    );
    Case {
        subject: party.subject.clone(),
        severity: Severity::Warning,
        since: None,
        summary,
        evidence,
        advice,
        look: format!("tcptrace conns --by comm,raddr,rport --rport {}", party.subject.rport.unwrap_or(0)),
    }
}
