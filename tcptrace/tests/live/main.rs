//! Live tests: the binary against the running kernel, in network namespaces that the tests make and remove.
//!
//! They need root, iproute2, curl, nginx, and libbpf-tools' `tcpstates`. Every connection is asserted whole: its states in
//! order, its process, its role, how it ended, who closed first, its byte counts. Tests named `quick_…` are the fastest.

mod close;
mod compare;
mod filters;
mod open;
mod process;
mod recording;
mod refusals;
mod start;
mod support;
