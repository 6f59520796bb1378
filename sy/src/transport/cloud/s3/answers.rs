//! What S3 answers: headers and XML, and what its errors mean.

use std::sync::atomic::Ordering::Relaxed;

use http::HeaderMap;
use http::request::Parts;

use super::super::attributes::{Attributes, HANDLING, parse_http_date, parse_rfc3339};
use super::super::composite::Composite;
use super::super::http::{Dialect, Failed, Verdict};
use super::super::store::{Head, Object, Page};
use super::super::sums::{Kinds, Sums, from_base64, md5_from_hex};
use super::super::xml::{self, Met};
use super::super::{bare, uri};
use super::settings::Settings;
use super::{S3, sign};
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::Time;

/// What a server checks uploads by.
pub const UNKNOWN: u8 = 0;
pub const CRC64: u8 = 1;
pub const MD5: u8 = 2;

impl Dialect for S3 {
    fn sign(&self, parts: &mut Parts) -> Result<()> {
        if self.settings.request_payer {
            parts.headers.insert("x-amz-request-payer", http::HeaderValue::from_static("requester"));
        }
        let stamp = sign::stamp(Time::now().seconds + self.credentials.clock.load(Relaxed));
        let signed =
            self.credentials.with_key(&stamp[..8], |credential, key| sign::sign(parts, credential, key, &stamp, &self.settings.region))?;
        signed.unwrap_or(Ok(()))
    }

