//! The user-space stack of a process that opens or accepts a socket: its registers, and a copy that the collector unwinds.

use aya_ebpf::helpers::generated as h;
use tcptrace_common::{
    record::flag,
    settings::bucket,
    stack::{PAGE, PAGES, StackCopy},
};

use crate::{
    bucket as buckets, emit,
    maps::{STACK_ALLOWANCE, STACK_RING},
    memory::{Memory, Probed},
    place::{Place, off},
    sock::ld,
};

/// Copy the stack of the current task for the record of socket `cookie` with number `seq`; the flag that the record gets. One that is held
/// back by the token bucket is counted. `made_by`: may a system call of this number be what the record tells of?
#[inline(always)]
pub fn copy(cookie: u64, seq: u16, made_by: impl FnOnce(u64) -> bool) -> u16 {
    if STACK_RING.load() == 0 {
        return 0;
    }
    if off!(regs_ip).is_absent() || off!(regs_sp).is_absent() || off!(regs_bp).is_absent() || off!(regs_nr).is_absent()
    {
        return 0;
    }
    // SAFETY: the current task's saved registers.
    let (nr, ip, sp, bp) = unsafe {
        let task = h::bpf_get_current_task_btf();
        let regs: *const u8 = h::bpf_task_pt_regs(task.cast()) as *const u8;
        (
            ld::<u64>(regs, off!(regs_nr)),
            ld::<u64>(regs, off!(regs_ip)),
            ld::<u64>(regs, off!(regs_sp)),
            ld::<u64>(regs, off!(regs_bp)),
        )
    };
    // A kernel thread, an io_uring worker among them, has no user registers.
    if ip == 0 || sp == 0 || !made_by(nr) {
        return 0;
    }
    if !buckets::take(bucket::STACKS, STACK_ALLOWANCE.load()) {
        emit::stack_held_back();
        return 0;
    }
    let made = emit::stack(|r| {
        // SAFETY: the slot is a `StackCopy`.
        unsafe {
            let head = &raw mut (*r).head;
            (*head).sock = cookie;
            (*head).kind = 0;
            (*head).from = 0;
            (*head).to = 0;
            (*head).err = 0;
            (*head).seq = seq;
            (*head).flags = 0;
            (*r).pid = (h::bpf_get_current_pid_tgid() >> 32) as u32;
            let mm = mm();
            (*r).mm = mm as u64;
            (*r).exec_pages = if mm.is_null() { 0 } else { Probed::ld(mm, off!(mm_exec)) };
            (*r).ip = ip;
            (*r).sp = sp;
            (*r).bp = bp;
            (*r).len = read(r, sp);
        }
    });
    if made { flag::STACK } else { 0 }
}

/// The current task's `mm_struct`; null where it cannot be told apart from others.
#[inline(always)]
unsafe fn mm() -> *const u8 {
    if off!(task_mm).is_absent() || off!(mm_exec).is_absent() {
        return core::ptr::null();
    }
    // SAFETY: a checked read of a live task.
    unsafe { Probed::ld::<u64>(h::bpf_get_current_task() as *const u8, off!(task_mm)) as *const u8 }
}

/// Copy page by page, up to the first that is not there: behind the bottom of the stack, or not in memory. How many bytes.
#[inline(always)]
unsafe fn read(r: *mut StackCopy, sp: u64) -> u32 {
    let first = PAGE as u64 - (sp & (PAGE as u64 - 1));
    // SAFETY: the slot has room for all pages, of which the first is none too long; the helper checks what it reads.
    unsafe {
        let to = (&raw mut (*r).bytes).cast::<u8>();
        if h::bpf_probe_read_user(to.cast(), first as u32, sp as *const _) != 0 {
            return 0;
        }
        let mut len = first;
        for page in 0..PAGES as u64 - 1 {
            let at = first + page * PAGE as u64;
            if h::bpf_probe_read_user(to.add(at as usize).cast(), PAGE as u32, (sp + at) as *const _) != 0 {
                break;
            }
            len = at + PAGE as u64;
        }
        len as u32
    }
}
