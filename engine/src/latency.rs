//! Delays that clients have felt: for each kind of event the worst of each second, as LATENCY shows them.
//!
//! Recorded only above `latency-monitor-threshold`; nothing is kept, and nothing costs, while that is 0.

use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

/// Most seconds remembered per event; older ones go.
const MAX_SAMPLES: usize = 160;

/// Columns of a graph; the latest seconds are drawn.
const GRAPH_WIDTH: usize = 80;

/// Rows of a graph.
const GRAPH_HEIGHT: u64 = 4;

/// The worst delay of one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) unix_secs: u64,
    pub(crate) ms: u64,
}

/// What is known of one kind of event.
#[derive(Clone, Debug, Default)]
struct Event {
    samples: VecDeque<Sample>,
    worst_ms: u64,
}

/// A kind of event as LATENCY LATEST shows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Latest {
    pub(crate) event: &'static str,
    pub(crate) sample: Sample,
    pub(crate) worst_ms: u64,
}

/// The delays recorded so far.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    events: Mutex<BTreeMap<&'static str, Event>>,
}

impl Latency {
    /// Notes a delay. Of several within a second the longest counts.
    pub(crate) fn record(&self, event: &'static str, unix_secs: u64, ms: u64) {
        let mut events = self.events.lock();
        let event = events.entry(event).or_default();
        event.worst_ms = event.worst_ms.max(ms);
        match event.samples.back_mut() {
            Some(last) if last.unix_secs == unix_secs => last.ms = last.ms.max(ms),
            _ => event.samples.push_back(Sample { unix_secs, ms }),
        }
        if event.samples.len() > MAX_SAMPLES {
            event.samples.pop_front();
        }
    }

    /// The samples of one event, oldest first.
    pub(crate) fn history(&self, event: &[u8]) -> Vec<Sample> {
        let events = self.events.lock();
        let found = events.iter().find(|(name, _)| name.as_bytes() == event);
        found.map_or_else(Vec::new, |(_, event)| event.samples.iter().copied().collect())
    }

    /// The last sample and the worst delay ever of each event.
    pub(crate) fn latest(&self) -> Vec<Latest> {
        let events = self.events.lock();
        let latest = events.iter().filter_map(|(&name, event)| {
            let sample = *event.samples.back()?;
            Some(Latest { event: name, sample, worst_ms: event.worst_ms })
        });
        latest.collect()
    }

    /// Forgets the events that `is_meant` picks; returns how many there were.
    pub(crate) fn reset(&self, is_meant: impl Fn(&[u8]) -> bool) -> usize {
        let mut events = self.events.lock();
        let before = events.len();
        events.retain(|name, _| !is_meant(name.as_bytes()));
        before - events.len()
    }

    /// A drawing of an event's samples; `None` if there are none.
    pub(crate) fn graph(&self, name: &[u8], now_unix_secs: u64) -> Option<String> {
        let events = self.events.lock();
        let (name, event) = events.iter().find(|(event, _)| event.as_bytes() == name)?;
        let high = event.samples.iter().map(|sample| sample.ms).max()?;
        let low = event.samples.iter().map(|sample| sample.ms).min()?;
        let worst = event.worst_ms;
        let mut text =
            format!("{name} - high {high} ms, low {low} ms (all time high {worst} ms)\n{}\n", "-".repeat(80));
        let drawn: Vec<Sample> =
            event.samples.iter().skip(event.samples.len().saturating_sub(GRAPH_WIDTH)).copied().collect();
        draw_bars(&drawn, high, &mut text);
        draw_ages(&drawn, now_unix_secs, &mut text);
        Some(text)
    }

    /// What was recorded, and what may help, for people.
    pub(crate) fn doctor(&self, threshold_ms: u64) -> String {
        if threshold_ms == 0 {
            return "Delays are not recorded: latency-monitor-threshold is 0. Choose the shortest delay that matters \
                    to you, in milliseconds: CONFIG SET latency-monitor-threshold 100\n"
                .to_owned();
        }
        let events = self.events.lock();
        if events.is_empty() {
            return format!("No delay of {threshold_ms} ms or more since recording began or was reset.\n");
        }
        let mut text = String::new();
        for (name, event) in events.iter() {
            let count = event.samples.len() as u64;
            let mean = event.samples.iter().map(|sample| sample.ms).sum::<u64>() / count.max(1);
            let worst = event.worst_ms;
            writeln!(text, "{name}: {count} seconds with a delay, on average {mean} ms, worst {worst} ms.")
                .expect("writing to a string does not fail");
            text.push_str(advice(name));
        }
        text
    }
}

/// What an operator may do about a kind of event.
fn advice(event: &str) -> &'static str {
    match event {
        "command" => {
            "  Commands that look at many counters (KEYS, long MGET and MINCRBY, DEBUG) take their time: SCAN does \
             the work of KEYS in pieces, and MONITOR shows who sends what.\n"
        }
        "fast-command" => {
            "  These commands take microseconds. If a run of them lasts that long, the pipeline is very long or the \
             machine is short of processor time or memory.\n"
        }
        _ => "",
    }
}

/// A column per sample, as high as its share of the highest.
fn draw_bars(samples: &[Sample], high: u64, text: &mut String) {
    for row in (0..GRAPH_HEIGHT).rev() {
        let column = |sample: &Sample| {
            let height = (sample.ms * GRAPH_HEIGHT).div_ceil(high.max(1));
            if height > row { '#' } else { ' ' }
        };
        let line: String = samples.iter().map(column).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push('\n');
}

/// Below each column its age, written downwards.
fn draw_ages(samples: &[Sample], now_unix_secs: u64, text: &mut String) {
    let ages: Vec<Vec<u8>> = samples
        .iter()
        .map(|sample| age_text(now_unix_secs.saturating_sub(sample.unix_secs)).into_bytes())
        .collect();
    for row in 0..ages.iter().map(Vec::len).max().unwrap_or(0) {
        let line: String =
            ages.iter().map(|age| age.get(row).map_or(' ', |&byte| char::from(byte))).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn age_text(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs}s"),
        60..3_600 => format!("{}m", secs / 60),
        3_600..86_400 => format!("{}h", secs / 3_600),
        _ => format!("{}d", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_second_the_longest_delay_is_kept() {
        let latency = Latency::default();
        for ms in [30, 120, 50] {
            latency.record("command", 1_000, ms);
        }
        latency.record("command", 1_001, 40);
        let samples = [Sample { unix_secs: 1_000, ms: 120 }, Sample { unix_secs: 1_001, ms: 40 }];
        assert_eq!(latency.history(b"command"), samples);
        let latest = Latest { event: "command", sample: samples[1], worst_ms: 120 };
        assert_eq!(latency.latest(), [latest]);
    }

    #[test]
    fn old_samples_make_room() {
        let latency = Latency::default();
        (0..1_000).for_each(|second| latency.record("command", second, 5));
        let history = latency.history(b"command");
        assert_eq!((history.len(), history[0].unix_secs), (MAX_SAMPLES, 1_000 - MAX_SAMPLES as u64));
    }

    #[test]
    fn a_graph_shows_each_second_and_its_age() {
        let latency = Latency::default();
        latency.record("command", 100, 10);
        latency.record("command", 160, 40);
        let graph = latency.graph(b"command", 175).unwrap();
        let dashes = "-".repeat(80);
        let head = "command - high 40 ms, low 10 ms (all time high 40 ms)";
        assert_eq!(graph, format!("{head}\n{dashes}\n #\n #\n #\n##\n\n11\nm5\n s\n"));
        assert_eq!(latency.graph(b"fork", 175), None);
    }
}
