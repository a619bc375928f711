//! Bugs that can be planted in a node on purpose, so that a test of the simulator can show that its judge finds each.
//!
//! `ClusterConfig::planted` is `None` everywhere else. Each stands at the place where somebody might really make it.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// An earlier copy of a peer's shard replaces a later one.
    MergeWithoutSeqCheck,
    /// A message of a peer changes what this node has counted itself.
    PeerMovesOwnShard,
    /// A SET that arrives is added to the one that was in force.
    SetsSum,
    /// A node says that it has applied one publication more than it has.
    AcknowledgesOneTooMany,
    /// The line of a member that has fallen silent is drawn out for ever.
    LineIsNotFrozen,
    /// A zero counter is removed before everybody knows of it, and a late relay of what is older makes it again.
    ZeroComesBack,
    /// An heir adds a departed member's shard twice.
    TakenOverTwice,
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 7] = [
        Planted::MergeWithoutSeqCheck,
        Planted::PeerMovesOwnShard,
        Planted::SetsSum,
        Planted::AcknowledgesOneTooMany,
        Planted::LineIsNotFrozen,
        Planted::ZeroComesBack,
        Planted::TakenOverTwice,
    ];
}
