//! What is asked of Google Cloud Storage: one method for each kind of request.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use http::Method;
use serde_json::Value;

use super::super::attributes::{Attributes, TimeStyle};
use super::super::http::{Answer, Body, Request};
use super::super::store::{Content, Features, Head, If, Origin, Page, Part, Query, Removal, Store};
use super::super::sums::{Kinds, Sums, base64};
use super::super::{bare, deletes, parts, uri, xml};
use super::frame::Frame;
use super::wire::{UNTYPED, check, condition, hashes, is_missing, no_bucket, part_query, resource};
use super::{Gcs, answers};
use crate::error::{ErrorKind, Result, SyncError};

const TIB: u64 = 1 << 40;

impl Gcs {
    pub(super) fn send(&self, request: &Request<'_>) -> Result<Answer> {
        self.http.send(self, request)
    }

    pub(super) fn text(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        self.http.text(self.send(request)?)
    }

    pub(super) fn json(&self, request: &Request<'_>) -> Result<Value> {
        answers::json(&self.text(request)?)
    }

    /// A request to the XML API.
    pub(super) fn xml<'b>(&self, method: Method, key: &[u8], query: &str) -> Result<Request<'b>> {
        check(key)?;
        let mark = if query.is_empty() { "" } else { "?" };
        Ok(Request::new(method, format!("{}{mark}{query}", self.settings.content(key))))
    }
}

impl Store for Gcs {
    fn features(&self) -> Features {
        Features {
            attributes: true,
            lists_attributes: true,
            conditions: true,
            parts: true,
            min_part: 5 << 20,
            max_parts: 10_000,
            max_put: 5 * TIB,
            copies_attributes: u64::MAX,
            sets_attributes: true,
            deletes_at_once: deletes::TOGETHER,
            // What stands in for the service may not know them.
            conditional_deletes: self.settings.google,
            directories: false,
            ordered: true,
            begins_anywhere: true,
        }
    }

    fn admits(&self, key: &[u8]) -> Result<()> {
        check(key).map(drop)
    }

    fn wants(&self) -> Kinds {
        Kinds::CRC32C
    }

    fn name(&self) -> String {
        format!("gs://{}", self.bucket)
    }

    fn bucket(&self) -> &str {
        &self.bucket
    }

    fn realm(&self) -> String {
        format!("gcs {} {}", self.settings.base, self.credentials.account())
    }

    fn place(&self) -> String {
        // Whoever asks: the realm tells accounts apart, too.
        format!("gcs {} {}", self.settings.base, self.bucket)
    }

    fn signer(&self) -> Option<String> {
        self.credentials.id()
    }

    fn list(&self, query: &Query<'_>) -> Result<Page> {
        use std::fmt::Write;
        let fields = "kind,nextPageToken,prefixes,items(name,size,generation,updated,metadata)";
        let mut url = format!("{}?fields={fields}&prefix={}", self.settings.objects(), uri::encode_value(query.prefix));
        if let Some(page) = query.page {
            let _ = write!(url, "&pageToken={}", uri::encode_value(page.as_bytes()));
        }
        if let Some(after) = query.after {
            let _ = write!(url, "&startOffset={}", uri::encode_value(after));
        }
        if query.shallow {
            url.push_str("&delimiter=%2F");
        }
        if let Some(most) = query.most {
            let _ = write!(url, "&maxResults={most}");
        }
        let body = self.text(&Request::new(Method::GET, url)).map_err(no_bucket)?;
        let mut page = answers::page(&body)?;
        // The service begins with that key itself.
        page.objects.retain(|object| query.after != Some(&object.key));
        Ok(page)
    }

    fn head(&self, key: &[u8]) -> Result<Option<Head>> {
        check(key)?;
        let fields = "size,generation,updated,metadata,contentType,crc32c,md5Hash,\
            cacheControl,contentDisposition,contentEncoding,contentLanguage";
        match self.json(&Request::new(Method::GET, format!("{}?fields={fields}", self.settings.object(key)))) {
            Ok(resource) => answers::head(&resource).map(Some),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn get(&self, key: &[u8], range: Option<Range<u64>>, tag: Option<&str>) -> Result<Content> {
        let request = self
            .xml(Method::GET, key, "")?
            // What is stored packed comes as it is stored: sums and ranges are of that.
            .header("accept-encoding", "gzip")
            .maybe("range", range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end - 1)))
            .maybe("x-goog-if-generation-match", tag);
        let changed = || SyncError::new(ErrorKind::SourceChanged, "it changed while it was read").retryable();
        let answer = self.send(&request).map_err(|error| if error.kind == ErrorKind::Conflict { changed() } else { error })?;
        let head = answers::head_of(&answer.headers)?;
        if tag.is_some_and(|tag| !head.tag.is_empty() && head.tag != tag) {
            return Err(changed());
        }
        answer.holds(range.as_ref())?;
        Ok(Content { head, body: Box::new(answer.body.into_reader()) })
    }

