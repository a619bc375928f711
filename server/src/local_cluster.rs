//! `--local-cluster N`: some joined nodes in one process, to see what a cluster does. In memory, for this machine only.

use crate::process;
use crate::server::{Server, ServerOptions};
use engine::cluster::ClusterRequest;
use engine::cluster::view::Role;
use engine::settings::{BUS_PORT_OFFSET, LogLevel, Secret, Settings};
use engine::{Node, TaskResult};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Most nodes.
pub(crate) const MAX_NODES: u16 = 16;

/// Port of the first node, unless another one is given.
pub(crate) const FIRST_PORT: u16 = 7711;

/// How long the nodes may take to meet.
const MEET_LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked whether they have met.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Runs the cluster until a signal ends it, or the last node has been shut down.
///
/// # Errors
/// A text for the operator.
pub(crate) async fn run(
    settings: Settings,
    nodes: u16,
    first_port: u16,
    signalled: impl Future<Output = ()>,
) -> Result<(), String> {
    let ports = first_port..first_port + nodes;
    let secret = Secret(process::random::<32>()?.to_vec());
    let servers =
        ports.clone().map(|port| start(&settings, port, &secret)).collect::<Result<Vec<_>, _>>().map_err(
            |error| format!("{error}. Choose other ports with --local-cluster {nodes} FIRST-PORT"),
        )?;
    let watched: Vec<Arc<Node>> = servers.iter().map(|server| Arc::clone(server.node())).collect();
    let handles: Vec<_> = servers.iter().map(|server| server.bus().clone()).collect();
    let mut stops = Vec::new();
    let mut running = JoinSet::new();
    for server in servers {
        let (stop, stopped) = mpsc::unbounded_channel();
        stops.push(stop);
        running.spawn(server.run(|| (), stopped));
    }
    for handle in &handles[1..] {
        let bus = SocketAddr::from(([127, 0, 0, 1], first_port + BUS_PORT_OFFSET));
        if let TaskResult::Error(error) = handle.request(ClusterRequest::Meet { bus, port: first_port }).await
        {
            return Err(format!("the nodes can't meet: {error}"));
        }
    }
    if tokio::time::timeout(MEET_LIMIT, all_met(&watched)).await.is_err() {
        return Err(format!(
            "the nodes have not met within {MEET_LIMIT:?}; the log may say why (--loglevel verbose)"
        ));
    }
    print(&introduction(ports));
    tokio::select! {
        () = signalled => {}
        () = async { while running.join_next().await.is_some() {} } => return Ok(()),
    }
    drop(stops);
    running.join_all().await;
    Ok(())
}

fn start(settings: &Settings, port: u16, secret: &Secret) -> Result<Server, String> {
    let settings = Settings {
        port,
        bind: vec!["127.0.0.1".into()],
        unixsocket: String::new(),
        io_threads: 1,
        cluster_secret: secret.clone(),
        appendonly: false,
        save: Vec::new(),
        ..settings.clone()
    };
    Server::start(ServerOptions { settings, config_file: None, dir: None })
}

/// The log's level: what the operator asked for, but not the everyday lines of so many nodes unless asked for more.
pub(crate) fn log_level(settings: &Settings) -> LogLevel {
    match settings.loglevel {
        LogLevel::Notice => LogLevel::Warning,
        other => other,
    }
}

/// Returns once every node has a link to every other.
async fn all_met(nodes: &[Arc<Node>]) {
    let has_met_all = |node: &Arc<Node>| {
        let view = node.cluster_view();
        let linked = view.nodes.iter().filter(|member| match member.line.role {
            Role::Myself => true,
            Role::Member(_) => member.line.has_link,
            Role::Handshake => false,
        });
        linked.count() == nodes.len()
    };
    while !nodes.iter().all(has_met_all) {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

#[allow(clippy::print_stdout, reason = "what was asked for goes to standard output")]
fn print(text: &str) {
    print!("{text}");
}

/// What a newcomer can do now.
fn introduction(ports: std::ops::Range<u16>) -> String {
    let (first, last) = (ports.start, ports.end - 1);
    let all = ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(", ");
    format!(
        "\nA cluster is running: {all}\n\
         It takes connections from this machine only and keeps nothing on disk.\n\n\
         Count on one node and read on another, from a second terminal:\n\n\
         \x20   discnt-cli -p {first} INCRBY visits 5\n\
         \x20   discnt-cli -p {last} GET visits\n\
         \x20   discnt-cli -p {first} CLUSTER NODES\n\n\
         Take a node away and see that the others go on:\n\n\
         \x20   discnt-cli -p {last} SHUTDOWN\n\n\
         redis-cli does as well as discnt-cli. Ctrl-C here stops all nodes.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::introduction;

    #[test]
    fn the_introduction_names_every_node() {
        let text = introduction(7711..7714);
        assert!(text.contains("127.0.0.1:7711, 127.0.0.1:7712, 127.0.0.1:7713\n"), "{text}");
        assert!(text.contains("discnt-cli -p 7713 GET visits"), "{text}");
    }
}
