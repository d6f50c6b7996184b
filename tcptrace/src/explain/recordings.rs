//! Real traffic that the pages show: a name in, a recording out.
//!
//! Each was made by `tcptrace record` between two network namespaces, and can be made anew: see tests/live_recordings.rs.

/// Name and bytes of each.
macro_rules! recordings {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!("../../recordings/", $name, ".rec")).as_slice())),*]
    };
}

/// All of them.
pub static RECORDINGS: [(&str, &[u8]); 22] = recordings![
    "backlog",
    "close_by_client",
    "close_by_server",
    "close_wait",
    "cookies",
    "fast_open",
    "fin_again",
    "fin_wait2",
    "half_close",
    "half_open",
    "keepalive",
    "long",
    "mss",
    "nagle",
    "no_answer",
    "refused",
    "rst",
    "rst_after_close",
    "simultaneous_close",
    "simultaneous_open",
    "three_segments",
    "window",
];

/// The recording of that name.
#[must_use]
pub fn recording(name: &str) -> Option<&'static [u8]> {
    RECORDINGS.iter().find(|(known, _)| *known == name).map(|&(_, bytes)| bytes)
}
