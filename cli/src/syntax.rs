//! The arguments of a command as text, and what may still follow the words that stand on the line.
//!
//! Matching is greedy and never looks back: a repeated argument takes every word that fits. That is right
//! for all commands that end in their repeated argument, and for the others a hint may fall silent early.

use crate::catalogue::{Argument, ArgumentKind};

/// How far some words go in the arguments that they are matched with.
struct Fit {
    /// Words used.
    used: usize,
    /// What could follow, if these were the last words.
    hint: String,
}

/// All of `arguments` as a usage line has them: `name [STATE]`.
pub(crate) fn usage(arguments: &[Argument]) -> String {
    join(arguments.iter().map(render))
}

/// What may follow `words`, the words behind the command's name; nothing if they don't fit.
pub(crate) fn remaining<W: AsRef<[u8]>>(arguments: &[Argument], words: &[W]) -> Option<String> {
    let fit = fit_all(arguments, words)?;
    (fit.used == words.len()).then_some(fit.hint)
}

/// The tokens that occur anywhere in `arguments`.
pub(crate) fn tokens(arguments: &[Argument]) -> Vec<&str> {
    let mut found = Vec::new();
    for argument in arguments {
        found.extend(argument.token.as_deref());
        match &argument.kind {
            ArgumentKind::OneOf(inner) | ArgumentKind::Block(inner) => found.extend(tokens(inner)),
            ArgumentKind::Value | ArgumentKind::PureToken => {}
        }
    }
    found
}

fn render(argument: &Argument) -> String {
    let once = render_once(argument);
    let shown = if argument.is_multiple { join([once, render_more(argument)]) } else { once };
    match argument.kind {
        _ if argument.is_optional => format!("[{shown}]"),
        ArgumentKind::OneOf(_) => format!("<{shown}>"),
        _ => shown,
    }
}

/// One occurrence, without the brackets of an optional one.
fn render_once(argument: &Argument) -> String {
    join([argument.token.clone().unwrap_or_default(), render_bare(argument)])
}

/// One occurrence without its token.
fn render_bare(argument: &Argument) -> String {
    match &argument.kind {
        ArgumentKind::Value => argument.name.clone(),
        ArgumentKind::PureToken => String::new(),
        ArgumentKind::OneOf(inner) => inner.iter().map(render).collect::<Vec<_>>().join("|"),
        ArgumentKind::Block(inner) => usage(inner),
    }
}

/// The repetitions of a repeated argument.
fn render_more(argument: &Argument) -> String {
    let again = if argument.repeats_token { render_once(argument) } else { render_bare(argument) };
    format!("[{again} ...]")
}

fn join(parts: impl IntoIterator<Item = String>) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Matches a sequence; optional arguments that stand side by side may come in any order.
fn fit_all<W: AsRef<[u8]>>(arguments: &[Argument], words: &[W]) -> Option<Fit> {
    let mut used = 0;
    let mut hints = Vec::new();
    let mut rest = arguments;
    while let Some(first) = rest.first() {
        let run = rest.iter().take_while(|argument| argument.is_optional).count();
        let fit =
            if run == 0 { fit_one(first, &words[used..])? } else { fit_any(&rest[..run], &words[used..]) };
        rest = &rest[run.max(1)..];
        used += fit.used;
        if used == words.len() {
            hints.push(fit.hint);
        }
    }
    Some(Fit { used, hint: join(hints) })
}

/// Matches as many of some optional arguments as there are words for.
fn fit_any<W: AsRef<[u8]>>(arguments: &[Argument], words: &[W]) -> Fit {
    let mut open: Vec<&Argument> = arguments.iter().collect();
    let mut used = 0;
    let mut hint = String::new();
    while used < words.len() {
        let fits =
            open.iter().enumerate().find_map(|(at, argument)| Some((at, fit_one(argument, &words[used..])?)));
        let Some((at, fit)) = fits else { break };
        open.remove(at);
        used += fit.used;
        hint = fit.hint;
    }
    Fit { used, hint: join([hint].into_iter().chain(open.into_iter().map(render))) }
}

/// Matches one argument with its repetitions; no words at all fit, and the hint is all of it.
fn fit_one<W: AsRef<[u8]>>(argument: &Argument, words: &[W]) -> Option<Fit> {
    if words.is_empty() {
        return Some(Fit { used: 0, hint: render(argument) });
    }
    let first = fit_once(argument, words, true)?;
    if !argument.is_multiple {
        return Some(first);
    }
    let mut used = first.used;
    let mut hint = join([first.hint, render_more(argument)]);
    while used < words.len() {
        let Some(fit) = fit_once(argument, &words[used..], argument.repeats_token) else { break };
        if fit.used == 0 {
            break;
        }
        used += fit.used;
        hint = join([fit.hint, render_more(argument)]);
    }
    Some(Fit { used, hint })
}