    fn put(&self, key: &[u8], body: Body<'_>, attributes: &Attributes, sums: &Sums, when: If<'_>) -> Result<String> {
        let mut resource = resource(attributes);
        resource.insert("name".to_owned(), check(key)?.into());
        resource.extend(sums.crc32c.map(|sum| ("crc32c".to_owned(), base64(&sum.to_be_bytes()).into())));
        resource.extend(sums.md5.map(|sum| ("md5Hash".to_owned(), base64(&sum).into())));
        let kind = attributes.content_type.as_deref().unwrap_or(UNTYPED);
        let frame = Frame::new(&resource.into(), kind, body);
        let url = format!("{}?uploadType=multipart&fields=generation{}", self.settings.upload(), condition(when));
        let request = Request::new(Method::POST, url).header("content-type", frame.content_type.as_str()).body(Body::Stream(&frame));
        match self.json(&request) {
            Ok(resource) => answers::generation(&resource),
            Err(error) if error.kind == ErrorKind::Conflict => self.is_ours(key, body.len(), sums).ok_or(error),
            Err(error) => Err(no_bucket(error)),
        }
    }

    fn copy(&self, from: &Origin<'_>, key: &[u8], attributes: Option<&Attributes>, when: If<'_>) -> Result<String> {
        check(key)?;
        if let (Some(attributes), true) = (attributes, from.bucket == self.bucket && from.key == key) {
            return self.patch(key, from.tag, attributes);
        }
        let source =
            format!("{}/storage/v1/b/{}/o/{}", self.settings.base, uri::encode_value(from.bucket.as_bytes()), uri::encode_value(from.key));
        let generation =
            if from.tag.is_empty() { String::new() } else { format!("&sourceGeneration={}", uri::encode_value(from.tag.as_bytes())) };
        let body = attributes.map(|attributes| Value::from(resource(attributes)).to_string());
        let mut token = String::new();
        loop {
            let url = format!(
                "{source}/rewriteTo/b/{}/o/{}?fields=done,rewriteToken,resource(generation){generation}{}{token}",
                uri::encode_value(self.bucket.as_bytes()),
                uri::encode_value(key),
                condition(when)
            );
            let request = Request::new(Method::POST, url)
                .maybe("content-type", body.as_ref().map(|_| "application/json"))
                .body(body.as_ref().map_or(Body::Empty, |body| Body::Bytes(body.as_bytes())));
            let answer = self.json(&request).map_err(|error| match error.kind {
                ErrorKind::NotFound if is_missing(&error) => {
                    SyncError::new(ErrorKind::SourceChanged, "it changed before it was copied").retryable()
                }
                _ => error,
            })?;
            match (answer["done"].as_bool(), answer["rewriteToken"].as_str()) {
                (Some(true), _) => return answers::generation(&answer["resource"]),
                (_, Some(next)) => token = format!("&rewriteToken={}", uri::encode_value(next.as_bytes())),
                _ => return Err(SyncError::new(ErrorKind::Io, "the service did not say whether it copied the object")),
            }
        }
    }

    fn delete(&self, removals: &[Removal<'_>]) -> Vec<Result<()>> {
        deletes::side_by_side(removals, self.http.connections, |one| self.delete_one(one))
    }

    fn begin(&self, key: &[u8], attributes: &Attributes) -> Result<String> {
        let mut request =
            self.xml(Method::POST, key, "uploads")?.header("content-type", attributes.content_type.as_deref().unwrap_or(UNTYPED));
        for (name, value) in attributes.pairs(TimeStyle::Rfc3339) {
            request.named.push((format!("x-goog-meta-{name}"), value));
        }
        request.named.extend(attributes.foreign().map(|(name, value)| (format!("x-goog-meta-{name}"), value.to_owned())));
        for (name, value) in attributes.headers() {
            request = request.header(name, value.clone());
        }
        xml::find(&self.text(&request)?, "UploadId")
            .filter(|id| !id.is_empty())
            .ok_or_else(|| SyncError::new(ErrorKind::Io, "the service began an upload without a name"))
    }

    fn put_part(&self, key: &[u8], upload: &str, number: u32, body: Body<'_>, sums: &Sums) -> Result<Part> {
        let request = self.xml(Method::PUT, key, &part_query(number, upload))?.maybe("x-goog-hash", hashes(sums)).body(body);
        let answer = self.send(&request)?;
        if answers::sums(&answer.headers).agree(sums) == Some(false) {
            return Err(SyncError::new(ErrorKind::Verification, "what arrived is not what was sent").retryable());
        }
        Ok(Part { number, size: body.len(), tag: bare(answer.header("etag").unwrap_or_default()), sums: *sums })
    }

    fn parts(&self, key: &[u8], upload: &str) -> Result<Option<Vec<Part>>> {
        let id = uri::encode_value(upload.as_bytes());
        parts::all(|after| match self.text(&self.xml(Method::GET, key, &format!("uploadId={id}{after}"))?) {
            Ok(body) => Ok(Some(body)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn complete(&self, key: &[u8], upload: &str, parts: &[Part], _: &Attributes, sums: &Sums, when: If<'_>) -> Result<String> {
        let body = format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts::list(parts));
        let size: u64 = parts.iter().map(|part| part.size).sum();
        self.still(key, when)?;
        let request = self
            .xml(Method::POST, key, &format!("uploadId={}", uri::encode_value(upload.as_bytes())))?
            .header("content-type", "application/xml")
            .body(Body::Bytes(body.as_bytes()));
        match self.send(&request) {
            Ok(answer) => self.completed(key, answer, size, sums),
            // It was done by an earlier try whose answer was lost.
            Err(error) if is_missing(&error) => self.is_ours(key, size, sums).ok_or(error),
            Err(error) => Err(error),
        }
    }

    fn abort(&self, key: &[u8], upload: &str) {
        let query = format!("uploadId={}", uri::encode_value(upload.as_bytes()));
        if let Ok(request) = self.xml(Method::DELETE, key, &query) {
            self.http.last_words(self, &request);
        }
    }

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
