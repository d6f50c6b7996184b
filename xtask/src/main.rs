//! tcptrace's own tasks, run as `cargo xtask TASK`.
//!
//! | module | what |
//! |---|---|
//! | [`run`] | build tcptrace and run it, elevated |
//! | [`test`] | every check of the project, one after the other |
//! | [`bpf`] | build the kernel objects, or prove that the committed ones come from this source |
//! | [`tidy`] | rules of the source tree that no compiler checks |
//! | [`docs`] | what is generated under `docs/` and `man/` |
//! | [`load`] | a connection storm on loopback |
//! | [`flood`] | a SYN flood between two namespaces |
//! | [`timers`] | timers of TCP sockets, started and cancelled |
//! | [`bench`] | what tracing costs, beside other tools |
//! | [`vm`] | the live tests on other kernels |
//! | [`apt`], [`netns`], [`sh`] | Debian packages, network namespaces, child processes |

mod apt;
mod bench;
mod bpf;
mod docs;
mod empty;
mod flood;
mod load;
mod netns;
mod run;
mod sh;
mod test;
mod tidy;
mod timers;
mod vm;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, Parser};

/// tcptrace's own tasks.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask")]
enum Task {
    /// Build tcptrace (release) and run it, through sudo when not root.
    Run {
        /// tcptrace's arguments [default: trace]
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Install what the tests need and run every check and test.
    Test {
        /// The short loop: no installs beyond the must, no rebuild of the kernel objects, few live tests.
        #[arg(long)]
        quick: bool,
    },
    /// Build the kernel objects into tcptrace/bpf.
    Bpf {
        /// Build nothing there: prove that the committed objects come from this source.
        #[arg(long)]
        check: bool,
    },
    /// Check the rules of the source tree.
    Tidy,
    /// Regenerate docs/events.md, docs/explain.md and man/.
    Docs {
        /// Write nothing: compare, and try the commands that the documents name.
        #[arg(long)]
        check: bool,
    },
    /// Open and close connections on loopback, and print one JSON line about it.
    Load(load::Options),
    /// Send SYNs from made-up sources to a listener of its own, from a second namespace, and print one JSON line about it.
    Flood(flood::Options),
    /// Start and cancel kernel timers at a steady rate, and print one JSON line about it.
    Timers(timers::Options),
    /// Hold programs that do nothing at the tracepoints where tcptrace's run, until Ctrl-C.
    Empty {
        /// Write as many bytes as these, which nobody reads
        #[arg(long)]
        write: bool,
    },
    /// Measure what tracing costs, beside tcpstates, tcplife and bpftrace.
    Bench(bench::Options),
    /// Run the live tests on other kernels, emulated.
    Vm {
        /// One of vm/kernels.toml [default: all]
        kernel: Option<String>,
        /// Only tests whose names contain one of these
        #[arg(last = true)]
        tests: Vec<String>,
    },
}

/// Names of all tasks, for documents that mention them.
fn task_names() -> Vec<String> {
    Task::command().get_subcommands().map(|task| task.get_name().to_owned()).collect()
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Run { args } => run::run(&args),
        Task::Test { quick } => test::run(quick),
        Task::Bpf { check: false } => bpf::build().map(|()| true),
        Task::Bpf { check: true } => bpf::check(bpf::Depth::Rebuild).map(|_| true),
        Task::Tidy => tidy::run().map(|()| true),
        Task::Docs { check } => docs::run(check).map(|()| true),
        Task::Load(options) => load::run(&options).map(|()| true),
        Task::Flood(options) => flood::run(&options).map(|()| true),
        Task::Timers(options) => timers::run(&options).map(|()| true),
        Task::Empty { write } => empty::run(write).map(|()| true),
        Task::Bench(options) => bench::run(&options),
        Task::Vm { kernel, tests } => vm::task(kernel.as_deref(), &tests),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
