//! The acceptor: takes connections on every address and deals them to the workers, as `crew` says.
//!
//! One acceptor rather than a socket per thread: the kernel's spreading by hash leaves few connections badly
//! spread.

use crate::crew::Crew;
use crate::shell::Clock;
use crate::worker::{Accepted, Admitted, Arrival};
use engine::Node;
use engine::settings::Settings;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::mpsc::UnboundedSender;

/// How long accepting pauses when the process has run out of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

const TOO_MANY: &str = "-ERR max number of clients reached\r\n";

const PROTECTED: &str = "-DENIED Discnt is running in protected mode: no password is set and only connections \
    from the loopback interface are accepted. To accept others, set a password with 'requirepass', \
    or set 'protected-mode no' if the network around the server is trusted.\r\n";

/// Everything that connections may come from.
pub(crate) struct Listeners {
    tcp: Vec<TcpListener>,
    unix: Option<(UnixListener, String)>,
}

impl Listeners {
    /// Opens all addresses in the settings.
    ///
    /// # Errors
    /// Names the address that can't be had, and why. None is left open then.
    pub(crate) fn open(settings: &Settings) -> Result<Listeners, String> {
        let mut tcp = Vec::new();
        if settings.port != 0 {
            for address in addresses(settings, settings.port)? {
                let listener = listen(address, settings.tcp_backlog)
                    .map_err(|error| format!("can't listen on {address}: {error}"))?;
                tcp.push(listener);
            }
        }
        let unix = match settings.unixsocket.as_str() {
            "" => None,
            path => Some((
                listen_unix(path, settings.unixsocketperm)
                    .map_err(|error| format!("can't listen on the unix socket {path}: {error}"))?,
                path.to_owned(),
            )),
        };
        if tcp.is_empty() && unix.is_none() {
            return Err("neither a port nor a unix socket is configured to listen on".into());
        }
        Ok(Listeners { tcp, unix })
    }

