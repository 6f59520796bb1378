//! Who asks: the config's token or key, a function's, or what the search finds. Tokens are renewed before they end.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use http::HeaderValue;
use reqsign_core::Context;

use super::super::GcsConfig;
use super::super::auth::context;
use super::search::{Found, exchange, from_fields, from_file, nothing_found, search};
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
    context: Context,
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
    end: i64,
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

impl State {
    fn take(&mut self, text: &str, end: Option<i64>, now: i64) -> Result<()> {
        let mut header = HeaderValue::from_str(&format!("Bearer {text}"))
            .map_err(|_| SyncError::config("the token for Google Cloud Storage has characters that no token has"))?;
        header.set_sensitive(true);
        let end = end.unwrap_or(i64::MAX);
        self.count += 1;
        let second = std::mem::take(&mut self.refused);
        self.token = Some(Token { header, renew: end.saturating_sub(EARLY).max(now + SELDOM), end, number: self.count, second });
        Ok(())
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
        Self { from, context: context(config.client_options.as_ref()), current: Mutex::default() }
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
            match (self.load(), &mut state.token) {
                (Ok((text, end)), _) => state.take(&text, end, now)?,
                // The one that is there is good for a while; then it is tried again.
                (Err(_), Some(token)) if now < token.end => token.renew = now + SELDOM,
                (Err(error), _) => return Err(as_authentication(error)),
            }
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

    /// Who it is that the account does not tell: tokens of two accounts look alike there. Nothing that a token could be made from.
    pub fn id(&self) -> Option<String> {
        match &self.from {
            From::Given(token) => Some(blake3::hash(token.expose().as_bytes()).to_hex()[..16].to_owned()),
            From::Function(refresh) => Some(format!("function {:p}", Refresh::as_ptr(refresh))),
            _ => None,
        }
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
    fn load(&self) -> Result<Found> {
        match &self.from {
            From::Nobody => Err(nothing_found()),
            From::Given(token) => Ok((token.expose().to_owned(), None)),
            From::Function(refresh) => from_fields(refresh()?),
            From::Text(text) => exchange(text.expose(), "credentials_json", &self.context),
            From::File(path) => from_file(path, &self.context),
            From::Search => search(&self.context),
        }
    }
}

/// A key file that is not there must not be taken for an object that is not there.
fn as_authentication(error: SyncError) -> SyncError {
    match error.kind {
        ErrorKind::Cancelled | ErrorKind::Config => error,
        _ => SyncError { kind: ErrorKind::Authentication, ..error },
    }
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
    fn a_missing_key_file_is_no_missing_object() {
        let credentials =
            Credentials::new(&login(GcsConfig { credentials_file: Some("/no/such/file".into()), ..GcsConfig::default() }), false);
        let error = credentials.header().expect_err("no file");
        assert_eq!(error.kind, ErrorKind::Authentication);
        assert!(error.to_string().contains("/no/such/file"), "{error}");
    }

    #[test]
    fn a_token_serves_until_its_end_when_no_other_can_be_had() {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let refresh: Refresh = Arc::new(move || match counted.fetch_add(1, Relaxed) {
            0 => Ok(vec![("token".into(), "t1".into())]),
            _ => Err(SyncError::new(ErrorKind::NotFound, "gone")),
        });
        let credentials = Credentials::new(&Login { config: GcsConfig::default(), refresh: Some(refresh) }, false);
        let due = |end: i64| {
            let mut state = credentials.current.lock().expect("nobody panicked");
            let token = state.token.as_mut().expect("a token");
            (token.renew, token.end) = (0, end);
        };
        sent(&credentials);
        due(i64::MAX);
        assert_eq!((sent(&credentials), calls.load(Relaxed)), ("Bearer t1".to_owned(), 2));
        due(0);
        assert_eq!(credentials.header().expect_err("it has ended").kind, ErrorKind::Authentication);
    }
}
