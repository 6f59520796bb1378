//! An object's metadata and its content as one body, so that both arrive in one request or not at all.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::Read;

use super::super::http::{Body, Stream};
use crate::error::Result;

/// `multipart/related`: what the metadata says, then the content.
#[derive(Debug)]
pub struct Frame<'b> {
    pub content_type: String,
    before: Vec<u8>,
    body: Body<'b>,
    after: Vec<u8>,
}

impl<'b> Frame<'b> {
    pub fn new(metadata: &serde_json::Value, content_type: &str, body: Body<'b>) -> Self {
        // Nobody can have put into the content what nobody can guess.
        let random = RandomState::new();
        let boundary = format!("sypy{:016x}{:016x}", random.hash_one(0), random.hash_one(1));
        let before = format!(
            "--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{metadata}\r\n\
             --{boundary}\r\ncontent-type: {content_type}\r\n\r\n"
        );
        Self {
            before: before.into_bytes(),
            body,
            after: format!("\r\n--{boundary}--\r\n").into_bytes(),
            content_type: format!("multipart/related; boundary={boundary}"),
        }
    }
}

impl Stream for Frame<'_> {
    fn len(&self) -> u64 {
        (self.before.len() + self.after.len()) as u64 + self.body.len()
    }

    fn open(&self) -> Result<Box<dyn Read + '_>> {
        let body: Box<dyn Read + '_> = match self.body {
            Body::Empty => Box::new(std::io::empty()),
            Body::Bytes(bytes) => Box::new(bytes),
            Body::Stream(stream) => stream.open()?,
        };
        Ok(Box::new(self.before.as_slice().chain(body).chain(self.after.as_slice())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_long_as_it_says_and_can_be_read_again() {
        let frame = Frame::new(&serde_json::json!({"name": "a"}), "text/plain", Body::Bytes(b"content"));
        for _ in 0..2 {
            let mut text = String::new();
            frame.open().expect("open").read_to_string(&mut text).expect("text");
            assert_eq!(text.len() as u64, frame.len());
            let boundary = frame.content_type.rsplit_once('=').expect("a boundary").1;
            let parts: Vec<&str> = text.split(&format!("--{boundary}")).collect();
            assert_eq!(parts.len(), 4);
            assert!(parts[1].ends_with("\r\n\r\n{\"name\":\"a\"}\r\n") && parts[2].ends_with("text/plain\r\n\r\ncontent\r\n"));
        }
    }
}
