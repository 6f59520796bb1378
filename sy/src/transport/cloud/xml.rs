//! Reads the flat XML of object stores: elements that hold text, in elements that repeat.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::http::Failed;
use crate::error::{ErrorKind, Result, SyncError};

/// What is met on the way through a document.
pub enum Met<'x> {
    /// An attribute of the element that has just begun.
    Attribute {
        name: &'x str,
        value: &'x str,
    },
    /// An element with text in it, and the one that holds it.
    Text {
        parent: &'x str,
        name: &'x str,
        text: &'x str,
    },
    End {
        name: &'x str,
    },
}

/// Goes through a document.
pub fn walk(xml: &[u8], mut visit: impl FnMut(Met<'_>)) -> Result<()> {
    let bad = || SyncError::new(ErrorKind::Io, "the service answered with something that is no XML");
    let mut reader = Reader::from_reader(xml);
    let (mut path, mut text): (Vec<String>, String) = (Vec::new(), String::new());
    // Elements that hold others hold no text that counts.
    let mut leaf = false;
    loop {
        match reader.read_event().map_err(|_| bad())? {
            Event::Start(start) => {
                path.push(start.local_name().as_ref().to_owned());
                text.clear();
                leaf = true;
                for attribute in start.attributes().flatten() {
                    visit(Met::Attribute { name: attribute.key.as_ref(), value: &attribute.value });
                }
            }
            Event::Text(part) => text.push_str(&part),
            Event::CData(part) => text.push_str(&part),
            Event::GeneralRef(reference) => match reference.resolve_char_ref() {
                Ok(Some(c)) => text.push(c),
                _ => text.push(match &*reference {
                    "amp" => '&',
                    "lt" => '<',
                    "gt" => '>',
                    "quot" => '"',
                    "apos" => '\'',
                    _ => return Err(bad()),
                }),
            },
            Event::End(_) => {
                let Some(name) = path.pop() else { return Err(bad()) };
                if std::mem::take(&mut leaf) {
                    visit(Met::Text { parent: path.last().map_or("", String::as_str), name: &name, text: &text });
                }
                visit(Met::End { name: &name });
            }
            Event::Empty(_) => leaf = false,
            Event::Eof if path.is_empty() => return Ok(()),
            Event::Eof => return Err(bad()),
            _ => {}
        }
    }
}

/// The text of the first element of that name.
pub fn find(xml: &[u8], wanted: &str) -> Option<String> {
    let mut found = None;
    // What comes before a fault in the document counts.
    let _ = walk(xml, |met| {
        if let Met::Text { name, text, .. } = met
            && name == wanted
            && found.is_none()
        {
            found = Some(text.to_owned());
        }
    });
    found
}

/// Code and message of a failure, each empty if there is none. Control characters are left out: services echo names.
pub fn failure(failed: &Failed) -> (String, String) {
    let clean = |text: Option<String>| text.unwrap_or_default().chars().filter(|c| !c.is_control()).take(300).collect();
    (clean(find(&failed.body, "Code")), clean(find(&failed.body, "Message")))
}

/// Text as it stands in a document; `None` if XML has no way to write it.
pub fn escape(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    if text.chars().any(|c| matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')) {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Readers turn them into plain line ends otherwise.
            '\r' | '\n' | '\t' => out.push_str(&format!("&#{};", c as u32)),
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_where_it_stands() {
        let xml = b"<?xml version=\"1.0\"?><A xmlns=\"u\"><B><Key>a&amp;b&#10;</Key></B><B><Key/></B><N>2</N></A>";
        let mut seen = Vec::new();
        walk(xml, |met| {
            if let Met::Text { parent, name, text } = met {
                seen.push(format!("{parent}/{name}={text}"));
            }
        })
        .expect("good XML");
        assert_eq!(seen, ["B/Key=a&b\n", "A/N=2"]);
        assert_eq!(find(xml, "N").as_deref(), Some("2"));
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        assert!(walk(b"<A><B>x</B>", |_| {}).is_err());
        assert!(walk(b"<A><B>x</A>", |_| {}).is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_the_same(text in "\\PC{0,20}") {
            let xml = format!("<A>{}</A>", escape(text.as_bytes()).expect("printable"));
            let found = find(xml.as_bytes(), "A").unwrap_or_default();
            proptest::prop_assert_eq!(found, text);
        }

        #[test]
        fn no_document_is_too_much(bytes: Vec<u8>) {
            let _ = walk(&bytes, |_| {});
        }
    }
}
