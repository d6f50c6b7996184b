//! Everything that touches the kernel.
//!
//! What it offers: its type information ([`btf`]), where in it the fields lie that the programs read ([`offsets`]), what else is
//! so on this host ([`facts`]), whether functions take the arguments that we expect ([`prototypes`]), and what to make of it
//! ([`doctor`]). What we put in and take out: the programs ([`load`]) and the [`objects`] that hold them, with this kernel's offsets
//! in their [`holes`], which hook serves which [`signal`], the rings ([`ring`]), what existed before ([`snapshot`]), what processes that are
//! followed were given ([`received`]), how listeners fare ([`sampler`]), where processes belong ([`cgroup`], [`containers`]), what was lost ([`audit`]).

pub mod advice;
pub mod audit;
mod bpf;
pub mod btf;
pub mod cgroup;
mod closing;
pub mod containers;
mod counters;
mod diag;
pub mod doctor;
mod error;
pub mod facts;
mod holes;
mod hot;
mod listeners;
pub mod load;
pub mod objects;
pub mod offsets;
pub mod processes;
pub mod prototypes;
pub mod received;
mod rest;
pub mod ring;
pub mod sampler;
pub mod signal;
pub mod snapshot;
pub mod symbols;
mod sysctls;

pub use error::Error;

/// CLOCK_MONOTONIC in nanoseconds, as `bpf_ktime_get_ns`.
#[must_use]
pub fn monotonic() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
