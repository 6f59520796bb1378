//! Where a bucket is: the config's endpoint, the emulator that the environment names, or Google, in this order.

use super::super::{CloudClientOptions, GcsConfig, uri};
use crate::error::{Result, SyncError};

const GOOGLE: &str = "https://storage.googleapis.com";

#[derive(Debug)]
pub struct Settings {
    /// Scheme and host, without a slash at the end.
    pub base: String,
    /// The bucket as it stands in URLs.
    bucket: String,
    /// The environment named the service: it stands in for Google's, and is nobody to show credentials to unasked.
    pub emulator: bool,
    /// It is Google's own.
    pub google: bool,
    /// Pays where a bucket makes the requester pay.
    pub project: Option<String>,
}

impl Settings {
    pub fn new(bucket: &str, config: &GcsConfig, client: &CloudClientOptions, emulator: Option<String>) -> Result<Self> {
        let explicit = config.endpoint.as_ref().map(|url| url.as_str().to_owned());
        let by_environment = explicit.is_none() && emulator.is_some();
        let base = match (explicit, emulator) {
            (Some(url), _) => url,
            // Some tools take it without a scheme.
            (None, Some(host)) if !host.contains("://") => format!("http://{host}"),
            (None, Some(url)) => url,
            (None, None) => GOOGLE.to_owned(),
        };
        let base = base.trim_end_matches('/').to_owned();
        client.allow(&base)?;
        let project = config.project_id.clone().filter(|project| !project.is_empty());
        if project.as_ref().is_some_and(|project| !project.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:_".contains(&b))) {
            return Err(SyncError::config("project_id must be a name such as \"my-project-1\""));
        }
        let google = base == GOOGLE;
        Ok(Self { google, base, bucket: uri::encode_value(bucket.as_bytes()), emulator: by_environment, project })
    }

    /// The list of objects, in the JSON API.
    pub fn objects(&self) -> String {
        format!("{}/storage/v1/b/{}/o", self.base, self.bucket)
    }

    /// An object in the JSON API.
    pub fn object(&self, key: &[u8]) -> String {
        format!("{}/{}", self.objects(), uri::encode_value(key))
    }

    pub fn upload(&self) -> String {
        format!("{}/upload/storage/v1/b/{}/o", self.base, self.bucket)
    }

    /// An object in the XML API.
    pub fn content(&self, key: &[u8]) -> String {
        // What a server or proxy could take for a path to tidy up goes without slashes.
        let odd = key.split(|&b| b == b'/').any(|segment| matches!(segment, b"" | b"." | b".."));
        format!("{}/{}/{}", self.base, self.bucket, if odd { uri::encode_value(key) } else { uri::encode_key(key) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::config::Url;

    fn settings(endpoint: Option<&str>, emulator: Option<&str>) -> Result<Settings> {
        let client = CloudClientOptions { allow_http: true, ..CloudClientOptions::default() };
        let config = GcsConfig { endpoint: endpoint.map(|url| Url::from_text(url).expect("a URL")), ..GcsConfig::default() };
        Settings::new("b", &config, &client, emulator.map(str::to_owned))
    }

    #[test]
    fn an_explicit_endpoint_wins_over_the_environment() {
        let of = |endpoint, emulator| settings(endpoint, emulator).map(|settings| (settings.base, settings.emulator)).expect("settings");
        assert_eq!(of(None, None), (GOOGLE.to_owned(), false));
        assert_eq!(of(None, Some("localhost:4443")), ("http://localhost:4443".to_owned(), true));
        assert_eq!(of(None, Some("https://h/")), ("https://h".to_owned(), true));
        assert_eq!(of(Some("http://h:1/"), Some("localhost:4443")), ("http://h:1".to_owned(), false));
    }

    #[test]
    fn plain_http_has_to_be_allowed() {
        let config = GcsConfig { endpoint: Some(Url::from_text("http://h").expect("a URL")), ..GcsConfig::default() };
        let refused = Settings::new("b", &config, &CloudClientOptions::default(), None);
        if std::env::var_os("AWS_ALLOW_HTTP").is_none() {
            assert!(refused.is_err());
        }
    }

    #[test]
    fn keys_stand_whole_in_urls() {
        let settings = settings(None, None).expect("settings");
        assert_eq!(settings.object(b"a/b c?\xc3\xa4"), format!("{GOOGLE}/storage/v1/b/b/o/a%2Fb%20c%3F%C3%A4"));
        assert_eq!(settings.content(b"a/b c"), format!("{GOOGLE}/b/a/b%20c"));
        assert_eq!(settings.content(b"a/../b"), format!("{GOOGLE}/b/a%2F..%2Fb"));
        assert_eq!(settings.content(b"a//b"), format!("{GOOGLE}/b/a%2F%2Fb"));
        assert_eq!(settings.content(b"a/"), format!("{GOOGLE}/b/a%2F"));
    }
}
