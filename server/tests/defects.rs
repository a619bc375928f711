//! What was wrong with the original and must not be wrong here: its defects A1 to A7 (crashes and hangs) and B1 to
//! B14 (wrong answers on one node), each as a test on a real server that the original fails.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::time::{Duration, Instant};
use support::{Conn, PATIENCE, Server, eventually, request};

const NOT_A_NUMBER: &str = "-ERR value is not a valid float|";
const OUT_OF_RANGE: &str = "-ERR Counter value out of allowed range|";
const NOT_AN_INTEGER: &str = "-ERR value is not an integer or out of range|";

/// A connection that gets a message at each turn of the server's timer when `await_ticks` counts on.
fn tick_subscriber(server: &Server) -> Conn {
    let mut subscriber = server.connect();
    subscriber.run("SUBSCRIBE tick");
    subscriber
}

/// A1
#[test]
fn unsubscribe_without_subscription_is_answered() {
    let mut server = Server::start();
    let mut conn = server.connect();
    assert_eq!(conn.run("UNSUBSCRIBE"), "*3|$11|unsubscribe|$-1|:0|");
    assert_eq!(conn.run("UNSUBSCRIBE a"), "*3|$11|unsubscribe|$1|a|:0|");
    assert_eq!(conn.raw(request(&[b"UNSUBSCRIBE", b"a", b"b"]), 2).matches(":0|").count(), 2);
    assert_eq!(conn.run("PING"), "+PONG|");
    server.assert_up();
}

/// A2
#[test]
fn no_history_size_harms_the_server() {
    let mut server = Server::start();
    let (mut conn, mut subscriber) = (server.connect(), tick_subscriber(&server));
    conn.run("DEBUG POPULATE 3000");
    for size in ["0", "1", "1000", "100000", "9223372036854775807", "18446744073709551616", "-1"] {
        conn.run(&format!("CONFIG SET history-size {size}"));
        conn.run("INCR key:7");
        conn.await_ticks(&mut subscriber, 1);
        let shown = conn.run("DEBUG COUNTER key:7");
        assert!(shown.starts_with("*7|") && shown.len() < 1_000, "{shown}");
    }
    server.assert_up();
}

/// A3
#[test]
fn subscribing_while_counters_are_loaded_is_harmless() {
    let mut server = Server::start();
    // As many counters as it takes to find the next start still loading.
    for count in [1_000_000, 4_000_000] {
        let mut conn = server.connect();
        assert_eq!(conn.run("CONFIG SET maxmemory 0"), "+OK|");
        assert_eq!(conn.run(&format!("DEBUG POPULATE {count} load{count}")), "+OK|");
        assert_eq!(conn.run("SET brought 7"), "$1|7|");
        server.start_again();
        let mut subscriber = server.connect();
        let is_loading = subscriber.run("PING").starts_with("-LOADING");
        assert_eq!(subscriber.run("SUBSCRIBE brought"), "*3|$9|subscribe|$7|brought|:1|");
        assert_eq!(subscriber.reply(), "*3|$7|message|$7|brought|$1|7|");
        eventually("the counters are loaded", || server.connect().run("PING") == "+PONG|");
        server.assert_up();
        if is_loading {
            assert_eq!(server.connect().run("GET brought"), "$1|7|");
            return;
        }
    }
    panic!("the server was never seen loading");
}

/// A4
#[test]
fn get_with_an_unknown_option_is_answered_for_a_missing_counter_too() {
    let server = Server::start();
    let mut conn = server.connect();
    assert_eq!(conn.run("GET missing word"), "-ERR Unknown GET option 'word'|");
    conn.run("INCR there");
    assert_eq!(conn.run("GET there word"), "-ERR Unknown GET option 'word'|");
    assert_eq!(conn.run("GET missing"), "$1|0|");
}

/// A5
#[test]
fn a_second_monitor_on_a_connection_is_answered() {
    let server = Server::start();
    let mut conn = server.connect();
    assert_eq!(conn.run("MONITOR"), "+OK|");
    conn.send("MONITOR\r\n");
    let lines = [conn.reply(), conn.reply()];
    assert!(lines[0].ends_with("\"MONITOR\"|"), "{lines:?}");
    assert_eq!(lines[1], "+OK|");
}

