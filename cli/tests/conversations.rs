//! `discnt-cli` as a process, against a server that is a few lines of this file: what is sent, what is
//! printed, and with which status it ends. No other server is needed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Output;
use std::thread;

use support::Answer::{Reply, ReplyAndClose};
use support::{Log, Server, finish, read_request, serve, tool};

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_command_prints_its_reply_bare_to_a_pipe_and_typed_when_asked() {
    let server = Server::start(|_, _| Reply(b"*2\r\n:3\r\n$3\r\na\"b\r\n"));
    let output = server.run(&["MGET", "k", "-x"]);
    assert_eq!((stdout(&output), stderr(&output), output.status.code()), ("3\na\"b\n", "", Some(0)));
    assert_eq!(server.requests(), ["0:MGET k -x"]);
    assert_eq!(stdout(&server.run(&["--no-raw", "MGET"])), "1) (integer) 3\n2) \"a\\\"b\"\n");
    assert_eq!(stdout(&server.run(&["--csv", "MGET"])), "3,\"a\\\"b\"\n");
}

#[test]
fn an_error_reply_is_printed_and_ends_in_status_1() {
    let server = Server::start(|_, _| Reply(b"-ERR value is not a valid float\r\n"));
    let output = server.run(&["INCRBY", "k", "x"]);
    assert_eq!((stdout(&output), output.status.code()), ("ERR value is not a valid float\n", Some(1)));
}

#[test]
fn a_failed_connection_ends_in_status_1_and_says_where_to() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = finish(tool(&["-p", &port.to_string(), "PING"]), b"");
    let text = format!("Could not connect to Discnt at 127.0.0.1:{port}: Connection refused\n");
    assert_eq!((stdout(&output), stderr(&output), output.status.code()), ("", &*text, Some(1)));
}

#[test]
fn a_wrong_command_line_ends_in_status_2() {
    assert_eq!(finish(tool(&["--frobnicate"]), b"").status.code(), Some(2));
    assert_eq!(finish(tool(&["--help"]), b"").status.code(), Some(0));
}

#[test]
fn a_script_goes_on_behind_an_error_and_ends_in_status_1() {
    let server =
        Server::start(|_, words| if words == "BAD" { Reply(b"-ERR no\r\n") } else { Reply(b"+OK\r\n") });
    let output = server.run_with_input(&[], b"SET a 'x y'\n\nBAD\nGET \"\nGET \"\\xff\"\r\nquit\nGET z\n");
    assert_eq!((stdout(&output), output.status.code()), ("OK\nERR no\nOK\n", Some(1)));
    assert_eq!(stderr(&output), "Invalid line 4: the quote at column 5 is not closed\n");
    assert_eq!(server.requests(), ["0:SET a x y", "0:BAD", "0:GET \\xff"]);
    assert_eq!(server.run_with_input(&[], b"GET a").status.code(), Some(0));
}

#[test]
fn x_reads_the_last_argument_as_it_is() {
    let server = Server::start(|_, _| Reply(b"+OK\r\n"));
    assert_eq!(server.run_with_input(&["-x", "SET", "k"], b"1\n\0\xff").status.code(), Some(0));
    assert_eq!(server.requests(), ["0:SET k 1\\n\\x00\\xff"]);
}

#[test]
fn r_repeats_on_one_connection() {
    let server = Server::start(|_, _| Reply(b":1\r\n"));
    assert_eq!(stdout(&server.run(&["-r", "3", "-i", "0.01", "INCR", "k"])), "1\n1\n1\n");
    assert_eq!(server.requests(), ["0:INCR k"; 3]);
}

#[test]
fn json_asks_for_resp3_and_is_one_line_each() {
    let server = Server::start(|_, words| match words {
        "HELLO 3" => Reply(b"%1\r\n+proto\r\n:3\r\n"),
        "BAD" => Reply(b"-ERR no\r\n"),
        _ => Reply(b"%1\r\n$1\r\n\xff\r\n*2\r\n_\r\n#t\r\n"),
    });
    assert_eq!(stdout(&server.run(&["--json", "X"])), "{\"\\u00ff\":[null,true]}\n");
    assert_eq!(stdout(&server.run(&["--json", "BAD"])), "{\"error\":\"ERR no\"}\n");
    assert_eq!(server.requests(), ["0:HELLO 3", "0:X", "1:HELLO 3", "1:BAD"]);
}

