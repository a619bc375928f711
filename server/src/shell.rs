//! What the engine asks of the process around it: facts for INFO, the configuration file, the end.

use crate::bus::BusHandle;
use engine::command::SaveOnExit;
use engine::settings::Settings;
use engine::time::{Micros, Now};
use engine::{ProcessInfo, Shell};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// The process's clock. Its monotonic part starts a little above zero so that zero can mean "never".
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The present.
    pub(crate) fn now(&self) -> Now {
        self.moment().now
    }

    /// The present, to measure from.
    pub(crate) fn moment(&self) -> Moment {
        let instant = Instant::now();
        let monotonic = Micros(instant.duration_since(self.start).as_micros() as u64) + Micros::from_secs(1);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { now: Now { monotonic, unix: Micros(unix.as_micros() as u64) }, instant }
    }
}

/// A point in time as the engine knows it, and finer, to measure how long something took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// For the engine.
    pub(crate) now: Now,
    instant: Instant,
}

impl Moment {
    /// How long ago it was.
    pub(crate) fn elapsed_nanos(&self) -> u64 {
        self.instant.elapsed().as_nanos() as u64
    }
}

/// The server's side of `engine::Shell`.
#[derive(Debug)]
pub(crate) struct ServerShell {
    /// Set once the node and then its cluster thread exist.
    bus: OnceLock<BusHandle>,
    config_file: Option<PathBuf>,
    io_threads: usize,
    shutdown: mpsc::UnboundedSender<SaveOnExit>,
    os: OnceLock<String>,
    /// The working directory, absolute.
    directory: Mutex<String>,
}

impl ServerShell {
    pub(crate) fn new(
        config_file: Option<PathBuf>,
        io_threads: usize,
        shutdown: mpsc::UnboundedSender<SaveOnExit>,
        directory: String,
    ) -> ServerShell {
        let directory = Mutex::new(directory);
        ServerShell {
            bus: OnceLock::new(),
            config_file,
            io_threads,
            shutdown,
            os: OnceLock::new(),
            directory,
        }
    }

    /// Makes the cluster thread known.
    pub(crate) fn set_bus(&self, bus: BusHandle) {
        self.bus.set(bus).expect("there is one for each node");
    }

    /// The cluster thread; none while the server is being started.
    pub(crate) fn bus(&self) -> Option<&BusHandle> {
        self.bus.get()
    }

    /// Asks the main thread to end the server.
    pub(crate) fn request_shutdown(&self, save: SaveOnExit) {
        if self.shutdown.send(save).is_err() {
            log::debug!("the server is already on its way out");
        }
    }

    /// Writes the settings into the configuration file: a temporary file beside it, synced, then renamed over it.
    ///
    /// # Errors
    /// A text for the client; the file is then as it was.
    pub(crate) fn rewrite_config(&self, settings: &Settings) -> Result<(), String> {
        let path = self.config_file.as_ref().ok_or("The server is running without a config file")?;
        crate::config::rewrite_file(path, settings).map_err(|error| error.to_string())
    }
}

impl Shell for ServerShell {
    fn process(&self) -> ProcessInfo {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok();
        let secs = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        ProcessInfo {
            pid: std::process::id(),
            executable: std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default(),
            config_file: self.config_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            resident_bytes: resident_bytes().unwrap_or(0),
            cpu_system_secs: usage.map_or(0.0, |usage| secs(usage.system_time())),
            cpu_user_secs: usage.map_or(0.0, |usage| secs(usage.user_time())),
            allocated_bytes: crate::memory::allocated_bytes(),
            allocator: "jemalloc-5.3.0",
            os: self.os.get_or_init(operating_system).clone(),
            io_threads: self.io_threads,
        }
    }

    fn settings_changed(&self, settings: &Settings) -> Result<(), String> {
        let mut directory = self.directory.lock();
        if *directory != settings.dir {
            std::env::set_current_dir(&settings.dir)
                .map_err(|error| format!("Changing directory: {}", reason(&error)))?;
            directory.clone_from(&settings.dir);
        }
        crate::logging::set_level(settings.loglevel);
        Ok(())
    }

    fn warn(&self, text: &str) {
        log::warn!("{text}");
    }

    fn info(&self, text: &str) {
        log::info!("{text}");
    }

    fn complete_settings(&self, settings: &mut Settings) {
        if let Ok(path) = std::path::absolute(&settings.dir) {
            settings.dir = path.display().to_string();
        }
    }
}

/// The system's words for an error, without the number that Rust adds.
fn reason(error: &std::io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| error.to_string(), |number| nix::errno::Errno::from_raw(number).desc().to_owned())
}

/// The resident set as the kernel counts it.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

fn operating_system() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| String::from("unknown"),
        |name| {
            let part = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
            format!("{} {} {}", part(name.sysname()), part(name.release()), part(name.machine()))
        },
    )
}
