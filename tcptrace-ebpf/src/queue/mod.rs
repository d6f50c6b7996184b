//! Listeners' queues, one handler per event; each tier's object has the entry points.
//!
//! | module | events | fentry.o and kprobe.o | tracepoint.o |
//! |---|---|---|---|
//! | [`syn`] | a SYN came; queued, answered with a cookie, dropped | `conn_request` `conn_request_exit` `cookie_v4` `cookie_v6` | – |
//! | [`half_open`] | into the SYN queue, out of it, to another listener; a segment not taken | `hash_add_exit` `queue_drop_exit` `req_err` `check_req_exit` `clone_exit` | `timers` |
//! | [`accept_queue`] | into the accept queue; final ACK refused | `hashdance` `hashdance_exit` `cookie_child_exit` `fast_open_exit` `syn_recv_v4_exit` `syn_recv_v6_exit` (kprobe: `established`) | `state_marks` `sk_data_ready` `kfree_skb` |
//! | [`time_wait`] | into TIME_WAIT and out of it | `time_wait` `time_wait_kill` | `timers` |
//!
//! kprobe.o has, for each `NAME_exit`, the entry `NAME` too, which keeps the arguments; both belong together. Its `established` is
//! a typed tracepoint that gives completions their child's cookie. `conn_request_exit` takes a SYN for dropped that none of
//! `hash_add_exit`, `cookie_v4`, `cookie_v6` and `fast_open_exit` saw: it is to be attached only with those.
//! `timers` are `timer_start`, `timer_cancel`, `timer_expire_entry` and `timer_expire_exit`, which belong together, with `state_marks`.
//!
//! What became of a request is decided at the exit of the kernel's functions, when depths have changed; where a hook comes
//! before the change, the depth is corrected by one and marked so.

#![expect(dead_code, reason = "each object uses the handlers of its hooks")]

pub mod accept_queue;
pub mod half_open;
pub mod request;
pub mod syn;
pub mod time_wait;
