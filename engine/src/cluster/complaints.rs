//! Peers that misbehave are all counted, and told of in a few lines: whoever can connect must not be able to fill a log.

use crate::time::Micros;

/// Lines per `WINDOW`; each tells how many there were.
const LINES_PER_WINDOW: u32 = 3;

/// See `LINES_PER_WINDOW`.
const WINDOW: Micros = Micros::from_secs(10);

/// What was complained of since the start.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    count: u64,
    since: Micros,
    lines: u32,
}

impl Complaints {
    /// Counts one more. Its number, if a line may be written about it.
    pub(super) fn note(&mut self, now: Micros) -> Option<u64> {
        self.count += 1;
        if self.lines == 0 || now.since(self.since) > WINDOW {
            (self.since, self.lines) = (now, 0);
        }
        self.lines += 1;
        (self.lines <= LINES_PER_WINDOW).then_some(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_few_are_told() {
        let mut complaints = Complaints::default();
        let mut told =
            |secs, count: u64| (0..count).filter_map(|_| complaints.note(Micros::from_secs(secs))).collect();
        let first: Vec<u64> = told(1, 10);
        let second: Vec<u64> = told(12, 10);
        assert_eq!((first, second), (vec![1, 2, 3], vec![11, 12, 13]));
    }
}
