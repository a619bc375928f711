//! Reader of `dump.ddb`, the file in which the original Discnt (1.x) kept its counters.
//!
//! Lacks on purpose: a writer (we have formats of our own), files (bytes come in), and any trust. The
//! original never looked at the checksum and loaded damaged, infinite and too large values as 0; here a dump
//! is whole or it is refused with the offset and the cause. Bytes never cause a panic, and memory stays below twenty times
//! their number, whatever counts and lengths they claim.
//!
//! # Format, version 001
//! Integers are little-endian. All offsets below are from the start of the part that is described.
//!
//! | part | offset | width | type | meaning, unit, limit |
//! |---|---|---|---|---|
//! | file | 0 | 6 | text | `DISCNT` |
//! | | 6 | 3 | text | version, `001` |
//! | | 9 | 5 | hint | byte 0xFB, u32 number of records; absent when there are none |
//! | | | | record... | in no order; a name occurs once |
//! | | | 1 | byte | 0xFF, the end of the records |
//! | | | 8 | u64 | CRC-64 of all bytes before it, or 0: not computed |
//! | record | 0 | 1 | byte | 0x00 |
//! | | 1 | 4 + n | str | name, any bytes |
//! | | | 4 | u32 | revision: predictions made so far |
//! | | | 1 + n | num | precision |
//! | | | 4 | u32 | hits |
//! | | | 4 | u32 | misses |
//! | | | 4 | u32 | number of parts; a node occurs once |
//! | | | | part... | |
//! | part | 0 | 44 | str | node id, 40 hex digits |
//! | | 44 | 1 + n | num | value, -10^20 to 10^20 |
//! | | | 8 | i64 | moment of the prediction, ms since 1970 |
//! | | | 1 + n | num | predicted value, -10^20 to 10^20 |
//! | | | 1 + n | num | predicted change per ms |
//! | str | 0 | 4 | u32 | n, then n bytes |
//! | num | 0 | 1 | byte | n, then n bytes of decimal text; 253 nan, 254 inf, 255 -inf have no text |
//!
//! CRC-64: polynomial 0xad93d23594c935a9, reflected, initial value 0, no final xor ("Jones").
//!
//! Example, a dump without counters: `44 49 53 43 4e 54 30 30 31 ff a1 47 53 cd 08 05 20 fd`.

use std::collections::BTreeSet;
use std::fmt;

use crate::value::{Total, Value, ValueError};

const MAGIC: &[u8] = b"DISCNT";
const VERSION: [u8; 3] = *b"001";
const RECORD: u8 = 0x00;
const HINT: u8 = 0xfb;
const END: u8 = 0xff;
const NUM_NAN: u8 = 253;
const NUM_INFINITE: u8 = 254;
const NUM_NEGATIVE_INFINITE: u8 = 255;

/// Bytes of a node id.
pub const NODE_ID_LEN: usize = 40;

/// Bytes of the shortest record: type, empty name, revision, precision of one digit, hits, misses, no part.
const MIN_RECORD_LEN: usize = 1 + 4 + 4 + 2 + 4 + 4 + 4;

/// Bytes of the shortest part: node id, and three numbers of one digit around the moment.
const MIN_PART_LEN: usize = 4 + NODE_ID_LEN + 2 + 8 + 2 + 2;

/// Reads a whole dump, or refuses it.
///
/// # Errors
/// The first fault found, in the file's order; a wrong checksum and a repeated name show after all others.
pub fn read(bytes: &[u8]) -> Result<Dump<'_>, DdbError> {
    let mut reader = Reader { bytes, offset: 0 };
    reader.header()?;
    let hinted = reader.hint()?;
    // A hint that claims more than the file can hold reserves no more than that.
    let most = reader.left() / MIN_RECORD_LEN;
    let mut counters = Vec::with_capacity(hinted.map_or(0, |count| (count as usize).min(most)));
    while let Some(counter) = reader.record()? {
        counters.push(counter);
    }
    let end = reader.offset - 1;
    if let Some(hinted) = hinted.filter(|hinted| *hinted as usize != counters.len()) {
        return Err(DdbError { offset: end, fault: Fault::WrongCount { hinted, found: counters.len() } });
    }
    let has_checksum = reader.trailer()?;
    check_names_differ(&counters)?;
    Ok(Dump { counters, has_checksum })
}

