//! Frames: what travels on a connection, in either direction. Length of the body, kind, id, body.
//!
//! The id tells which of the requests under way a frame belongs to.

use std::io::{ErrorKind::Interrupted, Read, Write};
use std::sync::{Mutex, PoisonError};

use super::codec::garbled;
use super::zip::{Unzip, When, Zip};
use crate::error::{ErrorKind, Result, SyncError};

/// Bytes of a body, at most. Whoever sends keeps below it.
pub const MOST: usize = 1 << 20;
/// Content goes in pieces of this size.
pub const PIECE: usize = 256 << 10;

/// What packing may add to what does not shrink.
const SLACK: usize = 64 << 10;

const HEAD: usize = 9;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Both ways, first of all: which versions a side speaks.
    Hello = 1,
    /// An answer that ends a request: what was asked for.
    Done,
    /// An answer that ends a request: why there is no other.
    Failed,
    /// Requests: what the run is about.
    OpenSource,
    OpenDest,
    Close,
    /// All listings, in the order of a walk, from a key on; and how much more of them may be sent.
    Walk,
    More,
    /// One directory, or a part of it with more to come.
    Listing,
    List,
    Stat,
    Read,
    /// Changes to the destination.
    MakeDir,
    FinishDir,
    Ops,
    HardLink,
    Remove,
    TouchDir,
    CleanUp,
    SyncAll,
    /// A large file on its way, in pieces.
    Put,
    Data,
    Hole,
    Copy,
    End,
    /// Small files of the source, and one of them.
    Fetch,
    Content,
    /// A large file of the source.
    FetchFile,
    Credit,
    Signature,
    Hashes,
    RemoveSource,
    /// Nobody wants an answer to that request any more.
    Forget,
    Ping,
    /// Another frame, packed.
    Zipped,
    /// Extended attributes and access lists: of entries that are named, of a directory itself, of all entries of one.
    Attributes,
    DirAttributes,
    AllAttributes,
    /// Owners and groups: their names by number, their numbers by name.
    Accounts,
    /// A range of a large file that is being put.
    PutRange,
}

impl Kind {
    fn of(byte: u8) -> Result<Self> {
        const ALL: [Kind; 40] = [
            Kind::Hello,
            Kind::Done,
            Kind::Failed,
            Kind::OpenSource,
            Kind::OpenDest,
            Kind::Close,
            Kind::Walk,
            Kind::More,
            Kind::Listing,
            Kind::List,
            Kind::Stat,
            Kind::Read,
            Kind::MakeDir,
            Kind::FinishDir,
            Kind::Ops,
            Kind::HardLink,
            Kind::Remove,
            Kind::TouchDir,
            Kind::CleanUp,
            Kind::SyncAll,
            Kind::Put,
            Kind::Data,
            Kind::Hole,
            Kind::Copy,
            Kind::End,
            Kind::Fetch,
            Kind::Content,
            Kind::FetchFile,
            Kind::Credit,
            Kind::Signature,
            Kind::Hashes,
            Kind::RemoveSource,
            Kind::Forget,
            Kind::Ping,
            Kind::Zipped,
            Kind::Attributes,
            Kind::DirAttributes,
            Kind::AllAttributes,
            Kind::Accounts,
            Kind::PutRange,
        ];
        byte.checked_sub(1).and_then(|n| ALL.get(usize::from(n))).copied().ok_or_else(|| garbled("an unknown kind of message"))
    }
}

#[derive(Debug)]
pub struct Frame {
    pub kind: Kind,
    pub id: u32,
    pub body: Vec<u8>,
    /// It came packed, and that has saved so many bytes.
    pub saved: Option<u64>,
}

/// The receiving end.
#[derive(Debug)]
pub struct Incoming<R> {
    from: R,
    buffer: Vec<u8>,
    at: usize,
    unzip: Option<Unzip>,
}

impl<R: Read> Incoming<R> {
    pub fn new(from: R) -> Self {
        Self { from, buffer: Vec::with_capacity(64 << 10), at: 0, unzip: None }
    }

