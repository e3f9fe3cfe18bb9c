//! Parse, run, exit code.

use std::process::ExitCode;

// Requests are made on the network's threads and freed on the lanes', which glibc's allocator pays for with locks. It serves RocksDB too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tidewater::cli::main()
}
