//! Where the compiled-in kernel objects come from: the committed ones, or the directory that `TCPTRACE_BPF_DIR` names when this
//! crate is built (objects that another compiler rebuilt, to be tested).

use std::{env, path::Path};

fn main() {
    println!("cargo::rerun-if-env-changed=TCPTRACE_BPF_DIR");
    let dir = env::var_os("TCPTRACE_BPF_DIR").unwrap_or_else(|| {
        // Cargo always sets it; without it there is no crate to build.
        Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("bpf").into()
    });
    println!("cargo::rustc-env=TCPTRACE_BPF_DIR={}", dir.display());
    println!("cargo::rerun-if-changed={}", dir.display());
}
