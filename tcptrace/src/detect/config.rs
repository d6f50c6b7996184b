//! Limits of rules from a file: TOML with a table for each rule, and `[[ports]]` with other limits at some ports.

use std::{fmt::Write as _, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    limits::{FIRES_AFTER, Limit, Limits, RESOLVES_AFTER, Unit},
    rule::Rule,
    rules::RULES,
};
use crate::model::Ports;

/// All limits, in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// By rule.
    rules: Vec<Settings>,
    /// The later one counts.
    ports: Vec<AtPorts>,
}

#[derive(Clone, Debug)]
struct Settings {
    on: bool,
    /// In the order of [`limits_of`].
    values: Vec<f64>,
}

#[derive(Clone, Debug)]
struct AtPorts {
    ports: Vec<Ports>,
    /// By rule; what is None is as elsewhere.
    rules: Vec<(Option<bool>, Vec<Option<f64>>)>,
}

/// What is wrong with a configuration, and where: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// From 1.
    pub line: usize,
    /// From 1, characters.
    pub column: usize,
    /// What, and what would be right.
    pub what: String,
}

impl Default for Config {
    fn default() -> Self {
        let settings = |rule: &Rule| Settings { on: true, values: limits_of(rule).map(|l| default(rule, l)).collect() };
        Self { rules: RULES.iter().map(settings).collect(), ports: Vec::new() }
    }
}

/// Those of every rule, then its own.
pub fn limits_of(rule: &Rule) -> impl Iterator<Item = &'static Limit> + use<> {
    [&FIRES_AFTER, &RESOLVES_AFTER].into_iter().chain(rule.limits.iter().copied())
}

/// A limit's default, as in a configuration but without quotes.
#[must_use]
pub fn default_text(rule: &Rule, limit: &Limit) -> &'static str {
    match limit.name {
        name if name == FIRES_AFTER.name => rule.fires_after,
        name if name == RESOLVES_AFTER.name => rule.resolves_after,
        _ => limit.default,
    }
}

/// A test reads all of them.
fn default(rule: &Rule, limit: &Limit) -> f64 {
    limit.unit.parse(default_text(rule, limit)).unwrap_or_default()
}

impl Config {
    /// Read a file's text.
    ///
    /// # Errors
    /// The first thing in it that makes no sense.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let reader = Reader { text };
        let table = DeTable::parse(text).map_err(|e| {
            let what = e.message().lines().collect::<Vec<_>>().join("; ");
            reader.wrong(e.span().unwrap_or(0..0), what)
        })?;
        let mut config = Self::default();
        for (key, value) in table.get_ref() {
            if key.get_ref() == "ports" {
                let DeValue::Array(list) = value.get_ref() else {
                    return Err(reader.wrong(key.span(), "ports is a list of tables: [[ports]]".to_owned()));
                };
                for entry in list {
                    config.ports.push(reader.at_ports(entry)?);
                }
                continue;
            }
            let number = reader.rule(key)?;
            let (on, values) = reader.settings(number, key, value)?;
            let settings = &mut config.rules[number];
            settings.on = on.unwrap_or(settings.on);
            settings.values.iter_mut().zip(values).for_each(|(old, new)| *old = new.unwrap_or(*old));
        }
        Ok(config)
    }

    /// Is the rule on anywhere?
    pub(super) fn is_on(&self, rule: usize) -> bool {
        self.rules[rule].on || self.ports.iter().any(|at| at.rules[rule].0 == Some(true))
    }

    pub(super) fn limits(&self, rule: usize) -> Limits<'_> {
        Limits { config: self, rule, port: None }
    }

    /// What is said of this port, the latest first.
    fn at(&self, port: Option<u16>) -> impl Iterator<Item = &AtPorts> {
        let covers = move |at: &&AtPorts| port.is_some_and(|port| at.ports.iter().any(|ports| ports.contains(port)));
        self.ports.iter().rev().filter(covers)
    }

    pub(super) fn is_on_at(&self, rule: usize, port: Option<u16>) -> bool {
        self.at(port).find_map(|at| at.rules[rule].0).unwrap_or(self.rules[rule].on)
    }

    pub(super) fn value(&self, rule: usize, limit: &Limit, port: Option<u16>) -> f64 {
        let place = limits_of(&RULES[rule]).position(|l| l.name == limit.name);
        debug_assert!(place.is_some(), "{} is no limit of {}", limit.name, RULES[rule].name);
        let Some(place) = place else { return limit.unit.parse(limit.default).unwrap_or_default() };
        self.at(port).find_map(|at| at.rules[rule].1[place]).unwrap_or(self.rules[rule].values[place])
    }
}

