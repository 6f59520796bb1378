//! What is asked of Azure: one method for each kind of request.

use std::io::Read;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::Method;

use super::super::attributes::{Attributes, TimeStyle};
use super::super::http::{Answer, Body, Request};
use super::super::store::{Content, Features, Head, If, Origin, Page, Part, Query, Removal, Store};
use super::super::sums::{Kinds, Summer, Sums, base64};
use super::super::{WHOLE, bare, deletes, quoted, uri};
use super::{Azure, answers};
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::Time;

const MIB: u64 = 1 << 20;
/// How long to wait for a copy before asking how far it is.
const COPYING: Duration = Duration::from_millis(300);

impl Azure {
    fn request<'b>(&self, method: Method, key: &[u8], query: &str) -> Result<Request<'b>> {
        match std::str::from_utf8(key) {
            Err(_) => return Err(SyncError::unsupported("a key in Azure must be UTF-8")),
            Ok(key) if key.chars().count() > 1024 => return Err(SyncError::unsupported("a key in Azure has at most 1,024 characters")),
            // The service takes it for a slash, and so would write to another key.
            Ok(key) if key.contains('\\') => return Err(SyncError::unsupported("a key in Azure can't have a backslash in it")),
            Ok(_) => {}
        }
        let mark = if query.is_empty() { "" } else { "?" };
        Ok(Request::new(method, format!("{}/{}{mark}{query}", self.settings.base, uri::encode_key(key))))
    }

    fn send(&self, request: &Request<'_>) -> Result<Answer> {
        self.http.send(self, request)
    }

    fn text(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        self.http.text(self.send(request)?)
    }

    /// A write that was sent twice may meet itself: is what is there what was sent?
    fn is_ours(&self, key: &[u8], body: Body<'_>, sums: &Sums) -> Option<String> {
        let head = Store::head(self, key).ok()??;
        if head.size != body.len() {
            return None;
        }
        let same = match head.sums.agree(sums) {
            Some(same) => same,
            None => sum(body, head.sums.best()).ok()?.agree(&head.sums) == Some(true),
        };
        same.then_some(head.tag)
    }

    fn url_of(&self, from: &Origin<'_>) -> String {
        format!("{}/{}/{}", self.settings.endpoint, uri::encode_value(from.bucket.as_bytes()), uri::encode_key(from.key))
    }

    fn origin(&self, from: &Origin<'_>) -> Result<String> {
        if from.key.split(|&b| b == b'/').any(|part| matches!(part, b"." | b"..")) {
            return Err(SyncError::unsupported("Azure can't copy from a key that has . or .. between slashes"));
        }
        let url = self.url_of(from);
        Ok(match self.credentials.sas_token()? {
            Some(token) => format!("{url}?{token}"),
            None => url,
        })
    }

    /// The metadata of an object that is not ours to change: others' notes, and the check sum of the whole.
    fn foreign(&self, from: &Origin<'_>) -> Result<Vec<(String, String)>> {
        let answer = self.send(&Request::new(Method::HEAD, self.url_of(from)).header("if-match", quoted(from.tag)))?;
        let ours = |name: &str| ["mtime", "mode", "uid", "gid"].iter().any(|own| name.eq_ignore_ascii_case(own));
        Ok(answers::metadata(&answer.headers)
            .filter(|(name, _)| !ours(name))
            .map(|(name, value)| (format!("x-ms-meta-{name}"), value.to_owned()))
            .collect())
    }

    fn set_metadata(&self, from: &Origin<'_>, attributes: &Attributes) -> Result<String> {
        let mut request = self.request(Method::PUT, from.key, "comp=metadata")?.header("if-match", quoted(from.tag));
        request.named = self.foreign(from)?;
        request.named.extend(pairs(attributes));
        Ok(bare(self.send(&request)?.header("etag").unwrap_or_default()))
    }

    /// Waits until a copy is there. When the run is stopped before, the service carries it through by itself.
    fn copied(&self, key: &[u8], mut answer: Answer) -> Result<String> {
        loop {
            match answer.header("x-ms-copy-status") {
                Some("pending") => std::thread::sleep(COPYING),
                None | Some("success") => return Ok(bare(answer.header("etag").unwrap_or_default())),
                Some(_) => return Err(SyncError::new(ErrorKind::Io, "the service could not copy it").retryable()),
            }
            answer = self.send(&self.request(Method::HEAD, key, "")?)?;
        }
    }
}

fn sum(body: Body<'_>, kinds: Kinds) -> Result<Sums> {
    let mut summer = Summer::new(kinds);
    match body {
        Body::Empty => {}
        Body::Bytes(bytes) => summer.update(bytes),
        Body::Stream(stream) => {
            let (mut reader, mut piece) = (stream.open()?, vec![0; 256 << 10]);
            loop {
                match reader.read(&mut piece).map_err(|error| super::super::writer::read_error(&error))? {
                    0 => break,
                    n => summer.update(&piece[..n]),
                }
            }
        }
    }
    Ok(summer.finish())
}

