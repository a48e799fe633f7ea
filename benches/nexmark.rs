//! nexmark
fn main() {}
