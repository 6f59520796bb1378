//! Walks both trees in step, in key order, decides about each name and hands the work over.
//!
//! One thread plans; what it decides is in order and the same in a dry run. Deletions are only gathered here.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::apply::{After, Work};
use super::compare::{decide, same_content};
use super::context::Context;
use super::delete::Graveyard;
use super::dir::Dir;
use super::event::{Level, Reason};
use super::frame::{Ahead, Frame, Row, join};
use super::hardlinks::{Group, Groups, Waiting};
use super::scan::{ReadAhead, Wanted};
use crate::cli::Links;
use crate::error::{ErrorKind, Result, SyncError};
use crate::filter::Scope;
use crate::transport::local::fits;
use crate::transport::{Doomed, Held, Kind, Lane, Listing, Meta, Op, What, child_key};

/// A job has about this many bytes at most.
const JOB_BYTES: u64 = 8 << 20;
/// Child directories of one directory that are listed ahead.
const AHEAD: usize = 16;
/// From this size on a leftover may be gone on with.
const LARGE: u64 = 1 << 20;

/// Where the walk begins.
pub enum Start {
    /// The contents of the source.
    Contents { source: Meta, dest: Option<Meta> },
    /// One entry of the source's root, put into the destination's under a name that may differ.
    One { source: Listing, dest: Listing, rename: Option<Box<[u8]>> },
}

pub struct Planner<'w, 'r> {
    cx: &'r Context<'r>,
    work: &'w Work<'r>,
    ahead: &'r ReadAhead,
    frames: Vec<Frame<'r>>,
    pub graveyard: Graveyard,
    groups: Groups<'r>,
    /// Files that take the place of a directory, once that is gone.
    pub after_deletions: Vec<After<'r>>,
    /// The names of those directories.
    giving_way: Vec<(Arc<Dir<'r>>, Box<[u8]>)>,
    rename: Option<Box<[u8]>>,
    /// A listing failed: nobody knows what may be deleted.
    pub incomplete: bool,
    /// Entries seen at the destination.
    pub dest_entries: u64,
    /// Directories above the current one whose handles stay open.
    open_depth: usize,
    /// Keys at the destination that are never deleted: backups, trash, our own state.
    spared: Vec<Vec<u8>>,
    /// Directories that stay although a file should take their place.
    kept: Vec<Vec<u8>>,
    /// Operations to a job, at most.
    job_ops: usize,
}

impl<'w, 'r> Planner<'w, 'r> {
    pub fn new(cx: &'r Context<'r>, work: &'w Work<'r>, ahead: &'r ReadAhead, open_depth: usize, spared: Vec<Vec<u8>>) -> Self {
        Self {
            cx,
            work,
            ahead,
            frames: Vec::new(),
            graveyard: Graveyard::default(),
            groups: Groups::default(),
            after_deletions: Vec::new(),
            giving_way: Vec::new(),
            rename: None,
            incomplete: false,
            dest_entries: 0,
            open_depth,
            spared,
            kept: Vec::new(),
            job_ops: cx.lane.map_or(256, |lane| lane.pace().ops),
        }
    }

    /// Walks everything. An error ends the run; failed items are recorded and passed by.
    pub fn walk(&mut self, start: Start, scope: Scope) -> Result<()> {
        match start {
            Start::Contents { source, dest } => {
                let listing = self.cx.source.list(b"")?;
                let twin = match self.cx.dest {
                    Some(endpoint) if dest.is_some() => Some(endpoint.list(b"")?),
                    _ => None,
                };
                self.refuse_empty_source(&listing, twin.as_ref())?;
                let dir = Arc::new(Dir::new(b"", None, Some(source), dest, self.cx));
                self.push(dir, Some(listing), twin, &scope, None);
            }
            Start::One { source, dest, rename } => {
                self.rename = rename;
                let dir = Arc::new(Dir::new(b"", None, None, None, self.cx));
                self.push(dir, Some(source), Some(dest), &scope, None);
            }
        }
        while !self.frames.is_empty() {
            if self.cx.control.should_stop() {
                self.frames.clear();
                break;
            }
            self.step()?;
        }
        for group in self.groups.rest() {
            self.settle(group);
        }
        // A directory that stays bars the way of the file that was to take its place, in a dry run too.
        let kept = std::mem::take(&mut self.kept);
        self.after_deletions.retain(|after| {
            let key = after.dir.key_of(&after.op.name);
            let barred = kept.contains(&key);
            if barred {
                let path = self.cx.dest.map_or_else(|| key.clone(), |dest| dest.path_of(&key));
                self.cx.fail(in_the_way_error("a directory with protected entries").at("create", path));
            }
            !barred
        });
        self.cx.control.totals_are_final.store(true, Relaxed);
        Ok(())
    }

