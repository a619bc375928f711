//! What members tell each other about members, and its bytes.
//!
//! A member describes itself in an `Announcement`; everybody passes on the newest one of everybody. `Forgotten` entries
//! travel beside them, so that a removal spreads by itself.
//!
//! One entry, integers little-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 1 | bytes that follow; a reader skips what it does not know by it |
//! | 1 | 1 | kind: 0 forgotten, 1 member without ip, 2 member with IPv4, 3 member with IPv6; others are of later versions |
//! | 2 | 20 | node id |
//! | 22 | 4 | incarnation; an entry of kind 0 ends before it |
//! | 26 | 4 | incarnation in which the identity last began with nothing |
//! | 30 | 4 | number of the announcement within the incarnation |
//! | 34 | 2 | client port |
//! | 36 | 2 | bus port |
//! | 38 | 0, 4 or 16 | ip |
//!
//! A later version may make an entry longer at its end; what this version does not know is skipped. Example, the
//! forgotten node `0101…01`: `15 00 01 01 … 01`.

use crate::ids::{NODE_ID_LEN, NodeId};
use crate::settings::{BUS_PORT_OFFSET, Settings};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Most bytes of one encoded entry of this version.
pub const MAX_ENTRY_LEN: usize = 1 + 1 + NODE_ID_LEN + 16 + 16;

const KIND_FORGOTTEN: u8 = 0;
const KIND_WITHOUT_IP: u8 = 1;
const KIND_V4: u8 = 2;
const KIND_V6: u8 = 3;

/// A member as it describes itself. The one with the highest (`incarnation`, `number`) is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its permanent name.
    pub id: NodeId,
    /// Its start.
    pub incarnation: u32,
    /// The incarnation in which the identity last began with nothing: first start or CLUSTER RESET.
    pub joined: u32,
    /// Counts what it has said about itself in this incarnation; always 0 in this version, whose addresses are settings of the start.
    pub number: u32,
    /// Where it is reached; `None`: it does not know.
    pub ip: Option<IpAddr>,
    /// Port for clients.
    pub port: u16,
    /// Port for members.
    pub bus_port: u16,
}

impl Announcement {
    /// What a node with these settings says about itself when it starts for the first time. Without
    /// `cluster-announce-ip` its ip is not known yet; bus port 0: it has none.
    pub fn from_settings(id: NodeId, incarnation: u32, settings: &Settings) -> Announcement {
        let first_of = |announced: u16, own: u16| if announced != 0 { announced } else { own };
        let port = first_of(settings.cluster_announce_port, settings.port);
        let default_bus = if port == 0 { 0 } else { port.saturating_add(BUS_PORT_OFFSET) };
        Announcement {
            id,
            incarnation,
            joined: incarnation,
            number: 0,
            ip: settings.cluster_announce_ip.parse().ok(),
            port,
            bus_port: first_of(settings.cluster_announce_bus_port, default_bus),
        }
    }

    /// What orders announcements of one member.
    pub fn version(&self) -> (u32, u32) {
        (self.incarnation, self.number)
    }

    /// Where members call it; `None` while its ip is unknown.
    pub fn bus(&self) -> Option<SocketAddr> {
        self.ip.filter(|_| self.bus_port != 0).map(|ip| SocketAddr::new(ip, self.bus_port))
    }
}

/// A piece of news about a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GossipEntry {
    /// It is one of us.
    Member(Announcement),
    /// It no longer is (CLUSTER FORGET).
    Forgotten(NodeId),
}

