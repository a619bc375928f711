//! The judge judged: histories of which the right answer is known.

use super::ledger::{By, SetRecord};
use super::*;
use crate::process::ShardState;
use engine::value::Value;

fn id(number: u8) -> NodeId {
    NodeId([number; 20])
}

fn place(host: u8, ms: u64) -> Place {
    Place {
        host: host.into(),
        life: 1,
        id: id(host),
        epoch: (0, 0),
        now: Micros::from_millis(ms),
        is_alone: false,
        is_acquainted: true,
    }
}

fn shard(generation: Generation, n: u64, value: i64) -> ShardState {
    ShardState { generation, seq: (1, n), value: Value::from_integer(value) }
}

fn counted(value: i64, n: u64) -> CounterState {
    CounterState { own: Some(shard(None, n, value)), ..CounterState::default() }
}

/// Node 1 has counted `amounts`, a second apart.
fn after_increments(amounts: &[i64]) -> Oracle {
    let mut oracle = Oracle::new(true);
    let mut sum = 0;
    for (number, &amount) in amounts.iter().enumerate() {
        let before = counted(sum, number as u64);
        sum += amount;
        let after = counted(sum, number as u64 + 1);
        let around = Around { read_before: None, before: &before, after: &after };
        let (amount, answer) = (Value::from_integer(amount), Value::from_integer(sum));
        oracle.incremented(place(1, 1_000 * (number as u64 + 1)), 0, amount, answer, around);
    }
    assert_eq!(oracle.violations, Vec::<String>::new());
    oracle
}

fn finding(host: u8, value: i64, state: CounterState) -> Finding {
    Finding { place: place(host, 90_000), value: Value::from_integer(value), exists: true, state }
}

fn knowing(peer: ShardState) -> CounterState {
    CounterState { peers: BTreeMap::from([(id(1), peer)]), ..CounterState::default() }
}

fn claim(value: i64, bound: i64, age_ms: u64) -> Claim {
    let (value, bound) = (Value::from_integer(value), Value::from_integer(bound));
    Claim { value, bound, age: Micros::from_millis(age_ms) }
}

#[test]
fn all_must_read_the_sum_of_all_increments() {
    let oracle = after_increments(&[5, -2, 10]);
    let findings =
        |value| [finding(1, value, counted(13, 3)), finding(2, value, knowing(shard(None, 3, 13)))];
    assert_eq!(oracle.settled(0, &findings(13)), Ok(()));
    assert!(oracle.settled(0, &findings(12)).is_err(), "an increment is missing");
    let differing = [finding(1, 13, counted(13, 3)), finding(2, 3, knowing(shard(None, 2, 3)))];
    assert!(oracle.settled(0, &differing).is_err());
}

#[test]
fn a_moved_own_shard_is_seen() {
    let mut oracle = after_increments(&[5]);
    oracle.look(place(1, 2_000), 0, &counted(5, 2));
    assert!(oracle.violations.is_empty());
    oracle.look(place(1, 3_000), 0, &counted(6, 3));
    assert_eq!(oracle.violations.len(), 1);
}

#[test]
fn a_seq_that_goes_back_is_seen() {
    let mut oracle = after_increments(&[5]);
    oracle.look(place(2, 2_000), 0, &knowing(shard(None, 4, 5)));
    oracle.look(place(2, 3_000), 0, &knowing(shard(None, 3, 5)));
    assert_eq!(oracle.violations.len(), 1);
}

/// Node 2 has deleted the counter, having seen of node 1 (the first publication) what adds up to this.
fn deleted_by_itself(oracle: &mut Oracle, seen: i64) {
    let state = CounterState {
        generation: Some((7, id(2).author(0))),
        observed: BTreeMap::from([(id(1), shard(None, 1, seen))]),
        ..CounterState::default()
    };
    oracle.note_balance(place(2, 4_000), 0, &state);
}

#[test]
fn a_node_may_delete_by_itself_only_what_read_zero_unless_it_was_forgotten() {
    let mut oracle = after_increments(&[5]);
    deleted_by_itself(&mut oracle, 5);
    assert_eq!(oracle.violations.len(), 1);
    let mut oracle = after_increments(&[5]);
    oracle.note_forgotten(id(2));
    deleted_by_itself(&mut oracle, 5);
    assert_eq!(oracle.violations, Vec::<String>::new());
}