    /// Fills the buffer until `n` bytes wait in it. `false` at the end of the stream.
    fn want(&mut self, n: usize) -> Result<bool> {
        while self.buffer.len() - self.at < n {
            self.buffer.drain(..self.at);
            self.at = 0;
            let had = self.buffer.len();
            self.buffer.resize((64 << 10).max(n), 0);
            let got = read(&mut self.from, &mut self.buffer[had..])?;
            self.buffer.truncate(had + got);
            if got == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The bytes before the first frame: what a login script prints ends at `greeting`.
    pub fn skip_to(&mut self, greeting: &[u8], most: usize) -> Result<bool> {
        let mut seen = 0;
        loop {
            let waiting = &self.buffer[self.at..];
            if let Some(found) = waiting.windows(greeting.len()).position(|window| window == greeting) {
                self.at += found + greeting.len();
                return Ok(true);
            }
            let useless = waiting.len().saturating_sub(greeting.len() - 1);
            (self.at, seen) = (self.at + useless, seen + useless);
            let waiting = self.buffer.len() - self.at;
            if seen > most || !self.want(waiting + 1)? {
                return Ok(false);
            }
        }
    }

    /// The next frame; `None` where the stream ends between two.
    pub fn next(&mut self) -> Result<Option<Frame>> {
        let Some(frame) = self.next_as_sent()? else { return Ok(None) };
        if frame.kind != Kind::Zipped {
            return Ok(Some(frame));
        }
        if self.unzip.is_none() {
            self.unzip = Some(Unzip::new()?);
        }
        let Some(unzip) = &mut self.unzip else { return Ok(None) };
        let mut whole = unzip.unzip(&frame.body, MOST + HEAD)?;
        let head = whole.get(..HEAD).ok_or_else(|| garbled("a packed message that is none"))?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (length, kind, id) = (number(0) as usize, Kind::of(head[4])?, number(5));
        if length != whole.len() - HEAD || kind == Kind::Zipped {
            return Err(garbled("a packed message that is none"));
        }
        whole.drain(..HEAD);
        let saved = (whole.len() as u64).saturating_sub(frame.body.len() as u64);
        Ok(Some(Frame { kind, id, body: whole, saved: Some(saved) }))
    }

    fn next_as_sent(&mut self) -> Result<Option<Frame>> {
        if !self.want(HEAD)? {
            return if self.buffer.len() == self.at { Ok(None) } else { Err(cut_off()) };
        }
        let head = &self.buffer[self.at..][..HEAD];
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (length, kind, id) = (number(0) as usize, head[4], number(5));
        if length > MOST + SLACK {
            return Err(garbled("a message that is too large"));
        }
        let kind = Kind::of(kind)?;
        self.at += HEAD;
        let waiting = (self.buffer.len() - self.at).min(length);
        let mut body = Vec::with_capacity(length);
        body.extend_from_slice(&self.buffer[self.at..][..waiting]);
        self.at += waiting;
        // What is large goes where it belongs without a stop in between.
        body.resize(length, 0);
        let mut filled = waiting;
        while filled < length {
            match read(&mut self.from, &mut body[filled..])? {
                0 => return Err(cut_off()),
                n => filled += n,
            }
        }
        Ok(Some(Frame { kind, id, body, saved: None }))
    }
}

fn read(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == Interrupted => {}
            Err(error) => return Err(SyncError::new(ErrorKind::Network, error.to_string()).retryable()),
            Ok(n) => return Ok(n),
        }
    }
}

/// The stream ended, or could not be written to any more.
pub fn cut_off() -> SyncError {
    SyncError::new(ErrorKind::Network, "the connection was cut off").retryable()
}

/// Hashes of both sides differ.
pub fn not_what_was_sent() -> SyncError {
    SyncError::new(ErrorKind::Verification, "what arrived is not what was sent").retryable()
}

/// The sending end, for many threads: a frame goes out whole.
#[derive(Debug)]
pub struct Outgoing<W> {
    sender: Mutex<Sender<W>>,
    /// What was learned of the wire and has yet to be heeded, for whoever may not wait.
    learned: Mutex<Option<When>>,
}

#[derive(Debug)]
struct Sender<W> {
    to: W,
    zip: Zip,
}

