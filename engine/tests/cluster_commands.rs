//! CLUSTER as a client of one node sees it: what is answered on the spot, and what is left to the cluster's thread.

use engine::clients::Peer;
use engine::cluster::ClusterRequest;
use engine::cluster::gossip::{Announcement, GossipEntry};
use engine::cluster::members::Members;
use engine::cluster::view::{LinkStats, Traffic};
use engine::command::{Outcome, Task};
use engine::settings::Settings;
use engine::time::{Micros, Now};
use engine::{Node, NodeConfig, NodeId, ProcessInfo, Session, Shell, TaskResult};
use resp::Request;
use std::net::SocketAddr;
use std::sync::Arc;

struct NoShell;

impl Shell for NoShell {
    fn process(&self) -> ProcessInfo {
        ProcessInfo::default()
    }
    fn settings_changed(&self, _: &Settings) -> Result<(), String> {
        Ok(())
    }
}

const OWN: NodeId = NodeId([0xab; 20]);
const OTHER: NodeId = NodeId([0xcd; 20]);

struct Talk {
    node: Node,
    session: Session,
    settings: Settings,
}

impl Talk {
    fn new() -> Talk {
        let settings = Settings { port: 7000, ..Settings::default() };
        let node = Node::new(NodeConfig {
            id: OWN,
            run_id: [0; 20],
            hash_seed: 1,
            settings: settings.clone(),
            now: Now::default(),
            shell: Arc::new(NoShell),
        });
        let session = node.connect(Peer::Unix("x".into()), 1, Now::default(), Box::new(|| {}));
        Talk { node, session, settings }
    }

    /// The same with a picture of a cluster of two.
    fn of_two() -> Talk {
        let talk = Talk::new();
        let own = Announcement::from_settings(OWN, 1, &talk.settings);
        let mut members = Members::new(own, 1, Micros(0));
        let ip = Some([127, 0, 0, 1].into());
        let other = Announcement { id: OTHER, ip, ..own };
        members.merge_gossip(GossipEntry::Member(other), Micros(0));
        let stats = LinkStats { bytes_sent: 12, ..LinkStats::default() };
        let times = (Micros(0), Micros::from_secs(15));
        talk.node.set_cluster_view(members.view(times, Traffic::default(), |_| Some(stats)));
        talk
    }

    fn ask(&mut self, words: &str) -> (Outcome, String) {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let mut out = Vec::new();
        let request = Request::from_args(&words);
        let outcome = self.node.execute(&mut self.session, request, &self.settings, Now::default(), &mut out);
        (outcome, String::from_utf8(out).expect("replies here are text"))
    }

    fn error(&mut self, words: &str) -> String {
        let (outcome, reply) = self.ask(words);
        assert_eq!(outcome, Outcome::Done, "{words}");
        reply.strip_prefix('-').and_then(|text| text.strip_suffix("\r\n")).unwrap_or(&reply).to_owned()
    }

    fn request(&mut self, words: &str) -> ClusterRequest {
        match self.ask(words) {
            (Outcome::Wait(Task::Cluster(request)), reply) if reply.is_empty() => request,
            other => panic!("{words}: {other:?}"),
        }
    }
}

#[test]
fn a_node_alone_answers_about_itself() {
    let mut talk = Talk::new();
    assert_eq!(talk.ask("CLUSTER MYID").1, format!("$40\r\n{OWN}\r\n"));
    assert!(talk.ask("CLUSTER NODES").1.contains(&format!("{OWN} :7000 myself 0 0 connected\n")));
    assert!(talk.ask("CLUSTER INFO").1.contains("cluster_known_nodes:1\r\ncluster_reachable_nodes:0\r\n"));
    assert_eq!(talk.ask("CLUSTER LINKS").1, "*0\r\n");
    assert_eq!(talk.ask(&format!("CLUSTER COUNT-FAILURE-REPORTS {OWN}")).1, ":0\r\n");
}

#[test]
fn meet_takes_numeric_addresses_and_works_out_the_bus_port() {
    let mut talk = Talk::new();
    let bus = |text: &str| text.parse::<SocketAddr>().unwrap();
    for (words, addr, port) in [
        ("CLUSTER MEET 127.0.0.1 5000", "127.0.0.1:15000", 5000),
        ("cluster meet 127.0.0.1 55535", "127.0.0.1:65535", 55535),
        ("CLUSTER MEET ::1 1", "[::1]:10001", 1),
        ("CLUSTER MEET 0:0:0:0:0:0:0:1 1", "[::1]:10001", 1),
        ("CLUSTER MEET 127.0.0.1 60000 7", "127.0.0.1:7", 60000),
    ] {
        assert_eq!(talk.request(words), ClusterRequest::Meet { bus: bus(addr), port }, "{words}");
    }
}

