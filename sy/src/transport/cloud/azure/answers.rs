//! What Azure answers: headers and XML, and what its errors mean.

use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use reqsign_core::time::Timestamp;

use super::super::attributes::{Attributes, HANDLING, parse_http_date};
use super::super::http::{Dialect, Failed, Verdict};
use super::super::store::{Head, Object, Page, Part};
use super::super::sums::{Sums, base64, from_base64};
use super::super::xml::{self, Met};
use super::super::{WHOLE, bare, uri};
use super::Azure;
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::Time;

/// The first with all that is used here: encoded names in lists, blocks of 4,000 MiB, CRC-64.
const VERSION: HeaderValue = HeaderValue::from_static("2021-12-02");

impl Dialect for Azure {
    fn sign(&self, parts: &mut Parts) -> Result<()> {
        let bad = || SyncError::new(ErrorKind::Io, "a request could not be signed");
        let now = Timestamp::from_second(self.credentials.now()).map_err(|_| bad())?.format_http_date();
        parts.headers.insert("x-ms-version", VERSION);
        parts.headers.insert("x-ms-date", HeaderValue::from_str(&now).map_err(|_| bad())?);
        self.credentials.sign(parts)
    }

    fn judge(&self, failed: &Failed) -> Verdict {
        let (code, message) = xml::failure(failed);
        let code = failed.header("x-ms-error-code").map_or(code, str::to_owned);
        // After what happened it says when, and to which request.
        let message = message.split("RequestId:").next().unwrap_or_default().trim_end().to_owned();
        let told = |kind, text: &str| {
            let code = if code.is_empty() { format!("status {}", failed.status) } else { code.clone() };
            let why = if message.is_empty() { String::new() } else { format!(": {message}") };
            SyncError::new(kind, format!("{text} ({code}{why})"))
        };
        let never = |kind, text: &str, hint: &str| Verdict::Never(told(kind, text).hint(hint));
        // The emulator has another code for it.
        let unknown = message.starts_with("Server failed to authenticate");
        match (failed.status, code.as_str()) {
            (status, code)
                if status == 401
                    || unknown
                    || matches!(code, "AuthenticationFailed" | "InvalidAuthenticationInfo" | "NoAuthenticationInformation") =>
            {
                let detail = xml::find(&failed.body, "AuthenticationErrorDetail").unwrap_or_default();
                if failed.header("date").and_then(parse_http_date).is_some_and(|theirs| self.credentials.set_clock(theirs.seconds)) {
                    return Verdict::Now(told(ErrorKind::Authentication, "the clock is wrong").hint("set the clock of this machine"));
                }
                if ["expired", "time frame"].iter().any(|sign| message.contains(sign) || detail.contains(sign)) {
                    let error = told(ErrorKind::Authentication, "the credentials have expired")
                        .hint("get new ones, or give AzureConfig(credentials=FUNCTION) to have them renewed");
                    return if self.credentials.forget() { Verdict::Now(error) } else { Verdict::Never(error) };
                }
                never(ErrorKind::Authentication, "the service does not accept the credentials", "check account, key or token, and endpoint")
            }
            (_, "CannotVerifyCopySource") => {
                never(ErrorKind::PermissionDenied, "the service may not read what it should copy", "check what the credentials may read")
            }
            (403, _) => {
                never(ErrorKind::PermissionDenied, "access was denied", "check the credentials and what they may do in this container")
            }
            (_, "ContainerNotFound" | "ContainerBeingDeleted" | "ContainerDisabled") => {
                never(ErrorKind::NotFound, "there is no such container", "check its name and the account")
            }
            (_, "ResourceNotFound" | "AccountNotFound") => {
                never(ErrorKind::NotFound, "there is no such account or container", "check the account, the container and the endpoint")
            }
            (404, _) => Verdict::Never(told(ErrorKind::NotFound, "there is no such object")),
            (_, "InvalidBlockList") => Verdict::Never(told(ErrorKind::NotFound, "the parts of the upload are not there any more")),
            (_, "InvalidBlobOrBlock") => never(
                ErrorKind::Io,
                "the service refused a part",
                "another program has an upload of that name under way; what it left ends after a week, or when the object is deleted",
            ),
            (_, "LeaseIdMissing" | "LeaseLost" | "LeaseIdMismatchWithBlobOperation") => {
                never(ErrorKind::PermissionDenied, "somebody holds a lease on it", "break the lease, or wait for its end")
            }
            (_, "BlobImmutableDueToPolicy") => {
                never(ErrorKind::PermissionDenied, "a policy keeps it as it is", "see the immutability policy of the container")
            }
            (_, "BlobArchived" | "BlobBeingRehydrated") => {
                never(ErrorKind::Unsupported, "it is in the archive tier", "bring it back to an online tier first, which takes hours")
            }
            (_, "InvalidBlobType" | "ResourceTypeMismatch" | "NotImplemented") | (501, _) => {
                Verdict::Never(told(ErrorKind::Unsupported, "the service can't do that"))
            }
            (_, "BlobAlreadyExists" | "InvalidRange") | (412 | 416, _) => {
                never(ErrorKind::Conflict, "it changed since it was listed", "nothing was overwritten; the next run will look again")
            }
            (_, "Md5Mismatch" | "Crc64Mismatch") => Verdict::Later(told(ErrorKind::Verification, "what arrived is not what was sent")),
            (429 | 503, _) => Verdict::Later(told(ErrorKind::Network, "the service asks for fewer requests")),
            (408 | 409 | 500 | 502 | 504, _) => Verdict::Later(told(ErrorKind::Network, "the service failed")),
            _ => Verdict::Never(told(ErrorKind::Io, "the service refused")),
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The metadata of an object, whoever set it.
pub fn metadata(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().filter_map(|(name, value)| Some((name.as_str().strip_prefix("x-ms-meta-")?, value.to_str().ok()?)))
}

/// What the headers of an answer tell about an object.
pub fn head(headers: &HeaderMap) -> Result<Head> {
    let number = |name: &str| text(headers, name).and_then(|value| value.parse().ok());
    let whole = text(headers, "content-range").and_then(|range| range.rsplit_once('/')).and_then(|(_, size)| size.parse().ok());
    let mut attributes = Attributes { content_type: text(headers, "content-type").map(str::to_owned), ..Attributes::default() };
    metadata(headers).for_each(|(name, value)| attributes.take(name, value));
    HANDLING.iter().for_each(|name| attributes.handle(name, text(headers, name)));
    // An object of unknown size must not look like an empty one.
    let size = whole.or_else(|| number("content-length"));
    let size = size.ok_or_else(|| SyncError::new(ErrorKind::Io, "the service did not say how large the object is"))?;
    Ok(Head {
        size,
        modified: text(headers, "last-modified").and_then(parse_http_date).unwrap_or_default(),
        tag: bare(text(headers, "etag").unwrap_or_default()),
        attributes,
        sums: sums(headers),
        composite: None,
    })
}

/// The sums of the whole content: with a range that of the whole has a header of its own.
fn sums(headers: &HeaderMap) -> Sums {
    let is_range = headers.contains_key("content-range");
    let md5 = text(headers, "x-ms-blob-content-md5").or_else(|| text(headers, "content-md5").filter(|_| !is_range));
    // Other kinds of blobs change without their metadata.
    let block = text(headers, "x-ms-blob-type").is_none_or(|kind| kind == "BlockBlob");
    let own = metadata(headers).find(|(name, _)| *name == WHOLE).filter(|_| block);
    Sums { crc64: own.and_then(|(_, value)| from_base64(value)).map(u64::from_be_bytes), md5: md5.and_then(from_base64), ..Sums::default() }
}

/// A page of a listing.
pub fn page(body: &[u8]) -> Result<Page> {
    let mut page = Page::default();
    let (mut object, mut encoded, mut folder) = (empty(), false, false);
    xml::walk(body, |met| match met {
        Met::Attribute { name, value } => encoded = name == "Encoded" && value == "true",
        Met::Text { parent: parent @ ("Blob" | "BlobPrefix"), name: "Name", text } => {
            // A plus sign is one here.
            let key = if std::mem::take(&mut encoded) { uri::decode(&text.replace('+', "%2B")) } else { text.as_bytes().to_vec() };
            if parent == "Blob" { object.key = key } else { page.prefixes.push(key) }
        }
        Met::Text { parent: "Properties", name, text } => match name {
            "Content-Length" => object.size = text.trim().parse().unwrap_or(0),
            "Etag" => object.tag = bare(text),
            "Last-Modified" => object.modified = parse_http_date(text.trim()).unwrap_or_default(),
            _ => {}
        },
        Met::Text { parent: "Metadata", name, text } => {
            folder |= name.eq_ignore_ascii_case("hdi_isfolder") && text == "true";
            object.attributes.get_or_insert_default().set(name, text);
        }
        Met::Text { parent: "EnumerationResults", name: "NextMarker", text } => page.next = Some(text.to_owned()),
        Met::End { name: "Blob" } => {
            let object = std::mem::replace(&mut object, empty());
            // Data Lake lists its directories beside what is in them, which shows that they are there.
            if !std::mem::take(&mut folder) || object.size > 0 {
                page.objects.push(object);
            }
        }
        _ => {}
    })?;
    page.next = page.next.filter(|next| !next.is_empty());
    // A list that is not known to be whole must not look like one: what is not on it would be deleted.
    let mark = b"<NextMarker";
    if !body.windows(mark.len()).rev().any(|window| window == mark) {
        return Err(SyncError::new(ErrorKind::Io, "the service did not say whether its list is complete"));
    }
    Ok(page)
}

/// Lists tell all metadata, so what is not told is not there.
fn empty() -> Object {
    Object { key: Vec::new(), size: 0, modified: Time::default(), tag: String::new(), attributes: Some(Attributes::default()) }
}

/// The name of a part: that of its upload, its number, and its sum, since Azure tells no sums of what it holds. Names
/// of one object's parts have one length.
pub fn part_name(upload: &str, number: u32, sums: &Sums) -> String {
    base64(format!("{upload}{number:06}{:016x}", sums.crc64.unwrap_or(0)).as_bytes())
}

fn parse_part_name(upload: &str, name: &str) -> Option<(u32, u64)> {
    let bytes: [u8; 38] = from_base64(name)?;
    let rest = std::str::from_utf8(&bytes).ok()?.strip_prefix(upload)?;
    let (number, sum) = rest.split_at_checked(6)?;
    Some((number.parse().ok()?, u64::from_str_radix(sum, 16).ok()?))
}

/// The parts of an upload among those that make up no object yet.
pub fn parts(body: &[u8], upload: &str) -> Result<Vec<Part>> {
    let (mut parts, mut name, mut size) = (Vec::new(), String::new(), 0);
    xml::walk(body, |met| match met {
        Met::Text { parent: "Block", name: "Name", text } => text.trim().clone_into(&mut name),
        Met::Text { parent: "Block", name: "Size", text } => size = text.trim().parse().unwrap_or(0),
        Met::End { name: "Block" } => {
            if let Some((number, sum)) = parse_part_name(upload, &name) {
                parts.push(Part { number, size, tag: name.clone(), sums: Sums { crc64: Some(sum), ..Sums::default() } });
            }
        }
        _ => {}
    })?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::access::Login;
    use crate::transport::cloud::AzureConfig;
    use crate::transport::config::Secret;

    fn judge(azure: &Azure, status: u16, code: &'static str, body: &str) -> Verdict {
        let headers = [(http::HeaderName::from_static("x-ms-error-code"), HeaderValue::from_static(code))].into_iter().collect();
        azure.judge(&Failed { status, headers, body: body.as_bytes().to_vec() })
    }

    #[test]
    fn failures_are_told_apart() {
        let connection_string = Secret::from_text("AccountName=a;AccountKey=a2V5");
        let login = Login::from(AzureConfig { connection_string, ..AzureConfig::default() });
        let azure = Azure::open("c", &login, crate::sync::Stop::default()).expect("a container");
        let never = |status, code| match judge(&azure, status, code, "") {
            Verdict::Never(error) => Some((error.kind, error.hint.is_some())),
            _ => None,
        };
        assert_eq!(never(403, "AuthenticationFailed"), Some((ErrorKind::Authentication, true)));
        assert_eq!(never(403, "AuthorizationPermissionMismatch"), Some((ErrorKind::PermissionDenied, true)));
        assert_eq!(never(404, "BlobNotFound"), Some((ErrorKind::NotFound, false)));
        assert_eq!(never(404, "ContainerNotFound"), Some((ErrorKind::NotFound, true)));
        assert_eq!(never(409, "BlobAlreadyExists"), Some((ErrorKind::Conflict, true)));
        assert_eq!(never(412, "ConditionNotMet"), Some((ErrorKind::Conflict, true)));
        for (status, code) in [(408, "x"), (409, "x"), (429, "x"), (500, "InternalError"), (503, "ServerBusy"), (400, "Crc64Mismatch")] {
            assert!(matches!(judge(&azure, status, code, ""), Verdict::Later(_)), "{code}");
        }
        let body = "<Error><Code>x</Code><Message>No.\nRequestId:1\nTime:2</Message></Error>";
        let Verdict::Never(error) = judge(&azure, 400, "InvalidInput", body) else { panic!("never") };
        assert_eq!(error.to_string(), "the service refused (InvalidInput: No.)");
    }

    #[test]
    fn a_page_has_keys_and_metadata() {
        let body =
            b"<?xml version=\"1.0\"?><EnumerationResults ServiceEndpoint=\"http://h/\" ContainerName=\"c\"><Prefix>a</Prefix><Blobs>\
            <Blob><Name>a//b &amp; c+</Name><Properties><Last-Modified>Wed, 31 Mar 2021 13:20:00 GMT</Last-Modified><Etag>0x8D</Etag>\
            <Content-Length>3</Content-Length></Properties><Metadata><Name>x</Name><Mode>33188</Mode></Metadata></Blob>\
            <Blob><Name Encoded=\"true\">d+%01</Name><Properties/><Metadata/></Blob>\
            <Blob><Name>dir</Name><Properties/><Metadata><hdi_isfolder>true</hdi_isfolder></Metadata></Blob>\
            <BlobPrefix><Name>e/</Name></BlobPrefix></Blobs><NextMarker>m=</NextMarker></EnumerationResults>";
        let page = page(body).expect("a page");
        assert_eq!((page.next.as_deref(), page.prefixes.as_slice()), (Some("m="), &[b"e/".to_vec()][..]));
        let keys: Vec<&[u8]> = page.objects.iter().map(|object| object.key.as_slice()).collect();
        assert_eq!(keys, [&b"a//b & c+"[..], b"d+\x01"]);
        let object = &page.objects[0];
        assert_eq!((object.size, object.tag.as_str(), object.modified.seconds), (3, "0x8D", 1_617_196_800));
        assert_eq!(object.attributes.as_ref().and_then(|attributes| attributes.mode), Some(0o100_644));
        assert_eq!(page.objects[1].attributes, Some(Attributes::default()), "there is none, which is known");
    }

    #[test]
    fn a_page_that_may_not_be_whole_is_refused() {
        assert!(page(b"<EnumerationResults><Blobs/></EnumerationResults>").is_err());
        assert!(page(b"<EnumerationResults><Blobs/><NextMarker/>").is_err());
        let last = page(b"<EnumerationResults><Blobs /><NextMarker /></EnumerationResults>").expect("a page");
        assert_eq!(last, Page::default());
    }

    #[test]
    fn sums_of_a_range_are_not_those_of_the_whole() {
        let of = |headers: &[(&'static str, &'static str)]| {
            let headers: HeaderMap =
                headers.iter().map(|&(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
            let head = head(&headers).expect("a size");
            (head.size, head.sums.md5.is_some(), head.sums.crc64)
        };
        let md5 = "JfnnlDI7RTiF9RgfG2JNCw==";
        assert!(head(&HeaderMap::new()).is_err(), "of unknown size");
        assert_eq!(of(&[("content-length", "9"), ("content-md5", md5)]), (9, true, None));
        assert_eq!(of(&[("content-length", "2"), ("content-range", "bytes 0-1/9"), ("content-md5", md5)]), (9, false, None));
        assert_eq!(of(&[("content-range", "bytes 0-1/9"), ("x-ms-blob-content-md5", md5)]), (9, true, None));
        let sum = Some(0xae8b_1486_0a79_9888);
        assert_eq!(of(&[("content-length", "9"), ("x-ms-meta-crc64nvme", "rosUhgp5mIg=")]), (9, false, sum));
        assert_eq!(
            of(&[("content-length", "0"), ("x-ms-blob-type", "AppendBlob"), ("x-ms-meta-crc64nvme", "rosUhgp5mIg=")]),
            (0, false, None)
        );
    }

    #[test]
    fn an_upload_knows_its_parts() {
        let sums = Sums { crc64: Some(7), ..Sums::default() };
        let (ours, theirs) = (part_name("0123456789abcdef", 12, &sums), part_name("ffffffffffffffff", 12, &sums));
        let block = |name: &str| format!("<Block><Name>{name}</Name><Size>5</Size></Block>");
        let list = [&ours, &theirs, "AAAA"].map(block).concat();
        let body = format!("<BlockList><CommittedBlocks/><UncommittedBlocks>{list}</UncommittedBlocks></BlockList>");
        let found = parts(body.as_bytes(), "0123456789abcdef").expect("parts");
        assert_eq!(found, [Part { number: 12, size: 5, tag: ours, sums }]);
    }
}