#[test]
fn a_server_without_resp3_is_spoken_to_in_resp2() {
    let server =
        Server::start(
            |_, words| if words == "HELLO 3" { Reply(b"-ERR no\r\n") } else { Reply(b"$1\r\n5\r\n") },
        );
    let output = server.run(&["-3", "GET", "k"]);
    assert_eq!((stdout(&output), stderr(&output)), ("5\n", "HELLO 3 failed: ERR no\n"));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn passwords_users_and_databases_are_sent_first() {
    let server = Server::start(|_, _| Reply(b"+OK\r\n"));
    let mut command = server.command(&["--user", "u", "-n", "2", "PING"]);
    command.env("DISCNT_CLI_AUTH", "secret");
    assert_eq!(finish(command, b"").status.code(), Some(0));
    server.run(&["-a", "own", "PING"]);
    assert_eq!(server.requests(), ["0:AUTH u secret", "0:SELECT 2", "0:PING", "1:AUTH own", "1:PING"]);
}

#[test]
fn a_command_is_never_sent_twice() {
    let server = Server::start(|connection, words| match (connection, words) {
        (0, "INCR k") => ReplyAndClose(b""),
        _ => Reply(b"+OK\r\n"),
    });
    let output = server.run_with_input(&[], b"AUTH secret\nINCR k\nPING\n");
    assert_eq!((stdout(&output), output.status.code()), ("OK\nOK\n", Some(1)));
    assert!(stderr(&output).contains("may or may not have been executed"), "{}", stderr(&output));
    // The new connection authenticates as the script had done on the old one.
    assert_eq!(server.requests(), ["0:AUTH secret", "0:INCR k", "1:AUTH secret", "1:PING"]);
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_replaced_before_sending() {
    let server = Server::start(|_, _| ReplyAndClose(b"+OK\r\n"));
    let output = server.run(&["-r", "3", "-i", "0.1", "INCR", "k"]);
    assert_eq!((stdout(&output), stderr(&output), output.status.code()), ("OK\nOK\nOK\n", "", Some(0)));
    assert_eq!(server.requests(), ["0:INCR k", "1:INCR k", "2:INCR k"]);
}

#[test]
fn subscriptions_are_shown_until_the_server_ends_them() {
    let server = Server::start(|_, _| {
        ReplyAndClose(
            b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n\
              *3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n5\r\n",
        )
    });
    let output = server.run(&["--csv", "SUBSCRIBE", "a", "b"]);
    assert_eq!(stdout(&output), "\"subscribe\",\"a\",1\n\"subscribe\",\"b\",2\n\"message\",\"a\",\"5\"\n");
    assert_eq!(stderr(&output), "Error: the server closed the connection\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn pushes_answer_nothing_and_are_shown_before_the_reply() {
    let server = Server::start(|_, words| match words {
        "HELLO 3" => Reply(b"%0\r\n"),
        "ISUBSCRIBE 1 a" => Reply(b">3\r\n+isubscribe\r\n$1\r\na\r\n:0\r\n"),
        _ => Reply(b">3\r\n+message\r\n$1\r\na\r\n$1\r\n5\r\n$1\r\n7\r\n"),
    });
    let output = server.run_with_input(&["--json"], b"ISUBSCRIBE 1 a\nGET a\n");
    assert_eq!(stdout(&output), "[\"isubscribe\",\"a\",0]\n[\"message\",\"a\",\"5\"]\n\"7\"\n");
}

#[test]
fn a_silenced_server_is_not_waited_for() {
    let server = Server::start(|_, words| match words {
        "CLIENT REPLY ON" => Reply(b"+OK\r\n"),
        "LAST" => Reply(b":1\r\n"),
        _ => Reply(b""),
    });
    let script = b"CLIENT REPLY OFF\nINCR k\nCLIENT REPLY ON\nCLIENT REPLY SKIP\nINCR k\nLAST\n";
    let output = server.run_with_input(&[], script);
    assert_eq!((stdout(&output), output.status.code()), ("OK\n1\n", Some(0)));
}

#[test]
fn a_shutdown_that_closes_the_connection_is_a_success() {
    let server = Server::start(|_, _| ReplyAndClose(b""));
    let output = server.run(&["shutdown", "nosave"]);
    assert_eq!((stdout(&output), stderr(&output), output.status.code()), ("", "", Some(0)));
}

#[test]
fn bytes_that_are_no_reply_end_in_an_error_not_in_a_panic() {
    const NONSENSE: [&[u8]; 9] = [
        b"\0\0\0\0\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"*-7\r\n",
        b"$99999999999999999999\r\n",
        b"%9223372036854775807\r\n",
        b":12x\r\n",
        b"=2\r\nab\r\n",
        b"*1\r\n",
        b",nonsense\r\n",
    ];
    let server = Server::start(|connection, _| ReplyAndClose(NONSENSE[connection]));
    for bytes in NONSENSE {
        let output = server.run(&["GET", "k"]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{}: {text}", bytes.escape_ascii());
        assert!(
            text.starts_with("Error: ") && !text.contains("panicked"),
            "{}: {text}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn deep_nesting_is_refused_or_printed() {
    static DEEP: [u8; 40_000] = {
        let mut bytes = [0; 40_000];
        let mut at = 0;
        while at < bytes.len() {
            (bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]) = (b'*', b'1', b'\r', b'\n');
            at += 4;
        }
        bytes
    };
    let server = Server::start(|_, _| ReplyAndClose(&DEEP));
    let output = server.run(&["--no-raw", "GET", "k"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let server = Server::start(|_, _| Reply(b"+PONG\r\n"));
    let mut child = server.command(&["-r", "-1", "PING"]).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    drop(reader);
    let mut complaints = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
    assert_eq!((line.as_str(), complaints.as_str()), ("PONG\n", ""));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn unix_sockets_work_too() {
    let path = std::env::temp_dir().join(format!("discnt-cli-test-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let log = Log::default();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let writer = stream.try_clone().unwrap();
        serve(0, BufReader::new(stream), writer, &|_, _| Reply(b"+PONG\r\n"), &log);
    });
    let output = finish(tool(&["-s", path.to_str().unwrap(), "PING"]), b"");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(stdout(&output), "PONG\n");
}

#[test]
fn a_reply_that_comes_byte_by_byte_is_one_reply() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    thread::spawn(move || {
        let (stream, _): (TcpStream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut writer = stream.try_clone().unwrap();
        read_request(&mut BufReader::new(stream)).unwrap();
        for byte in b"*2\r\n$2\r\nab\r\n:12\r\n" {
            writer.write_all(&[*byte]).unwrap();
            thread::yield_now();
        }
    });
    assert_eq!(stdout(&finish(tool(&["-p", &port, "--csv", "X"]), b"")), "\"ab\",12\n");
}
