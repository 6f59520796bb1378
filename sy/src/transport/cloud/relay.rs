//! Object store to object store: copied by the service where it is one, through this machine where not.

use std::io::Read;
use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::composite::{Check, Known, PartSummer, Whose};
use super::download::remove_source;
use super::endpoint::CloudEndpoint;
use super::fetch::wrong;
use super::spool::hash;
use super::store::{Head, Origin};
use super::sums::{Kinds, Summer, Sums};
use super::writer::{CloudWriter, Content, look, pace, read_error, slots};
use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Control, Dir, Tally};
use crate::transport::{Applied, Done, Doomed, Held, Kind, Lane, Meta, Op, Pace, Time, What};

pub struct RelayLane<'r> {
    from: &'r CloudEndpoint,
    to: CloudWriter<'r>,
    /// Both sides are one service and account.
    inside: bool,
    pace: Pace,
}

impl std::fmt::Debug for RelayLane<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayLane").finish_non_exhaustive()
    }
}

impl<'r> RelayLane<'r> {
    pub fn new(source: &'r CloudEndpoint, dest: &'r CloudEndpoint, options: &Options, control: &'r Control, tally: &'r Tally) -> Self {
        let one_realm = source.store().realm() == dest.store().realm() && dest.store().features().conditions;
        let inside = one_realm && source.store().signer() == dest.store().signer();
        let both = [source.connections(), dest.connections()].into_iter().flatten().min();
        let mut to = CloudWriter::new(dest, options, control, tally);
        to.slots = slots(options, control, &[source, dest]);
        Self { from: source, to, inside, pace: pace(options, both) }
    }

    fn key(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        dir.key_of(op.source_name())
    }

    fn head(&self, key: &[u8]) -> Result<Head> {
        let gone = || self.from.at(SyncError::new(ErrorKind::NotFound, "there is no such object"), "read", key);
        self.from.head(key)?.ok_or_else(gone)
    }

    fn transfer(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done> {
        let key = self.key(dir, op);
        let whole = self.from.key_of(&key);
        let tag = op.target.as_deref().filter(|_| op.source.kind == Kind::File).and_then(|tag| std::str::from_utf8(tag).ok());
        if let (true, Some(tag)) = (self.inside, tag) {
            let from = Origin { bucket: self.from.store().bucket(), key: &whole, tag, size: op.source.size };
            let attributes = if self.to.must_tell_attributes(from.size) { Some(self.head(&key)?.attributes) } else { None };
            match self.to.copy(dir, op, &from, attributes.as_ref()) {
                Ok(made) => return Ok(Done { applied: self.to.outcome(op), made }),
                // The destination's account may not read the source, where the source's own may; or the service can't name it.
                Err(error) if matches!(error.kind, ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {}
                Err(error) => return Err(error),
            }
        }
        let head = self.head(&key)?;
        let check = Check::of(self.from.store(), &whole, &head).map_err(|error| self.from.at(error, "read", &key))?;
        let ends = check.all_ends(head.size);
        // What could only be guessed can't be looked at once more.
        let kinds = if matches!(check, Check::Parts { known: Known::Guessed, .. }) { Kinds::NONE } else { check.kinds() };
        let passed = Passed { at: 0, summer: Some(PartSummer::new(kinds, &ends, 0)), done: Vec::new(), check };
        let content = Object { from: self.from, name: &key, key: whole, head, kinds, passed: Mutex::new(passed), turn: Condvar::new() };
        op.source = Meta { size: content.head.size, ino: hash(&content.head.tag), ctime: content.head.modified, ..op.source };
        // Whatever is known of the file goes along, as it stands.
        let attributes = content.head.attributes.clone();
        let made = self.to.send(dir, op, &content, &attributes)?;
        Ok(Done { applied: self.to.outcome(op), made })
    }

    fn same_content(&self, dir: &Dir<'_>, op: &Op) -> Result<bool> {
        let (Some(a), Some(b)) = (self.from.head(&self.key(dir, op))?, self.to.at.head(&self.to.key(dir, op))?) else { return Ok(false) };
        let alike = a.composite.is_some() && a.composite == b.composite;
        Ok(a.size == b.size && (alike || a.sums.agree(&b.sums) == Some(true)))
    }
}

impl Lane for RelayLane<'_> {
    fn pace(&self) -> Pace {
        self.pace
    }

    fn ask(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        if !op.source.known.all {
            let key = self.key(dir, op);
            let (meta, target) = look(self.from, &key)?;
            let gone = || self.from.at(SyncError::new(ErrorKind::NotFound, "there is no such object"), "read", &key);
            (op.source, op.target) = (meta.ok_or_else(gone)?, target);
        }
        self.to.ask(dir, op)
    }

    fn hold(&self, _: &Dir<'_>) -> Held {
        Held::default()
    }

    fn apply(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done> {
        match op.what {
            What::CopyIfDifferent if self.same_content(dir, op)? => Ok(Applied::Same.into()),
            What::Metadata if self.to.can_set_attributes() => {
                let attributes = self.head(&self.key(dir, op))?.attributes.own();
                self.to.set_attributes(dir, op, &attributes).map(|made| Done { applied: Applied::Metadata, made })
            }
            What::Copy | What::CopyIfDifferent | What::Metadata => self.transfer(dir, op),
            What::Attributes | What::Nothing | What::Ask => Ok(Applied::Same.into()),
        }
    }

    fn examine(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        Ok(match op.what {
            What::CopyIfDifferent if self.same_content(dir, op)? => Applied::Same,
            What::Metadata if self.to.can_set_attributes() => Applied::Metadata,
            What::Copy | What::CopyIfDifferent | What::Metadata => {
                self.to.can_hold(dir, op)?;
                self.to.outcome(op)
            }
            What::Attributes | What::Nothing | What::Ask => Applied::Same,
        })
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        let key = self.key(dir, op);
        let (meta, target) = look(self.from, &key)?;
        let gone = || self.from.at(SyncError::new(ErrorKind::NotFound, "there is no such object"), "read", &key);
        (op.source, op.target) = (meta.ok_or_else(gone)?, target);
        Ok(())
    }

    fn make_dir(&self, parent: &Dir<'_>, name: &[u8], _: &Meta, replaced: Option<&Meta>) -> Result<()> {
        self.to.make_dir(parent, name, replaced)
    }

    fn finish_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        self.to.finish_dir(dir).map(|()| false)
    }

    fn remove_source(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        let (key, own) = (self.key(dir, op), self.to.key(dir, op));
        let one_name = self.from.store().name() == self.to.at.store().name() && self.from.key_of(&key) == self.to.at.key_of(&own);
        if one_name && let (Some(a), Some(b)) = (self.from.head(&key)?, self.to.at.head(&own)?) {
            // One bucket may have two addresses that nobody can tell to be one.
            if (&a.tag, a.modified) == (&b.tag, b.modified) {
                let error = SyncError::new(ErrorKind::Conflict, "its copy can't be told from itself");
                return Err(self.from.at(error.hint("are both sides one bucket?"), "remove the source", &key));
            }
        }
        remove_source(self.from, &key, op)
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

/// An object as content for another store. What passes by is summed in order, and compared with what its store has.
struct Object<'o> {
    from: &'o CloudEndpoint,
    /// Below the source.
    name: &'o [u8],
    key: Vec<u8>,
    head: Head,
    kinds: Kinds,
    passed: Mutex<Passed<'o>>,
    turn: Condvar,
}

struct Passed<'o> {
    at: u64,
    summer: Option<PartSummer<'o>>,
    done: Vec<Sums>,
    check: Check,
}

impl Object<'_> {
    /// Reads a range once more, where other parts than those that were expected have to be summed.
    fn sum(&self, range: Range<u64>, kinds: Kinds) -> Result<Sums> {
        let (mut summer, mut reader, mut piece) = (Summer::new(kinds), self.open(range)?, vec![0; 256 << 10]);
        loop {
            match reader.read(&mut piece).map_err(|error| read_error(&error))? {
                0 => return Ok(summer.finish()),
                n => summer.update(&piece[..n]),
            }
        }
    }
}

