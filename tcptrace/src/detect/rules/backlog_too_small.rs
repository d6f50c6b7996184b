//! backlog-too-small: a listener's process keeps up, but its queues are too short for bursts; or a SO_REUSEPORT group has room, and one
//! listener of it gets more than its share.

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        rules::look_at_queues,
        seen::{Seen, bursts::Sum, flow::Balance, listeners::Listener},
    },
    model::{LimitedBy, Measure, Said, Severity, count},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "backlog-too-small",
    about: "Bursts fill a queue of a listener whose process keeps up",
    limits: &[&BURSTS, &SHARE, &WAIT],
    fires_after: "0s",
    resolves_after: "10s",
    check,
};

const BURSTS: Limit = Limit {
    name: "bursts",
    unit: Unit::Count,
    default: "3",
    about: "So many bursts in a minute fill the accept queue, where nobody was turned away yet",
};
const SHARE: Limit = Limit {
    name: "share",
    unit: Unit::Times,
    default: "2x",
    about: "One of a SO_REUSEPORT group gets so many times its even share",
};

const WAIT: Limit = Limit {
    name: "wait",
    unit: Unit::Time,
    default: "500ms",
    about: "And its clients wait so long for accept(), or its queue is full",
};

/// Seconds over which the load of a group is compared.
const SECONDS: u64 = 15;
/// Connections below which shares are chance.
const ENOUGH: u64 = 50;
/// Handshakes of a burst of clients that are completed at least, of a hundred.
const COMPLETED: u64 = 80;
/// Nobody asks for a longer queue.
const LONGEST: u64 = 65_536;

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    for listener in seen.listeners.iter() {
        let limits = limits.at(listener.subject.lport);
        let bursts = listener.bursts.sum(seen.now);
        let full = bursts.bursts > 0 || listener.bursts.goes_on();
        let sums = listener.last(seen.now, SECONDS);
        let waits = sums.wait_p99.unwrap_or(0) >= limits.ns(&WAIT) / 1000;
        // Others are looked at only where there is something to compare with.
        let group = if full || waits { Group::of(seen, listener) } else { None };
        if let Some(group) = group.filter(|group| group.is_uneven(limits.number(&SHARE))) {
            out.trouble(uneven(listener, &group, full));
        } else if bursts.overloads == 0
            && (bursts.turned_away > 0 || bursts.bursts > 0 && bursts.bursts >= limits.count(&BURSTS))
        {
            out.trouble(short(listener, &bursts));
        } else if let Some(balance) = listener.flows.balance(seen.now)
            && syn_queue_is_short(listener, &balance)
        {
            out.trouble(short_syn_queue(listener, &balance));
        }
    }
}

/// A burst of clients: those that were answered go on.
fn syn_queue_is_short(listener: &Listener, b: &Balance) -> bool {
    let room = u64::from(listener.syn_queue.limit.unwrap_or(0) / 2).max(1);
    let no_room = b.turned_away + b.cookies > 0;
    let clients = b.replies >= room && b.replies * 100 >= b.answered * COMPLETED;
    no_room && clients && !b.accept_full
}

/// The smallest power of two that is not smaller.
fn roundly(n: u64) -> u64 {
    n.clamp(1, LONGEST).next_power_of_two()
}

/// The load of a SO_REUSEPORT group.
struct Group {
    listeners: u64,
    /// Connections of all.
    completed: u64,
    /// And of the one in question.
    own: u64,
    /// The deepest of the other queues, and the smallest limit.
    others_peak: u32,
    others_limit: u32,
    /// Turned away by this one.
    turned_away: u64,
    /// How long the slowest hundredth waits for accept(), microseconds.
    own_wait: u64,
}

