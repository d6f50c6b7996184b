//! reset-storm: connections are cut off by RSTs, one after the other: which end does it, and at which service or peer.

use std::collections::BTreeMap;

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        seen::{
            Seen,
            peers::{Cut, Party, Reset, Tally},
        },
    },
    model::{Measure, Said, Severity, count},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "reset-storm",
    about: "Connections are cut off by RSTs, one after the other",
    limits: &[&RESETS, &SHARE, &SECONDS],
    fires_after: "0s",
    resolves_after: "15s",
    check,
};

const SECOND: u64 = 1_000_000_000;
/// What is looked at.
const WINDOW_NS: u64 = 10 * SECOND;

const RESETS: Limit = Limit {
    name: "resets",
    unit: Unit::Count,
    default: "20",
    about: "So many connections were cut off within ten seconds",
};
const SHARE: Limit =
    Limit { name: "share", unit: Unit::Percent, default: "30%", about: "That is so much of all that ended" };
const SECONDS: Limit = Limit {
    name: "seconds",
    unit: Unit::Count,
    default: "3",
    about: "In so many of the ten seconds some were: a process that ends cuts off all of its connections at once",
};

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    let sides = [seen.peers.asked().collect::<Vec<_>>(), seen.peers.served().collect()];
    for (asked, parties) in [true, false].into_iter().zip(sides) {
        for party in parties {
            let limits = limits.at(party.subject.lport.or(party.subject.rport));
            let sum = party.recent.sum(seen.now, WINDOW_NS);
            let share = f64::from(sum.cut()) * 100.0 / f64::from(sum.ended.max(1));
            if u64::from(sum.cut()) >= limits.count(&RESETS)
                && share >= limits.number(&SHARE)
                && u64::from(sum.cut_seconds) >= limits.count(&SECONDS)
            {
                out.trouble(case(seen, party, asked, &sum, share));
            }
        }
    }
}

fn case(seen: &Seen, party: &Party, asked: bool, sum: &Tally, share: f64) -> Case {
    // Whole seconds, as they are counted.
    let begin = ((seen.now + SECOND) / SECOND * SECOND).saturating_sub(WINDOW_NS);
    let latest: Vec<&Reset> = party.resets.iter().filter(|reset| reset.ts >= begin).collect();
    let here = sum.cut_here >= sum.cut_there;
    let both = sum.cut_here.min(sum.cut_there) * 5 >= sum.cut();
    let (peers, top) = peers(&latest);
    let of = |cut: Cut| latest.iter().filter(|reset| reset.cut == cut).count();
    let [data, answer, empty] = [Cut::Data, Cut::Answer, Cut::Empty].map(of);
    let most = if data >= answer && data >= empty {
        Cut::Data
    } else if answer >= empty {
        Cut::Answer
    } else {
        Cut::Empty
    };
    let place = match (asked, party.subject.lport) {
        (false, Some(port)) => format!("port {port}"),
        _ => party.remote(),
    };
    let by = match (both, here, asked) {
        (true, ..) => "both ends",
        (false, true, _) => "this end",
        (false, false, true) => "the peer",
        (false, false, false) => "the clients",
    };
    let said = Said::new(format!("{} to {place}", count(sum.cut().into(), "connection", "connections")));
    let summary = party.said(said).text(format!(" cut off by RSTs of {by} in 10 s, {share:.0} % of all that ended: "));
    let summary = summary.text(match most {
        Cut::Data => "with data unread or unacknowledged",
        Cut::Answer => "with a question that was not answered",
        Cut::Empty => "before anything was said",
    });
    let mut evidence = vec![
        ("resets_sent", Measure::Count(sum.cut_here.into())),
        ("resets_received", Measure::Count(sum.cut_there.into())),
        ("resets_per_s", Measure::PerSecond(f64::from(sum.cut()) / 10.0)),
        ("ended", Measure::Count(sum.ended.into())),
        ("share_percent", Measure::Percent(share)),
        ("data_lost", Measure::Count(data as u64)),
        ("unanswered", Measure::Count(answer as u64)),
        ("unused", Measure::Count(empty as u64)),
        ("peers", Measure::Count(peers as u64)),
    ];
    evidence.extend(top.map(|(addr, n)| {
        let share = Measure::Percent(n as f64 * 100.0 / latest.len() as f64);
        ("top_peer", Measure::Fields(vec![("addr", Measure::Text(addr.to_string())), ("share_percent", share)]))
    }));
    let mut lasted: Vec<u64> = latest.iter().filter_map(|reset| reset.lasted_us).collect();
    lasted.sort_unstable();
    evidence.extend(lasted.get(lasted.len() / 2).map(|us| ("lasted_median_us", Measure::Us(*us))));
    evidence.extend(party.processes());
    let advice = match (here, most) {
        (true, Cut::Data) => {
            "this process close()s without having read all that came: let it read to the end, or shutdown(SHUT_WR) and read until the \
             peer closes, and look into its log why it gives up"
        }
        (true, _) => {
            "this process closes with SO_LINGER {1, 0}, or ends in the middle of a request: look into its log; where it means to refuse, \
             let it say so by its protocol"
        }
        (false, Cut::Empty) => {
            "the peer takes connections and cuts them off at once: a load balancer without a healthy server behind it, or a limit of \
             connections or clients there"
        }
        (false, _) if asked => {
            "the peer's process crashes, is overloaded, or lets go of connections that it took for idle: look into its log, and let the \
             client's pool keep connections for less time than the peer does"
        }
        (false, _) => {
            "clients give up before they are answered: compare how long connections last (lasted_median_us) with their timeouts, and with \
             how long the process needs; a device between may send the RSTs, too"
        }
    };
    let look = match (asked, party.subject.lport) {
        (false, Some(port)) => format!("tcptrace conns --failed --ladder --lport {port}"),
        _ => format!("tcptrace conns --failed --ladder --rport {}", party.subject.rport.unwrap_or(0)),
    };
    let severity = if asked { Severity::Warning } else { Severity::Critical };
    Case { subject: party.subject.clone(), severity, since: None, summary, evidence, advice: advice.to_owned(), look }
}

/// How many peers there are, and which has the most of them.
fn peers(latest: &[&Reset]) -> (usize, Option<(std::net::IpAddr, usize)>) {
    let mut by_peer = BTreeMap::new();
    for reset in latest {
        *by_peer.entry(reset.raddr).or_insert(0) += 1;
    }
    (by_peer.len(), by_peer.into_iter().max_by_key(|&(addr, n)| (n, std::cmp::Reverse(addr))))
}
