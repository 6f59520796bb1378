//! Flags that say where an object store or a host is and who asks. What is secret comes from files and the environment: argv is public.

use std::path::PathBuf;

use super::hosts::Hosts;
use crate::error::{Result, SyncError};
use crate::path::{Scheme, SyncPath};
use crate::transport::access::{Access, Accesses};
use crate::transport::cloud::{AzureConfig, BucketStyle, CloudClientOptions, GcsConfig, S3Config};
use crate::transport::config::{Config, Url};
use crate::transport::opendal_config::OpenDalConfig;

const OPENDAL: &str = "a service of OpenDAL";

/// Of the object stores on both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Object stores")]
pub struct Stores {
    /// Section of the AWS config and credentials files
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Region of the S3 bucket
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// An S3 service that is not Amazon's
    #[arg(long, value_name = "URL", value_hint = clap::ValueHint::Url)]
    pub s3_endpoint: Option<String>,
    /// Send requests to S3 without credentials
    #[arg(long)]
    pub s3_anonymous: bool,
    /// Put the bucket's name into the path of S3 URLs, not into the host name
    #[arg(long)]
    pub s3_path_style: bool,
    /// Agree to be charged for requests to S3
    #[arg(long)]
    pub request_payer: bool,
    /// JSON key file for Google Cloud Storage
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub gcs_credentials: Option<PathBuf>,
    /// A service in place of Google Cloud Storage
    #[arg(long, value_name = "URL", value_hint = clap::ValueHint::Url)]
    pub gcs_endpoint: Option<String>,
    /// Send requests to Google Cloud Storage without credentials
    #[arg(long)]
    pub gcs_anonymous: bool,
    /// Azure storage account
    #[arg(long, value_name = "NAME")]
    pub azure_account: Option<String>,
    /// A service in place of Azure Blob Storage
    #[arg(long, value_name = "URL", value_hint = clap::ValueHint::Url)]
    pub azure_endpoint: Option<String>,
    /// Options of an OpenDAL service, one NAME = VALUE a line
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub opendal_config: Option<PathBuf>,
    /// Allow endpoints without encryption
    #[arg(long)]
    pub allow_http: bool,
    /// PEM file of certificates to trust beside the system's
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub ca_bundle: Option<PathBuf>,
    #[command(flatten)]
    pub hosts: Hosts,
}

/// What only a run can use: new objects, and two sides.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Object stores")]
pub struct Sides {
    /// Storage class of new objects in S3, such as STANDARD_IA
    #[arg(long, value_name = "CLASS")]
    pub storage_class: Option<String>,
    /// Server-side encryption of new objects in S3, such as aws:kms
    #[arg(long, value_name = "HOW")]
    pub sse: Option<String>,
    /// --profile of the source alone
    #[arg(long, value_name = "NAME")]
    pub source_profile: Option<String>,
    /// --region of the source alone
    #[arg(long, value_name = "NAME")]
    pub source_region: Option<String>,
    /// --s3-endpoint of the source alone
    #[arg(long, value_name = "URL", value_hint = clap::ValueHint::Url)]
    pub source_s3_endpoint: Option<String>,
    /// --profile of the destination alone
    #[arg(long, value_name = "NAME")]
    pub dest_profile: Option<String>,
    /// --region of the destination alone
    #[arg(long, value_name = "NAME")]
    pub dest_region: Option<String>,
    /// --s3-endpoint of the destination alone
    #[arg(long, value_name = "URL", value_hint = clap::ValueHint::Url)]
    pub dest_s3_endpoint: Option<String>,
    /// --opendal-config of the source alone
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub source_opendal_config: Option<PathBuf>,
    /// --opendal-config of the destination alone
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub dest_opendal_config: Option<PathBuf>,
}

impl Stores {
    /// The configs of one location.
    pub fn access(&self, path: &SyncPath) -> Result<Access> {
        self.refuse_unused("the location", &[path])?;
        self.of(path, &Own::default())
    }