#[test]
fn meet_leaves_host_names_to_the_shell_and_refuses_mistyped_numbers() {
    let mut talk = Talk::new();
    for host in ["localhost", "node-1.example.org", "node_1", "a.example.", "3f2ab9"] {
        let wanted = Task::Resolve { host: host.to_owned(), port: 5000, bus_port: 15000 };
        assert_eq!(talk.ask(&format!("CLUSTER MEET {host} 5000")).0, Outcome::Wait(wanted));
    }
    let long = "a".repeat(254);
    for host in ["256.1.1.1", "1.2.3", "127.0.0.01", "::::", "", "a..b", "ho/st", "10.1", "0x7f000001", &long]
    {
        let shown = &host[..host.len().min(123)];
        let error = talk.error(&format!("CLUSTER MEET {host} 5000"));
        assert!(error.starts_with(&format!("ERR Invalid node address specified: {shown}")), "{error}");
    }
    let TaskResult::Error(text) = TaskResult::unresolved("foo", 5000) else { panic!() };
    assert_eq!(text, "ERR Invalid node address specified: foo:5000");
}

#[test]
fn meet_refuses_ports_that_are_none() {
    let mut talk = Talk::new();
    for port in ["0", "-1", "55536", "99999", "4294967297", "9223372036854775807"] {
        let expected = format!("ERR Invalid node address specified: 127.0.0.1:{port}");
        assert_eq!(talk.error(&format!("CLUSTER MEET 127.0.0.1 {port}")), expected);
    }
    for port in ["abc", "1.5", "0x10", "99999999999999999999"] {
        let expected = format!("ERR Invalid TCP port specified: {port}");
        assert_eq!(talk.error(&format!("CLUSTER MEET 127.0.0.1 {port}")), expected);
    }
    for port in ["abc", "0", "-1", "65536"] {
        let expected = format!("ERR Invalid bus port specified: {port}");
        assert_eq!(talk.error(&format!("CLUSTER MEET 127.0.0.1 1 {port}")), expected);
    }
}

#[test]
fn forget_takes_the_ids_of_others_only() {
    let mut talk = Talk::of_two();
    assert_eq!(talk.request(&format!("CLUSTER FORGET {OTHER}")), ClusterRequest::Forget(OTHER));
    assert_eq!(talk.error(&format!("CLUSTER FORGET {OWN}")), "ERR I tried hard but I can't forget myself...");
    let stranger = NodeId([1; 20]).to_string();
    let no_id = "z".repeat(40);
    for (id, error) in [
        ("x", String::from("ERR Invalid node identifier")),
        (&stranger, format!("ERR Unknown node {stranger}")),
        (&no_id, format!("ERR Unknown node {no_id}")),
    ] {
        assert_eq!(talk.error(&format!("CLUSTER FORGET {id}")), error);
        assert_eq!(
            talk.error(&format!("CLUSTER COUNT-FAILURE-REPORTS {id}")),
            format!("ERR Unknown node {id}")
        );
    }
}

#[test]
fn reset_is_soft_unless_asked_to_be_hard() {
    let mut talk = Talk::new();
    for (words, hard) in
        [("CLUSTER RESET", false), ("CLUSTER RESET SOFT", false), ("CLUSTER RESET hard", true)]
    {
        assert_eq!(talk.request(words), ClusterRequest::Reset { hard });
    }
    assert_eq!(talk.request("CLUSTER SAVECONFIG"), ClusterRequest::SaveConfig);
}

#[test]
fn other_words_are_refused_as_the_original_does() {
    let mut talk = Talk::new();
    assert_eq!(talk.error("CLUSTER"), "ERR wrong number of arguments for 'cluster' command");
    for words in [
        "CLUSTER FOO",
        "CLUSTER MEET",
        "CLUSTER MEET 127.0.0.1",
        "CLUSTER MEET 127.0.0.1 1 2 3",
        "CLUSTER NODES a",
        "CLUSTER MYID a",
        "CLUSTER INFO a",
        "CLUSTER FORGET",
        "CLUSTER FORGET a b",
        "CLUSTER RESET a",
        "CLUSTER RESET a b",
        "CLUSTER SAVECONFIG a",
    ] {
        assert_eq!(talk.error(words), "ERR Wrong CLUSTER subcommand or number of arguments", "{words}");
    }
}

#[test]
fn links_answers_a_map_per_member() {
    let mut talk = Talk::of_two();
    let reply = talk.ask("CLUSTER LINKS").1;
    assert!(reply.starts_with(&format!("*1\r\n*24\r\n$4\r\nnode\r\n$40\r\n{OTHER}\r\n")), "{reply}");
    for part in
        ["$9\r\n127.0.0.1\r\n", "$10\r\nbytes-sent\r\n:12\r\n", "$6\r\nlag-us\r\n:-1\r\n", "$3\r\n0:0\r\n"]
    {
        assert!(reply.contains(part), "{part} in {reply}");
    }
}
