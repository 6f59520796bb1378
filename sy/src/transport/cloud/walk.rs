//! Goes through the keys below a prefix, page by page, and tells entries: objects, and the directories that their keys name.
//!
//! Nothing is gathered, so a bucket of any size can be listed. What a key means is told as in `spool`.

use std::collections::HashSet;
use std::sync::mpsc::sync_channel;

use super::endpoint::meta_of_head;
use super::pages::Circle;
use super::spool::{components, dir_meta, meta_of};
use super::store::{Object, Page, Query, Store};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Stop;
use crate::transport::Meta;

/// Pages that wait to be told of while the next is on its way.
const AHEAD: usize = 2;

/// What is told.
#[derive(Debug)]
pub enum Seen {
    /// Its key, relative to the prefix, and what is known of it.
    Entry(Vec<u8>, Meta),
    /// The end of a page.
    Page,
}

type Take<'t> = dyn FnMut(Seen) + 't;

/// The object that has this very key.
pub fn single(store: &dyn Store, key: &[u8]) -> Result<Option<Meta>> {
    if !store.features().ordered {
        return Ok(store.head(key)?.map(|head| meta_of_head(&head)));
    }
    // Among all that begin like this it is the first. One who may list need not be one who may read.
    let page = store.list(&Query { prefix: key, most: Some(1), ..Query::default() })?;
    Ok(page.objects.first().filter(|object| object.key == key).map(meta_of))
}

/// Tells what is below `prefix`, which is empty or ends in a slash, `depth` levels deep or all of it. Returns whether there
/// was anything, be it only an object that stands for the directory.
pub fn walk(store: &dyn Store, prefix: &[u8], depth: Option<u32>, stop: &Stop, take: &mut Take<'_>) -> Result<bool> {
    match depth {
        None => deep(store, prefix, stop, take),
        Some(depth) => shallow(store, prefix, prefix.len(), depth, stop, take),
    }
}

/// One listing of all keys.
fn deep(store: &dyn Store, prefix: &[u8], stop: &Stop, take: &mut Take<'_>) -> Result<bool> {
    let mut path = Path::default();
    let mut any = false;
    pages(store, prefix, false, stop, &mut |page| {
        for object in &page.objects {
            any = true;
            let Some(key) = object.key.strip_prefix(prefix) else { return Err(not_asked_for()) };
            let (dirs, rest) = components(key, object.size);
            path.enter(key, &dirs, rest.is_empty(), take);
            if !rest.is_empty() {
                take(Seen::Entry(key.to_vec(), meta_of(object)));
            }
        }
        take(Seen::Page);
        Ok(())
    })?;
    Ok(any)
}

/// A listing for each directory. `base` is where the keys that are told begin.
fn shallow(store: &dyn Store, prefix: &[u8], base: usize, depth: u32, stop: &Stop, take: &mut Take<'_>) -> Result<bool> {
    let mut any = false;
    pages(store, prefix, true, stop, &mut |page| {
        let Page { objects, mut prefixes, .. } = page;
        prefixes.sort_unstable();
        let mut prefixes = prefixes.into_iter().peekable();
        for object in objects {
            any = true;
            while let Some(dir) = prefixes.next_if(|dir| *dir < object.key) {
                below(store, prefix, &dir, base, depth, stop, take)?;
            }
            if object.key.len() <= prefix.len() {
                // It stands for the directory itself.
                continue;
            }
            let Some(key) = object.key.get(base..) else { return Err(not_asked_for()) };
            take(Seen::Entry(key.to_vec(), meta_of(&object)));
        }
        for dir in prefixes {
            any = true;
            below(store, prefix, &dir, base, depth, stop, take)?;
        }
        take(Seen::Page);
        Ok(())
    })?;
    Ok(any)
}

