//! The nodes file: who we are and whom we know, kept across restarts.
//!
//! A text file. Lines of CLUSTER NODES (`NodeLine`), the node's own marked `myself`, as the original wrote them; files of the
//! original are read. What it did not know stands in lines that begin with `# ` and one of the words below; other
//! lines that begin with `#`, empty lines and unknown fields are passed over.
//!
//! | line | meaning |
//! |---|---|
//! | `# discnt 2 reset=CLOCK:ID left=1` | first line; `reset`: clock and author of the last DEBUG RESET that was carried out; `left=1`, or nothing: CLUSTER RESET, and not taken in by anybody since |
//! | `# member ID incarnation=N joined=N number=N bus=PORT` | see `Announcement`; `bus` defaults to the port + 10000 |
//! | `# forgotten ID` | a removed member |
//! | `# end` | last line; a file with the first line and without this one was cut off |
//!
//! Example (ids shortened):
//!
//! ```text
//! # discnt 2 reset=0:0000
//! aaaa 10.0.0.1:5262 myself 0 0 connected
//! # member aaaa incarnation=1795357134 joined=1795357000 number=0 bus=15262
//! bbbb 10.0.0.2:5262 noflags 0 1795357148063 connected
//! # member bbbb incarnation=1795357099 joined=1795357099 number=1 bus=15262
//! # forgotten cccc
//! # end
//! ```

use crate::cluster::forgotten::MAX_FORGOTTEN;
use crate::cluster::gossip::Announcement;
use crate::cluster::members::MemberState;
use crate::cluster::view::{NodeLine, Role};
use crate::ids::NodeId;
use crate::settings::BUS_PORT_OFFSET;
use crate::shard::MAX_MEMBERS;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;

/// A member as the file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedMember {
    /// Its line of CLUSTER NODES at the time of writing.
    pub line: NodeLine,
    /// Its start; 0: unknown.
    pub incarnation: u32,
    /// See `Announcement::joined`.
    pub joined: u32,
    /// See `Announcement::number`.
    pub number: u32,
    /// Port for members; 0 if unknown.
    pub bus_port: u16,
}

impl SavedMember {
    /// What it last said about itself.
    pub fn announcement(&self) -> Announcement {
        let SavedMember { line, incarnation, joined, number, bus_port } = self;
        Announcement {
            id: line.id,
            incarnation: *incarnation,
            joined: *joined,
            number: *number,
            ip: line.ip,
            port: line.port,
            bus_port: *bus_port,
        }
    }
}

/// The last deletion of all counters on all members: a logical clock and its author. Nothing here looks into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResetEpoch {
    /// Hybrid logical clock.
    pub clock: u64,
    /// Who asked for it.
    pub author: NodeId,
}

impl ResetEpoch {
    /// There has been none.
    pub const NONE: ResetEpoch = ResetEpoch { clock: 0, author: NodeId([0; 20]) };
}

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodesFile {
    /// This node.
    pub myself: SavedMember,
    /// The others, in any order, no id twice.
    pub members: Vec<SavedMember>,
    /// Ids of removed members, longest remembered first.
    pub forgotten: Vec<NodeId>,
    /// The last deletion of everything.
    pub reset: ResetEpoch,
    /// The node has left its cluster by CLUSTER RESET and nobody has taken it in since.
    pub has_left: bool,
}

impl NodesFile {
    /// The bytes of the file.
    pub fn write(&self) -> Vec<u8> {
        let mut text = String::new();
        let ResetEpoch { clock, author } = self.reset;
        let left = if self.has_left { " left=1" } else { "" };
        let _ = writeln!(text, "# discnt 2 reset={clock}:{author}{left}");
        for SavedMember { line, incarnation, joined, number, bus_port } in
            std::iter::once(&self.myself).chain(&self.members)
        {
            let _ = writeln!(
                text,
                "{line}\n# member {} incarnation={incarnation} joined={joined} number={number} bus={bus_port}",
                line.id
            );
        }
        for id in &self.forgotten {
            let _ = writeln!(text, "# forgotten {id}");
        }
        text.push_str("# end\n");
        text.into_bytes()
    }

    /// Reads a file of ours or of the original.
    ///
    /// # Errors
    /// One for each `NodesFileProblem`.
    pub fn parse(bytes: &[u8]) -> Result<NodesFile, NodesFileError> {
        let mut reader = Reader::default();
        let mut count = 0;
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            count = index + 1;
            let fail = |problem| NodesFileError { line: count, problem };
            let line = std::str::from_utf8(line).map_err(|_| fail(NodesFileProblem::NotText))?;
            reader.line(line.trim()).map_err(fail)?;
        }
        reader.finish().map_err(|problem| NodesFileError { line: count, problem })
    }
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    lines: Vec<NodeLine>,
    extras: BTreeMap<NodeId, Extra>,
    forgotten: Vec<NodeId>,
    reset: Option<ResetEpoch>,
    has_left: bool,
    is_ours: bool,
    has_end: bool,
}

