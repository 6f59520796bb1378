//! Where a bucket is: endpoint and region from the config, the profile, the environment, in this order.

use std::path::PathBuf;

use super::super::auth::{home, variable};
use super::super::{BucketStyle, CloudClientOptions, S3Config};
use crate::error::{Result, SyncError};

#[derive(Debug)]
pub struct Settings {
    /// Scheme, host and, in path style, the bucket; without a slash at the end.
    pub base: String,
    /// The same bucket has the same one, however its address is written.
    pub place: String,
    pub region: String,
    pub amazon: bool,
    /// The tag of an object that was made from parts is the MD5 of their MD5s, as it is nearly everywhere.
    pub tags_are_sums: bool,
    /// Headers that every new object gets.
    pub object_headers: Vec<(&'static str, String)>,
    pub request_payer: bool,
    pub part_size: Option<u64>,
}

impl Settings {
    /// `function`: credentials come from one.
    pub fn new(bucket: &str, config: &S3Config, function: bool, client: &CloudClientOptions) -> Result<Self> {
        let chosen = config.profile.as_deref();
        let explicit = function || config.access_key_id.is_some() || config.anonymous;
        let named = chosen.map(profile).transpose()?.unwrap_or_default();
        // Explicit keys are another account than the default profile's; its region may still be a good guess.
        let fallback = || variable("AWS_PROFILE").map_or_else(|| profile("default"), |name| profile(&name)).unwrap_or_default();
        let region = config
            .region
            .clone()
            .or(named.region)
            .or_else(|| variable("AWS_REGION"))
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .or_else(|| fallback().region)
            .unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = config
            .endpoint
            .as_ref()
            .map(|url| url.as_str().to_owned())
            .or(named.endpoint)
            .or_else(|| variable("AWS_ENDPOINT_URL_S3"))
            .or_else(|| variable("AWS_ENDPOINT_URL"))
            .or_else(|| if explicit { None } else { fallback().endpoint });
        if region.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
            return Err(SyncError::config("region must be a name such as \"eu-west-1\""));
        }
        let amazon = endpoint.is_none();
        let endpoint = endpoint.map_or_else(
            || {
                let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
                format!("https://s3.{region}.{domain}")
            },
            |url| url.trim_end_matches('/').to_owned(),
        );
        client.allow(&endpoint)?;
        // A certificate covers one name before the domain, so a bucket with dots can't stand there.
        let path_style = match config.bucket_style {
            BucketStyle::Path => true,
            BucketStyle::Virtual => false,
            BucketStyle::Auto => !amazon || bucket.contains('.'),
        };
        let base = match (path_style, endpoint.split_once("://")) {
            (false, Some((scheme, host))) => format!("{scheme}://{bucket}.{host}"),
            _ => format!("{endpoint}/{}", super::super::uri::encode_value(bucket.as_bytes())),
        };
        let mut object_headers = Vec::new();
        object_headers.extend(config.storage_class.clone().map(|class| ("x-amz-storage-class", class)));
        object_headers.extend(config.sse.clone().map(|sse| ("x-amz-server-side-encryption", sse)));
        if !config.tags.0.is_empty() {
            let encode = |text: &String| super::super::uri::encode_value(text.as_bytes());
            let tags: Vec<String> = config.tags.0.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
            object_headers.push(("x-amz-tagging", tags.join("&")));
        }
        Ok(Self {
            place: place(&endpoint, bucket),
            base,
            region,
            amazon,
            // Alibaba makes them in a way of its own.
            tags_are_sums: !endpoint.contains("aliyuncs.com"),
            object_headers,
            request_payer: config.request_payer,
            part_size: config.part_size.map(|size| size.0),
        })
    }
}

/// Host and bucket. At Amazon a name stands for one bucket in all regions, and addresses are many.
fn place(endpoint: &str, bucket: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.to_ascii_lowercase();
    let port = if scheme.eq_ignore_ascii_case("http") { ":80" } else { ":443" };
    let host = host.strip_suffix(port).unwrap_or(&host);
    let domain = ["amazonaws.com", "amazonaws.com.cn"].into_iter().find(|domain| host.ends_with(domain));
    match (domain, host.strip_prefix("localhost")) {
        // It has names, and buckets, of its own.
        (Some(domain), _) if host.contains("us-gov-") => format!("us-gov.{domain} {bucket}"),
        (Some(domain), _) => format!("{domain} {bucket}"),
        (None, Some(port)) if port.is_empty() || port.starts_with(':') => format!("127.0.0.1{port}/{path} {bucket}"),
        _ => format!("{host}/{path} {bucket}"),
    }
}

