//! argv in, exit code out.

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Most secrets are wiped where they are dropped, but they also go through buffers of the libraries below.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    bursar::cli::run()
}
