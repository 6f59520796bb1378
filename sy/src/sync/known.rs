//! What earlier runs found equal, and what this one adds to it.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use super::preflight::Sides;
use crate::cli::Options;
use crate::state::Index;
use crate::transport::Meta;
use crate::transport::local::{LocalEndpoint, Pages};
use crate::transport::open::Opened;

/// So many pairs of files are made clean one by one; when there are more, whole file systems are.
const FEW: u64 = 64;

/// Contents between local trees; whole entries where it costs requests to look.
pub struct Known<'r> {
    index: Mutex<Index>,
    /// Local sides whose contents will be compared.
    dirty: Vec<BorrowedFd<'r>>,
    cleaned: Once,
    /// How many more pairs are left to whoever reads them.
    few: AtomicU64,
}

impl<'r> Known<'r> {
    pub fn open(sides: &'r Sides, options: &Options) -> Option<Self> {
        let dest = sides.dest.as_ref()?;
        // What a host says of a file is no proof that it is the same still: pages there can't be made clean from here.
        if [&sides.source, dest].into_iter().any(|side| matches!(side, Opened::Ssh(_) | Opened::Sftp(_))) {
            return None;
        }
        let identities = (sides.source.endpoint().identity(), dest.endpoint().identity());
        let (source, dest) = (sides.source.local(), dest.local());
        let meaning = match (source, dest) {
            (Some(_), Some(_)) if !options.checksum => return None,
            (Some(_), Some(_)) => String::new(),
            _ => {
                let keep = (options.preserve_times, options.preserve_permissions, options.preserve_owner);
                format!("{keep:?} {} {:?}", options.checksum, sides.only().map(<[u8]>::to_vec))
            }
        };
        // Where a write through a memory map can go unseen for ever, nothing is remembered of contents.
        let pages: Vec<Pages> = [source, dest].into_iter().flatten().map(LocalEndpoint::pages).collect();
        if options.checksum && pages.contains(&Pages::InMemory) {
            return None;
        }
        let mut index = Index::open(&identities.0, &identities.1, meaning.as_bytes())?;
        let (mut dirty, mut few) = (Vec::new(), 0);
        if options.checksum && !options.dry_run {
            let (from, to) = (source.and_then(LocalEndpoint::device), dest.and_then(LocalEndpoint::device));
            index.note_only_on(from, to);
            dirty.extend(source.map(LocalEndpoint::handle));
            dirty.extend(dest.filter(|_| from.is_none() || from != to).map(LocalEndpoint::handle));
            few = if pages == [Pages::OfFiles; 2] { FEW } else { 0 };
        }
        Some(Self { index: Mutex::new(index), dirty, cleaned: Once::new(), few: AtomicU64::new(few) })
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Were these found equal, and are they as they were? Keys must come in ascending order.
    pub fn equal(&self, key: &[u8], source: &Meta, dest: &Meta) -> bool {
        self.lock().equal(key, source, dest)
    }

    /// Has to be called before contents are read that may be noted. `false`: whoever reads them has to do it.
    ///
    /// A page that is written through a memory map shows in the file's times only the first time after it was clean. So
    /// all pages are made clean after the index was opened, from when on changes count as new, and before one is read.
    pub fn make_pages_clean(&self) -> bool {
        // A whole file system holds what others write as well, and waiting for that takes its time.
        if self.few.fetch_update(Relaxed, Relaxed, |few| few.checked_sub(1)).is_ok() {
            return false;
        }
        self.cleaned.call_once(|| {
            for side in &self.dirty {
                let _ = rustix::fs::syncfs(side);
            }
        });
        true
    }

    pub fn note(&self, key: &[u8], source: &Meta, dest: &Meta) {
        self.lock().note(key, source, dest);
    }

    pub fn note_made(&self, key: &[u8], source: &Meta, made: &Meta) {
        self.lock().note_made(key, source, made);
    }

    pub fn finish(self, complete: bool) -> std::io::Result<()> {
        self.index.into_inner().unwrap_or_else(PoisonError::into_inner).finish(complete)
    }
}