/// A whole dump, names and ids borrowed from the file's bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Dump<'a> {
    /// The counters in the file's order, which is arbitrary; no name occurs twice.
    pub counters: Vec<Counter<'a>>,
    /// Whether the file carried a checksum (then it was right).
    pub has_checksum: bool,
}

/// One counter of a dump.
#[derive(Clone, Debug, PartialEq)]
pub struct Counter<'a> {
    /// Where its record begins in the file, for messages about it.
    pub offset: usize,
    /// Its name, any bytes, perhaps longer than names may be here.
    pub name: &'a [u8],
    /// How many predictions its node has made of it.
    pub revision: u32,
    /// How far predictions may be off; `None` is infinite.
    ///
    /// The original took any 64-bit float and wrote 17 digits of it. What was typed comes back (0.1, not
    /// 0.10000000000000001); a negative one acted as 0 and is 0, one above 10^20 never acted and is infinite.
    pub precision: Option<Value>,
    /// Seconds in which it changed and its prediction was still good enough.
    pub hits: u32,
    /// Predictions made, as INFO counted them.
    pub misses: u32,
    /// What each node counted, in the file's order; no node occurs twice.
    pub parts: Vec<Part<'a>>,
}

/// What one node counted of one counter.
///
/// Numbers with more than 17 decimals are rounded half to even, as everywhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part<'a> {
    /// The node, 40 lower-case hex digits.
    pub node: &'a [u8; NODE_ID_LEN],
    /// For the node that wrote the dump: exact. For others: its line when it was last read.
    pub value: Value,
    /// When the prediction was made, ms since 1970 by the clock of whoever made it.
    pub predicted_at_ms: i64,
    /// The prediction's value at that moment.
    pub predicted: Value,
    /// The prediction's change per ms; finite. 0 where the counter has settled.
    pub change_per_ms: f64,
}

impl Counter<'_> {
    /// Whether no part but that of `own` is on a moving line, so that the total does not depend on the time.
    pub fn is_settled(&self, own: &[u8; NODE_ID_LEN]) -> bool {
        self.parts.iter().all(|part| part.node == own || part.is_settled())
    }

    /// What the original, being node `own`, answered to GET at `unix_ms`; see [`Part::value_at`] for when to ask.
    ///
    /// A total beyond the range is the end of the range.
    pub fn total_at(&self, own: &[u8; NODE_ID_LEN], unix_ms: i64) -> Value {
        let value = |part: &Part<'_>| if part.node == own { part.value } else { part.value_at(unix_ms) };
        self.parts.iter().map(value).collect::<Total>().saturating()
    }

    /// The sum of the stored values: the total when the counter was last read before the dump.
    ///
    /// A total beyond the range is the end of the range.
    pub fn stored_total(&self) -> Value {
        self.parts.iter().map(|part| part.value).collect::<Total>().saturating()
    }
}

impl Part<'_> {
    /// Whether the line is flat.
    pub fn is_settled(&self) -> bool {
        self.change_per_ms == 0.0
    }

    /// The line at `unix_ms`: exact where it is flat, else an estimate, kept in range.
    ///
    /// A moment before the prediction counts as the prediction's. The original drew the line out for ever; a
    /// caller that does not know how old the dump is had better take `value`, where it was last seen.
    pub fn value_at(&self, unix_ms: i64) -> Value {
        if self.is_settled() {
            return self.predicted;
        }
        let elapsed_ms = unix_ms.saturating_sub(self.predicted_at_ms).max(0) as f64;
        let moved = self.change_per_ms * Value::ONE.units_f64() * elapsed_ms;
        self.predicted.saturating_add(Value::saturating_from_f64_units(moved))
    }
}

