//! The bytes of a link: frames behind length prefixes, in the clear or inside Noise messages.
//!
//! Before the first frame both sides have exchanged what `handshake` describes. From then on, each way:
//!
//! | offset | width | type | what | limit |
//! |---|---|---|---|---|
//! | 0 | 4 | u32, little-endian | length n of the frame | 1 to `MAX_FRAME_LEN` |
//! | 4 | n | bytes | the frame | |
//!
//! Example: the frame `01 ff` is `02 00 00 00 01 ff`.
//!
//! With a `cluster-secret` that stream of bytes is cut, without regard to frames, into Noise transport messages:
//!
//! | offset | width | type | what | limit |
//! |---|---|---|---|---|
//! | 0 | 2 | u16, little-endian | length m of the message | 17 to 65,535 |
//! | 2 | m | bytes | m - 16 bytes of the stream, encrypted, and a 16-byte tag | |
//!
//! Frames that are sent in one go share a message, so that small ones cost 4 bytes each and 18 for all of them.
//!
//! Lacks on purpose: sockets. Memory for what is received grows only with what has arrived, and never beyond one frame
//! and two reads.

use super::refusal::Refusal;
use engine::cluster::MAX_FRAME_LEN;
use snow::TransportState;
use std::collections::VecDeque;

/// Bytes of a frame's length prefix.
const PREFIX_LEN: usize = 4;

/// Bytes of a Noise message's length prefix.
pub(super) const NOISE_PREFIX_LEN: usize = 2;

/// Bytes that encryption adds to a message.
const NOISE_TAG_LEN: usize = 16;

/// Longest Noise message (The Noise Protocol Framework, revision 34, section 3).
const MAX_NOISE_LEN: usize = 65_535;

/// Bytes of the stream that are made ready for the socket at a time; a longer frame is made ready whole.
const BATCH_LEN: usize = 64 * 1024;

/// A buffer that has grown beyond this is given back when it is empty.
const MAX_SPARE_LEN: usize = 8 * 1024;

/// One side's view of a link's bytes.
pub(super) struct Wire {
    noise: Option<Box<TransportState>>,
    /// Received, and not a whole Noise message yet.
    sealed: Vec<u8>,
    /// Received and in the clear; the first `taken` bytes have been handed out.
    clear: Vec<u8>,
    taken: usize,
    /// Room for what is about to be encrypted.
    plain: Vec<u8>,
}

impl Wire {
    /// A link after its handshake; without `noise`, in the clear.
    pub(super) fn new(noise: Option<Box<TransportState>>) -> Wire {
        Wire { noise, sealed: Vec::new(), clear: Vec::new(), taken: 0, plain: Vec::new() }
    }

    /// Takes in bytes that have arrived.
    ///
    /// # Errors
    /// A message is not what a holder of the secret has sent, in its place. The link is of no use then.
    pub(super) fn take_in(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let Some(noise) = &mut self.noise else {
            self.clear.extend_from_slice(bytes);
            return Ok(());
        };
        self.sealed.extend_from_slice(bytes);
        let mut done = 0;
        while let Some(prefix) = self.sealed[done..].first_chunk::<NOISE_PREFIX_LEN>() {
            let len = usize::from(u16::from_le_bytes(*prefix));
            let start = done + NOISE_PREFIX_LEN;
            let Some(message) = self.sealed.get(start..start + len) else { break };
            let end = self.clear.len();
            self.clear.resize(end + len, 0);
            let opened =
                noise.read_message(message, &mut self.clear[end..]).map_err(|_| Refusal::Tampered)?;
            self.clear.truncate(end + opened);
            done = start + len;
        }
        self.sealed.drain(..done);
        give_back(&mut self.sealed);
        Ok(())
    }

    /// The next whole frame, if it has arrived.
    ///
    /// # Errors
    /// Its length is out of bounds. Nothing behind it can be read.
    pub(super) fn next_frame(&mut self) -> Result<Option<&[u8]>, Refusal> {
        let rest = &self.clear[self.taken..];
        let Some(prefix) = rest.first_chunk::<PREFIX_LEN>() else { return Ok(None) };
        let len = u32::from_le_bytes(*prefix);
        if len == 0 || len as usize > MAX_FRAME_LEN {
            return Err(Refusal::FrameLength(len));
        }
        let frame = rest.get(PREFIX_LEN..PREFIX_LEN + len as usize);
        if frame.is_some() {
            self.taken += PREFIX_LEN + len as usize;
        }
        Ok(frame)
    }

    /// Forgets the frames that were handed out.
    pub(super) fn compact(&mut self) {
        self.clear.drain(..self.taken);
        self.taken = 0;
        give_back(&mut self.clear);
    }

    /// Moves the next frames, at most about `BATCH_LEN` bytes and at least one frame, to the end of `out` as they
    /// travel. Returns their bytes without prefixes; zero if there was none.
    ///
    /// # Errors
    /// The cipher is exhausted, after 2^64 messages.
    pub(super) fn put_out(
        &mut self,
        frames: &mut VecDeque<Vec<u8>>,
        out: &mut Vec<u8>,
    ) -> Result<usize, Refusal> {
        let stream = if self.noise.is_some() { &mut self.plain } else { &mut *out };
        let (start, mut taken) = (stream.len(), 0);
        while stream.len() - start < BATCH_LEN
            && let Some(frame) = frames.pop_front()
        {
            let len = u32::try_from(frame.len()).expect("no frame is longer than MAX_FRAME_LEN");
            stream.extend_from_slice(&len.to_le_bytes());
            stream.extend_from_slice(&frame);
            taken += frame.len();
        }
        if let Some(noise) = &mut self.noise {
            for chunk in self.plain.chunks(MAX_NOISE_LEN - NOISE_TAG_LEN) {
                let len = chunk.len() + NOISE_TAG_LEN;
                out.extend_from_slice(&(len as u16).to_le_bytes());
                let start = out.len();
                out.resize(start + len, 0);
                noise.write_message(chunk, &mut out[start..]).map_err(|_| Refusal::Tampered)?;
            }
            self.plain.clear();
            give_back(&mut self.plain);
        }
        Ok(taken)
    }
}

