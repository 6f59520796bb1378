//! SFTP version 3, packet by packet. Whatever the other side sends is read within its bounds or refused.

use crate::transport::Kind;

/// Bytes after the length of a packet, at most, as in OpenSSH.
pub const LONGEST: usize = 256 << 10;

pub const INIT: u8 = 1;
pub const VERSION: u8 = 2;
pub const OPEN: u8 = 3;
pub const CLOSE: u8 = 4;
pub const READ: u8 = 5;
pub const WRITE: u8 = 6;
pub const LSTAT: u8 = 7;
pub const FSTAT: u8 = 8;
pub const SETSTAT: u8 = 9;
pub const FSETSTAT: u8 = 10;
pub const OPENDIR: u8 = 11;
pub const READDIR: u8 = 12;
pub const REMOVE: u8 = 13;
pub const MKDIR: u8 = 14;
pub const RMDIR: u8 = 15;
pub const REALPATH: u8 = 16;
pub const STAT: u8 = 17;
pub const RENAME: u8 = 18;
pub const READLINK: u8 = 19;
pub const SYMLINK: u8 = 20;
pub const STATUS: u8 = 101;
pub const HANDLE: u8 = 102;
pub const DATA: u8 = 103;
pub const NAME: u8 = 104;
pub const ATTRS: u8 = 105;
pub const EXTENDED: u8 = 200;
pub const EXTENDED_REPLY: u8 = 201;

/// Flags of `OPEN`.
pub mod open {
    pub const READ: u32 = 1;
    pub const WRITE: u32 = 2;
    pub const CREATE: u32 = 8;
    pub const EXCLUSIVE: u32 = 32;
}

/// Codes of `STATUS`.
pub mod code {
    pub const OK: u32 = 0;
    pub const EOF: u32 = 1;
    pub const NO_SUCH_FILE: u32 = 2;
    pub const PERMISSION_DENIED: u32 = 3;
    pub const FAILURE: u32 = 4;
    pub const BAD_MESSAGE: u32 = 5;
    pub const NO_CONNECTION: u32 = 6;
    pub const CONNECTION_LOST: u32 = 7;
    pub const UNSUPPORTED: u32 = 8;
}

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED_ATTRS: u32 = 0x8000_0000;

/// What a server says of a file, or is told to set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attrs {
    pub size: Option<u64>,
    pub owner: Option<(u32, u32)>,
    /// With the kind in the upper bits, where a server tells it.
    pub mode: Option<u32>,
    /// Access and modification, in seconds since 1970.
    pub times: Option<(u32, u32)>,
}

impl Attrs {
    pub fn mode(mode: u32) -> Self {
        Self { mode: Some(mode), ..Self::default() }
    }

    pub fn kind(&self) -> Option<Kind> {
        Some(match self.mode? & 0o170_000 {
            0o100_000 => Kind::File,
            0o040_000 => Kind::Dir,
            0o120_000 => Kind::Symlink,
            0o010_000 => Kind::Fifo,
            0o140_000 => Kind::Socket,
            0o020_000 => Kind::CharDevice,
            0o060_000 => Kind::BlockDevice,
            _ => return None,
        })
    }
}

/// A request on its way. Its id is put in when it is sent.
#[derive(Debug, Clone)]
pub struct Request(Vec<u8>);

