//! The records of a spool: what a directory holds, as bytes, in memory or in a file without a name.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use super::attributes::Attributes;
use super::store::Object;
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::Time;

/// Blocks up to this many bytes together stay in memory.
const IN_MEMORY: usize = 4 << 20;

/// Where the children of a directory are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    pub at: u64,
    pub length: u64,
    pub entries: u64,
}

#[derive(Debug, Default)]
pub struct Blocks {
    memory: Vec<u8>,
    pub file: Option<File>,
    /// Bytes in the file.
    written: u64,
}

impl Blocks {
    pub fn push(&mut self, block: &[u8]) -> std::io::Result<u64> {
        let at = self.written + self.memory.len() as u64;
        self.memory.extend_from_slice(block);
        if self.memory.len() > IN_MEMORY {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(crate::state::unnamed_file()?),
            };
            file.write_all(&self.memory)?;
            self.written += self.memory.len() as u64;
            self.memory.clear();
        }
        Ok(at)
    }

    pub fn read(&self, block: Block) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; block.length as usize];
        match &self.file {
            Some(file) if block.at < self.written => file.read_exact_at(&mut bytes, block.at)?,
            _ => bytes.copy_from_slice(&self.memory[(block.at - self.written) as usize..][..block.length as usize]),
        }
        Ok(bytes)
    }
}

/// What stands in a block. Numbers are little-endian; texts have their length before them.
pub enum Entry<'b> {
    Dir { name: &'b [u8], block: Block, marker: bool },
    Object { name: &'b [u8], object: Object },
}

pub fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text);
}

/// A text's length is written in two bytes.
pub fn fits_a_block(object: &Object) -> Result<()> {
    if object.key.len().max(object.tag.len()) > usize::from(u16::MAX) {
        return Err(SyncError::new(ErrorKind::Io, "the service listed a key or a tag that is longer than any can be"));
    }
    Ok(())
}

pub fn write_dir(out: &mut Vec<u8>, name: &[u8], block: Block, marker: bool) {
    out.push(b'd');
    write_text(out, name);
    for number in [block.at, block.length, block.entries] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.push(u8::from(marker));
}

pub fn write_object(out: &mut Vec<u8>, name: &[u8], object: &Object) {
    out.push(b'o');
    write_text(out, name);
    out.extend_from_slice(&object.size.to_le_bytes());
    write_time(out, object.modified);
    write_text(out, object.tag.as_bytes());
    let Some(attributes) = &object.attributes else { return out.push(0) };
    out.push(1);
    let bits = u8::from(attributes.mtime.is_some())
        | u8::from(attributes.mode.is_some()) << 1
        | u8::from(attributes.uid.is_some()) << 2
        | u8::from(attributes.gid.is_some()) << 3;
    out.push(bits);
    if let Some(time) = attributes.mtime {
        write_time(out, time);
    }
    for number in [attributes.mode, attributes.uid, attributes.gid].into_iter().flatten() {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

pub fn write_time(out: &mut Vec<u8>, time: Time) {
    out.extend_from_slice(&time.seconds.to_le_bytes());
    out.extend_from_slice(&time.nanos.to_le_bytes());
}

/// Reads back what the functions above wrote.
pub struct Reader<'b>(pub &'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn text(&mut self) -> Option<&'b [u8]> {
        let length = u16::from_le_bytes(self.array()?);
        self.take(usize::from(length))
    }

    fn time(&mut self) -> Option<Time> {
        Some(Time { seconds: i64::from_le_bytes(self.array()?), nanos: u32::from_le_bytes(self.array()?) })
    }

    pub fn entry(&mut self) -> Option<Entry<'b>> {
        let kind = self.array::<1>()?[0];
        let name = self.text()?;
        if kind == b'd' {
            let mut number = || Some(u64::from_le_bytes(self.array()?));
            let block = Block { at: number()?, length: number()?, entries: number()? };
            return Some(Entry::Dir { name, block, marker: self.array::<1>()?[0] == 1 });
        }
        let size = u64::from_le_bytes(self.array()?);
        let modified = self.time()?;
        let tag = String::from_utf8_lossy(self.text()?).into_owned();
        let attributes = match self.array::<1>()?[0] {
            0 => None,
            _ => {
                let bits = self.array::<1>()?[0];
                let mtime = if bits & 1 == 0 { None } else { Some(self.time()?) };
                let mut number = |bit: u8| if bits & bit == 0 { Some(None) } else { Some(Some(u32::from_le_bytes(self.array()?))) };
                Some(Attributes { mtime, mode: number(2)?, uid: number(4)?, gid: number(8)?, ..Attributes::default() })
            }
        };
        Some(Entry::Object { name, object: Object { key: Vec::new(), size, modified, tag, attributes } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn attributes_come_back(mtime: Option<(i64, u32)>, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>) {
            let attributes = Attributes { mtime: mtime.map(|(seconds, nanos)| Time { seconds, nanos }), mode, uid, gid, ..Attributes::default() };
            let mut block = Vec::new();
            let object = Object { attributes: Some(attributes), key: Vec::new(), size: 7, modified: Time::default(), tag: "tag".into() };
            write_object(&mut block, b"x", &object);
            let Some(Entry::Object { name: b"x", object: read }) = Reader(&block).entry() else { panic!("an object") };
            proptest::prop_assert_eq!(read, object);
        }
    }
}
