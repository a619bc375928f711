//! How the server starts, refuses to start, and ends; more of its life as a process stands in `process`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{Conn, PATIENCE, Server, eventually, free_port};

/// Runs the server with these words and this standard input until it ends, for starts that are to fail.
fn run(words: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_discnt-server"))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A server that does not read its input is free to do so.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("the server runs, but was to end: {words:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// What CONFIG GET answers about one setting.
fn setting(conn: &mut Conn, name: &str) -> String {
    let reply = conn.run(&format!("CONFIG GET {name}"));
    reply.split('|').nth(4).unwrap_or_else(|| panic!("CONFIG GET {name}: {reply}")).to_owned()
}

#[test]
fn a_signal_ends_the_server_once_what_was_received_is_answered() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start();
        let mut conns: Vec<Conn> = (0..10).map(|_| server.connect()).collect();
        let each = 2_000;
        conns.iter_mut().for_each(|conn| assert_eq!(conn.run("PING"), "+PONG|"));
        for conn in &mut conns {
            conn.send(b"INCR k\r\n".repeat(each));
        }
        server.signal(signal);
        let replies: Vec<String> = conns.iter_mut().map(Conn::rest).collect();
        for text in &replies {
            assert_eq!(text.matches('$').count(), each, "SIG{signal}");
        }
        assert!(replies.iter().any(|text| text.ends_with(&format!("|{}|", 10 * each))), "SIG{signal}");
        assert!(server.wait().success(), "SIG{signal}");
    }
}

