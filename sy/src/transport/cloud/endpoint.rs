//! A bucket, or what is below a prefix of one, as an endpoint.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use super::spool::{Spool, as_listed, dir_meta, hash, meta_of};
use super::store::{Head, Object, Query, Store};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Stop;
use crate::transport::{Capabilities, Endpoint, Found, Listing, Meta, child_key};

/// An open prefix of a bucket.
#[derive(Debug)]
pub struct CloudEndpoint {
    store: Box<dyn Store>,
    /// Empty, or with a slash at the end.
    prefix: Vec<u8>,
    /// What was listed so far, by the key of the directory that it begins with.
    spools: Mutex<Vec<(Vec<u8>, Arc<Spool>)>>,
    stop: Stop,
    /// An empty prefix is no directory.
    must_exist: bool,
}

impl CloudEndpoint {
    /// `path` is a key without a slash at the end, or empty for the whole bucket.
    pub fn new(store: Box<dyn Store>, path: &[u8], stop: Stop, must_exist: bool) -> Self {
        let mut prefix = path.to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        Self { store, prefix, spools: Mutex::default(), stop, must_exist }
    }

    /// The same store from another prefix, before anything was listed.
    #[must_use]
    pub fn at_prefix(self, path: &[u8]) -> Self {
        Self::new(self.store, path, self.stop, self.must_exist)
    }

    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// How many connections the store may have, if that is limited.
    pub fn connections(&self) -> Option<u64> {
        self.store.connections()
    }

    /// The whole key in the bucket.
    pub fn key_of(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }

    /// Is there anything below?
    pub fn holds_anything(&self, key: &[u8]) -> Result<bool> {
        let mut prefix = self.key_of(key);
        if !key.is_empty() {
            prefix.push(b'/');
        }
        let page =
            self.store.list(&Query { prefix: &prefix, most: Some(1), ..Query::default() }).map_err(|error| self.at(error, "list", key))?;
        Ok(!page.objects.is_empty())
    }

    pub fn head(&self, key: &[u8]) -> Result<Option<Head>> {
        self.store.head(&self.key_of(key)).map_err(|error| self.at(error, "read", key))
    }

    /// An error with the place where it happened.
    pub fn at(&self, error: SyncError, action: &'static str, key: &[u8]) -> SyncError {
        if error.kind == ErrorKind::Cancelled || error.path.is_some() { error } else { error.at(action, self.path_of(key)) }
    }

    fn spool(&self, key: &[u8]) -> Result<(Vec<u8>, Arc<Spool>)> {
        // Held while it is read: others want the same.
        let mut spools = self.spools.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |root: &[u8]| root.is_empty() || key == root || key.strip_prefix(root).is_some_and(|rest| rest.starts_with(b"/"));
        if let Some((root, spool)) = spools.iter().find(|(root, _)| holds(root)) {
            return Ok((root.clone(), Arc::clone(spool)));
        }
        let mut prefix = self.key_of(key);
        if !key.is_empty() {
            prefix.push(b'/');
        }
        let spool = Arc::new(Spool::read(&*self.store, &prefix, &self.stop).map_err(|error| self.at(error, "list", key))?);
        spools.push((key.to_vec(), Arc::clone(&spool)));
        Ok((key.to_vec(), spool))
    }
}

/// What is known of an object that was asked for.
pub fn meta_of_head(head: &Head) -> Meta {
    let object =
        Object { key: Vec::new(), size: head.size, modified: head.modified, tag: String::new(), attributes: Some(head.attributes.clone()) };
    Meta { ino: hash(&head.tag), ..meta_of(&object) }
}

pub fn tag_of(head: &Head) -> Box<[u8]> {
    head.tag.clone().into_bytes().into_boxed_slice()
}

impl Endpoint for CloudEndpoint {
    fn capabilities(&self) -> Capabilities {
        let features = self.store.features();
        Capabilities {
            mtime_precision: 1,
            xattrs: false,
            acls: false,
            owner: features.attributes,
            hard_links: false,
            devices: false,
            links: features.attributes,
            trash: false,
            any_name: !features.directories,
        }
    }

    fn identity(&self) -> Vec<u8> {
        [self.store.place().as_bytes(), b"/", &self.prefix].concat()
    }

    fn root_meta(&self) -> Result<Meta> {
        Ok(dir_meta(false))
    }

    fn list(&self, key: &[u8]) -> Result<Listing> {
        let (root, spool) = self.spool(key)?;
        if key.is_empty() && spool.is_empty() && self.must_exist && !self.prefix.is_empty() {
            return Err(SyncError::new(ErrorKind::NotFound, "nothing is there").at("open the source", self.path_of(b"")));
        }
        let below = if root.is_empty() { key } else { key[root.len()..].strip_prefix(b"/").unwrap_or_default() };
        spool.list(below).map_err(|error| self.at(error, "list", key))
    }

    fn stat(&self, dir: &[u8], name: &[u8]) -> Result<Option<Found>> {
        let key = child_key(dir, name);
        if let Some(head) = self.head(&key)? {
            return Ok(Some((as_listed(meta_of_head(&head)), Some(tag_of(&head)))));
        }
        Ok(if self.holds_anything(&key)? { Some((dir_meta(false), None)) } else { None })
    }

    /// At most 16 MiB.
    fn read(&self, key: &[u8]) -> Result<Vec<u8>> {
        const MOST: u64 = 16 << 20;
        let content = self.store.get(&self.key_of(key), None, None).map_err(|error| self.at(error, "read", key))?;
        if content.head.size > MOST {
            return Err(SyncError::new(ErrorKind::Io, "larger than 16 MiB").at("read rules from", self.path_of(key)));
        }
        let mut bytes = Vec::new();
        content.body.take(MOST).read_to_end(&mut bytes).map_err(|error| {
            SyncError::new(ErrorKind::Network, format!("the connection failed: {error}")).retryable().at("read", self.path_of(key))
        })?;
        Ok(bytes)
    }

    fn path_of(&self, key: &[u8]) -> Vec<u8> {
        [self.store.name().as_bytes(), b"/", &self.prefix, key].concat()
    }
}
