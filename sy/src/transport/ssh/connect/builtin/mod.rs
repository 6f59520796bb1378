//! SSH without the program `ssh`: for secrets that it can't be given, and where it is not installed.
//!
//! The client is asynchronous. It runs on a thread of its own that ends with the link, and hands over two pipes.

mod algorithms;
mod auth;
mod host_key;
mod pump;
mod route;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use russh::client::{self, Handle};
use russh::{Channel, SshId};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::{Failure, Link, Start, Stream, Target};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Stop;
use crate::transport::ssh::SshConfig;
use host_key::{Checker, Trouble};
use route::{Family, Leg};

const NEEDS_SSH: &str =
    "without password, key_data and passphrase, ssh itself is used where it is installed; config_file names another configuration";

/// What the other side may send before it hears from us, bytes: enough for 1 Gbit/s over 100 ms.
const WINDOW: u32 = 32 << 20;
/// Packets that wait for whoever reads the stream. With 32 KiB each, this bounds memory.
const QUEUE: usize = 64;
/// How often a connection that is being made looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);
/// How long the end of a connection may take to be told.
const PATIENCE: Duration = Duration::from_secs(2);

pub fn connect(target: &Target, config: &SshConfig, start: Start<'_>, stop: &Stop) -> Result<Stream> {
    let (legs, timeout) = route::route(target, config)?;
    let io = |error: std::io::Error| SyncError::io(&error, "start", "an SSH connection");
    let (read, to_read) = std::io::pipe().map_err(io)?;
    let (from_write, write) = std::io::pipe().map_err(io)?;
    let outcome = Outcome::default();
    let (cancel, cancelled) = oneshot::channel();
    let job = Job {
        legs,
        config: config.clone(),
        start: start.into(),
        stop: stop.clone(),
        deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        outcome: outcome.clone(),
    };
    let ends = (OwnedFd::from(from_write), OwnedFd::from(to_read));
    let thread = std::thread::Builder::new().name("ssh".into()).spawn(move || job.run(ends, cancelled)).map_err(io)?;
    let link = Connection { target: target.clone(), outcome, cancel: Some(cancel), thread: Some(thread) };
    Ok(Stream { read: read.into(), write: write.into(), link: Box::new(link) })
}

#[derive(Debug, Clone)]
enum Started {
    Command(String),
    Subsystem(String),
}

impl From<Start<'_>> for Started {
    fn from(start: Start<'_>) -> Self {
        match start {
            Start::Command(command) => Self::Command(command.to_owned()),
            Start::Subsystem(name) => Self::Subsystem(name.to_owned()),
        }
    }
}

/// How the stream ended, as the thread learns it.
#[derive(Debug, Default)]
struct Ending {
    stderr: Vec<u8>,
    code: Option<i32>,
    /// The command is over, or never began.
    ended: bool,
    error: Option<SyncError>,
}

#[derive(Debug, Clone, Default)]
struct Outcome(Arc<Mutex<Ending>>);

