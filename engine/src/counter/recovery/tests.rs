//! Starts, and what comes back after them.

use super::*;
use crate::counter::{OwnStream, PrecisionId};
use crate::generation::{Observed, Record};
use crate::shard::Horizons;
use crate::state;

const NOW: Micros = Micros(1);

fn seq(incarnation: u32, n: u64) -> Seq {
    Seq { incarnation, n }
}

fn generation(time: u64) -> Generation {
    Generation { time, ..Generation::ZERO }
}

/// What a peer has kept.
fn copy(generation: Generation, seq: Seq, value: i64) -> KeptCopy {
    let stated = Stated { member: MemberIndex::SELF, generation, seq, value: Value::from_integer(value) };
    KeptCopy { stated, subtracted: Subtractions::default(), decimals: 0 }
}

/// A SET to zero by somebody else.
fn record(time: u64, observed: &[(Generation, Seq, i64)]) -> Record {
    let observed = observed.iter().map(|&(generation, seq, value)| {
        let value = Value::from_integer(value);
        Observed { member: MemberIndex::SELF, generation, seq, value }
    });
    Record { generation: generation(time), observed: observed.collect(), ..Record::default() }
}

/// A counter of which nothing is left after a crash.
fn started() -> Counter {
    let mut counter = Counter::new(b"a", PrecisionId(0));
    counter.make_full().begin_recovery(0, 0);
    counter
}

fn add(counter: &mut Counter, delta: i64) {
    counter.add(Value::from_integer(delta), NOW, &Horizons::default()).unwrap();
}

fn set(counter: &mut Counter, time: u64) {
    let (stream, horizons) = (OwnStream::default(), Horizons::default());
    counter.set(Value::ZERO, generation(time), false, true, stream, NOW, &horizons);
}

/// The shard is published as it is, as the first of this life.
fn publish(counter: &mut Counter, life: u32) {
    let full = counter.make_full();
    full.seq = seq(life, 1);
    full.join_since_start();
}

fn own(counter: &Counter) -> String {
    counter.own().to_string()
}

#[test]
fn what_comes_back_is_on_top_of_what_was_counted_since() {
    let mut counter = started();
    add(&mut counter, 5);
    assert!(counter.recover(copy(Generation::ZERO, seq(1, 3), 10), Counter::NO_LIFE, NOW));
    assert!(!counter.recover(copy(Generation::ZERO, seq(1, 2), 9), Counter::NO_LIFE, NOW), "older");
    assert_eq!(own(&counter), "15");
    assert!(counter.recover(copy(Generation::ZERO, seq(1, 4), 11), Counter::NO_LIFE, NOW));
    assert_eq!(own(&counter), "16");
}

#[test]
fn a_set_before_anything_has_come_back_voids_what_was_counted_since_and_no_more() {
    let mut counter = started();
    add(&mut counter, 5);
    set(&mut counter, 1);
    assert_eq!(own(&counter), "0");
    add(&mut counter, 3);
    counter.recover(copy(Generation::ZERO, seq(1, 3), 10), Counter::NO_LIFE, NOW);
    assert_eq!(own(&counter), "13");
}

#[test]
fn what_a_set_of_this_start_had_seen_is_counted_again_if_another_wins() {
    for is_published in [false, true] {
        for has_come_back in [false, true] {
            let mut counter = started();
            add(&mut counter, 5);
            set(&mut counter, 1);
            add(&mut counter, 3);
            if has_come_back {
                counter.recover(copy(Generation::ZERO, seq(1, 3), 10), Counter::NO_LIFE, NOW);
            }
            if is_published {
                publish(&mut counter, 2);
            }
            counter.learn(record(2, &[(Generation::ZERO, seq(1, 3), 10)]), Seq::ZERO);
            if !has_come_back {
                let life = if is_published { 2 } else { Counter::NO_LIFE };
                counter.recover(copy(Generation::ZERO, seq(1, 3), 10), life, NOW);
            }
            assert_eq!(own(&counter), "8", "published: {is_published}, back: {has_come_back}");
        }
    }
}

