//! What of a counter comes back from disk, and which bytes do not.

use super::*;
use crate::counter::PrecisionId;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Numbers on disk are twice the indices.
struct Doubled;

impl Number for Doubled {
    fn number(&mut self, member: MemberIndex) -> Option<u16> {
        Some(member.0 * 2)
    }
}

impl Member for Doubled {
    fn member(&self, number: u16) -> Option<MemberIndex> {
        number.is_multiple_of(2).then_some(MemberIndex(number / 2))
    }
}

fn bytes_of(state: State) -> Vec<u8> {
    let precision = state.precision;
    let mut counter = Counter::new(b"a", PrecisionId::default());
    counter.restore(state);
    let mut out = Vec::new();
    let at = At { now: Micros(5), horizons: &Horizons::default(), incarnation: 4 };
    encode(&counter, precision, at, &mut Doubled, &mut out);
    out
}

fn value() -> impl Strategy<Value = Value> {
    let max = 10i128.pow(37);
    prop_oneof![-max..=max, (-1_000i128..1_000).prop_map(|n| n * Value::ONE.units())]
        .prop_map(|units| Value::from_units(units).unwrap())
}

prop_compose! {
    fn seq()(incarnation: u32, n: u64) -> Seq { Seq { incarnation, n } }
}

prop_compose! {
    fn generation()(time in 1u64.., author: u64) -> Generation { Generation { time, author } }
}

prop_compose! {
    fn record()(
        generation in generation(), value in value(), is_deletion: bool,
        observed in vec((0u16..9, generation(), seq(), value()), 0..4),
    ) -> Record {
        let observed = observed.into_iter().map(|(member, generation, seq, value)| Observed {
            member: MemberIndex(member), generation, seq, value,
        });
        Record { generation, value, is_deletion, observed: observed.collect() }
    }
}

prop_compose! {
    fn peer()(
        member in 1u16..9, seq in seq(), value in value(), more in 0u8..3,
        moving in option::of((any::<i64>(), 0i128..1 << 90)),
        taken in vec((1u16..9, seq()), 0..3),
    ) -> PeerShard {
        let decimals = (value.decimals() + more).min(Value::DECIMALS);
        let taken = taken.into_iter().map(|(member, seq)| TakenOver { member: MemberIndex(member), seq }).collect();
        let moving = moving.map(|(moved, precision)| Moving::unanchored(moved as f64, precision));
        PeerShard::new(MemberIndex(member), seq, value, decimals, moving, taken)
    }
}

prop_compose! {
    fn inherited()(
        member in 1u16..9, generation in generation(), seq in seq(), value in value(), counts: i128, told in seq(),
        subtracted in vec((generation(), any::<i128>()), 0..2), since in vec((generation(), any::<i128>()), 0..2),
    ) -> Inherited {
        let departed = Stated { member: MemberIndex(member), generation, seq, value };
        let (subtracted, subtracted_since) = (Subtractions(subtracted), Subtractions(since));
        Inherited { departed, subtracted, counts, subtracted_since, told }
    }
}

prop_compose! {
    fn state()(
        own in value(), more in 0u8..3, precision in option::of(0u32..1_000), seq in seq(),
        own_generation in option::of(generation()), record in option::of(record()), record_seq in seq(),
        is_unpublished: bool, has_published_zero: bool, subtracted in vec((generation(), any::<i128>()), 0..3),
        since_start in option::of(vec((any::<u32>(), any::<i128>()), 0..3)),
        since_base in option::of((generation(), value(), 0u32..9, generation(), any::<i128>())), inherited in vec(inherited(), 0..3), peers in vec((peer(), option::of(generation()), vec((generation(), any::<i128>()), 0..3)), 0..4),
    ) -> State {
        let record_generation = record.as_ref().map_or(Generation::ZERO, |record| record.generation);
        let mut peers = peers;
        for (peer, older, subtracted) in &mut peers {
            let subtracted = Subtractions(std::mem::take(subtracted));
            let generation = older.unwrap_or(record_generation);
            peer.base_on(Basis { generation, subtracted }, record.as_ref());
        }
        let peers = peers.into_iter().map(|(peer, _, _)| peer);
        let since_base = since_base.filter(|_| since_start.is_some()).map(|(generation, value, life, left, seen)| {
            SinceBase { generation, value, subtractions: subtracted.len() / 2, seen: Some(Seen::new(life, left, seen)) }
        });
        State {
            own,
            decimals: (own.decimals() + more).min(Value::DECIMALS),
            precision: precision.map(|n| Precision::parse(format!("{n}.25").as_bytes()).unwrap()),
            seq,
            generation: own_generation.unwrap_or(record_generation),
            record_seq: if record.is_some() { record_seq } else { Seq::ZERO },
            record,
            is_unpublished,
            has_published_zero,
            subtracted: Subtractions(subtracted),
            inheritance: inherited.into_iter().collect(),
            since_start,
            since_base,
            peers: peers.collect(),
        }
    }
}

