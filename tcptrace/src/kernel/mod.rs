//! What this kernel offers: its type information ([`btf`]) and where in it the fields lie that the kernel programs read
//! ([`offsets`]); what else is so on this host ([`facts`]), and what to make of it ([`doctor`]).

pub mod btf;
pub mod doctor;
mod error;
pub mod facts;
pub mod offsets;

pub use error::Error;
