//! The reading side of a lane that does not care where its content comes from.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::cloud::Content;
use super::{Meta, Op};
use crate::error::Result;
use crate::sync::Dir;

/// The source of a run.
pub trait Source: Send + Sync {
    /// Opens a file: what it is now, and what it holds.
    fn open<'s>(&'s self, dir: &Dir<'_>, op: &Op) -> Result<(Meta, Box<dyn Content + 's>)>;

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
