//! Keys, conditions, sums and metadata as they go over the wire.

use serde_json::{Map, Value};

use super::super::attributes::{Attributes, TimeStyle};
use super::super::store::If;
use super::super::sums::{Sums, base64};
use super::super::uri;
use super::answers::HANDLED;
use crate::error::{ErrorKind, Result, SyncError};

/// The type of what says nothing of its type.
pub const UNTYPED: &str = "application/octet-stream";

/// A key that the service has names for.
pub fn check(key: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(key).map_err(|_| SyncError::unsupported("a key in Google Cloud Storage must be UTF-8"))?;
    match text {
        _ if text.is_empty() || text.len() > 1024 => Err(SyncError::unsupported("a key in Google Cloud Storage has from 1 to 1,024 bytes")),
        "." | ".." => Err(SyncError::unsupported("a key in Google Cloud Storage can't be \".\" or \"..\"")),
        _ if text.contains(['\r', '\n']) => Err(SyncError::unsupported("a key in Google Cloud Storage can't hold line ends")),
        _ if text.starts_with(".well-known/acme-challenge/") => {
            Err(SyncError::unsupported("a key in Google Cloud Storage can't begin with .well-known/acme-challenge/"))
        }
        _ => Ok(text),
    }
}

/// The condition of a write as a part of a query.
pub fn condition(when: If<'_>) -> String {
    match when {
        If::Always => String::new(),
        If::Absent => "&ifGenerationMatch=0".to_owned(),
        If::Tag(tag) => format!("&ifGenerationMatch={}", uri::encode_value(tag.as_bytes())),
    }
}

pub fn hashes(sums: &Sums) -> Option<String> {
    let crc32c = sums.crc32c.map(|sum| format!("crc32c={}", base64(&sum.to_be_bytes())));
    let md5 = sums.md5.map(|sum| format!("md5={}", base64(&sum)));
    let all: Vec<String> = crc32c.into_iter().chain(md5).collect();
    (!all.is_empty()).then(|| all.join(","))
}

/// An object's metadata in the JSON API.
pub fn resource(attributes: &Attributes) -> Map<String, Value> {
    let foreign = attributes.all_foreign().map(|(name, value)| (name.to_owned(), value.into()));
    let own = attributes.pairs(TimeStyle::Rfc3339).into_iter().map(|(name, value)| (name.to_owned(), value.into()));
    let metadata: Map<String, Value> = foreign.chain(own).collect();
    let mut resource = Map::new();
    for (name, field) in HANDLED {
        let told = attributes.headers().iter().find(|(told, _)| *told == name);
        resource.extend(told.map(|(_, value)| (field.to_owned(), value.as_str().into())));
    }
    resource.insert("metadata".to_owned(), metadata.into());
    if let Some(kind) = &attributes.content_type {
        resource.insert("contentType".to_owned(), kind.as_str().into());
    }
    resource
}

pub fn part_query(number: u32, upload: &str) -> String {
    format!("partNumber={number}&uploadId={}", uri::encode_value(upload.as_bytes()))
}

/// Only objects are meant; that there is no bucket is an error for everybody.
pub fn is_missing(error: &SyncError) -> bool {
    error.kind == ErrorKind::NotFound && error.hint.is_none()
}

/// Where nothing but the bucket can be missing, whatever the words are.
pub fn no_bucket(error: SyncError) -> SyncError {
    if !is_missing(&error) {
        return error;
    }
    let message = error.message.replacen("no such object", "no such bucket", 1);
    SyncError { message, ..error }.hint("check its name and the endpoint")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::sums::{self, Kinds};
    use super::*;
    use crate::transport::Time;

    #[test]
    fn keys_that_the_service_can_not_have_are_refused() {
        let long = vec![b'a'; 1025];
        for key in [&b""[..], b".", b"..", b"a\nb", b"a\r", b"\xff", b".well-known/acme-challenge/x", &long] {
            assert_eq!(check(key).expect_err("refused").kind, ErrorKind::Unsupported);
        }
        for key in [&b"a//b"[..], b"../x", b"./x", b"/x", b"a\tb", b"#[*?]", &long[..1024]] {
            assert!(check(key).is_ok());
        }
    }

    #[test]
    fn conditions_and_sums_as_they_are_sent() {
        assert_eq!((condition(If::Always).as_str(), condition(If::Absent).as_str()), ("", "&ifGenerationMatch=0"));
        assert_eq!(condition(If::Tag("17")), "&ifGenerationMatch=17");
        let sums = sums::of(b"123456789", Kinds { md5: true, ..Kinds::CRC32C });
        assert_eq!(hashes(&sums).as_deref(), Some("crc32c=4waSgw==,md5=JfnnlDI7RTiF9RgfG2JNCw=="));
        assert_eq!(hashes(&Sums::default()), None);
    }

    #[test]
    fn metadata_goes_under_the_names_that_others_use() {
        let mtime = Time { seconds: 1_617_196_800, nanos: 5 };
        let attributes =
            Attributes { mtime: Some(mtime), mode: Some(0o100_644), content_type: Some("text/plain".into()), ..Attributes::default() };
        let expected = json!({"contentType": "text/plain", "metadata": {"mode": "33188", "mtime": "2021-03-31T13:20:00.000000005Z"}});
        assert_eq!(Value::from(resource(&attributes)), expected);
        assert_eq!(Value::from(resource(&Attributes::default())), json!({"metadata": {}}));
    }
}
