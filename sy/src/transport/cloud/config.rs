//! Who asks for access to an object store, and where it is.

use std::path::PathBuf;

use crate::SyncError;
use crate::cli::Size;
use crate::error::Result;
use crate::transport::config::{Pairs, Secret, Url, choice, config};

choice! {
    /// Where a bucket's name stands in its URL.
    BucketStyle {
        /// In the host name at Amazon, in the path at a custom endpoint.
        Auto = "auto",
        Path = "path",
        Virtual = "virtual",
    }
}

/// Parts of an S3 upload are from 5 MiB to 5 GiB.
const PART_SIZE: std::ops::RangeInclusive<u64> = 5 << 20..=5 << 30;

config! {
    /// Amazon S3 and what speaks its protocol.
    S3Config with client_options {
        access_key_id: Option<String> = None;
        secret_access_key: Option<Secret> = None;
        /// Comes with temporary credentials.
        session_token: Option<Secret> = None;
        region: Option<String> = None;
        /// Of a service that is not Amazon's.
        endpoint: Option<Url> = None;
        /// Section of the shared credentials file.
        profile: Option<String> = None;
        bucket_style: BucketStyle = BucketStyle::Auto;
        /// Requests are not signed.
        anonymous: bool = false;
        storage_class: Option<String> = None;
        /// Server-side encryption: `AES256`, `aws:kms`, …
        sse: Option<String> = None;
        part_size: Option<Size> = None;
        /// The requester agrees to be charged.
        request_payer: bool = false;
        /// Tags of new objects.
        tags: Pairs = Pairs::default();
    }
    validate(this) {
        endpoint(this.endpoint.as_ref())?;
        both("access_key_id", this.access_key_id.is_some(), "secret_access_key", this.secret_access_key.is_some())?;
        if this.session_token.is_some() && this.access_key_id.is_none() {
            return Err(SyncError::config("session_token goes with access_key_id and secret_access_key"));
        }
        if this.part_size.is_some_and(|size| !PART_SIZE.contains(&size.0)) {
            return Err(SyncError::config("part_size must be from 5 MiB to 5 GiB"));
        }
        one_of(&[
            ("access_key_id", this.access_key_id.is_some()),
            ("profile", this.profile.is_some()),
            ("anonymous", this.anonymous),
        ])
    }
}

config! {
    /// Google Cloud Storage.
    GcsConfig with client_options {
        /// JSON key file of a service account, or of a user.
        credentials_file: Option<PathBuf> = None;
        project_id: Option<String> = None;
        /// The text of such a file.
        credentials_json: Option<Secret> = None;
        /// OAuth 2.0 access token.
        token: Option<Secret> = None;
        endpoint: Option<Url> = None;
        anonymous: bool = false;
    }
    validate(this) {
        endpoint(this.endpoint.as_ref())?;
        if this.credentials_json.as_ref().is_some_and(|json| !json.expose().trim_start().starts_with('{')) {
            return Err(SyncError::config("credentials_json must be the text of a JSON key file").hint("credentials_file takes its path"));
        }
        one_of(&[
            ("credentials_file", this.credentials_file.is_some()),
            ("credentials_json", this.credentials_json.is_some()),
            ("token", this.token.is_some()),
            ("anonymous", this.anonymous),
        ])
    }
}

config! {
    /// Azure Blob Storage.
    AzureConfig with client_options {
        /// Name of the storage account.
        account: Option<String> = None;
        /// Of the storage account.
        key: Option<Secret> = None;
        sas_token: Option<Secret> = None;
        tenant_id: Option<String> = None;
        /// Of a service principal, or of a managed identity.
        client_id: Option<String> = None;
        client_secret: Option<Secret> = None;
        connection_string: Option<Secret> = None;
        endpoint: Option<Url> = None;
    }
    validate(this) {
        endpoint(this.endpoint.as_ref())?;
        if this.client_secret.is_some() && (this.client_id.is_none() || this.tenant_id.is_none()) {
            return Err(SyncError::config("client_secret goes with client_id and tenant_id"));
        }
        one_of(&[
            ("key", this.key.is_some()),
            ("sas_token", this.sas_token.is_some()),
            ("client_id", this.client_id.is_some()),
            ("connection_string", this.connection_string.is_some()),
        ])
    }
}

/// An endpoint's URL is printed in errors, so it must not hold a password.
fn endpoint(url: Option<&Url>) -> Result<()> {
    match url {
        Some(url) if url.has_user() => {
            Err(SyncError::config("endpoint must not hold a user or a password").hint("they have fields of their own"))
        }
        Some(url) if !url.as_str().to_ascii_lowercase().starts_with("http") => {
            Err(SyncError::config("endpoint must begin with https:// or http://"))
        }
        _ => Ok(()),
    }
}

fn both(a: &str, has_a: bool, b: &str, has_b: bool) -> Result<()> {
    match (has_a, has_b) {
        (true, false) => Err(SyncError::config(format!("{a} is set without {b}"))),
        (false, true) => Err(SyncError::config(format!("{b} is set without {a}"))),
        _ => Ok(()),
    }
}

/// Two ways to prove who one is: which one counts must not be a guess.
fn one_of(ways: &[(&str, bool)]) -> Result<()> {
    let mut set = ways.iter().filter(|(_, set)| *set).map(|(name, _)| *name);
    match (set.next(), set.next()) {
        (Some(a), Some(b)) => Err(SyncError::config(format!("{a} and {b} are both set")).hint("set one of them")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Value;
    use crate::transport::config::Config;

    #[test]
    fn secrets_are_not_shown() {
        let mut config = S3Config::default();
        config.set("access_key_id", Value::Text("AKID".into())).expect("text");
        config.set("secret_access_key", Value::Text("hunter2".into())).expect("text");
        assert!(config.validate().is_ok());
        let shown = format!("{config:?}");
        assert!(shown.contains("AKID") && !shown.contains("hunter2"), "{shown}");
        assert!(config.is_secret("secret_access_key") && !config.is_secret("session_token") && !config.is_secret("region"));
    }

    #[test]
    fn every_field_takes_its_own_value_back() {
        fn check<C: Config>() {
            let mut config = C::default();
            for name in C::NAMES {
                let value = config.get(name).expect("a listed field has a value");
                config.set(name, value).expect("and takes it");
            }
            assert_eq!(config, C::default());
            assert!(config.validate().is_ok());
        }
        check::<S3Config>();
        check::<GcsConfig>();
        check::<AzureConfig>();
        check::<super::super::CloudClientOptions>();
        check::<crate::transport::ssh::SshConfig>();
    }

    #[test]
    fn two_ways_of_access_are_refused() {
        let config = AzureConfig { key: Secret::from_text("k"), sas_token: Secret::from_text("s"), ..AzureConfig::default() };
        let error = config.validate().expect_err("two ways").to_string();
        assert_eq!(error, "key and sas_token are both set (set one of them)");
    }
}
