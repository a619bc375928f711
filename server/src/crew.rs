//! Which I/O thread serves which connection.
//!
//! As few threads as will do: a thread that serves many connections finds several ready each time it looks, and finds
//! counters in its core's cache; two threads that share the same work wake, wait and fetch for each other. So all connections
//! begin on the first thread. One that is at its limit gives half of its busy connections away, if the machine has a core to
//! spare; one that has little to do gives all to a thread before it that has room. A connection moves between two batches.
//!
//! Each thread judges for itself, at most once per `INTERVAL` and only while it has something to do: an idle server does
//! nothing here.
//!
//! Lacks on purpose: sockets, clocks, and knowledge of what clients want.

use crate::worker::Arrival;
use engine::time::Micros;
use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender};

/// Between two judgements of a thread.
pub(crate) const INTERVAL: Micros = Micros::from_millis(100);

/// What a thread has told of its load longer ago than that says nothing of the present: it has had nothing to do since.
const STALE: Micros = Micros::from_millis(300);

/// From this share of a core's time on a thread is at its limit, percent.
const SATURATED: u32 = 85;

/// A thread with less to do than that takes further connections.
const ROOMY: u32 = 50;

/// Share of one core that must have been idle before another thread is put to work.
const SPARE_CORE: u32 = 50;

/// Units of time per second in /proc/stat, the same on every Linux.
const TICKS_PER_SEC: u64 = 100;

/// The I/O threads as they see each other.
#[derive(Debug)]
pub(crate) struct Crew {
    loads: Box<[Load]>,
    intakes: OnceLock<Box<[WeakUnboundedSender<Arrival>]>>,
    /// When the idle time of all cores was last read, and what it was then.
    idle: Mutex<Option<(Micros, u64)>>,
    /// Has every thread give everything to the next, whatever its load.
    #[cfg(test)]
    pub(crate) is_restless: std::sync::atomic::AtomicBool,
    /// Connections that have moved.
    #[cfg(test)]
    pub(crate) moves: AtomicU64,
}

/// What a thread has told of itself.
#[derive(Debug, Default)]
struct Load {
    percent: AtomicU32,
    told_at: AtomicU64,
}

/// What a thread should do with its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Keep them.
    Keep,
    /// Give half of the busy ones to this thread.
    GiveHalf(usize),
    /// Give all to this thread, as they come to be busy.
    GiveAll(usize),
}

impl Crew {
    /// So many threads, none of which has anything to do.
    pub(crate) fn new(threads: usize) -> Crew {
        Crew {
            loads: (0..threads).map(|_| Load::default()).collect(),
            intakes: OnceLock::new(),
            idle: Mutex::default(),
            #[cfg(test)]
            is_restless: std::sync::atomic::AtomicBool::new(false),
            #[cfg(test)]
            moves: AtomicU64::new(0),
        }
    }

    /// Makes known where each thread takes connections; once.
    pub(crate) fn set_intakes(&self, intakes: &[UnboundedSender<Arrival>]) {
        let intakes = intakes.iter().map(UnboundedSender::downgrade).collect();
        self.intakes.set(intakes).expect("set once, when the threads are started");
    }

    /// Where a thread takes connections; `None` once the server stops.
    pub(crate) fn intake(&self, thread: usize) -> Option<UnboundedSender<Arrival>> {
        self.intakes.get()?.get(thread)?.upgrade()
    }

    /// The thread for a new connection: the first that has room, or the one that has least to do.
    pub(crate) fn pick(&self, now: Micros) -> usize {
        let loads = (0..self.loads.len()).map(|thread| (self.load(thread, now), thread));
        loads.clone().find(|(load, _)| *load < ROOMY).or_else(|| loads.min()).map_or(0, |(_, thread)| thread)
    }

    /// What a thread told last, percent.
    fn load(&self, thread: usize, now: Micros) -> u32 {
        let load = &self.loads[thread];
        let told_at = Micros(load.told_at.load(Ordering::Relaxed));
        if now.since(told_at) > STALE { 0 } else { load.percent.load(Ordering::Relaxed) }
    }

