//! How files and directories come to be, and go.
//!
//! Where files stand in directories a file is written under a temporary name and renamed when it is whole. Elsewhere an
//! object is there when its write ends, which is the service's own promise.

use std::sync::PoisonError;

use opendal::EntryMode;

use super::body::Pieces;
use super::path::{parent, says_something, tag_of};
use super::{OpenDal, errors};
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::cloud::http::Body;
use crate::transport::local::{Ours, ours};

/// Some WebDAV servers rename to what stands before such a character, whatever is there.
const TRICKY: [char; 3] = ['?', ';', '#'];

impl OpenDal {
    /// Makes a file, or a directory where the name ends with a slash. Returns its tag.
    pub fn write(&self, path: &str, body: Body<'_>) -> Result<String> {
        if path.ends_with('/') && self.service.directories {
            self.make_dir(path)?;
            return Ok(String::new());
        }
        if self.service.directories {
            let temporary = format!("{}{}", parent(path), String::from_utf8_lossy(&self.temporary.next()));
            let written = self.work.tries(|| self.send(&temporary, body)).and_then(|()| self.rename(&temporary, path));
            if let Err(error) = written {
                // The directory may be gone, or the name in the way of something.
                self.made.lock().unwrap_or_else(PoisonError::into_inner).remove(parent(path));
                let _ = self.work.clean_up(self.remove_now(&temporary));
                return Err(error);
            }
        } else {
            self.work.tries(|| self.send(path, body))?;
        }
        let found = self.stat(path)?.filter(|found| found.content_length() == body.len());
        let lost = || SyncError::new(ErrorKind::Verification, "what the service has is not what was sent").retryable();
        let tag = tag_of(&found.ok_or_else(lost)?);
        Ok(if says_something(&tag) { tag } else { String::new() })
    }

    fn make_dir(&self, path: &str) -> Result<()> {
        self.work.tries(|| self.work.wait(self.operator.create_dir(path)))?;
        // Some services say nothing when that fails.
        match self.stat(path)? {
            Some(_) => Ok(()),
            None => Err(SyncError::new(ErrorKind::PermissionDenied, "the service did not make the directory")),
        }
    }

    /// Sends content to a name.
    fn send(&self, path: &str, body: Body<'_>) -> Result<()> {
        let mut pieces = Pieces::new(body)?;
        if let Some(ftp) = &self.ftp {
            self.has_dir(parent(path))?;
            return ftp.store(&self.work, path, pieces);
        }
        if body.len() == 0 {
            return self.work.wait(self.operator.write(path, Vec::<u8>::new())).map(drop);
        }
        if !self.can.write_can_multi {
            return self.send_at_once(path, body.len(), pieces);
        }
        let mut writer = self.work.wait(self.operator.writer(path))?;
        let sent: Result<()> = (|| {
            while let Some(piece) = pieces.next()? {
                self.work.wait(writer.write(piece))?;
            }
            self.work.wait(writer.close()).map(drop)
        })();
        if sent.is_err() {
            let _ = self.work.clean_up(async { writer.abort().await.map_err(|error| errors::of(&error)) });
        }
        sent
    }

    /// For services that OpenDAL sends the whole content to in one request: that goes past it, see `http.rs`.
    fn send_at_once(&self, path: &str, length: u64, mut pieces: Pieces<'_>) -> Result<()> {
        let (ticket, content) = self.tickets.issue(length);
        let (operator, tickets, path, body) = (self.operator.clone(), self.tickets.clone(), path.to_owned(), ticket.clone());
        let request = self.work.spawn(async move {
            let answer = operator.write(&path, body.clone()).await;
            // It may have failed before the content was asked for.
            tickets.withdraw(&body);
            answer
        })?;
        let fed: Result<()> = (|| {
            while let Some(piece) = pieces.next()? {
                // Nobody listens any more: the answer is there, and says why.
                if self.work.wait_for(async { Ok(content.send(Ok(piece)).await) })?.is_err() {
                    break;
                }
            }
            Ok(())
        })();
        if let Err(error) = fed {
            request.abort();
            self.tickets.withdraw(&ticket);
            return Err(error);
        }
        drop(content);
        let aborter = request.abort_handle();
        let answered = self.work.wait_for(async {
            let lost = |_| SyncError::new(ErrorKind::Io, "the upload was cut short");
            request.await.map_err(lost)?.map(drop).map_err(|error| errors::of(&error))
        });
        aborter.abort();
        self.tickets.withdraw(&ticket);
        answered
    }

