//! The rules, in the order in which they are told.

pub mod accept_overflow;

use super::rule::Rule;

/// All of them.
pub const RULES: [Rule; 1] = [accept_overflow::RULE];
