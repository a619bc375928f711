//! An independent client, the `redis` crate, counts on the built server with its defaults, over RESP2 and RESP3.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use redis::{Commands, PushKind, Value};
use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use support::{PATIENCE, Server, eventually};

/// A connection to the server at this port; `before` and `behind` stand there in the URL.
fn open(before: &str, server: &Server, behind: &str) -> redis::RedisResult<redis::Connection> {
    redis::Client::open(format!("redis://{before}127.0.0.1:{}/{behind}", server.port))?.get_connection()
}

/// A connection with the client's defaults.
fn connect(server: &Server) -> redis::Connection {
    open("", server, "").unwrap()
}

/// A connection that speaks RESP3.
fn connect_resp3(server: &Server) -> redis::Connection {
    open("", server, "?protocol=resp3").unwrap()
}

#[test]
fn a_client_counts_with_its_defaults() {
    let server = Server::start();
    let mut client = connect(&server);
    assert_eq!(client.incr::<_, _, i64>("page:home", 1), Ok(1));
    assert_eq!(client.incr::<_, _, i64>("page:home", 41), Ok(42));
    assert_eq!(client.decr::<_, _, i64>("page:home", 2), Ok(40));
    assert_eq!(client.incr::<_, _, f64>("page:home", 0.5), Ok(40.5));
    assert_eq!(client.get::<_, f64>("page:home"), Ok(40.5));
    assert_eq!(client.get::<_, i64>("never counted"), Ok(0));
    assert_eq!(client.exists::<_, bool>("page:home"), Ok(true));
    assert_eq!(client.del::<_, i64>("page:home"), Ok(1));
    assert_eq!(client.exists::<_, bool>("page:home"), Ok(false));
}

#[test]
fn a_client_counts_over_resp3() {
    let server = Server::start();
    let mut client = connect_resp3(&server);
    assert_eq!(client.incr::<_, _, i64>("likes", 3), Ok(3));
    assert_eq!(client.mget::<_, Vec<i64>>(&["likes", "none"]), Ok(vec![3, 0]));
    let answer: Value = redis::cmd("HELLO").arg(3).query(&mut client).unwrap();
    assert!(matches!(answer, Value::Map(_)), "{answer:?}");
    let settings: Value = redis::cmd("CONFIG").arg(&["GET", "port"]).query(&mut client).unwrap();
    assert!(matches!(settings, Value::Map(_)), "{settings:?}");
}

#[test]
fn sums_of_decimals_reach_a_client_exactly() {
    let server = Server::start();
    let mut client = connect(&server);
    let mut total = String::new();
    for amount in ["0.1", "0.2", "99999999999999999999", "0.00000000000000001"] {
        total = redis::cmd("INCRBYFLOAT").arg(&["sum", amount]).query(&mut client).unwrap();
    }
    assert_eq!(total, "99999999999999999999.30000000000000001");
}

#[test]
fn a_pipeline_is_answered_in_order() {
    let server = Server::start();
    for mut client in [connect(&server), connect_resp3(&server)] {
        let mut pipeline = redis::pipe();
        for _ in 0..1_000 {
            pipeline.incr("views", 1);
        }
        let before: i64 = client.get("views").unwrap();
        let replies: Vec<i64> = pipeline.query(&mut client).unwrap();
        assert_eq!(replies, (before + 1..=before + 1_000).collect::<Vec<_>>());
    }
}

#[test]
fn an_error_in_a_pipeline_leaves_the_commands_behind_it() {
    let server = Server::start();
    let mut client = connect(&server);
    let mut pipeline = redis::pipe();
    pipeline.incr("k", 1).cmd("INCRBY").arg("k").arg("many").incr("k", 1);
    let error = pipeline.query::<Vec<i64>>(&mut client).unwrap_err();
    assert!(error.to_string().contains("value is not a valid float"), "{error}");
    assert_eq!(client.get::<_, i64>("k"), Ok(2));
}

#[test]
fn scan_goes_over_every_name_once_nothing_moves() {
    let server = Server::start();
    let mut client = connect(&server);
    let names: BTreeSet<String> = (0..2_000).map(|number| format!("page:{number}")).collect();
    let mut pipeline = redis::pipe();
    for name in &names {
        pipeline.incr(name, 1);
    }
    pipeline.incr("other", 1);
    pipeline.exec(&mut client).unwrap();
    let found: BTreeSet<String> =
        client.scan_match::<_, String>("page:*").unwrap().map(Result::unwrap).collect();
    assert_eq!(found, names);
    assert_eq!(redis::cmd("DBSIZE").query::<usize>(&mut client), Ok(names.len() + 1));
}

#[test]
fn a_subscriber_hears_of_changes() {
    let server = Server::start();
    let (mut client, mut subscriber) = (connect(&server), connect(&server));
    let mut subscription = subscriber.as_pubsub();
    subscription.set_read_timeout(Some(PATIENCE)).unwrap();
    subscription.subscribe("plays").unwrap();
    client.incr::<_, _, i64>("plays", 7).unwrap();
    let message = subscription.get_message().unwrap();
    assert_eq!(message.get_channel_name(), "plays");
    assert_eq!(message.get_payload::<i64>(), Ok(7));
}

#[test]
fn a_subscriber_over_resp3_may_count_on_the_same_connection() {
    let server = Server::start();
    let mut client = connect_resp3(&server);
    let (sender, pushes) = channel();
    client.set_push_sender(sender);
    client.subscribe_resp3("plays").unwrap();
    client.incr::<_, _, i64>("plays", 7).unwrap();
    let mut message = None;
    eventually("a message is pushed", || {
        // What is pushed is read along with a reply.
        redis::cmd("PING").exec(&mut client).unwrap();
        message = pushes.try_iter().find(|push| push.kind == PushKind::Message);
        message.is_some()
    });
    assert_eq!(
        message.unwrap().data,
        [Value::BulkString(b"plays".to_vec()), Value::BulkString(b"7".to_vec())]
    );
}

#[test]
fn a_password_is_asked_for_and_taken() {
    let server = Server::with(&["--requirepass", "open sesame"]);
    let refused = open("", &server, "").and_then(|mut client| client.incr::<_, _, i64>("k", 1));
    assert_eq!(refused.unwrap_err().code(), Some("NOAUTH"));
    assert!(open(":close@", &server, "").is_err());
    for (count, behind) in ["", "?protocol=resp3"].into_iter().enumerate() {
        let mut client = open(":open%20sesame@", &server, behind).unwrap();
        assert_eq!(client.incr("k", 1), Ok(count + 1));
    }
}

#[test]
fn a_unix_socket_serves_beside_the_port() {
    let server = Server::with(&["--unixsocket", "socket", "--unixsocketperm", "600"]);
    let path = server.dir.path().join("socket");
    let mut client =
        redis::Client::open(format!("unix://{}", path.display())).unwrap().get_connection().unwrap();
    assert_eq!(client.incr::<_, _, i64>("k", 5), Ok(5));
    assert_eq!(connect(&server).get::<_, i64>("k"), Ok(5));
}
