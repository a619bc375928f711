//! `sim --seeds A..B` runs a swarm, `sim --seed N [-v]` one seed; see `docs/simulator.md`.
//!
//! The exit status is 1 if a seed has failed, 2 if the arguments make no sense.

use sim::plan::Plan;
use sim::process::Program;
use sim::real::Real;
use sim::run::Report;
use sim::swarm;
use sim::table;
use sim::trace::Trace;
use sim::workloads;
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: sim --seeds FIRST..END [--threads N] [--keep-going]   run a swarm
       sim --seed N [-v]                                     run one seed; -v prints all that happens
";

/// Lines of history that a failing seed shows.
const HISTORY_LINES: usize = 40;

/// Violations that are shown: what follows the first is often its consequence.
const MAX_SHOWN: usize = 3;

#[derive(Debug)]
struct Options {
    seeds: (u64, u64),
    is_single: bool,
    is_verbose: bool,
    is_going_on: bool,
    threads: usize,
}

fn main() -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "table") {
        return match run_table(&words[1..]) {
            Some(is_kept) => ExitCode::from(u8::from(!is_kept)),
            None => {
                complain(USAGE);
                ExitCode::from(2)
            }
        };
    }
    let Some(options) = parse(&words, cores) else {
        complain(USAGE);
        return ExitCode::from(2);
    };
    name_seed_in_panics();
    let is_good = if options.is_single { replay(&Real, &options) } else { run_swarm(&Real, &options) };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(words: &[String], cores: usize) -> Option<Options> {
    let mut options =
        Options { seeds: (0, 0), is_single: false, is_verbose: false, is_going_on: false, threads: cores };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seeds" => {
                let (first, end) = words.next()?.split_once("..")?;
                options.seeds = (first.parse().ok()?, end.parse().ok()?);
            }
            "--seed" => {
                let seed: u64 = words.next()?.parse().ok()?;
                (options.seeds, options.is_single) = ((seed, seed + 1), true);
            }
            "--threads" => options.threads = words.next()?.parse().ok().filter(|&threads| threads > 0)?,
            "--keep-going" => options.is_going_on = true,
            "-v" => options.is_verbose = true,
            _ => return None,
        }
    }
    (options.seeds.0 < options.seeds.1).then_some(options)
}

#[allow(clippy::print_stdout, reason = "reports go to standard output")]
fn say(text: &str) {
    print!("{text}");
}

#[allow(clippy::print_stderr, reason = "what is wrong with the call goes to standard error")]
fn complain(text: &str) {
    eprint!("{text}");
}

/// A panic in the engine ends the process; its message shall say which seed it was.
fn name_seed_in_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let Some(seed) = swarm::current_seed() {
            complain(&format!("seed {seed} panics; replay it with: sim --seed {seed} -v\n"));
        }
        hook(info);
    }));
}

fn replay(program: &dyn Program, options: &Options) -> bool {
    let seed = options.seeds.0;
    say(&format!("seed {seed}: {}\n", Plan::new(seed, program.abilities())));
    let trace = if options.is_verbose { Trace::printing() } else { Trace::keeping(HISTORY_LINES) };
    let report = swarm::run_seed(program, seed, trace);
    say(&summary(&report));
    if !report.violations.is_empty() && !options.is_verbose {
        say(&history(&report));
    }
    report.violations.is_empty()
}

fn run_swarm(program: &dyn Program, options: &Options) -> bool {
    let start = Instant::now();
    let (mut done, mut requests, mut virtual_secs, mut bounds) = (0_u64, 0, 0, 0);
    let mut failed = Vec::new();
    swarm::run_all(program, options.seeds, options.threads, |report| {
        done += 1;
        requests += report.requests;
        virtual_secs += report.lasted.secs();
        bounds += report.bounds_checked;
        if !report.violations.is_empty() {
            failed.push(report.plan.seed);
            // A run with its history costs more, so only a failing seed is run with it.
            let again = swarm::run_seed(program, report.plan.seed, Trace::keeping(HISTORY_LINES));
            say(&format!("FAILED seed {}: {}\n{}", report.plan.seed, report.plan, summary(&again)));
            say(&history(&again));
            if again.hash != report.hash {
                say("  the second run of this seed went another way: something in it is not deterministic\n");
            }
        }
        failed.is_empty() || options.is_going_on
    });
    let secs = start.elapsed().as_secs_f64();
    let rate = done as f64 * 60.0 / secs;
    say(&format!(
        "{done} seeds in {secs:.1} s: {rate:.0} seeds per minute on {} threads; {virtual_secs} virtual seconds, \
         {requests} requests, {bounds} bounds checked; {} failed{}\n",
        options.threads,
        failed.len(),
        failed.iter().map(|seed| format!(" {seed}")).collect::<String>(),
    ));
    failed.is_empty()
}

fn summary(report: &Report) -> String {
    let mut text = format!(
        "  {} requests, {} frames, {} virtual seconds, settled {} ms after the heal, run {:016x}\n",
        report.requests,
        report.frames,
        report.lasted.secs(),
        report.settled_after.millis(),
        report.hash
    );
    for violation in report.violations.iter().take(MAX_SHOWN) {
        text += &format!("  VIOLATION: {violation}\n");
    }
    if report.violations.len() > MAX_SHOWN {
        text += &format!("  and {} more violations\n", report.violations.len() - MAX_SHOWN);
    }
    text
}

fn history(report: &Report) -> String {
    let lines: String = report.lines.iter().map(|line| format!("    {line}\n")).collect();
    format!("  the last of it:\n{lines}")
}

/// `sim table`: the prediction against the original's rule. `None`: the arguments make no sense.
fn run_table(words: &[String]) -> Option<bool> {
    let mut size = table::Size { counters: 100, seconds: 900, seed: 1 };
    let mut has_variations = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--variations" {
            has_variations = true;
            continue;
        }
        let number: u64 = words.next()?.parse().ok()?;
        match word.as_str() {
            "--counters" if number > 0 => size.counters = number,
            "--minutes" if number > 0 => size.seconds = number.saturating_mul(60),
            "--seed" => size.seed = number,
            _ => return None,
        }
    }
    let workloads = if has_variations { workloads::VARIATIONS } else { workloads::STANDARD };
    let rows = table::rows(workloads, size);
    let total = table::Total::new(&rows);
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    say(&format!("{}\n{lines}\n{}\n{total}\n", table::HEAD, table::LEGEND));
    let is_kept = rows.iter().all(|row| row.complaint().is_none());
    Some(is_kept && (has_variations || total.complaint().is_none()))
}
