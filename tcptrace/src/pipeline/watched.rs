//! How far the reading of a long recording is, on a terminal.

use std::time::{Duration, Instant};

use crate::{
    error::Result,
    frame::Frames,
    progress,
    sink::text::{bytes, duration},
    source::{Replay, Source},
};

/// What takes no longer needs no line.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is rewritten.
const PERIOD: Duration = Duration::from_millis(200);

/// A recording whose reading shows on stderr: its share, bytes, their rate, the time that is left.
#[derive(Debug)]
pub struct Watched<'a> {
    replay: &'a mut Replay,
    /// Bytes of the file; None: not a regular one, or nobody watches.
    size: Option<u64>,
    began: Instant,
    due: Instant,
}

impl<'a> Watched<'a> {
    /// Nothing is shown if nobody wants it, or stderr is no terminal.
    pub fn new(replay: &'a mut Replay, wanted: bool) -> Self {
        let began = Instant::now();
        let size = replay.size().filter(|_| wanted && progress::width().is_some());
        Self { replay, size, began, due: began + PATIENCE }
    }

    fn show(&mut self) {
        let now = Instant::now();
        if let Some(size) = self.size
            && now >= self.due
            && let Some(width) = progress::width()
        {
            self.due = now + PERIOD;
            let text = line(self.replay.name(), self.replay.read(), size, now - self.began);
            progress::show(&text, width);
        }
    }
}

/// `day.rec: 45 %, 460M of 1.00G, 120M/s, 4.8s left`.
fn line(name: &str, read: u64, size: u64, elapsed: Duration) -> String {
    let rate = (u128::from(read) * 1_000_000_000 / elapsed.as_nanos().max(1)) as u64;
    let mut line = format!("{name}: {} %, ", u128::from(read.min(size)) * 100 / u128::from(size.max(1)));
    bytes(&mut line, read);
    line.push_str(" of ");
    bytes(&mut line, size);
    line.push_str(", ");
    bytes(&mut line, rate);
    line.push_str("/s");
    if let Some(seconds) = size.saturating_sub(read).checked_div(rate) {
        line.push_str(", ");
        duration(&mut line, seconds.saturating_mul(1_000_000_000).max(1_000_000_000));
        line.push_str(" left");
    }
    line
}

impl Source for Watched<'_> {
    const LIVE: bool = Replay::LIVE;

    async fn next(&mut self, frames: &mut Frames) -> Result<bool> {
        let more = self.replay.next(frames).await;
        match more {
            Ok(true) => self.show(),
            Ok(false) | Err(_) => progress::wipe(),
        }
        more
    }

    fn stop(&mut self) {
        self.replay.stop();
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        progress::wipe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_there_is_to_know() {
        let four = Duration::from_secs(4);
        assert_eq!(line("day.rec", 400 << 20, 1 << 30, four), "day.rec: 39 %, 400M of 1.00G, 100M/s, 6.00s left");
        assert_eq!(line("day.rec", 0, 1 << 20, four), "day.rec: 0 %, 0B of 1.00M, 0B/s");
        // It grows while it is read.
        assert_eq!(line("day.rec", 2 << 20, 1 << 20, four), "day.rec: 100 %, 2.00M of 1.00M, 512K/s, 1.00s left");
    }
}
