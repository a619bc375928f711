//! The command line: what the user asked for, checked, with the environment read.
//!
//! The letters are those of `redis-cli`, so that fingers and scripts need not learn anew: `-h` is the host
//! and help is `--help` alone. Options end at the first word that is not one: everything from the command's
//! name on belongs to the server, dashes included.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Where a Discnt server listens unless told otherwise.
pub(crate) const DEFAULT_PORT: u16 = 5262;

/// Environment variables that may hold the password, in the order in which they are asked.
pub(crate) const PASSWORD_VARIABLES: [&str; 2] = ["DISCNT_CLI_AUTH", "REDISCLI_AUTH"];

/// The longest pause that `-i` accepts, in seconds: a day.
const MAX_INTERVAL_SECONDS: f64 = 86_400.0;

/// The command line as clap reads it.
#[derive(Parser, Debug)]
#[command(
    name = "discnt-cli",
    version,
    about = "Talk to a Discnt server (or any that speaks the Redis protocol)",
    disable_help_flag = true,
    disable_version_flag = true,
    override_usage = "discnt-cli [OPTIONS] [COMMAND [ARGUMENT...]]",
    after_help = AFTER_HELP,
    args_override_self = true,
    max_term_width = 100
)]
struct Arguments {
    /// Server host name or address
    #[arg(short = 'h', value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Server port
    #[arg(short = 'p', value_name = "PORT", default_value_t = DEFAULT_PORT)]
    port: u16,
    /// Unix socket of the server (instead of host and port)
    #[arg(short = 's', value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Password; others on this machine can see it, so prefer DISCNT_CLI_AUTH in the environment
    #[arg(short = 'a', long = "pass", value_name = "PASSWORD")]
    password: Option<OsString>,
    /// User name to go with the password
    #[arg(long, value_name = "NAME")]
    user: Option<OsString>,
    /// Database number: accepted for the sake of redis-cli users, Discnt has only 0
    #[arg(short = 'n', value_name = "NUMBER", default_value_t = 0)]
    database: u32,
    /// Speak RESP2 (the default)
    #[arg(short = '2', conflicts_with = "resp3")]
    resp2: bool,
    /// Speak RESP3
    #[arg(short = '3')]
    resp3: bool,
    /// Print bare replies (the default when the output is not a terminal)
    #[arg(long, conflicts_with_all = ["no_raw", "csv", "json"])]
    raw: bool,
    /// Print typed and quoted replies even when the output is not a terminal
    #[arg(long, conflicts_with_all = ["csv", "json"])]
    no_raw: bool,
    /// Print replies as CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print replies as JSON, one line each (speaks RESP3 unless -2)
    #[arg(long)]
    json: bool,
    /// Read the last argument from standard input
    #[arg(short = 'x')]
    last_from_stdin: bool,
    /// Run the command this many times; -1 for ever
    #[arg(short = 'r', value_name = "COUNT", default_value_t = 1, allow_negative_numbers = true)]
    repeat: i64,
    /// Wait this many seconds (0.1 is fine) between repeats, and between lines of a script
    #[arg(short = 'i', value_name = "SECONDS", default_value_t = 0.0)]
    interval_seconds: f64,
    /// No colours on a terminal (also: the environment variable NO_COLOR)
    #[arg(long)]
    no_color: bool,
    /// Accepted for the sake of redis-cli users: an error reply always ends in status 1
    #[arg(short = 'e', hide = true)]
    exit_on_error: bool,
    /// Accepted for the sake of redis-cli users: there is no such warning
    #[arg(long, hide = true)]
    no_auth_warning: bool,
    /// Print this help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// The command and its arguments; without one, commands come from the terminal or the pipe
    #[arg(value_name = "COMMAND", trailing_var_arg = true, hide = true)]
    command: Vec<OsString>,
}

const AFTER_HELP: &str = "\
Without a command, discnt-cli reads commands from the terminal (try `help`), or one per line from a pipe.

Exit status: 0; 1 when a reply was an error or the connection failed; 2 when the command line is wrong.

Environment: DISCNT_CLI_AUTH or REDISCLI_AUTH (password), DISCNTCLI_HISTFILE (history file; /dev/null for
none), NO_COLOR.