/// A `# member` line.
#[derive(Default)]
struct Extra {
    incarnation: u32,
    joined: u32,
    number: u32,
    bus: Option<u16>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), NodesFileProblem> {
        let Some(comment) = line.strip_prefix('#') else {
            if !line.is_empty() {
                let line = parse_line(line)?;
                if self.lines.iter().any(|other| other.id == line.id) {
                    return Err(NodesFileProblem::SameIdTwice(line.id));
                }
                if self.lines.len() >= MAX_MEMBERS {
                    return Err(NodesFileProblem::TooMany(MAX_MEMBERS, "members"));
                }
                if line.role != Role::Handshake {
                    self.lines.push(line);
                }
            }
            return Ok(());
        };
        let mut words = comment.split_ascii_whitespace();
        match words.next() {
            Some("discnt") => {
                let version = words.next().unwrap_or_default();
                if version != "2" {
                    return Err(NodesFileProblem::Version(version.to_owned()));
                }
                self.is_ours = true;
                for (name, value) in fields(words)? {
                    match name {
                        "reset" => self.reset = Some(parse_reset(value)?),
                        "left" => self.has_left = number::<u8>(value)? != 0,
                        _ => {}
                    }
                }
            }
            Some("member") => {
                let id = parse_id(words.next())?;
                let mut extra = Extra::default();
                for (name, value) in fields(words)? {
                    match name {
                        "incarnation" => extra.incarnation = number(value)?,
                        "joined" => extra.joined = number(value)?,
                        "number" => extra.number = number(value)?,
                        "bus" => extra.bus = Some(number(value)?),
                        _ => {}
                    }
                }
                self.extras.insert(id, extra);
            }
            Some("forgotten") => {
                let id = parse_id(words.next())?;
                if self.forgotten.len() >= MAX_FORGOTTEN {
                    return Err(NodesFileProblem::TooMany(MAX_FORGOTTEN, "forgotten members"));
                }
                self.forgotten.push(id);
            }
            Some("end") => self.has_end = true,
            Some(_) | None => {}
        }
        Ok(())
    }

    fn finish(mut self) -> Result<NodesFile, NodesFileProblem> {
        if self.is_ours && !self.has_end {
            return Err(NodesFileProblem::CutOff);
        }
        let mut own = self.lines.iter().enumerate().filter(|(_, line)| line.role == Role::Myself);
        let position = match (own.next(), own.next()) {
            (Some((position, _)), None) => position,
            (None, _) => return Err(NodesFileProblem::NoMyself),
            (Some(_), Some(_)) => return Err(NodesFileProblem::SecondMyself),
        };
        let myself = self.lines.remove(position);
        let mut complete = |line: NodeLine| {
            let Extra { incarnation, joined, number, bus } = self.extras.remove(&line.id).unwrap_or_default();
            let default = if line.port == 0 { 0 } else { line.port.saturating_add(BUS_PORT_OFFSET) };
            SavedMember { line, incarnation, joined, number, bus_port: bus.unwrap_or(default) }
        };
        Ok(NodesFile {
            myself: complete(myself),
            members: self.lines.into_iter().map(complete).collect(),
            forgotten: self.forgotten,
            reset: self.reset.unwrap_or(ResetEpoch::NONE),
            has_left: self.has_left,
        })
    }
}

/// `name=value` words.
fn fields<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<(&'a str, &'a str)>, NodesFileProblem> {
    words.map(|word| word.split_once('=').ok_or_else(|| NodesFileProblem::Word(shorten(word)))).collect()
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, NodesFileProblem> {
    text.parse().map_err(|_| NodesFileProblem::Word(shorten(text)))
}

fn parse_id(text: Option<&str>) -> Result<NodeId, NodesFileProblem> {
    let text = text.unwrap_or_default();
    NodeId::parse(text.as_bytes()).ok_or_else(|| NodesFileProblem::Id(shorten(text)))
}

fn parse_reset(text: &str) -> Result<ResetEpoch, NodesFileProblem> {
    let (clock, author) = text.split_once(':').ok_or_else(|| NodesFileProblem::Word(shorten(text)))?;
    Ok(ResetEpoch { clock: number(clock)?, author: parse_id(Some(author))? })
}

/// A line of CLUSTER NODES.
fn parse_line(text: &str) -> Result<NodeLine, NodesFileProblem> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let &[id, addr, flags, ping_sent, pong_received, link] = &words[..] else {
        return Err(NodesFileProblem::Fields(words.len()));
    };
    let bad_addr = || NodesFileProblem::Address(shorten(addr));
    let (ip, port) = addr.rsplit_once(':').ok_or_else(bad_addr)?;
    let ip: Option<IpAddr> = if ip.is_empty() { None } else { Some(ip.parse().map_err(|_| bad_addr())?) };
    let mut line = NodeLine {
        id: parse_id(Some(id))?,
        ip,
        port: port.parse().map_err(|_| bad_addr())?,
        role: Role::Member(MemberState::Alive),
        is_noaddr: false,
        ping_sent_ms: number(ping_sent)?,
        pong_received_ms: number(pong_received)?,
        has_link: match link {
            "connected" => true,
            "disconnected" => false,
            other => return Err(NodesFileProblem::Word(shorten(other))),
        },
    };
    let (mut is_myself, mut is_handshake) = (false, false);
    for flag in flags.split(',') {
        match flag {
            "myself" => is_myself = true,
            "handshake" => is_handshake = true,
            "fail" => line.role = Role::Member(MemberState::Down),
            "fail?" if line.role == Role::Member(MemberState::Alive) => {
                line.role = Role::Member(MemberState::Suspect);
            }
            "fail?" | "noflags" => {}
            "noaddr" => line.is_noaddr = true,
            other => return Err(NodesFileProblem::Flag(shorten(other))),
        }
    }
    if is_myself {
        line.role = Role::Myself;
    } else if is_handshake {
        line.role = Role::Handshake;
    }
    Ok(line)
}

