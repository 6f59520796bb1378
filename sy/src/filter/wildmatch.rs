//! Wildcards, compiled to a small automaton.
//!
//! rsync and git share one idea of wildcards (`*`, `?`, `[...]`, `**`) and differ in what `**` means, so there is
//! one matcher for both. Patterns come from files that anybody may have written, so the
//! matcher must not backtrack: it follows all ways through the pattern at once, one bit per position, and its cost is
//! the length of the text times the length of the pattern over 64, whatever the pattern is.

use super::charset::CharSet;
use super::tokens::{self, Dialect, Token};

/// A compiled wildcard pattern. It always matches the whole text.
#[derive(Debug, Clone)]
pub struct Wild {
    words: usize,
    /// Byte -> row of `accepts`. Bytes that no token tells apart share a row.
    class: Box<[u8; 256]>,
    /// Row-major: the positions that consume a byte of this class.
    accepts: Vec<u64>,
    /// Positions that stay where they are on any byte but a slash.
    star: Vec<u64>,
    /// Positions that stay where they are on any byte.
    deep: Vec<u64>,
    /// Positions from which `Directories` may be entered or skipped.
    optional: Vec<u64>,
    end: usize,
    /// The bytes every match ends in: most texts fail on them at once.
    tail: Vec<u8>,
}

impl Wild {
    /// `None` when the pattern is malformed (`[` without `]`, a lone backslash at the end): such a pattern is legal
    /// to both programs, and matches nothing.
    pub fn new(pattern: &[u8], dialect: Dialect) -> Option<Wild> {
        Some(Wild::build(&tokens::parse(pattern, dialect)?))
    }

    fn build(tokens: &[Token]) -> Wild {
        let positions: usize = 1 + tokens.iter().map(Token::width).sum::<usize>();
        let words = positions.div_ceil(64);
        let (mut star, mut deep, mut optional) = (vec![0; words], vec![0; words], vec![0; words]);
        let slash = CharSet::only(b'/');
        let mut sets: Vec<(usize, &CharSet)> = Vec::new();
        let mut tail = Vec::new();
        let mut at = 0;
        for token in tokens {
            match token {
                Token::One(set) => {
                    sets.push((at, set));
                    match set.single() {
                        Some(byte) => tail.push(byte),
                        None => tail.clear(),
                    }
                }
                Token::Star => set_bit(&mut star, at),
                Token::Deep => set_bit(&mut deep, at),
                Token::Directories => {
                    set_bit(&mut optional, at);
                    set_bit(&mut deep, at + 1);
                    sets.push((at + 1, &slash));
                }
            }
            if !matches!(token, Token::One(_)) {
                tail.clear();
            }
            at += token.width();
        }
        let mut class = Box::new([0u8; 256]);
        let mut rows: Vec<Vec<u64>> = Vec::new();
        for byte in 0..=255u8 {
            let mut row = vec![0; words];
            for (position, set) in &sets {
                if set.contains(byte) {
                    set_bit(&mut row, *position);
                }
            }
            let index = rows.iter().position(|r| *r == row).unwrap_or_else(|| {
                rows.push(row);
                rows.len() - 1
            });
            class[usize::from(byte)] = index as u8;
        }
        Wild { words, class, accepts: rows.concat(), star, deep, optional, end: at, tail }
    }

    /// Does the whole of the concatenated parts match? With `restart`, a match may also begin after any slash.
    pub fn matches(&self, parts: &[&[u8]], restart: bool) -> bool {
        if let Some(last) = parts.iter().rev().find(|p| !p.is_empty())
            && last.len() >= self.tail.len()
            && !last.ends_with(&self.tail)
        {
            return false;
        }
        if self.words == 1 { self.run(&mut [0; 1], parts, restart) } else { self.run(&mut vec![0; self.words], parts, restart) }
    }

    fn run(&self, state: &mut [u64], parts: &[&[u8]], restart: bool) -> bool {
        state[0] = 1;
        self.open(state);
        for &byte in parts.iter().copied().flatten() {
            let row = usize::from(self.class[usize::from(byte)]) * self.words;
            let is_slash = byte == b'/';
            let (mut carry, mut alive) = (0, 0);
            for (word, bits) in state.iter_mut().enumerate() {
                let stay = if is_slash { self.deep[word] } else { self.deep[word] | self.star[word] };
                let step = *bits & self.accepts[row + word];
                *bits = (*bits & stay) | (step << 1) | carry;
                carry = step >> 63;
                alive |= *bits;
            }
            if is_slash && restart {
                state[0] |= 1;
            }
            if alive == 0 && !restart {
                return false;
            }
            self.open(state);
        }
        state[self.end / 64] & (1 << (self.end % 64)) != 0
    }

