//! tcptrace's kernel programs: typed tracepoints and iterators in, [`tcptrace_common::record`]s out, into a ring per CPU.
//!
//! | module | what |
//! |---|---|
//! | [`maps`] | every map and every global that the loader sets |
//! | [`sock`], [`task`] | readers: kernel struct → part of a record |
//! | [`filter`] | decides in the kernel what the collector asked for |
//! | [`place`] | where kernel fields are: holes that the loader fills |
//! | [`memory`] | how a handler reads the kernel: typed pointers, or checked reads |
//! | [`listeners`] | each listener's totals and marks, and who waits in its accept queue |
//! | [`pair`] | two programs on one hook, where one would have to skip what interrupts it |
//! | [`per_socket`] | what is kept about a live socket: sequence number, owner |
//! | [`bucket`] | how many records of a kind may pass |
//! | [`emit`] | reserve, fill, submit, count |
//! | [`stack`] | user-space stacks of processes that open and accept sockets |
//! | [`hooks`] | one file per signal; several entry points may share a handler |
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code, reason = "host builds check the code and run none of it"))]

#[expect(dead_code, reason = "the other objects use the rest")]
mod bucket;
mod emit;
#[expect(dead_code, reason = "the other objects use the rest")]
mod filter;
mod hooks;
#[expect(dead_code, reason = "the other objects use the rest")]
mod listeners;
mod maps;
#[expect(dead_code, reason = "the other objects use the rest")]
mod memory;
mod object;
mod pair;
mod per_socket;
mod place;
#[expect(dead_code, reason = "declares the map that the other objects share")]
mod scratch;
mod sock;
mod stack;
mod task;

/// Host builds get an empty program in place of an object.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
