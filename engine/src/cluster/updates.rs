//! One update: a counter's name, a shard's state, and the SET behind it, in as few bytes as may be.
//!
//! A frame of updates begins with
//!
//! | field | type | meaning |
//! |---|---|---|
//! | kind | u8 | 5 |
//! | flags | u8 | 1 complete up to `to`; 2 the shards hold as of stamp - as-of age; 4 begin of a full copy; 8 end of it; 16 the updates up to `to` came in frames before; 32 ahead |
//! | origin | unsigned | the sender's index of the owner of the shards |
//! | stamp | unsigned | the sender's monotonic clock, microseconds |
//! | as-of age | unsigned | microseconds, if flag 2 |
//! | from, to | seq, seq | the part of the origin's stream that this is: (from, to] |
//! | ahead | seq | if flag 32: beyond `to`, what the sender has up to here, though not everything |
//!
//! and goes on with updates to its end:
//!
//! | field | type | when |
//! |---|---|---|
//! | flags | u8 | see `flag` |
//! | name id | unsigned | unless the name is literal |
//! | name | bytes | if the name is new or literal |
//! | incarnation | unsigned | flag: otherwise that of the update before, at first that of `to` |
//! | n | signed | distance from the n of the update before, at first from that of `from` |
//! | decimals | u8 | most decimals ever used; +32 if a value with fewer follows, +64 if an excursion does, +128 if what was subtracted |
//! | excursion | u8 | if +64: where the shard has been since the line before this, see `Excursion` |
//! | subtracted | count, then each: generation, signed units | if +128: what SETs have subtracted from it, see `Subtractions`; not said if it follows from the SET behind it |
//! | value | u8 if +32, signed | decimals of the number, then the number without its point |
//! | slope | f32 | moving: units of 10^-17 per microsecond |
//! | age | signed | moving: stamp - moment of the line, microseconds |
//! | precision | u8, signed | moving: decimals, then the number without its point; +32 if an error follows; 64 in place of decimals and number: that of the moving update before |
//! | error | unsigned | if +32, of relayed lines: how far the moment may be off, microseconds |
//! | generation | generation | flag |
//! | record | see `put_record` | flag |
//! | taken over | id, seq | flag: shards of departed members that are part of this one |

use crate::cluster::wire::{DecodeError, Decoded, Put, Reader};
use crate::counter::MAX_NAME_LEN;
use crate::generation::{MAX_KEPT, Observed, Record, Subtractions};
use crate::ids::{Generation, MemberIndex, Seq};
use crate::shard::{Excursion, MAX_MEMBERS};
use crate::takeover::TakenOver;
use crate::time::Micros;
use crate::value::Value;

/// Flags of one update.
mod flag {
    /// A name with a new id.
    pub(super) const NAME_NEW: u8 = 1;
    /// A name without an id.
    pub(super) const NAME_LITERAL: u8 = 2;
    pub(super) const MOVING: u8 = 4;
    pub(super) const INCARNATION: u8 = 8;
    /// The generation follows.
    pub(super) const GENERATION: u8 = 16;
    pub(super) const RECORD: u8 = 32;
    pub(super) const TAKEN_OVER: u8 = 64;
    /// The generation is that of the receiver's copy; without this and `GENERATION` it is zero.
    pub(super) const AS_BEFORE: u8 = 128;
}

/// How a name travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameRef<'a> {
    /// It was sent before under this number.
    Known(u32),
    /// From now on it has this number.
    New(u32, &'a [u8]),
    /// It gets no number.
    Literal(&'a [u8]),
}

/// The generation that a shard is stated in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// None: there was no SET.
    Zero,
    /// That of the receiver's copy of the shard.
    AsBefore,
    /// This one.
    Is(Generation),
}

/// The line of a moving shard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct MovingLine {
    pub(crate) slope: f32,
    /// Stamp of the frame less the line's moment, microseconds; negative if the moment is still to come.
    pub(crate) age: i64,
    /// How far the moment may be off.
    pub(crate) error: Micros,
    pub(crate) precision: Value,
}

