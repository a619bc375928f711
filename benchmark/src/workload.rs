//! What is asked of the server: requests with place-holders, and batches of them ready to send.
//!
//! A place-holder has as many characters as the digits that replace it, so a batch is encoded once and only
//! its digits are written anew for each sending.

use resp::write_request;

/// What stands for a random number in a command.
const PLACE_HOLDER: &[u8; DIGITS] = b"__rand_int__";
/// Decimal digits of a random number.
const DIGITS: usize = 12;
/// Names in one request of the tests that take several.
const NAMES_PER_REQUEST: usize = 10;

/// One kind of request.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// What to call it in reports.
    pub(crate) title: String,
    args: Vec<Vec<u8>>,
}

impl Workload {
    /// The built-in test of this name; none if there is no such test.
    pub(crate) fn named(test: &str) -> Option<Self> {
        const NAME: &str = "counter:__rand_int__";
        let many = |start: &[&'static str]| [start, &[NAME; NAMES_PER_REQUEST]].concat();
        let words = match test.to_ascii_lowercase().as_str() {
            "ping" => vec!["PING"],
            "incr" => vec!["INCR", NAME],
            "incrby" => vec!["INCRBY", NAME, "1"],
            "get" => vec!["GET", NAME],
            "mget" => many(&["MGET"]),
            "mincrby" => many(&["MINCRBY", "1"]),
            _ => return None,
        };
        let title = match test.to_ascii_lowercase().as_str() {
            name @ ("mget" | "mincrby") => format!("{} ({NAMES_PER_REQUEST} names)", name.to_uppercase()),
            name => name.to_uppercase(),
        };
        Some(Self { title, args: words.into_iter().map(|word| word.as_bytes().to_vec()).collect() })
    }

    /// A command of the user's own.
    pub(crate) fn own(args: Vec<Vec<u8>>) -> Self {
        let words: Vec<_> = args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
        Self { title: words.join(" ").escape_debug().to_string(), args }
    }

    /// `count` such requests in a row.
    pub(crate) fn batch(&self, count: usize) -> Batch {
        let mut request = Vec::new();
        write_request(&mut request, &self.args);
        let holes: Vec<usize> =
            (0..request.len()).filter(|&at| request[at..].starts_with(PLACE_HOLDER)).collect();
        let request_len = request.len();
        Batch { bytes: request.repeat(count), request_len, holes }
    }
}

/// Encoded requests in a row.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    request_len: usize,
    /// Where the digits stand in one request.
    holes: Vec<usize>,
}

impl Batch {
    /// The first `count` requests, with new numbers below `names` in them.
    pub(crate) fn prepare(&mut self, count: usize, names: u64, random: &mut Random) -> &[u8] {
        for start in (0..count).map(|index| index * self.request_len) {
            for hole in &self.holes {
                write_digits(&mut self.bytes[start + hole..][..DIGITS], random.below(names));
            }
        }
        self.first(count)
    }

    /// The first `count` requests as they were prepared.
    pub(crate) fn first(&self, count: usize) -> &[u8] {
        &self.bytes[..count * self.request_len]
    }
}

fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Random numbers: SplitMix64 (Steele, Lea, Flood 2014, figure 17). Fast, and good enough to choose names.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The sequence that belongs to `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`, which is at least 1.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((u128::from(z) * u128::from(limit)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fill_the_place_holders_of_each_request() {
        let mut batch = Workload::own(vec![b"GET".to_vec(), b"k:__rand_int__".to_vec()]).batch(3);
        let text = String::from_utf8(batch.prepare(2, 1, &mut Random::new(1)).to_vec()).unwrap();
        assert_eq!(text, "*2\r\n$3\r\nGET\r\n$14\r\nk:000000000000\r\n".repeat(2));
        let mut digits = [0; DIGITS];
        write_digits(&mut digits, 999_999_999_999);
        assert_eq!(&digits, b"999999999999");
    }

    #[test]
    fn a_seed_gives_the_same_names_again_and_stays_below_the_limit() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..1000).map(|_| random.below(10)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert!((0..10).all(|number| numbers(7).contains(&number)));
    }

    #[test]
    fn tests_have_names() {
        for test in ["ping", "INCR", "incrby", "get", "mget", "mincrby"] {
            assert!(Workload::named(test).is_some(), "{test}");
        }
        assert!(Workload::named("lpush").is_none());
        assert_eq!(Workload::named("mincrby").unwrap().batch(1).holes.len(), NAMES_PER_REQUEST);
    }
}
