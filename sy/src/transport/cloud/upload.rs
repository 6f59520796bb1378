//! Local, or another file system, to object store.

use std::io::Read;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::composite::{Check, Whose};
use super::endpoint::CloudEndpoint;
use super::writer::{CloudWriter, Content, pace};
use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Control, Dir, Tally};
use crate::transport::local::{Reader, changed, stat_fd};
use crate::transport::{Applied, Done, Doomed, Held, Kind, Lane, Meta, Op, Pace, Source, Time, What};

pub struct UploadLane<'r, S> {
    from: S,
    to: CloudWriter<'r>,
    pace: Pace,
}

impl<S> std::fmt::Debug for UploadLane<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UploadLane").finish_non_exhaustive()
    }
}

impl<'r, S: Source> UploadLane<'r, S> {
    pub fn new(from: S, dest: &'r CloudEndpoint, options: &Options, control: &'r Control, tally: &'r Tally) -> Self {
        Self { from, to: CloudWriter::new(dest, options, control, tally), pace: pace(options, dest.connections()) }
    }

    fn upload(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done> {
        let made = if op.source.kind == Kind::Symlink {
            let target = op.target.clone().unwrap_or_default();
            self.to.send(dir, op, &Text(&target), &self.to.attributes(op))?
        } else {
            let (now, content) = self.from.open(dir, op)?;
            // What is open now is as good as what was listed.
            op.source = now;
            self.to.send(dir, op, &*content, &self.to.attributes(op))?
        };
        Ok(Done { applied: self.to.outcome(op), made })
    }

    /// Does the object hold what the file does? Asked of the sums that the store has; without any they count as different.
    fn same_content(&self, dir: &Dir<'_>, op: &Op) -> Result<bool> {
        if op.source.kind != Kind::File {
            return Ok(false);
        }
        let Some(head) = self.to.at.head(&self.to.key(dir, op))? else { return Ok(false) };
        if head.size != op.source.size {
            return Ok(false);
        }
        let key = self.to.at.key_of(&self.to.key(dir, op));
        let mut check = Check::of(self.to.store, &key, &head)?;
        if check == Check::Nothing {
            return Ok(false);
        }
        let (now, content) = self.from.open(dir, op)?;
        if !now.same_state(&op.source) {
            return Err(changed(self.from.path(dir, op)));
        }
        let sum = |range, kinds| self.to.sum(&*content, range, kinds);
        let same = check.judge(&Whose { store: self.to.store, key: &key, head: &head }, None, &sum)?;
        content.still()?;
        Ok(same == Some(true))
    }

    fn differs(&self, op: &Op) -> bool {
        op.dest.is_some_and(|old| self.to.keep.differs(&op.source, &old, 1))
    }
}

impl<S: Source> Lane for UploadLane<'_, S> {
    fn pace(&self) -> Pace {
        self.pace
    }

    fn ask(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        self.to.ask(dir, op)
    }

    fn hold(&self, dir: &Dir<'_>) -> Held {
        (self.from.hold(dir), None)
    }

    fn apply(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done> {
        match op.what {
            What::CopyIfDifferent if self.same_content(dir, op)? => {
                if !self.differs(op) || !self.to.can_set_attributes() {
                    return Ok(Applied::Same.into());
                }
                self.to.set_attributes(dir, op, &self.to.attributes(op)).map(|made| Done { applied: Applied::Metadata, made })
            }
            What::Metadata if self.to.can_set_attributes() => {
                self.to.set_attributes(dir, op, &self.to.attributes(op)).map(|made| Done { applied: Applied::Metadata, made })
            }
            What::Copy | What::CopyIfDifferent | What::Metadata => self.upload(dir, op),
            What::Attributes | What::Nothing | What::Ask => Ok(Applied::Same.into()),
        }
    }

    fn examine(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        Ok(match op.what {
            What::CopyIfDifferent if self.same_content(dir, op)? => {
                if self.differs(op) && self.to.can_set_attributes() {
                    Applied::Metadata
                } else {
                    Applied::Same
                }
            }
            What::Metadata if self.to.can_set_attributes() => Applied::Metadata,
            What::Copy | What::CopyIfDifferent | What::Metadata => {
                self.to.can_hold(dir, op)?;
                self.to.outcome(op)
            }
            What::Attributes | What::Nothing | What::Ask => Applied::Same,
        })
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        self.from.refresh(dir, op)
    }

    fn make_dir(&self, parent: &Dir<'_>, name: &[u8], _: &Meta, replaced: Option<&Meta>) -> Result<()> {
        self.to.make_dir(parent, name, replaced)
    }

    fn finish_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        self.to.finish_dir(dir).map(|()| false)
    }

