//! Where kernel fields are: tokens in the source, holes in the instructions, which the loader fills with this kernel's offsets.
//!
//! A global would do, too, and did: the verifier takes its members for constants. But the CPU loads each of them, through an
//! address of ten bytes, and programs that run five thousand times a second find neither their code nor their data in a cache.

#[cfg(target_arch = "bpf")]
use core::arch::asm;
use core::ops::Add;

use aya_ebpf::helpers::generated as h;
use tcptrace_common::offsets::{BITFIELDS, Bits, FIELDS, hole, structure};

/// The place of a field in its struct.
pub trait Place: Copy {
    /// Bytes from the start of the struct.
    fn offset(self) -> u32;

    /// This kernel has no such field.
    #[inline(always)]
    fn is_absent(self) -> bool {
        self.offset() == hole::NONE
    }

    /// Load the field; `base` points to the struct, typed.
    ///
    /// # Safety
    /// The verifier checks the access against the type of `base`.
    #[inline(always)]
    unsafe fn load<T: Copy>(self, base: *const u8) -> T {
        // SAFETY: the caller's.
        unsafe { core::ptr::read_volatile(base.add(self.offset() as usize).cast::<T>()) }
    }

    /// Load the field from a bare address; zero where that cannot be read.
    ///
    /// # Safety
    /// None is needed, but what is not the struct gives nonsense.
    #[inline(always)]
    unsafe fn probe<T: Copy + Default>(self, base: *const u8) -> T {
        let mut value = T::default();
        // SAFETY: a variable.
        unsafe { self.copy(base, &raw mut value) }
        value
    }

    /// Copy the field, of any size, from a bare address; zeroes where that cannot be read.
    ///
    /// # Safety
    /// `to` is a `T`.
    #[inline(always)]
    unsafe fn copy<T>(self, base: *const u8, to: *mut T) {
        let from = (base as u64 + u64::from(self.offset())) as *const _;
        // SAFETY: the helper checks the address.
        unsafe { h::bpf_probe_read_kernel(to.cast(), size_of::<T>() as u32, from) };
    }
}

/// Bytes from the start of a struct.
impl Place for u32 {
    #[inline(always)]
    fn offset(self) -> u32 {
        self
    }
}

/// The member of `Offsets` at byte `AT`; `off!` names it.
#[derive(Clone, Copy)]
pub struct Field<const AT: usize>;

/// The member of `Bitfields` at byte `AT`; `bits!` names it. As a place it is that of its byte.
#[derive(Clone, Copy)]
pub struct Bitfield<const AT: usize>;

/// What stands for a place until the loader fills it in.
trait Hole: Copy {
    /// As an immediate.
    const IMMEDIATE: i64;
    /// As the offset of a load.
    const LOAD: i64;
    /// The struct's type, as an immediate.
    const TYPE: i64;
}

impl<const AT: usize> Hole for Field<AT> {
    const IMMEDIATE: i64 = hole::FIELD + AT as i64;
    const LOAD: i64 = hole::FIELD_AT + AT as i64 / 4;
    const TYPE: i64 = hole::TYPE + structure(FIELDS[AT / 4].structure) as i64;
}

impl<const AT: usize> Hole for Bitfield<AT> {
    const IMMEDIATE: i64 = hole::BITS + AT as i64;
    const LOAD: i64 = hole::BITS_AT + AT as i64 / 4;
    const TYPE: i64 = hole::TYPE + structure(BITFIELDS[AT / size_of::<Bits>()].0) as i64;
}

/// An immediate that the loader replaces.
macro_rules! immediate {
    ($hole:expr) => {{
        #[cfg(target_arch = "bpf")]
        {
            let value: u64;
            // SAFETY: moves a constant to a register.
            unsafe { asm!("{v} = {c}", v = out(reg) value, c = const $hole, options(pure, nomem, nostack, preserves_flags)) }
            // SAFETY: none has its sign bit. Spares the shifts that make sure.
            unsafe { core::hint::assert_unchecked(value <= u64::from(hole::NONE)) }
            value as u32
        }
        #[cfg(not(target_arch = "bpf"))]
        {
            $hole as u32
        }
    }};
}

