//! `.gitignore` and `.syignore`: lines of patterns, the last that matches decides.
//!
//! Read as gitignore(5) says and git does. No line is an error: what git can't make sense of matches nothing.

use super::list::{Rule, RuleList, Sides};
use super::pattern::Pattern;

/// `base` is the length of the key, with a slash, of the directory that holds the file.
pub fn parse(content: &[u8], base: usize) -> RuleList {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let lines = content.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    // A `RuleList` goes by the first match, so the last line comes first.
    RuleList::new(lines.rev().filter_map(rule).collect(), base)
}

fn rule(line: &[u8]) -> Option<Rule> {
    if line.starts_with(b"#") {
        return None;
    }
    // To git a line is a C string.
    let line = line.split(|b| *b == 0).next().unwrap_or_default();
    let line = trim_spaces(line);
    let (negative, line) = match line.strip_prefix(b"!") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (only_dirs, pattern) = match line.strip_suffix(b"/") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    if pattern.is_empty() {
        return None;
    }
    Some(Rule { pattern: Pattern::git(pattern), exclude: !negative, only_dirs, negate: false, sides: Sides::Both, perishable: false })
}

/// Without the spaces at the end, except those a backslash keeps.
fn trim_spaces(line: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            b' ' => at += 1,
            b'\\' => {
                at = (at + 2).min(line.len());
                end = at;
            }
            _ => {
                at += 1;
                end = at;
            }
        }
    }
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::super::list::Side;
    use super::super::pattern::Entry;
    use super::*;

    fn ignored(file: &str, key: &str) -> Option<bool> {
        let (key, is_dir) = key.strip_suffix('/').map_or((key, false), |k| (k, true));
        parse(file.as_bytes(), 0).first(&Entry::new(key.as_bytes(), is_dir), Side::Source)
    }

    #[test]
    fn each_element_of_the_syntax() {
        for (file, key, expected) in [
            ("foo", "foo", Some(true)),
            ("foo", "a/foo/", Some(true)),
            ("", "foo", None),
            ("\n\n", "foo", None),
            ("# foo", "# foo", None),
            ("\\#foo", "#foo", Some(true)),
            ("\\!foo", "!foo", Some(true)),
            ("foo  ", "foo", Some(true)),
            ("foo\\ ", "foo ", Some(true)),
            ("foo\\  ", "foo ", Some(true)),
            ("foo\t", "foo", None),
            (" foo", "foo", None),
            ("foo/", "foo", None),
            ("foo/", "a/foo/", Some(true)),
            ("/foo", "a/foo", None),
            ("a/foo", "a/foo", Some(true)),
            ("a/foo", "b/a/foo", None),
            ("a/", "b/a/", Some(true)),
            ("**/foo", "a/b/foo", Some(true)),
            ("**/a/foo", "b/a/foo", Some(true)),
            ("a/**", "a/b/c", Some(true)),
            ("a/**", "a/", None),
            ("a/**/b", "a/b", Some(true)),
            ("*.o\n!keep.o", "keep.o", Some(false)),
            ("!keep.o\n*.o", "keep.o", Some(true)),
            ("foo\r\nbar\r\n", "foo", Some(true)),
            ("foo\r\nbar\r", "bar", Some(true)),
            ("\u{feff}foo", "foo", Some(true)),
            ("foo\\", "foo\\", None),
            ("/", "foo", None),
            ("!", "foo", None),
            ("/*\n!/foo", "foo", Some(false)),
            ("/*\n!/foo", "bar", Some(true)),
        ] {
            assert_eq!(ignored(file, key), expected, "{file:?} {key:?}");
        }
    }

    #[test]
    fn patterns_hold_below_the_directory_of_the_file() {
        let list = parse(b"/x\ny/z", 4);
        let first = |key: &[u8]| list.first(&Entry::new(key, false), Side::Source);
        assert_eq!(first(b"a/b/x"), Some(true));
        assert_eq!(first(b"a/b/y/z"), Some(true));
        assert_eq!(first(b"a/b/y/x"), None);
    }
}
