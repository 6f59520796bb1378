//! How OpenDAL's HTTP requests are sent.
//!
//! OpenDAL holds the whole body of a WebDAV upload in memory. So it is handed a ticket instead, and the content that the
//! ticket stands for is sent in its place, as it is read. One client for each store: its connections end with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport};
use opendal_http_transport_reqwest::ReqwestTransport;
use suppaftp::tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::sync::mpsc;

use crate::error::{Result, SyncError};

const CONNECT: Duration = Duration::from_secs(10);
/// An answer that moves no byte for this long has failed.
const STALL: Duration = Duration::from_secs(60);
/// Pieces of content that are read ahead.
const AHEAD: usize = 2;

/// A piece of content, or why there will be no more.
pub type Piece = std::io::Result<Bytes>;

#[derive(Debug)]
struct Waiting {
    length: u64,
    pieces: mpsc::Receiver<Piece>,
}

/// The contents that wait to be sent, by their tickets.
#[derive(Debug, Clone, Default)]
pub struct Tickets {
    waiting: Arc<Mutex<HashMap<Vec<u8>, Waiting>>>,
    next: Arc<AtomicU64>,
}

impl Tickets {
    /// A body for OpenDAL, and where the content goes.
    pub fn issue(&self, length: u64) -> (Vec<u8>, mpsc::Sender<Piece>) {
        let ticket = format!("content {}", self.next.fetch_add(1, Relaxed)).into_bytes();
        let (sender, pieces) = mpsc::channel(AHEAD);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(ticket.clone(), Waiting { length, pieces });
        (ticket, sender)
    }

    /// No request came for it.
    pub fn withdraw(&self, ticket: &[u8]) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(ticket);
    }

    fn take(&self, request: &Request<Buffer>) -> Option<Waiting> {
        // Nothing else is sent by PUT.
        if request.method() != http::Method::PUT || request.body().is_empty() {
            return None;
        }
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(request.body().to_bytes().as_ref())
    }
}

/// What OpenDAL sends its requests through.
#[derive(Debug, Clone)]
pub struct Transport {
    client: reqwest::Client,
    plain: ReqwestTransport,
    tickets: Tickets,
}

impl Transport {
    pub fn new(encrypted: bool, tickets: Tickets) -> Result<Self> {
        let tls = if encrypted { tls(false)? } else { with_roots(RootCertStore::empty())? };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(CONNECT)
            .read_timeout(STALL)
            .user_agent(concat!("sypy/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| SyncError::config(format!("there can be no HTTP client: {error}")))?;
        Ok(Self { plain: ReqwestTransport::new(client.clone()), client, tickets })
    }
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let Some(mut waiting) = self.tickets.take(&request) else { return self.plain.fetch(request).await };
        let (mut parts, _) = request.into_parts();
        parts.headers.insert(header::CONTENT_LENGTH, waiting.length.into());
        let pieces = futures_util::stream::poll_fn(move |cx| waiting.pieces.poll_recv(cx));
        let failed = |error: reqwest::Error| {
            let again = error.is_request() || error.is_body() || error.is_decode();
            let unexpected = Error::new(ErrorKind::Unexpected, "the content could not be sent");
            unexpected.with_temporary(again).set_source(error.without_url())
        };
        let answer = self
            .client
            .request(parts.method, parts.uri.to_string())
            .headers(parts.headers)
            .body(reqwest::Body::wrap_stream(pieces))
            .send()
            .await
            .map_err(failed)?;
        let mut response = Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            headers.clone_from(answer.headers());
        }
        let body = Buffer::from(answer.bytes().await.map_err(failed)?);
        let size = body.len() as u64;
        let body = HttpBody::new(futures_util::stream::iter([Ok(body)]), Some(size));
        response.body(body).map_err(|error| Error::new(ErrorKind::Unexpected, "the answer makes no sense").set_source(error))
    }
}

/// `all`: every certificate of the system has to be usable, as OpenDAL's FTP insists on.
pub fn tls(all: bool) -> Result<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (_, refused) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() || all && (refused > 0 || !found.errors.is_empty()) {
        return Err(SyncError::config("the certificates of this system can't be used").hint("SSL_CERT_FILE names a PEM file with others"));
    }
    with_roots(roots)
}

fn with_roots(roots: RootCertStore) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| SyncError::config(format!("there can be no TLS: {error}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