impl Group {
    /// None: it is in none.
    fn of(seen: &Seen, listener: &Listener) -> Option<Self> {
        listener.group?;
        let mut group = Self {
            listeners: 0,
            completed: 0,
            own: 0,
            others_peak: 0,
            others_limit: u32::MAX,
            turned_away: 0,
            own_wait: 0,
        };
        for other in seen.listeners.iter().filter(|l| l.group == listener.group) {
            let sums = other.last(seen.now, SECONDS);
            // Those that were turned away came to it, too.
            let turned_away = sums.turned_away();
            let came = sums.completed? + turned_away;
            group.listeners += 1;
            group.completed += came;
            if other.subject.id == listener.subject.id {
                (group.own, group.turned_away) = (came, turned_away);
                group.own_wait = sums.wait_p99.unwrap_or(0);
            } else {
                group.others_peak = group.others_peak.max(sums.accept_peak.unwrap_or(0));
                group.others_limit = group.others_limit.min(other.accept_queue.limit.unwrap_or(0));
            }
        }
        (group.listeners > 1).then_some(group)
    }

    fn percent(&self) -> f64 {
        self.own as f64 * 100.0 / self.completed.max(1) as f64
    }

    /// Does this one get `times` its share, while the others have room?
    fn is_uneven(&self, times: f64) -> bool {
        let room = self.others_peak.saturating_mul(2) <= self.others_limit;
        // Of two, one cannot get more than twice its share.
        let share = times * 100.0 / self.listeners as f64;
        self.completed >= ENOUGH && room && self.percent() >= share.min(75.0)
    }
}

fn uneven(listener: &Listener, group: &Group, full: bool) -> Case {
    let even = 100.0 / group.listeners as f64;
    let mut summary =
        Said::new(format!("{:.0} % of the connections to {} listeners", group.percent(), group.listeners))
            .owner(listener.subject.owner.as_deref())
            .text(" that share a port come to this one, ");
    summary = if full {
        summary.text("whose accept queue is full; the others have room")
    } else {
        summary.text("where they wait ").us(group.own_wait).text(" for accept(); the others have room")
    };
    let mut evidence = vec![
        ("share_percent", Measure::Percent(group.percent())),
        ("even_percent", Measure::Percent(even)),
        ("listeners", Measure::Count(group.listeners)),
        ("others_peak", Measure::Count(group.others_peak.into())),
        ("turned_away", Measure::Count(group.turned_away)),
        ("accept_wait_p99_us", Measure::Us(group.own_wait)),
    ];
    evidence.extend(limits_of(listener));
    Case {
        subject: listener.subject.clone(),
        severity: if group.turned_away > 0 { Severity::Warning } else { Severity::Info },
        since: None,
        summary,
        evidence,
        advice: "SO_REUSEPORT spreads connections by a hash of both ends: few clients, or a program that was attached with \
                 SO_ATTACH_REUSEPORT_EBPF, make it uneven; let all workers accept from one listener, or spread by such a program"
            .to_owned(),
        look: look_at_queues(listener),
    }
}

/// What the length of the queues follows from.
fn limits_of(listener: &Listener) -> Vec<(&'static str, Measure)> {
    let of = [("limit", listener.accept_queue.limit), ("backlog", listener.backlog), ("somaxconn", listener.somaxconn)];
    let mut evidence: Vec<_> = of.into_iter().filter_map(|(name, n)| Some((name, Measure::Count(n?.into())))).collect();
    evidence.extend(listener.limited_by.map(|by| ("limited_by", Measure::Text(by.name().to_owned()))));
    evidence
}

