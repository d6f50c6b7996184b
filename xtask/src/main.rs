//! tcptrace's own tasks.
fn main() {}
