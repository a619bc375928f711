//! The commands that the server knows, learned from it: names, summaries, groups and arguments.
//!
//! `COMMAND DOCS` gives all of it; a server that lacks it gives at least names by `COMMAND`. The client has
//! no command table of its own, so it never disagrees with the server that it talks to. Text from the server
//! loses its control characters here, once, since all of it ends on a terminal.

use resp::Reply;

/// Commands kept at most; the rest of a longer answer is dropped.
const MAX_COMMANDS: usize = 10_000;

/// What an argument looks like on the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArgumentKind {
    /// A word of the user's choice.
    Value,
    /// The token itself and nothing behind it.
    PureToken,
    /// One of these.
    OneOf(Vec<Argument>),
    /// All of these in order.
    Block(Vec<Argument>),
}

/// One argument of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Argument {
    /// What to call it when it is shown.
    pub(crate) name: String,
    /// What it looks like.
    pub(crate) kind: ArgumentKind,
    /// The word that introduces it, or that it is.
    pub(crate) token: Option<String>,
    /// Whether it may be left out.
    pub(crate) is_optional: bool,
    /// Whether it may be repeated.
    pub(crate) is_multiple: bool,
    /// Whether each repetition brings its token along.
    pub(crate) repeats_token: bool,
}

/// One command or subcommand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CommandDoc {
    /// Upper-case words: `["CONFIG", "GET"]`.
    pub(crate) words: Vec<String>,
    /// One sentence, or nothing.
    pub(crate) summary: String,
    /// The version that brought it, or nothing.
    pub(crate) since: String,
    /// The group it belongs to, or nothing.
    pub(crate) group: String,
    /// What it costs, or nothing.
    pub(crate) complexity: String,
    /// Its arguments in order; none known and none needed look the same.
    pub(crate) arguments: Vec<Argument>,
    /// Whether the arguments above are known.
    pub(crate) has_arguments: bool,
    /// Whether it is only a container of subcommands.
    pub(crate) has_subcommands: bool,
}

impl CommandDoc {
    /// The name as it is typed: `CONFIG GET`.
    pub(crate) fn name(&self) -> String {
        self.words.join(" ")
    }
}

/// All commands, sorted by name.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    commands: Vec<CommandDoc>,
}

impl Catalogue {
    /// Reads the answer to `COMMAND DOCS`, in RESP2 or RESP3. What it does not understand it leaves out.
    pub(crate) fn from_docs(reply: &Reply) -> Self {
        let mut commands = Vec::new();
        for (name, doc) in fields(reply) {
            read_command(name, doc, &mut commands);
        }
        Self::sorted(commands)
    }

    /// Reads the answer to `COMMAND`: names only.
    pub(crate) fn from_names(reply: &Reply) -> Self {
        let entries = items(reply).iter();
        let names =
            entries.filter_map(|entry| items(entry).first().map(text).filter(|name| !name.is_empty()));
        Self::sorted(
            names
                .take(MAX_COMMANDS)
                .map(|name| CommandDoc { words: words_of(&name), ..CommandDoc::default() })
                .collect(),
        )
    }

    fn sorted(mut commands: Vec<CommandDoc>) -> Self {
        commands.sort_by(|a, b| a.words.cmp(&b.words));
        commands.dedup_by(|a, b| a.words == b.words);
        Self { commands }
    }

    /// Whether nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// All commands and subcommands by name.
    pub(crate) fn commands(&self) -> &[CommandDoc] {
        &self.commands
    }

    /// The command that `words` begin with, the longest name first, in any case of letters.
    pub(crate) fn find<W: AsRef<[u8]>>(&self, words: &[W]) -> Option<&CommandDoc> {
        let fits = |doc: &&CommandDoc| {
            doc.words.len() <= words.len()
                && doc.words.iter().zip(words).all(|(a, b)| b.as_ref().eq_ignore_ascii_case(a.as_bytes()))
        };
        self.commands.iter().filter(fits).max_by_key(|doc| doc.words.len())
    }

    /// The subcommands of the container `doc`.
    pub(crate) fn subcommands<'a>(&'a self, doc: &'a CommandDoc) -> impl Iterator<Item = &'a CommandDoc> {
        let is_inside =
            |other: &&CommandDoc| other.words.len() > doc.words.len() && other.words.starts_with(&doc.words);
        self.commands.iter().filter(is_inside)
    }