    /// Accepts for ever.
    pub(crate) async fn accept(
        &self,
        node: &Node,
        workers: &[UnboundedSender<Arrival>],
        (crew, clock): (&Crew, Clock),
    ) {
        let permits = Arc::new(());
        loop {
            let accepted = self.next().await;
            match accepted {
                Ok(accepted) => {
                    // Clients that a worker has not taken on yet count as well, or a burst would pass the limit.
                    let admitted = Arc::strong_count(&permits) - 1;
                    if let Some(accepted) = admit(accepted, admitted, node) {
                        let permit = Arc::clone(&permits);
                        // A worker hangs up only when the whole server ends.
                        let worker = &workers[crew.pick(clock.now().monotonic)];
                        worker.send(Arrival::New(Admitted { accepted, permit })).ok();
                    }
                }
                Err(error) => {
                    log::warn!("can't accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    async fn next(&self) -> io::Result<Accepted> {
        std::future::poll_fn(|cx| {
            for listener in &self.tcp {
                if let std::task::Poll::Ready(accepted) = listener.poll_accept(cx) {
                    return std::task::Poll::Ready(
                        accepted.and_then(|(stream, _)| stream.into_std()).map(Accepted::Tcp),
                    );
                }
            }
            if let Some((listener, path)) = &self.unix
                && let std::task::Poll::Ready(accepted) = listener.poll_accept(cx)
            {
                return std::task::Poll::Ready(
                    accepted
                        .and_then(|(stream, _)| stream.into_std())
                        .map(|stream| Accepted::Unix(stream, path.clone())),
                );
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// Takes the unix socket's file away.
    pub(crate) fn clean_up(&self) {
        if let Some((_, path)) = &self.unix {
            std::fs::remove_file(path).ok();
        }
    }
}

/// The addresses that `bind` means, with that port.
///
/// # Errors
/// A word of `bind` is no address.
pub(crate) fn addresses(settings: &Settings, port: u16) -> Result<Vec<SocketAddr>, String> {
    let mut addresses = Vec::new();
    for word in &settings.bind {
        let text = match word.as_str() {
            "*" => "0.0.0.0",
            other => other,
        };
        let ip: IpAddr = text.parse().map_err(|_| {
            format!("'bind {word}': not an IPv4 or IPv6 address (host names are not looked up here)")
        })?;
        addresses.push(SocketAddr::new(ip, port));
    }
    if addresses.is_empty() {
        addresses.push(SocketAddr::from(([0, 0, 0, 0], port)));
    }
    Ok(addresses)
}

fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // Else `bind 0.0.0.0 ::` would ask for the same IPv4 addresses twice, and be refused.
        socket2::SockRef::from(&socket).set_only_v6(true)?;
    }
    socket.bind(address)?;
    socket.listen(backlog)
}

fn listen_unix(path: &str, permissions: u32) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        // What a server has left behind that was killed may go, what another listens to or is no socket may not.
        Ok(found)
            if found.file_type().is_socket() && std::os::unix::net::UnixStream::connect(path).is_err() =>
        {
            std::fs::remove_file(path)?;
        }
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
    }
    let listener = UnixListener::bind(path)?;
    if permissions != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(permissions))?;
    }
    Ok(listener)
}

/// Lets a connection in, or tells it why not.
fn admit(accepted: Accepted, admitted: usize, node: &Node) -> Option<Accepted> {
    let settings = node.settings();
    let refusal = if admitted as u64 >= u64::from(settings.maxclients) {
        Some(TOO_MANY)
    } else if is_protected_from(&accepted, &settings) {
        Some(PROTECTED)
    } else {
        None
    };
    if let Some(text) = refusal {
        node.stats.note_rejected();
        refuse(&accepted, text);
        return None;
    }
    if let Accepted::Tcp(stream) = &accepted {
        set_up(stream, &settings);
    }
    Some(accepted)
}

fn is_protected_from(accepted: &Accepted, settings: &Settings) -> bool {
    match accepted {
        Accepted::Tcp(stream) => is_stranger(stream.peer_addr().ok().map(|addr| addr.ip()), settings),
        Accepted::Unix(..) => false,
    }
}

/// Whether protected mode keeps out who connects from there, or from who knows where.
fn is_stranger(from: Option<IpAddr>, settings: &Settings) -> bool {
    settings.protected_mode
        && settings.requirepass.is_empty()
        && settings.bind.is_empty()
        && !from.is_some_and(|ip| ip.to_canonical().is_loopback())
}

/// Says why and closes; the socket's buffer is empty, so the text fits or the client is gone.
fn refuse(accepted: &Accepted, text: &str) {
    use std::io::Write;
    let written = match accepted {
        Accepted::Tcp(stream) => (&*stream).write_all(text.as_bytes()),
        Accepted::Unix(stream, _) => (&*stream).write_all(text.as_bytes()),
    };
    drop(written);
}

fn set_up(stream: &std::net::TcpStream, settings: &Settings) {
    stream.set_nodelay(true).ok();
    if settings.tcp_keepalive_secs > 0 {
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(settings.tcp_keepalive_secs.into()))
            .with_interval(Duration::from_secs(u64::from(settings.tcp_keepalive_secs / 3).max(1)))
            .with_retries(3);
        socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::settings::Secret;

    #[test]
    fn protected_mode_keeps_out_other_machines_until_somebody_has_thought_of_them() {
        let is_out = |from: &str, settings: &Settings| is_stranger(Some(from.parse().unwrap()), settings);
        let defaults = Settings::default();
        for own in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"] {
            assert!(!is_out(own, &defaults), "{own}");
        }
        for other in ["10.0.0.1", "192.168.1.1", "::2", "fe80::1", "::ffff:10.0.0.1", "0.0.0.0"] {
            assert!(is_out(other, &defaults), "{other}");
            for settings in [
                Settings { protected_mode: false, ..Settings::default() },
                Settings { requirepass: Secret(b"word".to_vec()), ..Settings::default() },
                Settings { bind: vec!["*".to_owned()], ..Settings::default() },
            ] {
                assert!(!is_out(other, &settings), "{other}");
            }
        }
        assert!(is_stranger(None, &defaults));
    }
}
