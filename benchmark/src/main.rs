//! `discnt-benchmark`: a load for a counter server, and how fast and how late it answers.
//!
//! A closed loop: each connection waits for its replies before it sends more, so latencies tell of this load and
//! not of a fixed rate of arrival. It checks that no reply is an error, and nothing else about the values.

mod load;
mod options;
mod report;
mod workload;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use clap::Parser;

use crate::options::Options;
use crate::report::{CSV_HEADER, report};
use crate::workload::Workload;

/// The environment variable that may hold the password.
const PASSWORD_VARIABLE: &str = "DISCNT_CLI_AUTH";

/// The status when the command line is wrong.
const USAGE_STATUS: u8 = 2;

fn main() -> ExitCode {
    let mut options = Options::parse();
    options.password = options.password.or_else(|| std::env::var_os(PASSWORD_VARIABLE));
    let workloads = match workloads(&options) {
        Ok(workloads) => workloads,
        Err(test) => {
            complain(&format!("There is no test called {test:?}; see --help"));
            return ExitCode::from(USAGE_STATUS);
        }
    };
    match run(&options, &workloads) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("Error: writing the output: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs the tests one after the other; whether all replies came and none was an error.
fn run(options: &Options, workloads: &[Workload]) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let mut is_clean = true;
    if options.csv {
        out.write_all(CSV_HEADER.as_bytes())?;
    }
    for workload in workloads {
        match load::run(options, workload) {
            Ok(outcome) => {
                out.write_all(report(options, workload, &outcome).as_bytes())?;
                out.flush()?;
                if let Some(text) = &outcome.first_error {
                    is_clean = false;
                    complain(&format!(
                        "{}: {} replies were errors, the first: {text}",
                        workload.title, outcome.errors
                    ));
                }
            }
            Err(error) => {
                complain(&format!("{}: {error} (server at {})", workload.title, options.address()));
                return Ok(false);
            }
        }
    }
    Ok(is_clean)
}

/// What to run; the name of a test that does not exist otherwise.
fn workloads(options: &Options) -> Result<Vec<Workload>, String> {
    if !options.command.is_empty() {
        let args = options.command.iter().cloned().map(OsString::into_vec);
        return Ok(vec![Workload::own(args.collect())]);
    }
    options.tests.iter().map(|test| Workload::named(test).ok_or_else(|| test.clone())).collect()
}

fn complain(text: &str) {
    // There is nowhere left to say that standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
