//! The command line. The letters are those of `redis-benchmark`.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::Parser;

/// Most connections: what servers of this family take by default.
const MAX_CLIENTS: i64 = 10_000;
/// Most requests that one connection has under way.
const MAX_PIPELINE: i64 = 100_000;
/// Most threads.
const MAX_THREADS: i64 = 256;
/// Most names: a place-holder has twelve digits.
const MAX_NAMES: u64 = 1_000_000_000_000;
/// Most requests of one test.
const MAX_REQUESTS: u64 = 1_000_000_000_000_000;

/// What the user asked for.
#[derive(Parser, Debug, Clone)]
#[command(
    name = "discnt-benchmark",
    version,
    about = "Load a Discnt server (or any that speaks the Redis protocol) and measure what it answers",
    disable_help_flag = true,
    override_usage = "discnt-benchmark [OPTIONS] [COMMAND [ARGUMENT...]]",
    after_help = AFTER_HELP,
    args_override_self = true
)]
pub(crate) struct Options {
    /// Server host name or address
    #[arg(short = 'h', value_name = "HOST", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Server port
    #[arg(short = 'p', value_name = "PORT", default_value_t = 5262)]
    pub(crate) port: u16,
    /// Unix socket of the server (instead of host and port)
    #[arg(short = 's', value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Password (or DISCNT_CLI_AUTH in the environment)
    #[arg(short = 'a', value_name = "PASSWORD")]
    pub(crate) password: Option<OsString>,
    /// User name to go with the password
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<OsString>,
    /// Connections, all at work at the same time
    #[arg(short = 'c', value_name = "COUNT", default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(1..=MAX_CLIENTS))]
    pub(crate) clients: u32,
    /// Requests per test, over all connections
    #[arg(short = 'n', value_name = "COUNT", default_value_t = 100_000,
        value_parser = clap::value_parser!(u64).range(1..=MAX_REQUESTS))]
    pub(crate) requests: u64,
    /// Requests that a connection sends before it waits for their replies
    #[arg(short = 'P', value_name = "COUNT", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=MAX_PIPELINE))]
    pub(crate) pipeline: u32,
    /// Tests to run, with commas between: ping, incr, incrby, get, mget, mincrby
    #[arg(
        short = 't',
        value_name = "TESTS",
        value_delimiter = ',',
        default_value = "ping,incr,incrby,get,mget,mincrby"
    )]
    pub(crate) tests: Vec<String>,
    /// Names to choose from by chance
    #[arg(short = 'r', value_name = "COUNT", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=MAX_NAMES))]
    pub(crate) names: u64,
    /// Threads that share the connections [default: one per core]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=MAX_THREADS))]
    pub(crate) threads: Option<u32>,
    /// Start of the random numbers: the same seed asks for the same names
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
    /// One line per test
    #[arg(short = 'q', conflicts_with = "csv")]
    pub(crate) quiet: bool,
    /// Comma-separated values with a header
    #[arg(long)]
    pub(crate) csv: bool,
    /// Print this help
    #[arg(long, action = clap::ArgAction::Help)]
    pub(crate) help: Option<bool>,
    /// A command of your own instead of the tests
    #[arg(value_name = "COMMAND", trailing_var_arg = true, hide = true)]
    pub(crate) command: Vec<OsString>,
}

const AFTER_HELP: &str = "\
In a command, __rand_int__ stands for twelve digits, chosen anew for each request from as many numbers as -r says.

A latency is the time from the moment at which a batch of -P requests is handed to the system until the reply
is read. Every reply is checked: an error reply, or an error inside an array, ends in status 1.

Examples:
  discnt-benchmark -t incrby -r 100000 -P 64 -n 10000000
  discnt-benchmark -q MINCRBY 1 page:__rand_int__ site:total";

impl Options {
    /// Where the server is, for people.
    pub(crate) fn address(&self) -> impl fmt::Display {
        match &self.socket {
            Some(path) => path.display().to_string(),
            None => format!("{}:{}", self.host, self.port),
        }
    }

    /// How many threads to use: as asked or as there are cores, never more than connections.
    pub(crate) fn threads(&self) -> u32 {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
        self.threads.unwrap_or_else(cores).clamp(1, self.clients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("discnt-benchmark").chain(words.iter().copied()))
    }

    #[test]
    fn letters_are_those_of_redis_benchmark() {
        let options = parse(&["-h", "x", "-c", "3", "-P", "16", "-r", "9", "-t", "ping,get", "-q"]).unwrap();
        assert_eq!((options.clients, options.pipeline, options.names), (3, 16, 9));
        assert_eq!(options.tests, ["ping", "get"]);
        assert_eq!(options.address().to_string(), "x:5262");
        assert!(options.threads() <= 3);
    }

    #[test]
    fn a_command_of_ones_own_takes_the_rest() {
        let options = parse(&["-P", "2", "INCRBY", "k", "-1", "-q"]).unwrap();
        assert_eq!(options.command, ["INCRBY", "k", "-1", "-q"]);
        assert!(!options.quiet);
    }

    #[test]
    fn counts_have_limits() {
        for words in [["-c", "0"], ["-c", "10001"], ["-P", "0"], ["-n", "0"], ["-r", "0"], ["--threads", "0"]]
        {
            assert!(parse(&words).is_err(), "{words:?}");
        }
    }
}
