//! One line on a terminal that is rewritten in place, and wiped before anything else is written there.
//!
//! Whoever writes to stdout or stderr asks for that: what is on a terminal is the process' and no single part's. A line is shown
//! beside an output that goes to a file; where the output may reach the terminal (it is one, or a pipe), only until it begins.

use std::{
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use rustix::fs::FileType;

/// A line is there.
static SHOWN: AtomicBool = AtomicBool::new(false);
/// Output has begun; it may be on the terminal, too.
static BEGUN: AtomicBool = AtomicBool::new(false);
static OVER: AtomicBool = AtomicBool::new(false);

/// The columns of the terminal behind stderr; None: there is none, and nothing is shown.
#[must_use]
pub fn width() -> Option<usize> {
    let stderr = rustix::stdio::stderr();
    if !rustix::termios::isatty(stderr) {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(stderr).map_or(0, |size| usize::from(size.ws_col));
    Some(if columns == 0 { 80 } else { columns })
}

/// Show a line in place of the last one, if it is in nobody's way. A terminal that is gone is nobody's concern.
pub fn show(line: &str, width: usize) {
    if OVER.load(Relaxed) {
        return;
    }
    // A line that wraps cannot be wiped.
    let line: String = line.chars().take(width.saturating_sub(1)).collect();
    SHOWN.store(true, Relaxed);
    let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
}

/// Wipe it: something else is written to stderr now.
pub fn wipe() {
    if SHOWN.swap(false, Relaxed) {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}

/// Wipe it, and show no more, if what is written to stdout now may show on the terminal.
pub fn output() {
    if !BEGUN.swap(true, Relaxed) && is_in_sight() {
        OVER.store(true, Relaxed);
        wipe();
    }
}

/// May what is written to stdout show on the terminal?
fn is_in_sight() -> bool {
    let stdout = rustix::stdio::stdout();
    match rustix::fs::fstat(stdout).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::RegularFile) => false,
        Ok(FileType::CharacterDevice) => rustix::termios::isatty(stdout),
        _ => true,
    }
}
