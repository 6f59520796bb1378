//! Writes what came from elsewhere.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

use super::writer::{Temp, Writer};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Control, Dir};
use crate::transport::{Applied, Op};

/// Bytes read at a time.
const PIECE: usize = 256 << 10;
/// Fewer zeros are no hole.
const BLOCK: usize = 4 << 10;

impl Writer<'_> {
    /// A small file, whose content is all here.
    pub fn write_small(&self, dir: &Dir<'_>, op: &Op, content: &[u8]) -> Result<Applied> {
        let dest_dir = self.dest_dir(dir)?;
        let temp = self.create(dir, op, &op.source, dest_dir.as_fd())?;
        let done = write_at(temp.fd.as_fd(), content, 0)
            .map_err(|errno| SyncError::os(errno, "write", self.dest_path(dir, op)))
            .and_then(|()| self.complete(dir, op, &temp, dest_dir.as_fd(), || blake3::hash(content)));
        self.settle(dir, op, temp, dest_dir.as_fd(), done)
    }

    /// Gives a written file its metadata, and reads it back where that is wanted.
    pub fn complete(&self, dir: &Dir<'_>, op: &Op, temp: &Temp, dest_dir: BorrowedFd<'_>, hash: impl Fn() -> blake3::Hash) -> Result<()> {
        self.describe(dir, op, &op.source, temp, dest_dir)?;
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

    /// A hole at the end of what is written so far. Where none are wanted it is zeros.
    pub fn hole(&self, file: BorrowedFd<'_>, at: u64, length: u64) -> Result<(), Errno> {
        if self.sparse {
            return rustix::fs::ftruncate(file, at + length);
        }
        let zeros = vec![0; PIECE.min(length as usize)];
        let mut done = 0;
        while done < length && !self.control.should_stop() {
            let piece = (length - done).min(PIECE as u64);
            write_at(file, &zeros[..piece as usize], at + done)?;
            done += piece;
        }
        Ok(())
    }

    /// A piece of a file somewhere. Zeros of one that had holes become holes again.
    pub fn piece(&self, file: BorrowedFd<'_>, op: &Op, bytes: &[u8], at: u64) -> Result<(), Errno> {
        let holes = self.sparse && op.source.allocated < op.source.size && bytes.len() >= BLOCK && bytes.iter().all(|&byte| byte == 0);
        // What has been written there before goes as well.
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if holes && rustix::fs::fallocate(file, punch, at, bytes.len() as u64).is_ok() {
            return Ok(());
        }
        write_at(file, bytes, at)
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