impl GossipEntry {
    /// Appends the entry's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(0);
        match self {
            GossipEntry::Forgotten(id) => {
                out.push(KIND_FORGOTTEN);
                out.extend(id.0);
            }
            GossipEntry::Member(member) => {
                out.push(match member.ip {
                    None => KIND_WITHOUT_IP,
                    Some(IpAddr::V4(_)) => KIND_V4,
                    Some(IpAddr::V6(_)) => KIND_V6,
                });
                out.extend(member.id.0);
                out.extend(member.incarnation.to_le_bytes());
                out.extend(member.joined.to_le_bytes());
                out.extend(member.number.to_le_bytes());
                out.extend(member.port.to_le_bytes());
                out.extend(member.bus_port.to_le_bytes());
                match member.ip {
                    None => {}
                    Some(IpAddr::V4(ip)) => out.extend(ip.octets()),
                    Some(IpAddr::V6(ip)) => out.extend(ip.octets()),
                }
            }
        }
        out[start] = u8::try_from(out.len() - start - 1).expect("an entry is shorter than 256 bytes");
    }

    /// Reads one entry from the front of `bytes` and takes its bytes away. `Ok(None)`: an entry of a later version, which
    /// has been skipped.
    ///
    /// # Errors
    /// `Truncated`, `Short`, `BadPort`; `bytes` is then of no further use.
    pub fn decode(bytes: &mut &[u8]) -> Result<Option<GossipEntry>, GossipError> {
        let (&len, rest) = bytes.split_first().ok_or(GossipError::Truncated)?;
        let (entry, rest) = rest.split_at_checked(len.into()).ok_or(GossipError::Truncated)?;
        *bytes = rest;
        let mut entry = Fields(entry);
        let [kind] = entry.take()?;
        match kind {
            KIND_FORGOTTEN => Ok(Some(GossipEntry::Forgotten(NodeId(entry.take()?)))),
            KIND_WITHOUT_IP | KIND_V4 | KIND_V6 => {
                let mut member = Announcement {
                    id: NodeId(entry.take()?),
                    incarnation: entry.u32()?,
                    joined: entry.u32()?,
                    number: entry.u32()?,
                    ip: None,
                    port: entry.u16()?,
                    bus_port: entry.u16()?,
                };
                if member.bus_port == 0 {
                    return Err(GossipError::BadPort);
                }
                match kind {
                    KIND_V4 => member.ip = Some(IpAddr::from(entry.take::<4>()?)),
                    KIND_V6 => member.ip = Some(IpAddr::from(entry.take::<16>()?)),
                    _ => {}
                }
                Ok(Some(GossipEntry::Member(member)))
            }
            _ => Ok(None),
        }
    }
}

/// The fields of one entry that are still unread.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], GossipError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(GossipError::Short)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u32(&mut self) -> Result<u32, GossipError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u16(&mut self) -> Result<u16, GossipError> {
        Ok(u16::from_le_bytes(self.take()?))
    }
}

/// Why bytes are no gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GossipError {
    /// They end within an entry.
    Truncated,
    /// An entry is too short for its kind.
    Short,
    /// A member without a bus port.
    BadPort,
}

impl fmt::Display for GossipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GossipError::Truncated => "the list of members ends within an entry",
            GossipError::Short => "an entry of the list of members is too short for its kind",
            GossipError::BadPort => "a member is announced with bus port 0",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = GossipEntry> {
        let ip = prop_oneof![
            Just(None),
            any::<[u8; 4]>().prop_map(|ip| Some(IpAddr::from(ip))),
            any::<[u8; 16]>().prop_map(|ip| Some(IpAddr::from(ip))),
        ];
        let numbers = (any::<u32>(), any::<u32>(), any::<u32>());
        prop_oneof![
            any::<[u8; 20]>().prop_map(|id| GossipEntry::Forgotten(NodeId(id))),
            (any::<[u8; 20]>(), numbers, ip, any::<u16>(), 1..=u16::MAX).prop_map(
                |(id, (incarnation, joined, number), ip, port, bus_port)| {
                    let id = NodeId(id);
                    GossipEntry::Member(Announcement { id, incarnation, joined, number, ip, port, bus_port })
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn entries_read_back_what_was_written(entries in prop::collection::vec(entry(), 0..5)) {
            let mut bytes = Vec::new();
            entries.iter().for_each(|entry| entry.encode(&mut bytes));
            prop_assert!(bytes.len() <= entries.len() * MAX_ENTRY_LEN);
            let mut rest = &bytes[..];
            for entry in &entries {
                prop_assert_eq!(GossipEntry::decode(&mut rest), Ok(Some(*entry)));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused_and_every_step_shortens_them(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let before = rest.len();
                if GossipEntry::decode(&mut rest).is_err() {
                    break;
                }
                prop_assert!(rest.len() < before);
            }
        }

        #[test]
        fn a_cut_entry_is_refused(entry in entry(), cut in 0usize..53) {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            prop_assume!(cut < bytes.len());
            prop_assert_eq!(GossipEntry::decode(&mut &bytes[..cut]), Err(GossipError::Truncated));
        }
    }

    #[test]
    fn the_example_of_the_header_is_true() {
        let mut bytes = Vec::new();
        GossipEntry::Forgotten(NodeId([1; 20])).encode(&mut bytes);
        assert_eq!(bytes[..3], [0x15, 0, 1]);
        assert_eq!(bytes.len(), 22);
    }

    #[test]
    fn entries_of_later_versions_are_skipped_and_longer_ones_are_read() {
        let forgotten = GossipEntry::Forgotten(NodeId([7; 20]));
        let mut bytes = vec![3, 200, 1, 2];
        forgotten.encode(&mut bytes);
        bytes[4] += 2;
        bytes.extend([0xaa, 0xbb]);
        let mut rest = &bytes[..];
        assert_eq!(GossipEntry::decode(&mut rest), Ok(None));
        assert_eq!(GossipEntry::decode(&mut rest), Ok(Some(forgotten)));
        assert!(rest.is_empty());
    }
}