/// A6
#[test]
fn nul_bytes_are_answered_wherever_they_stand() {
    let server = Server::start();
    let mut conn = server.connect();
    assert_eq!(conn.raw("INCR a\0b\r\n", 1), "$1|1|");
    assert_eq!(conn.request(&[b"GET", b"a\0b"]), "$1|1|");
    assert_eq!(conn.raw("\0\r\n", 1), "-ERR unknown command '\0'|");
    conn.send("*1\r\n\0abc\r\n");
    assert_eq!(conn.rest(), "-ERR Protocol error: expected '$', got '\0'|");
}

/// A7: exponential time would take longer than the universe has been there.
#[test]
fn keys_with_many_stars_takes_no_exponential_time() {
    let server = Server::start();
    let mut conn = server.connect();
    let (name, pattern) = ("a".repeat(1_000), "a*".repeat(300));
    conn.run(&format!("INCR {name}"));
    let mut other = server.connect();
    conn.send(request(&[b"KEYS", format!("{pattern}b").as_bytes()]));
    assert_eq!(other.run("PING"), "+PONG|");
    assert_eq!(conn.reply(), "*0|");
    assert_eq!(conn.run(&format!("KEYS {pattern}")), format!("*1|$1000|{name}|"));
}

/// B1
#[test]
fn decr_takes_a_name_alone() {
    let server = Server::start();
    let mut conn = server.connect();
    assert_eq!(conn.run("DECR a"), "$2|-1|");
    assert_eq!(conn.run("DECR a 5"), "-ERR wrong number of arguments for 'decr' command|");
    assert_eq!(conn.run("GET a"), "$2|-1|");
}

/// B2, as far as a node can show it that has not been restarted.
#[test]
fn mget_answers_what_get_answers() {
    let server = Server::start();
    let (mut writer, mut reader) = (server.connect(), server.connect());
    for total in 1..=20 {
        assert_eq!(writer.run("INCR a"), reader.run("GET a"));
        let text = total.to_string();
        assert_eq!(reader.run("MGET a missing"), format!("*2|${}|{text}|$1|0|", text.len()));
    }
}

/// B2
#[test]
fn mget_answers_what_get_answers_after_a_restart() {
    let mut server = Server::start();
    assert_eq!(server.connect().run("INCRBY a 41.5"), "$4|41.5|");
    server.start_again();
    let mut conn = server.connect();
    eventually("the counters are loaded", || conn.run("PING") == "+PONG|");
    assert_eq!(conn.run("MGET a missing"), "*2|$4|41.5|$1|0|");
    assert_eq!(conn.run("GET a"), "$4|41.5|");
}

/// B3
#[test]
fn a_refused_increment_makes_no_counter_and_no_accepted_one_is_lost() {
    let server = Server::start();
    let mut conn = server.connect();
    for words in ["INCRBY new 1e21", "DECRBY new 1e21", "SET new 1e21", "INCRBY new 100000000000000000000.1"]
    {
        assert_eq!(conn.run(words), OUT_OF_RANGE, "{words}");
    }
    assert_eq!(conn.run("MINCRBY 1e21 new"), format!("*1|{OUT_OF_RANGE}"));
    assert_eq!((conn.run("EXISTS new"), conn.run("DBSIZE")), (":0|".into(), ":0|".into()));
    conn.run("SET big 99999999999999999999");
    assert_eq!(conn.run("INCRBY big 0.00000000000000001"), "$38|99999999999999999999.00000000000000001|");
    assert_eq!(conn.run("INCRBY big 0.99999999999999999"), "$21|100000000000000000000|");
    assert_eq!(conn.run("INCRBY big 0.00000000000000001"), OUT_OF_RANGE);
    assert_eq!(conn.run("DECR big"), "$20|99999999999999999999|");
}