/// A shard's state under way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update<'a> {
    pub(crate) name: NameRef<'a>,
    pub(crate) seq: Seq,
    pub(crate) value: Value,
    pub(crate) decimals: u8,
    pub(crate) excursion: Excursion,
    /// Nothing: it follows from the record, or from what the receiver knows, or is not known.
    pub(crate) subtracted: Subtractions,
    pub(crate) moving: Option<MovingLine>,
    pub(crate) era: Era,
    /// Members in it are the sender's indices.
    pub(crate) record: Option<Record>,
    pub(crate) taken_over: Vec<TakenOver>,
}

/// What stands before the updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) origin: MemberIndex,
    pub(crate) stamp: Micros,
    pub(crate) from: Seq,
    pub(crate) to: Seq,
    /// With the last frame of a walk the receiver has, beyond `to`, what the sender may have had up to here; zero: nothing.
    pub(crate) ahead: Seq,
    /// With this frame the receiver has applied the origin's stream up to `to`.
    pub(crate) is_complete: bool,
    /// What is complete with this frame came in frames before it, in no order: the sender has walked over its counters.
    pub(crate) is_after_walk: bool,
    /// How long before the stamp the shards were within the precision of what has been sent, if they were.
    pub(crate) as_of_age: Option<Micros>,
    /// The first or the last frame of a copy of everything: what it does not mention does not exist.
    pub(crate) full_copy: FullCopy,
}

/// Whether a frame begins or ends a copy of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FullCopy {
    pub(crate) begins: bool,
    pub(crate) ends: bool,
}

impl Header {
    pub(crate) fn encode(&self, frame: &mut Vec<u8>) {
        frame.put_u8(super::frame::kind::UPDATES);
        frame.put_u8(
            u8::from(self.is_complete)
                | u8::from(self.as_of_age.is_some()) << 1
                | u8::from(self.full_copy.begins) << 2
                | u8::from(self.full_copy.ends) << 3
                | u8::from(self.is_after_walk) << 4
                | u8::from(self.ahead != Seq::ZERO) << 5,
        );
        frame.put_unsigned(self.origin.0.into());
        frame.put_unsigned(self.stamp.0.into());
        if let Some(age) = self.as_of_age {
            frame.put_unsigned(age.0.into());
        }
        frame.put_seq(self.from);
        frame.put_seq(self.to);
        if self.ahead != Seq::ZERO {
            frame.put_seq(self.ahead);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Decoded<Header> {
        let flags = reader.u8("flags of updates")?;
        let origin = MemberIndex(reader.number("origin")?);
        let stamp = Micros(reader.number("stamp")?);
        let as_of_age = match flags & 2 {
            0 => None,
            _ => Some(Micros(reader.number("as-of age")?)),
        };
        let (from, to) = (reader.seq("from")?, reader.seq("to")?);
        let ahead = if flags & 32 != 0 { reader.seq("ahead")? } else { Seq::ZERO };
        let full_copy = FullCopy { begins: flags & 4 != 0, ends: flags & 8 != 0 };
        let (is_complete, is_after_walk) = (flags & 1 != 0, flags & 16 != 0);
        Ok(Header { origin, stamp, from, to, ahead, is_complete, is_after_walk, as_of_age, full_copy })
    }
}

/// What the coding of one update refers back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Previous {
    seq: Seq,
    /// Of the last moving shard in the frame.
    precision: Option<Value>,
}

impl Previous {
    /// Before the first update of a frame.
    pub(crate) fn of(header: &Header) -> Previous {
        let seq = Seq { incarnation: header.to.incarnation, n: header.from.n };
        Previous { seq, precision: None }
    }
}

impl Update<'_> {
    pub(crate) fn encode(&self, previous: &mut Previous, frame: &mut Vec<u8>) {
        let at = frame.len();
        let mut flags = 0;
        frame.put_u8(0);
        match self.name {
            NameRef::Known(id) => frame.put_unsigned(id.into()),
            NameRef::New(id, name) => {
                flags |= flag::NAME_NEW;
                frame.put_unsigned(id.into());
                frame.put_bytes(name);
            }
            NameRef::Literal(name) => {
                flags |= flag::NAME_LITERAL;
                frame.put_bytes(name);
            }
        }
        if self.seq.incarnation != previous.seq.incarnation {
            flags |= flag::INCARNATION;
            frame.put_unsigned(self.seq.incarnation.into());
        }
        frame.put_signed(i128::from(self.seq.n) - i128::from(previous.seq.n));
        previous.seq = self.seq;
        self.put_shard_value(frame);
        if let Some(moving) = &self.moving {
            flags |= flag::MOVING;
            frame.put_f32(moving.slope);
            frame.put_signed(moving.age.into());
            put_precision(moving, previous, frame);
        }
        match self.era {
            Era::Zero => {}
            Era::AsBefore => flags |= flag::AS_BEFORE,
            Era::Is(generation) => {
                flags |= flag::GENERATION;
                frame.put_generation(generation);
            }
        }
        if let Some(record) = &self.record {
            flags |= flag::RECORD;
            put_record(record, frame);
        }
        if !self.taken_over.is_empty() {
            flags |= flag::TAKEN_OVER;
            frame.put_unsigned(self.taken_over.len() as u128);
            for taken in &self.taken_over {
                frame.put_unsigned(taken.member.0.into());
                frame.put_seq(taken.seq);
            }
        }
        frame[at] = flags;
    }

