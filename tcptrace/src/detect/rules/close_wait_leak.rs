//! close-wait-leak: peers have closed, and a process never does.

use std::collections::BTreeMap;

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        seen::{
            Seen,
            close_wait::{Group, Held},
        },
    },
    model::{Measure, Role, Said, Severity, Stack, StackFrame, comm_str},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "close-wait-leak",
    about: "A process does not close connections that its peers have closed: more and more in CLOSE_WAIT",
    limits: &[&SOCKETS, &HELD, &MANY],
    fires_after: "0s",
    resolves_after: "10s",
    check,
};

const SOCKETS: Limit = Limit {
    name: "sockets",
    unit: Unit::Count,
    default: "20",
    about: "So many connections of a process, to one place or accepted at one port, that nobody closes",
};
const HELD: Limit = Limit {
    name: "held",
    unit: Unit::Time,
    default: "30s",
    about: "A connection is not closed if it has been in CLOSE_WAIT for so long, and nothing was read from it or sent on it for so long",
};
const MANY: Limit = Limit {
    name: "many",
    unit: Unit::Count,
    default: "900",
    about: "So many connections in CLOSE_WAIT are critical: a process may open 1024 descriptors, where nobody changed that",
};

const SECOND: u64 = 1_000_000_000;
/// Growth is measured over so long.
const MINUTE: u64 = 60 * SECOND;
/// Or over as many of the latest as this, where they took longer to come.
const LATEST: usize = 20;
/// Younger ones may be about to be closed.
const YOUNG: u64 = 2 * SECOND;
/// Descriptors and peers that are named.
const NAMED: usize = 8;

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    for group in seen.close_waits.iter() {
        let limits = limits.at(group.subject.lport.or(group.subject.rport));
        let sockets = limits.count(&SOCKETS).max(2) as usize;
        // Nothing that was found at the start: when it came is not known, and a pool's connections may wait there for ever.
        if group.held.len() < sockets {
            continue;
        }
        let leaked = leaked(group, seen.now, limits.ns(&HELD));
        if leaked.len() >= sockets && is_spread(&leaked, limits.ns(&HELD) / 2) {
            let opened = seen.close_waits.opened(group);
            out.trouble(case(group, opened, seen.now, &leaked, limits.count(&MANY)));
        }
    }
}

/// When those came that nobody closes or uses, in order.
fn leaked(group: &Group, now: u64, held: u64) -> Vec<u64> {
    let idle_for = |ns: u64| -> Vec<u64> {
        let idle = |one: &&Held| one.seen && now.saturating_sub(one.used.max(one.since)) >= ns;
        let mut came: Vec<u64> = group.held.values().filter(idle).map(|one| one.since).collect();
        came.sort_unstable();
        came
    };
    let came = idle_for(held);
    let left = group.left(now);
    // They are closed in the end, only late: a slow reader, a long answer, a pool that looks after its connections now and then.
    if left.at_least(held) as usize * 4 >= came.len() {
        idle_for(left.longest.saturating_mul(2).max(held))
    } else {
        came
    }
}

/// They came one after the other, not all at once as when a server restarts that a pool is connected to.
fn is_spread(came: &[u64], least: u64) -> bool {
    const SLICES: u64 = 10;
    let (Some(first), Some(last)) = (came.first(), came.last()) else { return false };
    let span = last - first;
    let mut slices = [0usize; SLICES as usize];
    for at in came {
        slices[((at - first) * SLICES / (span + 1)) as usize] += 1;
    }
    let most = slices.iter().max().copied().unwrap_or(0);
    span >= least && slices.iter().filter(|n| **n > 0).count() >= 4 && most * 10 <= came.len() * 6
}

