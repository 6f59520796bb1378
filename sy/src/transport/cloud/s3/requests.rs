//! What is asked of S3: one method for each kind of request.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use http::Method;

use super::super::attributes::{Attributes, TimeStyle};
use super::super::http::{Answer, Body, Dialect, Request, Verdict};
use super::super::store::{Content, Features, Head, If, Origin, Page, Part, Query, Removal, Store};
use super::super::sums::{Kinds, Sums, base64};
use super::super::xml;
use super::super::{bare, parts, quoted, uri};
use super::{S3, answers};
use crate::error::{ErrorKind, Result, SyncError};

const GIB: u64 = 1 << 30;
/// Larger objects are copied in ranges of `COPY_RANGE`.
const MOST_COPIED: u64 = 5 * GIB;
const COPY_RANGE: u64 = GIB;
/// Names and values of metadata together, bytes, beside ours: 2 KiB in all.
const MOST_METADATA: usize = 1900;

impl S3 {
    fn url(&self, key: &[u8], query: &str) -> String {
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}/{}{mark}{query}", self.settings.base, uri::encode_key(key))
    }

    pub(super) fn request<'b>(&self, method: Method, key: &[u8], query: &str) -> Result<Request<'b>> {
        if std::str::from_utf8(key).is_err() {
            return Err(SyncError::unsupported("a key in S3 must be UTF-8"));
        }
        if key.len() > 1024 {
            return Err(SyncError::unsupported("a key in S3 has at most 1,024 bytes"));
        }
        Ok(Request::new(method, self.url(key, query)))
    }

    pub(super) fn send(&self, request: &Request<'_>) -> Result<Answer> {
        self.http.send(self, request)
    }

    fn text(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        self.http.text(self.send(request)?)
    }

    /// For requests whose failure may come in an answer that begins like a success.
    pub(super) fn careful(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        answers::error_inside(self.text(request)?).map_err(|failed| match self.judge(&failed) {
            Verdict::Later(error) | Verdict::Now(error) => error.retryable(),
            Verdict::Never(error) => error,
        })
    }

    pub(super) fn with_sums<'b>(&self, request: Request<'b>, sums: &Sums) -> Request<'b> {
        request
            .maybe("x-amz-checksum-crc64nvme", sums.crc64.map(|sum| base64(&sum.to_be_bytes())))
            .maybe("content-md5", sums.md5.map(|sum| base64(&sum)))
    }

    fn describe<'b>(&self, mut request: Request<'b>, attributes: &Attributes) -> Request<'b> {
        request = request.maybe("content-type", attributes.content_type.clone());
        for (name, value) in attributes.pairs(TimeStyle::Seconds) {
            request.named.push((format!("x-amz-meta-{name}"), value));
        }
        let mut room = MOST_METADATA;
        for (name, value) in attributes.foreign() {
            if let Some(left) = room.checked_sub(name.len() + value.len()) {
                room = left;
                request.named.push((format!("x-amz-meta-{}", name.to_ascii_lowercase()), value.to_owned()));
            }
        }
        for (name, value) in attributes.headers() {
            request = request.header(name, value.clone());
        }
        for (name, value) in &self.settings.object_headers {
            request = request.header(name, value.clone());
        }
        request
    }

    /// Learns what the server checks uploads by, from how it answers the first one.
    fn learn(&self, answer: &Answer) {
        if self.checks.load(Relaxed) == answers::UNKNOWN {
            let knows = answer.header("x-amz-checksum-crc64nvme").is_some();
            self.checks.store(if knows { answers::CRC64 } else { answers::MD5 }, Relaxed);
        }
    }

    /// A write that was sent twice may meet itself: is what is there what was sent?
    fn is_ours(&self, key: &[u8], size: u64, sums: &Sums) -> Option<String> {
        let head = Store::head(self, key).ok()??;
        (head.size == size && head.sums.agree(sums) == Some(true)).then_some(head.tag)
    }

    fn copy_in_parts(&self, from: &Origin<'_>, key: &[u8], attributes: &Attributes, when: If<'_>) -> Result<String> {
        let upload = self.begin(key, attributes)?;
        let copied = (|| {
            let mut parts = Vec::new();
            for (n, start) in (0..from.size).step_by(COPY_RANGE as usize).enumerate() {
                let end = (start + COPY_RANGE).min(from.size);
                let number = n as u32 + 1;
                let request = self
                    .request(Method::PUT, key, &part_query(number, &upload))?
                    .header("x-amz-copy-source", origin(from))
                    .header("x-amz-copy-source-if-match", quoted(from.tag))
                    .header("x-amz-copy-source-range", format!("bytes={start}-{}", end - 1));
                let tag = bare(&xml::find(&self.careful(&request)?, "ETag").unwrap_or_default());
                parts.push(Part { number, size: end - start, tag, sums: Sums::default() });
            }
            self.complete(key, &upload, &parts, attributes, &Sums::default(), when)
        })();
        if copied.is_err() {
            self.abort(key, &upload);
        }
        copied
    }
}

