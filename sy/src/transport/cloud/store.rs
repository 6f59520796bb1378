//! What an object store does: the trait that each provider fills in, and what passes through it.
//!
//! Keys are bytes as the store has them, whole, not relative to a prefix. A method is one request, sent again by `Http` where
//! that may help; what is larger than a request is put together above (`upload.rs`, `download.rs`).

use std::io::Read;
use std::ops::Range;

use super::attributes::Attributes;
use super::composite::Composite;
use super::http::Body;
use super::sums::{Kinds, Sums};
use crate::error::Result;
use crate::transport::Time;

/// What a store can do. Nothing above tests for a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Objects carry metadata of ours.
    pub attributes: bool,
    /// A listing tells the metadata.
    pub lists_attributes: bool,
    /// Writes can be bound to what is there.
    pub conditions: bool,
    /// Uploads in parts that can be gone on with.
    pub parts: bool,
    /// Parts but the last have at least this size.
    pub min_part: u64,
    pub max_parts: u64,
    /// The largest object that one `put` can make.
    pub max_put: u64,
    /// Larger objects lose their attributes when the service copies them, unless they are sent along.
    pub copies_attributes: u64,
    /// Attributes can be set without sending the content again.
    pub sets_attributes: bool,
    /// Keys to a `delete`.
    pub deletes_at_once: usize,
    /// A deletion that is bound to a tag is certain to leave what has another one.
    pub conditional_deletes: bool,
    /// Objects stand in real directories, which stay when they are empty.
    pub directories: bool,
    /// Listings come in the byte order of the keys.
    pub ordered: bool,
    /// A listing can begin behind any key, and costs no more for it.
    pub begins_anywhere: bool,
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub key: Vec<u8>,
    pub size: u64,
    /// When it was put there; the time of the file it came from stands in the attributes.
    pub modified: Time,
    /// ETag or generation: changes with the content.
    pub tag: String,
    /// `None`: the listing does not tell.
    pub attributes: Option<Attributes>,
}

/// A part of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub objects: Vec<Object>,
    /// With a delimiter, what else begins like this; each ends with a slash.
    pub prefixes: Vec<Vec<u8>>,
    /// Where to go on; `None` at the end.
    pub next: Option<String>,
}

/// What to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<'q> {
    pub prefix: &'q [u8],
    /// Only keys after this one. Only where listings are ordered.
    pub after: Option<&'q [u8]>,
    /// Go on with a page.
    pub page: Option<&'q str>,
    /// Only up to the next slash after the prefix.
    pub shallow: bool,
    /// At most so many; the store's own limit otherwise.
    pub most: Option<u32>,
}

/// All that a store says of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub size: u64,
    pub modified: Time,
    pub tag: String,
    pub attributes: Attributes,
    /// Sums of the whole content.
    pub sums: Sums,
    /// Where it was made from parts, and no sum of the whole is known.
    pub composite: Option<Composite>,
}

/// An object's content, or a range of it.
pub struct Content {
    /// Of the whole object.
    pub head: Head,
    pub body: Box<dyn Read>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("head", &self.head).finish_non_exhaustive()
    }
}

/// Under which condition a write may happen. Where it does not hold, the error is a `Conflict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum If<'t> {
    Always,
    /// Nothing is there.
    Absent,
    /// What is there has this tag.
    Tag(&'t str),
}

/// An object that is to go, if it has that tag.
#[derive(Debug, Clone, Copy)]
pub struct Removal<'k> {
    pub key: &'k [u8],
    pub tag: Option<&'k str>,
}

/// A part of an upload that the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// From 1.
    pub number: u32,
    pub size: u64,
    pub tag: String,
    pub sums: Sums,
}

/// Where a copy within a provider comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'o> {
    pub bucket: &'o str,
    pub key: &'o [u8],
    pub tag: &'o str,
    pub size: u64,
}

/// A bucket or container of an object store. Used from many threads at a time.
pub trait Store: Send + Sync + std::fmt::Debug {
    fn features(&self) -> Features;

    /// Can there be an object with that key?
    fn admits(&self, _key: &[u8]) -> Result<()> {
        Ok(())
    }

    /// What every new object gets besides its attributes, such as its encryption.
    fn manner(&self) -> String {
        String::new()
    }

    /// Which sums a write should bring along, so that the store can check what arrived.
    fn wants(&self) -> Kinds;

    /// Scheme and bucket, as in `s3://bucket`.
    fn name(&self) -> String;

    fn bucket(&self) -> &str;

    /// What tells this store's service and account from others: between two stores of one realm objects can be copied
    /// by the service. No secrets.
    fn realm(&self) -> String;

    /// Where the objects are, whoever asks: the same for every account that can reach them.
    fn place(&self) -> String;

    /// Who signs requests right now, where the realm does not tell: one may not read what another may.
    fn signer(&self) -> Option<String> {
        None
    }

    fn list(&self, query: &Query<'_>) -> Result<Page>;

    /// `None` if there is no such object.
    fn head(&self, key: &[u8]) -> Result<Option<Head>>;

    /// The size of one of the parts that an object was made from, from 1; `None` if the store does not tell.
    fn part_length(&self, _key: &[u8], _number: u32) -> Result<Option<u64>> {
        Ok(None)
    }

    /// The content, or a range of it. `tag`: only if that is still what is there; `SourceChanged` otherwise.
    fn get(&self, key: &[u8], range: Option<Range<u64>>, tag: Option<&str>) -> Result<Content>;

    /// Makes the object, whole. Returns its tag.
    fn put(&self, key: &[u8], body: Body<'_>, attributes: &Attributes, sums: &Sums, when: If<'_>) -> Result<String>;

    /// Copies within the provider; `attributes` replace those of the origin. Returns the tag.
    fn copy(&self, from: &Origin<'_>, key: &[u8], attributes: Option<&Attributes>, when: If<'_>) -> Result<String>;

    /// Removes objects, at most `deletes_at_once`; one result for each. What is not there counts as removed; what has another
    /// tag is a `Conflict`, where the service knows conditions.
    fn delete(&self, removals: &[Removal<'_>]) -> Vec<Result<()>>;

    /// Begins an upload in parts and names it.
    fn begin(&self, key: &[u8], attributes: &Attributes) -> Result<String>;

    fn put_part(&self, key: &[u8], upload: &str, number: u32, body: Body<'_>, sums: &Sums) -> Result<Part>;

    /// The parts that are there; `None` if there is no such upload.
    fn parts(&self, key: &[u8], upload: &str) -> Result<Option<Vec<Part>>>;

    /// Makes the object from its parts. `sums` are of the whole. Returns the tag.
    fn complete(&self, key: &[u8], upload: &str, parts: &[Part], attributes: &Attributes, sums: &Sums, when: If<'_>) -> Result<String>;

    /// Gives an upload up, also after the run was stopped.
    fn abort(&self, key: &[u8], upload: &str);

    /// Connections at a time, if they are limited.
    fn connections(&self) -> Option<u64>;

    /// Size of parts, if somebody wants a certain one.
    fn part_size(&self) -> Option<u64>;

    /// Requests sent so far.
    fn requests(&self) -> u64;

    /// How often the service has asked for fewer of them.
    fn throttled(&self) -> u64 {
        0
    }
}
