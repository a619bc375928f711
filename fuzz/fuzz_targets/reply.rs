//! Any bytes from a server: no panic, and the same outcome in whatever pieces they arrive.
//!
//! The first byte of the input is the size of the pieces, the second one chooses the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use resp::{ProtocolError, Reply, ReplyDecoder, ReplyLimits};

fn receive<'a>(
    limits: ReplyLimits,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Reply>, Result<usize, ProtocolError>) {
    let mut decoder = ReplyDecoder::new(limits);
    let mut buf = Vec::new();
    let mut replies = Vec::new();
    for chunk in chunks {
        buf.extend_from_slice(chunk);
        let mut start = 0;
        loop {
            match decoder.decode(&buf[start..]) {
                Ok(Some((reply, consumed))) => {
                    assert!(consumed > 0);
                    replies.push(reply);
                    start += consumed;
                }
                Ok(None) => break,
                Err(error) => return (replies, Err(error)),
            }
        }
        buf.drain(..start);
    }
    (replies, Ok(buf.len()))
}

fuzz_target!(|data: &[u8]| {
    let [size, choice, bytes @ ..] = data else { return };
    let limits = match choice % 2 {
        0 => ReplyLimits::default(),
        _ => ReplyLimits { max_items: 8, max_bulk_len: 16, max_line_len: 16, max_depth: 3 },
    };
    // Compared as text, since not-a-number is not equal to itself.
    let whole = format!("{:?}", receive(limits, [bytes]));
    let pieces = format!("{:?}", receive(limits, bytes.chunks(usize::from(*size).max(1))));
    assert_eq!(pieces, whole);
});