#[test]
fn what_a_crash_has_lost_may_be_missing_at_every_moment_before_it() {
    let mut oracle = after_increments(&[5, -10, 8]);
    let left = || knowing(shard(None, 1, 5));
    oracle.crashed(id(1), (0, 0), Crash::Sudden, |_| vec![Survivor { id: id(2), state: left() }]);
    // A second and a half ago, when it had counted -5.
    for (value, is_possible) in [(5, true), (-5, true), (6, false)] {
        oracle.claimed(place(2, 4_000), 0, claim(value, 0, 1_500), &left(), &[id(1)]);
        assert_eq!(std::mem::take(&mut oracle.violations).is_empty(), is_possible, "{value}");
    }
}

#[test]
fn what_an_heir_took_over_just_before_its_death_is_lost_with_it() {
    let mut oracle = after_increments(&[5]);
    oracle.note_forgotten(id(1));
    // Nobody has looked at node 2 since it took over.
    oracle.lost_estates(id(2), (0, 0), |_| counted(5, 7), |_| Vec::new());
    oracle.crashed(id(2), (0, 0), Crash::Sudden, |_| Vec::new());
    let gone = Finding { exists: false, ..finding(2, 0, CounterState::default()) };
    assert_eq!(oracle.settled(0, &[gone]), Ok(()));
}

#[test]
fn what_a_node_takes_over_just_after_its_crash_it_has_not_counted() {
    let mut oracle = after_increments(&[5]);
    oracle.note_forgotten(id(1));
    oracle.look(place(2, 2_000), 0, &CounterState::default());
    oracle.crashed(id(2), (0, 0), Crash::Sudden, |_| Vec::new());
    // When somebody looks again it is the heir of node 1.
    oracle.look(place(2, 3_000), 0, &counted(5, 1));
    for (before, after) in [(counted(5, 1), counted(10, 1)), (counted(10, 2), counted(15, 2))] {
        let answer = after.own.expect("it has counted").value;
        let around = Around { read_before: None, before: &before, after: &after };
        oracle.incremented(place(2, 4_000), 0, Value::from_integer(5), answer, around);
    }
    // Of what it has counted 5 are left, as much as of what it has taken over.
    let peers = BTreeMap::from([(id(2), shard(None, 2, 10))]);
    let state = CounterState { peers, ..CounterState::default() };
    oracle.crashed(id(2), (0, 0), Crash::Sudden, |_| vec![Survivor { id: id(3), state: state.clone() }]);
    let is_right = |value| oracle.settled(0, &[finding(2, value, counted(value, 9))]).is_ok();
    assert!(is_right(10) && is_right(15), "5 may be lost");
    assert!(!is_right(5) && !is_right(20), "a living peer had 10, and nobody has counted more than 15");
}

#[test]
fn what_a_set_has_seen_is_gone_and_what_it_has_not_seen_stays() {
    let mut oracle = after_increments(&[5, 10]);
    // Node 2 knows the first increment only, and sets 100.
    let (before, generation) = (knowing(shard(None, 1, 5)), Some((1, id(2).author(0))));
    let observed = BTreeMap::from([(id(1), shard(None, 1, 5))]);
    let set_value = Value::from_integer(100);
    let after = CounterState {
        generation,
        set_value,
        observed,
        own: None,
        peers: before.peers.clone(),
        slacks: BTreeMap::new(),
    };
    let around = Around { read_before: Some(Value::from_integer(5)), before: &before, after: &after };
    oracle.set(place(2, 4_000), 0, set_value, around);
    assert_eq!(oracle.violations, Vec::<String>::new());
    let restated =
        CounterState { own: Some(shard(generation, 3, 10)), peers: BTreeMap::new(), ..after.clone() };
    let known = CounterState { peers: BTreeMap::from([(id(1), shard(generation, 3, 10))]), ..after };
    let findings = |value| [finding(1, value, restated.clone()), finding(2, value, known.clone())];
    assert_eq!(oracle.settled(0, &findings(110)), Ok(()));
    assert!(oracle.settled(0, &findings(115)).is_err(), "what was seen is counted again");
    assert!(oracle.settled(0, &findings(100)).is_err(), "what was not seen is lost");
}

