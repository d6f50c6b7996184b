//! port-scan: somebody tries one port after the other.

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        seen::{
            Seen,
            scans::{Source, Tried},
        },
    },
    model::{Measure, Said, Severity},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "port-scan",
    about: "Somebody tries one port after the other",
    limits: &[&PORTS, &CLOSED, &QUIET],
    fires_after: "0s",
    resolves_after: "30s",
    check,
};

const SECOND: u64 = 1_000_000_000;
/// Nothing was tried for so long: it is over.
const OVER_NS: u64 = 30 * SECOND;
/// Ports that are named.
const NAMED: usize = 10;
/// How often a scan may try a port.
const AGAIN: u32 = 3;

const PORTS: Limit = Limit {
    name: "ports",
    unit: Unit::Count,
    default: "15",
    about: "So many ports were tried by one source within two minutes",
};
const CLOSED: Limit = Limit {
    name: "closed",
    unit: Unit::Count,
    default: "3",
    about: "So many of them are closed: who looks after services knows where they are",
};
const QUIET: Limit = Limit {
    name: "quiet",
    unit: Unit::Time,
    default: "30s",
    about: "Where all of them are open: none was tried a third time after so long, as a load balancer does that asks whether they work",
};

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    for source in seen.scans.sources() {
        if source.last.saturating_add(OVER_NS) < seen.now {
            continue;
        }
        let ports = source.ports();
        let (closed, open): (Vec<_>, Vec<_>) = ports.iter().partition(|(_, tried)| tried.closed > 0);
        // Who asks for one again and again waits for a service.
        let looked_for = closed.iter().filter(|(_, tried)| tried.closed <= AGAIN).count();
        let looks_around = looked_for as u64 >= limits.count(&CLOSED)
            || seen.now.saturating_sub(source.first) >= limits.ns(&QUIET) && open.iter().all(|(_, t)| t.open <= 2);
        if ports.len() as u64 >= limits.count(&PORTS) && looks_around {
            out.trouble(case(source, &closed, &open));
        }
    }
}

fn case(source: &Source, closed: &[(&u16, &Tried)], open: &[(&u16, &Tried)]) -> Case {
    let n = closed.len() + open.len();
    let more = if source.is_more() { " or more" } else { "" };
    let addr = source.key.1;
    let mut summary = Said::new(format!("{addr} tried {n}{more} ports of {} in ", source.laddr));
    summary = summary.us(source.last.saturating_sub(source.first) / 1000);
    summary = match (open.len(), closed.len()) {
        (0, _) => summary,
        (_, 0) => summary.text(", all of them open"),
        (n, _) => summary.text(format!(", {n} of them open")),
    };
    let named = |ports: &[(&u16, &Tried)]| {
        Measure::List(ports.iter().take(NAMED).map(|(port, _)| Measure::Count(u64::from(**port))).collect())
    };
    let mut evidence = vec![
        ("ports", Measure::Count(n as u64)),
        ("closed", Measure::Count(closed.len() as u64)),
        ("open", Measure::Count(open.len() as u64)),
        ("first_closed", named(closed)),
    ];
    evidence.extend((!open.is_empty()).then(|| ("first_open", named(open))));
    let kinds: Vec<_> = source.kinds.iter().map(|(kind, n)| (kind.name(), Measure::Count(*n))).collect();
    evidence.extend((!kinds.is_empty()).then_some(("segments", Measure::Fields(kinds))));
    evidence.push(("target", Measure::Text(source.laddr.to_string())));
    evidence.push(("lasts_us", Measure::Us(source.last.saturating_sub(source.first) / 1000)));
    evidence.extend((source.held_back() > 0).then_some(("held_back", Measure::Count(source.held_back()))));
    Case {
        subject: source.subject(),
        severity: Severity::Warning,
        since: Some(source.first),
        summary,
        evidence,
        advice: format!(
            "if nobody of yours does that, keep {addr} out (`nft add rule inet filter input ip{} saddr {addr} drop`), and let services listen \
             only on addresses where they are needed: `ss -ltnp`",
            if addr.is_ipv4() { "" } else { "6" }
        ),
        look: format!("tcptrace trace --requests --raddr {addr}"),
    }
}
