//! What a server can do beyond version 3, and how long its packets may be.

use super::wire::{Cursor, LONGEST};

/// What every server takes.
const SAFE: u32 = 32 << 10;
/// Room for what stands around the content of a packet.
const AROUND: u32 = 1 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    pub posix_rename: bool,
    pub hardlink: bool,
    pub fsync: bool,
    pub statvfs: bool,
    pub lsetstat: bool,
    pub limits: bool,
    pub expand_path: bool,
    /// The arguments of `SYMLINK` go in OpenSSH's order, which is not that of the draft.
    pub symlinks: bool,
    /// Bytes of content in one `READ` and in one `WRITE`.
    pub read: u32,
    pub write: u32,
}

impl Server {
    pub fn new(extensions: &[Vec<u8>]) -> Self {
        let has = |name: &str| extensions.iter().any(|extension| extension == name.as_bytes());
        Self {
            posix_rename: has("posix-rename@openssh.com"),
            hardlink: has("hardlink@openssh.com"),
            fsync: has("fsync@openssh.com"),
            statvfs: has("statvfs@openssh.com"),
            lsetstat: has("lsetstat@openssh.com"),
            limits: has("limits@openssh.com"),
            expand_path: has("expand-path@openssh.com"),
            symlinks: has("posix-rename@openssh.com"),
            read: SAFE,
            write: SAFE,
        }
    }

    /// Takes in the answer to `limits@openssh.com`: longest packet, read, write, and the number of handles.
    pub fn limit(&mut self, answer: &[u8]) {
        let mut cursor = Cursor::new(answer);
        let (Ok(packet), Ok(read), Ok(write)) = (cursor.u64(), cursor.u64(), cursor.u64()) else { return };
        let most = LONGEST as u64 - u64::from(AROUND);
        let packet = if packet == 0 { u64::from(SAFE) } else { packet.saturating_sub(u64::from(AROUND)) };
        let limited = |own: u64| if own == 0 { packet } else { own.min(packet) }.clamp(u64::from(AROUND), most) as u32;
        (self.read, self.write) = (limited(read), limited(write));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_as_long_as_the_server_says_within_reason() {
        let limits = |packet: u64, read: u64, write: u64| {
            let mut server = Server::new(&[b"limits@openssh.com".to_vec()]);
            server.limit(&[packet.to_be_bytes(), read.to_be_bytes(), write.to_be_bytes(), [0; 8]].concat());
            (server.read, server.write)
        };
        assert_eq!(limits(262_144, 261_120, 261_120), (261_120, 261_120));
        assert_eq!(limits(34_000, 0, 8192), (32_976, 8192));
        assert_eq!(limits(0, 0, 0), (32 << 10, 32 << 10));
        assert_eq!(limits(u64::MAX, u64::MAX, 1), (261_120, 1024));
        let mut server = Server::new(&[]);
        server.limit(b"short");
        assert_eq!((server.read, server.posix_rename), (32 << 10, false));
    }
}