#[test]
fn a_set_that_has_seen_what_its_node_did_not_read_is_noticed() {
    let mut oracle = after_increments(&[5, 10]);
    let (before, generation) = (knowing(shard(None, 1, 5)), Some((1, id(2).author(0))));
    let observed = BTreeMap::from([(id(1), shard(None, 1, 7))]);
    let after = CounterState { generation, observed, own: None, ..before.clone() };
    let around = Around { read_before: Some(Value::from_integer(5)), before: &before, after: &after };
    oracle.set(place(2, 4_000), 0, Value::ZERO, around);
    assert_eq!(oracle.violations.len(), 1);
}

#[test]
fn a_bound_holds_for_the_moment_that_is_claimed() {
    // 5 at 1 s, 3 at 2 s, 13 at 3 s.
    let is_kept = |claim: Claim, ms: u64| {
        let mut oracle = after_increments(&[5, -2, 10]);
        oracle.claimed(place(2, ms), 0, claim, &knowing(shard(None, 1, 5)), &[id(1), id(2)]);
        oracle.violations.is_empty()
    };
    assert!(is_kept(claim(13, 0, 500), 4_000));
    assert!(is_kept(claim(3, 0, 500), 3_200), "it was so half a second ago");
    assert!(!is_kept(claim(3, 1, 500), 4_000), "it was so longer ago");
    assert!(is_kept(claim(3, 10, 500), 4_000), "a wide bound is right");
    assert!(!is_kept(claim(20, 1, 60_000), 64_000), "a line drawn out for a node that stands still");
    assert!(!is_kept(claim(13, 9, 500), 3_200), "it is so now, but was 3 at that moment");
    assert!(!is_kept(claim(10, 6, 1_500), 4_000), "it was 3 at that moment and is 13");
}

#[test]
fn a_claim_holds_all_that_its_node_has_counted() {
    let mut oracle = after_increments(&[5, -2, 10]);
    oracle.claimed(place(1, 3_200), 0, claim(13, 10, 500), &counted(13, 3), &[id(1), id(2)]);
    assert!(oracle.violations.is_empty(), "{:?}", oracle.violations);
    oracle.claimed(place(1, 3_200), 0, claim(3, 0, 500), &counted(13, 3), &[id(1), id(2)]);
    assert_eq!(oracle.violations.len(), 1, "its client has just been told 13");
}

#[test]
fn a_crash_may_lose_what_nobody_else_has_and_nothing_more() {
    let survivors = |n, value| move |_| vec![Survivor { id: id(2), state: knowing(shard(None, n, value)) }];
    let findings =
        |value| [finding(1, value, counted(value, 9)), finding(2, value, knowing(shard(None, 9, value)))];
    let mut oracle = after_increments(&[5, 10, 20]);
    oracle.crashed(id(1), (0, 0), Crash::Sudden, survivors(2, 15));
    assert_eq!(oracle.settled(0, &findings(35)), Ok(()));
    assert_eq!(oracle.settled(0, &findings(15)), Ok(()));
    assert!(oracle.settled(0, &findings(5)).is_err(), "a living peer had 15");
    assert!(oracle.settled(0, &findings(36)).is_err(), "more than was ever counted");
    let mut oracle = after_increments(&[5, 10, 20]);
    oracle.crashed(id(1), (0, 0), Crash::Sudden, survivors(3, 35));
    assert!(oracle.settled(0, &findings(15)).is_err(), "a living peer had everything");
}

#[test]
fn what_a_quiet_node_had_of_a_crashed_one_dies_with_it_and_nothing_of_its_own() {
    let knows = |host, n, value| Survivor { id: id(host), state: knowing(shard(None, n, value)) };
    let is_right = |quiet: u8, value| {
        let mut oracle = after_increments(&[5, 10]);
        oracle.crashed(id(1), (0, 0), Crash::Sudden, |_| vec![knows(2, 2, 15), knows(3, 1, 5)]);
        oracle.crashed(id(quiet), (0, 0), Crash::Told, |_| vec![knows(3, 1, 5)]);
        oracle.settled(0, &[finding(1, value, counted(value, 9))]).is_ok()
    };
    assert!(is_right(2, 15) && is_right(2, 5), "nobody else had more");
    assert!(!is_right(2, 0), "somebody had 5");
    assert!(is_right(1, 15) && !is_right(1, 5), "it had told somebody");
}

