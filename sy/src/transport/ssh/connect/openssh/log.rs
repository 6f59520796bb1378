//! What `ssh` and the remote command write to standard error, sorted as it comes and kept in bounded size.

/// Of what the other side wrote, this much of its end is kept, bytes.
pub const TAIL: usize = 4096;

/// What is known of a connection from its log.
#[derive(Debug, Default)]
pub struct Log {
    /// The line that is being read, up to `TAIL` bytes of it.
    line: Vec<u8>,
    tail: Vec<u8>,
    /// Somebody else's words may follow from here on.
    pub session: bool,
    /// As the server offered it: `ED25519 SHA256:…`.
    pub host_key: Option<String>,
    /// The remote command's own, if it is what ssh also says when it fails.
    pub exit_255: bool,
    pub exit_signal: bool,
}

impl Log {
    pub fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            self.append(&bytes[..=end]);
            self.end_line();
            bytes = &bytes[end + 1..];
        }
        self.append(bytes);
    }

    fn append(&mut self, bytes: &[u8]) {
        self.line.extend_from_slice(bytes);
        if self.line.len() > TAIL {
            self.line.drain(..self.line.len() - TAIL);
        }
    }

    pub fn end_line(&mut self) {
        if !self.take_note() {
            self.tail.extend_from_slice(&self.line);
            if self.tail.len() > TAIL {
                self.tail.drain(..self.tail.len() - TAIL);
            }
        }
        self.line.clear();
    }

    /// Whether the line is one that ssh writes only because it was asked to tell more.
    fn take_note(&mut self) -> bool {
        let Ok(line) = std::str::from_utf8(self.line.trim_ascii_end()) else { return false };
        let Some(note) = line.strip_prefix("debug1: ") else {
            let chatter = ["Authenticated to ", "Transferred: sent ", "Bytes per second: sent "];
            return chatter.iter().any(|start| line.starts_with(start));
        };
        if note == "Entering interactive session." || note.starts_with("mux_client_request_session: master session id") {
            self.session = true;
        } else if let Some(key) = note.strip_prefix("Server host key: ") {
            self.host_key = Some(key.to_owned());
        } else if note == "Exit status 255" {
            self.exit_255 = true;
        } else if note.ends_with(" rtype exit-signal reply 0") {
            self.exit_signal = true;
        }
        true
    }

    /// The end of what was written, without notes.
    pub fn text(&self) -> String {
        let bytes = [self.tail.as_slice(), if self.line.starts_with(b"debug1: ") { b"" } else { &self.line }].concat();
        String::from_utf8_lossy(&bytes).replace("\r\n", "\n").trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_taken_and_left_out() {
        let mut log = Log::default();
        let text = "debug1: Server host key: ssh-ed25519 SHA256:abc\r\ndebug1: Entering interactive session.\r\nhello\ndebug1: Exit status 255\r\n";
        for byte in text.bytes() {
            log.push(&[byte]);
        }
        assert_eq!(log.text(), "hello");
        assert_eq!(log.host_key.as_deref(), Some("ssh-ed25519 SHA256:abc"));
        assert!(log.session && log.exit_255 && !log.exit_signal);
    }

    #[test]
    fn a_chatty_host_is_cut_short() {
        let mut log = Log::default();
        for _ in 0..1000 {
            log.push(&[b'x'; 1000]);
        }
        log.push(b"\n");
        for n in 0..10_000 {
            log.push(format!("line {n}\n").as_bytes());
        }
        log.push(b"the end");
        assert!(log.text().ends_with("line 9999\nthe end"));
        assert!(log.text().len() <= 2 * TAIL && log.line.len() + log.tail.len() <= 2 * TAIL);
    }
}
