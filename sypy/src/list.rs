//! `ls` and `ls_iter`: what is at a location, as a list or one by one.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sy::list::{Audience, Entry, Want, list};
use sy::sync::{Control, Kind};
use sy::transport::cloud::content_type;
use sy::{SyncError, SyncPath};

use crate::credentials::{Ask, Functions, Question, Side};
use crate::error;
use crate::options::{KINDS, PySyncOptions};
use crate::path::location;
use crate::sync;
use crate::value::{self, Reduced};

/// How long a signal may wait.
const WAKE: Duration = Duration::from_millis(50);
/// Batches that wait for whoever iterates. The engine waits when they are full.
const QUEUE: usize = 4;

/// What is at a location: one file, directory or link.
///
/// Fields that a storage does not know are `None`. Entries are frozen values: `==`, `repr`, pickle.
///
/// >>> ListEntry("a/b.txt", 5, mod_time="2026-11-24T10:00:00Z")
/// ListEntry(path='a/b.txt', size=5, type='file')
#[pyclass(name = "ListEntry", module = "sypy", frozen, eq)]
#[derive(Debug, Clone, PartialEq)]
pub struct PyListEntry {
    /// The path relative to what was listed, without a slash at the end; a file that was listed itself has its name. Bytes that
    /// are not UTF-8 are surrogate escapes.
    #[pyo3(get)]
    path: OsString,
    /// Bytes of content.
    #[pyo3(get)]
    size: u64,
    /// When it was last changed, as text in UTC such as `"2026-11-24T10:00:00.123456789Z"`. Where a listing does not tell the
    /// file's own time (S3), it is when the object was put there. `None` for directories in object stores.
    #[pyo3(get)]
    mod_time: Option<String>,
    /// `"file"`, `"directory"`, `"symlink"`, `"fifo"`, `"socket"`, `"character device"` or `"block device"`. A listing of an
    /// object store does not tell links from files.
    #[pyo3(get)]
    entry_type: Cow<'static, str>,
    /// Where a symbolic link points; `None` for others.
    #[pyo3(get)]
    symlink_target: Option<OsString>,
    /// Bytes that the storage gives to it: less than `size` where a file has holes.
    #[pyo3(get)]
    allocated_size: Option<u64>,
    /// Number of the file in its file system.
    #[pyo3(get)]
    inode: Option<u64>,
    /// Names that the file has.
    #[pyo3(get)]
    num_links: Option<u32>,
}

impl PyListEntry {
    fn of(entry: Entry) -> Self {
        let (meta, local) = (entry.meta, !entry.meta.tagged);
        Self {
            mod_time: entry.time().map(sy::transport::Time::to_rfc3339),
            path: OsString::from_vec(entry.path),
            size: meta.size,
            entry_type: meta.kind.name().into(),
            symlink_target: entry.target.map(|target| OsString::from_vec(target.into_vec())),
            allocated_size: local.then_some(meta.allocated),
            inode: local.then_some(meta.ino),
            num_links: local.then_some(meta.nlink),
        }
    }

    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = PyDict::new(py);
        fields.set_item("path", &self.path)?;
        fields.set_item("size", self.size)?;
        fields.set_item("mod_time", &self.mod_time)?;
        fields.set_item("entry_type", &self.entry_type)?;
        fields.set_item("symlink_target", &self.symlink_target)?;
        fields.set_item("allocated_size", self.allocated_size)?;
        fields.set_item("inode", self.inode)?;
        fields.set_item("num_links", self.num_links)?;
        Ok(fields)
    }
}

#[pymethods]
impl PyListEntry {
    #[expect(clippy::too_many_arguments, reason = "one keyword a field")]
    #[new]
    #[pyo3(signature = (path, size = 0, *, mod_time = None, entry_type = "file", symlink_target = None, allocated_size = None, inode = None, num_links = None))]
    fn new(
        path: OsString,
        size: u64,
        mod_time: Option<String>,
        entry_type: &str,
        symlink_target: Option<OsString>,
        allocated_size: Option<u64>,
        inode: Option<u64>,
        num_links: Option<u32>,
    ) -> Self {
        Self { path, size, mod_time, entry_type: entry_type.to_owned().into(), symlink_target, allocated_size, inode, num_links }
    }

    /// Is it a directory?
    #[getter]
    fn is_dir(&self) -> bool {
        self.entry_type == Kind::Dir.name()
    }

    /// Has the file holes?
    #[getter]
    fn is_sparse(&self) -> bool {
        self.entry_type == Kind::File.name() && self.allocated_size.is_some_and(|allocated| allocated < self.size)
    }