    /// Makes a directory unless it is known to be there.
    fn has_dir(&self, dir: &str) -> Result<()> {
        if dir.is_empty() || self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(dir) {
            return Ok(());
        }
        self.work.wait(self.operator.create_dir(dir))?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned());
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        if let Some(ftp) = &self.ftp {
            return self.work.wait_for(ftp.rename(from, to));
        }
        self.not_over_a_directory(to)?;
        let tricky: String = TRICKY.iter().filter(|&&c| to.contains(c)).collect();
        if tricky.is_empty() {
            return self.work.wait(self.operator.rename(from, to));
        }
        // Found out with a name of our own, lest a file of another name is lost.
        let with_mark = format!("{from}{tricky}");
        let tried = self.work.wait(self.operator.rename(from, &with_mark));
        match tried {
            Err(error) if error.retryable || error.kind == ErrorKind::Cancelled => return Err(error),
            Ok(()) if self.stat(&with_mark)?.is_some() => {}
            _ => return Err(SyncError::unsupported(format!("the server can't rename to a name that has {tricky} in it"))),
        }
        let renamed = self.work.wait(self.operator.rename(&with_mark, to));
        if renamed.is_err() {
            let _ = self.work.clean_up(self.remove_now(&with_mark));
        }
        renamed
    }

    /// WebDAV would replace a directory by a file, with all that is in it.
    fn not_over_a_directory(&self, path: &str) -> Result<()> {
        match self.work.wait(self.operator.stat(path)) {
            Ok(found) if found.mode() == EntryMode::DIR => Err(SyncError::new(ErrorKind::Conflict, "a directory stands in its place")),
            Ok(_) => Ok(()),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Has the service copy a file.
    pub fn duplicate(&self, from: &str, tag: &str, to: &str) -> Result<String> {
        let found = self.stat(from)?.ok_or_else(|| SyncError::new(ErrorKind::NotFound, "there is no such object"))?;
        if says_something(tag) && tag_of(&found) != tag {
            return Err(SyncError::new(ErrorKind::Conflict, "it changed since it was listed"));
        }
        self.not_over_a_directory(to)?;
        self.work.wait(self.operator.copy(from, to))?;
        let tag = self.stat(to)?.map(|found| tag_of(&found)).unwrap_or_default();
        Ok(if says_something(&tag) { tag } else { String::new() })
    }

    /// Removes a file, or an empty directory. What is not there counts as removed.
    pub fn remove(&self, path: &str) -> Result<()> {
        if self.service.directories {
            if path.ends_with('/') {
                self.must_be_empty(path)?;
                self.made.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
            } else if self.ftp.is_none() {
                self.not_over_a_directory(path)?;
            }
        }
        match self.work.tries(|| self.work.wait_for(self.remove_now(path))) {
            Err(error) if error.kind == ErrorKind::NotFound => match self.stat(path)? {
                None => Ok(()),
                // FTP has one number for both.
                Some(_) => Err(SyncError { kind: ErrorKind::PermissionDenied, ..error }),
            },
            other => other,
        }
    }

    async fn remove_now(&self, path: &str) -> Result<()> {
        match &self.ftp {
            Some(ftp) => ftp.remove(path).await,
            None => self.operator.delete(path).await.map_err(|error| errors::of(&error)),
        }
    }

    /// Some services remove a directory with all that is in it, such as files that are not ours to remove.
    fn must_be_empty(&self, dir: &str) -> Result<()> {
        let entries = match self.work.tries(|| self.work.wait(self.operator.list(dir))) {
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let name = entry.path().strip_prefix(dir).unwrap_or(entry.path());
            if matches!(name, "" | "./" | "../") {
                continue;
            }
            if ours(name.as_bytes()) != Some(Ours::Leftover) {
                return Err(SyncError::new(ErrorKind::Conflict, "the directory is not empty"));
            }
            self.work.wait_for(self.remove_now(entry.path()))?;
        }
        Ok(())
    }
}
