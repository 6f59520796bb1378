//! A JSON object, written field by field.
//!
//! Names are bytes. Those that are not UTF-8 appear as lone surrogates (`\udcff`), which Python's `json.loads` turns into
//! what its `os.fsencode` takes back.

use super::human::obeyed;

/// One object on its way to a line.
pub struct Object<'a>(&'a mut Vec<u8>);

impl<'a> Object<'a> {
    pub fn new(out: &'a mut Vec<u8>, event: &str) -> Self {
        out.extend_from_slice(b"{\"event\":");
        string(out, event.as_bytes());
        Self(out)
    }

    fn name(&mut self, name: &str) {
        self.0.push(b',');
        string(self.0, name.as_bytes());
        self.0.push(b':');
    }

    pub fn text(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        string(self.0, value);
    }

    pub fn maybe(&mut self, name: &str, value: Option<&[u8]>) {
        match value {
            Some(value) => self.text(name, value),
            None => self.raw(name, "null"),
        }
    }

    /// A value whose text is JSON already: a number, true, false, null.
    pub fn raw(&mut self, name: &str, value: impl std::fmt::Display) {
        self.name(name);
        self.0.extend_from_slice(value.to_string().as_bytes());
    }

    pub fn end(self) {
        self.0.push(b'}');
    }
}

/// Bytes as a JSON string. What a terminal may obey is escaped, also where JSON would not ask for it.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                c if obeyed(c) => out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes()),
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            out.extend_from_slice(format!("\\udc{byte:02x}").as_bytes());
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_hold_any_name() {
        for (bytes, json) in [
            (&b"a/b"[..], r#""a/b""#),
            (b"q\"\\\n\t", r#""q\"\\\n\u0009""#),
            (b"\x1b[31m\x7f", r#""\u001b[31m\u007f""#),
            ("é\u{85}\u{202e}😀".as_bytes(), "\"é\\u0085\\u202e😀\""),
            (b"\xff.\xc3", r#""\udcff.\udcc3""#),
            // A surrogate that someone has encoded is no character: each byte stands for itself.
            (b"\xed\xa0\x80", r#""\udced\udca0\udc80""#),
        ] {
            let mut out = Vec::new();
            string(&mut out, bytes);
            assert_eq!(String::from_utf8_lossy(&out), json);
        }
    }

    #[test]
    fn an_object_is_one_line() {
        let mut out = Vec::new();
        let mut object = Object::new(&mut out, "action");
        object.text("path", b"a\nb");
        object.raw("bytes", 7);
        object.maybe("target", None);
        object.end();
        assert_eq!(String::from_utf8_lossy(&out), r#"{"event":"action","path":"a\nb","bytes":7,"target":null}"#);
    }
}
