//! Arguments of functions and tracepoints, as a [`Memory`].

use crate::{memory::Memory, place::Place, sock};

/// The arguments of fentry, fexit and tp_btf programs: types that the verifier trusts, too. Direct loads, but for pointers: for each
/// that is loaded it would search all of the kernel's types, three times a program and place, which is most of the time that these
/// programs take to load.
pub struct Trusted;

impl Memory for Trusted {
    #[inline(always)]
    unsafe fn ld<T: Copy + Default>(base: *const u8, place: impl Place) -> T {
        // SAFETY: the verifier checks the access.
        unsafe { sock::ld(base, place) }
    }

    #[inline(always)]
    fn cookie(sk: *const u8) -> u64 {
        sock::cookie(sk)
    }

    #[inline(always)]
    fn tcp(sk: *const u8) -> *const u8 {
        sock::tcp(sk)
    }

    #[inline(always)]
    fn tcp_request(req: *const u8) -> *const u8 {
        sock::tcp_request(req)
    }
}