/// Lets an empty buffer go that has grown, so that a link at rest holds little.
pub(super) fn give_back(buffer: &mut Vec<u8>) {
    if buffer.is_empty() && buffer.capacity() > MAX_SPARE_LEN {
        *buffer = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::super::handshake::{Psk, builder};
    use super::*;

    fn sealed_pair() -> (Wire, Wire) {
        let psk = Psk::derive(b"a secret of this test");
        let mut left = builder(&psk).build_initiator().unwrap();
        let mut right = builder(&psk).build_responder().unwrap();
        let (mut message, mut payload) = ([0; 128], [0; 128]);
        let len = left.write_message(&[], &mut message).unwrap();
        right.read_message(&message[..len], &mut payload).unwrap();
        let len = right.write_message(&[], &mut message).unwrap();
        left.read_message(&message[..len], &mut payload).unwrap();
        let wire =
            |state: snow::HandshakeState| Wire::new(Some(Box::new(state.into_transport_mode().unwrap())));
        (wire(left), wire(right))
    }

    fn frames(lens: &[usize]) -> VecDeque<Vec<u8>> {
        lens.iter().enumerate().map(|(i, len)| (0..*len).map(|at| (at * 7 + i) as u8).collect()).collect()
    }

    /// Sends the frames and hands the bytes over in pieces of `piece`.
    fn carry(mut from: Wire, mut to: Wire, lens: &[usize], piece: usize) {
        let (mut waiting, mut bytes, mut told) = (frames(lens), Vec::new(), 0);
        while !waiting.is_empty() {
            told += from.put_out(&mut waiting, &mut bytes).unwrap();
        }
        assert_eq!(told, lens.iter().sum::<usize>());
        let mut received = VecDeque::new();
        for piece in bytes.chunks(piece) {
            to.take_in(piece).unwrap();
            while let Some(frame) = to.next_frame().unwrap() {
                received.push_back(frame.to_vec());
            }
            to.compact();
        }
        assert!(received == frames(lens), "frames of {lens:?} bytes, in pieces of {piece}");
    }

    #[test]
    fn frames_of_all_lengths_arrive_whole_however_they_are_cut() {
        let lens = [1, 2, 3, 4, 100, 65_514, 65_515, 65_516, 65_519, 65_535, 65_536, 7, MAX_FRAME_LEN, 1];
        for piece in [1_013, 65_536, 10_000_000] {
            carry(Wire::new(None), Wire::new(None), &lens, piece);
            let (left, right) = sealed_pair();
            carry(right, left, &lens, piece);
        }
        let (left, right) = sealed_pair();
        carry(left, right, &[1, 70_000, 3], 1);
    }

    #[test]
    fn small_frames_share_one_message() {
        let (mut left, _) = sealed_pair();
        let mut bytes = Vec::new();
        left.put_out(&mut frames(&[10; 100]), &mut bytes).unwrap();
        assert_eq!(bytes.len(), 100 * (4 + 10) + 18);
    }

    #[test]
    fn lengths_out_of_bounds_are_refused_before_the_frame_has_come() {
        for len in [0, MAX_FRAME_LEN as u32 + 1, u32::MAX] {
            let mut wire = Wire::new(None);
            wire.take_in(&len.to_le_bytes()).unwrap();
            assert_eq!(wire.next_frame(), Err(Refusal::FrameLength(len)));
        }
    }

    #[test]
    fn a_flipped_bit_is_refused() {
        let mut bytes = Vec::new();
        let (mut left, _) = sealed_pair();
        left.put_out(&mut frames(&[10]), &mut bytes).unwrap();
        for at in NOISE_PREFIX_LEN..bytes.len() {
            // A fresh pair each time: another key, so the copy of the first pair's bytes is refused as well.
            let (mut left, mut right) = sealed_pair();
            let mut bytes = Vec::new();
            left.put_out(&mut frames(&[10]), &mut bytes).unwrap();
            bytes[at] ^= 0x40;
            assert_eq!(right.take_in(&bytes), Err(Refusal::Tampered));
        }
        let (_, mut right) = sealed_pair();
        assert_eq!(right.take_in(&bytes), Err(Refusal::Tampered));
    }

    #[test]
    fn a_link_at_rest_holds_no_large_buffers() {
        let (mut left, mut right) = sealed_pair();
        let mut bytes = Vec::new();
        left.put_out(&mut frames(&[MAX_FRAME_LEN]), &mut bytes).unwrap();
        right.take_in(&bytes).unwrap();
        assert!(right.next_frame().unwrap().is_some());
        right.compact();
        for buffer in [&left.plain, &right.sealed, &right.clear] {
            assert!(buffer.capacity() <= MAX_SPARE_LEN);
        }
    }
}