#[test]
fn what_comes_back_late_was_not_seen_by_a_set_that_had_seen_this_life() {
    let mut counter = started();
    add(&mut counter, 5);
    publish(&mut counter, 2);
    counter.learn(record(1, &[(Generation::ZERO, seq(2, 1), 5)]), Seq::ZERO);
    add(&mut counter, 1);
    assert!(counter.recover(copy(Generation::ZERO, seq(1, 3), 10), 2, NOW));
    assert_eq!(own(&counter), "11");
    assert!(counter.recover(copy(Generation::ZERO, seq(1, 4), 12), 2, NOW), "another had more");
    assert_eq!(own(&counter), "13");
    assert!(!counter.recover(copy(Generation::ZERO, seq(2, 1), 5), 2, NOW), "of this life");
}

#[test]
fn what_comes_back_late_and_a_set_had_seen_in_the_life_before_stays_void() {
    let mut counter = started();
    add(&mut counter, 5);
    publish(&mut counter, 2);
    counter.learn(record(1, &[(Generation::ZERO, seq(1, 3), 10)]), Seq::ZERO);
    counter.recover(copy(Generation::ZERO, seq(1, 4), 12), 2, NOW);
    assert_eq!(own(&counter), "7");
}

#[test]
fn what_a_life_between_has_counted_is_counted_once() {
    let mut counter = started();
    let units = |integer| Value::from_integer(integer).units();
    counter.make_full().since_start.as_mut().unwrap().earlier = vec![(2, units(4)), (3, units(1))];
    // What the disk had kept of both, and 5 of this life.
    add(&mut counter, 5);
    add(&mut counter, 5);
    publish(&mut counter, 4);
    counter.recover(copy(Generation::ZERO, seq(2, 7), 14), 4, NOW);
    assert_eq!(own(&counter), "20", "10 of the first life, 4 of the second, 1 of the third, 5 of the fourth");
}

#[test]
fn what_lost_sets_had_subtracted_comes_back_with_the_copy() {
    let units = |integer| Value::from_integer(integer).units();
    // One SET had observed 100 of it, and perhaps another 5 of what came then; the one in force, by somebody who knew
    // neither, 30 of the 100.
    let in_force = record(3, &[(Generation::ZERO, seq(1, 1), 30)]);
    let both = Subtractions(vec![(Generation::ZERO, units(100)), (generation(1), units(5))]);
    let first = Subtractions(both.0[..1].to_vec());
    for (subtracted, stated_in, left) in [(first, generation(1), "71"), (both, generation(2), "76")] {
        for life in [Counter::NO_LIFE, 2] {
            let mut counter = started();
            counter.learn(in_force.clone(), Seq::ZERO);
            if life == 2 {
                publish(&mut counter, 2);
            }
            let subtracted = subtracted.clone();
            counter.recover(KeptCopy { subtracted, ..copy(stated_in, seq(1, 9), 1) }, life, NOW);
            assert_eq!(own(&counter), left, "all but the 30 that the SET in force has seen ({life})");
        }
    }
}

#[test]
fn what_was_subtracted_before_a_counter_was_removed_does_not_come_back_with_the_copy() {
    let mut before = Counter::new(b"a", PrecisionId(0));
    add(&mut before, 31);
    publish(&mut before, 1);
    set(&mut before, 1);
    // All others know that, and remove it; then it is counted again.
    let full = before.make_full();
    (full.seq, full.record_seq) = (seq(1, 2), seq(1, 2));
    add(&mut before, 2);
    let full = before.make_full();
    full.give_up_acknowledged(seq(1, 2));
    let subtracted = full.told_subtractions().unwrap_or_default();
    // One who has removed it SETs it, without having seen any of that.
    let mut counter = started();
    counter.learn(record(2, &[]), Seq::ZERO);
    let copy = copy(generation(1), seq(1, 3), 2);
    let subtracted = match subtracted.is_empty() {
        true => Subtractions::by(before.full().and_then(Full::record).unwrap(), MemberIndex::SELF),
        false => subtracted,
    };
    counter.recover(KeptCopy { subtracted, ..copy }, Counter::NO_LIFE, NOW);
    assert_eq!(own(&counter), "2");
}

