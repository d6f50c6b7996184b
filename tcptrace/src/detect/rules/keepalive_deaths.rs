//! keepalive-deaths: connections die one after the other because the peer does not answer any more.

use std::collections::BTreeMap;

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        seen::{
            Seen,
            peers::{Death, Party},
        },
    },
    model::{End, Measure, Said, Severity, count},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "keepalive-deaths",
    about: "Connections die because the peer does not answer any more",
    limits: &[&DEATHS, &CLIENTS, &SHARE],
    fires_after: "0s",
    resolves_after: "60s",
    check,
};

const SECOND: u64 = 1_000_000_000;
/// What is looked at.
const WINDOW_NS: u64 = 300 * SECOND;
/// Connections that begin again with a peer say that it is back.
const BACK_NS: u64 = 30 * SECOND;

const DEATHS: Limit = Limit {
    name: "deaths",
    unit: Unit::Count,
    default: "3",
    about: "So many connections to a peer died within five minutes",
};
const CLIENTS: Limit = Limit {
    name: "clients",
    unit: Unit::Count,
    default: "10",
    about: "So many connections of clients to a service here died within five minutes: some of them always go without a word",
};
const SHARE: Limit = Limit {
    name: "share",
    unit: Unit::Percent,
    default: "5%",
    about: "Of a service's connections that ended in the last minute so many died",
};

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    let begin = seen.now.saturating_sub(WINDOW_NS);
    let recent = |party: &Party| -> Vec<Death> { party.deaths.iter().filter(|d| d.ts >= begin).copied().collect() };
    for party in seen.peers.asked() {
        let deaths = recent(party);
        let enough = limits.at(party.subject.rport).count(&DEATHS);
        // A connection that was made since, and has lasted for a while, says that the peer is back.
        let back = deaths
            .last()
            .zip(party.succeeded)
            .is_some_and(|(last, succeeded)| succeeded > last.ts && seen.now.saturating_sub(last.ts) >= BACK_NS);
        if !deaths.is_empty() && deaths.len() as u64 >= enough && !back {
            out.trouble(case(party, &deaths, true));
        }
    }
    for party in seen.peers.served() {
        let limits = limits.at(party.subject.lport);
        let deaths = recent(party);
        let sum = party.recent.sum(seen.now, 60 * SECOND);
        let last_minute = deaths.iter().filter(|d| d.ts.saturating_add(60 * SECOND) >= seen.now).count();
        let share = last_minute as f64 * 100.0 / f64::from(sum.ended.max(1));
        let enough = !deaths.is_empty() && deaths.len() as u64 >= limits.count(&CLIENTS);
        if enough && last_minute > 0 && share >= limits.number(&SHARE) {
            out.trouble(case(party, &deaths, false));
        }
    }
}

fn case(party: &Party, deaths: &[Death], asked: bool) -> Case {
    let of = |end: End| deaths.iter().filter(|death| death.end == end).count() as u64;
    let [idle, busy, user] = [End::KeepaliveTimeout, End::RetransmitTimeout, End::UserTimeout].map(of);
    let n = deaths.len() as u64;
    let mut peers = BTreeMap::new();
    deaths.iter().for_each(|death| *peers.entry(death.raddr).or_insert(0u64) += 1);
    let top = peers.iter().max_by_key(|&(addr, n)| (*n, std::cmp::Reverse(*addr))).map(|(addr, n)| (*addr, *n));
    let mut said = count(n, "connection", "connections");
    said += &match party.subject.lport {
        Some(port) if !asked => format!(" of clients to port {port}"),
        _ => format!(" to {}", party.remote()),
    };
    let summary = party.said(Said::new(said)).text(if n == 1 { " died:" } else { " died within 5 min:" });
    let mut why = Vec::new();
    why.extend((idle > 0).then(|| format!("{idle} idle, keepalive probes unanswered")));
    why.extend((busy + user > 0).then(|| format!("{} with data that was not acknowledged", busy + user)));
    let summary = summary.text(format!(" {}", why.join("; ")));
    let mut evidence = vec![
        ("keepalive", Measure::Count(idle)),
        ("retransmit", Measure::Count(busy)),
        ("user_timeout", Measure::Count(user)),
        ("peers", Measure::Count(peers.len() as u64)),
    ];
    if !asked {
        evidence.extend(top.map(|(addr, n)| {
            let deaths = Measure::Count(n);
            ("top_peer", Measure::Fields(vec![("addr", Measure::Text(addr.to_string())), ("deaths", deaths)]))
        }));
    }
    let mut lasted: Vec<u64> = deaths.iter().filter_map(|death| death.lasted).collect();
    lasted.sort_unstable();
    evidence.extend(lasted.get(lasted.len() / 2).map(|ns| ("lasted_median_us", Measure::Us(ns / 1000))));
    evidence.extend(party.processes());
    let advice = if idle >= busy + user {
        "the peer went without a word, or a firewall or NAT between forgets idle connections: then let net.ipv4.tcp_keepalive_time \
         (TCP_KEEPIDLE) be shorter than its timeout"
    } else {
        "the peer or the path to it is gone: look for restarts of the host, moved addresses and firewalls without state; TCP_USER_TIMEOUT \
         (or net.ipv4.tcp_retries2) decides how long a process hangs until then"
    };
    let look = match party.subject.lport {
        Some(port) if !asked => format!("tcptrace conns --failed --lport {port}"),
        _ => format!("tcptrace conns --failed --rport {}", party.subject.rport.unwrap_or(0)),
    };
    Case {
        subject: party.subject.clone(),
        severity: Severity::Warning,
        since: deaths.first().map(|death| death.ts),
        summary,
        evidence,
        advice: advice.to_owned(),
        look,
    }
}
