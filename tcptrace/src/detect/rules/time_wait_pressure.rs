//! time-wait-pressure: so many connections are in TIME_WAIT that the kernel has no room for more.

use super::closers;
use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        seen::{Seen, namespaces::Namespace},
    },
    model::{Measure, Role, Said, Severity, Subject, count, finding::netns},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "time-wait-pressure",
    about: "So many connections in TIME_WAIT that the kernel has, or soon will have, no room for more",
    limits: &[&SHARE, &OVERFLOWS],
    fires_after: "0s",
    resolves_after: "10s",
    check,
};

const SHARE: Limit =
    Limit { name: "share", unit: Unit::Percent, default: "90%", about: "So much of tcp_max_tw_buckets is in use" };
const OVERFLOWS: Limit = Limit {
    name: "overflows",
    unit: Unit::Count,
    default: "1",
    about: "So many connections went without TIME_WAIT within ten seconds because there was no room",
};
/// Seconds that are looked at.
const SECONDS: u64 = 10;

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    for namespace in seen.namespaces.iter() {
        let most = namespace.setting("tcp_max_tw_buckets");
        // Somebody switched TIME_WAIT off.
        if most == Some(0) {
            continue;
        }
        let overflows = namespace.last(seen.now, SECONDS).of("TCPTimeWaitOverflow");
        let now = namespace.gauges.get("tw").copied();
        let share = now.zip(most).map(|(now, most)| now as f64 * 100.0 / most as f64);
        let full = overflows >= limits.count(&OVERFLOWS).max(1);
        if full || share.is_some_and(|share| share >= limits.number(&SHARE)) {
            out.trouble(case(seen.now, namespace, [overflows, most.unwrap_or(0)], now, share));
        }
    }
}

fn case(at: u64, namespace: &Namespace, [overflows, most]: [u64; 2], now: Option<u64>, share: Option<f64>) -> Case {
    let growth = namespace.time_wait_growth();
    let who = namespace.time_waiters(at);
    let owner = who.first().and_then(|closer| closer.owner.as_deref());
    let mut summary = match overflows {
        0 => Said::new(format!("{} connections are in TIME_WAIT", now.unwrap_or(0))),
        n => Said::new(format!(
            "{} in {SECONDS} s went without TIME_WAIT: there is no room",
            count(n, "connection", "connections")
        )),
    };
    summary = match (overflows, share) {
        (0, Some(share)) => summary.text(format!(", {share:.0} % of tcp_max_tw_buckets ({most})")),
        (_, _) if most > 0 => summary.text(format!(" for more than {most} (tcp_max_tw_buckets)")),
        _ => summary,
    };
    if owner.is_some() {
        summary = summary.text("; most are closed first by a process here").owner(owner);
    }
    let mut evidence = vec![("overflows", Measure::Count(overflows))];
    evidence.extend(now.map(|n| ("time_waits", Measure::Count(n))));
    evidence.extend((most > 0).then_some(("tcp_max_tw_buckets", Measure::Count(most))));
    evidence.extend(share.map(|share| ("share_percent", Measure::Percent(share))));
    evidence.extend(growth.map(|growth| ("growth_per_s", Measure::PerSecond(growth))));
    evidence.extend((!who.is_empty()).then(|| ("closed_by", closers(&who, at))));
    let change = match who.first().and_then(|closer| closer.role) {
        Some(Role::Client) => "use connections again (keep-alive, a pool) in place of one for each request",
        Some(Role::Server | Role::Listener) => {
            "let clients close first and keep connections open longer (the server's keep-alive timeout and requests for each connection)"
        }
        None => "let the other end close first, or use connections again",
    };
    Case {
        subject: Subject { netns: netns(namespace.netns), ..Subject::default() },
        severity: if overflows > 0 { Severity::Warning } else { Severity::Info },
        since: None,
        summary,
        evidence,
        advice: format!(
            "{change}; net.ipv4.tcp_max_tw_buckets={} makes room, at about 250 bytes for each",
            (most * 2).max(16_384).next_power_of_two()
        ),
        look: "ss -tn state time-wait".to_owned(),
    }
}
