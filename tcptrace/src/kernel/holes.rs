//! Fills the holes in a kernel object's instructions: an object and what is known of this kernel in, an object that reads this kernel
//! out.

use object::{Object as _, ObjectSection as _, SectionKind};
use tcptrace_common::offsets::{ABSENT, hole};
use zerocopy::IntoBytes as _;

use super::offsets::Resolved;

/// A move of an immediate to a register.
const MOV_IMMEDIATE: u8 = 0xb7;
/// A 64-bit immediate: the only instruction of two slots.
const LOAD_IMMEDIATE: u8 = 0x18;
/// A move from register 1 to register 0.
const MOV_R0_R1: [u8; 8] = [0xbf, 0x10, 0, 0, 0, 0, 0, 0];
/// A call, and what the registers' byte is when it is of a kernel function.
const CALL: u8 = 0x85;
const KERNEL_FUNCTION: u8 = 2 << 4;
/// Class and mode of a load from memory, its width left out.
const LOAD: u8 = 0x61;
const WIDTH: u8 = 0x18;

/// An object in memory, aligned as whoever parses it expects.
pub struct Filled(Vec<u64>);

impl Filled {
    /// The object's bytes; there may be some more at the end.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Fill them.
///
/// # Errors
/// What is wrong: the bytes are no object, or an offset does not fit into an instruction.
pub fn fill(elf: &[u8], resolved: &Resolved) -> Result<Filled, String> {
    let mut words = vec![0_u64; elf.len().div_ceil(8)];
    words.as_mut_bytes()[..elf.len()].copy_from_slice(elf);
    let places = Places {
        offsets: members(resolved.offsets.as_bytes()),
        bitfields: members(resolved.bitfields.as_bytes()),
        types: resolved.types.clone(),
        cast: resolved.cast,
    };
    let file = object::File::parse(elf).map_err(|e| e.to_string())?;
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let Some((start, len)) = section.file_range() else { continue };
        let range = start as usize..(start + len) as usize;
        let code = words.as_mut_bytes().get_mut(range).ok_or("a section lies outside of the object")?;
        let mut slots = code.as_chunks_mut::<8>().0.iter_mut();
        while let Some(slot) = slots.next() {
            if slot[0] == LOAD_IMMEDIATE {
                slots.next();
            } else {
                places.fill(slot)?;
            }
        }
    }
    Ok(Filled(words))
}

fn members(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word)).collect()
}

/// What holes stand for: the members of both structs, types, and the function that casts.
struct Places {
    offsets: Vec<u32>,
    bitfields: Vec<u32>,
    types: Vec<u32>,
    cast: Option<u32>,
}

impl Places {
    /// An instruction: operation, registers, 16 bits of offset, 32 bits of immediate.
    fn fill(&self, slot: &mut [u8; 8]) -> Result<(), String> {
        let [operation, _, o0, o1, i0, i1, i2, i3] = *slot;
        if operation == MOV_IMMEDIATE {
            let immediate = i64::from(i32::from_le_bytes([i0, i1, i2, i3]));
            if let Some(place) = self.find(immediate, hole::FIELD, hole::BITS, 4) {
                let place = if place == ABSENT { hole::NONE } else { place };
                slot[4..].copy_from_slice(&place.to_le_bytes());
            } else if let Some(number) = within(&self.types, immediate, hole::TYPE, 1) {
                slot[4..].copy_from_slice(&number.to_le_bytes());
            } else if immediate == hole::CASTS {
                slot[4..].copy_from_slice(&u32::from(self.cast.is_some()).to_le_bytes());
            }
        } else if operation == CALL && i64::from(i32::from_le_bytes([i0, i1, i2, i3])) == hole::CAST {
            // Nothing gets there without: but whatever it is must be an instruction.
            let [i0, i1, i2, i3] = self.cast.unwrap_or_default().to_le_bytes();
            *slot = self.cast.map_or(MOV_R0_R1, |_| [CALL, KERNEL_FUNCTION, 0, 0, i0, i1, i2, i3]);
        } else if operation & !WIDTH == LOAD {
            let offset = i64::from(i16::from_le_bytes([o0, o1]));
            if let Some(place) = self.find(offset, hole::FIELD_AT, hole::BITS_AT, 1) {
                // Nothing gets to the load of a field that is not there: the verifier removes it.
                let place = if place == ABSENT { 0 } else { place };
                let place = i16::try_from(place).map_err(|_| format!("a field lies {place} bytes into its struct"))?;
                slot[2..4].copy_from_slice(&place.to_le_bytes());
            }
        }
        Ok(())
    }

