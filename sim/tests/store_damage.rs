//! The store's files cut at every byte and flipped at every bit, exchanged, filled with zeros, and repaired.
//!
//! A start may find the state after some commit, or refuse; never a state that was not committed.

#![allow(clippy::unwrap_used)] // tests
#![allow(clippy::print_stderr)] // how often a start was refused

mod store_run;

use std::collections::BTreeSet;

use engine::store::{
    AnyRecord, Disk, Inspector, Record, Stats, Store, StoreError, Unreadable, check, repair,
};
use sim::disk::{Dice, FakeDisk};
use store_run::{Recovered, Run, States, options, seeds};

/// A directory with a snapshot and several segments, and every state that was ever committed.
fn written(seed: u64, is_closed: bool) -> (FakeDisk, Vec<States>) {
    write_until(seed, seed, is_closed, 700, |stats| stats.segments >= 3 && stats.unsynced_bytes > 200)
}

/// The same, but the log is as short as the snapshot allows: some of it was written while the snapshot was walked.
fn written_up_to_a_snapshot(seed: u64) -> (FakeDisk, Vec<States>) {
    write_until(seed, seed, false, 1 << 20, |stats| stats.log_bytes > 300)
}

fn write_until(
    seed: u64,
    family: u64,
    is_closed: bool,
    segment_bytes: u64,
    is_done: impl Fn(&Stats) -> bool,
) -> (FakeDisk, Vec<States>) {
    let disk = FakeDisk::new(seed);
    let mut run = Run::new(seed, &disk);
    run.options.seed = family;
    run.options.segment_bytes = segment_bytes;
    run.open(false, "no fault");
    let mut committed = vec![States::new()];
    for round in 0.. {
        run.change();
        assert!(run.commit());
        committed.push(run.memory.states.clone());
        let stats = run.store().stats();
        if round > 30 && stats.counts.snapshots > 0 && !stats.is_snapshotting && is_done(&stats) {
            break;
        }
        if run.dice.chance(40) {
            run.sync();
        }
        run.snapshot();
        assert!(round < 10_000, "seed {seed}: the run never has all kinds of files");
    }
    if is_closed {
        run.take_store().close().unwrap();
    }
    (disk, committed)
}

fn files(disk: &FakeDisk) -> Vec<String> {
    disk.clone().list().unwrap().into_iter().map(|(name, _)| name).collect()
}

fn segments(disk: &FakeDisk) -> Vec<String> {
    files(disk).into_iter().filter(|name| name.ends_with(".log")).collect()
}

fn try_open(disk: &FakeDisk, seed: u64) -> Result<States, StoreError> {
    let mut recovered = Recovered::default();
    Store::open(disk.clone(), options(seed), &mut recovered).map(|_| recovered.0)
}

/// Opens the directory with one file changed in every way that `damage` lists for its bytes; returns how often it
/// was opened and how often refused.
fn damage_every_file(seed: u64, is_closed: bool, damage: impl Fn(&[u8]) -> Vec<Vec<u8>>) -> (u64, u64) {
    let outcome = damage_files(written(seed, is_closed), seed, is_closed, damage);
    eprintln!("seed {seed}: {} opened, {} refused", outcome.0, outcome.1);
    outcome
}

fn damage_files(
    (disk, committed): (FakeDisk, Vec<States>),
    seed: u64,
    is_closed: bool,
    damage: impl Fn(&[u8]) -> Vec<Vec<u8>>,
) -> (u64, u64) {
    let last = committed.last().unwrap();
    let (mut opened, mut refused) = (0, 0);
    for name in files(&disk) {
        for (at, bytes) in damage(&disk.contents(&name).unwrap()).iter().enumerate() {
            let disk = disk.fork(1);
            disk.plant(&name, bytes);
            let what = format!("seed {seed}, {name}, damage {at}");
            match try_open(&disk, seed) {
                Ok(states) => {
                    assert!(committed.contains(&states), "{what}: a state that never was");
                    assert!(!is_closed || states == *last, "{what}: an old state after a clean end");
                    opened += 1;
                }
                Err(StoreError::Disk { error, .. }) => panic!("{what}: {error}"),
                Err(_) => refused += 1,
            }
        }
    }
    (opened, refused)
}

