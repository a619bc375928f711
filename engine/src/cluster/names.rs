//! Names as numbers: each direction of a link gives a name a number when its counter moves, and sends only that from then on.
//!
//! Bounded on both sides by `MAX_NAMES`; when all numbers are given away, the one that was given first is given anew. The
//! sender remembers the name with the place of the counter, since a place may be given to another counter. Counters at rest
//! that a newcomer is told of get no number: most of them are never mentioned again.

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
    /// By number: whose it is.
    places: Vec<Handle>,
    /// The number that is given next.
    next: usize,
}

impl NamesOut {
    /// How to send the name of the counter at this place, which is likely to be sent again.
    pub(crate) fn refer<'a>(&mut self, handle: Handle, name: &'a [u8]) -> NameRef<'a> {
        match self.refer_once(handle, name) {
            NameRef::Literal(name) if name.len() <= MAX_NUMBERED_LEN => {
                NameRef::New(self.give_number(handle, name), name)
            }
            known => known,
        }
    }

    /// The same for one that is not.
    pub(crate) fn refer_once<'a>(&self, handle: Handle, name: &'a [u8]) -> NameRef<'a> {
        match self.numbers.get(&handle) {
            Some((number, known)) if known.as_slice() == name => NameRef::Known(*number),
            Some(_) | None => NameRef::Literal(name),
        }
    }

    fn give_number(&mut self, handle: Handle, name: &[u8]) -> u32 {
        let number = self.next;
        self.next = (number + 1) % MAX_NAMES;
        match self.places.get_mut(number) {
            None => self.places.push(handle),
            Some(place) => {
                let before = std::mem::replace(place, handle);
                if self.numbers.get(&before).is_some_and(|(theirs, _)| *theirs as usize == number) {
                    self.numbers.remove(&before);
                }
            }
        }
        let number = u32::try_from(number).expect("MAX_NAMES is far below");
        self.numbers.insert(handle, (number, Name::from_slice(name)));
        number
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
    /// A number that was never given, or is given before its turn.
    pub(crate) fn resolve<'a>(&'a mut self, name: NameRef<'a>) -> Result<&'a [u8], DecodeError> {
        match name {
            NameRef::Literal(name) => Ok(name),
            NameRef::Known(number) => self
                .names
                .get(number as usize)
                .map(|name| name.as_slice())
                .ok_or(DecodeError { what: "name id" }),
            NameRef::New(number, name) => {
                let (number, count) = (number as usize, self.names.len());
                match self.names.get_mut(number) {
                    Some(before) => *before = Name::from_slice(name),
                    None if number == count && number < MAX_NAMES => {
                        self.names.push(Name::from_slice(name));
                    }
                    None => return Err(DecodeError { what: "new name id" }),
                }
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
    fn a_name_that_is_sent_once_gets_no_number() {
        let mut names_out = NamesOut::default();
        assert_eq!(names_out.refer_once(PLACE, b"views"), NameRef::Literal(b"views"));
        assert_eq!(names_out.refer(PLACE, b"views"), NameRef::New(0, b"views"));
        assert_eq!(names_out.refer_once(PLACE, b"views"), NameRef::Known(0));
    }

    #[test]
    fn numbers_are_given_anew_when_all_are_given_away() {
        let (mut names_out, mut names_in) = (NamesOut::default(), NamesIn::default());
        let place = |index| Handle { stripe: 1, index };
        let name = |index: u32| index.to_string().into_bytes();
        let last = MAX_NAMES as u32 + 1;
        for index in 0..=last {
            let name = name(index);
            assert_eq!(names_in.resolve(names_out.refer(place(index), &name)).unwrap(), &name);
        }
        assert_eq!((names_out.numbers.len(), names_in.names.len()), (MAX_NAMES, MAX_NAMES));
        assert_eq!(names_out.refer(place(last), &name(last)), NameRef::Known(1));
        assert_eq!(names_in.resolve(NameRef::Known(1)).unwrap(), name(last));
        assert_eq!(names_out.refer(place(2), &name(2)), NameRef::Known(2));
        assert_eq!(names_out.refer(place(0), &name(0)), NameRef::New(2, &name(0)));
    }

    #[test]
    fn numbers_out_of_turn_are_refused() {
        let mut names_in = NamesIn::default();
        assert!(names_in.resolve(NameRef::Known(0)).is_err());
        assert!(names_in.resolve(NameRef::New(5, b"x")).is_err());
    }
}
