//! Replies through the public door: what the writer writes the client reads, in any pieces.

use proptest::prelude::*;
use resp::{Protocol, ProtocolError, Reply, ReplyDecoder, ReplyLimits, ReplyWriter};

#[derive(Debug, Default, PartialEq)]
struct Seen {
    replies: Vec<Reply>,
    error: Option<ProtocolError>,
    waiting: usize,
}

/// Receives the chunks one after the other, as a client does.
fn receive<'a>(limits: ReplyLimits, chunks: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let mut decoder = ReplyDecoder::new(limits);
    let mut buf = Vec::new();
    let mut seen = Seen::default();
    for chunk in chunks {
        buf.extend_from_slice(chunk);
        loop {
            match decoder.decode(&buf) {
                Ok(Some((reply, consumed))) => {
                    seen.replies.push(reply);
                    buf.drain(..consumed);
                }
                Ok(None) => break,
                Err(error) => return Seen { error: Some(error), waiting: 0, ..seen },
            }
        }
        seen.waiting = buf.len();
    }
    seen
}

fn receive_whole(bytes: &[u8]) -> Seen {
    receive(ReplyLimits::default(), [bytes])
}

fn write(writer: &mut ReplyWriter<'_>, reply: &Reply) {
    match reply {
        Reply::Status(text) => writer.status(&String::from_utf8_lossy(text)),
        Reply::Error(text) => writer.error_bytes(text),
        Reply::Integer(value) => writer.integer(*value),
        Reply::Bulk(bytes) => writer.bulk(bytes),
        Reply::Null => writer.null(),
        Reply::Double(value) => writer.double(*value),
        Reply::Boolean(value) => writer.boolean(*value),
        Reply::BigNumber(digits) => writer.big_number(String::from_utf8_lossy(digits)),
        Reply::Verbatim { format, text } => writer.verbatim(format, text),
        Reply::Array(items) => {
            writer.array(items.len());
            items.iter().for_each(|item| write(writer, item));
        }
        Reply::Set(items) => {
            writer.set(items.len());
            items.iter().for_each(|item| write(writer, item));
        }
        Reply::Push(items) => {
            writer.push(items.len());
            items.iter().for_each(|item| write(writer, item));
        }
        Reply::Map(pairs) => {
            writer.map(pairs.len());
            for (key, value) in pairs {
                write(writer, key);
                write(writer, value);
            }
        }
    }
}

#[test]
fn each_kind_is_read() {
    for (bytes, reply) in [
        ("+OK\r\n", Reply::Status(b"OK".to_vec())),
        ("-ERR no\r\n", Reply::Error(b"ERR no".to_vec())),
        ("!6\r\nERR no\r\n", Reply::Error(b"ERR no".to_vec())),
        (":-5\r\n", Reply::Integer(-5)),
        (":+5\r\n", Reply::Integer(5)),
        ("$0\r\n\r\n", Reply::Bulk(vec![])),
        ("$4\r\na\r\nb\r\n", Reply::Bulk(b"a\r\nb".to_vec())),
        ("$-1\r\n", Reply::Null),
        ("*-1\r\n", Reply::Null),
        ("_\r\n", Reply::Null),
        (",1.5\r\n", Reply::Double(1.5)),
        (",10\r\n", Reply::Double(10.0)),
        (",-inf\r\n", Reply::Double(f64::NEG_INFINITY)),
        ("#t\r\n", Reply::Boolean(true)),
        ("#f\r\n", Reply::Boolean(false)),
        (
            "(-123456789012345678901234567890\r\n",
            Reply::BigNumber(b"-123456789012345678901234567890".to_vec()),
        ),
        ("=7\r\ntxt:abc\r\n", Reply::Verbatim { format: *b"txt", text: b"abc".to_vec() }),
        ("*0\r\n", Reply::Array(vec![])),
        (
            "%1\r\n+a\r\n*1\r\n:1\r\n",
            Reply::Map(vec![(Reply::Status(b"a".to_vec()), Reply::Array(vec![Reply::Integer(1)]))]),
        ),
        ("~1\r\n:1\r\n", Reply::Set(vec![Reply::Integer(1)])),
        (">1\r\n:1\r\n", Reply::Push(vec![Reply::Integer(1)])),
    ] {
        let whole = receive_whole(bytes.as_bytes());
        assert_eq!(whole, Seen { replies: vec![reply], error: None, waiting: 0 }, "{bytes:?}");
        assert_eq!(receive(ReplyLimits::default(), bytes.as_bytes().chunks(1)), whole, "{bytes:?}");
    }
}

