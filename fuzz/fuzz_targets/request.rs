//! Any bytes from a client: no panic, and the same outcome in whatever pieces they arrive. What was
//! decoded survives being written again.
//!
//! The first byte of the input is the size of the pieces, the second one chooses the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use resp::{Decoded, Limits, ProtocolError, RequestDecoder, split_words, write_request};

type Args = Vec<Vec<u8>>;

fn receive<'a>(
    limits: Limits,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Args>, Result<usize, ProtocolError>) {
    let mut decoder = RequestDecoder::new(limits);
    let mut buf = Vec::new();
    let mut requests = Vec::new();
    for chunk in chunks {
        buf.extend_from_slice(chunk);
        let mut start = 0;
        loop {
            match decoder.decode(&buf[start..]) {
                Ok(Decoded::Complete { request, consumed }) => {
                    assert!(consumed > 0 && request.len() <= limits.max_args);
                    requests.push(request.iter().map(<[u8]>::to_vec).collect());
                    start += consumed;
                }
                Ok(Decoded::Incomplete { consumed, wanted }) => {
                    assert!(wanted > 0);
                    start += consumed;
                    break;
                }
                Err(error) => return (requests, Err(error)),
            }
        }
        buf.drain(..start);
    }
    (requests, Ok(buf.len()))
}

fuzz_target!(|data: &[u8]| {
    let [size, choice, bytes @ ..] = data else { return };
    let limits = match choice % 2 {
        0 => Limits::default(),
        _ => Limits { max_args: 8, max_bulk_len: 16, max_inline_len: 40, is_before_password: false },
    };
    let whole = receive(limits, [bytes]);
    assert_eq!(receive(limits, bytes.chunks(usize::from(*size).max(1))), whole);
    let mut again = Vec::new();
    for args in &whole.0 {
        write_request(&mut again, args);
    }
    // An inline word may be longer than the small limit of bulks.
    assert_eq!(receive(Limits::default(), [&again[..]]), (whole.0, Ok(0)));
    let _ = split_words(bytes);
});
