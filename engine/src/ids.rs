//! Who and when in the cluster: node ids, incarnations, sequence numbers, generations.

use std::fmt;

/// Bytes of a node id before they are written as hex.
pub const NODE_ID_LEN: usize = 20;

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
