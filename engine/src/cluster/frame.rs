//! The frames between nodes, as bytes.
//!
//! A frame is one byte of kind and a body made of the pieces of `wire`. Version 1 of the bus:
//!
//! | kind | name | body |
//! |---|---|---|
//! | 1 | hello | magic `Discnt`, version u8, reset epoch (clock unsigned, author id), flags u8 (1 has left, 2 calls for a member), the id called for if any, announcement (see `gossip`) |
//! | 2 | refusal | code u8 (0 other, 1 clone, 2 forgotten, 3 name spent), text |
//! | 3 | members | count, then per member: the sender's index of it, id; then gossip entries to the end |
//! | 4 | heartbeat | see `Heartbeat` |
//! | 5 | updates | see `update` |
//! | 6 | subscribe | the sender's index of the origin, seq up to which the sender has it |
//! | 7 | unsubscribe | the sender's index of the origin |
//! | 8 | reset | the new reset epoch: everything sent before belongs to an older one |
//!
//! Indices of members are the sender's own and mean what its last `members` frame said.

use crate::cluster::gossip::{Announcement, GossipEntry};
use crate::cluster::nodes_file::ResetEpoch;
use crate::cluster::wire::{DecodeError, Decoded, Put, Reader};
use crate::ids::{Generation, MemberIndex, NodeId, Seq};
use crate::shard::MAX_MEMBERS;
use crate::time::Micros;

/// What this release speaks. A peer with another version is refused.
pub(crate) const VERSION: u8 = 1;

const MAGIC: &[u8; 6] = b"Discnt";

/// Longest text of a refusal.
const MAX_REFUSAL_LEN: usize = 512;

/// Kinds of frames.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const REFUSAL: u8 = 2;
    pub(crate) const MEMBERS: u8 = 3;
    pub(crate) const HEARTBEAT: u8 = 4;
    pub(crate) const UPDATES: u8 = 5;
    pub(crate) const SUBSCRIBE: u8 = 6;
    pub(crate) const UNSUBSCRIBE: u8 = 7;
    pub(crate) const RESET: u8 = 8;
}

/// The first frame each way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) epoch: ResetEpoch,
    /// Who is called at that address; `None`: whoever is there (CLUSTER MEET), or the sender was called itself.
    pub(crate) calls_for: Option<NodeId>,
    /// The sender has begun anew, and nobody has taken it in yet.
    pub(crate) has_left: bool,
    pub(crate) announcement: Announcement,
}

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut frame = vec![kind::HELLO];
        frame.extend_from_slice(MAGIC);
        frame.put_u8(VERSION);
        frame.put_unsigned(self.epoch.clock.into());
        frame.put_id(self.epoch.author);
        frame.put_u8(u8::from(self.has_left) | u8::from(self.calls_for.is_some()) << 1);
        if let Some(id) = self.calls_for {
            frame.put_id(id);
        }
        GossipEntry::Member(self.announcement).encode(&mut frame);
        frame
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Decoded<Hello> {
        if reader.take(MAGIC.len(), "greeting")? != MAGIC {
            return Err(DecodeError { what: "greeting: this is no Discnt node" });
        }
        if reader.u8("version")? != VERSION {
            return Err(DecodeError { what: "version of the bus protocol" });
        }
        let epoch = ResetEpoch { clock: reader.number("epoch")?, author: reader.id("epoch")? };
        let flags = reader.u8("flags of a greeting")?;
        let calls_for = if flags & 2 == 0 { None } else { Some(reader.id("who is called")?) };
        let mut rest = reader.rest();
        match GossipEntry::decode(&mut rest) {
            Ok(Some(GossipEntry::Member(announcement))) if rest.is_empty() => {
                Ok(Hello { epoch, calls_for, has_left: flags & 1 != 0, announcement })
            }
            _ => Err(DecodeError { what: "announcement" }),
        }
    }
}

/// Who the indices of the sender's frames mean, and all gossip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MembersFrame {
    /// The sender's index and the member's id; departed members whose shards it still has are among them.
    pub(crate) indices: Vec<(MemberIndex, NodeId)>,
    pub(crate) gossip: Vec<GossipEntry>,
}

