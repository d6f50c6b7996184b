//! The rules, in the order in which they are told.

pub mod accept_overflow;
pub mod connect_timeouts;
pub mod keepalive_deaths;
pub mod port_scan;
pub mod refused_connects;
pub mod reset_storm;
pub mod retransmit_burst;
pub mod short_lived_churn;
pub mod stale_syn;

use super::rule::Rule;

/// All of them.
pub const RULES: [Rule; 9] = [
    accept_overflow::RULE,
    refused_connects::RULE,
    connect_timeouts::RULE,
    reset_storm::RULE,
    keepalive_deaths::RULE,
    short_lived_churn::RULE,
    retransmit_burst::RULE,
    stale_syn::RULE,
    port_scan::RULE,
];
