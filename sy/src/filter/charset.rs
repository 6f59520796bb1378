//! Sets of bytes: what `[...]` in a pattern accepts.
//!
//! Bytes, not characters, and ASCII classes only, as both rsync and git read them. No set holds a slash, since nothing
//! in brackets matches one.

use super::tokens::Dialect;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CharSet([u64; 4]);

impl CharSet {
    fn empty() -> CharSet {
        CharSet([0; 4])
    }

    pub fn only(byte: u8) -> CharSet {
        let mut set = CharSet::empty();
        set.insert(byte);
        set
    }

    pub fn all_but_slash() -> CharSet {
        let mut set = CharSet([u64::MAX; 4]);
        set.remove(b'/');
        set
    }

    pub fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }

    /// The one byte in the set, when there is just one.
    pub fn single(&self) -> Option<u8> {
        let mut bytes = (0..=255).filter(|b| self.contains(*b));
        match (bytes.next(), bytes.next()) {
            (Some(byte), None) => Some(byte),
            _ => None,
        }
    }

    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    fn remove(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] &= !(1 << (byte & 63));
    }

    fn invert(&mut self) {
        for word in &mut self.0 {
            *word = !*word;
        }
    }
}

/// Reads the set whose first byte after `[` is at `at`; returns it and where the pattern goes on. `None` when it isn't
/// closed or names an unknown class.
pub fn parse(pattern: &[u8], mut at: usize, dialect: Dialect) -> Option<(CharSet, usize)> {
    let negated = matches!(pattern.get(at)?, b'!' | b'^');
    if negated {
        at += 1;
    }
    let mut set = CharSet::empty();
    let mut previous: Option<u8> = None;
    let mut first = true;
    loop {
        let byte = *pattern.get(at)?;
        if byte == b']' && !first {
            break;
        }
        first = false;
        let range_start = previous.filter(|_| byte == b'-' && pattern.get(at + 1).is_some_and(|b| *b != b']'));
        if let Some(low) = range_start {
            at += 1;
            let high = escaped(pattern, &mut at)?;
            for b in low..=high {
                set.insert(b);
            }
            previous = None;
        } else if byte == b'[' && pattern.get(at + 1) == Some(&b':') {
            let name_at = at + 2;
            let length = pattern[name_at..].iter().position(|b| *b == b']')?;
            match pattern[name_at..name_at + length].strip_suffix(b":") {
                Some(name) => {
                    let accepts = class(name, dialect)?;
                    (0..128).filter(accepts).for_each(|b| set.insert(b));
                    at = name_at + length;
                    previous = None;
                }
                // Not a class after all, so the bracket stands for itself.
                None => {
                    set.insert(b'[');
                    previous = Some(b'[');
                }
            }
        } else {
            let literal = escaped(pattern, &mut at)?;
            set.insert(literal);
            previous = Some(literal);
        }
        at += 1;
    }
    if negated {
        set.invert();
    }
    set.remove(b'/');
    Some((set, at + 1))
}

/// The byte at `at`, or the one after it if that is a backslash.
fn escaped(pattern: &[u8], at: &mut usize) -> Option<u8> {
    if *pattern.get(*at)? == b'\\' {
        *at += 1;
    }
    pattern.get(*at).copied()
}

fn class(name: &[u8], dialect: Dialect) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |b| matches!(b, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |b| matches!(b, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        // git has its own idea of white space, without the two rarest.
        b"space" if dialect == Dialect::Git => |b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'),
        b"space" => |b| matches!(b, b' ' | b'\t'..=b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn members(pattern: &str) -> Option<String> {
        let (set, next) = parse(pattern.as_bytes(), 1, Dialect::Rsync)?;
        assert_eq!(next, pattern.len());
        Some((1..127u8).filter(|b| set.contains(*b)).map(char::from).filter(|c| c.is_ascii_graphic()).collect())
    }

    #[test]
    fn reads_lists_ranges_escapes_and_classes() {
        for (pattern, expected) in [
            ("[abc]", "abc"),
            ("[a-c]", "abc"),
            ("[c-a]", "c"),
            ("[]a]", "]a"),
            ("[a-]", "-a"),
            ("[-a]", "-a"),
            ("[a\\]b]", "]ab"),
            ("[a-\\c]", "abc"),
            ("[\\a-c]", "abc"),
            ("[a-c-e]", "-abce"),
            ("[[:digit:]a]", "0123456789a"),
            ("[[:x]", ":[x"),
            ("[.-0]", ".0"),
        ] {
            let mut expected: Vec<char> = expected.chars().collect();
            expected.sort_unstable();
            assert_eq!(members(pattern), Some(expected.into_iter().collect()), "{pattern}");
        }
    }

    #[test]
    fn what_is_not_closed_or_not_known_is_no_set() {
        for pattern in ["[", "[a", "[]", "[!]", "[a\\", "[a-\\", "[[:nope:]]", "[[:", "[!"] {
            assert_eq!(parse(pattern.as_bytes(), 1, Dialect::Rsync), None, "{pattern}");
        }
    }

    #[test]
    fn negation_never_lets_a_slash_in() {
        for pattern in ["[!a]", "[^a]"] {
            let (set, _) = parse(pattern.as_bytes(), 1, Dialect::Rsync).unwrap();
            assert!(set.contains(b'b') && !set.contains(b'a') && !set.contains(b'/'));
        }
    }

    #[test]
    fn git_leaves_two_bytes_out_of_white_space() {
        for (dialect, expected) in [(Dialect::Rsync, true), (Dialect::Git, false)] {
            let (set, _) = parse(b"[[:space:]]", 1, dialect).unwrap();
            assert!(set.contains(b'\t'));
            assert_eq!(set.contains(0x0b), expected);
            assert_eq!(set.contains(0x0c), expected);
        }
    }
}
