//! Prints how long the hot path takes: decoding pipelined requests and writing short replies.
//!
//! `cargo run --release -p resp --example speed`. Each figure is the best of several rounds, so that
//! other work on the machine disturbs it little.
#![allow(clippy::print_stdout, reason = "a tool for people")]

use std::hint::black_box;
use std::time::Instant;

use resp::{Decoded, Limits, Protocol, ReplyWriter, RequestDecoder, write_request};

/// Requests in one buffer: a usual pipeline.
const PIPELINE: usize = 64;
const PIPELINES: usize = 20_000;
const ROUNDS: usize = 9;

fn main() {
    let mut array = Vec::new();
    let mut plain = Vec::new();
    let mut quoted = Vec::new();
    for _ in 0..PIPELINE {
        write_request(&mut array, &["INCRBY", "key:000000012345", "1"]);
        plain.extend(b"INCRBY key:000000012345 1\r\n");
        quoted.extend(b"INCRBY \"key:000000012345\" 1\r\n");
    }
    report("decode INCRBY key:000000012345 1, array", || decode(&array));
    report("decode the same, inline", || decode(&plain));
    report("decode the same, inline with quotes", || decode(&quoted));
    let mut out = Vec::new();
    report("write a bulk of 5 bytes", || write(&mut out, |writer, _| writer.bulk(black_box(b"12345"))));
    report("write a bulk of 5 digits by display", || {
        write(&mut out, |writer, i| writer.bulk_display(black_box(10_000 + i)));
    });
    report("write an integer of 5 digits", || {
        write(&mut out, |writer, i| writer.integer(black_box(10_000 + i)));
    });
}

fn decode(buf: &[u8]) {
    let mut decoder = RequestDecoder::new(Limits::default());
    for _ in 0..PIPELINES {
        let mut start = 0;
        while let Ok(Decoded::Complete { request, consumed }) = decoder.decode(&buf[start..]) {
            black_box((request.name(), request.arg(1), request.arg(2)));
            start += consumed;
        }
        assert_eq!(start, buf.len(), "the whole pipeline was decoded");
    }
}

fn write(out: &mut Vec<u8>, reply: impl Fn(&mut ReplyWriter<'_>, i64)) {
    for _ in 0..PIPELINES {
        out.clear();
        let mut writer = ReplyWriter::new(out, Protocol::Resp2);
        for i in 0..PIPELINE as i64 {
            reply(&mut writer, i);
        }
        black_box(&out);
    }
}

fn report(what: &str, mut round: impl FnMut()) {
    let best = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            round();
            start.elapsed()
        })
        .min()
        .expect("there is at least one round");
    println!("{:7.1} ns  {what}", best.as_nanos() as f64 / (PIPELINE * PIPELINES) as f64);
}
