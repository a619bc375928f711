//! Replies as JSON (RFC 8259), one text on one line.
//!
//! | reply | JSON |
//! |---|---|
//! | status, bulk, verbatim | string |
//! | integer, finite double | number |
//! | other double, big number | string, so that no reader rounds it |
//! | boolean, null | the same |
//! | array, set, push | array |
//! | map | object; a key that is not a string becomes its raw text |
//! | error | object `{"error":"..."}`, at any depth |
//!
//! Strings are UTF-8. Bytes that are not valid UTF-8 have no place in JSON: if a string has any, each of its
//! bytes above 127 is written as `\u00HH`, so reading the whole string as Latin-1 gives the bytes back.

use resp::Reply;

use super::raw;

/// Appends `reply` without the newline that ends it.
pub(super) fn write(out: &mut Vec<u8>, reply: &Reply) {
    match reply {
        Reply::Status(bytes) | Reply::Bulk(bytes) | Reply::BigNumber(bytes) => write_string(out, bytes),
        Reply::Verbatim { text, .. } => write_string(out, text),
        Reply::Error(text) => {
            out.extend(b"{\"error\":");
            write_string(out, text);
            out.push(b'}');
        }
        Reply::Integer(number) => out.extend(number.to_string().bytes()),
        Reply::Double(number) if number.is_finite() => out.extend(number.to_string().bytes()),
        Reply::Double(number) => write_string(out, number.to_string().as_bytes()),
        Reply::Boolean(is_true) => out.extend(is_true.to_string().bytes()),
        Reply::Null => out.extend(b"null"),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(out, item);
            }
            out.push(b']');
        }
        Reply::Map(pairs) => {
            out.push(b'{');
            for (index, (key, value)) in pairs.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_key(out, key);
                out.push(b':');
                write(out, value);
            }
            out.push(b'}');
        }
    }
}

fn write_key(out: &mut Vec<u8>, key: &Reply) {
    let mut text = Vec::new();
    raw::write(&mut text, key);
    write_string(out, &text);
}

fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let is_utf8 = std::str::from_utf8(bytes).is_ok();
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0..=0x1f | 0x7f => out.extend(format!("\\u{byte:04x}").bytes()),
            0x80.. if !is_utf8 => out.extend(format!("\\u{byte:04x}").bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::super::Form;
    use super::*;

    fn json(reply: &Reply) -> String {
        let mut out = Vec::new();
        Form::Json.write(&mut out, reply);
        String::from_utf8(out).unwrap()
    }

    fn bulk(bytes: &[u8]) -> Reply {
        Reply::Bulk(bytes.to_vec())
    }

    #[test]
    fn replies_become_their_json_kin() {
        let items =
            vec![Reply::Integer(1), bulk(b"x"), Reply::Null, Reply::Boolean(false), Reply::Array(vec![])];
        assert_eq!(json(&Reply::Array(items)), "[1,\"x\",null,false,[]]\n");
        assert_eq!(json(&Reply::Status(b"OK".to_vec())), "\"OK\"\n");
        assert_eq!(json(&Reply::Double(0.5)), "0.5\n");
        assert_eq!(json(&Reply::Double(f64::INFINITY)), "\"inf\"\n");
        assert_eq!(json(&Reply::BigNumber(b"123".to_vec())), "\"123\"\n");
    }

    #[test]
    fn maps_become_objects_with_string_keys() {
        let nested = Reply::Map(vec![(Reply::Integer(1), Reply::Null)]);
        assert_eq!(json(&Reply::Map(vec![(bulk(b"k"), nested)])), "{\"k\":{\"1\":null}}\n");
    }

    #[test]
    fn errors_are_objects_at_any_depth() {
        let error = Reply::Error(b"ERR \"no\"".to_vec());
        assert_eq!(json(&error), "{\"error\":\"ERR \\\"no\\\"\"}\n");
        assert_eq!(json(&Reply::Array(vec![error])), "[{\"error\":\"ERR \\\"no\\\"\"}]\n");
    }

    #[test]
    fn strings_are_utf8_or_latin1_as_a_whole() {
        assert_eq!(json(&bulk("Zürich\n\u{1}\\".as_bytes())), "\"Zürich\\n\\u0001\\\\\"\n");
        assert_eq!(json(&bulk(b"\xffZ\xc3\xbc")), "\"\\u00ffZ\\u00c3\\u00bc\"\n");
    }
}
