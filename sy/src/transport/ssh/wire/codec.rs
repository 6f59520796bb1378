//! Values as bytes. Whatever comes from the other side is hostile until it has been read by a `Get`.

use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::{Kind, Known, Meta, Time};

/// Bytes of a key or name, at most.
const LONGEST: usize = 1 << 20;

const KINDS: [Kind; 7] = [Kind::File, Kind::Dir, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::CharDevice, Kind::BlockDevice];

/// In the place of a kind: what is known of the metadata comes first.
const PARTLY: u8 = 7;

/// What the other side sent makes no sense: a fault of it, or an attack.
pub fn garbled(what: &str) -> SyncError {
    SyncError::new(ErrorKind::Network, format!("the other side of the connection sent nonsense: {what}"))
}

/// Writes values.
#[derive(Debug, Default, Clone)]
pub struct Put(pub Vec<u8>);

impl Put {
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    /// Seven bits a byte, the low ones first.
    pub fn u64(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8)
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.u64(value.into())
    }

    /// Small ones of both signs are short.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.u64((value << 1 ^ value >> 63) as u64)
    }

    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(value.into())
    }

    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u64(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub fn option(&mut self, value: Option<&[u8]>) -> &mut Self {
        match value {
            Some(value) => self.u8(1).bytes(value),
            None => self.u8(0),
        }
    }

    pub fn time(&mut self, value: Time) -> &mut Self {
        self.i64(value.seconds).u32(value.nanos)
    }

    /// `before` is the one that was written last, if any: most is as there.
    pub fn meta(&mut self, meta: &Meta, before: Option<&Meta>) -> &mut Self {
        // What comes from elsewhere than a file system may know less.
        if meta.known != Known::EVERYTHING || meta.tagged {
            let Known { all, mtime, mode, owner } = meta.known;
            self.u8(PARTLY).u8([all, mtime, mode, owner, meta.tagged].iter().fold(0, |bits, &set| bits << 1 | u8::from(set)));
        }
        let same = |of: fn(&Meta) -> u64| before.is_some_and(|before| of(before) == of(meta));
        let plain = meta.nlink == 1 && meta.rdev == 0 && !meta.mount;
        let (mode, owner, dev) = (same(|m| m.mode.into()), same(|m| u64::from(m.uid) << 32 | u64::from(m.gid)), same(|m| m.dev));
        let flags = [mode, owner, dev, plain, meta.ctime == meta.mtime].iter().rev().fold(0, |bits, &set| bits << 1 | u8::from(set));
        self.u8(flags << 3 | KINDS.iter().position(|&kind| kind == meta.kind).unwrap_or(0) as u8);
        self.u64(meta.size).time(meta.mtime);
        if meta.ctime != meta.mtime {
            self.i64(meta.ctime.seconds.wrapping_sub(meta.mtime.seconds)).u32(meta.ctime.nanos);
        }
        if !mode {
            self.u32(meta.mode);
        }
        if !owner {
            self.u32(meta.uid).u32(meta.gid);
        }
        if !dev {
            self.u64(meta.dev);
        }
        self.i64(meta.ino.wrapping_sub(before.map_or(0, |before| before.ino)) as i64);
        self.i64(meta.allocated.div_ceil(512).wrapping_sub(meta.size / 512) as i64);
        if !plain {
            self.u32(meta.nlink).u64(meta.rdev).bool(meta.mount);
        }
        self
    }

    pub fn error(&mut self, error: &SyncError) -> &mut Self {
        let kind = ERRORS.iter().position(|&kind| kind == error.kind).unwrap_or(ERRORS.len() - 1);
        self.u8(kind as u8).bytes(error.message.as_bytes()).option(error.path.as_deref()).bytes(error.action.as_bytes());
        self.u64(error.errno.and_then(|errno| u64::try_from(errno).ok()).map_or(0, |errno| errno + 1));
        self.option(error.hint.as_deref().map(str::as_bytes)).bool(error.retryable)
    }
}

/// Reads values. Every one is checked; none is trusted for how much memory to take.
#[derive(Debug)]
pub struct Get<'a>(pub &'a [u8]);

