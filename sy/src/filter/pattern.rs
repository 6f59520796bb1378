//! One pattern, ready to be asked about a path.
//!
//! Compiling decides two things once instead of at every entry: which part of the path the pattern looks at, and the
//! cheapest test that does the job. Most rules in the wild are plain names and `*.ext`.

use super::tokens::{Dialect, has_wildcard};
use super::wildmatch::Wild;

/// One entry of the tree, split up once for all rules.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Path from the root of the transfer.
    pub key: &'a [u8],
    /// Last component.
    pub name: &'a [u8],
    pub is_dir: bool,
}

impl<'a> Entry<'a> {
    pub fn new(key: &'a [u8], is_dir: bool) -> Entry<'a> {
        let start = key.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        Entry { key, name: &key[start..], is_dir }
    }

    /// The path from a directory further down, whose key with a slash has `base` bytes.
    pub fn below(&self, base: usize) -> &'a [u8] {
        self.key.get(base..).unwrap_or_default()
    }
}

/// The part of the path a pattern looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The last component.
    Name,
    /// The path below the directory the rule belongs to.
    Anchored,
    /// The last components of the whole path: one more than the number of slashes given.
    Tail(usize),
    /// From any component of the whole path to its end.
    Floating,
}

#[derive(Debug, Clone)]
pub enum Test {
    Never,
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Wild(Wild),
}

#[derive(Debug, Clone)]
pub struct Pattern {
    pub reach: Reach,
    pub test: Test,
    /// rsync lets a pattern that begins with `**` see a slash before the path, so that `**/x` finds a top-level `x`.
    lead_slash: bool,
    /// rsync lets a pattern that ends in `***` see a slash after a directory, so that `x/***` finds `x` as well.
    mark_dirs: bool,
}

