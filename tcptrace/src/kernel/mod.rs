//! What this kernel offers: its type information ([`btf`]) and where in it the fields lie that the kernel programs read
//! ([`offsets`]).

pub mod audit;
pub mod btf;
mod error;
pub mod load;
pub mod offsets;
pub mod ring;
pub mod signal;
pub mod snapshot;

pub use error::Error;
