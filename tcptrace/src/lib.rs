//! tcptrace: traces the kernel's own TCP state machine. One direction:
//!
//! ```text
//! kernel hook → record → ring per CPU → merge → frame → decode → event → tracker → change → sinks
//! ```
//!
//! | module | in → out |
//! |---|---|
//! | [`kernel`] | what this kernel offers; loads, attaches, snapshots |
//! | [`source`] | live kernel or recording → [`frame`]s |
//! | [`stack`] | copies of user-space stacks → functions |
//! | [`recording`] | frames ↔ file |
//! | [`decode`] | frame → [`decode::Event`] |
//! | [`model`] | the words of everything above the decoder: states, ends, connections |
//! | [`tracker`] | events → changes; pure |
//! | [`filter`] | which connections are wanted |
//! | [`group`] | connections by what they have in common |
//! | [`report`] | changes → what a recording comes to |
//! | [`sink`] | changes → text or JSON on a writer |
//! | [`pipeline`] | the one place where they are wired |
//! | [`progress`] | a line on the terminal that is rewritten in place |
//! | [`explain`] | a state's or a term's name → its page |
//! | [`wrap`] | text → lines of a width |
//! | [`cli`] | arguments → one validated configuration |

pub mod cli;
pub mod decode;
pub mod detect;
pub mod error;
pub mod explain;
pub mod filter;
pub mod frame;
pub mod group;
pub mod kernel;
pub mod model;
pub mod pipeline;
pub mod progress;
pub mod recording;
pub mod report;
pub mod sink;
pub mod source;
pub mod stack;
pub mod tracker;
pub mod wrap;