    /// The groups, sorted, each once.
    pub(crate) fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = self.commands.iter().map(|doc| doc.group.as_str()).collect();
        groups.retain(|group| !group.is_empty());
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

/// Reads one command and, behind it, its subcommands (named `config|get`).
fn read_command(name: &Reply, doc: &Reply, commands: &mut Vec<CommandDoc>) {
    let words = words_of(&text(name));
    if words.is_empty() || commands.len() >= MAX_COMMANDS {
        return;
    }
    let at = commands.len();
    commands.push(CommandDoc { words, has_arguments: true, ..CommandDoc::default() });
    for (key, value) in fields(doc) {
        match text(key).as_str() {
            "summary" => commands[at].summary = text(value),
            "since" => commands[at].since = text(value),
            "group" => commands[at].group = text(value),
            "complexity" => commands[at].complexity = text(value),
            "arguments" => commands[at].arguments = read_arguments(value),
            "subcommands" => {
                commands[at].has_subcommands = true;
                fields(value).for_each(|(name, doc)| read_command(name, doc, commands));
            }
            _ => {}
        }
    }
}

fn read_arguments(reply: &Reply) -> Vec<Argument> {
    items(reply).iter().map(read_argument).collect()
}

fn read_argument(reply: &Reply) -> Argument {
    let (mut name, mut shown, mut kind, mut token) = (String::new(), String::new(), String::new(), None);
    let (mut flags, mut children) = (Vec::new(), Vec::new());
    for (key, value) in fields(reply) {
        match text(key).as_str() {
            "name" => name = text(value),
            "display_text" => shown = text(value),
            "type" => kind = text(value),
            "token" => token = Some(text(value)).filter(|token| !token.is_empty()),
            "flags" => flags = items(value).iter().map(text).collect(),
            "arguments" => children = read_arguments(value),
            _ => {}
        }
    }
    let has_flag = |flag: &str| flags.iter().any(|f| f == flag);
    Argument {
        name: if shown.is_empty() { name } else { shown },
        kind: match kind.as_str() {
            "oneof" => ArgumentKind::OneOf(children),
            "block" => ArgumentKind::Block(children),
            "pure-token" => ArgumentKind::PureToken,
            _ => ArgumentKind::Value,
        },
        token,
        is_optional: has_flag("optional"),
        is_multiple: has_flag("multiple"),
        repeats_token: has_flag("multiple_token"),
    }
}

/// The pairs of a map, or of the flat array that RESP2 has for it.
fn fields(reply: &Reply) -> Box<dyn Iterator<Item = (&Reply, &Reply)> + '_> {
    match reply {
        Reply::Map(pairs) => Box::new(pairs.iter().map(|(key, value)| (key, value))),
        _ => Box::new(items(reply).chunks_exact(2).map(|pair| (&pair[0], &pair[1]))),
    }
}

fn items(reply: &Reply) -> &[Reply] {
    match reply {
        Reply::Array(items) | Reply::Set(items) => items,
        _ => &[],
    }
}

/// The text of a string without its control characters; nothing for any other reply.
fn text(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(bytes) | Reply::Status(bytes) | Reply::Verbatim { text: bytes, .. } => {
            String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect()
        }
        _ => String::new(),
    }
}

