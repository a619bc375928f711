//! Requests through the public door: recorded bytes, limits, and any bytes in any pieces.

use proptest::prelude::*;
use resp::{Decoded, Limits, ProtocolError, RequestDecoder, write_request};

type Args = Vec<Vec<u8>>;

/// What a server would see of a connection.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    requests: Vec<Args>,
    error: Option<ProtocolError>,
    /// Bytes that belong to a request that is not complete.
    waiting: usize,
}

/// Receives the chunks one after the other, as a server does.
fn receive<'a>(limits: Limits, chunks: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let mut decoder = RequestDecoder::new(limits);
    let mut buf = Vec::new();
    let mut seen = Seen::default();
    for chunk in chunks {
        buf.extend_from_slice(chunk);
        let mut start = 0;
        loop {
            match decoder.decode(&buf[start..]) {
                Ok(Decoded::Complete { request, consumed }) => {
                    seen.requests.push(request.iter().map(<[u8]>::to_vec).collect());
                    start += consumed;
                }
                Ok(Decoded::Incomplete { consumed, wanted }) => {
                    assert!(wanted > 0, "an incomplete request needs more bytes");
                    start += consumed;
                    break;
                }
                Err(error) => return Seen { error: Some(error), waiting: 0, ..seen },
            }
        }
        buf.drain(..start);
        seen.waiting = buf.len();
    }
    seen
}

fn receive_whole(bytes: &[u8]) -> Seen {
    receive(Limits::default(), [bytes])
}

fn words(requests: &[&[&str]]) -> Vec<Args> {
    requests.iter().map(|args| args.iter().map(|arg| arg.as_bytes().to_vec()).collect()).collect()
}

/// Checks the bytes whole, byte by byte, and cut in two at every place.
#[track_caller]
fn check(bytes: &[u8], requests: &[&[&str]], error: Option<&str>) {
    let whole = receive_whole(bytes);
    assert_eq!(whole.requests, words(requests), "{}", bytes.escape_ascii());
    assert_eq!(whole.error.map(|error| error.to_string()).as_deref(), error, "{}", bytes.escape_ascii());
    assert_eq!(receive(Limits::default(), bytes.chunks(1)), whole, "bytewise: {}", bytes.escape_ascii());
    for cut in 0..bytes.len().min(200) {
        let (first, second) = bytes.split_at(cut);
        assert_eq!(receive(Limits::default(), [first, second]), whole, "cut at {cut}");
    }
}

const INVALID_COUNT: Option<&str> = Some("Protocol error: invalid multibulk length");
const INVALID_LENGTH: Option<&str> = Some("Protocol error: invalid bulk length");
const UNBALANCED: Option<&str> = Some("Protocol error: unbalanced quotes in request");
const NO_END: Option<&str> = Some("Protocol error: expected CRLF after bulk");