impl Content for Object<'_> {
    fn size(&self) -> u64 {
        self.head.size
    }

    fn open(&self, range: Range<u64>) -> Result<Box<dyn Read + '_>> {
        let tag = Some(self.head.tag.as_str()).filter(|tag| !tag.is_empty());
        let whole = range == (0..self.head.size);
        let length = range.end - range.start;
        if length == 0 {
            return Ok(Box::new(std::io::empty()));
        }
        let content = self.from.store().get(&self.key, if whole { None } else { Some(range) }, tag)?;
        Ok(Box::new(content.body.take(length)))
    }

    fn passed(&self, start: u64, bytes: &[u8], gone: &dyn Fn() -> bool) -> Result<()> {
        if self.kinds == Kinds::NONE {
            return Ok(());
        }
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        while passed.at < start {
            if gone() {
                return Err(SyncError::cancelled());
            }
            passed = self.turn.wait_timeout(passed, Duration::from_millis(20)).unwrap_or_else(PoisonError::into_inner).0;
        }
        if passed.at == start {
            if let Some(summer) = &mut passed.summer {
                summer.update(bytes);
            }
            passed.at += bytes.len() as u64;
            self.turn.notify_all();
        }
        Ok(())
    }

    /// Every range was asked for under the condition that it is still this object.
    fn still(&self) -> Result<()> {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        if self.kinds == Kinds::NONE || passed.at < self.head.size {
            return Ok(());
        }
        if let Some(summer) = passed.summer.take() {
            passed.done = summer.finish();
        }
        let Passed { check, done, .. } = &mut *passed;
        let right = match check {
            Check::Whole(stored) => done.first().and_then(|sums| sums.agree(stored)),
            _ => {
                let at = Whose { store: self.from.store(), key: &self.key, head: &self.head };
                check.judge(&at, Some(done), &|range, kinds| self.sum(range, kinds))?
            }
        };
        if right == Some(false) { Err(self.from.at(wrong(), "read", self.name)) } else { Ok(()) }
    }

    fn is_distant(&self) -> bool {
        true
    }

    fn mark(&self) -> u64 {
        hash(&format!("{} {}", self.head.tag, self.head.size))
    }
}