Examples:
  discnt-cli incrby page:home 1
  discnt-cli -r 60 -i 1 get page:home
  discnt-cli --json mget page:home page:about
  discnt-cli subscribe page:home
  discnt-cli < commands.txt";

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A host name or address, and a port.
    Tcp {
        /// Name or address as typed.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A password, and a user name if one was given.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The user; none means the default user.
    pub(crate) user: Option<Vec<u8>>,
    /// The password.
    pub(crate) password: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}

/// The version of the protocol that the client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// What every server speaks from the start.
    Resp2,
    /// Asked for with `HELLO 3`.
    Resp3,
}

/// The form of printed replies, before it is known whether the output is a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputChoice {
    /// Typed on a terminal, bare elsewhere.
    Automatic,
    /// Bare.
    Raw,
    /// Typed, quoted and numbered.
    Typed,
    /// Comma-separated.
    Csv,
    /// One JSON text per line.
    Json,
}

/// How often to run a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// This many times.
    Times(u64),
    /// Until interrupted.
    Forever,
}

/// All that the user asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Where to connect.
    pub(crate) address: Address,
    /// With what to authenticate, if at all.
    pub(crate) credentials: Option<Credentials>,
    /// Which protocol to speak.
    pub(crate) protocol: Protocol,
    /// Database number; 0 is not even sent.
    pub(crate) database: u32,
    /// How to print.
    pub(crate) output: OutputChoice,
    /// Whether colours are forbidden.
    pub(crate) is_colorless: bool,
    /// Whether standard input is the last argument.
    pub(crate) has_argument_on_stdin: bool,
    /// How often to run the command.
    pub(crate) repeat: Repeat,
    /// Pause between two runs.
    pub(crate) interval: Duration,
    /// The command, or nothing.
    pub(crate) command: Vec<Vec<u8>>,
}