    fn judge(&self, failed: &Failed) -> Verdict {
        let (code, message) = xml::failure(failed);
        let told = |kind, text: &str| {
            let code = if code.is_empty() { format!("status {}", failed.status) } else { code.clone() };
            let why = if message.is_empty() { String::new() } else { format!(": {message}") };
            SyncError::new(kind, format!("{text} ({code}{why})"))
        };
        match (failed.status, code.as_str()) {
            (_, "RequestTimeTooSkewed") => match failed.header("date").and_then(parse_http_date) {
                // The clock here is wrong; the server's counts.
                Some(theirs) => {
                    self.credentials.clock.store(theirs.seconds - Time::now().seconds, Relaxed);
                    Verdict::Now(told(ErrorKind::Authentication, "the clock is wrong").hint("set the clock of this machine"))
                }
                None => Verdict::Never(told(ErrorKind::Authentication, "the clock is wrong").hint("set the clock of this machine")),
            },
            (_, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired") => {
                let error = told(ErrorKind::Authentication, "the credentials have expired")
                    .hint("get new ones, or give S3Config(credentials=FUNCTION) to have them renewed");
                if self.credentials.forget() { Verdict::Now(error) } else { Verdict::Never(error) }
            }
            (_, "SlowDown" | "ServiceUnavailable" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "TooManyRequests")
            | (429 | 503, _) => Verdict::Later(told(ErrorKind::Network, "the service asks for fewer requests")),
            (500 | 502 | 504, _) | (_, "InternalError" | "RequestTimeout" | "OperationAborted" | "ConditionalRequestConflict") => {
                Verdict::Later(told(ErrorKind::Network, "the service failed"))
            }
            (_, "BadDigest" | "InvalidDigest" | "XAmzContentChecksumMismatch") => {
                Verdict::Later(told(ErrorKind::Verification, "what arrived is not what was sent"))
            }
            (412, _) => Verdict::Never(
                told(ErrorKind::Conflict, "it changed since it was listed").hint("nothing was overwritten; the next run will look again"),
            ),
            (301 | 307 | 308, _) | (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException") => {
                let region = failed
                    .header("x-amz-bucket-region")
                    .map(str::to_owned)
                    .or_else(|| xml::find(&failed.body, "Region"))
                    .filter(|region| region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
                let hint = region.map_or_else(
                    || "set region of S3Config (--region) to the bucket's".to_owned(),
                    |region| format!("set region of S3Config (--region) to {region}"),
                );
                Verdict::Never(told(ErrorKind::Config, "the bucket is in another region").hint(hint))
            }
            (401, _) | (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken") => Verdict::Never(
                told(ErrorKind::Authentication, "the service does not accept the credentials").hint("check key, secret and endpoint"),
            ),
            (403, _) => Verdict::Never(
                told(ErrorKind::PermissionDenied, "access was denied").hint("check the credentials and what they may do in this bucket"),
            ),
            (_, "NoSuchBucket") => {
                Verdict::Never(told(ErrorKind::NotFound, "there is no such bucket").hint("check its name and the endpoint"))
            }
            (404, _) => Verdict::Never(told(ErrorKind::NotFound, "there is no such object")),
            (501, _) | (_, "NotImplemented" | "MalformedXML") => Verdict::Never(told(ErrorKind::Unsupported, "the service can't do that")),
            _ => Verdict::Never(told(ErrorKind::Io, "the service refused")),
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What the headers of an answer tell about an object.
pub fn head(headers: &HeaderMap, settings: &Settings) -> Result<Head> {
    let number = |name: &str| text(headers, name).and_then(|value| value.parse().ok());
    let whole = text(headers, "content-range").and_then(|range| range.rsplit_once('/')).and_then(|(_, size)| size.parse().ok());
    let mut attributes = Attributes { content_type: text(headers, "content-type").map(str::to_owned), ..Attributes::default() };
    for (name, value) in headers {
        if let (Some(name), Ok(value)) = (name.as_str().strip_prefix("x-amz-meta-"), value.to_str()) {
            attributes.take(name, value);
        }
    }
    HANDLING.iter().for_each(|name| attributes.handle(name, text(headers, name)));
    let tag = bare(text(headers, "etag").unwrap_or_default());
    // An object of unknown size must not look like an empty one.
    let size = whole.or_else(|| number("content-length"));
    let size = size.ok_or_else(|| SyncError::new(ErrorKind::Io, "the service did not say how large the object is"))?;
    Ok(Head {
        size,
        modified: text(headers, "last-modified").and_then(parse_http_date).unwrap_or_default(),
        sums: sums(headers, &tag, settings.amazon),
        composite: composite(headers, &tag, settings),
        tag,
        attributes,
    })
}

/// The sums that the server has of the whole content. Those of a range or of single parts say nothing about it.
fn sums(headers: &HeaderMap, tag: &str, amazon: bool) -> Sums {
    let composite = text(headers, "x-amz-checksum-type") == Some("COMPOSITE");
    let sum = |name: &str| text(headers, name).filter(|value| !composite && !value.contains('-'));
    Sums {
        crc64: sum("x-amz-checksum-crc64nvme").and_then(from_base64).map(u64::from_be_bytes),
        crc32c: sum("x-amz-checksum-crc32c").and_then(from_base64).map(u32::from_be_bytes),
        crc32: sum("x-amz-checksum-crc32").and_then(from_base64).map(u32::from_be_bytes),
        sha1: sum("x-amz-checksum-sha1").and_then(from_base64),
        sha256: sum("x-amz-checksum-sha256").and_then(from_base64),
        md5: if is_plain(headers, amazon) { md5_from_hex(tag) } else { None },
    }
}

/// An ETag is the MD5 of the content, unless it was encrypted with a key of somebody's.
fn is_plain(headers: &HeaderMap, amazon: bool) -> bool {
    let encrypted = text(headers, "x-amz-server-side-encryption");
    !headers.contains_key("x-amz-server-side-encryption-customer-algorithm") && encrypted.is_none_or(|how| amazon && how == "AES256")
}

/// The sum of the sums of an object's parts, with their number behind it: `x-amz-checksum-…: SUM-N`, else the ETag.
fn composite(headers: &HeaderMap, tag: &str, settings: &Settings) -> Option<Composite> {
    let (of_tag, parts) = tag.rsplit_once('-')?;
    let parts: u32 = parts.parse().ok()?;
    let told = text(headers, "x-amz-checksum-type") == Some("COMPOSITE");
    // Some say the number only once.
    let sum = |name: &str| {
        let value = text(headers, name)?;
        match value.rsplit_once('-') {
            Some((sum, number)) if number.parse() == Ok(parts) => Some(sum),
            Some(_) => None,
            None => told.then_some(value),
        }
    };
    let mut sums = Sums {
        crc32c: sum("x-amz-checksum-crc32c").and_then(from_base64).map(u32::from_be_bytes),
        crc32: sum("x-amz-checksum-crc32").and_then(from_base64).map(u32::from_be_bytes),
        sha1: sum("x-amz-checksum-sha1").and_then(from_base64),
        sha256: sum("x-amz-checksum-sha256").and_then(from_base64),
        ..Sums::default()
    };
    // Some services give what came at once a number of that form that is no sum.
    let by_tag = settings.amazon || parts > 1 && settings.tags_are_sums;
    if sums.kinds() == Kinds::NONE && by_tag && is_plain(headers, settings.amazon) {
        sums.md5 = md5_from_hex(of_tag);
    }
    (sums.kinds() != Kinds::NONE && parts > 0).then_some(Composite { sum: sums, parts })
}

/// A page of a listing.
pub fn page(body: &[u8], shallow: bool) -> Result<Page> {
    let mut page = Page::default();
    let (mut object, mut truncated, mut encoded) = (empty(), None, false);
    xml::walk(body, |met| match met {
        Met::Text { parent: "Contents", name, text } => match name {
            "Key" => object.key = text.as_bytes().to_vec(),
            "Size" => object.size = text.trim().parse().unwrap_or(0),
            "ETag" => object.tag = bare(text),
            "LastModified" => {
                let text = text.trim();
                object.modified = text.find('T').and_then(|at| parse_rfc3339(text, at)).unwrap_or_default();
            }
            _ => {}
        },
        Met::Text { parent: "CommonPrefixes", name: "Prefix", text } if shallow => page.prefixes.push(text.as_bytes().to_vec()),
        Met::Text { name: "EncodingType", text, .. } => encoded = text.trim() == "url",
        Met::Text { name: "NextContinuationToken", text, .. } => page.next = Some(text.to_owned()),
        Met::Text { name: "IsTruncated", text, .. } => truncated = text.trim().parse().ok(),
        Met::End { name: "Contents" } => page.objects.push(std::mem::replace(&mut object, empty())),
        _ => {}
    })?;
    // Some services say it behind the keys that it is about.
    if encoded {
        for key in page.objects.iter_mut().map(|object| &mut object.key).chain(&mut page.prefixes) {
            *key = uri::decode(&String::from_utf8_lossy(key));
        }
    }
    match truncated {
        Some(false) => page.next = None,
        Some(true) if page.next.is_some() => {}
        // A list that is not known to be whole must not look like one: what is not on it would be deleted.
        _ => return Err(SyncError::new(ErrorKind::Io, "the service did not say whether its list is complete")),
    }
    Ok(page)
}

fn empty() -> Object {
    Object { key: Vec::new(), size: 0, modified: Time::default(), tag: String::new(), attributes: None }
}

/// Some answers that begin like a success are none, and some end before it is known what they are.
pub fn error_inside(body: Vec<u8>) -> Result<Vec<u8>, Box<Failed>> {
    let mut failed = true;
    let whole = xml::walk(&body, |met| {
        if let Met::End { name } = met {
            failed = name == "Error";
        }
    });
    if failed || whole.is_err() { Err(Box::new(Failed { status: 500, headers: HeaderMap::new(), body })) } else { Ok(body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_keys_as_they_are() {
        let body = b"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
            <Contents><Key>a%2F%2Fb+c%01</Key><Size>3</Size><ETag>&quot;e-2&quot;</ETag>\
            <LastModified>2021-03-31T13:20:00.000Z</LastModified></Contents>\
            <NextContinuationToken>t=</NextContinuationToken></ListBucketResult>";
        let page = page(body, false).expect("a page");
        assert_eq!(page.next.as_deref(), Some("t="));
        let object = &page.objects[0];
        assert_eq!((object.key.as_slice(), object.size, object.tag.as_str()), (&b"a//b c\x01"[..], 3, "e-2"));
        assert_eq!(object.modified.seconds, 1_617_196_800);
    }

    #[test]
    fn a_time_that_makes_no_sense_is_none() {
        for time in ["    T", " 2021-03-31T13:20:00Z ", "\u{e9}T\u{e9}"] {
            let body = format!(
                "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><LastModified>{time}</LastModified></Contents></ListBucketResult>"
            );
            let page = page(body.as_bytes(), false).expect("a page");
            assert_eq!(page.objects[0].modified.seconds, if time.len() > 10 { 1_617_196_800 } else { 0 });
        }
    }

    #[test]
    fn keys_are_decoded_wherever_their_encoding_is_told() {
        let body = b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>n%C3%A9%2B</Key></Contents>\
            <CommonPrefixes><Prefix>%2F/</Prefix></CommonPrefixes><EncodingType>url</EncodingType></ListBucketResult>";
        let page = page(body, true).expect("a page");
        assert_eq!(page.objects[0].key, "né+".as_bytes());
        assert_eq!(page.prefixes, [b"//"]);
    }

    #[test]
    fn a_page_that_may_not_be_whole_is_refused() {
        assert!(page(b"<ListBucketResult></ListBucketResult>", false).is_err());
        assert!(page(b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", false).is_err());
        assert!(page(b"<Error><Code>x</Code></Error>", false).is_err());
    }

    #[test]
    fn a_failure_in_a_success_is_a_failure() {
        assert!(error_inside(b"<Error><Code>InternalError</Code></Error>".to_vec()).is_err());
        for cut_off in [&b""[..], b"<?xml version=\"1.0\"?>\n  ", b"<CopyObjectResult><ETag>x</ETag>"] {
            assert!(error_inside(cut_off.to_vec()).is_err());
        }
        assert!(error_inside(b"<CopyObjectResult><ETag>x</ETag></CopyObjectResult>".to_vec()).is_ok());
    }
}
