//! A byte stream to a command or subsystem on a host, whoever makes the connection.

mod openssh;

use std::os::fd::OwnedFd;

use super::SshConfig;
use crate::error::{Result, SyncError};
use crate::path::{Scheme, SyncPath};
use crate::sync::Stop;

/// Where to connect to, as the location names it. What is `None` comes from the config, then from ssh's own configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub user: Option<String>,
    pub host: String,
    pub port: Option<u16>,
}

impl Target {
    /// `None` if the location is on no host.
    pub fn of(path: &SyncPath) -> Option<Self> {
        match &path.scheme {
            Scheme::Ssh { user, host, port, .. } => Some(Self { user: user.clone(), host: host.clone(), port: *port }),
            _ => None,
        }
    }
}

/// What is started on the host. Neither ever holds a name from a user's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'a> {
    /// A command line for the login shell there.
    Command(&'a str),
    Subsystem(&'a str),
}

/// An open stream. Nothing may have been exchanged yet: a failure to connect shows as an end of `read`, and `link` tells why.
#[derive(Debug)]
pub struct Stream {
    /// What the other side writes to its standard output.
    pub read: OwnedFd,
    /// Its standard input.
    pub write: OwnedFd,
    pub link: Box<dyn Link>,
}

/// What stands behind a stream. Dropped, it ends the connection at once and leaves no process behind.
pub trait Link: Send + std::fmt::Debug {
    /// Why the stream ended, to be asked after `read` has: waits a moment for what has yet to be told.
    fn failure(&mut self) -> Failure;
}

/// How a stream ended before its time.
#[derive(Debug)]
pub enum Failure {
    /// There is no connection: unknown host or key, refused, not authenticated, cut off.
    Connection(SyncError),
    /// The command ran or tried to: its exit code (127 and 126 are the shell's: not found, not executable) and the end of
    /// what it wrote to its standard error.
    Command { code: Option<i32>, stderr: String },
}

/// Begins to connect. Returns before the other side has answered where that saves time.
pub fn connect(target: &Target, config: &SshConfig, start: Start<'_>, stop: &Stop) -> Result<Stream> {
    openssh::connect(target, config, start, stop)
}