    /// The configs of both sides of a run. A flag that neither can use is an error.
    pub fn accesses(&self, sides: &Sides, source: &SyncPath, dest: &SyncPath) -> Result<Accesses> {
        self.refuse_unused("neither side", &[source, dest])?;
        let of_source = Own {
            profile: &sides.source_profile,
            region: &sides.source_region,
            endpoint: &sides.source_s3_endpoint,
            opendal: &sides.source_opendal_config,
        };
        let of_dest = Own {
            profile: &sides.dest_profile,
            region: &sides.dest_region,
            endpoint: &sides.dest_s3_endpoint,
            opendal: &sides.dest_opendal_config,
        };
        for (set, flag, path, side) in [
            (sides.storage_class.is_some(), "--storage-class", dest, "the destination"),
            (sides.sse.is_some(), "--sse", dest, "the destination"),
            (of_source.profile.is_some(), "--source-profile", source, "the source"),
            (of_source.region.is_some(), "--source-region", source, "the source"),
            (of_source.endpoint.is_some(), "--source-s3-endpoint", source, "the source"),
            (of_dest.profile.is_some(), "--dest-profile", dest, "the destination"),
            (of_dest.region.is_some(), "--dest-region", dest, "the destination"),
            (of_dest.endpoint.is_some(), "--dest-s3-endpoint", dest, "the destination"),
        ] {
            if set && !is_s3(path) {
                return Err(no_use(flag, side, "S3"));
            }
        }
        for (own, flag, path, side) in
            [(&of_source, "--source-opendal-config", source, "the source"), (&of_dest, "--dest-opendal-config", dest, "the destination")]
        {
            if own.opendal.is_some() && !is_opendal(path) {
                return Err(no_use(flag, side, OPENDAL));
            }
        }
        let mut accesses = Accesses { source: self.of(source, &of_source)?, dest: self.of(dest, &of_dest)? };
        if let Some(login) = &mut accesses.dest.s3 {
            login.config.storage_class.clone_from(&sides.storage_class);
            login.config.sse.clone_from(&sides.sse);
        }
        Ok(accesses)
    }

    fn refuse_unused(&self, whose: &str, paths: &[&SyncPath]) -> Result<()> {
        let any = |is: fn(&SyncPath) -> bool| paths.iter().any(|path| is(path));
        let (s3, gcs, azure) = (any(is_s3), any(is_gcs), any(is_azure));
        for (set, flag, useful, storage) in [
            (self.profile.is_some(), "--profile", s3, "S3"),
            (self.region.is_some(), "--region", s3, "S3"),
            (self.s3_endpoint.is_some(), "--s3-endpoint", s3, "S3"),
            (self.s3_anonymous, "--s3-anonymous", s3, "S3"),
            (self.s3_path_style, "--s3-path-style", s3, "S3"),
            (self.request_payer, "--request-payer", s3, "S3"),
            (self.gcs_credentials.is_some(), "--gcs-credentials", gcs, "Google Cloud Storage"),
            (self.gcs_endpoint.is_some(), "--gcs-endpoint", gcs, "Google Cloud Storage"),
            (self.gcs_anonymous, "--gcs-anonymous", gcs, "Google Cloud Storage"),
            (self.azure_account.is_some(), "--azure-account", azure, "Azure"),
            (self.azure_endpoint.is_some(), "--azure-endpoint", azure, "Azure"),
            (self.opendal_config.is_some(), "--opendal-config", any(is_opendal), OPENDAL),
            (self.allow_http, "--allow-http", s3 || gcs || azure, "an object store"),
            (self.ca_bundle.is_some(), "--ca-bundle", s3 || gcs || azure, "an object store"),
        ] {
            if set && !useful {
                return Err(no_use(flag, whose, storage));
            }
        }
        match self.hosts.given().into_iter().find(|(given, _)| *given) {
            Some((_, flag)) if !any(SyncPath::is_on_host) => Err(SyncError::config(match whose {
                "neither side" => format!("{flag} is of no use: neither side is on an SSH host"),
                whose => format!("{flag} is of no use: {whose} is not on an SSH host"),
            })),
            _ => Ok(()),
        }
    }

