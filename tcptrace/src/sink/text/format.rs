//! Durations, sizes and times in few columns.

use std::fmt::Write;

use jiff::tz::TimeZone;

/// `--time`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeMode {
    /// Wall clock, in the time zone of whoever looks.
    #[default]
    Local,
    /// Wall clock, UTC.
    Utc,
    /// Seconds on CLOCK_MONOTONIC.
    Mono,
    /// Time since the line before.
    Delta,
}

/// Append a duration in at most five columns: `0µs` `1.2ms` `12ms` `1.23s` `12.3s` `5m03s` `59m` `12.5h` `400d`.
pub fn duration(out: &mut String, ns: u64) {
    const M: u64 = 60;
    const H: u64 = 60 * M;
    let us = ns / 1000;
    let s = us / 1_000_000;
    match s {
        _ if us < 1000 => write!(out, "{us}µs"),
        _ if us < 10_000 => write!(out, "{}.{}ms", us / 1000, us / 100 % 10),
        0 => write!(out, "{}ms", us / 1000),
        1..M => return three_digits(out, us, 1_000_000, "s"),
        _ if s < 10 * M => write!(out, "{}m{:02}s", s / M, s % M),
        _ if s < H => write!(out, "{}m", s / M),
        _ if s < 100 * H => write!(out, "{}.{}h", s / H, s % H * 10 / H),
        _ => write!(out, "{}d", s / (24 * H)),
    }
    .expect("a String takes everything");
}

/// Append `n / unit`, rounded down to three digits.
fn three_digits(out: &mut String, n: u64, unit: u64, name: &str) {
    let whole = n / unit;
    let thousandths = n % unit * 1000 / unit;
    match whole {
        0..10 => write!(out, "{whole}.{:02}{name}", thousandths / 10),
        10..100 => write!(out, "{whole}.{}{name}", thousandths / 100),
        _ => write!(out, "{whole}{name}"),
    }
    .expect("a String takes everything");
}

/// Append a number of bytes in at most five columns: `0B` `999B` `1.20K` `34.0K` `5.00G`; K is 1024.
pub fn bytes(out: &mut String, n: u64) {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if n < 1024 {
        return write!(out, "{n}B").expect("a String takes everything");
    }
    let mut unit = 1024;
    let mut name = 0;
    while n / unit >= 1024 && name + 1 < UNITS.len() {
        unit *= 1024;
        name += 1;
    }
    let n = u128::from(n) * 1000 / u128::from(unit);
    three_digits(out, n as u64, 1000, UNITS[name]);
}

/// Append how many a second `n` in an interval are: `0` `1.5` `120` `12.3k`.
pub fn rate(s: &mut String, n: Option<u64>, interval_us: u64) {
    let Some(n) = n else { return s.push('-') };
    let tenths = n * 10_000_000 / interval_us.max(1);
    match tenths {
        0 if n > 0 => write!(s, "<.1"),
        0..100 if !tenths.is_multiple_of(10) => write!(s, "{}.{}", tenths / 10, tenths % 10),
        0..100_000 => write!(s, "{}", tenths / 10),
        100_000..10_000_000 => write!(s, "{}.{}k", tenths / 10_000, tenths / 1000 % 10),
        _ => write!(s, "{}M", tenths / 10_000_000),
    }
    .expect("a String takes everything");
}

/// Shows moments in one of the modes.
#[derive(Debug)]
pub struct Clock {
    mode: TimeMode,
    zone: TimeZone,
    offset_ns: Option<i64>,
    last: Option<u64>,
    /// The second for which `text` is right.
    second: i64,
    text: [u8; 8],
}

impl Clock {
    /// `zone` is used by [`TimeMode::Local`] only.
    #[must_use]
    pub fn new(mode: TimeMode, zone: TimeZone) -> Self {
        Self { mode, zone, offset_ns: None, last: None, second: i64::MIN, text: *b"00:00:00" }
    }

    /// CLOCK_REALTIME minus CLOCK_MONOTONIC from here on.
    pub fn set_offset(&mut self, ns: i64) {
        self.offset_ns = Some(ns);
    }

    /// Columns that a moment takes with so many digits behind the second.
    #[must_use]
    pub fn width(&self, decimals: usize) -> usize {
        match self.mode {
            TimeMode::Local | TimeMode::Utc => 8 + if decimals == 0 { 0 } else { 1 + decimals },
            TimeMode::Mono => 8 + decimals,
            TimeMode::Delta => 6,
        }
    }

