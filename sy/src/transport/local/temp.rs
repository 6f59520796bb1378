//! Names of temporary files: told from a user's files, unique, and traceable to the process that made them.
//!
//! `.sypy-tmp-HOST-PID-START-N` is a file in flight; `.sypy-part-HASH` a large one that the next run may go on with.

use std::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::transport::Meta;

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
    let hex = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
    if parts.next().is_some() || host.len() != 8 || ![host, pid, start, number].into_iter().all(hex) {
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

/// A new name for a file in flight.
pub fn temp_name() -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // The process id is asked each time: a forked child must not use its parent's name.
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    static PREFIX: OnceLock<(i32, String)> = OnceLock::new();
    let prefix = |pid: i32| format!(".sypy-tmp-{}-{pid:x}-{:x}-", this_host(), start_of("self").unwrap_or(0));
    let (owner, known) = PREFIX.get_or_init(|| (pid, prefix(pid)));
    let mut name = if *owner == pid { known.clone() } else { prefix(pid) };
    let _ = write!(name, "{:x}", NEXT.fetch_add(1, Relaxed));
    name.into_bytes()
}

/// The name under which a large file is kept until it is whole. It depends on what is copied, so a changed source starts anew.
pub fn part_name(name: &[u8], source: &Meta) -> Vec<u8> {
    let mut hash = blake3::Hasher::new();
    hash.update(name);
    for number in [source.size, source.mtime.seconds as u64, u64::from(source.mtime.nanos), source.ino, source.dev] {
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

/// When a process started, in clock ticks since boot: a process id alone may be used again.
fn start_of(pid: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_names_are_in_use_while_we_live() {
        assert_eq!(ours(&temp_name()), Some(Ours::InUse));
    }

    #[test]
    fn names_of_dead_processes_are_leftovers() {
        let name = format!(".sypy-tmp-{}-{:x}-1-0", this_host(), u32::MAX >> 2);
        assert_eq!(ours(name.as_bytes()), Some(Ours::Leftover));
    }

    #[test]
    fn other_names_are_the_users() {
        for name in [".sypy-tmp-", ".sypy-tmp-notes", ".sypy-part-1", "sypy", ".syignore", ".sypy-tmp-0123456-1-1-1"] {
            assert_eq!(ours(name.as_bytes()), None, "{name}");
        }
    }
}
