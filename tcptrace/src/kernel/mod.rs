//! Everything that touches the kernel.
//!
//! What it offers: its type information ([`btf`]), where in it the fields lie that the programs read ([`offsets`]), what else is
//! so on this host ([`facts`]), and what to make of it ([`doctor`]). What we put in and take out: the programs ([`load`]), which
//! hook serves which [`signal`], the rings ([`ring`]), what existed before ([`snapshot`]), where
//! processes belong ([`cgroup`]), what was lost ([`audit`]).

pub mod audit;
pub mod btf;
pub mod cgroup;
pub mod doctor;
mod error;
pub mod facts;
pub mod load;
pub mod offsets;
pub mod ring;
pub mod signal;
pub mod snapshot;

pub use error::Error;
