//! What a state, a term or a rule means, and what to do about it: a name in, a page out. Pure: values of this host are given by the caller,
//! who also draws the ladders of the recordings that are shown ([`Draw`]).
//!
//! The pages are plain data; `tcptrace explain`, docs/explain.md and tcptrace-explain(7) are drawn from the same ones.

mod man;
mod markdown;
mod recordings;
mod rules_listeners;
mod rules_peers;
mod rules_sockets;
mod states_closing;
mod states_opening;
mod sysctls;
mod terms_closing;
mod terms_data;
mod terms_opening;
#[cfg(test)]
mod tests;
mod text;

pub use man::man;
pub use markdown::markdown;
pub use recordings::{RECORDINGS, recording};
pub use sysctls::{Sysctl, sysctl};
pub use text::{Look, index, page};

use crate::{
    detect::{config, rules::RULES},
    model::State,
};

/// Everything about a state, a term or a rule. ASCII only, so that every terminal can show it; what does not apply is empty.
#[derive(Debug)]
pub struct Page {
    /// State, term or rule.
    pub kind: Kind,
    /// As it is shown: `CLOSE_WAIT`, `half-open`.
    pub name: &'static str,
    /// Other names that lead here. Case, `-`, `_` and spaces make no difference.
    pub aliases: &'static [&'static str],
    /// One line.
    pub summary: &'static str,
    /// Paragraphs.
    pub text: &'static [&'static str],
    /// Who has it, and what it means there.
    pub sides: &'static [(&'static str, &'static str)],
    /// Of a state: where it is entered from, and what by.
    pub enters: &'static [Arc],
    /// Of a state: where it leads, and what by.
    pub leaves: &'static [Arc],
    /// What a healthy host shows.
    pub healthy: &'static str,
    /// What too many of it, or something else, mean, and what to do.
    pub trouble: &'static [&'static str],
    /// Commands that show it, and what they show.
    pub look: &'static [(&'static str, &'static str)],
    /// Names of the sysctls that govern it: see [`sysctl`].
    pub sysctls: &'static [&'static str],
    /// Socket options and calls that govern it, and how.
    pub options: &'static [(&'static str, &'static str)],
    /// Where the standards say it.
    pub rfcs: &'static [Rfc],
    /// Connections that show it.
    pub examples: &'static [Example],
    /// Names of other pages.
    pub see: &'static [&'static str],
}

impl Page {
    const EMPTY: Self = Self {
        kind: Kind::Term,
        name: "",
        aliases: &[],
        summary: "",
        text: &[],
        sides: &[],
        enters: &[],
        leaves: &[],
        healthy: "",
        trouble: &[],
        look: &[],
        sysctls: &[],
        options: &[],
        rfcs: &[],
        examples: &[],
        see: &[],
    };
}

/// What a page is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP state.
    State,
    /// A word of the field.
    Term,
    /// A rule of `watch`.
    Rule,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::State, Self::Term, Self::Rule];

    /// In JSON and in headings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Term => "term",
            Self::Rule => "rule",
        }
    }

    /// Heading of all pages of the kind.
    const fn plural(self) -> &'static str {
        match self {
            Self::State => "States",
            Self::Term => "Terms",
            Self::Rule => "Rules of watch",
        }
    }
}

/// A connection as it was recorded, drawn as a ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example {
    /// Name of its [`recording`].
    pub recording: &'static str,
    /// What to look at in it. Numbers and times are another recording's next time: none is named.
    pub shows: &'static str,
}

const fn example(recording: &'static str, shows: &'static str) -> Example {
    Example { recording, shows }
}

/// The ladder of a recording of that name, in so many columns at most.
pub type Draw<'a> = &'a dyn Fn(&str, usize) -> String;

/// A state at the other end of a transition, and what causes the transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arc(pub State, pub &'static str);

/// A section of an RFC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rfc {
    /// For example 9293.
    pub number: u16,
    /// For example `3.6.1`; empty where the whole document is meant.
    pub section: &'static str,
    /// What it says.
    pub about: &'static str,
}

impl Rfc {
    /// `RFC 9293 3.6.1`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("RFC {} {}", self.number, self.section).trim_end().to_owned()
    }
}

