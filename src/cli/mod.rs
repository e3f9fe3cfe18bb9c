//! WHAT a person types: one match from verb to file.
//!
//! ```text
//!  argv -> args.rs (what was typed) -> config.rs (what it means) -> the verb's own file -> exit code
//! ```
//!
//! Trusts clap for the syntax and every room to its left for the work. Decides nothing about data: a verb asks the client
//! library or starts a host, and prints. Answers go to the standard output, everything else to the standard error.

pub mod args;
pub mod bench;
pub mod completions;
pub mod config;
pub mod connect;
pub mod demo;
pub mod dev;
pub mod explain;
pub mod export;
pub mod faults;
pub mod import;
pub mod journal;
pub mod keys;
pub mod local;
pub mod ndjson;
pub mod node;
pub mod process;
pub mod progress;
pub mod render;
pub mod scrub;
pub mod settings;
pub mod sim;
pub mod stage;
pub mod status;
pub mod tls;
pub mod words;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use thiserror::Error;
use tokio::runtime::{self, Runtime};

use crate::client::ClientError;
use crate::data::op::{Outcome, RequestError};
use args::{Cli, Verb};

/// Done, and what was asked for is there.
pub const EXIT_DONE: u8 = 0;
/// Refused or failed: nothing was changed, or the message says what was.
pub const EXIT_FAILED: u8 = 1;
/// Wrong usage or bad configuration: nothing was tried.
pub const EXIT_USAGE: u8 = 2;
/// It may have happened: repeat with the same operation id to know.
pub const EXIT_UNKNOWN: u8 = 3;
/// What was asked for is not there.
pub const EXIT_ABSENT: u8 = 4;

/// Why a verb ended without doing what it was asked.
#[derive(Debug, Error)]
pub enum CliError {
    /// Judged before anything was tried.
    #[error("{message}")]
    Usage { message: String },
    /// What was being done, what went wrong, and what to do.
    #[error("{message}")]
    Failed { message: String },
    /// The cluster refused or did not answer.
    #[error("{error}{}", repeat(.error))]
    Client {
        #[from]
        error: ClientError,
    },
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
}

fn repeat(error: &ClientError) -> String {
    match (error.outcome(), error.op_id()) {
        (Outcome::Unknown, Some(op_id)) => {
            format!("\nIt may have been applied. Repeat it with --op-id {op_id}: it will count once.")
        }
        _ => String::new(),
    }
}

impl CliError {
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into() }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into() }
    }

    /// For `map_err`: `what` was being done when the machine said no.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage { .. } => EXIT_USAGE,
            CliError::Client { error } if error.outcome() == Outcome::Unknown => EXIT_UNKNOWN,
            CliError::Client { error } if matches!(error.refusal(), Some(RequestError::BadConsistency(_))) => {
                EXIT_USAGE
            }
            CliError::Failed { .. } | CliError::Client { .. } | CliError::Io { .. } => EXIT_FAILED,
        }
    }
}

/// Writes a text to the standard output and flushes it. A reader that has gone (`tidewater export | head`) is no failure:
/// the caller stops by the error, and [`main`] ends quietly.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::io("the standard output"))
}

/// Reads the command line, runs the verb, tells what went wrong, and gives the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.verb) {
        Ok(code) => code,
        Err(CliError::Io { error, .. }) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidewater: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// What a verb runs in. `threads`: 0 for one per CPU.
fn runtime(threads: u16) -> Result<Runtime, CliError> {
    let mut builder = runtime::Builder::new_multi_thread();
    builder.enable_all();
    if threads > 0 {
        builder.worker_threads(usize::from(threads));
    }
    builder.build().map_err(CliError::io("cannot start threads"))
}

/// Runs a verb to its end.
fn wait(verb: impl Future<Output = Result<ExitCode, CliError>>) -> Result<ExitCode, CliError> {
    runtime(0)?.block_on(verb)
}

fn run(verb: Verb) -> Result<ExitCode, CliError> {
    match verb {
        Verb::Completions(args) => completions::run(args),
        Verb::Dev(args) => wait(dev::run(args)),
        Verb::Node(args) => node::run(args),
        Verb::Tls(args) => tls::run(args),
        Verb::Keys(verb) => wait(keys::run(verb)),
        Verb::Status(args) => wait(status::run(args)),
        Verb::Scrub(args) => wait(scrub::run(args)),
        Verb::Faults(args) => wait(faults::run(args)),
        Verb::Import(args) => wait(import::run(args)),
        Verb::Export(args) => wait(export::run(args)),
        Verb::Demo(args) => wait(demo::run(args)),
        Verb::Sim(args) => wait(sim::run(args)),
        Verb::Bench(args) => bench::run(args),
    }
}
