//! Replies for scripts: the bytes as they came, elements on lines of their own, a pair on one line.

use resp::Reply;

/// Appends `reply` without the newline that ends it.
pub(super) fn write(out: &mut Vec<u8>, reply: &Reply) {
    match reply {
        Reply::Status(bytes) | Reply::Error(bytes) | Reply::Bulk(bytes) | Reply::BigNumber(bytes) => {
            out.extend(bytes)
        }
        Reply::Verbatim { text, .. } => out.extend(text),
        Reply::Integer(number) => out.extend(number.to_string().bytes()),
        Reply::Double(number) => out.extend(number.to_string().bytes()),
        Reply::Boolean(is_true) => out.extend(is_true.to_string().bytes()),
        Reply::Null => {}
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b'\n');
                }
                write(out, item);
            }
        }
        Reply::Map(pairs) => {
            for (index, (key, value)) in pairs.iter().enumerate() {
                if index > 0 {
                    out.push(b'\n');
                }
                write(out, key);
                out.push(b' ');
                write(out, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Form;
    use super::*;

    fn raw(reply: &Reply) -> Vec<u8> {
        let mut out = Vec::new();
        Form::Raw.write(&mut out, reply);
        out
    }

    #[test]
    fn bytes_are_not_touched() {
        assert_eq!(raw(&Reply::Bulk(b"\xff\0\n".to_vec())), b"\xff\0\n\n");
        assert_eq!(raw(&Reply::Error(b"ERR no".to_vec())), b"ERR no\n");
        assert_eq!(raw(&Reply::Integer(7)), b"7\n");
        assert_eq!(raw(&Reply::Boolean(false)), b"false\n");
        assert_eq!(raw(&Reply::Null), b"\n");
    }

    #[test]
    fn elements_stand_on_lines_and_pairs_on_one() {
        let nested = Reply::Array(vec![Reply::Integer(2), Reply::Array(vec![Reply::Integer(3)])]);
        assert_eq!(raw(&Reply::Array(vec![Reply::Integer(1), nested, Reply::Null])), b"1\n2\n3\n\n");
        let pair = (Reply::Bulk(b"k".to_vec()), Reply::Integer(1));
        assert_eq!(raw(&Reply::Map(vec![pair.clone(), pair])), b"k 1\nk 1\n");
    }
}