/// Every rule and limit with its default, as a configuration.
#[must_use]
pub fn printed() -> String {
    let mut out = String::from(
        "# What tcptrace's rules depend on: these are the defaults. `tcptrace explain RULE` says what a rule finds.\n\
         # Save what you change, and give it to `tcptrace watch --config FILE`; what is left out keeps its default.\n\
         #\n\
         # Other limits at some ports (of listeners the local one, of peers that are asked the remote one):\n\
         # [[ports]]\n\
         # ports = \"443,8000-8100\"\n\
         # [ports.syn-flood]\n\
         # on = false\n",
    );
    for rule in &RULES {
        let _ = write!(out, "\n# {}\n[{}]\non = true\n", rule.about, rule.name);
        for limit in limits_of(rule) {
            let text = default_text(rule, limit);
            let quote = if limit.unit == Unit::Count { "" } else { "\"" };
            let _ = writeln!(out, "# {}.\n{} = {quote}{text}{quote}", limit.about, limit.name);
        }
    }
    out
}

/// A text that is being understood.
struct Reader<'a> {
    text: &'a str,
}

type Pair = (Option<bool>, Vec<Option<f64>>);

impl Reader<'_> {
    fn wrong(&self, span: Range<usize>, what: String) -> Wrong {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        Wrong { line, column, what }
    }

    fn rule(&self, key: &Spanned<impl AsRef<str>>) -> Result<usize, Wrong> {
        let name = key.get_ref().as_ref();
        let names = RULES.iter().map(|rule| rule.name);
        RULES.iter().position(|rule| rule.name == name).ok_or_else(|| {
            self.wrong(key.span(), format!("there is no rule {name:?}; there are {}", nearest(name, names)))
        })
    }

    fn settings(
        &self,
        number: usize,
        key: &Spanned<impl AsRef<str>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Pair, Wrong> {
        let rule = &RULES[number];
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.wrong(key.span(), format!("{0} is a table: [{0}]", rule.name)));
        };
        let limits: Vec<_> = limits_of(rule).collect();
        let (mut on, mut values) = (None, vec![None; limits.len()]);
        for (key, value) in table {
            if key.get_ref() == "on" {
                let DeValue::Boolean(is) = value.get_ref() else {
                    return Err(self.wrong(value.span(), "on: true or false".to_owned()));
                };
                on = Some(*is);
                continue;
            }
            let Some(place) = limits.iter().position(|limit| limit.name == key.get_ref().as_ref()) else {
                let names = std::iter::once("on").chain(limits.iter().map(|limit| limit.name));
                let has = nearest(key.get_ref(), names);
                return Err(self.wrong(key.span(), format!("{} has no {:?}; it has {has}", rule.name, key.get_ref())));
            };
            values[place] = Some(self.value(limits[place], value)?);
        }
        Ok((on, values))
    }

    fn value(&self, limit: &Limit, value: &Spanned<DeValue<'_>>) -> Result<f64, Wrong> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(n) if n.radix() == 10 => n.as_str().to_owned(),
            DeValue::Float(n) => n.as_str().to_owned(),
            other => other.type_str().to_owned(),
        };
        let parsed = limit.unit.parse(&text);
        parsed.ok_or_else(|| self.wrong(value.span(), format!("{}: {text} is not {}", limit.name, limit.unit.looks())))
    }

    fn at_ports(&self, entry: &Spanned<DeValue<'_>>) -> Result<AtPorts, Wrong> {
        let DeValue::Table(table) = entry.get_ref() else {
            return Err(self.wrong(entry.span(), "ports is a list of tables: [[ports]]".to_owned()));
        };
        let mut at = AtPorts {
            ports: Vec::new(),
            rules: RULES.iter().map(|r| (None, vec![None; limits_of(r).count()])).collect(),
        };
        for (key, value) in table {
            if key.get_ref() != "ports" {
                let number = self.rule(key)?;
                at.rules[number] = self.settings(number, key, value)?;
                continue;
            }
            let ports = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(n) if n.radix() == 10 => n.as_str().to_owned(),
                _ => String::new(),
            };
            at.ports =
                ports.split(',').map(|range| range.trim().parse()).collect::<Result<_, _>>().map_err(|_: String| {
                    self.wrong(value.span(), "ports: ports and ranges such as \"443,8000-8100\"".to_owned())
                })?;
        }
        if at.ports.is_empty() {
            return Err(self.wrong(entry.span(), "[[ports]] says which: ports = \"443,8000-8100\"".to_owned()));
        }
        Ok(at)
    }
}

