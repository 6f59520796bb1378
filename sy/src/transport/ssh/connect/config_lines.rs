//! ssh's configuration files: their lines, and the files that they include.

use std::path::{Path, PathBuf};

use super::paths;

/// Files that include files, at most this deep, as in OpenSSH.
pub const DEPTH: usize = 16;

/// Whether `file`, or one that it includes, sets `name` for any host. What can't be read or understood counts as if it did.
pub fn mentions(file: &Path, name: &str) -> bool {
    let dir = if file.starts_with("/etc/ssh") { Some(PathBuf::from("/etc/ssh")) } else { paths::home().map(|home| home.join(".ssh")) };
    dir.is_none_or(|dir| mentions_below(file, &dir, name, 0))
}

fn mentions_below(file: &Path, dir: &Path, name: &str, depth: usize) -> bool {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) => return error.kind() != std::io::ErrorKind::NotFound,
    };
    let found = |(_, line): (usize, Line)| match line {
        Err(_) => true,
        Ok(Some((word, _))) if word == name => true,
        Ok(Some((word, patterns))) if word == "include" => {
            depth == DEPTH
                || patterns.iter().any(|pattern| match included(pattern, dir) {
                    None => true,
                    Some(files) => files.iter().any(|file| mentions_below(file, dir, name, depth + 1)),
                })
        }
        Ok(_) => false,
    };
    lines(&text).any(found)
}

pub type Line = std::result::Result<Option<(String, Vec<String>)>, String>;

/// Lines with their numbers: a name in lower case and its values, `None` for comments and empty lines.
pub fn lines(text: &[u8]) -> impl Iterator<Item = (usize, Line)> {
    text.split(|&b| b == b'\n').enumerate().map(|(index, line)| {
        let line = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8".to_owned());
        (index + 1, line.and_then(|line| parse(line.trim())))
    })
}

/// `Name value "another value"` or `Name=value`.
fn parse(line: &str) -> Line {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let name = line[..end].to_ascii_lowercase();
    let rest = line[end..].trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    // These take the rest of the line as it is.
    if matches!(name.as_str(), "proxycommand" | "localcommand" | "remotecommand" | "knownhostscommand") {
        return Ok(Some((name, vec![rest.to_owned()])));
    }
    Ok(Some((name, words(rest)?)))
}

/// Words as OpenSSH splits them: quotes of both kinds, backslashes before quotes and themselves, `#` begins a comment.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        if c.is_whitespace() {
            chars.next();
            continue;
        }
        if c == '#' {
            break;
        }
        let (mut word, mut quote) = (String::new(), None);
        while let Some(&c) = chars.peek() {
            if quote.is_none() && c.is_whitespace() {
                break;
            }
            chars.next();
            match c {
                '\\' if chars.peek().is_some_and(|&next| matches!(next, '"' | '\'' | '\\') || (next == ' ' && quote.is_none())) => {
                    word.extend(chars.next());
                }
                '"' | '\'' if quote == Some(c) => quote = None,
                '"' | '\'' if quote.is_none() => quote = Some(c),
                _ => word.push(c),
            }
        }
        if quote.is_some() {
            return Err("a quotation mark is not closed".into());
        }
        words.push(word);
    }
    Ok(words)
}

/// Files that a pattern of `Include` means, in order. `None` for brackets and variables.
pub fn included(pattern: &str, dir: &Path) -> Option<Vec<PathBuf>> {
    if pattern.contains(['[', '{', '$', '%', '\\']) {
        return None;
    }
    let path = paths::absolute(&dir.join(pattern)).ok()?;
    let path = if pattern.starts_with('~') { paths::absolute(Path::new(pattern)).ok()? } else { path };
    let mut found = vec![PathBuf::from("/")];
    for part in path.components().skip(1) {
        let part = part.as_os_str().to_str()?;
        if !part.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let mut next = Vec::new();
        for dir in found {
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            next.extend(names.filter(|name| !name.starts_with('.') && wildcard(part, name)).map(|name| dir.join(name)));
        }
        next.sort();
        found = next;
    }
    found.retain(|path| path.exists());
    Some(found)
}

/// `*` is any text, `?` any character.
pub fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&b) if b == b'?' || b == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                // The last star takes one more.
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_mentions_what_one_that_it_includes_says() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("config"), format!("Host h\nInclude {}/*.conf\n", dir.path().display())).expect("written");
        std::fs::write(at("1.conf"), "# MACs").expect("written");
        std::fs::write(at("2.conf"), "Host x\n  ciphers=aes256-ctr").expect("written");
        assert!(mentions(&at("config"), "ciphers") && !mentions(&at("config"), "macs") && !mentions(&at("none"), "ciphers"));
        std::fs::write(at("1.conf"), "Include [a-z]*").expect("written");
        assert!(mentions(&at("config"), "macs"));
    }

    #[test]
    fn words_are_split_as_ssh_does() {
        for (text, expected) in [
            ("a  b\tc", vec!["a", "b", "c"]),
            (r#""a b" 'c d' e\"f"#, vec!["a b", "c d", "e\"f"]),
            (r#"a\ b # c"#, vec!["a b"]),
            (r#"a"b c"d"#, vec!["ab cd"]),
        ] {
            assert_eq!(words(text).expect("closed"), expected, "{text}");
        }
        assert!(words("\"a").is_err());
    }

    #[test]
    fn wildcards() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("?", "a", true),
            ("?", "", false),
            ("*.b.*", "a.b.c.b.d", true),
            ("10.*.1?", "10.2.3.15", true),
        ] {
            assert_eq!(wildcard(pattern, text), expected, "{pattern} {text}");
        }
    }
}
