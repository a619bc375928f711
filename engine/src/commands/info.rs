//! INFO: what the node is and what it has done, in sections of `field:value` lines.
//!
//! The original's seven sections keep its fields, in its order; programs read them by position. What is ours, and
//! what tools made for Redis look for, stands in sections of its own behind them.

use crate::command::ArgKind::String as Text;
use crate::command::Flag::{Loading, Readonly};
use crate::command::{Arg, CommandSpec, Context, Group, Outcome};
use crate::error::ClientError;
use crate::node::{Node, ProcessInfo};
use crate::settings::Settings;
use crate::time::{Micros, Now};
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

pub(super) const COMMANDS: &[CommandSpec] = &[CommandSpec {
    name: "info",
    summary: "Answers facts and counts about the node: all usual sections, those named, or ALL.",
    since: "1.0.0",
    group: Group::Server,
    flags: &[Readonly, Loading],
    arguments: &[Arg::new("section", Text).optional().multiple()],
    subcommands: &[],
    run: info,
}];

/// The version of Redis whose conventions hold where the original has none.
const REDIS_VERSION: &str = "7.0.0";

/// What sections are written from.
struct Facts<'a> {
    node: &'a Node,
    settings: &'a Settings,
    process: ProcessInfo,
    now: Now,
}

/// A section and what writes its lines.
struct Section {
    title: &'static str,
    is_default: bool,
    write: fn(&Facts<'_>, &mut Lines),
}

const SECTIONS: &[Section] = &[
    Section { title: "Server", is_default: true, write: server },
    Section { title: "Clients", is_default: true, write: clients },
    Section { title: "Memory", is_default: true, write: memory },
    Section { title: "Counters", is_default: true, write: counters },
    Section { title: "Persistence", is_default: true, write: persistence },
    Section { title: "Stats", is_default: true, write: stats },
    Section { title: "CPU", is_default: true, write: cpu },
    Section { title: "Compatibility", is_default: true, write: compatibility },
    Section { title: "Replication", is_default: true, write: replication },
    Section { title: "Keyspace", is_default: true, write: keyspace },
    Section { title: "Commandstats", is_default: false, write: command_stats },
];

/// The text so far.
struct Lines(String);

impl Lines {
    fn field(&mut self, name: &str, value: impl Display) {
        write!(self.0, "{name}:{value}\r\n").expect("writing to a string does not fail");
    }
}

fn info(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let request = ctx.request;
    let is_asked = |word: &str| request.iter().skip(1).any(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
    let is_all = is_asked("all") || is_asked("everything");
    let is_default = request.len() == 1 || is_asked("default");
    let process = ctx.node.shell.process();
    let facts = Facts { node: ctx.node, settings: ctx.settings, process, now: ctx.now };
    let mut lines = Lines(String::new());
    for section in SECTIONS {
        if is_all || is_default && section.is_default || is_asked(section.title) {
            let gap = if lines.0.is_empty() { "" } else { "\r\n" };
            write!(lines.0, "{gap}# {}\r\n", section.title).expect("writing to a string does not fail");
            (section.write)(&facts, &mut lines);
        }
    }
    ctx.reply.verbatim(b"txt", lines.0.as_bytes());
    Ok(Outcome::Done)
}

fn server(facts: &Facts<'_>, lines: &mut Lines) {
    let uptime_secs = facts.now.monotonic.since(facts.node.started.monotonic).secs();
    lines.field("discnt_version", env!("CARGO_PKG_VERSION"));
    lines.field("discnt_git_sha1", option_env!("DISCNT_GIT_SHA1").unwrap_or("00000000"));
    lines.field("discnt_git_dirty", 0);
    lines.field("discnt_build_id", option_env!("DISCNT_BUILD_ID").unwrap_or("0"));
    lines.field("os", &facts.process.os);
    lines.field("arch_bits", usize::BITS);
    lines.field("multiplexing_api", "epoll");
    lines.field("gcc_version", "none");
    lines.field("process_id", facts.process.pid);
    lines.field("run_id", facts.node.run_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    lines.field("tcp_port", facts.settings.port);
    lines.field("uptime_in_seconds", uptime_secs);
    lines.field("uptime_in_days", uptime_secs / 86_400);
    lines.field("hz", facts.settings.hz);
    lines.field("executable", &facts.process.executable);
    lines.field("config_file", &facts.process.config_file);
}

fn clients(facts: &Facts<'_>, lines: &mut Lines) {
    let all = facts.node.clients.all();
    // A client has at most one buffer of waiting output, where the original had a list of them.
    let longest_list = usize::from(all.iter().any(|client| client.waiting_bytes() > 0));
    let biggest_input =
        all.iter().map(|client| client.query_bytes.load(Ordering::Relaxed)).max().unwrap_or(0);
    lines.field("connected_clients", all.len());
    lines.field("client_longest_output_list", longest_list);
    lines.field("client_biggest_input_buf", biggest_input);
    lines.field("blocked_clients", 0);
}

fn memory(facts: &Facts<'_>, lines: &mut Lines) {
    let (used, resident) = (facts.process.allocated_bytes, facts.process.resident_bytes);
    let peak = facts.node.stats.memory().1.max(used);
    lines.field("used_memory", used);
    lines.field("used_memory_human", human(used));
    lines.field("used_memory_rss", resident);
    lines.field("used_memory_peak", peak);
    lines.field("used_memory_peak_human", human(peak));
    lines.field("mem_fragmentation_ratio", format_args!("{:.2}", resident as f64 / used.max(1) as f64));
    lines.field("mem_allocator", facts.process.allocator);
}

fn counters(facts: &Facts<'_>, lines: &mut Lines) {
    lines.field("counters", facts.node.keyspace.len());
    // A node alone publishes nothing, so no prediction of its is right or wrong.
    let (kept, made) = facts.node.stats.predictions();
    lines.field("hits", kept);
    lines.field("misses", made);
}

fn persistence(facts: &Facts<'_>, lines: &mut Lines) {
    let status = facts.node.save_status();
    let changes = facts.node.stats.changes().saturating_sub(status.saved_changes);
    let running_secs = status.running_since.map(|since| facts.now.monotonic.since(since).secs());
    let or_minus_one = |secs: Option<u64>| secs.map_or(-1, |secs| secs as i64);
    lines.field("loading", u8::from(facts.node.is_loading()));
    lines.field("ddb_changes_since_last_save", changes);
    lines.field("ddb_bgsave_in_progress", u8::from(status.running_since.is_some()));
    lines.field("ddb_last_save_time", status.saved_at_unix.secs());
    lines.field("ddb_last_bgsave_status", if status.is_last_good { "ok" } else { "err" });
    lines.field("ddb_last_bgsave_time_sec", or_minus_one(status.last_took.map(|took| took.secs())));
    lines.field("ddb_current_bgsave_time_sec", or_minus_one(running_secs));
    log(facts, lines);
    let loading = facts.node.loading();
    if loading.is_on {
        let elapsed_secs = facts.now.monotonic.since(loading.began).secs_f64();
        let left = loading.total_bytes.saturating_sub(loading.done_bytes) as f64;
        lines.field("loading_start_time", loading.began_unix.secs());
        lines.field("loading_total_bytes", loading.total_bytes);
        lines.field("loading_loaded_bytes", loading.done_bytes);
        lines.field("loading_loaded_perc", format_args!("{:.2}", loading.percent()));
        // Clients ask again after this time; at zero they would ask without end.
        let eta_secs = (left * elapsed_secs / loading.done_bytes.max(1) as f64).max(1.0);
        lines.field("loading_eta_seconds", format_args!("{eta_secs:.0}"));
    }
}

/// The log; `log_behind_*`: what a power failure at this moment would lose, at most.
fn log(facts: &Facts<'_>, lines: &mut Lines) {
    let status = facts.node.log_status();
    let unwritten = facts.node.keyspace.unlogged_len();
    let is_behind = status.is_on && (unwritten > 0 || status.unsynced_bytes > 0);
    let behind = if is_behind { facts.now.monotonic.since(status.safe_until) } else { Micros(0) };
    lines.field("aof_enabled", u8::from(status.is_on));
    lines.field("aof_last_write_status", if status.is_failing { "err" } else { "ok" });
    lines.field("aof_current_size", status.log_bytes);
    lines.field("log_behind_ms", behind.millis());
    lines.field("log_behind_counters", unwritten);
    lines.field("log_behind_bytes", status.unsynced_bytes);
    lines.field("log_segments", status.segments);
    lines.field("log_records_written", status.records_written);
    lines.field("log_bytes_written", status.log_bytes_written);
    lines.field("log_syncs", status.syncs);
    lines.field("snapshot_bytes", status.snapshot_bytes);
    lines.field("snapshot_bytes_written", status.snapshot_bytes_written);
    lines.field("disk_failures", status.failures);
}

fn stats(facts: &Facts<'_>, lines: &mut Lines) {
    let stats = &facts.node.stats;
    let ((input_bytes, output_bytes), rates) = (stats.traffic(), stats.rates());
    let kilobytes = |bytes: u64| bytes as f64 / 1024.0;
    lines.field("total_connections_received", stats.connections());
    lines.field("total_commands_processed", stats.all_calls());
    lines.field("instantaneous_ops_per_sec", rates.calls);
    lines.field("total_net_input_bytes", input_bytes);
    lines.field("total_net_output_bytes", output_bytes);
    lines.field("instantaneous_input_kbps", format_args!("{:.2}", kilobytes(rates.input_bytes)));
    lines.field("instantaneous_output_kbps", format_args!("{:.2}", kilobytes(rates.output_bytes)));
    lines.field("rejected_connections", stats.rejected());
    // Nothing here forks.
    lines.field("latest_fork_usec", 0);
}

fn cpu(facts: &Facts<'_>, lines: &mut Lines) {
    lines.field("used_cpu_sys", format_args!("{:.2}", facts.process.cpu_system_secs));
    lines.field("used_cpu_user", format_args!("{:.2}", facts.process.cpu_user_secs));
    lines.field("used_cpu_sys_children", "0.00");
    lines.field("used_cpu_user_children", "0.00");
}

/// Fields that tools made for Redis look for, and facts that the original does not tell.
fn compatibility(facts: &Facts<'_>, lines: &mut Lines) {
    lines.field("redis_version", REDIS_VERSION);
    lines.field("redis_mode", "standalone");
    lines.field("node_id", facts.node.id());
    lines.field("maxclients", facts.settings.maxclients);
    lines.field("maxmemory", facts.settings.maxmemory_bytes);
    lines.field("maxmemory_human", human(facts.settings.maxmemory_bytes));
    lines.field("maxmemory_policy", "noeviction");
    lines.field("io_threads_active", facts.process.io_threads);
    lines.field("total_error_replies", facts.node.stats.errors());
    lines.field("subscribed_counters", facts.node.pubsub.counters());
}

/// What clients that tell masters from replicas ask for when they connect: every node takes writes, and none copies another.
fn replication(_: &Facts<'_>, lines: &mut Lines) {
    lines.field("role", "master");
    lines.field("connected_slaves", 0);
}

/// As Redis has it, nothing about a set of keys that is empty.
fn keyspace(facts: &Facts<'_>, lines: &mut Lines) {
    let counters = facts.node.keyspace.len();
    if counters > 0 {
        lines.field("db0", format_args!("keys={counters},expires=0,avg_ttl=0"));
    }
}

/// Each command that was called, with the time that `Node::note_time` attributes to it.
fn command_stats(facts: &Facts<'_>, lines: &mut Lines) {
    for (number, spec) in super::all().enumerate() {
        let (calls, micros) = (facts.node.stats.calls(number as u16), facts.node.stats.micros(number as u16));
        if calls > 0 {
            let per_call = micros as f64 / calls as f64;
            lines.field(
                &format!("cmdstat_{}", spec.name),
                format_args!("calls={calls},usec={micros},usec_per_call={per_call:.2}"),
            );
        }
    }
}

/// `512B`, `1.43M`: a number of bytes in the largest unit of which it is at least one.
fn human(bytes: u64) -> String {
    const UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let power = (bytes.ilog2() / 10).min(UNITS.len() as u32);
    let value = bytes as f64 / (1_u64 << (10 * power)) as f64;
    format!("{value:.2}{}", UNITS[power as usize - 1])
}

#[cfg(test)]
mod tests {
    use super::super::harness::Harness;
    use super::human;
    use crate::saves::Loading;
    use crate::time::Micros;

    /// The lines of an INFO reply.
    fn info(harness: &mut Harness, sections: &str) -> Vec<String> {
        let reply = harness.run(format!("INFO {sections}").trim_end());
        let (_, text) = reply.split_once("|").unwrap();
        text.split("|").map(str::to_owned).collect()
    }

    fn titles(harness: &mut Harness, sections: &str) -> Vec<String> {
        let lines = info(harness, sections);
        lines.iter().filter_map(|line| line.strip_prefix("# ")).map(str::to_owned).collect()
    }

    #[test]
    fn sections_come_in_their_order_whatever_the_order_of_the_request() {
        let mut harness = Harness::new();
        let original = ["Server", "Clients", "Memory", "Counters", "Persistence", "Stats", "CPU"];
        let usual = [&original[..], &["Compatibility", "Replication", "Keyspace"]].concat();
        assert_eq!(titles(&mut harness, ""), usual);
        assert_eq!(titles(&mut harness, "default"), usual);
        assert_eq!(titles(&mut harness, "ALL"), [&usual[..], &["Commandstats"]].concat());
        assert_eq!(titles(&mut harness, "cpu SERVER"), ["Server", "CPU"]);
        assert_eq!(harness.run("INFO nosuch"), "$0||");
    }

    #[test]
    fn every_line_is_a_title_a_field_or_empty() {
        let mut harness = Harness::new();
        for line in info(&mut harness, "all") {
            let is_field = line.split_once(':').is_some_and(|(name, _)| {
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            });
            assert!(line.is_empty() || line.starts_with("# ") || is_field, "{line:?}");
        }
    }

    #[test]
    fn tools_made_for_redis_find_the_number_of_keys() {
        let mut harness = Harness::new();
        assert!(!harness.run("INFO").contains("|db0:"));
        harness.run("MINCRBY 1 a b");
        assert!(harness.run("INFO").contains("|db0:keys=2,expires=0,avg_ttl=0|"));
        assert_eq!(info(&mut harness, "keyspace")[..2], ["# Keyspace", "db0:keys=2,expires=0,avg_ttl=0"]);
    }

    #[test]
    fn whoever_waits_for_the_end_of_loading_is_told_to_wait_at_least_a_second() {
        let mut harness = Harness::new();
        for (total_bytes, done_bytes, eta) in [(0, 0, "1"), (1_000, 999, "1"), (1_000, 100, "90")] {
            let began = harness.now.monotonic;
            harness.node.set_loading(Loading {
                is_on: true,
                began,
                total_bytes,
                done_bytes,
                ..Loading::default()
            });
            harness.now.monotonic = began + Micros::from_secs(10);
            let lines = info(&mut harness, "persistence");
            assert!(lines.contains(&format!("loading_eta_seconds:{eta}")), "{lines:?}");
        }
    }

    #[test]
    fn clients_that_look_for_a_master_find_one() {
        let lines = info(&mut Harness::new(), "replication");
        assert_eq!(lines[..3], ["# Replication", "role:master", "connected_slaves:0"]);
    }

    #[test]
    fn changes_are_counted_per_counter_and_only_when_something_changed() {
        let mut harness = Harness::new();
        for line in ["SET a 1", "INCR a", "PRECISION a 2", "PRECISION a", "MINCRBY 1 a b c", "GET a"] {
            harness.run(line);
        }
        harness.run("INCRBY a 1e21");
        harness.run("DEL b nosuch");
        let lines = info(&mut harness, "persistence");
        assert!(lines.contains(&"ddb_changes_since_last_save:7".to_owned()), "{lines:?}");
    }

    #[test]
    fn calls_and_time_are_told_per_command() {
        let mut harness = Harness::new();
        harness.run("INCR a");
        harness.run("INCR b");
        harness.spend(3_000);
        let lines = info(&mut harness, "commandstats");
        assert_eq!(lines[..2], ["# Commandstats", "cmdstat_incr:calls=2,usec=3,usec_per_call=1.50"]);
        harness.run("CONFIG RESETSTAT");
        let lines = info(&mut harness, "commandstats");
        assert_eq!(lines[1], "cmdstat_config:calls=1,usec=0,usec_per_call=0.00");
    }

    #[test]
    fn clients_see_text_as_text_in_resp3() {
        let mut harness = Harness::new();
        harness.session(0).protocol = resp::Protocol::Resp3;
        let reply = harness.run("INFO clients");
        assert!(reply.starts_with('=') && reply.contains("|txt:# Clients|"), "{reply}");
    }

    #[test]
    fn bytes_are_told_in_units_of_1024() {
        for (bytes, text) in [
            (0, "0B"),
            (1_023, "1023B"),
            (1_024, "1.00K"),
            (1_500_000, "1.43M"),
            (1 << 30, "1.00G"),
            (u64::MAX, "16384.00P"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
