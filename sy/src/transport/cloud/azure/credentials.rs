//! Who asks: the config's key, token or identity, a function, or what the search finds. Renewed before it ends.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::uri::PathAndQuery;
use reqsign_azure_storage::{
    AzureCliCredentialProvider, ClientCertificateCredentialProvider, ClientSecretCredentialProvider, Credential, ImdsCredentialProvider,
    WorkloadIdentityCredentialProvider,
};
use reqsign_core::time::Timestamp;
use reqsign_core::{Context, Env, OsEnv, ProvideCredentialChain, ProvideCredentialDyn, SigningCredential};

use super::super::AzureConfig;
use super::super::auth::{context, why};
use super::settings::{Proof, Settings};
use super::sign;
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::Time;
use crate::transport::access::{Login, Refresh};

/// Credentials are renewed this long before they end.
const EARLY: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Credentials {
    from: From,
    account: String,
    /// Seconds by which the server's clock is ahead of ours, once that matters.
    clock: AtomicI64,
    current: Mutex<Option<Arc<Credential>>>,
}

type Provider = Box<dyn ProvideCredentialDyn<Credential = Credential>>;

enum From {
    Given(Credential),
    Function(Refresh),
    Search(Provider, Context),
}

impl std::fmt::Debug for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Given(_) => "Given",
            Self::Function(_) => "Function",
            Self::Search(..) => "Search",
        })
    }
}

impl Credentials {
    pub fn new(login: &Login<AzureConfig>, settings: &Settings) -> Result<Self> {
        let from = match (&login.refresh, &settings.proof) {
            (Some(refresh), _) => From::Function(Refresh::clone(refresh)),
            (None, Proof::Key(key)) => From::Given(Credential::with_shared_key(&settings.account, key.expose())),
            (None, Proof::Sas(token)) => From::Given(Credential::with_sas_token(bare_token(token.expose())?)),
            (None, Proof::None) => search(&login.config),
        };
        Ok(Self { from, account: settings.account.clone(), clock: AtomicI64::new(0), current: Mutex::default() })
    }

    /// Seconds since 1970, as the server sees it.
    pub fn now(&self) -> i64 {
        Time::now().seconds + self.clock.load(Relaxed)
    }

    /// The clock here is wrong; the server's counts. Returns whether that is news.
    pub fn set_clock(&self, theirs: i64) -> bool {
        // Requests may be a quarter of an hour old.
        let wrong = (theirs - self.now()).abs() > 600;
        if wrong {
            self.clock.store(theirs - Time::now().seconds, Relaxed);
        }
        wrong
    }

    /// Signs with what is valid now.
    pub fn sign(&self, parts: &mut Parts) -> Result<()> {
        match &*self.current()? {
            Credential::SharedKey { account_key, .. } => sign::sign(parts, &self.account, account_key),
            Credential::SasToken { token, .. } => append(parts, token),
            Credential::BearerToken { token, .. } => {
                let value = HeaderValue::from_str(&format!("Bearer {token}"));
                let mut value = value.map_err(|_| SyncError::new(ErrorKind::Authentication, "the token is not one that can be sent"))?;
                value.set_sensitive(true);
                parts.headers.insert(AUTHORIZATION, value);
                Ok(())
            }
        }
    }

    /// The token that the origin of a copy needs too, where requests go with one.
    pub fn sas_token(&self) -> Result<Option<String>> {
        Ok(match &*self.current()? {
            Credential::SasToken { token, .. } => Some(token.clone()),
            _ => None,
        })
    }

    /// They are of no use any more. Returns whether there may be others.
    pub fn forget(&self) -> bool {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        matches!(self.from, From::Function(_) | From::Search(..))
    }

    /// Are they good for every container of the account? A token may be for one alone.
    pub fn are_for_account(&self) -> bool {
        match &self.from {
            From::Given(Credential::SasToken { token, .. }) => token.split('&').any(|pair| pair.starts_with("srt=")),
            _ => true,
        }
    }

    fn current(&self) -> Result<Arc<Credential>> {
        // Held while they are renewed: others want the same.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(credential) = current.as_ref().filter(|credential| credential.is_valid_at(Timestamp::now() + EARLY)) {
            return Ok(Arc::clone(credential));
        }
        let credential = Arc::new(self.load()?);
        *current = Some(Arc::clone(&credential));
        Ok(credential)
    }

    fn load(&self) -> Result<Credential> {
        let (provider, context) = match &self.from {
            From::Given(credential) => return Ok(credential.clone()),
            // What the function could not find is no object that is not there.
            From::Function(refresh) => {
                return from_fields(refresh().map_err(|error| match error.kind {
                    ErrorKind::NotFound => SyncError { kind: ErrorKind::Authentication, ..error },
                    _ => error,
                })?);
            }
            From::Search(provider, context) => (provider, context),
        };
        match pollster::block_on(provider.provide_credential_dyn(context)) {
            Ok(Some(credential)) => Ok(credential),
            Ok(None) => Err(SyncError::new(ErrorKind::Authentication, "no credentials for Azure were found")
                .hint("set key, sas_token, connection_string or client_id of AzureConfig, the AZURE_STORAGE_ variables, or run az login")),
            Err(error) => {
                Err(SyncError::new(ErrorKind::Authentication, format!("credentials for Azure could not be had: {}", why(&error))))
            }
        }
    }
}