/// How many more there are each second: least squares through how many of `came` there were in each second of the last minute, or since the
/// latest few if they come more slowly.
fn growth(came: &[u64], now: u64) -> f64 {
    let to = now.saturating_sub(YOUNG);
    let (Some(&first), Some(&last)) = (came.first(), came.last()) else { return 0.0 };
    let latest = came[came.len().saturating_sub(LATEST)];
    let minute = to.saturating_sub(MINUTE);
    // As long a silence as a few of them took to come means that no more do.
    let slow = to.saturating_sub(last) <= (last - latest) / 4;
    let from = if slow { minute.min(latest) } else { minute }.max(first);
    let points = 60u64;
    let (mut sum_x, mut sum_y, mut sum_xx, mut sum_xy) = (0.0, 0.0, 0.0, 0.0);
    for i in 0..=points {
        let at = from + (to.saturating_sub(from)) * i / points;
        let (x, y) = ((at - from) as f64 / 1e9, came.partition_point(|came| *came <= at) as f64);
        (sum_x, sum_y, sum_xx, sum_xy) = (sum_x + x, sum_y + y, sum_xx + x * x, sum_xy + x * y);
    }
    let n = (points + 1) as f64;
    let below = n * sum_xx - sum_x * sum_x;
    if below > 0.0 { (n * sum_xy - sum_x * sum_y) / below } else { 0.0 }
}

fn case(group: &Group, opened: Option<(&Stack, usize)>, now: u64, leaked: &[u64], many: u64) -> Case {
    let all: Vec<&Held> = group.held.values().collect();
    // Those that nobody has closed so far, the young ones included: of them most will not be closed, either.
    let mut came: Vec<u64> =
        all.iter().filter(|one| one.seen && now.saturating_sub(one.since) >= YOUNG).map(|one| one.since).collect();
    came.sort_unstable();
    let rate = growth(&came, now);
    let oldest = all.iter().map(|one| now.saturating_sub(one.since)).max().unwrap_or(0) / 1000;
    let older = all.iter().filter(|one| !one.seen).count() as u64;
    let known: Vec<&&Held> = all.iter().filter(|one| one.unread.is_some()).collect();
    let unread: u64 = known.iter().filter_map(|one| one.unread).map(u64::from).sum();
    let at_end = known.iter().filter(|one| one.at_end).count();
    let mut fds: Vec<u64> = all.iter().filter_map(|one| u64::try_from(one.fd).ok()).collect();
    fds.sort_unstable();
    let connected = group.role == Some(Role::Client);
    let sockets = all.len() as u64;

    let owner = group.subject.owner.as_deref();
    let mut summary = match owner {
        Some(owner) => Said::default().name(comm_str(&owner.comm)).text(format!("[{}]", owner.pid)),
        None => Said::new("a process"),
    };
    summary = summary.text(match group.role {
        Some(Role::Client) => " does not close connections that it opened and its server has closed: ",
        Some(Role::Server | Role::Listener) => {
            " does not close connections that it accepted and its clients have closed: "
        }
        None => " does not close connections that its peer has closed: ",
    });
    let at_least = if older > 0 { "at least " } else { "" };
    summary = summary.text(format!("{sockets} in CLOSE_WAIT, {rate:.2} more a second, the oldest for {at_least}"));
    summary = summary.us(oldest);

    let mut evidence = vec![
        ("sockets", Measure::Count(sockets)),
        ("leaked", Measure::Count(leaked.len() as u64)),
        ("oldest_us", Measure::Us(oldest)),
        ("growth_per_s", Measure::PerSecond(rate)),
    ];
    evidence.extend(
        group.role.map(|_| ("opened_by", Measure::Text(if connected { "connect" } else { "accept" }.to_owned()))),
    );
    evidence.extend((older > 0).then_some(("older_than_the_trace", Measure::Count(older))));
    if !known.is_empty() {
        evidence.push(("unread_bytes", Measure::Count(unread)));
        evidence.push(("read_to_the_end", Measure::Count(at_end as u64)));
    }
    if !fds.is_empty() {
        evidence.push(("fds", Measure::List(fds.into_iter().take(NAMED).map(Measure::Count).collect())));
    }
    evidence.push(("peers", peers(&all, now)));
    if let Some((stack, n)) = opened {
        evidence.push(("opened_there", Measure::Count(n as u64)));
        evidence.push(("stack", Measure::List(stack.frames.iter().take(FRAMES).map(frame).collect())));
    }

    let advice = if known.is_empty() || at_end * 2 >= known.len() {
        if connected {
            "close() the connection when recv() returns 0, on every path (errors, early returns, timeouts); let a pool test its connections \
             before use and drop those that the server has closed"
        } else {
            "close() the connection when recv() returns 0, on every path: one of them (an error, an early return, a timeout) leaves it open"
        }
    } else {
        "nobody reads these connections to their end: keep each in the event loop (EPOLLIN, EPOLLRDHUP) until it is closed, or see what the \
         thread that should read it waits for"
    };
    let look = match (group.subject.lport, group.subject.raddr.zip(group.subject.rport)) {
        (Some(port), _) => format!("ss -tnpe state close-wait 'sport = :{port}'"),
        (None, Some((addr, port))) => {
            format!("ss -tnpe state close-wait 'dst {}'", std::net::SocketAddr::new(addr, port))
        }
        (None, None) => "ss -tnpe state close-wait".to_owned(),
    };
    Case {
        subject: group.subject.clone(),
        severity: if sockets >= many { Severity::Critical } else { Severity::Warning },
        since: leaked.first().copied(),
        summary,
        evidence,
        advice: advice.to_owned(),
        look,
    }
}

