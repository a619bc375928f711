//! The first bytes of a link: who speaks this protocol, and who knows the secret.
//!
//! Both sides begin with a preface; the one that has dialed sends it at once, the other in answer:
//!
//! | offset | width | type | what | value |
//! |---|---|---|---|---|
//! | 0 | 6 | bytes | magic | `DISCNT` |
//! | 6 | 1 | u8 | version of the bus | `VERSION` |
//! | 7 | 1 | u8 | mode | 0: in the clear; 1: Noise |
//!
//! Example: `44 49 53 43 4e 54 01 01`.
//!
//! In mode 1 each preface is followed by one message of `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s` (The Noise Protocol
//! Framework, revision 34) with an empty payload: a u16, little-endian, 48, and 48 bytes. The prologue is the preface,
//! so nobody on the way can talk the two into another version or mode. A side that refuses the other sends its own
//! preface before it hangs up, unless it has received something else than a preface.
//!
//! The pre-shared key is BLAKE2s-256 of `KEY_LABEL` and the bytes of `cluster-secret`. Whoever records a handshake can
//! try secrets against it at the speed of his machines, so a secret should be random bytes, not a word that somebody
//! might think of.

use super::refusal::Refusal;
use super::wire::{NOISE_PREFIX_LEN, Wire};
use snow::params::HashChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The version of the bus that this node speaks.
pub(super) const VERSION: u8 = 1;

/// Bytes of a preface.
const PREFACE_LEN: usize = 8;

const MAGIC: &[u8; 6] = b"DISCNT";

const NOISE: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// Bytes of either Noise message: a public key and a tag.
const MESSAGE_LEN: usize = 32 + 16;

/// Keeps the key apart from other uses of the secret.
const KEY_LABEL: &[u8] = b"Discnt cluster bus, version 1, pre-shared key\0";

/// The key that all members share. Never shown.
pub(super) struct Psk([u8; 32]);

impl Psk {
    /// The key that belongs to a `cluster-secret`.
    pub(super) fn derive(secret: &[u8]) -> Psk {
        let mut hash = DefaultResolver.resolve_hash(&HashChoice::Blake2s).expect("BLAKE2s is compiled in");
        let mut key = [0; 32];
        hash.reset();
        hash.input(KEY_LABEL);
        hash.input(secret);
        hash.result(&mut key);
        Psk(key)
    }
}

/// Why a handshake came to nothing.
#[derive(Debug)]
pub(super) enum HandshakeError {
    /// The peer is not one of us.
    Refused(Refusal),
    /// The connection failed.
    Failed(io::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> HandshakeError {
        HandshakeError::Failed(error)
    }
}

impl From<Refusal> for HandshakeError {
    fn from(refusal: Refusal) -> HandshakeError {
        HandshakeError::Refused(refusal)
    }
}

/// Does our part on a connection that we have made.
///
/// # Errors
/// The peer is refused, or the connection fails. It is to be closed then.
pub(super) async fn dial(stream: &mut TcpStream, psk: Option<&Psk>) -> Result<Wire, HandshakeError> {
    let mut noise = psk.map(|psk| builder(psk).build_initiator().expect("pattern and key fit"));
    let mut opening = preface(psk.is_some()).to_vec();
    if let Some(noise) = &mut noise {
        opening.extend_from_slice(&message_of(noise));
    }
    stream.write_all(&opening).await?;
    let mut answer = [0; PREFACE_LEN];
    read(stream, &mut answer).await.map_err(hung_up)?;
    check_preface(&answer, psk.is_some())?;
    match noise {
        None => Ok(Wire::new(None)),
        Some(mut noise) => {
            // Whoever does not take our message hangs up here.
            read_message(stream, &mut noise).await.map_err(hung_up)?;
            Ok(finished(noise))
        }
    }
}

/// Does our part on a connection that a peer has made.
///
/// # Errors
/// As for `dial`.
pub(super) async fn accept(stream: &mut TcpStream, psk: Option<&Psk>) -> Result<Wire, HandshakeError> {
    let mut opening = [0; PREFACE_LEN];
    read(stream, &mut opening).await?;
    let own = preface(psk.is_some());
    if let Err(refusal) = check_preface(&opening, psk.is_some()) {
        if refusal != Refusal::Garbage {
            stream.write_all(&own).await?;
        }
        return Err(refusal.into());
    }
    let Some(psk) = psk else {
        stream.write_all(&own).await?;
        return Ok(Wire::new(None));
    };
    let mut noise = builder(psk).build_responder().expect("pattern and key fit");
    if let Err(error) = read_message(stream, &mut noise).await {
        stream.write_all(&own).await?;
        return Err(error);
    }
    let mut answer = own.to_vec();
    answer.extend_from_slice(&message_of(&mut noise));
    stream.write_all(&answer).await?;
    Ok(finished(noise))
}

/// Noise with our pattern, key and prologue.
pub(super) fn builder(psk: &Psk) -> snow::Builder<'_> {
    static PROLOGUE: [u8; PREFACE_LEN] = preface(true);
    snow::Builder::new(NOISE.parse().expect("the name is well formed"))
        .psk(0, &psk.0)
        .and_then(|builder| builder.prologue(&PROLOGUE))
        .expect("each is set once")
}