fn words_of(name: &str) -> Vec<String> {
    let words = name.split(['|', ' ']).filter(|word| !word.is_empty());
    words.map(str::to_ascii_uppercase).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A text as the bulk that a server would send.
    pub(crate) fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.as_bytes().to_vec())
    }

    /// A map as RESP2 has it.
    pub(crate) fn flat(pairs: Vec<(&str, Reply)>) -> Reply {
        Reply::Array(pairs.into_iter().flat_map(|(key, value)| [bulk(key), value]).collect())
    }

    /// An argument as COMMAND DOCS describes it.
    pub(crate) fn argument(name: &str, kind: &str, more: Vec<(&str, Reply)>) -> Reply {
        let mut pairs = vec![("name", bulk(name)), ("type", bulk(kind))];
        pairs.extend(more);
        flat(pairs)
    }

    /// The `flags` of an argument.
    pub(crate) fn flags(names: &[&str]) -> (&'static str, Reply) {
        ("flags", Reply::Array(names.iter().map(|name| Reply::Status(name.as_bytes().to_vec())).collect()))
    }

    /// A few commands of a counter server.
    pub(crate) fn docs() -> Reply {
        let key = || argument("key", "key", vec![("display_text", bulk("name"))]);
        let state = argument("state", "pure-token", vec![("token", bulk("STATE")), flags(&["optional"])]);
        let keys = argument("key", "key", vec![flags(&["multiple"])]);
        let by = argument("increment", "double", vec![]);
        let get = argument("parameter", "string", vec![flags(&["multiple"])]);
        let subcommands = flat(vec![
            ("config|get", flat(vec![("summary", bulk("Reads.")), ("arguments", Reply::Array(vec![get]))])),
            ("config|rewrite", flat(vec![("summary", bulk("Writes."))])),
        ]);
        let scan = Reply::Array(vec![
            argument("cursor", "integer", vec![]),
            argument("pattern", "pattern", vec![("token", bulk("MATCH")), flags(&["optional"])]),
            argument("count", "integer", vec![("token", bulk("COUNT")), flags(&["optional"])]),
        ]);
        flat(vec![
            (
                "get",
                flat(vec![
                    ("summary", bulk("Reads a\x1b counter.")),
                    ("since", bulk("1.0.0")),
                    ("group", bulk("counter")),
                    ("complexity", bulk("O(1)")),
                    ("arguments", Reply::Array(vec![key(), state])),
                ]),
            ),
            ("mincrby", flat(vec![("arguments", Reply::Array(vec![by, keys])), ("group", bulk("counter"))])),
            ("scan", flat(vec![("arguments", scan), ("group", bulk("generic"))])),
            ("config", flat(vec![("group", bulk("server")), ("subcommands", subcommands)])),
        ])
    }

    #[test]
    fn docs_are_read_in_both_protocols() {
        let flat_docs = Catalogue::from_docs(&docs());
        let Reply::Array(entries) = docs() else { unreachable!() };
        let pairs = entries.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        let map_docs = Catalogue::from_docs(&Reply::Map(pairs));
        assert_eq!(flat_docs.commands(), map_docs.commands());
        let names: Vec<String> = flat_docs.commands().iter().map(CommandDoc::name).collect();
        assert_eq!(names, ["CONFIG", "CONFIG GET", "CONFIG REWRITE", "GET", "MINCRBY", "SCAN"]);
        let get = flat_docs.find(&["Get", "k"]).unwrap();
        assert_eq!((get.summary.as_str(), get.group.as_str()), ("Reads a counter.", "counter"));
        assert_eq!(get.arguments[0].name, "name");
        assert!(get.arguments[1].is_optional);
        assert_eq!(flat_docs.groups(), ["counter", "generic", "server"]);
    }

    #[test]
    fn the_longest_name_is_found() {
        let catalogue = Catalogue::from_docs(&docs());
        assert_eq!(catalogue.find(&["config", "get", "x"]).unwrap().name(), "CONFIG GET");
        assert_eq!(catalogue.find(&["config", "gex"]).unwrap().name(), "CONFIG");
        assert!(catalogue.find(&["nothing"]).is_none());
        assert!(catalogue.find::<&str>(&[]).is_none());
        let config = catalogue.find(&["config"]).unwrap();
        assert_eq!(catalogue.subcommands(config).count(), 2);
    }

    #[test]
    fn names_alone_are_enough() {
        let entry = |name: &str| Reply::Array(vec![bulk(name), Reply::Integer(2)]);
        let catalogue = Catalogue::from_names(&Reply::Array(vec![entry("incr"), entry("get"), Reply::Null]));
        let names: Vec<String> = catalogue.commands().iter().map(CommandDoc::name).collect();
        assert_eq!(names, ["GET", "INCR"]);
        assert!(!catalogue.commands()[0].has_arguments);
    }

    #[test]
    fn nonsense_makes_an_empty_catalogue() {
        for reply in [Reply::Null, Reply::Error(b"ERR".to_vec()), Reply::Array(vec![bulk("get")]), bulk("x")]
        {
            assert!(Catalogue::from_docs(&reply).is_empty(), "{reply:?}");
            assert!(Catalogue::from_names(&reply).is_empty(), "{reply:?}");
        }
    }
}