proptest! {
    #[test]
    fn states_read_back_what_was_put(state in state()) {
        let bytes = bytes_of(state.clone());
        let read = decode(&bytes, &Doubled).unwrap();
        prop_assert_eq!(format!("{state:?}"), format!("{read:?}"));
        prop_assert_eq!(bytes_of(read), bytes.clone());
        for len in 0..bytes.len() {
            prop_assert!(decode(&bytes[..len], &Doubled).is_err(), "cut to {}", len);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..100)) {
        if let Ok(state) = decode(&bytes, &Doubled) {
            bytes_of(state);
        }
    }
}

fn seq_of(incarnation: u32, n: u64) -> Seq {
    Seq { incarnation, n }
}

/// States of version 1 as the first release wrote them. They are read for ever; never change these bytes.
#[test]
fn the_bytes_of_version_1_are_read_for_ever() {
    let parse = |text: &str| Value::parse(text.as_bytes()).unwrap();
    let only_counted = State { own: parse("42"), ..State::default() };
    let generation = Generation { time: 300, author: 2 };
    let was_set = State {
        own: parse("-1.5"),
        decimals: 3,
        precision: Precision::parse(b"5%"),
        generation,
        record: Some(Record { generation, value: parse("7"), is_deletion: false, observed: Vec::new() }),
        ..State::default()
    };
    let older = Generation { time: 1, author: 1 };
    let observed =
        vec![Observed { member: MemberIndex(0), generation: older, seq: seq_of(1, 2), value: parse("3") }];
    let mut resting = PeerShard::new(MemberIndex(2), seq_of(9, 5), parse("0.1"), 1, None, Vec::new());
    let in_force = Record { generation, value: parse("0"), is_deletion: true, observed };
    resting.base_on(older.into(), Some(&in_force));
    let taken = vec![TakenOver { member: MemberIndex(3), seq: seq_of(1, 9) }];
    let moving =
        PeerShard::new(MemberIndex(1), seq_of(1, 1), parse("10"), 0, Some(Moving::unanchored(0.0, 6)), taken);
    let mut subtracted_from = PeerShard::new(MemberIndex(2), seq_of(9, 5), parse("0.1"), 1, None, Vec::new());
    let subtracted = Subtractions(vec![(older, 7), (generation, -1)]);
    subtracted_from.base_on(Basis { generation, subtracted }, Some(&in_force));
    let with_subtractions = State {
        generation,
        record: Some(in_force.clone()),
        peers: vec![subtracted_from],
        ..State::default()
    };
    let departed = Stated { member: MemberIndex(4), generation: older, seq: seq_of(2, 3), value: parse("2") };
    let inherited = |subtracted, subtracted_since| Inherited {
        departed,
        subtracted,
        counts: -1,
        subtracted_since,
        told: seq_of(4, 1),
    };
    let of_one_subtracted_from = State {
        inheritance: [inherited(Subtractions(vec![(older, 7)]), Subtractions(vec![(generation, -2)]))]
            .into_iter()
            .collect(),
        ..State::default()
    };
    let everything = State {
        own: parse("1"),
        decimals: 0,
        precision: None,
        seq: seq_of(4, 128),
        generation: older,
        record: Some(in_force),
        record_seq: seq_of(4, 127),
        is_unpublished: true,
        has_published_zero: false,
        subtracted: Subtractions(vec![(older, -3)]),
        inheritance: [inherited(Subtractions::default(), Subtractions::default())].into_iter().collect(),
        since_start: Some(vec![(3, 1)]),
        since_base: None,
        peers: vec![moving, resting],
    };
    let zero_published = State { seq: seq_of(1, 1), has_published_zero: true, ..State::default() };
    let set_while_recovering = State {
        seq: seq_of(1, 1),
        generation: older,
        subtracted: Subtractions(vec![(Generation::ZERO, 4)]),
        since_start: Some(vec![(3, 1)]),
        since_base: Some(SinceBase {
            generation: Generation::ZERO,
            value: parse("2"),
            subtractions: 0,
            seen: Some(Seen::new(3, Generation::ZERO, 1)),
        }),
        ..State::default()
    };
    for (state, hex) in [
        (set_while_recovering, "01a498020000010101010100000801030200000004000103000002"),
        (zero_published, "0184800100000101"),
        (only_counted, "01000054"),
        (was_set, "010b011d03023525ac0202000e"),
        (with_subtractions, "01d8040000ac02020000010001010102000601080401010209050201010eac020201"),
        (of_one_subtracted_from, "018060000001080101020300040104010101010e01ac020203"),
        (
            everything,
            "01fc3f0002048001ac02020000047f0100010101020006010101010105010801010203000401040101030202\
             050200001401010c01060109020401010209050101",
        ),
    ] {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let shown: String = bytes_of(state.clone()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, hex);
        assert_eq!(format!("{:?}", decode(&bytes, &Doubled).unwrap()), format!("{state:?}"));
    }
}

