//! What should be a return address is one only behind a call instruction: x86-64's, near, direct or indirect.

/// Longest call instruction that is looked for, bytes.
pub const LONGEST: usize = 7;

/// Does a call end with these bytes, the ones right before a return address?
pub fn ends_with_call(bytes: &[u8]) -> bool {
    // call rel32
    if bytes.len() >= 5 && bytes[bytes.len() - 5] == 0xe8 {
        return true;
    }
    // call r/m64: FF /2, with ModRM, SIB and displacement as they say
    (2..=LONGEST.min(bytes.len())).any(|len| {
        let at = &bytes[bytes.len() - len..];
        at[0] == 0xff && at[1] >> 3 & 7 == 2 && indirect_length(at[1], at.get(2).copied()) == len
    })
}

/// Length of an instruction of opcode, ModRM and what that asks for.
fn indirect_length(modrm: u8, sib: Option<u8>) -> usize {
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let with_sib = mode != 3 && rm == 4;
    let no_base = with_sib && sib.is_some_and(|sib| sib & 7 == 5);
    let displacement = match mode {
        0 if rm == 5 || no_base => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    2 + usize::from(with_sib) + displacement
}

#[cfg(test)]
mod tests {
    use super::ends_with_call;

    #[test]
    fn calls_are_known_by_their_ends() {
        for call in [
            &[0xe8, 1, 2, 3, 4][..],
            &[0xff, 0xd0],                   // call *%rax
            &[0x41, 0xff, 0xd4],             // call *%r12
            &[0xff, 0x10],                   // call *(%rax)
            &[0xff, 0x53, 0x18],             // call *0x18(%rbx)
            &[0xff, 0x15, 1, 2, 3, 4],       // call *symbol(%rip)
            &[0xff, 0x14, 0xc7],             // call *(%rdi,%rax,8)
            &[0xff, 0x54, 0x24, 0x08],       // call *8(%rsp)
            &[0xff, 0x14, 0xc5, 1, 2, 3, 4], // call *table(,%rax,8)
            &[0xff, 0x90, 1, 2, 3, 4],       // call *disp32(%rax)
            &[0xff, 0x94, 0x24, 1, 2, 3, 4], // call *disp32(%rsp)
        ] {
            let before = [&[0x90; 4][..], call].concat();
            assert!(ends_with_call(&before), "{call:x?}");
        }
        for other in [
            &[0x90; 8][..],
            &[0x48, 0x89, 0xe5],       // mov %rsp,%rbp
            &[0xff, 0xe0],             // jmp *%rax
            &[0xff, 0xd0, 0x90],       // call *%rax; nop
            &[0xff, 0x25, 1, 2, 3, 4], // jmp *symbol(%rip)
            &[0xe8, 1, 2, 3, 4, 0x90], // call; nop
            &[],
        ] {
            assert!(!ends_with_call(other), "{other:x?}");
        }
    }
}