impl<'a> Get<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        if n > self.0.len() {
            return Err(garbled("a message ends too early"));
        }
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(taken)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn end(&self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(garbled("a message is too long")) }
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub fn hash(&mut self) -> Result<[u8; 32]> {
        self.take(32)?.try_into().map_err(|_| garbled("a message ends too early"))
    }

    pub fn u64(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(garbled("a number is too large"))
    }

    pub fn u32(&mut self) -> Result<u32> {
        u32::try_from(self.u64()?).map_err(|_| garbled("a number is too large"))
    }

    pub fn usize(&mut self) -> Result<usize> {
        usize::try_from(self.u64()?).map_err(|_| garbled("a number is too large"))
    }

    pub fn i64(&mut self) -> Result<i64> {
        let value = self.u64()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(garbled("neither yes nor no")),
        }
    }

    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let n = self.usize()?;
        self.take(n)
    }

    /// A name: one component of a path, and no way out of the directory it stands in.
    pub fn name(&mut self) -> Result<&'a [u8]> {
        let name = self.bytes()?;
        if matches!(name, b"" | b"." | b"..") || name.len() > LONGEST || name.contains(&b'/') || name.contains(&0) {
            return Err(garbled("a name that none can have"));
        }
        Ok(name)
    }

    /// The key of an entry below the root, or of the root itself.
    pub fn key(&mut self) -> Result<&'a [u8]> {
        let key = self.bytes()?;
        let fine = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
        if key.len() > LONGEST || !key.is_empty() && !key.split(|&b| b == b'/').all(fine) {
            return Err(garbled("a path that leads out of its root"));
        }
        Ok(key)
    }

    pub fn option(&mut self) -> Result<Option<&'a [u8]>> {
        if self.bool()? { self.bytes().map(Some) } else { Ok(None) }
    }

    /// Words for a user to read, which do nothing else to a terminal.
    pub fn text(&mut self) -> Result<String> {
        let text = String::from_utf8_lossy(self.bytes()?);
        Ok(text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect())
    }

    pub fn time(&mut self) -> Result<Time> {
        let (seconds, nanos) = (self.i64()?, self.u32()?);
        if nanos >= 1_000_000_000 {
            return Err(garbled("a time that no clock shows"));
        }
        Ok(Time { seconds, nanos })
    }

    pub fn meta(&mut self, before: Option<&Meta>) -> Result<Meta> {
        let mut head = self.u8()?;
        let (mut tagged, mut known_of) = (false, Known::EVERYTHING);
        if head == PARTLY {
            let bits = self.u8()?;
            let [all, mtime, mode, owner, tag] = [16, 8, 4, 2, 1].map(|bit| bits & bit != 0);
            (tagged, known_of) = (tag, Known { all, mtime, mode, owner });
            head = self.u8()?;
        }
        let kind = *KINDS.get(usize::from(head & 7)).ok_or_else(|| garbled("an unknown kind of file"))?;
        let flag = |n: u8| head >> (3 + n) & 1 == 1;
        let known = |same| match (same, before) {
            (true, Some(before)) => Ok(Some(before)),
            (true, None) => Err(garbled("metadata like those of nothing")),
            (false, _) => Ok(None),
        };
        let (size, mtime) = (self.u64()?, self.time()?);
        let ctime = if flag(4) {
            mtime
        } else {
            let (seconds, nanos) = (self.i64()?, self.u32()?);
            Time { seconds: mtime.seconds.wrapping_add(seconds), nanos: nanos.min(999_999_999) }
        };
        let mode = match known(flag(0))? {
            Some(before) => before.mode,
            None => self.u32()?,
        };
        if mode > 0o7777 {
            return Err(garbled("a mode that no file has"));
        }
        let (uid, gid) = match known(flag(1))? {
            Some(before) => (before.uid, before.gid),
            None => (self.u32()?, self.u32()?),
        };
        let dev = match known(flag(2))? {
            Some(before) => before.dev,
            None => self.u64()?,
        };
        let ino = before.map_or(0, |before| before.ino).wrapping_add(self.i64()? as u64);
        let allocated = (size / 512).wrapping_add(self.i64()? as u64).saturating_mul(512);
        let (nlink, rdev, mount) = if flag(3) { (1, 0, false) } else { (self.u32()?, self.u64()?, self.bool()?) };
        Ok(Meta { kind, size, mtime, ctime, mode, uid, gid, nlink, ino, dev, rdev, allocated, mount, tagged, known: known_of })
    }

    pub fn error(&mut self) -> Result<SyncError> {
        let kind = *ERRORS.get(usize::from(self.u8()?)).ok_or_else(|| garbled("an unknown error"))?;
        let (message, path, action) = (self.text()?, self.option()?.map(<[u8]>::to_vec), self.text()?);
        let errno = self.u64()?.checked_sub(1).and_then(|errno| i32::try_from(errno).ok());
        let hint = if self.bool()? { Some(self.text()?) } else { None };
        let action = ACTIONS.iter().find(|known| **known == action).copied().unwrap_or("work on");
        Ok(SyncError { kind, message, path, action, errno, hint, retryable: self.bool()? })
    }
}

