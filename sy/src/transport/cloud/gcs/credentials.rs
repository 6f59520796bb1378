//! Who asks: the config's token or key, a function's, or what the search finds. Tokens are renewed before they end.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use http::HeaderValue;
use reqsign_core::time::Timestamp;
use reqsign_core::{Context, ProvideCredential};
use reqsign_google::{
    Credential, ServiceAccountTokenCredentialProvider, StaticCredentialProvider, Token as Loaded, VmMetadataCredentialProvider,
};

use super::super::GcsConfig;
use super::super::auth::{context, home, variable};
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::Time;
use crate::transport::access::{Login, Refresh};
use crate::transport::config::Secret;

/// Tokens are renewed this long before they end, seconds.
const EARLY: i64 = 120;
/// But not more often than this: what gives tokens may only have one that ends soon.
const SELDOM: i64 = 10;

thread_local! {
    /// The token that this thread sent last: which one was refused, while others renew it.
    static SENT: Cell<u64> = const { Cell::new(0) };
}

#[derive(Debug)]
pub struct Credentials {
    from: From,
    current: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    count: u64,
    /// The last one was refused.
    refused: bool,
}

#[derive(Debug)]
struct Token {
    /// Marked as sensitive, so it is not shown.
    header: HeaderValue,
    renew: i64,
    number: u64,
    /// In place of one that was refused.
    second: bool,
}

enum From {
    Nobody,
    Given(Secret),
    Function(Refresh),
    /// The text of a key file.
    Text(Secret),
    File(PathBuf),
    Search,
}

impl std::fmt::Debug for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Given(_) => "Given",
            Self::Function(_) => "Function",
            Self::Text(_) => "Text",
            Self::File(_) => "File",
            Self::Search => "Search",
        })
    }
}

impl Credentials {
    /// `emulator`: the service is one that was named by the environment, which gets only what was given to it.
    pub fn new(login: &Login<GcsConfig>, emulator: bool) -> Self {
        let config = &login.config;
        let from = match (&login.refresh, &config.token, &config.credentials_json, &config.credentials_file) {
            _ if config.anonymous => From::Nobody,
            (Some(refresh), ..) => From::Function(Refresh::clone(refresh)),
            (None, Some(token), ..) => From::Given(token.clone()),
            (None, None, Some(text), _) => From::Text(text.clone()),
            (None, None, None, Some(path)) => From::File(path.clone()),
            _ if emulator => From::Nobody,
            _ => From::Search,
        };
        Self { from, current: Mutex::default() }
    }

    /// The value of `Authorization`; `None` for the anonymous.
    pub fn header(&self) -> Result<Option<HeaderValue>> {
        if matches!(self.from, From::Nobody) {
            return Ok(None);
        }
        let now = Time::now().seconds;
        // Held while one is fetched: others want the same.
        let mut state = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if state.token.as_ref().is_none_or(|token| now >= token.renew) {
            let (text, end) = self.load()?;
            let mut header = HeaderValue::from_str(&format!("Bearer {text}"))
                .map_err(|_| SyncError::config("the token for Google Cloud Storage has characters that no token has"))?;
            header.set_sensitive(true);
            let renew = end.map_or(i64::MAX, |end| (end - EARLY).max(now + SELDOM));
            state.count += 1;
            let second = std::mem::take(&mut state.refused);
            state.token = Some(Token { header, renew, number: state.count, second });
        }
        Ok(state.token.as_ref().map(|token| {
            SENT.set(token.number);
            token.header.clone()
        }))
    }

    /// The service does not accept what this thread sent. Returns whether another token may do.
    pub fn refuse(&self) -> bool {
        if !matches!(self.from, From::Function(_) | From::Text(_) | From::File(_) | From::Search) {
            return false;
        }
        let mut state = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.token {
            Some(token) if token.number != SENT.get() => true,
            Some(token) if token.second => false,
            Some(_) => {
                state.token = None;
                state.refused = true;
                true
            }
            None => true,
        }
    }

    pub fn is_anonymous(&self) -> bool {
        matches!(self.from, From::Nobody)
    }

