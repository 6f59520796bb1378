//! The user's own `ssh`, so that everything set up for it works.

mod args;
mod ciphers;
mod log;
mod version;

use std::io::Read;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use args::Abilities;
use log::Log;

#[cfg(feature = "russh")]
pub use ciphers::aes_is_fast;

use super::{Failure, Link, Start, Stream, Target, paths, reason, unknown};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Stop;
use crate::transport::ssh::SshConfig;

/// How often a connection that is being made looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// How long `ssh` may take to end after its stream has.
const PATIENCE: Duration = Duration::from_secs(2);

/// `None` if there is no `ssh`.
pub fn connect(target: &Target, config: &SshConfig, start: Start<'_>, stop: &Stop) -> Result<Option<Stream>> {
    if let Some(key) = &config.key_file {
        let key = paths::absolute(key)?;
        // ssh would warn and go on without it.
        std::fs::File::open(&key).map_err(|error| SyncError::io(&error, "read", &key).hint("it is the key_file"))?;
    }
    let Some(version) = version::version() else { return Ok(None) };
    let prefer_aes = ciphers::aes_is_fast() && !ciphers::chosen(config.config_file.as_deref());
    let words = args::command_line(target, config, start, Abilities { version, prefer_aes }, &paths::usual_keys())?;
    let (read, write, errors, child) = match spawn(&words, config) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        spawned => spawned.map_err(|error| SyncError::io(&error, "start", "ssh"))?,
    };
    let shared = Arc::new(Shared { child: Mutex::new(child), log: Mutex::default(), why: OnceLock::new() });
    let wake = errors.try_clone().map_err(|error| SyncError::io(&error, "start", "ssh"))?;
    // From here on the process has an owner that ends it.
    let mut process = Process {
        shared: Arc::clone(&shared),
        wake,
        reader: None,
        target: target.clone(),
        words,
        known_hosts: config.known_hosts.is_some(),
    };
    let deadline = config.connect_timeout.and_then(|timeout| Instant::now().checked_add(timeout.0));
    let stop = stop.clone();
    let reader = std::thread::Builder::new().name("ssh log".into()).spawn(move || shared.watch(errors, &stop, deadline));
    process.reader = Some(reader.map_err(|error| SyncError::io(&error, "start", "ssh"))?);
    Ok(Some(Stream { read, write, link: Box::new(process) }))
}

#[expect(unsafe_code, reason = "a new session can only be made between fork and exec")]
fn spawn(words: &[String], config: &SshConfig) -> std::io::Result<(OwnedFd, OwnedFd, UnixStream, Child)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut ssh = Command::new("ssh");
    ssh.args(words).env("SSH_ASKPASS_REQUIRE", "never");
    if config.proxy_jump.is_some() {
        // It reads the command that goes through the other hosts, which is quoted for this shell.
        ssh.env("SHELL", "/bin/sh");
    }
    ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::from(OwnedFd::from(theirs)));
    // A session of its own: Ctrl-C in the terminal is for us to handle, and no ssh on the way finds a terminal to ask at.
    // SAFETY: setsid is a single system call; it touches no memory of the process and is safe after fork.
    unsafe {
        ssh.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(Into::into));
    }
    let mut child = ssh.spawn()?;
    drop(ssh);
    match (child.stdout.take(), child.stdin.take()) {
        (Some(read), Some(write)) => Ok((read.into(), write.into(), ours, child)),
        _ => Err(std::io::ErrorKind::BrokenPipe.into()),
    }
}

