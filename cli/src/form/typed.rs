//! Replies for eyes: `(integer) 3`, `"text"`, numbered elements, nested by indentation.

use resp::Reply;

use super::quote::{write_quoted, write_shown};

const RED: &[u8] = b"\x1b[31m";
const PLAIN: &[u8] = b"\x1b[0m";

/// Appends `reply` without the newline that ends it.
pub(super) fn write(out: &mut Vec<u8>, reply: &Reply, has_colors: bool) {
    write_at(out, reply, 0, has_colors);
}

/// Appends `reply`, whose first character stands in column `indent`.
fn write_at(out: &mut Vec<u8>, reply: &Reply, indent: usize, has_colors: bool) {
    match reply {
        Reply::Status(text) => write_shown(out, text),
        Reply::Verbatim { text, .. } => write_shown(out, text),
        Reply::Error(text) => write_error(out, text, has_colors),
        Reply::Integer(number) => out.extend(format!("(integer) {number}").bytes()),
        Reply::Double(number) => out.extend(format!("(double) {number}").bytes()),
        Reply::BigNumber(digits) => {
            out.extend(b"(big number) ");
            write_shown(out, digits);
        }
        Reply::Boolean(is_true) => out.extend(if *is_true { &b"(true)"[..] } else { b"(false)" }),
        Reply::Null => out.extend(b"(nil)"),
        Reply::Bulk(bytes) => write_quoted(out, bytes),
        Reply::Array(items) | Reply::Push(items) => {
            write_items(out, items, b')', "(empty array)", indent, has_colors)
        }
        Reply::Set(items) => write_items(out, items, b'~', "(empty set)", indent, has_colors),
        Reply::Map(pairs) => write_pairs(out, pairs, indent, has_colors),
    }
}

fn write_error(out: &mut Vec<u8>, text: &[u8], has_colors: bool) {
    if has_colors {
        out.extend(RED);
    }
    out.extend(b"(error) ");
    write_shown(out, text);
    if has_colors {
        out.extend(PLAIN);
    }
}

fn write_items(out: &mut Vec<u8>, items: &[Reply], mark: u8, empty: &str, indent: usize, has_colors: bool) {
    if items.is_empty() {
        out.extend(empty.bytes());
    }
    let width = digits(items.len());
    for (index, item) in items.iter().enumerate() {
        write_number(out, index, width, mark, indent);
        write_at(out, item, indent + width + 2, has_colors);
    }
}

fn write_pairs(out: &mut Vec<u8>, pairs: &[(Reply, Reply)], indent: usize, has_colors: bool) {
    if pairs.is_empty() {
        out.extend(b"(empty hash)");
    }
    let width = digits(pairs.len());
    let inner = indent + width + 2;
    for (index, (key, value)) in pairs.iter().enumerate() {
        write_number(out, index, width, b'#', indent);
        write_at(out, key, inner, has_colors);
        out.extend(b" => ");
        if has_lines(value) {
            start_line(out, inner);
        }
        write_at(out, value, inner, has_colors);
    }
}

/// Starts element `index`: on the line that is there for the first, on a new one for the others.
fn write_number(out: &mut Vec<u8>, index: usize, width: usize, mark: u8, indent: usize) {
    if index > 0 {
        start_line(out, indent);
    }
    out.extend(format!("{:>width$}{} ", index + 1, char::from(mark)).bytes());
}

fn start_line(out: &mut Vec<u8>, indent: usize) {
    out.push(b'\n');
    out.resize(out.len() + indent, b' ');
}

fn has_lines(reply: &Reply) -> bool {
    match reply {
        Reply::Array(items) | Reply::Push(items) | Reply::Set(items) => !items.is_empty(),
        Reply::Map(pairs) => !pairs.is_empty(),
        _ => false,
    }
}

/// How many decimal digits the numbers from 1 to `count` need.
fn digits(count: usize) -> usize {
    count.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::super::Form;
    use super::*;

    fn typed(reply: &Reply) -> String {
        let mut out = Vec::new();
        Form::Typed { has_colors: false }.write(&mut out, reply);
        String::from_utf8(out).unwrap()
    }

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    #[test]
    fn scalars_say_their_type() {
        assert_eq!(typed(&Reply::Status(b"OK".to_vec())), "OK\n");
        assert_eq!(typed(&Reply::Error(b"ERR no".to_vec())), "(error) ERR no\n");
        assert_eq!(typed(&Reply::Integer(-3)), "(integer) -3\n");
        assert_eq!(typed(&Reply::Double(3.25)), "(double) 3.25\n");
        assert_eq!(
            typed(&Reply::BigNumber(b"12345678901234567890".to_vec())),
            "(big number) 12345678901234567890\n"
        );
        assert_eq!(typed(&Reply::Boolean(true)), "(true)\n");
        assert_eq!(typed(&Reply::Null), "(nil)\n");
        assert_eq!(typed(&bulk("a\"b\u{1}")), "\"a\\\"b\\x01\"\n");
    }

    #[test]
    fn errors_are_red_when_colours_are_allowed() {
        let mut out = Vec::new();
        Form::Typed { has_colors: true }.write(&mut out, &Reply::Error(b"ERR no".to_vec()));
        assert_eq!(out, b"\x1b[31m(error) ERR no\x1b[0m\n");
    }

    #[test]
    fn nested_arrays_are_numbered_and_aligned() {
        let inner = Reply::Array(vec![Reply::Integer(3), Reply::Integer(4)]);
        let reply = Reply::Array(vec![
            Reply::Integer(1),
            Reply::Array(vec![bulk("x"), inner, Reply::Array(vec![])]),
            Reply::Null,
        ]);
        assert_eq!(
            typed(&reply),
            "1) (integer) 1\n2) 1) \"x\"\n   2) 1) (integer) 3\n      2) (integer) 4\n   3) (empty array)\n3) (nil)\n"
        );
    }

    #[test]
    fn ten_elements_align_their_numbers() {
        let text = typed(&Reply::Array(vec![Reply::Null; 10]));
        assert!(text.starts_with(" 1) (nil)\n 2) (nil)\n"));
        assert!(text.ends_with("\n10) (nil)\n"));
    }

    #[test]
    fn maps_show_pairs_and_put_nested_values_on_lines_of_their_own() {
        let reply = Reply::Map(vec![
            (bulk("a"), Reply::Integer(1)),
            (bulk("b"), Reply::Array(vec![bulk("x"), bulk("y")])),
            (bulk("c"), Reply::Map(vec![])),
        ]);
        assert_eq!(
            typed(&reply),
            "1# \"a\" => (integer) 1\n2# \"b\" => \n   1) \"x\"\n   2) \"y\"\n3# \"c\" => (empty hash)\n"
        );
        assert_eq!(typed(&Reply::Set(vec![bulk("x")])), "1~ \"x\"\n");
    }

    #[test]
    fn reports_are_shown_as_lines() {
        let report = |text: &str| {
            let mut out = Vec::new();
            Form::Typed { has_colors: false }.write_report(&mut out, &bulk(text));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(report("# Server\r\nport:1\r\n"), "# Server\r\nport:1\r\n");
        assert_eq!(report("port:1"), "\"port:1\"\n");
        assert_eq!(typed(&bulk("name\n")), "\"name\\n\"\n");
    }

    #[test]
    fn a_server_cannot_steer_the_terminal() {
        assert_eq!(typed(&Reply::Status(b"\x1b[2Jhi".to_vec())), "\\x1b[2Jhi\n");
        assert_eq!(typed(&Reply::Error(b"\x1b]0;x\x07".to_vec())), "(error) \\x1b]0;x\\x07\n");
    }
}
