//! The user's own `ssh`, so that everything set up for it works.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use super::{Failure, Link, Start, Stream, Target};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Stop;
use crate::transport::ssh::SshConfig;

pub fn connect(target: &Target, config: &SshConfig, start: Start<'_>, _: &Stop) -> Result<Stream> {
    let mut ssh = Command::new("ssh");
    ssh.args(["-oBatchMode=yes", "-oClearAllForwardings=yes", "-T"]);
    if let Some(file) = &config.config_file {
        ssh.arg("-F").arg(file);
    }
    if let Some(key) = &config.key_file {
        ssh.arg("-i").arg(key);
    }
    if let Some(port) = target.port.or(config.port) {
        ssh.arg(format!("-p{port}"));
    }
    if let Some(user) = target.user.as_ref().or(config.user.as_ref()) {
        ssh.arg(format!("-l{user}"));
    }
    match start {
        Start::Command(command) => ssh.arg("--").arg(&target.host).arg(command),
        Start::Subsystem(name) => ssh.arg("-s").arg("--").arg(&target.host).arg(name),
    };
    let mut child = ssh
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| SyncError::io(&error, "start", "ssh"))?;
    let missing = || SyncError::new(ErrorKind::Network, "ssh has no pipes");
    let write: OwnedFd = child.stdin.take().ok_or_else(missing)?.into();
    let read: OwnedFd = child.stdout.take().ok_or_else(missing)?.into();
    Ok(Stream { read, write, link: Box::new(Process(child)) })
}

#[derive(Debug)]
struct Process(Child);

impl Link for Process {
    fn failure(&mut self) -> Failure {
        let mut stderr = String::new();
        if let Some(mut pipe) = self.0.stderr.take() {
            let _ = pipe.read_to_string(&mut stderr);
        }
        let code = self.0.wait().ok().and_then(|status| status.code());
        if code == Some(255) {
            return Failure::Connection(SyncError::new(ErrorKind::Network, stderr.trim().to_owned()));
        }
        Failure::Command { code, stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
