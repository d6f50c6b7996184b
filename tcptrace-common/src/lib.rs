//! What the kernel programs and the collector agree on: [`record`], [`queue`], [`probe`] and [`stack`] layouts, TCP [`state`] numbers, the list of kernel
//! [`offsets`] that the collector resolves and the programs read by, and the [`settings`] that it hands over.
//!
//! `no_std`, no allocation, and no logic but that of [`pair`]: one definition for both targets.
#![no_std]

pub mod offsets;
pub mod pair;
pub mod probe;
pub mod queue;
pub mod record;
pub mod settings;
pub mod stack;
pub mod state;
