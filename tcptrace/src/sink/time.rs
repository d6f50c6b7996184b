//! Nanoseconds since 1970 → RFC 3339 in UTC, fast: the seconds part is kept between calls.

/// "2026-11-21T12:03:04", and the second it stands for.
#[derive(Clone, Debug)]
pub struct Stamp {
    second: i64,
    text: [u8; 19],
}

impl Default for Stamp {
    fn default() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00" }
    }
}

const SECOND: i64 = 1_000_000_000;

impl Stamp {
    /// Append `2026-11-21T12:03:04.000000042Z`. Years 0 to 9999.
    #[inline]
    pub fn write(&mut self, out: &mut Vec<u8>, ns: i64) {
        let second = ns.div_euclid(SECOND);
        if second != self.second {
            self.set(second);
        }
        let mut text = [b'Z'; 30];
        text[..19].copy_from_slice(&self.text);
        text[19] = b'.';
        digits(&mut text[20..29], ns.rem_euclid(SECOND) as u32);
        out.extend_from_slice(&text);
    }

    #[cold]
    fn set(&mut self, second: i64) {
        self.second = second;
        let (days, rest) = (second.div_euclid(86_400), second.rem_euclid(86_400) as u32);
        let (year, month, day) = civil(days);
        digits(&mut self.text[0..4], year);
        digits(&mut self.text[5..7], month);
        digits(&mut self.text[8..10], day);
        digits(&mut self.text[11..13], rest / 3600);
        digits(&mut self.text[14..16], rest / 60 % 60);
        digits(&mut self.text[17..19], rest % 60);
    }
}

/// `n` with leading zeroes in all of `to`.
#[inline]
pub fn digits(to: &mut [u8], mut n: u32) {
    for d in to.iter_mut().rev() {
        *d = b'0' + (n % 10) as u8;
        n /= 10;
    }
}

/// Days since 1970-01-01 → year, month, day of the Gregorian calendar (H. Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`).
fn civil(days: i64) -> (u32, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year as u32, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rfc3339(stamp: &mut Stamp, ns: i64) -> String {
        let mut out = Vec::new();
        stamp.write(&mut out, ns);
        String::from_utf8(out).expect("digits")
    }

    #[test]
    fn known_times() {
        let mut s = Stamp::default();
        assert_eq!(rfc3339(&mut s, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(&mut s, 951_782_400 * SECOND + 42), "2000-02-29T00:00:00.000000042Z");
        assert_eq!(rfc3339(&mut s, -1), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn agrees_with_jiff_for_290_years() {
        let mut s = Stamp::default();
        for day in 0..106_000 {
            let second = day * 86_400 + day % 86_399;
            let want = jiff::Timestamp::from_second(second).expect("in range");
            assert_eq!(
                rfc3339(&mut s, second * SECOND + 5),
                format!("{}.000000005Z", want.strftime("%Y-%m-%dT%H:%M:%S"))
            );
        }
    }
}
