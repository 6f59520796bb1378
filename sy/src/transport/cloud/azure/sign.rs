//! Shared Key: proves who asks, over the method, some headers, the path and the query.
//!
//! Source: Microsoft, "Authorize with Shared Key".

use http::HeaderValue;
use http::header::AUTHORIZATION;
use http::request::Parts;
use reqsign_core::hash::{base64_decode, base64_hmac_sha256};

use super::super::uri;
use crate::error::{ErrorKind, Result, SyncError};

/// Headers that are signed by their place; the length is left out where it is 0.
const PLACES: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// Signs `parts`, which have their date already, with the account's key in base 64.
pub fn sign(parts: &mut Parts, account: &str, key: &str) -> Result<()> {
    let bad = |_| SyncError::new(ErrorKind::Authentication, "the key of the storage account is not valid").hint("it is text in base 64");
    let key = base64_decode(key.trim()).map_err(bad)?;
    let signature = base64_hmac_sha256(&key, text(parts, account).as_bytes());
    let value = HeaderValue::from_str(&format!("SharedKey {account}:{signature}"));
    let mut value = value.map_err(|_| SyncError::new(ErrorKind::Io, "a request could not be signed"))?;
    value.set_sensitive(true);
    parts.headers.insert(AUTHORIZATION, value);
    Ok(())
}

/// What is signed.
fn text(parts: &Parts, account: &str) -> String {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let mut text = parts.method.as_str().to_owned();
    for name in PLACES {
        text.push('\n');
        text.push_str(match header(name) {
            "0" if name == "content-length" => "",
            value => value,
        });
    }
    text.push('\n');
    let mut names: Vec<&str> = parts.headers.keys().map(http::HeaderName::as_str).filter(|name| name.starts_with("x-ms-")).collect();
    names.sort_unstable();
    for name in names {
        text.extend([name, ":", header(name), "\n"]);
    }
    text.extend(["/", account, parts.uri.path()]);
    // The query as it is meant, not as it is written: decoded, and in the order of the names.
    let decoded = |text: &str| String::from_utf8_lossy(&uri::decode(text)).into_owned();
    let query = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = query
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name).to_lowercase(), decoded(value)))
        .collect();
    pairs.sort_unstable();
    for (name, value) in pairs {
        text.extend(["\n", &name, ":", &value]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).expect("a request").into_parts().0
    }

    /// The examples of the documentation, but for headers that are not sent.
    #[test]
    fn the_documented_text_comes_out() {
        let request = http::Request::get("https://myaccount.blob.core.windows.net/mycontainer?restype=container&comp=metadata&timeout=20")
            .header("x-ms-version", "2015-02-21")
            .header("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT");
        let expected = "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
            /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20";
        assert_eq!(text(&parts(request), "myaccount"), expected);
    }

    #[test]
    fn paths_stay_and_values_are_decoded() {
        let request = http::Request::put("http://h/acc/c/a//%C3%A4/../b?comp=block&blockid=a%2Bb%3D")
            .header("content-length", "3")
            .header("if-match", "\"0x8\"")
            .header("range", "bytes=0-1");
        let expected = "PUT\n\n\n3\n\n\n\n\n\"0x8\"\n\n\nbytes=0-1\n/acc/acc/c/a//%C3%A4/../b\nblockid:a+b=\ncomp:block";
        assert_eq!(text(&parts(request), "acc"), expected);
    }

    #[test]
    fn a_key_that_is_none_is_told_without_showing_it() {
        let mut parts = parts(http::Request::get("http://h/c"));
        let error = sign(&mut parts, "a", "!hunter2!").expect_err("no base 64");
        assert!(error.kind == ErrorKind::Authentication && !format!("{error:?}").contains("hunter2"));
        sign(&mut parts, "a", "a2V5").expect("signed");
        assert!(!format!("{:?}", parts.headers).contains("SharedKey"));
    }
}
