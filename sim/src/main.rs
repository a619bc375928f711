//! The simulator's commands.
//!
//! `sim --seeds A..B` runs a swarm of seeds, `sim --seed N` one of them (`seeds`). `sim table` compares the prediction
//! with the original's rule. All end with status 1 if a promise is broken, 2 if the arguments make no sense.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod seeds;

use std::process::ExitCode;

use sim::{table, workloads};

const USAGE: &str = "\
usage: sim --seeds FIRST..END [--threads N] [--keep-going] [--disks] [--without WHAT,...]
       sim --seed N [-v] [--watch NAME] [--disks] [--without WHAT,...]
       sim table [--counters N] [--minutes N] [--seed N] [--variations]

  Runs seeds, all from FIRST to before END or one, and has them judged (docs/simulator.md). A failing seed ends
  the swarm unless it is to keep going; -v prints all that happens, --watch also what
  each node knows of a counter whenever that changes; --disks has nodes keep their counters through crashes, in two of
  three seeds, exactly or as they were a moment ago (a seed is another run then); --without
  leaves out faults and habits, by their names in the report.

  table compares our prediction with the original's rule on synthetic counters (100 of each kind for 15 minutes,
  seed 1). Status 1 if a promise is broken. --variations takes more kinds, and judges them row by row.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("table") => run_table(words.into_iter().skip(1)),
        _ => seeds::run(&words).unwrap_or_else(usage),
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