#[test]
fn a_node_without_counters_is_never_found_loading() {
    for _ in 0..10 {
        let (dir, port) = (tempfile::TempDir::new().unwrap(), free_port());
        let mut command = support::command(port, dir.path(), &["--bind", "127.0.0.1"], &[]);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let mut stream = None;
        eventually("it takes connections", || {
            stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some()
        });
        assert_eq!(Conn::new(stream.unwrap()).run("INCR a"), "$1|1|");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn shutdown_ends_the_server() {
    let mut server = Server::start();
    let mut conn = server.connect();
    conn.send("SHUTDOWN NOSAVE\r\n");
    assert_eq!(conn.rest(), "");
    assert!(server.wait().success());
}

#[test]
fn the_client_above_maxclients_is_told_so() {
    let server = Server::with(&["--maxclients", "2"]);
    let (mut first, mut second) = (server.connect(), server.connect());
    assert_eq!((first.run("INCR k").as_str(), second.run("INCR k").as_str()), ("$1|1|", "$1|2|"));
    assert_eq!(server.connect().rest(), "-ERR max number of clients reached|");
    drop(second);
    eventually("the place of a client that left is free", || {
        let mut third = server.connect();
        // Refused, the connection may be closed before this is sent.
        third.stream.write_all(b"QUIT\r\n").ok();
        third.rest() == "+OK|"
    });
    assert_eq!(first.run("INCR k"), "$1|3|");
}

#[test]
fn settings_come_from_a_file_from_files_that_it_includes_and_from_options_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("discnt.conf");
    std::fs::write(&file, "# A node of ours\ntimeout 77\nmaxclients 123\ninclude more.conf\nsave \"\"\n")
        .unwrap();
    std::fs::write(dir.path().join("more.conf"), "history-size 4\nmaxclients 321\n").unwrap();
    let server = Server::from_file(&file);
    let mut conn = server.connect();
    for (name, value) in [("timeout", "77"), ("maxclients", "321"), ("history-size", "4"), ("save", "")] {
        assert_eq!(setting(&mut conn, name), value, "{name}");
    }
    // An option: the port.
    assert_eq!(setting(&mut conn, "port"), server.port.to_string());
}

/// What a start that must fail says on standard error.
fn complaint(words: &[&str]) -> String {
    let output = run(words, "");
    assert_eq!(output.status.code(), Some(1), "{words:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn renaming_what_does_not_exist_or_to_a_name_in_use_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("discnt.conf");
    std::fs::write(&file, "port 0\nrename-command FLUSHAL \"\"\n").unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(
        complaint(&[path]),
        format!(
            "discnt-server: {path}:2: rename-command 'FLUSHAL' '': there is no such command; docs/commands.md has those \
             that exist\n"
        )
    );
    for lines in [
        &["--rename-command", "GET", "set"][..],
        &["--rename-command", "GET", "x", "--rename-command", "SET", "X"],
        &["--rename-command", "GET", "quit"],
    ] {
        let text = complaint(&[&["--port", "0"], lines].concat());
        assert!(text.contains("two commands would have the name"), "{lines:?}: {text}");
    }
    // Names may change places.
    let server = Server::with(&["--rename-command", "GET", "SET", "--rename-command", "SET", "GET"]);
    let mut conn = server.connect();
    assert_eq!((conn.run("GET a 5"), conn.run("SET a")), ("$1|5|".into(), "$1|5|".into()));
}

#[test]
fn a_log_or_a_directory_that_can_not_be_used_is_told_before_the_terminal_is_left() {
    for background in ["no", "yes"] {
        let options = ["--port", "0", "--pidfile", "", "--daemonize", background];
        let log = complaint(&[&options[..], &["--logfile", "/nonexistent/log"]].concat());
        assert!(log.starts_with("discnt-server: can't open the log file /nonexistent/log: "), "{log}");
        let dir = complaint(&[&options[..], &["--dir", "/nonexistent"]].concat());
        assert!(dir.starts_with("discnt-server: can't change to 'dir /nonexistent': "), "{dir}");
    }
}

#[test]
fn http_ends_the_connection_before_what_stands_behind_it() {
    let mut server = Server::start();
    for begin in ["POST / HTTP/1.1\r\n", "GET /a\r\nhost: localhost:5262\r\n"] {
        let mut conn = server.connect();
        conn.send(format!("{begin}Content-Type: text/plain\r\n\r\nINCR smuggled\r\n"));
        let replies = conn.rest();
        assert!(replies.is_empty() || replies == "$1|0|", "{replies}");
    }
    assert_eq!(server.connect().run("EXISTS smuggled"), ":0|");
    server.assert_up();
}

#[test]
fn config_rewrite_keeps_comments_and_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("discnt.conf");
    let text = "# Ours since May\ntimeout 77\n\n   # seldom changed\nmaxclients 123\nhz 20\n";
    std::fs::write(&file, text).unwrap();
    let server = Server::from_file(&file);
    let mut conn = server.connect();
    assert_eq!(conn.run("CONFIG SET timeout 5 default-precision 2"), "+OK|");
    assert_eq!(conn.run("CONFIG REWRITE"), "+OK|");
    let rewritten = std::fs::read_to_string(&file).unwrap();
    let places = ["# Ours since May\n", "timeout 5\n", "# seldom changed\n", "maxclients 123\n", "hz 20\n"]
        .into_iter()
        .chain(["# Generated by CONFIG REWRITE\n", "default-precision 2\n"])
        .map(|line| rewritten.find(line).unwrap_or_else(|| panic!("no {line:?} in:\n{rewritten}")));
    assert!(places.is_sorted(), "{rewritten}");
    assert!(!rewritten.contains("timeout 77"), "{rewritten}");
}

#[test]
fn settings_come_from_standard_input_and_the_first_lines_name_process_and_port() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut child = Command::new(env!("CARGO_BIN_EXE_discnt-server"))
        .arg("-")
        .current_dir(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = format!("port {port}\nbind 127.0.0.1\npidfile \"\"\nmaxclients 321\n");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let mut log = Vec::new();
    let mut output = child.stdout.take().unwrap();
    let seen = |log: &[u8]| String::from_utf8_lossy(log).into_owned();
    while !seen(&log).contains(&format!("ready to accept connections on port {port}\n")) {
        let mut piece = [0; 1024];
        let len = output.read(&mut piece).unwrap();
        assert_ne!(len, 0, "ended early: {}", seen(&log));
        log.extend_from_slice(&piece[..len]);
    }
    let mut conn = Conn::new(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    let maxclients = setting(&mut conn, "maxclients");
    let pid = child.id();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(maxclients, "321");
    assert!(seen(&log).contains(&format!("PID: {pid}")), "{}", seen(&log));
}

#[test]
fn a_bad_configuration_ends_the_start_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.conf");
    let path = file.to_str().unwrap();
    for (text, line) in [
        ("timeout 5\nno-such-setting 1\n", 2),
        ("# comment\n\nmaxclients many\n", 3),
        ("dir \"unbalanced\n", 1),
        ("port 55536\n", 1),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = run(&[path], "");
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let rest = message.split_once("bad.conf").unwrap_or_else(|| panic!("{text}: {message}")).1;
        assert!(rest.contains(&line.to_string()), "{text}: {message}");
    }
    for (words, input) in [
        (vec!["-"], "no-such-setting 1\n"),
        (vec!["--no-such-setting", "1"], ""),
        (vec!["/no/such/file.conf"], ""),
        (vec!["--dir", "/no/such/directory", "--port", "0"], ""),
    ] {
        let output = run(&words, input);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(!output.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn a_port_that_is_taken_ends_the_start() {
    let server = Server::start();
    let port = server.port.to_string();
    let dir = tempfile::tempdir().unwrap();
    let words = ["--port", &port, "--bind", "127.0.0.1", "--pidfile", "", "--dir"];
    let output = run(&[&words[..], &[dir.path().to_str().unwrap()]].concat(), "");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains(&port), "{message}");
}