    /// Where a `Directories` begins, be inside it and past it as well.
    fn open(&self, state: &mut [u64]) {
        let (mut carry_one, mut carry_two) = (0, 0);
        for (bits, optional) in state.iter_mut().zip(&self.optional) {
            let from = *bits & optional;
            *bits |= (from << 1) | carry_one | (from << 2) | carry_two;
            carry_one = from >> 63;
            carry_two = from >> 62;
        }
    }
}

fn set_bit(bits: &mut [u64], at: usize) {
    bits[at / 64] |= 1 << (at % 64);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rsync(pattern: &str, text: &str) -> bool {
        Wild::new(pattern.as_bytes(), Dialect::Rsync).is_some_and(|w| w.matches(&[text.as_bytes()], false))
    }

    fn git(pattern: &str, text: &str) -> bool {
        Wild::new(pattern.as_bytes(), Dialect::Git).is_some_and(|w| w.matches(&[text.as_bytes()], false))
    }

    #[test]
    fn both_dialects_agree_on_all_but_two_stars() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "a/b", false),
            ("*.o", "x.o", true),
            ("*.o", "x.oo", false),
            ("a*b*c", "abbbc", true),
            ("?", "/", false),
            ("a?c", "abc", true),
            ("a[/]c", "a/c", false),
            ("a[!b]c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a\\", "a\\", false),
            ("a[b", "a[b", false),
        ] {
            assert_eq!(rsync(pattern, text), expected, "rsync {pattern} {text}");
            assert_eq!(git(pattern, text), expected, "git {pattern} {text}");
        }
    }

    #[test]
    fn two_stars_cross_slashes_in_rsync() {
        for (pattern, text, expected) in
            [("a**c", "a/b/c", true), ("a/**/c", "a/c", false), ("a/**/c", "a/b/c", true), ("**", "", true), ("a***", "a/b", true)]
        {
            assert_eq!(rsync(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn two_stars_are_whole_directories_in_git() {
        for (pattern, text, expected) in [
            ("**/a", "a", true),
            ("**/a", "x/y/a", true),
            ("**/a", "xa", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "axb", false),
            ("a/**/**/b", "a/b", true),
            ("a/**", "a/x/y", true),
            ("a/x**/b", "a/xy/b", true),
            ("a/x**/b", "a/x/y/b", true),
            ("a/?x**/b", "a/zx/y/b", false),
            ("a/**b", "a/x/b", false),
            ("a/?**b", "a/x/b", false),
        ] {
            assert_eq!(git(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn long_patterns_use_more_than_one_word() {
        for n in [30, 61, 62, 63, 64, 65, 126, 127, 128, 129, 200] {
            let pattern = format!("{}*{}?z", "a".repeat(n), "b".repeat(n));
            assert!(rsync(&pattern, &format!("{}xx{}yz", "a".repeat(n), "b".repeat(n))), "{n}");
            assert!(!rsync(&pattern, &format!("{}xx{}y", "a".repeat(n), "b".repeat(n))), "{n}");
            let pattern = format!("{}/**/?", "a".repeat(n));
            assert!(git(&pattern, &format!("{}/b", "a".repeat(n))), "{n}");
            assert!(git(&pattern, &format!("{}/x/y/b", "a".repeat(n))), "{n}");
            assert!(!git(&pattern, &format!("{}/x/y/bb", "a".repeat(n))), "{n}");
        }
    }

    #[test]
    fn many_stars_do_not_blow_up() {
        let begin = std::time::Instant::now();
        let text = "a".repeat(5000);
        assert!(!rsync(&format!("{}b", "a*".repeat(500)), &text));
        assert!(!rsync(&format!("{}b?", "a**".repeat(500)), &text));
        assert!(!git(&format!("{}b?", "**/a*".repeat(100)), &text));
        assert!(begin.elapsed().as_secs() < 5);
    }

    #[test]
    fn a_restart_begins_after_any_slash() {
        let wild = Wild::new(b"a**c", Dialect::Rsync).unwrap();
        assert!(wild.matches(&[b"x/a/c"], true));
        assert!(!wild.matches(&[b"xa/c"], true));
        assert!(!wild.matches(&[b"x/a/c"], false));
    }
}
