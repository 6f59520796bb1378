//! Files of known host keys, as OpenSSH writes them.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::user_config::wildcard;
use crate::error::{Result, SyncError};

/// A public key: the name of its kind, and itself as it goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    pub kind: &'a str,
    pub blob: &'a [u8],
}

/// What the files say of a host and the key it shows. Places are `FILE:LINE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Known,
    Unknown,
    /// Another key, of the same kind or else.
    Changed(String),
    Revoked(String),
    /// Known only by an authority that signs the keys of hosts.
    Authority(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    Authority,
}

#[derive(Debug)]
struct Entry {
    marker: Marker,
    hosts: String,
    kind: String,
    blob: Vec<u8>,
    place: String,
}

/// What is known of a host, in the order of the files.
#[derive(Debug)]
pub struct Known {
    entries: Vec<Entry>,
    host: String,
    /// The host's name beside a port that is not the usual one.
    with_port: Option<String>,
}

impl Known {
    /// Files that are not there say nothing; one that can't be read is an error.
    pub fn read(files: &[PathBuf], host: &str, port: u16) -> Result<Self> {
        let host = host.to_ascii_lowercase();
        let with_port = (port != 22).then(|| format!("[{host}]:{port}"));
        let mut entries = Vec::new();
        for file in files {
            let text = match fs::read(file) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(SyncError::io(&error, "read", file)),
            };
            for (index, line) in text.split(|&b| b == b'\n').enumerate() {
                let place = || format!("{}:{}", file.display(), index + 1);
                entries.extend(parse(&String::from_utf8_lossy(line), place));
            }
        }
        entries.retain(|entry| takes_in(&entry.hosts, &host) || with_port.as_ref().is_some_and(|name| takes_in(&entry.hosts, name)));
        Ok(Self { entries, host, with_port })
    }

    /// Kinds of the keys that are known, so that the host can be asked for one of them.
    pub fn kinds(&self) -> Vec<&str> {
        self.entries.iter().filter(|entry| entry.marker == Marker::None).map(|entry| entry.kind.as_str()).collect()
    }

    pub fn judge(&self, key: Key<'_>) -> Verdict {
        let same = |entry: &&Entry| entry.kind == key.kind && entry.blob == key.blob;
        let with = |marker: Marker| self.entries.iter().filter(move |entry| entry.marker == marker);
        if let Some(entry) = with(Marker::Revoked).find(same) {
            return Verdict::Revoked(entry.place.clone());
        }
        if with(Marker::None).any(|entry| same(&entry)) {
            return Verdict::Known;
        }
        // A key that stands without a port may be another server's on that host: it can vouch, not contradict.
        let exact = |entry: &&Entry| takes_in(&entry.hosts, self.with_port.as_deref().unwrap_or(&self.host));
        let other = with(Marker::None).find(|entry| exact(entry) && entry.kind == key.kind).or_else(|| with(Marker::None).find(exact));
        if let Some(entry) = other {
            return Verdict::Changed(entry.place.clone());
        }
        with(Marker::Authority).find(exact).map_or(Verdict::Unknown, |entry| Verdict::Authority(entry.place.clone()))
    }
}

fn parse(line: &str, place: impl Fn() -> String) -> Option<Entry> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let mut words = line.split_whitespace();
    let first = words.next()?;
    let (marker, hosts) = match first {
        "@revoked" => (Marker::Revoked, words.next()?),
        "@cert-authority" => (Marker::Authority, words.next()?),
        _ if first.starts_with('@') => return None,
        _ => (Marker::None, first),
    };
    let (kind, blob) = (words.next()?, words.next()?);
    Some(Entry { marker, hosts: hosts.to_owned(), kind: kind.to_owned(), blob: BASE64_STANDARD.decode(blob).ok()?, place: place() })
}

/// Whether the first field of a line means `name`: a hash of it, or patterns between commas.
fn takes_in(hosts: &str, name: &str) -> bool {
    if let Some(hash) = hosts.strip_prefix("|1|") {
        let hash =
            hash.split_once('|').and_then(|(salt, hash)| Some((BASE64_STANDARD.decode(salt).ok()?, BASE64_STANDARD.decode(hash).ok()?)));
        return hash.is_some_and(|(salt, expected)| hashed(&salt, name) == expected);
    }
    let mut any = false;
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if wildcard(&pattern.to_ascii_lowercase(), name) => return false,
            Some(_) => {}
            None => any |= wildcard(&pattern.to_ascii_lowercase(), name),
        }
    }
    any
}

