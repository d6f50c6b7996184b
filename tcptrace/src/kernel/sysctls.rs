//! Settings of network namespaces, reading by reading: told at first and when they change, and again from time to time.

use std::{collections::HashMap, path::Path};

use super::facts;
use crate::frame::fact;

/// How often settings are read, nanoseconds: nobody changes them often.
const EVERY: u64 = 5_000_000_000;
/// How often settings that did not change are told again: a recording may begin in the middle.
const AGAIN: u64 = 60_000_000_000;

/// Names and values.
pub(super) type Values = Vec<(String, String)>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sysctls(HashMap<u32, Told>);

#[derive(Debug)]
struct Told {
    values: Values,
    /// When.
    at: u64,
    /// When they were read last.
    read: u64,
}

impl Sysctls {
    /// What is to be told of `netns` at `now`; `read` is asked when it is time to.
    pub fn due(&mut self, netns: u32, now: u64, read: impl FnOnce() -> Values) -> Values {
        let told = self.0.get_mut(&netns);
        if told.as_ref().is_some_and(|told| now < told.read.saturating_add(EVERY)) {
            return Values::new();
        }
        let values = read();
        match told {
            Some(told) if told.values == values && now < told.at.saturating_add(AGAIN) => {
                told.read = now;
                Values::new()
            }
            _ => {
                self.0.insert(netns, Told { values: values.clone(), at: now, read: now });
                values
            }
        }
    }

    /// Forget namespaces that are not `there`.
    pub fn retain(&mut self, there: impl Fn(u32) -> bool) {
        self.0.retain(|&netns, _| there(netns));
    }

    /// Forget one.
    pub fn forget(&mut self, netns: u32) {
        self.0.remove(&netns);
    }
}

/// Those of [`fact::SETTINGS`] that exist in the namespace that the calling thread is in.
pub(super) fn read() -> Values {
    let value =
        |name: &&str| facts::sysctl(Path::new("/"), &format!("net.ipv4.{name}")).map(|v| ((*name).to_owned(), v));
    fact::SETTINGS.iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(backlog: &str) -> Values {
        vec![("tcp_max_syn_backlog".to_owned(), backlog.to_owned())]
    }

    #[test]
    fn each_namespace_is_read_in_its_own_time() {
        let mut sysctls = Sysctls::default();
        for netns in [1, 2] {
            assert_eq!(sysctls.due(netns, u64::from(netns), || values("128")), values("128"));
        }
        assert_eq!(sysctls.due(1, EVERY, || panic!("it is not time")), []);
        // The reading of one is none of the other.
        assert_eq!(sysctls.due(1, 1 + EVERY, || values("128")), []);
        assert_eq!(sysctls.due(2, 2 + EVERY, || values("4096")), values("4096"));
        assert_eq!(sysctls.due(1, 1 + 2 * EVERY, || values("256")), values("256"));
    }

    #[test]
    fn what_did_not_change_is_told_again_once_a_minute() {
        let mut sysctls = Sysctls::default();
        let told = (0..=60).filter(|s| !sysctls.due(1, s * 1_000_000_000, || values("128")).is_empty());
        assert_eq!(told.collect::<Vec<_>>(), [0, 60]);
    }

    #[test]
    fn a_namespace_that_was_forgotten_is_told_of_as_a_new_one() {
        let mut sysctls = Sysctls::default();
        for forget in [|s: &mut Sysctls| s.forget(1), |s: &mut Sysctls| s.retain(|netns| netns != 1)] {
            assert_eq!(sysctls.due(1, 1, || values("128")), values("128"));
            forget(&mut sysctls);
        }
    }

    #[test]
    fn this_kernel_has_them() {
        let settings = read();
        let range = settings.iter().find(|(name, _)| name == "ip_local_port_range").expect("every kernel has it");
        assert_eq!(range.1.split(' ').filter_map(|word| word.parse::<u16>().ok()).count(), 2, "{settings:?}");
        assert!(settings.iter().any(|(name, _)| name == "tcp_max_tw_buckets"), "{settings:?}");
    }
}