#[test]
fn a_set_has_not_seen_what_a_later_life_has_subtracted_in_a_lower_generation() {
    let mut counter = started();
    // A life that knows of no SET yet counts 4, and SETs to zero in a low generation.
    add(&mut counter, 4);
    publish(&mut counter, 2);
    set(&mut counter, 1);
    publish(&mut counter, 2);
    // The life before had counted 15 in a higher one, of which the SET that wins has seen all.
    counter.recover(copy(generation(5), seq(1, 7), 15), 2, NOW);
    counter.learn(record(6, &[(generation(5), seq(1, 7), 15)]), Seq::ZERO);
    assert_eq!(own(&counter), "4");
    // The same again by SETs that knew nothing of it; the second by somebody who has nothing to hand back.
    counter.learn(record(7, &[(generation(5), seq(1, 7), 15)]), Seq::ZERO);
    assert_eq!(own(&counter), "4");
    counter.make_full().end_recovery();
    counter.learn(record(8, &[(generation(5), seq(1, 7), 15)]), Seq::ZERO);
    assert_eq!(own(&counter), "4");
}

#[test]
fn what_a_low_set_of_this_start_had_seen_is_no_part_of_what_was_subtracted_before() {
    for former in [Subtractions::given_up(generation(5)), Subtractions(vec![(generation(3), 7)])] {
        for set_has_seen_this_life in [true, false] {
            let mut counter = started();
            add(&mut counter, 1);
            set(&mut counter, 1);
            add(&mut counter, 2);
            let copy = copy(generation(5), seq(1, 3), 90);
            let kept = KeptCopy { subtracted: former.clone(), ..copy };
            counter.recover(kept, Counter::NO_LIFE, NOW);
            publish(&mut counter, 2);
            counter.make_full().end_recovery();
            assert_eq!(own(&counter), "92");
            let (seen, left) = match set_has_seen_this_life {
                true => ((generation(5), seq(2, 1), 92), "0"),
                // Nor had it seen the SET of this start, nor what that had seen.
                false => ((generation(5), seq(1, 3), 90), "3"),
            };
            counter.learn(record(6, &[seen]), Seq::ZERO);
            assert_eq!(own(&counter), left, "{former:?}");
        }
    }
}

#[test]
fn what_this_life_has_seen_of_the_one_before_stays_void_if_another_set_has_seen_only_that() {
    let mut counter = started();
    counter.recover(copy(Generation::ZERO, seq(1, 3), 61), Counter::NO_LIFE, NOW);
    counter.learn(record(1, &[(Generation::ZERO, seq(1, 3), 61)]), Seq::ZERO);
    add(&mut counter, 31);
    set(&mut counter, 2);
    publish(&mut counter, 2);
    // By somebody who knew of the SET of this start, and nothing that this life has published.
    let seen = counter.full().and_then(Full::record).unwrap().observed.clone();
    counter.learn(Record { generation: generation(4), observed: seen, ..Record::default() }, Seq::ZERO);
    assert_eq!(own(&counter), "31");
}

#[test]
fn what_comes_back_late_beyond_what_a_set_of_this_start_had_seen_is_counted() {
    let mut counter = started();
    // One member had 302 of it, which the SET in force and those of this start have seen.
    counter.recover(copy(generation(1), seq(1, 3), 302), Counter::NO_LIFE, NOW);
    counter.learn(record(3, &[(generation(1), seq(1, 3), 302)]), Seq::ZERO);
    set(&mut counter, 4);
    set(&mut counter, 5);
    publish(&mut counter, 2);
    // Another had 303 of it, and 511 that came after a SET that had seen those.
    let subtracted = Subtractions(vec![(generation(1), Value::from_integer(303).units())]);
    counter.recover(KeptCopy { subtracted, ..copy(generation(2), seq(1, 9), 511) }, 2, NOW);
    assert_eq!(own(&counter), "512");
}

