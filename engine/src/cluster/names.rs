//! Names as numbers: each direction of a link gives a name a number at its first use and sends only that from then on.
//!
//! Bounded on both sides by `MAX_NAMES`; names beyond travel as they are. The sender remembers the name with the place of the
//! counter, since a place may be given to another counter.

use crate::cluster::updates::NameRef;
use crate::cluster::wire::DecodeError;
use crate::counter::Name;
use crate::keyspace::Handle;
use std::collections::BTreeMap;

/// Most numbered names per link and direction.
pub(crate) const MAX_NAMES: usize = 1 << 20;

/// Longest name that gets a number; longer ones are rare and would make the tables large.
const MAX_NUMBERED_LEN: usize = 256;

/// Names that we have sent.
#[derive(Debug, Default)]
pub(crate) struct NamesOut {
    numbers: BTreeMap<Handle, (u32, Name)>,
    next: u32,
}

impl NamesOut {
    /// How to send the name of the counter at this place.
    pub(crate) fn refer<'a>(&mut self, handle: Handle, name: &'a [u8]) -> NameRef<'a> {
        if let Some((number, known)) = self.numbers.get(&handle)
            && known.as_slice() == name
        {
            return NameRef::Known(*number);
        }
        if self.next as usize >= MAX_NAMES || name.len() > MAX_NUMBERED_LEN {
            return NameRef::Literal(name);
        }
        let number = self.next;
        self.next += 1;
        self.numbers.insert(handle, (number, Name::from_slice(name)));
        NameRef::New(number, name)
    }
}

/// Names that a peer has sent.
#[derive(Debug, Default)]
pub(crate) struct NamesIn {
    names: Vec<Name>,
}

impl NamesIn {
    /// The name that is meant.
    ///
    /// # Errors
    /// A number that was never given, or given out of turn.
    pub(crate) fn resolve<'a>(&'a mut self, name: NameRef<'a>) -> Result<&'a [u8], DecodeError> {
        match name {
            NameRef::Literal(name) => Ok(name),
            NameRef::Known(number) => self
                .names
                .get(number as usize)
                .map(|name| name.as_slice())
                .ok_or(DecodeError { what: "name id" }),
            NameRef::New(number, name) => {
                if number as usize != self.names.len() || self.names.len() >= MAX_NAMES {
                    return Err(DecodeError { what: "new name id" });
                }
                self.names.push(Name::from_slice(name));
                Ok(name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Handle = Handle { stripe: 1, index: 2 };

    #[test]
    fn a_name_is_sent_once() {
        let (mut names_out, mut names_in) = (NamesOut::default(), NamesIn::default());
        assert_eq!(names_out.refer(PLACE, b"views"), NameRef::New(0, b"views"));
        assert_eq!(names_out.refer(PLACE, b"views"), NameRef::Known(0));
        assert_eq!(names_in.resolve(NameRef::New(0, b"views")).unwrap(), b"views");
        assert_eq!(names_in.resolve(NameRef::Known(0)).unwrap(), b"views");
    }

    #[test]
    fn a_place_with_another_counter_gets_another_number() {
        let mut names_out = NamesOut::default();
        names_out.refer(PLACE, b"old");
        assert_eq!(names_out.refer(PLACE, b"new"), NameRef::New(1, b"new"));
    }

    #[test]
    fn numbers_out_of_turn_are_refused() {
        let mut names_in = NamesIn::default();
        assert!(names_in.resolve(NameRef::Known(0)).is_err());
        assert!(names_in.resolve(NameRef::New(5, b"x")).is_err());
    }
}
