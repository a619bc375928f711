//! Any bytes as a nodes file: no panic; and what was read survives being written again.
#![no_main]

use engine::cluster::nodes_file::NodesFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match NodesFile::parse(data) {
        Ok(file) => assert_eq!(NodesFile::parse(&file.write()).as_ref(), Ok(&file)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