/// The front of a word that an error repeats.
fn shorten(word: &str) -> String {
    word.chars().take(64).filter(|c| !c.is_control()).collect()
}

/// Why a nodes file can't be used, and where. Start-up ends with it; the file is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodesFileError {
    /// Counts from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: NodesFileProblem,
}

/// What is wrong with a nodes file. Words of the file are repeated up to 64 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodesFileProblem {
    /// A line is not UTF-8.
    NotText,
    /// A line has another number of words than six.
    Fields(usize),
    /// No id of 40 hex digits.
    Id(String),
    /// No `ip:port`.
    Address(String),
    /// An unknown flag.
    Flag(String),
    /// A word that should be a number, `name=value` or a link's state.
    Word(String),
    /// Two lines with one id.
    SameIdTwice(NodeId),
    /// No line is marked `myself`.
    NoMyself,
    /// Two lines are.
    SecondMyself,
    /// More than the limit: how many, of what.
    TooMany(usize, &'static str),
    /// Written by a version that this one does not know.
    Version(String),
    /// The end is missing.
    CutOff,
}

impl fmt::Display for NodesFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.problem {
            NodesFileProblem::NotText => f.write_str("it is not text")?,
            NodesFileProblem::Fields(count) => {
                write!(
                    f,
                    "it has {count} words; ID IP:PORT FLAGS PING-SENT PONG-RECEIVED LINK was expected"
                )?;
            }
            NodesFileProblem::Id(word) => write!(f, "'{word}' is no node id of 40 hex digits")?,
            NodesFileProblem::Address(word) => write!(f, "'{word}' is no IP:PORT with a numeric address")?,
            NodesFileProblem::Flag(word) => write!(f, "'{word}' is no flag of a node")?,
            NodesFileProblem::Word(word) => write!(f, "'{word}' was not expected here")?,
            NodesFileProblem::SameIdTwice(id) => write!(f, "node {id} stands in two lines")?,
            NodesFileProblem::NoMyself => f.write_str("no line is marked 'myself'")?,
            NodesFileProblem::SecondMyself => f.write_str("two lines are marked 'myself'")?,
            NodesFileProblem::TooMany(limit, what) => write!(f, "more than {limit} {what}")?,
            NodesFileProblem::Version(word) => {
                return write!(
                    f,
                    "format version '{word}' is not known; start the newer release that wrote it"
                );
            }
            NodesFileProblem::CutOff => f.write_str("the end of the file is missing")?,
        }
        f.write_str(
            "; mend the file or put a copy in its place, or move it away to start under a new identity",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn saved(role: impl Strategy<Value = Role>) -> impl Strategy<Value = SavedMember> {
        let ip = prop_oneof![
            Just(None),
            any::<[u8; 4]>().prop_map(|ip| Some(IpAddr::from(ip))),
            any::<[u8; 16]>().prop_map(|ip| Some(IpAddr::from(ip))),
        ];
        let line = (any::<[u8; 20]>(), ip, any::<u16>(), role, any::<(bool, bool, u64, u64)>());
        (line, any::<(u32, u32, u32, u16)>()).prop_map(|((id, ip, port, role, rest), numbers)| {
            let (is_noaddr, has_link, ping_sent_ms, pong_received_ms) = rest;
            let line = NodeLine {
                id: NodeId(id),
                ip,
                port,
                role,
                is_noaddr,
                ping_sent_ms,
                pong_received_ms,
                has_link,
            };
            let (incarnation, joined, number, bus_port) = numbers;
            SavedMember { line, incarnation, joined, number, bus_port }
        })
    }

    fn member() -> impl Strategy<Value = SavedMember> {
        saved(prop::sample::select(vec![
            Role::Member(MemberState::Alive),
            Role::Member(MemberState::Suspect),
            Role::Member(MemberState::Down),
        ]))
    }

    fn file() -> impl Strategy<Value = NodesFile> {
        let myself = saved(Just(Role::Myself)).prop_map(|mut myself| {
            myself.line.is_noaddr = false;
            myself
        });
        let forgotten = any::<[u8; 20]>().prop_map(NodeId);
        let lists = (prop::collection::vec(member(), 0..5), prop::collection::vec(forgotten, 0..4));
        (myself, lists, any::<(u64, [u8; 20], bool)>()).prop_map(
            |(myself, (members, forgotten), (clock, author, has_left))| NodesFile {
                has_left,
                myself,
                members,
                forgotten,
                reset: ResetEpoch { clock, author: NodeId(author) },
            },
        )
    }

    proptest! {
        #[test]
        fn a_file_reads_back_as_it_was_written(file in file()) {
            prop_assert_eq!(NodesFile::parse(&file.write()), Ok(file));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = NodesFile::parse(&bytes);
        }

        #[test]
        fn a_damaged_file_is_read_or_refused(file in file(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = file.write();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = NodesFile::parse(&bytes);
        }

        #[test]
        fn a_file_that_was_cut_off_is_refused(file in file(), at in any::<prop::sample::Index>()) {
            let bytes = file.write();
            let at = at.index(bytes.len() - "\n".len());
            prop_assert!(NodesFile::parse(&bytes[..at]).is_err());
        }
    }

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn files_of_the_original_are_read() {
        let text = format!(
            "{A} 127.0.0.1:13066 noflags 0 1795357148063 connected\n\
             {B} :0 noaddr 1795358134383 1795358133380 disconnected\n\
             cccccccccccccccccccccccccccccccccccccccc 127.0.0.1:19474 fail? 1 2 disconnected\n\
             dddddddddddddddddddddddddddddddddddddddd ::1:20136 fail 1 2 disconnected\n\
             eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee :19328 myself 0 0 connected\n"
        );
        let file = NodesFile::parse(text.as_bytes()).unwrap();
        assert_eq!(file.myself.line.id, NodeId([0xee; 20]));
        assert_eq!((file.myself.line.port, file.myself.bus_port), (19328, 29328));
        assert_eq!(file.members.len(), 4);
        assert_eq!(file.members[0].bus_port, 23066);
        assert!(file.members[1].line.is_noaddr && file.members[1].bus_port == 0);
        assert_eq!(file.members[2].line.role, Role::Member(MemberState::Suspect));
        assert_eq!(file.members[3].line.ip, Some("::1".parse().unwrap()));
        assert_eq!(file.reset, ResetEpoch::NONE);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_with_its_line_and_a_remedy() {
        let own = format!("{A} :1 myself 0 0 connected");
        let cases = [
            (String::new(), 1, "no line is marked 'myself'"),
            (format!("{A} :1 noflags 0 0 connected\n"), 2, "no line is marked 'myself'"),
            (format!("{own}\n{B} :2 myself 0 0 connected"), 2, "two lines are marked 'myself'"),
            (format!("{own}\n{A} :2 noflags 0 0 connected"), 2, "stands in two lines"),
            (format!("{own}\nxyz :2 noflags 0 0 connected"), 2, "'xyz' is no node id"),
            (format!("{own}\n{B} host:2 noflags 0 0 connected"), 2, "'host:2' is no IP:PORT"),
            (format!("{own}\n{B} :70000 noflags 0 0 connected"), 2, "':70000' is no IP:PORT"),
            (format!("{own}\n{B} :2 master 0 0 connected"), 2, "'master' is no flag"),
            (format!("{own}\n{B} :2 noflags x 0 connected"), 2, "'x' was not expected"),
            (format!("{own}\n{B} :2 noflags 0 0"), 2, "5 words"),
            (format!("# discnt 3\n{own}\n# end"), 1, "format version '3'"),
            (format!("# discnt 2\n{own}\n"), 3, "the end of the file is missing"),
        ];
        for (text, line, expected) in cases {
            let error = NodesFile::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.to_string().contains(expected), "{error} for {text}");
        }
        assert!(NodesFile::parse(b"\xff").unwrap_err().to_string().contains("move it away"));
    }

    #[test]
    fn foreign_comments_and_unknown_fields_are_passed_over() {
        let text = format!(
            "# mine\n\n# discnt 2 colour=red\r\n{A} :1 myself 0 0 connected\r\n# member {A} bus=7 x=y\n# end"
        );
        assert_eq!(NodesFile::parse(text.as_bytes()).unwrap().myself.bus_port, 7);
    }
}
