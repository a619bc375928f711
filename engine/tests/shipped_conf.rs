//! The shipped `discnt.conf` and the table of settings agree.

use engine::settings::{ConfigReader, SETTINGS, Settings, When};

const SHIPPED: &str = include_str!("../../discnt.conf");
/// Settings without a default that a line could hold; an example stands for them, as `#name value`.
const SHOWN_BY_EXAMPLE: [&str; 2] = ["include", "rename-command"];

/// The name that a line sets, and whether the line is an example.
fn directive(line: &str) -> Option<(&str, bool)> {
    let (text, is_example) = match line.strip_prefix('#') {
        Some(text) => (text, true),
        None => (line, false),
    };
    // Prose has a blank behind the #, headings have another #.
    let starts_with_name = text.starts_with(|first: char| first.is_ascii_lowercase());
    starts_with_name.then(|| (text.split_once(' ').map_or(text, |(name, _)| name), is_example))
}

/// The comment above the line of a setting, in one piece.
fn documentation(name: &str) -> String {
    let lines: Vec<&str> = SHIPPED.lines().collect();
    let at = lines.iter().position(|line| directive(line).is_some_and(|(found, _)| found == name));
    let at = at.expect("the test of the lines has found this one");
    let above = lines[..at].iter().rev().skip_while(|line| directive(line).is_some());
    let mut comment: Vec<&str> = above.take_while(|line| line.starts_with("# ")).copied().collect();
    comment.reverse();
    comment.join(" ").replace("# ", "")
}

#[test]
fn every_line_of_the_shipped_file_holds_the_default() {
    let mut reader = ConfigReader::new(Settings::default());
    for (index, line) in SHIPPED.lines().enumerate() {
        reader.read_text(line.as_bytes(), "discnt.conf", &mut |_, _| unreachable!()).unwrap();
        let is_in_a_list = line.starts_with("save ");
        assert!(
            is_in_a_list
                || *reader.settings()
                    == Settings { save: reader.settings().save.clone(), ..Settings::default() },
            "line {}: {line}",
            index + 1
        );
    }
    assert_eq!(reader.into_settings(), Settings::default());
}

#[test]
fn every_setting_has_its_line_in_the_shipped_file() {
    let directives: Vec<(&str, bool)> = SHIPPED.lines().filter_map(directive).collect();
    for spec in SETTINGS {
        let is_example = SHOWN_BY_EXAMPLE.contains(&spec.name);
        assert!(directives.contains(&(spec.name, is_example)), "{} has no line", spec.name);
    }
    for (name, _) in directives {
        assert!(SETTINGS.iter().any(|spec| spec.name == name), "{name} is no setting");
    }
}

#[test]
fn every_setting_is_explained_and_marked_when_it_may_change_at_run_time() {
    for spec in SETTINGS {
        let text = documentation(spec.name);
        assert!(!text.is_empty(), "{} has no comment", spec.name);
        assert_eq!(text.ends_with("Run time."), spec.when == When::RunTime, "{}: {text}", spec.name);
    }
}

#[test]
fn a_start_with_the_shipped_file_leaves_rewrite_nothing_to_do() {
    let settings = Settings::default();
    let mut open = |_: &str, _: &str| unreachable!();
    let text = engine::settings::rewrite(SHIPPED.as_bytes(), &settings, &settings, "discnt.conf", &mut open);
    assert_eq!(text, SHIPPED.as_bytes());
}
