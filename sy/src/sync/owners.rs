//! Owners and groups by name: an entry gets the owner that has the same name on the other side. Where it has none there, or
//! none here, the number stays, as it does for root.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::transport::accounts::{Accounts, MOST, Who};
use crate::transport::{Capabilities, Endpoint, Found, Listing, Meta, NO_ID};

/// So many are remembered, at most.
const REMEMBERED: usize = 1 << 16;

/// Which owner at the destination stands for which of the source.
pub struct Owners<'r> {
    source: &'r dyn Accounts,
    dest: &'r dyn Accounts,
    known: Mutex<HashMap<(Who, u32), u32>>,
}

impl std::fmt::Debug for Owners<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owners").finish_non_exhaustive()
    }
}

impl<'r> Owners<'r> {
    pub fn new(source: &'r dyn Accounts, dest: &'r dyn Accounts) -> Self {
        Self { source, dest, known: Mutex::default() }
    }

    /// Gives entries of the source the owners that they are to have.
    pub fn translate<'m>(&self, metas: impl Iterator<Item = &'m mut Meta>) -> Result<()> {
        let mut metas: Vec<&mut Meta> = metas.filter(|meta| meta.known.owner).collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (who, of) in [(Who::User, (|meta| &mut meta.uid) as fn(&mut Meta) -> &mut u32), (Who::Group, |meta| &mut meta.gid)] {
            let mut new: Vec<u32> = metas.iter_mut().map(|meta| *of(meta)).filter(|id| *id != 0 && *id != NO_ID).collect();
            new.sort_unstable();
            new.dedup();
            if known.len() > REMEMBERED {
                known.clear();
            }
            new.retain(|id| !known.contains_key(&(who, *id)));
            for ids in new.chunks(MOST) {
                self.learn(who, ids, &mut known)?;
            }
            for meta in &mut metas {
                let id = of(meta);
                *id = known.get(&(who, *id)).copied().unwrap_or(*id);
            }
        }
        Ok(())
    }

    fn learn(&self, who: Who, ids: &[u32], known: &mut HashMap<(Who, u32), u32>) -> Result<()> {
        let names = self.source.names(who, ids)?;
        known.extend(ids.iter().map(|&id| ((who, id), id)));
        let named: Vec<(u32, &str)> = ids.iter().zip(&names).filter_map(|(&id, name)| Some((id, name.as_deref()?))).collect();
        if named.is_empty() {
            return Ok(());
        }
        let theirs = self.dest.ids(who, &named.iter().map(|(_, name)| *name).collect::<Vec<_>>())?;
        known.extend(named.iter().zip(theirs).filter_map(|(&(id, _), other)| Some(((who, id), other?))));
        Ok(())
    }
}

/// A source whose entries have the owners that they will have at the destination.
#[derive(Debug)]
pub struct Renamed<'r> {
    source: &'r dyn Endpoint,
    pub owners: Owners<'r>,
}

impl<'r> Renamed<'r> {
    pub fn new(source: &'r dyn Endpoint, owners: Owners<'r>) -> Self {
        Self { source, owners }
    }
}

impl Endpoint for Renamed<'_> {
    fn capabilities(&self) -> Capabilities {
        self.source.capabilities()
    }

    fn identity(&self) -> Vec<u8> {
        self.source.identity()
    }

    fn root_meta(&self) -> Result<Meta> {
        let mut meta = self.source.root_meta()?;
        self.owners.translate(std::iter::once(&mut meta))?;
        Ok(meta)
    }

    fn lists_ahead(&self) -> bool {
        self.source.lists_ahead()
    }

    fn list(&self, key: &[u8]) -> Result<Listing> {
        let mut listing = self.source.list(key)?;
        self.owners.translate(listing.metas_mut())?;
        Ok(listing)
    }

    fn stat(&self, dir: &[u8], name: &[u8]) -> Result<Option<Found>> {
        let mut found = self.source.stat(dir, name)?;
        self.owners.translate(found.iter_mut().map(|(meta, _)| meta))?;
        Ok(found)
    }

    fn read(&self, key: &[u8]) -> Result<Vec<u8>> {
        self.source.read(key)
    }

    fn path_of(&self, key: &[u8]) -> Vec<u8> {
        self.source.path_of(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Time, sample};
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// Users and groups alike.
    struct Side {
        accounts: Vec<(&'static str, u32)>,
        asked: AtomicUsize,
    }

    impl Side {
        fn new(accounts: &[(&'static str, u32)]) -> Self {
            Self { accounts: accounts.to_vec(), asked: AtomicUsize::new(0) }
        }
    }

    impl Accounts for Side {
        fn names(&self, _: Who, ids: &[u32]) -> Result<Vec<Option<String>>> {
            self.asked.fetch_add(1, Relaxed);
            Ok(ids.iter().map(|id| self.accounts.iter().find(|known| known.1 == *id).map(|known| known.0.to_owned())).collect())
        }

        fn ids(&self, _: Who, names: &[&str]) -> Result<Vec<Option<u32>>> {
            Ok(names.iter().map(|name| self.accounts.iter().find(|known| known.0 == *name).map(|known| known.1)).collect())
        }
    }

    fn owned(uid: u32, gid: u32) -> Meta {
        Meta { uid, gid, ..sample(1, Time::default()) }
    }

    #[test]
    fn names_decide_and_numbers_where_there_are_none() {
        let source = Side::new(&[("root", 0), ("ann", 1000), ("bob", 1001), ("only here", 7)]);
        let dest = Side::new(&[("toor", 0), ("ann", 1001), ("bob", 1000), ("root", 5), ("stranger", 8)]);
        let owners = Owners::new(&source, &dest);
        let mut metas = [owned(0, 1000), owned(1000, 1001), owned(1001, 7), owned(8, 9)];
        owners.translate(metas.iter_mut()).expect("known");
        assert_eq!(metas.map(|meta| (meta.uid, meta.gid)), [(0, 1001), (1001, 1000), (1000, 7), (8, 9)]);
    }

    #[test]
    fn nobody_is_asked_twice() {
        let source = Side::new(&[("ann", 1000)]);
        let owners = Owners::new(&source, &source);
        for _ in 0..3 {
            owners.translate([owned(1000, 1000), owned(5, 1000)].iter_mut()).expect("known");
        }
        assert_eq!(source.asked.load(Relaxed), 2, "once for users, once for groups");
    }
}
