//! Where the agent is on a host: installed, remembered from an earlier run, or copied there once.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use super::SshConfig;
use super::agent::COMMAND;
use super::connect::{Start, Target, connect};
use super::sftp::Upload;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Stop;

/// Below the home directory there.
const FOLDER: &str = ".cache/sypy/agent";

/// How long the host may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(30);

static NATIVE: OnceLock<PathBuf> = OnceLock::new();

/// This process runs the native program, which can be an agent elsewhere.
pub fn is_native() {
    if let Ok(path) = std::env::current_exe() {
        let _ = NATIVE.set(path);
    }
}

/// Commands that may start an agent, the likeliest first. None of them holds anything that a user named, but `agent_path`.
pub fn commands(target: &Target, config: &SshConfig) -> Vec<String> {
    if let Some(path) = &config.agent_path {
        return vec![format!("{path} {COMMAND}")];
    }
    let mut commands: Vec<String> = remembered(target, config).into_iter().collect();
    for one in [format!("sy {COMMAND}"), format!("python3 -m sypy {COMMAND}")] {
        if !commands.contains(&one) {
            commands.push(one);
        }
    }
    commands
}

/// Does a failure to open mean that no agent of the right version is there? Then another command may start one.
pub fn is_absence(error: &SyncError) -> bool {
    error.kind == ErrorKind::Unsupported && error.path.is_none()
}

fn note(target: &Target, config: &SshConfig) -> Option<PathBuf> {
    let who = format!("{:?} {:?} {:?}", target, config.user, config.port);
    Some(crate::state::directory()?.join("hosts").join(&blake3::hash(who.as_bytes()).to_hex()[..32]))
}

fn remembered(target: &Target, config: &SshConfig) -> Option<String> {
    let command = std::fs::read_to_string(note(target, config)?).ok()?;
    // It goes to a shell on the host, so it is one of those that this program writes.
    let words: Vec<&str> = command.split(' ').collect();
    let plain = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b)) && !word.starts_with('-');
    match words[..] {
        [program, COMMAND] if program == "sy" || program.starts_with(FOLDER) && plain(program) => Some(command),
        ["python3", "-m", "sypy", COMMAND] => Some(command),
        _ => None,
    }
}

/// Has the next run begin with the command that worked.
pub fn remember(target: &Target, config: &SshConfig, command: &str) {
    if config.agent_path.is_some() || remembered(target, config).as_deref() == Some(command) {
        return;
    }
    if let Some(path) = note(target, config)
        && let Some(folder) = path.parent()
        && std::fs::create_dir_all(folder).is_ok()
    {
        let _ = std::fs::write(path, command);
    }
}

/// Copies this program to the host, where that is of use. Returns the command that starts it there.
pub fn install(target: &Target, config: &SshConfig, stop: &Stop) -> Result<String> {
    let program = native().ok_or_else(|| SyncError::unsupported("there is no program sy here that could be copied"))?;
    let content = std::fs::read(&program).map_err(|error| SyncError::io(&error, "read", &program))?;
    let (here, there) = (platform(), ask_platform(target, config, stop)?);
    if here != there {
        return Err(SyncError::unsupported(format!("the host is {there}, this program is for {here}")));
    }
    let name = format!("sy-{}-{}", env!("CARGO_PKG_VERSION"), &blake3::hash(&content).to_hex()[..16]);
    Upload { target, config, stop }.program(FOLDER, &name, &content)?;
    Ok(format!("{FOLDER}/{name} {COMMAND}"))
}

/// The native program of this version.
fn native() -> Option<PathBuf> {
    if let Some(path) = NATIVE.get() {
        return Some(path.clone());
    }
    let version = format!("sy {}", env!("CARGO_PKG_VERSION"));
    let found = |dir: PathBuf| {
        let path = dir.join("sy");
        let said = path.is_file().then(|| std::process::Command::new(&path).arg("--version").output().ok()).flatten()?;
        (String::from_utf8_lossy(&said.stdout).trim() == version).then_some(path)
    };
    let path = std::env::var_os("PATH")?;
    // In a virtual environment the program stands beside the interpreter.
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    beside.into_iter().chain(std::env::split_paths(&path)).find_map(found)
}

/// As `uname -sm` says it.
fn platform() -> String {
    let name = rustix::system::uname();
    format!("{} {}", name.sysname().to_string_lossy(), name.machine().to_string_lossy())
}

fn ask_platform(target: &Target, config: &SshConfig, stop: &Stop) -> Result<String> {
    let mut stream = connect(target, config, Start::Command("uname -sm"), stop)?;
    drop(stream.write);
    let mut said = Vec::new();
    let until = std::time::Instant::now() + PATIENCE;
    let mut file = std::fs::File::from(stream.read);
    loop {
        if stop.is_set() {
            return Err(SyncError::cancelled());
        }
        let mut fds = [rustix::event::PollFd::new(&file, rustix::event::PollFlags::IN)];
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let ready = rustix::event::poll(&mut fds, Some(&wait)).unwrap_or(0) > 0;
        let mut piece = [0; 256];
        match if ready { file.read(&mut piece).unwrap_or(0) } else { usize::from(std::time::Instant::now() < until) } {
            0 => break,
            n if ready => said.extend_from_slice(&piece[..n]),
            _ => {}
        }
        if said.len() > 4096 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&said).trim().lines().last().unwrap_or_default().to_owned();
    if line.is_empty() {
        if let super::connect::Failure::Connection(error) = stream.link.failure() {
            return Err(error);
        }
        return Err(SyncError::unsupported("the host does not say what it is"));
    }
    Ok(line.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(64).collect())
}
