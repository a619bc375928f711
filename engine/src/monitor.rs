//! The line that MONITOR shows for a command.

use crate::clients::{Client, Peer};
use crate::counter::MAX_NAME_LEN;
use crate::settings::{self, SettingSpec};
use crate::time::Now;
use resp::Request;
use std::io::Write;

/// Bytes of a word that are shown: any name in full.
const MAX_WORD_LEN: usize = MAX_NAME_LEN;

/// Above so many bytes no further word is shown.
const MAX_LINE_LEN: usize = 1024 * 1024;

/// `+1795354504.123456 [127.0.0.1:4242] "SET" "foo" "1"`, line end included. `command` is the name in the table,
/// whatever the command is called on this node. Passwords are not shown.
pub(crate) fn line(client: &Client, command: &str, request: &Request<'_>, now: Now) -> Vec<u8> {
    let mut line = Vec::with_capacity(64);
    let (secs, micros) = (now.unix.secs(), now.unix.0 % 1_000_000);
    let written = match &client.peer {
        Peer::Tcp { addr, .. } => write!(line, "+{secs}.{micros:06} [{addr}]"),
        Peer::Unix(path) => write!(line, "+{secs}.{micros:06} [unix:{path}]"),
    };
    written.expect("writing to a vector does not fail");
    for (position, word) in request.iter().enumerate() {
        line.push(b' ');
        if line.len() > MAX_LINE_LEN {
            let left = request.len() - position;
            write!(line, "\"... ({left} more arguments)\"").expect("writing to a vector does not fail");
            break;
        }
        if is_secret(command, request, position) {
            line.extend_from_slice(b"\"(redacted)\"");
        } else {
            quote(&word[..word.len().min(MAX_WORD_LEN)], &mut line);
            if let Some(left) = word.len().checked_sub(MAX_WORD_LEN).filter(|&left| left > 0) {
                line.pop();
                write!(line, "... ({left} more bytes)\"").expect("writing to a vector does not fail");
            }
        }
    }
    line.extend_from_slice(b"\r\n");
    line
}

/// Whether the word at this position is a password or may be one: an argument of AUTH, one of the two behind AUTH in
/// HELLO, the value of a secret setting in CONFIG SET.
fn is_secret(command: &str, request: &Request<'_>, position: usize) -> bool {
    let is = |position: usize, word: &[u8]| request.arg(position).eq_ignore_ascii_case(word);
    match command {
        "auth" => position > 0,
        "hello" => (2..position).rev().take(2).any(|before| is(before, b"AUTH")),
        "config" => {
            position > 2
                && is(1, b"SET")
                && settings::find(request.arg(position - 1)).is_some_and(SettingSpec::is_secret)
        }
        _ => false,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Clients;
    use crate::time::Micros;

    fn shown(command: &str, words: &[&[u8]]) -> String {
        let peer = Peer::Tcp { addr: "127.0.0.1:4242".into(), local: String::new() };
        let client = Clients::default().connect(peer, 0, Micros::default(), Box::new(|| ()));
        let now = Now { monotonic: Micros::default(), unix: Micros(1_795_354_504_000_456) };
        String::from_utf8(line(&client, command, &Request::from_args(words), now)).unwrap()
    }

    #[test]
    fn a_line_tells_when_who_and_what() {
        assert_eq!(
            shown("set", &[b"SeT", b"a b\"\\", b"\x00\xff\r\n\t\x07\x08"]),
            "+1795354504.000456 [127.0.0.1:4242] \"SeT\" \"a b\\\"\\\\\" \"\\x00\\xff\\r\\n\\t\\a\\b\"\r\n"
        );
    }

    #[test]
    fn a_line_has_an_end_however_long_the_words_are() {
        let (word, name) = (vec![b'x'; 1 << 20], [0; MAX_WORD_LEN]);
        let shown_word = shown("echo", &[b"ECHO", &word]);
        assert!(shown_word.ends_with("xxx... (983041 more bytes)\"\r\n"), "{}", shown_word.len());
        let words = [&[&b"EXISTS"[..]], &[&name[..]; 100][..]].concat();
        let shown_words = shown("exists", &words);
        assert!(
            shown_words.len() < 2 << 20 && shown_words.ends_with("\\x00\" \"... (96 more arguments)\"\r\n")
        );
    }

    #[test]
    fn passwords_are_never_shown() {
        let requests: &[(&str, &[&[u8]])] = &[
            ("auth", &[b"AUTH", b"hunter2"]),
            ("auth", &[b"renamed", b"hunter2"]),
            ("auth", &[b"AUTH", b"user", b"hunter2"]),
            ("hello", &[b"HELLO", b"3", b"AUTH", b"user", b"hunter2"]),
            ("hello", &[b"HELLO", b"3", b"SETNAME", b"n", b"auth", b"user", b"hunter2"]),
            ("config", &[b"CONFIG", b"set", b"RequirePass", b"hunter2"]),
            ("config", &[b"CONFIG", b"SET", b"timeout", b"1", b"requirepass", b"hunter2"]),
            ("config", &[b"CONFIG", b"SET", b"cluster-secret", b"hunter2"]),
        ];
        for (command, words) in requests {
            let line = shown(command, words);
            assert!(line.contains("(redacted)") && !line.contains("hunter2"), "{line}");
        }
    }

    #[test]
    fn other_words_are_shown() {
        for (command, words) in [
            ("config", &[&b"CONFIG"[..], b"GET", b"requirepass"][..]),
            ("config", &[b"CONFIG", b"SET", b"timeout", b"7"]),
            ("hello", &[b"HELLO", b"3", b"SETNAME", b"n"]),
            ("get", &[b"GET", b"auth"]),
        ] {
            assert!(!shown(command, words).contains("redacted"));
        }
    }
}