const fn rfc(number: u16, section: &'static str, about: &'static str) -> Rfc {
    Rfc { number, section, about }
}

/// Every page: states in the order of a connection's life, then terms, then rules.
pub static PAGES: [Page; 45] = [
    states_opening::CLOSE,
    states_opening::LISTEN,
    states_opening::SYN_SENT,
    states_opening::NEW_SYN_RECV,
    states_opening::SYN_RECV,
    states_opening::ESTABLISHED,
    states_closing::FIN_WAIT1,
    states_closing::FIN_WAIT2,
    states_closing::CLOSE_WAIT,
    states_closing::LAST_ACK,
    states_closing::CLOSING,
    states_closing::TIME_WAIT,
    terms_opening::HANDSHAKE,
    terms_closing::TEARDOWN,
    terms_opening::HALF_OPEN,
    terms_opening::BACKLOG,
    terms_opening::SYNCOOKIES,
    terms_closing::TWO_MSL,
    terms_closing::HALF_CLOSE,
    terms_closing::RST,
    terms_data::MSS,
    terms_data::WINDOW,
    terms_data::NAGLE,
    terms_data::DELAYED_ACK,
    terms_opening::KEEPALIVE,
    terms_opening::LONG_CONNECTIONS,
    terms_opening::SHORT_CONNECTIONS,
    terms_data::FLAGS,
    rules_listeners::SYN_FLOOD,
    rules_listeners::ACCEPT_OVERFLOW,
    rules_listeners::BACKLOG_TOO_SMALL,
    rules_listeners::DEAD_LISTENER,
    rules_listeners::HALF_OPEN_CLIENTS,
    rules_sockets::CLOSE_WAIT_LEAK,
    rules_sockets::FIN_WAIT2_ORPHANS,
    rules_sockets::TIME_WAIT_PRESSURE,
    rules_sockets::EPHEMERAL_PORTS,
    rules_peers::REFUSED_CONNECTS,
    rules_peers::CONNECT_TIMEOUTS,
    rules_peers::RESET_STORM,
    rules_peers::KEEPALIVE_DEATHS,
    rules_peers::SHORT_LIVED_CHURN,
    rules_peers::RETRANSMIT_BURST,
    rules_peers::STALE_SYN,
    rules_peers::PORT_SCAN,
];

/// The page of a name, an alias or one of `ss`'s spellings.
#[must_use]
pub fn find(asked: &str) -> Option<&'static Page> {
    let asked = key(asked);
    PAGES.iter().find(|page| page.keys().any(|name| key(name) == asked))
}

/// Names of at most three pages that `asked` may have meant, the likeliest first.
#[must_use]
pub fn nearest(asked: &str) -> Vec<&'static str> {
    let asked = key(asked);
    if asked.is_empty() {
        return Vec::new();
    }
    // A letter of three may be wrong; what only begins a name is as good as one wrong letter.
    let allowed = asked.chars().count().div_ceil(3);
    let distance = |name: &str| {
        let name = key(name);
        let typed = strsim::osa_distance(&name, &asked);
        if name.starts_with(&asked) { typed.min(1) } else { typed }
    };
    let mut found: Vec<(usize, &'static str)> = PAGES
        .iter()
        .filter_map(|page| Some((page.keys().map(distance).min()?, page.name)))
        .filter(|&(distance, _)| distance <= allowed)
        .collect();
    found.sort_by_key(|&(distance, _)| distance);
    found.into_iter().take(3).map(|(_, name)| name).collect()
}

impl Page {
    /// Heading of [`Page::examples`].
    const EXAMPLES: &'static str = "As recorded";

    /// Of a rule: what it depends on, `syns = 100/s`, and what that means.
    pub fn limits(&self) -> impl Iterator<Item = (String, &'static str)> {
        let rule = RULES.iter().find(|rule| self.kind == Kind::Rule && rule.name == self.name);
        rule.into_iter().flat_map(|rule| {
            config::limits_of(rule).map(|l| (format!("{} = {}", l.name, config::default_text(rule, l)), l.about))
        })
    }

    fn keys(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

/// What all spellings of a name have in common.
fn key(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_') && !c.is_whitespace()).flat_map(char::to_lowercase).collect()
}
