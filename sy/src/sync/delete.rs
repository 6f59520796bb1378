//! Deletions: gathered while the run streams, judged all together, carried out last.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, PoisonError};

use super::apply::Work;
use super::context::Context;
use super::event::Level;
use crate::cli::both_names;
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::{Doomed, Kind, Time, split_key};

/// Notes beyond this many bytes go to a file without a name.
const IN_MEMORY: usize = 4 << 20;
/// Files removed in one job.
const JOB: usize = 256;

/// The list of what is to go, children before their directory.
#[derive(Debug, Default)]
pub struct Graveyard {
    memory: Vec<u8>,
    file: Option<BufWriter<File>>,
    count: u64,
}

const KINDS: [Kind; 7] = [Kind::File, Kind::Dir, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::CharDevice, Kind::BlockDevice];

impl Graveyard {
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Notes an entry; `restore` is the time that its directory shall have afterwards.
    pub fn push(&mut self, doomed: &Doomed, restore: Option<Time>) -> std::io::Result<()> {
        self.count += 1;
        let kind = KINDS.iter().position(|&kind| kind == doomed.kind).unwrap_or(0) as u8;
        let note = &mut self.memory;
        note.extend_from_slice(&(doomed.key.len() as u32).to_le_bytes());
        note.extend_from_slice(&doomed.key);
        note.extend_from_slice(&[kind, u8::from(restore.is_some())]);
        for number in [doomed.size, doomed.ino] {
            note.extend_from_slice(&number.to_le_bytes());
        }
        for time in [doomed.mtime, restore.unwrap_or_default()] {
            note.extend_from_slice(&time.seconds.to_le_bytes());
            note.extend_from_slice(&time.nanos.to_le_bytes());
        }
        let tag = doomed.tag.as_deref().unwrap_or_default();
        note.extend_from_slice(&(tag.len() as u32).to_le_bytes());
        note.extend_from_slice(tag);
        if note.len() > IN_MEMORY {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(BufWriter::new(crate::state::unnamed_file()?)),
            };
            file.write_all(&self.memory)?;
            self.memory.clear();
        }
        Ok(())
    }

    /// Goes through the list, in order, as often as needed.
    fn each(&mut self, mut visit: impl FnMut(Doomed, Option<Time>)) -> std::io::Result<()> {
        if let Some(file) = &mut self.file {
            file.flush()?;
            let mut reader = file.get_ref().try_clone()?;
            reader.seek(SeekFrom::Start(0))?;
            let mut reader = BufReader::new(reader);
            while let Some((doomed, restore)) = read_note(&mut reader)? {
                visit(doomed, restore);
            }
            // The writer shares its position with the reader.
            file.get_mut().seek(SeekFrom::End(0))?;
        }
        let mut rest = self.memory.as_slice();
        while let Some((doomed, restore)) = read_note(&mut rest)? {
            visit(doomed, restore);
        }
        Ok(())
    }
}

fn read_note(reader: &mut impl Read) -> std::io::Result<Option<(Doomed, Option<Time>)>> {
    let mut length = [0; 4];
    match reader.read_exact(&mut length) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut key = vec![0; u32::from_le_bytes(length) as usize];
    reader.read_exact(&mut key)?;
    let mut fixed = [0; 46];
    reader.read_exact(&mut fixed)?;
    let mut tag = vec![0; u32::from_le_bytes(fixed[42..].try_into().unwrap_or_default()) as usize];
    reader.read_exact(&mut tag)?;
    let tag = Some(tag.into_boxed_slice()).filter(|tag| !tag.is_empty());
    let number = |at: usize| u64::from_le_bytes(fixed[at..at + 8].try_into().unwrap_or_default());
    let time =
        |at: usize| Time { seconds: number(at) as i64, nanos: u32::from_le_bytes(fixed[at + 8..at + 12].try_into().unwrap_or_default()) };
    let kind = KINDS[usize::from(fixed[0]) % KINDS.len()];
    Ok(Some((Doomed { key, kind, size: number(2), ino: number(10), mtime: time(18), tag }, (fixed[1] == 1).then(|| time(30)))))
}

