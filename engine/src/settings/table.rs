//! The table of all settings.
//!
//! Its order is the order in which CONFIG GET answers: first what the original shows, in its order, then what is
//! ours, then what CONFIG GET never shows. The shipped `discnt.conf` explains each at length.

use super::given::{Given, Kind, Place, SettingError, memory_size, quoted, whole_number};
use super::words::{AppendFsync, LogLevel, Named, Supervised, SyslogFacility};
use super::{
    KEEPALIVE_YES_SECS, MAX_BIND_ADDRS, MAX_HISTORY_SIZE_SECS, MAX_IO_THREADS, MAX_PORT,
    MAX_RENAMED_COMMANDS, MAX_SAVE_POINTS, MAX_SECRET_LEN, MAX_TEXT_LEN, MIN_SECRET_LEN, OutputLimit,
    Precision, RenamedCommand, SavePoint, SettingSpec, Settings, Shown, When,
};
use std::fmt::Display;

/// Bound of numbers that have no natural one; other servers of the family hold them in 31 bits.
const MAX_NUMBER: u64 = i32::MAX as u64;

const TEXT: Kind = Kind::Text { max_len: MAX_TEXT_LEN };

const fn number(min: u64, max: u64, unit: &'static str) -> Kind {
    Kind::Number { min, max, unit }
}

const fn choice<T: Named>() -> Kind {
    Kind::Choice(|| T::NAMES.iter().map(|(name, _)| *name).collect())
}