    /// Which account it is, as far as that is known for longer than a token lives.
    pub fn account(&self) -> String {
        match &self.from {
            From::Nobody => "anonymous".to_owned(),
            From::Given(_) | From::Function(_) => "token".to_owned(),
            From::Text(text) => format!("key {}", &blake3::hash(text.expose().as_bytes()).to_hex()[..16]),
            From::File(path) => format!("file {}", path.display()),
            From::Search => String::new(),
        }
    }

    /// A token, and when it ends.
    fn load(&self) -> Result<(String, Option<i64>)> {
        match &self.from {
            From::Nobody => Err(nothing_found()),
            From::Given(token) => Ok((token.expose().to_owned(), None)),
            From::Function(refresh) => from_fields(refresh()?),
            From::Text(text) => exchange(text.expose(), "credentials_json"),
            From::File(path) => from_file(path),
            From::Search => match key_file(variable, home()) {
                Some(path) => from_file(&path),
                None => from_machine(),
            },
        }
    }
}

fn nothing_found() -> SyncError {
    SyncError::new(ErrorKind::Authentication, "no credentials for Google Cloud Storage were found").hint(
        "set credentials_file, credentials_json or token of GcsConfig, or GOOGLE_APPLICATION_CREDENTIALS, \
         or run gcloud auth application-default login; anonymous=True needs none",
    )
}

