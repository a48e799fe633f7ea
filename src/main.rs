//! The `headwater` program: a shell by default, a PostgreSQL server with `serve`, a live picture
//! with `demo`. What it does is in [`headwater::cli`], so that it is compiled once.

use std::process::ExitCode;

// Batches are many small and a few large allocations, made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    headwater::cli::main()
}
