//! From frame to frame: by unwind tables where a module has them, else by frame pointers.

use std::{fs::File, os::unix::fs::FileExt as _};

use framehop::{
    FrameAddress, MayAllocateDuringUnwind, Unwinder as _,
    x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64},
};
use tcptrace_common::stack::StackCopy;

use super::{
    call::{self, ends_with_call},
    maps::{self, Mapping},
    modules::Modules,
};
use crate::frame::fact::StackFrame;

/// Most frames of a stack.
const DEEPEST: usize = 128;

/// Rules that were found, for addresses that come again.
pub type Cache = CacheX86_64<MayAllocateDuringUnwind>;

/// The frames of a stack, innermost first, as far as it can be followed.
pub fn unwind(copy: &StackCopy, mappings: &[Mapping], modules: &mut Modules, cache: &mut Cache) -> Vec<StackFrame> {
    let mut unwinder = UnwinderX86_64::new();
    let mut known = Vec::new();
    let mut registers = UnwindRegsX86_64::new(copy.ip, copy.sp, copy.bp);
    let mut read = |address| word(copy, address).ok_or(());
    let mut address = FrameAddress::from_instruction_pointer(copy.ip);
    let mut frames = Vec::new();
    while let Some(mapping) = maps::find(mappings, address.address_for_lookup())
        && frames.len() < DEEPEST
    {
        if mapping.inode == 0 {
            // Code that was made at run time, or the kernel's own for user space.
            if address.is_return_address() && !is_behind_call(copy.pid, address.address()) {
                break;
            }
            frames.push(StackFrame { module: Some(anonymous(mapping).to_owned()), ..StackFrame::default() });
        } else {
            let module = modules.of(copy.pid, mapping);
            let stated = module.as_ref().and_then(|module| module.stated(mapping, address.address()));
            let Some((module, stated)) = module.zip(stated) else {
                if !address.is_return_address() {
                    frames.push(StackFrame { module: Some(mapping.name().to_owned()), ..StackFrame::default() });
                }
                break;
            };
            if address.is_return_address() && !module.is_behind_call(stated) {
                break;
            }
            let lookup = stated - (address.address() - address.address_for_lookup());
            for place in &*module.places(lookup) {
                frames.push(StackFrame {
                    function: place.function.clone(),
                    module: Some(mapping.name().to_owned()),
                    offset: Some(stated),
                    file: place.file.clone(),
                    line: place.line,
                });
            }
            if !known.contains(&mapping.start) {
                known.push(mapping.start);
                if let Some(tables) = module.unwind(mapping) {
                    unwinder.add_module(tables);
                }
            }
        }
        let next = unwinder.unwind_frame(address, &mut registers, cache, &mut read);
        let Some(next) = next.ok().flatten().and_then(FrameAddress::from_return_address) else { break };
        address = next;
    }
    frames
}

fn anonymous(mapping: &Mapping) -> &str {
    if mapping.path.is_empty() { "[anon]" } else { mapping.name() }
}

/// The word at an address of the stack, if it was copied.
fn word(copy: &StackCopy, address: u64) -> Option<u64> {
    let at = usize::try_from(address.checked_sub(copy.sp)?).ok()?;
    let copied = copy.bytes.get(..copy.len as usize)?;
    copied.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// The same that a module is asked for, where the code is in no file: the process must still be there.
fn is_behind_call(pid: u32, address: u64) -> bool {
    let mut before = [0; call::LONGEST];
    let Some(at) = address.checked_sub(call::LONGEST as u64) else { return false };
    File::open(format!("/proc/{pid}/mem")).is_ok_and(|memory| memory.read_exact_at(&mut before, at).is_ok())
        && ends_with_call(&before)
}