impl MembersFrame {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut frame = vec![kind::MEMBERS];
        frame.put_unsigned(self.indices.len() as u128);
        for (index, id) in &self.indices {
            frame.put_unsigned(index.0.into());
            frame.put_id(*id);
        }
        self.gossip.iter().for_each(|entry| entry.encode(&mut frame));
        frame
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Decoded<MembersFrame> {
        let count: usize = reader.number("number of members")?;
        if count > MAX_MEMBERS {
            return Err(DecodeError { what: "number of members" });
        }
        let mut indices = Vec::new();
        for _ in 0..count {
            indices.push((MemberIndex(reader.number("index of a member")?), reader.id("id of a member")?));
        }
        let (mut rest, mut gossip) = (reader.rest(), Vec::new());
        while !rest.is_empty() {
            match GossipEntry::decode(&mut rest) {
                Ok(Some(entry)) => gossip.push(entry),
                Ok(None) => {}
                Err(_) => return Err(DecodeError { what: "gossip" }),
            }
        }
        Ok(MembersFrame { indices, gossip })
    }
}

/// Why a link is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another live node has the same id.
    Clone,
    /// The node was removed from the cluster and must join anew.
    Forgotten,
    /// The node has begun anew, but under the name of a removed one: it must take another.
    NameSpent,
    /// Anything else; the text says what.
    Other,
}

impl Refusal {
    pub(crate) fn encode(self, text: &str) -> Vec<u8> {
        let code = match self {
            Refusal::Clone => 1,
            Refusal::Forgotten => 2,
            Refusal::NameSpent => 3,
            Refusal::Other => 0,
        };
        let mut frame = vec![kind::REFUSAL, code];
        frame.put_bytes(&text.as_bytes()[..text.len().min(MAX_REFUSAL_LEN)]);
        frame
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Decoded<(Refusal, String)> {
        let refusal = match reader.u8("code")? {
            1 => Refusal::Clone,
            2 => Refusal::Forgotten,
            3 => Refusal::NameSpent,
            _ => Refusal::Other,
        };
        let text = reader.bytes(MAX_REFUSAL_LEN, "text")?;
        Ok((refusal, String::from_utf8_lossy(text).into_owned()))
    }
}

/// Says "I am here", as of when the lines hold, and what the sender has of everybody.
///
/// Body: stamp, echo, hold, flags (1 complete, 2 recovering, 4 given up), as-of age, sent seq, settled seq, floor generation,
/// given up seq if there is one, count, digests. A digest: index * 64 + flags (1 link, 2 departed, 4 buried, 8 whole,
/// 16 ahead, 32 whole until), applied seq, if ahead that seq, if whole until that seq; and unless departed: incarnation less
/// that of `applied` (signed), stamp, heard age, as-of age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    /// The sender's monotonic clock at sending.
    pub(crate) stamp: Micros,
    /// The last stamp that it has received from the receiver; zero: none yet.
    pub(crate) echo: Micros,
    /// How long before `stamp` that was.
    pub(crate) hold: Micros,
    /// Every publication up to `sent` has been sent on this link, and every SET that the sender made before it had applied
    /// what its digests say is among them.
    pub(crate) is_complete: bool,
    /// The sender does not know yet what its own shards are.
    pub(crate) is_recovering: bool,
    /// How long before `stamp` all of the sender's shards were within the precision of what `sent` says.
    pub(crate) as_of_age: Micros,
    /// What has been sent on this link of the sender's own stream.
    pub(crate) sent: Seq,
    /// Every member has the sender's own stream up to here, as the sender knows: it remembers no subtractions of before.
    pub(crate) settled: Seq,
    /// No counter that the sender has removed was in a higher generation.
    pub(crate) floor: Generation,
    /// The receiver has said once, in a life before, that its own stream was settled up to here; zero: no further than it says now.
    pub(crate) given_up: Seq,
    pub(crate) digests: Vec<Digest>,
}

