//! What OpenDAL's FTP can't do: write an empty file, write to a name of our choice and rename, tell a failed deletion from
//! a successful one, and read twice over one connection, since it does not wait for the end of the first transfer. (It also
//! puts its own temporary files into the root of the server, where nobody would look.)

use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use opendal::raw::normalize_root;
use suppaftp::tokio::{AsyncRustlsConnector, AsyncRustlsFtpStream};
use suppaftp::tokio_rustls::TlsConnector;
use suppaftp::tokio_rustls::rustls::ClientConfig;
use suppaftp::types::FileType;
use suppaftp::{FtpError, FtpResult};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::body::Pieces;
use super::settings::Settings;
use super::work::Work;
use super::{errors, http};
use crate::error::{Result, SyncError};

/// A server, and connections to it that are not in use.
pub struct Ftp {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    user: String,
    password: String,
    root: String,
    idle: Mutex<Vec<AsyncRustlsFtpStream>>,
}

impl std::fmt::Debug for Ftp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ftp").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Ftp {
    pub fn new(settings: &Settings) -> Result<Self> {
        let bad = || SyncError::config("the endpoint of OpenDAL's ftp must be ftp://HOST:PORT or ftps://HOST:PORT");
        let uri: ::http::Uri = settings.place().parse().map_err(|_| bad())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        let tls = match uri.scheme_str() {
            Some("ftp") => None,
            Some("ftps") => Some(Arc::new(http::tls(true)?)),
            _ => return Err(bad()),
        };
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(21),
            tls,
            user: settings.get("user").to_owned(),
            password: settings.get("password").to_owned(),
            root: normalize_root(settings.get("root")),
            idle: Mutex::default(),
        })
    }

    async fn connect(&self) -> FtpResult<AsyncRustlsFtpStream> {
        let plain = AsyncRustlsFtpStream::connect((self.host.as_str(), self.port)).await?;
        let mut connection = match &self.tls {
            Some(tls) => plain.into_secure(AsyncRustlsConnector::from(TlsConnector::from(Arc::clone(tls))), &self.host).await?,
            None => plain,
        };
        if !self.user.is_empty() {
            connection.login(&self.user, &self.password).await?;
        }
        connection.cwd(&self.root).await?;
        connection.transfer_type(FileType::Binary).await?;
        Ok(connection)
    }

    /// A connection that answers.
    async fn connection(&self) -> FtpResult<AsyncRustlsFtpStream> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(mut connection) => {
                    if connection.noop().await.is_ok() {
                        return Ok(connection);
                    }
                }
                None => return self.connect().await,
            }
        }
    }

    fn keep(&self, connection: AsyncRustlsFtpStream) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    /// Stores a file under a name that is to be seen by nobody yet.
    pub fn store(&self, work: &Work, path: &str, mut pieces: Pieces<'_>) -> Result<()> {
        let ftp = |error: FtpError| errors::of_ftp(&error);
        let (mut connection, mut stream) = work.wait_for(async {
            let mut connection = self.connection().await.map_err(ftp)?;
            let stream = connection.put_with_stream(path).await.map_err(ftp)?;
            Ok((connection, stream))
        })?;
        while let Some(piece) = pieces.next()? {
            work.wait_for(async { stream.write_all(&piece).await.map_err(|error| ftp(FtpError::ConnectionError(error))) })?;
        }
        work.wait_for(async { connection.finalize_put_stream(stream).await.map_err(ftp) })?;
        self.keep(connection);
        Ok(())
    }

    /// The content of a file, or a range of it. `size` is that of the whole.
    pub fn read(self: &Arc<Self>, work: &Arc<Work>, path: &str, range: Range<u64>, size: u64) -> Result<Download> {
        let start = usize::try_from(range.start).map_err(|_| SyncError::unsupported("it is larger than this machine can count"))?;
        let (connection, stream) = work.wait_for(async {
            let mut connection = self.connection().await.map_err(|error| errors::of_ftp(&error))?;
            if start > 0 {
                connection.resume_transfer(start).await.map_err(|error| errors::of_ftp(&error))?;
            }
            let stream = connection.retr_as_stream(path).await.map_err(|error| errors::of_ftp(&error))?;
            Ok((connection, Box::new(stream) as Box<dyn AsyncRead + Send + Unpin>))
        })?;
        let to_the_end = range.end == size;
        Ok(Download {
            ftp: Arc::clone(self),
            work: Arc::clone(work),
            open: Some((connection, stream)),
            left: range.end - range.start,
            to_the_end,
        })
    }

    /// Gives a file another name, in the place of one that has it.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut connection = self.connection().await.map_err(|error| errors::of_ftp(&error))?;
        connection.rename(from, to).await.map_err(|error| errors::of_ftp(&error))?;
        self.keep(connection);
        Ok(())
    }

    /// Removes a file, or an empty directory, whose name ends with a slash.
    pub async fn remove(&self, path: &str) -> Result<()> {
        let mut connection = self.connection().await.map_err(|error| errors::of_ftp(&error))?;
        let removed = match path.strip_suffix('/') {
            Some(dir) => connection.rmdir(dir).await,
            None => connection.rm(path).await,
        };
        removed.map_err(|error| errors::of_ftp(&error))?;
        self.keep(connection);
        Ok(())
    }
}

/// Content on its way. The connection serves again once the server has said that all was sent.
pub struct Download {
    ftp: Arc<Ftp>,
    work: Arc<Work>,
    open: Option<(AsyncRustlsFtpStream, Box<dyn AsyncRead + Send + Unpin>)>,
    left: u64,
    to_the_end: bool,
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some((_, stream)) = self.open.as_mut().filter(|_| want > 0) else { return Ok(0) };
        let piece = &mut buffer[..want];
        let read = self.work.wait_for(async { stream.read(piece).await.map_err(|e| errors::of_ftp(&FtpError::ConnectionError(e))) });
        let n = read.map_err(std::io::Error::other)?;
        self.left -= n as u64;
        if n == 0 {
            self.open = None;
        } else if self.left == 0
            && let Some((mut connection, stream)) = self.open.take()
            && self.to_the_end
        {
            // All is there, whatever comes of the connection.
            let ended = async { connection.finalize_retr_stream(stream).await.map_err(|error| errors::of_ftp(&error)) };
            if self.work.wait_for(ended).is_ok() {
                self.ftp.keep(connection);
            }
        }
        Ok(n)
    }
}
