//! What can go wrong between a request and its answer, and how a user is told.

use rustix::io::Errno;

use super::incoming::End;
use super::wire::code;
use crate::error::{ErrorKind, Printable, SyncError};
use crate::transport::ssh::connect::{self, Link};

/// Why a request has no good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The server said no.
    Status(u32),
    /// There is no answer: the connection is gone, the run was stopped, or something else than the server is at fault.
    Session(SyncError),
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        Self::Session(error)
    }
}

impl Failure {
    pub fn is(&self, code: u32) -> bool {
        *self == Self::Status(code)
    }

    /// The error, with what was being done to what.
    pub fn at(self, action: &'static str, path: impl AsRef<[u8]>) -> SyncError {
        match self {
            Self::Session(error) if error.kind == ErrorKind::Cancelled || error.path.is_some() => error,
            Self::Session(error) => error.at(action, path),
            Self::Status(code::NO_SUCH_FILE) => SyncError::os(Errno::NOENT, action, path),
            Self::Status(code::PERMISSION_DENIED) => SyncError::os(Errno::ACCESS, action, path),
            Self::Status(code) => status(code).at(action, path),
        }
    }

    pub fn into_error(self) -> SyncError {
        match self {
            Self::Session(error) => error,
            Self::Status(code) => status(code),
        }
    }
}

fn status(code: u32) -> SyncError {
    match code {
        code::OK | code::EOF => nonsense(),
        code::NO_SUCH_FILE => SyncError::new(ErrorKind::NotFound, "no such file or directory"),
        code::PERMISSION_DENIED => SyncError::new(ErrorKind::PermissionDenied, "permission denied"),
        code::FAILURE => SyncError::new(ErrorKind::Io, "the server failed and does not say why"),
        code::BAD_MESSAGE => SyncError::new(ErrorKind::Io, "the server takes no such name or value"),
        code::NO_CONNECTION | code::CONNECTION_LOST => SyncError::new(ErrorKind::Network, "the server lost its own connection").retryable(),
        code::UNSUPPORTED => SyncError::unsupported("the server can't do that"),
        code => SyncError::new(ErrorKind::Io, format!("the server failed with code {code}")),
    }
}

/// The other side breaks the protocol. Another connection would bring no better.
pub fn nonsense() -> SyncError {
    SyncError::new(ErrorKind::Io, "the server's answer is not SFTP")
}

/// Why the stream ended before anything was said.
pub fn not_begun(end: End, link: &mut dyn Link) -> SyncError {
    match end {
        End::Nonsense(start) if start.iter().all(|&b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => {
            SyncError::new(ErrorKind::Io, format!("the host sends text where SFTP should begin: \"{}…\"", Printable(&start)))
                .hint("does a start-up file of its shell print something?")
        }
        End::Nonsense(_) => nonsense(),
        End::Closed | End::Os(_) | End::Unwanted => match link.failure() {
            connect::Failure::Connection(error) => transient(error),
            connect::Failure::Command { stderr, .. } => {
                let why = SyncError::unsupported(format!("the host offers no SFTP{}", told(&stderr)));
                why.hint("its sshd needs a line such as \"Subsystem sftp internal-sftp\"")
            }
        },
    }
}

/// Why the stream ended later.
pub fn ended(end: End, link: &mut dyn Link) -> SyncError {
    match end {
        End::Nonsense(_) => nonsense(),
        End::Os(errno) => SyncError::new(ErrorKind::Network, format!("the connection failed: {errno}")).retryable(),
        End::Closed | End::Unwanted => match link.failure() {
            connect::Failure::Connection(error) => transient(error),
            connect::Failure::Command { stderr, .. } => {
                SyncError::new(ErrorKind::Network, format!("the SFTP server on the host ended{}", told(&stderr))).retryable()
            }
        },
    }
}

/// What a new connection may mend.
fn transient(error: SyncError) -> SyncError {
    let may_pass = matches!(error.kind, ErrorKind::Network | ErrorKind::Timeout);
    if may_pass { error.retryable() } else { error }
}

/// The last line of what a command complained about.
fn told(stderr: &str) -> String {
    match stderr.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(line) => format!(": {}", Printable(line.as_bytes())),
        None => String::new(),
    }
}
