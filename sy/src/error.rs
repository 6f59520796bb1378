//! One error type for the engine: what happened, to what, while doing what, and what may help.
//!
//! A `SyncError` ends a run when it is returned, or describes one failed item when it stands in `Stats::errors`.

use std::fmt;
use std::path::Path;

use rustix::io::Errno;

/// What went wrong, one variant for each thing that a caller would handle differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    NotFound,
    AlreadyExists,
    PermissionDenied,
    Authentication,
    HostKey,
    NoSpace,
    Network,
    /// A deadline passed: a connection's or the run's own `timeout`.
    Timeout,
    /// Content is not what it should be.
    Verification,
    /// The source changed while it was read.
    SourceChanged,
    /// The destination changed since it was listed.
    Conflict,
    /// `delete_threshold`, `max_delete` or an empty source.
    DeleteLimit,
    /// A storage can't do what was asked.
    Unsupported,
    /// Options or paths that make no sense together.
    Config,
    /// Another run holds the destination.
    Locked,
    /// Stopped by Ctrl-C, a signal or a caller.
    Cancelled,
    /// Any other failure that the system reported.
    Io,
}

/// One failure. `path` is raw bytes, since names need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncError {
    pub kind: ErrorKind,
    pub message: String,
    pub path: Option<Vec<u8>>,
    /// What was being done: a verb such as "read", "write", "delete", "list".
    pub action: &'static str,
    pub errno: Option<i32>,
    pub hint: Option<String>,
    pub retryable: bool,
}

pub type Result<T, E = SyncError> = std::result::Result<T, E>;

impl SyncError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), path: None, action: "", errno: None, hint: None, retryable: false }
    }

    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "the run was cancelled")
    }

    /// An error that the system reported while doing `action` to `path`.
    pub fn os(errno: Errno, action: &'static str, path: impl AsRef<[u8]>) -> Self {
        let (kind, hint) = classify(errno);
        Self {
            kind,
            message: describe(errno),
            path: Some(path.as_ref().to_vec()),
            action,
            errno: Some(errno.raw_os_error()),
            hint: hint.map(str::to_owned),
            retryable: matches!(
                errno,
                Errno::AGAIN | Errno::INTR | Errno::BUSY | Errno::STALE | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::TXTBSY
            ),
        }
    }

    pub fn io(error: &std::io::Error, action: &'static str, path: impl AsRef<Path>) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let path = path.as_ref().as_os_str().as_bytes();
        match Errno::from_io_error(error) {
            Some(errno) => Self::os(errno, action, path),
            None => Self::new(ErrorKind::Io, error.to_string()).at(action, path),
        }
    }

    #[must_use]
    pub fn at(mut self, action: &'static str, path: impl AsRef<[u8]>) -> Self {
        self.action = action;
        self.path = Some(path.as_ref().to_vec());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }
}

fn classify(errno: Errno) -> (ErrorKind, Option<&'static str>) {
    match errno {
        Errno::NOENT => (ErrorKind::NotFound, None),
        Errno::EXIST => (ErrorKind::AlreadyExists, None),
        Errno::ACCESS | Errno::PERM => (ErrorKind::PermissionDenied, None),
        Errno::ROFS => (ErrorKind::PermissionDenied, Some("the file system is mounted read-only")),
        Errno::NOSPC => (ErrorKind::NoSpace, Some("free some space at the destination; the next run goes on from here")),
        Errno::DQUOT => (ErrorKind::NoSpace, Some("the quota at the destination is used up")),
        Errno::LOOP => (ErrorKind::Conflict, Some("a symbolic link stands where a directory was; nothing was done through it")),
        Errno::MFILE | Errno::NFILE => (ErrorKind::Io, Some("too many files are open; raise the limit (ulimit -n)")),
        _ => (ErrorKind::Io, None),
    }
}

/// The system's words without Rust's "(os error N)".
fn describe(errno: Errno) -> String {
    let text = std::io::Error::from_raw_os_error(errno.raw_os_error()).to_string();
    match text.rfind(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

impl fmt::Display for SyncError {
    /// `cannot write "a/b": No space left on device; free some space …`, control characters escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, self.action) {
            (Some(path), "") => write!(f, "{}: {}", Quoted(path), self.message)?,
            (Some(path), action) => write!(f, "cannot {action} {}: {}", Quoted(path), self.message)?,
            (None, _) => f.write_str(&self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SyncError {}

/// A name as text that is safe to print: control characters and bytes that are not UTF-8 are escaped.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        write!(f, "{}", Printable(self.0))?;
        f.write_str("\"")
    }
}

/// The same without quotation marks.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(pub &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                // Bidirectional overrides can disguise a name as well as an escape sequence can.
                if c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') || c == '\\' {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printed_without_control_characters() {
        assert_eq!(Quoted(b"a\x1b[31m\n\xff").to_string(), r#""a\u{1b}[31m\n\xff""#);
    }

    #[test]
    fn errors_say_what_where_and_what_to_do() {
        let error = SyncError::os(Errno::NOSPC, "write", b"a/b");
        assert_eq!(error.kind, ErrorKind::NoSpace);
        assert_eq!(
            error.to_string(),
            "cannot write \"a/b\": No space left on device (free some space at the destination; the next run goes on from here)"
        );
    }
}