fn flips(bytes: &[u8]) -> Vec<Vec<u8>> {
    let flip = |bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    (0..bytes.len() * 8).map(flip).collect()
}

fn cuts(bytes: &[u8]) -> Vec<Vec<u8>> {
    (0..bytes.len()).map(|len| bytes[..len].to_vec()).collect()
}

#[test]
fn any_flipped_bit_gives_a_prefix_or_is_refused() {
    for seed in seeds(3) {
        let (opened, refused) = damage_every_file(seed, false, flips);
        assert!(opened > 0 && refused > opened);
    }
}

#[test]
fn any_cut_gives_a_prefix_or_is_refused() {
    for seed in seeds(10) {
        let (opened, refused) = damage_every_file(seed, false, cuts);
        assert!(opened > 0 && refused > opened);
    }
}

#[test]
fn a_log_that_ends_before_what_the_snapshot_leans_on_is_refused() {
    for seed in seeds(10) {
        let (opened, refused) = damage_files(written_up_to_a_snapshot(seed), seed, false, cuts);
        assert!(opened > 0 && refused > opened);
        damage_files(written_up_to_a_snapshot(seed), seed, false, flips);
    }
}

#[test]
fn after_a_clean_end_any_flipped_bit_is_refused_unless_all_can_be_read() {
    for seed in seeds(2) {
        let (opened, refused) = damage_every_file(seed, true, flips);
        assert!(opened > 0 && refused > opened);
    }
}

#[test]
fn what_a_new_segment_repeats_is_never_taken_for_a_torn_tail() {
    let disk = FakeDisk::new(8);
    let mut run = Run::new(8, &disk);
    run.open(false, "first start");
    for _ in 0..4 {
        run.change();
        run.commit();
    }
    run.open(true, "after a kill");
    let name = segments(&disk).pop().unwrap();
    for (bit, bytes) in flips(&disk.contents(&name).unwrap()).iter().enumerate() {
        let disk = disk.fork(1);
        disk.plant(&name, bytes);
        assert!(try_open(&disk, 8).is_err(), "{name}, bit {bit}: the start synced all of it");
    }
}

#[test]
fn zeros_behind_the_log_are_its_end_and_zeros_in_it_are_damage() {
    let (disk, committed) = written(3, true);
    let name = segments(&disk).pop().unwrap();
    let bytes = disk.contents(&name).unwrap();
    let longer = disk.fork(1);
    longer.plant(&name, &[bytes.clone(), vec![0; 5_000]].concat());
    let mut recovered = Recovered::default();
    let (_, opening) = Store::open(longer, options(3), &mut recovered).unwrap();
    assert_eq!(recovered.0, *committed.last().unwrap());
    let torn = opening.torn.unwrap();
    assert_eq!((torn.file, torn.offset, torn.bytes), (name.clone(), bytes.len() as u64, 5_000));
    assert!(torn.is_blank);

    let holed = disk.fork(1);
    let mut zeros = bytes;
    let mark = zeros.len() - 32;
    zeros[64..mark].fill(0);
    holed.plant(&name, &zeros);
    let error = try_open(&holed, 3).unwrap_err().to_string();
    assert!(error.contains(&name) && error.contains("offset 64"), "{error}");
    assert!(error.contains("discnt-server --repair fake"), "{error}");
}

#[test]
fn files_of_another_directory_or_number_are_refused() {
    let (disk, _) = written(4, true);
    let (other, _) = written(5, true);
    let last = segments(&disk).pop().unwrap();
    for (from, name) in
        segments(&disk).iter().map(|n| (&disk, n)).chain(segments(&other).iter().map(|n| (&other, n)))
    {
        if name == &last && from.contents(name) == disk.contents(&last) {
            continue;
        }
        let mixed = disk.fork(1);
        mixed.plant(&last, &from.contents(name).unwrap());
        assert!(try_open(&mixed, 4).is_err(), "{name} as {last}");
    }
}

