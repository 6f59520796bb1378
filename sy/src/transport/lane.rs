//! What the planner asks of storage: the operations of a run, and the trait that carries them out.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Kind, Meta, Time};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Dir, Reason};

/// What is to be done about one entry of a directory that is not a directory itself.
#[derive(Debug, Clone)]
pub struct Op {
    pub name: Box<[u8]>,
    /// Its name in the source, where that is another.
    pub source_name: Option<Box<[u8]>>,
    pub source: Meta,
    /// Target or tag of the source, as in `Item`.
    pub target: Option<Box<[u8]>>,
    /// What the destination has under that name.
    pub dest: Option<Meta>,
    /// Target or tag of that.
    pub dest_target: Option<Box<[u8]>>,
    pub what: What,
    pub reason: Reason,
    /// The pages of both files have to be made clean before they are read.
    pub write_out: bool,
}

impl Op {
    pub fn source_name(&self) -> &[u8] {
        self.source_name.as_deref().unwrap_or(&self.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Put the source's content in place.
    Copy,
    /// Copy if the contents differ.
    CopyIfDifferent,
    /// Only metadata differs.
    Metadata,
    /// Nothing that a listing shows differs; attributes and access lists may.
    Attributes,
    /// Nothing to do but to remove the source.
    Nothing,
    /// A storage has to be asked for more before it can be decided.
    Ask,
}

/// What came of an `Op`, and what stands at the destination then, where that can be remembered as equal to the source.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    pub applied: Applied,
    pub made: Option<Meta>,
}

impl From<Applied> for Done {
    fn from(applied: Applied) -> Self {
        Self { applied, made: None }
    }
}

/// What came of an `Op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    Created,
    Updated,
    Metadata,
    Same,
}

/// What came of something that nobody waited for.
#[derive(Debug)]
pub enum Settled {
    Failed(SyncError),
    /// A directory was not made after all.
    NotMade(SyncError),
    /// The metadata of that directory differed.
    Directory(Vec<u8>),
}

/// A source that has no copy is not removed.
pub fn not_in_place(path: Vec<u8>) -> SyncError {
    SyncError::new(ErrorKind::Conflict, "its copy is not in place").at("remove the source", path)
}

/// An entry that is to be removed from the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    pub key: Vec<u8>,
    pub kind: Kind,
    pub size: u64,
    pub ino: u64,
    pub mtime: Time,
    /// Tag of an object, as it was listed.
    pub tag: Option<Box<[u8]>>,
}

/// Keeps both directories of a pair open while it lives.
pub type Held = (Option<Arc<OwnedFd>>, Option<Arc<OwnedFd>>);

/// How a lane wants its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Operations of one directory that go to one worker together.
    pub ops: usize,
    /// Workers, the planner among them; `None` for as many as there are cores, within limits.
    pub workers: Option<u32>,
}

/// Carries actions out between two endpoints. Called from several threads at a time.
pub trait Lane: Send + Sync {
    fn pace(&self) -> Pace {
        Pace { ops: 256, workers: None }
    }

    /// Completes what is known of both sides of an `Ask`.
    fn ask(&self, _dir: &Dir<'_>, _op: &mut Op) -> Result<()> {
        Ok(())
    }

    /// Opens both directories for a while, if they can be: for many operations in one directory.
    fn hold(&self, dir: &Dir<'_>) -> Held;

    /// Brings one entry over. The destination has either all of the old or all of the new, whatever happens.
    /// What was found out about the source while it was read is put into `op`.
    fn apply(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done>;

    /// Is it better asked for several at a time?
    fn takes_several(&self) -> bool {
        false
    }

    /// `apply` for operations of one directory; `report` hears of each, in any order.
    fn apply_all(&self, dir: &Dir<'_>, ops: &mut [Op], report: &mut dyn FnMut(&mut Op, Result<Done>)) {
        for op in ops {
            let done = self.apply(dir, op);
            report(op, done);
        }
    }

    /// Would `apply` change anything? For dry runs; reads but never writes.
    fn examine(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied>;

    /// The state of the source now, for another try.
    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()>;

    /// Could `make_dir` make a directory of that name?
    fn examine_make_dir(&self, _parent: &Dir<'_>, _name: &[u8]) -> Result<()> {
        Ok(())
    }

    /// Makes the directory, atomically in place of what `replaced` describes.
    fn make_dir(&self, parent: &Dir<'_>, name: &[u8], source: &Meta, replaced: Option<&Meta>) -> Result<()>;

    /// Everything in the directory is done: sets its own metadata. Returns whether it had to, unless `settle` will tell.
    fn finish_dir(&self, dir: &Dir<'_>) -> Result<bool>;

    /// Would `finish_dir` change attributes that no listing shows?
    fn examine_dir(&self, _dir: &Dir<'_>) -> Result<bool> {
        Ok(false)
    }

    /// Is what the destination has for `op` already another name of the file at `leader`?
    fn is_linked(&self, _op: &Op, _leader: &[u8]) -> bool {
        false
    }

    /// Makes `op` another name of the file at `leader`. `None`: the leader is not there, so the file has to be copied.
    fn hard_link(&self, _dir: &Dir<'_>, _op: &Op, _leader: &[u8]) -> Result<Option<Applied>> {
        Ok(None)
    }

    /// Removes the source's file if its copy is in place and it is still what was copied.
    fn remove_source(&self, dir: &Dir<'_>, op: &Op) -> Result<()>;

    /// Removes entries of one directory, all files or all directories; `report` hears of each.
    fn remove(&self, dir_key: &[u8], doomed: &[Doomed], report: &mut dyn FnMut(&Doomed, Result<()>));

    /// Does a directory go with the last that is in it, so that `touch_dir` is wanted whether times are preserved or not?
    fn restores_dirs(&self) -> bool {
        false
    }

    /// Sets the modification time of a directory of the destination, after deletions in it.
    fn touch_dir(&self, key: &[u8], mtime: Time) -> Result<()>;

    /// A temporary file that an earlier run left in a directory of the destination. `wanted` are those to keep.
    fn clean_up(&self, _dir: &Dir<'_>, _leftovers: &[Box<[u8]>], _wanted: &[Op]) {}

    /// Waits for what was begun without waiting for its end; `report` hears what came of it.
    fn settle(&self, _report: &mut dyn FnMut(Settled)) {}

    /// The run is over, however it went. `only`: the one entry of the destination that it was about; others may be another
    /// run's.
    fn end(&self, _only: Option<&[u8]>) {}

    /// Has everything on disk.
    fn sync_all(&self) -> Result<()> {
        Ok(())
    }
}