#[test]
fn a_line_written_at_two_moments_is_the_same_shard_and_stands_where_it_held_last_each_time() {
    let (member, seq, published) = (MemberIndex(1), seq_of(1, 1), Value::from_integer(10));
    let per_micro = Value::ONE.units() as f64;
    let moving = Moving { slope: per_micro, moment: Micros(5), moment_error: Micros(0), precision_units: 6 };
    let shard = PeerShard::new(member, seq, published, 0, Some(moving), Vec::new());
    let (horizons, unknown) = (Horizons::default(), Horizons::default());
    horizons.follow(member, Micros::NEVER);
    horizons.add(member);
    for (as_of, now, stood) in
        [(0, 25, 10), (3, 25, 10), (5, 5, 10), (25, 25, 30), (25, 125, 30), (125, 25, 30)]
    {
        horizons.set_as_of(member, Micros(as_of));
        let mut counter = Counter::new(b"a", PrecisionId::default());
        counter.restore(State { peers: vec![shard.clone()], ..State::default() });
        // Also if it is written again before its owner has told anew.
        for _ in 0..2 {
            let mut bytes = Vec::new();
            let at = At { now: Micros(now), horizons: &horizons, incarnation: 4 };
            encode(&counter, None, at, &mut Doubled, &mut bytes);
            let read = decode(&bytes, &Doubled).unwrap();
            assert!(read.peers[0].is_unanchored());
            assert_eq!(read.peers[0].value(), published, "whoever has no line any more has this");
            assert_eq!(read.peers[0].estimate(Micros(now), &unknown), Value::from_integer(stood));
            assert_eq!(read.peers[0].estimate(Micros(999), &horizons), Value::from_integer(stood));
            counter.restore(read);
        }
    }
}

#[test]
fn a_later_version_or_an_unknown_flag_is_named_as_such() {
    for bytes in [&[2, 0, 0, 0][..], &[1, 0x80, 0x80, 4, 0, 0]] {
        assert_eq!(decode(bytes, &Doubled).unwrap_err().what, NEWER);
    }
}

#[test]
fn an_unknown_node_is_refused() {
    let peers = vec![PeerShard::new(MemberIndex(1), seq_of(1, 1), Value::ONE, 0, None, Vec::new())];
    let mut bytes = bytes_of(State { peers, ..State::default() });
    assert_eq!(bytes[bytes.len() - 6], 2, "the node's number");
    let at = bytes.len() - 6;
    bytes[at] = 3;
    assert!(decode(&bytes, &Doubled).is_err());
}