/// The key file that the environment names, or that Google's own tool wrote.
fn key_file(variable: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Option<PathBuf> {
    if let Some(path) = variable("GOOGLE_APPLICATION_CREDENTIALS") {
        // Should it not be there, that is worth an error.
        return Some(path.into());
    }
    let dir = variable("CLOUDSDK_CONFIG").map(PathBuf::from).or_else(|| Some(home?.join(".config/gcloud")))?;
    Some(dir.join("application_default_credentials.json")).filter(|path| path.exists())
}

fn from_file(path: &std::path::Path) -> Result<(String, Option<i64>)> {
    let text = std::fs::read_to_string(path).map_err(|error| SyncError::io(&error, "read the credentials in", path))?;
    exchange(&text, &path.display().to_string())
}

/// Makes a token of what a key file holds. `name` is where it came from.
fn exchange(text: &str, name: &str) -> Result<(String, Option<i64>)> {
    let fail = |error: reqsign_core::Error| {
        let why: String = error.to_string().chars().filter(|c| !c.is_control()).take(300).collect();
        let hint = format!("{name} must hold the JSON key of a service account, a user or an external account that is still valid");
        SyncError::new(ErrorKind::Authentication, format!("credentials for Google Cloud Storage could not be had: {why}")).hint(hint)
    };
    let context = context();
    let provided = pollster::block_on(StaticCredentialProvider::new(text).provide_credential(&context)).map_err(fail)?;
    match provided {
        Some(Credential { token: Some(token), .. }) => Ok(loaded(token)),
        Some(Credential { service_account: Some(account), .. }) => {
            let provider = ServiceAccountTokenCredentialProvider::new(account);
            let provided = pollster::block_on(provider.provide_credential(&context)).map_err(fail)?;
            provided.and_then(|credential| credential.token).map(loaded).ok_or_else(nothing_found)
        }
        _ => Err(nothing_found()),
    }
}

/// Machines at Google are told who they are.
fn from_machine() -> Result<(String, Option<i64>)> {
    let context: Context = context();
    let provided = pollster::block_on(VmMetadataCredentialProvider::new().provide_credential(&context));
    // On other machines there is nobody to ask.
    provided.ok().flatten().and_then(|credential| credential.token).map(loaded).ok_or_else(nothing_found)
}

fn loaded(token: Loaded) -> (String, Option<i64>) {
    (token.access_token, token.expires_at.map(Timestamp::as_second))
}

fn from_fields(fields: Vec<(String, String)>) -> Result<(String, Option<i64>)> {
    let (mut token, mut end) = (String::new(), None);
    for (name, value) in fields {
        match name.as_str() {
            "token" => token = value,
            "expires" => {
                let time: Timestamp =
                    value.parse().map_err(|_| SyncError::config("expires of credentials must be a time such as 2030-01-01T00:00:00Z"))?;
                end = Some(time.as_second());
            }
            _ => return Err(SyncError::config(format!("credentials have an unknown field {name:?}"))),
        }
    }
    if token.is_empty() {
        return Err(SyncError::config("credentials need token"));
    }
    Ok((token, end))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    fn login(config: GcsConfig) -> Login<GcsConfig> {
        Login::from(config)
    }

    fn function(expires: &'static str) -> (Login<GcsConfig>, Arc<AtomicU32>) {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let refresh: Refresh = Arc::new(move || {
            let n = counted.fetch_add(1, Relaxed) + 1;
            Ok(vec![("token".into(), format!("t{n}")), ("expires".into(), expires.into())])
        });
        (Login { config: GcsConfig::default(), refresh: Some(refresh) }, calls)
    }

    fn sent(credentials: &Credentials) -> String {
        let header = credentials.header().expect("a token").expect("somebody");
        header.to_str().expect("text").to_owned()
    }

    #[test]
    fn what_is_explicit_comes_first() {
        let from = |config: GcsConfig, emulator| format!("{:?}", Credentials::new(&login(config), emulator).from);
        let secret = |text| Secret::from_text(text);
        assert_eq!(from(GcsConfig { anonymous: true, ..GcsConfig::default() }, false), "Nobody");
        assert_eq!(from(GcsConfig { token: secret("t"), ..GcsConfig::default() }, true), "Given");
        assert_eq!(from(GcsConfig { credentials_json: secret("{}"), ..GcsConfig::default() }, false), "Text");
        assert_eq!(from(GcsConfig { credentials_file: Some("f".into()), ..GcsConfig::default() }, false), "File");
        assert_eq!(from(GcsConfig::default(), false), "Search");
        assert_eq!(from(GcsConfig::default(), true), "Nobody");
        assert_eq!(format!("{:?}", Credentials::new(&function("2030-01-01T00:00:00Z").0, true).from), "Function");
    }

    #[test]
    fn tokens_are_kept_and_never_shown() {
        let (login, calls) = function("2100-01-01T00:00:00Z");
        let credentials = Credentials::new(&login, false);
        assert_eq!((sent(&credentials), sent(&credentials)), ("Bearer t1".to_owned(), "Bearer t1".to_owned()));
        assert_eq!(calls.load(Relaxed), 1);
        assert!(!format!("{credentials:?}").contains("t1"));
    }

    #[test]
    fn a_refused_token_is_renewed_once() {
        let (login, calls) = function("2100-01-01T00:00:00Z");
        let credentials = Credentials::new(&login, false);
        sent(&credentials);
        assert!(credentials.refuse());
        assert!(credentials.refuse(), "others that sent the old one try again, too");
        assert_eq!(sent(&credentials), "Bearer t2");
        assert!(!credentials.refuse());
        assert_eq!(calls.load(Relaxed), 2);
        let given = Credentials::new(&self::login(GcsConfig { token: Secret::from_text("t"), ..GcsConfig::default() }), false);
        sent(&given);
        assert!(!given.refuse());
    }

    #[test]
    fn a_token_that_ends_soon_is_not_asked_for_with_every_request() {
        let (login, calls) = function("2001-01-01T00:00:00Z");
        let credentials = Credentials::new(&login, false);
        sent(&credentials);
        sent(&credentials);
        assert_eq!(calls.load(Relaxed), 1);
    }

    #[test]
    fn the_environment_is_asked_before_the_well_known_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join(".config/gcloud");
        std::fs::create_dir_all(&config).expect("a directory");
        let home = || Some(dir.path().to_owned());
        assert_eq!(key_file(|_| None, home()), None);
        let known = config.join("application_default_credentials.json");
        std::fs::write(&known, "{}").expect("a file");
        assert_eq!(key_file(|_| None, home()), Some(known.clone()));
        let named = |wanted: &'static str, path: PathBuf| move |name: &str| (name == wanted).then(|| path.display().to_string());
        assert_eq!(key_file(named("CLOUDSDK_CONFIG", config), None), Some(known));
        assert_eq!(key_file(named("GOOGLE_APPLICATION_CREDENTIALS", "/none".into()), home()), Some("/none".into()));
    }

    #[test]
    fn what_is_no_key_is_told_without_its_text() {
        let error = exchange("{\"private_key\": \"hunter2\"}", "credentials_json").expect_err("no key");
        assert_eq!(error.kind, ErrorKind::Authentication);
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(from_fields(vec![("key".into(), "x".into())]).is_err() && from_fields(Vec::new()).is_err());
    }
}
