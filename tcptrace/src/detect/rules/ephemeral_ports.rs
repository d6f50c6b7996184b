//! ephemeral-ports: connect() finds no local port for a destination, or soon will not.

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        seen::{
            Seen,
            namespaces::Namespace,
            ports::{Used, Way},
        },
    },
    model::{Measure, Said, Severity, Subject, comm_str, count, finding::netns},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "ephemeral-ports",
    about: "connect() finds no free local port for a destination, or soon will not",
    limits: &[&SHARE, &FAILED],
    fires_after: "0s",
    resolves_after: "10s",
    check,
};

const SHARE: Limit = Limit {
    name: "share",
    unit: Unit::Percent,
    default: "90%",
    about: "So much of ip_local_port_range is taken by connections from one address to one port of one other",
};
const FAILED: Limit = Limit {
    name: "failed",
    unit: Unit::Count,
    default: "1",
    about: "So many calls of connect() to one destination found no port within ten seconds",
};
/// Seconds that are looked at.
const SECONDS: u64 = 10;
/// Processes that are named.
const NAMED: usize = 4;

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    for (way, used) in seen.ports.iter() {
        let limits = limits.at(Some(way.rport));
        let namespace = seen.namespaces.get(way.netns);
        let range = namespace.and_then(range);
        let again = namespace.is_some_and(|n| uses_again(n, way));
        let taken = used.open + if again { 0 } else { used.waiting };
        let failed = used.failed(seen.now, SECONDS);
        let share = range.map(|(_, ports)| taken as f64 * 100.0 / ports.max(1) as f64);
        let exhausted = failed >= limits.count(&FAILED).max(1);
        if exhausted || share.is_some_and(|share| share >= limits.number(&SHARE)) {
            let known = Known { range, again, share, failed };
            out.trouble(case(seen, way, used, &known));
        }
    }
}

struct Known {
    /// The first port and the last, and how many of them connect() may choose.
    range: Option<((u16, u16), u64)>,
    /// connect() takes ports of timewait sockets, too.
    again: bool,
    share: Option<f64>,
    failed: u64,
}

/// See [`Known::range`].
fn range(namespace: &Namespace) -> Option<((u16, u16), u64)> {
    let (first, last) = namespace.settings.get("ip_local_port_range")?.split_once(' ')?;
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    let ports = u64::from(last.checked_sub(first)?) + 1;
    // `8080,9000-9100`
    let reserved = namespace.settings.get("ip_local_reserved_ports").map_or("", String::as_str);
    let taken = reserved.split(',').filter_map(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (from.parse::<u16>().ok()?.max(first), to.parse::<u16>().ok()?.min(last));
        (from <= to).then(|| u64::from(to - from) + 1)
    });
    Some(((first, last), ports.saturating_sub(taken.sum())))
}

/// `tcp_tw_reuse`: 0 never, 1 always, 2 over the loopback.
fn uses_again(namespace: &Namespace, way: &Way) -> bool {
    match namespace.setting("tcp_tw_reuse") {
        Some(1) => true,
        Some(2) => way.laddr.is_loopback() || way.raddr.is_loopback() || way.laddr == way.raddr,
        _ => false,
    }
}

fn case(seen: &Seen, way: &Way, used: &Used, known: &Known) -> Case {
    let to = std::net::SocketAddr::new(way.raddr, way.rport);
    let owners = seen.ports.owners(way);
    let mut summary = match known.failed {
        0 => Said::new(format!("local ports for {to} run out")),
        n => Said::new(format!(
            "no local port is free for {to}: {} in {SECONDS} s failed",
            count(n, "connect()", "connect() calls")
        )),
    };
    let owner = used.failed_for.as_deref().filter(|_| known.failed > 0).or(owners.first().map(|(owner, _)| &**owner));
    summary = summary.owner(owner).text(format!("; {} are taken from {}", used.open + used.waiting, way.laddr));
    if used.waiting > 0 {
        summary = summary.text(format!(", {} of them by TIME_WAIT", used.waiting));
    }
    let mut evidence = vec![
        ("failed", Measure::Count(known.failed)),
        ("open", Measure::Count(used.open)),
        ("time_waits", Measure::Count(used.waiting)),
    ];
    evidence.extend(known.share.map(|share| ("share_percent", Measure::Percent(share))));
    if let Some(((first, last), ports)) = known.range {
        summary = summary.text(format!("; ip_local_port_range {first}-{last} has {ports}"));
        evidence.push(("ip_local_port_range", Measure::Text(format!("{first} {last}"))));
        evidence.push(("ports", Measure::Count(ports)));
    }
    if !owners.is_empty() {
        let fields = |(owner, n): &(std::sync::Arc<crate::model::Process>, u64)| {
            Measure::Fields(vec![
                ("pid", Measure::Count(owner.pid.into())),
                ("comm", Measure::Name(comm_str(&owner.comm).into())),
                ("ports", Measure::Count(*n)),
            ])
        };
        evidence.push(("processes", Measure::List(owners.iter().take(NAMED).map(fields).collect())));
    }
    let advice = if used.waiting > used.open && !known.again {
        "use connections again (keep-alive, a pool): each leaves its port in TIME_WAIT for 60 s; net.ipv4.tcp_tw_reuse=1 lets connect() take \
         such a port after one second, where both ends have timestamps"
    } else if known.range.is_some_and(|(_, ports)| ports < 28_000) {
        "widen net.ipv4.ip_local_port_range, for example to \"10240 65535\"; connections that stay open and idle are better shared (a pool)"
    } else {
        "share connections (a pool), or spread them: more local addresses (bind() with IP_BIND_ADDRESS_NO_PORT), or more addresses or ports of the \
         service; net.ipv4.ip_local_port_range=\"10240 65535\" gives more ports"
    };
    let ends = Subject { laddr: Some(way.laddr), raddr: Some(way.raddr), rport: Some(way.rport), ..Subject::default() };
    Case {
        subject: Subject { netns: netns(way.netns), ..ends },
        severity: if known.failed > 0 { Severity::Critical } else { Severity::Warning },
        since: None,
        summary,
        evidence,
        advice: advice.to_owned(),
        look: format!("ss -tan 'dst {to}'"),
    }
}
