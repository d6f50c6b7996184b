//! dead-listener: clients are connected and wait, and the process accepts nobody. An idle listener, for which nobody waits, is fine.

use crate::{
    detect::{
        limits::{Limit, Limits, Unit},
        rule::{Case, Rule, Verdicts},
        rules::look_at_queues,
        seen::{Seen, listeners::Listener},
    },
    model::{Measure, Said, Severity, count},
};

/// See the module.
pub const RULE: Rule = Rule {
    name: "dead-listener",
    about: "Connected clients wait, and the process accepts nobody",
    limits: &[&NEVER, &STOPPED],
    fires_after: "0s",
    resolves_after: "5s",
    check,
};

const NEVER: Limit = Limit {
    name: "never",
    unit: Unit::Time,
    default: "10s",
    about: "Clients wait for so long, and nothing was accepted since listen()",
};
const STOPPED: Limit = Limit {
    name: "stopped",
    unit: Unit::Time,
    default: "30s",
    about: "The same where something was accepted before, or the trace began later than listen()",
};

fn check(seen: &Seen, limits: &Limits<'_>, out: &mut Verdicts) {
    for listener in seen.listeners.iter() {
        let Some(waiting_since) = listener.waiting_since else { continue };
        let limits = limits.at(listener.subject.lport);
        let Some(accepted) = listener.accepted else {
            out.not_enough(&listener.subject);
            continue;
        };
        let never = accepted == 0 && !listener.preexisting;
        let silent_since = listener.last_accept.map_or(waiting_since, |at| at.max(waiting_since));
        // Up to its latest interval: it may be gone.
        let silent = listener.latest.saturating_sub(silent_since);
        if silent >= limits.ns(if never { &NEVER } else { &STOPPED }) {
            out.trouble(case(seen, listener, silent_since, never));
        }
    }
}

fn case(seen: &Seen, listener: &Listener, silent_since: u64, never: bool) -> Case {
    let queue = listener.accept_queue;
    let waiting = u64::from(queue.len.unwrap_or(0));
    let silent = listener.latest.saturating_sub(silent_since);
    let full = queue.len.zip(queue.limit).is_some_and(|(len, limit)| len > limit);
    let others = others_accept(seen, listener);
    let mut summary = Said::new(count(waiting, "connected client waits", "connected clients wait"));
    summary = summary.text(" for accept()").owner(listener.subject.owner.as_deref());
    summary = summary.text("; nobody was taken for ").us(silent / 1000);
    if never {
        summary = summary.text(", nor ever since listen()");
    }
    if others {
        summary = summary.text("; other listeners of its group accept theirs");
    }
    let mut evidence = vec![
        ("waiting", Measure::Count(waiting)),
        ("no_accept_us", Measure::Us(silent / 1000)),
        ("accepted", Measure::Count(listener.accepted.unwrap_or(0))),
        ("completed", Measure::Count(listener.completed)),
    ];
    evidence.extend(queue.limit.map(|limit| ("limit", Measure::Count(limit.into()))));
    Case {
        subject: listener.subject.clone(),
        severity: if full { Severity::Critical } else { Severity::Warning },
        since: Some(silent_since),
        summary,
        evidence,
        advice: advice(listener, never, others),
        look: look_at_queues(listener),
    }
}

/// Is something accepted in its SO_REUSEPORT group?
fn others_accept(seen: &Seen, listener: &Listener) -> bool {
    let id = listener.subject.id;
    let mut others =
        seen.listeners.iter().filter(|l| l.group.is_some() && l.group == listener.group && l.subject.id != id);
    others.any(|l| l.last_accept.is_some_and(|at| listener.waiting_since.is_some_and(|since| at >= since)))
}

fn advice(listener: &Listener, never: bool, others: bool) -> String {
    let pid = listener.subject.owner.as_ref().map_or_else(|| "PID".to_owned(), |owner| owner.pid.to_string());
    if others {
        return format!(
            "the kernel gives this socket its share of the group's connections: close it if process {pid} no longer serves \
             it, or let a worker accept from it"
        );
    }
    if never {
        return format!(
            "look whether process {pid} accepts at all (strace -f -e trace=accept,accept4,epoll_wait -p {pid}): the listener is \
             not in its event loop, its start hangs, or the socket was inherited and belongs closed"
        );
    }
    format!(
        "look at what the accepting thread of process {pid} waits for (/proc/{pid}/task/*/stack): a lock, a slow call, or \
         RLIMIT_NOFILE (accept() fails with EMFILE)"
    )
}