/// Frames of a stack that are told, innermost first.
const FRAMES: usize = 12;

/// `function (module)`, `module+0xoffset`.
fn frame(frame: &StackFrame) -> Measure {
    let module = frame.module.as_deref().map_or("?", |path| path.rsplit('/').next().unwrap_or(path));
    let text = match (&frame.function, frame.offset) {
        (Some(function), _) => format!("{function} ({module})"),
        (None, Some(offset)) => format!("{module}+{offset:#x}"),
        (None, None) => module.to_owned(),
    };
    Measure::Name(text.into_bytes().into())
}

/// Those with the most connections, and how long they have waited.
fn peers(all: &[&Held], now: u64) -> Measure {
    let mut peers = BTreeMap::<_, (u64, u64)>::new();
    for one in all {
        let (n, oldest) = peers.entry(one.raddr).or_default();
        (*n, *oldest) = (*n + 1, (*oldest).max(now.saturating_sub(one.since) / 1000));
    }
    let mut peers: Vec<_> = peers.into_iter().collect();
    peers.sort_by_key(|(addr, (n, _))| (std::cmp::Reverse(*n), *addr));
    let fields = |(addr, (n, oldest)): (std::net::IpAddr, (u64, u64))| {
        Measure::Fields(vec![
            ("raddr", Measure::Text(addr.to_string())),
            ("sockets", Measure::Count(n)),
            ("oldest_us", Measure::Us(oldest)),
        ])
    };
    Measure::List(peers.into_iter().take(NAMED).map(fields).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_that_of_the_last_minute() {
        let steady = |every_ms: u64, n: u64| -> Vec<u64> { (1..=n).map(|i| i * every_ms * 1_000_000).collect() };
        for (came, now, wanted) in [
            (steady(1000, 40), 42, 1.0),
            (steady(100, 900), 92, 10.0),
            (steady(1000, 600), 602, 1.0),
            (steady(30_000, 60), 1802, 1.0 / 30.0),
            // It stopped two minutes ago.
            (steady(1000, 60), 182, 0.0),
        ] {
            let got = growth(&came, now * SECOND);
            assert!((got - wanted).abs() <= wanted * 0.05 + 1e-9, "{got} in place of {wanted}");
        }
        assert_eq!(growth(&[], SECOND), 0.0);
    }

    #[test]
    fn a_step_is_no_growth() {
        let at = |seconds: &[u64]| seconds.iter().map(|s| s * SECOND).collect::<Vec<_>>();
        assert!(is_spread(&at(&[0, 5, 10, 15, 20, 25]), 15 * SECOND));
        assert!(!is_spread(&at(&[0, 5, 10, 15, 20, 25]), 30 * SECOND), "not for long");
        assert!(!is_spread(&at(&[0, 0, 0, 0, 0, 0, 0, 0, 30, 31, 32]), 15 * SECOND), "most at once");
        assert!(!is_spread(&at(&[0, 0, 30, 30, 60, 60]), 15 * SECOND), "three restarts");
        assert!(!is_spread(&[], 0));
    }
}
