//! A server as a process: signals, files, sockets, limits of the system.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use support::{Conn, PATIENCE, Server, await_ready, command, eventually, free_port, refused, request};
use tempfile::TempDir;

#[test]
fn sigterm_answers_what_was_received() {
    const COMMANDS: usize = 20_000;
    for signal in ["TERM", "INT"] {
        let mut server = Server::start();
        let mut conn = server.connect();
        assert_eq!(conn.run("PING"), "+PONG|");
        conn.send(b"PING\r\n".repeat(COMMANDS));
        server.signal(signal);
        assert_eq!(conn.rest(), "+PONG|".repeat(COMMANDS));
        assert!(server.wait().success());
    }
}

#[test]
fn sigterm_ends_a_server_that_sleeps_pauses_or_has_deaf_clients() {
    let mut server = Server::start();
    let (mut sleeper, mut deaf, mut paused) = (server.connect(), server.connect(), server.connect());
    sleeper.run("DEBUG POPULATE 100000");
    deaf.send(request(&[b"KEYS", b"*"]).repeat(20));
    assert_eq!(paused.run("CLIENT PAUSE 1000000 WRITE"), "+OK|");
    paused.send("INCR a\r\n");
    sleeper.send("DEBUG SLEEP 3000\r\n");
    server.signal("TERM");
    assert!(server.wait().success());
}

#[test]
fn shutdown_ends_the_server_while_others_wait() {
    let mut server = Server::start();
    let (mut idle, mut subscriber, mut conn) = (server.connect(), server.connect(), server.connect());
    idle.run("PING");
    subscriber.run("SUBSCRIBE a");
    conn.send("SHUTDOWN NOSAVE\r\n");
    assert_eq!((conn.rest(), idle.rest(), subscriber.rest()), (String::new(), String::new(), String::new()));
    assert!(server.wait().success());
}

#[test]
fn the_end_of_a_terminal_does_not_end_the_server() {
    let mut server = Server::start();
    server.signal("HUP");
    server.assert_up();
}

#[test]
fn a_client_that_is_gone_during_a_pause_is_let_go() {
    let server = Server::start();
    let (mut admin, mut victim) = (server.connect(), server.connect());
    admin.run("DEBUG POPULATE 200000");
    assert_eq!(admin.run("CLIENT PAUSE 1000000 WRITE"), "+OK|");
    // Replies that do not fit the socket wait while the last command is held.
    victim.send(request(&[b"KEYS", b"*"]).repeat(10));
    victim.send("INCR a\r\n");
    eventually("it is held", || admin.run("CLIENT LIST").contains("events=rw cmd=keys"));
    drop(victim);
    eventually("it is gone", || !admin.run("CLIENT LIST").contains("cmd=keys"));
}

#[test]
fn a_paused_client_can_be_killed() {
    let server = Server::start();
    let (mut admin, mut victim) = (server.connect(), server.connect());
    victim.run("CLIENT SETNAME victim");
    let id = victim.run("CLIENT ID");
    let id = id.trim_matches([':', '|']);
    assert_eq!(admin.run("CLIENT PAUSE 1000000 WRITE"), "+OK|");
    victim.send("INCR a\r\n");
    eventually("it is held", || admin.run("CLIENT LIST").contains("qbuf=8"));
    assert_eq!(admin.run(&format!("CLIENT KILL ID {id}")), ":1|");
    assert_eq!(victim.rest(), "");
    eventually("it is off the list", || !admin.run("CLIENT LIST").contains("victim"));
    assert_eq!(admin.run("EXISTS a"), ":0|");
}

#[test]
fn maxclients_holds_in_a_burst() {
    const ALLOWED: usize = 20;
    let server = Server::with(&["--maxclients", "20"]);
    let mut burst: Vec<Conn> = (0..300).map(|_| server.connect()).collect();
    let served = burst.iter_mut().map(Conn::is_served).filter(|&is_served| is_served).count();
    assert_eq!(served, ALLOWED);
    drop(burst);
    let mut later: Vec<Conn> = Vec::new();
    eventually("there is room for all that are allowed", || {
        later = (0..ALLOWED).map(|_| server.connect()).collect();
        later.iter_mut().all(Conn::is_served)
    });
    assert_eq!(server.connect().rest(), "-ERR max number of clients reached|");
}

#[test]
fn a_second_server_does_not_touch_the_pid_file_of_the_first() {
    let dir = TempDir::new().unwrap();
    let pid_file = dir.path().join("pid");
    let options = ["--pidfile", pid_file.to_str().unwrap()];
    let first = Server::with(&options);
    let written = std::fs::read_to_string(&pid_file).unwrap();
    assert_eq!(written.trim(), first.pid().to_string());
    let second = command(first.port, dir.path(), &["--bind", "127.0.0.1"], &options);
    assert!(!refused(second).status.success());
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), written);
    first.signal("TERM");
    eventually("the pid file goes with its server", || !pid_file.exists());
}

