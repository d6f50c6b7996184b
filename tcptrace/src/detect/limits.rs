//! What the behaviour of rules depends on: numbers with names, units and defaults.

use super::config::Config;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things: `100`.
    Count,
    /// Things a second: `100/s`.
    PerSecond,
    /// A share of a hundred: `5%`.
    Percent,
    /// A time: `500ms`, `10s`, `5m`, `1h`.
    Time,
    /// So many times as much as something else: `10x`.
    Times,
}

impl Unit {
    /// What a value looks like.
    #[must_use]
    pub const fn looks(self) -> &'static str {
        match self {
            Self::Count => "a number such as 100",
            Self::PerSecond => "a rate such as \"100/s\"",
            Self::Percent => "a share such as \"5%\"",
            Self::Time => "a time such as \"500ms\", \"10s\", \"5m\" or \"1h\"",
            Self::Times => "a factor such as \"10x\"",
        }
    }

    /// A value from its text; times in seconds. None: it is none of this unit.
    #[must_use]
    pub fn parse(self, text: &str) -> Option<f64> {
        let number = |text: &str| {
            let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !text.starts_with('.');
            text.parse::<f64>().ok().filter(|n| plain && n.is_finite())
        };
        match self {
            Self::Count => number(text).filter(|n| n.fract() == 0.0),
            Self::PerSecond => number(text.strip_suffix("/s")?),
            Self::Percent => number(text.strip_suffix('%')?.trim_end()).filter(|n| *n <= 100.0),
            Self::Times => number(text.strip_suffix('x')?),
            Self::Time => {
                let end = text.find(|c: char| c.is_ascii_alphabetic())?;
                let unit = match &text[end..] {
                    "us" => 1e-6,
                    "ms" => 1e-3,
                    "s" => 1.0,
                    "m" => 60.0,
                    "h" => 3600.0,
                    _ => return None,
                };
                number(&text[..end]).map(|n| n * unit)
            }
        }
    }
}

/// One number that a rule depends on.
#[derive(Debug)]
pub struct Limit {
    /// Its name in a configuration.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// Its value, as in a configuration but without quotes.
    pub default: &'static str,
    /// What it means, one line.
    pub about: &'static str,
}

/// What every rule has: how long trouble lasts before it is told.
pub const FIRES_AFTER: Limit =
    Limit { name: "fires_after", unit: Unit::Time, default: "", about: "Trouble lasts so long before it is told" };
/// What every rule has: how long it is gone before that is told.
pub const RESOLVES_AFTER: Limit = Limit {
    name: "resolves_after",
    unit: Unit::Time,
    default: "",
    about: "It is gone for so long before that is told",
};

/// The limits of one rule, in force.
#[derive(Debug)]
pub struct Limits<'a> {
    pub(super) config: &'a Config,
    pub(super) rule: usize,
    pub(super) port: Option<u16>,
}

impl Limits<'_> {
    /// Those for something at this local (of a listener) or remote (of a peer that is asked) port.
    #[must_use]
    pub fn at(&self, port: Option<u16>) -> Self {
        Limits { config: self.config, rule: self.rule, port }
    }

    /// Is the rule on at this port?
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.config.is_on_at(self.rule, self.port)
    }

    /// A number, a rate, a factor, a share of a hundred, seconds.
    #[must_use]
    pub fn number(&self, limit: &Limit) -> f64 {
        self.config.value(self.rule, limit, self.port)
    }

    /// A count.
    #[must_use]
    pub fn count(&self, limit: &Limit) -> u64 {
        self.number(limit) as u64
    }

    /// A time, nanoseconds.
    #[must_use]
    pub fn ns(&self, limit: &Limit) -> u64 {
        (self.number(limit) * 1e9) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_units() {
        for (unit, text, value) in [
            (Unit::Count, "100", Some(100.0)),
            (Unit::Count, "1.5", None),
            (Unit::Count, "-1", None),
            (Unit::PerSecond, "0.5/s", Some(0.5)),
            (Unit::PerSecond, "5", None),
            (Unit::PerSecond, "5/m", None),
            (Unit::Percent, "5%", Some(5.0)),
            (Unit::Percent, "101%", None),
            (Unit::Time, "500ms", Some(0.5)),
            (Unit::Time, "2m", Some(120.0)),
            (Unit::Time, "5", None),
            (Unit::Time, "5kg", None),
            (Unit::Time, "-5s", None),
            (Unit::Times, "10x", Some(10.0)),
            (Unit::Times, "x", None),
            (Unit::Count, "inf", None),
            (Unit::Count, "1e3", None),
        ] {
            assert_eq!(unit.parse(text), value, "{text}");
        }
    }
}
