//! Scenario files: one line an event, one line a change.

pub mod events;
pub mod print;