impl<W: Write> Outgoing<W> {
    pub fn new(to: W) -> Self {
        Self { sender: Mutex::new(Sender { to, zip: Zip::new(When::No) }), learned: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sender<W>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the next frame on, they are packed or not. Never waits for a frame under way.
    pub fn zip(&self, when: When) {
        *self.learned.lock().unwrap_or_else(PoisonError::into_inner) = Some(when);
    }

    /// `body` begins with room for the head, as `body` makes it.
    pub fn send(&self, kind: Kind, id: u32, frame: Vec<u8>) -> Result<()> {
        self.send_counted(kind, id, frame).map(drop)
    }

    /// The same. Returns how many bytes packing has saved, if it was packed.
    pub fn send_counted(&self, kind: Kind, id: u32, mut frame: Vec<u8>) -> Result<Option<u64>> {
        let length = frame.len() - HEAD;
        debug_assert!(length <= MOST, "{kind:?} of {length} bytes");
        frame[..HEAD].copy_from_slice(&head(length, kind, id));
        let mut sender = self.lock();
        let Sender { to, zip } = &mut *sender;
        if let Some(when) = self.learned.lock().unwrap_or_else(PoisonError::into_inner).take() {
            zip.learn(when);
        }
        if let Some(zipped) = zip.zip(&frame) {
            let head = head(zipped.len(), Kind::Zipped, 0);
            to.write_all(&head).and_then(|()| to.write_all(&zipped)).and_then(|()| to.flush()).map_err(|_| cut_off())?;
            return Ok(Some((frame.len() as u64).saturating_sub(zipped.len() as u64)));
        }
        let began = std::time::Instant::now();
        to.write_all(&frame).and_then(|()| to.flush()).map_err(|_| cut_off())?;
        zip.sent(frame.len(), began.elapsed());
        Ok(None)
    }

    /// What comes before the first frame.
    pub fn send_raw(&self, bytes: &[u8]) -> Result<()> {
        self.lock().to.write_all(bytes).map_err(|_| cut_off())
    }
}

fn head(length: usize, kind: Kind, id: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&(length as u32).to_le_bytes());
    head[4] = kind as u8;
    head[5..].copy_from_slice(&id.to_le_bytes());
    head
}

/// An empty body, with room for the head.
pub fn body() -> super::Put {
    super::Put(vec![0; HEAD])
}

/// The body so far.
pub fn body_of(body: &super::Put) -> &[u8] {
    &body.0[HEAD..]
}

/// Bytes of the body so far.
pub fn body_len(body: &super::Put) -> usize {
    body.0.len() - HEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives a few bytes at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.len().min(buffer.len()).min(self.1);
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    proptest! {
        #[test]
        fn frames_come_back(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..8), drip in 1..5000_usize) {
            let mut sent = Vec::new();
            let out = Outgoing::new(&mut sent);
            for (n, content) in bodies.iter().enumerate() {
                let mut body = body();
                body.0.extend_from_slice(content);
                out.send(Kind::Data, n as u32, body.0).expect("room");
            }
            let mut incoming = Incoming::new(Drip(&sent, drip));
            for (n, content) in bodies.iter().enumerate() {
                let frame = incoming.next().expect("whole").expect("there");
                prop_assert_eq!((frame.kind, frame.id as usize, &frame.body), (Kind::Data, n, content));
            }
            prop_assert!(incoming.next().expect("the end").is_none());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut incoming = Incoming::new(&*bytes);
            while let Ok(Some(_)) = incoming.next() {}
        }
    }

    #[test]
    fn what_a_login_prints_is_passed_over() {
        let mut incoming = Incoming::new(Drip(b"Welcome!\nsy\nsypy agent\n12345", 3));
        assert!(incoming.skip_to(b"sypy agent\n", 100).expect("found"));
        let mut incoming = Incoming::new(Drip(b"Welcome to something that is no agent", 3));
        assert!(!incoming.skip_to(b"sypy agent\n", 10).expect("not found"));
    }

    #[test]
    fn a_frame_that_is_too_large_takes_no_memory() {
        let error = Incoming::new(&[0xff, 0xff, 0xff, 0x7f, 2, 0, 0, 0, 0][..]).next().expect_err("refused");
        assert!(error.message.contains("too large"), "{error}");
    }
}
