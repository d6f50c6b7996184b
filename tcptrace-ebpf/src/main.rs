//! tcptrace's kernel programs: typed tracepoints and iterators in, [`tcptrace_common::record`]s out, into a ring per CPU.
//!
//! | module | what |
//! |---|---|
//! | [`maps`] | every map and every global that the loader sets |
//! | [`sock`], [`task`] | readers: kernel struct → part of a record |
//! | [`filter`] | decides in the kernel what the collector asked for |
//! | [`per_socket`] | what is kept about a live socket: sequence number, owner |
//! | [`emit`] | reserve, fill, submit, count |
//! | [`hooks`] | one file per signal; several entry points may share a handler |
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code, reason = "host builds check the code and run none of it"))]

mod emit;
mod filter;
mod hooks;
mod maps;
mod per_socket;
mod sock;
mod task;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// Host builds get an empty program in place of an object.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