fn hashed(salt: &[u8], name: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(salt).expect("any length will do");
    mac.update(name.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Adds a key of a host that was not known.
pub fn add(file: &Path, host: &str, port: u16, key: Key<'_>, hash_name: bool) -> Result<()> {
    let host = host.to_ascii_lowercase();
    let mut name = if port == 22 { host } else { format!("[{host}]:{port}") };
    if hash_name {
        let mut salt = [0; 20];
        rustix::rand::getrandom(&mut salt, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| SyncError::os(errno, "read", "random bytes"))?;
        name = format!("|1|{}|{}", BASE64_STANDARD.encode(salt), BASE64_STANDARD.encode(hashed(&salt, &name)));
    }
    let line = format!("{name} {} {}\n", key.kind, BASE64_STANDARD.encode(key.blob));
    append(file, &line).map_err(|error| SyncError::io(&error, "add a host's key to", file))
}

fn append(file: &Path, line: &str) -> std::io::Result<()> {
    if let Some(dir) = file.parent().filter(|dir| !dir.exists()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut file = fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file)?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let begin = if last == *b"\n" { "" } else { "\n" };
    file.write_all(format!("{begin}{line}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key<'_> = Key { kind: "ssh-ed25519", blob: b"mine" };

    fn line(hosts: &str, kind: &str, blob: &[u8]) -> String {
        format!("{hosts} {kind} {}\n", BASE64_STANDARD.encode(blob))
    }

    fn judge(text: &str, host: &str, port: u16) -> Verdict {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("known_hosts");
        fs::write(&file, text).expect("written");
        let verdict = Known::read(&[dir.path().join("none"), file.clone()], host, port).expect("readable").judge(KEY);
        let name = |place: String| place.replace(&file.display().to_string(), "F");
        match verdict {
            Verdict::Changed(place) => Verdict::Changed(name(place)),
            Verdict::Revoked(place) => Verdict::Revoked(name(place)),
            Verdict::Authority(place) => Verdict::Authority(name(place)),
            other => other,
        }
    }

    #[test]
    fn names_and_patterns() {
        for (hosts, host, port, known) in [
            ("h", "h", 22, true),
            ("H", "h", 22, true),
            ("h", "H", 22, true),
            ("h", "i", 22, false),
            ("a,h", "h", 22, true),
            ("*.b,!x.b", "a.b", 22, true),
            ("*.b,!x.b", "x.b", 22, false),
            ("!x.b", "a.b", 22, false),
            ("1.2.3.?", "1.2.3.4", 22, true),
            ("[h]:2", "h", 2, true),
            ("[h]:2", "h", 3, false),
            ("[h]:2", "h", 22, false),
            ("[*]:2", "h", 2, true),
            // As OpenSSH: the host's key without a port vouches for any port.
            ("h", "h", 2, true),
        ] {
            let verdict = judge(&line(hosts, KEY.kind, KEY.blob), host, port);
            assert_eq!(verdict, if known { Verdict::Known } else { Verdict::Unknown }, "{hosts} {host} {port}");
        }
    }

    #[test]
    fn hashed_names_as_ssh_keygen_writes_them() {
        // ssh-keygen -H of "example.org".
        let salt = BASE64_STANDARD.decode("5r4ptuGAyD5gDVGTwfMdJ5U+Zbw=").expect("base64");
        let hosts = |name: &str| format!("|1|5r4ptuGAyD5gDVGTwfMdJ5U+Zbw=|{}", BASE64_STANDARD.encode(hashed(&salt, name)));
        assert_eq!(judge(&line(&hosts("example.org"), KEY.kind, KEY.blob), "example.org", 22), Verdict::Known);
        assert_eq!(judge(&line(&hosts("[example.org]:2"), KEY.kind, KEY.blob), "example.org", 2), Verdict::Known);
        assert_eq!(judge(&line(&hosts("example.org"), KEY.kind, KEY.blob), "example.com", 22), Verdict::Unknown);
        for broken in ["|1|", "|1|x", "|1|!|!", "|2|a|b"] {
            assert_eq!(judge(&line(broken, KEY.kind, KEY.blob), "example.org", 22), Verdict::Unknown);
        }
    }

    #[test]
    fn other_keys() {
        let text = format!("# mine\n\n{}", line("h", KEY.kind, b"other"));
        assert_eq!(judge(&text, "h", 22), Verdict::Changed("F:3".into()));
        // A host whose key of another kind is known is not a new one.
        assert_eq!(judge(&line("h", "ssh-rsa", b"other"), "h", 22), Verdict::Changed("F:1".into()));
        // What is said of the usual port does not contradict.
        assert_eq!(judge(&line("h", KEY.kind, b"other"), "h", 2), Verdict::Unknown);
        let both = line("h", KEY.kind, b"other") + &line("h", KEY.kind, KEY.blob);
        assert_eq!(judge(&both, "h", 22), Verdict::Known);
    }

    #[test]
    fn markers() {
        let good = line("h", KEY.kind, KEY.blob);
        assert_eq!(judge(&format!("{good}@revoked * {}", line("", KEY.kind, KEY.blob).trim()), "h", 22), Verdict::Revoked("F:2".into()));
        assert_eq!(judge(&format!("@revoked h {}", line("", KEY.kind, b"other").trim()), "h", 22), Verdict::Unknown);
        assert_eq!(judge(&format!("@cert-authority * {}", line("", KEY.kind, b"ca").trim()), "h", 22), Verdict::Authority("F:1".into()));
        assert_eq!(judge(&format!("@other {good}"), "h", 22), Verdict::Unknown);
    }

    #[test]
    fn lines_that_make_no_sense_say_nothing() {
        for text in ["h", "h ssh-ed25519", "h ssh-ed25519 ???", "@revoked", "\0\u{ff}", "h ssh-ed25519 #"] {
            assert_eq!(judge(text, "h", 22), Verdict::Unknown, "{text:?}");
        }
    }

    #[test]
    fn a_key_is_added_on_a_line_of_its_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(".ssh/known_hosts");
        add(&file, "H", 22, KEY, false).expect("added");
        fs::write(&file, fs::read_to_string(&file).expect("text").trim_end()).expect("written");
        add(&file, "i", 2, KEY, false).expect("added");
        add(&file, "secret", 22, KEY, true).expect("added");
        let text = fs::read_to_string(&file).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("h ssh-ed25519 ") && lines[1].starts_with("[i]:2 ") && lines[2].starts_with("|1|"), "{text}");
        assert_eq!(judge(&text, "secret", 22), Verdict::Known);
        assert_eq!(judge(&text, "i", 2), Verdict::Known);
    }
}