    fn remove_source(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        self.from.remove(dir, op)
    }

    fn remove(&self, _: &[u8], doomed: &[Doomed], report: &mut dyn FnMut(&Doomed, Result<()>)) {
        self.to.remove(doomed, report);
    }

    fn restores_dirs(&self) -> bool {
        true
    }

    fn touch_dir(&self, key: &[u8], _: Time) -> Result<()> {
        self.to.restore_dir(key)
    }

    fn end(&self, only: Option<&[u8]>) {
        self.to.end(only);
    }
}

/// What a symbolic link points to, as content.
struct Text<'t>(&'t [u8]);

impl Content for Text<'_> {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn open(&self, range: Range<u64>) -> Result<Box<dyn Read + '_>> {
        Ok(Box::new(&self.0[range.start as usize..range.end as usize]))
    }

    fn still(&self) -> Result<()> {
        Ok(())
    }

    fn is_distant(&self) -> bool {
        false
    }

    fn mark(&self) -> u64 {
        0
    }
}

/// A local tree, whose bytes are counted.
#[derive(Debug)]
pub struct LocalSource<'r>(pub Reader<'r>, pub &'r Tally);

impl Source for LocalSource<'_> {
    fn open<'s>(&'s self, dir: &Dir<'_>, op: &Op) -> Result<(Meta, Box<dyn Content + 's>)> {
        let Self(reader, tally) = self;
        let (fd, path) = (reader.open(dir, op)?, reader.path(dir, op));
        let meta = stat_fd(fd.as_fd()).map_err(|errno| SyncError::os(errno, "read", &path))?;
        if meta.kind != Kind::File {
            return Err(changed(path));
        }
        Ok((meta, Box::new(FileContent { fd, meta, path, tally })))
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        self.0.refresh(dir, op)
    }

    fn remove(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        self.0.remove(dir, op)
    }

    fn path(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        self.0.path(dir, op)
    }

    fn hold(&self, dir: &Dir<'_>) -> Option<Arc<OwnedFd>> {
        self.0.dir(dir).ok()
    }
}

/// An open file.
struct FileContent<'f> {
    fd: OwnedFd,
    meta: Meta,
    path: Vec<u8>,
    tally: &'f Tally,
}

impl Content for FileContent<'_> {
    fn size(&self) -> u64 {
        self.meta.size
    }

    fn open(&self, range: Range<u64>) -> Result<Box<dyn Read + '_>> {
        Ok(Box::new(FileRange { file: self, range }))
    }

    fn still(&self) -> Result<()> {
        let now = stat_fd(self.fd.as_fd()).map_err(|errno| SyncError::os(errno, "read", &self.path))?;
        if now.same_state(&self.meta) { Ok(()) } else { Err(changed(self.path.clone())) }
    }

    fn is_distant(&self) -> bool {
        false
    }

    fn mark(&self) -> u64 {
        let meta = &self.meta;
        super::spool::hash(&format!("{} {} {:?} {:?} {}", meta.dev, meta.ino, meta.mtime, meta.ctime, meta.size))
    }
}

struct FileRange<'f> {
    file: &'f FileContent<'f>,
    range: Range<u64>,
}

impl Read for FileRange<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.range.end - self.range.start;
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let fail = |error: SyncError| std::io::Error::other(error);
        let n = rustix::io::retry_on_intr(|| rustix::io::pread(&self.file.fd, &mut buffer[..want], self.range.start))
            .map_err(|errno| fail(SyncError::os(errno, "read", &self.file.path)))?;
        if n == 0 {
            // It became shorter: what is missing can't be made up.
            return Err(fail(SyncError { kind: ErrorKind::SourceChanged, ..changed(self.file.path.clone()) }));
        }
        self.range.start += n as u64;
        self.file.tally.bytes_read.fetch_add(n as u64, Relaxed);
        Ok(n)
    }
}
