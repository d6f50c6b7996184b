//! Readers of tasks: who is it.

use aya_ebpf::helpers::generated as h;
use tcptrace_common::record::Owner;

use crate::{
    memory::{Memory, Probed},
    place::{Place, off},
    sock::ld,
};

/// Thread group on this CPU; meaningful in process context only.
#[inline(always)]
pub fn current_tgid() -> u32 {
    // SAFETY: no arguments.
    (unsafe { h::bpf_get_current_pid_tgid() } >> 32) as u32
}

/// Describe the current process.
#[inline(always)]
pub unsafe fn current(o: *mut Owner, fd: i32, inode: u64) {
    // SAFETY: `o` points into a ring slot; the current task is always valid.
    unsafe {
        let task: *const u8 = h::bpf_get_current_task_btf().cast_const().cast();
        let id = h::bpf_get_current_pid_tgid();
        (*o).pid = (id >> 32) as u32;
        (*o).tid = id as u32;
        (*o).uid = h::bpf_get_current_uid_gid() as u32;
        (*o).fd = fd;
        (*o).cgroup = h::bpf_get_current_cgroup_id();
        (*o).inode = inode;
        leader(task, o);
    }
}

/// Name and start of the task's thread-group leader. The leader is read without a type: the verifier searches all of the kernel's for
/// each step from a task that it trusts to another.
#[inline(always)]
pub unsafe fn leader(task: *const u8, o: *mut Owner) {
    // SAFETY: as above; checked reads.
    unsafe {
        let leader = Probed::ld::<u64>(task, off!(task_leader)) as *const u8;
        off!(task_comm).copy(leader, &raw mut (*o).comm);
        (*o).started = Probed::ld(leader, off!(task_start));
    }
}

/// Describe a task other than the current one: all but its descriptor and its socket.
#[inline(always)]
pub unsafe fn describe(task: *const u8, o: *mut Owner) {
    // SAFETY: a live task; a field that the kernel lacks is left as it was.
    unsafe {
        (*o).pid = ld(task, off!(task_tgid));
        (*o).tid = ld(task, off!(task_pid));
        leader(task, o);
        if !off!(task_cred).is_absent() && !off!(cred_uid).is_absent() {
            let cred: *const u8 = ld(task, off!(task_cred));
            (*o).uid = ld(cred, off!(cred_uid));
        }
        if !off!(task_cgroups).is_absent()
            && !off!(css_dfl).is_absent()
            && !off!(cgroup_kn).is_absent()
            && !off!(kn_id).is_absent()
        {
            let set: *const u8 = ld(task, off!(task_cgroups));
            let cgroup: *const u8 = ld(set, off!(css_dfl));
            let node: *const u8 = ld(cgroup, off!(cgroup_kn));
            (*o).cgroup = ld(node, off!(kn_id));
        }
    }
}

/// How many generations up an owner is looked for.
const GENERATIONS: u32 = 4;

/// Does the current process descend from thread group `owner`? Read without types: it is asked rarely, and the verifier searches
/// all of the kernel's types for each step from a task that it trusts to another.
#[inline(always)]
pub fn descends_from(owner: u32) -> bool {
    // SAFETY: parents of a live task; the reads are checked.
    unsafe {
        let mut task: u64 = h::bpf_get_current_task();
        for _ in 0..GENERATIONS {
            task = Probed::ld(task as *const u8, off!(task_parent));
            let tgid: u32 = Probed::ld(task as *const u8, off!(task_tgid));
            if tgid == owner {
                return true;
            }
            if tgid <= 1 {
                return false;
            }
        }
    }
    false
}

/// Second argument of the system call that the current task is in, if it is `nr`; `u32::MAX` otherwise.
#[inline(always)]
pub fn syscall_second(nr: u64) -> u32 {
    if off!(regs_si).is_absent() || off!(regs_nr).is_absent() {
        return u32::MAX;
    }
    // SAFETY: the current task's saved registers.
    unsafe {
        let task = h::bpf_get_current_task_btf();
        let regs: *const u8 = h::bpf_task_pt_regs(task.cast()) as *const u8;
        if ld::<u64>(regs, off!(regs_nr)) == nr { ld::<u64>(regs, off!(regs_si)) as u32 } else { u32::MAX }
    }
}

/// Descriptor argument of the system call that the current task is in, if it is `nr`; -1 otherwise (io_uring).
#[inline(always)]
pub fn syscall_fd(nr: u64) -> i32 {
    if off!(regs_fd).is_absent() || off!(regs_nr).is_absent() {
        return -1;
    }
    // SAFETY: the current task's saved registers.
    unsafe {
        let task = h::bpf_get_current_task_btf();
        let regs: *const u8 = h::bpf_task_pt_regs(task.cast()) as *const u8;
        if ld::<u64>(regs, off!(regs_nr)) == nr { ld::<u64>(regs, off!(regs_fd)) as i32 } else { -1 }
    }
}
