//! Lists all that is below a directory. Services of the kind that has real directories list one at a time, so several are
//! asked at once.

use futures_util::StreamExt;
use opendal::{EntryMode, Metadata, Operator};
use tokio::task::JoinSet;

use super::errors;
use super::path::{Names, tag_of, time_of};
use super::work::in_time;
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::cloud::attributes::Attributes;
use crate::transport::cloud::store::Object;
use crate::transport::local::is_ours;

/// Directories that are listed at a time.
const AT_ONCE: usize = 8;

/// One directory: what is in it, and the directories among that.
type Listed = (Vec<Object>, Vec<String>);

/// All objects below `dir`, which is empty or ends with a slash, with an object for each directory but `dir` itself. With `most`, at least so many if there are.
pub async fn walk(operator: &Operator, names: Names, dir: &str, most: Option<u32>, deep: bool) -> Result<Vec<Object>> {
    let mut waiting = vec![dir.to_owned()];
    let mut running = JoinSet::new();
    let mut all = Vec::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(next) = waiting.pop()
        {
            let operator = operator.clone();
            running.spawn(async move { in_time(directory(&operator, names, &next)).await });
        }
        let Some(done) = running.join_next().await else { return Ok(all) };
        let (objects, dirs) = done.map_err(|_| SyncError::new(ErrorKind::Io, "a listing was cut short"))??;
        all.extend(objects);
        if most.is_some_and(|most| all.len() >= most as usize) {
            return Ok(all);
        }
        if deep {
            waiting.extend(dirs);
        }
    }
}

async fn directory(operator: &Operator, names: Names, dir: &str) -> Result<Listed> {
    names.check(dir.as_bytes())?;
    let failed = |error: &opendal::Error| {
        let error = errors::of(error);
        // It was there a moment ago. Whether it is gone or must not be read can't be told from each other everywhere.
        let kind = if error.kind == ErrorKind::NotFound { ErrorKind::Io } else { error.kind };
        SyncError { kind, message: format!("{} (in {dir:?})", error.message), ..error }
    };
    let mut lister = operator.lister(if dir.is_empty() { "/" } else { dir }).await.map_err(|error| failed(&error))?;
    let (mut objects, mut dirs) = (Vec::new(), Vec::new());
    while let Some(entry) = lister.next().await {
        let entry = entry.map_err(|error| failed(&error))?;
        let path = entry.path();
        let Some(name) = name_in(dir, path)? else { continue };
        if is_ours(name.trim_end_matches('/').as_bytes()) {
            continue;
        }
        if name.ends_with('/') {
            dirs.push(path.to_owned());
        }
        objects.push(object(path, entry.metadata()));
    }
    Ok((objects, dirs))
}

/// The name of an entry of `dir`; `None` for the directory itself. A service must not lead anywhere else.
fn name_in<'p>(dir: &str, path: &'p str) -> Result<Option<&'p str>> {
    let strange = || SyncError::new(ErrorKind::Io, format!("the service listed {path:?} in {dir:?}"));
    if path == dir || dir.is_empty() && path == "/" {
        return Ok(None);
    }
    let name = path.strip_prefix(dir).ok_or_else(strange)?;
    match name.strip_suffix('/').unwrap_or(name) {
        "." | ".." => Ok(None),
        "" => Err(strange()),
        bare if bare.contains('/') => Err(strange()),
        _ => Ok(Some(name)),
    }
}

/// What is neither a file nor a directory, such as a symbolic link, counts as a file: it can't be read, and that will be said.
pub fn object(path: &str, metadata: &Metadata) -> Object {
    let is_dir = metadata.mode() == EntryMode::DIR;
    Object {
        key: path.as_bytes().to_vec(),
        size: if metadata.mode() == EntryMode::FILE { metadata.content_length() } else { 0 },
        modified: time_of(metadata),
        tag: if is_dir { String::new() } else { tag_of(metadata) },
        // There is nothing more to be known of it.
        attributes: Some(Attributes::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_directly_in_their_directory() {
        for (dir, path, name) in [("", "a", "a"), ("", "a/", "a/"), ("d/", "d/a b", "a b"), ("d/", "d/e/", "e/")] {
            assert_eq!(name_in(dir, path).expect(path), Some(name));
        }
        for (dir, path) in [("", "/"), ("d/", "d/"), ("d/", "d/."), ("d/", "d/../")] {
            assert_eq!(name_in(dir, path).expect(path), None);
        }
        for (dir, path) in [("d/", "e/a"), ("d/", "d/a/b"), ("d/", "d//"), ("d/", "../a"), ("", "http://h/d/a")] {
            assert!(name_in(dir, path).is_err(), "{path}");
        }
    }
}
