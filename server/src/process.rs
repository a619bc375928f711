//! The process in its surroundings: background, pid file, supervisor, randomness.

use engine::settings::{Settings, Supervised};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Set for the copy of the program that runs in the background.
const BACKGROUND_MARK: &str = "DISCNT_IN_BACKGROUND";

/// Starts a copy of the program in the background, detached from the terminal. True in the process that started it
/// (which is to end), false in the copy.
///
/// # Errors
/// The copy can't be started.
pub(crate) fn go_to_background() -> Result<bool, String> {
    if std::env::var_os(BACKGROUND_MARK).is_some() {
        // Fails only for a process that leads its group already, and then there is nothing to detach from.
        nix::unistd::setsid().ok();
        return Ok(false);
    }
    let program =
        std::env::current_exe().map_err(|error| format!("can't find the program's own path: {error}"))?;
    Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(BACKGROUND_MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("can't start in the background: {error}"))?;
    Ok(true)
}

/// The file that holds the process id; taken away at the end.
pub(crate) struct PidFile(Option<PathBuf>);

impl PidFile {
    /// Writes it. A file that can't be written is worth a line in the log, not an end.
    pub(crate) fn write(settings: &Settings) -> PidFile {
        if settings.pidfile.is_empty() {
            return PidFile(None);
        }
        let path = PathBuf::from(&settings.pidfile);
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

/// Tells systemd about a change of state, where it supervises us (sd_notify(3): a datagram to `NOTIFY_SOCKET`).
pub(crate) fn notify_supervisor(supervised: Supervised, state: &str) {
    let is_asked = matches!(supervised, Supervised::Systemd | Supervised::Auto);
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|_| is_asked) else { return };
    let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(state.as_bytes(), &path));
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