/// All settings.
pub static SETTINGS: &[SettingSpec] = &[
    SettingSpec {
        name: "dbfilename",
        kind: TEXT,
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Name, in the data directory, of a dump file to read and write.",
        get: |s| text(&s.dbfilename),
        set: |s, given| {
            s.dbfilename = given.file_name("dbfilename can't be a path, just a filename")?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "requirepass",
        kind: Kind::Secret { min_len: 0, max_len: MAX_SECRET_LEN },
        when: When::RunTime,
        shown: Shown::ByNameOnly,
        summary: "Password that clients must give with AUTH.",
        get: |s| s.requirepass.clone(),
        set: |s, given| {
            s.requirepass = given.secret()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "unixsocket",
        kind: TEXT,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Path of a unix socket to listen on.",
        get: |s| text(&s.unixsocket),
        set: |s, given| {
            s.unixsocket = given.text()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "logfile",
        kind: TEXT,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "File that the log is appended to; empty for standard output.",
        get: |s| text(&s.logfile),
        set: |s, given| {
            s.logfile = given.text()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "pidfile",
        kind: TEXT,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "File that holds the process id while the server runs; empty for none.",
        get: |s| text(&s.pidfile),
        set: |s, given| {
            s.pidfile = given.text()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "maxmemory",
        kind: Kind::Memory,
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Bytes of memory above which commands that may create counters are refused; 0 for no limit.",
        get: |s| text(s.maxmemory_bytes),
        set: |s, given| {
            s.maxmemory_bytes = given.memory()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "timeout",
        kind: number(0, MAX_NUMBER, "seconds"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Seconds after which an idle client is disconnected; 0 for never.",
        get: |s| text(s.timeout_secs),
        set: |s, given| {
            s.timeout_secs = given.number()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "latency-monitor-threshold",
        kind: number(0, MAX_NUMBER, "milliseconds"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Milliseconds from which a delay is recorded for LATENCY; 0 records none.",
        get: |s| text(s.latency_monitor_threshold_ms),
        set: |s, given| {
            s.latency_monitor_threshold_ms = given.number()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "port",
        kind: Kind::Number {
            min: 0,
            max: MAX_PORT as u64,
            unit: "a TCP port (the cluster bus takes it + 10000)",
        },
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "TCP port for clients; the cluster bus listens on this port + 10000. 0 opens neither.",
        get: |s| text(s.port),
        set: |s, given| {
            s.port = given.number()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "tcp-backlog",
        kind: number(1, 65_535, "connections"),
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Connections that may wait to be accepted.",
        get: |s| text(s.tcp_backlog),
        set: |s, given| {
            s.tcp_backlog = given.number()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "maxclients",
        kind: number(1, 1_000_000, "clients"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Clients that may be connected at once.",
        get: |s| text(s.maxclients),
        set: |s, given| {
            s.maxclients = given.number()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "watchdog-period",
        kind: number(0, MAX_NUMBER, "milliseconds"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Accepted for old files; has no effect.",
        get: |s| text(s.watchdog_period_ms),
        set: |s, given| {
            s.watchdog_period_ms = given.number()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "hz",
        kind: number(0, MAX_NUMBER, "ticks per second (taken to the nearest from 1 to 500)"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Accepted for old files; has no effect.",
        get: |s| text(s.hz),
        set: |s, given| {
            s.hz = given.number::<u32>()?.clamp(1, 500);
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "cluster-node-timeout",
        kind: number(100, 86_400_000, "milliseconds"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Milliseconds of silence after which a member counts as failing.",
        get: |s| text(s.cluster_node_timeout_ms),
        set: |s, given| {
            s.cluster_node_timeout_ms = given.number()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "history-size",
        kind: number(1, MAX_HISTORY_SIZE_SECS as u64, "seconds"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Seconds over which the movement of a counter is measured to predict it.",
        get: |s| text(s.history_size_secs),
        set: |s, given| {
            s.history_size_secs = given.number()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "stop-writes-on-bgsave-error",
        kind: Kind::Flag,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Whether a node that can't write its files refuses changes.",
        get: |s| yes_no(s.stop_writes_on_bgsave_error),
        set: |s, given| {
            s.stop_writes_on_bgsave_error = given.flag()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "tcp-keepalive",
        kind: Kind::Special("a whole number of seconds, or no (0), or yes (300)"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Seconds between probes of a silent client; no or 0 sends none.",
        get: |s| keepalive_text(s.tcp_keepalive_secs),
        set: |s, given| {
            s.tcp_keepalive_secs = keepalive_secs(given)?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "daemonize",
        kind: Kind::Flag,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Whether the server goes to the background.",
        get: |s| yes_no(s.daemonize),
        set: |s, given| {
            s.daemonize = given.flag()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "ddbchecksum",
        kind: Kind::Flag,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Accepted for old files; has no effect, everything written carries a checksum.",
        get: |s| yes_no(s.ddbchecksum),
        set: |s, given| {
            s.ddbchecksum = given.flag()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "activerehashing",
        kind: Kind::Flag,
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Accepted for old files; has no effect.",
        get: |s| yes_no(s.activerehashing),
        set: |s, given| {
            s.activerehashing = given.flag()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "loglevel",
        kind: choice::<LogLevel>(),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "The least weighty lines that the log takes.",
        get: |s| text(s.loglevel.name()),
        set: |s, given| {
            s.loglevel = given.choice()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "supervised",
        kind: choice::<Supervised>(),
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Who watches over the process and wants to hear when it is ready.",
        get: |s| text(s.supervised.name()),
        set: |s, given| {
            s.supervised = given.choice()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "syslog-facility",
        kind: choice::<SyslogFacility>(),
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Accepted for old files; has no effect.",
        get: |s| text(s.syslog_facility.name()),
        set: |s, given| {
            s.syslog_facility = given.choice()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "default-precision",
        kind: Kind::Special("a number from 0 to 100000000000000000000, or a percentage from 0% to 100%"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Precision of a counter that was not given its own.",
        get: |s| s.default_precision.text(),
        set: |s, given| {
            s.default_precision = Precision::parse(given.word()?).ok_or(SettingError::Invalid)?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "dir",
        kind: TEXT,
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "The data directory.",
        get: |s| text(&s.dir),
        set: |s, given| {
            s.dir = Some(given.text()?).filter(|dir| !dir.is_empty()).ok_or(SettingError::Invalid)?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "save",
        kind: Kind::Special("pairs of seconds (1 or more) and changes (0 or more), or \"\" for none"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "When to write a snapshot: after so many seconds if there were so many changes.",
        get: |s| s.save.iter().map(save_point_text).collect::<Vec<_>>().join(&b' '),
        set: set_save,
        lines: Some(|s| match s.save.is_empty() {
            true => vec![quoted(b"")],
            false => s.save.iter().map(save_point_text).collect(),
        }),
    },
    SettingSpec {
        name: "client-output-buffer-limit",
        kind: Kind::Special(
            "normal or pubsub, then a hard limit, a soft limit (both bytes) and seconds, once or twice",
        ),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "How much output may wait for a client of a class before it is disconnected.",
        get: |s| output_limits_text(s).join(&b' '),
        set: set_output_limits,
        lines: Some(output_limits_text),
    },
    SettingSpec {
        name: "unixsocketperm",
        kind: Kind::Octal { max: 0o777 },
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Permission bits of the unix socket, octal; 0 leaves them to the umask.",
        get: |s| text(format_args!("{:o}", s.unixsocketperm)),
        set: |s, given| {
            s.unixsocketperm = given.octal()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "bind",
        kind: Kind::Special("addresses to listen on, at most 16, or \"\" for all"),
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Addresses to listen on; none stands for all.",
        get: |s| text(s.bind.join(" ")),
        set: set_bind,
        lines: Some(|s| match s.bind.is_empty() {
            true => vec![quoted(b"")],
            false => vec![s.bind.iter().map(|addr| quoted(addr.as_bytes())).collect::<Vec<_>>().join(&b' ')],
        }),
    },
    // Ours.
    SettingSpec {
        name: "protected-mode",
        kind: Kind::Flag,
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Whether strangers are refused: clients from other machines while there is no requirepass, members \
                  from other machines while there is no cluster-secret.",
        get: |s| yes_no(s.protected_mode),
        set: |s, given| {
            s.protected_mode = given.flag()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "io-threads",
        kind: number(0, MAX_IO_THREADS as u64, "threads"),
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Threads that serve clients; 0 for one per core.",
        get: |s| text(s.io_threads),
        set: |s, given| {
            s.io_threads = given.number()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "appendonly",
        kind: Kind::Flag,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Whether changes are written to a log on disk.",
        get: |s| yes_no(s.appendonly),
        set: |s, given| {
            s.appendonly = given.flag()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "appendfsync",
        kind: choice::<AppendFsync>(),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "When the log of changes is forced to the disk.",
        get: |s| text(s.appendfsync.name()),
        set: |s, given| {
            s.appendfsync = given.choice()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "appenddirname",
        kind: TEXT,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Name, in the data directory, of the directory of the log and its snapshots.",
        get: |s| text(&s.appenddirname),
        set: |s, given| {
            s.appenddirname = given.file_name("appenddirname can't be a path, just a directory's name")?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "cluster-secret",
        kind: Kind::Secret { min_len: MIN_SECRET_LEN, max_len: MAX_SECRET_LEN },
        when: When::StartUp,
        shown: Shown::Masked,
        summary: "Secret that all members share; with it the cluster bus is encrypted and closed to strangers.",
        get: |s| s.cluster_secret.clone(),
        set: |s, given| {
            s.cluster_secret = given.secret()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "cluster-announce-ip",
        kind: Kind::Text { max_len: 255 },
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Address under which other members reach this node; empty: as they see it.",
        get: |s| text(&s.cluster_announce_ip),
        set: |s, given| {
            s.cluster_announce_ip = given.text()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "cluster-announce-port",
        kind: number(0, u16::MAX as u64, "a TCP port"),
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Client port to announce to other members; 0 for the port itself.",
        get: |s| text(s.cluster_announce_port),
        set: |s, given| {
            s.cluster_announce_port = given.number()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "cluster-announce-bus-port",
        kind: number(0, u16::MAX as u64, "a TCP port"),
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Port of the cluster bus to announce to other members; 0 for the bus port itself.",
        get: |s| text(s.cluster_announce_bus_port),
        set: |s, given| {
            s.cluster_announce_bus_port = given.number()?;
            Ok(())
        },
        lines: None,
    },
    // In files alone.
    SettingSpec {
        name: "cluster-config-file",
        kind: TEXT,
        when: When::StartUp,
        shown: Shown::Never,
        summary: "Name, in the data directory, of the file in which the node keeps its identity and its members.",
        get: |s| text(&s.cluster_config_file),
        set: |s, given| {
            s.cluster_config_file =
                given.file_name("cluster-config-file can't be a path, just a filename")?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "syslog-enabled",
        kind: Kind::Flag,
        when: When::StartUp,
        shown: Shown::Never,
        summary: "Accepted for old files; has no effect.",
        get: |s| yes_no(s.syslog_enabled),
        set: |s, given| {
            s.syslog_enabled = given.flag()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "syslog-ident",
        kind: TEXT,
        when: When::StartUp,
        shown: Shown::Never,
        summary: "Accepted for old files; has no effect.",
        get: |s| text(&s.syslog_ident),
        set: |s, given| {
            s.syslog_ident = given.text()?;
            Ok(())
        },
        lines: None,
    },
    SettingSpec {
        name: "rename-command",
        kind: Kind::Special("a command and its new name, or \"\" to remove it; at most 256 times"),
        when: When::StartUp,
        shown: Shown::Never,
        summary: "Gives a command another name, or none.",
        get: |s| rename_lines(s).join(&b' '),
        set: set_rename,
        lines: Some(rename_lines),
    },
    SettingSpec {
        name: "include",
        kind: Kind::Special("the path of another configuration file"),
        when: When::StartUp,
        shown: Shown::Never,
        summary: "Reads another configuration file at this place.",
        get: |_| Vec::new(),
        // The reader of files follows includes; they never get here.
        set: |_, _| Err(SettingError::Refused("include works only in a configuration file or as an option")),
        lines: Some(|_| Vec::new()),
    },
];

fn text(value: impl Display) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn yes_no(flag: bool) -> Vec<u8> {
    text(if flag { "yes" } else { "no" })
}

/// `no` and `yes` where the setting stands for them, so that GET shows what SET was given, else the seconds.
fn keepalive_text(secs: u32) -> Vec<u8> {
    match secs {
        0 => text("no"),
        KEEPALIVE_YES_SECS => text("yes"),
        _ => text(secs),
    }
}

fn keepalive_secs(given: &Given<'_>) -> Result<u32, SettingError> {
    match given.flag() {
        Ok(is_on) => Ok(if is_on { KEEPALIVE_YES_SECS } else { 0 }),
        Err(_) => whole_number::<u32>(given.word()?),
    }
}

fn save_point_text(point: &SavePoint) -> Vec<u8> {
    text(format_args!("{} {}", point.seconds, point.changes))
}

/// The first line replaces the defaults, later lines add to it; an empty value removes all, and CONFIG SET replaces.
fn set_save(settings: &mut Settings, given: &Given<'_>) -> Result<(), SettingError> {
    let numbers = given.list();
    if given.words.is_empty() || numbers.len() % 2 != 0 {
        return Err(SettingError::Invalid);
    }
    if numbers.is_empty() || given.place != Place::LaterLine {
        settings.save.clear();
    }
    for pair in numbers.chunks_exact(2) {
        let (seconds, changes) = (whole_number(pair[0])?, whole_number(pair[1])?);
        if seconds == 0 {
            return Err(SettingError::Invalid);
        }
        settings.save.push(SavePoint { seconds, changes });
    }
    if settings.save.len() > MAX_SAVE_POINTS {
        Err(SettingError::Refused("more than 64 save points"))
    } else {
        Ok(())
    }
}

fn output_limits_text(settings: &Settings) -> Vec<Vec<u8>> {
    let limits = settings.client_output_buffer_limit;
    let line = |class, limit: OutputLimit| {
        text(format_args!("{class} {} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_secs))
    };
    vec![line("normal", limits.normal), line("pubsub", limits.pubsub)]
}

/// Changes only the classes that are named. CONFIG SET takes plain byte counts, as clients know it.
fn set_output_limits(settings: &mut Settings, given: &Given<'_>) -> Result<(), SettingError> {
    let words = given.list();
    if words.is_empty() || words.len() % 4 != 0 {
        return Err(SettingError::Invalid);
    }
    let size = if given.place == Place::Command { whole_number } else { memory_size };
    for group in words.chunks_exact(4) {
        let limits = &mut settings.client_output_buffer_limit;
        let class = match group[0].to_ascii_lowercase().as_slice() {
            b"normal" => &mut limits.normal,
            b"pubsub" => &mut limits.pubsub,
            _ => return Err(SettingError::Invalid),
        };
        *class = OutputLimit {
            hard_bytes: size(group[1])?,
            soft_bytes: size(group[2])?,
            soft_secs: whole_number(group[3])?,
        };
    }
    Ok(())
}

fn set_bind(settings: &mut Settings, given: &Given<'_>) -> Result<(), SettingError> {
    let addrs = given.list();
    if given.words.is_empty() || addrs.len() > MAX_BIND_ADDRS {
        return Err(SettingError::Invalid);
    }
    let addrs = addrs.into_iter().map(|addr| String::from_utf8(addr.to_vec()));
    settings.bind = addrs.collect::<Result<_, _>>().map_err(|_| SettingError::Invalid)?;
    Ok(())
}

fn rename_lines(settings: &Settings) -> Vec<Vec<u8>> {
    let pair = |renamed: &RenamedCommand| {
        [quoted(renamed.command.as_bytes()), quoted(renamed.name.as_bytes())].join(&b' ')
    };
    settings.rename_command.iter().map(pair).collect()
}

fn set_rename(settings: &mut Settings, given: &Given<'_>) -> Result<(), SettingError> {
    let [command, name] = given.words else { return Err(SettingError::Invalid) };
    let word = |bytes: &[u8]| {
        let is_word = bytes.len() <= MAX_TEXT_LEN && bytes.iter().all(u8::is_ascii_graphic);
        is_word.then(|| String::from_utf8_lossy(bytes).into_owned()).ok_or(SettingError::Invalid)
    };
    if command.is_empty() || settings.rename_command.len() == MAX_RENAMED_COMMANDS {
        return Err(SettingError::Invalid);
    }
    settings.rename_command.push(RenamedCommand { command: word(command)?, name: word(name)? });
    Ok(())
}