impl Pattern {
    /// A pattern as rsync reads it, without the slash at the end that means "directories only".
    pub fn rsync(pattern: &[u8]) -> Pattern {
        let (anchored, body) = match pattern.strip_prefix(b"/") {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        let deep = body.windows(2).any(|w| w == b"**");
        let slashes = body.iter().filter(|b| **b == b'/').count();
        let reach = match () {
            () if anchored => Reach::Anchored,
            () if deep => Reach::Floating,
            () if slashes > 0 => Reach::Tail(slashes),
            () => Reach::Name,
        };
        let test = if has_wildcard(body) { Test::wild(body, Dialect::Rsync, reach) } else { Test::Exact(body.to_vec()) };
        Pattern { reach, test, lead_slash: !anchored && body.starts_with(b"**"), mark_dirs: body.ends_with(b"***") }
    }

    /// A pattern as git reads it, without the sign before it and the slash at its end.
    pub fn git(pattern: &[u8]) -> Pattern {
        let mut reach = if pattern.contains(&b'/') { Reach::Anchored } else { Reach::Name };
        let mut body = pattern.strip_prefix(b"/").unwrap_or(pattern);
        // `**/name` is the long way to say `name`, and very common.
        if let Some(rest) = pattern.strip_prefix(b"**/")
            && !rest.contains(&b'/')
            && !rest.is_empty()
        {
            (reach, body) = (Reach::Name, rest);
        }
        let plain = !has_wildcard(body) && !body.contains(&b'\\');
        let test = if plain { Test::Exact(body.to_vec()) } else { Test::wild(body, Dialect::Git, reach) };
        Pattern { reach, test, lead_slash: false, mark_dirs: false }
    }

    /// `base` is the length of the key, with a slash, of the directory that the rule belongs to.
    pub fn matches(&self, entry: &Entry, base: usize) -> bool {
        let text = match self.reach {
            Reach::Name => entry.name,
            Reach::Anchored => entry.below(base),
            Reach::Tail(slashes) => match tail(entry.key, slashes) {
                Some(text) => text,
                None => return false,
            },
            Reach::Floating => entry.key,
        };
        match &self.test {
            Test::Never => false,
            Test::Exact(literal) => text == literal.as_slice() && !literal.is_empty(),
            Test::Prefix(literal) => text.starts_with(literal),
            Test::Suffix(literal) => text.ends_with(literal),
            Test::Wild(wild) => {
                let before: &[u8] = if self.lead_slash { b"/" } else { b"" };
                let after: &[u8] = if self.mark_dirs && entry.is_dir { b"/" } else { b"" };
                wild.matches(&[before, text, after], self.reach == Reach::Floating)
            }
        }
    }
}

impl Test {
    fn wild(body: &[u8], dialect: Dialect, reach: Reach) -> Test {
        let plain = |part: &[u8]| !has_wildcard(part) && !part.contains(&b'\\');
        if reach == Reach::Name {
            if let Some(rest) = body.strip_prefix(b"*").filter(|rest| plain(rest)) {
                return Test::Suffix(rest.to_vec());
            }
            if let Some(rest) = body.strip_suffix(b"*").filter(|rest| plain(rest)) {
                return Test::Prefix(rest.to_vec());
            }
        }
        Wild::new(body, dialect).map_or(Test::Never, Test::Wild)
    }
}

/// The last components of `key`, with `slashes` slashes between them. With fewer in it nothing can match, not even a
/// pattern whose slash stands in brackets.
fn tail(key: &[u8], slashes: usize) -> Option<&[u8]> {
    let mut found = key.iter().enumerate().rev().filter(|(_, b)| **b == b'/').skip(slashes.saturating_sub(1));
    let first = found.next();
    let start = found.next().map_or(0, |(at, _)| at + 1);
    (slashes == 0 || first.is_some()).then(|| &key[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rsync_patterns_look_at_the_right_part_of_the_path() {
        for (pattern, key, is_dir, expected) in [
            ("foo", "a/foo", false, true),
            ("foo", "foo/a", false, false),
            ("/foo", "foo", false, true),
            ("/foo", "a/foo", false, false),
            ("b/foo", "a/b/foo", false, true),
            ("b/foo", "ab/foo", false, false),
            ("b/*", "a/b/foo", false, true),
            ("b/c/d", "a/b/c/d", false, true),
            ("b/c/d", "b/c/d", false, true),
            ("[b/]", "b", false, false),
            ("[b/]", "a/b", false, false),
            ("/[b/]", "b", false, true),
            ("a/b", "a", false, false),
            ("**/foo", "foo", false, true),
            ("/**/foo", "foo", false, false),
            ("/**/foo", "a/b/foo", false, true),
            ("b/**", "a/b/c/d", false, true),
            ("b/**", "a/b", true, false),
            ("b/***", "a/b", true, true),
            ("b/***", "a/b", false, false),
            ("b/***", "a/b/c", false, true),
            ("a\\b", "a\\b", false, true),
            ("a\\b*", "ab", false, true),
            ("a\\\\b*", "a\\b", false, true),
            ("*.o", "d/x.o", false, true),
            ("x*", "d/xyz", false, true),
            ("", "", false, false),
            ("/", "a", true, false),
        ] {
            let found = Pattern::rsync(pattern.as_bytes()).matches(&Entry::new(key.as_bytes(), is_dir), 0);
            assert_eq!(found, expected, "{pattern} {key}");
        }
    }

    #[test]
    fn anchors_hold_at_the_directory_of_the_rule() {
        let entry = Entry::new(b"a/b/foo", false);
        assert!(Pattern::rsync(b"/foo").matches(&entry, 4));
        assert!(Pattern::git(b"b/foo").matches(&entry, 2));
        assert!(!Pattern::git(b"b/foo").matches(&entry, 0));
        assert!(!Pattern::rsync(b"/foo").matches(&entry, 99));
    }

    #[test]
    fn git_anchors_what_has_a_slash_inside() {
        for (pattern, key, expected) in [
            ("foo", "a/foo", true),
            ("/foo", "a/foo", false),
            ("a/foo", "a/foo", true),
            ("a/foo", "x/a/foo", false),
            ("**/foo", "a/foo", true),
            ("**/a/foo", "x/a/foo", true),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
        ] {
            assert_eq!(Pattern::git(pattern.as_bytes()).matches(&Entry::new(key.as_bytes(), false), 0), expected, "{pattern} {key}");
        }
    }
}
