//! `sim --seeds A..B` runs a swarm, `sim --seed N [-v]` one seed; see `docs/simulator.md`.

use sim::plan::Plan;
use sim::process::Program;
use sim::real::Real;
use sim::run::Report;
use sim::swarm;
use sim::trace::Trace;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

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
    has_disks: bool,
    threads: usize,
    /// Faults and habits that no seed has.
    without: Vec<String>,
    watched: Option<Vec<u8>>,
}

/// Runs what the arguments ask for; `None` if they make no sense. The exit status is 1 if a seed has failed.
pub(crate) fn run(words: &[String]) -> Option<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = parse(words, cores)?;
    name_seed_in_panics();
    let real = Real { has_disk: options.has_disks, ..Real::default() };
    let is_good = if options.is_single { replay(&real, &options) } else { run_swarm(&real, &options) };
    Some(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn parse(words: &[String], cores: usize) -> Option<Options> {
    let mut options = Options {
        seeds: (0, 0),
        is_single: false,
        is_verbose: false,
        is_going_on: false,
        has_disks: false,
        threads: cores,
        without: Vec::new(),
        watched: None,
    };
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
            "--without" => {
                options.without = words.next()?.split(',').map(str::to_owned).collect();
            }
            "--watch" => {
                options.watched = Some(words.next()?.clone().into_bytes());
                options.is_verbose = true;
            }
            "--disks" => options.has_disks = true,
            "--keep-going" => options.is_going_on = true,
            "-v" => options.is_verbose = true,
            _ => return None,
        }
    }
    (options.seeds.0 < options.seeds.1).then_some(options)
}

impl Options {
    /// What a seed does, without what it must not have.
    fn plan(&self, program: &dyn Program, seed: u64) -> Plan {
        let mut plan = Plan::new(seed, program.abilities());
        let is_kept = |name: String| !self.without.contains(&name);
        plan.faults.retain(|fault| is_kept(format!("{fault:?}")));
        plan.habits.retain(|habit| is_kept(format!("{habit:?}")));
        plan
    }
}

/// Reports go to standard output; whoever has read enough of them may go.
fn say(text: &str) {
    if std::io::stdout().write_all(text.as_bytes()).is_err() {
        std::process::exit(1);
    }
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
    let plan = options.plan(program, seed);
    say(&format!("seed {seed}: {plan}\n"));
    let trace = if options.is_verbose {
        Trace::printing(options.watched.clone())
    } else {
        Trace::keeping(HISTORY_LINES)
    };
    let report = swarm::run_plan(program, &plan, trace);
    say(&summary(&report));
    if !report.violations.is_empty() && !options.is_verbose {
        say(&history(&report));
    }
    report.violations.is_empty()
}

fn run_swarm(program: &dyn Program, options: &Options) -> bool {
    let start = Instant::now();
    let (mut done, mut requests, mut virtual_secs, mut bounds, mut open_bounds) = (0_u64, 0, 0, 0, 0);
    let mut failed = Vec::new();
    let plan_of = |seed| options.plan(program, seed);
    swarm::run_all(program, options.seeds, options.threads, plan_of, |report| {
        done += 1;
        requests += report.requests;
        virtual_secs += report.lasted.secs();
        bounds += report.bounds_checked;
        open_bounds += report.bounds_open;
        if !report.violations.is_empty() {
            failed.push(report.plan.seed);
            // A run with its history costs more, so only a failing seed is run with it.
            let again = swarm::run_plan(program, &report.plan, Trace::keeping(HISTORY_LINES));
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
         {requests} requests, {bounds} bounds checked, {open_bounds} were open; {} failed{}\n",
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