    fn put_shard_value(&self, frame: &mut Vec<u8>) {
        let used = self.value.decimals();
        let has_excursion = self.excursion != Excursion::NONE;
        let excursion = if has_excursion { WITH_EXCURSION } else { 0 };
        let fewer = if used == self.decimals { 0 } else { WITH_FEWER };
        let subtracted = if self.subtracted.is_empty() { 0 } else { WITH_SUBTRACTED };
        frame.put_u8(self.decimals | fewer | excursion | subtracted);
        if has_excursion {
            frame.put_u8(self.excursion.0);
        }
        if !self.subtracted.is_empty() {
            frame.put_subtractions(&self.subtracted);
        }
        if used == self.decimals {
            let mut text = Vec::new();
            text.put_value(self.value);
            frame.extend_from_slice(&text[1..]);
        } else {
            frame.put_value(self.value);
        }
    }
}

fn put_precision(moving: &MovingLine, previous: &mut Previous, frame: &mut Vec<u8>) {
    let at = frame.len();
    if previous.precision.replace(moving.precision) == Some(moving.precision) {
        frame.put_u8(PRECISION_AS_BEFORE);
    } else {
        frame.put_value(moving.precision);
    }
    if moving.error != Micros(0) {
        frame[at] |= WITH_ERROR;
        frame.put_unsigned(moving.error.0.into());
    }
}

/// Precision and error.
fn read_precision(reader: &mut Reader<'_>, previous: &mut Previous) -> Decoded<(Value, Micros)> {
    let what = "precision";
    let first = reader.u8(what)?;
    let precision = match first & !WITH_ERROR {
        PRECISION_AS_BEFORE => previous.precision.ok_or(DecodeError { what })?,
        decimals if decimals <= Value::DECIMALS => reader.value_with(decimals, what)?,
        _ => return Err(DecodeError { what }),
    };
    previous.precision = Some(precision);
    let error = if first & WITH_ERROR == 0 { 0 } else { reader.number("error")? };
    Ok((precision, Micros(error)))
}

/// Added to the decimals of the precision if the error of the moment follows.
const WITH_ERROR: u8 = 32;

/// In place of the precision and its decimals: as before.
const PRECISION_AS_BEFORE: u8 = 64;

/// Added to the decimals if those of the value itself follow.
const WITH_FEWER: u8 = 32;

/// Added to the decimals if an excursion follows.
const WITH_EXCURSION: u8 = 64;

/// Added to the decimals if what was subtracted follows.
const WITH_SUBTRACTED: u8 = 128;