    /// An empty source is more often a disk that is not mounted than a wish to delete everything.
    fn refuse_empty_source(&self, source: &Listing, dest: Option<&Listing>) -> Result<()> {
        let options = self.cx.options;
        let empty = source.is_empty() && source.unknown.is_empty();
        if options.delete && !options.force_delete && empty && dest.is_some_and(|dest| !dest.is_empty()) {
            return Err(SyncError::new(ErrorKind::DeleteLimit, "the source is empty and the destination is not")
                .at("delete for", self.cx.source.path_of(b""))
                .hint("is it mounted? force_delete (--force-delete) empties the destination"));
        }
        Ok(())
    }

    fn push(&mut self, dir: Arc<Dir<'r>>, source: Option<Listing>, dest: Option<Listing>, parent_scope: &Scope, doomed: Option<Doomed>) {
        for (name, error) in source.iter().flat_map(|listing| &listing.unknown) {
            self.incomplete = true;
            let _ = name;
            self.cx.fail(error.clone());
        }
        for (_, error) in dest.iter().flat_map(|listing| &listing.unknown) {
            self.incomplete = true;
            self.cx.fail(error.clone());
        }
        if let Some(own) = source.as_ref().map(|listing| listing.own).filter(|&own| own > 0) {
            let path = self.cx.source.path_of(&dir.key);
            let path = String::from_utf8_lossy(&path);
            self.cx.log(Level::Warning, &format!("left out {path}: it stands for the directory itself, but has {own} bytes of content"));
            self.cx.skipped(&dir.key, Kind::File, own, Reason::NotPreserved);
        }
        let scope = match self.scope(parent_scope, &dir, source.as_ref()) {
            Ok(scope) => scope,
            Err(error) => {
                // Without its rules nobody knows what belongs to the transfer.
                self.incomplete = true;
                return self.cx.fail(error);
            }
        };
        for (slot, listing) in [(&dir.source, &source), (&dir.dest, &dest)] {
            if let Some(handle) = listing.as_ref().and_then(|listing| listing.handle.as_ref()) {
                slot.set(handle);
            }
        }
        let rows = join(source.as_ref(), dest.as_ref());
        self.dest_entries += dest.as_ref().map_or(0, Listing::len) as u64;
        if doomed.is_some() {
            self.clean_up(&dir, dest.as_ref(), &[]);
        }
        if let Some(distant) = self.frames.len().checked_sub(self.open_depth) {
            let distant = &mut self.frames[distant];
            distant.held = Held::default();
            for listing in [&mut distant.source, &mut distant.dest].into_iter().flatten() {
                listing.handle = None;
            }
        }
        self.frames.push(Frame {
            dir,
            source,
            dest,
            rows,
            next: 0,
            scope,
            pending: Vec::new(),
            pending_bytes: 0,
            ahead: std::collections::VecDeque::new(),
            asked_to: 0,
            doomed,
            holds: false,
            resumable: Vec::new(),
            held: Held::default(),
        });
    }

    /// The rules in force in a directory, from the rule files that stand in it.
    fn scope(&self, parent: &Scope, dir: &Dir<'r>, source: Option<&Listing>) -> Result<Scope> {
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        if let Some(listing) = source {
            for i in 0..listing.len() {
                let name = listing.name(i);
                if listing.item(i).meta.kind == Kind::File && parent.wants(name) {
                    found.push((name.to_vec(), self.cx.source.read(&dir.key_of(name))?));
                }
            }
        }
        let files: Vec<(&[u8], Vec<u8>)> = found.iter().map(|(name, content)| (name.as_slice(), content.clone())).collect();
        parent
            .enter(&dir.key, &files)
            .map_err(|error| SyncError::config(error.to_string()).at("use the rules in", self.cx.source.path_of(&dir.key)))
    }

