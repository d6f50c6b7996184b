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
    processes::Process,
};
use crate::frame::fact::StackFrame;

/// Most frames of a stack.
const DEEPEST: usize = 128;

/// Unwinds one copy after the other.
pub struct Unwinder {
    modules: Modules,
    /// Rules that were found, for addresses that come again.
    cache: CacheX86_64<MayAllocateDuringUnwind>,
}

impl Default for Unwinder {
    fn default() -> Self {
        Self { modules: Modules::default(), cache: CacheX86_64::new() }
    }
}

impl Unwinder {
    /// The frames of a stack, innermost first, as far as it can be followed.
    pub fn unwind(&mut self, copy: &StackCopy, process: &Process) -> Vec<StackFrame> {
        let mut tables = UnwinderX86_64::new();
        let mut added = Vec::new();
        let mut registers = UnwindRegsX86_64::new(copy.ip, copy.sp, copy.bp);
        let mut read = |address| word(copy, address).ok_or(());
        let mut address = FrameAddress::from_instruction_pointer(copy.ip);
        let mut frames = Vec::new();
        while let Some(mapping) = maps::find(&process.mappings, address.address_for_lookup())
            && frames.len() < DEEPEST
        {
            let is_call = address.is_return_address();
            if mapping.inode == 0 {
                // Code that was made at run time, or the kernel's own for user space.
                if is_call && !is_behind_call(copy.pid, address.address()) {
                    break;
                }
                frames.push(StackFrame { module: Some(anonymous(mapping).to_owned()), ..StackFrame::default() });
            } else {
                let module = self.modules.of(process, mapping);
                let stated = module.as_ref().and_then(|module| module.stated(mapping, address.address()));
                let Some((module, stated)) = module.zip(stated) else {
                    // It is where the system call was made: that much is known.
                    if !is_call {
                        frames.push(StackFrame { module: Some(mapping.name().to_owned()), ..StackFrame::default() });
                    }
                    break;
                };
                if is_call && !module.is_behind_call(stated) {
                    break;
                }
                frames.extend(module.places(stated - u64::from(is_call)).iter().map(|place| StackFrame {
                    function: place.function.clone(),
                    module: Some(mapping.name().to_owned()),
                    offset: Some(stated),
                    file: place.file.clone(),
                    line: place.line,
                }));
                if !added.contains(&mapping.start) {
                    added.push(mapping.start);
                    module.unwind(mapping).into_iter().for_each(|unwind| tables.add_module(unwind));
                }
            }
            let next = tables.unwind_frame(address, &mut registers, &mut self.cache, &mut read);
            let Some(next) = next.ok().flatten().and_then(FrameAddress::from_return_address) else { break };
            address = next;
        }
        frames
    }
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
