//! Sources yield frames: the live kernel, or a recording ([`FileSource`]).

mod file;

pub use file::FileSource;
