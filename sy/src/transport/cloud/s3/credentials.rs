//! Who signs requests: the config's keys, a function's, or what the search finds. Renewed before they end.

use std::sync::atomic::AtomicI64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqsign_aws_v4::{Credential, DefaultCredentialProvider};
use reqsign_core::time::Timestamp;
use reqsign_core::{Context, ProvideCredential};

use super::super::S3Config;
use super::super::auth::{context, why};
use super::settings::Settings;
use super::sign::Key;
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::access::{Login, Refresh};

/// Credentials are renewed this long before they end.
const EARLY: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Credentials {
    from: From,
    region: String,
    profile: Option<String>,
    /// Seconds by which the server's clock is ahead of ours, once that matters.
    pub clock: AtomicI64,
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    credential: Credential,
    key: Key,
}

enum From {
    Nobody,
    Given(Credential),
    Function(Refresh),
    Search(Box<DefaultCredentialProvider>, Context),
}

impl std::fmt::Debug for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Given(_) => "Given",
            Self::Function(_) => "Function",
            Self::Search(..) => "Search",
        })
    }
}

impl Credentials {
    pub fn new(login: &Login<S3Config>, settings: &Settings) -> Self {
        let config = &login.config;
        let from = match (&login.refresh, &config.access_key_id, &config.secret_access_key) {
            _ if config.anonymous => From::Nobody,
            (Some(refresh), ..) => From::Function(Refresh::clone(refresh)),
            (None, Some(id), Some(secret)) => From::Given(Credential {
                access_key_id: id.clone(),
                secret_access_key: secret.expose().to_owned(),
                session_token: config.session_token.as_ref().map(|token| token.expose().to_owned()),
                expires_in: None,
            }),
            _ => {
                let mut search = DefaultCredentialProvider::builder();
                if let Some(profile) = &config.profile {
                    // A profile that was asked for is the one that counts, or none.
                    search = search.with_profile(profile).no_env().no_web_identity().no_ecs().no_imds();
                }
                From::Search(Box::new(search.build()), context(config.client_options.as_ref()))
            }
        };
        Self { from, region: settings.region.clone(), profile: config.profile.clone(), clock: AtomicI64::new(0), current: Mutex::default() }
    }

    /// Signs with what is valid now; does nothing for the anonymous.
    pub fn with_key<T>(&self, date: &str, sign: impl FnOnce(&Credential, &[u8]) -> T) -> Result<Option<T>> {
        if matches!(self.from, From::Nobody) {
            return Ok(None);
        }
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |credential: &Credential| credential.expires_in.is_none_or(|end| end > Timestamp::now() + EARLY);
        if current.as_ref().is_none_or(|current| !fresh(&current.credential)) {
            let credential = self.load()?;
            *current = Some(Current { key: Key::new(&credential.secret_access_key, date, &self.region), credential });
        }
        let Some(current) = current.as_mut() else { return Ok(None) };
        current.key.renew(&current.credential.secret_access_key, date, &self.region);
        Ok(Some(sign(&current.credential, current.key.bytes())))
    }

    /// The service says they are of no use any more. Returns whether there may be others.
    pub fn forget(&self) -> bool {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        matches!(self.from, From::Function(_) | From::Search(..))
    }

    /// Tells accounts apart, as far as that can be done by what stays the same from run to run.
    pub fn account(&self) -> String {
        match &self.from {
            From::Given(credential) => credential.access_key_id.clone(),
            From::Search(..) => self.profile.clone().unwrap_or_default(),
            From::Nobody | From::Function(_) => String::new(),
        }
    }

    /// The id that signs right now; `None` if there is none or it can't be had.
    pub fn id(&self) -> Option<String> {
        self.with_key("20000101", |credential, _| credential.access_key_id.clone()).ok().flatten()
    }

    fn load(&self) -> Result<Credential> {
        let none = || {
            SyncError::new(ErrorKind::Authentication, "no credentials for S3 were found")
                .hint("set access_key_id and secret_access_key of S3Config, a profile, or the AWS_ variables; anonymous=True needs none")
        };
        match &self.from {
            From::Nobody => Err(none()),
            From::Given(credential) => Ok(credential.clone()),
            // What the function could not find is no object that is not there.
            From::Function(refresh) => from_fields(refresh().map_err(|error| match error.kind {
                ErrorKind::NotFound => SyncError { kind: ErrorKind::Authentication, ..error },
                _ => error,
            })?),
            From::Search(provider, context) => match pollster::block_on(provider.provide_credential(context)) {
                Ok(Some(credential)) => Ok(credential),
                Ok(None) => Err(none()),
                Err(error) => {
                    Err(SyncError::new(ErrorKind::Authentication, format!("credentials for S3 could not be had: {}", why(&error))))
                }
            },
        }
    }
}

fn from_fields(fields: Vec<(String, String)>) -> Result<Credential> {
    let mut credential = Credential::default();
    for (name, value) in fields {
        match name.as_str() {
            "access_key_id" => credential.access_key_id = value,
            "secret_access_key" => credential.secret_access_key = value,
            "session_token" => credential.session_token = Some(value).filter(|token| !token.is_empty()),
            "expires" => {
                credential.expires_in = Some(
                    value.parse().map_err(|_| SyncError::config("expires of credentials must be a time such as 2030-01-01T00:00:00Z"))?,
                );
            }
            _ => return Err(SyncError::config(format!("credentials have an unknown field {name:?}"))),
        }
    }
    if credential.access_key_id.is_empty() || credential.secret_access_key.is_empty() {
        return Err(SyncError::config("credentials need access_key_id and secret_access_key"));
    }
    Ok(credential)
}