#[test]
fn arrays_are_decoded() {
    check(b"*1\r\n$4\r\nPING\r\n", &[&["PING"]], None);
    check(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", &[&["GET", "a"]], None);
    check(b"*1\r\n$0\r\n\r\n", &[&[""]], None);
    check(b"*2\r\n$3\r\nGET\r\n$11\r\n$5\r\nhello\r\n\r\n", &[&["GET", "$5\r\nhello\r\n"]], None);
    check(b"*2\r\n$3\r\nGET\r\n$3\r\na\0b\r\n", &[&["GET", "a\0b"]], None);
}

#[test]
fn empty_lines_and_empty_arrays_are_skipped() {
    let ping: &[&[&str]] = &[&["PING"]];
    for nothing in
        ["   \r\n", " \t \r\n", "\r\n", "\n", "*0\r\n", "*-1\r\n", "*-10\r\n", "*-9223372036854775808\r\n"]
    {
        check(nothing.as_bytes(), &[], None);
        check(format!("{nothing}*1\r\n$4\r\nPING\r\n").as_bytes(), ping, None);
        check(format!("{nothing}{nothing}PING\r\n").as_bytes(), ping, None);
    }
}

#[test]
fn wrong_array_headers_are_refused() {
    for count in
        ["20000000", "1048577", "", "+1", "01", "1.0", "99999999999999999999", "-0", "1 ", " 1", "1\r"]
    {
        check(format!("*{count}\r\n").as_bytes(), &[], INVALID_COUNT);
    }
    check(b"*1\rX$4\r\nPING\r\n", &[], INVALID_COUNT);
    check(b"*1048576\r\n$4\r\nPING\r\n", &[], None);
}

#[test]
fn wrong_bulk_headers_are_refused() {
    for length in
        ["-1", "2000000000", "536870913", "blabla", "04", "+4", "4 ", "", "-0", "99999999999999999999"]
    {
        check(format!("*2\r\n$3\r\nGET\r\n${length}\r\nPING\r\n").as_bytes(), &[], INVALID_LENGTH);
    }
    check(b"*1\r\n$4\rXPING\r\n", &[], INVALID_LENGTH);
    check(b"*1\r\n$536870912\r\nabc", &[], None);
}

#[test]
fn an_argument_starts_with_a_dollar_sign() {
    for (bytes, got) in [
        (&b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n"[..], 'f'),
        (b"*1\r\n $4\r\nPING\r\n", ' '),
        (b"*1\r\n\0abc\r\n", '\0'),
        (b"*1\r\n\xff\r\n", '\u{ff}'),
        (b"*2\r\n$4\r\nPING\r\n*1\r\n$1\r\na\r\n", '*'),
        (b"*1\r\n\r\n", '\r'),
    ] {
        check(bytes, &[], Some(&format!("Protocol error: expected '$', got '{got}'")));
    }
}

#[test]
fn a_bulk_must_be_followed_by_crlf() {
    check(b"*1\r\n$4\r\nPINGab", &[], NO_END);
    check(b"*2\r\n$3\r\nGETxx$1\r\nayy", &[], NO_END);
    check(b"*1\r\n$4\r\nPING\n\r", &[], NO_END);
    check(b"*1\r\n$3\r\nPING\r\n", &[], NO_END);
    check(b"*1\r\n$5\r\nPING\r\n\r\n", &[], NO_END);
}

#[test]
fn array_headers_ended_by_lf_alone_wait_for_more() {
    check(b"*1\n$4\nPING\n", &[], None);
}

#[test]
fn inline_commands_are_split_into_words() {
    check(b"INCR a\r\nGET a\r\n", &[&["INCR", "a"], &["GET", "a"]], None);
    check(
        b"  INCR   a  \r\n\tINCR\ta\t\r\nGET\t a\r\n",
        &[&["INCR", "a"], &["INCR", "a"], &["GET", "a"]],
        None,
    );
    check(b"SET \"q\\\"q\" 1\r\nINCR 'it\\'s'\r\n", &[&["SET", "q\"q", "1"], &["INCR", "it's"]], None);
    check(b"INCR a\"b\"\r\nINCR a'b c'\r\n", &[&["INCR", "ab"], &["INCR", "ab c"]], None);
    check(b"INCR a\\nb\r\n", &[&["INCR", "a\\nb"]], None);
    check(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", &[&["POST", "/", "HTTP/1.1"], &["Host:", "x"]], None);
    check(b"$4\r\n:5\r\n+OK\r\n-ERR\r\n", &[&["$4"], &[":5"], &["+OK"], &["-ERR"]], None);
}

#[test]
fn lines_ended_by_lf_alone_lose_no_byte() {
    check(b"PING\nPING\nPING\n", &[&["PING"], &["PING"], &["PING"]], None);
    check(b"PING\n*1\r\n$4\r\nPING\r\nPING\n", &[&["PING"], &["PING"], &["PING"]], None);
}

#[test]
fn nul_is_an_ordinary_byte_of_a_line() {
    check(b"\0\r\n", &[&["\0"]], None);
    check(b"INCR a\0b\r\n", &[&["INCR", "a\0b"]], None);
}

#[test]
fn empty_quoted_words_are_arguments() {
    check(b"INCR \"\"\r\nINCR ''\r\n", &[&["INCR", ""], &["INCR", ""]], None);
    check(b"SET \"\" a 5\r\n", &[&["SET", "", "a", "5"]], None);
    check(b"''\r\n", &[&[""]], None);
}

#[test]
fn requests_before_an_error_are_handed_out_and_those_behind_are_not() {
    check(b"PING\r\nSET 'a 5\r\nPING\r\n", &[&["PING"]], UNBALANCED);
    check(b"set \"\"\"test-key\"\"\" test-value\r\nping\r\n", &[], UNBALANCED);
    check(b"*1\r\n$4\r\nPING\r\n*x\r\n*1\r\n$4\r\nPING\r\n", &[&["PING"]], INVALID_COUNT);
}

#[test]
fn lines_may_be_as_long_as_the_limit_however_they_arrive() {
    let max = Limits::default().max_inline_len;
    let line = |marker: &str, len: usize| format!("{marker}{}", "1".repeat(len - marker.len())).into_bytes();
    for (before, marker, too_big) in [
        ("", "", ProtocolError::TooBigInline),
        ("", "*", ProtocolError::TooBigMultibulkCount),
        ("*1\r\n", "$", ProtocolError::TooBigBulkCount),
    ] {
        let mut allowed = before.as_bytes().to_vec();
        allowed.extend(line(marker, max));
        assert_eq!(receive_whole(&allowed).error, None);
        allowed.extend(b"\r\n");
        // With the CR an inline line is one byte over.
        assert_eq!(receive_whole(&allowed).error == Some(too_big), marker.is_empty());
        let mut longer = before.as_bytes().to_vec();
        longer.extend(line(marker, max + 1));
        assert_eq!(receive_whole(&longer).error, Some(too_big));
        longer.extend(b"\r\n");
        assert_eq!(receive_whole(&longer).error, Some(too_big));
        assert_eq!(receive(Limits::default(), longer.chunks(1)).error, Some(too_big));
    }
    let garbage = |start: &[u8]| [start, &[b'A'; 70_000]].concat();
    assert_eq!(receive_whole(&garbage(b"\0")).error, Some(ProtocolError::TooBigInline));
    assert_eq!(receive_whole(&garbage(b"*\0")).error, Some(ProtocolError::TooBigMultibulkCount));
    let long = format!("PING {}\r\n", "x".repeat(60_000));
    assert_eq!(receive_whole(long.as_bytes()).requests[0][1].len(), 60_000);
}

#[test]
fn a_request_of_a_million_arguments_may_arrive_in_small_pieces() {
    let mut bytes = b"*1048576\r\n".to_vec();
    bytes.extend(b"$1\r\nx\r\n".repeat(1_048_576));
    let mut decoder = RequestDecoder::new(Limits::default());
    let last = bytes.len() - 1;
    for end in 0..=last {
        assert!(matches!(decoder.decode(&bytes[..end]), Ok(Decoded::Incomplete { consumed: 0, .. })));
    }
    match decoder.decode(&bytes) {
        Ok(Decoded::Complete { request, consumed }) => {
            assert_eq!((request.len(), consumed), (1_048_576, last + 1))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_hint_tells_what_is_missing_of_a_bulk() {
    let mut decoder = RequestDecoder::new(Limits::default());
    match decoder.decode(b"\r\n*1\r\n$1000\r\nabc").unwrap() {
        Decoded::Incomplete { consumed, wanted } => assert_eq!((consumed, wanted), (2, 999)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn own_limits_are_kept() {
    let limits = Limits { max_args: 2, max_bulk_len: 3, max_inline_len: 32, is_before_password: false };
    let error = |bytes: &[u8]| receive(limits, [bytes]).error;
    assert_eq!(error(b"*2\r\n$3\r\nabc\r\n$0\r\n\r\na b\n"), None);
    assert_eq!(error(b"*3\r\n"), Some(ProtocolError::InvalidMultibulkLength));
    assert_eq!(error(b"*1\r\n$4\r\n"), Some(ProtocolError::InvalidBulkLength));
    assert_eq!(error(b"a b c\n"), Some(ProtocolError::InvalidMultibulkLength));
    assert_eq!(error(&[b'1'; 33]), Some(ProtocolError::TooBigInline));
}

/// Bytes that come near to the protocol more often than random ones.
fn protocol_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "*1\r\n",
            "*2\r\n",
            "*0\r\n",
            "*-1\r\n",
            "$0\r\n",
            "$1\r\n",
            "$4\r\n",
            "PING",
            "\r\n",
            "\n",
            "\r",
            "a",
            "\"",
            "'",
            "\\",
            "\\x4",
            " ",
            "$",
            "*",
            "\0",
            "9",
            "*1\r\n$4\r\nPING\r\n",
            "INCR a\n",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn written_requests_decode_to_the_same_arguments_at_every_cut(
        requests in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6), 1..4),
    ) {
        let mut bytes = Vec::new();
        for args in &requests {
            write_request(&mut bytes, args);
        }
        let expected = Seen { requests, error: None, waiting: 0 };
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            prop_assert_eq!(&receive(Limits::default(), [first, second]), &expected);
        }
    }

    #[test]
    fn any_bytes_mean_the_same_in_any_pieces(
        bytes in prop_oneof![protocol_like(), prop::collection::vec(any::<u8>(), 0..100)],
        cuts in prop::collection::vec(1_usize..9, 1..20),
        max_inline_len in prop_oneof![Just(65_536), 32_usize..40],
    ) {
        let limits = Limits { max_inline_len, ..Limits::default() };
        let whole = receive(limits, [&bytes[..]]);
        prop_assert_eq!(&receive(limits, bytes.chunks(1)), &whole);
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        for &cut in cuts.iter().cycle().take(bytes.len()) {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        prop_assert_eq!(&receive(limits, pieces), &whole);
    }
}
