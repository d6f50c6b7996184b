//! The rules, in the order in which they are told.

pub mod accept_overflow;
pub mod backlog_too_small;
pub mod dead_listener;
pub mod half_open_clients;
pub mod syn_flood;

use super::{rule::Rule, seen::listeners::Listener};

/// All of them.
pub const RULES: [Rule; 5] =
    [syn_flood::RULE, accept_overflow::RULE, backlog_too_small::RULE, dead_listener::RULE, half_open_clients::RULE];

/// A command that shows a listener's queues.
fn look_at_queues(listener: &Listener) -> String {
    let port = listener.subject.lport.map_or_else(String::new, |port| format!(" --lport {port}"));
    format!("tcptrace queues{port}")
}
