//! The line that MONITOR shows for a command.

use crate::clients::{Client, Peer};
use crate::time::Now;
use resp::Request;
use std::io::Write;

/// `+1795354504.123456 [127.0.0.1:4242] "SET" "foo" "1"`, line end included. Passwords are not shown.
pub(crate) fn line(client: &Client, request: &Request<'_>, now: Now) -> Vec<u8> {
    let mut line = Vec::with_capacity(64);
    let (secs, micros) = (now.unix.secs(), now.unix.0 % 1_000_000);
    let written = match &client.peer {
        Peer::Tcp { addr, .. } => write!(line, "+{secs}.{micros:06} [{addr}]"),
        Peer::Unix(path) => write!(line, "+{secs}.{micros:06} [unix:{path}]"),
    };
    written.expect("writing to a vector does not fail");
    for (position, word) in request.iter().enumerate() {
        line.push(b' ');
        if is_secret(request, position) {
            line.extend_from_slice(b"\"(redacted)\"");
        } else {
            quote(word, &mut line);
        }
    }
    line.extend_from_slice(b"\r\n");
    line
}

/// Whether the word at this position is a password: of AUTH, HELLO ... AUTH, CONFIG SET requirepass.
fn is_secret(request: &Request<'_>, position: usize) -> bool {
    let is = |position: usize, word: &[u8]| request.arg(position).eq_ignore_ascii_case(word);
    if position == 0 {
        return false;
    }
    if is(0, b"AUTH") {
        return true;
    }
    if is(0, b"HELLO") {
        return (1..position).rev().take(2).any(|before| is(before, b"AUTH"));
    }
    is(0, b"CONFIG")
        && position >= 3
        && is(1, b"SET")
        && (is(position - 1, b"requirepass") || is(position - 1, b"cluster-secret"))
}

/// The bytes in double quotes, unprintable ones escaped.
fn quote(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            7 => out.extend_from_slice(b"\\a"),
            8 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(byte),
            _ => write!(out, "\\x{byte:02x}").expect("writing to a vector does not fail"),
        }
    }
    out.push(b'"');
}
