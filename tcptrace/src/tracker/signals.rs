//! Which signals the trace was made with, as its start says: what they would have told is known, the rest is not.

use crate::frame::fact;

/// Served by some hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signals {
    pub half_open: bool,
    pub syn_outcome: bool,
    pub accept_queue: bool,
    pub overflow: bool,
    pub cookies: bool,
    pub fast_open: bool,
    pub migration: bool,
    pub time_wait: bool,
    pub accept: bool,
    pub synack_retransmit: bool,
    pub segments_not_taken: bool,
}

impl Signals {
    /// Those of the start for whose hook `counts` is true.
    fn of(start: &fact::Start, counts: impl Fn(&str) -> bool) -> Self {
        let has = |name: &str| start.signals.iter().any(|(signal, hook)| signal == name && counts(hook));
        Self {
            half_open: has("half_open"),
            syn_outcome: has("syn_outcome"),
            accept_queue: has("accept_queue"),
            overflow: has("overflow"),
            cookies: has("cookies"),
            fast_open: has("fast_open"),
            migration: has("migration"),
            time_wait: has("time_wait"),
            accept: has("accept"),
            synack_retransmit: has("synack_retransmit"),
            segments_not_taken: has("segments_not_taken"),
        }
    }

    /// Those that some hook serves; counters and samples say nothing of single events.
    pub fn served(start: &fact::Start) -> Self {
        Self::of(start, |hook| hook != "none" && !hook.starts_with("counters"))
    }

    /// Does one of them tell of listeners' queues? Then intervals will come, too.
    pub fn queues(self) -> bool {
        self.half_open || self.syn_outcome || self.accept_queue || self.overflow || self.cookies
    }

    /// Those that a hook serves which sees every event: on the functions themselves.
    pub fn exact(start: &fact::Start) -> Self {
        Self::of(start, |hook| ["fentry", "fexit", "kprobe", "kretprobe"].iter().any(|tier| hook.starts_with(tier)))
    }
}
