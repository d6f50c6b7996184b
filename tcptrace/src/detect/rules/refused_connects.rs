//! refused-connects: processes here ask for a port of a peer where nobody listens.

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        seen::{
            Seen,
            peers::{Failing, Party, Tally},
        },
    },
    model::{Measure, Said, Severity, count},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "refused-connects",
    about: "Connections are refused by a peer again and again",
    limits: &[&REFUSED, &LASTS, &SHARE],
    fires_after: "0s",
    resolves_after: "15s",
    check,
};

const SECOND: u64 = 1_000_000_000;
/// What is looked at.
const WINDOW_NS: u64 = 60 * SECOND;

const REFUSED: Limit = Limit {
    name: "refused",
    unit: Unit::Count,
    default: "5",
    about: "So many connections to a port of a peer were refused, and none was not",
};
const LASTS: Limit = Limit {
    name: "lasts",
    unit: Unit::Time,
    default: "15s",
    about: "They were refused for so long: who waits for a restart tries again, too",
};
const SHARE: Limit = Limit {
    name: "share",
    unit: Unit::Percent,
    default: "20%",
    about: "Where others succeed: so many of at least twenty of the last minute were refused",
};
/// Fewer say nothing about a share.
const ENOUGH: u32 = 20;
/// Parts of the minute.
const PARTS: usize = 6;
/// In so many of them some were refused and others were not.
const MIXED: usize = 3;

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    for party in seen.peers.asked() {
        let limits = limits.at(party.subject.rport);
        let sum = party.recent.sum(seen.now, WINDOW_NS);
        let all = party.failing.filter(|failing| {
            let refused = failing.refused + failing.icmp;
            // As long as its process tries: what was given up is no trouble any more.
            u64::from(refused) >= limits.count(&REFUSED)
                && refused > failing.unreachable + failing.timed_out + failing.gave_up
                && failing.last.saturating_sub(failing.since) >= limits.ns(&LASTS)
                && failing.last.saturating_add(WINDOW_NS) >= seen.now
        });
        let tries = sum.refused + sum.established;
        let some = all.is_none()
            && tries >= ENOUGH
            && u64::from(sum.refused) >= limits.count(&REFUSED)
            && percent(sum.refused, tries) >= limits.number(&SHARE)
            && mixed(party, seen.now) >= MIXED;
        if !some && all.is_none() {
            continue;
        }
        let asked = all.map_or(sum.refused, |failing| failing.refused + failing.icmp);
        if all.is_some() && seen.peers.has_another_way(party, seen.now, WINDOW_NS, sum.refused.min(asked)) {
            continue;
        }
        out.trouble(case(seen, party, all, &sum));
    }
}

/// Parts of the last minute in which some connections were refused and others were not. A restart has two of them, one where it begins and
/// one where it ends.
fn mixed(party: &Party, now: u64) -> usize {
    let mut parts = [Tally::default(); PARTS];
    for (ago, sum) in party.recent.slots(now, WINDOW_NS) {
        parts[ago as usize * PARTS / (WINDOW_NS / SECOND) as usize] += sum;
    }
    parts.iter().filter(|sum| sum.refused > 0 && sum.established > 0).count()
}

fn case(seen: &Seen, party: &Party, all: Option<Failing>, sum: &Tally) -> Case {
    let tries = sum.refused + sum.established;
    let mut summary = match all {
        Some(failing) => {
            let n = u64::from(failing.refused + failing.icmp);
            let said = Said::new(format!("{} to {}", count(n, "connection", "connections"), party.remote()));
            let said = party.said(said).text(if n == 1 { " was refused in " } else { " were refused in " });
            said.us(failing.last.saturating_sub(failing.since) / 1000)
        }
        None => {
            let said = Said::new(format!("{} of {tries} connections to {}", sum.refused, party.remote()));
            party.said(said).text(" were refused in the last minute")
        }
    };
    if all.is_some() {
        summary = summary.text(match party.succeeded {
            Some(_) => ", and none has succeeded since",
            None => ", and none has succeeded",
        });
    }
    let by_icmp = all.is_some_and(|failing| failing.icmp > failing.refused);
    let mut evidence = vec![("refused", Measure::Count(all.map_or(sum.refused, |f| f.refused + f.icmp).into()))];
    evidence.push(("refused_last_minute", Measure::Count(sum.refused.into())));
    evidence.push(("established_last_minute", Measure::Count(sum.established.into())));
    if all.is_none() {
        evidence.push(("share_percent", Measure::Percent(percent(sum.refused, tries))));
    }
    if let Some(failing) = all {
        evidence.push(("by", Measure::Text(if by_icmp { "icmp" } else { "rst" }.to_owned())));
        evidence.push(("lasts_us", Measure::Us(failing.last.saturating_sub(failing.since) / 1000)));
    }
    evidence.extend(party.succeeded.map(|ts| ("succeeded_before_us", Measure::Us(seen.now.saturating_sub(ts) / 1000))));
    evidence.extend(party.processes());
    let elsewhere = bound_elsewhere(seen, party);
    evidence.extend(elsewhere.map(|addr| ("listens_on", Measure::Text(addr.to_string()))));
    let port = party.subject.rport.unwrap_or(0);
    let advice = if let Some(addr) = elsewhere {
        format!(
            "a process here listens on {addr}:{port} alone: let its bind() take 0.0.0.0 (or ::), or let the client ask for that address"
        )
    } else if by_icmp {
        "a firewall refuses by ICMP (REJECT), no host does so by itself: look at its rules, there and on the way"
            .to_owned()
    } else if all.is_none() {
        format!(
            "one of several servers behind that address does not listen on {port}, or a process there is started again and again: `ss -ltn \
             sport = :{port}` on each, and take those that do not out of the balancing"
        )
    } else if is_here(party) {
        format!(
            "nobody listens there: start the service, or look with `ss -ltnp sport = :{port}` which address and port it took"
        )
    } else {
        format!(
            "nobody listens there, or a firewall answers with a RST: `ss -ltn sport = :{port}` on that host says which; then start the \
             service, or correct the client's address and port"
        )
    };
    let since = all.map(|failing| failing.since);
    Case {
        subject: party.subject.clone(),
        severity: Severity::Warning,
        since,
        summary,
        evidence,
        advice,
        look: format!("tcptrace conns --failed --rport {port}"),
    }
}

/// Does somebody listen on that port in the client's namespace, but on another address of this host?
fn bound_elsewhere(seen: &Seen, party: &Party) -> Option<std::net::IpAddr> {
    if !is_here(party) {
        return None;
    }
    let same = |l: &&crate::detect::seen::listeners::Listener| {
        l.subject.netns == party.subject.netns && l.subject.lport == party.subject.rport
    };
    seen.listeners.iter().find(same).and_then(|l| l.subject.laddr).filter(|addr| Some(*addr) != party.subject.raddr)
}

/// Is the peer this host?
fn is_here(party: &Party) -> bool {
    party.subject.raddr.is_some_and(|addr| addr.is_loopback() || addr == party.laddr)
}

fn percent(n: u32, of: u32) -> f64 {
    if of == 0 { 0.0 } else { f64::from(n) * 100.0 / f64::from(of) }
}
