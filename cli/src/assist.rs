//! Help while typing: completion of names, groups and keywords, and hints of the arguments to come.

use std::borrow::Cow;

use resp::split_words;
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use crate::catalogue::Catalogue;
use crate::help::subcommand_hint;
use crate::syntax::{remaining, tokens};

/// Words that the client itself understands.
const OWN_WORDS: [&str; 4] = ["CLEAR", "EXIT", "HELP", "QUIT"];

const GREY: &str = "\x1b[90m";
const PLAIN: &str = "\x1b[0m";

/// What the line editor asks while the user types.
#[derive(Debug)]
pub(crate) struct Assistant {
    /// The commands of the server, empty as long as they are unknown.
    pub(crate) catalogue: Catalogue,
    /// Columns of the terminal that are left of the prompt's line; a longer hint is cut.
    pub(crate) columns: usize,
    has_colors: bool,
}

impl Assistant {
    /// An assistant that knows no command yet.
    pub(crate) fn new(has_colors: bool) -> Self {
        Self { catalogue: Catalogue::default(), columns: usize::MAX, has_colors }
    }

    /// What may follow `line`, with a blank in front if it needs one.
    fn hint_for(&self, line: &str) -> Option<String> {
        let words = split_words(line.as_bytes()).ok()?;
        let words = &words[repeat_words(&words)..];
        let doc = self.catalogue.find(words)?;
        let rest = &words[doc.words.len()..];
        let hint = if doc.has_subcommands && doc.arguments.is_empty() {
            rest.is_empty().then(|| subcommand_hint(&self.catalogue, doc))?
        } else {
            remaining(&doc.arguments, rest).filter(|_| doc.has_arguments)?
        };
        let blank = if line.ends_with(' ') { "" } else { " " };
        // One column is kept free: a full line would wrap.
        let room = self.columns.saturating_sub(line.chars().count() + blank.len() + 1);
        let shown = match hint.char_indices().nth(room) {
            Some((end, _)) => &hint[..end],
            None => &hint,
        };
        (!shown.is_empty()).then(|| format!("{blank}{shown}"))
    }

    /// Where the text to replace starts, and what may replace it.
    fn completions(&self, line: &str) -> (usize, Vec<String>) {
        let typed: Vec<&str> = line.split_ascii_whitespace().collect();
        let word_start = line.rfind(|c: char| c.is_ascii_whitespace()).map_or(0, |at| at + 1);
        let word = &line[word_start..];
        let before = &typed[..typed.len() - usize::from(!word.is_empty())];
        let is_help = before.first().is_some_and(|first| first.eq_ignore_ascii_case("help"));
        let before = &before[usize::from(is_help || is_number(before.first()))..];
        let mut candidates: Vec<String> = if let Some(group) = word.strip_prefix('@').filter(|_| is_help) {
            let groups = self.catalogue.groups().into_iter().filter(|name| starts_with(name, group));
            groups.map(|name| format!("@{name}")).collect()
        } else {
            let own = OWN_WORDS.into_iter().filter(|_| before.is_empty() && !is_help);
            let names = self.next_words(before);
            let keywords = if is_help || word.is_empty() { Vec::new() } else { self.keywords(before) };
            let all = own.chain(names).chain(keywords);
            let model = if word.is_empty() { line } else { word };
            all.filter(|name| starts_with(name, word)).map(|name| in_case_of(name, model)).collect()
        };
        candidates.sort_unstable();
        candidates.dedup();
        (word_start, candidates)
    }

    /// The words that make a command's name out of `before` and one more.
    fn next_words<'a>(&'a self, before: &'a [&str]) -> impl Iterator<Item = &'a str> {
        self.catalogue.commands().iter().filter_map(move |doc| {
            let is_prefix = doc.words.iter().zip(before).all(|(a, b)| a.eq_ignore_ascii_case(b));
            doc.words.get(before.len()).filter(|_| is_prefix).map(String::as_str)
        })
    }

