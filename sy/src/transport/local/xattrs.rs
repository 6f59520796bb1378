//! Extended attributes and access control lists of one entry, as a value.

use std::os::fd::BorrowedFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::root::proc_path;

pub const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
pub const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// Names and values, sorted by name, each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(Vec<u8>, Vec<u8>)>);

pub fn is_acl(name: &[u8]) -> bool {
    matches!(name, ACL_ACCESS | ACL_DEFAULT)
}

impl Attributes {
    /// Reads those that `wants` takes; `acls` asks for access lists also where they are not listed. The entry may be open as
    /// a mere path.
    pub fn read(fd: BorrowedFd<'_>, wants: impl Fn(&[u8]) -> bool, acls: bool) -> Result<Self, Errno> {
        let mut all = Vec::new();
        for name in names(fd)?.split(|&b| b == 0).filter(|name| wants(name)) {
            match value(fd, name) {
                Ok(value) => all.push((name.to_vec(), value)),
                Err(Errno::NODATA) => {}
                Err(errno) => return Err(errno),
            }
        }
        // Some file systems do not list access lists.
        for name in [ACL_ACCESS, ACL_DEFAULT].into_iter().filter(|_| acls) {
            if !all.iter().any(|(known, _)| known == name) {
                match value(fd, name) {
                    Ok(value) => all.push((name.to_vec(), value)),
                    Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::INVAL) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        all.sort_unstable();
        Ok(Self(all))
    }

    /// `None` if the names are not in order, each once.
    pub fn of_sorted(all: Vec<(Vec<u8>, Vec<u8>)>) -> Option<Self> {
        all.is_sorted_by(|a, b| a.0 < b.0).then_some(Self(all))
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// Bytes of all names and values.
    pub fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Only those that `wants` takes.
    #[must_use]
    pub fn only(mut self, wants: impl Fn(&[u8]) -> bool) -> Self {
        self.0.retain(|(name, _)| wants(name));
        self
    }

    /// Makes the access lists, or all others, of an entry that has `has` be these.
    pub fn set(&self, has: &Self, dest: BorrowedFd<'_>, acls: bool) -> Result<(), Errno> {
        let path = proc_path(dest);
        for (name, _) in has.0.iter().filter(|(name, _)| is_acl(name) == acls && !self.0.iter().any(|(other, _)| other == name)) {
            match rustix::fs::removexattr(path.as_str(), name.as_slice()) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => return Err(errno),
            }
        }
        for (name, value) in self.0.iter().filter(|pair| is_acl(&pair.0) == acls && !has.0.contains(pair)) {
            rustix::fs::setxattr(path.as_str(), name.as_slice(), value, XattrFlags::empty())?;
        }
        Ok(())
    }
}

/// Does the file system keep extended attributes?
pub fn keeps_xattrs(dir: BorrowedFd<'_>) -> bool {
    value(dir, b"user.sypy") != Err(Errno::OPNOTSUPP)
}

/// Does the file system keep access control lists?
pub fn keeps_acls(dir: BorrowedFd<'_>) -> bool {
    value(dir, ACL_ACCESS) != Err(Errno::OPNOTSUPP)
}

/// Does the directory hand an access list down to new files? Then the kernel does not apply the umask.
pub fn has_default_acl(dir: BorrowedFd<'_>) -> bool {
    value(dir, ACL_DEFAULT).is_ok()
}

/// Through `/proc`, since a descriptor opened as a mere path takes no attribute calls.
fn names(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let path = proc_path(fd);
    match grow(|buffer| rustix::fs::listxattr(path.as_str(), buffer)) {
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        other => other,
    }
}

fn value(fd: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let path = proc_path(fd);
    grow(|buffer| rustix::fs::getxattr(path.as_str(), name, buffer))
}

/// Calls with a larger buffer until the answer fits; 64 KiB is the most that Linux gives.
fn grow(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 512];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 64 << 10 => buffer.resize(64 << 10, 0),
            Err(errno) => return Err(errno),
        }
    }
}