/// B4
#[test]
fn a_nul_byte_ends_no_number() {
    let server = Server::start();
    let mut conn = server.connect();
    for bad in [&b"5\0abc"[..], b"\0", b"\x005", b"1.5\0", b""] {
        for command in ["INCRBY", "DECRBY", "INCRBYFLOAT", "SET", "PRECISION"] {
            let reply = conn.request(&[command.as_bytes(), b"n", bad]);
            assert_eq!(reply, NOT_A_NUMBER, "{command} {bad:?}");
        }
        assert_eq!(conn.request(&[b"MINCRBY", bad, b"n"]), NOT_A_NUMBER, "{bad:?}");
        assert_eq!(conn.request(&[b"ISUBSCRIBE", bad, b"n"]), NOT_AN_INTEGER, "{bad:?}");
        assert_eq!(conn.request(&[b"CLIENT", b"KILL", b"ID", bad]), NOT_AN_INTEGER, "{bad:?}");
    }
    assert_eq!(conn.run("DBSIZE"), ":0|");
}

/// B4
#[test]
fn a_nul_byte_ends_no_password_no_command_and_no_pattern() {
    let server = Server::with(&["--requirepass", "foobar"]);
    let mut conn = server.connect();
    assert_eq!(conn.request(&[b"AUTH", b"foobar\0xyz"]), "-ERR invalid password|");
    assert_eq!(conn.run("PING"), "-NOAUTH Authentication required.|");
    conn.run("AUTH foobar");
    for name in [&b"QUIT\0x"[..], b"QUIT\0", b"PING\0", b"GET\0"] {
        assert!(conn.request(&[name, b"a"]).starts_with("-ERR unknown command '"), "{name:?}");
    }
    for name in [&b"a\0b"[..], b"ab", b"x"] {
        conn.request(&[b"INCR", name]);
    }
    assert_eq!(conn.request(&[b"KEYS", b"*\0zzz"]), "*0|");
    assert_eq!(conn.request(&[b"KEYS", b"*\0b"]), "*1|$3|a\0b|");
}

/// B5
#[test]
fn the_precision_of_a_counter_without_value_is_kept() {
    let server = Server::start();
    let (mut conn, mut subscriber) = (server.connect(), tick_subscriber(&server));
    assert_eq!(conn.run("PRECISION a 7"), "$1|7|");
    conn.await_ticks(&mut subscriber, 4);
    assert_eq!((conn.run("PRECISION a"), conn.run("EXISTS a")), ("$1|7|".into(), ":1|".into()));
}

/// B5
#[test]
fn a_precision_is_a_number_of_zero_or_more() {
    let server = Server::start();
    let mut conn = server.connect();
    for bad in ["-1", "-0.5", "inf", "-inf", "nan", "1e400", "-1%"] {
        assert!(conn.run(&format!("PRECISION a {bad}")).starts_with("-ERR "), "{bad}");
        assert!(conn.run(&format!("CONFIG SET default-precision {bad}")).starts_with("-ERR "), "{bad}");
    }
    assert_eq!((conn.run("PRECISION a"), conn.run("EXISTS a")), ("$1|1|".into(), ":0|".into()));
}

/// B5
#[test]
fn config_rewrite_keeps_a_small_default_precision() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("discnt.conf");
    std::fs::write(&file, "# mine\ndefault-precision 0.0000001\nhz 10\n").unwrap();
    let server = Server::from_file(&file);
    let mut conn = server.connect();
    conn.run("CONFIG SET hz 20");
    assert_eq!(conn.run("CONFIG REWRITE"), "+OK|");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# mine\n") && text.contains("\nhz 20\n"), "{text}");
    let again = Server::from_file(&file);
    assert_eq!(again.connect().run("CONFIG GET default-precision"), "*2|$17|default-precision|$9|0.0000001|");
}

/// B6
#[test]
fn words_too_many_are_an_error() {
    let server = Server::start();
    let mut conn = server.connect();
    conn.run("INCR a");
    for words in ["GET a STATE x", "GET a BOUND x", "PRECISION a 1 x", "DEBUG FLUSHALL x", "DEBUG RESET x"] {
        assert!(conn.run(words).starts_with("-ERR "), "{words}");
    }
    assert_eq!((conn.run("GET a"), conn.run("PRECISION a")), ("$1|1|".into(), "$1|1|".into()));
}

