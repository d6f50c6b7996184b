//! This very program's stacks.

use std::{fs::File, os::unix::fs::FileExt as _};

use tcptrace_common::{
    record::Head,
    stack::{STACK_BYTES, StackCopy},
};

use super::{processes::Processes, unwind::Unwinder};
use crate::frame::fact::StackFrame;

/// What the kernel program copies when a function makes a system call.
macro_rules! copy_here {
    () => {{
        let (ip, sp, bp): (u64, u64, u64);
        // SAFETY: reads registers.
        unsafe {
            std::arch::asm!(
                "lea {ip}, [rip]", "mov {sp}, rsp", "mov {bp}, rbp",
                ip = out(reg) ip, sp = out(reg) sp, bp = out(reg) bp, options(nomem, nostack, preserves_flags)
            );
        }
        copy(ip, sp, bp)
    }};
}

fn copy(ip: u64, sp: u64, bp: u64) -> Box<StackCopy> {
    let mut copy = Box::new(StackCopy {
        head: Head::default(),
        pid: std::process::id(),
        len: 0,
        mm: 0,
        exec_pages: 0,
        ip,
        sp,
        bp,
        bytes: [0; STACK_BYTES],
    });
    // As much as there is.
    copy.len =
        File::open("/proc/self/mem").and_then(|memory| memory.read_at(&mut copy.bytes, sp)).expect("procfs") as u32;
    copy
}

#[inline(never)]
fn innermost(n: u64) -> Box<StackCopy> {
    let kept = std::hint::black_box([n; 40]);
    let copy = copy_here!();
    std::hint::black_box(kept);
    copy
}

#[inline(never)]
fn middle(n: u64) -> Box<StackCopy> {
    let copy = innermost(n + 1);
    std::hint::black_box(n);
    copy
}

#[inline(never)]
fn outermost() -> Box<StackCopy> {
    let copy = middle(1);
    std::hint::black_box(2);
    copy
}

fn resolve(copy: &StackCopy) -> Vec<StackFrame> {
    Unwinder::default().unwind(copy, &Processes::default().of(copy))
}

fn names(frames: &[StackFrame]) -> Vec<&str> {
    frames.iter().map(|frame| frame.function.as_deref().unwrap_or("-")).collect()
}

#[test]
fn this_program_is_unwound_and_named() {
    let frames = resolve(&outermost());
    let names = names(&frames);
    let place =
        |name: &str| names.iter().position(|n| n.ends_with(name)).unwrap_or_else(|| panic!("{name}: {names:?}"));
    let places =
        ["tests::innermost", "tests::middle", "tests::outermost", "this_program_is_unwound_and_named"].map(place);
    assert!(places.is_sorted() && places[0] == 0, "{names:?}");
    let frame = &frames[0];
    let program = std::env::current_exe().expect("procfs");
    assert_eq!(frame.module.as_deref(), program.to_str());
    assert!(frame.file.as_deref().is_some_and(|file| file.ends_with("stack/tests.rs")), "{frame:?}");
    assert!(frame.line.is_some_and(|line| line > 1), "{frame:?}");
    // A thread begins in libc.
    assert!(frames.last().and_then(|f| f.module.as_deref()).is_some_and(|path| path.contains("libc")), "{names:?}");
}

#[test]
fn it_ends_where_the_copy_ends() {
    let mut copy = outermost();
    let whole = resolve(&copy);
    copy.len = 64;
    let cut = resolve(&copy);
    assert!(!cut.is_empty() && cut.len() < whole.len());
    assert_eq!(cut, whole[..cut.len()]);
}

#[test]
fn nothing_is_made_of_nonsense() {
    let mut copy = outermost();
    let whole = resolve(&copy);
    // Addresses of code, but of none that a call stands in front of: where functions begin.
    let begin = (innermost as *const () as u64).to_le_bytes();
    copy.bytes.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&begin));
    let frames = resolve(&copy);
    assert_eq!(frames, whole[..frames.len()]);
    assert!(frames.len() < whole.len() && names(&frames)[0].ends_with("innermost"), "{:?}", names(&frames));
    copy.ip = 8;
    assert_eq!(resolve(&copy), []);
    // No process has this number.
    copy.pid = u32::MAX >> 1;
    assert_eq!(resolve(&copy), []);
}
