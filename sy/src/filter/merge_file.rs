//! Files of rsync rules: how they are read and split into rules.

use std::borrow::Cow;

use super::list::Sides;
use super::syntax::Directive;

/// How the rule that names a file wants it read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Patterns only, all of them to be excluded (`true`) or included.
    pub bare: Option<bool>,
    /// Rules are separated by white space, and there are no comments.
    pub words: bool,
    /// `!` clears the list even among bare patterns.
    pub may_clear: bool,
    /// What the rules in the file get unless they say it themselves.
    pub sides: Option<Sides>,
    pub perishable: bool,
}

impl Reading {
    pub fn of(directive: &Directive, sides: Option<Sides>, perishable: bool) -> Reading {
        Reading {
            bare: if directive.cvs { Some(true) } else { directive.bare },
            words: directive.words,
            may_clear: directive.cvs,
            sides,
            perishable,
        }
    }
}

/// The rules in a file, each with the number of its line.
pub fn rules<'a>(content: &'a [u8], reading: &Reading) -> Vec<(usize, Cow<'a, [u8]>)> {
    let is_break = |b: &u8| matches!(b, b'\n' | b'\r');
    // A carriage return ends a line too, so "\r\n" must not count as two.
    let mut number = 1;
    let mut found = Vec::new();
    for raw in content.split_inclusive(is_break) {
        let line = raw.strip_suffix(b"\n").or_else(|| raw.strip_suffix(b"\r")).unwrap_or(raw);
        if reading.words {
            let words = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
            found.extend(words.map(|word| (number, Cow::Borrowed(word))));
        } else if !matches!(line.first(), None | Some(b'#' | b';')) {
            found.push((number, Cow::Borrowed(line)));
        }
        number += usize::from(raw.ends_with(b"\n"));
    }
    if reading.words && reading.bare.is_none() { join_arguments(found) } else { found }
}

/// In `- foo + bar` the space after the sign belongs to the rule.
fn join_arguments(words: Vec<(usize, Cow<[u8]>)>) -> Vec<(usize, Cow<[u8]>)> {
    let mut joined = Vec::with_capacity(words.len());
    let mut words = words.into_iter();
    while let Some((line, word)) = words.next() {
        let open = Directive::parse(&word).is_ok_and(|d| d.argument.is_none() && d.needs_argument());
        let rule = match open.then(|| words.next()).flatten() {
            Some((_, argument)) => Cow::Owned([&word, b" ".as_slice(), &argument].concat()),
            None => word,
        };
        joined.push((line, rule));
    }
    joined
}

/// The content of a file that a merge rule names.
pub fn read(path: &[u8]) -> Result<Vec<u8>, String> {
    if path == b"-" {
        return Err("rules can't be read from standard input; put them in a file and name the file".to_owned());
    }
    let problem = |error: &dyn std::fmt::Display| format!("its file can't be read ({error}); name a file that can");
    let path = native(path).ok_or_else(|| problem(&"the name is not valid on this system"))?;
    std::fs::read(path).map_err(|error| problem(&error))
}

#[cfg(unix)]
fn native(path: &[u8]) -> Option<&std::path::Path> {
    use std::os::unix::ffi::OsStrExt;
    Some(std::path::Path::new(std::ffi::OsStr::from_bytes(path)))
}

#[cfg(not(unix))]
fn native(path: &[u8]) -> Option<&std::path::Path> {
    std::str::from_utf8(path).ok().map(std::path::Path::new)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn split(content: &str, reading: &Reading) -> Vec<(usize, String)> {
        rules(content.as_bytes(), reading).into_iter().map(|(n, r)| (n, String::from_utf8(r.into_owned()).unwrap())).collect()
    }

    #[test]
    fn lines_comments_and_line_ends() {
        let found = split("# a\n; b\n\n- x\r\n- y\r- z \n  - k", &Reading::default());
        let expected = [(4, "- x"), (5, "- y"), (5, "- z "), (6, "  - k")];
        assert_eq!(found, expected.map(|(n, s)| (n, s.to_owned())));
    }

    #[test]
    fn words_have_no_comments_and_rules_keep_their_argument() {
        let words = Reading { words: true, ..Reading::default() };
        let rules = |text| split(text, &words).into_iter().map(|(_, r)| r).collect::<Vec<_>>();
        assert_eq!(rules("- foo + bar\n-_baz ! -"), ["- foo", "+ bar", "-_baz", "!", "-"]);
        let bare = Reading { bare: Some(true), ..words };
        let found: Vec<_> = split("- #x\ty", &bare).into_iter().map(|(_, r)| r).collect();
        assert_eq!(found, ["-", "#x", "y"]);
    }
}