/// Reads the next update of a frame.
pub(crate) fn decode_update<'a>(reader: &mut Reader<'a>, previous: &mut Previous) -> Decoded<Update<'a>> {
    let flags = reader.u8("flags of an update")?;
    let has = |flag: u8| flags & flag != 0;
    let name = if has(flag::NAME_LITERAL) {
        NameRef::Literal(reader.bytes(MAX_NAME_LEN, "name")?)
    } else {
        let id = reader.number("name id")?;
        if has(flag::NAME_NEW) {
            NameRef::New(id, reader.bytes(MAX_NAME_LEN, "name")?)
        } else {
            NameRef::Known(id)
        }
    };
    let incarnation = match has(flag::INCARNATION) {
        true => reader.number("incarnation")?,
        false => previous.seq.incarnation,
    };
    let n = i128::from(previous.seq.n).checked_add(reader.signed("n")?);
    let n = n.and_then(|n| u64::try_from(n).ok()).ok_or(DecodeError { what: "n" })?;
    let seq = Seq { incarnation, n };
    previous.seq = seq;
    let (value, decimals, excursion, subtracted) = read_shard_value(reader)?;
    let moving = match has(flag::MOVING) {
        false => None,
        true => {
            let slope = reader.f32("slope")?;
            let age = i64::try_from(reader.signed("age")?).map_err(|_| DecodeError { what: "age" })?;
            let (precision, error) = read_precision(reader, previous)?;
            Some(MovingLine { slope, age, error, precision })
        }
    };
    let era = match (has(flag::GENERATION), has(flag::AS_BEFORE)) {
        (true, _) => Era::Is(reader.generation("generation")?),
        (false, true) => Era::AsBefore,
        (false, false) => Era::Zero,
    };
    let record = if has(flag::RECORD) { Some(read_record(reader)?) } else { None };
    let taken_over = if has(flag::TAKEN_OVER) { read_taken_over(reader)? } else { Vec::new() };
    Ok(Update { name, seq, value, decimals, excursion, subtracted, moving, era, record, taken_over })
}

fn read_shard_value(reader: &mut Reader<'_>) -> Decoded<(Value, u8, Excursion, Subtractions)> {
    let first = reader.u8("decimals")?;
    let decimals = first & !(WITH_FEWER | WITH_EXCURSION | WITH_SUBTRACTED);
    if decimals > Value::DECIMALS {
        return Err(DecodeError { what: "decimals" });
    }
    let excursion = match first & WITH_EXCURSION {
        0 => Excursion::NONE,
        _ => Excursion(reader.u8("excursion")?),
    };
    let subtracted = match first & WITH_SUBTRACTED {
        0 => Subtractions::default(),
        _ => reader.subtractions(MAX_KEPT)?,
    };
    let value = match first & WITH_FEWER {
        0 => reader.value_with(decimals, "value")?,
        _ => reader.value("value")?,
    };
    Ok((value, decimals, excursion, subtracted))
}

/// Generation, value, flag, count, then per observation: member, generation, seq, value.
fn put_record(record: &Record, frame: &mut Vec<u8>) {
    frame.put_generation(record.generation);
    frame.put_value(record.value);
    frame.put_u8(record.is_deletion.into());
    frame.put_unsigned(record.observed.len() as u128);
    for observed in &record.observed {
        frame.put_unsigned(observed.member.0.into());
        frame.put_generation(observed.generation);
        frame.put_seq(observed.seq);
        frame.put_value(observed.value);
    }
}

fn read_record(reader: &mut Reader<'_>) -> Decoded<Record> {
    let generation = reader.generation("record")?;
    let value = reader.value("record")?;
    let is_deletion = reader.u8("record")? != 0;
    let count: usize = reader.number("observations")?;
    if count > MAX_MEMBERS {
        return Err(DecodeError { what: "observations" });
    }
    let mut observed = Vec::new();
    for _ in 0..count {
        observed.push(Observed {
            member: MemberIndex(reader.number("observation")?),
            generation: reader.generation("observation")?,
            seq: reader.seq("observation")?,
            value: reader.value("observation")?,
        });
    }
    Ok(Record { generation, value, is_deletion, observed })
}