    /// A thread tells its load since it told last, and hears what to do. `idle_ticks` is the idle time of all cores together.
    pub(crate) fn advise(
        &self,
        thread: usize,
        percent: u32,
        now: Micros,
        idle_ticks: impl FnOnce() -> Option<u64>,
    ) -> Advice {
        self.loads[thread].percent.store(percent, Ordering::Relaxed);
        self.loads[thread].told_at.store(now.0, Ordering::Relaxed);
        #[cfg(test)]
        if self.is_restless.load(Ordering::Relaxed) {
            return Advice::GiveAll((thread + 1) % self.loads.len());
        }
        if percent < SATURATED {
            let room = |other: &usize| self.load(*other, now) + percent <= ROOMY;
            return (0..thread).find(room).map_or(Advice::Keep, Advice::GiveAll);
        }
        let others = (0..self.loads.len()).filter(|other| *other != thread);
        match others.map(|other| (self.load(other, now), other)).min() {
            Some((load, other)) if load < ROOMY && self.is_core_spare(now, idle_ticks()) => {
                Advice::GiveHalf(other)
            }
            _ => Advice::Keep,
        }
    }

    /// Whether enough time of a core has been spent idle since this was last asked. Not if that was never, or long ago. Where
    /// it can't be known, yes.
    fn is_core_spare(&self, now: Micros, idle_ticks: Option<u64>) -> bool {
        let Some(ticks) = idle_ticks else { return true };
        let mut last = self.idle.lock();
        let Some((since, before)) = last.replace((now, ticks)) else { return false };
        let elapsed = now.since(since);
        let is_spare = idle_percent(ticks.saturating_sub(before), elapsed) >= u64::from(SPARE_CORE);
        (INTERVAL.0 / 2..=INTERVAL.0 * 10).contains(&elapsed.0) && is_spare
    }
}

/// So many ticks of idle time, in percent of the time that one core had meanwhile.
pub(crate) fn idle_percent(ticks: u64, elapsed: Micros) -> u64 {
    ticks * 100_000_000 / TICKS_PER_SEC / elapsed.0.max(1)
}

