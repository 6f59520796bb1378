//! Content on its way: read in pieces for an upload, handed out in pieces from a download.

use std::io::Read;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use opendal::{Buffer, BufferStream};

use super::work::Work;
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::cloud::http::Body;
use crate::transport::cloud::read_error;

const PIECE: usize = 256 << 10;

/// The content of an upload, piece by piece. It is read outside of any asynchronous work: it may come from another store.
pub struct Pieces<'b> {
    reader: Box<dyn Read + 'b>,
    left: u64,
}

impl<'b> Pieces<'b> {
    pub fn new(body: Body<'b>) -> Result<Self> {
        let reader: Box<dyn Read + 'b> = match body {
            Body::Empty => Box::new(std::io::empty()),
            Body::Bytes(bytes) => Box::new(bytes),
            Body::Stream(stream) => stream.open()?,
        };
        Ok(Self { reader, left: body.len() })
    }

    /// `None` at the end. It is an error if that comes too early.
    pub fn next(&mut self) -> Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; PIECE.min(usize::try_from(self.left).unwrap_or(PIECE))];
        let mut filled = 0;
        while filled < piece.len() {
            match self.reader.read(&mut piece[filled..]) {
                Ok(0) => return Err(SyncError::new(ErrorKind::SourceChanged, "it became shorter while it was read").retryable()),
                Ok(n) => filled += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(&error)),
            }
        }
        self.left -= filled as u64;
        Ok(Some(Bytes::from(piece)))
    }
}

/// The content of an object, or a range of it.
pub struct Download {
    work: Arc<Work>,
    stream: BufferStream,
    piece: Buffer,
}

impl Download {
    pub fn new(work: Arc<Work>, stream: BufferStream) -> Self {
        Self { work, stream, piece: Buffer::new() }
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while !self.piece.has_remaining() {
            let stream = &mut self.stream;
            match self.work.wait(async { stream.next().await.transpose() }).map_err(std::io::Error::other)? {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.piece.remaining());
        self.piece.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_comes_in_pieces_and_whole() {
        let bytes = vec![7; 2 * PIECE + 5];
        let mut pieces = Pieces::new(Body::Bytes(&bytes)).expect("readable");
        let mut lengths = Vec::new();
        while let Some(piece) = pieces.next().expect("readable") {
            lengths.push(piece.len());
        }
        assert_eq!(lengths, [PIECE, PIECE, 5]);
        assert!(Pieces::new(Body::Empty).expect("readable").next().expect("nothing").is_none());
    }

    #[test]
    fn content_that_ends_early_is_an_error() {
        #[derive(Debug)]
        struct Short;
        impl crate::transport::cloud::http::Stream for Short {
            fn len(&self) -> u64 {
                10
            }
            fn open(&self) -> Result<Box<dyn Read + '_>> {
                Ok(Box::new(&b"short"[..]))
            }
        }
        let mut pieces = Pieces::new(Body::Stream(&Short)).expect("readable");
        assert_eq!(pieces.next().expect_err("too short").kind, ErrorKind::SourceChanged);
    }
}