    /// Takes the next row of the innermost directory, or leaves it.
    fn step(&mut self) -> Result<()> {
        self.look_ahead();
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        let Some(&row) = frame.rows.get(frame.next) else {
            self.leave();
            return Ok(());
        };
        let index = frame.next;
        frame.next += 1;
        let ahead = match frame.ahead.front() {
            Some((at, _)) if *at == index => frame.ahead.pop_front().map(|(_, ahead)| ahead).unwrap_or_default(),
            _ => Ahead::default(),
        };
        self.row(row, ahead)
    }

    fn row(&mut self, row: Row, ahead: Ahead<'r>) -> Result<()> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let (is_dir, key) = {
            let (listing, index) = match (row.source, row.dest) {
                (Some(i), _) => (frame.source.as_ref(), i),
                (None, Some(j)) => (frame.dest.as_ref(), j),
                (None, None) => return Ok(()),
            };
            let Some(listing) = listing else { return Ok(()) };
            (listing.item(index as usize).meta.kind == Kind::Dir, frame.dir.key_of(listing.name(index as usize)))
        };
        let verdict = match (frame.scope.is_empty(), &frame.doomed) {
            (true, _) => None,
            (false, None) => Some(frame.scope.check(&key, is_dir)),
            (false, Some(_)) => Some(frame.scope.check_doomed(&key, is_dir)),
        };
        let (hidden, protected) = verdict.map_or((false, false), |verdict| (verdict.hidden, verdict.protected));
        if row.source.is_some() && !hidden {
            return if is_dir { self.source_dir(row, key, ahead) } else { self.source_file(row, key) };
        }
        if let Some(j) = row.dest {
            if protected {
                self.hold();
            } else {
                self.extra(j as usize, key, ahead);
            }
        }
        Ok(())
    }

