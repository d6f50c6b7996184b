//! Two programs on one hook.
//!
//! The kernel does not run a program on a CPU where it is running already: what a softirq does that interrupts it there, or a process
//! that is put in the place of another (Linux 7 preempts programs, too), would be lost. So there are two: the second runs right behind
//! the first, and takes what that had to skip.
//!
//! The first leaves a token of what it saw, which the second takes away; mostly that is all it has to do. What interrupts them
//! leaves its own on top, and takes it away, unless it interrupts the second, which is then skipped. Such a token stays, and the
//! next socket at the same address may look like it: a token that was there before another event is believed only if nothing else
//! speaks against it.

use core::ptr::{read_volatile, write_volatile};

use tcptrace_common::settings::Token;

use crate::maps::STATS;

/// In a token's [`Token::what`]: another event has passed since.
const DOUBTFUL: u64 = 1 << 16;

/// No token.
const NONE: Token = Token { sk: 0, what: 0 };

/// The first of two: do what is to be done about the event that `token` stands for.
#[inline(always)]
pub fn first(pair: usize, token: Token, act: impl FnOnce()) {
    let Some(tokens) = tokens(pair) else { return };
    let last = read(tokens, 0);
    if last.sk != 0 {
        write(tokens, 0, Token { what: last.what | DOUBTFUL, ..last });
    }
    act();
    write(tokens, 1, read(tokens, 0));
    write(tokens, 0, token);
}

/// The second of two: has the first seen the event? If not, it is counted, and up to the caller. `plausible`: may a token that others
/// have passed since be this event's?
#[inline(always)]
pub fn is_seen(pair: usize, token: Token, plausible: impl FnOnce() -> bool) -> bool {
    let Some(tokens) = tokens(pair) else { return true };
    let (last, before) = (read(tokens, 0), read(tokens, 1));
    if last == token {
        write(tokens, 0, before);
        write(tokens, 1, NONE);
        return true;
    }
    let doubted = Token { what: token.what | DOUBTFUL, ..token };
    if (last == doubted || before == doubted) && plausible() {
        write(tokens, 0, NONE);
        write(tokens, 1, NONE);
        return true;
    }
    if let Some(stats) = STATS.get_ptr_mut(0) {
        // SAFETY: this CPU's own entry.
        unsafe { (*stats).nested[pair] += 1 }
    }
    false
}

type Tokens = *mut [Token; 2];

#[inline(always)]
fn tokens(pair: usize) -> Option<Tokens> {
    // SAFETY: this CPU's own entry; `pair` is a constant below the array's length.
    STATS.get_ptr_mut(0).map(|stats| unsafe { &raw mut (*stats).tokens[pair] })
}

/// Read a token; what interrupts this may write it.
#[inline(always)]
fn read(tokens: Tokens, at: usize) -> Token {
    let token = tokens.cast::<Token>().wrapping_add(at);
    // SAFETY: `at` is below the array's length.
    unsafe { Token { sk: read_volatile(&raw const (*token).sk), what: read_volatile(&raw const (*token).what) } }
}

/// Write it.
#[inline(always)]
fn write(tokens: Tokens, at: usize, token: Token) {
    let to = tokens.cast::<Token>().wrapping_add(at);
    // SAFETY: as above.
    unsafe {
        write_volatile(&raw mut (*to).sk, token.sk);
        write_volatile(&raw mut (*to).what, token.what);
    }
}
