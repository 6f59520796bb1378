//! One HTTP client for a run: connections, timeouts, retries, cancellation.
//!
//! Requests block the thread that sends them; a run sends many from many threads. See docs/dev/0007.

use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, Method};
use ureq::{Agent, Proxy, SendBody};

use super::CloudClientOptions;
use super::gate::Gate;
use super::quoted;
use super::store::If;
use super::tls;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Stop;

/// What a request sends.
#[derive(Clone, Copy, Debug)]
pub enum Body<'b> {
    Empty,
    Bytes(&'b [u8]),
    Stream(&'b dyn Stream),
}

/// A body that can be read again for every try.
pub trait Stream: Sync + std::fmt::Debug {
    fn len(&self) -> u64;
    fn open(&self) -> Result<Box<dyn Read + '_>>;
}

impl Body<'_> {
    pub fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stream(stream) => stream.len(),
        }
    }
}

/// A request before it is signed. `url` is as it goes over the wire.
pub struct Request<'b> {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    /// Headers whose names are made while the program runs, such as user metadata.
    pub named: Vec<(String, String)>,
    pub body: Body<'b>,
}

impl<'b> Request<'b> {
    pub fn new(method: Method, url: String) -> Self {
        Self { method, url, headers: Vec::new(), named: Vec::new(), body: Body::Empty }
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn maybe(self, name: &'static str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    #[must_use]
    pub fn body(mut self, body: Body<'b>) -> Self {
        self.body = body;
        self
    }

    /// Binds a write to what is there, by HTTP's own headers.
    #[must_use]
    pub fn when(self, when: If<'_>) -> Self {
        match when {
            If::Always => self,
            If::Absent => self.header("if-none-match", "*"),
            If::Tag(tag) => self.header("if-match", quoted(tag)),
        }
    }

    fn parts(&self) -> Result<Parts> {
        let mut request = http::Request::builder().method(self.method.clone()).uri(&self.url);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        for (name, value) in &self.named {
            request = request.header(name, value);
        }
        let has_body = !matches!(self.body, Body::Empty) || matches!(self.method, Method::PUT | Method::POST);
        if has_body {
            request = request.header("content-length", self.body.len());
        }
        let whole = request.body(()).map_err(|error| SyncError::new(ErrorKind::Io, format!("a request could not be made: {error}")))?;
        Ok(whole.into_parts().0)
    }
}

/// What an answer that is no success means.
#[derive(Debug)]
pub struct Failed {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Failed {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What to make of a failure.
#[derive(Debug)]
pub enum Verdict {
    /// The service has troubles of its own: try again later.
    Later(SyncError),
    /// Something was put right (a clock, credentials): try again at once.
    Now(SyncError),
    Never(SyncError),
}

/// How a service wants to be spoken to.
pub trait Dialect: Send + Sync + std::fmt::Debug {
    /// Adds what proves who is asking. Called for every try.
    fn sign(&self, parts: &mut Parts) -> Result<()>;
    fn judge(&self, failed: &Failed) -> Verdict;
}

/// A success.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: ureq::Body,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.header(name).and_then(|value| value.parse().ok())
    }

    /// Is the body what was asked for: this range, or else all of it?
    pub fn holds(&self, range: Option<&Range<u64>>) -> Result<()> {
        let right = range.is_none_or(|range| {
            let told = format!("bytes {}-{}/", range.start, range.end - 1);
            self.status == 206
                && self.number("content-length") == Some(range.end - range.start)
                && self.header("content-range").is_none_or(|header| header.starts_with(&told))
        });
        if right { Ok(()) } else { Err(SyncError::new(ErrorKind::Io, "the service sent another range than it was asked for")) }
    }
}

/// No answer that tells about an object is larger: lists have a thousand entries, with keys of a kilobyte at most.
const MOST: u64 = 32 << 20;

/// Once a run is stopped its connections are cut.
type Live = Mutex<Option<Agent>>;

#[derive(Debug)]
pub struct Http {
    agent: Agent,
    gate: Gate,
    retries: u32,
    patience: Duration,
    stop: Stop,
    pub requests: AtomicU64,
    /// How often the service has asked for fewer.
    pub throttled: AtomicU64,
    pub connections: Option<u64>,
    _watch: Option<Watch>,
}

/// What a refusal that gave no reason was about.
enum Explained {
    Fault(Failed),
    /// The same question is not refused any more.
    Over,
    Unknown,
}

impl Http {
    /// `encrypted`: whether certificates will be needed; reading the system's takes a while.
    pub fn new(options: &CloudClientOptions, encrypted: bool, stop: Stop) -> Result<Self> {
        let stall = Duration::from_secs(options.request_timeout_secs);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(options.user_agent.clone().unwrap_or_else(|| format!("sypy/{}", env!("CARGO_PKG_VERSION"))))
            .accept("*/*")
            .timeout_connect(Some(Duration::from_secs(options.connect_timeout_secs)))
            // Bytes may come slowly, but they have to come.
            .timeout_per_read(Some(stall))
            .timeout_per_write(Some(stall))
            .max_idle_connections(options.pool_max_idle_per_host as usize)
            .max_idle_connections_per_host(options.pool_max_idle_per_host as usize)
            .max_idle_age(Duration::from_secs(options.pool_idle_timeout_secs))
            .input_buffer_size(256 << 10)
            .output_buffer_size(64 << 10)
            .max_response_header_size(64 << 10);
        config = match &options.proxy_url {
            Some(url) => {
                config.proxy(Some(Proxy::new(url.as_str()).map_err(|_| SyncError::config("proxy_url is not a proxy that can be used"))?))
            }
            None => config,
        };
        if encrypted {
            config = config.tls_config(tls::config(options)?);
        }
        let agent = Agent::new_with_config(config.build());
        let live: Arc<Live> = Arc::new(Mutex::new(Some(agent.clone())));
        let watch = Watch::start(Arc::clone(&live), stop.clone());
        Ok(Self {
            agent,
            gate: Gate::new(Duration::from_secs(options.retry_timeout_secs)),
            retries: options.max_retries.min(100) as u32,
            patience: Duration::from_secs(options.retry_timeout_secs),
            stop,
            requests: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            connections: options.max_connections,
            _watch: watch,
        })
    }

    /// For cleaning up after a run that was stopped: a connection of its own, one try, and not for long.
    pub fn last_words(&self, dialect: &dyn Dialect, request: &Request<'_>) {
        const BRIEFLY: Option<Duration> = Some(Duration::from_secs(2));
        let sent = request.parts().and_then(|mut parts| dialect.sign(&mut parts).map(|()| parts));
        let Ok(parts) = sent else { return };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Nobody else is to be told who asks.
            .max_redirects(0)
            .proxy(self.agent.config().proxy().cloned())
            .tls_config(self.agent.config().tls_config().clone())
            .timeout_global(BRIEFLY);
        // Should it fail, whatever is left is found by the next run.
        let _ = Agent::new_with_config(config.build()).run(http::Request::from_parts(parts, ()));
    }

    /// Sends a request, again if that may help. The answer is a success; its body has yet to be read.
    pub fn send(&self, dialect: &dyn Dialect, request: &Request<'_>) -> Result<Answer> {
        let begun = Instant::now();
        let mut tries = 0;
        let mut explained = request.method != Method::HEAD;
        loop {
            if !self.gate.pass(&|| self.stop.is_set()) {
                return Err(self.refused());
            }
            let verdict = match self.once(dialect, request) {
                Ok(Ok(answer)) => {
                    self.gate.succeeded();
                    return Ok(answer);
                }
                Ok(Err(mut failed)) => {
                    if !explained && matches!(failed.status, 400 | 403) {
                        explained = true;
                        match self.explain(dialect, request) {
                            Explained::Fault(fault) => failed = fault,
                            // Another request has renewed the credentials meanwhile.
                            Explained::Over => continue,
                            Explained::Unknown => {}
                        }
                    }
                    let verdict = dialect.judge(&failed);
                    if matches!((&verdict, failed.status), (Verdict::Later(_), 429 | 503)) {
                        self.throttled.fetch_add(1, Relaxed);
                    }
                    match &verdict {
                        Verdict::Later(_) => self.gate.failed(wait_asked_for(&failed)),
                        _ => self.gate.succeeded(),
                    }
                    verdict
                }
                Err(error) if error.retryable && matches!(error.kind, ErrorKind::Network | ErrorKind::Timeout) => {
                    self.gate.failed(None);
                    Verdict::Later(error)
                }
                Err(error) => Verdict::Never(error),
            };
            tries += 1;
            let (error, pause) = match verdict {
                Verdict::Never(error) => return Err(error),
                Verdict::Now(error) => (error, Duration::ZERO),
                Verdict::Later(error) => (error, backoff(tries)),
            };
            if self.stop.is_set() {
                return Err(SyncError::cancelled());
            }
            if tries > self.retries || begun.elapsed() + pause > self.patience {
                return Err(error.retryable());
            }
            self.nap(pause);
        }
    }

    /// An answer to HEAD has no body, so it does not say what is wrong: credentials that have expired look like those that never
    /// were any good. The same question by GET, for one byte, does.
    fn explain(&self, dialect: &dyn Dialect, request: &Request<'_>) -> Explained {
        let Ok(mut parts) = request.parts() else { return Explained::Unknown };
        parts.method = Method::GET;
        parts.headers.insert(http::header::RANGE, http::HeaderValue::from_static("bytes=0-0"));
        match dialect.sign(&mut parts).and_then(|()| self.exchange(parts, Body::Empty)) {
            Ok(Err(failed)) if matches!(failed.status, 400 | 401 | 403) => Explained::Fault(failed),
            // Also when nothing is there, or no byte in it.
            Ok(Ok(_)) => Explained::Over,
            Ok(Err(failed)) if matches!(failed.status, 404 | 416) => Explained::Over,
            _ => Explained::Unknown,
        }
    }

    /// Why nothing can be sent any more.
    fn refused(&self) -> SyncError {
        if self.stop.is_set() {
            return SyncError::cancelled();
        }
        SyncError::new(ErrorKind::Network, format!("the service kept failing for {} s, so nothing more was sent", self.patience.as_secs()))
            .hint("try again later; retry_timeout_secs of CloudClientOptions says how long a service may fail")
    }

    fn nap(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while !self.stop.is_set() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    fn once(&self, dialect: &dyn Dialect, request: &Request<'_>) -> Result<Result<Answer, Failed>> {
        let mut parts = request.parts()?;
        dialect.sign(&mut parts)?;
        self.exchange(parts, request.body)
    }

    /// One exchange, without retries.
    pub fn exchange(&self, parts: Parts, body: Body<'_>) -> Result<Result<Answer, Failed>> {
        self.requests.fetch_add(1, Relaxed);
        let host = parts.uri.host().unwrap_or_default().to_owned();
        let sent = match body {
            Body::Empty => self.agent.run(http::Request::from_parts(parts, ())),
            Body::Bytes(bytes) => self.agent.run(http::Request::from_parts(parts, bytes)),
            Body::Stream(stream) => {
                let mut reader = stream.open()?;
                self.agent.run(http::Request::from_parts(parts, SendBody::from_reader(&mut reader)))
            }
        };
        let response = sent.map_err(|error| self.describe(&error, &host))?;
        let (head, mut body) = response.into_parts();
        if head.status.is_success() {
            return Ok(Ok(Answer { status: head.status.as_u16(), headers: head.headers, body }));
        }
        let body = body.with_config().limit(1 << 20).read_to_vec().unwrap_or_default();
        Ok(Err(Failed { status: head.status.as_u16(), headers: head.headers, body }))
    }

    /// The whole body of an answer that tells about objects.
    pub fn text(&self, mut answer: Answer) -> Result<Vec<u8>> {
        answer.body.with_config().limit(MOST).read_to_vec().map_err(|error| self.describe(&error, "the service"))
    }

    /// What became of a request that got no answer, without what it held.
    pub fn describe(&self, error: &ureq::Error, host: &str) -> SyncError {
        if self.stop.is_set() {
            return SyncError::cancelled();
        }
        let network = |text: String| SyncError::new(ErrorKind::Network, text).retryable();
        match error {
            ureq::Error::Timeout(_) => SyncError::new(ErrorKind::Timeout, format!("{host} did not answer in time")).retryable(),
            ureq::Error::HostNotFound => {
                network(format!("the host {host} is not known")).hint("check the endpoint, the region and the network")
            }
            ureq::Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<SyncError>()) => {
                // The body came from a file that could not be read.
                error.get_ref().and_then(|inner| inner.downcast_ref::<SyncError>()).cloned().unwrap_or_else(SyncError::cancelled)
            }
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                SyncError::new(ErrorKind::Timeout, format!("{host} did not answer in time")).retryable()
            }
            ureq::Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(error) => tls::describe(error, host),
                None => network(format!("the connection to {host} failed: {error}")),
            },
            ureq::Error::Rustls(error) => tls::describe(error, host),
            ureq::Error::BodyExceedsLimit(_) => SyncError::new(ErrorKind::Io, format!("{host} sent more than it should")),
            other => network(format!("the connection to {host} failed: {other}")),
        }
    }
}

