//! The simulator's commands.
//!
//! `sim table` compares the prediction with the original's rule; it ends with status 1 if a promise is broken.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use sim::{table, workloads};

const USAGE: &str = "\
usage: sim table [--counters N] [--minutes N] [--seed N] [--variations]

  Compares our prediction with the original's rule on synthetic counters (100 of each kind for 15 minutes,
  seed 1). Status 1 if a promise is broken. --variations takes more kinds, and judges them row by row.";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("table") => run_table(arguments),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn run_table(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let mut size = table::Size { counters: 100, seconds: 900, seed: 1 };
    let mut has_variations = false;
    while let Some(argument) = arguments.next() {
        if argument == "--variations" {
            has_variations = true;
            continue;
        }
        let Some(number) = arguments.next().and_then(|text| text.parse::<u64>().ok()) else { return usage() };
        match argument.as_str() {
            "--counters" if number > 0 => size.counters = number,
            "--minutes" if number > 0 => size.seconds = number.saturating_mul(60),
            "--seed" => size.seed = number,
            _ => return usage(),
        }
    }
    let workloads = if has_variations { workloads::VARIATIONS } else { workloads::STANDARD };
    let rows = table::rows(workloads, size);
    let total = table::Total::new(&rows);
    println!("{}", table::HEAD);
    for row in &rows {
        println!("{row}");
    }
    println!("\n{}\n{total}", table::LEGEND);
    let is_broken = rows.iter().any(|row| row.complaint().is_some());
    ExitCode::from(u8::from(is_broken || (!has_variations && total.complaint().is_some())))
}