#[test]
fn a_file_of_a_directory_with_the_same_history_is_refused() {
    let write = |family| write_until(4, family, true, 700, |stats| stats.segments >= 3).0;
    let (disk, twin) = (write(4), write(5));
    assert_eq!(files(&disk), files(&twin));
    for name in files(&disk) {
        let mixed = disk.fork(1);
        mixed.plant(&name, &twin.contents(&name).unwrap());
        let error = try_open(&mixed, 4).unwrap_err().to_string();
        assert!(error.contains("another data directory"), "{name}: {error}");
    }
}

/// Makes the checksum of a file's header right again.
fn reseal(bytes: &mut [u8]) {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..12]);
    crc.update(&bytes[16..64]);
    bytes[12..16].copy_from_slice(&crc.finalize().to_le_bytes());
}

#[test]
fn forged_headers_are_refused_and_repaired_without_a_panic() {
    for seed in seeds(3) {
        let (disk, committed) = written(seed, true);
        let mut dice = Dice::new(seed);
        for name in files(&disk) {
            for round in 0..200 {
                let mut disk = disk.fork(round);
                let mut bytes = disk.contents(&name).unwrap();
                let field = [16, 24, 32, 40, 48][dice.below(5)];
                let number = [0, 1, 10, u64::MAX, 1 << 61, dice.number()][dice.below(6)];
                bytes[field..field + 8].copy_from_slice(&number.to_le_bytes());
                reseal(&mut bytes);
                disk.plant(&name, &bytes);
                check(&mut disk, &mut AnyRecord).unwrap();
                match try_open(&disk, seed) {
                    Ok(states) => assert!(committed.contains(&states)),
                    Err(_) => assert!(repair(&mut disk, 1, &mut AnyRecord).unwrap().is_some()),
                }
                try_open(&disk, seed).unwrap();
            }
        }
    }
}

#[test]
fn a_later_format_is_refused_and_left_alone() {
    let (mut disk, _) = written(4, true);
    let name = segments(&disk).pop().unwrap();
    let mut bytes = disk.contents(&name).unwrap();
    bytes[8] = 2;
    reseal(&mut bytes);
    disk.plant(&name, &bytes);
    let before = files(&disk);
    assert!(matches!(try_open(&disk, 4), Err(StoreError::Newer { version: 2, .. })));
    assert!(matches!(repair(&mut disk, 4, &mut AnyRecord), Err(StoreError::Newer { version: 2, .. })));
    assert_eq!(files(&disk), before);
}

#[test]
fn repair_keeps_what_can_be_read_and_sets_the_rest_aside() {
    for seed in seeds(4) {
        let (disk, committed) = written(seed, true);
        let last = committed.last().unwrap();
        let ever: BTreeSet<_> = committed.iter().flatten().collect();
        let mut dice = Dice::new(seed);
        for name in files(&disk) {
            for round in 0..60 {
                let mut disk = disk.fork(round);
                let mut bytes = disk.contents(&name).unwrap();
                let at = if round == 0 { 9 } else { dice.below(bytes.len()) };
                bytes[at] ^= 1 << dice.below(8);
                disk.plant(&name, &bytes);
                let what = format!("seed {seed}, {name} flipped at {at}");
                let report =
                    check(&mut disk, &mut AnyRecord).unwrap_or_else(|error| panic!("{what}: {error}"));
                let repaired =
                    repair(&mut disk, 1, &mut AnyRecord).unwrap_or_else(|error| panic!("{what}: {error}"));
                let states = try_open(&disk, seed).unwrap_or_else(|error| panic!("{what}: {error}"));
                let Some(repaired) = repaired else {
                    assert!(report.start.is_ok() && states == *last, "{what}");
                    continue;
                };
                assert!(report.start.is_err(), "{what}");
                assert!(states.iter().all(|state| ever.contains(&state)), "{what}: a state that never was");
                assert!(report.files.iter().any(|file| file.name == name && !file.is_whole()), "{what}");
                let (from, to) = &repaired.set_aside[0];
                assert_eq!((from, disk.contents(to)), (&name, Some(bytes)), "{what}");
                if at < 64 {
                    assert_eq!(states, *last, "{what}: only a header was damaged, so nothing is lost");
                }
                assert!(repair(&mut disk, 1, &mut AnyRecord).unwrap().is_none(), "{what}: it is whole now");
            }
        }
    }
}

