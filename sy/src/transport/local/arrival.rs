//! Writes what came from elsewhere.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

use super::writer::{Temp, Writer};
use super::xattrs::Attributes;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Control, Dir};
use crate::transport::{Applied, Op};

/// Bytes read at a time.
const PIECE: usize = 256 << 10;
/// What file systems can leave out.
const BLOCK: usize = 4096;

impl Writer<'_> {
    /// A small file, whose content is all here.
    pub fn write_small(&self, dir: &Dir<'_>, op: &Op, content: &[u8], wanted: Option<&Attributes>) -> Result<Applied> {
        let dest_dir = self.dest_dir(dir)?;
        let temp = self.create(dir, op, &op.source, dest_dir.as_fd())?;
        let done = self
            .write_piece(temp.fd.as_fd(), op, content, 0)
            .and_then(|()| if self.leaves_holes(op) { rustix::fs::ftruncate(&temp.fd, op.source.size) } else { Ok(()) })
            .map_err(|errno| SyncError::os(errno, "write", self.dest_path(dir, op)))
            .and_then(|()| self.complete(dir, op, wanted, &temp, dest_dir.as_fd(), || blake3::hash(content)));
        self.settle(dir, op, temp, dest_dir.as_fd(), done)
    }

    /// Are zeros of that file to be left out, since the source has holes too?
    fn leaves_holes(&self, op: &Op) -> bool {
        self.copier.is_sparse() && op.source.allocated < op.source.size
    }

    /// What that file will take of the file system.
    pub fn room_for(&self, op: &Op) -> u64 {
        if self.leaves_holes(op) { op.source.allocated } else { op.source.size }
    }

    /// Writes a piece of a file. Of a file with holes blocks of zeros become holes, also where something else was written before;
    /// its size has to be set in the end.
    pub fn write_piece(&self, file: BorrowedFd<'_>, op: &Op, content: &[u8], at: u64) -> Result<(), Errno> {
        if !self.leaves_holes(op) {
            return write_at(file, content, at);
        }
        for (zeros, range) in runs(content, at) {
            let start = at + range.start as u64;
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            if !zeros || rustix::fs::fallocate(file, hole, start, range.len() as u64).is_err() {
                write_at(file, &content[range.clone()], start)?;
            }
        }
        Ok(())
    }

    /// The source has a hole there, and so has the file, unless it is to have none.
    pub fn write_hole(&self, file: BorrowedFd<'_>, at: u64, length: u64) -> Result<(), Errno> {
        if self.copier.is_sparse() {
            return rustix::fs::ftruncate(file, at + length);
        }
        let zeros = vec![0; length.min(PIECE as u64) as usize];
        let mut left = length;
        while left > 0 && !self.control.should_stop() {
            let n = left.min(PIECE as u64);
            write_at(file, &zeros[..n as usize], at + length - left)?;
            left -= n;
        }
        if left > 0 { Err(Errno::CANCELED) } else { Ok(()) }
    }

    /// Gives a written file its metadata, and reads it back where that is wanted.
    pub fn complete(
        &self,
        dir: &Dir<'_>,
        op: &Op,
        wanted: Option<&Attributes>,
        temp: &Temp,
        dest_dir: BorrowedFd<'_>,
        hash: impl Fn() -> blake3::Hash,
    ) -> Result<()> {
        self.describe(dir, op, &op.source, wanted, temp, dest_dir)?;
        if !self.verify {
            return Ok(());
        }
        let path = || self.dest_path(dir, op);
        rustix::fs::fdatasync(&temp.fd).map_err(|errno| SyncError::os(errno, "verify", path()))?;
        let _ = rustix::fs::fadvise(&temp.fd, 0, None, Advice::DontNeed);
        if hash_of(temp.fd.as_fd(), self.control).map_err(|error| error.at("verify", path()))? == hash() {
            return Ok(());
        }
        Err(SyncError::new(ErrorKind::Verification, "the copy is not what was sent").at("verify", path()).retryable())
    }

    /// Puts a file in place if it is right, and away if it can't be. What was cut off stays for the next run.
    pub fn settle(&self, dir: &Dir<'_>, op: &Op, temp: Temp, dest_dir: BorrowedFd<'_>, done: Result<()>) -> Result<Applied> {
        match done {
            Ok(()) => self.put_in_place(dir, op, temp, dest_dir),
            Err(error) => {
                if !temp.part || error.kind == ErrorKind::Verification {
                    temp.discard(dest_dir);
                }
                Err(error)
            }
        }
    }
}

/// Where blocks, or what of them is here, are zeros and where not, in turn.
fn runs(content: &[u8], at: u64) -> Vec<(bool, Range<usize>)> {
    let mut runs: Vec<(bool, Range<usize>)> = Vec::new();
    let mut start = 0;
    while start < content.len() {
        let end = (start + BLOCK - (at as usize + start) % BLOCK).min(content.len());
        let zeros = content[start..end].iter().all(|&byte| byte == 0);
        match runs.last_mut() {
            Some((last, range)) if *last == zeros => range.end = end,
            _ => runs.push((zeros, start..end)),
        }
        start = end;
    }
    runs
}

pub fn write_at(file: BorrowedFd<'_>, content: &[u8], at: u64) -> Result<(), Errno> {
    let mut written = 0;
    while written < content.len() {
        match rustix::io::retry_on_intr(|| rustix::io::pwrite(file, &content[written..], at + written as u64))? {
            0 => return Err(Errno::NOSPC),
            n => written += n,
        }
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends.
pub fn read_at(file: BorrowedFd<'_>, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut buffer[filled..], at + filled as u64))? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// The hash of a file's content.
pub fn hash_of(file: BorrowedFd<'_>, control: &Control) -> Result<blake3::Hash> {
    let mut hash = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    loop {
        if control.should_stop() {
            return Err(SyncError::cancelled());
        }
        match read_at(file, &mut buffer, at).map_err(|errno| SyncError::os(errno, "read", b""))? {
            0 => return Ok(hash.finalize()),
            n => {
                hash.update(&buffer[..n]);
                at += n as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_zeros_are_found_where_the_file_has_them() {
        let mut content = vec![0; 3 * BLOCK];
        assert_eq!(runs(&content, 0), [(true, 0..3 * BLOCK)]);
        assert_eq!(runs(&content, 100), [(true, 0..3 * BLOCK)]);
        content[BLOCK + 5] = 1;
        assert_eq!(runs(&content, 0), [(true, 0..BLOCK), (false, BLOCK..2 * BLOCK), (true, 2 * BLOCK..3 * BLOCK)]);
        assert_eq!(
            runs(&content, 100),
            [(true, 0..BLOCK - 100), (false, BLOCK - 100..2 * BLOCK - 100), (true, 2 * BLOCK - 100..3 * BLOCK)]
        );
        assert_eq!(runs(&content[..10], 0), [(true, 0..10)]);
        assert!(runs(&[], 7).is_empty());
    }
}