/// May this many deletions be made? Judged on all of them, before the first.
pub fn judge(cx: &Context<'_>, doomed: u64, dest_entries: u64) -> Result<()> {
    let options = cx.options;
    if options.force_delete || doomed == 0 {
        return Ok(());
    }
    let refuse = |limit: String| {
        Err(SyncError::new(
            ErrorKind::DeleteLimit,
            format!("{doomed} of {dest_entries} entries at the destination would be deleted; {limit}"),
        )
        .hint("nothing was deleted; force_delete (--force-delete) lifts the limits"))
    };
    if let Some(most) = options.max_delete
        && doomed > most
    {
        return refuse(format!("{} is {most}", both_names("max_delete")));
    }
    if u128::from(doomed) * 100 > u128::from(options.delete_threshold) * u128::from(dest_entries) {
        return refuse(format!("{} is {} %", both_names("delete_threshold"), options.delete_threshold));
    }
    Ok(())
}

/// The directory that an entry stands in. A name in an object store may begin or end with slashes, as in `a//b` and `a/`.
fn dir_of(key: &[u8]) -> &[u8] {
    match key.windows(2).position(|pair| pair == b"//") {
        _ if key.starts_with(b"/") => b"",
        Some(end) => &key[..end],
        None => split_key(key.strip_suffix(b"/").unwrap_or(key)).0,
    }
}

/// Carries the deletions out: files in parallel, then directories, then the times of what is left.
pub fn carry_out<'r>(work: &Work<'r>, cx: &'r Context<'r>, graveyard: &mut Graveyard) -> std::io::Result<()> {
    if cx.dry_run() {
        return graveyard.each(|doomed, _| cx.deleted(&doomed));
    }
    let Some(lane) = cx.lane else { return Ok(()) };
    cx.log(Level::Info, &format!("deleting {} entries", graveyard.len()));
    let remove = move |dir: &[u8], group: &[Doomed]| {
        lane.remove(dir, group, &mut |doomed, outcome| match outcome {
            Ok(()) => cx.deleted(doomed),
            Err(error) => cx.fail(error),
        });
    };
    let touched: Mutex<Vec<(Vec<u8>, Time)>> = Mutex::default();
    let note = |dir: &[u8], restore: Option<Time>| {
        if let Some(mtime) = restore {
            let mut touched = touched.lock().unwrap_or_else(PoisonError::into_inner);
            if touched.last().is_none_or(|(last, _)| last != dir) {
                touched.push((dir.to_vec(), mtime));
            }
        }
    };
    let mut group: Vec<Doomed> = Vec::new();
    let submit = |group: Vec<Doomed>| {
        if let Some(first) = group.first() {
            let dir = dir_of(&first.key).to_vec();
            work.pool.submit(Box::new(move || remove(&dir, &group)));
        }
    };
    graveyard.each(|doomed, restore| {
        let dir = dir_of(&doomed.key);
        note(dir, restore);
        if doomed.kind == Kind::Dir || cx.control.should_stop() {
            return;
        }
        if group.len() >= JOB || group.first().is_some_and(|first| dir_of(&first.key) != dir) {
            submit(std::mem::take(&mut group));
        }
        group.push(doomed);
    })?;
    submit(std::mem::take(&mut group));
    work.pool.drain();
    graveyard.each(|doomed, _| {
        if doomed.kind == Kind::Dir && !cx.control.should_stop() {
            remove(dir_of(&doomed.key), std::slice::from_ref(&doomed));
        }
    })?;
    for (key, mtime) in touched.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Err(error) = lane.touch_dir(key, *mtime) {
            cx.fail(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_odd_names() {
        for (key, dir) in [("a", ""), ("a/b", "a"), ("a/b/c", "a/b"), ("/a", ""), ("//", ""), ("a/", ""), ("a/b/", "a"), ("a//b", "a")] {
            assert_eq!(dir_of(key.as_bytes()), dir.as_bytes(), "{key}");
        }
    }

    #[test]
    fn the_list_is_kept_in_order_also_on_disk() {
        let mut graveyard = Graveyard::default();
        let doomed = |n: u64| Doomed {
            key: format!("dir/{n:0100}").into_bytes(),
            kind: KINDS[n as usize % 7],
            size: n,
            ino: n * 3,
            mtime: Time { seconds: -(n as i64), nanos: 7 },
            tag: n.is_multiple_of(3).then(|| format!("tag {n}").into_bytes().into()),
        };
        for n in 0..60_000 {
            graveyard
                .push(&doomed(n), (n % 2 == 0).then_some(Time { seconds: 5, nanos: n as u32 }))
                .expect("room in the temporary directory");
        }
        assert!(graveyard.file.is_some());
        for _ in 0..2 {
            let mut n = 0;
            graveyard
                .each(|found, restore| {
                    assert_eq!((found, restore), (doomed(n), (n % 2 == 0).then_some(Time { seconds: 5, nanos: n as u32 })));
                    n += 1;
                })
                .expect("readable");
            assert_eq!(n, 60_000);
        }
    }
}