/// Why a dump is refused. Nothing of it has been used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DdbError {
    /// The byte of the file at which reading stopped, counted from 0.
    pub offset: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file does not begin with `DISCNT`.
    NotADump,
    /// A dump of another version than 001; its three bytes.
    UnknownVersion([u8; 3]),
    /// The file ends too early.
    Truncated {
        /// What was to be read.
        what: &'static str,
        /// The bytes that it takes, at least.
        needed: u64,
        /// The bytes that are left.
        left: usize,
    },
    /// Neither a record nor the end begins here; the byte that stands there.
    UnknownRecordType(u8),
    /// The hint's number of records is not what follows.
    WrongCount {
        /// The hint.
        hinted: u32,
        /// The records in the file.
        found: usize,
    },
    /// A node id is not 40 lower-case hex digits.
    BadNodeId,
    /// A number can't be used.
    BadNumber {
        /// Which number.
        what: &'static str,
        /// Why.
        fault: NumberFault,
    },
    /// A node has two parts of one counter.
    RepeatedNode,
    /// A name has two records.
    RepeatedName,
    /// Bytes follow the checksum; how many.
    TrailingBytes(usize),
    /// The checksum is not that of the bytes.
    WrongChecksum {
        /// What the file says.
        stored: u64,
        /// What its bytes give.
        computed: u64,
    },
}

/// Why a number of a dump can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberFault {
    /// The text is not a decimal number.
    NotANumber,
    /// It is marked as not a number.
    Nan,
    /// It is marked as infinite.
    Infinite,
    /// It is beyond what a counter can hold, or a slope that no float holds.
    OutOfRange,
}

impl fmt::Display for DdbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.fault)
    }
}

impl std::error::Error for DdbError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotADump => write!(f, "this is no dump: it does not begin with DISCNT"),
            Fault::UnknownVersion(version) => {
                write!(f, "the dump's version is \"{}\", only \"001\" can be read", version.escape_ascii())
            }
            Fault::Truncated { what, needed, left } => {
                write!(f, "the dump is cut off: {what} takes {needed} bytes or more, {left} are left")
            }
            Fault::UnknownRecordType(byte) => {
                write!(f, "0x{byte:02x} stands where a record (0x00) or the end (0xff) must begin")
            }
            Fault::WrongCount { hinted, found } => {
                write!(f, "the dump announces {hinted} counters and holds {found}")
            }
            Fault::BadNodeId => write!(f, "a node id is not 40 lower-case hexadecimal digits"),
            Fault::BadNumber { what, fault } => write!(f, "{what} {fault}"),
            Fault::RepeatedNode => write!(f, "a second part of the same node in one counter"),
            Fault::RepeatedName => write!(f, "a second record of the same counter"),
            Fault::TrailingBytes(count) => write!(f, "{count} bytes follow the end of the dump"),
            Fault::WrongChecksum { stored, computed } => {
                write!(
                    f,
                    "the dump is damaged: its checksum is {stored:016x}, its bytes give {computed:016x}"
                )
            }
        }
    }
}

impl fmt::Display for NumberFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NumberFault::NotANumber => "is not a decimal number",
            NumberFault::Nan => "is marked as not a number",
            NumberFault::Infinite => "is infinite",
            NumberFault::OutOfRange => "is out of range (counters hold -10^20 to 10^20)",
        })
    }
}

/// The CRC-64 that dumps carry.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |crc, byte| CRC_TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

