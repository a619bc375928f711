//! Bytes of frames and records: variable-length numbers, checked reading.
//!
//! | what | bytes |
//! |---|---|
//! | unsigned | LEB128: seven bits a byte, low ones first, the high bit says that more follow; at most 19 bytes |
//! | signed | zigzag (0, -1, 1, -2, ...), then as unsigned |
//! | value | one byte d (decimals, 0..=17), then signed: value times 10^d |
//! | bytes | unsigned length, then the bytes |
//! | seq | unsigned incarnation, unsigned n |
//!
//! Example: 12.5 is `01 fa 01`: one decimal, 125 zigzagged to 250.

use crate::generation::Subtractions;
use crate::ids::{Generation, NODE_ID_LEN, NodeId, Seq};
use crate::value::Value;
use std::fmt;

/// What was wrong with bytes from a peer or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DecodeError {
    /// Which part of the message.
    pub what: &'static str,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed message: {}", self.what)
    }
}

impl std::error::Error for DecodeError {}

pub(crate) type Decoded<T> = Result<T, DecodeError>;

/// Powers of ten that fit the decimals of a value.
const POWERS: [i128; 18] = {
    let mut powers = [1; 18];
    let mut i = 1;
    while i < 18 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Appends to a frame.
pub(crate) trait Put {
    fn put_u8(&mut self, byte: u8);
    fn put_unsigned(&mut self, number: u128);
    fn put_bytes(&mut self, bytes: &[u8]);
    fn put_signed(&mut self, number: i128) {
        self.put_unsigned(((number << 1) ^ (number >> 127)) as u128);
    }
    fn put_value(&mut self, value: Value) {
        let decimals = value.decimals();
        self.put_u8(decimals);
        self.put_signed(value.units() / POWERS[usize::from(Value::DECIMALS - decimals)]);
    }
    fn put_seq(&mut self, seq: Seq) {
        self.put_unsigned(seq.incarnation.into());
        self.put_unsigned(seq.n.into());
    }
    /// Their number, then each.
    fn put_subtractions(&mut self, subtracted: &Subtractions) {
        self.put_unsigned(subtracted.0.len() as u128);
        for (left, amount) in &subtracted.0 {
            self.put_generation(*left);
            self.put_signed(*amount);
        }
    }

    fn put_generation(&mut self, generation: Generation) {
        self.put_unsigned(generation.time.into());
        self.put_unsigned(generation.author.into());
    }
    fn put_f32(&mut self, number: f32);
    fn put_id(&mut self, id: NodeId);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, byte: u8) {
        self.push(byte);
    }

    fn put_unsigned(&mut self, mut number: u128) {
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_unsigned(bytes.len() as u128);
        self.extend_from_slice(bytes);
    }

    fn put_f32(&mut self, number: f32) {
        self.extend_from_slice(&number.to_le_bytes());
    }

    fn put_id(&mut self, id: NodeId) {
        self.extend_from_slice(&id.0);
    }
}

/// Reads a message from its start; every read checks what is left.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { left: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }

    /// Fails if something is left.
    pub(crate) fn end(&self) -> Decoded<()> {
        if self.left.is_empty() { Ok(()) } else { Err(DecodeError { what: "bytes behind its end" }) }
    }

    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Decoded<&'a [u8]> {
        let (taken, left) = self.left.split_at_checked(len).ok_or(DecodeError { what })?;
        self.left = left;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Decoded<u8> {
        Ok(self.take(1, what)?[0])
    }

    pub(crate) fn u128(&mut self, what: &'static str) -> Decoded<u128> {
        let mut number = 0u128;
        for shift in (0..128).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u128::from(byte & 0x7f);
            if shift == 126 && bits > 3 {
                return Err(DecodeError { what });
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DecodeError { what })
    }

    pub(crate) fn number<T: TryFrom<u128>>(&mut self, what: &'static str) -> Decoded<T> {
        T::try_from(self.u128(what)?).map_err(|_| DecodeError { what })
    }

    pub(crate) fn signed(&mut self, what: &'static str) -> Decoded<i128> {
        let number = self.u128(what)?;
        Ok((number >> 1) as i128 ^ -((number & 1) as i128))
    }

    pub(crate) fn value(&mut self, what: &'static str) -> Decoded<Value> {
        let decimals = self.u8(what)?;
        if decimals > Value::DECIMALS {
            return Err(DecodeError { what });
        }
        self.value_with(decimals, what)
    }

    /// A value whose decimals (at most `Value::DECIMALS`) are known.
    pub(crate) fn value_with(&mut self, decimals: u8, what: &'static str) -> Decoded<Value> {
        let units = self.signed(what)?.checked_mul(POWERS[usize::from(Value::DECIMALS - decimals)]);
        units.and_then(|units| Value::from_units(units).ok()).ok_or(DecodeError { what })
    }

    pub(crate) fn bytes(&mut self, max_len: usize, what: &'static str) -> Decoded<&'a [u8]> {
        let len: usize = self.number(what)?;
        if len > max_len {
            return Err(DecodeError { what });
        }
        self.take(len, what)
    }

    pub(crate) fn seq(&mut self, what: &'static str) -> Decoded<Seq> {
        Ok(Seq { incarnation: self.number(what)?, n: self.number(what)? })
    }

    pub(crate) fn subtractions(&mut self, max: usize) -> Decoded<Subtractions> {
        let what = "subtractions";
        let count: usize = self.number(what)?;
        if count > max {
            return Err(DecodeError { what });
        }
        let mut subtracted = Subtractions::default();
        for _ in 0..count {
            let left = self.generation(what)?;
            subtracted.note(left, self.signed(what)?);
        }
        Ok(subtracted)
    }

    pub(crate) fn generation(&mut self, what: &'static str) -> Decoded<Generation> {
        Ok(Generation { time: self.number(what)?, author: self.number(what)? })
    }

    /// A finite number.
    pub(crate) fn f32(&mut self, what: &'static str) -> Decoded<f32> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4, what)?);
        Some(f32::from_le_bytes(bytes)).filter(|number| number.is_finite()).ok_or(DecodeError { what })
    }

    pub(crate) fn id(&mut self, what: &'static str) -> Decoded<NodeId> {
        let mut id = [0; NODE_ID_LEN];
        id.copy_from_slice(self.take(NODE_ID_LEN, what)?);
        Ok(NodeId(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_the_table_is_true() {
        let mut bytes = Vec::new();
        bytes.put_value(Value::parse(b"12.5").unwrap());
        assert_eq!(bytes, [1, 0xfa, 1]);
    }

    proptest! {
        #[test]
        fn numbers_read_back_what_was_put(number: i128, unsigned: u128, units in -(10i128.pow(37))..=10i128.pow(37)) {
            let mut bytes = Vec::new();
            bytes.put_signed(number);
            bytes.put_unsigned(unsigned);
            bytes.put_value(Value::from_units(units).unwrap());
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.signed("a").unwrap(), number);
            prop_assert_eq!(reader.u128("b").unwrap(), unsigned);
            prop_assert_eq!(reader.value("c").unwrap().units(), units);
            prop_assert!(reader.end().is_ok());
            for len in 0..bytes.len() {
                let mut cut = Reader::new(&bytes[..len]);
                let whole = cut.signed("a").and_then(|_| cut.u128("b")).and_then(|_| cut.value("c"));
                prop_assert!(whole.is_err());
            }
        }
    }
}
