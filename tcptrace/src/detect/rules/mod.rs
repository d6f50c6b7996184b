//! The rules, in the order in which they are told.

pub mod accept_overflow;
pub mod backlog_too_small;
pub mod connect_timeouts;
pub mod dead_listener;
pub mod half_open_clients;
pub mod keepalive_deaths;
pub mod port_scan;
pub mod refused_connects;
pub mod reset_storm;
pub mod retransmit_burst;
pub mod short_lived_churn;
pub mod stale_syn;
pub mod syn_flood;

use super::{rule::Rule, seen::listeners::Listener};

/// All of them.
pub const RULES: [Rule; 13] = [
    syn_flood::RULE,
    accept_overflow::RULE,
    backlog_too_small::RULE,
    dead_listener::RULE,
    half_open_clients::RULE,
    refused_connects::RULE,
    connect_timeouts::RULE,
    reset_storm::RULE,
    keepalive_deaths::RULE,
    short_lived_churn::RULE,
    retransmit_burst::RULE,
    stale_syn::RULE,
    port_scan::RULE,
];

/// A command that shows a listener's queues.
fn look_at_queues(listener: &Listener) -> String {
    let port = listener.subject.lport.map_or_else(String::new, |port| format!(" --lport {port}"));
    format!("tcptrace queues{port}")
}
