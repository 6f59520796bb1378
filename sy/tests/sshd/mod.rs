//! An OpenSSH server for tests: on a loopback port, with keys and files of its own.

use std::fs::{self, File};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sy::SyncError;
use sy::sync::Stop;
use sy::transport::ssh::SshConfig;
use sy::transport::ssh::connect::{Failure, Start, Stream, Target, connect};

pub struct Sshd {
    pub dir: tempfile::TempDir,
    pub port: u16,
    child: Child,
}

impl Sshd {
    /// `extra` lines of `sshd_config` come first, so they win.
    pub fn start(extra: &str) -> Self {
        let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|path| Path::new(path).exists());
        let program = program.expect("these tests need an OpenSSH server: apt-get install openssh-server");
        let dir = tempfile::tempdir().expect("a directory");
        keygen(&dir.path().join("host_key"), "ed25519", "");
        keygen(&dir.path().join("id"), "ed25519", "");
        fs::copy(dir.path().join("id.pub"), dir.path().join("authorized_keys")).expect("copied");
        if rustix::process::getuid().is_root() {
            // Where the server separates its privileges.
            let _ = fs::create_dir("/run/sshd");
        }
        for _ in 0..20 {
            let port = free_port();
            let text = format!(
                "{extra}\nListenAddress 127.0.0.1\nPort {port}\nHostKey {0}/host_key\nAuthorizedKeysFile {0}/authorized_keys\nPidFile none\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n\
                 MaxStartups 200\nMaxSessions 100\nUseDNS no\nLogLevel ERROR\nSubsystem sftp internal-sftp\n",
                dir.path().display()
            );
            fs::write(dir.path().join("sshd_config"), text).expect("written");
            let log = fs::File::create(dir.path().join("log")).expect("a log");
            let config = dir.path().join("sshd_config");
            let mut server = Command::new(program);
            server.args(["-D", "-e", "-f"]).arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            let mut child = server.spawn().expect("sshd starts");
            if answers(port, &mut child) {
                let this = Self { dir, port, child };
                fs::write(this.known_hosts(), this.known_line()).expect("written");
                fs::write(this.path("ssh_config"), "").expect("written");
                return this;
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("sshd does not start: {}", fs::read_to_string(dir.path().join("log")).unwrap_or_default());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn known_hosts(&self) -> PathBuf {
        self.path("known_hosts")
    }

    /// What `known_hosts` says of this server.
    pub fn known_line(&self) -> String {
        let key = fs::read_to_string(self.path("host_key.pub")).expect("a key");
        let key: Vec<&str> = key.split_whitespace().take(2).collect();
        format!("[127.0.0.1]:{} {}\n", self.port, key.join(" "))
    }

    pub fn target(&self) -> Target {
        Target { user: None, host: "127.0.0.1".into(), port: Some(self.port) }
    }

    /// All that is needed to get in, and nothing of this machine's own configuration.
    pub fn config(&self) -> SshConfig {
        SshConfig {
            key_file: Some(self.path("id")),
            known_hosts: Some(self.known_hosts()),
            config_file: Some(self.path("ssh_config")),
            ..SshConfig::default()
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn keygen(file: &Path, kind: &str, passphrase: &str) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", passphrase, "-C", "test", "-f"]).arg(file).status();
    assert!(made.expect("these tests need ssh-keygen: apt-get install openssh-client").success());
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn answers(port: u16, child: &mut Child) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            // It may be another program's port.
            return matches!(child.try_wait(), Ok(None));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

pub fn open(target: &Target, config: &SshConfig, start: Start<'_>) -> Stream {
    connect(target, config, start, &Stop::default()).expect("begins to connect")
}

/// What comes out of the stream, and how it ended.
pub fn finish(stream: Stream) -> (Vec<u8>, Failure) {
    let Stream { read, write, mut link } = stream;
    drop(write);
    let mut out = Vec::new();
    File::from(read).read_to_end(&mut out).expect("readable");
    (out, link.failure())
}

pub fn error(failure: Failure) -> SyncError {
    match failure {
        Failure::Connection(error) => error,
        Failure::Command { .. } => panic!("not an error of the connection: {failure:?}"),
    }
}

pub fn refusal(target: &Target, config: &SshConfig) -> SyncError {
    error(finish(open(target, config, Start::Command("true"))).1)
}
