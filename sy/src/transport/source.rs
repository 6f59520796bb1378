//! The reading side of a lane that does not care where its content comes from.

use std::io::Read;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::cloud::{Content, read_error};
use super::ssh::SshEndpoint;
use super::{Kind, Meta, Op};
use crate::error::{Result, SyncError};
use crate::sync::Dir;

/// A target of a symbolic link is shorter.
const LONGEST_TARGET: u64 = 4096;

/// Hears of a small file, by its place among those that were asked for.
pub type Take<'t> = dyn FnMut(usize, Result<(Meta, &[u8])>) + 't;

/// The source of a run.
pub trait Source: Send + Sync {
    /// Opens a file: what it is now, and what it holds. Where that shows to be a symbolic link, as with an object, the
    /// content is its target.
    fn open<'s>(&'s self, dir: &Dir<'_>, op: &Op) -> Result<(Meta, Box<dyn Content + 's>)>;

    /// Small files of one directory; `take` hears of each by its place in `ops`. What was read is that of one state.
    fn read_small(&self, dir: &Dir<'_>, ops: &[Op], take: &mut Take<'_>) {
        for (n, op) in ops.iter().enumerate() {
            let read = self.open(dir, op).and_then(|(meta, content)| {
                let bytes = read_whole(&*content)?;
                content.still()?;
                Ok((meta, bytes))
            });
            take(n, read.as_ref().map(|(meta, bytes)| (*meta, &bytes[..])).map_err(Clone::clone));
        }
    }

    /// The BLAKE3 of each file as it was listed.
    fn hashes(&self, dir: &Dir<'_>, ops: &[Op]) -> Vec<Result<[u8; 32]>> {
        let hash = |op: &Op| {
            let (now, content) = self.open(dir, op)?;
            if !now.same_state(&op.source) || now.kind != Kind::File {
                return Err(super::local::changed(self.path(dir, op)));
            }
            let (mut hash, mut reader) = (blake3::Hasher::new(), content.open(0..content.size())?);
            let mut piece = vec![0; 256 << 10];
            loop {
                match reader.read(&mut piece).map_err(|error| read_error(&error))? {
                    0 => break,
                    n => hash.update(&piece[..n]),
                };
            }
            content.still()?;
            Ok(*hash.finalize().as_bytes())
        };
        ops.iter().map(hash).collect()
    }

    /// The agent that the content comes from, which can be spoken to without this machine looking at what passes.
    fn agent(&self) -> Option<&SshEndpoint> {
        None
    }

    /// Completes what is known of the source of an `Ask`.
    fn ask(&self, _dir: &Dir<'_>, _op: &mut Op) -> Result<()> {
        Ok(())
    }

    /// The state of the source now, for another try.
    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()>;

    /// Removes the file if it is still what was copied.
    fn remove(&self, dir: &Dir<'_>, op: &Op) -> Result<()>;

    fn path(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8>;

    /// Opens the directory for a while, if it can be.
    fn hold(&self, _dir: &Dir<'_>) -> Option<Arc<OwnedFd>> {
        None
    }
}

/// All of a content that is known to be small.
pub fn read_whole(content: &dyn Content) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(content.size() as usize);
    content.open(0..content.size())?.take(content.size()).read_to_end(&mut bytes).map_err(|error| read_error(&error))?;
    Ok(bytes)
}

/// Makes a symbolic link of what was taken for a file.
pub fn become_link(op: &mut Op, now: Meta, target: &[u8]) -> Result<()> {
    if target.is_empty() || target.len() as u64 >= LONGEST_TARGET || target.contains(&0) {
        return Err(SyncError::unsupported("its target makes no symbolic link"));
    }
    (op.source, op.target) = (now, Some(target.into()));
    Ok(())
}

/// Content that is in memory, read in one state.
pub struct Held {
    pub bytes: Vec<u8>,
    pub mark: u64,
}

impl Content for Held {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn open(&self, range: Range<u64>) -> Result<Box<dyn Read + '_>> {
        Ok(Box::new(&self.bytes[range.start as usize..range.end as usize]))
    }

    fn still(&self) -> Result<()> {
        Ok(())
    }

    fn is_distant(&self) -> bool {
        false
    }

    fn mark(&self) -> u64 {
        self.mark
    }
}
