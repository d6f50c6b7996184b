//! Event lines that repeat: a part of a scenario → lines for `support::events`, in the order of time.
//!
//! A part happens `times` times, `every` so many microseconds, from `at` on. The time of each of its lines counts from there. `{…}` in a line
//! is a number: whole numbers, `i` (how often the part happened before), `+ - * / %` and parentheses.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    #[serde(default)]
    at: u64,
    #[serde(default)]
    every: u64,
    #[serde(default = "once")]
    times: u64,
    events: String,
}

fn once() -> u64 {
    1
}

/// All lines of all parts; what happens at the same time stays in the order of the parts.
pub fn lines(parts: &[Part]) -> Vec<String> {
    let mut lines: Vec<(u64, String)> = Vec::new();
    for part in parts {
        for i in 0..part.times {
            let begin = part.at + i * part.every;
            for line in part.events.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let line = fill(line, i);
                let (time, rest) = line.split_once(' ').unwrap_or_else(|| panic!("no kind in {line:?}"));
                let time = begin + time.parse::<u64>().unwrap_or_else(|_| panic!("no time in {line:?}"));
                lines.push((time, format!("{time} {rest}")));
            }
        }
    }
    lines.sort_by_key(|(time, _)| *time);
    lines.into_iter().map(|(_, line)| line).collect()
}

fn fill(line: &str, i: u64) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, behind)) = rest.split_once('{') {
        let (expression, after) = behind.split_once('}').unwrap_or_else(|| panic!("an open brace in {line:?}"));
        out += before;
        let mut tokens = Tokens { text: expression.as_bytes(), i };
        out += &tokens.sum().to_string();
        assert!(tokens.text.is_empty(), "{expression:?} in {line:?}");
        rest = after;
    }
    out + rest
}

struct Tokens<'a> {
    text: &'a [u8],
    i: u64,
}

impl Tokens<'_> {
    fn take(&mut self, wanted: &[u8]) -> Option<u8> {
        self.text = self.text.trim_ascii();
        let found = *self.text.first().filter(|c| wanted.contains(c))?;
        self.text = &self.text[1..];
        Some(found)
    }

    fn sum(&mut self) -> u64 {
        let mut value = self.product();
        while let Some(sign) = self.take(b"+-") {
            let other = self.product();
            value = if sign == b'+' { value + other } else { value - other };
        }
        value
    }

    fn product(&mut self) -> u64 {
        let mut value = self.one();
        while let Some(sign) = self.take(b"*/%") {
            let other = self.one();
            value = match sign {
                b'*' => value * other,
                b'/' => value / other,
                _ => value % other,
            };
        }
        value
    }

    fn one(&mut self) -> u64 {
        if self.take(b"(").is_some() {
            let value = self.sum();
            self.take(b")").expect("a closing parenthesis");
            return value;
        }
        if self.take(b"i").is_some() {
            return self.i;
        }
        let mut digits = String::new();
        while let Some(digit) = self.take(b"0123456789") {
            digits.push(digit.into());
        }
        digits.parse().unwrap_or_else(|_| panic!("no number at {:?}", String::from_utf8_lossy(self.text)))
    }
}

#[test]
fn parts_repeat_and_count() {
    let part = |at, every, times, events: &str| Part { at, every, times, events: events.to_owned() };
    let made = lines(&[part(10, 5, 3, "0 A x={i*2+1}\n1 B y={(i+7)%3}"), part(14, 0, 1, "2 C")]);
    assert_eq!(made, ["10 A x=1", "11 B y=1", "15 A x=3", "16 B y=2", "16 C", "20 A x=5", "21 B y=0"]);
}
