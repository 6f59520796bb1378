//! Which OpenSSH is here. It is asked once, and remembered until the program changes: a process costs 10 ms, on a host near by a
//! twentieth of a run.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Of OpenSSH; `(0, 0)` for another program of that name; `None` if there is none.
pub fn version() -> Option<(u32, u32)> {
    static VERSION: OnceLock<(u32, u32)> = OnceLock::new();
    if let Some(version) = VERSION.get() {
        return Some(*version);
    }
    let here = std::env::var_os("PATH").and_then(|path| found(&path)).and_then(|program| state(&program));
    let note = crate::state::directory().map(|state| state.join("ssh-version"));
    if let (Some(here), Some(note)) = (&here, &note)
        && let Some(known) = remembered(note, here)
    {
        return Some(*VERSION.get_or_init(|| known));
    }
    let output = Command::new("ssh").arg("-V").stdin(Stdio::null()).output().ok()?;
    let version = parse_version(&String::from_utf8_lossy(&output.stderr)).unwrap_or_default();
    if let (Some(here), Some(note)) = (&here, &note) {
        remember(note, here, version);
    }
    Some(*VERSION.get_or_init(|| version))
}

/// The program that `ssh` is.
fn found(path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|dir| dir.join("ssh")).find(|program| program.is_file())
}

/// What tells apart one state of a program from another; `None` for a script, which may start anything.
fn state(program: &Path) -> Option<String> {
    let mut file = std::fs::File::open(program).ok()?;
    let meta = file.metadata().ok()?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic).ok()?;
    if magic != *b"\x7fELF" {
        return None;
    }
    let mut hash = blake3::Hasher::new();
    hash.update(program.as_os_str().as_bytes());
    for number in [meta.dev(), meta.ino(), meta.size(), meta.mtime() as u64, meta.mtime_nsec() as u64, meta.ctime() as u64] {
        hash.update(&number.to_le_bytes());
    }
    Some(hash.finalize().to_hex()[..32].to_owned())
}

fn remembered(note: &Path, here: &str) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string(note).ok()?;
    let [state, major, minor] = text.split_whitespace().collect::<Vec<_>>()[..] else { return None };
    (state == here).then_some(())?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// If that can't be, the next run asks again.
fn remember(note: &Path, here: &str, (major, minor): (u32, u32)) {
    let mut text = String::new();
    let _ = write!(text, "{here} {major} {minor}");
    if let Some(folder) = note.parent() {
        let _ = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(note, text));
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.split_once("OpenSSH_")?.1.split_once('.').filter(|(major, _)| !major.is_empty())?;
    // "OpenSSH_for_Windows_8.1"
    let major = major.rsplit('_').next()?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_openssh_tells_them() {
        for (text, version) in [
            ("OpenSSH_9.6p1 Ubuntu-3ubuntu13, OpenSSL 3.0.13 30 Jan 2024", Some((9, 6))),
            ("OpenSSH_for_Windows_8.1p1, LibreSSL 2.9.2", Some((8, 1))),
            ("OpenSSH_10.0p2", Some((10, 0))),
            ("Dropbear v2022.83", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), version, "{text}");
        }
    }

    #[test]
    fn a_version_is_remembered_until_the_program_changes() {
        let place = tempfile::tempdir().expect("a folder");
        let (program, note) = (place.path().join("ssh"), place.path().join("state/note"));
        assert_eq!(found(place.path().as_os_str()), None);
        std::fs::write(&program, b"\x7fELF one").expect("written");
        assert_eq!(found(place.path().as_os_str()).as_deref(), Some(&*program));
        let first = state(&program).expect("a program");
        assert_eq!(remembered(&note, &first), None);
        remember(&note, &first, (9, 6));
        assert_eq!(remembered(&note, &first), Some((9, 6)));
        std::fs::write(&program, b"\x7fELF other").expect("written");
        assert_eq!(remembered(&note, &state(&program).expect("a program")), None);
        std::fs::write(&program, b"#!/bin/sh\n").expect("written");
        assert_eq!(state(&program), None);
        std::fs::write(&note, "nonsense").expect("written");
        assert_eq!(remembered(&note, &first), None);
    }
}