#[test]
fn what_is_no_reply_is_refused() {
    for (bytes, error) in [
        ("hello\r\n", ProtocolError::UnknownReplyKind(b'h')),
        ("\r\n", ProtocolError::UnknownReplyKind(b'\r')),
        ("+OK\n", ProtocolError::InvalidReplyLine),
        (":x\r\n", ProtocolError::InvalidReplyLine),
        (":+-5\r\n", ProtocolError::InvalidReplyLine),
        (",x\r\n", ProtocolError::InvalidReplyLine),
        ("#y\r\n", ProtocolError::InvalidReplyLine),
        ("_x\r\n", ProtocolError::InvalidReplyLine),
        ("(\r\n", ProtocolError::InvalidReplyLine),
        ("(12a\r\n", ProtocolError::InvalidReplyLine),
        ("=3\r\ntxt\r\n", ProtocolError::InvalidReplyLine),
        ("$-2\r\n", ProtocolError::InvalidBulkLength),
        ("$?\r\n", ProtocolError::InvalidBulkLength),
        ("$536870913\r\n", ProtocolError::InvalidBulkLength),
        ("*-2\r\n", ProtocolError::InvalidMultibulkLength),
        ("%-1\r\n", ProtocolError::InvalidMultibulkLength),
        ("$2\r\nabc\r\n", ProtocolError::BulkWithoutEnd),
    ] {
        assert_eq!(receive_whole(bytes.as_bytes()).error, Some(error), "{bytes:?}");
    }
}

#[test]
fn nesting_has_a_limit() {
    let depth = ReplyLimits::default().max_depth;
    let nested = |depth: usize| format!("{}:1\r\n", "*1\r\n".repeat(depth)).into_bytes();
    assert_eq!(receive_whole(&nested(depth)).replies.len(), 1);
    assert_eq!(receive_whole(&nested(depth + 1)).error, Some(ProtocolError::TooDeepReply));
    assert_eq!(
        receive_whole(&"|1\r\n".repeat(depth + 1).into_bytes()).error,
        Some(ProtocolError::TooDeepReply)
    );
}

#[test]
fn a_long_array_may_arrive_in_small_pieces() {
    let mut bytes = b"*300000\r\n".to_vec();
    bytes.extend(b"$1\r\nx\r\n".repeat(300_000));
    let mut decoder = ReplyDecoder::new(ReplyLimits::default());
    for end in 0..bytes.len() {
        assert_eq!(decoder.decode(&bytes[..end]), Ok(None));
    }
    let (reply, consumed) = decoder.decode(&bytes).unwrap().unwrap();
    assert_eq!(consumed, bytes.len());
    assert!(matches!(reply, Reply::Array(items) if items.len() == 300_000));
}

fn any_reply() -> impl Strategy<Value = Reply> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20);
    let leaf = prop_oneof![
        "[ -~]{0,12}".prop_map(|text| Reply::Status(text.into_bytes())),
        "[ -~]{0,12}".prop_map(|text| Reply::Error(text.into_bytes())),
        any::<i64>().prop_map(Reply::Integer),
        bytes().prop_map(Reply::Bulk),
        Just(Reply::Null),
        any::<f64>()
            .prop_filter("nan is not equal to itself", |value| !value.is_nan())
            .prop_map(Reply::Double),
        any::<bool>().prop_map(Reply::Boolean),
        any::<i128>().prop_map(|value| Reply::BigNumber(value.to_string().into_bytes())),
        bytes().prop_map(|text| Reply::Verbatim { format: *b"txt", text }),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let items = || prop::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            items().prop_map(Reply::Array),
            items().prop_map(Reply::Set),
            items().prop_map(Reply::Push),
            prop::collection::vec((inner.clone(), inner.clone()), 0..3).prop_map(Reply::Map),
        ]
    })
}

/// Bytes that come near to the protocol more often than random ones.
fn protocol_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "*1\r\n",
            "*2\r\n",
            "*0\r\n",
            "*-1\r\n",
            "%1\r\n",
            "|1\r\n",
            "~2\r\n",
            ">1\r\n",
            "$0\r\n",
            "$1\r\n",
            "=5\r\n",
            "txt:a\r\n",
            "!1\r\n",
            "a\r\n",
            "\r\n",
            ":1\r\n",
            "+a\r\n",
            "_\r\n",
            "#t\r\n",
            ",1e3\r\n",
            "(1\r\n",
            "\n",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..3),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn written_replies_read_back_at_every_cut(replies in prop::collection::vec(any_reply(), 1..3)) {
        let mut bytes = Vec::new();
        let mut writer = ReplyWriter::new(&mut bytes, Protocol::Resp3);
        replies.iter().for_each(|reply| write(&mut writer, reply));
        let expected = Seen { replies, error: None, waiting: 0 };
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            prop_assert_eq!(&receive(ReplyLimits::default(), [first, second]), &expected);
        }
    }

    #[test]
    fn replies_of_either_version_are_one_reply_each(reply in any_reply()) {
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let mut bytes = Vec::new();
            write(&mut ReplyWriter::new(&mut bytes, protocol), &reply);
            let seen = receive_whole(&bytes);
            prop_assert_eq!((seen.replies.len(), seen.error, seen.waiting), (1, None, 0));
        }
    }

    #[test]
    fn any_bytes_mean_the_same_in_any_pieces(
        bytes in prop_oneof![protocol_like(), prop::collection::vec(any::<u8>(), 0..100)],
        size in 2_usize..9,
    ) {
        let limits = ReplyLimits { max_line_len: 12, max_depth: 5, ..ReplyLimits::default() };
        // Debug output, since not-a-number is not equal to itself.
        let whole = format!("{:?}", receive(limits, [&bytes[..]]));
        prop_assert_eq!(&format!("{:?}", receive(limits, bytes.chunks(1))), &whole);
        prop_assert_eq!(&format!("{:?}", receive(limits, bytes.chunks(size))), &whole);
    }
}
