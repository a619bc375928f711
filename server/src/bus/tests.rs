//! Two buses, or a bus and a stranger, over real sockets on this machine.

use super::*;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

/// How long anything may take that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of its own for each test, gone at the end.
pub(super) struct Directory {
    pub(super) path: PathBuf,
}

impl Directory {
    pub(super) fn new(test: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("discnt-bus-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory { path }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).ok();
    }
}

/// Runs tasks as the bus thread does.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, future)
}

/// What a test sees of the cluster on a bus thread, and what it wants done there.
#[derive(Default)]
struct Script {
    effects: VecDeque<Effect>,
    events: Vec<Event>,
    links: u64,
    /// Answer every frame with itself.
    is_echo: bool,
    /// So many more frames are sent, each once the one before has been, after a millisecond of work.
    chatter: usize,
    /// So many more times there is something due at once, each time more urgently, and each takes a millisecond.
    busy: u64,
    /// How many timers there had been when the first frame came.
    heard_after: Option<u64>,
    /// Ask for a nodes file at a request.
    saves: bool,
    deadline: Micros,
    timers: u64,
}

#[derive(Debug, PartialEq)]
enum Event {
    Dialed(LinkId),
    Accepted(LinkId),
    Frame(LinkId, Vec<u8>),
    Sent(usize),
    Closed(LinkId, String),
}

/// A cluster that does what a test says.
#[derive(Clone)]
struct Puppet(Arc<Mutex<Script>>);

impl Door for Puppet {
    fn new_link(&mut self) -> LinkId {
        let mut script = self.0.lock().unwrap();
        script.links += 1;
        LinkId(script.links)
    }

    fn settle(&mut self, now: Now) {
        self.handle(Input::Timer, now);
    }

    fn handle(&mut self, input: Input<'_>, _now: Now) {
        let mut script = self.0.lock().unwrap();
        let event = match input {
            Input::Dialed { link } => Event::Dialed(link),
            Input::Accepted { link, from } => {
                assert!(from.ip().is_loopback());
                Event::Accepted(link)
            }
            Input::Received { link, frame } => {
                if script.is_echo {
                    script.effects.push_back(Effect::Send { link, frame: frame.to_vec() });
                }
                script.heard_after = script.heard_after.or(Some(script.timers));
                Event::Frame(link, frame.to_vec())
            }
            Input::Sent { link, bytes } => {
                if script.chatter > 0 {
                    script.chatter -= 1;
                    script.effects.push_back(Effect::Send { link, frame: vec![1; 10] });
                    std::thread::sleep(Duration::from_millis(1));
                }
                Event::Sent(bytes)
            }
            Input::Closed { link, reason } => Event::Closed(link, reason.to_owned()),
            Input::Timer => {
                script.timers += 1;
                script.deadline = Micros::NEVER;
                if script.busy > 0 {
                    script.busy -= 1;
                    script.deadline = Micros(script.busy);
                    std::thread::sleep(Duration::from_millis(1));
                }
                return;
            }
        };
        script.events.push(event);
    }

    fn pop_effect(&mut self) -> Option<Effect> {
        self.0.lock().unwrap().effects.pop_front()
    }

    fn deadline(&self) -> Micros {
        self.0.lock().unwrap().deadline
    }

    fn request(&mut self, request: ClusterRequest, _now: Now) -> TaskResult {
        let mut script = self.0.lock().unwrap();
        if !script.saves {
            return TaskResult::Error(format!("{request:?}"));
        }
        script.effects.push_back(Effect::SaveNodes(b"asked for".to_vec()));
        TaskResult::Ok
    }
}

/// A bus with a puppet in it.
struct Side {
    script: Arc<Mutex<Script>>,
    bus: Option<Bus>,
    addr: SocketAddr,
}

impl Side {
    fn new(secret: &str) -> Side {
        Side::with(secret, HANDSHAKE_LIMIT, None)
    }