/// What an object may have beside its metadata, and loses where a copy onto itself does not say it again.
const REPEATED: [&str; 9] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
];

impl S3 {
    /// Adds to a copy of an object onto itself what others have given it.
    fn repeat<'b>(&self, mut request: Request<'b>, key: &[u8]) -> Result<Request<'b>> {
        let there = self.send(&self.request(Method::HEAD, key, "")?)?;
        if let Some(kind) = there.header("content-type") {
            request.headers.retain(|(name, _)| *name != "content-type");
            request = request.header("content-type", kind);
        }
        for (name, value) in &there.headers {
            let (name, Ok(value)) = (name.as_str(), value.to_str()) else { continue };
            let known = request.headers.iter().any(|(own, _)| *own == name) || request.named.iter().any(|(own, _)| own == name);
            if !known && (REPEATED.contains(&name) || name.starts_with("x-amz-meta-")) {
                request.named.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(request)
    }
}

fn part_query(number: u32, upload: &str) -> String {
    format!("partNumber={number}&uploadId={}", uri::encode_value(upload.as_bytes()))
}

fn origin(from: &Origin<'_>) -> String {
    format!("/{}/{}", from.bucket, uri::encode_key(from.key))
}

impl Store for S3 {
    fn features(&self) -> Features {
        Features {
            attributes: true,
            lists_attributes: false,
            conditions: true,
            parts: true,
            min_part: 5 << 20,
            max_parts: 10_000,
            max_put: 5 * GIB,
            copies_attributes: MOST_COPIED,
            sets_attributes: true,
            deletes_at_once: 1000,
            // Others may take no notice of a condition.
            conditional_deletes: self.settings.amazon,
            directories: false,
            ordered: true,
            begins_anywhere: true,
        }
    }

    fn manner(&self) -> String {
        format!("{:?}", self.settings.object_headers)
    }

    fn admits(&self, key: &[u8]) -> Result<()> {
        self.request(Method::HEAD, key, "").map(drop)
    }

    fn wants(&self) -> Kinds {
        match self.checks.load(Relaxed) {
            answers::CRC64 => Kinds::CRC64,
            answers::MD5 => Kinds::MD5,
            _ => Kinds { crc64: true, ..Kinds::MD5 },
        }
    }

    fn name(&self) -> String {
        format!("s3://{}", self.bucket)
    }

    fn bucket(&self) -> &str {
        &self.bucket
    }

    fn realm(&self) -> String {
        let service = self.settings.base.replace(&self.bucket, "");
        format!("s3 {service} {} {}", self.settings.region, self.credentials.account())
    }

    fn place(&self) -> String {
        format!("s3 {}", self.settings.place)
    }

    fn signer(&self) -> Option<String> {
        self.credentials.id()
    }

    fn list(&self, query: &Query<'_>) -> Result<Page> {
        use std::fmt::Write;
        let mut text = format!("list-type=2&encoding-type=url&prefix={}", uri::encode_value(query.prefix));
        if let Some(page) = query.page {
            let _ = write!(text, "&continuation-token={}", uri::encode_value(page.as_bytes()));
        } else if let Some(after) = query.after {
            let _ = write!(text, "&start-after={}", uri::encode_value(after));
        }
        if query.shallow {
            text.push_str("&delimiter=%2F");
        }
        if let Some(most) = query.most {
            let _ = write!(text, "&max-keys={most}");
        }
        answers::page(&self.text(&self.request(Method::GET, b"", &text)?)?, query.shallow)
    }

    fn head(&self, key: &[u8]) -> Result<Option<Head>> {
        let request = self.request(Method::HEAD, key, "")?.header("x-amz-checksum-mode", "ENABLED");
        match self.send(&request) {
            Ok(answer) => answers::head(&answer.headers, &self.settings).map(Some),
            Err(error) if error.kind == ErrorKind::NotFound && error.hint.is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn part_length(&self, key: &[u8], number: u32) -> Result<Option<u64>> {
        match self.send(&self.request(Method::HEAD, key, &format!("partNumber={number}"))?) {
            // Whoever does not know what is asked for tells of the whole.
            Ok(answer) if answer.status == 206 || answer.header("x-amz-mp-parts-count").is_some() => Ok(answer.number("content-length")),
            Err(error) if error.retryable || error.kind == ErrorKind::Cancelled => Err(error),
            _ => Ok(None),
        }
    }

    fn get(&self, key: &[u8], range: Option<Range<u64>>, tag: Option<&str>) -> Result<Content> {
        let request = self
            .request(Method::GET, key, "")?
            .header("x-amz-checksum-mode", "ENABLED")
            .maybe("range", range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end - 1)))
            .maybe("if-match", tag.map(quoted));
        let answer = self.send(&request).map_err(|error| match error.kind {
            ErrorKind::Conflict => SyncError::new(ErrorKind::SourceChanged, "it changed while it was read").retryable(),
            _ => error,
        })?;
        answer.holds(range.as_ref())?;
        Ok(Content { head: answers::head(&answer.headers, &self.settings)?, body: Box::new(answer.body.into_reader()) })
    }

