//! Two programs on one hook.
//!
//! The kernel does not run a program on a CPU where it is running already: what a softirq does that interrupts it there, or a process
//! that is put in the place of another (Linux 7 preempts programs, too), would be lost. So there are two: the second runs right behind
//! the first, and takes what that had to skip. By [`tcptrace_common::pair`] it knows what that was; mostly nothing.

use tcptrace_common::pair::{Token, Tokens};

use crate::maps::STATS;

/// The first of two: do what is to be done about the event that `token` stands for.
#[inline(always)]
pub fn first(pair: usize, token: Token, act: impl FnOnce()) {
    let Some(tokens) = tokens(pair) else { return };
    // SAFETY: this CPU's own.
    unsafe { Tokens::pass(tokens) };
    act();
    // SAFETY: as above.
    unsafe { Tokens::leave(tokens, token) };
}

/// The second of two: has the first seen the event? If not, it is counted, and up to the caller. `plausible`: may a token that others
/// have passed since be this event's?
#[inline(always)]
pub fn is_seen(pair: usize, token: Token, plausible: impl FnOnce() -> bool) -> bool {
    let Some(tokens) = tokens(pair) else { return true };
    // SAFETY: this CPU's own.
    let seen = unsafe { Tokens::take(tokens, token, plausible) };
    if !seen && let Some(stats) = STATS.get_ptr_mut(0) {
        // SAFETY: this CPU's own entry.
        unsafe { (*stats).nested[pair] += 1 }
    }
    seen
}

#[inline(always)]
fn tokens(pair: usize) -> Option<*mut Tokens> {
    // SAFETY: this CPU's own entry; `pair` is a constant below the array's length.
    STATS.get_ptr_mut(0).map(|stats| unsafe { &raw mut (*stats).tokens[pair] })
}