/// What a listing shows as `dir`: a directory, or keys with an empty component, which no directory has.
fn below(store: &dyn Store, prefix: &[u8], dir: &[u8], base: usize, depth: u32, stop: &Stop, take: &mut Take<'_>) -> Result<()> {
    let Some(name) = dir.strip_prefix(prefix).and_then(|name| name.strip_suffix(b"/")) else { return Err(not_asked_for()) };
    if name.is_empty() {
        return pages(store, dir, false, stop, &mut |page| {
            page.objects.iter().for_each(|object: &Object| take(Seen::Entry(object.key[base..].to_vec(), meta_of(object))));
            Ok(())
        });
    }
    take(Seen::Entry(dir[base..dir.len() - 1].to_vec(), dir_meta(false)));
    if depth > 1 { shallow(store, dir, base, depth - 1, stop, take).map(drop) } else { Ok(()) }
}

/// The directories that the last key named, so that each is told of once.
#[derive(Default)]
struct Path {
    open: Vec<Vec<u8>>,
    last: Vec<u8>,
    /// All directories so far, once keys have come out of order.
    told: Option<HashSet<Vec<u8>>>,
}

impl Path {
    fn enter(&mut self, key: &[u8], dirs: &[&[u8]], marker: bool, take: &mut Take<'_>) {
        if key < self.last.as_slice() && self.told.is_none() {
            let whole = |n: usize| self.open[..=n].join(&b'/');
            self.told = Some((0..self.open.len()).map(whole).collect());
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        let same = self.open.iter().zip(dirs).take_while(|(open, dir)| open == *dir).count();
        self.open.truncate(same);
        for dir in &dirs[same..] {
            self.open.push(dir.to_vec());
            let whole = self.open.join(&b'/');
            if self.told.as_mut().is_none_or(|told| told.insert(whole.clone())) {
                take(Seen::Entry(whole, dir_meta(marker && self.open.len() == dirs.len())));
            }
        }
    }
}

/// All pages of a listing. The next one is asked for while one is told of.
fn pages(store: &dyn Store, prefix: &[u8], shallow: bool, stop: &Stop, take: &mut dyn FnMut(Page) -> Result<()>) -> Result<()> {
    let mut next: Option<String> = None;
    let mut circle = Circle::default();
    let mut ask = move || {
        if stop.is_set() {
            return Err(SyncError::cancelled());
        }
        let page = store.list(&Query { prefix, page: next.as_deref(), shallow, ..Query::default() })?;
        circle.check(page.next.as_deref())?;
        next.clone_from(&page.next);
        Ok(page)
    };
    let first = ask()?;
    if first.next.is_none() {
        return take(first);
    }
    std::thread::scope(|threads| {
        let (sender, receiver) = sync_channel(AHEAD);
        let spawned = std::thread::Builder::new().name("sypy-list".into()).spawn_scoped(threads, move || {
            loop {
                let page = ask();
                let more = page.as_ref().is_ok_and(|page| page.next.is_some());
                if sender.send(page).is_err() || !more {
                    return;
                }
            }
        });
        spawned.map_err(|error| SyncError::new(ErrorKind::Io, format!("can't start a thread: {error}")))?;
        take(first)?;
        receiver.into_iter().try_for_each(|page| take(page?))
    })
}

fn not_asked_for() -> SyncError {
    SyncError::new(ErrorKind::Io, "the service listed a key that was not asked for")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(keys: &[&str]) -> Vec<String> {
        let (mut path, mut all) = (Path::default(), Vec::new());
        for key in keys {
            let (dirs, rest) = components(key.as_bytes(), 0);
            path.enter(key.as_bytes(), &dirs, rest.is_empty(), &mut |seen| {
                if let Seen::Entry(key, _) = seen {
                    all.push(String::from_utf8(key).expect("text"));
                }
            });
        }
        all
    }

    #[test]
    fn a_directory_is_told_before_what_is_in_it_and_once() {
        assert_eq!(told(&["a", "a/b/c", "a/b/d", "a/e", "a0/f", "b/", "b/c/"]), ["a", "a/b", "a0", "b", "b/c"]);
        assert_eq!(told(&["a//b", "a/c/d", "//x"]), ["a", "a/c"]);
    }

    #[test]
    fn a_directory_is_told_once_also_out_of_order() {
        assert_eq!(told(&["b/x", "a/x", "b/y", "a/y", "b/c/z"]), ["b", "a", "b/c"]);
    }
}
