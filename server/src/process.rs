//! The process in its surroundings: background, pid file, supervisor, randomness.

use engine::settings::Supervised;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Set for the copy of the program that runs in the background.
const BACKGROUND_MARK: &str = "DISCNT_IN_BACKGROUND";

/// Starts a copy of the program in the background, detached from the terminal. True in the process that started it
/// (which is to end), false in the copy.
///
/// `standard_input` is what was read there already; the copy finds it there again.
///
/// # Errors
/// The copy can't be started.
pub(crate) fn go_to_background(standard_input: &[u8]) -> Result<bool, String> {
    if std::env::var_os(BACKGROUND_MARK).is_some() {
        // Fails only for a process that leads its group already, and then there is nothing to detach from.
        nix::unistd::setsid().ok();
        return Ok(false);
    }
    let program =
        std::env::current_exe().map_err(|error| format!("can't find the program's own path: {error}"))?;
    let mut copy = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(BACKGROUND_MARK, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("can't start in the background: {error}"))?;
    let mut pipe = copy.stdin.take().expect("it was asked for");
    // Most configurations come from elsewhere, and then the copy may not even look.
    if !standard_input.is_empty() {
        pipe.write_all(standard_input)
            .map_err(|error| format!("can't hand the configuration to the background: {error}"))?;
    }
    Ok(true)
}

/// The file that holds the process id; taken away at the end.
pub(crate) struct PidFile(Option<PathBuf>);

impl PidFile {
    /// Writes it. A file that can't be written is worth a line in the log, not an end.
    pub(crate) fn write(path: &str) -> PidFile {
        if path.is_empty() {
            return PidFile(None);
        }
        let path = PathBuf::from(path);
        match std::fs::write(&path, format!("{}\n", std::process::id())) {
            Ok(()) => PidFile(Some(path)),
            Err(error) => {
                log::warn!("can't write the pid file {}: {error}", path.display());
                PidFile(None)
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            std::fs::remove_file(path).ok();
        }
    }
}

/// Descriptors for other than clients: files, listeners, threads, the cluster.
const SPARE_DESCRIPTORS: u64 = 256;

/// Makes room for as many clients as are allowed, or as the system lets us.
pub(crate) fn raise_descriptor_limit(max_clients: u32) {
    let wanted = u64::from(max_clients) + SPARE_DESCRIPTORS;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft >= wanted {
        return;
    }
    let raised = wanted.min(hard);
    if setrlimit(Resource::RLIMIT_NOFILE, raised, hard).is_err() || raised < wanted {
        log::warn!(
            "maxclients {max_clients} needs {wanted} file descriptors, and this process may have {}: raise its limit \
             (ulimit -n), or lower maxclients",
            raised.max(soft)
        );
    }
}

/// Tells systemd about a change of state, where it supervises us (sd_notify(3): a datagram to `NOTIFY_SOCKET`, which is a
/// path, or behind an `@` the name of a socket that has none).
pub(crate) fn notify_supervisor(supervised: Supervised, state: &str) {
    let is_asked = matches!(supervised, Supervised::Systemd | Supervised::Auto);
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|_| is_asked) else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        log::warn!("can't notify systemd at {}: {error}", path.display());
    }
}

/// Random bytes from the operating system.
///
/// # Errors
/// The system has none to give.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes to be had: {error}"))?;
    Ok(bytes)
}