#[test]
fn what_comes_back_below_a_set_of_this_life_may_have_been_seen_by_the_one_that_wins() {
    let mut counter = started();
    set(&mut counter, 5);
    publish(&mut counter, 2);
    counter.recover(copy(Generation::ZERO, seq(1, 3), 30), 2, NOW);
    assert_eq!(own(&counter), "30", "the own SET has not seen it");
    counter.learn(record(6, &[(Generation::ZERO, seq(1, 3), 30)]), Seq::ZERO);
    assert_eq!(own(&counter), "0");
}

/// What the disk would have of it is all that is left.
fn crash(counter: &mut Counter, incarnation: u32) {
    struct Nobody;
    impl state::Number for Nobody {
        fn number(&mut self, _: MemberIndex) -> Option<u16> {
            Some(0)
        }
    }
    impl state::Member for Nobody {
        fn member(&self, _: u16) -> Option<MemberIndex> {
            Some(MemberIndex::SELF)
        }
    }
    let (mut bytes, horizons) = (Vec::new(), Horizons::default());
    let at = state::At { now: NOW, horizons: &horizons, incarnation };
    state::encode(counter, None, at, &mut Nobody, &mut bytes);
    *counter = Counter::new(b"a", PrecisionId(0));
    counter.restore(state::decode(&bytes, &Nobody).unwrap());
    let own = counter.own().units();
    counter.make_full().begin_recovery(own, 0);
}

/// Its first life has counted 10, its second 5, then SET to zero, and counted 3, before anybody had answered. It starts anew.
fn started_after_a_set(is_published: bool) -> Counter {
    let mut counter = Counter::new(b"a", PrecisionId(0));
    add(&mut counter, 10);
    publish(&mut counter, 1);
    crash(&mut counter, 1);
    add(&mut counter, 5);
    set(&mut counter, 1);
    add(&mut counter, 3);
    crash(&mut counter, 2);
    assert_eq!(own(&counter), "3");
    if is_published {
        publish(&mut counter, 3);
    }
    counter
}

#[test]
fn what_a_set_of_a_start_that_crashed_too_had_seen_is_not_counted_again() {
    for is_published in [false, true] {
        for (another_wins, left) in [(false, "4"), (true, "9")] {
            let mut counter = started_after_a_set(is_published);
            let life = if is_published { 3 } else { Counter::NO_LIFE };
            // The first had counted an 11th that the disk lacks.
            assert!(counter.recover(copy(Generation::ZERO, seq(1, 2), 11), life, NOW));
            if another_wins {
                // By somebody who had seen those 11, and knew nothing of the SET of the second life, nor what that had counted.
                counter.learn(record(2, &[(Generation::ZERO, seq(1, 2), 11)]), Seq::ZERO);
                add(&mut counter, 1);
            }
            assert_eq!(own(&counter), left, "published: {is_published}, another wins: {another_wins}");
        }
    }
}

#[test]
fn what_the_life_that_has_made_a_set_has_published_holds_all_that_it_had_counted() {
    for is_published in [false, true] {
        for is_joined in [false, true] {
            for (handed_back, another_wins, left) in
                [(3, false, "3"), (4, false, "4"), (3, true, "8"), (4, true, "9")]
            {
                let mut counter = started_after_a_set(is_published && is_joined);
                let life = if is_published { 3 } else { Counter::NO_LIFE };
                let units = |integer| Value::from_integer(integer).units();
                let subtracted = Subtractions(vec![(Generation::ZERO, units(15))]);
                let kept = copy(generation(1), seq(2, 1), handed_back);
                assert!(counter.recover(KeptCopy { subtracted, ..kept }, life, NOW));
                if another_wins {
                    counter.learn(record(2, &[(Generation::ZERO, seq(1, 1), 10)]), Seq::ZERO);
                }
                let what = format!("{is_published}, {is_joined}, {handed_back}, {another_wins}");
                assert_eq!(own(&counter), left, "{what}");
            }
        }
    }
}

