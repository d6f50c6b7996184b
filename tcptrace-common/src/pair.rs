//! Tokens, by which the second of two programs on one hook knows what the first has seen.
//!
//! The first leaves a token of each event, which the second, right behind it, takes away. What interrupts them on that CPU leaves its
//! own on top, and takes it away. But where it interrupts the second, which is then skipped, the tokens stay: so there is room for two,
//! and the one that was there first waits for its second whatever comes on top. A token that stays for good may look like that of a
//! later event of a socket at the same address: one that others have passed since is believed only if nothing else speaks against it.

use core::ptr::{read_volatile, write_volatile};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Tells an event from any other that is under way on the same CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Token {
    /// Address of the `struct sock` (or of the segment); 0: none.
    pub sk: u64,
    /// What happens to it, 16 bits (of a transition: state before, state after in the byte above), and [`DOUBTFUL`].
    pub what: u64,
}

/// In [`Token::what`]: another event has passed since.
const DOUBTFUL: u64 = 1 << 16;

impl Token {
    const NONE: Self = Self { sk: 0, what: 0 };

    /// Stands for what can happen to a socket in one way only.
    #[inline(always)]
    #[must_use]
    pub fn of(sk: *const u8) -> Self {
        Self { sk: sk as u64, what: 0 }
    }

    const fn doubted(self) -> Self {
        Self { what: self.what | DOUBTFUL, ..self }
    }
}

/// The tokens of one pair on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tokens {
    last: Token,
    before: Token,
}

impl Tokens {
    /// The first program begins: what it left last was passed.
    ///
    /// # Safety
    /// `this` points to tokens. What interrupts this may use them.
    #[inline(always)]
    pub unsafe fn pass(this: *mut Self) {
        // SAFETY: the caller's.
        unsafe {
            let last = read(&raw const (*this).last);
            if last != Token::NONE {
                write(&raw mut (*this).last, last.doubted());
            }
        }
    }

    /// The first program has seen an event.
    ///
    /// # Safety
    /// As [`Tokens::pass`].
    #[inline(always)]
    pub unsafe fn leave(this: *mut Self, token: Token) {
        // SAFETY: the caller's.
        unsafe {
            if read(&raw const (*this).before).what & DOUBTFUL == 0 {
                write(&raw mut (*this).before, read(&raw const (*this).last));
            }
            write(&raw mut (*this).last, token);
        }
    }

    /// Has the first program seen this event? `plausible`: may a token that others have passed since be this event's?
    ///
    /// # Safety
    /// As [`Tokens::pass`].
    #[inline(always)]
    pub unsafe fn take(this: *mut Self, token: Token, plausible: impl FnOnce() -> bool) -> bool {
        // SAFETY: the caller's.
        unsafe {
            let (last, before) = (read(&raw const (*this).last), read(&raw const (*this).before));
            let kept = if last == token {
                before
            } else if (last == token.doubted() || before == token.doubted()) && plausible() {
                Token::NONE
            } else {
                return false;
            };
            write(&raw mut (*this).last, kept);
            write(&raw mut (*this).before, Token::NONE);
        }
        true
    }
}

/// Read a token; what interrupts this may write it.
#[inline(always)]
unsafe fn read(token: *const Token) -> Token {
    // SAFETY: the caller's.
    unsafe { Token { sk: read_volatile(&raw const (*token).sk), what: read_volatile(&raw const (*token).what) } }
}

/// Write it.
#[inline(always)]
unsafe fn write(to: *mut Token, token: Token) {
    // SAFETY: the caller's.
    unsafe {
        write_volatile(&raw mut (*to).sk, token.sk);
        write_volatile(&raw mut (*to).what, token.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn event(sk: u64) -> Token {
        Token { sk, what: 0x401 }
    }

    /// Both programs, as the kernel runs them.
    #[derive(Default)]
    struct Cpu(Tokens);

    impl Cpu {
        fn first(&mut self, sk: u64) {
            // SAFETY: tokens of our own.
            unsafe {
                Tokens::pass(&raw mut self.0);
                Tokens::leave(&raw mut self.0, event(sk));
            }
        }

        /// Has the first seen it?
        fn second(&mut self, sk: u64) -> bool {
            // SAFETY: tokens of our own.
            unsafe { Tokens::take(&raw mut self.0, event(sk), || true) }
        }

        fn both(&mut self, sk: u64) {
            self.first(sk);
            assert!(self.second(sk), "{sk}: {:?}", self.0);
        }
    }

    #[test]
    fn one_after_the_other() {
        let mut cpu = Cpu::default();
        (1..9).for_each(|sk| cpu.both(sk));
        assert_eq!(cpu.0, Tokens::default());
        assert!(!cpu.second(9), "the first was skipped");
        assert!(!cpu.second(8), "long gone");
    }

    #[test]
    fn interrupted_between_both() {
        let mut cpu = Cpu::default();
        cpu.first(1);
        (2..9).for_each(|sk| cpu.both(sk));
        assert!(cpu.second(1));
        assert_eq!(cpu.0, Tokens::default());
    }

    #[test]
    fn interrupted_in_the_first() {
        let mut cpu = Cpu::default();
        // SAFETY: tokens of our own.
        unsafe { Tokens::pass(&raw mut cpu.0) };
        (2..9).for_each(|sk| assert!(!cpu.second(sk), "the first is skipped"));
        // SAFETY: as above.
        unsafe { Tokens::leave(&raw mut cpu.0, event(1)) };
        assert!(cpu.second(1));
    }

    #[test]
    fn interrupted_in_the_second() {
        for skipped in 1..9 {
            let mut cpu = Cpu::default();
            cpu.first(1);
            (2..2 + skipped).for_each(|sk| cpu.first(sk));
            assert!(cpu.second(1), "after {skipped}: {:?}", cpu.0);
            (20..29).for_each(|sk| cpu.both(sk));
        }
    }

    #[test]
    fn a_token_that_stayed_is_not_believed_against_what_is_known() {
        let mut cpu = Cpu::default();
        cpu.first(1);
        cpu.both(2);
        // SAFETY: tokens of our own.
        assert!(!unsafe { Tokens::take(&raw mut cpu.0, event(1), || false) });
    }
}