#[test]
fn repair_survives_a_missing_segment() {
    let (mut disk, _) = written(6, true);
    let gone = segments(&disk)[1].clone();
    disk.remove(&gone).unwrap();
    assert!(matches!(try_open(&disk, 6), Err(StoreError::Missing { file, .. }) if file == gone));
    let repaired = repair(&mut disk, 1, &mut AnyRecord).unwrap().unwrap();
    assert_eq!(repaired.missing, [gone]);
    try_open(&disk, 6).unwrap();
}

#[test]
fn a_snapshot_without_its_log_is_refused_and_repaired_as_it_is() {
    let (mut disk, _) = written_up_to_a_snapshot(6);
    let log = segments(&disk);
    log.iter().for_each(|name| disk.remove(name).unwrap());
    assert!(matches!(try_open(&disk, 6), Err(StoreError::Missing { file, .. }) if file == log[0]));
    assert!(repair(&mut disk, 1, &mut AnyRecord).unwrap().is_some_and(|repaired| repaired.records > 0));
    assert!(!try_open(&disk, 6).unwrap().is_empty());
}

/// Takes no record whose payload has a number that divides by seven: what the server is for states that it can't decode.
struct NoSevens;

impl Inspector for NoSevens {
    fn restart(&mut self) {}

    fn record(&mut self, record: Record<'_>) -> Result<(), Unreadable> {
        let digits = record.payload.unwrap_or_default().iter().copied().filter(u8::is_ascii_digit);
        let number = digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        let is_good = record.payload.is_none() || number % 7 != 0;
        if is_good { Ok(()) } else { Err(Unreadable::Broken(format!("a seven: {number}"))) }
    }
}

#[test]
fn records_that_mean_nothing_are_found_and_repair_leaves_them_out_and_nothing_else() {
    for seed in seeds(6) {
        let (mut disk, committed) = written(seed, true);
        let before = files(&disk);
        let report = check(&mut disk, &mut NoSevens).unwrap();
        let bad: u64 = report.files.iter().map(|file| file.bad_record_count).sum();
        assert!(bad > 0, "seed {seed}: no number divides by seven");
        let error = report.start.unwrap_err().to_string();
        assert!(error.contains("a seven") && error.contains("in the block at offset"), "{error}");
        assert_eq!(files(&disk), before, "a check changes nothing");
        let repaired = repair(&mut disk, 1, &mut NoSevens).unwrap().expect("there was something to repair");
        assert!(!repaired.set_aside.is_empty());
        assert!(repair(&mut disk, 1, &mut NoSevens).unwrap().is_none(), "seed {seed}: it is whole now");
        let states = try_open(&disk, seed).unwrap();
        let last = committed.last().unwrap();
        let ever: BTreeSet<_> = committed.iter().flatten().collect();
        let mut judge = NoSevens;
        for (key, payload) in last {
            let is_good = judge.record(Record { kind: key.0, key: &key.1, payload: Some(payload) }).is_ok();
            assert!(!is_good || states.get(key) == Some(payload), "seed {seed}: a good state was lost");
        }
        assert!(states.iter().all(|state| ever.contains(&state)), "seed {seed}: a state that never was");
    }
}

#[test]
fn what_a_later_server_has_written_is_not_repaired_away() {
    struct Newer;
    impl Inspector for Newer {
        fn restart(&mut self) {}

        fn record(&mut self, _: Record<'_>) -> Result<(), Unreadable> {
            Err(Unreadable::Newer("written by a later server".to_owned()))
        }
    }
    let (mut disk, _) = written(4, true);
    let before = files(&disk);
    assert!(matches!(repair(&mut disk, 1, &mut Newer), Err(StoreError::Unusable { .. })));
    assert_eq!(files(&disk), before);
}
