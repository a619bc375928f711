//! Who and when in the cluster: node ids, incarnations, sequence numbers, generations.

use std::fmt;

/// Bytes of a node id before they are written as hex.
pub(crate) const NODE_ID_LEN: usize = 20;

/// A node's permanent name: 20 random bytes, written as 40 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; NODE_ID_LEN]);

impl NodeId {
    /// Reads 40 lower- or upper-case hex digits; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<NodeId> {
        if text.len() != NODE_ID_LEN * 2 {
            return None;
        }
        let mut id = [0; NODE_ID_LEN];
        for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
            let high = (pair[0] as char).to_digit(16)?;
            let low = (pair[1] as char).to_digit(16)?;
            *byte = (high * 16 + low) as u8;
        }
        Some(NodeId(id))
    }
}

impl NodeId {
    /// Tells the authors of SETs apart: five bytes of the id, three of the incarnation. A node that has lost its memory, and
    /// whose clock was set back, must not make a generation that it has made before.
    pub fn author(self, incarnation: u32) -> u64 {
        let mut bytes = [0; 8];
        bytes[..5].copy_from_slice(&self.0[..5]);
        bytes[5..].copy_from_slice(&incarnation.to_be_bytes()[1..]);
        u64::from_be_bytes(bytes)
    }
}

impl NodeId {
    /// Whether a generation's author is this node, in whatever incarnation.
    pub fn has_signed(self, author: u64) -> bool {
        author >> 24 == self.author(0) >> 24
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", &self.to_string()[..8])
    }
}

/// When a state of a node's shard was published: (incarnation, n), in that order. A node's publications are numbered
/// from 1 within each of its incarnations; `Seq::ZERO` is before all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq {
    /// The start of the process that published it; later starts have higher numbers.
    pub incarnation: u32,
    /// The number within that incarnation.
    pub n: u64,
}

impl Seq {
    /// Before every publication.
    pub const ZERO: Seq = Seq { incarnation: 0, n: 0 };
    /// After every publication.
    pub(crate) const MAX: Seq = Seq { incarnation: u32::MAX, n: u64::MAX };
}

/// A SET's era: a hybrid logical clock (Kulkarni et al. 2014) and, between equal clocks, the author.
/// The highest wins. `Generation::ZERO` is the era before any SET.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// Milliseconds since 1970 times 2^12, or one more than the highest seen if that is later.
    pub time: u64,
    /// Whose it is: see `NodeId::author`.
    pub author: u64,
}

impl Generation {
    /// Before any SET.
    pub const ZERO: Generation = Generation { time: 0, author: 0 };

    /// Whether no SET has happened.
    pub fn is_zero(self) -> bool {
        self == Generation::ZERO
    }
}

/// A member's place in this node's table of members. Zero is the node itself. Means nothing on another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberIndex(pub u16);

impl MemberIndex {
    /// The node itself.
    pub const SELF: MemberIndex = MemberIndex(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_print() {
        let id = NodeId(std::array::from_fn(|i| i as u8 * 13));
        assert_eq!(NodeId::parse(id.to_string().as_bytes()), Some(id));
    }

    #[test]
    fn other_text_is_no_id() {
        for text in ["", "x", &"g".repeat(40), &"a".repeat(39), &"a".repeat(41)] {
            assert_eq!(NodeId::parse(text.as_bytes()), None, "{text}");
        }
    }
}
