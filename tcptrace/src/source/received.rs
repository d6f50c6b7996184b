//! When sockets that processes were given are looked for: again and again, on a thread of its own, at a hundredth of a CPU at most.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use crate::kernel::{Error, received::Received};

/// From one look to the next.
const PERIOD: Duration = Duration::from_millis(100);
/// The same in durations of a look.
const PERIOD_FACTOR: u32 = 100;

/// Ends when it is dropped.
pub(super) struct Looking {
    _until: mpsc::Sender<()>,
}

impl Looking {
    /// Begin.
    ///
    /// # Errors
    /// [`Error::Load`]: no thread could be had.
    pub fn start(mut received: Received) -> Result<Self, Error> {
        let (until, ended) = mpsc::channel();
        let look = move || {
            let mut pause = PERIOD;
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let began = Instant::now();
                received.look();
                pause = PERIOD.max(began.elapsed().saturating_mul(PERIOD_FACTOR));
            }
        };
        let thread = std::thread::Builder::new().name("received".to_owned()).spawn(look);
        thread.map_err(|e| Error::load("starting to look for sockets that were passed", e))?;
        Ok(Self { _until: until })
    }
}
