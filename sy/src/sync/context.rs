//! What all parts of one run share: its options, its sides, its counters, its record of failures.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::compare::{Rules, decide};
use super::control::Control;
use super::dir::{Dir, Finisher};
use super::event::{Action, ActionEvent, Level, Observer, Reason};
use super::known::Known;
use super::owners::Owners;
use super::stats::Tally;
use crate::cli::Options;
use crate::error::{ErrorKind, SyncError};
use crate::transport::local::fits;
use crate::transport::{Applied, Done, Doomed, Endpoint, Kind, Lane, Meta, Op, What};

pub struct Context<'r> {
    pub options: &'r Options,
    pub control: &'r Control,
    pub observer: &'r dyn Observer,
    pub tally: &'r Tally,
    pub source: &'r dyn Endpoint,
    /// `None` in a dry run into a destination that does not exist yet.
    pub dest: Option<&'r dyn Endpoint>,
    pub owners: Option<&'r Owners<'r>>,
    pub lane: Option<&'r dyn Lane>,
    /// Device and inode of both roots, to know them where a link or a mount leads from one to the other.
    pub source_root: Option<(u64, u64)>,
    pub dest_root: Option<(u64, u64)>,
    pub rules: Rules,
    /// Hears which contents were found equal.
    pub known: Option<&'r Known<'r>>,
    pub errors: Mutex<Vec<SyncError>>,
    /// The destination is not what was listed.
    pub conflicts: AtomicBool,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

