//! Reading configuration text: lines, comments, quotes, includes.
//!
//! A line holds a setting's name, in any letter case, and its value as words, quoted as in inline commands. Empty
//! lines and lines that begin with `#` say nothing; a `#` further on is an ordinary byte. A later line wins over an
//! earlier one, save for the settings that `discnt.conf` describes as lists. `include PATH` reads another text at
//! its place.
//!
//! Lacks on purpose: files. An included one is fetched by a function of the caller.

use super::given::{Given, Place, SettingError};
use super::{SettingSpec, Settings, find};
use std::fmt;

/// How deep an included text may include others.
pub const MAX_INCLUDE_DEPTH: usize = 16;
/// How much of a bad word a message repeats, in characters.
const MAX_QUOTED_CHARS: usize = 80;

/// A text that was included.
#[derive(Clone, Debug)]
pub struct Included {
    /// Its name in messages, and the `from` of what it includes itself.
    pub source: String,
    /// The text.
    pub text: Vec<u8>,
}

/// Fetches the text that `from` (a source's name) includes as `path`, or says why that can't be done.
pub type OpenIncluded<'a> = dyn FnMut(&str, &str) -> Result<Included, String> + 'a;

/// What is wrong with a line or an option, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The file, or what else the line came from.
    pub source: String,
    /// From 1; `None` if the source has no lines.
    pub line: Option<usize>,
    /// What is wrong; shows no secret.
    pub problem: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.source, self.problem),
            None => write!(f, "{}: {}", self.source, self.problem),
        }
    }
}

impl std::error::Error for LineError {}

/// Settings that grow line by line.
#[derive(Clone, Debug)]
pub struct ConfigReader {
    settings: Settings,
    /// Names that had a line, so that the first one of a list can replace the default.
    seen: Vec<&'static str>,
    depth: usize,
}

impl ConfigReader {
    /// Starts from `settings`, usually the defaults.
    pub fn new(settings: Settings) -> ConfigReader {
        ConfigReader { settings, seen: Vec::new(), depth: 0 }
    }

    /// The settings so far.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The settings after the last line.
    pub fn into_settings(self) -> Settings {
        self.settings
    }

    /// Whether a line or option named this setting.
    pub fn has_seen(&self, name: &str) -> bool {
        self.seen.contains(&name)
    }

    /// Reads a whole text.
    ///
    /// # Errors
    /// The first line that is wrong. The settings hold what stood before it then, perhaps part of a list in it.
    pub fn read_text(
        &mut self,
        text: &[u8],
        source: &str,
        open: &mut OpenIncluded<'_>,
    ) -> Result<(), LineError> {
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let number = Some(index + 1);
            let words = line_words(line).map_err(|problem| line_error(source, number, problem))?;
            if let Some((name, words)) = words.split_first() {
                self.read_words(name, words, source, number, open)?;
            }
        }
        Ok(())
    }

    /// Reads one line or option that is split already.
    ///
    /// # Errors
    /// As `read_text`.
    pub fn read_words(
        &mut self,
        name: &[u8],
        words: &[Vec<u8>],
        source: &str,
        line: Option<usize>,
        open: &mut OpenIncluded<'_>,
    ) -> Result<(), LineError> {
        let Some(spec) = find(name) else {
            let problem =
                format!("there is no setting {}; see discnt.conf for those that exist", shown(name));
            return Err(line_error(source, line, problem));
        };
        if spec.name == "include" {
            return self.include(words, source, line, open);
        }
        let place = if self.has_seen(spec.name) { Place::LaterLine } else { Place::FirstLine };
        let given = Given { kind: &spec.kind, place, words };
        (spec.set)(&mut self.settings, &given)
            .map_err(|error| line_error(source, line, setting_problem(spec, words, error)))?;
        if place == Place::FirstLine {
            self.seen.push(spec.name);
        }
        Ok(())
    }

    fn include(
        &mut self,
        words: &[Vec<u8>],
        source: &str,
        line: Option<usize>,
        open: &mut OpenIncluded<'_>,
    ) -> Result<(), LineError> {
        let [path] = words else {
            return Err(line_error(source, line, "include: expected the path of one file".to_owned()));
        };
        if self.depth == MAX_INCLUDE_DEPTH {
            let problem = format!(
                "include: files include each other more than {MAX_INCLUDE_DEPTH} deep; is there a circle?"
            );
            return Err(line_error(source, line, problem));
        }
        let path = std::str::from_utf8(path).map_err(|_| "the path is not UTF-8".to_owned());
        let included = path
            .and_then(|path| open(source, path))
            .map_err(|problem| line_error(source, line, format!("include: {problem}")))?;
        self.depth += 1;
        let read = self.read_text(&included.text, &included.source, open);
        self.depth -= 1;
        read
    }
}

/// Splits a line; a comment has no words.
pub(crate) fn line_words(line: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let line = line.trim_ascii();
    if line.starts_with(b"#") {
        return Ok(Vec::new());
    }
    resp::split_words(line).map_err(|error| error.to_string())
}

/// An opener for texts that can't include others.
#[cfg(test)]
pub(crate) fn no_includes(_from: &str, path: &str) -> Result<Included, String> {
    Err(format!("'{path}' can't be included here"))
}

