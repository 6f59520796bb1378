//! Moves the bytes of one file: reflink, then `copy_file_range`, then read and write, as the file systems allow.

use std::cell::{Cell, RefCell};
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::error::SyncError;
use crate::pages::{PAGE, first_page};
use crate::sync::Control;
use crate::transport::{Kind, Meta};

/// Up to this size one read and one write cost less than asking the kernel to copy.
const SMALL: u64 = 128 << 10;
const BUFFER: usize = 256 << 10;
/// Kernel copies go in pieces, so that a run can be cancelled and progress be seen.
const PIECE: u64 = 8 << 20;

/// Before a file of this size is begun, the file system is asked whether it has room.
const LARGE: u64 = 64 << 20;

/// From this size on it pays to tell the kernel that a file is about to be replaced.
const REPLACED: u64 = 32 << 20;

/// `BUFFER` aligned bytes, made at their first use.
#[derive(Debug)]
struct Buffer(Vec<u8>);

impl Buffer {
    fn bytes(&mut self) -> &mut [u8] {
        if self.0.is_empty() {
            self.0 = vec![0; BUFFER + PAGE];
        }
        let start = first_page(&self.0);
        &mut self.0[start..][..BUFFER]
    }
}

thread_local! {
    static BUFFERS: RefCell<(Buffer, Buffer)> = const { RefCell::new((Buffer(Vec::new()), Buffer(Vec::new()))) };
}

/// Why content did not arrive. Which side failed decides how the failure is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Read(Errno),
    Write(Errno),
    Cancelled,
}

type Result<T> = std::result::Result<T, Failure>;

/// A file that is written.
#[derive(Debug)]
pub struct Target<'a> {
    file: BorrowedFd<'a>,
    old: Option<OwnedFd>,
    /// How far the writing has come, as far as the kernel was told.
    told: Cell<u64>,
}

impl<'a> Target<'a> {
    pub fn new(file: BorrowedFd<'a>) -> Self {
        Self { file, old: None, told: Cell::new(0) }
    }

    /// `file` will take the place of `name` in `dir`, which then is gone.
    pub fn in_place_of(file: BorrowedFd<'a>, dir: BorrowedFd<'_>, name: &[u8], old: &Meta) -> Self {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let pays = old.kind == Kind::File && old.nlink == 1 && old.size >= REPLACED;
        Self { old: pays.then(|| rustix::fs::openat(dir, name, flags, Mode::empty()).ok()).flatten(), ..Self::new(file) }
    }

    /// Called before the bytes from `at` on are written.
    ///
    /// What the old file holds there leaves the memory, which the new bytes then take. Otherwise both would be in it up to
    /// the rename, and memory that was not in use lately is dear: others have to be pushed out of it, or a virtual machine
    /// has to be given it. Only memory is meant, on disk the old file stays whole.
    fn make_way(&self, at: u64) {
        let Some(old) = &self.old else { return };
        if at >= self.told.get() {
            let _ = rustix::fs::fadvise(old, at, NonZero::new(PIECE), Advice::DontNeed);
            self.told.set(at + PIECE);
        }
    }
}

impl AsFd for Target<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file
    }
}

/// What a pair of file systems can do for a copy, found out by trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ways {
    devices: (u64, u64),
    clone: bool,
    kernel: bool,
}

/// Copies contents within the limits of a run.
#[derive(Debug)]
pub struct Copier {
    ways: Mutex<Vec<Ways>>,
    limiter: Option<Limiter>,
    /// Keep holes.
    sparse: bool,
}

impl Copier {
    pub fn new(bytes_per_second: Option<u64>, sparse: bool) -> Self {
        Self { ways: Mutex::default(), limiter: bytes_per_second.map(Limiter::new), sparse }
    }

    pub fn is_sparse(&self) -> bool {
        self.sparse
    }

