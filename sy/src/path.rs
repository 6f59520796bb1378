//! Locations: what a user names, parsed and printed.
//!
//! `/abs`, `rel`, `file:///abs`, `C:\dir` (local) · `user@host:/path`, `host:path`, `ssh://user@host:port/path`, `sftp://…` ·
//! `s3://bucket/key` · `gs://bucket/key` · `az://container/key` · `opendal+SCHEME://…`.
//! A source directory with a trailing slash means its contents; without one, the directory itself.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Result, SyncError};

/// Where a location is. Hosts and buckets are text; paths and keys are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scheme {
    Local,
    Ssh { user: Option<String>, host: String, port: Option<u16>, sftp: bool },
    S3 { bucket: String },
    Gcs { bucket: String },
    Azure { container: String },
    OpenDal { scheme: String, authority: String },
}

/// A location as the user named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SyncPath {
    pub scheme: Scheme,
    /// Path or key, as given; a trailing slash is kept.
    pub path: Vec<u8>,
}

impl SyncPath {
    pub fn local(path: impl AsRef<Path>) -> Self {
        Self { scheme: Scheme::Local, path: path.as_ref().as_os_str().as_bytes().to_vec() }
    }

    /// Parses what a user typed. Bytes that are not UTF-8 can only be a local path.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self> {
        let bytes = text.as_ref();
        if bytes.is_empty() {
            return Err(SyncError::config("a path must not be empty").hint("use . for the current directory"));
        }
        if bytes.contains(&0) {
            return Err(SyncError::config("a path must not contain a NUL byte"));
        }
        if let Some((scheme, rest)) = split_url(bytes) {
            return Self::from_url(bytes, scheme, rest);
        }
        Ok(match scp_style(bytes) {
            Some((user, host, path)) => Self { scheme: Scheme::Ssh { user, host, port: None, sftp: false }, path },
            None => Self { scheme: Scheme::Local, path: bytes.to_vec() },
        })
    }

    fn from_url(whole: &[u8], scheme: &str, rest: &[u8]) -> Result<Self> {
        let bad = |why: &str| SyncError::config(format!("{}: {why}", crate::error::Quoted(whole)));
        let (authority, path) = match rest.iter().position(|&b| b == b'/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, &b""[..]),
        };
        let authority = std::str::from_utf8(authority).map_err(|_| bad("the host or bucket is not UTF-8"))?;
        let key = || path.strip_prefix(b"/").unwrap_or(path).to_vec();
        let bucket = || match authority {
            "" => Err(bad("the bucket is missing").hint(format!("write {scheme}://BUCKET/PREFIX"))),
            name => Ok(name.to_owned()),
        };
        Ok(match scheme {
            "file" => {
                if !matches!(authority, "" | "localhost") {
                    return Err(bad("a file URL must not name a host").hint("write file:///PATH"));
                }
                Self { scheme: Scheme::Local, path: percent_decode(path).ok_or_else(|| bad("a % is not followed by two hex digits"))? }
            }
            "ssh" | "sftp" => {
                let (user, host_port) = match authority.rsplit_once('@') {
                    Some((user, _)) if user.contains(':') => {
                        return Err(SyncError::config("a password must not stand in a URL").hint("use SshConfig(password=…)"));
                    }
                    Some((user, host)) => (Some(user.to_owned()), host),
                    None => (None, authority),
                };
                let (host, port) = split_port(host_port).ok_or_else(|| bad("the port is not a number from 1 to 65535"))?;
                if host.is_empty() || host.starts_with('-') {
                    return Err(bad("the host is missing or begins with a dash"));
                }
                Self { scheme: Scheme::Ssh { user, host: host.to_owned(), port, sftp: scheme == "sftp" }, path: path.to_vec() }
            }
            "s3" | "s3a" => Self { scheme: Scheme::S3 { bucket: bucket()? }, path: key() },
            "gs" | "gcs" => Self { scheme: Scheme::Gcs { bucket: bucket()? }, path: key() },
            "az" | "azure" | "abfs" => Self { scheme: Scheme::Azure { container: bucket()? }, path: key() },
            _ => match scheme.strip_prefix("opendal+") {
                Some(_) if authority.contains('@') => {
                    return Err(SyncError::config("a user or a password must not stand in an OpenDAL location")
                        .hint("they are options of the service"));
                }
                Some(service) => {
                    Self { scheme: Scheme::OpenDal { scheme: service.to_owned(), authority: authority.to_owned() }, path: key() }
                }
                None => {
                    return Err(bad(&format!("{scheme}:// is not a kind of storage that sypy knows"))
                        .hint("known: file ssh sftp s3 gs az opendal+SERVICE; a local path that looks like a URL can be written ./NAME"));
                }
            },
        })
    }

    pub fn is_local(&self) -> bool {
        self.scheme == Scheme::Local
    }

    /// Is it a path on a host that is reached by SSH?
    pub fn is_on_host(&self) -> bool {
        matches!(self.scheme, Scheme::Ssh { .. })
    }

    pub fn has_trailing_slash(&self) -> bool {
        self.path.last() == Some(&b'/')
    }

    /// The path as the local system takes it.
    pub fn as_local(&self) -> Option<&Path> {
        self.is_local().then(|| Path::new(OsStr::from_bytes(&self.path)))
    }

    /// The last component, without slashes; empty for a root.
    pub fn name(&self) -> &[u8] {
        let trimmed = self.trimmed();
        &trimmed[trimmed.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1)..]
    }

    /// All but the last component; the location itself for a root.
    #[must_use]
    pub fn parent(&self) -> Self {
        let trimmed = self.trimmed();
        let path = match trimmed.iter().rposition(|&b| b == b'/') {
            Some(0) => b"/".to_vec(),
            Some(slash) => trimmed[..slash].to_vec(),
            None if trimmed.is_empty() => self.path.clone(),
            None if self.is_local() => b".".to_vec(),
            None => Vec::new(),
        };
        Self { scheme: self.scheme.clone(), path }
    }

    /// `name` below this location. An absolute name stays below it all the same.
    #[must_use]
    pub fn join(&self, name: impl AsRef<[u8]>) -> Self {
        let mut path = self.path.clone();
        let name = name.as_ref();
        let name = &name[name.iter().position(|&b| b != b'/').unwrap_or(name.len())..];
        if !path.is_empty() && path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self { scheme: self.scheme.clone(), path }
    }

    fn trimmed(&self) -> &[u8] {
        let end = self.path.iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
        &self.path[..end]
    }

    /// The location as bytes that `parse` reads back.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut absolute = |text: String| {
            out.extend_from_slice(text.as_bytes());
            if !self.path.starts_with(b"/") {
                out.push(b'/');
            }
            out.extend_from_slice(&self.path);
        };
        match &self.scheme {
            Scheme::Local if split_url(&self.path).is_some() || scp_style(&self.path).is_some() => {
                out.extend_from_slice(b"./");
                out.extend_from_slice(&self.path);
            }
            Scheme::Local => out.extend_from_slice(&self.path),
            Scheme::Ssh { user, host, port: None, sftp: false } if !host.contains(':') => {
                let user = user.as_ref().map_or(String::new(), |user| format!("{user}@"));
                out.extend_from_slice(format!("{user}{host}:").as_bytes());
                out.extend_from_slice(&self.path);
            }
            Scheme::Ssh { user, host, port, sftp } => {
                let user = user.as_ref().map_or(String::new(), |user| format!("{user}@"));
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                let port = port.map_or(String::new(), |port| format!(":{port}"));
                absolute(format!("{}://{user}{host}{port}", if *sftp { "sftp" } else { "ssh" }));
            }
            Scheme::S3 { bucket } => keyed(&mut out, &format!("s3://{bucket}/"), &self.path),
            Scheme::Gcs { bucket } => keyed(&mut out, &format!("gs://{bucket}/"), &self.path),
            Scheme::Azure { container } => keyed(&mut out, &format!("az://{container}/"), &self.path),
            Scheme::OpenDal { scheme, authority } => keyed(&mut out, &format!("opendal+{scheme}://{authority}/"), &self.path),
        }
        out
    }
}