    /// The member that a hole stands for, in steps of so much.
    fn find(&self, number: i64, offsets: i64, bitfields: i64, step: i64) -> Option<u32> {
        let offset = || within(&self.offsets, number, offsets, step);
        offset().or_else(|| within(&self.bitfields, number, bitfields, step))
    }
}

/// The member that a number stands for, if it is in the range that begins there.
fn within(members: &[u32], number: i64, from: i64, step: i64) -> Option<u32> {
    let at = usize::try_from(number - from).ok()?;
    members.get(at / step as usize).copied()
}

#[cfg(test)]
mod tests {
    use tcptrace_common::offsets::{Bitfields, Bits, FIELDS, Offsets};

    use super::*;

    fn places() -> Places {
        Places { offsets: vec![18, ABSENT, 40_000], bitfields: vec![7, 3, 15], types: vec![900, 901], cast: Some(77) }
    }

    /// An operation with an immediate.
    fn with(operation: u8, registers: u8, immediate: u32) -> [u8; 8] {
        let [a, b, c, d] = immediate.to_le_bytes();
        [operation, registers, 0, 0, a, b, c, d]
    }

    fn filled(slot: [u8; 8]) -> [u8; 8] {
        let mut slot = slot;
        places().fill(&mut slot).expect("fits");
        slot
    }

    #[test]
    fn immediates_are_members() {
        let mov = |immediate: u32| with(MOV_IMMEDIATE, 1, immediate);
        assert_eq!(filled(mov(0x5e7a_0000)), mov(18));
        assert_eq!(filled(mov(0x5e7a_0004)), mov(hole::NONE));
        assert_eq!(filled(mov(0x5e7a_0008)), mov(40_000));
        assert_eq!(filled(mov(0x5e7b_0008)), mov(15));
        assert_eq!(filled(mov(0x5e7c_0001)), mov(901));
        for other in [0, 18, 0x5e7a_000c, 0x5e7b_000c, 0x5e7c_0002, u32::MAX] {
            assert_eq!(filled(mov(other)), mov(other));
        }
    }

    #[test]
    fn a_cast_is_a_call_where_the_kernel_has_it() {
        let (asks, call) = (with(MOV_IMMEDIATE, 1, hole::CASTS as u32), with(CALL, 0, hole::CAST as u32));
        assert_eq!(filled(asks), with(MOV_IMMEDIATE, 1, 1));
        assert_eq!(filled(call), with(CALL, 0x20, 77));
        // Of a helper.
        assert_eq!(filled(with(CALL, 0, 113)), with(CALL, 0, 113));
        let without = |mut slot| {
            Places { cast: None, ..places() }.fill(&mut slot).expect("fits");
            slot
        };
        assert_eq!((without(asks), without(call)), (with(MOV_IMMEDIATE, 1, 0), MOV_R0_R1));
    }

    #[test]
    fn loads_have_the_offset() {
        let load = |operation: u8, offset: u16| {
            let [a, b] = offset.to_le_bytes();
            [operation, 0x21, a, b, 0, 0, 0, 0]
        };
        for width in [0x61, 0x69, 0x71, 0x79] {
            assert_eq!(filled(load(width, 0x4000)), load(width, 18));
            assert_eq!(filled(load(width, 0x5000)), load(width, 7));
            assert_eq!(filled(load(width, 0x4001)), load(width, 0), "pruned");
            assert_eq!(filled(load(width, 24)), load(width, 24));
        }
        // A store is none.
        assert_eq!(filled(load(0x7b, 0x4000)), load(0x7b, 0x4000));
        assert!(places().fill(&mut load(0x61, 0x4002)).is_err(), "too far");
    }

    #[test]
    fn the_ranges_do_not_meet() {
        let (offsets, bits) = (size_of::<Offsets>() as i64, size_of::<Bitfields>() as i64);
        assert!(hole::FIELD + offsets <= hole::BITS && hole::FIELD_AT + offsets / 4 <= hole::BITS_AT);
        assert!(hole::BITS + bits <= hole::TYPE && hole::TYPE + FIELDS.len() as i64 <= hole::CASTS);
        assert!(hole::BITS_AT + bits / 4 <= i64::from(i16::MAX));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let resolved = Resolved {
            offsets: Offsets::UNKNOWN,
            bitfields: Bitfields::from_array([Bits::UNKNOWN; 9]),
            types: Vec::new(),
            cast: None,
            absent: Vec::new(),
            prototypes: Default::default(),
            overflow_reason: None,
            no_socket_reason: None,
            no_socket_drop: None,
        };
        assert!(fill(b"not an object", &resolved).is_err());
    }
}
