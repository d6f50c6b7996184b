//! The rules, in the order in which they are told.

pub mod accept_overflow;
pub mod backlog_too_small;
pub mod close_wait_leak;
pub mod connect_timeouts;
pub mod dead_listener;
pub mod ephemeral_ports;
pub mod fin_wait2_orphans;
pub mod half_open_clients;
pub mod keepalive_deaths;
pub mod port_scan;
pub mod refused_connects;
pub mod reset_storm;
pub mod retransmit_burst;
pub mod short_lived_churn;
pub mod stale_syn;
pub mod syn_flood;
pub mod time_wait_pressure;

use super::{
    rule::Rule,
    seen::{listeners::Listener, namespaces::Closer},
};
use crate::model::{Measure, comm_str};

/// All of them.
pub const RULES: [Rule; 17] = [
    syn_flood::RULE,
    accept_overflow::RULE,
    backlog_too_small::RULE,
    dead_listener::RULE,
    half_open_clients::RULE,
    close_wait_leak::RULE,
    fin_wait2_orphans::RULE,
    time_wait_pressure::RULE,
    ephemeral_ports::RULE,
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

/// Processes that close connections first, and how many a second.
fn closers(all: &[&Closer], now: u64) -> Measure {
    /// That are named.
    const NAMED: usize = 4;
    let fields = |closer: &&Closer| {
        let mut fields = Vec::new();
        if let Some(owner) = &closer.owner {
            fields.push(("pid", Measure::Count(owner.pid.into())));
            fields.push(("comm", Measure::Name(comm_str(&owner.comm).into())));
        }
        fields.extend(closer.role.map(|role| ("role", Measure::Text(role.name().to_owned()))));
        fields.extend(closer.port.map(|port| ("port", Measure::Count(port.into()))));
        fields.push(("last_minute", Measure::Count(closer.last_minute(now))));
        Measure::Fields(fields)
    };
    Measure::List(all.iter().take(NAMED).map(fields).collect())
}