    fn put(&self, key: &[u8], body: Body<'_>, attributes: &Attributes, sums: &Sums, when: If<'_>) -> Result<String> {
        let request = self.describe(self.with_sums(self.request(Method::PUT, key, "")?.body(body), sums), attributes);
        match self.send(&request.when(when)) {
            Ok(answer) => {
                self.learn(&answer);
                Ok(bare(answer.header("etag").unwrap_or_default()))
            }
            Err(error) if error.kind == ErrorKind::Conflict => self.is_ours(key, body.len(), sums).ok_or(error),
            Err(error) => Err(error),
        }
    }

    fn copy(&self, from: &Origin<'_>, key: &[u8], attributes: Option<&Attributes>, when: If<'_>) -> Result<String> {
        if from.size > MOST_COPIED {
            return self.copy_in_parts(from, key, attributes.unwrap_or(&Attributes::default()), when);
        }
        let mut request = self
            .request(Method::PUT, key, "")?
            .header("x-amz-copy-source", origin(from))
            .header("x-amz-copy-source-if-match", quoted(from.tag));
        if let Some(attributes) = attributes {
            request = self.describe(request.header("x-amz-metadata-directive", "REPLACE"), attributes);
            if (from.bucket, from.key) == (self.bucket.as_str(), key) {
                request = self.repeat(request, key)?;
            }
        }
        let body = self.careful(&request.when(when))?;
        Ok(bare(&xml::find(&body, "ETag").unwrap_or_default()))
    }

    fn delete(&self, removals: &[Removal<'_>]) -> Vec<Result<()>> {
        self.remove(removals)
    }

    fn begin(&self, key: &[u8], attributes: &Attributes) -> Result<String> {
        let mut request = self.describe(self.request(Method::POST, key, "uploads")?, attributes);
        if self.checks.load(Relaxed) != answers::MD5 {
            request = request.header("x-amz-checksum-algorithm", "CRC64NVME").header("x-amz-checksum-type", "FULL_OBJECT");
        }
        let answer = self.send(&request)?;
        if self.checks.load(Relaxed) == answers::UNKNOWN {
            let knows = answer.header("x-amz-checksum-algorithm").is_some();
            self.checks.store(if knows { answers::CRC64 } else { answers::MD5 }, Relaxed);
        }
        xml::find(&self.http.text(answer)?, "UploadId")
            .filter(|id| !id.is_empty())
            .ok_or_else(|| SyncError::new(ErrorKind::Io, "the service began an upload without a name"))
    }

    fn put_part(&self, key: &[u8], upload: &str, number: u32, body: Body<'_>, sums: &Sums) -> Result<Part> {
        let request = self.with_sums(self.request(Method::PUT, key, &part_query(number, upload))?.body(body), sums);
        let answer = self.send(&request)?;
        Ok(Part { number, size: body.len(), tag: bare(answer.header("etag").unwrap_or_default()), sums: *sums })
    }

    fn parts(&self, key: &[u8], upload: &str) -> Result<Option<Vec<Part>>> {
        let id = uri::encode_value(upload.as_bytes());
        parts::all(|after| match self.text(&self.request(Method::GET, key, &format!("uploadId={id}{after}"))?) {
            Ok(body) => Ok(Some(body)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn complete(&self, key: &[u8], upload: &str, parts: &[Part], _: &Attributes, sums: &Sums, when: If<'_>) -> Result<String> {
        let body = format!(
            "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}</CompleteMultipartUpload>",
            parts::list(parts)
        );
        let size: u64 = parts.iter().map(|part| part.size).sum();
        let query = format!("uploadId={}", uri::encode_value(upload.as_bytes()));
        let mut request = self.request(Method::POST, key, &query)?.body(Body::Bytes(body.as_bytes()));
        if let Some(sum) = sums.crc64 {
            request = request
                .header("x-amz-checksum-crc64nvme", base64(&sum.to_be_bytes()))
                .header("x-amz-checksum-type", "FULL_OBJECT")
                .header("x-amz-mp-object-size", size.to_string());
        }
        match self.careful(&request.when(when)) {
            Ok(body) => Ok(bare(&xml::find(&body, "ETag").unwrap_or_default())),
            // It was done by an earlier try whose answer was lost.
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Conflict) => self.is_ours(key, size, sums).ok_or(error),
            Err(error) => Err(error),
        }
    }

    fn abort(&self, key: &[u8], upload: &str) {
        let query = format!("uploadId={}", uri::encode_value(upload.as_bytes()));
        if let Ok(request) = self.request(Method::DELETE, key, &query) {
            self.http.last_words(self, &request);
        }
    }

    fn connections(&self) -> Option<u64> {
        self.http.connections
    }

    fn part_size(&self) -> Option<u64> {
        self.settings.part_size
    }

    fn requests(&self) -> u64 {
        self.http.requests.load(Relaxed)
    }

    fn throttled(&self) -> u64 {
        self.http.throttled.load(Relaxed)
    }
}