/// Cuts all connections when the run is stopped, so that whoever waits for an answer fails at once.
#[derive(Debug)]
struct Watch {
    thread: Option<std::thread::JoinHandle<()>>,
    over: Arc<AtomicBool>,
}

impl Watch {
    /// Without a thread for it a stop takes longer.
    fn start(live: Arc<Live>, stop: Stop) -> Option<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let thread = std::thread::Builder::new().name("sypy-stop".into()).spawn(move || {
            while !ended.load(Relaxed) {
                if stop.is_set() {
                    if let Some(agent) = live.lock().unwrap_or_else(PoisonError::into_inner).take() {
                        agent.shutdown();
                    }
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        Some(Self { thread: Some(thread.ok()?), over })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Half to all of 100 ms, doubled with each try.
fn backoff(tries: u32) -> Duration {
    let whole = Duration::from_millis(100) * (1 << tries.min(10).saturating_sub(1));
    whole.mul_f64(0.5 + 0.5 * f64::from(crate::transport::Time::now().nanos % 1000) / 1000.0)
}

/// `Retry-After` in seconds; the form with a date is rare, and no reason to wait.
fn wait_asked_for(failed: &Failed) -> Option<Duration> {
    failed.header("retry-after").and_then(|value| value.trim().parse().ok()).map(Duration::from_secs)
}