fn pairs(attributes: &Attributes) -> impl Iterator<Item = (String, String)> {
    attributes.pairs(TimeStyle::Rfc3339).into_iter().map(|(name, value)| (format!("x-ms-meta-{name}"), value))
}

/// Metadata of others. Here a name is that of a variable in a program.
fn foreign(attributes: &Attributes) -> impl Iterator<Item = (String, String)> {
    let named = attributes.foreign().map(|(name, value)| (name.replace(['-', '.'], "_").to_ascii_lowercase(), value.to_owned()));
    let fits = |name: &str| !name.starts_with(|c: char| c.is_ascii_digit()) && name != WHOLE;
    named.filter(move |(name, _)| fits(name)).map(|(name, value)| (format!("x-ms-meta-{name}"), value))
}

fn describe<'b>(mut request: Request<'b>, attributes: &Attributes) -> Request<'b> {
    request.named.extend(pairs(attributes));
    request.named.extend(foreign(attributes));
    request.named.extend(attributes.headers().iter().map(|(name, value)| (format!("x-ms-blob-{name}"), value.clone())));
    request.maybe("x-ms-blob-content-type", attributes.content_type.clone())
}

/// Azure's CRC-64 is that of NVMe, with the bytes the other way round. It takes one kind of sum at a time.
fn with_sums<'b>(request: Request<'b>, sums: &Sums) -> Request<'b> {
    match sums.crc64 {
        Some(sum) => request.header("x-ms-content-crc64", base64(&sum.to_le_bytes())),
        None => request.maybe("content-md5", sums.md5.map(|sum| base64(&sum))),
    }
}

impl Store for Azure {
    fn features(&self) -> Features {
        Features {
            attributes: true,
            lists_attributes: true,
            conditions: true,
            parts: true,
            min_part: MIB,
            max_parts: 50_000,
            max_put: 5000 * MIB,
            copies_attributes: u64::MAX,
            sets_attributes: true,
            deletes_at_once: deletes::TOGETHER,
            conditional_deletes: true,
            directories: false,
            ordered: true,
            begins_anywhere: false,
        }
    }

    fn admits(&self, key: &[u8]) -> Result<()> {
        self.request(Method::HEAD, key, "").map(drop)
    }

    fn wants(&self) -> Kinds {
        Kinds::CRC64
    }

    fn name(&self) -> String {
        format!("az://{}", self.container)
    }

    fn bucket(&self) -> &str {
        &self.container
    }

    fn realm(&self) -> String {
        // A token for one container can't read what is to be copied from another.
        if self.credentials.are_for_account() { format!("azure {}", self.settings.endpoint) } else { self.place() }
    }

    fn place(&self) -> String {
        // Whatever proves who asks: the realm tells that apart, too.
        format!("azure {}", self.settings.base)
    }

    fn list(&self, query: &Query<'_>) -> Result<Page> {
        use std::fmt::Write;
        let mut text = format!("restype=container&comp=list&include=metadata&prefix={}", uri::encode_value(query.prefix));
        if let Some(page) = query.page {
            let _ = write!(text, "&marker={}", uri::encode_value(page.as_bytes()));
        }
        if query.shallow {
            text.push_str("&delimiter=%2F");
        }
        if let Some(most) = query.most {
            let _ = write!(text, "&maxresults={most}");
        }
        let mut page = answers::page(&self.text(&Request::new(Method::GET, format!("{}?{text}", self.settings.base)))?)?;
        // The service has no way to begin in the middle.
        if let Some(after) = query.after {
            page.objects.retain(|object| object.key.as_slice() > after);
            page.prefixes.retain(|prefix| prefix.as_slice() > after);
        }
        Ok(page)
    }

    fn head(&self, key: &[u8]) -> Result<Option<Head>> {
        match self.send(&self.request(Method::HEAD, key, "")?) {
            Ok(answer) => answers::head(&answer.headers).map(Some),
            Err(error) if error.kind == ErrorKind::NotFound && error.hint.is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn get(&self, key: &[u8], range: Option<Range<u64>>, tag: Option<&str>) -> Result<Content> {
        let request = self
            .request(Method::GET, key, "")?
            .maybe("range", range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end - 1)))
            .maybe("if-match", tag.map(quoted));
        let answer = self.send(&request).map_err(|error| match error.kind {
            ErrorKind::Conflict => SyncError::new(ErrorKind::SourceChanged, "it changed while it was read").retryable(),
            _ => error,
        })?;
        answer.holds(range.as_ref())?;
        Ok(Content { head: answers::head(&answer.headers)?, body: Box::new(answer.body.into_reader()) })
    }

