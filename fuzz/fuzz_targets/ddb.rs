//! Any bytes as a dump of the original: no panic, and no more memory than the file is worth. The magic, which no mutation
//! finds, stands before the input; and since a checksum of zero says that there is none, everything behind it is reached.
#![no_main]

use engine::ddb::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let file = [b"DISCNT001", data, &[0; 8]].concat();
    match read(&file) {
        Ok(dump) => {
            for counter in &dump.counters {
                assert!(counter.offset < file.len());
                let own = counter.parts.first().map_or([b'0'; 40], |part| *part.node);
                for moment in [i64::MIN, 0, 1_500_000_000_000, i64::MAX] {
                    counter.total_at(&own, moment);
                }
                let total = counter.stored_total();
                assert!(
                    !counter.is_settled(&own)
                        || counter.parts.len() > 1
                        || total == counter.total_at(&own, 0)
                );
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