/// A load of so many bytes, whose offset the loader replaces.
#[cfg(target_arch = "bpf")]
macro_rules! load {
    ($width:literal, $value:ident, $base:ident, $hole:expr) => {
        asm!(
            concat!("{v} = *(", $width, " *)({p} + {c})"),
            v = out(reg) $value, p = in(reg) $base, c = const $hole,
            options(readonly, nostack, preserves_flags)
        )
    };
}

/// A bare address as a pointer to the struct whose type a hole stands for: loads are direct then, and zero where there is nothing.
#[cfg(target_arch = "bpf")]
macro_rules! cast {
    ($base:ident, $hole:expr) => {{
        let typed: u64;
        // SAFETY: a call that the verifier turns into a move.
        unsafe {
            asm!(
                "r2 = {t}", "call {f}", t = const $hole, f = const hole::CAST,
                inlateout("r1") $base as u64 => _, lateout("r0") typed, lateout("r2") _, lateout("r3") _, lateout("r4") _, lateout("r5") _,
                options(pure, nomem, nostack)
            )
        }
        typed as *const u8
    }};
}
#[cfg(not(target_arch = "bpf"))]
macro_rules! cast {
    ($base:ident, $hole:expr) => {{
        let _ = ($hole, hole::CAST);
        $base
    }};
}

impl<H: Hole> Place for H {
    #[inline(always)]
    fn offset(self) -> u32 {
        immediate!(H::IMMEDIATE)
    }

    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    unsafe fn load<T: Copy>(self, base: *const u8) -> T {
        const { assert!(matches!(size_of::<T>(), 1 | 2 | 4 | 8)) }
        let value: u64;
        // SAFETY: the verifier checks the access.
        unsafe {
            match size_of::<T>() {
                1 => load!("u8", value, base, H::LOAD),
                2 => load!("u16", value, base, H::LOAD),
                4 => load!("u32", value, base, H::LOAD),
                _ => load!("u64", value, base, H::LOAD),
            }
            // The CPU clears the rest of the register: spares the shifts that make sure.
            core::hint::assert_unchecked(size_of::<T>() == 8 || value >> (8 * (size_of::<T>() & 7)) == 0);
            // The low bytes of the register: memory is little-endian.
            core::mem::transmute_copy::<u64, T>(&value)
        }
    }

    #[cfg(not(target_arch = "bpf"))]
    unsafe fn load<T: Copy>(self, _: *const u8) -> T {
        let _ = H::LOAD;
        unreachable!()
    }

    /// The helper takes ten times as long as a load: only where the kernel has nothing better (before Linux 6.2).
    #[inline(always)]
    unsafe fn probe<T: Copy + Default>(self, base: *const u8) -> T {
        if immediate!(hole::CASTS) == 0 {
            // SAFETY: checked by the helper.
            return unsafe { self.offset().probe(base) };
        }
        let typed = cast!(base, H::TYPE);
        // SAFETY: checked by the CPU, and the kernel puts a zero where it faults.
        unsafe { self.load(typed) }
    }
}

impl<const AT: usize> Add<u32> for Field<AT> {
    type Output = u32;

    #[inline(always)]
    fn add(self, bytes: u32) -> u32 {
        self.offset() + bytes
    }
}

impl<const AT: usize> Bitfield<AT> {
    /// The field's value, from the byte that it lies in.
    #[inline(always)]
    pub fn of(self, byte: u8) -> u32 {
        (u32::from(byte) >> immediate!(hole::BITS + AT as i64 + 4)) & immediate!(hole::BITS + AT as i64 + 8)
    }
}

/// The place of a kernel field.
macro_rules! off {
    ($field:ident) => {
        $crate::place::Field::<{ core::mem::offset_of!(tcptrace_common::offsets::Offsets, $field) }>
    };
}
pub(crate) use off;

/// The place of a kernel bitfield.
macro_rules! bits {
    ($field:ident) => {
        $crate::place::Bitfield::<{ core::mem::offset_of!(tcptrace_common::offsets::Bitfields, $field) }>
    };
}
pub(crate) use bits;
