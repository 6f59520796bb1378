//! Pages made clean, so that the next write through a memory map shows in the times of its file.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// How writes through memory maps can be made to show on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// File by file, which waits for no other file's pages.
    OfFiles,
    /// All at a time, by `syncfs`.
    OfAll,
    /// Not at all: it is in memory, and has nowhere to write its pages.
    InMemory,
}

impl Pages {
    pub fn of(dir: BorrowedFd<'_>) -> Self {
        const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6]; // tmpfs, ramfs
        const BY_FILE: [u64; 3] = [0xef53, 0x5846_5342, 0x9123_683e]; // ext4, XFS, Btrfs
        match rustix::fs::fstatfs(dir).map(|s| s.f_type as u64 & 0xffff_ffff) {
            Ok(kind) if IN_MEMORY.contains(&kind) => Self::InMemory,
            Ok(kind) if cfg!(target_os = "linux") && BY_FILE.contains(&kind) => Self::OfFiles,
            Ok(_) => Self::OfAll,
            Err(_) => Self::InMemory,
        }
    }
}

/// Writes out what is dirty of one file. Unlike `fsync` it leaves metadata and the disk's own cache alone: a file that is
/// clean already costs no more than the call.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no crate at hand has this call")]
pub fn write_out(file: BorrowedFd<'_>) -> Result<(), Errno> {
    unsafe extern "C" {
        fn sync_file_range(fd: std::ffi::c_int, offset: i64, bytes: i64, flags: std::ffi::c_uint) -> std::ffi::c_int;
    }
    // Wait for what is being written, write what is dirty, wait for that.
    const ALL: std::ffi::c_uint = 1 | 2 | 4;
    // SAFETY: the arguments are numbers, and the descriptor is open as long as it is borrowed.
    match unsafe { sync_file_range(file.as_raw_fd(), 0, 0, ALL) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

#[cfg(not(target_os = "linux"))]
pub fn write_out(file: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fsync(file)
}
