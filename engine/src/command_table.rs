//! Commands by the names that they have on this node.
//!
//! Found once per request, so the table does without a copy of the name in lower case: names are hashed and compared
//! without regard to case, and what follows from a command's arguments is worked out once.

use crate::command::{CommandSpec, Flag};
use crate::commands;
use crate::settings::RenamedCommand;
use crate::text::is_same_text;
use hashbrown::HashTable;
use std::collections::BTreeMap;

/// Commands by the names that they have on this node.
#[derive(Debug)]
pub(crate) struct CommandTable {
    /// In order of name.
    known: Vec<Known>,
    /// Positions in `known`, by hash of the name.
    positions: HashTable<u16>,
}

/// A command as this node knows it.
#[derive(Debug)]
pub(crate) struct Known {
    /// Lower case.
    name: Box<[u8]>,
    /// As most clients write it.
    upper: Box<[u8]>,
    /// Its number in the table of all commands.
    pub(crate) number: u16,
    pub(crate) spec: &'static CommandSpec,
    arity: i64,
    /// A command without subcommands that changes counters.
    pub(crate) is_plain_write: bool,
}

impl Known {
    /// As `CommandSpec::accepts`.
    pub(crate) fn accepts(&self, words: usize) -> bool {
        CommandSpec::is_arity_met(self.arity, words)
    }
}

impl CommandTable {
    /// The table with `renames` (from, to) carried out; to an empty name means taken away.
    pub(crate) fn new(renames: &[RenamedCommand]) -> CommandTable {
        let mut by_name: BTreeMap<Box<[u8]>, _> = BTreeMap::new();
        for (number, spec) in commands::all().enumerate() {
            by_name.insert(spec.name.as_bytes().into(), (number as u16, spec));
        }
        // All are taken away before any comes back, so that two may change places.
        let renamed: Vec<_> = renames
            .iter()
            .filter_map(|RenamedCommand { command, name }| {
                Some((name, by_name.remove(command.to_ascii_lowercase().as_bytes())?))
            })
            .collect();
        for (name, entry) in renamed {
            if !name.is_empty() {
                by_name.insert(name.to_ascii_lowercase().into_bytes().into(), entry);
            }
        }
        let known: Vec<Known> = by_name
            .into_iter()
            .map(|(name, (number, spec))| {
                let upper = name.to_ascii_uppercase().into();
                let is_plain_write = spec.subcommands.is_empty() && spec.has(Flag::Write);
                Known { name, upper, number, spec, arity: spec.arity(), is_plain_write }
            })
            .collect();
        let mut positions = HashTable::with_capacity(known.len());
        let rehash = |&position: &u16| hash(&known[usize::from(position)].name);
        for (position, command) in (0..).zip(&known) {
            positions.insert_unique(hash(&command.name), position, rehash);
        }
        CommandTable { known, positions }
    }

    /// The same, where the command at the place `hint` is the likely one; the hint becomes the place of what was found.
    #[inline]
    pub(crate) fn find_near(&self, name: &[u8], hint: &mut u16) -> Option<&Known> {
        match self.known.get(usize::from(*hint)) {
            Some(known) if is_same_text(&known.upper, name) => Some(known),
            _ => {
                let position = self.position(name)?;
                *hint = position;
                Some(&self.known[usize::from(position)])
            }
        }
    }

    /// The command of that name in any case.
    pub(crate) fn find(&self, name: &[u8]) -> Option<&Known> {
        self.position(name).map(|position| &self.known[usize::from(position)])
    }

    fn position(&self, name: &[u8]) -> Option<u16> {
        let known = |position: u16| &self.known[usize::from(position)];
        let is_it = |&position: &u16| {
            let known = known(position);
            *known.upper == *name || known.name.eq_ignore_ascii_case(name)
        };
        self.positions.find(hash(name), is_it).copied()
    }

    /// Every command with the name that it has here, in order of that name.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &'static CommandSpec)> {
        self.known.iter().map(|known| (&*known.name, known.spec))
    }
}

/// Bytes of a name that count for its hash, which bounds the time that nonsense takes.
const HASHED_LEN: usize = 16;

/// The same for a name in either case, for bit 5 is all that upper and lower case differ in. Needs no seed: clients
/// can't add names.
fn hash(name: &[u8]) -> u64 {
    let mixed = name.iter().take(HASHED_LEN).fold(name.len() as u64, |hash, byte| {
        (hash ^ u64::from(byte | 0x20)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    });
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_in_any_case() {
        let table = CommandTable::new(&[]);
        for spec in commands::all() {
            let upper = spec.name.to_ascii_uppercase();
            for name in [spec.name, &upper] {
                assert!(std::ptr::eq(table.find(name.as_bytes()).unwrap().spec, spec), "{name}");
            }
        }
        for name in [&b""[..], b"nonsense", b"get\0", b"ge", &[b'g'; 100_000]] {
            assert!(table.find(name).is_none());
        }
    }

    #[test]
    fn a_hint_finds_the_same_command_wherever_it_points() {
        let table = CommandTable::new(&[]);
        for spec in commands::all() {
            let upper = spec.name.to_ascii_uppercase();
            for name in [spec.name.as_bytes(), upper.as_bytes()] {
                for start in [0, 1, table.known.len() as u16 - 1, u16::MAX] {
                    let mut hint = start;
                    for _ in 0..2 {
                        assert!(std::ptr::eq(table.find_near(name, &mut hint).unwrap().spec, spec));
                        assert!(std::ptr::eq(table.known[usize::from(hint)].spec, spec));
                    }
                }
            }
        }
        let mut hint = 3;
        assert!(table.find_near(b"nonsense", &mut hint).is_none() && hint == 3);
    }

    #[test]
    fn arity_is_that_of_the_command() {
        let table = CommandTable::new(&[]);
        for spec in commands::all() {
            let known = table.find(spec.name.as_bytes()).unwrap();
            (0..10).for_each(|words| assert_eq!(known.accepts(words), spec.accepts(words), "{}", spec.name));
        }
    }

    #[test]
    fn a_renamed_command_has_its_new_name_only() {
        let rename =
            |command: &str, name: &str| RenamedCommand { command: command.into(), name: name.into() };
        let table = CommandTable::new(&[rename("GET", "Fetch"), rename("set", "")]);
        assert_eq!(table.find(b"FETCH").unwrap().spec.name, "get");
        assert!(table.find(b"get").is_none() && table.find(b"set").is_none());
        assert_eq!(table.iter().len(), commands::all().count() - 1);
        assert!(table.iter().map(|(name, _)| name).is_sorted());
        let table = CommandTable::new(&[rename("GET", "SET"), rename("SET", "GET")]);
        assert_eq!(table.find(b"get").unwrap().spec.name, "set");
        assert_eq!(table.find(b"set").unwrap().spec.name, "get");
    }
}