fn read_taken_over(reader: &mut Reader<'_>) -> Decoded<Vec<TakenOver>> {
    let count: usize = reader.number("taken over")?;
    if count > MAX_MEMBERS {
        return Err(DecodeError { what: "taken over" });
    }
    let mut taken = Vec::new();
    for _ in 0..count {
        let member = MemberIndex(reader.number("taken over")?);
        taken.push(TakenOver { member, seq: reader.seq("taken over")? });
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(units: i128) -> Value {
        Value::from_units(units).unwrap()
    }

    fn round_trip(header: &Header, updates: &[Update<'_>]) {
        let mut frame = Vec::new();
        header.encode(&mut frame);
        let mut previous = Previous::of(header);
        updates.iter().for_each(|update| update.encode(&mut previous, &mut frame));
        let mut reader = Reader::new(&frame[1..]);
        assert_eq!(Header::decode(&mut reader).unwrap(), *header);
        let mut previous = Previous::of(header);
        for update in updates {
            assert_eq!(decode_update(&mut reader, &mut previous).unwrap(), *update);
        }
        assert!(reader.is_empty());
    }

    fn header() -> Header {
        Header {
            origin: MemberIndex(2),
            stamp: Micros(5_000_000),
            from: Seq { incarnation: 7, n: 100 },
            to: Seq { incarnation: 7, n: 101 },
            ahead: Seq { incarnation: 7, n: 105 },
            is_complete: true,
            is_after_walk: false,
            as_of_age: Some(Micros(0)),
            full_copy: FullCopy::default(),
        }
    }

    #[test]
    fn a_steady_counter_costs_few_bytes() {
        let header = header();
        let update = Update {
            name: NameRef::Known(9_999),
            seq: header.to,
            value: value(123_456 * Value::ONE.units()),
            decimals: 0,
            excursion: Excursion::NONE,
            subtracted: Subtractions::default(),
            moving: Some(MovingLine { slope: 1e14, age: -300, error: Micros(0), precision: Value::ONE }),
            era: Era::AsBefore,
            record: None,
            taken_over: Vec::new(),
        };
        let (mut bytes, mut previous) = (Vec::new(), Previous::of(&header));
        update.encode(&mut previous, &mut bytes);
        let first = bytes.len();
        update.encode(&mut previous, &mut bytes);
        assert!(first <= 17 && bytes.len() - first <= 16, "{first} bytes, then {}", bytes.len() - first);
    }

    proptest! {
        #[test]
        fn updates_read_back_what_was_put(
            units in -(10i128.pow(37))..=10i128.pow(37), n in 0u64..1 << 60, incarnation: u32, decimals in 0u8..=17,
            slope in -1e30f32..1e30, age: i64, error in 0u64..3, name in proptest::collection::vec(any::<u8>(), 0..40), how in 0..3,
            is_moving: bool, with_record: bool, excursion: u8,
        ) {
            let generation = Generation { time: n, author: n ^ 77 };
            let observed = Observed { member: MemberIndex(3), generation, seq: Seq { incarnation, n }, value: value(-units) };
            let update = Update {
                name: match how { 0 => NameRef::Known(7), 1 => NameRef::New(8, &name), _ => NameRef::Literal(&name) },
                seq: Seq { incarnation, n },
                value: value(units),
                decimals: decimals.max(value(units).decimals()),
                excursion: Excursion(excursion),
                subtracted: Subtractions(if with_record { vec![(generation, -units), (generation, 1)] } else { Vec::new() }),
                moving: is_moving.then_some(MovingLine { slope, age, error: Micros(error), precision: value(units.abs()) }),
                era: if with_record { Era::Is(generation) } else { Era::AsBefore },
                record: with_record.then(|| Record { generation, value: value(units), is_deletion: true, observed: vec![observed] }),
                taken_over: if with_record { vec![TakenOver { member: MemberIndex(1), seq: header().to }] } else { Vec::new() },
            };
            let mut other = update.clone();
            if let Some(moving) = &mut other.moving {
                moving.precision = Value::ONE;
            }
            round_trip(&header(), &[update.clone(), update.clone(), other, update]);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(header) = Header::decode(&mut reader) {
                let mut previous = Previous::of(&header);
                while !reader.is_empty() && decode_update(&mut reader, &mut previous).is_ok() {}
            }
        }
    }
}
