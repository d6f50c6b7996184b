//! What the table of signals must keep to.

use super::{table::CONNECTIONS, *};

fn all() -> impl Iterator<Item = &'static Wanted> {
    CONNECTIONS.iter().chain(QUEUES)
}

#[test]
fn candidates_are_in_order_and_whole() {
    for wanted in all() {
        let tiers: Vec<_> = wanted.candidates.iter().map(|c| c.tier).collect();
        assert!(tiers.is_sorted() && !tiers.is_empty(), "{}: best first", wanted.name);
        for candidate in wanted.candidates {
            assert!(!candidate.parts.is_empty(), "{}: {candidate}", wanted.name);
            for part in candidate.parts {
                let kind = part.hook.kind();
                // A better tier may need a tracepoint beside its own hooks, never the other way round.
                assert!(kind == candidate.tier || kind == Tier::Tracepoint, "{}: {candidate}", wanted.name);
                assert!(!part.hot || kind == Tier::Tracepoint, "{} is not passed by other work", part.program);
            }
        }
    }
}

#[test]
fn hot_hooks_are_the_last_choice() {
    for wanted in QUEUES {
        for candidate in wanted.candidates.iter().filter(|c| c.tier < Tier::Tracepoint) {
            assert!(candidate.parts.iter().all(|p| !p.hot), "{}: {candidate}", wanted.name);
        }
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = all().map(|w| w.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn candidates_name_each_function_once() {
    let named: Vec<_> = QUEUES.iter().flat_map(|w| w.candidates).map(ToString::to_string).collect();
    for text in ["kprobe:tcp_v4_syn_recv_sock+tcp_v6_syn_recv_sock", "fentry:inet_twsk_kill+tcp_time_wait"] {
        assert!(named.iter().any(|n| n == text), "{text} in {named:?}");
    }
}

#[test]
fn riders_use_what_carries_them() {
    let find = |name: &str| QUEUES.iter().position(|w| w.name == name).expect("a signal");
    for (at, wanted) in QUEUES.iter().enumerate() {
        let Some(carrier) = wanted.rides_on else { continue };
        assert!(find(carrier) < at, "{carrier} before {}", wanted.name);
        let programs = |w: &Wanted| -> Vec<&str> {
            let last = w.candidates.last().expect("some");
            assert_eq!(last.tier, Tier::Tracepoint);
            last.parts.iter().map(|p| p.program).collect()
        };
        assert_eq!(programs(wanted), programs(&QUEUES[find(carrier)]));
    }
}
