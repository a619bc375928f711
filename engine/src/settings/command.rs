//! What CONFIG GET and CONFIG SET do to settings.
//!
//! Lacks on purpose: the effects. The caller compares the settings before and after, makes the change happen, and
//! refuses it where the world says no (`dir` to a directory that is not there).

use super::given::{Given, Place, SettingError};
use super::{SECRET_MASK, SETTINGS, SettingSpec, Settings, Shown, When, find};
use crate::glob::{Case, Glob};
use std::fmt;

/// The settings whose names fit any of the patterns, each once, in the order of the table.
///
/// Letter case counts. Secrets are answered as [`Shown`] says. A pattern that is too long for KEYS fits nothing.
pub fn config_get(settings: &Settings, patterns: &[&[u8]]) -> Vec<(&'static str, Vec<u8>)> {
    let mut is_wanted = vec![false; SETTINGS.len()];
    // One after the other: a compiled pattern can be many times as long as it was.
    for glob in patterns.iter().filter_map(|pattern| Glob::new(pattern, Case::Exact).ok()) {
        for (spec, is_wanted) in SETTINGS.iter().zip(&mut is_wanted) {
            *is_wanted |= spec.shown != Shown::Never && glob.is_match(spec.name.as_bytes());
        }
    }
    let wanted = SETTINGS.iter().zip(is_wanted).filter(|(_, is_wanted)| *is_wanted);
    wanted.map(|(spec, _)| (spec.name, shown_value(spec, settings))).collect()
}

fn shown_value(spec: &SettingSpec, settings: &Settings) -> Vec<u8> {
    let value = (spec.get)(settings);
    if spec.is_secret() && !value.is_empty() { SECRET_MASK.to_vec() } else { value }
}

/// Why CONFIG SET was refused; nothing has changed then. Displays as the client is told it, without `ERR `.
///
/// Names and values are shown as they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigSetError {
    /// There is no setting of this name that may change at run time.
    Unsupported(String),
    /// The setting does not take this value.
    Invalid {
        /// The setting.
        name: String,
        /// The value.
        value: String,
    },
    /// A rule that this text states.
    Refused(&'static str),
    /// The name stands twice.
    Repeated(String),
}

impl fmt::Display for ConfigSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigSetError::Unsupported(name) => write!(f, "Unsupported CONFIG parameter: {name}"),
            ConfigSetError::Invalid { name, value } => {
                write!(f, "Invalid argument '{value}' for CONFIG SET '{name}'")
            }
            ConfigSetError::Refused(reason) => f.write_str(reason),
            ConfigSetError::Repeated(name) => write!(f, "CONFIG parameter given twice: {name}"),
        }
    }
}

impl std::error::Error for ConfigSetError {}

