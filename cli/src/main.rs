//! `discnt-cli`: a command line for a counter server, or any other that speaks the Redis protocol.
//!
//! Three ways to use it: a command as arguments, commands from a pipe, or a prompt. It knows no command of its
//! own: names, arguments and help come from the server (`COMMAND DOCS`). It has no TLS yet.

mod assist;
mod catalogue;
mod client;
mod connection;
mod form;
mod help;
mod interactive;
mod options;
mod script;
mod syntax;

use std::io::{IsTerminal, stdin, stdout};
use std::process::ExitCode;

use crate::form::Form;
use crate::options::{Options, OutputChoice};

/// The status when the command line is wrong, apart from a command that fails.
const USAGE_STATUS: u8 = 2;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(options) => options,
        Err(error) => {
            // With nowhere to print to, the status still tells.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE_STATUS) } else { ExitCode::SUCCESS };
        }
    };
    let has_colors = stdout().is_terminal() && !options.is_colorless;
    let form = match options.output {
        OutputChoice::Automatic if stdout().is_terminal() => Form::Typed { has_colors },
        OutputChoice::Typed => Form::Typed { has_colors },
        OutputChoice::Automatic | OutputChoice::Raw => Form::Raw,
        OutputChoice::Csv => Form::Csv,
        OutputChoice::Json => Form::Json,
    };
    if !options.command.is_empty() {
        script::run_command(&options, form)
    } else if stdin().is_terminal() {
        interactive::run(&options, form, has_colors)
    } else {
        script::run_pipe(&options, form)
    }
}