impl Context<'_> {
    pub fn dry_run(&self) -> bool {
        self.options.dry_run
    }

    /// Records a failed item. Too many end the run.
    pub fn fail(&self, error: SyncError) {
        if error.kind == ErrorKind::Cancelled {
            return;
        }
        if error.kind == ErrorKind::Conflict {
            self.conflicts.store(true, Relaxed);
        }
        self.observer.error(&error);
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.push(error);
        if self.options.max_errors > 0 && errors.len() as u64 >= self.options.max_errors {
            self.control.give_up();
        }
    }

    pub fn take_errors(&self) -> Vec<SyncError> {
        std::mem::take(&mut *self.errors.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn log(&self, level: Level, message: &str) {
        self.observer.log(level, message);
    }

    fn emit(&self, event: impl FnOnce() -> ActionEvent) {
        if self.observer.wants_actions() {
            self.observer.action(event());
        }
    }

    /// A directory was, or would be, created.
    pub fn directory_created(&self, key: &[u8], reason: Reason) {
        add(&self.tally.dirs_created, 1);
        self.emit(|| directory(key, Action::Create, reason));
    }

    /// One of which that was said could not be.
    pub fn directory_not_created(&self, error: SyncError) {
        self.tally.dirs_created.fetch_sub(1, Relaxed);
        self.fail(error);
    }

    /// The metadata of a directory were, or would be, set.
    pub fn directory_differed(&self, key: &[u8]) {
        self.emit(|| directory(key, Action::Metadata, Reason::Metadata));
    }

    pub fn deleted(&self, one: &Doomed) {
        if one.kind == Kind::Dir {
            add(&self.tally.dirs_deleted, 1);
        } else {
            add(&self.tally.files_deleted, 1);
            if self.dry_run() && one.kind == Kind::File {
                add(&self.tally.bytes_would_delete, one.size);
            }
        }
        let bytes = if one.kind == Kind::File { one.size } else { 0 };
        self.emit(|| ActionEvent {
            key: one.key.clone(),
            kind: one.kind,
            action: Action::Delete,
            reason: Reason::NotInSource,
            bytes,
            old_bytes: Some(bytes),
            target: None,
        });
    }

    pub fn skipped(&self, key: &[u8], kind: Kind, size: u64, reason: Reason) {
        add(&self.tally.files_skipped, 1);
        if self.observer.wants_skips() {
            self.emit(|| ActionEvent { key: key.to_vec(), kind, action: Action::Skip, reason, bytes: size, old_bytes: None, target: None });
        }
    }

    /// Counts and tells what came of an operation. `linked` says that it became a second name of another file.
    pub fn applied(&self, dir: &Dir<'_>, op: &Op, applied: Applied, linked: bool) {
        let tally = self.tally;
        let bytes = if op.source.kind == Kind::File && !linked { op.source.size } else { 0 };
        let old_bytes = op.dest.as_ref().map(|old| if old.kind == Kind::File { old.size } else { 0 });
        let action = match applied {
            Applied::Created => {
                add(&tally.files_created, 1);
                if op.source.kind == Kind::Symlink && !linked {
                    add(&tally.symlinks_created, 1);
                }
                Action::Create
            }
            Applied::Updated => {
                add(&tally.files_updated, 1);
                Action::Update
            }
            Applied::Metadata => {
                add(&tally.files_metadata_updated, 1);
                Action::Metadata
            }
            Applied::Same => return self.skipped(&dir.key_of(&op.name), op.source.kind, bytes, Reason::Unchanged),
        };
        if linked {
            add(&tally.hardlinks_created, 1);
        }
        match (action, self.dry_run()) {
            (Action::Create, true) => add(&tally.bytes_would_add, bytes),
            (Action::Update, true) => add(&tally.bytes_would_change, bytes),
            (Action::Create | Action::Update, false) => add(&tally.bytes_transferred, bytes),
            _ => {}
        }
        let reason = if action == Action::Metadata { Reason::Metadata } else { op.reason };
        self.emit(|| ActionEvent {
            key: dir.key_of(&op.name),
            kind: op.source.kind,
            action,
            reason,
            bytes,
            old_bytes,
            target: op.target.as_deref().filter(|_| op.source.kind == Kind::Symlink).map(<[u8]>::to_vec),
        });
    }

    /// Carries out one operation, or only finds out what it would do. Failures that another try may mend are handed back.
    pub fn perform(&self, dir: &Dir<'_>, op: &mut Op) -> Result<(), SyncError> {
        if op.what == What::Ask && !self.decided(dir, op)? {
            return Ok(());
        }
        let transfer = matches!(op.what, What::Copy | What::CopyIfDifferent);
        if transfer && op.source.size >= 1 << 20 {
            self.control.set_current(&dir.key_of(&op.name));
        }
        if let (true, Some(known)) = (transfer, self.known) {
            op.write_out = !known.make_pages_clean();
        }
        add(&self.control.active, 1);
        let outcome = match self.lane {
            Some(lane) if self.dry_run() => lane.examine(dir, op).map(Done::from),
            Some(lane) => lane.apply(dir, op),
            None => fits(&op.name)
                .map(|()| Done::from(Applied::Created))
                .map_err(|error| error.at("create", self.source.path_of(&dir.key_of(&op.name)))),
        };
        self.control.active.fetch_sub(1, Relaxed);
        if transfer {
            add(&self.control.transfers, 1);
        }
        self.concluded(dir, op, outcome)
    }

    /// Carries out operations of one directory together. `failed` hears of those that went wrong.
    pub fn perform_all(&self, dir: &Dir<'_>, ops: &mut Vec<Op>, failed: &mut dyn FnMut(&Op, SyncError)) {
        let Some(lane) = self.lane else { return };
        ops.retain_mut(|op| {
            op.what != What::Ask
                || self.decided(dir, op).unwrap_or_else(|error| {
                    failed(op, error);
                    false
                })
        });
        if let Some(large) = ops.iter().find(|op| op.source.size >= 1 << 20) {
            self.control.set_current(&dir.key_of(&large.name));
        }
        add(&self.control.active, 1);
        lane.apply_all(dir, ops, &mut |op, outcome| {
            if matches!(op.what, What::Copy | What::CopyIfDifferent) {
                add(&self.control.transfers, 1);
            }
            if let Err(error) = self.concluded(dir, op, outcome) {
                failed(op, error);
            }
        });
        self.control.active.fetch_sub(1, Relaxed);
    }

    /// Counts what came of an operation, and does what follows from it.
    fn concluded(&self, dir: &Dir<'_>, op: &Op, outcome: Result<Done, SyncError>) -> Result<(), SyncError> {
        match outcome {
            Ok(Done { applied, made }) => {
                if let (What::CopyIfDifferent, Applied::Same, Some(dest)) = (op.what, applied, &op.dest) {
                    self.note(dir, op, dest);
                }
                if let (Some(made), Some(known)) = (&made, self.known) {
                    known.note_made(&dir.key_of(&op.name), &op.source, made);
                }
                if op.what != What::Nothing {
                    self.applied(dir, op, applied, false);
                }
                self.remove_source(dir, op);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Asks the storage for what is not known yet, and decides. `false`: there is nothing to do.
    fn decided(&self, dir: &Dir<'_>, op: &mut Op) -> Result<bool, SyncError> {
        match self.lane {
            Some(lane) => lane.ask(dir, op)?,
            // A dry run into what is not there yet: the source can be asked all the same.
            None => {
                if let Some((meta, target)) = self.source.stat(&dir.key, op.source_name())? {
                    (op.source, op.target) = (meta, target);
                }
            }
        }
        match decide(&self.rules, &op.source, op.target.as_deref(), op.dest.as_ref(), op.dest_target.as_deref()) {
            Ok((what, reason)) => {
                (op.what, op.reason) = (what, reason);
                self.count(op);
                Ok(true)
            }
            Err(reason) => {
                if let (Reason::Unchanged, Some(dest)) = (reason, &op.dest) {
                    self.note(dir, op, dest);
                }
                self.skipped(&dir.key_of(&op.name), op.source.kind, op.source.size, reason);
                if reason == Reason::Unchanged {
                    self.remove_source(dir, op);
                }
                Ok(false)
            }
        }
    }

    /// Both sides are equal: the next run need not look so closely.
    fn note(&self, dir: &Dir<'_>, op: &Op, dest: &Meta) {
        if let Some(known) = self.known {
            known.note(&dir.key_of(&op.name), &op.source, dest);
        }
    }

    /// Adds to what the run will have done when it is over.
    pub fn count(&self, op: &Op) {
        if matches!(op.what, What::Copy | What::CopyIfDifferent) {
            self.control.total_transfers.fetch_add(1, Relaxed);
            if op.source.kind == Kind::File {
                self.control.total_bytes.fetch_add(op.source.size, Relaxed);
            }
        }
    }

    /// `remove_source_files`: the copy is in place.
    pub fn remove_source(&self, dir: &Dir<'_>, op: &Op) {
        let (true, false, Some(lane)) = (self.options.remove_source_files, self.dry_run(), self.lane) else { return };
        match lane.remove_source(dir, op) {
            Ok(()) => add(&self.tally.sources_removed, 1),
            Err(error) => self.fail(error),
        }
    }
}

fn directory(key: &[u8], action: Action, reason: Reason) -> ActionEvent {
    ActionEvent { key: key.to_vec(), kind: Kind::Dir, action, reason, bytes: 0, old_bytes: None, target: None }
}

impl Finisher for Context<'_> {
    fn finish(&self, dir: &Dir<'_>) {
        let differs = if self.dry_run() {
            let (Some(like), Some(had)) = (&dir.like, &dir.had) else { return };
            let attributes = self.lane.map_or(Ok(false), |lane| lane.examine_dir(dir));
            match attributes {
                Ok(attributes) => attributes || self.rules.keep.differs(like, had, self.rules.precision),
                Err(error) => return self.fail(error),
            }
        } else {
            match self.lane.map(|lane| lane.finish_dir(dir)) {
                Some(Ok(differs)) => differs && dir.had.is_some(),
                Some(Err(error)) => return self.fail(error),
                None => false,
            }
        };
        if differs {
            self.directory_differed(&dir.key);
        }
    }
}
