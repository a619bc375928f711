//! From the command line to settings: options, the configuration file, standard input, included files; and back, for
//! CONFIG REWRITE.
//!
//! What settings there are, and what they take, is the engine's knowledge (`engine::settings`). Here are the files
//! and their bounds. Nothing is printed and the process is not ended: the caller shows a [`ConfigError`] on standard
//! error and leaves with status 1.
//!
//! The command line, as other servers of the family have it: a first argument that does not begin with `--` is the
//! configuration file (`-` for standard input); then options `--name value ...`, whose values last until the next
//! word that begins with `--`, count as lines added at the end of the file.

use crate::local_cluster::{FIRST_PORT, MAX_NODES};
use engine::settings::{
    ConfigReader, Included, LineError, MAX_PORT, SETTINGS, Settings, name_of_two_commands, rewrite,
};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::{fmt, process};

/// Longest configuration file.
pub(crate) const MAX_CONFIG_LEN: u64 = 16 << 20;

/// Name of the command line in messages.
const COMMAND_LINE: &str = "command line";
/// Name of standard input in messages.
const STANDARD_INPUT: &str = "standard input";

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// To run a node.
    Run,
    /// To run some joined nodes, on as many ports in a row.
    LocalCluster {
        /// How many; 1 to `local_cluster::MAX_NODES`.
        nodes: u16,
        /// Port of the first one.
        first_port: u16,
    },
    /// To print [`help_text`].
    Help,
    /// To print [`version_text`].
    Version,
    /// To say what the files in a directory, or one file, hold.
    Check(PathBuf),
    /// To make a damaged directory whole again.
    Repair(PathBuf),
    /// To read a dump of the original into the data directory.
    Import(PathBuf),
}

/// What a process needs to know to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Startup {
    /// What to do.
    pub(crate) mode: Mode,
    /// Defaults, changed by the file and the options. Paths are as they were given.
    pub(crate) settings: Settings,
    /// The configuration file, absolute, so that it is found again after a change of directory; none without a file
    /// and for standard input, and then CONFIG REWRITE has nothing to write to.
    pub(crate) config_file: Option<PathBuf>,
    /// What was read from standard input as configuration, for a copy of the process that can't read it again.
    pub(crate) standard_input: Vec<u8>,
}

