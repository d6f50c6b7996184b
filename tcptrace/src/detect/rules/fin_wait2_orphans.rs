//! fin-wait2-orphans: this host has closed connections, and a peer never does.

use super::closers;
use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        seen::{Seen, namespaces::Namespace},
    },
    model::{Measure, Orphans, Said, Severity, Subject, finding::netns},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "fin-wait2-orphans",
    about: "A peer does not close connections that this host has closed: they wait in FIN_WAIT2 until their time is up",
    limits: &[&ORPHANS, &SLOW, &SHARE],
    fires_after: "5s",
    resolves_after: "10s",
    check,
};

const ORPHANS: Limit = Limit {
    name: "orphans",
    unit: Unit::Count,
    default: "50",
    about: "So many connections with one peer that no process has any more and that wait for its FIN",
};
const SLOW: Limit = Limit {
    name: "slow",
    unit: Unit::Time,
    default: "5s",
    about: "And no fewer than are closed in so long: a peer that answers each within that time is only far away, or slow",
};
const SHARE: Limit = Limit {
    name: "share",
    unit: Unit::Percent,
    default: "80%",
    about: "So much of tcp_max_orphans is in use on the host: beyond it the kernel resets orphans",
};

/// Slots of [`crate::detect::seen::namespaces::Closer`] are a minute.
const MINUTE: f64 = 60.0;

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    for namespace in seen.namespaces.iter() {
        if let Some(orphans) = &namespace.orphans {
            peers(seen, namespace, orphans, limits, out);
        }
        pressure(seen.now, namespace, limits, out);
    }
}

/// Peers that leave many waiting.
fn peers(seen: &Seen, namespace: &Namespace, orphans: &Orphans, limits: &Limits<'_>, out: &mut Verdicts) {
    let now = seen.now;
    let seconds = (now.saturating_sub(seen.began) as f64 / 1e9).clamp(1.0, MINUTE);
    for &(peer, n) in &orphans.peers {
        let leavers = namespace.leavers(peer, now);
        let closed: u64 = leavers.iter().map(|closer| closer.last_minute(now)).sum();
        // Where none was seen to come they are older than the trace: many are enough.
        let per_s = closed as f64 / seconds;
        let first = leavers.first();
        let port = first.and_then(|closer| closer.port);
        let limits = limits.at(port);
        if u64::from(n) < limits.count(&ORPHANS) || f64::from(n) < per_s * limits.number(&SLOW) {
            continue;
        }
        let owner = first.and_then(|closer| closer.owner.clone());
        let mut summary = Said::new(format!("{peer} does not close: {n} connections that this host has closed"));
        summary = summary.owner(owner.as_deref()).text(" wait for its FIN in FIN_WAIT2");
        let fin_timeout = namespace.setting("tcp_fin_timeout");
        if let Some(seconds) = fin_timeout {
            summary = summary.text(format!(", each for {seconds} s"));
        }
        let mut evidence = vec![
            ("orphans", Measure::Count(n.into())),
            ("orphans_of_all_peers", Measure::Count(orphans.total.into())),
            ("closed_per_s", Measure::PerSecond(per_s)),
        ];
        evidence.extend(fin_timeout.map(|seconds| ("tcp_fin_timeout_us", Measure::Us(seconds * 1_000_000))));
        evidence.extend((!leavers.is_empty()).then(|| ("closed_by", closers(&leavers, now))));
        out.trouble(Case {
            subject: Subject { netns: netns(namespace.netns), raddr: Some(peer), ..Subject::default() },
            severity: Severity::Warning,
            since: None,
            summary,
            evidence,
            advice: format!(
                "look for connections in CLOSE_WAIT on {peer}: a program there leaves them open (close-wait-leak). Here they cost little; a lower \
                 net.ipv4.tcp_fin_timeout (or the socket option TCP_LINGER2) lets go of them sooner"
            ),
            look: format!("ss -tn state fin-wait-2 'dst {peer}'"),
        });
    }
}

/// Sockets without a process, of the whole host: only its first namespace knows how many there may be.
fn pressure(now: u64, namespace: &Namespace, limits: &Limits<'_>, out: &mut Verdicts) {
    let Some(most) = namespace.setting("tcp_max_orphans").filter(|most| *most > 0) else { return };
    let Some(&orphans) = namespace.gauges.get("orphan") else { return };
    let share = orphans as f64 * 100.0 / most as f64;
    if share < limits.number(&SHARE) {
        return;
    }
    let given_up = namespace.last(now, 10).of("TCPAbortOnMemory");
    out.trouble(Case {
        subject: Subject { netns: netns(namespace.netns), ..Subject::default() },
        severity: if given_up > 0 { Severity::Critical } else { Severity::Warning },
        since: None,
        summary: Said::new(format!(
            "{orphans} sockets without a process, {share:.0} % of tcp_max_orphans ({most}): beyond it the kernel resets them"
        )),
        evidence: vec![
            ("orphan_sockets", Measure::Count(orphans)),
            ("tcp_max_orphans", Measure::Count(most)),
            ("share_percent", Measure::Percent(share)),
            ("reset_in_10_s", Measure::Count(given_up)),
        ],
        advice: "raise net.ipv4.tcp_max_orphans (each may hold its send buffer), or let go of orphans sooner: net.ipv4.tcp_orphan_retries=3, \
                 a lower net.ipv4.tcp_fin_timeout"
            .to_owned(),
        look: "ss -tno state fin-wait-1".to_owned(),
    });
}
