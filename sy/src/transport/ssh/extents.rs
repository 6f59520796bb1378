//! Where a file with holes has data.

use std::os::fd::BorrowedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::transport::Meta;

#[derive(Debug)]
pub struct Extents<'f> {
    file: BorrowedFd<'f>,
    size: u64,
    /// The end of the data at hand; the whole file where there are no holes or nobody tells.
    end: u64,
}

impl<'f> Extents<'f> {
    pub fn new(file: BorrowedFd<'f>, meta: &Meta) -> Self {
        let sparse = meta.allocated < meta.size;
        Self { file, size: meta.size, end: if sparse { 0 } else { meta.size } }
    }

    /// How long the hole at `at` is; 0 where there is data.
    pub fn hole(&mut self, at: u64) -> Result<u64, Errno> {
        if at < self.end {
            return Ok(0);
        }
        let start = match rustix::fs::seek(self.file, SeekFrom::Data(at)) {
            Ok(start) => start.min(self.size),
            Err(Errno::NXIO) => self.size,
            Err(_) => {
                self.end = self.size;
                return Ok(0);
            }
        };
        self.end = if start < self.size { rustix::fs::seek(self.file, SeekFrom::Hole(start))?.min(self.size) } else { self.size };
        Ok(start - at)
    }

    /// Where the data at `at` ends.
    pub fn end(&self, at: u64) -> u64 {
        self.end.max(at)
    }
}