/// Why the settings can't be read or written. Displays as one line for the operator.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// A line or an option is wrong.
    Line(LineError),
    /// An argument stands where none may.
    Argument(String),
    /// All lines of `rename-command` together give two commands this name.
    TwoCommands(String),
    /// The configuration file can't be read or written.
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Line(error) => error.fmt(f),
            ConfigError::Argument(problem) => {
                write!(f, "{COMMAND_LINE}: {problem}; see discnt-server --help")
            }
            ConfigError::TwoCommands(name) => {
                write!(
                    f,
                    "rename-command: two commands would have the name '{name}'; choose another for one of them"
                )
            }
            ConfigError::File { action, path, error } => {
                write!(f, "can't {action} the configuration file {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Reads the command line (without the program's name) and all that it names.
///
/// # Errors
/// The first thing that is wrong; nothing has changed then.
pub(crate) fn load(args: impl Iterator<Item = OsString>) -> Result<Startup, ConfigError> {
    let mut args = args.map(OsString::into_vec).peekable();
    let mut reader = ConfigReader::new(Settings::default());
    let (mut config_file, mut standard_input) = (None, Vec::new());
    let (mut mode, mut local_cluster) = (Mode::Run, None);
    let file_arg = args.next_if(|arg| !arg.starts_with(b"--") && !matches!(arg.as_slice(), b"-h" | b"-v"));
    if let Some(file_arg) = file_arg {
        config_file = read_file_argument(&mut reader, file_arg, &mut standard_input)?;
    }
    while let Some(option) = args.next() {
        let only = match option.as_slice() {
            b"--help" | b"-h" => Some(Mode::Help),
            b"--version" | b"-v" => Some(Mode::Version),
            _ => None,
        };
        if let Some(mode) = only {
            let settings = Settings::default();
            return Ok(Startup { mode, settings, config_file: None, standard_input });
        }
        if let Some(mode_of) = mode_of_file(&option) {
            let path = args.next_if(|arg| !arg.starts_with(b"--")).ok_or_else(|| {
                let option = String::from_utf8_lossy(&option).into_owned();
                ConfigError::Argument(format!("{option} wants a path behind it"))
            })?;
            mode = mode_of(PathBuf::from(OsString::from_vec(path)));
            continue;
        }
        let Some(name) = option.strip_prefix(b"--") else {
            let word = String::from_utf8_lossy(&option).into_owned();
            return Err(ConfigError::Argument(format!("an option must begin with --, not '{word}'")));
        };
        let mut words = Vec::new();
        while let Some(word) = args.next_if(|arg| !arg.starts_with(b"--")) {
            words.push(word);
        }
        if name.eq_ignore_ascii_case(b"local-cluster") {
            local_cluster = Some(words);
            continue;
        }
        reader.read_words(name, &words, COMMAND_LINE, None, &mut open_included).map_err(ConfigError::Line)?;
    }
    let settings = reader.into_settings();
    if let Some(words) = local_cluster {
        mode = local_cluster_mode(&words, settings.port)?;
    }
    if let Some(name) = name_of_two_commands(&settings) {
        return Err(ConfigError::TwoCommands(name.to_owned()));
    }
    Ok(Startup { mode, settings, config_file, standard_input })
}

/// The mode that an option with a path asks for.
fn mode_of_file(option: &[u8]) -> Option<fn(PathBuf) -> Mode> {
    match option {
        b"--check" => Some(Mode::Check),
        b"--repair" => Some(Mode::Repair),
        b"--import" => Some(Mode::Import),
        _ => None,
    }
}

/// What follows `--local-cluster`: how many nodes and, if wanted, the first port; a `port` that is set does as well.
fn local_cluster_mode(words: &[Vec<u8>], port: u16) -> Result<Mode, ConfigError> {
    let usual_first = if port == Settings::default().port { FIRST_PORT } else { port };
    let number = |word: &Vec<u8>| std::str::from_utf8(word).ok()?.parse::<u16>().ok();
    let (nodes, first_port) = match words {
        [nodes] => (number(nodes), Some(usual_first)),
        [nodes, port] => (number(nodes), number(port)),
        _ => (None, None),
    };
    match (nodes, first_port) {
        (Some(nodes @ 1..=MAX_NODES), Some(first_port @ 1..)) if first_port <= MAX_PORT - (nodes - 1) => {
            Ok(Mode::LocalCluster { nodes, first_port })
        }
        _ => Err(ConfigError::Argument(format!(
            "--local-cluster takes a number of nodes from 1 to {MAX_NODES} and, if not {FIRST_PORT}, the port of the \
             first one; the last port may be {MAX_PORT}"
        ))),
    }
}

/// Reads the file, or standard input, and answers the absolute path of the file.
fn read_file_argument(
    reader: &mut ConfigReader,
    arg: Vec<u8>,
    standard_input: &mut Vec<u8>,
) -> Result<Option<PathBuf>, ConfigError> {
    let (source, path, text) = if arg == b"-" {
        (STANDARD_INPUT.to_owned(), None, read_bounded(io::stdin().lock()))
    } else {
        let path = PathBuf::from(OsString::from_vec(arg));
        (path.display().to_string(), Some(path.clone()), read_bounded_file(&path))
    };
    let file_error = |error| ConfigError::File { action: "read", path: PathBuf::from(&source), error };
    let text = text.map_err(file_error)?;
    reader.read_text(&text, &source, &mut open_included).map_err(ConfigError::Line)?;
    if path.is_none() {
        *standard_input = text;
    }
    path.map(|path| std::path::absolute(path).map_err(file_error)).transpose()
}

/// Fetches an included file; a relative path starts at the directory of the file that includes it.
fn open_included(from: &str, path: &str) -> Result<Included, String> {
    let directory = match from {
        COMMAND_LINE | STANDARD_INPUT => Path::new(""),
        file => Path::new(file).parent().unwrap_or(Path::new("")),
    };
    let path = directory.join(path);
    let source = path.display().to_string();
    match read_bounded_file(&path) {
        Ok(text) => Ok(Included { source, text }),
        Err(error) => Err(format!("can't read {source}: {error}")),
    }
}

fn read_bounded_file(path: &Path) -> io::Result<Vec<u8>> {
    read_bounded(File::open(path)?)
}

fn read_bounded(input: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    input.take(MAX_CONFIG_LEN + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_CONFIG_LEN {
        let problem = format!("longer than {MAX_CONFIG_LEN} bytes; is it a configuration file?");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(text)
}

/// Changes the configuration file so that it gives `settings`: CONFIG REWRITE. A file that is gone is made anew.
///
/// The file is replaced in one step and on the disk when this returns; its permissions stay. A symbolic link stays
/// and its target is replaced.
///
/// # Errors
/// The system's; the file is as it was then.
pub(crate) fn rewrite_file(path: &Path, settings: &Settings) -> Result<(), ConfigError> {
    let file_error = |error| ConfigError::File { action: "rewrite", path: path.to_owned(), error };
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let old_text = match read_bounded_file(&target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(file_error)?,
    };
    let source = path.display().to_string();
    let text = rewrite(&old_text, settings, &Settings::default(), &source, &mut open_included);
    replace_file(&target, &text).map_err(file_error)
}

/// Writes a file beside the old one, then puts it in its place; when this returns it is on the disk, under its name.
///
/// # Errors
/// The system's; the old file is as it was then.
pub(crate) fn replace_file(path: &Path, text: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = directory.join(format!(".{name}.{}.tmp", process::id()));
    let written = write_like(&temporary, text, path).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What is left over would only confuse; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    File::open(directory)?.sync_all()
}

/// Writes and syncs a file with the permissions of `model`. Before they are known nobody else may read it: the
/// settings hold secrets.
fn write_like(path: &Path, text: &[u8], model: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    if let Ok(metadata) = fs::metadata(model) {
        file.set_permissions(metadata.permissions())?;
    }
    file.write_all(text)?;
    file.sync_all()
}

/// What `--version` prints.
pub(crate) fn version_text() -> String {
    format!("discnt-server {}\n", env!("CARGO_PKG_VERSION"))
}

/// What `--help` prints: how to start, and every setting in a line.
pub(crate) fn help_text() -> String {
    let mut text = String::from(
        "Usage: discnt-server [CONFIG-FILE | -] [--NAME VALUE ...]...\n\
         \x20      discnt-server --local-cluster NODES [FIRST-PORT]\n\
         \x20      discnt-server --check FILE-OR-DIRECTORY | --repair DIRECTORY\n\
         \x20      discnt-server [CONFIG-FILE] [--dir DIRECTORY] --import DUMP-FILE\n\
         \x20      discnt-server --help | --version\n\n\
         Starts a node of a counter cluster. Settings are read from CONFIG-FILE (- for standard\n\
         input); options count as lines added at its end. The shipped discnt.conf explains them.\n\
         --local-cluster starts joined nodes on this machine, on ports from 7711 (or --port) on, to try out.\n\n\
         --check says what counters a directory or a file holds and whether they are whole, --repair\n\
         saves what can be saved of a directory that a start refuses, --import reads a dump.ddb of\n\
         the original into a data directory that has no counters yet.\n\n\
         Examples:\n\
         \x20 discnt-server\n\
         \x20 discnt-server /etc/discnt.conf --port 5263\n\
         \x20 discnt-server --bind 127.0.0.1 ::1 --save 60 1 --loglevel debug\n\n\
         Settings:\n",
    );
    for spec in SETTINGS {
        let default = spec.default_text();
        let default = match default.as_slice() {
            b"" => String::new(),
            value => format!(" [{}]", String::from_utf8_lossy(value)),
        };
        text.push_str(&format!("  --{}{default}\n        {}\n", spec.name, spec.summary));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory of its own for each test, gone at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Directory {
            let path = std::env::temp_dir().join(format!("discnt-config-{}-{test}", process::id()));
            fs::create_dir_all(&path).unwrap();
            Directory(path)
        }

        fn file(&self, name: &str, text: &str) -> String {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path.display().to_string()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn load_args(args: &[&str]) -> Result<Startup, String> {
        load(args.iter().map(OsString::from)).map_err(|error| error.to_string())
    }

    fn settings(args: &[&str]) -> Settings {
        load_args(args).unwrap().settings
    }

    #[test]
    fn without_arguments_a_node_runs_on_the_defaults() {
        let startup = Startup {
            mode: Mode::Run,
            settings: Settings::default(),
            config_file: None,
            standard_input: Vec::new(),
        };
        assert_eq!(load_args(&[]), Ok(startup));
    }

    #[test]
    fn options_take_values_until_the_next_option() {
        let settings =
            settings(&["--bind", "127.0.0.1", "::1", "--PORT", "7", "--save", "", "--save", "60", "1"]);
        assert_eq!((settings.port, settings.save.len()), (7, 1));
        assert_eq!(settings.bind, ["127.0.0.1", "::1"]);
    }

    #[test]
    fn values_of_options_are_taken_as_they_are() {
        let settings = settings(&["--requirepass", "p \"q' \\ü", "--rename-command", "SHUTDOWN", ""]);
        assert_eq!(settings.requirepass.0, "p \"q' \\ü".as_bytes());
        assert_eq!(settings.rename_command[0].name, "");
    }

    #[test]
    fn options_overrule_the_file() {
        let directory = Directory::new("overrule");
        let path = directory.file("a.conf", "port 1\ntimeout 5\n");
        let startup = load_args(&[&path, "--port", "2"]).unwrap();
        assert_eq!((startup.settings.port, startup.settings.timeout_secs), (2, 5));
        assert_eq!(startup.config_file, Some(PathBuf::from(path)));
    }

    #[test]
    fn relative_includes_start_at_the_including_file() {
        let directory = Directory::new("include");
        directory.file("sub/c.conf", "hz 33\n");
        directory.file("sub/b.conf", "timeout 9\ninclude c.conf\n");
        let path = directory.file("a.conf", "include sub/b.conf\n");
        let settings = settings(&[&path]);
        assert_eq!((settings.timeout_secs, settings.hz), (9, 33));
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        let directory = Directory::new("errors");
        let included = directory.file("b.conf", "\n\nnosuch 1\n");
        let path = directory.file("a.conf", "hz 1\ninclude b.conf\n");
        let message = load_args(&[&path]).unwrap_err();
        assert_eq!(
            message,
            format!("{included}:3: there is no setting 'nosuch'; see discnt.conf for those that exist")
        );
        let path = directory.file("c.conf", "hz 1\ninclude missing.conf\n");
        let message = load_args(&[&path]).unwrap_err();
        assert!(message.starts_with(&format!("{path}:2: include: can't read ")), "{message}");
        let message = load_args(&["/nonexistent/discnt.conf"]).unwrap_err();
        assert!(
            message.starts_with("can't read the configuration file /nonexistent/discnt.conf: "),
            "{message}"
        );
    }

    #[test]
    fn wrong_options_are_named() {
        let message = load_args(&["--port", "abc"]).unwrap_err();
        assert!(message.starts_with("command line: port 'abc': expected a whole number"), "{message}");
        let message = load_args(&["--nosuch"]).unwrap_err();
        assert!(message.starts_with("command line: there is no setting 'nosuch'"), "{message}");
        let directory = Directory::new("stray");
        let path = directory.file("a.conf", "");
        let message = load_args(&[&path, "stray"]).unwrap_err();
        assert!(message.starts_with("command line: an option must begin with --, not 'stray'"), "{message}");
    }

    #[test]
    fn a_file_that_includes_itself_is_refused() {
        let directory = Directory::new("circle");
        let path = directory.file("a.conf", "include a.conf\n");
        assert!(load_args(&[&path]).unwrap_err().contains("is there a circle?"));
    }

    #[test]
    fn an_endless_file_is_refused() {
        let message = load_args(&["/dev/zero"]).unwrap_err();
        assert!(message.contains("longer than 16777216 bytes"), "{message}");
    }

    #[test]
    fn help_and_version_are_asked_for_by_option() {
        for (option, mode) in
            [("--help", Mode::Help), ("-h", Mode::Help), ("--version", Mode::Version), ("-v", Mode::Version)]
        {
            assert_eq!(load_args(&[option]).unwrap().mode, mode);
        }
        assert!(version_text().starts_with(concat!("discnt-server ", env!("CARGO_PKG_VERSION"))));
        let help = help_text();
        assert!(SETTINGS.iter().all(|spec| help.contains(&format!("  --{}", spec.name))));
        assert!(help.contains("--port [5262]"));
    }

    #[test]
    fn a_local_cluster_has_a_few_nodes_and_ports_in_a_row() {
        let mode = |args: &[&str]| load_args(args).map(|startup| startup.mode);
        let expected = |nodes, first_port| Ok(Mode::LocalCluster { nodes, first_port });
        assert_eq!(mode(&["--local-cluster", "3", "--loglevel", "debug"]), expected(3, 7711));
        assert_eq!(mode(&["--local-cluster", "16", "55520"]), expected(16, 55_520));
        assert_eq!(mode(&["--local-cluster", "3", "--port", "8000"]), expected(3, 8_000));
        assert_eq!(mode(&["--port", "8000", "--local-cluster", "3", "9000"]), expected(3, 9_000));
        for wrong in [&["3", "x"][..], &["0"], &["17"], &[], &["1", "0"], &["2", "55535"], &["1", "2", "3"]] {
            let message = mode(&[&["--local-cluster"], wrong].concat()).unwrap_err();
            assert!(message.contains("a number of nodes from 1 to 16"), "{message}");
        }
    }

    #[test]
    fn rewrite_replaces_the_file_and_keeps_its_permissions() {
        let directory = Directory::new("rewrite");
        let path = PathBuf::from(directory.file("a.conf", "# mine\ntimeout 5\n"));
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let changed = Settings { timeout_secs: 7, maxclients: 9, ..Settings::default() };
        rewrite_file(&path, &changed).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "# mine\ntimeout 7\n# Generated by CONFIG REWRITE\nmaxclients 9\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "nothing is left over");
        assert_eq!(settings(&[path.to_str().unwrap()]), changed);
    }

    #[test]
    fn rewrite_makes_a_missing_file_and_tells_when_it_can_not() {
        let directory = Directory::new("rewrite-missing");
        let path = directory.0.join("new.conf");
        rewrite_file(&path, &Settings { hz: 20, ..Settings::default() }).unwrap();
        assert_eq!(settings(&[path.to_str().unwrap()]).hz, 20);
        let message =
            rewrite_file(&directory.0.join("no/such.conf"), &Settings::default()).unwrap_err().to_string();
        assert!(message.starts_with("can't rewrite the configuration file "), "{message}");
    }
}