    /// What the name's ending says of the content, such as `"text/plain"`; `None` if nothing.
    #[getter]
    fn mime_type(&self) -> Option<&'static str> {
        content_type(self.path.as_encoded_bytes()).filter(|_| self.entry_type == Kind::File.name())
    }

    /// All fields by name.
    ///
    /// >>> ListEntry("a", 5).to_dict()["size"]
    /// 5
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = self.fields(py)?;
        fields.set_item("is_dir", self.is_dir())?;
        fields.set_item("is_sparse", self.is_sparse())?;
        fields.set_item("mime_type", self.mime_type())?;
        Ok(fields)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let path = (&self.path).into_pyobject(py)?.repr()?;
        Ok(format!("ListEntry(path={path}, size={}, type='{}')", self.size, self.entry_type))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        value::reduce(slf.as_any(), slf.get().fields(slf.py())?)
    }
}

/// Whose credentials count: configs by the kind of storage, as `sync()` takes them.
fn side(py: Python<'_>, function: &str, configs: Option<&Bound<'_, PyDict>>) -> PyResult<(Side, Functions)> {
    let (mut options, mut functions) = (PySyncOptions::default(), Functions::default());
    for (name, config) in configs.into_iter().flatten() {
        let name: String = name.extract()?;
        if !KINDS.contains(&name.as_str()) {
            let own = ["recursive", "max_depth", "files_only", "dirs_only"];
            return Err(value::unknown_keyword(py, function, &name, &[&own[..], &KINDS].concat()));
        }
        options.assign(&name, &config)?;
    }
    let side = options.side(py, &mut functions, None);
    Ok((side, functions))
}

/// Lists what is at a location.
///
/// `path` is a local path or names an object store; a file lists itself. `recursive=True` lists also what is below, `max_depth`
/// levels deep (1 is the location alone; `None`, the default: all of it). `files_only=True` leaves directories out,
/// `dirs_only=True` all else. `s3`, `gcs`, `azure`, `ssh` and `opendal` are configs, as for `sync()`. Entries are in the order of their
/// bytes, a directory as if it had a slash at its end. Of an object store only what is asked for is listed, a level at a time.
/// Links are not followed, except one that is the location itself.
///
/// Returns a list of `ListEntry`; `ls_iter()` gives them one by one. Raises a `SyncError` for the first directory that can't be
/// listed, `NotFoundError` if nothing is there, `ConfigError` for wrong values.
///
/// >>> import pathlib, tempfile
/// >>> with tempfile.TemporaryDirectory() as folder:
/// ...     pathlib.Path(folder, "photos").mkdir()
/// ...     _ = pathlib.Path(folder, "photos/a.jpg").write_text("picture")
/// ...     entries = ls(folder, recursive=True)
/// >>> [(entry.path, entry.size) for entry in entries if not entry.is_dir]
/// [('photos/a.jpg', 7)]
#[pyfunction]
#[pyo3(signature = (path, recursive = false, max_depth = None, files_only = false, dirs_only = false, **configs))]
pub fn ls<'py>(
    py: Python<'py>,
    path: &Bound<'py, PyAny>,
    recursive: bool,
    max_depth: Option<u32>,
    files_only: bool,
    dirs_only: bool,
    configs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Vec<PyListEntry>> {
    let (path, want) = (location(path)?, Want { recursive, max_depth, files_only, dirs_only });
    let (side, functions) = side(py, "ls", configs)?;
    let control = Arc::new(Control::default());
    let mut audience = sync::Audience::default();
    audience.functions = functions;
    let finished = sync::drive(py, &control, audience, false, move |control, _, ask| {
        let mut gathered = Gathered { entries: Vec::new(), failed: None, control };
        let ended = list(&path, &want, &side.access(ask, control), control, &mut gathered);
        gathered.failed.map_or(ended, Err).map(|()| gathered.entries)
    })?;
    finished.value.map_err(|failure| error::raise(py, &failure))
}

/// Entries, until something can't be listed.
struct Gathered<'c> {
    entries: Vec<PyListEntry>,
    failed: Option<SyncError>,
    control: &'c Control,
}

impl Audience for Gathered<'_> {
    fn entries(&mut self, entries: Vec<Entry>) {
        self.entries.extend(entries.into_iter().map(PyListEntry::of));
    }

    fn failed(&mut self, error: SyncError) {
        self.failed.get_or_insert(error);
        self.control.cancel();
    }
}

/// Lists what is at a location, one entry after the other, in memory that does not grow with their number.
///
/// All is as in `ls()`, except that this returns an iterator, and that errors of the storage are raised by it. Its `close()` ends
/// the listing early, as dropping it does.
///
/// >>> import os
/// >>> any(entry.path == "__init__.py" for entry in ls_iter(os.path.dirname(__import__("json").__file__)))
/// True
#[pyfunction]
#[pyo3(signature = (path, recursive = false, max_depth = None, files_only = false, dirs_only = false, **configs))]
pub fn ls_iter<'py>(
    py: Python<'py>,
    path: &Bound<'py, PyAny>,
    recursive: bool,
    max_depth: Option<u32>,
    files_only: bool,
    dirs_only: bool,
    configs: Option<&Bound<'py, PyDict>>,
) -> PyResult<PyListIterator> {
    let (path, want) = (location(path)?, Want { recursive, max_depth, files_only, dirs_only });
    want.check().map_err(|failure| error::raise(py, &failure))?;
    let (side, functions) = side(py, "ls_iter", configs)?;
    PyListIterator::start(path, want, side, functions)
}

