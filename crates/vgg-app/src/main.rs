//! The `vgg` program: data on stdout, progress and errors on stderr, stable exit codes.

#![warn(clippy::unwrap_used)]

mod commands;
mod console;
mod exit;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", exit::message(&error));
            ExitCode::from(exit::code(&error))
        }
    }
}
