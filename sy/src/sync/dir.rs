//! A pair of directories while work in it is under way. The last one to let go of it finishes it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustix::io::Errno;

use crate::transport::Meta;

/// Hears when all work in a directory is over.
pub trait Finisher: Sync {
    fn finish(&self, dir: &Dir<'_>);
}

/// One directory of the source and its twin at the destination.
pub struct Dir<'r> {
    /// Without a trailing slash; "" is the root.
    pub key: Box<[u8]>,
    pub source: Slot,
    pub dest: Slot,
    /// The source's directory, unless this one is not to be made like it.
    pub like: Option<Meta>,
    /// What the destination had when the run came by; `None` if the run made it.
    pub had: Option<Meta>,
    /// Something was written into it.
    pub touched: AtomicBool,
    /// The mode that stood in the way of writing into it.
    pub lifted: OnceLock<u32>,
    /// Do access lists of the directory decide the mode of new files?
    pub default_acl: OnceLock<bool>,
    finisher: &'r dyn Finisher,
    /// Held so that a parent is finished after its children.
    parent: Option<Arc<Dir<'r>>>,
}

impl<'r> Dir<'r> {
    pub fn new(key: &[u8], parent: Option<Arc<Self>>, like: Option<Meta>, had: Option<Meta>, finisher: &'r dyn Finisher) -> Self {
        Self {
            key: key.into(),
            source: Slot::default(),
            dest: Slot::default(),
            like,
            had,
            touched: AtomicBool::new(false),
            lifted: OnceLock::new(),
            default_acl: OnceLock::new(),
            finisher,
            parent,
        }
    }

    pub fn parent(&self) -> Option<&Self> {
        self.parent.as_deref()
    }

    pub fn touch(&self) {
        self.touched.store(true, Relaxed);
    }

    pub fn is_touched(&self) -> bool {
        self.touched.load(Relaxed)
    }

    pub fn key_of(&self, name: &[u8]) -> Vec<u8> {
        crate::transport::child_key(&self.key, name)
    }
}

impl Drop for Dir<'_> {
    fn drop(&mut self) {
        self.finisher.finish(self);
    }
}

impl std::fmt::Debug for Dir<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dir({})", crate::error::Quoted(&self.key))
    }
}

/// The way to an open handle as long as somebody holds it; after that it is opened again. A directory can wait long for
/// its last work, and must not keep a descriptor all the time.
#[derive(Debug, Default)]
pub struct Slot(Mutex<Weak<OwnedFd>>);

impl Slot {
    pub fn set(&self, handle: &Arc<OwnedFd>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(handle);
    }

    pub fn get_or_open(&self, open: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<Arc<OwnedFd>, Errno> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = slot.upgrade() {
            return Ok(handle);
        }
        let handle = Arc::new(open()?);
        *slot = Arc::downgrade(&handle);
        Ok(handle)
    }
}
