//! The ranges that a large object comes in, and which of them a file that was cut off has already.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::store::Head;

/// Small enough to be little to lose when one is cut off, large enough to be few requests.
const RANGE: std::ops::RangeInclusive<u64> = 8 << 20..=64 << 20;
/// Ranges of one object under way at a time.
pub const RANGES_AT_ONCE: usize = 4;

/// The ranges of a large object. Which of them are there is noted behind the content, in the file itself, until all are:
/// ranges come in any order, so its length tells nothing.
pub struct Ranges<'f> {
    fd: BorrowedFd<'f>,
    size: u64,
    /// Where each range ends.
    ends: Vec<u64>,
    there: Mutex<Vec<u8>>,
    kept: bool,
}

/// What stands before the notes: told by tag, size and ranges, so that notes about another content are not believed.
fn magic(head: &Head, ends: &[u64]) -> [u8; 32] {
    *blake3::hash(format!("sypy ranges {} {} {ends:?}", head.size, head.tag).as_bytes()).as_bytes()
}

/// How long ranges should be: two for each connection, within bounds.
pub fn step(size: u64) -> u64 {
    (size / (2 * RANGES_AT_ONCE as u64)).clamp(*RANGE.start(), *RANGE.end()).next_multiple_of(1 << 20)
}

impl<'f> Ranges<'f> {
    /// `ends`: where each range ends. `kept`: the file outlives an interruption. `have`: bytes that an earlier run left in it.
    pub fn new(fd: BorrowedFd<'f>, head: &Head, ends: Vec<u64>, kept: bool, have: u64) -> Result<Self, Errno> {
        let size = head.size;
        let notes = ends.len().div_ceil(8);
        let mut there = vec![0; notes];
        let magic = magic(head, &ends);
        if kept && have == size + (magic.len() + notes) as u64 {
            let mut found = vec![0; magic.len() + notes];
            let n = rustix::io::pread(fd, &mut found, size)?;
            if n == found.len() && found.starts_with(&magic) {
                there.copy_from_slice(&found[magic.len()..]);
            }
        }
        let fresh = there.iter().all(|&byte| byte == 0);
        if fresh && have > 0 {
            rustix::fs::ftruncate(fd, 0)?;
        }
        if kept && fresh {
            write_at(fd, &[&magic[..], &there].concat(), size)?;
        } else if !kept {
            rustix::fs::ftruncate(fd, size)?;
        }
        Ok(Self { fd, size, ends, there: Mutex::new(there), kept })
    }

    pub fn count(&self) -> u32 {
        self.ends.len() as u32
    }

    pub fn range(&self, n: u32) -> Range<u64> {
        let n = n as usize;
        n.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[n]
    }

    pub fn has(&self, n: u32) -> bool {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)[n as usize / 8] >> (n % 8) & 1 == 1
    }

    pub fn note(&self, n: u32) -> Result<(), Errno> {
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        there[n as usize / 8] |= 1 << (n % 8);
        if !self.kept {
            return Ok(());
        }
        let at = n as usize / 8;
        write_at(self.fd, &there[at..=at], self.size + 32 + at as u64)
    }
}

pub fn write_at(fd: BorrowedFd<'_>, bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::pwrite(fd, rest, at))? {
            0 => return Err(Errno::NOSPC),
            n => {
                rest = &rest[n..];
                at += n as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::attributes::Attributes;
    use super::super::sums::Sums;
    use super::*;
    use crate::transport::Time;

    fn head(size: u64) -> Head {
        Head { size, modified: Time::default(), tag: "t".into(), attributes: Attributes::default(), sums: Sums::default(), composite: None }
    }

    #[test]
    fn ranges_that_arrived_are_known_to_the_next_run() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(dir.path().join("part")).expect("a file");
        let (size, ends) = (35, vec![10, 20, 30, 35]);
        let first = Ranges::new(file.as_fd(), &head(size), ends.clone(), true, 0).expect("new");
        assert_eq!((first.count(), first.range(0), first.range(3)), (4, 0..10, 30..35));
        first.note(2).expect("noted");
        let have = file.metadata().expect("a file").len();
        let second = Ranges::new(file.as_fd(), &head(size), ends.clone(), true, have).expect("kept");
        assert_eq!([0, 1, 2, 3].map(|n| second.has(n)), [false, false, true, false]);
        let other = Ranges::new(file.as_fd(), &Head { tag: "u".into(), ..head(size) }, ends, true, have).expect("anew");
        assert!(!other.has(2), "another content");
        let other = Ranges::new(file.as_fd(), &head(size), vec![20, 30, 32, 35], true, have).expect("anew");
        assert!(!other.has(2), "other ranges");
    }
}