const fn preface(is_sealed: bool) -> [u8; PREFACE_LEN] {
    let [d, i, s, c, n, t] = *MAGIC;
    [d, i, s, c, n, t, VERSION, is_sealed as u8]
}

fn check_preface(bytes: &[u8; PREFACE_LEN], is_sealed: bool) -> Result<(), Refusal> {
    let version = bytes[6];
    if !bytes.starts_with(MAGIC) {
        Err(Refusal::Garbage)
    } else if version != VERSION {
        Err(Refusal::Version(version))
    } else {
        match (bytes[7], is_sealed) {
            (0, false) | (1, true) => Ok(()),
            (0, true) => Err(Refusal::NoSecret),
            (1, false) => Err(Refusal::UnknownSecret),
            _ => Err(Refusal::Garbage),
        }
    }
}

/// Reads the whole of `bytes`; a connection that ends before is a failed one.
async fn read(stream: &mut TcpStream, bytes: &mut [u8]) -> io::Result<()> {
    stream.read_exact(bytes).await.map(drop)
}

/// Our next message of the handshake, with its length.
fn message_of(noise: &mut snow::HandshakeState) -> [u8; NOISE_PREFIX_LEN + MESSAGE_LEN] {
    let mut bytes = [0; NOISE_PREFIX_LEN + MESSAGE_LEN];
    bytes[..NOISE_PREFIX_LEN].copy_from_slice(&(MESSAGE_LEN as u16).to_le_bytes());
    let len =
        noise.write_message(&[], &mut bytes[NOISE_PREFIX_LEN..]).expect("it is our turn, and room is left");
    assert_eq!(len, MESSAGE_LEN, "both messages of NNpsk0 hold a key and a tag");
    bytes
}

async fn read_message(
    stream: &mut TcpStream,
    noise: &mut snow::HandshakeState,
) -> Result<(), HandshakeError> {
    let mut bytes = [0; NOISE_PREFIX_LEN + MESSAGE_LEN];
    read(stream, &mut bytes).await?;
    let (prefix, message) = bytes.split_at(NOISE_PREFIX_LEN);
    if prefix != (MESSAGE_LEN as u16).to_le_bytes() {
        return Err(Refusal::Garbage.into());
    }
    noise.read_message(message, &mut []).map_err(|_| Refusal::WrongSecret)?;
    Ok(())
}

/// A peer that takes our connection and then ends it without a word has something against us.
fn hung_up(error: impl Into<HandshakeError>) -> HandshakeError {
    match error.into() {
        HandshakeError::Failed(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ) =>
        {
            Refusal::HungUp.into()
        }
        other => other,
    }
}

fn finished(noise: snow::HandshakeState) -> Wire {
    Wire::new(Some(Box::new(noise.into_transport_mode().expect("both messages have passed"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_depends_on_every_byte_of_the_secret() {
        let key = |secret: &[u8]| Psk::derive(secret).0;
        assert_ne!(key(b"0123456789abcdef"), key(b"0123456789abcdeg"));
        assert_ne!(key(b"0123456789abcdef"), key(b"0123456789abcdef\0"));
    }

    #[test]
    fn prefaces_are_told_apart() {
        for (bytes, is_sealed, expected) in [
            (b"DISCNT\x01\x01", true, Ok(())),
            (b"DISCNT\x01\x00", false, Ok(())),
            (b"DISCNT\x01\x00", true, Err(Refusal::NoSecret)),
            (b"DISCNT\x01\x01", false, Err(Refusal::UnknownSecret)),
            (b"DISCNT\x02\x01", true, Err(Refusal::Version(2))),
            (b"DISCNT\x01\x02", true, Err(Refusal::Garbage)),
            (b"GET / HT", false, Err(Refusal::Garbage)),
        ] {
            assert_eq!(check_preface(bytes, is_sealed), expected);
        }
        assert_eq!(preface(true), *b"DISCNT\x01\x01");
    }
}
