//! stale-syn: SYNs of connections that are over come again and are answered by RSTs.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        seen::{Seen, handshakes::Stale},
    },
    model::{Measure, Said, Severity, count},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "stale-syn",
    about: "SYNs of connections that are over come again, late, and are answered by RSTs",
    limits: &[&SYNS],
    fires_after: "0s",
    resolves_after: "60s",
    check,
};

const SECOND: u64 = 1_000_000_000;
/// What is looked at.
const WINDOW_NS: u64 = 60 * SECOND;

const SYNS: Limit = Limit {
    name: "syns",
    unit: Unit::Count,
    default: "5",
    about: "So many came to a port within a minute; one may always be late",
};

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    let begin = seen.now.saturating_sub(WINDOW_NS);
    let mut by_port = BTreeMap::<(u32, u16), Vec<&Stale>>::new();
    for stale in seen.handshakes.stale.iter().filter(|stale| stale.ts >= begin) {
        by_port.entry(stale.at).or_default().push(stale);
    }
    for (at, syns) in by_port {
        if syns.len() as u64 >= limits.at(Some(at.1)).count(&SYNS)
            && let Some(case) = case(at.1, &syns)
        {
            out.trouble(case);
        }
    }
}

fn case(port: u16, syns: &[&Stale]) -> Option<Case> {
    let first = *syns.first()?;
    let sources: BTreeSet<_> = syns.iter().map(|stale| stale.raddr).collect();
    let latest = syns.iter().map(|stale| stale.late_ns).max()?;
    let n = syns.len() as u64;
    let from = match sources.len() {
        1 => first.raddr.to_string(),
        n => format!("{n} sources"),
    };
    let come = if n == 1 { "comes" } else { "come" };
    let summary = Said::new(format!("{} from {from} {come} again at port {port}", count(n, "SYN", "SYNs")))
        .owner(first.owner.as_deref())
        .text(" after the connection is over, up to ")
        .us(latest / 1000)
        .text(" late; the client answers our SYN-ACK with a RST");
    let evidence = vec![
        ("stale_syns", Measure::Count(n)),
        ("sources", Measure::Count(sources.len() as u64)),
        ("source", Measure::Text(first.raddr.to_string())),
        ("late_max_us", Measure::Us(latest / 1000)),
    ];
    Some(Case {
        subject: first.subject(),
        severity: Severity::Info,
        since: Some(first.ts),
        summary,
        evidence,
        advice: "something on the way delays or repeats segments: a bond or bridge with a loop, a VPN or tunnel that resends, a mirror port; \
                 capture SYNs at both ends and compare their sequence numbers. Connections come to no harm"
            .to_owned(),
        look: format!("tcptrace trace --requests --lport {port}"),
    })
}