#[test]
fn zeros_must_be_gone_and_sets_must_not() {
    let oracle = after_increments(&[5, -5]);
    let states = [finding(1, 0, counted(0, 2)), finding(2, 0, knowing(shard(None, 2, 0)))];
    assert!(oracle.settled(0, &states).is_err(), "it reads zero and exists");
    let gone = states.map(|finding| Finding { exists: false, state: CounterState::default(), ..finding });
    assert_eq!(oracle.settled(0, &gone), Ok(()));
}

/// A node SETs a counter to `value`, in the generation of that time, having seen its own shard at most.
fn set_by(oracle: &mut Oracle, host: u8, (time, value): (u64, i64), before: &CounterState) -> CounterState {
    let generation = Some((time, id(host).author(0)));
    let observed = before.own.map(|own| (id(host), own)).into_iter().collect();
    let own = before.own.map(|own| ShardState { generation, value: Value::ZERO, ..own });
    let set_value = Value::from_integer(value);
    let after = CounterState { generation, set_value, observed, own, ..CounterState::default() };
    let around = Around { read_before: None, before, after: &after };
    oracle.set(place(host, 4_000 + time), 0, set_value, around);
    after
}

#[test]
fn a_set_by_a_stranger_may_bring_back_what_a_set_has_seen_or_not() {
    let is_right = |has_met: bool, value| {
        let mut oracle = after_increments(&[5]);
        oracle.note_members(id(1), &[id(1), id(3)]);
        oracle.note_members(id(2), &[id(2), id(if has_met { 1 } else { 4 })]);
        set_by(&mut oracle, 1, (1, 7), &counted(5, 1));
        let after = set_by(&mut oracle, 2, (2, 100), &CounterState::default());
        assert_eq!(oracle.violations, Vec::<String>::new());
        oracle.settled(0, &[finding(1, value, after.clone()), finding(2, value, after)]).is_ok()
    };
    assert!(is_right(false, 100), "all whom node 1 knew had acknowledged the first SET");
    assert!(is_right(false, 105), "node 1 remembers what the first SET had seen");
    assert!(!is_right(false, 99) && !is_right(false, 106), "no more and no less");
    assert!(is_right(true, 105));
    assert!(!is_right(true, 100), "node 1 must remember it until node 2 has acknowledged it");
}

#[test]
fn what_a_set_took_a_dead_node_for_is_what_is_left_of_it_also_once_the_counter_was_removed() {
    let mut oracle = after_increments(&[5, 10]);
    // Node 2 follows a line that has passed the truth, deletes the counter, and node 1 is gone for good.
    let (before, generation) = (knowing(shard(None, 1, 5)), Some((1, id(2).author(0))));
    let observed = BTreeMap::from([(id(1), shard(None, 1, 20))]);
    let deleted = CounterState { generation, observed, ..before.clone() };
    let around = Around { read_before: None, before: &before, after: &deleted };
    oracle.set(place(2, 4_000), 0, Value::ZERO, around);
    oracle.crashed(id(1), (0, 0), Crash::ForGood, |_| vec![Survivor { id: id(2), state: deleted.clone() }]);
    oracle.note_forgotten(id(1));
    oracle.look(place(2, 5_000), 0, &deleted);
    oracle.look(place(2, 6_000), 0, &CounterState::default());
    let after = set_by(&mut oracle, 2, (2, 100), &CounterState::default());
    assert_eq!(oracle.violations, Vec::<String>::new());
    assert_eq!(oracle.settled(0, &[finding(2, 100, after.clone())]), Ok(()));
    assert!(oracle.settled(0, &[finding(2, 121, after)]).is_err(), "nobody has counted that");
}

#[test]
fn what_a_lower_set_has_seen_later_a_set_by_a_forgotten_node_may_have_seen_or_not() {
    let is_right = |is_forgotten: bool, value| {
        let mut oracle = after_increments(&[5]);
        if is_forgotten {
            oracle.note_forgotten(id(2));
        }
        let after = set_by(&mut oracle, 2, (2, 100), &CounterState::default());
        set_by(&mut oracle, 1, (1, 7), &counted(5, 1));
        assert_eq!(oracle.violations, Vec::<String>::new());
        oracle.settled(0, &[finding(1, value, after)]).is_ok()
    };
    assert!(is_right(true, 100) && is_right(true, 105) && !is_right(true, 99) && !is_right(true, 106));
    assert!(
        is_right(false, 105) && !is_right(false, 100),
        "node 1 remembers it until node 2 has the lower one"
    );
}

