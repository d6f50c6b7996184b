//! What this kernel offers: its type information ([`btf`]) and where in it the fields lie that the kernel programs read
//! ([`offsets`]).

pub mod btf;
mod error;
pub mod offsets;

pub use error::Error;
