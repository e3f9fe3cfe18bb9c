//! `tidewater bench`: becomes the program `tidewater-bench`, which is built beside this one and is not part of it.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use super::CliError;
use super::args::BenchArgs;

const PROGRAM: &str = "tidewater-bench";

/// Comes back only when it cannot be run.
pub fn run(args: BenchArgs) -> Result<ExitCode, CliError> {
    for program in candidates() {
        let error = Command::new(&program).args(&args.words).exec();
        if error.kind() != io::ErrorKind::NotFound {
            return Err(CliError::io(format!("cannot run {}", program.display()))(error));
        }
    }
    Err(CliError::failed(format!(
        "{PROGRAM} is neither beside this program nor on PATH: `cargo build --workspace` (or `make build`) makes it"
    )))
}

/// The one beside this program first, then whatever PATH finds.
fn candidates() -> Vec<PathBuf> {
    let beside = env::current_exe().ok().map(|own| own.with_file_name(PROGRAM));
    beside.into_iter().chain([PathBuf::from(PROGRAM)]).collect()
}
