//! `docs/commands.md` says what the command table says.
//!
//! After a change of the table, `DISCNT_WRITE_DOCS=1 cargo test -p engine reference` writes the page anew.

use super::all;
use crate::command::{Arg, CommandSpec, Flag, Group};
use std::fmt::Write;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/commands.md");

const HEAD: &str = "\
# Commands

This page is made from the server's command table; the server itself answers the same to `COMMAND DOCS`, and
`discnt-cli` shows it at its prompt (`help INCRBY`, `help @counter`). Names of commands are case-insensitive, names of
counters are any bytes up to 65,535. Since 1.0.0: the original Discnt had it, perhaps with fewer arguments.

Values are answered as bulk strings, exact and in plain decimal; so are the totals that INCR and its kin answer.
";

const GROUPS: &[(Group, &str)] = &[
    (Group::Counter, "Counting and reading"),
    (Group::Generic, "Names"),
    (Group::Pubsub, "Subscriptions"),
    (Group::Connection, "The connection"),
    (Group::Server, "The node"),
    (Group::Cluster, "The cluster"),
];

/// The page as it should be.
fn page() -> String {
    let mut text = String::from(HEAD);
    for (group, title) in GROUPS {
        write!(text, "\n## {title}\n").unwrap();
        let mut specs: Vec<_> = all().filter(|spec| spec.group == *group).collect();
        specs.sort_by_key(|spec| spec.name);
        specs.into_iter().for_each(|spec| describe(&mut text, spec));
    }
    text
}

fn describe(text: &mut String, spec: &CommandSpec) {
    let name = spec.name.to_uppercase();
    let flags: Vec<&str> = spec.flags.iter().filter_map(|flag: &Flag| flag.name()).collect();
    let flags = if flags.is_empty() { String::from("none") } else { flags.join(", ") };
    write!(text, "\n### {name}\n`{name}{}`\n\n", words(spec.arguments)).unwrap();
    writeln!(text, "{} Since {}. Flags: {flags}.", spec.summary, spec.since).unwrap();
    if !spec.subcommands.is_empty() {
        text.push_str("\n| subcommand | | since |\n|---|---|---|\n");
    }
    for sub in spec.subcommands {
        let call = format!("{name} {}{}", sub.name.to_uppercase(), words(sub.arguments));
        writeln!(text, "| `{}` | {} | {} |", call.replace('|', "\\|"), sub.summary, sub.since).unwrap();
    }
}

/// The arguments, each with a blank before it.
fn words(arguments: &[Arg]) -> String {
    arguments.iter().map(|arg| format!(" {arg}")).collect()
}

#[test]
fn every_command_stands_on_the_reference_page() {
    let page = page();
    if std::env::var_os("DISCNT_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        written == page,
        "docs/commands.md is not what the command table says; \
         DISCNT_WRITE_DOCS=1 cargo test -p engine reference writes it anew"
    );
    assert!(all().all(|spec| GROUPS.iter().any(|(group, _)| *group == spec.group)), "a group has no heading");
}