/// What the sender of a heartbeat has of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    /// The sender's index of it.
    pub(crate) member: MemberIndex,
    /// It has applied the member's stream up to here.
    pub(crate) applied: Seq,
    /// It may have shards of the member up to here, though not everything before; zero: none behind `applied`.
    pub(crate) ahead: Seq,
    /// The highest (incarnation, stamp of the member's own clock) that the sender knows of.
    pub(crate) evidence: (u32, Micros),
    /// How long ago that reached the sender.
    pub(crate) heard_age: Micros,
    /// How long ago the member's shards were within the precision of what the sender has.
    pub(crate) as_of_age: Micros,
    /// The sender has a link of its own to it.
    pub(crate) has_link: bool,
    /// The sender knows that it was removed, and takes nothing from it any more.
    pub(crate) is_departed: bool,
    /// All that it had when it was removed has been taken over, up to `applied`, and nothing is left at the sender.
    pub(crate) is_buried: bool,
    /// In the life that `applied` is of it had got back what it had counted in those before.
    pub(crate) is_whole: bool,
    /// If it had not: all that it had published in those before was here once, up to here.
    pub(crate) whole_until: Seq,
}

/// Ages on the wire are cut here: an hour.
const MAX_AGE: Micros = Micros::from_secs(3_600);

/// How long ago that was of which lines hold: from so long ago on, never.
fn read_as_of_age(reader: &mut Reader<'_>, what: &'static str) -> Decoded<Micros> {
    let age = Micros(reader.number(what)?);
    Ok(if age < MAX_AGE { age } else { Micros::NEVER })
}

impl Digest {
    /// Of one that was removed, only what is left of it matters.
    pub(crate) fn of_departed(member: MemberIndex, applied: Seq) -> Digest {
        Digest {
            member,
            applied,
            ahead: Seq::ZERO,
            evidence: (0, Micros(0)),
            heard_age: MAX_AGE,
            as_of_age: Micros::NEVER,
            has_link: false,
            is_departed: true,
            is_buried: false,
            is_whole: false,
            whole_until: Seq::ZERO,
        }
    }
}

