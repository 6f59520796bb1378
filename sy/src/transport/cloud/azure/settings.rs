//! Which account, where it is, and what of the config, a connection string or the environment proves who asks.

use super::super::auth::variable;
use super::super::{AzureConfig, CloudClientOptions, uri};
use crate::error::{Result, SyncError};
use crate::transport::config::Secret;

/// Account, key and address of the emulator that everybody may know.
const EMULATOR: (&str, &str, &str) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    "http://127.0.0.1:10000/devstoreaccount1",
);

#[derive(Debug)]
pub struct Settings {
    /// Scheme, host and, where it stands in the path, the account; without a slash at the end.
    pub endpoint: String,
    /// The endpoint with the container.
    pub base: String,
    pub account: String,
    pub proof: Proof,
}

/// What stands in the config, a connection string or the environment to prove who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Of the account, in base 64.
    Key(Secret),
    Sas(Secret),
    /// Neither of them.
    None,
}

/// What the environment says.
#[derive(Debug, Default)]
pub struct Environment {
    connection_string: Option<Secret>,
    account: Option<String>,
    key: Option<Secret>,
    sas_token: Option<Secret>,
    endpoint: Option<String>,
}

impl Environment {
    /// Tools disagree on the names; the first is that of Azure's own.
    pub fn read() -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| variable(name));
        let secret = |names: &[&str]| first(names).as_deref().map(str::trim).and_then(Secret::from_text);
        Self {
            connection_string: secret(&["AZURE_STORAGE_CONNECTION_STRING"]),
            account: first(&["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"]),
            key: secret(&["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"]),
            sas_token: secret(&["AZURE_STORAGE_SAS_TOKEN"]),
            endpoint: first(&["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"]),
        }
    }
}

impl Settings {
    pub fn new(container: &str, config: &AzureConfig, environment: &Environment, client: &CloudClientOptions) -> Result<Self> {
        let given = Connection::parse(config.connection_string.as_ref(), "connection_string")?;
        let explicit = config.endpoint.as_ref().map(|url| url.as_str().to_owned()).or_else(|| given.endpoint.clone());
        let named = config.account.clone().or_else(|| given.account.clone());
        let proven = config.key.is_some() || config.sas_token.is_some() || config.client_id.is_some() || config.connection_string.is_some();
        // What proves who asks in another account is of no use in this one, and not to be sent there.
        let wanted = named.clone().or_else(|| explicit.as_deref().and_then(account_in));
        let ours = |account: Option<&String>| wanted.is_none() || account.is_none() || account == wanted.as_ref();
        let found = Connection::parse(environment.connection_string.as_ref(), "AZURE_STORAGE_CONNECTION_STRING");
        let found = if proven { found.unwrap_or_default() } else { found? };
        let found = if ours(found.account.as_ref()) { found } else { Connection::default() };
        let endpoint = explicit.or(found.endpoint).or_else(|| environment.endpoint.clone());
        let account =
            wanted.clone().or(found.account).or_else(|| environment.account.clone()).or_else(|| endpoint.as_deref().and_then(account_in));
        let account = account.ok_or_else(|| {
            SyncError::config("the storage account is not known")
                .hint("set account of AzureConfig, a connection string, or AZURE_STORAGE_ACCOUNT")
        })?;
        if account.is_empty() || account.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
            return Err(SyncError::config("account must be a name such as \"myaccount\""));
        }
        let endpoint = endpoint.unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        client.allow(&endpoint)?;
        let proof = match (&config.key, &config.sas_token) {
            (Some(key), _) => Proof::Key(key.clone()),
            (None, Some(token)) => Proof::Sas(token.clone()),
            _ if config.connection_string.is_some() => given.proof,
            _ if proven => Proof::None,
            _ if found.proof != Proof::None => found.proof,
            _ if !ours(environment.account.as_ref()) => Proof::None,
            _ => match (&environment.key, &environment.sas_token) {
                (Some(key), _) => Proof::Key(key.clone()),
                (None, Some(token)) => Proof::Sas(token.clone()),
                (None, None) => Proof::None,
            },
        };
        let base = format!("{endpoint}/{}", uri::encode_value(container.as_bytes()));
        Ok(Self { endpoint, base, account, proof })
    }
}

/// The account that a URL names: in its path where the host is an address or this machine, in the host otherwise.
fn account_in(endpoint: &str) -> Option<String> {
    let rest = endpoint.split_once("://")?.1;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let name = host.split_once(".blob.").map_or_else(|| path.split('/').next().unwrap_or_default(), |(name, _)| name);
    (!name.is_empty()).then(|| name.to_owned())
}

/// What a connection string says of the blobs.
struct Connection {
    account: Option<String>,
    endpoint: Option<String>,
    proof: Proof,
}

