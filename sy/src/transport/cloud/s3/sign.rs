//! Signature Version 4: proves who asks, over the method, the path, the query and the headers that matter.
//!
//! Source: AWS, "Create a signed AWS API request". The key for a day is kept, which leaves two HMACs to a request.

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderValue;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use reqsign_aws_v4::Credential;
use sha2::{Digest, Sha256};

use super::super::attributes::civil;
use crate::error::{ErrorKind, Result, SyncError};

/// SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The signing key of one day.
pub struct Key {
    date: String,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(***)")
    }
}

impl Key {
    pub fn new(secret: &str, date: &str, region: &str) -> Self {
        let parts = [date, region, "s3", "aws4_request"];
        let bytes = parts.iter().fold(format!("AWS4{secret}").into_bytes(), |key, part| hmac(&key, part.as_bytes()));
        Self { date: date.to_owned(), bytes }
    }

    pub fn renew(&mut self, secret: &str, date: &str, region: &str) {
        if self.date != date {
            *self = Self::new(secret, date, region);
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
        out
    })
}

/// `20261124T101500Z` of a second since 1970.
pub fn stamp(seconds: i64) -> String {
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Signs `parts` at the time of `stamp`. Bodies are covered by their own check sums, not by the signature.
pub fn sign(parts: &mut Parts, credential: &Credential, key: &[u8], stamp: &str, region: &str) -> Result<()> {
    let bad = || SyncError::new(ErrorKind::Io, "a request could not be signed");
    let has_body = parts.headers.get("content-length").is_some_and(|length| length != "0");
    let payload = if has_body { "UNSIGNED-PAYLOAD" } else { EMPTY };
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| bad());
    parts.headers.insert("x-amz-date", value(stamp)?);
    parts.headers.insert("x-amz-content-sha256", value(payload)?);
    if let Some(token) = &credential.session_token {
        let mut token = value(token)?;
        token.set_sensitive(true);
        parts.headers.insert("x-amz-security-token", token);
    }
    let host = parts.uri.authority().ok_or_else(bad)?.as_str().to_owned();
    parts.headers.insert(HOST, value(&host)?);
    let mut signed: Vec<(&str, &[u8])> = parts
        .headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-amz-") || matches!(name.as_str(), "host" | "content-md5" | "content-type"))
        .map(|(name, value)| (name.as_str(), value.as_bytes().trim_ascii()))
        .collect();
    signed.sort_unstable();
    let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let mut hash = Sha256::new();
    hash.update(format!("{}\n{}\n{}\n", parts.method, parts.uri.path(), query(parts.uri.query().unwrap_or_default())));
    for (name, value) in &signed {
        hash.update(name);
        hash.update(b":");
        hash.update(value);
        hash.update(b"\n");
    }
    hash.update(format!("\n{names}\n{payload}"));
    let scope = format!("{}/{region}/s3/aws4_request", &stamp[..8]);
    let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex(&hash.finalize()));
    let signature = hex(&hmac(key, text.as_bytes()));
    let id = &credential.access_key_id;
    let mut authorization = value(&format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"))?;
    authorization.set_sensitive(true);
    parts.headers.insert(AUTHORIZATION, authorization);
    Ok(())
}

/// The query in order; a name alone gets an empty value.
fn query(query: &str) -> String {
    let mut pairs: Vec<String> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
        .collect();
    pairs.sort_unstable_by(|a, b| a.split_once('=').cmp(&b.split_once('=')));
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the S3 documentation ("Signature calculations for the authorization header"), account and all.
    #[test]
    fn the_documented_examples_come_out() {
        let credential = Credential {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            ..Credential::default()
        };
        let key = Key::new(&credential.secret_access_key, "20130524", "us-east-1");
        for (uri, signature) in [
            ("https://examplebucket.s3.amazonaws.com/?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            (
                "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let (mut parts, ()) = http::Request::get(uri).body(()).expect("a request").into_parts();
            sign(&mut parts, &credential, key.bytes(), "20130524T000000Z", "us-east-1").expect("signed");
            let authorization = parts.headers[AUTHORIZATION].to_str().expect("text");
            assert!(authorization.ends_with(&format!("Signature={signature}")), "{authorization}");
        }
    }

    #[test]
    fn stamps() {
        assert_eq!(stamp(1_369_353_600), "20130524T000000Z");
        assert_eq!(stamp(951_868_799), "20000229T235959Z");
    }
}
