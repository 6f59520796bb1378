//! The text of a wildcard pattern, taken apart.
//!
//! The one place that knows where rsync and git differ: in what `**` means.

use super::charset::{self, CharSet};

/// What `**` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Anything, slashes included, wherever it stands.
    Rsync,
    /// Whole directories, and only next to a slash or an end; elsewhere the same as `*`.
    Git,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Token {
    One(CharSet),
    Star,
    Deep,
    /// `**/` in git: nothing, or anything up to and including a slash.
    Directories,
}

impl Token {
    /// The number of positions it takes in the automaton.
    pub fn width(&self) -> usize {
        match self {
            Token::One(_) => 1,
            Token::Star | Token::Deep => 0,
            Token::Directories => 2,
        }
    }
}

/// True when `pattern` has to be compiled; a pattern without wildcards is a plain string to rsync.
pub fn has_wildcard(pattern: &[u8]) -> bool {
    pattern.iter().any(|b| matches!(b, b'*' | b'?' | b'['))
}

/// `None` when the pattern is malformed.
pub fn parse(pattern: &[u8], dialect: Dialect) -> Option<Vec<Token>> {
    // git compares everything before the first special character on its own, and what follows starts afresh: in
    // `foo**/bar` the `**/` counts as leading.
    let fresh = pattern.iter().position(|b| matches!(b, b'*' | b'?' | b'[' | b'\\')).unwrap_or(pattern.len());
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&byte) = pattern.get(at) {
        match byte {
            b'*' => {
                let start = at;
                at += pattern[start..].iter().take_while(|b| **b == b'*').count();
                if at - start == 1 {
                    tokens.push(Token::Star);
                    continue;
                }
                let after_slash = start == fresh || pattern[start - 1] == b'/';
                let rest = &pattern[at..];
                match dialect {
                    Dialect::Rsync => tokens.push(Token::Deep),
                    Dialect::Git if after_slash && rest.starts_with(b"/") => {
                        at += 1;
                        // Two in a row say no more than one, and the automaton can only open one at a time.
                        if !matches!(tokens.last(), Some(Token::Directories)) {
                            tokens.push(Token::Directories);
                        }
                    }
                    Dialect::Git if after_slash && (rest.is_empty() || rest.starts_with(b"\\/")) => tokens.push(Token::Deep),
                    Dialect::Git => tokens.push(Token::Star),
                }
            }
            b'?' => {
                tokens.push(Token::One(CharSet::all_but_slash()));
                at += 1;
            }
            b'[' => {
                let (set, next) = charset::parse(pattern, at + 1, dialect)?;
                tokens.push(Token::One(set));
                at = next;
            }
            b'\\' => {
                tokens.push(Token::One(CharSet::only(*pattern.get(at + 1)?)));
                at += 2;
            }
            literal => {
                tokens.push(Token::One(CharSet::only(literal)));
                at += 1;
            }
        }
    }
    Some(tokens)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stars(pattern: &str, dialect: Dialect) -> Vec<Token> {
        let tokens = parse(pattern.as_bytes(), dialect).unwrap();
        tokens.into_iter().filter(|t| !matches!(t, Token::One(_))).collect()
    }

    #[test]
    fn two_stars_depend_on_the_dialect_and_on_what_is_next_to_them() {
        for (pattern, git) in [
            ("**/a", Token::Directories),
            ("a/**/b", Token::Directories),
            ("a/***/b", Token::Directories),
            ("**/**/a", Token::Directories),
            ("a**/b", Token::Directories),
            ("?a**/b", Token::Star),
            ("a/**", Token::Deep),
            ("**\\/a", Token::Deep),
            ("a/**b", Token::Star),
        ] {
            assert_eq!(stars(pattern, Dialect::Git), [git], "{pattern}");
            assert!(stars(pattern, Dialect::Rsync).iter().all(|t| *t == Token::Deep), "{pattern}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        for pattern in ["a\\", "a[b", "*[[:nope:]]"] {
            assert!(parse(pattern.as_bytes(), Dialect::Rsync).is_none(), "{pattern}");
        }
    }
}