impl Options {
    /// Reads options from `args` (the program's name first) and from `environment`, a look-up by name.
    ///
    /// A [`clap::Error`] is either a mistake or the answer to `--help` and `--version`.
    pub(crate) fn parse(
        args: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, clap::Error> {
        let arguments = Arguments::try_parse_from(args)?;
        let wrong = |message: String| {
            use clap::CommandFactory;
            Arguments::command().error(clap::error::ErrorKind::ValueValidation, message)
        };
        if !(0.0..=MAX_INTERVAL_SECONDS).contains(&arguments.interval_seconds) {
            let given = arguments.interval_seconds;
            return Err(wrong(format!("-i takes 0 to {MAX_INTERVAL_SECONDS} seconds, not {given}")));
        }
        if arguments.last_from_stdin && arguments.command.is_empty() {
            return Err(wrong("-x needs a command that lacks its last argument".to_owned()));
        }
        let password =
            arguments.password.or_else(|| PASSWORD_VARIABLES.iter().find_map(|name| environment(name)));
        if arguments.user.is_some() && password.is_none() {
            let variable = PASSWORD_VARIABLES[0];
            return Err(wrong(format!("--user needs a password: give -a, or set {variable}")));
        }
        let address = match arguments.socket {
            Some(path) => Address::Unix(path),
            None => Address::Tcp { host: arguments.host, port: arguments.port },
        };
        let has_no_color = environment("NO_COLOR").is_some_and(|value| !value.is_empty());
        Ok(Self {
            address,
            credentials: password.map(|password| Credentials {
                user: arguments.user.map(OsString::into_vec),
                password: password.into_vec(),
            }),
            protocol: if arguments.resp3 || (arguments.json && !arguments.resp2) {
                Protocol::Resp3
            } else {
                Protocol::Resp2
            },
            database: arguments.database,
            output: match (arguments.raw, arguments.no_raw, arguments.csv, arguments.json) {
                (true, ..) => OutputChoice::Raw,
                (_, true, ..) => OutputChoice::Typed,
                (_, _, true, _) => OutputChoice::Csv,
                (.., true) => OutputChoice::Json,
                (false, false, false, false) => OutputChoice::Automatic,
            },
            is_colorless: arguments.no_color || has_no_color,
            has_argument_on_stdin: arguments.last_from_stdin,
            repeat: u64::try_from(arguments.repeat).map_or(Repeat::Forever, Repeat::Times),
            interval: Duration::from_secs_f64(arguments.interval_seconds),
            command: arguments.command.into_iter().map(OsString::into_vec).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, clap::Error> {
        let args = std::iter::once("discnt-cli").chain(words.iter().copied()).map(OsString::from);
        Options::parse(args, |_| None)
    }

    fn parse_with(words: &[&str], variables: &[(&str, &str)]) -> Options {
        let args = std::iter::once("discnt-cli").chain(words.iter().copied()).map(OsString::from);
        let find = |name: &str| variables.iter().find(|v| v.0 == name).map(|v| OsString::from(v.1));
        Options::parse(args, find).unwrap()
    }

    #[test]
    fn h_is_the_host_and_the_port_has_a_default() {
        let options = parse(&["-h", "db.example", "PING"]).unwrap();
        assert_eq!(options.address, Address::Tcp { host: "db.example".to_owned(), port: 5262 });
        assert_eq!(options.command, [b"PING".to_vec()]);
        assert_eq!(options.protocol, Protocol::Resp2);
    }

    #[test]
    fn of_an_option_that_stands_twice_the_later_counts() {
        let options = parse(&["-p", "7711", "--raw", "-p", "7712", "--raw", "PING"]).unwrap();
        assert_eq!(options.address, Address::Tcp { host: "127.0.0.1".to_owned(), port: 7712 });
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let options = parse(&["-p", "7711", "incrby", "-a", "-5", "--json", "-3", "--help"]).unwrap();
        assert_eq!(options.command.len(), 6);
        assert_eq!(options.command[2], b"-5");
        assert_eq!(options.output, OutputChoice::Automatic);
        assert!(options.credentials.is_none());
    }

    #[test]
    fn unknown_options_are_refused_before_the_command() {
        assert!(parse(&["--frobnicate", "PING"]).is_err());
        assert!(parse(&["-p", "70000"]).is_err());
        assert!(parse(&["-i", "-1", "PING"]).is_err());
        assert!(parse(&["-i", "nan", "PING"]).is_err());
        assert!(parse(&["-x"]).is_err());
        assert!(parse(&["--user", "u"]).is_err());
        assert!(parse(&["-2", "-3"]).is_err());
        assert!(parse(&["--csv", "--json"]).is_err());
    }

    #[test]
    fn help_and_version_are_answered() {
        assert_eq!(parse(&["--help"]).unwrap_err().kind(), clap::error::ErrorKind::DisplayHelp);
        assert_eq!(parse(&["--version"]).unwrap_err().kind(), clap::error::ErrorKind::DisplayVersion);
    }

    #[test]
    fn passwords_come_from_the_option_then_from_the_environment() {
        let variables = [("REDISCLI_AUTH", "second"), ("DISCNT_CLI_AUTH", "first")];
        assert_eq!(parse_with(&["-a", "own"], &variables).credentials.unwrap().password, b"own");
        assert_eq!(parse_with(&["--pass", "own"], &variables).credentials.unwrap().password, b"own");
        assert_eq!(parse_with(&[], &variables).credentials.unwrap().password, b"first");
        assert_eq!(parse_with(&[], &variables[..1]).credentials.unwrap().password, b"second");
        let debug = format!("{:?}", parse_with(&["-a", "own"], &[]));
        assert!(debug.contains("Credentials(hidden)"), "{debug}");
    }

    #[test]
    fn a_negative_repeat_is_for_ever() {
        assert_eq!(parse(&["-r", "-1", "PING"]).unwrap().repeat, Repeat::Forever);
        let options = parse(&["-r", "3", "-i", "0.25", "PING"]).unwrap();
        assert_eq!((options.repeat, options.interval), (Repeat::Times(3), Duration::from_millis(250)));
    }

    #[test]
    fn json_speaks_resp3_unless_told_otherwise() {
        assert_eq!(parse(&["--json"]).unwrap().protocol, Protocol::Resp3);
        assert_eq!(parse(&["--json", "-2"]).unwrap().protocol, Protocol::Resp2);
        assert_eq!(parse(&["-3"]).unwrap().protocol, Protocol::Resp3);
    }

    #[test]
    fn no_color_counts_when_it_is_not_empty() {
        assert!(parse_with(&[], &[("NO_COLOR", "1")]).is_colorless);
        assert!(!parse_with(&[], &[("NO_COLOR", "")]).is_colorless);
        assert!(parse_with(&["--no-color"], &[]).is_colorless);
    }

    #[test]
    fn addresses_read_as_they_are_typed() {
        let tcp = |host: &str| Address::Tcp { host: host.to_owned(), port: 1 }.to_string();
        assert_eq!(tcp("localhost"), "localhost:1");
        assert_eq!(tcp("::1"), "[::1]:1");
        assert_eq!(Address::Unix("/run/d.sock".into()).to_string(), "/run/d.sock");
    }
}
