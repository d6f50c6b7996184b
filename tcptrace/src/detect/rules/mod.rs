//! The rules, in the order in which they are told.

pub mod accept_overflow;
pub mod close_wait_leak;
pub mod ephemeral_ports;
pub mod fin_wait2_orphans;
pub mod time_wait_pressure;

use super::{rule::Rule, seen::namespaces::Closer};
use crate::model::{Measure, comm_str};

/// All of them.
pub const RULES: [Rule; 5] = [
    accept_overflow::RULE,
    close_wait_leak::RULE,
    fin_wait2_orphans::RULE,
    time_wait_pressure::RULE,
    ephemeral_ports::RULE,
];

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