#[test]
fn what_two_sets_have_seen_of_a_departed_member_within_its_heir_and_by_itself_counts_once() {
    let (departed, heir) = (id(1), id(3));
    let mut oracle = after_increments(&[5]);
    oracle.note_forgotten(departed);
    oracle.look(place(3, 2_000), 0, &counted(5, 2));
    let set = |oracle: &mut Oracle, host: u8, before: &CounterState, observed: &[(NodeId, ShardState)]| {
        let generation = Some((u64::from(host), id(host).author(0)));
        let observed = observed.iter().copied().collect();
        let after = CounterState { generation, observed, peers: BTreeMap::new(), ..before.clone() };
        let around = Around { read_before: None, before, after: &after };
        oracle.set(place(host, 4_000), 0, Value::ZERO, around);
        after
    };
    let within = (heir, shard(None, 2, 5));
    let first = set(&mut oracle, 2, &CounterState::default(), &[within]);
    let not_told = CounterState { peers: knowing(shard(None, 1, 5)).peers, ..first };
    let second = set(&mut oracle, 4, &not_told, &[within, (departed, shard(None, 1, 5))]);
    assert_eq!(oracle.violations, Vec::<String>::new());
    let gone = |value| finding(3, value, second.clone());
    assert_eq!(oracle.settled(0, &[Finding { exists: false, ..gone(0) }]), Ok(()));
    assert!(oracle.settled(0, &[gone(5)]).is_err(), "it was seen");
}

#[test]
fn what_an_heir_has_taken_over_a_set_by_a_forgotten_node_may_have_seen_or_not() {
    let is_right = |is_taken_over: bool, author: u8, value: i64| {
        let mut oracle = after_increments(&[5]);
        oracle.note_members(id(author), &[id(1), id(2), id(3)]);
        let mut heir = counted(0, 1);
        oracle.note_forgotten(id(author));
        if is_taken_over {
            oracle.note_forgotten(id(1));
            heir = counted(5, 2);
            oracle.look(place(3, 2_000), 0, &heir);
        }
        // It has not heard of that, and has seen what node 1 had counted by itself.
        let generation = Some((7, id(author).author(0)));
        let observed = BTreeMap::from([(id(1), shard(None, 1, 5))]);
        let before = if author == 1 { counted(5, 1) } else { knowing(shard(None, 1, 5)) };
        let own = before.own.map(|own| ShardState { generation, value: Value::ZERO, ..own });
        let set_value = Value::from_integer(100);
        let after = CounterState { generation, set_value, observed, own, ..CounterState::default() };
        let around = Around { read_before: None, before: &before, after: &after };
        oracle.set(place(author, 4_000), 0, set_value, around);
        // A newcomer brings it along.
        let own = heir.own.map(|own| ShardState { generation, ..own });
        let told = CounterState { own, ..after };
        oracle.claimed(place(3, 9_000), 0, claim(value, 0, 300), &told, &[id(3)]);
        let is_possible = oracle.settled(0, &[finding(3, value, told)]).is_ok();
        assert_eq!(oracle.violations.is_empty(), is_possible, "{:?}", oracle.violations);
        is_possible
    };
    for author in [1, 2] {
        assert!(is_right(true, author, 100), "the heir remembers what it has from node 1");
        assert!(is_right(true, author, 105), "nobody does");
        assert!(!is_right(true, author, 99) && !is_right(true, author, 106), "no more and no less");
    }
    assert!(is_right(false, 2, 100) && !is_right(false, 2, 105), "node 1 is there and knows it");
}