    /// Copies `source` (as `meta` describes it) to the empty or, up to `from`, already written file `dest`.
    /// Returns the bytes that came; fewer or more than `meta.size` means that the source changed.
    pub fn copy(&self, source: BorrowedFd<'_>, meta: &Meta, dest: &Target<'_>, dest_dev: u64, from: u64, control: &Control) -> Result<u64> {
        let ways = self.ways(meta.dev, dest_dev);
        let holes = meta.allocated < meta.size;
        if ways.clone && from == 0 && meta.size >= SMALL && (self.sparse || !holes) && self.limiter.is_none() {
            match rustix::fs::ioctl_ficlone(dest, source) {
                Ok(()) => {
                    control.bytes.fetch_add(meta.size, Relaxed);
                    return Ok(meta.size);
                }
                Err(Errno::NOSPC | Errno::DQUOT) => return Err(Failure::Write(Errno::NOSPC)),
                Err(Errno::IO) => return Err(Failure::Read(Errno::IO)),
                Err(_) => self.learn(Ways { clone: false, ..ways }),
            }
        }
        if meta.size >= LARGE {
            check_room(dest.as_fd(), meta.allocated.min(meta.size).saturating_sub(from)).map_err(Failure::Write)?;
        }
        if holes && self.sparse && from == 0 {
            return self.copy_sparse(source, meta, dest, ways, control);
        }
        if meta.size > SMALL && ways.kernel && (self.sparse || !holes) {
            return self.copy_range(source, dest, ways, from, meta.size, control);
        }
        self.copy_buffered(source, dest, from, meta.size, control)
    }

    fn ways(&self, source: u64, dest: u64) -> Ways {
        let mut known = self.ways.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(ways) = known.iter().find(|ways| ways.devices == (source, dest)) {
            return *ways;
        }
        let ways = Ways { devices: (source, dest), clone: source == dest, kernel: true };
        known.push(ways);
        ways
    }

    fn learn(&self, ways: Ways) {
        let mut known = self.ways.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(old) = known.iter_mut().find(|old| old.devices == ways.devices) {
            *old = ways;
        }
    }

    /// Data segments only; what lies between them stays a hole.
    fn copy_sparse(&self, source: BorrowedFd<'_>, meta: &Meta, dest: &Target<'_>, ways: Ways, control: &Control) -> Result<u64> {
        rustix::fs::ftruncate(dest, meta.size).map_err(Failure::Write)?;
        let mut at = 0;
        while at < meta.size {
            let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL | Errno::OPNOTSUPP) => return self.copy_range(source, dest, ways, 0, meta.size, control),
                Err(errno) => return Err(Failure::Read(errno)),
            };
            let end = rustix::fs::seek(source, SeekFrom::Hole(start)).map_err(Failure::Read)?.min(meta.size);
            control.bytes.fetch_add(start.min(meta.size) - at, Relaxed);
            if start >= meta.size {
                at = meta.size;
                break;
            }
            let copied = if end - start > SMALL && ways.kernel {
                self.copy_range(source, dest, ways, start, end, control)?
            } else {
                self.copy_buffered(source, dest, start, end, control)?
            };
            if copied < end {
                return Ok(copied);
            }
            at = end;
        }
        control.bytes.fetch_add(meta.size - at, Relaxed);
        Ok(meta.size)
    }

    /// The kernel moves the bytes; returns where it stopped.
    fn copy_range(&self, source: BorrowedFd<'_>, dest: &Target<'_>, ways: Ways, from: u64, to: u64, control: &Control) -> Result<u64> {
        let (mut read_at, mut write_at) = (from, from);
        while read_at < to {
            dest.make_way(read_at);
            let piece = self.allowance((to - read_at).min(PIECE), control)?;
            match rustix::fs::copy_file_range(source, Some(&mut read_at), dest, Some(&mut write_at), piece as usize) {
                Ok(0) => return Ok(read_at),
                Ok(n) => {
                    control.bytes.fetch_add(n as u64, Relaxed);
                }
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => {
                    self.learn(Ways { kernel: false, ..ways });
                    return self.copy_buffered(source, dest, read_at, to, control);
                }
                // The call does not say which side failed; reading by hand will.
                Err(_) => return self.copy_buffered(source, dest, read_at, to, control),
            }
        }
        Ok(read_at)
    }

    fn copy_buffered(&self, source: BorrowedFd<'_>, dest: &Target<'_>, from: u64, to: u64, control: &Control) -> Result<u64> {
        BUFFERS.with_borrow_mut(|(buffer, _)| {
            let buffer = buffer.bytes();
            let mut at = from;
            while at < to {
                dest.make_way(at);
                let want = self.allowance((to - at).min(BUFFER as u64), control)? as usize;
                let n = retry(|| rustix::io::pread(source, &mut buffer[..want], at)).map_err(Failure::Read)?;
                if n == 0 {
                    break;
                }
                let mut written = 0;
                while written < n {
                    match retry(|| rustix::io::pwrite(dest, &buffer[written..n], at + written as u64)).map_err(Failure::Write)? {
                        0 => return Err(Failure::Write(Errno::NOSPC)),
                        more => written += more,
                    }
                }
                at += n as u64;
                control.bytes.fetch_add(n as u64, Relaxed);
            }
            Ok(at)
        })
    }

    /// Waits until bytes may flow; returns how many.
    fn allowance(&self, want: u64, control: &Control) -> Result<u64> {
        if control.should_stop() {
            return Err(Failure::Cancelled);
        }
        match &self.limiter {
            Some(limiter) => limiter.take(want, control),
            None => Ok(want),
        }
    }
}