impl Default for Connection {
    fn default() -> Self {
        Self { account: None, endpoint: None, proof: Proof::None }
    }
}

impl Connection {
    fn parse(text: Option<&Secret>, what: &str) -> Result<Self> {
        let Some(text) = text else { return Ok(Self::default()) };
        let mut found = Self::default();
        let (mut protocol, mut suffix) = ("https".to_owned(), "core.windows.net".to_owned());
        let (mut key, mut sas) = (None, None);
        for pair in text.expose().split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            // The text holds secrets, so what is wrong with it can't be shown.
            let (name, value) = pair.split_once('=').ok_or_else(|| bad(what))?;
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "accountname" => found.account = Some(value.to_owned()),
                "accountkey" => key = Secret::from_text(value),
                "sharedaccesssignature" => sas = Secret::from_text(value),
                "blobendpoint" => found.endpoint = Some(value.trim_end_matches('/').to_owned()),
                "defaultendpointsprotocol" => value.clone_into(&mut protocol),
                "endpointsuffix" => value.clone_into(&mut suffix),
                "usedevelopmentstorage" if value.eq_ignore_ascii_case("true") => {
                    let (account, secret, endpoint) = EMULATOR;
                    (found.account, found.endpoint) = (Some(account.to_owned()), Some(endpoint.to_owned()));
                    key = Secret::from_text(secret);
                }
                _ => {}
            }
        }
        if found.endpoint.is_none() {
            found.endpoint = found.account.as_ref().map(|account| format!("{protocol}://{account}.blob.{suffix}"));
        }
        if found.account.is_none() {
            found.account = found.endpoint.as_deref().and_then(account_in);
        }
        found.proof = key.map(Proof::Key).or(sas.map(Proof::Sas)).ok_or_else(|| bad(what))?;
        Ok(found)
    }
}

fn bad(what: &str) -> SyncError {
    SyncError::config(format!("{what} is not a connection string"))
        .hint("it reads AccountName=…;AccountKey=…;EndpointSuffix=core.windows.net")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::config::Url;

    fn settings(config: &AzureConfig, environment: &Environment) -> Result<Settings> {
        Settings::new("c", config, environment, &CloudClientOptions { allow_http: true, ..CloudClientOptions::default() })
    }

    fn elsewhere() -> Environment {
        Environment {
            connection_string: Secret::from_text("AccountName=other;AccountKey=b3RoZXI=;BlobEndpoint=http://h:1/other"),
            account: Some("other".into()),
            sas_token: Secret::from_text("sv=1"),
            ..Environment::default()
        }
    }

    #[test]
    fn a_connection_string_tells_all() {
        let text = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5PQ==;EndpointSuffix=core.chinacloudapi.cn;";
        let config = AzureConfig { connection_string: Secret::from_text(text), ..AzureConfig::default() };
        let found = settings(&config, &elsewhere()).expect("good settings");
        assert_eq!((found.base.as_str(), found.account.as_str()), ("http://a.blob.core.chinacloudapi.cn/c", "a"));
        assert_eq!(found.proof, Proof::Key(Secret::from_text("a2V5PQ==").expect("text")));
        assert!(!format!("{found:?}").contains("a2V5"));
        let config = AzureConfig { connection_string: Secret::from_text("BlobEndpoint=https://b.blob.x/"), ..AzureConfig::default() };
        assert!(settings(&config, &Environment::default()).is_err(), "it proves nothing");
    }

    #[test]
    fn what_is_explicit_wins() {
        let key = Secret::from_text("a2V5");
        let config = AzureConfig { account: Some("mine".into()), key, ..AzureConfig::default() };
        let found = settings(&config, &elsewhere()).expect("good settings");
        assert_eq!(found.base, "https://mine.blob.core.windows.net/c");
        let endpoint = Some(Url::from_text("http://127.0.0.1:10000/mine/").expect("a URL"));
        let found = settings(&AzureConfig { account: None, endpoint, ..config }, &elsewhere()).expect("good settings");
        assert_eq!((found.base.as_str(), found.account.as_str()), ("http://127.0.0.1:10000/mine/c", "mine"));
    }

    #[test]
    fn the_environment_counts_for_its_own_account() {
        let of = |account: &str| AzureConfig { account: Some(account.into()), ..AzureConfig::default() };
        let found = settings(&of("other"), &elsewhere()).expect("good settings");
        assert!(matches!(found.proof, Proof::Key(_)) && found.base == "http://h:1/other/c");
        let found = settings(&of("mine"), &elsewhere()).expect("good settings");
        assert_eq!((found.proof, found.base.as_str()), (Proof::None, "https://mine.blob.core.windows.net/c"));
        assert!(settings(&AzureConfig::default(), &Environment::default()).is_err(), "no account");
    }
}
