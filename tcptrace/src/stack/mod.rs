//! User-space stacks: registers and a copy of the top of a stack in, functions' names out.
//!
//! | file | |
//! |---|---|
//! | `processes` | whose stacks were copied |
//! | `maps` | which file is mapped where in a process |
//! | `module` | one ELF file: what is needed of it to unwind and to name |
//! | `symbols` | its symbol table |
//! | `lines` | its debug information |
//! | `modules` | those that were read, each once |
//! | `call` | is there a call in front of what should be a return address? |
//! | `unwind` | from frame to frame |
//! | `resolver` | the threads that do all of it, and may wait for file systems |
//!
//! Nothing is guessed: a frame whose return address no call stands in front of ends the stack, a function without a name is told by its
//! module and offset.

mod call;
mod lines;
mod maps;
mod module;
mod modules;
mod processes;
mod resolver;
mod symbols;
#[cfg(test)]
mod tests;
mod unwind;

pub use resolver::{Answer, Resolver};
