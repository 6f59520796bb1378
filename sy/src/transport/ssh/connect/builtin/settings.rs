//! What ssh's configuration files say of one host, for a client that is not `ssh`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::config_lines::{DEPTH, included, lines, wildcard};
use super::super::paths;
use crate::error::{Result, SyncError};

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
    }
}