/// Matches one occurrence with at least one word.
fn fit_once<W: AsRef<[u8]>>(argument: &Argument, words: &[W], has_token: bool) -> Option<Fit> {
    let mut used = 0;
    if let Some(token) = argument.token.as_ref().filter(|_| has_token) {
        if !words[0].as_ref().eq_ignore_ascii_case(token.as_bytes()) {
            return None;
        }
        used = 1;
    }
    let words = &words[used..];
    let inner = match &argument.kind {
        ArgumentKind::PureToken => Fit { used: 0, hint: String::new() },
        _ if words.is_empty() => Fit { used: 0, hint: render_bare(argument) },
        ArgumentKind::Value => Fit { used: 1, hint: String::new() },
        ArgumentKind::OneOf(inner) => inner.iter().find_map(|choice| fit_one(choice, words))?,
        ArgumentKind::Block(inner) => fit_all(inner, words)?,
    };
    Some(Fit { used: used + inner.used, hint: inner.hint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;
    use crate::catalogue::tests::docs;

    fn hint(line: &str) -> Option<String> {
        let catalogue = Catalogue::from_docs(&docs());
        let words: Vec<&str> = line.split_whitespace().collect();
        let doc = catalogue.find(&words).unwrap();
        remaining(&doc.arguments, &words[doc.words.len()..])
    }

    fn plain(name: &str, kind: ArgumentKind) -> Argument {
        Argument {
            name: name.to_owned(),
            kind,
            token: None,
            is_optional: false,
            is_multiple: false,
            repeats_token: false,
        }
    }

    fn token(word: &str) -> Argument {
        Argument { token: Some(word.to_owned()), ..plain(word, ArgumentKind::PureToken) }
    }

    #[test]
    fn hints_shrink_as_words_are_typed() {
        assert_eq!(hint("get").unwrap(), "name [STATE]");
        assert_eq!(hint("get k").unwrap(), "[STATE]");
        assert_eq!(hint("get k state").unwrap(), "");
        assert_eq!(hint("get k state more"), None);
        assert_eq!(hint("get k other"), None);
    }

    #[test]
    fn repeated_arguments_go_on() {
        assert_eq!(hint("mincrby").unwrap(), "increment key [key ...]");
        assert_eq!(hint("mincrby 1").unwrap(), "key [key ...]");
        assert_eq!(hint("mincrby 1 a").unwrap(), "[key ...]");
        assert_eq!(hint("mincrby 1 a b c").unwrap(), "[key ...]");
    }

    #[test]
    fn optional_arguments_come_in_any_order() {
        assert_eq!(hint("scan 0").unwrap(), "[MATCH pattern] [COUNT count]");
        assert_eq!(hint("scan 0 count").unwrap(), "count [MATCH pattern]");
        assert_eq!(hint("scan 0 count 5").unwrap(), "[MATCH pattern]");
        assert_eq!(hint("scan 0 count 5 match x").unwrap(), "");
        assert_eq!(hint("scan 0 count 5 count 6"), None);
    }

    #[test]
    fn choices_and_blocks_are_followed() {
        let pair = Argument {
            is_multiple: true,
            ..plain(
                "pair",
                ArgumentKind::Block(vec![
                    plain("name", ArgumentKind::Value),
                    plain("value", ArgumentKind::Value),
                ]),
            )
        };
        let choice = plain("how", ArgumentKind::OneOf(vec![token("ON"), token("OFF")]));
        let arguments = [choice, pair];
        let rest = |words: &[&str]| remaining(&arguments, words);
        assert_eq!(rest(&[]).unwrap(), "<ON|OFF> name value [name value ...]");
        assert_eq!(rest(&["on"]).unwrap(), "name value [name value ...]");
        assert_eq!(rest(&["off", "a"]).unwrap(), "value [name value ...]");
        assert_eq!(rest(&["off", "a", "1"]).unwrap(), "[name value ...]");
        assert_eq!(rest(&["off", "a", "1", "b"]).unwrap(), "value [name value ...]");
        assert_eq!(rest(&["maybe"]), None);
        assert_eq!(tokens(&arguments), ["ON", "OFF"]);
    }

    #[test]
    fn repeated_tokens_are_asked_for_again() {
        let by = Argument {
            token: Some("BY".to_owned()),
            is_multiple: true,
            repeats_token: true,
            is_optional: true,
            ..plain("pattern", ArgumentKind::Value)
        };
        let arguments = [by];
        assert_eq!(usage(&arguments), "[BY pattern [BY pattern ...]]");
        assert_eq!(remaining(&arguments, &["by", "x", "by"]).unwrap(), "pattern [BY pattern ...]");
    }

    #[test]
    fn empty_descriptions_neither_loop_nor_panic() {
        let empty = Argument { is_multiple: true, ..plain("x", ArgumentKind::Block(Vec::new())) };
        assert_eq!(remaining(&[empty], &["a"]), None);
        let empty = Argument { is_multiple: true, ..plain("x", ArgumentKind::OneOf(Vec::new())) };
        assert_eq!(remaining(&[empty], &["a"]), None);
    }
}