    fn with(secret: &str, handshake_limit: Duration, nodes_file: Option<LockedNodesFile>) -> Side {
        let script =
            Arc::new(Mutex::new(Script { deadline: Micros::NEVER, links: 1_000, ..Script::default() }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        let listeners = listen(&[SocketAddr::from(([127, 0, 0, 1], 0))]).unwrap();
        let addr = listeners[0].local_addr().unwrap();
        let options = BusOptions {
            secret: Secret(secret.into()),
            is_protected: Box::new(|| true),
            sources: vec![addr.ip()],
            clock: Clock::new(),
            nodes_file,
            handshake_limit,
        };
        let bus = Some(start(Puppet(Arc::clone(&script)), listeners, options).unwrap());
        Side { script, bus, addr }
    }

    /// Has an effect carried out soon.
    fn want(&self, effects: impl IntoIterator<Item = Effect>) {
        self.script.lock().unwrap().effects.extend(effects);
        self.bus.as_ref().unwrap().handle.wake();
    }

    /// Waits until `found` finds something in the script.
    fn wait_for<T>(&self, what: &str, mut found: impl FnMut(&mut Script) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = found(&mut self.script.lock().unwrap()) {
                return found;
            }
            let events = || self.script.lock().unwrap().events.iter().map(summary).collect::<Vec<_>>();
            assert!(start.elapsed() < PATIENCE, "{what} did not happen; what did: {:?}", events());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn wait_for_event(&self, event: Event) {
        self.wait_for(&format!("{event:?}"), |script| script.events.contains(&event).then_some(()));
    }

    /// Waits for the end of a link and returns the reason.
    fn wait_for_end(&self) -> String {
        self.wait_for("an end", |script| {
            script.events.iter().find_map(|event| match event {
                Event::Closed(_, reason) => Some(reason.clone()),
                _ => None,
            })
        })
    }

    fn frames(&self) -> Vec<Vec<u8>> {
        let script = self.script.lock().unwrap();
        let frames = script.events.iter().filter_map(|event| match event {
            Event::Frame(_, frame) => Some(frame.clone()),
            _ => None,
        });
        frames.collect()
    }

    fn refused(&self, refusal: Refusal) -> u64 {
        self.bus.as_ref().unwrap().handle.refused.count(refusal)
    }

    fn is_quiet(&self) -> bool {
        self.script.lock().unwrap().events.is_empty()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let bus = self.bus.take().unwrap();
        bus.handle.stop();
        let ended = bus.thread.join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn summary(event: &Event) -> String {
    match event {
        Event::Frame(link, frame) => format!("a frame of {} bytes on {}", frame.len(), link.0),
        other => format!("{other:?}"),
    }
}

const SECRET: &str = "sixteen bytes or more";

/// The link that `left` dials to `right`.
const LINK: LinkId = LinkId(1);

fn joined(secret: &str) -> (Side, Side) {
    let (left, right) = (Side::new(secret), Side::new(secret));
    left.want([Effect::Dial { link: LINK, to: right.addr }]);
    left.wait_for_event(Event::Dialed(LINK));
    (left, right)
}

fn send(frame: Vec<u8>) -> Effect {
    Effect::Send { link: LINK, frame }
}

#[test]
fn frames_of_all_lengths_arrive_in_order_and_come_back() {
    let lens =
        [1, 20, 4_096, 65_515, 65_516, 70_000, 1 << 20, 3].into_iter().chain((1..2_000).map(|n| n % 97 + 1));
    let frames: Vec<Vec<u8>> = lens.map(|len| (0..len).map(|at| (at * 31 + len) as u8).collect()).collect();
    let bytes: usize = frames.iter().map(Vec::len).sum();
    for secret in ["", SECRET] {
        let (left, right) = joined(secret);
        right.script.lock().unwrap().is_echo = true;
        left.want(frames.iter().cloned().map(send));
        left.wait_for("every frame back", |script| {
            let is_frame = |event: &&Event| matches!(event, Event::Frame(..));
            (script.events.iter().filter(is_frame).count() == frames.len()).then_some(())
        });
        assert!(left.frames() == frames && right.frames() == frames, "with {secret:?}");
        for side in [&left, &right] {
            side.wait_for("every byte told as sent", |script| {
                let sent =
                    script.events.iter().map(|event| if let Event::Sent(bytes) = event { *bytes } else { 0 });
                (sent.sum::<usize>() == bytes).then_some(())
            });
        }
    }
}

#[test]
fn a_closed_link_sends_what_was_asked_for_before() {
    for secret in ["", SECRET] {
        let (left, right) = joined(secret);
        left.want([send(vec![7; 500_000]), send(vec![8]), Effect::Close { link: LINK }, send(vec![9])]);
        assert_eq!(right.wait_for_end(), "closed by the peer");
        assert_eq!(right.frames(), [vec![7; 500_000], vec![8]]);
        assert!(!left.script.lock().unwrap().events.iter().any(|event| matches!(event, Event::Closed(..))));
    }
}

#[test]
fn the_last_frames_arrive_though_the_peer_goes_on_sending() {
    for secret in ["", SECRET] {
        let (left, right) = joined(secret);
        right.wait_for("the link", |script| (!script.events.is_empty()).then_some(()));
        let back = |frame| Effect::Send { link: LinkId(1_001), frame };
        right.want((0..30).map(|_| back(vec![1; 100_000])));
        left.want([send(vec![7; 3_000_000 / 4]), send(vec![8]), Effect::Close { link: LINK }]);
        right.want((0..30).map(|_| back(vec![1; 100_000])));
        assert_eq!(right.wait_for_end(), "closed by the peer");
        assert_eq!(right.frames().len(), 2);
    }
}

#[test]
fn a_wrong_secret_is_refused_on_both_sides() {
    for (ours, theirs, reason) in [
        (SECRET, "another secret of some length", "ended the connection during the handshake"),
        (SECRET, "", "has no cluster-secret, this node has"),
        ("", SECRET, "has a cluster-secret, this node has none"),
    ] {
        let (left, right) = (Side::new(ours), Side::new(theirs));
        left.want([Effect::Dial { link: LINK, to: right.addr }]);
        let ended = left.wait_for_end();
        assert!(ended.contains(reason), "{ended}");
        assert!(right.is_quiet(), "the cluster hears nothing of strangers");
        let refusals = [Refusal::WrongSecret, Refusal::NoSecret, Refusal::UnknownSecret];
        assert_eq!(refusals.map(|refusal| right.refused(refusal)).iter().sum::<u64>(), 1);
    }
}

#[test]
fn a_peer_on_another_machine_is_not_dialed_without_a_secret() {
    let left = Side::new("");
    left.want([Effect::Dial { link: LINK, to: SocketAddr::from(([192, 0, 2, 1], 15_262)) }]);
    let reason = left.wait_for_end();
    assert!(reason.contains("is on another machine"), "{reason}");
}

#[test]
fn a_port_that_nobody_listens_on_ends_the_link() {
    let left = Side::new("");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    left.want([Effect::Dial { link: LINK, to: free }]);
    assert!(left.wait_for_end().contains("refused"));
}

/// Reads until the other side hangs up; returns what came and how long it took.
fn read_to_end(stream: &mut std::net::TcpStream) -> (Vec<u8>, Duration) {
    let (mut bytes, start) = (Vec::new(), Instant::now());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A reset is an end as well.
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("no end: {error}"),
        _ => (bytes, start.elapsed()),
    }
}

#[test]
fn garbage_is_refused_without_an_answer() {
    for secret in ["", SECRET] {
        let side = Side::new(secret);
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[255; 3_000]] {
            let mut stream = std::net::TcpStream::connect(side.addr).unwrap();
            stream.write_all(garbage).unwrap();
            assert_eq!(read_to_end(&mut stream).0, b"");
        }
        assert_eq!(side.refused(Refusal::Garbage), 3);
        assert!(side.is_quiet());
    }
}

#[test]
fn a_frame_of_four_gigabytes_ends_the_link_at_once() {
    let side = Side::new("");
    let mut stream = std::net::TcpStream::connect(side.addr).unwrap();
    stream.write_all(b"DISCNT\x01\x00\xff\xff\xff\xff").unwrap();
    assert_eq!(read_to_end(&mut stream).0, b"DISCNT\x01\x00");
    let reason = side.wait_for_end();
    assert!(reason.contains("announced a frame of 4294967295 bytes"), "{reason}");
}

#[test]
fn a_handshake_that_drips_is_cut_off() {
    let limit = Duration::from_millis(300);
    for (secret, opening) in [("", &b"DISC"[..]), ("", b"DISCNT\x01\x00"), (SECRET, b"DISCNT\x01\x01\x30")] {
        let side = Side::with(secret, limit, None);
        let mut stream = std::net::TcpStream::connect(side.addr).unwrap();
        stream.write_all(opening).unwrap();
        let (_, after) = read_to_end(&mut stream);
        assert!(after > limit / 2, "after {after:?}");
        if opening == b"DISCNT\x01\x00" {
            assert!(side.wait_for_end().contains("did not finish the handshake in time"));
        }
    }
}

#[test]
fn strangers_can_not_keep_members_out() {
    let (left, right) = (Side::new(SECRET), Side::new(SECRET));
    let strangers: Vec<_> = (0..MAX_STRANGERS * 2)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(right.addr).unwrap();
            stream.write_all(b"DISCNT\x01\x01").unwrap();
            stream
        })
        .collect();
    left.want([Effect::Dial { link: LINK, to: right.addr }]);
    left.wait_for_event(Event::Dialed(LINK));
    left.want([send(vec![1])]);
    right.wait_for("the member's frame", |script| {
        script.events.iter().any(|event| matches!(event, Event::Frame(..))).then_some(())
    });
    drop(strangers);
}

#[test]
fn heartbeats_get_through_beside_a_flood() {
    let (left, right) = joined(SECRET);
    right.script.lock().unwrap().is_echo = true;
    left.want([Effect::Dial { link: LinkId(2), to: right.addr }]);
    left.wait_for_event(Event::Dialed(LinkId(2)));
    left.want((0..24).map(|_| send(vec![0; 1 << 20])));
    let start = Instant::now();
    left.want([Effect::Send { link: LinkId(2), frame: vec![5] }]);
    left.wait_for_event(Event::Frame(LinkId(2), vec![5]));
    let heartbeat = start.elapsed();
    left.wait_for("the flood back", |script| {
        let is_flood = |event: &&Event| matches!(event, Event::Frame(LINK, _));
        (script.events.iter().filter(is_flood).count() == 24).then_some(())
    });
    assert!(heartbeat * 2 < start.elapsed(), "{heartbeat:?} of {:?}", start.elapsed());
}

#[test]
fn who_always_has_more_to_send_hears_its_peer_all_the_same() {
    const FRAMES: usize = 500;
    let (left, right) = joined("");
    right.script.lock().unwrap().is_echo = true;
    left.script.lock().unwrap().chatter = FRAMES;
    left.want([send(vec![1; 10])]);
    left.wait_for("the end of it", |script| (script.chatter == 0).then_some(()));
    let script = left.script.lock().unwrap();
    let is_heard = |event: &Event| matches!(event, Event::Frame(..));
    let before = script.events.iter().position(is_heard).unwrap_or(FRAMES);
    assert!(before < FRAMES / 4, "{before} frames were sent before one was read");
}

#[test]
fn who_always_has_something_to_do_hears_its_peer_all_the_same() {
    let (left, right) = joined("");
    right.script.lock().unwrap().is_echo = true;
    let before = {
        let mut script = left.script.lock().unwrap();
        script.busy = 200;
        script.effects.push_back(send(vec![1]));
        script.timers
    };
    left.bus.as_ref().unwrap().handle.wake();
    let heard = left.wait_for("the frame back", |script| script.heard_after);
    assert!(heard - before < 50, "it was busy {} times before it looked", heard - before);
    left.wait_for("the end of it", |script| (script.deadline == Micros::NEVER).then_some(()));
}

#[test]
fn deadlines_and_wake_ups_reach_the_cluster() {
    let side = Side::new("");
    side.bus.as_ref().unwrap().handle.wake();
    side.wait_for("a wake-up", |script| (script.timers == 1).then_some(()));
    side.script.lock().unwrap().deadline = Micros::from_secs(1) + Micros::from_millis(100);
    side.bus.as_ref().unwrap().handle.wake();
    side.wait_for("the wake-up", |script| (script.timers >= 2).then_some(()));
    std::thread::sleep(Duration::from_millis(50));
    let timers = side.script.lock().unwrap().timers;
    assert!(timers <= 3, "no more than is due: {timers}");
}

#[test]
fn an_answer_waits_for_the_nodes_file() {
    let directory = Directory::new("request");
    let path = directory.path.join("nodes.conf");
    let (file, _) = LockedNodesFile::open(&path).unwrap();
    let side = Side::with("", HANDSHAKE_LIMIT, Some(file));
    side.script.lock().unwrap().saves = true;
    let handle = side.bus.as_ref().unwrap().handle.clone();
    let result = block_on(handle.request(ClusterRequest::SaveConfig));
    assert!(matches!(result, TaskResult::Ok), "{result:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"asked for");
    std::fs::remove_dir_all(&directory.path).unwrap();
    let result = block_on(handle.request(ClusterRequest::SaveConfig));
    assert!(matches!(&result, TaskResult::Error(text) if text.starts_with("ERR can't write")), "{result:?}");
}
