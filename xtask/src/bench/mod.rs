//! bench
use anyhow::Result;
pub mod proc;
/// O
#[derive(clap::Args)]
pub struct Options {}
pub fn run(_: &Options) -> Result<bool> {
    Ok(true)
}