/// A bucket and a key. The key follows its slash unchanged, also when it begins with one.
fn keyed(out: &mut Vec<u8>, prefix: &str, key: &[u8]) {
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(key);
}

impl fmt::Display for SyncPath {
    /// For people: bytes that are not UTF-8 are replaced. `to_bytes` is exact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

impl std::str::FromStr for SyncPath {
    type Err = SyncError;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// `scheme://rest`, where the scheme is one by RFC 3986.
fn split_url(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let colon = bytes.iter().position(|&b| b == b':')?;
    let (scheme, rest) = (&bytes[..colon], bytes[colon..].strip_prefix(b"://")?);
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    is_scheme.then(|| std::str::from_utf8(scheme).ok()).flatten().map(|scheme| (scheme, rest))
}

/// `[user@]host:path`, told from a local name as scp and rsync do: a colon before the first slash.
/// One letter before the colon is a drive (`C:\dir`), not a host.
fn scp_style(bytes: &[u8]) -> Option<(Option<String>, String, Vec<u8>)> {
    let at = |byte: u8| bytes.iter().position(|&b| b == byte);
    let colon = match bytes.strip_prefix(b"[") {
        Some(_) => at(b']').filter(|&end| bytes.get(end + 1) == Some(&b':'))? + 1,
        None => at(b':').filter(|&colon| at(b'/').is_none_or(|slash| colon < slash))?,
    };
    let authority = std::str::from_utf8(&bytes[..colon]).ok()?;
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host),
        None => (None, authority),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let plausible = !host.is_empty() && !host.starts_with('-') && !host.contains(char::is_whitespace);
    let drive = user.is_none() && host.len() == 1 && host.as_bytes()[0].is_ascii_alphabetic();
    (plausible && !drive).then(|| (user, host.to_owned(), bytes[colon + 1..].to_vec()))
}

pub(crate) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|&p| p != 0).map(|p| (host, Some(p))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => port.parse().ok().filter(|&p| p != 0).map(|p| (host, Some(p))),
        None => Some((authority, None)),
    }
}

