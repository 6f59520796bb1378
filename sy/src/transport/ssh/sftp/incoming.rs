//! Packets as they arrive.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::wire::LONGEST;

const BUFFER: usize = 64 << 10;

/// Why there is no other packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nobody wants any.
    Unwanted,
    /// The other side closed the stream.
    Closed,
    Os(Errno),
    /// No packet begins with these four bytes.
    Nonsense([u8; 4]),
}

/// The reading end of a stream, which does not block.
#[derive(Debug)]
pub struct Incoming {
    fd: OwnedFd,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// Waits until there may be something to read; `false` if it is not wanted any more.
pub type Wait<'w> = &'w mut dyn FnMut(BorrowedFd<'_>) -> bool;

impl Incoming {
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, buffer: vec![0; BUFFER], start: 0, end: 0 }
    }

    /// The next packet, without its length.
    pub fn packet(&mut self, wait: Wait<'_>) -> Result<Vec<u8>, End> {
        let mut length = [0; 4];
        self.fill(&mut length, wait)?;
        let size = u32::from_be_bytes(length) as usize;
        if size == 0 || size > LONGEST {
            return Err(End::Nonsense(length));
        }
        let mut packet = vec![0; size];
        self.fill(&mut packet, wait)?;
        Ok(packet)
    }

    fn fill(&mut self, out: &mut [u8], wait: Wait<'_>) -> Result<(), End> {
        let mut filled = 0;
        while filled < out.len() {
            let ready = &self.buffer[self.start..self.end];
            if !ready.is_empty() {
                let n = ready.len().min(out.len() - filled);
                out[filled..filled + n].copy_from_slice(&ready[..n]);
                self.start += n;
                filled += n;
                continue;
            }
            let rest = &mut out[filled..];
            // What is long goes where it belongs at once.
            let direct = rest.len() >= BUFFER;
            let into = if direct { rest } else { &mut self.buffer[..] };
            match rustix::io::read(&self.fd, into) {
                Ok(0) => return Err(End::Closed),
                Ok(n) if direct => filled += n,
                Ok(n) => (self.start, self.end) = (0, n),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if wait(self.fd.as_fd()) => {}
                Err(Errno::AGAIN) => return Err(End::Unwanted),
                Err(errno) => return Err(End::Os(errno)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn incoming(bytes: &[u8]) -> Incoming {
        let (mut near, far) = UnixStream::pair().expect("a pair of sockets");
        near.write_all(bytes).expect("room in the socket");
        Incoming::new(far.into())
    }

    #[test]
    fn packets_come_one_by_one() {
        let mut stream = incoming(b"\0\0\0\x03abc\0\0\0\x01d\0\0\0\x05cut");
        let wait: Wait<'_> = &mut |_| true;
        assert_eq!(stream.packet(wait), Ok(b"abc".to_vec()));
        assert_eq!(stream.packet(wait), Ok(b"d".to_vec()));
        assert_eq!(stream.packet(wait), Err(End::Closed));
    }

    #[test]
    fn what_is_no_packet_is_not_read() {
        for start in [*b"\0\0\0\0", *b"Last", *b"\0\x04\0\x01"] {
            assert_eq!(incoming(&start).packet(&mut |_| true), Err(End::Nonsense(start)));
        }
    }
}
