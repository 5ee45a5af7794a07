//! The `vgg` program: data on stdout, progress and errors on stderr, stable exit codes.

#![warn(clippy::unwrap_used)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod commands;
mod console;
mod exit;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser;

use crate::console::{take_stdout_error, warning};

fn main() -> ExitCode {
    let cli = match commands::Cli::try_parse() {
        Ok(cli) => cli,
        Err(request) => return print_help_or_error(&request),
    };
    let result = cli.run();
    let stdout_error = take_stdout_error();
    match (result, stdout_error) {
        (Err(error), _) => {
            warning(&format!("error: {}", exit::message(&error)));
            ExitCode::from(exit::code(&error))
        }
        (Ok(code), Some(error)) if code == ExitCode::SUCCESS => stdout_failed(&error),
        (Ok(code), _) => code,
    }
}

/// Prints the help or version that was asked for, or a mistake in the arguments.
fn print_help_or_error(request: &clap::Error) -> ExitCode {
    match request.print() {
        Err(error) if !request.use_stderr() && error.kind() != ErrorKind::BrokenPipe => stdout_failed(&error),
        _ => ExitCode::from(u8::try_from(request.exit_code()).unwrap_or(1)),
    }
}

fn stdout_failed(error: &std::io::Error) -> ExitCode {
    warning(&format!("error: cannot write to stdout: {error}"));
    ExitCode::from(exit::IO)
}