const ERRORS: [ErrorKind; 17] = [
    ErrorKind::NotFound,
    ErrorKind::AlreadyExists,
    ErrorKind::PermissionDenied,
    ErrorKind::Authentication,
    ErrorKind::HostKey,
    ErrorKind::NoSpace,
    ErrorKind::Network,
    ErrorKind::Timeout,
    ErrorKind::Verification,
    ErrorKind::SourceChanged,
    ErrorKind::Conflict,
    ErrorKind::DeleteLimit,
    ErrorKind::Unsupported,
    ErrorKind::Config,
    ErrorKind::Locked,
    ErrorKind::Cancelled,
    ErrorKind::Io,
];

/// What the agent may have been doing, since an error's action is a word of this program.
const ACTIONS: [&str; 25] = [
    "",
    "read",
    "write",
    "create",
    "delete",
    "list",
    "link",
    "follow",
    "replace",
    "verify",
    "open",
    "open the source",
    "open the destination",
    "write to",
    "sync into",
    "sync",
    "keep backups in",
    "back up",
    "move to the trash",
    "make the backup folder",
    "remove the source",
    "set the metadata of",
    "set the time of",
    "read the attributes of",
    "read rules from",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::sample;
    use proptest::prelude::*;

    fn metas() -> impl Strategy<Value = Meta> {
        let numbers = (any::<u64>(), any::<i32>(), 0..1_000_000_000_u32, 0..0o10000_u32, any::<u32>(), any::<u32>());
        (numbers, 0..7_usize, any::<u64>(), any::<u64>(), any::<u32>(), any::<bool>(), 0..32_u8).prop_map(
            |((size, seconds, nanos, mode, uid, gid), kind, ino, dev, nlink, mount, bits)| Meta {
                kind: KINDS[kind],
                mode,
                uid,
                gid,
                ino,
                dev,
                nlink,
                mount,
                tagged: bits & 1 != 0,
                known: Known { all: bits & 2 != 0, mtime: bits & 4 != 0, mode: bits & 8 != 0, owner: bits & 16 != 0 },
                allocated: size / 1024 * 512,
                ctime: if mount { Time { seconds: seconds.into(), nanos } } else { Time { seconds: 5, nanos: 6 } },
                ..sample(size, Time { seconds: seconds.into(), nanos })
            },
        )
    }

    proptest! {
        #[test]
        fn numbers_come_back(a: u64, b: i64) {
            let mut put = Put::default();
            put.u64(a).i64(b);
            let mut get = Get(&put.0);
            prop_assert_eq!((get.u64().expect("written"), get.i64().expect("written")), (a, b));
            get.end().expect("no more");
        }

        #[test]
        fn metadata_come_back(all in prop::collection::vec(metas(), 1..8)) {
            let mut put = Put::default();
            let mut before = None;
            for meta in &all {
                put.meta(meta, before);
                before = Some(meta);
            }
            let mut get = Get(&put.0);
            let mut before = None;
            for meta in &all {
                let found = get.meta(before.as_ref()).expect("written");
                prop_assert_eq!(&found, meta);
                before = Some(found);
            }
            get.end().expect("no more");
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Get(&bytes).meta(None);
            let _ = Get(&bytes).error();
            let _ = Get(&bytes).bytes();
            if let Ok(key) = Get(&bytes).key() {
                prop_assert!(!key.split(|&b| b == b'/').any(|part| part == b".."));
            }
        }
    }

    #[test]
    fn errors_come_back() {
        let error = SyncError::os(rustix::io::Errno::NOSPC, "write", b"/a/\xff").hint("more room").retryable();
        let mut put = Put::default();
        put.error(&error);
        assert_eq!(Get(&put.0).error().expect("written"), error);
    }

    #[test]
    fn no_key_leads_out() {
        for key in ["..", "a/../b", "/a", "a/", "a//b", ".", "a/.", "a\0"] {
            let mut put = Put::default();
            put.bytes(key.as_bytes());
            assert!(Get(&put.0).key().is_err(), "{key:?}");
        }
    }
}