    /// Something in the innermost directory stays.
    fn hold(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.holds = true;
        }
    }

    /// A directory of the source.
    fn source_dir(&mut self, row: Row, key: Vec<u8>, ahead: Ahead<'r>) -> Result<()> {
        let cx = self.cx;
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let (Some(listing), Some(i)) = (&frame.source, row.source) else { return Ok(()) };
        let (meta, name) = (listing.item(i as usize).meta, listing.name(i as usize).to_vec());
        if cx.options.links == Links::Follow
            && self.frames.iter().any(|f| f.dir.like.is_some_and(|like| (like.dev, like.ino) == (meta.dev, meta.ino)))
        {
            self.incomplete = true;
            cx.fail(
                SyncError::new(ErrorKind::Io, "the symbolic link leads back to a directory that holds it")
                    .at("follow", cx.source.path_of(&key)),
            );
            return Ok(());
        }
        if self.is_other_root(&meta, row) {
            self.incomplete = true;
            cx.fail(
                SyncError::new(ErrorKind::Config, "one side of the run is reached there from within the other; it is left out")
                    .at("sync", cx.source.path_of(&key)),
            );
            return Ok(());
        }
        let had = row.dest.and_then(|j| frame.dest.as_ref().map(|listing| listing.item(j as usize).meta));
        // Under the same name the destination may have something that is not a directory.
        // In an object store a file may stand beside a directory of its name.
        let beside = listing.find(&name, false).is_some();
        let in_the_way = match (&frame.dest, had) {
            (Some(dest), None) if !beside => dest.find(&name, false).map(|j| dest.item(j).meta),
            _ => None,
        };
        if beside && had.is_none() && !cx.dest.is_some_and(|dest| dest.capabilities().any_name) {
            self.incomplete = true;
            cx.fail(
                SyncError::new(
                    ErrorKind::AlreadyExists,
                    "an object of the same name stands beside what is below it, and can't at the destination",
                )
                .at("create", cx.source.path_of(&key)),
            );
            return Ok(());
        }
        if had.is_none() {
            let skipped = if in_the_way.is_some() { cx.options.ignore_existing } else { cx.options.existing };
            if skipped {
                return Ok(());
            }
            if in_the_way.is_some() && frame.scope.check(&key, false).protected {
                cx.fail(in_the_way_error("a protected file").at("create", self.dest_path(&key)));
                return Ok(());
            }
            let parent = Arc::clone(&frame.dir);
            if self.is_unknown_at_dest(&name) {
                return Ok(());
            }
            if let (false, Some(lane)) = (cx.dry_run(), cx.lane) {
                let held = lane.hold(&parent);
                let made = lane.make_dir(&parent, &name, &meta, in_the_way.as_ref());
                if let Some(frame) = self.frames.last_mut() {
                    frame.held = held;
                }
                if let Err(error) = made {
                    // Another name may be the same here: what looks extra may be what it is.
                    self.incomplete |= error.kind == ErrorKind::Conflict;
                    cx.fail(error);
                    return Ok(());
                }
            }
            let possible = match cx.lane {
                Some(lane) => lane.examine_make_dir(&parent, &name),
                None => fits(&name).map_err(|error| error.at("create", cx.source.path_of(&key))),
            };
            if let (true, Err(error)) = (cx.dry_run(), possible) {
                cx.fail(error);
                return Ok(());
            }
            cx.directory_created(&key, if in_the_way.is_some() { Reason::Kind } else { Reason::New });
        }
        let source = match ahead.source.map_or_else(|| cx.source.list(&key), |wanted| wanted.take(|| self.work.pool.help())) {
            Ok(listing) => listing,
            Err(error) => {
                self.incomplete = true;
                cx.fail(error);
                return Ok(());
            }
        };
        let dest = match (had, cx.dest) {
            (Some(_), Some(endpoint)) => {
                match ahead.dest.map_or_else(|| endpoint.list(&key), |wanted| wanted.take(|| self.work.pool.help())) {
                    Ok(listing) => Some(listing),
                    Err(error) => {
                        self.incomplete = true;
                        cx.fail(error);
                        return Ok(());
                    }
                }
            }
            _ => None,
        };
        if self.frames.len() == 1 && self.frames[0].dir.like.is_none() {
            self.refuse_empty_source(&source, dest.as_ref())?;
        }
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let dir = Arc::new(Dir::new(&key, Some(Arc::clone(&frame.dir)), Some(meta), had, cx));
        let scope = frame.scope.clone();
        self.push(dir, Some(source), dest, &scope, None);
        Ok(())
    }

    /// Does a link or a mount lead from here to the destination, or from the destination's twin to the source?
    fn is_other_root(&self, source: &Meta, row: Row) -> bool {
        let dest =
            self.frames.last().and_then(|frame| row.dest.and_then(|j| frame.dest.as_ref().map(|listing| listing.item(j as usize).meta)));
        Some(source.identity()) == self.cx.dest_root || dest.is_some_and(|dest| Some(dest.identity()) == self.cx.source_root)
    }

    fn is_unknown_at_dest(&self, name: &[u8]) -> bool {
        self.frames.last().and_then(|frame| frame.dest.as_ref()).is_some_and(|dest| dest.unknown.iter().any(|(other, _)| **other == *name))
    }

    /// Anything else in the source.
    fn source_file(&mut self, row: Row, key: Vec<u8>) -> Result<()> {
        let cx = self.cx;
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let (Some(listing), Some(i)) = (&frame.source, row.source) else { return Ok(()) };
        let (meta, target, name) = (listing.item(i as usize).meta, &listing.item(i as usize).target, listing.name(i as usize));
        cx.tally.files_scanned.fetch_add(1, Relaxed);
        cx.control.scanned.fetch_add(1, Relaxed);
        if meta.kind == Kind::Symlink && cx.options.links == Links::Skip {
            cx.skipped(&key, Kind::Symlink, 0, Reason::NotPreserved);
            return Ok(());
        }
        if self.is_unknown_at_dest(name) {
            return Ok(());
        }
        let twin = row.dest.and_then(|j| frame.dest.as_ref().map(|listing| listing.item(j as usize)));
        let dir_in_the_way = match (&frame.dest, twin) {
            (Some(dest), None) if listing.find(name, true).is_none() || !cx.dest.is_some_and(|dest| dest.capabilities().any_name) => {
                dest.find(name, true).map(|j| dest.item(j).meta)
            }
            _ => None,
        };
        let dest = twin.map(|item| item.meta).or(dir_in_the_way);
        let dest_target = twin.and_then(|item| item.target.as_deref());
        let decision = decide(&cx.rules, &meta, target.as_deref(), dest.as_ref(), dest_target);
        let decision = match (decision, self.cx.known, &dest) {
            // Read and found equal before, and neither side changed since.
            (Ok((What::CopyIfDifferent | What::Ask, _)), Some(known), Some(dest)) if known.equal(&key, &meta, dest) => {
                same_content(&cx.rules, &meta, dest)
            }
            (decision, _, _) => decision,
        };
        let several = cx.options.preserve_hardlinks && meta.nlink > 1;
        let (what, reason) = match decision {
            Ok(decided) => decided,
            Err(Reason::Unchanged) if cx.options.remove_source_files || several => (What::Nothing, Reason::Unchanged),
            Err(reason) => {
                cx.skipped(&key, meta.kind, meta.size, reason);
                return Ok(());
            }
        };
        let (name, source_name) = match &self.rename {
            Some(new) => (new.clone(), Some(name.into())),
            None => (name.into(), None),
        };
        let (target, dest_target) = (target.clone(), dest_target.map(Into::into));
        let mut op = Op { name, source_name, source: meta, target, dest, dest_target, what, reason, write_out: false };
        let mut blocked = false;
        if dir_in_the_way.is_some() {
            if cx.options.delete {
                // Its content is found as extra, the directory with it; the file comes after.
                op.dest = None;
                blocked = true;
            } else if !self.may_replace_dir(&key) {
                return Ok(());
            }
        }
        let dir = Arc::clone(&frame.dir);
        if several {
            let dest = op.dest;
            let waiting = || Waiting { dir: Arc::clone(&dir), op: Op { reason: Reason::HardLink, ..op.clone() }, blocked };
            let taken = self.groups.meet(&meta, &key, Some(what), dest.as_ref(), waiting);
            if blocked {
                self.giving_way.push((Arc::clone(&dir), op.name.clone()));
            }
            if let Some(group) = self.groups.complete(&meta) {
                self.settle(group);
            }
            if taken {
                return Ok(());
            }
        }
        if what == What::Nothing {
            cx.skipped(&key, op.source.kind, op.source.size, Reason::Unchanged);
            if !cx.options.remove_source_files {
                return Ok(());
            }
        }
        self.cx.count(&op);
        if blocked {
            self.giving_way.push((Arc::clone(&dir), op.name.clone()));
            self.after_deletions.push(After { dir, op, leader: None });
            return Ok(());
        }
        if what == What::CopyIfDifferent && op.source.size == 0 {
            // Two empty files have the same content.
            let left = op.dest.as_ref().map(|dest| same_content(&cx.rules, &op.source, dest));
            op.what = left.and_then(Result::ok).map_or(What::Attributes, |(what, _)| what);
        }
        self.hand_over(op);
        Ok(())
    }

    /// May a file take the place of the destination's directory at `key` without deleting anything?
    fn may_replace_dir(&self, key: &[u8]) -> bool {
        match self.cx.dest.map(|dest| dest.list(key)) {
            Some(Ok(listing)) if listing.is_empty() && listing.unknown.is_empty() => return true,
            Some(Err(error)) => self.cx.fail(error),
            _ => self.cx.fail(
                in_the_way_error("a directory that is not empty")
                    .at("create", self.dest_path(key))
                    .hint("delete (--delete) removes what the source does not have"),
            ),
        }
        false
    }

    /// Hands over a file with several names, now that they are known: one of them leads.
    fn settle(&mut self, group: Group<'r>) {
        let Group { in_place, waiting, .. } = group;
        let (blocked, mut ready): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|one| one.blocked);
        let mut blocked = blocked.into_iter();
        let (leader, key) = match in_place {
            Some((key, _)) => (None, key),
            None if ready.is_empty() => {
                let Some(first) = blocked.next() else { return };
                let key = first.dir.key_of(&first.op.name);
                self.after_deletions.push(After { dir: first.dir, op: first.op, leader: None });
                (None, key)
            }
            None => {
                let first = ready.remove(0);
                let key = first.dir.key_of(&first.op.name);
                self.cx.count(&first.op);
                (Some((first.dir, first.op)), key)
            }
        };
        for one in blocked {
            self.after_deletions.push(After { dir: one.dir, op: one.op, leader: Some(key.clone()) });
        }
        self.work.submit_names(leader, key, ready.into_iter().map(|one| (one.dir, one.op)).collect());
    }

    /// Gathers operations of the directory into jobs.
    fn hand_over(&mut self, op: Op) {
        let Some(frame) = self.frames.last_mut() else { return };
        let leftovers = frame.dest.as_ref().is_some_and(|dest| !dest.leftovers.is_empty());
        if leftovers && op.what == What::Copy && op.source.size >= LARGE {
            frame.resumable.push(op.clone());
        }
        frame.pending_bytes += if op.source.kind == Kind::File { op.source.size } else { 0 };
        frame.pending.push(op);
        // A dry run tells what it finds in the order of the keys.
        if self.cx.dry_run() || frame.pending.len() >= self.job_ops || frame.pending_bytes >= JOB_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if let Some(frame) = self.frames.last_mut()
            && !frame.pending.is_empty()
        {
            frame.pending_bytes = 0;
            self.work.submit(Arc::clone(&frame.dir), std::mem::take(&mut frame.pending));
        }
    }

    /// Something that only the destination has.
    fn extra(&mut self, j: usize, key: Vec<u8>, ahead: Ahead<'r>) {
        let Some(frame) = self.frames.last() else { return };
        let Some(listing) = &frame.dest else { return };
        // What the source has under that name could not be read: it may be the same.
        let unknown = frame.source.as_ref().is_some_and(|source| source.unknown.iter().any(|(name, _)| **name == *listing.name(j)));
        let (meta, tag) = (listing.item(j).meta, listing.item(j).target.clone().filter(|_| listing.item(j).meta.tagged));
        if self.spared.iter().any(|spared| key == *spared || key.strip_prefix(spared.as_slice()).is_some_and(|rest| rest.starts_with(b"/")))
        {
            return self.hold();
        }
        if self.cx.options.delete && meta.mount {
            self.cx.fail(
                SyncError::new(ErrorKind::Conflict, "something is mounted there")
                    .at("delete", self.dest_path(&key))
                    .hint("unmount it, or exclude it"),
            );
            return self.hold();
        }
        if !self.cx.options.delete || unknown || self.has_other_kind(frame, listing.name(j), &key, meta.kind) {
            return self.hold();
        }
        let doomed = Doomed { key, kind: meta.kind, size: meta.size, ino: meta.ino, mtime: meta.mtime, tag };
        if meta.kind != Kind::Dir {
            return self.doom(doomed);
        }
        let Some(endpoint) = self.cx.dest else { return };
        match ahead.dest.map_or_else(|| endpoint.list(&doomed.key), |wanted| wanted.take(|| self.work.pool.help())) {
            Ok(listing) => {
                let dir = Arc::new(Dir::new(&doomed.key, Some(Arc::clone(&frame.dir)), None, Some(meta), self.cx));
                let scope = frame.scope.clone();
                // A place that is never deleted keeps what leads to it, also before it is made.
                let leads =
                    self.spared.iter().any(|spared| spared.strip_prefix(doomed.key.as_slice()).is_some_and(|rest| rest.starts_with(b"/")));
                self.push(dir, None, Some(listing), &scope, Some(doomed));
                if leads {
                    self.hold();
                }
            }
            Err(error) => {
                self.incomplete = true;
                self.cx.fail(error);
                self.hold();
            }
        }
    }

    /// Does the source have something of that name that is a directory where this is none, or the reverse? Then this is
    /// in its way, not extra; whoever puts the other in place sees to it. Only a directory that gives way to a file goes
    /// with the extras.
    fn has_other_kind(&self, frame: &Frame<'r>, name: &[u8], key: &[u8], kind: Kind) -> bool {
        let other_is_dir = kind != Kind::Dir;
        frame.source.as_ref().is_some_and(|source| source.find(name, other_is_dir).is_some())
            && (frame.scope.is_empty() || !frame.scope.check(key, other_is_dir).hidden)
            && (other_is_dir || !self.giving_way.iter().any(|(dir, giving)| Arc::ptr_eq(dir, &frame.dir) && **giving == *name))
    }

    fn doom(&mut self, doomed: Doomed) {
        let Some(frame) = self.frames.last() else { return };
        let restores = self.cx.rules.keep.times || self.cx.lane.is_some_and(Lane::restores_dirs);
        let restore = frame.dir.like.filter(|_| restores).map(|like| like.mtime);
        if let Err(error) = self.graveyard.push(&doomed, restore) {
            // Without a full list of deletions none is made.
            self.incomplete = true;
            self.cx.fail(SyncError::io(&error, "note deletions in", std::env::temp_dir()));
        }
    }

    /// All rows of the innermost directory are done.
    fn leave(&mut self) {
        self.flush();
        let Some(frame) = self.frames.pop() else { return };
        self.giving_way.retain(|(dir, _)| !Arc::ptr_eq(dir, &frame.dir));
        if frame.doomed.is_none() {
            self.clean_up(&frame.dir, frame.dest.as_ref(), &frame.resumable);
        }
        match frame.doomed {
            Some(doomed) if frame.holds => {
                if let Some(parent) = self.frames.last()
                    && self.giving_way.iter().any(|(dir, name)| Arc::ptr_eq(dir, &parent.dir) && parent.dir.key_of(name) == doomed.key)
                {
                    self.kept.push(doomed.key);
                }
                self.hold();
            }
            Some(doomed) => self.doom(doomed),
            None => {}
        }
    }

    fn clean_up(&self, dir: &Dir<'r>, dest: Option<&Listing>, wanted: &[Op]) {
        if let (false, Some(lane), Some(listing)) = (self.cx.dry_run(), self.cx.lane, dest)
            && !listing.leftovers.is_empty()
        {
            self.cx.log(Level::Info, &format!("{} temporary files of an earlier run found", listing.leftovers.len()));
            lane.clean_up(dir, &listing.leftovers, wanted);
        }
    }

    /// Asks for the listings of child directories that come next.
    fn look_ahead(&mut self) {
        let cx = self.cx;
        let Some(frame) = self.frames.last_mut() else { return };
        if frame.asked_to >= frame.rows.len() || frame.ahead.len() > AHEAD / 2 {
            return;
        }
        let mut soon = Vec::new();
        frame.asked_to = frame.asked_to.max(frame.next);
        while frame.asked_to < frame.rows.len() && frame.ahead.len() < AHEAD {
            let (index, row) = (frame.asked_to, frame.rows[frame.asked_to]);
            frame.asked_to += 1;
            let (from, to) = (frame.source_kind(row) == Some(Kind::Dir), frame.dest_kind(row) == Some(Kind::Dir));
            let wanted = from || to && cx.options.delete;
            if !wanted {
                continue;
            }
            let name = match (row.source, row.dest, &frame.source, &frame.dest) {
                (Some(i), _, Some(listing), _) => listing.name(i as usize),
                (None, Some(j), _, Some(listing)) => listing.name(j as usize),
                _ => continue,
            };
            let key = child_key(&frame.dir.key, name);
            if !frame.scope.is_empty() && frame.scope.check(&key, true).hidden {
                continue;
            }
            let mut ahead = Ahead::default();
            if from && !cx.source.lists_ahead() {
                ahead.source = Some(Wanted::new(cx.source, key.clone(), self.ahead));
            }
            if let (true, Some(dest)) = (to, cx.dest.filter(|dest| !dest.lists_ahead())) {
                ahead.dest = Some(Wanted::new(dest, key, self.ahead));
            }
            soon.extend([&ahead.source, &ahead.dest].into_iter().flatten().cloned());
            frame.ahead.push_back((index, ahead));
        }
        if !soon.is_empty() {
            self.work.pool.want(soon.into_iter());
        }
    }

    fn dest_path(&self, key: &[u8]) -> Vec<u8> {
        self.cx.dest.map_or_else(|| key.to_vec(), |dest| dest.path_of(key))
    }
}

fn in_the_way_error(what: &str) -> SyncError {
    SyncError::new(ErrorKind::AlreadyExists, format!("{what} stands in the way"))
}