fn line_error(source: &str, line: Option<usize>, problem: String) -> LineError {
    LineError { source: source.to_owned(), line, problem }
}

fn setting_problem(spec: &SettingSpec, words: &[Vec<u8>], error: SettingError) -> String {
    let value = match words {
        [] => " without a value".to_owned(),
        _ if spec.is_secret() => String::new(),
        _ => format!(" {}", words.iter().map(|word| shown(word)).collect::<Vec<_>>().join(" ")),
    };
    match error {
        SettingError::Invalid => format!("{}{value}: expected {}", spec.name, spec.kind),
        SettingError::Refused(reason) => format!("{}{value}: {reason}", spec.name),
    }
}

/// A word as a message shows it: quoted, on one line, not too long.
fn shown(word: &[u8]) -> String {
    let text = String::from_utf8_lossy(word);
    let head: String = text.chars().take(MAX_QUOTED_CHARS).flat_map(char::escape_debug).collect();
    let tail = if text.chars().count() > MAX_QUOTED_CHARS { "..." } else { "" };
    format!("'{head}{tail}'")
}

#[cfg(test)]
mod tests {
    use super::super::{MAX_HISTORY_SIZE_SECS, Precision, RenamedCommand, SavePoint};
    use super::*;
    use crate::value::Value;

    fn read(text: &str) -> Result<Settings, String> {
        let mut reader = ConfigReader::new(Settings::default());
        reader.read_text(text.as_bytes(), "a.conf", &mut no_includes).map_err(|error| error.to_string())?;
        Ok(reader.into_settings())
    }

    fn save_points(text: &str) -> Vec<(u32, u32)> {
        read(text).unwrap().save.iter().map(|point: &SavePoint| (point.seconds, point.changes)).collect()
    }

    #[test]
    fn lines_at_start_are_taken_as_recorded() {
        let settings = read(
            "timeout 9\nmaxclients 77\nhistory-size 4\ndefault-precision 2.5\ncluster-node-timeout 2500\nhz 30\n\
             maxmemory 300mb\nlatency-monitor-threshold 12\nclient-output-buffer-limit normal 1mb 512kb 60\n\
             save \"\"\nsave 120 3\nloglevel warning\ntcp-keepalive 60\nstop-writes-on-bgsave-error no\n\
             ddbchecksum no\nactiverehashing no\ntcp-backlog 100\n",
        )
        .unwrap();
        let shown = |name: &[u8]| String::from_utf8((find(name).unwrap().get)(&settings)).unwrap();
        for (name, value) in [
            ("timeout", "9"),
            ("maxclients", "77"),
            ("history-size", "4"),
            ("default-precision", "2.5"),
            ("cluster-node-timeout", "2500"),
            ("hz", "30"),
            ("maxmemory", "314572800"),
            ("latency-monitor-threshold", "12"),
            ("client-output-buffer-limit", "normal 1048576 524288 60 pubsub 0 0 0"),
            ("save", "120 3"),
            ("loglevel", "warning"),
            ("tcp-keepalive", "60"),
            ("stop-writes-on-bgsave-error", "no"),
            ("ddbchecksum", "no"),
            ("activerehashing", "no"),
            ("tcp-backlog", "100"),
        ] {
            assert_eq!(shown(name.as_bytes()), value, "{name}");
        }
    }

    #[test]
    fn comments_blanks_quotes_and_line_ends_are_understood() {
        let settings = read(
            "# comment\n\n   \t\n  # indented\r\nTIMEOUT\t7\r\nrequirepass \"p \\\"q' \\\\\\xc3\\xbc\"\nlogfile 'a b#c'",
        )
        .unwrap();
        assert_eq!((settings.timeout_secs, settings.logfile.as_str()), (7, "a b#c"));
        assert_eq!(settings.requirepass.0, b"p \"q' \\\xc3\xbc");
    }

    #[test]
    fn first_save_line_replaces_the_defaults_and_later_ones_add() {
        assert_eq!(save_points(""), [(3600, 1), (300, 100), (60, 10_000)]);
        assert_eq!(save_points("save 900 1"), [(900, 1)]);
        assert_eq!(save_points("save 900 1\nsave 60 5 30 9"), [(900, 1), (60, 5), (30, 9)]);
        assert_eq!(save_points("save 900 1\nsave \"\"\nsave 7 8"), [(7, 8)]);
        assert_eq!(save_points("save ''"), []);
    }

    #[test]
    fn output_limits_change_only_the_class_that_is_named() {
        let limits =
            read("client-output-buffer-limit pubsub 32mb 8mb 60").unwrap().client_output_buffer_limit;
        assert_eq!(limits.normal, Default::default());
        assert_eq!((limits.pubsub.hard_bytes, limits.pubsub.soft_secs), (33_554_432, 60));
    }

