//! Replies as one line of comma-separated values; nesting is flattened.
//!
//! Strings are quoted with backslash escapes, as `redis-cli` does, not with doubled quotes.

use resp::Reply;

use super::quote::write_quoted;

/// Appends `reply` without the newline that ends it.
pub(super) fn write(out: &mut Vec<u8>, reply: &Reply) {
    match reply {
        Reply::Status(bytes) | Reply::Bulk(bytes) => write_quoted(out, bytes),
        Reply::Verbatim { text, .. } => write_quoted(out, text),
        Reply::BigNumber(digits) => write_quoted(out, digits),
        Reply::Error(text) => {
            out.extend(b"ERROR,");
            write_quoted(out, text);
        }
        Reply::Integer(number) => out.extend(number.to_string().bytes()),
        Reply::Double(number) => out.extend(number.to_string().bytes()),
        Reply::Boolean(is_true) => out.extend(is_true.to_string().bytes()),
        Reply::Null => out.extend(b"NULL"),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(out, item);
            }
        }
        Reply::Map(pairs) => {
            for (index, (key, value)) in pairs.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(out, key);
                out.push(b',');
                write(out, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Form;
    use super::*;

    fn csv(reply: &Reply) -> String {
        let mut out = Vec::new();
        Form::Csv.write(&mut out, reply);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_are_separated_and_strings_quoted() {
        let items =
            vec![Reply::Bulk(b"a,\"b\"".to_vec()), Reply::Integer(1), Reply::Null, Reply::Boolean(true)];
        assert_eq!(csv(&Reply::Array(items)), "\"a,\\\"b\\\"\",1,NULL,true\n");
        assert_eq!(csv(&Reply::Error(b"ERR no".to_vec())), "ERROR,\"ERR no\"\n");
        let pair = (Reply::Bulk(b"k".to_vec()), Reply::Integer(1));
        assert_eq!(csv(&Reply::Map(vec![pair.clone(), pair])), "\"k\",1,\"k\",1\n");
    }
}