#[test]
fn what_was_removed_since_takes_nothing_from_what_is_counted_after_a_set_of_this_start() {
    for (is_published, sets_anew) in [(false, false), (false, true), (true, false)] {
        let mut counter = started_after_a_set(false);
        if sets_anew {
            add(&mut counter, 7);
            set(&mut counter, 2);
        }
        if is_published {
            publish(&mut counter, 3);
        }
        add(&mut counter, 2);
        let life = if is_published { 3 } else { Counter::NO_LIFE };
        counter.make_full().has_published_zero = false;
        counter.recover_removed(seq(2, 9), generation(3), life, NOW);
        assert_eq!(own(&counter), "2", "published: {is_published}, sets anew: {sets_anew}");
    }
}

#[test]
fn a_removal_voids_the_set_that_was_published_and_none_that_came_after_it() {
    for (published_in, left) in [(1, 100), (2, 0)] {
        let mut counter = started();
        let hundred = Record { value: Value::from_integer(100), ..record(2, &[]) };
        counter.learn(hundred, Seq::ZERO);
        counter.recover(copy(generation(published_in), seq(1, 3), 5), Counter::NO_LIFE, NOW);
        add(&mut counter, 7);
        counter.recover_removed(seq(1, 9), generation(3), Counter::NO_LIFE, NOW);
        assert_eq!((own(&counter).as_str(), counter.set_value()), ("7", Value::from_integer(left)));
    }
}

#[test]
fn a_removal_does_not_void_what_the_disk_has_beyond_a_zero_that_was_published() {
    // What was there beyond something else was part of the zero that followed.
    for (is_published, was_zero, left) in [(true, false, "0"), (false, false, "0"), (false, true, "5")] {
        let mut counter = Counter::new(b"a", PrecisionId(0));
        add(&mut counter, 5);
        let full = counter.make_full();
        (full.seq, full.is_restated, full.has_published_zero) = (seq(1, 3), !is_published, was_zero);
        counter.recover_removed(seq(1, 9), generation(3), Counter::NO_LIFE, NOW);
        assert_eq!(own(&counter), left);
    }
}

#[test]
fn what_was_published_is_better_than_what_a_set_took_it_for() {
    let mut counter = started();
    let seen = Observed {
        member: MemberIndex::SELF,
        generation: Generation::ZERO,
        seq: seq(1, 3),
        value: Value::from_integer(9),
    };
    counter.recover_observed(seen, Counter::NO_LIFE, NOW);
    assert_eq!(own(&counter), "9");
    assert!(counter.recover(copy(Generation::ZERO, seq(1, 3), 10), Counter::NO_LIFE, NOW));
    assert!(!counter.recover(copy(Generation::ZERO, seq(1, 3), 11), Counter::NO_LIFE, NOW), "once");
    assert_eq!(own(&counter), "10");
}

#[test]
fn what_one_peer_has_given_back_after_a_reset_is_not_new_when_the_next_is_asked() {
    const LIFE: u32 = 10;
    let mut counter = Counter::new(b"a", PrecisionId(0));
    let kept = || copy(Generation::ZERO, seq(5, 60), 1_001);
    counter.make_full().begin_recovery_after_reset(0);
    assert!(counter.recover(kept(), LIFE, NOW));
    add(&mut counter, 7);
    let units = counter.own().units();
    counter.make_full().begin_recovery_after_reset(units);
    assert!(!counter.recover(kept(), LIFE, NOW));
    assert_eq!(own(&counter), "1008");
    assert!(counter.recover(copy(Generation::ZERO, seq(5, 61), 1_002), LIFE, NOW));
    assert_eq!(own(&counter), "1009");
}
