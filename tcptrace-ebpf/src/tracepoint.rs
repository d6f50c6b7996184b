//! tracepoint.o: listeners' queues by typed tracepoints alone, for kernels with neither fentry nor kprobes. Timers tell when a
//! request comes and goes. See [`queue`].
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code, reason = "host builds check the code and run none of it"))]

mod emit;
#[expect(dead_code, reason = "the other objects use the rest")]
mod filter;
#[expect(dead_code, reason = "the other objects use the rest")]
mod listeners;
#[expect(dead_code, reason = "the other objects use the rest")]
mod maps;
mod memory;
mod object;
mod queue;
#[expect(dead_code, reason = "the other objects use the rest")]
mod sock;

/// Host builds get an empty program in place of an object.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