/// What the listing's thread hands over.
enum Parcel {
    Entries(Vec<Entry>),
    Ask(Question),
    End(Result<(), SyncError>),
}

struct Handover<'c> {
    sender: SyncSender<Parcel>,
    control: &'c Control,
    failed: bool,
}

impl Audience for Handover<'_> {
    fn entries(&mut self, entries: Vec<Entry>) {
        if self.sender.send(Parcel::Entries(entries)).is_err() {
            self.control.cancel();
        }
    }

    fn failed(&mut self, error: SyncError) {
        if !std::mem::replace(&mut self.failed, true) {
            self.sender.send(Parcel::End(Err(error))).ok();
        }
        self.control.cancel();
    }
}

/// The iterator that `ls_iter()` returns.
///
/// >>> entries = ls_iter(".")
/// >>> entries.close()
/// >>> list(entries)
/// []
#[pyclass(name = "ListIterator", module = "sypy")]
pub struct PyListIterator {
    control: Arc<Control>,
    functions: Functions,
    /// `None` when all is told.
    receiver: Option<Mutex<Receiver<Parcel>>>,
    batch: std::vec::IntoIter<Entry>,
    thread: Option<JoinHandle<()>>,
    process: u32,
}

impl PyListIterator {
    fn start(path: SyncPath, want: Want, side: Side, functions: Functions) -> PyResult<Self> {
        let control = Arc::new(Control::default());
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("sypy-ls".into()).spawn({
            let control = Arc::clone(&control);
            move || {
                let asked = sender.clone();
                let ask: Ask = Arc::new(move |question| drop(asked.send(Parcel::Ask(question))));
                let mut handover = Handover { sender: sender.clone(), control: &control, failed: false };
                let access = side.access(&ask, &control);
                // A panic shows as an end without a word.
                let ended = catch_unwind(AssertUnwindSafe(|| list(&path, &want, &access, &control, &mut handover)));
                if let (Ok(ended), false) = (ended, handover.failed) {
                    sender.send(Parcel::End(ended)).ok();
                }
            }
        });
        let thread = thread.map_err(|failure| PyRuntimeError::new_err(format!("cannot start a thread: {failure}")))?;
        let batch = Vec::new().into_iter();
        Ok(Self { control, functions, receiver: Some(Mutex::new(receiver)), batch, thread: Some(thread), process: std::process::id() })
    }

    fn stop(&mut self) {
        self.control.cancel();
        self.receiver = None;
        self.batch = Vec::new().into_iter();
    }

    /// The next batch, or the end.
    fn fetch(&mut self, py: Python<'_>) -> PyResult<bool> {
        if self.receiver.is_some() && self.process != std::process::id() {
            return Err(PyRuntimeError::new_err("an iterator of ls_iter() can't be used in a forked process"));
        }
        loop {
            let Some(receiver) = &mut self.receiver else { return Ok(false) };
            match py.detach(|| receiver.get_mut().unwrap_or_else(PoisonError::into_inner).recv_timeout(WAKE)) {
                Ok(Parcel::Entries(entries)) => {
                    self.batch = entries.into_iter();
                    return Ok(true);
                }
                Ok(Parcel::Ask(question)) => self.functions.answer(py, &question)?,
                Ok(Parcel::End(ended)) => {
                    self.end(py);
                    return ended.map(|()| false).map_err(|failure| error::raise(py, &failure));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(PyRuntimeError::new_err("the engine failed, which is a bug in sypy"));
                }
            }
            py.check_signals()?;
        }
    }

    fn end(&mut self, py: Python<'_>) {
        self.stop();
        if let Some(thread) = self.thread.take()
            && self.process == std::process::id()
        {
            py.detach(|| thread.join()).ok();
        }
    }
}

#[pymethods]
impl PyListIterator {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<PyListEntry>> {
        loop {
            if let Some(entry) = self.batch.next() {
                return Ok(Some(PyListEntry::of(entry)));
            }
            match self.fetch(py) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(failure) => {
                    self.end(py);
                    return Err(failure);
                }
            }
        }
    }

    /// Ends the listing, and waits until nothing of it runs any more.
    fn close(&mut self, py: Python<'_>) {
        self.end(py);
    }
}

impl Drop for PyListIterator {
    fn drop(&mut self) {
        self.control.cancel();
    }
}