impl Outcome {
    fn update<T>(&self, change: impl FnOnce(&mut Ending) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct Connection {
    target: Target,
    outcome: Outcome,
    cancel: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Link for Connection {
    fn failure(&mut self) -> Failure {
        let until = Instant::now() + PATIENCE;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.outcome.update(|ending| {
            if let Some(error) = ending.error.clone().filter(|_| !ending.ended) {
                let at = error.kind != ErrorKind::Cancelled && error.path.is_none();
                return Failure::Connection(if at { error.at("connect to", self.target.name()) } else { error });
            }
            Failure::Command { code: ending.code, stderr: String::from_utf8_lossy(&ending.stderr).trim().to_owned() }
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        drop(self.cancel.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread does. It holds secrets, so it is never shown.
struct Job {
    legs: Vec<Leg>,
    config: SshConfig,
    start: Started,
    stop: Stop,
    deadline: Option<Instant>,
    outcome: Outcome,
}

impl Job {
    fn run(self, ends: (OwnedFd, OwnedFd), cancelled: oneshot::Receiver<()>) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                self.outcome.update(|ending| ending.error = Some(SyncError::io(&error, "start", "an SSH connection")));
                return;
            }
        };
        let outcome = self.outcome.clone();
        runtime.block_on(async {
            tokio::select! {
                result = self.work(ends) => if let Err(trouble) = result {
                    outcome.update(|ending| ending.error = Some(explain(trouble)));
                },
                // The link was dropped.
                _ = cancelled => {}
            }
        });
        // A name that is still being looked up must not hold up the end.
        runtime.shutdown_background();
    }

    async fn work(&self, (from, to): (OwnedFd, OwnedFd)) -> Result<(), Trouble> {
        let io = |error: std::io::Error| SyncError::io(&error, "start", "an SSH connection");
        let (from, to) = (pipe::Receiver::from_owned_fd(from).map_err(io)?, pipe::Sender::from_owned_fd(to).map_err(io)?);
        let (mut handles, channel) = tokio::select! {
            opened = self.open() => opened?,
            why = self.unwanted() => return Err(why.into()),
        };
        let (read, write) = channel.split();
        tokio::select! {
            () = pump::receive(read, to, &self.outcome) => {}
            () = pump::send(from, write) => {}
        }
        if self.outcome.update(|ending| ending.ended) {
            return Ok(());
        }
        // No word of an end: the connection tells why.
        let Some(last) = handles.pop() else { return Ok(()) };
        match tokio::time::timeout(PATIENCE, last).await {
            Ok(Err(trouble)) => Err(trouble),
            _ => Err(russh::Error::Disconnect.into()),
        }
    }

    /// Waits until nobody wants the connection, or it took too long.
    async fn unwanted(&self) -> SyncError {
        loop {
            if self.stop.is_set() {
                return SyncError::cancelled();
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return SyncError::new(ErrorKind::Timeout, "no connection within connect_timeout").retryable();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Passes all hosts on the way, and starts what is to be started on the last.
    async fn open(&self) -> Result<(Vec<Handle<Checker>>, Channel<client::Msg>), Trouble> {
        let mut handles: Vec<Handle<Checker>> = Vec::new();
        for (index, leg) in self.legs.iter().enumerate() {
            let is_target = index + 1 == self.legs.len();
            let connected = self.pass(handles.last(), leg, is_target).await;
            let handle =
                connected.map_err(|trouble| if is_target { trouble } else { explain(trouble).at("connect to", &leg.name).into() })?;
            handles.push(handle);
        }
        let Some(handle) = handles.last() else { return Err(russh::Error::Inconsistent.into()) };
        let channel = handle.channel_open_session().await?;
        for (name, value) in self.legs.last().map_or(&[][..], |leg| &leg.environment) {
            channel.set_env(false, name.as_str(), value.as_str()).await?;
        }
        match &self.start {
            Started::Command(command) => channel.exec(true, command.as_str()).await?,
            Started::Subsystem(name) => channel.request_subsystem(true, name.as_str()).await?,
        }
        Ok((handles, channel))
    }

    async fn pass(&self, before: Option<&Handle<Checker>>, leg: &Leg, is_target: bool) -> Result<Handle<Checker>, Trouble> {
        let known = Checker::known(leg)?;
        let settings = client::Config {
            client_id: SshId::Standard(concat!("SSH-2.0-sypy_", env!("CARGO_PKG_VERSION")).into()),
            window_size: WINDOW,
            channel_buffer_size: QUEUE,
            preferred: algorithms::preferred(leg, &known.kinds())?,
            keepalive_interval: leg.alive_interval,
            keepalive_max: leg.alive_count,
            nodelay: true,
            ..client::Config::default()
        };
        let checker = Checker { leg: leg.clone() };
        let settings = Arc::new(settings);
        let mut handle = match before {
            None => client::connect_stream(settings, dial(leg).await?, checker).await?,
            Some(handle) => {
                let channel = handle.channel_open_direct_tcpip(leg.host.as_str(), leg.port.into(), "127.0.0.1", 0).await?;
                client::connect_stream(settings, channel.into_stream(), checker).await?
            }
        };
        auth::authenticate(&mut handle, leg, &self.config, is_target).await?;
        Ok(handle)
    }
}

async fn dial(leg: &Leg) -> Result<TcpStream> {
    let unresolved = |error: &std::io::Error| SyncError::new(ErrorKind::Network, format!("could not resolve {}: {error}", leg.host));
    let addresses = tokio::net::lookup_host((leg.host.as_str(), leg.port)).await.map_err(|error| unresolved(&error))?;
    let mut last = SyncError::new(ErrorKind::Network, format!("{} has no address", leg.host));
    for address in addresses {
        if (leg.family == Family::V4 && !address.is_ipv4()) || (leg.family == Family::V6 && !address.is_ipv6()) {
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => {
                let timeout = error.kind() == std::io::ErrorKind::TimedOut;
                let kind = if timeout { ErrorKind::Timeout } else { ErrorKind::Network };
                let text = SyncError::io(&error, "connect to", "").message;
                last = SyncError::new(kind, format!("connect to {address}: {text}"));
                last.retryable = timeout;
            }
        }
    }
    Err(last)
}

/// What the protocol met, in words of ours.
fn explain(trouble: Trouble) -> SyncError {
    let error = match trouble {
        Trouble::Refused(error) => return error,
        Trouble::Protocol(error) => error,
    };
    match &error {
        russh::Error::KeepaliveTimeout | russh::Error::InactivityTimeout | russh::Error::ConnectionTimeout => {
            SyncError::new(ErrorKind::Timeout, "the host no longer answers").retryable()
        }
        russh::Error::NoCommonAlgo { .. } | russh::Error::Version => SyncError::new(ErrorKind::Network, error.to_string()),
        russh::Error::WrongServerSig | russh::Error::UnknownKey => SyncError::new(ErrorKind::HostKey, error.to_string()),
        russh::Error::ChannelOpenFailure(why) => {
            SyncError::new(ErrorKind::Network, format!("the host did not open a channel: {why:?}")).retryable()
        }
        russh::Error::IO(error) => SyncError::new(ErrorKind::Network, format!("the connection broke off: {error}")).retryable(),
        _ => SyncError::new(ErrorKind::Network, "the connection broke off").retryable(),
    }
}
