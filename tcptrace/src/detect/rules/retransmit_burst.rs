//! retransmit-burst: much of what is sent to a peer has to be sent again.

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        seen::{
            Seen,
            retransmits::{Again, Host},
        },
    },
    model::{Measure, Said, Severity, Subject, count, finding},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "retransmit-burst",
    about: "Much of what is sent to a peer has to be sent again",
    limits: &[&SEGMENTS, &SHARE, &ALONE],
    fires_after: "0s",
    resolves_after: "15s",
    check,
};

const SECOND: u64 = 1_000_000_000;
/// What is looked at.
const WINDOW_NS: u64 = 10 * SECOND;
/// In so many of the ten seconds something was sent again.
const SECONDS: u64 = 3;

const SEGMENTS: Limit = Limit {
    name: "segments",
    unit: Unit::Count,
    default: "50",
    about: "So many segments were sent to a peer again within ten seconds, by connections that go on",
};
const SHARE: Limit = Limit {
    name: "share",
    unit: Unit::Percent,
    default: "1%",
    about: "That is so much of what the kernel sent in that network namespace",
};
const ALONE: Limit = Limit {
    name: "alone",
    unit: Unit::Count,
    default: "200",
    about: "So many, where nobody reads the counters of the network namespace",
};

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    for host in seen.retransmits.hosts() {
        let again = seen.retransmits.to(host, seen.now, WINDOW_NS);
        // A connection that hears nothing any more sends little, and there is a rule for it.
        if again.segments < limits.count(&SEGMENTS) || again.seconds < SECONDS || again.backed_off > again.segments {
            continue;
        }
        let counted = seen.namespaces.get(host.0).map(|namespace| namespace.last(seen.now, WINDOW_NS / SECOND));
        let sent = counted.map(|counted| Sent { segments: counted.of("OutSegs"), again: counted.of("RetransSegs") });
        let sent = sent.filter(|sent| sent.segments > 0);
        let bad = match &sent {
            Some(sent) => share(&again, sent) >= limits.number(&SHARE),
            None => again.segments >= limits.count(&ALONE),
        };
        if bad {
            out.trouble(case(seen, host, &again, sent));
        }
    }
}

/// What the kernel counted in a namespace.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// Segments, without those that were sent again.
    segments: u64,
    /// Those that were.
    again: u64,
}

/// Of what was sent in the namespace. The last interval may not be over: then there is less than was sent.
fn share(again: &Again, sent: &Sent) -> f64 {
    again.segments as f64 * 100.0 / (sent.segments + sent.again).max(again.segments) as f64
}

fn case(seen: &Seen, host: &Host, again: &Again, sent: Option<Sent>) -> Case {
    let flows = seen.retransmits.flows(host, seen.now, WINDOW_NS) as u64;
    let addr = host.1;
    let mut summary =
        Said::new(format!("{} to {addr} sent again in 10 s", count(again.segments, "segment", "segments")));
    if flows > 0 {
        summary = summary.text(format!(" by {}", count(flows, "connection", "connections")));
    }
    let mut evidence = vec![
        ("retransmits", Measure::Count(again.segments)),
        ("retransmits_per_s", Measure::PerSecond(again.segments as f64 / 10.0)),
        ("connections", Measure::Count(flows)),
        ("backed_off", Measure::Count(again.backed_off)),
    ];
    if let Some(sent) = sent {
        summary = summary.text(format!(", {:.0} % of what was sent", share(again, &sent)));
        evidence.push(("share_percent", Measure::Percent(share(again, &sent))));
        evidence.push(("segments_sent", Measure::Count(sent.segments)));
        evidence.push(("segments_sent_again", Measure::Count(sent.again)));
    }
    Case {
        subject: Subject { netns: finding::netns(host.0), raddr: Some(addr), ..Subject::default() },
        severity: Severity::Warning,
        since: None,
        summary,
        evidence,
        advice: format!(
            "segments or their ACKs get lost, or come in another order: `ip -s link` and `tc -s qdisc` here and there show drops, `mtr -T {addr}` \
             where on the way; large segments alone: the MTU (net.ipv4.tcp_mtu_probing = 1 helps)"
        ),
        look: format!("ss -tin dst {addr}"),
    }
}
