//! Live tests: the binary against the running kernel, in network namespaces that the tests make and remove.
//!
//! They need root, iproute2, curl, nginx, and libbpf-tools' `tcpstates`. Every connection is asserted whole: its states in
//! order, its process, its role, how it ended, who closed first, its byte counts. Tests named `quick_…` are the fastest.

#[path = "live/queues/agreement.rs"]
mod agreement;
#[path = "live/cgroup.rs"]
mod cgroup;
#[path = "live/close.rs"]
mod close;
#[path = "live/command.rs"]
mod command;
#[path = "live/compare.rs"]
mod compare;
#[path = "live/filters.rs"]
mod filters;
#[path = "live/flood.rs"]
mod flood;
#[path = "live/groups.rs"]
mod groups;
#[path = "live/ladder.rs"]
mod ladder;
#[path = "live/listeners.rs"]
mod listeners;
#[path = "live/open.rs"]
mod open;
#[path = "live/options.rs"]
mod options;
#[path = "live/process.rs"]
mod process;
#[path = "live/queues/accept_wait.rs"]
mod queues_accept_wait;
#[path = "live/queues/half_open.rs"]
mod queues_half_open;
#[path = "live/queues/handshake.rs"]
mod queues_handshake;
#[path = "live/queues/listeners.rs"]
mod queues_listeners;
#[path = "live/queues/namespaces.rs"]
mod queues_namespaces;
#[path = "live/queues/overflow.rs"]
mod queues_overflow;
#[path = "live/queues/stress.rs"]
mod queues_stress;
#[path = "live/queues/syn_queue.rs"]
mod queues_syn_queue;
#[path = "live/queues/time_wait.rs"]
mod queues_time_wait;
#[path = "live/queues/tun.rs"]
mod queues_tun;
#[path = "live/received.rs"]
mod received;
#[path = "support/recorded.rs"]
mod recorded;
#[path = "live/recording.rs"]
mod recording;
#[path = "live/refusals.rs"]
mod refusals;
#[path = "live/resync.rs"]
mod resync;
#[path = "live/scans.rs"]
mod scans;
#[path = "live/signals.rs"]
mod signals;
#[path = "live/stacks.rs"]
mod stacks;
#[path = "live/start.rs"]
mod start;
#[path = "live/storm.rs"]
mod storm;
#[path = "live/support/mod.rs"]
mod support;
#[path = "live/tiers.rs"]
mod tiers;
#[path = "support/watching.rs"]
#[expect(dead_code, reason = "the live tests of `watch` use the rest")]
mod watching;
