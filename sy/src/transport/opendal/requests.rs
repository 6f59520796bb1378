//! What is asked of a service: one method for each kind of request. How things are written stands in `writes.rs`.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use opendal::options::{ListOptions, ReaderOptions};
use opendal::{EntryMode, Metadata};

use super::body::Download;
use super::path::{head_of, is_etag, says_something};
use super::{OpenDal, list};
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::cloud::attributes::Attributes;
use crate::transport::cloud::http::Body;
use crate::transport::cloud::store::{Content, Features, Head, If, Object, Origin, Page, Part, Query, Removal, Store};
use crate::transport::cloud::sums::{Kinds, Sums};

impl OpenDal {
    /// What stands under a name. One that ends with a slash is a directory's.
    pub fn stat(&self, path: &str) -> Result<Option<Metadata>> {
        let asked = self.work.tries(|| self.work.wait(self.operator.stat(path)));
        let is_dir = |found: &Metadata| found.mode() == EntryMode::DIR;
        match asked {
            Ok(found) => Ok((is_dir(&found) == path.ends_with('/')).then_some(found)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            // Some servers lead from a directory's name to the one with a slash. That is no object.
            Err(error) if error.kind == ErrorKind::Io && self.service.directories && !path.ends_with('/') => {
                match self.work.wait(self.operator.stat(&format!("{path}/"))) {
                    Ok(found) if is_dir(&found) => Ok(None),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// All that begins with `prefix` in the directory `dir`, and below.
    fn find(&self, dir: &str, query: &Query<'_>) -> Result<Vec<Object>> {
        let deep = !query.shallow;
        if self.service.directories {
            return self.work.wait_long(list::walk(&self.operator, self.names, dir, query.most, deep));
        }
        let options = ListOptions { recursive: deep, ..ListOptions::default() };
        let asked = if dir.is_empty() { "/" } else { dir };
        let entries = self
            .work
            .wait_long(async { self.operator.list_options(asked, options.clone()).await.map_err(|error| super::errors::of(&error)) })?;
        Ok(entries.iter().map(|entry| list::object(entry.path(), entry.metadata())).collect())
    }

    fn changed() -> SyncError {
        SyncError::new(ErrorKind::SourceChanged, "it changed while it was read").retryable()
    }
}

impl Store for OpenDal {
    fn features(&self) -> Features {
        Features {
            attributes: false,
            // They tell all there is.
            lists_attributes: true,
            // None of these services can bind a write both to a tag and to nothing being there.
            conditions: false,
            parts: false,
            min_part: 0,
            max_parts: 0,
            max_put: u64::MAX,
            copies_attributes: u64::MAX,
            sets_attributes: false,
            deletes_at_once: 1,
            conditional_deletes: false,
            directories: self.service.directories,
            ordered: false,
            begins_anywhere: false,
        }
    }

    fn wants(&self) -> Kinds {
        Kinds::NONE
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn bucket(&self) -> &str {
        &self.place
    }

    fn place(&self) -> String {
        format!("{} {}", self.realm(), self.name)
    }

    fn realm(&self) -> String {
        self.realm.clone()
    }

    fn list(&self, query: &Query<'_>) -> Result<Page> {
        let end = query.prefix.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        let dir = if end == 0 { "" } else { self.names.check(&query.prefix[..end])? };
        let mut page = Page::default();
        if self.service.directories && !dir.is_empty() {
            let Some(found) = self.stat(dir)? else { return Ok(page) };
            page.objects.push(list::object(dir, &found));
        }
        let found = self.work.tries(|| self.find(dir, query))?;
        page.objects.extend(found.into_iter().filter(|object| object.key != dir.as_bytes() || !self.service.directories));
        page.objects.retain(|object| object.key.starts_with(query.prefix));
        if query.shallow {
            // The directory that was asked for stands for itself, as its marker does in a bucket.
            let (dirs, objects): (Vec<Object>, Vec<Object>) =
                page.objects.into_iter().partition(|object| object.key.ends_with(b"/") && object.key != query.prefix);
            page.objects = objects;
            page.prefixes = dirs.into_iter().map(|object| object.key).collect();
        }
        Ok(page)
    }

    fn head(&self, key: &[u8]) -> Result<Option<Head>> {
        Ok(self.stat(self.names.check(key)?)?.map(|found| head_of(&found)))
    }

    fn get(&self, key: &[u8], range: Option<Range<u64>>, tag: Option<&str>) -> Result<Content> {
        let path = self.names.check(key)?;
        let found = self.stat(path)?.ok_or_else(|| SyncError::new(ErrorKind::NotFound, "there is no such object"))?;
        if found.mode() != EntryMode::FILE {
            return Err(SyncError::unsupported("it is not a plain file there"));
        }
        let head = head_of(&found);
        if tag.is_some_and(|tag| says_something(tag) && tag != head.tag) {
            return Err(Self::changed());
        }
        let range = range.unwrap_or(0..head.size);
        if range.is_empty() {
            return Ok(Content { head, body: Box::new(std::io::empty()) });
        }
        if let Some(ftp) = &self.ftp {
            let body = self.work.tries(|| ftp.read(&self.work, path, range.clone(), head.size))?;
            return Ok(Content { head, body: Box::new(body) });
        }
        // What is read is what was asked about, where the service can promise that.
        let if_match = (self.can.read_with_if_match && is_etag(&found, &head.tag)).then(|| head.tag.clone());
        let options = ReaderOptions { if_match, ..ReaderOptions::default() };
        let open = || async { self.operator.reader_options(path, options.clone()).await?.into_stream(range.clone()).await };
        let stream = self.work.tries(|| self.work.wait(open())).map_err(|error| match error.kind {
            ErrorKind::Conflict => Self::changed(),
            _ => error,
        })?;
        Ok(Content { head, body: Box::new(Download::new(self.work.clone(), stream)) })
    }

    fn put(&self, key: &[u8], body: Body<'_>, _: &Attributes, _: &Sums, when: If<'_>) -> Result<String> {
        if when != If::Always {
            return Err(SyncError::unsupported("the service can't write under a condition"));
        }
        self.write(self.names.check(key)?, body)
    }

    fn copy(&self, from: &Origin<'_>, key: &[u8], attributes: Option<&Attributes>, when: If<'_>) -> Result<String> {
        if !self.can.copy || attributes.is_some() || when != If::Always || from.bucket != self.place {
            return Err(SyncError::unsupported("the service can't copy"));
        }
        self.duplicate(self.names.check(from.key)?, from.tag, self.names.check(key)?)
    }

    fn delete(&self, removals: &[Removal<'_>]) -> Vec<Result<()>> {
        removals.iter().map(|one| self.remove(self.names.check(one.key)?)).collect()
    }

    fn begin(&self, _: &[u8], _: &Attributes) -> Result<String> {
        Err(in_parts())
    }

    fn put_part(&self, _: &[u8], _: &str, _: u32, _: Body<'_>, _: &Sums) -> Result<Part> {
        Err(in_parts())
    }

    fn parts(&self, _: &[u8], _: &str) -> Result<Option<Vec<Part>>> {
        Ok(None)
    }

    fn complete(&self, _: &[u8], _: &str, _: &[Part], _: &Attributes, _: &Sums, _: If<'_>) -> Result<String> {
        Err(in_parts())
    }

    fn abort(&self, _: &[u8], _: &str) {}

    fn connections(&self) -> Option<u64> {
        Some(self.service.connections)
    }

    fn part_size(&self) -> Option<u64> {
        None
    }

    fn requests(&self) -> u64 {
        self.work.begun.load(Relaxed)
    }
}

fn in_parts() -> SyncError {
    SyncError::unsupported("the service takes no uploads in parts")
}
