//! What Google Cloud Storage answers: JSON, headers and XML, and what its errors mean.

use std::sync::atomic::Ordering::Relaxed;

use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use super::super::attributes::{Attributes, parse_http_date, parse_rfc3339};
use super::super::http::{Dialect, Failed, Verdict};
use super::super::store::{Head, Object, Page};
use super::super::sums::{Sums, from_base64};
use super::super::xml;
use super::Gcs;
use crate::error::{ErrorKind, Result, SyncError};

/// Where gsutil notes the time of a file, in seconds.
pub const GSUTIL_MTIME: &str = "goog-reserved-file-mtime";

impl Dialect for Gcs {
    fn sign(&self, parts: &mut Parts) -> Result<()> {
        if let Some(header) = self.credentials.header()? {
            parts.headers.insert(http::header::AUTHORIZATION, header);
        }
        if self.payer.load(Relaxed)
            && let Some(project) = self.settings.project.as_deref().and_then(|project| HeaderValue::from_str(project).ok())
        {
            parts.headers.insert("x-goog-user-project", project);
        }
        Ok(())
    }

    fn judge(&self, failed: &Failed) -> Verdict {
        let (code, message) = failure(failed);
        let told = |kind, text: &str| {
            let code = if code.is_empty() { format!("status {}", failed.status) } else { code.clone() };
            let why = if message.is_empty() { String::new() } else { format!(": {message}") };
            SyncError::new(kind, format!("{text} ({code}{why})"))
        };
        let says = |words: &str| message.to_ascii_lowercase().contains(words);
        match (failed.status, code.as_str()) {
            (401, _) if self.credentials.is_anonymous() => Verdict::Never(
                told(ErrorKind::Authentication, "the service wants to know who asks")
                    .hint("give credentials; this is not open to everybody"),
            ),
            (401, _) => {
                let error = told(ErrorKind::Authentication, "the service does not accept the credentials")
                    .hint("get a new token, or give GcsConfig(credentials=FUNCTION) or a key file to have it renewed");
                if self.credentials.refuse() { Verdict::Now(error) } else { Verdict::Never(error) }
            }
            (_, "UserProjectMissing") | (400, _) if code == "UserProjectMissing" || says("requester pays bucket") => {
                let error = told(ErrorKind::PermissionDenied, "who asks this bucket has to pay")
                    .hint("set project_id of GcsConfig to the project that pays");
                let begun = self.settings.project.is_some() && !self.payer.swap(true, Relaxed);
                if begun { Verdict::Now(error) } else { Verdict::Never(error) }
            }
            (429, _) | (_, "rateLimitExceeded" | "userRateLimitExceeded" | "SlowDown" | "TooManyRequests") => {
                Verdict::Later(told(ErrorKind::Network, "the service asks for fewer requests"))
            }
            (501 | 405, _) | (_, "NotImplemented") => Verdict::Never(told(ErrorKind::Unsupported, "the service can't do that")),
            (400, _) if says("uploadtype") => Verdict::Never(told(ErrorKind::Unsupported, "the service takes no uploads in parts")),
            (408 | 500..=599, _) => Verdict::Later(told(ErrorKind::Network, "the service failed")),
            (_, "BadDigest") => Verdict::Later(told(ErrorKind::Verification, "what arrived is not what was sent")),
            (400, _) if says("doesn't match calculated") => {
                Verdict::Later(told(ErrorKind::Verification, "what arrived is not what was sent"))
            }
            (412, _) => Verdict::Never(
                told(ErrorKind::Conflict, "it changed since it was listed").hint("nothing was overwritten; the next run will look again"),
            ),
            (403, _) => Verdict::Never(
                told(ErrorKind::PermissionDenied, "access was denied").hint("check the credentials and what they may do in this bucket"),
            ),
            (404, "NoSuchUpload") => Verdict::Never(told(ErrorKind::NotFound, "there is no such upload")),
            (404, _) if code == "NoSuchBucket" || says("bucket does not exist") => {
                Verdict::Never(told(ErrorKind::NotFound, "there is no such bucket").hint("check its name and the endpoint"))
            }
            (404, _) => Verdict::Never(told(ErrorKind::NotFound, "there is no such object")),
            _ => Verdict::Never(told(ErrorKind::Io, "the service refused")),
        }
    }
}

/// Code and message of a failure, each empty if there is none. Control characters are left out: services echo names.
fn failure(failed: &Failed) -> (String, String) {
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(300).collect::<String>();
    match serde_json::from_slice::<Value>(&failed.body) {
        Ok(body) => {
            let error = &body["error"];
            let reason = [&error["errors"][0]["reason"], &error["status"], error].into_iter().find_map(Value::as_str);
            let message = error["message"].as_str().or_else(|| body["error_description"].as_str());
            (clean(reason.unwrap_or_default()), clean(message.unwrap_or_default()))
        }
        Err(_) if failed.body.starts_with(b"<") => xml::failure(failed),
        // Some refusals are plain text.
        Err(_) => (String::new(), clean(&String::from_utf8_lossy(&failed.body))),
    }
}

