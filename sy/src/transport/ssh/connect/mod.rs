//! A byte stream to a command or subsystem on a host, whoever makes the connection.

#[cfg(feature = "russh")]
mod builtin;
mod hop;
#[cfg(feature = "russh")]
mod known_hosts;
mod openssh;
mod paths;
mod reason;
mod user_config;

use std::os::fd::OwnedFd;

use super::SshConfig;
use crate::error::{ErrorKind, Result, SyncError};
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

    /// What tells the host from others, as far as its name does. Another configuration of ssh may mean another host by it.
    pub fn id(&self, config: &SshConfig) -> String {
        let user = self.user.as_ref().or(config.user.as_ref()).map_or_else(String::new, |user| format!("{user}@"));
        let port = self.port.or(config.port).map_or_else(String::new, |port| format!(":{port}"));
        let named_in = config.config_file.as_ref().map_or_else(String::new, |file| format!(" by {}", file.display()));
        format!("{user}{}{port}{named_in}", self.host)
    }

    fn name(&self) -> String {
        let user = self.user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
        let port = self.port.map_or_else(String::new, |port| format!(":{port}"));
        format!("{user}{}{port}", self.host)
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

/// Begins to connect. Returns before the other side has answered where that saves time. While there is no session yet, `stop` and
/// `connect_timeout` end the attempt.
pub fn connect(target: &Target, config: &SshConfig, start: Start<'_>, stop: &Stop) -> Result<Stream> {
    let secret = [&config.password, &config.key_data, &config.passphrase].iter().any(|secret| secret.is_some());
    if !secret && let Some(stream) = openssh::connect(target, config, start, stop)? {
        return Ok(stream);
    }
    #[cfg(feature = "russh")]
    return builtin::connect(target, config, start, stop).map_err(|error| match error.path {
        None => error.at("connect to", target.name()),
        Some(_) => error,
    });
    #[cfg(not(feature = "russh"))]
    {
        let error = if secret {
            SyncError::unsupported("this build has no SSH client of its own, which password, key_data and passphrase need")
                .hint("use ssh's own keys and agent, or build with the feature russh")
        } else {
            SyncError::unsupported("there is no program ssh").hint("install the OpenSSH client")
        };
        Err(error.at("connect to", target.name()))
    }
}

/// A dead connection is noticed after this many seconds, times `ALIVE_COUNT`.
const ALIVE_INTERVAL: u32 = 15;
const ALIVE_COUNT: u32 = 3;

/// No key is known of a host. `files` were looked into, `key` is what the host showed: `TYPE SHA256:…`.
fn unknown(message: &str, files: &[String], key: Option<&str>, host: &str, port: u16) -> SyncError {
    let looked = if files.is_empty() { String::new() } else { format!(" in {}", files.join(", ")) };
    let shown = key.map_or_else(String::new, |key| format!("; it shows {key}"));
    let file = files.first().map_or("~/.ssh/known_hosts", String::as_str);
    let port = if port == 22 { String::new() } else { format!("-p {port} ") };
    SyncError::new(ErrorKind::HostKey, format!("{message}{looked}{shown}"))
        .hint(format!("if that is the right key, add it: ssh-keyscan {port}{host} >> {file}; or set host_key_policy to accept-new"))
}
