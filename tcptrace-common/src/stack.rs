//! A copy of a process' user-space stack, taken where it opens or accepts a socket.
//!
//! It goes into a ring of its own and never into a frame or a recording: it holds whatever the process had on its stack. The collector
//! unwinds it at once and keeps names.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::record::Head;

/// A page of user memory: a copy ends where one cannot be read.
pub const PAGE: usize = 4096;
/// Most pages of a stack that are copied.
pub const PAGES: usize = 4;
/// Most bytes of a stack that are copied.
pub const STACK_BYTES: usize = PAGES * PAGE;

/// What is copied beside the record that has [`STACK`](crate::record::flag::STACK) among its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StackCopy {
    /// `sock` and `seq` are those of that record, `kind` is 0.
    pub head: Head,
    /// Thread group in the initial pid namespace.
    pub pid: u32,
    /// Bytes of `bytes` that were copied.
    pub len: u32,
    /// Kernel address of its `mm_struct`: another one after exec(). 0: not known.
    pub mm: u64,
    /// Pages of executable mappings: the same number, and they are the same.
    pub exec_pages: u64,
    /// User registers when the system call was made.
    pub ip: u64,
    /// The stack pointer: `bytes` begins there.
    pub sp: u64,
    /// The frame pointer, where the program keeps one.
    pub bp: u64,
    /// The top of the stack; what is behind `len` means nothing.
    pub bytes: [u8; STACK_BYTES],
}

const _: () = assert!(size_of::<StackCopy>() == 72 + STACK_BYTES);
