//! Remembers uploads in parts that are under way, so that the next run goes on with them or gives them up.
//!
//! One small file for each, below a folder for the destination. What is not there is only an upload that is begun anew.

use std::collections::HashSet;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const MAGIC: &str = "sypy upload 1";

#[derive(Debug)]
pub struct Uploads {
    /// `None` where no state can be kept.
    dir: Option<PathBuf>,
    /// Those that this run began or went on with, by file name.
    own: Mutex<HashSet<String>>,
}

impl Uploads {
    /// Of one destination.
    pub fn open(identity: &[u8]) -> Self {
        let dir = super::directory().map(|state| state.join("uploads").join(&blake3::hash(identity).to_hex()[..32]));
        Self { dir, own: Mutex::default() }
    }

    fn name(key: &[u8]) -> String {
        blake3::hash(key).to_hex()[..32].to_owned()
    }

    /// The upload that was begun for this key from the same content, and the size of its parts.
    pub fn find(&self, key: &[u8], mark: u64) -> Option<(String, u64)> {
        let text = std::fs::read_to_string(self.dir.as_ref()?.join(Self::name(key))).ok()?;
        let mut lines = text.lines();
        let part_size = lines.next()?.strip_prefix(&format!("{MAGIC} {mark} "))?.parse().ok().filter(|&size| size > 0)?;
        (lines.next()? == hex(key)).then(|| Some((lines.next()?.to_owned(), part_size))).flatten()
    }

    /// The upload that was begun for this key, whatever of.
    pub fn of(&self, key: &[u8]) -> Option<String> {
        read(&self.dir.as_ref()?.join(Self::name(key))).filter(|(noted, _)| noted == key).map(|(_, upload)| upload)
    }

    pub fn note(&self, key: &[u8], mark: u64, part_size: u64, upload: &str) {
        let Some(dir) = &self.dir else { return };
        let name = Self::name(key);
        self.own.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        let written = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).and_then(|()| {
            let temp = dir.join(format!("{name}.{:x}", std::process::id()));
            std::fs::write(&temp, format!("{MAGIC} {mark} {part_size}\n{}\n{upload}\n", hex(key)))?;
            std::fs::rename(temp, dir.join(&name))
        });
        drop(written);
    }

    pub fn forget(&self, key: &[u8]) {
        if let Some(dir) = &self.dir {
            let _ = std::fs::remove_file(dir.join(Self::name(key)));
            // Only the last one leaves an empty folder behind.
            let _ = std::fs::remove_dir(dir);
        }
    }

    /// Uploads of earlier runs that this one did not go on with: keys and names.
    pub fn stale(&self) -> Vec<(Vec<u8>, String)> {
        let Some(files) = self.dir.as_ref().and_then(|dir| std::fs::read_dir(dir).ok()) else { return Vec::new() };
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let left = files.flatten().filter(|file| file.file_name().to_str().is_some_and(|name| !own.contains(name)));
        left.filter_map(|file| read(&file.path())).collect()
    }
}

/// Key and name of the upload that is noted in a file.
fn read(path: &Path) -> Option<(Vec<u8>, String)> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    let known = lines.next()?.starts_with(MAGIC);
    let key = from_hex(lines.next()?)?;
    known.then(|| lines.next().map(|upload| (key, upload.to_owned()))).flatten()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_found_by_the_next_run_or_given_up() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open = || Uploads { dir: Some(dir.path().join("x")), own: Mutex::default() };
        let first = open();
        first.note(b"a/b\n", 1, 8, "id");
        assert!(first.stale().is_empty());
        let second = open();
        assert_eq!(second.find(b"a/b\n", 1), Some(("id".to_owned(), 8)));
        assert_eq!(second.find(b"a/b\n", 2), None, "other content");
        assert_eq!((second.of(b"a/b\n").as_deref(), second.of(b"a/b")), (Some("id"), None));
        assert_eq!(second.stale(), [(b"a/b\n".to_vec(), "id".to_owned())]);
        second.forget(b"a/b\n");
        assert!(open().stale().is_empty());
    }
}