/// Idle time of all cores together since the machine's start.
pub(crate) fn idle_ticks() -> Option<u64> {
    parse_idle(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// The fourth and fifth figure of the first line: idle, and idle while something is read from a disk.
fn parse_idle(stat: &str) -> Option<u64> {
    let mut figures = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().skip(3);
    let idle: u64 = figures.next()?.parse().ok()?;
    let waiting: u64 = figures.next()?.parse().ok()?;
    Some(idle + waiting)
}

/// Time that the calling thread has spent on a core.
pub(crate) fn thread_time() -> Micros {
    // The clock of the calling thread always exists.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(Micros(0), |time| Micros(time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{Server, ServerOptions};
    use engine::settings::Settings;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    /// A crew of four whose threads have told these loads a moment ago.
    fn crew(loads: [u32; 4]) -> (Crew, Micros) {
        let (crew, now) = (Crew::new(4), Micros::from_secs(10));
        for (thread, percent) in loads.into_iter().enumerate() {
            crew.loads[thread].percent.store(percent, Ordering::Relaxed);
            crew.loads[thread].told_at.store(now.0, Ordering::Relaxed);
        }
        (crew, now + INTERVAL)
    }

    #[test]
    fn new_connections_go_to_the_first_thread_with_room() {
        let picked = |loads| {
            let (crew, now) = crew(loads);
            crew.pick(now)
        };
        assert_eq!(picked([0, 0, 0, 0]), 0);
        assert_eq!(picked([49, 0, 0, 0]), 0);
        assert_eq!(picked([90, 20, 0, 0]), 1);
        assert_eq!(picked([90, 80, 70, 75]), 2);
        let (crew, now) = crew([90, 90, 90, 90]);
        assert_eq!(crew.pick(now + STALE), 0, "what was told long ago says nothing");
    }

    #[test]
    fn a_saturated_thread_gives_half_away_only_if_a_core_is_spare() {
        let (crew, now) = crew([0, 10, 90, 5]);
        let mut ticks = 1_000;
        assert_eq!(crew.advise(0, 95, now, || Some(ticks)), Advice::Keep, "nothing to compare with");
        ticks += 10;
        assert_eq!(crew.advise(0, 95, now + INTERVAL, || Some(ticks)), Advice::GiveHalf(3));
        ticks += 4;
        let later = Micros(now.0 + 2 * INTERVAL.0);
        assert_eq!(crew.advise(0, 95, later, || Some(ticks)), Advice::Keep, "less than half a core");
        let much_later = later + Micros::from_secs(100);
        ticks += 100_000;
        assert_eq!(crew.advise(0, 95, much_later, || Some(ticks)), Advice::Keep, "an average over long");
        assert_eq!(crew.advise(0, 95, much_later + INTERVAL, || None), Advice::GiveHalf(1), "not known");
    }

    #[test]
    fn a_saturated_thread_keeps_what_no_other_has_room_for() {
        let (crew, now) = crew([0, 60, 90, 85]);
        for turn in 0..3 {
            let idle = Some(turn * 1_000);
            assert_eq!(crew.advise(0, 95, Micros(now.0 + turn * INTERVAL.0), || idle), Advice::Keep);
        }
    }

    #[test]
    fn a_thread_with_little_to_do_gives_all_to_one_before_it_that_has_room() {
        let (crew, now) = crew([45, 20, 0, 0]);
        assert_eq!(crew.advise(2, 10, now, || None), Advice::GiveAll(1));
        assert_eq!(crew.advise(2, 31, now, || None), Advice::Keep);
        assert_eq!(crew.advise(0, 10, now, || None), Advice::Keep, "the first gives to none");
    }

    /// What half of a saturated thread's work amounts to must not be given back at once.
    #[test]
    fn what_was_given_is_not_given_back_while_it_is_busy() {
        let (crew, now) = crew([SATURATED / 2, SATURATED.div_ceil(2), 0, 0]);
        assert_eq!(crew.advise(1, SATURATED.div_ceil(2), now, || None), Advice::Keep);
    }

    /// How long the server of the test below may take to do what is asked of it.
    const LIMIT: Duration = Duration::from_secs(60);

    /// Counts in batches, under a name of its own, until connections have moved so many times. Every answer must be the next.
    fn count_while_moving(client: u32, mut stream: impl Read + Write, crew: &Crew, moves: u64) {
        let (mut count, until) = (0, Instant::now() + LIMIT);
        let batch = format!("INCR moving:{client}\r\n").repeat(5);
        while crew.moves.load(Ordering::Relaxed) < moves {
            assert!(Instant::now() < until, "connections do not move");
            stream.write_all(batch.as_bytes()).unwrap();
            let mut answers = BufReader::new(&mut stream);
            for _ in 0..5 {
                count += 1;
                let mut lines = [String::new(), String::new()];
                lines.iter_mut().for_each(|line| assert!(answers.read_line(line).unwrap() > 0));
                assert_eq!(lines[1], format!("{count}\r\n"));
            }
        }
    }

    #[test]
    fn connections_that_move_all_the_time_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::mpsc::unbounded_channel();
        let unixsocket = path.display().to_string();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let settings = Settings { port: 0, unixsocket, io_threads: 3, ..Settings::default() };
                let server = Server::start(ServerOptions { settings, config_file: None, dir: None }).unwrap();
                let crew = Arc::clone(server.crew());
                server.run(|| ready.send(crew).unwrap(), stopped).await.unwrap();
            });
        });
        let crew = is_ready.recv_timeout(LIMIT).unwrap();
        crew.is_restless.store(true, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for client in 0..6 {
                let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                let crew = &crew;
                scope.spawn(move || count_while_moving(client, stream, crew, 2_000));
            }
        });
        stop.send(()).unwrap();
        server.join().unwrap();
    }

    #[test]
    fn idle_time_is_read_from_the_first_line() {
        let stat = "cpu  100 1 50 7000 30 0 2 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_idle(stat), Some(7_030));
        assert_eq!((parse_idle(""), parse_idle("intr 1 2 3 4 5 6")), (None, None));
        assert!(idle_ticks().is_none_or(|ticks| ticks > 0));
    }

    #[test]
    fn time_on_a_core_grows_with_work() {
        let before = thread_time();
        let mut sum = 0u64;
        while thread_time().since(before) < Micros::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(thread_time() > before);
    }
}