    /// Append a moment. Without a known wall clock every mode but delta shows seconds on CLOCK_MONOTONIC.
    pub fn write(&mut self, out: &mut String, ts: u64, decimals: usize) {
        let last = self.last.replace(ts);
        match (self.mode, self.offset_ns) {
            (TimeMode::Delta, _) => {
                out.push('+');
                duration(out, last.map_or(0, |last| ts.saturating_sub(last)));
            }
            (TimeMode::Local | TimeMode::Utc, Some(offset)) => {
                let ns = offset.wrapping_add(ts as i64);
                self.wall_clock(ns.div_euclid(1_000_000_000));
                out.extend(self.text.iter().map(|&b| char::from(b)));
                fraction(out, ns.rem_euclid(1_000_000_000) as u64, decimals);
            }
            (TimeMode::Local | TimeMode::Utc | TimeMode::Mono, _) => {
                write!(out, "{}", ts / 1_000_000_000).expect("a String takes everything");
                // Without a fraction it would be of little use.
                fraction(out, ts % 1_000_000_000, decimals.max(3));
            }
        }
    }

    fn wall_clock(&mut self, second: i64) {
        if second == self.second {
            return;
        }
        self.second = second;
        let mut shown = second;
        if self.mode == TimeMode::Local
            && let Ok(t) = jiff::Timestamp::from_second(second)
        {
            shown += i64::from(self.zone.to_offset(t).seconds());
        }
        let s = shown.rem_euclid(86_400) as u32;
        crate::sink::time::digits(&mut self.text[0..2], s / 3600);
        crate::sink::time::digits(&mut self.text[3..5], s / 60 % 60);
        crate::sink::time::digits(&mut self.text[6..8], s % 60);
    }
}

fn fraction(out: &mut String, ns: u64, decimals: usize) {
    if decimals > 0 {
        let n = ns / 10u64.pow(9 - decimals as u32);
        write!(out, ".{n:0decimals$}").expect("a String takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_five_columns() {
        let show = |ns| {
            let mut out = String::new();
            duration(&mut out, ns);
            out
        };
        let cases = [
            (999, "0µs"),
            (999_999, "999µs"),
            (1_299_567, "1.2ms"),
            (12_945_678, "12ms"),
            (999_999_999, "999ms"),
            (1_005_000_000, "1.00s"),
            (59_999_000_000, "59.9s"),
            (60_000_000_000, "1m00s"),
            (599_000_000_000, "9m59s"),
            (3_599_000_000_000, "59m"),
            (45_000_000_000_000, "12.5h"),
            (359_999_000_000_000, "99.9h"),
            (360_000_000_000_000, "4d"),
        ];
        for (ns, want) in cases {
            assert_eq!(show(ns), want);
            assert!(want.chars().count() <= 5);
        }
    }

    #[test]
    fn sizes_in_five_columns() {
        for (n, want) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (34_000, "33.2K"),
            (1_048_575, "1023K"),
            (5 << 30, "5.00G"),
            (u64::MAX, "15.9E"),
        ] {
            let mut out = String::new();
            bytes(&mut out, n);
            assert_eq!(out, want);
        }
    }

    #[test]
    fn times_in_every_mode() {
        let show = |mode, decimals, offset: Option<i64>| {
            let zone = TimeZone::fixed(jiff::tz::offset(2));
            let mut clock = Clock::new(mode, zone);
            if let Some(ns) = offset {
                clock.set_offset(ns);
            }
            let mut out = String::new();
            clock.write(&mut out, 1_234_567_890, decimals);
            out.push(' ');
            clock.write(&mut out, 1_236_567_890, decimals);
            out
        };
        let offset = Some(crate::model::fixture::OFFSET);
        assert_eq!(show(TimeMode::Local, 3, offset), "14:03:05.234 14:03:05.236");
        assert_eq!(show(TimeMode::Utc, 0, offset), "12:03:05 12:03:05");
        assert_eq!(show(TimeMode::Mono, 6, offset), "1.234567 1.236567");
        assert_eq!(show(TimeMode::Delta, 6, offset), "+0µs +2.0ms");
        assert_eq!(show(TimeMode::Utc, 3, None), "1.234 1.236");
    }
}
