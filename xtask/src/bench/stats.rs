//! `kernel.bpf_stats_enabled`, on while a value lives.

use std::fs;

use anyhow::{Context as _, Result};

const SETTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The setting is 1; on drop it is what it was before.
pub struct StatsEnabled(String);

impl StatsEnabled {
    /// Turn it on.
    ///
    /// # Errors
    /// Not permitted, or the kernel has no such setting.
    pub fn set() -> Result<Self> {
        let before = fs::read_to_string(SETTING).with_context(|| format!("cannot read {SETTING}"))?;
        fs::write(SETTING, "1").with_context(|| format!("cannot write {SETTING}"))?;
        Ok(Self(before))
    }
}

impl Drop for StatsEnabled {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SETTING, self.0.trim()) {
            eprintln!("cannot put {SETTING} back to {}: {error}", self.0.trim());
        }
    }
}