/// A file that can't fit is not begun: filling the disk would hurt others for nothing.
pub fn check_room(dest: BorrowedFd<'_>, needed: u64) -> std::result::Result<(), Errno> {
    let state = rustix::fs::fstatvfs(dest)?;
    // What is kept back is kept back for the superuser. Some network file systems tell no sizes at all.
    let free = if rustix::process::geteuid().is_root() { state.f_bfree } else { state.f_bavail };
    if state.f_blocks > 0 && free.saturating_mul(state.f_frsize) < needed { Err(Errno::NOSPC) } else { Ok(()) }
}

/// Where two files first differ, reading both; `None` if nowhere up to `size`.
pub fn first_difference(a: BorrowedFd<'_>, b: BorrowedFd<'_>, size: u64, control: &Control) -> Result<(Option<u64>, u64)> {
    BUFFERS.with_borrow_mut(|(x, y)| {
        let (x, y) = (x.bytes(), y.bytes());
        let mut at = 0;
        while at < size {
            if control.should_stop() {
                return Err(Failure::Cancelled);
            }
            let want = (size - at).min(BUFFER as u64) as usize;
            let n = read_full(a, &mut x[..want], at).map_err(Failure::Read)?;
            let m = read_full(b, &mut y[..want], at).map_err(Failure::Write)?;
            let same = n.min(m);
            if x[..same] != y[..same] {
                let offset = x[..same].iter().zip(&y[..same]).take_while(|(p, q)| p == q).count();
                return Ok((Some(at + offset as u64), at + want as u64));
            }
            if n < want || m < want {
                return Ok(((n != m).then_some(at + same as u64), at + want as u64));
            }
            at += want as u64;
        }
        Ok((None, size))
    })
}

fn read_full(fd: BorrowedFd<'_>, buffer: &mut [u8], at: u64) -> std::result::Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match retry(|| rustix::io::pread(fd, &mut buffer[filled..], at + filled as u64))? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

fn retry<T>(mut call: impl FnMut() -> std::result::Result<T, Errno>) -> std::result::Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// A token bucket shared by all transfers of a run: each piece is let through when the ones before it are paid for.
#[derive(Debug)]
pub struct Limiter {
    rate: u64,
    started: Instant,
    /// Nanoseconds after `started` at which all that was let through so far is paid for.
    paid_until: AtomicU64,
}

impl Limiter {
    pub fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), started: Instant::now(), paid_until: AtomicU64::new(0) }
    }

    pub fn take(&self, want: u64, control: &Control) -> Result<u64> {
        // A tenth of a second's worth at most, so that the flow is even and can be stopped.
        let piece = want.min((self.rate / 10).max(1));
        let price = (u128::from(piece) * 1_000_000_000 / u128::from(self.rate)) as u64;
        let now = self.started.elapsed().as_nanos() as u64;
        let before = self.paid_until.fetch_update(Relaxed, Relaxed, |until| Some(until.max(now) + price)).unwrap_or(now);
        let mut wait = Duration::from_nanos(before.saturating_sub(now));
        while !wait.is_zero() {
            if control.should_stop() {
                return Err(Failure::Cancelled);
            }
            let nap = wait.min(Duration::from_millis(50));
            std::thread::sleep(nap);
            wait -= nap;
        }
        Ok(piece)
    }

    /// Waits until all of so many bytes may go, in a run that may be limited.
    pub fn allow(limiter: Option<&Self>, bytes: u64, control: &Control) -> crate::error::Result<()> {
        let mut left = bytes;
        while let (Some(limiter), true) = (limiter, left > 0) {
            left -= limiter.take(left, control).map_err(|_| SyncError::cancelled())?;
        }
        if control.should_stop() { Err(SyncError::cancelled()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_where_a_page_does() {
        let (mut first, mut second) = (Buffer(Vec::new()), Buffer(Vec::new()));
        for buffer in [first.bytes(), second.bytes()] {
            assert_eq!((buffer.as_ptr().addr() % PAGE, buffer.len()), (0, BUFFER));
        }
    }
}
