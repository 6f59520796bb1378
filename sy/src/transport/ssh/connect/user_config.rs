//! ssh's configuration files, as far as they are needed without `ssh`: what they say of one host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::paths;
use crate::error::{Result, SyncError};

/// Files that include files, at most this deep, as in OpenSSH.
const DEPTH: usize = 16;

/// Whose settings are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub host: &'a str,
    /// If the location or the config says so.
    pub user: Option<&'a str>,
    pub local_user: &'a str,
}

/// A setting, and the place that says it: `FILE:LINE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub values: Vec<String>,
    pub place: String,
}

/// What the files say of a host, by names in lower case: the first word on each wins, except for keys, which add up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub by_name: BTreeMap<String, Setting>,
    pub identity_files: Vec<String>,
}

impl Settings {
    pub fn get(&self, name: &str) -> Option<&str> {
        Some(self.by_name.get(name)?.values.first()?.as_str())
    }

    pub fn set(&mut self, name: &str, values: Vec<String>, place: String) {
        if name == "identityfile" {
            let new = values.into_iter().next().filter(|value| !self.identity_files.contains(value));
            self.identity_files.extend(new);
        } else {
            self.by_name.entry(name.to_owned()).or_insert(Setting { values, place });
        }
    }
}

/// Adds what the files say to what is set already.
pub fn read(settings: &mut Settings, config_file: Option<&Path>, asked: Asked<'_>) -> Result<()> {
    let home = paths::home().map(|home| home.join(".ssh"));
    let own = home.clone().unwrap_or_else(|| PathBuf::from("/etc/ssh"));
    let files: Vec<(PathBuf, &Path)> = match config_file {
        Some(file) => vec![(paths::absolute(file)?, own.as_path())],
        None => {
            let system = Path::new("/etc/ssh");
            let user = home.as_ref().map(|dir| (dir.join("config"), own.as_path()));
            user.into_iter().chain([(system.join("ssh_config"), system)]).collect()
        }
    };
    for last_pass in [false, true] {
        let mut reader = Reader { settings, asked, last_pass, wants_last_pass: false };
        for (file, dir) in &files {
            match std::fs::read(file) {
                Ok(text) => reader.file(file, dir, &text, true, 0)?,
                Err(error) if config_file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(SyncError::io(&error, "read", file)),
            }
        }
        if !reader.wants_last_pass {
            break;
        }
    }
    Ok(())
}

struct Reader<'a> {
    settings: &'a mut Settings,
    asked: Asked<'a>,
    /// `Match final` is true now.
    last_pass: bool,
    wants_last_pass: bool,
}

impl Reader<'_> {
    fn file(&mut self, file: &Path, dir: &Path, text: &[u8], outer: bool, depth: usize) -> Result<()> {
        let mut active = outer;
        for (number, line) in lines(text) {
            let place = format!("{}:{number}", file.display());
            let bad = |why: &str| SyncError::config(format!("{place}: {why}"));
            let Some((name, values)) = line.map_err(|why| bad(&why))? else { continue };
            match name.as_str() {
                "host" => active = outer && matches_list(&values, self.asked.host),
                "match" => active = outer && self.matches(&values).map_err(|why| bad(&why))?,
                _ if !active => {}
                "include" => {
                    if depth == DEPTH {
                        return Err(bad("files include each other too deep"));
                    }
                    for pattern in &values {
                        let found = included(pattern, dir).ok_or_else(|| bad("Include has a pattern that only ssh can read"))?;
                        for path in found {
                            let text = std::fs::read(&path).map_err(|error| SyncError::io(&error, "read", &path))?;
                            self.file(&path, dir, &text, true, depth + 1)?;
                        }
                    }
                }
                _ => self.settings.set(&name, values, place),
            }
        }
        Ok(())
    }

    /// The criteria of a `Match` line.
    fn matches(&mut self, words: &[String]) -> Result<bool, String> {
        let mut words = words.iter();
        let mut all = true;
        while let Some(word) = words.next() {
            let lower = word.to_ascii_lowercase();
            let (not, name) = lower.strip_prefix('!').map_or((false, lower.as_str()), |name| (true, name));
            let holds = match name {
                "all" => true,
                "canonical" => false,
                "final" => {
                    self.wants_last_pass = true;
                    self.last_pass
                }
                _ => {
                    let argument = words.next().ok_or_else(|| format!("Match {name} has no argument"))?;
                    let list: Vec<String> = argument.split(',').map(ToOwned::to_owned).collect();
                    match name {
                        "host" => matches_list(&list, self.settings.get("hostname").unwrap_or(self.asked.host)),
                        "originalhost" => matches_list(&list, self.asked.host),
                        "user" => matches_list(&list, self.asked.user.or(self.settings.get("user")).unwrap_or(self.asked.local_user)),
                        "localuser" => matches_list(&list, self.asked.local_user),
                        _ if !all => false,
                        _ => return Err(format!("Match {name} can be decided by the program ssh only")),
                    }
                }
            };
            all &= holds != not;
        }
        Ok(all)
    }
}

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