/// B7
#[test]
fn lines_that_end_in_lf_alone_lose_nothing() {
    let server = Server::start();
    let mut conn = server.connect();
    assert_eq!(conn.raw("PING\nPING\nINCR x\n*1\r\n$4\r\nPING\r\n", 4), "+PONG|+PONG|$1|1|+PONG|");
}

/// B7
#[test]
fn empty_quoted_words_are_words() {
    let server = Server::start();
    let mut conn = server.connect();
    assert_eq!(conn.raw("INCR \"\"\r\nINCR ''\r\nPING \"\"\r\n", 3), "$1|1|$1|2|$0||");
    assert_eq!(conn.raw("SET \"\" a 5\r\n", 1), "-ERR wrong number of arguments for 'set' command|");
    assert_eq!((conn.run("EXISTS a"), conn.request(&[b"GET", b""])), (":0|".into(), "$1|2|".into()));
}

/// B7
#[test]
fn what_follows_a_bulk_and_a_cr_is_checked() {
    let server = Server::start();
    for bad in
        ["*1\r\n$4\r\nPINGab", "*2\r\n$3\r\nGETxx$1\r\nayy", "*1\rx$4\r\nPING\r\n", "*1\r\n$4\rxPING\r\n"]
    {
        let mut conn = server.connect();
        conn.send(bad);
        let reply = conn.rest();
        assert!(reply.starts_with("-ERR Protocol error: ") && reply.ends_with('|'), "{bad:?} {reply:?}");
        assert_eq!(reply.matches('|').count(), 1, "{bad:?} {reply:?}");
    }
}

/// B8
#[test]
fn subscribed_mode_ends_when_all_counters_are_deleted() {
    let server = Server::start();
    let (mut conn, mut subscriber) = (server.connect(), server.connect());
    subscriber.raw(request(&[b"SUBSCRIBE", b"a", b"b"]), 2);
    assert_eq!(conn.run("DEBUG FLUSHALL"), "+OK|");
    let told = [subscriber.reply(), subscriber.reply()];
    assert_eq!(told, ["*3|$11|unsubscribe|$1|a|:1|", "*3|$11|unsubscribe|$1|b|:0|"]);
    assert_eq!(subscriber.run("GET a"), "$1|0|");
    assert_eq!(subscriber.run("PING"), "+PONG|");
}

/// B8
#[test]
fn intervals_that_are_none_are_refused() {
    let server = Server::start();
    let mut conn = server.connect();
    for bad in ["-5", "-1", "9223372036854775807", "9223372036854775808", "1.5", "x"] {
        assert_eq!(conn.run(&format!("ISUBSCRIBE {bad} a")), NOT_AN_INTEGER, "{bad}");
    }
    assert_eq!((conn.run("EXISTS a"), conn.run("PING")), (":0|".into(), "+PONG|".into()));
    assert_eq!(conn.run("ISUBSCRIBE 0 a"), "*3|$9|subscribe|$1|a|:1|");
}

/// B9
#[test]
fn client_kill_id_zero_kills_nobody() {
    let server = Server::start();
    let (mut conn, mut other) = (server.connect(), server.connect());
    assert_eq!(other.run("PING"), "+PONG|");
    assert_eq!(conn.run("CLIENT KILL ID 0"), ":0|");
    assert_eq!(other.run("PING"), "+PONG|");
}

/// B9
#[test]
fn cluster_meet_checks_the_whole_port() {
    let server = Server::start();
    let mut conn = server.connect();
    for port in ["4294967297", "18446744073709551617", "65536", "0", "-1"] {
        let reply = conn.run(&format!("CLUSTER MEET 127.0.0.1 {port}"));
        assert!(reply.starts_with("-ERR Invalid "), "{port}: {reply}");
    }
    assert_eq!(conn.run("CLUSTER NODES").matches("127.0.0.1").count(), 0);
}