    #[test]
    fn lists_hold_every_word_or_line() {
        let settings =
            read("bind 127.0.0.1 ::1\nrename-command CONFIG GETCFG\nrename-command SHUTDOWN \"\"").unwrap();
        assert_eq!(settings.bind, ["127.0.0.1", "::1"]);
        let renamed =
            |command: &str, name: &str| RenamedCommand { command: command.into(), name: name.into() };
        assert_eq!(settings.rename_command, [renamed("CONFIG", "GETCFG"), renamed("SHUTDOWN", "")]);
        assert!(read("bind 127.0.0.1\nbind \"\"").unwrap().bind.is_empty());
        assert_eq!(
            read("rename-command GET a\nrename-command get b").unwrap().rename_command,
            [renamed("get", "b")]
        );
    }

    #[test]
    fn octal_bits_and_percentages_are_understood() {
        let settings = read("unixsocketperm 700\ndefault-precision 5%").unwrap();
        assert_eq!(settings.unixsocketperm, 0o700);
        assert_eq!(settings.default_precision, Precision::Percent(Value::from_integer(5)));
    }

    #[test]
    fn keepalive_is_seconds_or_yes_or_no_everywhere() {
        for (text, secs) in [("60", 60), ("0", 0), ("no", 0), ("yes", 300)] {
            assert_eq!(read(&format!("tcp-keepalive {text}")).unwrap().tcp_keepalive_secs, secs);
        }
    }

    #[test]
    fn a_bad_line_is_named_with_its_file_its_number_and_the_remedy() {
        for (text, message) in [
            (
                "\ntimeout abc",
                "a.conf:2: timeout 'abc': expected a whole number from 0 to 2147483647 (seconds)",
            ),
            (
                "timeout",
                "a.conf:1: timeout without a value: expected a whole number from 0 to 2147483647 (seconds)",
            ),
            (
                "timeout 1 2",
                "a.conf:1: timeout '1' '2': expected a whole number from 0 to 2147483647 (seconds)",
            ),
            ("tiemout 1", "a.conf:1: there is no setting 'tiemout'; see discnt.conf for those that exist"),
            ("daemonize maybe", "a.conf:1: daemonize 'maybe': expected yes or no"),
            ("appendfsync often", "a.conf:1: appendfsync 'often': expected one of always, everysec, no"),
            ("dbfilename ../x", "a.conf:1: dbfilename '../x': dbfilename can't be a path, just a filename"),
            ("logfile \"x", "a.conf:1: the quote at column 9 is not closed"),
            ("include b.conf", "a.conf:1: include: 'b.conf' can't be included here"),
        ] {
            assert_eq!(read(text).unwrap_err(), message);
        }
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        for line in [
            "port 55536",
            "port -1",
            "history-size 0",
            "maxclients 0",
            "cluster-node-timeout 1",
            "unixsocketperm 1000",
            "unixsocketperm 8",
            "save 0 1",
            "save 1",
            "save",
            "bind",
            "bind localhost",
            "bind 127.0.0.1 1.2.3",
            "default-precision inf",
            "default-precision -1",
            "cluster-secret fifteen-bytes-x",
            "cluster-announce-ip localhost",
            "cluster-announce-ip 10.0.0.1:5262",
            "cluster-announce-ip 0.0.0.0",
            "cluster-announce-ip ::",
            "cluster-announce-ip 224.0.0.1",
            "rename-command GET",
            "rename-command \"\" x",
            "cluster-config-file a/b",
            "dir \"\"",
            "logfile \"\\xff\"",
            "logfile \"a\\x00b\"",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
        for ip in ["10.0.0.1", "::1", "\"\""] {
            assert!(read(&format!("cluster-announce-ip {ip}")).is_ok(), "{ip}");
        }
        assert!(read(&format!("history-size {MAX_HISTORY_SIZE_SECS}")).is_ok());
        assert!(read(&format!("history-size {}", MAX_HISTORY_SIZE_SECS + 1)).is_err());
        assert!(read(&"save 1 1\n".repeat(65)).is_err());
    }

    #[test]
    fn messages_show_no_secret() {
        let message = read("cluster-secret tooshort").unwrap_err();
        assert_eq!(
            message,
            "a.conf:1: cluster-secret: expected one word of 16 to 512 bytes, or \"\" for none"
        );
    }

    #[test]
    fn included_text_is_read_at_its_place() {
        let mut open = |from: &str, path: &str| {
            assert_eq!((from, path), ("a.conf", "b.conf"));
            Ok(Included { source: "b.conf".into(), text: b"timeout 5\nhz 50\nsave 9 9".to_vec() })
        };
        let mut reader = ConfigReader::new(Settings::default());
        reader.read_text(b"timeout 1\nsave 1 1\ninclude b.conf\nhz 70", "a.conf", &mut open).unwrap();
        let settings = reader.into_settings();
        assert_eq!((settings.timeout_secs, settings.hz, settings.save.len()), (5, 70, 2));
    }

    #[test]
    fn a_circle_of_includes_ends_with_a_message() {
        let mut open =
            |_: &str, path: &str| Ok(Included { source: path.into(), text: b"include a.conf".to_vec() });
        let mut reader = ConfigReader::new(Settings::default());
        let error = reader.read_text(b"include a.conf", "a.conf", &mut open).unwrap_err();
        assert!(error.to_string().contains("more than 16 deep"));
    }
}