    fn put(&self, key: &[u8], body: Body<'_>, attributes: &Attributes, sums: &Sums, when: If<'_>) -> Result<String> {
        // The service works out the MD5 of what comes at once, and keeps it.
        let request = self.request(Method::PUT, key, "")?.header("x-ms-blob-type", "BlockBlob").body(body);
        match self.send(&describe(with_sums(request, sums), attributes).when(when)) {
            Ok(answer) => Ok(bare(answer.header("etag").unwrap_or_default())),
            Err(error) if error.kind == ErrorKind::Conflict => self.is_ours(key, body, sums).ok_or(error),
            Err(error) => Err(error),
        }
    }

    fn copy(&self, from: &Origin<'_>, key: &[u8], attributes: Option<&Attributes>, when: If<'_>) -> Result<String> {
        if let (Some(attributes), true) = (attributes, from.bucket == self.container && from.key == key) {
            return self.set_metadata(from, attributes);
        }
        let mut request = self
            .request(Method::PUT, key, "")?
            .header("x-ms-copy-source", self.origin(from)?)
            .header("x-ms-source-if-match", quoted(from.tag));
        if let Some(attributes) = attributes {
            // Any of it replaces all of it.
            request.named = self.foreign(from)?;
            request.named.extend(pairs(attributes));
        }
        let answer = self.send(&request.when(when))?;
        self.copied(key, answer)
    }

    fn delete(&self, removals: &[Removal<'_>]) -> Vec<Result<()>> {
        let delete = |one: &Removal<'_>| {
            let request = self
                .request(Method::DELETE, one.key, "")?
                .header("x-ms-delete-snapshots", "include")
                .maybe("if-match", one.tag.map(quoted));
            match self.send(&request) {
                Err(error) if error.kind == ErrorKind::NotFound && error.hint.is_none() => Ok(()),
                other => other.map(drop),
            }
        };
        deletes::side_by_side(removals, self.http.connections, delete)
    }

    /// Nothing is sent: an upload is no more than a name that its parts have in common.
    fn begin(&self, key: &[u8], _: &Attributes) -> Result<String> {
        let now = Time::now();
        let text = format!("{} {} {} {} ", now.seconds, now.nanos, std::process::id(), self.settings.base);
        Ok(blake3::hash(&[text.as_bytes(), key].concat()).to_hex()[..16].to_owned())
    }

    fn put_part(&self, key: &[u8], upload: &str, number: u32, body: Body<'_>, sums: &Sums) -> Result<Part> {
        let tag = answers::part_name(upload, number, sums);
        let query = format!("comp=block&blockid={}", uri::encode_value(tag.as_bytes()));
        self.send(&with_sums(self.request(Method::PUT, key, &query)?.body(body), sums))?;
        Ok(Part { number, size: body.len(), tag, sums: *sums })
    }

    fn parts(&self, key: &[u8], upload: &str) -> Result<Option<Vec<Part>>> {
        match self.text(&self.request(Method::GET, key, "comp=blocklist&blocklisttype=uncommitted")?) {
            Ok(body) => Ok(Some(answers::parts(&body, upload)?).filter(|parts| !parts.is_empty())),
            Err(error) if error.kind == ErrorKind::NotFound && error.hint.is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn complete(&self, key: &[u8], _: &str, parts: &[Part], attributes: &Attributes, sums: &Sums, when: If<'_>) -> Result<String> {
        let list: String = parts.iter().map(|part| format!("<Uncommitted>{}</Uncommitted>", part.tag)).collect();
        let body = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{list}</BlockList>");
        let mut request = describe(self.request(Method::PUT, key, "comp=blocklist")?.body(Body::Bytes(body.as_bytes())), attributes);
        if let Some(sum) = sums.crc64 {
            request.named.push((format!("x-ms-meta-{}", WHOLE), base64(&sum.to_be_bytes())));
        }
        match self.send(&request.when(when)) {
            Ok(answer) => Ok(bare(answer.header("etag").unwrap_or_default())),
            // It was done by an earlier try whose answer was lost.
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Conflict) => {
                let size: u64 = parts.iter().map(|part| part.size).sum();
                let head = Store::head(self, key).ok().flatten();
                let same = |head: &Head| head.size == size && head.sums.agree(sums) == Some(true);
                head.filter(same).map(|head| head.tag).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// There is no request for it. Parts that make up no object can't be seen in lists, and end by themselves: after a week,
    /// or when something else is put there.
    fn abort(&self, _: &[u8], _: &str) {}

    fn connections(&self) -> Option<u64> {
        self.http.connections
    }

    fn part_size(&self) -> Option<u64> {
        None
    }

    fn requests(&self) -> u64 {
        self.http.requests.load(Relaxed)
    }

    fn throttled(&self) -> u64 {
        self.http.throttled.load(Relaxed)
    }
}
