use super::super::super::GcsConfig;
use super::*;
use crate::sync::Stop;
use crate::transport::Time;
use crate::transport::access::Login;
use crate::transport::config::{Secret, Url};

#[test]
fn a_page_has_keys_and_metadata_as_they_are() {
    let body = br#"{"kind": "storage#objects", "nextPageToken": "t", "prefixes": ["a/"], "items": [
        {"name": "a//b \u00e4", "size": "3", "generation": "17", "updated": "2021-03-31T13:20:00.250Z",
         "metadata": {"mtime": "2020-01-01T00:00:00.000000001Z", "mode": "33188", "goog-reserved-file-mtime": "5", "x": "y"}},
        {"name": "c", "size": "0", "generation": "18", "metadata": {"goog-reserved-file-mtime": "1617196800"}}]}"#;
    let page = page(body).expect("a page");
    assert_eq!((page.next.as_deref(), page.prefixes.as_slice()), (Some("t"), &[b"a/".to_vec()][..]));
    let object = &page.objects[0];
    assert_eq!((object.key.as_slice(), object.size, object.tag.as_str()), ("a//b ä".as_bytes(), 3, "17"));
    assert_eq!(object.modified, Time { seconds: 1_617_196_800, nanos: 250_000_000 });
    let attributes = object.attributes.as_ref().expect("listed");
    assert_eq!((attributes.mtime, attributes.mode), (Some(Time { seconds: 1_577_836_800, nanos: 1 }), Some(0o100_644)));
    let theirs = page.objects[1].attributes.as_ref().expect("listed");
    assert_eq!(theirs.mtime, Some(Time { seconds: 1_617_196_800, nanos: 0 }));
}

#[test]
fn what_is_no_list_is_not_an_empty_one() {
    assert_eq!(page(br#"{"kind": "storage#objects"}"#).expect("empty"), Page::default());
    for body in [&b"{}"[..], b"[]", b"", b"<html>", br#"{"kind": "storage#objects", "items": [{"name": "a"}]}"#] {
        assert!(page(body).is_err());
    }
}

#[test]
fn headers_tell_about_the_whole_object() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-range", "bytes 0-0/9"),
        ("content-length", "1"),
        ("x-goog-generation", "5"),
        ("x-goog-meta-mtime", "2021-03-31T13:20:00Z"),
        ("x-goog-hash", "crc32c=4waSgw=="),
        ("x-goog-hash", "md5=JfnnlDI7RTiF9RgfG2JNCw=="),
        ("x-goog-stored-content-encoding", "identity"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    let head = head_of(&headers).expect("a head");
    assert_eq!((head.size, head.tag.as_str()), (9, "5"));
    assert_eq!(head.attributes.mtime, Some(Time { seconds: 1_617_196_800, nanos: 0 }));
    assert!(head.sums.crc32c == Some(0xe306_9283) && head.sums.md5.is_some());
    headers.insert("x-goog-stored-content-encoding", HeaderValue::from_static("gzip"));
    assert!(head_of(&headers).is_err(), "unpacked on the way");
    headers.insert("content-encoding", HeaderValue::from_static("gzip"));
    assert!(head_of(&headers).is_ok());
}

fn gcs(config: GcsConfig) -> Gcs {
    let config = GcsConfig { endpoint: Some(Url::from_text("https://localhost").expect("a URL")), ..config };
    Gcs::open("b", &Login::from(config), Stop::default()).expect("a bucket")
}

fn judged(gcs: &Gcs, status: u16, body: &str) -> (char, SyncError) {
    match gcs.judge(&Failed { status, headers: HeaderMap::new(), body: body.into() }) {
        Verdict::Later(error) => ('L', error),
        Verdict::Now(error) => ('N', error),
        Verdict::Never(error) => ('X', error),
    }
}

fn json_error(reason: &str, message: &str) -> String {
    serde_json::json!({"error": {"code": 1, "message": message, "errors": [{"message": message, "reason": reason}]}}).to_string()
}

#[test]
fn errors_of_both_apis_are_understood() {
    use ErrorKind::{Authentication, Conflict, Io, Network, NotFound, PermissionDenied, Unsupported, Verification};
    let open = gcs(GcsConfig { anonymous: true, ..GcsConfig::default() });
    let xml = |code: &str| format!("<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>");
    for (status, body, verdict, kind) in [
        (401, json_error("required", "Anonymous caller"), 'X', Authentication),
        (403, json_error("forbidden", "x does not have storage.objects.list access"), 'X', PermissionDenied),
        (403, json_error("rateLimitExceeded", "m"), 'L', Network),
        (403, json_error("userRateLimitExceeded", "m"), 'L', Network),
        (403, xml("AccessDenied"), 'X', PermissionDenied),
        (404, json_error("notFound", "No such object: b/x"), 'X', NotFound),
        (404, xml("NoSuchUpload"), 'X', NotFound),
        (408, String::new(), 'L', Network),
        (412, json_error("conditionNotMet", "m"), 'X', Conflict),
        (412, xml("PreconditionFailed"), 'X', Conflict),
        (429, String::new(), 'L', Network),
        (500, json_error("backendError", "m"), 'L', Network),
        (501, xml("NotImplemented"), 'X', Unsupported),
        (503, "<html>".into(), 'L', Network),
        (400, json_error("invalid", "Provided CRC32C \"a\" doesn't match calculated CRC32C \"b\"."), 'L', Verification),
        (400, xml("BadDigest"), 'L', Verification),
        (400, json_error("invalid", "m"), 'X', Io),
        (400, "Invalid\x1b[31m".into(), 'X', Io),
    ] {
        let (how, error) = judged(&open, status, &body);
        assert_eq!((how, error.kind), (verdict, kind), "{status} {body}");
        assert!(!error.to_string().contains('\x1b'));
    }
    assert!(judged(&open, 404, &json_error("notFound", "The specified bucket does not exist.")).1.hint.is_some());
    assert!(judged(&open, 404, &json_error("notFound", "No such object: b/x")).1.hint.is_none());
}

#[test]
fn a_given_token_can_not_be_renewed() {
    let given = gcs(GcsConfig { token: Secret::from_text("t"), ..GcsConfig::default() });
    let (how, error) = judged(&given, 401, &json_error("authError", "Invalid Credentials"));
    assert_eq!((how, error.kind), ('X', ErrorKind::Authentication));
    assert!(error.to_string().contains("authError: Invalid Credentials"), "{error}");
}

#[test]
fn who_pays_is_told_only_when_that_is_asked_for() {
    let message = json_error("required", "Bucket is a requester pays bucket but no user project provided.");
    let config = || GcsConfig { anonymous: true, ..GcsConfig::default() };
    assert_eq!(judged(&gcs(config()), 400, &message).0, 'X');
    let paying = gcs(GcsConfig { project_id: Some("p-1".into()), ..config() });
    let header = |gcs: &Gcs| {
        let mut parts = http::Request::new(()).into_parts().0;
        gcs.sign(&mut parts).expect("signed");
        text(&parts.headers, "x-goog-user-project").map(str::to_owned)
    };
    assert_eq!(header(&paying), None);
    assert_eq!(judged(&paying, 400, &message).0, 'N');
    assert_eq!(header(&paying).as_deref(), Some("p-1"));
    assert_eq!(judged(&paying, 400, &message).0, 'X');
}