/// B10
#[test]
fn passwords_are_shown_to_nobody() {
    let server = Server::with(&["--requirepass", "sesame"]);
    let (mut monitor, mut conn) = (server.connect(), server.connect());
    for client in [&mut monitor, &mut conn] {
        assert_eq!(client.run("AUTH sesame"), "+OK|");
    }
    assert_eq!(monitor.run("MONITOR"), "+OK|");
    assert_eq!(conn.run("AUTH sesame"), "+OK|");
    conn.run("HELLO 2 AUTH default sesame");
    assert_eq!(conn.run("CONFIG SET requirepass sesame"), "+OK|");
    for pattern in ["requirepass", "*"] {
        assert!(!conn.run(&format!("CONFIG GET {pattern}")).contains("sesame"), "{pattern}");
    }
    conn.run("ECHO end");
    loop {
        let line = monitor.reply();
        assert!(!line.contains("sesame"), "{line}");
        if line.contains("\"ECHO\"") {
            break;
        }
    }
}

/// B11
#[test]
fn save_points_replace_the_default_ones() {
    let server = Server::with(&["--save", "900", "1"]);
    assert_eq!(server.connect().run("CONFIG GET save"), "*2|$4|save|$5|900 1|");
}

/// B11
#[test]
fn tcp_keepalive_is_seconds_at_start_and_later() {
    let server = Server::with(&["--tcp-keepalive", "77"]);
    let mut conn = server.connect();
    assert_eq!(conn.run("CONFIG GET tcp-keepalive"), "*2|$13|tcp-keepalive|$2|77|");
    assert_eq!(conn.run("CONFIG SET tcp-keepalive 78"), "+OK|");
    assert_eq!(conn.run("CONFIG GET tcp-keepalive"), "*2|$13|tcp-keepalive|$2|78|");
}

/// B12. That the reader itself refuses damage is tested where it is (`engine/tests/ddb.rs`).
#[test]
fn a_damaged_dump_stops_the_start() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut dump = std::fs::read("../engine/tests/fixtures/ddb/single-node.ddb").unwrap();
    let middle = dump.len() / 2;
    dump[middle] ^= 1;
    std::fs::write(dir.path().join("dump.ddb"), dump).unwrap();
    let ended =
        support::refused(support::command(support::free_port(), dir.path(), &["--bind", "127.0.0.1"], &[]));
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("dump.ddb") && said.contains("byte "), "{said}");
}

/// B13
#[test]
fn subscribe_makes_no_counter_above_the_memory_limit() {
    let server = Server::start();
    let mut conn = server.connect();
    conn.run("INCR there");
    conn.run("CONFIG SET maxmemory 1");
    let mut tries = 0;
    eventually("the limit is noticed", || {
        tries += 1;
        conn.run(&format!("INCR try:{tries}")).starts_with("-OOM ")
    });
    for words in ["SUBSCRIBE new", "ISUBSCRIBE 5 new", "PRECISION new 5", "SET new 5", "SUBSCRIBE there new"]
    {
        assert!(conn.run(words).starts_with("-OOM "), "{words}");
    }
    assert_eq!(conn.run("MINCRBY 1 there new").matches("-OOM ").count(), 1);
    assert_eq!((conn.run("EXISTS new"), conn.run("GET there")), (":0|".into(), "$1|2|".into()));
    assert_eq!((conn.run("PRECISION new"), conn.run("DEL there")), ("$1|1|".into(), ":1|".into()));
}

/// B14: the original stands still for 1.5 seconds in each second with that many.
#[test]
fn a_million_counters_delay_nobody() {
    /// Far above what a busy machine adds, far below the original's.
    const PROMPT: Duration = Duration::from_millis(500);
    let server = Server::start();
    let (mut conn, mut subscriber) = (server.connect(), tick_subscriber(&server));
    assert_eq!(conn.run("DEBUG POPULATE 1000000"), "+OK|");
    assert_eq!(conn.run("DBSIZE"), ":1000001|");
    let (mut slowest, started) = (Duration::ZERO, Instant::now());
    for _ in 0..3 {
        conn.run("INCR tick");
        // Pings until the timer has gone round.
        subscriber.stream.set_nonblocking(true).unwrap();
        while subscriber.stream.peek(&mut [0]).is_err() {
            assert!(started.elapsed() < PATIENCE);
            let asked = Instant::now();
            conn.run("PING");
            slowest = slowest.max(asked.elapsed());
        }
        subscriber.stream.set_nonblocking(false).unwrap();
        subscriber.reply();
    }
    assert!(slowest < PROMPT, "a PING took {slowest:?}");
}