fn short(listener: &Listener, bursts: &Sum) -> Case {
    let limit = u64::from(listener.accept_queue.limit.unwrap_or(0));
    // Clients of a burst send again: segments are no fewer than clients.
    let needed = roundly(bursts.wanted.max(limit * 2));
    let owner = listener.subject.owner.as_deref();
    let times = count(bursts.bursts, "burst", "bursts");
    let summary = if bursts.turned_away > 0 {
        let segments = count(bursts.turned_away, "SYN or final ACK", "SYNs and final ACKs");
        Said::new(format!("{times} in a minute filled the accept queue")).owner(owner).text(format!(
            ", limit {limit}, and {segments} were dropped; accept() keeps up otherwise: a limit of {needed} would have done"
        ))
    } else {
        Said::new(format!("{times} in a minute filled the accept queue"))
            .owner(owner)
            .text(format!(" to its limit, {limit}; nobody was turned away yet"))
    };
    let mut evidence = vec![
        ("bursts", Measure::Count(bursts.bursts)),
        ("turned_away", Measure::Count(bursts.turned_away)),
        ("peak", Measure::Count(bursts.peak.into())),
        ("needed", Measure::Count(needed)),
        ("longest_us", Measure::Us(bursts.longest / 1000)),
    ];
    evidence.extend(limits_of(listener));
    let abort = match (bursts.turned_away, bursts.at_ack) {
        (0, _) => "",
        (_, 0) => {
            "; net.ipv4.tcp_abort_on_overflow changes nothing here: SYNs were dropped, and it is about final ACKs"
        }
        _ => {
            "; leave net.ipv4.tcp_abort_on_overflow at 0: it would reset the clients whose final ACK was dropped, which get in \
             when they send again"
        }
    };
    Case {
        subject: listener.subject.clone(),
        severity: if bursts.turned_away > 0 { Severity::Warning } else { Severity::Info },
        since: None,
        summary,
        evidence,
        advice: knob(listener, needed) + abort,
        look: look_at_queues(listener),
    }
}

fn short_syn_queue(listener: &Listener, b: &Balance) -> Case {
    let limit = u64::from(listener.syn_queue.limit.unwrap_or(0));
    let missed = b.turned_away + b.cookies;
    let needed = roundly((limit + missed).max(limit * 2));
    let summary = Said::new("A burst of clients that go on filled the SYN queue")
        .owner(listener.subject.owner.as_deref())
        .text(format!(", limit {limit}: {}", count(missed, "SYN found no room", "SYNs found no room")));
    let mut evidence = vec![
        ("turned_away", Measure::Count(b.turned_away)),
        ("cookies", Measure::Count(b.cookies)),
        ("completed", Measure::Count(b.replies)),
        ("needed", Measure::Count(needed)),
    ];
    evidence.extend(limits_of(listener));
    let also = if b.cookies > 0 {
        "; it is the SYN queue's limit, too. Cookies let these clients in, without some options"
    } else {
        "; it is the SYN queue's limit, too"
    };
    Case {
        subject: listener.subject.clone(),
        severity: if b.turned_away > 0 { Severity::Warning } else { Severity::Info },
        since: None,
        summary,
        evidence,
        advice: knob(listener, needed) + also,
        look: look_at_queues(listener),
    }
}

/// What makes the queue so long.
fn knob(listener: &Listener, needed: u64) -> String {
    let too_small = |n: Option<u32>| n.is_some_and(|n| u64::from(n) < needed);
    let sysctl = format!("sysctl -w net.core.somaxconn={needed}");
    match listener.limited_by {
        Some(LimitedBy::Somaxconn) if too_small(listener.backlog) => {
            format!("{sysctl}, listen(fd, {needed}), and restart the server: both are applied at listen()")
        }
        Some(LimitedBy::Somaxconn) => format!("{sysctl}, and restart the server: it is applied at listen()"),
        Some(LimitedBy::Backlog) if too_small(listener.somaxconn) => {
            format!("listen(fd, {needed}) in the server (its setting for the backlog), after {sysctl}")
        }
        Some(LimitedBy::Backlog) => {
            format!(
                "listen(fd, {needed}) in the server (its setting for the backlog); net.core.somaxconn is large enough"
            )
        }
        None => format!(
            "{sysctl}, and at least as much as listen()'s argument in the server (its setting for the backlog): the smaller of \
             both counts"
        ),
    }
}