fn odd(what: &str) -> SyncError {
    SyncError::new(ErrorKind::Io, format!("the service answered with {what}"))
}

pub fn json(body: &[u8]) -> Result<Value> {
    serde_json::from_slice(body).map_err(|_| odd("something that is no JSON"))
}

/// The generation of an object that was just made.
pub fn generation(resource: &Value) -> Result<String> {
    resource["generation"].as_str().filter(|text| !text.is_empty()).map(str::to_owned).ok_or_else(|| odd("an object without a generation"))
}

/// How content is to be handled: as a header, and in a resource.
pub const HANDLED: [(&str, &str); 4] = [
    ("cache-control", "cacheControl"),
    ("content-disposition", "contentDisposition"),
    ("content-encoding", "contentEncoding"),
    ("content-language", "contentLanguage"),
];

/// What the JSON API tells about an object.
pub fn head(resource: &Value) -> Result<Head> {
    let text = |name: &str| resource[name].as_str();
    let mut attributes = Attributes { content_type: text("contentType").map(str::to_owned), ..Attributes::default() };
    for (name, field) in HANDLED {
        attributes.handle(name, text(field));
    }
    if let Some(metadata) = resource["metadata"].as_object() {
        describe(&mut attributes, metadata.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))));
    }
    Ok(Head {
        size: text("size").and_then(|size| size.parse().ok()).ok_or_else(|| odd("an object without a size"))?,
        modified: text("updated").and_then(|text| parse_rfc3339(text, text.find('T')?)).unwrap_or_default(),
        tag: generation(resource)?,
        attributes,
        sums: Sums {
            crc32c: text("crc32c").and_then(from_base64).map(u32::from_be_bytes),
            md5: text("md5Hash").and_then(from_base64),
            ..Sums::default()
        },
        composite: None,
    })
}

fn describe<'m>(attributes: &mut Attributes, metadata: impl Iterator<Item = (&'m str, &'m str)>) {
    let mut other = None;
    for (name, value) in metadata {
        if name.eq_ignore_ascii_case(GSUTIL_MTIME) {
            other = Some(value);
        } else {
            attributes.take(name, value);
        }
    }
    if let (None, Some(value)) = (attributes.mtime, other) {
        attributes.set("mtime", value);
    }
}

/// A page of a listing.
pub fn page(body: &[u8]) -> Result<Page> {
    let body = json(body)?;
    // An answer that is no list must not look like an empty one: what is not on it would be deleted.
    if body["kind"].as_str() != Some("storage#objects") {
        return Err(odd("something that is no list of objects"));
    }
    let list = |name: &str| body[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let objects = list("items").iter().map(|item| {
        let head = head(item)?;
        let key = item["name"].as_str().ok_or_else(|| odd("an object without a name"))?;
        Ok(Object { key: key.into(), size: head.size, modified: head.modified, tag: head.tag, attributes: Some(head.attributes) })
    });
    Ok(Page {
        objects: objects.collect::<Result<_>>()?,
        prefixes: list("prefixes").iter().filter_map(|prefix| Some(prefix.as_str()?.into())).collect(),
        next: body["nextPageToken"].as_str().filter(|token| !token.is_empty()).map(str::to_owned),
    })
}

pub fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What the headers of content tell about its object.
pub fn head_of(headers: &HeaderMap) -> Result<Head> {
    let whole = text(headers, "content-range").and_then(|range| range.rsplit_once('/')).map(|(_, size)| size);
    let encoding = |name| text(headers, name).unwrap_or("identity");
    if headers.contains_key("x-goog-stored-content-encoding") && encoding("x-goog-stored-content-encoding") != encoding("content-encoding")
    {
        return Err(odd("other content than it has, unpacked or packed on the way"));
    }
    let mut attributes = Attributes { content_type: text(headers, "content-type").map(str::to_owned), ..Attributes::default() };
    let own = headers.iter().filter_map(|(name, value)| Some((name.as_str().strip_prefix("x-goog-meta-")?, value.to_str().ok()?)));
    describe(&mut attributes, own);
    let size = whole.or_else(|| text(headers, "x-goog-stored-content-length")).or_else(|| text(headers, "content-length"));
    Ok(Head {
        size: size.and_then(|size| size.trim().parse().ok()).ok_or_else(|| odd("content without a size"))?,
        modified: text(headers, "last-modified").and_then(parse_http_date).unwrap_or_default(),
        tag: text(headers, "x-goog-generation").unwrap_or_default().to_owned(),
        attributes,
        sums: sums(headers),
        composite: None,
    })
}

/// `x-goog-hash: crc32c=…,md5=…`, or each in a header of its own. They are of the whole content, also for a range.
pub fn sums(headers: &HeaderMap) -> Sums {
    let mut sums = Sums::default();
    for value in headers.get_all("x-goog-hash").iter().filter_map(|value| value.to_str().ok()) {
        for (name, sum) in value.split(',').filter_map(|one| one.trim().split_once('=')) {
            match name {
                "crc32c" => sums.crc32c = from_base64(sum).map(u32::from_be_bytes),
                "md5" => sums.md5 = from_base64(sum),
                _ => {}
            }
        }
    }
    sums
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