#[test]
fn a_lower_set_stays_in_force_only_where_a_higher_one_was_removed_among_strangers() {
    let is_right = |has_met: bool| {
        let mut oracle = after_increments(&[5]);
        oracle.note_members(id(1), &[id(1), id(3)]);
        oracle.note_members(id(2), &[id(2), id(if has_met { 1 } else { 4 })]);
        let in_force = set_by(&mut oracle, 1, (1, 7), &counted(5, 1));
        set_by(&mut oracle, 2, (2, 0), &CounterState::default());
        oracle.look(place(2, 9_000), 0, &CounterState::default());
        assert_eq!(oracle.violations, Vec::<String>::new());
        oracle.settled(0, &[finding(1, 7, in_force.clone()), finding(2, 7, in_force)]).is_ok()
    };
    assert!(is_right(false));
    assert!(!is_right(true), "node 1 had to acknowledge what node 2 has removed");
}

#[test]
fn a_lower_set_that_a_forgotten_node_still_has_comes_back_with_whoever_it_talks_to() {
    let is_right = |is_forgotten: bool, kept: bool| {
        let mut oracle = after_increments(&[5]);
        oracle.note_members(id(1), &[id(1), id(2)]);
        let lower = set_by(&mut oracle, 1, (1, 7), &counted(5, 1));
        if kept {
            oracle.look(place(2, 4_500), 0, &CounterState { own: None, ..lower.clone() });
        }
        if is_forgotten {
            oracle.note_forgotten(id(2));
        }
        set_by(&mut oracle, 1, (2, 0), &lower);
        oracle.look(place(1, 9_000), 0, &CounterState::default());
        assert_eq!(oracle.violations, Vec::<String>::new());
        // A newcomer has it from node 2.
        oracle.settled(0, &[finding(3, 7, CounterState { own: None, ..lower })]).is_ok()
    };
    assert!(is_right(true, true));
    assert!(!is_right(false, true), "a member had to acknowledge what was removed");
    assert!(!is_right(true, false), "nobody had it any more");
}

#[test]
fn what_is_counted_the_moment_after_a_lone_node_has_removed_a_counter_is_counted_anew() {
    let mut oracle = after_increments(&[5]);
    set_by(&mut oracle, 1, (1, 0), &counted(5, 1));
    // It was removed after anybody has looked last.
    let fresh = ShardState { seq: (0, 0), ..shard(None, 0, -1) };
    let (before, after) =
        (CounterState::default(), CounterState { own: Some(fresh), ..CounterState::default() });
    let (amount, around) =
        (Value::from_integer(-1), Around { read_before: None, before: &before, after: &after });
    oracle.incremented(Place { is_alone: true, ..place(1, 6_000) }, 0, amount, amount, around);
    assert_eq!(oracle.violations, Vec::<String>::new());
}

#[test]
fn a_newcomer_that_was_forgotten_knows_what_was_removed_before_that() {
    for removed_since in [false, true] {
        let mut oracle = after_increments(&[5]);
        oracle.note_members(id(1), &[id(1), id(3)]);
        let deleted = set_by(&mut oracle, 1, (1, 0), &counted(5, 1));
        if removed_since {
            oracle.note_forgotten(id(2));
        }
        oracle.look(place(1, 5_000), 0, &deleted);
        oracle.look(place(1, 5_500), 0, &CounterState::default());
        oracle.note_forgotten(id(2));
        assert_eq!(oracle.violations, Vec::<String>::new());
        oracle.claimed(place(2, 9_000), 0, claim(0, 0, 10), &CounterState::default(), &[id(1), id(2)]);
        assert_eq!(oracle.violations.is_empty(), !removed_since, "since it was forgotten: {removed_since}");
    }
}

#[test]
fn a_lower_set_by_a_node_that_starts_may_outlive_a_removal() {
    let is_right = |has_crashed: bool| {
        let mut oracle = after_increments(&[5]);
        let deleted = set_by(&mut oracle, 1, (5, 0), &counted(5, 1));
        if has_crashed {
            let left = || vec![Survivor { id: id(1), state: deleted.clone() }];
            oracle.crashed(id(2), (0, 0), Crash::Sudden, |_| left());
        }
        let after = set_by(&mut oracle, 2, (3, 1), &CounterState::default());
        oracle.look(place(1, 6_000), 0, &deleted);
        oracle.look(place(1, 7_000), 0, &CounterState::default());
        assert_eq!(oracle.violations, Vec::<String>::new());
        oracle.settled(0, &[finding(2, 1, after)]).is_ok()
    };
    assert!(is_right(true), "when it came the other was remembered nowhere");
    assert!(!is_right(false));
}

