//! `watch` on trouble that is made for real, in namespaces of its own, and on what looks like it: the first is found, the second is not.
//!
//! Each run is recorded. With `TCPTRACE_BLESS=1` the recording is kept in `tests/findings/recordings`, named after the rule, and replayed by
//! the test `findings` from then on.

#[path = "live/support/mod.rs"]
#[expect(dead_code, reason = "the live tests use the rest")]
mod support;

#[path = "live_watch/floods.rs"]
mod floods;
#[path = "live_watch/listeners.rs"]
mod listeners;
#[path = "live_watch/peers.rs"]
mod peers;
#[path = "support/recorded.rs"]
mod recorded;
#[path = "live_watch/sockets.rs"]
mod sockets;
#[path = "support/watching.rs"]
mod watching;