    /// What of the flags a location can use, as configs.
    fn of(&self, path: &SyncPath, own: &Own<'_>) -> Result<Access> {
        let mut access = Access::default();
        let client = CloudClientOptions { allow_http: self.allow_http, ca_bundle: self.ca_bundle.clone(), ..CloudClientOptions::default() };
        let client_options = Some(client);
        if is_s3(path) {
            let profile = own.profile.clone().or_else(|| self.profile.clone());
            let config = S3Config {
                region: own.region.clone().or_else(|| self.region.clone()),
                endpoint: url("endpoint", own.endpoint.as_ref().or(self.s3_endpoint.as_ref()))?,
                // A side that has a profile of its own is not meant by a flag for both.
                anonymous: self.s3_anonymous && own.profile.is_none(),
                profile,
                bucket_style: if self.s3_path_style { BucketStyle::Path } else { BucketStyle::Auto },
                request_payer: self.request_payer,
                client_options,
                ..S3Config::default()
            };
            config.validate()?;
            access.s3 = Some(config.into());
        } else if is_gcs(path) {
            let config = GcsConfig {
                credentials_file: self.gcs_credentials.clone(),
                endpoint: url("endpoint", self.gcs_endpoint.as_ref())?,
                anonymous: self.gcs_anonymous,
                client_options,
                ..GcsConfig::default()
            };
            config.validate()?;
            access.gcs = Some(config.into());
        } else if is_azure(path) {
            let config = AzureConfig {
                account: self.azure_account.clone(),
                endpoint: url("endpoint", self.azure_endpoint.as_ref())?,
                client_options,
                ..AzureConfig::default()
            };
            config.validate()?;
            access.azure = Some(config.into());
        } else if path.is_on_host() {
            access.ssh = Some(self.hosts.config()?);
        } else if is_opendal(path) {
            access.opendal =
                own.opendal.as_ref().or(self.opendal_config.as_ref()).map(|file| OpenDalConfig::from_file(file)).transpose()?;
        }
        Ok(access)
    }
}

/// What is said of one side alone.
struct Own<'a> {
    profile: &'a Option<String>,
    region: &'a Option<String>,
    endpoint: &'a Option<String>,
    opendal: &'a Option<PathBuf>,
}

impl Default for Own<'_> {
    fn default() -> Self {
        Self { profile: &None, region: &None, endpoint: &None, opendal: &None }
    }
}

fn url(name: &str, text: Option<&String>) -> Result<Option<Url>> {
    text.map(|text| Url::from_text(text).map_err(|expected| SyncError::config(format!("{name} must be {expected}")))).transpose()
}

fn no_use(flag: &str, whose: &str, storage: &str) -> SyncError {
    SyncError::config(match whose {
        "neither side" => format!("{flag} is of no use: neither side is in {storage}"),
        whose => format!("{flag} is of no use: {whose} is not in {storage}"),
    })
}

fn is_s3(path: &SyncPath) -> bool {
    matches!(path.scheme, Scheme::S3 { .. })
}

fn is_gcs(path: &SyncPath) -> bool {
    matches!(path.scheme, Scheme::Gcs { .. })
}

fn is_azure(path: &SyncPath) -> bool {
    matches!(path.scheme, Scheme::Azure { .. })
}

fn is_opendal(path: &SyncPath) -> bool {
    matches!(path.scheme, Scheme::OpenDal { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> SyncPath {
        SyncPath::parse(text).expect("a path")
    }

    #[test]
    fn a_side_has_its_own_or_what_is_for_both() {
        let stores = Stores { profile: Some("both".into()), region: Some("r".into()), ..Stores::default() };
        let sides = Sides { dest_profile: Some("own".into()), sse: Some("AES256".into()), ..Sides::default() };
        let accesses = stores.accesses(&sides, &path("s3://a/"), &path("s3://b/")).expect("valid");
        let config = |access: &Access| access.s3.clone().expect("S3").config;
        let (source, dest) = (config(&accesses.source), config(&accesses.dest));
        assert_eq!((source.profile.as_deref(), dest.profile.as_deref()), (Some("both"), Some("own")));
        assert_eq!((source.region.as_deref(), dest.region.as_deref()), (Some("r"), Some("r")));
        assert_eq!((source.sse, dest.sse.as_deref()), (None, Some("AES256")));
    }

    #[test]
    fn a_flag_that_nobody_can_use_is_refused() {
        let region = Stores { region: Some("r".into()), ..Stores::default() };
        let refused =
            |stores: &Stores, sides: &Sides, a: &str, b: &str| stores.accesses(sides, &path(a), &path(b)).expect_err("refused").to_string();
        let none = Sides::default();
        assert_eq!(refused(&region, &none, "a/", "b/"), "--region is of no use: neither side is in S3");
        let class = Sides { storage_class: Some("X".into()), ..Sides::default() };
        assert_eq!(refused(&Stores::default(), &class, "s3://a/", "b/"), "--storage-class is of no use: the destination is not in S3");
        let endpoint = Stores { s3_endpoint: Some("h:9".into()), ..Stores::default() };
        assert_eq!(refused(&endpoint, &none, "s3://a/", "b/"), "endpoint must be a URL such as \"https://HOST:PORT\"");
        assert!(region.access(&path("s3://a/")).is_ok() && region.access(&path("gs://a/")).is_err());
    }
}
