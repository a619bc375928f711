//! The answers to `help`: from the server's own documentation.

use std::fmt::Write as _;

use crate::catalogue::{Catalogue, CommandDoc};
use crate::syntax::usage;

/// Answers `help` with `words` behind it: general help, a command with its subcommands, or an `@group`.
pub(crate) fn help(catalogue: &Catalogue, words: &[Vec<u8>]) -> String {
    let first = words.first().map(|word| String::from_utf8_lossy(word).into_owned());
    match first {
        None => general(catalogue),
        Some(_) if catalogue.is_empty() => {
            "Nothing is known of the commands: not connected, or the server has no COMMAND DOCS.\n".to_owned()
        }
        Some(group) if group.starts_with('@') => group_help(catalogue, &group[1..]),
        Some(name) => match catalogue.find(words) {
            Some(doc) => command_help(catalogue, doc),
            None => format!("The server has no command that is called {}.\n", name.escape_debug()),
        },
    }
}

fn general(catalogue: &Catalogue) -> String {
    let mut text = "\
help COMMAND   what a command does and takes
help @GROUP    the commands of a group
clear          clear the screen
exit, quit     leave (so does Ctrl-D)
N COMMAND      run a command N times
Tab completes, arrows recall, Ctrl-R searches the history.
"
    .to_owned();
    let groups = catalogue.groups();
    if !groups.is_empty() {
        text.push_str("Groups:");
        groups.iter().for_each(|group| text.extend([" @", group]));
        text.push('\n');
    }
    text
}

fn group_help(catalogue: &Catalogue, group: &str) -> String {
    let members = catalogue.commands().iter().filter(|doc| doc.group.eq_ignore_ascii_case(group));
    let text: String = members.map(|doc| entry(catalogue, doc)).collect();
    if text.is_empty() {
        return format!(
            "No group is called @{}. Groups: @{}\n",
            group.escape_debug(),
            catalogue.groups().join(" @")
        );
    }
    text
}

fn command_help(catalogue: &Catalogue, doc: &CommandDoc) -> String {
    let mut text = entry(catalogue, doc);
    for (label, value) in [("since", &doc.since), ("group", &doc.group), ("complexity", &doc.complexity)] {
        if !value.is_empty() {
            // Writing to a String can't fail.
            let _ = writeln!(text, "  {label}: {value}");
        }
    }
    for inner in catalogue.subcommands(doc) {
        text.push_str(&entry(catalogue, inner));
    }
    text
}

/// Name and arguments on one line, the summary on the next.
fn entry(catalogue: &Catalogue, doc: &CommandDoc) -> String {
    let mut text = doc.name();
    let arguments = if doc.has_subcommands && doc.arguments.is_empty() {
        subcommand_hint(catalogue, doc)
    } else {
        usage(&doc.arguments)
    };
    if !arguments.is_empty() {
        text.extend([" ", &arguments]);
    }
    text.push('\n');
    if !doc.summary.is_empty() {
        text.extend(["  ", &doc.summary, "\n"]);
    }
    text
}

/// What follows a container of subcommands: `<GET|SET|...>`.
pub(crate) fn subcommand_hint(catalogue: &Catalogue, doc: &CommandDoc) -> String {
    let names: Vec<String> =
        catalogue.subcommands(doc).map(|inner| inner.words[doc.words.len()..].join(" ")).collect();
    if names.is_empty() { String::new() } else { format!("<{}>", names.join("|")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::tests::docs;

    fn ask(line: &str) -> String {
        let words: Vec<Vec<u8>> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
        help(&Catalogue::from_docs(&docs()), &words)
    }

    #[test]
    fn general_help_names_the_groups() {
        assert!(ask("").ends_with("Groups: @counter @generic @server\n"));
    }

    #[test]
    fn a_command_is_explained_from_the_docs() {
        assert_eq!(
            ask("get"),
            "GET name [STATE]\n  Reads a counter.\n  since: 1.0.0\n  group: counter\n  complexity: O(1)\n"
        );
    }

    #[test]
    fn a_container_lists_its_subcommands() {
        assert_eq!(
            ask("config"),
            "CONFIG <GET|REWRITE>\n  group: server\nCONFIG GET parameter [parameter ...]\n  Reads.\nCONFIG REWRITE\n  Writes.\n"
        );
        assert_eq!(ask("config rewrite"), "CONFIG REWRITE\n  Writes.\n");
    }

    #[test]
    fn groups_list_their_commands() {
        assert!(ask("@Counter").starts_with("GET name [STATE]\n"));
        assert!(ask("@nowhere").contains("No group is called @nowhere. Groups: @counter @generic @server"));
    }

    #[test]
    fn unknown_commands_are_said_to_be_unknown() {
        assert!(ask("frob").contains("no command that is called frob"));
        assert!(help(&Catalogue::default(), &[b"get".to_vec()]).contains("Nothing is known"));
    }
}
