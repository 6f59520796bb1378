//! Names of temporary files: told from a user's files, unique, and traceable to the process that made them.
//!
//! `.sypy-tmp-HOST-PID-START-RUN.N` is a file in flight; `.sypy-part-HASH` a large one that the next run may go on with.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{Result, SyncError};
use crate::transport::{Meta, Time};

const TEMP: &[u8] = b".sypy-tmp-";
const PART: &[u8] = b".sypy-part-";

/// What a directory entry with one of our names is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ours {
    /// Its process is gone.
    Leftover,
    /// Its process is at work.
    InUse,
    /// Made on another machine or in another container: nobody here can tell.
    Foreign,
    Part,
}

/// Recognises our own names; anything else, however like them, is the user's.
pub fn ours(name: &[u8]) -> Option<Ours> {
    if name.first() != Some(&b'.') {
        return None;
    }
    if let Some(hash) = name.strip_prefix(PART) {
        return (hash.len() == 32 && hash.iter().all(u8::is_ascii_hexdigit)).then_some(Ours::Part);
    }
    let rest = std::str::from_utf8(name.strip_prefix(TEMP)?).ok()?;
    let mut parts = rest.split('-');
    let (host, pid, start, number) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (run, count) = number.split_once('.')?;
    let hex = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
    if parts.next().is_some() || host.len() != 8 || ![host, pid, start, run, count].into_iter().all(hex) {
        return None;
    }
    let alive = || {
        let pid = u32::from_str_radix(pid, 16).unwrap_or(0);
        start_of(&pid.to_string()).is_some_and(|s| format!("{s:x}") == start)
    };
    Some(match host == this_host() {
        false => Ours::Foreign,
        true if alive() => Ours::InUse,
        true => Ours::Leftover,
    })
}

/// Would a scan take it for one of ours?
pub fn is_ours(name: &[u8]) -> bool {
    ours(name).is_some()
}

/// Bytes of a name, on every file system of Linux.
const LONGEST: usize = 255;

/// Can a file system have that name? Anything else would lead elsewhere, or be taken for a temporary file of ours.
pub fn fits(name: &[u8]) -> Result<()> {
    let bad = matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) || name.len() > LONGEST;
    if bad || is_ours(name) {
        return Err(SyncError::unsupported("a file system can't have a file of that name"));
    }
    Ok(())
}

/// Makes the names of one run. Runs don't survive a fork, so the process is asked for its id once.
#[derive(Debug)]
pub struct TempNames {
    prefix: String,
    next: AtomicU64,
}

impl TempNames {
    pub fn new() -> Self {
        // Two runs in one process must not meet in a directory either.
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let (pid, start, run) = (std::process::id(), start_of("self").unwrap_or(0), RUNS.fetch_add(1, Relaxed));
        Self { prefix: format!(".sypy-tmp-{}-{pid:x}-{start:x}-{run:x}", this_host()), next: AtomicU64::new(0) }
    }

    pub fn next(&self) -> Vec<u8> {
        let mut name = Vec::with_capacity(self.prefix.len() + 8);
        let _ = write!(name, "{}.{:x}", self.prefix, self.next.fetch_add(1, Relaxed));
        name
    }
}

/// The name under which a large file is kept until it is whole. It depends on what is copied, so a changed source starts anew.
pub fn part_name(name: &[u8], source: &Meta) -> Vec<u8> {
    let mut hash = blake3::Hasher::new();
    hash.update(name);
    // The tag of an object tells its content; a listing may not know its time.
    let time = if source.tagged { Time::default() } else { source.mtime };
    for number in [source.size, time.seconds as u64, u64::from(time.nanos), source.ino, source.dev] {
        hash.update(&number.to_le_bytes());
    }
    let hex = hash.finalize().to_hex();
    [PART, &hex.as_bytes()[..32]].concat()
}

/// Tells apart machines and process-id namespaces that share a file system.
fn this_host() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(|| {
        let mut hash = blake3::Hasher::new();
        hash.update(&std::fs::read("/etc/machine-id").unwrap_or_default());
        hash.update(rustix::system::uname().nodename().to_bytes());
        hash.update(std::fs::read_link("/proc/self/ns/pid").unwrap_or_default().as_os_str().as_encoded_bytes());
        let mut hex = hash.finalize().to_hex().to_string();
        hex.truncate(8);
        hex
    })
}

/// When a process that still runs started, in clock ticks since boot: a process id alone may be used again.
fn start_of(pid: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    // One that has ended, and whose parent has yet to ask how, writes no more.
    let runs = !matches!(fields.next()?, "Z" | "X");
    runs.then(|| fields.nth(18))??.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_names_are_in_use_while_we_live() {
        assert_eq!(ours(&TempNames::new().next()), Some(Ours::InUse));
    }

    #[test]
    fn names_of_dead_processes_are_leftovers() {
        let name = format!(".sypy-tmp-{}-{:x}-1-0.0", this_host(), u32::MAX >> 2);
        assert_eq!(ours(name.as_bytes()), Some(Ours::Leftover));
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_is_dead() {
        let mut child = std::process::Command::new("true").spawn().expect("true");
        let pid = child.id().to_string();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while start_of(&pid).is_some() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(std::fs::exists(format!("/proc/{pid}")).expect("proc"));
        child.wait().expect("a child");
    }

    #[test]
    fn other_names_are_the_users() {
        for name in [".sypy-tmp-", ".sypy-tmp-notes", ".sypy-part-1", "sypy", ".syignore", ".sypy-tmp-0123456-1-1-1.1"] {
            assert_eq!(ours(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", b".sypy-part-0123456789abcdef0123456789abcdef"] {
            assert!(fits(bad).is_err(), "{bad:?}");
        }
        for good in [&b"..."[..], b"a b", b"-x", b"\xff", b".sypy"] {
            assert!(fits(good).is_ok(), "{good:?}");
        }
    }
}
