//! `tidewater completions SHELL`: the script that teaches a shell our verbs, made from the same definitions as the help.

use std::process::ExitCode;

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs};
use super::{CliError, print};

pub fn run(args: CompletionsArgs) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tidewater", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_with_every_verb() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tidewater", &mut script);
            let script = String::from_utf8(script).expect("scripts are text");
            for verb in ["dev", "smembers", "completions"] {
                assert!(script.contains(verb), "{shell}: {verb}");
            }
        }
    }
}