    /// The tokens that the command in `before` knows.
    fn keywords(&self, before: &[&str]) -> Vec<&str> {
        self.catalogue.find(before).map(|doc| tokens(&doc.arguments)).unwrap_or_default()
    }
}

/// How many leading words say only how often to run the command: `5 INCR a`.
pub(crate) fn repeat_words(words: &[Vec<u8>]) -> usize {
    usize::from(words.len() > 1 && words[0].iter().all(u8::is_ascii_digit))
}

fn is_number(word: Option<&&str>) -> bool {
    word.is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// `name` in lower case if `typed` has lower-case letters.
fn in_case_of(name: &str, typed: &str) -> String {
    if typed.bytes().any(|byte| byte.is_ascii_lowercase()) {
        name.to_ascii_lowercase()
    } else {
        name.to_owned()
    }
}

/// A hint that is shown and cannot be accepted, since it consists of place-holders.
#[derive(Debug)]
pub(crate) struct ArgumentHint(String);

impl Hint for ArgumentHint {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Assistant {
    type Hint = ArgumentHint;

    fn hint(&self, line: &str, position: usize, _context: &Context<'_>) -> Option<ArgumentHint> {
        (position == line.len()).then(|| self.hint_for(line)).flatten().map(ArgumentHint)
    }
}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.completions(&line[..position]))
    }
}

impl Highlighter for Assistant {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if self.has_colors { format!("{GREY}{hint}{PLAIN}").into() } else { hint.into() }
    }
}

impl Validator for Assistant {}
impl Helper for Assistant {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::tests::docs;

    fn assistant() -> Assistant {
        Assistant { catalogue: Catalogue::from_docs(&docs()), ..Assistant::new(false) }
    }

    fn complete(line: &str) -> Vec<String> {
        let (start, candidates) = assistant().completions(line);
        candidates.into_iter().map(|candidate| format!("{}{candidate}", &line[..start])).collect()
    }

    #[test]
    fn names_complete_in_the_case_of_what_is_typed() {
        assert_eq!(complete("ge"), ["get"]);
        assert_eq!(complete("G"), ["GET"]);
        assert_eq!(complete("c"), ["clear", "config"]);
        assert_eq!(complete("5 mi"), ["5 mincrby"]);
        assert!(complete("xyz").is_empty());
        assert!(complete("ä").is_empty());
    }

    #[test]
    fn subcommands_and_keywords_complete() {
        assert_eq!(complete("config "), ["config get", "config rewrite"]);
        assert_eq!(complete("CONFIG "), ["CONFIG GET", "CONFIG REWRITE"]);
        assert_eq!(complete("config re"), ["config rewrite"]);
        assert_eq!(complete("scan 0 ma"), ["scan 0 match"]);
        assert!(complete("get ").is_empty());
    }

    #[test]
    fn help_completes_commands_and_groups() {
        assert_eq!(complete("help sc"), ["help scan"]);
        assert_eq!(complete("help @c"), ["help @counter"]);
        assert_eq!(complete("help config ge"), ["help config get"]);
    }

    #[test]
    fn hints_follow_the_words() {
        let hint = |line: &str| assistant().hint_for(line);
        assert_eq!(hint("get").unwrap(), " name [STATE]");
        assert_eq!(hint("get ").unwrap(), "name [STATE]");
        assert_eq!(hint("3 get k").unwrap(), " [STATE]");
        assert_eq!(hint("config").unwrap(), " <GET|REWRITE>");
        assert_eq!(hint("config get").unwrap(), " parameter [parameter ...]");
        let narrow = Assistant { columns: 10, ..assistant() };
        assert_eq!(narrow.hint_for("get ").unwrap(), "name ");
        assert_eq!(narrow.hint_for("mincrby 111 "), None);
        for line in ["", "ge", "get \"k", "get k x y", "nothing", "config frob", "config rewrite"] {
            assert_eq!(hint(line), None, "{line}");
        }
    }
}
