//! The metadata of what comes from a host.

use std::os::fd::AsFd;

use super::PullLane;
use crate::error::{Result, SyncError};
use crate::sync::Dir;
use crate::transport::local::Attributes;
use crate::transport::ssh::attributes::ROOM;
use crate::transport::ssh::wire::garbled;
use crate::transport::{Done, Kind, Op, What};

impl PullLane<'_> {
    /// What this side has a use for of what was sent.
    pub fn kept(&self, sent: Option<Attributes>) -> Option<Attributes> {
        sent.map(|sent| self.to.keep.of_those(sent))
    }

    /// The attributes of a small file that has too many of them to come along.
    pub fn many_attributes(&self, dir: &Dir<'_>, op: &Op) -> Result<Attributes> {
        let mut found = Err(garbled("no attributes"));
        self.from.attributes(&dir.key, &[op.source_name()], self.to.keep, &mut |_, attributes| found = attributes);
        found
    }

    /// Sets metadata where the content is the same, makes what has no content.
    pub fn describe(&self, dir: &Dir<'_>, op: &Op, wanted: Option<&Attributes>) -> Result<Done> {
        let same_content = matches!(op.what, What::Metadata | What::Attributes) || op.source.kind == Kind::File;
        let done = if same_content { self.to.set_metadata(dir, op, wanted) } else { self.to.make_other(dir, op, wanted) };
        done.map(Done::from)
    }

    /// The same for several, of which some may have attributes.
    pub fn describe_all(&self, dir: &Dir<'_>, ops: &mut [Op], which: &[usize], report: &mut dyn FnMut(&mut Op, Result<Done>)) {
        let (ask, rest): (Vec<usize>, Vec<usize>) = which.iter().partition(|&&n| self.to.keep.reads_attributes(ops[n].source.kind));
        for n in rest {
            let done = self.describe(dir, &ops[n], None);
            report(&mut ops[n], done);
        }
        if ask.is_empty() {
            return;
        }
        if !self.window.take(ROOM, self.from.stop()) {
            return ask.into_iter().for_each(|n| report(&mut ops[n], Err(SyncError::cancelled())));
        }
        let names: Vec<Vec<u8>> = ask.iter().map(|&n| ops[n].source_name().to_vec()).collect();
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        self.from.attributes(&dir.key, &names, self.to.keep, &mut |at, attributes| {
            let op = &mut ops[ask[at]];
            let done = attributes.and_then(|wanted| self.describe(dir, op, Some(&wanted)));
            report(op, done);
        });
        self.window.give_back(ROOM);
    }

    /// Finishes a directory, after its attributes have come if such are kept; `settle` waits for that.
    pub fn finish_later(&self, dir: &Dir<'_>) -> Result<bool> {
        if !self.to.keep.reads_attributes(Kind::Dir) || dir.like.is_none() || self.control.should_stop() {
            return self.to.finish_dir(dir, &mut || Err(garbled("no attributes")));
        }
        let reply = self.from.ask_dir_attributes(&dir.key, self.to.keep)?;
        self.finishing.add(dir, reply, &|dir, answer| self.finish(dir, answer));
        Ok(false)
    }

    /// Has the directory here other attributes than it is to have?
    pub fn dir_attributes_differ(&self, dir: &Dir<'_>) -> Result<bool> {
        if !self.to.keep.reads_attributes(Kind::Dir) || dir.like.is_none() {
            return Ok(false);
        }
        let theirs = self.from.dir_attributes(self.from.ask_dir_attributes(&dir.key, self.to.keep)?.done())?;
        let has = self.to.keep.attributes(self.to.dest_dir(dir)?.as_fd());
        let has = has.map_err(|errno| SyncError::os(errno, "read the attributes of", self.to.root.path_of(&dir.key)))?;
        Ok(self.to.keep.of_those(theirs.all) != has)
    }

    /// Sets the metadata of a directory, once the other side said what attributes it has.
    pub fn finish(&self, dir: &Dir<'_>, answer: Result<Vec<u8>>) -> Result<bool> {
        let answer = match answer {
            // Its content is in place; that the connection was cut since then is no reason to leave it unfinished.
            Err(error) if error.retryable && !self.control.should_stop() => self.from.ask_dir_attributes(&dir.key, self.to.keep)?.done(),
            answer => answer,
        };
        let theirs = self.from.dir_attributes(answer)?;
        self.to.finish_dir(dir, &mut || Ok(self.to.keep.of_those(theirs.all.clone())))
    }
}
