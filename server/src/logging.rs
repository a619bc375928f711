//! The log: lines of `pid:role date time level message`, as tools around Redis-family servers read them,
//! to standard output or to a file that is opened anew for each line (so that it can be moved away).

use engine::settings::LogLevel;
use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::time::{ClockId, clock_gettime};
use parking_lot::RwLock;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

struct Logger {
    /// `None`: standard output.
    file: RwLock<Option<PathBuf>>,
}

static LOGGER: Logger = Logger { file: RwLock::new(None) };

/// Starts logging. Called once, before any thread is started.
pub(crate) fn start(level: LogLevel, file: Option<PathBuf>) {
    *LOGGER.file.write() = file;
    set_level(level);
    log::set_logger(&LOGGER).expect("logging is started once");
}

/// Opens a log file, made if it is missing.
///
/// # Errors
/// The system's.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Changes the level (CONFIG SET loglevel).
pub(crate) fn set_level(level: LogLevel) {
    log::set_max_level(match level {
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Verbose | LogLevel::Notice => LevelFilter::Info,
        LogLevel::Warning => LevelFilter::Warn,
    });
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mark = match record.level() {
            Level::Error | Level::Warn => '#',
            Level::Info => '*',
            Level::Debug | Level::Trace => '.',
        };
        let line = format!("{}:M {} {mark} {}\n", std::process::id(), timestamp(), record.args());
        // Nothing sensible is left to do when the log itself can't be written.
        let written = match &*self.file.read() {
            None => io::stdout().lock().write_all(line.as_bytes()),
            Some(path) => open(path).and_then(|mut file| file.write_all(line.as_bytes())),
        };
        drop(written);
    }

    fn flush(&self) {}
}

/// `23 Nov 2026 05:22:13.123`, UTC.
fn timestamp() -> String {
    let (secs, millis) = clock_gettime(ClockId::CLOCK_REALTIME)
        .map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec() / 1_000_000));
    let (year, month, day) = civil_from_days(secs.div_euclid(86_400));
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let of_day = secs.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{day:02} {} {year} {hour:02}:{minute:02}:{second:02}.{millis:03}", MONTHS[month as usize - 1])
}

/// Year, month and day of a count of days since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::civil_from_days;

    #[test]
    fn days_become_dates() {
        for (days, date) in
            [(0, (1970, 1, 1)), (19_782, (2024, 2, 29)), (19_783, (2024, 3, 1)), (-1, (1969, 12, 31))]
        {
            assert_eq!(civil_from_days(days), date);
        }
    }
}