#[test]
fn where_a_lone_node_has_removed_a_counter_the_lower_set_of_those_it_joins_is_in_force() {
    let is_right = |has_begun_anew: bool| {
        let mut oracle = after_increments(&[5]);
        let deleted = set_by(&mut oracle, 1, (9, 0), &counted(5, 1));
        let lower = set_by(&mut oracle, 2, (3, 1), &CounterState::default());
        oracle.look(Place { is_alone: true, ..place(1, 6_000) }, 0, &deleted);
        // It was removed, and the node joined, since anybody has looked.
        let begun = if has_begun_anew { deleted.generation } else { lower.generation };
        let own = Some(ShardState { seq: (0, 0), ..shard(begun, 0, 0) });
        oracle.look(place(1, 6_020), 0, &CounterState { own, ..lower });
        oracle.violations.is_empty()
    };
    assert!(is_right(true));
    assert!(!is_right(false), "a lower SET has replaced a higher one");
}

#[test]
fn a_counter_has_last_disappeared_under_a_lower_set_if_that_came_after_all_had_forgotten_the_other() {
    for (previous, last) in [(Some((9, 0)), (3, 1)), (None, (9, 0))] {
        let mut ledger = Ledger::default();
        for (made, previous) in [((9, 0), None), ((3, 1), previous)] {
            let (seen, seqs) = (BTreeMap::from([(id(1), Range::exactly(5))]), BTreeMap::new());
            let (at, by) = (Micros::from_secs(1), By::Member);
            let value = Value::ZERO;
            let set =
                SetRecord { value, seen, seqs, previous, acquainted: None, at, is_maybe_lost: false, by };
            ledger.sets.insert(made, set);
            ledger.note_removal(id(1), Removal { generation: Some(made), ..Removal::default() });
            ledger.note_removal(id(2), Removal { generation: Some(made), ..Removal::default() });
        }
        assert_eq!(ledger.floor(id(1)), Some(last), "made by one who had removed {previous:?}");
    }
}

#[test]
fn a_set_that_brings_along_what_a_lower_one_had_seen_before_the_counter_was_removed_has_seen_what_was_removed()
 {
    let mut ledger = Ledger::default();
    for (made, seen) in [((3, 1), 5), ((9, 0), 8)] {
        let (seen, seqs) = (BTreeMap::from([(id(1), Range::exactly(seen))]), BTreeMap::new());
        let (value, at, by) = (Value::ZERO, Micros::from_secs(1), By::Member);
        let set =
            SetRecord { value, seen, seqs, previous: None, acquainted: None, at, is_maybe_lost: false, by };
        ledger.sets.insert(made, set);
    }
    ledger.author(id(1)).max_seq = (1, 5);
    ledger.note_removal(id(2), Removal { generation: Some((9, 0)), ..Removal::default() });
    for (n, has_seen) in [(2, 8), (5, 8), (6, 5)] {
        let mut seen = BTreeMap::from([(id(1), Range::exactly(5))]);
        let observed = BTreeMap::from([(id(1), shard(Some((3, 1)), n, 0))]);
        ledger.note_removed(&mut seen, &observed, Some((3, 1)), None);
        assert_eq!(seen[&id(1)], Range::exactly(has_seen), "at number {n}; it was removed at 5");
    }
}

#[test]
fn what_was_given_up_for_a_reset_that_is_lost_is_missing_from_where_all_stood_before() {
    let is_right = |is_told: bool| {
        let mut oracle = after_increments(&[5]);
        // Node 1 forgets it, node 2 has it.
        let left = |_| vec![Survivor { id: id(2), state: knowing(shard(None, 1, 5)) }];
        oracle.crashed(id(1), (0, 0), Crash::Sudden, left);
        oracle.look(Place { epoch: (7, 2), ..place(2, 6_000) }, 0, &counted(0, 1));
        assert_eq!(oracle.epochs_before((7, 2)), BTreeSet::from([(0, 0)]));
        // Node 2, the only one that has carried out the reset, is gone for good.
        if is_told {
            oracle.crashed(id(2), (0, 0), Crash::ForGood, |_| Vec::new());
        }
        let gone = Finding { exists: false, ..finding(1, 0, CounterState::default()) };
        oracle.settled(0, &[gone]).is_ok()
    };
    assert!(is_right(true));
    assert!(!is_right(false));
}
