//! Addresses of kernel functions: names in, numbers out.
//!
//! The kernel is asked by a program that runs once, which takes microseconds. Its list of all symbols is text of 100,000 lines or more
//! and takes longer than all the rest that a tracer does in its own time to start.

use std::io;

use super::bpf;

/// `BPF_FUNC_kallsyms_lookup_name`.
const LOOK_UP: i32 = 179;

/// Address of a function of the kernel itself or of a module, the kernel's first; `None` where there is none of that name, or where the
/// kernel hides addresses (`kernel.kptr_restrict`, a missing `CAP_SYSLOG`).
///
/// # Errors
/// The kernel refuses the program that asks.
pub fn address(name: &str) -> io::Result<Option<u64>> {
    let program = bpf::load_syscall(&asks_for(name))?;
    let mut address = 0;
    bpf::run_syscall(&program, &mut address)?;
    Ok((address != 0).then_some(address))
}

/// Instructions that look `name` up and write the address, or 0, to their context.
fn asks_for(name: &str) -> Vec<u64> {
    use insn::*;
    let mut text = name.as_bytes().to_vec();
    // The kernel wants it to end with a zero.
    text.resize((text.len() + 1).next_multiple_of(8), 0);
    let (words, _) = text.as_chunks::<8>();
    let (found, start) = (-8, -8 - text.len() as i16);
    let mut program = vec![copy(R6, R1)];
    for (at, word) in (start..).step_by(8).zip(words) {
        program.extend(load(R1, u64::from_ne_bytes(*word)));
        program.push(store(R10, at, R1));
    }
    program.extend(load(R1, 0));
    program.push(store(R10, found, R1));
    program.extend([copy(R1, R10), add(R1, start.into()), set(R2, name.len() as i32 + 1), set(R3, 0)]);
    program.extend([copy(R4, R10), add(R4, found.into()), call(LOOK_UP)]);
    program.extend([fetch(R1, R10, found), store(R6, 0, R1), EXIT]);
    program
}

/// The few instructions of BPF (RFC 9669) that this takes, as words: opcode, destination and source, offset, immediate.
mod insn {
    pub const R1: u8 = 1;
    pub const R2: u8 = 2;
    pub const R3: u8 = 3;
    pub const R4: u8 = 4;
    pub const R6: u8 = 6;
    pub const R10: u8 = 10;
    pub const EXIT: u64 = insn(0x95, 0, 0, 0, 0);

    const fn insn(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> u64 {
        let [low, high] = offset.to_ne_bytes();
        let [a, b, c, d] = immediate.to_ne_bytes();
        // The nibbles of both registers change places with the byte order.
        let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        u64::from_ne_bytes([code, registers, low, high, a, b, c, d])
    }

    pub const fn copy(to: u8, from: u8) -> u64 {
        insn(0xbf, to, from, 0, 0)
    }

    pub const fn set(to: u8, value: i32) -> u64 {
        insn(0xb7, to, 0, 0, value)
    }

    pub const fn add(to: u8, value: i32) -> u64 {
        insn(0x07, to, 0, 0, value)
    }

    /// 64 bits take two.
    pub const fn load(to: u8, value: u64) -> [u64; 2] {
        [insn(0x18, to, 0, 0, value as u32 as i32), insn(0, 0, 0, 0, (value >> 32) as u32 as i32)]
    }

    pub const fn store(base: u8, offset: i16, from: u8) -> u64 {
        insn(0x7b, base, from, offset, 0)
    }

    pub const fn fetch(to: u8, base: u8, offset: i16) -> u64 {
        insn(0x79, to, base, offset, 0)
    }

    pub const fn call(helper: i32) -> u64 {
        insn(0x85, 0, 0, 0, helper)
    }
}