type Line = std::result::Result<Option<(String, Vec<String>)>, String>;

/// Lines with their numbers: a name in lower case and its values, `None` for comments and empty lines.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, Line)> {
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
fn included(pattern: &str, dir: &Path) -> Option<Vec<PathBuf>> {
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

/// Whether a list of patterns, some negated by `!`, takes a name in.
pub fn matches_list(patterns: &[String], name: &str) -> bool {
    let mut any = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(pattern) if wildcard(pattern, name) => return false,
            Some(_) => {}
            None => any |= wildcard(pattern, name),
        }
    }
    any
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

    fn of(text: &str, host: &str) -> Settings {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("config");
        std::fs::write(&file, text).expect("written");
        let mut settings = Settings::default();
        read(&mut settings, Some(&file), Asked { host, user: None, local_user: "me" }).expect("readable");
        settings
    }

    #[test]
    fn the_first_word_wins_and_keys_add_up() {
        let text = "Host a*\n  HostName=real.%h\n Port 2\n IdentityFile ~/a\n# no\nHost * !ab\n\tPort = 3\n IdentityFile \"~/b c\" # rest\n User u\n";
        let settings = of(text, "aa");
        assert_eq!((settings.get("hostname"), settings.get("port"), settings.get("user")), (Some("real.%h"), Some("2"), Some("u")));
        assert_eq!(settings.identity_files, ["~/a", "~/b c"]);
        assert_eq!(of(text, "ab").get("user"), None);
        assert_eq!(of(text, "b").get("port"), Some("3"));
        assert!(settings.by_name["port"].place.ends_with("config:3"), "{:?}", settings.by_name["port"]);
    }

    #[test]
    fn match_blocks() {
        let text = "Match host h user you\nPort 1\nMatch localuser me !host x\nPort 2\nMatch final host x\nPort 3\nMatch all\nUser you";
        assert_eq!(of(text, "h").get("port"), Some("2"));
        assert_eq!(of(text, "x").get("port"), Some("3"));
    }

    #[test]
    fn a_command_decides_only_where_the_rest_holds() {
        assert_eq!(of("Match host x exec true\nPort 1", "h").get("port"), None);
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("config");
        std::fs::write(&file, "Match exec true\nPort 1").expect("written");
        let asked = Asked { host: "h", user: None, local_user: "me" };
        assert!(read(&mut Settings::default(), Some(&file), asked).is_err());
    }

    #[test]
    fn files_include_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(
            at("config"),
            format!("Include {0}/*.conf\nHost h\nInclude {0}/inner\nUser u\nHost *\nUser v", dir.path().display()),
        )
        .expect("written");
        std::fs::write(at("1.conf"), "Host other\nUser no").expect("written");
        std::fs::write(at("2.conf"), "Ciphers aes256-ctr").expect("written");
        std::fs::write(at("inner"), "Port 5\nHost x\nUser no").expect("written");
        let of = |host| {
            let mut settings = Settings::default();
            read(&mut settings, Some(&at("config")), Asked { host, user: None, local_user: "me" }).expect("readable");
            settings
        };
        assert_eq!((of("h").get("port"), of("h").get("user")), (Some("5"), Some("u")));
        assert_eq!((of("x").get("port"), of("x").get("user")), (None, Some("v")));
        assert!(mentions(&at("config"), "ciphers") && !mentions(&at("config"), "macs") && !mentions(&at("none"), "ciphers"));
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