/// What a profile says besides credentials.
#[derive(Debug, Default, PartialEq, Eq)]
struct Profile {
    region: Option<String>,
    endpoint: Option<String>,
}

fn profile(name: &str) -> Result<Profile> {
    let aws =
        |variable_name: &str, file: &str| variable(variable_name).map(PathBuf::from).or_else(|| Some(home()?.join(".aws").join(file)));
    let read = |path: Option<PathBuf>| path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let (config, credentials) = (read(aws("AWS_CONFIG_FILE", "config")), read(aws("AWS_SHARED_CREDENTIALS_FILE", "credentials")));
    let headings = [format!("[profile {name}]"), format!("[{name}]")];
    let known = |text: &str| text.lines().any(|line| headings.iter().any(|heading| line.trim() == heading));
    if name != "default" && !known(&config) && !known(&credentials) {
        return Err(SyncError::config(format!("there is no profile {name:?} in the AWS config or credentials file")));
    }
    let mut found = Profile::default();
    for text in [&credentials, &config] {
        let section = section(text, &headings);
        found.region = found.region.or_else(|| value(&section, "region"));
        found.endpoint = found.endpoint.or_else(|| value(&section, "endpoint_url"));
    }
    Ok(found)
}

fn section<'t>(text: &'t str, headings: &[String]) -> Vec<&'t str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with('[') {
            inside = headings.iter().any(|heading| line.trim() == heading);
        } else if inside {
            lines.push(line);
        }
    }
    lines
}

/// Nested settings are indented, and are not meant.
fn value(section: &[&str], name: &str) -> Option<String> {
    section.iter().filter(|line| !line.starts_with([' ', '\t'])).find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name && !value.trim().is_empty()).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_among_others() {
        let text = "[default]\nregion = a\n[profile x]\ns3 =\n  region = no\nregion=b\n\n[profile y]\nendpoint_url = http://h\n";
        let of = |name: &str| section(text, &[format!("[profile {name}]"), format!("[{name}]")]);
        assert_eq!(value(&of("default"), "region").as_deref(), Some("a"));
        assert_eq!(value(&of("x"), "region").as_deref(), Some("b"));
        assert_eq!(value(&of("y"), "endpoint_url").as_deref(), Some("http://h"));
        assert_eq!(value(&of("z"), "region"), None);
    }

    #[test]
    fn one_bucket_is_known_by_all_of_its_addresses() {
        for (a, b) in [
            ("https://s3.eu-west-1.amazonaws.com", "https://s3.amazonaws.com"),
            ("https://s3.eu-west-1.amazonaws.com", "https://s3.dualstack.eu-west-1.amazonaws.com:443"),
            ("http://localhost:9000", "http://127.0.0.1:9000"),
            ("http://H.example:80", "http://h.example"),
        ] {
            assert_eq!(place(a, "b"), place(b, "b"));
        }
        for (a, b) in [
            ("http://h:9000", "http://h:9001"),
            ("https://s3.us-gov-west-1.amazonaws.com", "https://s3.us-west-1.amazonaws.com"),
            ("http://h/one", "http://h/two"),
            ("http://localhosts", "http://localhost"),
        ] {
            assert_ne!(place(a, "b"), place(b, "b"));
        }
    }

    #[test]
    fn buckets_stand_where_the_style_says() {
        let base = |config: &S3Config, bucket: &str| {
            let client = CloudClientOptions { allow_http: true, ..CloudClientOptions::default() };
            Settings::new(bucket, config, false, &client).expect("good settings").base
        };
        let config = |style, endpoint: Option<&str>| S3Config {
            region: Some("eu-west-1".into()),
            bucket_style: style,
            access_key_id: Some("k".into()),
            endpoint: endpoint.map(|url| crate::transport::config::Url::from_text(url).expect("a URL")),
            ..S3Config::default()
        };
        let custom = Some("http://h:9000/");
        assert_eq!(base(&config(BucketStyle::Auto, custom), "b"), "http://h:9000/b");
        assert_eq!(base(&config(BucketStyle::Virtual, custom), "b"), "http://b.h:9000");
    }
}