/// What knows the identity that the config names, or any that there is.
fn search(config: &AzureConfig) -> From {
    let tenant = config.tenant_id.as_deref();
    let Some(client) = config.client_id.as_deref() else {
        // The program `az` may be logged in as somebody else than the machine is, so it comes last.
        let chain = ProvideCredentialChain::new()
            .push(ClientSecretCredentialProvider::new())
            .push(ClientCertificateCredentialProvider::new())
            .push(WorkloadIdentityCredentialProvider::new())
            .push(ImdsCredentialProvider::new())
            .push(AzureCliCredentialProvider::new());
        return From::Search(Box::new(chain), context(config.client_options.as_ref()));
    };
    if let (Some(secret), Some(tenant)) = (&config.client_secret, tenant) {
        let provider =
            ClientSecretCredentialProvider::new().with_tenant_id(tenant).with_client_id(client).with_client_secret(secret.expose());
        return From::Search(Box::new(provider), context(config.client_options.as_ref()));
    }
    let mut workload = WorkloadIdentityCredentialProvider::new().with_client_id(client);
    if let Some(tenant) = tenant {
        workload = workload.with_tenant_id(tenant);
    }
    let chain = ProvideCredentialChain::new().push(workload).push(ImdsCredentialProvider::new());
    From::Search(Box::new(chain), context(config.client_options.as_ref()).with_env(Named(client.to_owned())))
}

/// The environment, with a managed identity of that client id: its provider looks nowhere else for one.
#[derive(Debug)]
struct Named(String);

impl Env for Named {
    fn var(&self, key: &str) -> Option<String> {
        self.vars().remove(key)
    }

    fn vars(&self) -> HashMap<String, String> {
        let mut all = OsEnv.vars();
        all.retain(|name, _| !matches!(name.as_str(), "AZURE_OBJECT_ID" | "AZURE_MSI_RESOURCE_ID" | "AZURE_MSI_RES_ID"));
        all.insert("AZURE_CLIENT_ID".to_owned(), self.0.clone());
        all
    }

    fn home_dir(&self) -> Option<PathBuf> {
        OsEnv.home_dir()
    }
}

/// A shared access signature as it is added to a query.
fn bare_token(token: &str) -> Result<&str> {
    let token = token.trim().trim_start_matches('?');
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && b != b'"') {
        return Err(SyncError::config("sas_token is not the query of a URL").hint("it reads sv=…&sig=…"));
    }
    Ok(token)
}

fn append(parts: &mut Parts, token: &str) -> Result<()> {
    let bad = || SyncError::new(ErrorKind::Io, "a request could not be signed");
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    let old = uri.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
    let mark = if old.contains('?') { '&' } else { '?' };
    uri.path_and_query = Some(PathAndQuery::try_from(format!("{old}{mark}{token}")).map_err(|_| bad())?);
    parts.uri = http::Uri::from_parts(uri).map_err(|_| bad())?;
    Ok(())
}

fn from_fields(fields: Vec<(String, String)>) -> Result<Credential> {
    let (mut sas, mut bearer, mut expires) = (None, None, None);
    for (name, value) in fields {
        match name.as_str() {
            "sas_token" => sas = Some(bare_token(&value)?.to_owned()),
            "token" => bearer = Some(value).filter(|token| !token.is_empty()),
            "expires" => {
                expires = Some(
                    value.parse().map_err(|_| SyncError::config("expires of credentials must be a time such as 2030-01-01T00:00:00Z"))?,
                );
            }
            _ => return Err(SyncError::config(format!("credentials have an unknown field {name:?}"))),
        }
    }
    match (sas, bearer) {
        (Some(token), None) => Ok(Credential::SasToken { token, expires_at: expires }),
        (None, Some(token)) => Ok(Credential::BearerToken { token, expires_in: expires }),
        _ => Err(SyncError::config("credentials need sas_token or token")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_joins_the_query() {
        for (uri, expected) in [("http://h/c/a//b", "http://h/c/a//b?sv=1&sig=x%3D"), ("http://h/c?a=1", "http://h/c?a=1&sv=1&sig=x%3D")] {
            let (mut parts, ()) = http::Request::get(uri).body(()).expect("a request").into_parts();
            append(&mut parts, bare_token("?sv=1&sig=x%3D").expect("a token")).expect("appended");
            assert_eq!(parts.uri, expected);
        }
        assert!(bare_token("a b").is_err() && bare_token("?").is_err());
    }

    #[test]
    fn a_function_gives_one_kind_of_credentials() {
        let fields = |pairs: &[(&str, &str)]| from_fields(pairs.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect());
        assert!(matches!(fields(&[("sas_token", "?sv=1")]), Ok(Credential::SasToken { token, .. }) if token == "sv=1"));
        let found = fields(&[("token", "t"), ("expires", "2020-01-01T00:00:00Z")]).expect("a token");
        assert!(!found.is_valid_at(Timestamp::now()), "it has ended");
        assert!(fields(&[]).is_err() && fields(&[("sas_token", "sv=1"), ("token", "t")]).is_err() && fields(&[("key", "k")]).is_err());
    }

    #[test]
    fn an_identity_by_name_hides_those_of_the_environment() {
        let env = Named("me".into());
        assert_eq!(env.var("AZURE_CLIENT_ID").as_deref(), Some("me"));
    }
}