fn percent_decode(path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            out.push(byte);
        }
    }
    (!out.contains(&0)).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssh(user: Option<&str>, host: &str, port: Option<u16>, sftp: bool) -> Scheme {
        Scheme::Ssh { user: user.map(str::to_owned), host: host.to_owned(), port, sftp }
    }

    #[test]
    fn forms() {
        for (text, scheme, path) in [
            ("/abs/dir/", Scheme::Local, "/abs/dir/"),
            ("rel", Scheme::Local, "rel"),
            ("./a:b", Scheme::Local, "./a:b"),
            ("dir/a:b", Scheme::Local, "dir/a:b"),
            ("-dash", Scheme::Local, "-dash"),
            ("C:\\dir", Scheme::Local, "C:\\dir"),
            ("file:///a%20b", Scheme::Local, "/a b"),
            ("host:path", ssh(None, "host", None, false), "path"),
            ("me@host:/p/", ssh(Some("me"), "host", None, false), "/p/"),
            ("[::1]:/p", ssh(None, "::1", None, false), "/p"),
            ("ssh://me@host:22/p", ssh(Some("me"), "host", Some(22), false), "/p"),
            ("sftp://[::1]:22/p", ssh(None, "::1", Some(22), true), "/p"),
            ("s3://b/k/", Scheme::S3 { bucket: "b".into() }, "k/"),
            ("s3://b", Scheme::S3 { bucket: "b".into() }, ""),
            ("s3://b//k", Scheme::S3 { bucket: "b".into() }, "/k"),
            ("gs://b/k", Scheme::Gcs { bucket: "b".into() }, "k"),
            ("az://c/k", Scheme::Azure { container: "c".into() }, "k"),
            ("opendal+webdav://h/k", Scheme::OpenDal { scheme: "webdav".into(), authority: "h".into() }, "k"),
        ] {
            let parsed = SyncPath::parse(text).expect(text);
            assert_eq!((&parsed.scheme, parsed.path.as_slice()), (&scheme, path.as_bytes()), "{text}");
            assert_eq!(SyncPath::parse(parsed.to_bytes()).expect("its own form"), parsed, "{text}");
        }
        assert!(SyncPath::parse("h:").expect("a drive").is_local());
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "s3://",
            "s3:///k",
            "ssh://:22/p",
            "ssh://h:0/p",
            "ssh://h:99999/p",
            "ssh://-oProxyCommand=x/p",
            "file://host/p",
            "file:///%zz",
            "http://x/y",
            "a\0b",
            "ssh://u:pw@h/p",
            "opendal+ftp://u:pw@h/p",
        ] {
            assert!(SyncPath::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_without_being_shown() {
        for text in ["ssh://u:hunter2@h/p", "opendal+webdav://u:hunter2@h/p"] {
            let error = SyncPath::parse(text).expect_err("refused").to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn parts() {
        let path = SyncPath::parse("s3://b/a/c/").expect("valid");
        assert_eq!(path.name(), b"c");
        assert_eq!(path.parent().to_string(), "s3://b/a");
        assert_eq!(path.join("/d").to_string(), "s3://b/a/c/d");
        assert_eq!(SyncPath::parse("/").expect("valid").parent().to_string(), "/");
    }

    proptest::proptest! {
        #[test]
        fn whatever_parses_prints_to_what_parses_the_same(text in "[ -~]{1,24}") {
            if let Ok(path) = SyncPath::parse(&text) {
                proptest::prop_assert_eq!(SyncPath::parse(path.to_bytes()), Ok(path));
            }
        }
    }
}
