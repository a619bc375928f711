//! Reads the records of files at rest as a start would, without a node to put them into: for `--check` and `--repair`.

use super::{COUNTER, FACT, NODES, SELF, shown};
use crate::facts::{self, APPLIED, NodeFacts, NodeTable};
use crate::ids::MemberIndex;
use crate::state::{self, NEWER};
use crate::store::{Inspector, Record, Unreadable};

/// Knows what counters' states and the node's facts look like.
#[derive(Clone, Debug, Default)]
pub struct StateInspector {
    table: NodeTable,
}

/// Every number that the table has; whose it is makes no difference here.
struct InTable(usize);

impl state::Member for InTable {
    fn member(&self, number: u16) -> Option<MemberIndex> {
        (usize::from(number) < self.0).then_some(MemberIndex(number))
    }
}

impl StateInspector {
    fn read(&mut self, record: Record<'_>) -> Result<(), String> {
        let members = InTable(self.table.0.len());
        match (record.kind, record.key, record.payload) {
            (COUNTER, name, Some(payload)) => match state::decode(payload, &members) {
                Ok(_) => Ok(()),
                Err(error) if error.what == NEWER => Err(NEWER.to_owned()),
                Err(error) => Err(format!("counter {}: {error}", shown(name))),
            },
            (COUNTER, _, None) => Ok(()),
            (FACT, NODES, Some(bytes)) => {
                let table = NodeTable::decode(bytes).map_err(|error| error.to_string())?;
                if !table.0.starts_with(&self.table.0) {
                    return Err("a table of nodes that contradicts the one before".to_owned());
                }
                self.table = table;
                Ok(())
            }
            (FACT, SELF, Some(bytes)) => {
                let read = facts::decode_self(bytes, &mut NodeFacts::default());
                read.map(|_| ()).map_err(|error| error.to_string())
            }
            (FACT, APPLIED, Some(bytes)) => {
                let member = |number| state::Member::member(&members, number);
                let mut facts = NodeFacts::default();
                facts::decode_applied(bytes, member, &mut facts).map_err(|error| error.to_string())
            }
            _ => Err(NEWER.to_owned()),
        }
    }
}

impl Inspector for StateInspector {
    fn restart(&mut self) {
        *self = StateInspector::default();
    }

    fn record(&mut self, record: Record<'_>) -> Result<(), Unreadable> {
        self.read(record).map_err(|reason| {
            if reason == NEWER {
                Unreadable::Newer(format!("record {} of kind {}: {NEWER}", shown(record.key), record.kind))
            } else {
                Unreadable::Broken(reason)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(inspector: &mut StateInspector, kind: u8, key: &[u8], payload: &[u8]) -> Result<(), Unreadable> {
        inspector.record(Record { kind, key, payload: Some(payload) })
    }

    #[test]
    fn a_state_that_no_version_writes_is_broken_and_one_of_a_later_version_is_newer() {
        let mut inspector = StateInspector::default();
        assert_eq!(look(&mut inspector, COUNTER, b"likes", &[1, 0, 0, 0x54]), Ok(()));
        let cut_off = look(&mut inspector, COUNTER, b"likes", &[1, 0]).unwrap_err();
        assert!(
            matches!(&cut_off, Unreadable::Broken(what) if what.starts_with("counter likes: ")),
            "{cut_off}"
        );
        assert!(matches!(look(&mut inspector, COUNTER, b"likes", &[2]), Err(Unreadable::Newer(_))));
        assert!(matches!(look(&mut inspector, 77, b"likes", &[2]), Err(Unreadable::Newer(_))));
    }

    #[test]
    fn a_record_that_mentions_a_node_needs_the_table_of_nodes_before_it() {
        let mut inspector = StateInspector::default();
        // Applied: one node, number 0, up to (1, 1).
        let applied = [1, 1, 0, 1, 1];
        assert!(matches!(look(&mut inspector, FACT, APPLIED, &applied), Err(Unreadable::Broken(_))));
        let mut table = NodeTable::default();
        table.number_of(crate::ids::NodeId([7; 20]));
        assert_eq!(look(&mut inspector, FACT, NODES, &table.encode()), Ok(()));
        assert_eq!(look(&mut inspector, FACT, APPLIED, &applied), Ok(()));
        inspector.restart();
        assert!(look(&mut inspector, FACT, APPLIED, &applied).is_err());
    }
}