const CRC_TABLE: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x95ac_9329_ac4b_c9b5 } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// A place in the bytes. Each method reads one part of the format table and stands after it.
struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.offset
    }

    fn truncated(&self, what: &'static str, needed: u64) -> DdbError {
        DdbError { offset: self.offset, fault: Fault::Truncated { what, needed, left: self.left() } }
    }

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DdbError> {
        let Some(taken) = self.bytes[self.offset..].get(..len) else {
            return Err(self.truncated(what, len as u64));
        };
        self.offset += len;
        Ok(taken)
    }

    fn array<const LEN: usize>(&mut self, what: &'static str) -> Result<&'a [u8; LEN], DdbError> {
        let taken = self.take(LEN, what)?;
        Ok(taken.try_into().expect("`take` gives as many bytes as asked for"))
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, DdbError> {
        self.array(what).map(|[byte]| *byte)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, DdbError> {
        self.array(what).map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn header(&mut self) -> Result<(), DdbError> {
        let beginning = &self.bytes[..self.left().min(MAGIC.len())];
        if !MAGIC.starts_with(beginning) {
            return Err(DdbError { offset: 0, fault: Fault::NotADump });
        }
        self.take(MAGIC.len(), "the beginning")?;
        let offset = self.offset;
        let version = *self.array("the version")?;
        if version == VERSION {
            Ok(())
        } else {
            Err(DdbError { offset, fault: Fault::UnknownVersion(version) })
        }
    }

    fn hint(&mut self) -> Result<Option<u32>, DdbError> {
        if self.bytes.get(self.offset) != Some(&HINT) {
            return Ok(None);
        }
        self.offset += 1;
        self.u32("the number of counters").map(Some)
    }

    /// The next record; `None` after the end byte.
    fn record(&mut self) -> Result<Option<Counter<'a>>, DdbError> {
        let offset = self.offset;
        match self.byte("the type of a record")? {
            RECORD => {}
            END => return Ok(None),
            other => return Err(DdbError { offset, fault: Fault::UnknownRecordType(other) }),
        }
        let name_len = self.u32("the length of a name")?;
        let name = self.take(name_len as usize, "a name")?;
        let revision = self.u32("a revision")?;
        let precision = self.number("a precision", Num::precision)?;
        let hits = self.u32("the hits")?;
        let misses = self.u32("the misses")?;
        let parts = self.parts()?;
        Ok(Some(Counter { offset, name, revision, precision, hits, misses, parts }))
    }

    fn parts(&mut self) -> Result<Vec<Part<'a>>, DdbError> {
        let count = self.u32("the number of parts")?;
        // The count is only believed as far as the bytes behind it go.
        let needed = u64::from(count) * MIN_PART_LEN as u64;
        if needed > self.left() as u64 {
            return Err(self.truncated("a counter's list of parts", needed));
        }
        let mut parts = Vec::with_capacity(count as usize);
        let mut nodes = BTreeSet::new();
        for _ in 0..count {
            let offset = self.offset;
            let part = self.part()?;
            if count > 1 && !nodes.insert(part.node) {
                return Err(DdbError { offset, fault: Fault::RepeatedNode });
            }
            parts.push(part);
        }
        Ok(parts)
    }

    fn part(&mut self) -> Result<Part<'a>, DdbError> {
        let offset = self.offset;
        let len = self.u32("the length of a node id")?;
        let bad_id = DdbError { offset, fault: Fault::BadNodeId };
        if len as usize != NODE_ID_LEN {
            return Err(bad_id);
        }
        let node: &[u8; NODE_ID_LEN] = self.array("a node id")?;
        if !node.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad_id);
        }
        let value = self.number("a value", Num::value)?;
        let predicted_at_ms = i64::from_le_bytes(*self.array("the moment of a prediction")?);
        let predicted = self.number("a predicted value", Num::value)?;
        let change_per_ms = self.number("a predicted change", Num::slope)?;
        Ok(Part { node, value, predicted_at_ms, predicted, change_per_ms })
    }

    fn num(&mut self, what: &'static str) -> Result<Num<'a>, DdbError> {
        Ok(match self.byte(what)? {
            NUM_NAN => Num::Nan,
            NUM_INFINITE => Num::Infinite,
            NUM_NEGATIVE_INFINITE => Num::NegativeInfinite,
            len => Num::Text(self.take(usize::from(len), what)?),
        })
    }

    /// The next number as `usable` makes it of what stands there.
    fn number<T>(
        &mut self,
        what: &'static str,
        usable: fn(Num<'a>) -> Result<T, NumberFault>,
    ) -> Result<T, DdbError> {
        let offset = self.offset;
        let num = self.num(what)?;
        usable(num).map_err(|fault| DdbError { offset, fault: Fault::BadNumber { what, fault } })
    }

    /// The checksum and nothing behind it; whether there is one.
    fn trailer(&mut self) -> Result<bool, DdbError> {
        let offset = self.offset;
        let stored = u64::from_le_bytes(*self.array("the checksum")?);
        if self.left() > 0 {
            return Err(DdbError { offset: self.offset, fault: Fault::TrailingBytes(self.left()) });
        }
        let computed = checksum(&self.bytes[..offset]);
        if stored != 0 && stored != computed {
            return Err(DdbError { offset, fault: Fault::WrongChecksum { stored, computed } });
        }
        Ok(stored != 0)
    }
}

/// A `num` of the format.
enum Num<'a> {
    Text(&'a [u8]),
    Nan,
    Infinite,
    NegativeInfinite,
}

impl Num<'_> {
    fn value(self) -> Result<Value, NumberFault> {
        match self {
            Num::Text(text) => Value::parse(text).map_err(|error| match error {
                ValueError::NotANumber => NumberFault::NotANumber,
                ValueError::OutOfRange => NumberFault::OutOfRange,
            }),
            Num::Nan => Err(NumberFault::Nan),
            Num::Infinite | Num::NegativeInfinite => Err(NumberFault::Infinite),
        }
    }

    /// The nearest float, infinite where the number is too large for one.
    fn float(self) -> Result<f64, NumberFault> {
        match self {
            // Rust's floats have spellings that a dump does not, such as "inf".
            Num::Text(text) if Value::parse(text) == Err(ValueError::NotANumber) => {
                Err(NumberFault::NotANumber)
            }
            Num::Text(text) => {
                let text = std::str::from_utf8(text).expect("a number has digits, signs, a point and an e");
                Ok(text.parse().expect("a float may be spelled as a value may"))
            }
            Num::Nan => Err(NumberFault::Nan),
            Num::Infinite => Ok(f64::INFINITY),
            Num::NegativeInfinite => Ok(f64::NEG_INFINITY),
        }
    }

    fn slope(self) -> Result<f64, NumberFault> {
        let is_marked = !matches!(self, Num::Text(_));
        match self.float()? {
            slope if slope.is_finite() => Ok(slope),
            _ if is_marked => Err(NumberFault::Infinite),
            _ => Err(NumberFault::OutOfRange),
        }
    }

    /// The shortest decimal that is the same float, as the description of [`Counter::precision`] says.
    fn precision(self) -> Result<Option<Value>, NumberFault> {
        let precision = self.float()?;
        if precision <= 0.0 {
            return Ok(Some(Value::ZERO));
        }
        // Rust writes the fewest digits that read back as the same float; "inf" is no number to us.
        Ok(Value::parse(format!("{precision:e}").as_bytes()).ok())
    }
}

fn check_names_differ(counters: &[Counter<'_>]) -> Result<(), DdbError> {
    let mut sorted: Vec<&Counter<'_>> = counters.iter().collect();
    sorted.sort_unstable_by_key(|counter| (counter.name, counter.offset));
    match sorted.windows(2).find(|pair| pair[0].name == pair[1].name) {
        None => Ok(()),
        Some(pair) => Err(DdbError { offset: pair[1].offset, fault: Fault::RepeatedName }),
    }
}
