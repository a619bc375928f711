//! Data directories of earlier versions, with everything that a node keeps: they are loaded for ever.
//!
//! `engine/tests/fixtures/store-v*` does this for the store alone, whose records mean nothing. Here they are states of
//! counters that were set, deleted, counted on two nodes and given precisions, in a snapshot and a log, with the nodes file.
//! `state.txt` says what must come back. A version that was released gets a directory of its own and keeps it.

#![allow(clippy::unwrap_used)] // tests

mod node_run;

use node_run::{A, Picture, World};
use sim::disk::FakeDisk;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The last of them is that of the present version.
const VERSIONS: [&str; 1] = ["node-v1"];

/// Chances of the run that writes a fixture; an even seed leaves no room in the log.
const SEED: u64 = 2;

fn directory(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version)
}

/// All of it, in lines that do not depend on how our types print themselves.
fn in_words(picture: &Picture, precisions: &[(String, String)]) -> String {
    let mut text = String::new();
    for (name, known) in picture {
        let generation = (known.generation.time, known.generation.author);
        let _ = writeln!(text, "{name} generation {generation:?} set {}", known.set_value.units());
        let own = known.own.iter().map(|shard| ("own", shard));
        let peers = known.peers.iter().map(|shard| ("peer", shard));
        let observed = known.observed.iter().map(|shard| ("observed", shard));
        for (what, shard) in own.chain(peers).chain(observed) {
            let owner = shard.owner.map_or_else(String::new, |owner| owner.to_string());
            let generation = (shard.generation.time, shard.generation.author);
            let seq = (shard.seq.incarnation, shard.seq.n);
            let _ = writeln!(
                text,
                "  {what} of {owner} generation {generation:?} seq {seq:?} units {}",
                shard.value.units()
            );
        }
    }
    for (name, precision) in precisions {
        let _ = writeln!(text, "{name} precision {precision}");
    }
    text
}

fn describe(world: &mut World) -> String {
    let picture = world.picture(A);
    let precisions: Vec<(String, String)> = picture
        .keys()
        .map(|name| {
            let reply = world.ask(A, &["PRECISION", name]);
            (name.clone(), reply.escape_ascii().to_string())
        })
        .collect();
    in_words(&picture, &precisions)
}

#[test]
fn directories_of_every_version_are_loaded() {
    for version in VERSIONS {
        let disk = FakeDisk::new(1);
        let mut expected = None;
        for entry in std::fs::read_dir(directory(version)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            match path.file_name().unwrap().to_str().unwrap() {
                "state.txt" => expected = Some(String::from_utf8(bytes).unwrap()),
                name => disk.plant(name, &bytes),
            }
        }
        let mut world = World::new(SEED, &disk);
        world.start().unwrap();
        let found = describe(&mut world);
        assert!(found.lines().count() > 30, "{version}: {found}");
        assert_eq!(found, expected.expect("a fixture says what it holds"), "{version}");
    }
}

#[test]
#[ignore = "writes the fixture of the present version"]
fn write_the_fixture() {
    let disk = FakeDisk::new(SEED);
    let mut world = World::new(SEED, &disk);
    world.start_peer();
    world.start().unwrap();
    world.meet();
    world.pass(1_000);
    while world.snapshots < 2 || world.dice.chance(90) {
        world.work(20);
    }
    assert!(world.commit() && world.sync());
    let directory = directory(VERSIONS.last().unwrap());
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::read_dir(&directory)
        .unwrap()
        .for_each(|entry| std::fs::remove_file(entry.unwrap().path()).unwrap());
    for name in disk.names() {
        std::fs::write(directory.join(&name), disk.contents(&name).unwrap()).unwrap();
    }
    let ran = world.kept_picture(A);
    world.kill();
    world.start().unwrap();
    assert_eq!(world.kept_picture(A), ran);
    std::fs::write(directory.join("state.txt"), describe(&mut world)).unwrap();
}