/// All names; those that look like what was typed first.
fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    names.sort_by_cached_key(|name| strsim::damerau_levenshtein(typed, name).min(4));
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> (usize, usize, String) {
        let wrong = Config::parse(text).expect_err(text);
        (wrong.line, wrong.column, wrong.what)
    }

    #[test]
    fn defaults_are_values_of_their_units() {
        for rule in &RULES {
            for limit in limits_of(rule) {
                let text = default_text(rule, limit);
                assert!(limit.unit.parse(text).is_some(), "{}.{}: {text}", rule.name, limit.name);
            }
        }
    }

    #[test]
    fn what_is_printed_is_what_holds() {
        let (printed, default) = (Config::parse(&printed()).expect("it is well formed"), Config::default());
        for ((rule, printed), default) in RULES.iter().zip(&printed.rules).zip(&default.rules) {
            assert_eq!(printed.values, default.values, "{}", rule.name);
            assert!(printed.on);
        }
    }

    #[test]
    fn ports_have_limits_of_their_own() {
        let text = "[accept-overflow]\non = false\nclients = 5\n\
                    [[ports]]\nports = \"80,8000-8010\"\n[ports.accept-overflow]\non = true\nclients = 7\n\
                    [[ports]]\nports = 80\n[ports.accept-overflow]\nclients = 9\n";
        let config = Config::parse(text).expect("it makes sense");
        let rule = RULES.iter().position(|rule| rule.name == "accept-overflow").expect("a rule");
        let at = |port| {
            (config.is_on_at(rule, port), config.value(rule, &super::super::rules::accept_overflow::CLIENTS, port))
        };
        assert_eq!(at(None), (false, 5.0));
        assert_eq!(at(Some(443)), (false, 5.0));
        assert_eq!(at(Some(8010)), (true, 7.0));
        assert_eq!(at(Some(80)), (true, 9.0));
        assert!(config.is_on(rule));
    }

    #[test]
    fn what_makes_no_sense_has_a_place() {
        let (line, column, what) = wrong("# mine\n[acept-overflow]\non = true\n");
        assert_eq!((line, column), (2, 2));
        assert!(what.starts_with("there is no rule \"acept-overflow\"; there are accept-overflow"), "{what}");
        for (text, place, begins) in [
            ("[accept-overflow]\nclients = -3", (2, 11), "clients: -3 is not a number such as 100"),
            ("[accept-overflow]\nfires_after = 5", (2, 15), "fires_after: 5 is not a time such as \"500ms\""),
            ("[accept-overflow]\nfires_after = \"5kg\"", (2, 15), "fires_after: 5kg is not a time such as"),
            ("[accept-overflow]\nclient = 3", (2, 1), "accept-overflow has no \"client\"; it has clients"),
            ("[accept-overflow]\non = 1", (2, 6), "on: true or false"),
            ("accept-overflow = 1", (1, 1), "accept-overflow is a table: [accept-overflow]"),
            ("[[ports]]\n[ports.accept-overflow]\non = true", (1, 1), "[[ports]] says which"),
            ("[[ports]]\nports = \"x\"", (2, 9), "ports: ports and ranges such as"),
            ("[accept-overflow\n", (1, 17), ""),
        ] {
            let (line, column, what) = wrong(text);
            assert_eq!((line, column), place, "{text}: {what}");
            assert!(what.starts_with(begins) && !what.contains('\n'), "{text}: {what}");
        }
    }
}
