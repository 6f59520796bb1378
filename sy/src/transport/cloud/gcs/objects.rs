//! Requests that need more than one step, or a second look.

use http::Method;
use serde_json::Value;

use super::super::attributes::Attributes;
use super::super::http::{Answer, Body, Dialect, Failed, Request, Verdict};
use super::super::store::{If, Removal, Store};
use super::super::sums::Sums;
use super::super::xml;
use super::wire::{check, condition, is_missing, resource};
use super::{Gcs, answers};
use crate::error::{ErrorKind, Result, SyncError};

impl Gcs {
    /// A write that was sent twice may meet itself: is what is there what was sent?
    pub(super) fn is_ours(&self, key: &[u8], size: u64, sums: &Sums) -> Option<String> {
        let head = Store::head(self, key).ok()??;
        (head.size == size && head.sums.agree(sums) == Some(true)).then_some(head.tag)
    }

    /// Changes the metadata of an object where it stands. Names that are not ours stay.
    pub(super) fn patch(&self, key: &[u8], tag: &str, attributes: &Attributes) -> Result<String> {
        let mut resource = resource(attributes);
        if let Some(metadata) = resource.get_mut("metadata").and_then(Value::as_object_mut) {
            for name in ["mtime", "mode", "uid", "gid", answers::GSUTIL_MTIME] {
                metadata.entry(name).or_insert(Value::Null);
            }
        }
        let query = if tag.is_empty() { String::new() } else { condition(If::Tag(tag)) };
        let body = Value::from(resource).to_string();
        let request = Request::new(Method::PATCH, format!("{}?fields=generation{query}", self.settings.object(key)))
            .header("content-type", "application/json")
            .body(Body::Bytes(body.as_bytes()));
        answers::generation(&self.json(&request)?)
    }

    pub(super) fn delete_one(&self, one: &Removal<'_>) -> Result<()> {
        check(one.key)?;
        let condition = one.tag.map(|tag| condition(If::Tag(tag)).replacen('&', "?", 1)).unwrap_or_default();
        match self.send(&Request::new(Method::DELETE, format!("{}{condition}", self.settings.object(one.key)))) {
            Err(error) if is_missing(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Uploads in parts know no conditions: all that can be done is to look just before the end.
    pub(super) fn still(&self, key: &[u8], when: If<'_>) -> Result<()> {
        let expected = match when {
            If::Always => return Ok(()),
            If::Absent => None,
            If::Tag(tag) => Some(tag),
        };
        let there = Store::head(self, key)?.map(|head| head.tag);
        if there.as_deref() == expected {
            return Ok(());
        }
        Err(SyncError::new(ErrorKind::Conflict, "it changed since it was listed")
            .hint("nothing was overwritten; the next run will look again"))
    }

    /// What an upload in parts became: its tag, if it is what was sent.
    pub(super) fn completed(&self, key: &[u8], answer: Answer, size: u64, sums: &Sums) -> Result<String> {
        let told = answers::sums(&answer.headers);
        let tag = answer.header("x-goog-generation").map(str::to_owned);
        let body = self.http.text(answer)?;
        if xml::find(&body, "ETag").is_none() {
            // The answer began before it was known how it would end.
            return match self.judge(&Failed { status: 500, headers: http::HeaderMap::new(), body }) {
                Verdict::Later(error) | Verdict::Now(error) => Err(error.retryable()),
                Verdict::Never(error) => Err(error),
            };
        }
        let (tag, there, certain) = match (tag, told.crc32c) {
            (Some(tag), Some(_)) => (tag, told, true),
            _ => match Store::head(self, key)? {
                Some(head) if head.size == size => {
                    let certain = told.crc32c.is_some() && told.crc32c == head.sums.crc32c;
                    (head.tag, head.sums, certain)
                }
                // Somebody was faster.
                _ => return Ok(String::new()),
            },
        };
        if there.agree(sums) != Some(false) {
            return Ok(tag);
        }
        if certain {
            // It would look like what was sent.
            let _ = self.delete_one(&Removal { key, tag: Some(&tag) });
        }
        Err(SyncError::new(ErrorKind::Verification, "what the store has is not what was sent").retryable())
    }
}