impl Request {
    pub fn new(kind: u8) -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(&[0, 0, 0, 0, kind, 0, 0, 0, 0]);
        Self(bytes)
    }

    pub fn path(kind: u8, path: &[u8]) -> Self {
        Self::new(kind).text(path)
    }

    pub fn extended(name: &str) -> Self {
        Self::new(EXTENDED).text(name.as_bytes())
    }

    #[must_use]
    pub fn u32(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    #[must_use]
    pub fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Text and bytes go alike: length, then content.
    #[must_use]
    pub fn text(self, text: &[u8]) -> Self {
        let mut with = self.u32(text.len() as u32);
        with.0.extend_from_slice(text);
        with
    }

    #[must_use]
    pub fn attrs(self, attrs: &Attrs) -> Self {
        let flags = [(attrs.size.is_some(), SIZE), (attrs.owner.is_some(), OWNER), (attrs.mode.is_some(), PERMISSIONS)];
        let flags = flags.into_iter().chain([(attrs.times.is_some(), TIMES)]).filter(|(set, _)| *set).map(|(_, flag)| flag).sum();
        let mut with = self.u32(flags);
        if let Some(size) = attrs.size {
            with = with.u64(size);
        }
        for number in [attrs.owner.map(|(user, group)| [Some(user), Some(group)]), attrs.mode.map(|mode| [Some(mode), None])]
            .into_iter()
            .chain([attrs.times.map(|(access, change)| [Some(access), Some(change)])])
            .flatten()
            .flatten()
            .flatten()
        {
            with = with.u32(number);
        }
        with
    }

    /// `WRITE`, whose content is read into the packet itself. `None` if there is none.
    pub fn write<E>(handle: &[u8], at: u64, most: usize, fill: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<Option<Self>, E> {
        let head = Self::new(WRITE).text(handle).u64(at).u32(0);
        let start = head.0.len();
        let mut bytes = Vec::with_capacity(start + most);
        bytes.extend_from_slice(&head.0);
        bytes.resize(start + most, 0);
        let filled = fill(&mut bytes[start..])?;
        bytes.truncate(start + filled);
        bytes[start - 4..start].copy_from_slice(&(filled as u32).to_be_bytes());
        Ok((filled > 0).then_some(Self(bytes)))
    }

    /// The content of a `WRITE` to `handle`.
    pub fn content(&self, handle: &[u8]) -> &[u8] {
        self.0.get(25 + handle.len()..).unwrap_or_default()
    }

    /// The whole packet.
    pub fn sealed(&mut self, id: u32) -> &[u8] {
        let length = (self.0.len() - 4) as u32;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0[5..9].copy_from_slice(&id.to_be_bytes());
        &self.0
    }
}

/// `INIT` has a version where others have their id.
pub fn init() -> Vec<u8> {
    Request::new(INIT).sealed(3).to_vec()
}

/// What the other side sent can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Takes a packet apart.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'p>(&'p [u8]);

impl<'p> Cursor<'p> {
    pub fn new(packet: &'p [u8]) -> Self {
        Self(packet)
    }

    fn take(&mut self, length: usize) -> Result<&'p [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.take(4)?.try_into().map(u32::from_be_bytes).map_err(|_| Malformed)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.take(8)?.try_into().map(u64::from_be_bytes).map_err(|_| Malformed)
    }

    pub fn text(&mut self) -> Result<&'p [u8], Malformed> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn attrs(&mut self) -> Result<Attrs, Malformed> {
        let flags = self.u32()?;
        let has = |flag| flags & flag != 0;
        let attrs = Attrs {
            size: if has(SIZE) { Some(self.u64()?) } else { None },
            owner: if has(OWNER) { Some((self.u32()?, self.u32()?)) } else { None },
            mode: if has(PERMISSIONS) { Some(self.u32()?) } else { None },
            times: if has(TIMES) { Some((self.u32()?, self.u32()?)) } else { None },
        };
        if has(EXTENDED_ATTRS) {
            // Each takes eight bytes at least, so a false count ends at the end of the packet.
            for _ in 0..self.u32()? {
                self.text()?;
                self.text()?;
            }
        }
        Ok(attrs)
    }
}

/// A name in a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'p> {
    pub name: &'p [u8],
    /// The line of `ls -l`, as far as a server sends such.
    pub line: &'p [u8],
    pub attrs: Attrs,
}

impl Name<'_> {
    /// How many names the file has: attributes don't tell, the line does.
    pub fn links(&self) -> u32 {
        let mut words = self.line.split(|&b| b == b' ').filter(|word| !word.is_empty());
        let is_mode = words.next().is_some_and(|mode| mode.len() >= 10 && mode[1..].iter().all(|b| b"rwxsStT-+.@".contains(b)));
        let count = words.next().and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
        count.filter(|&count| is_mode && count > 0).unwrap_or(1)
    }
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'p> {
    Status(u32),
    Handle(&'p [u8]),
    Data(&'p [u8]),
    Names(Vec<Name<'p>>),
    Attrs(Attrs),
    Extended(&'p [u8]),
}

/// The id of an answer, which every kind of packet but `VERSION` has.
pub fn id_of(packet: &[u8]) -> Result<u32, Malformed> {
    let mut cursor = Cursor::new(packet);
    cursor.u8()?;
    cursor.u32()
}

/// `packet` is what follows its length.
pub fn reply(packet: &[u8]) -> Result<Reply<'_>, Malformed> {
    let mut cursor = Cursor::new(packet);
    let kind = cursor.u8()?;
    cursor.u32()?;
    Ok(match kind {
        STATUS => Reply::Status(cursor.u32()?),
        HANDLE => match cursor.text()? {
            handle if handle.len() <= 256 => Reply::Handle(handle),
            _ => return Err(Malformed),
        },
        DATA => Reply::Data(cursor.text()?),
        NAME => {
            let count = cursor.u32()?;
            // Twelve bytes at least for each.
            let mut names = Vec::with_capacity((count as usize).min(packet.len() / 12));
            for _ in 0..count {
                names.push(Name { name: cursor.text()?, line: cursor.text()?, attrs: cursor.attrs()? });
            }
            Reply::Names(names)
        }
        ATTRS => Reply::Attrs(cursor.attrs()?),
        EXTENDED_REPLY => Reply::Extended(cursor.0),
        _ => return Err(Malformed),
    })
}

/// The names of a server's extensions. `packet` is what follows the length of `VERSION`.
pub fn version(packet: &[u8]) -> Result<(u32, Vec<Vec<u8>>), Malformed> {
    let mut cursor = Cursor::new(packet);
    if cursor.u8()? != VERSION {
        return Err(Malformed);
    }
    let version = cursor.u32()?;
    let mut extensions = Vec::new();
    while !cursor.is_empty() {
        extensions.push(cursor.text()?.to_vec());
        cursor.text()?;
    }
    Ok((version, extensions))
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
