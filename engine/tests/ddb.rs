//! The reader of the original's dumps, on dumps that the original wrote (`fixtures/ddb`, each with a description)
//! and on others made here.

#![allow(clippy::unwrap_used, reason = "a test; clippy knows only functions marked as tests")]

use engine::ddb::{self, DdbError, Dump, Fault, NumberFault};
use engine::value::Value;
use proptest::prelude::*;
use serde_json::Value as Json;

const SAMPLES: [(&str, &[u8], &str); 5] = [
    ("empty", include_bytes!("fixtures/ddb/empty.ddb"), include_str!("fixtures/ddb/empty.json")),
    (
        "no-checksum",
        include_bytes!("fixtures/ddb/no-checksum.ddb"),
        include_str!("fixtures/ddb/no-checksum.json"),
    ),
    ("single-node", SINGLE_NODE, include_str!("fixtures/ddb/single-node.json")),
    (
        "three-nodes",
        include_bytes!("fixtures/ddb/three-nodes.ddb"),
        include_str!("fixtures/ddb/three-nodes.json"),
    ),
    ("three-nodes-moving", MOVING, include_str!("fixtures/ddb/three-nodes-moving.json")),
];
const SINGLE_NODE: &[u8] = include_bytes!("fixtures/ddb/single-node.ddb");
const MOVING: &[u8] = include_bytes!("fixtures/ddb/three-nodes-moving.ddb");

fn value(text: &str) -> Value {
    Value::parse(text.as_bytes()).unwrap()
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap()
}

/// The descriptions hold names as code points, one for each byte.
fn name_bytes(json: &Json) -> Vec<u8> {
    text(json).chars().map(|point| u8::try_from(u32::from(point)).unwrap()).collect()
}

fn own_id(description: &Json) -> &[u8; 40] {
    text(&description["own_node_id"]).as_bytes().try_into().unwrap()
}

fn counter<'a, 'b>(dump: &'b Dump<'a>, name: &str) -> &'b ddb::Counter<'a> {
    dump.counters.iter().find(|counter| counter.name == name.as_bytes()).unwrap()
}

fn check_counter(counter: &ddb::Counter<'_>, told: &Json, own: &[u8; 40]) {
    assert_eq!(u64::from(counter.revision), told["revision"]);
    assert_eq!(u64::from(counter.hits), told["hits"]);
    assert_eq!(u64::from(counter.misses), told["misses"]);
    let precision = Some(text(&told["precision"])).filter(|text| *text != "inf").map(value);
    assert_eq!(counter.precision, precision);
    let parts = told["shards"].as_array().unwrap();
    assert_eq!(counter.parts.len(), parts.len());
    for (part, told) in counter.parts.iter().zip(parts) {
        assert_eq!(part.node, text(&told["node"]).as_bytes());
        assert_eq!(part.value, value(text(&told["value"])));
        assert_eq!(part.predicted_at_ms, told["predict_time"]);
        assert_eq!(part.predicted, value(text(&told["predict_value"])));
        assert_eq!(part.change_per_ms, text(&told["predict_change"]).parse::<f64>().unwrap());
    }
    assert_eq!(counter.is_settled(own), told["settled"].as_bool().unwrap());
    if counter.is_settled(own) {
        let total = value(text(&told["total"]));
        assert_eq!(counter.stored_total(), total);
        assert_eq!(counter.total_at(own, 0), total);
        assert_eq!(counter.total_at(own, i64::MAX), total);
    }
}