/// The settings after all of the name and value pairs; names in any letter case.
///
/// # Errors
/// The first pair that can't be taken; see [`ConfigSetError`].
pub fn config_set(settings: &Settings, pairs: &[(&[u8], &[u8])]) -> Result<Settings, ConfigSetError> {
    let mut changed = settings.clone();
    for (index, &(name, value)) in pairs.iter().enumerate() {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Some(spec) = find(name).filter(|spec| spec.when == When::RunTime) else {
            return Err(ConfigSetError::Unsupported(shown(name)));
        };
        if pairs[..index].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
            return Err(ConfigSetError::Repeated(shown(name)));
        }
        let given = Given { kind: &spec.kind, place: Place::Command, words: &[value.to_vec()] };
        (spec.set)(&mut changed, &given).map_err(|error| match error {
            SettingError::Invalid => ConfigSetError::Invalid { name: shown(name), value: shown(value) },
            SettingError::Refused(reason) => ConfigSetError::Refused(reason),
        })?;
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::super::Secret;
    use super::*;

    /// Gives one value and answers what GET shows then, or the error.
    fn set_then_get(name: &str, value: &str) -> Result<String, String> {
        let settings = config_set(&Settings::default(), &[(name.as_bytes(), value.as_bytes())])
            .map_err(|error| error.to_string())?;
        let found = config_get(&settings, &[name.to_ascii_lowercase().as_bytes()]);
        Ok(String::from_utf8(found[0].1.clone()).unwrap())
    }

    fn names(patterns: &[&str]) -> Vec<&'static str> {
        let patterns: Vec<&[u8]> = patterns.iter().map(|pattern| pattern.as_bytes()).collect();
        config_get(&Settings::default(), &patterns).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn defaults_are_the_recorded_ones_in_the_recorded_order() {
        let recorded = [
            ("dbfilename", "dump.ddb"),
            ("requirepass", ""),
            ("unixsocket", ""),
            ("logfile", ""),
            ("pidfile", "/var/run/discnt.pid"),
            ("maxmemory", "1073741824"),
            ("timeout", "0"),
            ("latency-monitor-threshold", "0"),
            ("port", "5262"),
            ("tcp-backlog", "511"),
            ("maxclients", "10000"),
            ("watchdog-period", "0"),
            ("hz", "10"),
            ("cluster-node-timeout", "15000"),
            ("history-size", "10"),
            ("stop-writes-on-bgsave-error", "yes"),
            ("tcp-keepalive", "no"),
            ("daemonize", "no"),
            ("ddbchecksum", "yes"),
            ("activerehashing", "yes"),
            ("loglevel", "notice"),
            ("supervised", "no"),
            ("syslog-facility", "local0"),
            ("default-precision", "1"),
            ("dir", "."),
            ("save", "3600 1 300 100 60 10000"),
            ("client-output-buffer-limit", "normal 0 0 0 pubsub 0 0 0"),
            ("unixsocketperm", "0"),
            ("bind", ""),
        ];
        let found = config_get(&Settings::default(), &[b"*"]);
        for ((name, value), (found_name, found_value)) in recorded.iter().zip(&found) {
            assert_eq!((*name, value.as_bytes()), (*found_name, found_value.as_slice()));
        }
        assert!(found.len() > recorded.len(), "ours stand behind the recorded ones");
    }

    #[test]
    fn patterns_find_what_the_recorded_ones_found() {
        assert_eq!(names(&["max*"]), ["maxmemory", "maxclients"]);
        assert_eq!(names(&["*size"]), ["history-size"]);
        assert_eq!(names(&["h?"]), ["hz"]);
        assert_eq!(names(&["[ht]*z"]), ["hz"]);
        assert_eq!(names(&["*backlog*"]), ["tcp-backlog"]);
        for unknown in
            ["HZ", "Hz", "", "nosuch", "databases", "cluster-config-file", "slowlog-max-len", "include"]
        {
            assert!(names(&[unknown]).is_empty(), "{unknown}");
        }
    }

    #[test]
    fn several_patterns_answer_each_setting_once() {
        assert_eq!(names(&["hz", "h*", "timeout", "hz"]), ["timeout", "hz", "history-size"]);
    }

    #[test]
    fn values_that_fit_are_shown_as_recorded() {
        for (name, value, shown) in [
            ("dbfilename", "other.ddb", "other.ddb"),
            ("timeout", "100", "100"),
            ("TIMEOUT", "7", "7"),
            ("Hz", "15", "15"),
            ("latency-monitor-threshold", "50", "50"),
            ("cluster-node-timeout", "3000", "3000"),
            ("maxmemory", "2gb", "2147483648"),
            ("maxmemory", "5k", "5000"),
            ("maxmemory", "3b", "3"),
            ("loglevel", "DEBUG", "debug"),
            ("default-precision", "0.25", "0.25"),
            ("activerehashing", "YES", "yes"),
            ("tcp-keepalive", "yes", "yes"),
            ("maxclients", "500", "500"),
            ("watchdog-period", "0", "0"),
            ("save", "900 1 300 10", "900 1 300 10"),
            ("save", "", ""),
            ("save", "1 0", "1 0"),
            ("client-output-buffer-limit", "pubsub 100 50 10", "normal 0 0 0 pubsub 100 50 10"),
            ("client-output-buffer-limit", "normal 1 2 3 pubsub 4 5 6", "normal 1 2 3 pubsub 4 5 6"),
            ("dir", "/proc", "/proc"),
            ("hz", "100000", "500"),
            ("hz", "0", "1"),
        ] {
            assert_eq!(set_then_get(name, value).as_deref(), Ok(shown), "{name} {value}");
        }
    }

    #[test]
    fn bad_values_are_refused_in_the_recorded_words() {
        for (name, value) in [
            ("save", "100"),
            ("save", "0 1"),
            ("save", "-5 1"),
            ("save", "10 -1"),
            ("save", "a b"),
            ("save", "10 x"),
            ("save", "60 5 70"),
            ("client-output-buffer-limit", "slave 0 0 0"),
            ("client-output-buffer-limit", "normal 0 0"),
            ("client-output-buffer-limit", "normal a 0 0"),
            ("client-output-buffer-limit", "normal -1 0 0"),
            ("client-output-buffer-limit", "normal 1mb 0 0"),
            ("maxmemory", "abc"),
            ("maxmemory", "-1"),
            ("maxmemory", "5x"),
            ("maxmemory", "1.5gb"),
            ("loglevel", "loud"),
            ("activerehashing", "maybe"),
            ("activerehashing", "1"),
        ] {
            let message = format!("Invalid argument '{value}' for CONFIG SET '{name}'");
            assert_eq!(set_then_get(name, value), Err(message));
        }
        for path in ["a/b.ddb", "../x", "a\\b"] {
            let message = "dbfilename can't be a path, just a filename";
            assert_eq!(set_then_get("dbfilename", path), Err(message.to_owned()));
        }
    }

    #[test]
    fn start_up_and_unknown_settings_are_unsupported() {
        for name in [
            "port",
            "bind",
            "daemonize",
            "logfile",
            "pidfile",
            "unixsocket",
            "unixsocketperm",
            "tcp-backlog",
            "stop-writes-on-bgsave-error",
            "ddbchecksum",
            "supervised",
            "syslog-facility",
            "syslog-enabled",
            "cluster-config-file",
            "include",
            "rename-command",
            "nosuch",
            "appendonly",
            "maxmemory-policy",
        ] {
            assert_eq!(set_then_get(name, "1"), Err(format!("Unsupported CONFIG parameter: {name}")));
        }
    }

    #[test]
    fn a_password_may_have_512_bytes() {
        assert!(set_then_get("requirepass", &"p".repeat(512)).is_ok());
        assert!(
            set_then_get("requirepass", &"p".repeat(513)).unwrap_err().starts_with("Invalid argument 'ppp")
        );
    }

    #[test]
    fn history_size_zero_or_huge_is_refused() {
        for value in ["0", "3601", "-1", "99999999999999999999"] {
            assert!(set_then_get("history-size", value).is_err());
        }
    }

    #[test]
    fn infinite_and_negative_precisions_are_refused() {
        for value in ["inf", "-1", "nan", ""] {
            assert!(set_then_get("default-precision", value).is_err());
        }
        assert_eq!(set_then_get("default-precision", "0.0000001").as_deref(), Ok("0.0000001"));
    }

    #[test]
    fn keepalive_seconds_are_taken_at_run_time_too() {
        assert_eq!(set_then_get("tcp-keepalive", "60").as_deref(), Ok("60"));
        assert_eq!(set_then_get("tcp-keepalive", "0").as_deref(), Ok("no"));
    }

    #[test]
    fn several_pairs_are_set_all_or_not_at_all() {
        let settings = Settings::default();
        let changed = config_set(&settings, &[(b"hz", b"20"), (b"timeout", b"5")]).unwrap();
        assert_eq!((changed.hz, changed.timeout_secs), (20, 5));
        assert!(config_set(&settings, &[(b"hz", b"20"), (b"timeout", b"x")]).is_err());
        let twice = config_set(&settings, &[(b"hz", b"20"), (b"HZ", b"30")]);
        assert_eq!(twice, Err(ConfigSetError::Repeated("HZ".to_owned())));
    }

    #[test]
    fn secrets_are_never_shown() {
        let settings = Settings {
            requirepass: Secret(b"secret".to_vec()),
            cluster_secret: Secret(b"sixteen bytes or more".to_vec()),
            ..Settings::default()
        };
        assert_eq!(config_get(&settings, &[b"requirepass"]), [("requirepass", SECRET_MASK.to_vec())]);
        assert_eq!(config_get(&Settings::default(), &[b"requirepass"]), [("requirepass", Vec::new())]);
        for (name, value) in config_get(&settings, &[b"*"]) {
            let is_secret = ["requirepass", "cluster-secret"].contains(&name);
            assert_eq!(is_secret, value == SECRET_MASK, "{name}");
        }
        assert_eq!(config_get(&settings, &[b"cluster-secret"]), [("cluster-secret", SECRET_MASK.to_vec())]);
    }
}
