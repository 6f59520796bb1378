//! Attributes of entries on a host, asked for by themselves.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::SshEndpoint;
use super::session::Reply;
use super::wire::attributes::{MOST, get_attributes, put_wish};
use super::wire::{Get, Kind, Put, body, garbled};
use super::writer::outcome;
use crate::error::Result;
use crate::transport::local::{Attributes, Keep};

/// What one message of them may hold.
pub const ROOM: u64 = (MOST as u64) * 3 / 2;
/// So many bytes of a whole directory are kept for a dry run.
const KEPT: usize = 4 << 20;

/// What an entry on a host has.
#[derive(Debug, Clone)]
pub struct Theirs {
    pub all: Attributes,
    /// The agent is the superuser's.
    root: bool,
}

impl Theirs {
    /// Would anything be changed there, if `own` were written?
    pub fn differ(&self, own: &Attributes, keep: Keep) -> bool {
        let keep = keep.as_root(self.root);
        keep.of_those(self.all.clone()) != keep.of_those(own.clone())
    }
}

fn request(dir: &[u8], keep: Keep) -> Put {
    let mut request = body();
    request.bytes(dir);
    put_wish(&mut request, keep);
    request
}

fn take(get: &mut Get<'_>) -> Result<Attributes> {
    outcome(get)?;
    Ok(get_attributes(get)?.unwrap_or_default())
}

impl SshEndpoint {
    /// The attributes of entries of a directory that `keep` has a use for. `each` hears of every one, in order.
    pub fn attributes(&self, dir: &[u8], names: &[&[u8]], keep: Keep, each: &mut dyn FnMut(usize, Result<Attributes>)) {
        let mut done = 0;
        while done < names.len() {
            let mut request = request(dir, keep);
            for name in &names[done..] {
                request.bytes(name);
            }
            let before = done;
            let answer = self.ask(Kind::Attributes, request).and_then(|answer| {
                let mut get = Get(&answer);
                get.bool()?;
                while !get.is_empty() && done < names.len() {
                    each(done, take(&mut get).map(|sent| keep.of_those(sent)).map_err(|error| self.at(error)));
                    done += 1;
                }
                if done > before { Ok(()) } else { Err(garbled("no attributes")) }
            });
            if let Err(error) = answer {
                (done..names.len()).for_each(|n| each(n, Err(error.clone())));
                return;
            }
        }
    }

    /// Asks for those of a directory itself; `dir_attributes` reads the answer.
    pub fn ask_dir_attributes(&self, dir: &[u8], keep: Keep) -> Result<Reply> {
        self.session()?.ask(Kind::DirAttributes, request(dir, keep))
    }

    pub fn dir_attributes(&self, answer: Result<Vec<u8>>) -> Result<Theirs> {
        let answer = answer.map_err(|error| self.at(error))?;
        let mut get = Get(&answer);
        let root = get.bool()?;
        Ok(Theirs { root, all: get_attributes(&mut get)?.unwrap_or_default() })
    }

    /// Those of all entries of a directory. `None`: they are too many.
    fn all_attributes(&self, dir: &[u8], keep: Keep) -> Result<Option<Entries>> {
        let (mut found, mut last, mut size) = (HashMap::new(), Vec::new(), 0);
        loop {
            let mut request = request(dir, keep);
            request.bytes(&last);
            let answer = self.ask(Kind::AllAttributes, request)?;
            size += answer.len();
            let mut get = Get(&answer);
            let root = get.bool()?;
            if get.is_empty() {
                return Ok(Some(found));
            }
            while !get.is_empty() {
                let name = get.name()?;
                if name <= last.as_slice() {
                    return Err(garbled("names in no order"));
                }
                last = name.to_vec();
                found.insert(last.clone(), take(&mut get).map(|all| Theirs { all, root }).map_err(|error| self.at(error)));
            }
            if size > KEPT {
                return Ok(None);
            }
        }
    }
}

type Entries = HashMap<Vec<u8>, Result<Theirs>>;

/// What a directory's entries have, asked for together, since a dry run looks at one after the other.
#[derive(Debug, Default)]
pub struct Seen(Mutex<Option<(Vec<u8>, Option<Entries>)>>);

impl Seen {
    pub fn get(&self, at: &SshEndpoint, dir: &[u8], name: &[u8], keep: Keep) -> Result<Theirs> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.as_ref().is_none_or(|(key, _)| key != dir) {
            *seen = Some((dir.to_vec(), at.all_attributes(dir, keep)?));
        }
        if let Some((_, Some(entries))) = &*seen
            && let Some(found) = entries.get(name)
        {
            return found.clone();
        }
        let mut request = request(dir, keep);
        request.bytes(name);
        let answer = at.ask(Kind::Attributes, request)?;
        let mut get = Get(&answer);
        let root = get.bool()?;
        take(&mut get).map(|all| Theirs { all, root }).map_err(|error| at.at(error))
    }
}
