//! Removes objects that the source does not have, if they are still what was listed.

use std::collections::HashMap;

use super::pages::Circle;
use super::spool::{hash, meta_of};
use super::store::{Query, Removal};
use super::writer::{CloudWriter, nothing};
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::{Doomed, Kind, Meta, split_key};

/// Up to so many are asked for one by one; more are listed again.
const FEW: usize = 3;

impl CloudWriter<'_> {
    /// Removes entries of one directory; `report` hears of each.
    pub fn remove(&self, doomed: &[Doomed], report: &mut dyn FnMut(&Doomed, Result<()>)) {
        // Of directories only those have to go that an object stands for.
        let object = |one: &Doomed| one.kind != Kind::Dir || one.ino != 0;
        for batch in doomed.chunks(self.features.deletes_at_once.max(1)) {
            let changed = self.changed(batch);
            let kept: Vec<Result<()>> = batch
                .iter()
                .enumerate()
                .map(|(n, one)| match &changed {
                    Err(error) => Err(error.clone()),
                    Ok(changed) if changed.contains(&n) => Err(is_changed()),
                    Ok(_) if one.kind == Kind::Dir => Ok(()),
                    Ok(_) => {
                        let meta = Meta { size: one.size, kind: one.kind, ino: one.ino, ..meta_of(&nothing()) };
                        self.keep_aside(&one.key, &meta, None)
                    }
                })
                .collect();
            let going: Vec<usize> = (0..batch.len()).filter(|&n| kept[n].is_ok() && object(&batch[n])).collect();
            let slash = |one: &Doomed| if one.kind == Kind::Dir { [&one.key[..], b"/"].concat() } else { one.key.clone() };
            let keys: Vec<Vec<u8>> = going.iter().map(|&n| self.at.key_of(&slash(&batch[n]))).collect();
            let removals: Vec<Removal<'_>> = going.iter().zip(&keys).map(|(&n, key)| Removal { key, tag: tag_of(&batch[n]) }).collect();
            let mut results = if removals.is_empty() { Vec::new() } else { self.store.delete(&removals) }.into_iter();
            for (n, kept) in kept.into_iter().enumerate() {
                let outcome = match kept {
                    Ok(()) if object(&batch[n]) => match results.next() {
                        Some(Err(error)) if error.kind == ErrorKind::Conflict => self.gone(&batch[n].key),
                        other => other.unwrap_or(Ok(())),
                    },
                    other => other,
                };
                report(&batch[n], outcome.map_err(|error| self.at.at(error, "delete", &batch[n].key)));
            }
        }
    }

    /// Another one is there, or somebody else was faster.
    fn gone(&self, key: &[u8]) -> Result<()> {
        if self.at.head(key)?.is_some() { Err(is_changed()) } else { Ok(()) }
    }

    /// Which of them are not what they were. A run can take hours from its listing to its deletions. Where the service does not
    /// bind a deletion to a tag, they are looked at just before: a list of their directory tells of a thousand at a time. What is
    /// gone has not changed.
    fn changed(&self, batch: &[Doomed]) -> Result<Vec<usize>> {
        let bound = |one: &Doomed| self.features.conditional_deletes && tag_of(one).is_some();
        let objects = || batch.iter().enumerate().filter(|(_, one)| one.kind != Kind::Dir && !bound(one));
        let Some((_, first)) = objects().next() else { return Ok(Vec::new()) };
        let differs = |one: &Doomed, tag: &str, size: u64| (one.ino, one.size) != (hash(tag), size);
        let few = objects().take(FEW + 1).count() <= FEW;
        let dir = split_key(&first.key).0;
        // A name that holds a slash, or ends in one, is not found in a list of its directory.
        let listed = |one: &Doomed| !few && split_key(&one.key).0 == dir && !one.key.ends_with(b"/");
        let mut changed = Vec::new();
        for (n, one) in objects().filter(|(_, one)| !listed(one)) {
            if self.at.head(&one.key)?.is_some_and(|head| differs(one, &head.tag, head.size)) {
                changed.push(n);
            }
        }
        let wanted: HashMap<Vec<u8>, usize> =
            objects().filter(|(_, one)| listed(one)).map(|(n, one)| (self.at.key_of(&one.key), n)).collect();
        let (Some(least), Some(last)) = (wanted.keys().min(), wanted.keys().max()) else { return Ok(changed) };
        let mut prefix = self.at.key_of(dir);
        if !dir.is_empty() {
            prefix.push(b'/');
        }
        // Without its last byte a key stands before itself.
        let after = Some(&least[..least.len() - 1])
            .filter(|after| self.features.begins_anywhere && after.len() > prefix.len() && std::str::from_utf8(after).is_ok());
        let (mut page, mut circle) = (None::<String>, Circle::default());
        loop {
            let found = self.store.list(&Query { prefix: &prefix, after, page: page.as_deref(), shallow: true, most: None })?;
            for object in &found.objects {
                if let Some(&n) = wanted.get(&object.key)
                    && differs(&batch[n], &object.tag, object.size)
                {
                    changed.push(n);
                }
            }
            let over = self.features.ordered && found.objects.last().is_some_and(|object| object.key >= *last);
            circle.check(found.next.as_deref())?;
            page = found.next.filter(|_| !over);
            if page.is_none() || self.control.should_stop() {
                return Ok(changed);
            }
        }
    }
}

/// The tag that a deletion is bound to.
fn tag_of(one: &Doomed) -> Option<&str> {
    let tag = one.tag.as_deref().filter(|_| one.kind != Kind::Dir).and_then(|tag| std::str::from_utf8(tag).ok());
    tag.filter(|tag| !tag.is_empty() && hash(tag) == one.ino)
}

pub fn is_changed() -> SyncError {
    SyncError::new(ErrorKind::Conflict, "it changed since it was listed").hint("nothing was deleted there; the next run will look again")
}