impl Heartbeat {
    /// Whether the sender vouches for its lines. One that does not says that they hold as of the beginning of its clock.
    pub(crate) fn is_vouching(&self) -> bool {
        self.as_of_age < self.stamp
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut frame = vec![kind::HEARTBEAT];
        frame.put_unsigned(self.stamp.0.into());
        frame.put_unsigned(self.echo.0.into());
        frame.put_unsigned(self.hold.0.into());
        let has_given_up = self.given_up != Seq::ZERO;
        let flags =
            u8::from(self.is_complete) | u8::from(self.is_recovering) << 1 | u8::from(has_given_up) << 2;
        frame.put_u8(flags);
        frame.put_unsigned(self.as_of_age.min(MAX_AGE).0.into());
        frame.put_seq(self.sent);
        frame.put_seq(self.settled);
        frame.put_generation(self.floor);
        if has_given_up {
            frame.put_seq(self.given_up);
        }
        frame.put_unsigned(self.digests.len() as u128);
        for digest in &self.digests {
            let is_ahead = digest.ahead != Seq::ZERO;
            let was_whole = digest.whole_until != Seq::ZERO;
            let flags = u32::from(digest.has_link)
                | u32::from(digest.is_departed) << 1
                | u32::from(digest.is_buried) << 2
                | u32::from(digest.is_whole) << 3
                | u32::from(is_ahead) << 4
                | u32::from(was_whole) << 5;
            let member = u32::from(digest.member.0) << 6 | flags;
            frame.put_unsigned(member.into());
            frame.put_seq(digest.applied);
            if is_ahead {
                frame.put_seq(digest.ahead);
            }
            if was_whole {
                frame.put_seq(digest.whole_until);
            }
            if !digest.is_departed {
                let newer = i128::from(digest.evidence.0) - i128::from(digest.applied.incarnation);
                frame.put_signed(newer);
                frame.put_unsigned(digest.evidence.1.0.into());
                frame.put_unsigned(digest.heard_age.min(MAX_AGE).0.into());
                frame.put_unsigned(digest.as_of_age.min(MAX_AGE).0.into());
            }
        }
        frame
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Decoded<Heartbeat> {
        let stamp = Micros(reader.number("stamp")?);
        let echo = Micros(reader.number("echo")?);
        let hold = Micros(reader.number("hold")?);
        let flags = reader.u8("flags")?;
        let as_of_age = read_as_of_age(reader, "as-of age")?;
        let sent = reader.seq("sent")?;
        let settled = reader.seq("settled")?;
        let floor = reader.generation("floor")?;
        let given_up = if flags & 4 != 0 { reader.seq("given up")? } else { Seq::ZERO };
        let count: usize = reader.number("number of digests")?;
        let mut digests = Vec::new();
        for _ in 0..count {
            let member: u32 = reader.number("digest")?;
            let index = u16::try_from(member >> 6).map_err(|_| DecodeError { what: "digest" })?;
            let applied = reader.seq("digest")?;
            let mut digest = Digest {
                ahead: if member & 16 != 0 { reader.seq("digest")? } else { Seq::ZERO },
                whole_until: if member & 32 != 0 { reader.seq("digest")? } else { Seq::ZERO },
                has_link: member & 1 != 0,
                is_departed: member & 2 != 0,
                is_buried: member & 4 != 0,
                is_whole: member & 8 != 0,
                ..Digest::of_departed(MemberIndex(index), applied)
            };
            if !digest.is_departed {
                let incarnation = i128::from(applied.incarnation).checked_add(reader.signed("digest")?);
                let incarnation = incarnation.and_then(|incarnation| u32::try_from(incarnation).ok());
                digest.evidence.0 = incarnation.ok_or(DecodeError { what: "digest" })?;
                digest.evidence.1 = Micros(reader.number("digest")?);
                digest.heard_age = Micros(reader.number("digest")?);
                digest.as_of_age = read_as_of_age(reader, "digest")?;
            }
            digests.push(digest);
        }
        reader.end()?;
        let is_complete = flags & 1 != 0;
        Ok(Heartbeat {
            stamp,
            echo,
            hold,
            is_complete,
            is_recovering: flags & 2 != 0,
            as_of_age,
            sent,
            settled,
            floor,
            given_up,
            digests,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_vouches_for_nothing_does_not_seem_to_after_an_hour_either() {
        let read = |as_of: Micros, now: Micros| {
            let digest = Digest::of_departed(MemberIndex(3), Seq { incarnation: 2, n: 7 });
            let ahead = if as_of == Micros(0) { Seq { incarnation: 2, n: 11 } } else { Seq::ZERO };
            let (whole_until, as_of_age) = (ahead, now.since(as_of));
            let digest =
                Digest { ahead, is_departed: false, is_whole: true, whole_until, as_of_age, ..digest };
            let heartbeat = Heartbeat {
                stamp: now,
                echo: Micros(5),
                hold: Micros(1),
                is_complete: true,
                is_recovering: false,
                as_of_age: now.since(as_of),
                sent: Seq { incarnation: 2, n: 9 },
                settled: Seq::ZERO,
                floor: Generation::ZERO,
                given_up: ahead,
                digests: vec![digest],
            };
            let bytes = heartbeat.encode();
            let read = Heartbeat::decode(&mut Reader::new(&bytes[1..])).unwrap();
            assert_eq!(read.given_up, ahead);
            let digest = read.digests[0];
            assert_eq!(
                (digest.member, digest.is_whole, digest.as_of_age, digest.ahead, digest.whole_until),
                (MemberIndex(3), true, read.as_of_age, ahead, ahead)
            );
            read
        };
        for now in [Micros::from_secs(2), MAX_AGE, MAX_AGE + MAX_AGE] {
            assert!(!read(Micros(0), now).is_vouching(), "{now:?}");
            let before = Micros::from_millis(200);
            let vouching = read(now - before, now);
            assert!(vouching.is_vouching());
            assert_eq!(vouching.as_of_age, before);
        }
        let long_ago = read(Micros(0), MAX_AGE + MAX_AGE).as_of_age;
        assert_eq!(long_ago, Micros::NEVER, "not an hour ago");
    }
}
