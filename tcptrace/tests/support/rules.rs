//! Event lines → what rules find in them.

use tcptrace::{
    decode::{Event, decode},
    detect::{Detect, config::Config},
    frame::Frames,
    model::Finding,
    tracker::{Stats, Tracker},
};

use crate::support::events;

/// What was found, and what the tracker counted. Rules are asked as a pipeline asks them: at each tick, and when an interval has been told.
pub fn play<'a>(config: Config, lines: impl IntoIterator<Item = &'a String>) -> (Vec<Finding>, Stats) {
    let mut numbers = events::Numbers::default();
    let (mut tracker, mut detect) = (Tracker::new(), Detect::new(config));
    let mut frames = Frames::default();
    for line in lines {
        frames.clear();
        events::push(&mut frames, &mut numbers, line);
        for record in frames.iter() {
            let event = decode(record).expect("a record that was just made");
            match &event {
                Event::Start(_) => detect.start(),
                Event::Tick(ts) => detect.check(*ts),
                _ => {}
            }
            tracker.event(&event, &mut detect.seen);
            // The reading at the start tells of none.
            if let Event::Interval(ts, fact) = event
                && fact.interval_us > 0
            {
                detect.check(ts);
            }
        }
    }
    (detect.findings.into(), tracker.stats())
}