#[test]
fn a_background_server_has_its_configuration_from_standard_input() {
    let dir = TempDir::new().unwrap();
    let (port, path) = (free_port(), dir.path().display());
    let config = format!(
        "daemonize yes\nport {port}\nbind 127.0.0.1\ndir {path}\npidfile {path}/pid\nlogfile {path}/log\nrequirepass word\n"
    );
    let mut child = Command::new(env!("CARGO_BIN_EXE_discnt-server"))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let mut conn = Conn::new(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    assert_eq!(conn.run("PING"), "-NOAUTH Authentication required.|");
    assert_eq!(conn.run("AUTH word"), "+OK|");
    eventually("the pid file is there", || dir.path().join("pid").exists());
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
    assert!(
        log.contains(&format!("PID: {}", pid.trim())) && log.contains("ready to accept connections"),
        "{log}"
    );
    conn.send("SHUTDOWN NOSAVE\r\n");
    assert_eq!(conn.rest(), "");
    eventually("it ends", || !dir.path().join("pid").exists());
}

#[test]
fn systemd_is_told_of_start_and_end() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("notify");
    assert_notified(&dir, &UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap());
}

/// systemd's own name for it begins with `@` in containers: a socket without a file.
#[test]
fn systemd_is_told_through_a_socket_without_a_file() {
    let dir = TempDir::new().unwrap();
    let name = format!("discnt-{}", dir.path().file_name().unwrap().to_str().unwrap());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    assert_notified(&dir, &socket, &format!("@{name}"));
}

fn assert_notified(dir: &TempDir, socket: &UnixDatagram, path: &str) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut start = command(free_port(), dir.path(), &["--bind", "127.0.0.1"], &["--supervised", "systemd"]);
    start.env("NOTIFY_SOCKET", path);
    let mut child = await_ready(start).expect("the port was free a moment ago");
    let mut buf = [0; 100];
    let len = socket.recv(&mut buf).unwrap();
    assert_eq!(&buf[..len], b"READY=1");
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    let len = socket.recv(&mut buf).unwrap();
    assert_eq!(&buf[..len], b"STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_server_without_a_port_says_where_it_listens() {
    let dir = TempDir::new().unwrap();
    let (path, log) = (dir.path().join("socket"), dir.path().join("log"));
    let mut server = command(0, dir.path(), &[], &["--unixsocket", path.to_str().unwrap()])
        .arg("--logfile")
        .arg(&log)
        .spawn()
        .unwrap();
    let ready = format!("ready to accept connections at {}\n", path.display());
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("it says so", || text().contains(&ready));
    assert!(!text().contains("on port"), "{}", text());
    assert_eq!(Conn::unix(&path).run("INCR a"), "$1|1|");
    Command::new("kill").arg(server.id().to_string()).status().unwrap();
    assert!(server.wait().unwrap().success());
}

#[test]
fn a_log_file_that_was_moved_away_is_made_anew() {
    let dir = TempDir::new().unwrap();
    let (log, moved) = (dir.path().join("log"), dir.path().join("log.1"));
    let mut server = command(free_port(), dir.path(), &["--bind", "127.0.0.1"], &[])
        .arg("--logfile")
        .arg(&log)
        .spawn()
        .unwrap();
    eventually("it is ready", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("ready to accept"))
    });
    std::fs::rename(&log, &moved).unwrap();
    Command::new("kill").arg(server.id().to_string()).status().unwrap();
    assert!(server.wait().unwrap().success());
    assert!(std::fs::read_to_string(&log).unwrap().contains("SIGTERM received"));
}

#[test]
fn the_unix_socket_has_its_permissions_and_takes_no_file_from_others() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("socket");
    let options = ["--unixsocket", path.to_str().unwrap(), "--unixsocketperm", "700"];
    // Left behind by a server that was killed.
    drop(UnixListener::bind(&path).unwrap());
    let server = Server::with(&options);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(Conn::unix(&path).run("INCR a"), "$1|1|");
    let is_refused = |options: &[&str]| {
        let dir = TempDir::new().unwrap();
        !refused(command(free_port(), dir.path(), &["--bind", "127.0.0.1"], options)).status.success()
    };
    assert!(is_refused(&options), "another server listens there");
    assert_eq!(Conn::unix(&path).run("INCR a"), "$1|2|");
    let file = dir.path().join("precious");
    std::fs::write(&file, "text").unwrap();
    assert!(is_refused(&["--unixsocket", file.to_str().unwrap()]));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");
    server.signal("TERM");
    eventually("the socket goes with its server", || !path.exists());
}