#[test]
fn sample_dumps_load_to_what_their_descriptions_say() {
    for (name, bytes, description) in SAMPLES {
        let dump = ddb::read(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let description: Json = serde_json::from_str(description).unwrap();
        let told = description["counters"].as_array().unwrap();
        assert_eq!(dump.counters.len(), told.len(), "{name}");
        for told in told {
            let name = name_bytes(&told["name"]);
            let counter = dump.counters.iter().find(|counter| counter.name == name).unwrap();
            check_counter(counter, told, own_id(&description));
        }
        let stored = u64::from_str_radix(text(&description["crc64_stored"]), 16).unwrap();
        let computed = u64::from_str_radix(text(&description["crc64_computed"]), 16).unwrap();
        assert_eq!(dump.has_checksum, stored != 0, "{name}");
        assert_eq!(ddb::checksum(&bytes[..bytes.len() - 8]), computed, "{name}");
    }
}

#[test]
fn a_moving_line_is_drawn_from_its_prediction() {
    let dump = ddb::read(MOVING).unwrap();
    let own = b"d47a5074f7bfd0f61e3d8f79b70b5fc32bb43b34";
    let moving = counter(&dump, "moving");
    assert_eq!(moving.stored_total(), value("33.943"));
    // 30 at ..846072, 0.0029999999999999996 per ms; the own part is 1 whatever its line says.
    let near = |at_ms: i64, expected: &str| {
        let off = moving.total_at(own, at_ms).checked_sub(value(expected)).unwrap();
        assert!(off.abs() < value("1e-12"), "{at_ms}: {off} away from {expected}");
    };
    near(1795358846072, "31");
    near(1795358846072 + 981, "33.943");
    near(1795358846072 + 1_000_000, "3031");
    near(1795358846072 - 1_000, "31");
    near(i64::MIN, "31");
    let at_the_end_of_time = moving.total_at(own, i64::MAX);
    assert!(value("2.76e16") < at_the_end_of_time && at_the_end_of_time < value("2.77e16"));
}

#[test]
fn the_checksum_is_the_known_crc() {
    assert_eq!(ddb::checksum(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    assert_eq!(ddb::checksum(b""), 0);
}

#[test]
fn every_cut_is_refused_as_a_cut() {
    for (_, bytes, _) in SAMPLES {
        for len in 0..bytes.len() {
            let error = ddb::read(&bytes[..len]).unwrap_err();
            assert!(matches!(error.fault, Fault::Truncated { .. }), "{len}: {error}");
            assert!(error.offset <= len);
        }
    }
}

#[test]
fn every_flipped_bit_is_refused_where_there_is_a_checksum() {
    for (name, bytes, _) in SAMPLES {
        if name == "no-checksum" {
            continue;
        }
        let mut bytes = bytes.to_vec();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(ddb::read(&bytes).is_err(), "{name}: bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// One counter as the original would write it; every field can be made wrong.
#[derive(Clone)]
struct Record {
    name: Vec<u8>,
    precision: Vec<u8>,
    parts: Vec<(Vec<u8>, [Vec<u8>; 3])>,
}

fn num(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn part(node: &str, value: &str) -> (Vec<u8>, [Vec<u8>; 3]) {
    (node.as_bytes().to_vec(), [num(value), num(value), num("0")])
}

fn record(name: &str) -> Record {
    Record { name: name.into(), precision: num("1"), parts: vec![part(&"a".repeat(40), "1.5")] }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

/// A dump without a checksum.
fn dump(records: &[Record]) -> Vec<u8> {
    let mut bytes = b"DISCNT001\xfb".to_vec();
    bytes.extend((records.len() as u32).to_le_bytes());
    for record in records {
        bytes.push(0);
        bytes.extend(string(&record.name));
        bytes.extend(7_u32.to_le_bytes());
        bytes.extend(&record.precision);
        bytes.extend([0; 8]);
        bytes.extend((record.parts.len() as u32).to_le_bytes());
        for (node, [value, predicted, change]) in &record.parts {
            bytes.extend(string(node));
            bytes.extend(value);
            bytes.extend(1_234_i64.to_le_bytes());
            bytes.extend(predicted);
            bytes.extend(change);
        }
    }
    bytes.push(0xff);
    bytes.extend([0; 8]);
    bytes
}

fn refusal(bytes: &[u8]) -> String {
    ddb::read(bytes).unwrap_err().to_string()
}

fn fault(bytes: &[u8]) -> Fault {
    ddb::read(bytes).unwrap_err().fault
}

#[test]
fn refusals_name_the_offset_and_the_cause() {
    let good = dump(&[record("k")]);
    assert!(ddb::read(&good).is_ok());
    let with = |offset: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[offset] = byte;
        refusal(&bytes)
    };
    assert_eq!(
        refusal(b""),
        "at byte 0: the dump is cut off: the beginning takes 6 bytes or more, 0 are left"
    );
    assert_eq!(refusal(b"REDIS0009"), "at byte 0: this is no dump: it does not begin with DISCNT");
    assert_eq!(with(8, b'2'), "at byte 6: the dump's version is \"002\", only \"001\" can be read");
    assert_eq!(with(14, 9), "at byte 14: 0x09 stands where a record (0x00) or the end (0xff) must begin");
    assert_eq!(
        with(18, 1),
        "at byte 19: the dump is cut off: a name takes 16777217 bytes or more, 90 are left"
    );
    assert_eq!(with(10, 2), "at byte 100: the dump announces 2 counters and holds 1");
    assert_eq!(with(25, b'x'), "at byte 24: a precision is not a decimal number");
    assert_eq!(
        with(37, 3),
        "at byte 38: the dump is cut off: a counter's list of parts takes 2919235642 bytes or more, 71 are left"
    );
    assert_eq!(with(38, 39), "at byte 38: a node id is not 40 lower-case hexadecimal digits");
    assert_eq!(with(42, b'A'), "at byte 38: a node id is not 40 lower-case hexadecimal digits");
    assert_eq!(with(84, b','), "at byte 82: a value is not a decimal number");
    let at_end = good.len() - 8;
    assert_eq!(
        with(at_end, 1),
        format!(
            "at byte {at_end}: the dump is damaged: its checksum is 0000000000000001, its bytes give {:016x}",
            ddb::checksum(&good[..at_end])
        )
    );
    assert_eq!(
        refusal(&[&good[..], b"ab"].concat()),
        format!("at byte {}: 2 bytes follow the end of the dump", good.len())
    );
}

#[test]
fn numbers_that_no_counter_holds_are_refused() {
    for (bytes, expected) in [
        (num("nan"), NumberFault::NotANumber),
        (num("inf"), NumberFault::NotANumber),
        (num(""), NumberFault::NotANumber),
        (num("0x10"), NumberFault::NotANumber),
        (num("1\0"), NumberFault::NotANumber),
        (vec![253], NumberFault::Nan),
        (vec![254], NumberFault::Infinite),
        (vec![255], NumberFault::Infinite),
        (num("1e+400"), NumberFault::OutOfRange),
    ] {
        for field in 0..3 {
            let mut bad = record("k");
            bad.parts[0].1[field] = bytes.clone();
            let Fault::BadNumber { fault, .. } = fault(&dump(&[bad])) else { panic!("{bytes:?} in {field}") };
            assert_eq!(fault, expected, "{bytes:?} in {field}");
        }
    }
    let mut bad = record("k");
    bad.parts[0].1[0] = num("-100000000000000000000.1");
    assert!(matches!(
        fault(&dump(&[bad])),
        Fault::BadNumber { what: "a value", fault: NumberFault::OutOfRange }
    ));
    let mut bad = record("k");
    bad.precision = vec![253];
    assert!(matches!(
        fault(&dump(&[bad])),
        Fault::BadNumber { what: "a precision", fault: NumberFault::Nan }
    ));
}

#[test]
fn a_precision_reads_as_it_was_typed() {
    for (bytes, expected) in [
        (num("0.10000000000000001"), Some(value("0.1"))),
        (num("0.29999999999999999"), Some(value("0.3"))),
        (num("123456789.12345679"), Some(value("123456789.12345679"))),
        (num("1e+20"), Some(Value::MAX)),
        (num("9.9998886718268301e-321"), Some(Value::ZERO)),
        (num("0"), Some(Value::ZERO)),
        (num("-0.5"), Some(Value::ZERO)),
        (vec![255], Some(Value::ZERO)),
        (vec![254], None),
        (num("1e+300"), None),
    ] {
        let mut record = record("k");
        record.precision = bytes.clone();
        assert_eq!(ddb::read(&dump(&[record])).unwrap().counters[0].precision, expected, "{bytes:?}");
    }
}

#[test]
fn nothing_is_counted_twice() {
    let twice = dump(&[record("k"), record("other"), record("k")]);
    let error = ddb::read(&twice).unwrap_err();
    assert_eq!(error, DdbError { offset: twice.len() - 9 - 86, fault: Fault::RepeatedName });
    let mut parts = record("k");
    parts.parts.push(part(&"b".repeat(40), "2"));
    assert_eq!(ddb::read(&dump(&[parts.clone()])).unwrap().counters[0].stored_total(), value("3.5"));
    parts.parts.push(part(&"a".repeat(40), "1"));
    assert_eq!(fault(&dump(&[parts])), Fault::RepeatedNode);
}

#[test]
fn a_total_beyond_the_range_is_its_end() {
    let mut both = record("k");
    both.parts = vec![part(&"a".repeat(40), "1e+20"), part(&"b".repeat(40), "1e+20")];
    let bytes = dump(&[both]);
    let dump = ddb::read(&bytes).unwrap();
    assert_eq!(dump.counters[0].stored_total(), Value::MAX);
}

#[test]
fn memory_is_bounded_by_the_length_of_the_input() {
    let measure = |bytes: &[u8]| allocation_counter::measure(|| drop(ddb::read(bytes))).bytes_max;
    // The shortest records, announced and not.
    let shortest: Vec<Record> = (0..5_000_u32)
        .map(|n| Record { name: n.to_le_bytes()[..2].to_vec(), precision: num("1"), parts: Vec::new() })
        .collect();
    let announced = dump(&shortest);
    let silent = [&announced[..9], &announced[14..]].concat();
    // The largest claims, with little behind them.
    let mut claims = dump(&[record("k")]);
    claims[10..14].fill(0xff);
    claims[34..38].fill(0xff);
    let mut part_claim = dump(&[record("k")]);
    part_claim[10..14].fill(0xff);
    let many_parts = {
        let mut record = record("k");
        record.parts = (0..5_000).map(|n| part(&format!("{n:040x}"), "1")).collect();
        dump(&[record])
    };
    for bytes in [announced, silent, claims, part_claim, many_parts, SINGLE_NODE.to_vec()] {
        let used = measure(&bytes);
        assert!(used <= 20 * bytes.len() as u64 + 1_024, "{used} bytes for {}", bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn damaged_dumps_without_a_checksum_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut: prop::sample::Index,
    ) {
        let mut bytes = SINGLE_NODE.to_vec();
        let end = bytes.len() - 8;
        bytes[end..].fill(0);
        for (index, byte) in edits {
            bytes[index.index(end)] = byte;
        }
        let used = allocation_counter::measure(|| {
            drop(ddb::read(&bytes));
            drop(ddb::read(&bytes[..cut.index(bytes.len())]));
        });
        prop_assert!(used.bytes_max <= 20 * bytes.len() as u64 + 1_024);
    }

    #[test]
    fn any_bytes_after_the_beginning_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(ddb::read(&bytes));
        drop(ddb::read(&[b"DISCNT001\xfb\x01\0\0\0\0", &bytes[..]].concat()));
    }
}
