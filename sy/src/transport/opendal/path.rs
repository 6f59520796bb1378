//! Keys as OpenDAL takes them, and what it says of what is there.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use opendal::Metadata;
use opendal::raw::normalize_path;

use crate::error::{Result, SyncError};
use crate::transport::Time;
use crate::transport::cloud::store::Head;

/// A tag that begins like this says nothing: the service tells nothing by which content could be known again.
const NO_TAG: char = '?';

/// Which names a service can take.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// Names stand in lines of commands.
    pub in_commands: bool,
}

impl Names {
    /// OpenDAL trims and joins paths as it likes; what would become another name is refused.
    pub fn check(self, key: &[u8]) -> Result<&str> {
        let refuse = |why: &str| SyncError::unsupported(format!("OpenDAL can't take this name: {why}"));
        let path = std::str::from_utf8(key).map_err(|_| refuse("it is not UTF-8"))?;
        if path.is_empty() {
            return Ok("/");
        }
        if normalize_path(path) != path {
            return Err(refuse("it begins or ends with a space, or has an empty part"));
        }
        if path.split('/').any(|part| part == "." || part == "..") {
            return Err(refuse("it leads elsewhere"));
        }
        // FTP would take a line break for the end of a command; some WebDAV servers leave such characters out.
        if path.contains(char::is_control) {
            return Err(refuse("it has a control character in it"));
        }
        if self.in_commands && path.split('/').any(|part| part.trim() != part) {
            return Err(refuse("a part of it begins or ends with a space, which listings don't show"));
        }
        // A server would take it for options of its command.
        if self.in_commands && path.starts_with('-') && path.contains('/') {
            return Err(refuse("it begins with a dash"));
        }
        Ok(path)
    }
}

/// The directory that holds it, with a slash at the end; empty in the root.
pub fn parent(path: &str) -> &str {
    let bare = path.strip_suffix('/').unwrap_or(path);
    bare.rfind('/').map_or("", |slash| &path[..=slash])
}

pub fn time_of(metadata: &Metadata) -> Time {
    metadata.last_modified().map(opendal::raw::Timestamp::into_inner).map_or_else(Time::default, |time| {
        let nanos = time.subsec_nanosecond();
        // Before 1970 both parts are negative.
        let seconds = time.as_second() - i64::from(nanos < 0);
        Time { seconds, nanos: if nanos < 0 { 1_000_000_000 + nanos } else { nanos } as u32 }
    })
}

/// ETag, version, or time and size. A listing of FTP tells minutes only: a file that is written twice within one, with the
/// same size, looks as if nothing had happened.
pub fn tag_of(metadata: &Metadata) -> String {
    static UNKNOWN: AtomicU64 = AtomicU64::new(0);
    if let Some(tag) = metadata.etag().or_else(|| metadata.version()).filter(|tag| !tag.is_empty()) {
        return tag.to_owned();
    }
    match metadata.last_modified() {
        Some(_) => {
            let time = time_of(metadata);
            format!("{}.{:09}-{}", time.seconds, time.nanos, metadata.content_length())
        }
        // Equal to nothing, so that nothing counts as unchanged.
        None => format!("{NO_TAG}{}-{}", Time::now().total_nanos(), UNKNOWN.fetch_add(1, Relaxed)),
    }
}

pub fn says_something(tag: &str) -> bool {
    !tag.is_empty() && !tag.starts_with(NO_TAG)
}

/// For `If-Match`, which weak tags never meet.
pub fn is_etag(metadata: &Metadata, tag: &str) -> bool {
    metadata.etag() == Some(tag) && !tag.starts_with("W/")
}

pub fn head_of(metadata: &Metadata) -> Head {
    Head {
        size: metadata.content_length(),
        modified: time_of(metadata),
        tag: tag_of(metadata),
        attributes: crate::transport::cloud::attributes::Attributes::default(),
        sums: crate::transport::cloud::sums::Sums::default(),
        composite: None,
    }
}

#[cfg(test)]
mod tests {
    use opendal::MetadataBuilder;
    use opendal::raw::Timestamp;

    use super::*;

    #[test]
    fn names_that_would_become_others_are_refused() {
        let file = Names { in_commands: false };
        let ftp = Names { in_commands: true };
        for good in ["a", "a b/c", "d/", "ü/ä", "-a", "-a/b", "d/ a"] {
            assert_eq!(file.check(good.as_bytes()).expect(good), good);
        }
        assert_eq!(file.check(b"").expect("the root"), "/");
        for bad in [&b" a"[..], b"a ", b"a//b", b"/a", b"../a", b"a/./b", b"a/..", b"\xff", b"a\0", b"a\nb"] {
            assert!(file.check(bad).is_err(), "{bad:?}");
        }
        for bad in ["a\r\nDELE b", "-a/b", "d/ a", "d /a"] {
            assert!(ftp.check(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(["a", "d/", "d/a", "d/e/"].map(parent), ["", "", "d/", "d/"]);
    }

    #[test]
    fn tags_change_with_the_content() {
        let file = |time: Option<Timestamp>, etag: Option<&str>| {
            let mut file = MetadataBuilder::file(5);
            if let Some(time) = time {
                file.last_modified(time);
            }
            if let Some(etag) = etag {
                file.etag(etag);
            }
            file.build()
        };
        let unknown = [file(None, None), file(None, None)].map(|file| tag_of(&file));
        assert!(unknown[0] != unknown[1] && !says_something(&unknown[0]));
        let time = Timestamp::new(-1, -500_000_000).ok();
        let timed = file(time, None);
        assert_eq!(time_of(&timed), Time { seconds: -2, nanos: 500_000_000 });
        assert_eq!(tag_of(&timed), "-2.500000000-5");
        let tagged = file(time, Some("\"x\""));
        assert_eq!(tag_of(&tagged), "\"x\"");
        assert!(is_etag(&tagged, "\"x\"") && !is_etag(&timed, "-2.500000000-5"));
    }
}