/// What the link and the thread that reads the log have in common.
#[derive(Debug)]
struct Shared {
    child: Mutex<Child>,
    log: Mutex<Log>,
    /// Why the process was ended from here.
    why: OnceLock<SyncError>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Reads the log to its end, so that whoever writes to it never waits. Until there is a session, also looks at the time.
    fn watch(&self, mut errors: UnixStream, stop: &Stop, deadline: Option<Instant>) {
        let mut buffer = [0; 4096];
        let _ = errors.set_read_timeout(Some(LOOK));
        let mut connecting = true;
        loop {
            match errors.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => lock(&self.log).push(&buffer[..read]),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {}
                Err(_) => break,
            }
            if connecting && lock(&self.log).session {
                connecting = false;
                let _ = errors.set_read_timeout(None);
            }
            if connecting && stop.is_set() {
                self.end(SyncError::cancelled());
            } else if connecting && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.end(SyncError::new(ErrorKind::Timeout, "no connection within connect_timeout").retryable());
            }
        }
        lock(&self.log).end_line();
    }

    fn end(&self, why: SyncError) {
        let _ = self.why.set(why);
        terminate(&mut lock(&self.child));
    }

    /// How the process ended, if it does so in time.
    fn wait(&self, until: Instant) -> Option<ExitStatus> {
        loop {
            if let Ok(Some(status)) = lock(&self.child).try_wait() {
                return Some(status);
            }
            if Instant::now() >= until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Ends ssh with the programs that it started to reach the host, and reaps it.
fn terminate(child: &mut Child) {
    // A process that was waited for may have left its number to another.
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    // They are a process group, by setsid.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[derive(Debug)]
struct Process {
    shared: Arc<Shared>,
    /// The other end of the log, to end the thread that reads it, whoever still holds it open.
    wake: UnixStream,
    reader: Option<JoinHandle<()>>,
    target: Target,
    words: Vec<String>,
    known_hosts: bool,
}

impl Process {
    fn finish_log(&mut self, patience: Duration) {
        let Some(reader) = self.reader.take() else { return };
        let until = Instant::now() + patience;
        while !reader.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.wake.shutdown(Shutdown::Both);
        let _ = reader.join();
    }

    /// Names the files that were looked into, as ssh itself tells them.
    fn no_key(&self, error: SyncError, host_key: Option<&str>) -> SyncError {
        let end = self.words.iter().position(|word| word == "--" || word == "-s").unwrap_or(self.words.len());
        let output = Command::new("ssh").arg("-G").args(&self.words[..end]).arg("--").arg(&self.target.host).stdin(Stdio::null()).output();
        let settings = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let setting = |name: &str| settings.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let mut files: Vec<&str> = setting("userknownhostsfile").into_iter().flat_map(str::split_whitespace).collect();
        if !self.known_hosts {
            files.extend(setting("globalknownhostsfile").into_iter().flat_map(str::split_whitespace));
        }
        let files: Vec<String> = files.into_iter().map(|file| file.trim_matches('"').to_owned()).collect();
        let host = setting("hostname").unwrap_or(&self.target.host);
        let port = setting("port").and_then(|port| port.parse().ok()).unwrap_or(22);
        let SyncError { message, .. } = error;
        unknown(&message, &files, host_key, host, port)
    }

    fn reason(&self, status: Option<ExitStatus>) -> SyncError {
        let log = lock(&self.shared.log);
        let text = log.text();
        if log.session {
            return reason::broken(&text);
        }
        if let Some(signal) = status.and_then(|status| status.signal()) {
            return SyncError::new(ErrorKind::Network, format!("ssh was ended by signal {signal}")).retryable();
        }
        let host_key = log.host_key.clone();
        drop(log);
        let error = reason::reason(&text, host_key.as_deref());
        // Without a key from the target itself, it was a host on the way.
        match host_key {
            Some(key) if error.kind == ErrorKind::HostKey && error.message.starts_with("no key is known") => self.no_key(error, Some(&key)),
            _ => error,
        }
    }
}

impl Link for Process {
    fn failure(&mut self) -> Failure {
        let status = self.shared.wait(Instant::now() + PATIENCE);
        if status.is_none() {
            terminate(&mut lock(&self.shared.child));
        }
        self.finish_log(Duration::from_millis(300));
        let at = |error: SyncError| if error.kind == ErrorKind::Cancelled { error } else { error.at("connect to", self.target.name()) };
        if let Some(why) = self.shared.why.get() {
            return Failure::Connection(at(why.clone()));
        }
        let (text, session, exit_255, signal) = {
            let log = lock(&self.shared.log);
            (log.text(), log.session, log.exit_255, log.exit_signal)
        };
        let code = status.and_then(|status| status.code());
        let refused = text.contains("exec request failed on channel") || text.contains("subsystem request failed on channel");
        match code {
            Some(255) if exit_255 => Failure::Command { code, stderr: text },
            Some(255) if session && (signal || refused) => Failure::Command { code: None, stderr: text },
            Some(255) => Failure::Connection(at(self.reason(status))),
            Some(_) => Failure::Command { code, stderr: text },
            // It closed its output and went on.
            None if status.is_none() && session => Failure::Command { code: None, stderr: text },
            None => Failure::Connection(at(self.reason(status))),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        terminate(&mut lock(&self.shared.child));
        self.finish_log(Duration::ZERO);
    }
}
