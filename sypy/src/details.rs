//! What a run does, item by item: events while it is under way, and the details of a dry run.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use sy::sync::{Action, ActionEvent, Kind, Reason};

use crate::value::{self, Reduced};

type Word = Cow<'static, str>;

/// What is done about one entry: `Create`, `Update`, `Delete` or `Skip`.
///
/// Each is equal to its name in small letters, and prints as that.
///
/// >>> str(ChangeAction.Create), ChangeAction.Create == "create"
/// ('create', True)
#[pyclass(name = "ChangeAction", module = "sypy", frozen)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PyChangeAction {
    Create,
    Update,
    Delete,
    Skip,
}

impl PyChangeAction {
    fn of(action: Action) -> Self {
        match action {
            Action::Create => Self::Create,
            Action::Update | Action::Metadata => Self::Update,
            Action::Delete => Self::Delete,
            Action::Skip => Self::Skip,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Skip => "skip",
        }
    }

    fn variant(self) -> &'static str {
        match self {
            Self::Create => "Create",
            Self::Update => "Update",
            Self::Delete => "Delete",
            Self::Skip => "Skip",
        }
    }

    /// From an action or its name in small letters.
    fn from_py(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(action) = object.cast::<Self>() {
            return Ok(*action.get());
        }
        let all = [Self::Create, Self::Update, Self::Delete, Self::Skip];
        let word = object.cast::<PyString>()?.to_str()?;
        all.into_iter()
            .find(|action| action.word() == word)
            .ok_or_else(|| PyValueError::new_err(format!("an action is \"create\", \"update\", \"delete\" or \"skip\", not {word:?}")))
    }
}

#[pymethods]
impl PyChangeAction {
    fn __str__(&self) -> &'static str {
        self.word()
    }

    fn __repr__(&self) -> String {
        format!("ChangeAction.{}", self.variant())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        match other.cast::<Self>() {
            Ok(other) => self == other.get(),
            Err(_) => other.cast::<PyString>().is_ok_and(|other| other == self.word()),
        }
    }

    /// Equal to that of the name, since the two are equal.
    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        PyString::new(py, self.word()).hash()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let getattr = slf.py().import("builtins")?.getattr("getattr")?;
        (getattr, (slf.as_any().get_type(), slf.get().variant())).into_pyobject(slf.py())
    }
}

/// One entry of a dry run's plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    path: OsString,
    kind: Class,
    action: PyChangeAction,
    reason: Word,
    size: u64,
    target: Option<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    File,
    Directory,
    Symlink,
}

impl Change {
    /// `None` for what a plan does not list: entries that are as they should be, since there may be millions.
    pub fn of(event: ActionEvent) -> Option<Self> {
        if event.action == Action::Skip && event.reason == Reason::Unchanged {
            return None;
        }
        Some(Self {
            path: OsString::from_vec(event.key),
            kind: match event.kind {
                Kind::Dir => Class::Directory,
                Kind::Symlink => Class::Symlink,
                Kind::File | Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => Class::File,
            },
            action: PyChangeAction::of(event.action),
            reason: match event.action {
                Action::Metadata => Reason::Metadata.name(),
                _ => event.reason.name(),
            }
            .into(),
            size: event.bytes,
            target: event.target.map(OsString::from_vec),
        })
    }

    /// Content bytes that would be transferred.
    fn transfer_bytes(&self) -> u64 {
        let transfers = matches!(self.action, PyChangeAction::Create | PyChangeAction::Update);
        if transfers && self.kind == Class::File && self.reason != Reason::Metadata.name() { self.size } else { 0 }
    }

    fn skip_reason(&self) -> Option<&str> {
        (self.action == PyChangeAction::Skip).then_some(&self.reason)
    }

    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("path", &self.path)?;
        dict.set_item("action", self.action.word())?;
        match self.kind {
            Class::File => {
                dict.set_item("size", self.size)?;
                dict.set_item("transfer_bytes", self.transfer_bytes())?;
                dict.set_item("would_use_delta", false)?;
                dict.set_item("would_compress", false)?;
                dict.set_item("skip_reason", self.skip_reason())?;
            }
            Class::Directory => {}
            Class::Symlink => dict.set_item("target", &self.target)?,
        }
        dict.set_item("reason", &*self.reason)?;
        Ok(dict)
    }

    fn to_py(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let change = self.clone();
        Ok(match self.kind {
            Class::File => Py::new(py, PyFileChange(change))?.into_any(),
            Class::Directory => Py::new(py, PyDirectoryChange(change))?.into_any(),
            Class::Symlink => Py::new(py, PySymlinkChange(change))?.into_any(),
        })
    }

    fn from_py(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(change) = object.cast::<PyFileChange>() {
            return Ok(change.get().0.clone());
        }
        if let Ok(change) = object.cast::<PyDirectoryChange>() {
            return Ok(change.get().0.clone());
        }
        Ok(object.cast::<PySymlinkChange>()?.get().0.clone())
    }
}

/// What a run would do about a file, a device or a FIFO. `path` is relative to the destination.
#[pyclass(name = "FileChange", module = "sypy", frozen, eq)]
#[derive(PartialEq)]
pub struct PyFileChange(Change);

#[pymethods]
impl PyFileChange {
    #[new]
    #[pyo3(signature = (path, action, size=0, *, reason=""))]
    fn new(path: OsString, action: &Bound<'_, PyAny>, size: u64, reason: &str) -> PyResult<Self> {
        let action = PyChangeAction::from_py(action)?;
        Ok(Self(Change { path, kind: Class::File, action, reason: reason.to_owned().into(), size, target: None }))
    }

    /// Relative to the destination.
    #[getter]
    fn path(&self) -> &OsString {
        &self.0.path
    }

    /// A `ChangeAction`, which is equal to `"create"`, `"update"`, `"delete"` or `"skip"`.
    #[getter]
    fn action(&self) -> PyChangeAction {
        self.0.action
    }

    /// Why, such as `"new"` or `"size differs"`.
    #[getter]
    fn reason(&self) -> &str {
        &self.0.reason
    }

    /// Bytes of the file.
    #[getter]
    fn size(&self) -> u64 {
        self.0.size
    }

    /// Bytes to transfer, 0 where only metadata differ or nothing is written.
    #[getter]
    fn transfer_bytes(&self) -> u64 {
        self.0.transfer_bytes()
    }

    /// Would only differences travel? Never within one machine.
    #[getter]
    fn would_use_delta(&self) -> bool {
        false
    }

    /// Would it be compressed on the wire? Never within one machine.
    #[getter]
    fn would_compress(&self) -> bool {
        false
    }

    /// Why it is left alone, or `None` if it is not.
    #[getter]
    fn skip_reason(&self) -> Option<&str> {
        self.0.skip_reason()
    }

    /// All of it by name.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.0.to_dict(py)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let path = slf.getattr("path")?.repr()?;
        let change = &slf.get().0;
        Ok(format!("FileChange({path}, '{}', size={}, reason='{}')", change.action.word(), change.size, change.reason))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let (change, fields) = (&slf.get().0, PyDict::new(slf.py()));
        fields.set_item("path", &change.path)?;
        fields.set_item("action", change.action.word())?;
        fields.set_item("size", change.size)?;
        fields.set_item("reason", &*change.reason)?;
        value::reduce(slf.as_any(), fields)
    }
}

/// What a run would do about a directory. `path` is relative to the destination.
#[pyclass(name = "DirectoryChange", module = "sypy", frozen, eq)]
#[derive(PartialEq)]
pub struct PyDirectoryChange(Change);

#[pymethods]
impl PyDirectoryChange {
    #[new]
    #[pyo3(signature = (path, action, *, reason=""))]
    fn new(path: OsString, action: &Bound<'_, PyAny>, reason: &str) -> PyResult<Self> {
        let action = PyChangeAction::from_py(action)?;
        Ok(Self(Change { path, kind: Class::Directory, action, reason: reason.to_owned().into(), size: 0, target: None }))
    }

    /// Relative to the destination.
    #[getter]
    fn path(&self) -> &OsString {
        &self.0.path
    }

    /// A `ChangeAction`, which is equal to `"create"`, `"update"`, `"delete"` or `"skip"`.
    #[getter]
    fn action(&self) -> PyChangeAction {
        self.0.action
    }

    /// Why, such as `"new"` or `"not in source"`.
    #[getter]
    fn reason(&self) -> &str {
        &self.0.reason
    }

    /// All of it by name.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.0.to_dict(py)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let path = slf.getattr("path")?.repr()?;
        let change = &slf.get().0;
        Ok(format!("DirectoryChange({path}, '{}', reason='{}')", change.action.word(), change.reason))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let (change, fields) = (&slf.get().0, PyDict::new(slf.py()));
        fields.set_item("path", &change.path)?;
        fields.set_item("action", change.action.word())?;
        fields.set_item("reason", &*change.reason)?;
        value::reduce(slf.as_any(), fields)
    }
}

/// What a run would do about a symbolic link. `path` is relative to the destination.
#[pyclass(name = "SymlinkChange", module = "sypy", frozen, eq)]
#[derive(PartialEq)]
pub struct PySymlinkChange(Change);

#[pymethods]
impl PySymlinkChange {
    #[new]
    #[pyo3(signature = (path, action, target=None, *, reason=""))]
    fn new(path: OsString, action: &Bound<'_, PyAny>, target: Option<OsString>, reason: &str) -> PyResult<Self> {
        let action = PyChangeAction::from_py(action)?;
        Ok(Self(Change { path, kind: Class::Symlink, action, reason: reason.to_owned().into(), size: 0, target }))
    }

    /// Relative to the destination.
    #[getter]
    fn path(&self) -> &OsString {
        &self.0.path
    }

    /// A `ChangeAction`, which is equal to `"create"`, `"update"`, `"delete"` or `"skip"`.
    #[getter]
    fn action(&self) -> PyChangeAction {
        self.0.action
    }

    /// Why, such as `"new"` or `"target differs"`.
    #[getter]
    fn reason(&self) -> &str {
        &self.0.reason
    }

    /// What the link points to, or `None` if that was not read.
    #[getter]
    fn target(&self) -> Option<&OsString> {
        self.0.target.as_ref()
    }

    /// All of it by name.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.0.to_dict(py)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let (path, target) = (slf.getattr("path")?.repr()?, slf.getattr("target")?.repr()?);
        let change = &slf.get().0;
        Ok(format!("SymlinkChange({path}, '{}', {target}, reason='{}')", change.action.word(), change.reason))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let (change, fields) = (&slf.get().0, PyDict::new(slf.py()));
        fields.set_item("path", &change.path)?;
        fields.set_item("action", change.action.word())?;
        fields.set_item("target", &change.target)?;
        fields.set_item("reason", &*change.reason)?;
        value::reduce(slf.as_any(), fields)
    }
}

/// What a dry run would have done, item by item, in the order of the run.
///
/// Entries that are as they should be are not listed; `SyncStats.files_skipped` counts them. Memory grows with the number of
/// changes. `stats.dry_run_details` is one after a run with `dry_run=True`.
///
/// >>> details = DryRunDetails([FileChange("a", "create", 5), DirectoryChange("d", "create")])
/// >>> [change.path for change in details.file_changes], details.total_changes
/// (['a'], 2)
#[pyclass(name = "DryRunDetails", module = "sypy", frozen, eq)]
#[derive(PartialEq, Default)]
pub struct PyDryRunDetails {
    pub changes: Vec<Change>,
    pub bwlimit: Option<u64>,
}

impl PyDryRunDetails {
    fn list(&self, py: Python<'_>, wanted: impl Fn(&Change) -> bool) -> PyResult<Vec<Py<PyAny>>> {
        self.changes.iter().filter(|change| wanted(change)).map(|change| change.to_py(py)).collect()
    }

    /// How many items an action is for; directories are items too.
    pub fn count(&self, action: PyChangeAction) -> usize {
        self.changes.iter().filter(|change| change.action == action).count()
    }
}

#[pymethods]
impl PyDryRunDetails {
    #[new]
    #[pyo3(signature = (changes=None, *, bwlimit=None))]
    fn new(changes: Option<&Bound<'_, PyAny>>, bwlimit: Option<u64>) -> PyResult<Self> {
        let changes = match changes {
            Some(changes) => changes.try_iter()?.map(|change| Change::from_py(&change?)).collect::<PyResult<_>>()?,
            None => Vec::new(),
        };
        Ok(Self { changes, bwlimit })
    }

    /// Files, devices and FIFOs, as a list of `FileChange`.
    #[getter]
    fn file_changes(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        self.list(py, |change| change.kind == Class::File)
    }

    /// Directories, as a list of `DirectoryChange`.
    #[getter]
    fn directory_changes(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        self.list(py, |change| change.kind == Class::Directory)
    }

    /// Symbolic links, as a list of `SymlinkChange`.
    #[getter]
    fn symlink_changes(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        self.list(py, |change| change.kind == Class::Symlink)
    }

    /// Paths that an option about size, age or kind leaves out.
    #[getter]
    fn filtered_files(&self) -> Vec<&OsString> {
        let left_out = [Reason::SizeLimit, Reason::AgeLimit, Reason::NotPreserved].map(Reason::name);
        let filtered = self.changes.iter().filter(|change| change.skip_reason().is_some_and(|reason| left_out.contains(&reason)));
        filtered.map(|change| &change.path).collect()
    }

    /// Number of items that would change.
    #[getter]
    fn total_changes(&self) -> usize {
        self.changes.len() - self.count(PyChangeAction::Skip)
    }

    /// Bytes that would cross a network: 0 within one machine.
    #[getter]
    fn estimated_network_bytes(&self) -> u64 {
        0
    }

    /// Seconds that the transfer takes at least, which `bwlimit` says; 0.0 without a limit.
    #[getter]
    fn estimated_duration_secs(&self) -> f64 {
        let bytes: u64 = self.changes.iter().map(Change::transfer_bytes).sum();
        self.bwlimit.map_or(0.0, |limit| bytes as f64 / limit.max(1) as f64)
    }

    /// The `FileChange`s with this action: a `ChangeAction` or its name.
    ///
    /// >>> DryRunDetails([FileChange("a", "create", 5)]).files_by_action("create")
    /// [FileChange('a', 'create', size=5, reason='')]
    fn files_by_action(&self, py: Python<'_>, action: &Bound<'_, PyAny>) -> PyResult<Vec<Py<PyAny>>> {
        let action = PyChangeAction::from_py(action)?;
        self.list(py, |change| change.kind == Class::File && change.action == action)
    }

    /// Everything as a list of dicts; `"type"` is `"file"`, `"directory"` or `"symlink"`.
    fn all_changes<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let with_type = self.changes.iter().map(|change| {
            let dict = change.to_dict(py)?;
            dict.set_item(
                "type",
                match change.kind {
                    Class::File => "file",
                    Class::Directory => "directory",
                    Class::Symlink => "symlink",
                },
            )?;
            Ok(dict)
        });
        with_type.collect()
    }

    fn __repr__(&self) -> String {
        let count = |kind| self.changes.iter().filter(|change| change.kind == kind).count();
        let (files, dirs, links) = (count(Class::File), count(Class::Directory), count(Class::Symlink));
        format!("DryRunDetails({files} files, {dirs} directories, {links} symlinks)")
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let (this, fields) = (slf.get(), PyDict::new(slf.py()));
        fields.set_item("changes", this.list(slf.py(), |_| true)?)?;
        fields.set_item("bwlimit", this.bwlimit)?;
        value::reduce(slf.as_any(), fields)
    }
}

/// One thing that a run did, or in a dry run would do. `on_event` gets one for each entry, and a `SyncError` for each failed item.
///
/// >>> event = ActionEvent("a/b", "update", kind="file", reason="size differs", size=9, old_size=5)
/// >>> event.action, event.size - event.old_size
/// ('update', 4)
#[pyclass(name = "ActionEvent", module = "sypy", frozen, eq, get_all)]
#[derive(PartialEq)]
pub struct PyActionEvent {
    /// Relative to the destination. Bytes that are not UTF-8 are surrogate escapes.
    path: OsString,
    /// `"create"`, `"update"`, `"metadata"`, `"delete"` or `"skip"`.
    action: Word,
    /// `"file"`, `"directory"`, `"symlink"`, `"fifo"`, …
    kind: Word,
    /// Why, such as `"new"` or `"time differs"`.
    reason: Word,
    /// Content bytes of the new file, or of the one deleted.
    size: u64,
    /// Content bytes of what the destination had; `None` if it had nothing.
    old_size: Option<u64>,
    /// What a symbolic link points to, or `None`.
    target: Option<OsString>,
}

impl From<ActionEvent> for PyActionEvent {
    fn from(event: ActionEvent) -> Self {
        Self {
            path: OsString::from_vec(event.key),
            action: event.action.name().into(),
            kind: event.kind.name().into(),
            reason: event.reason.name().into(),
            size: event.bytes,
            old_size: event.old_bytes,
            target: event.target.map(OsString::from_vec),
        }
    }
}

#[pymethods]
impl PyActionEvent {
    #[new]
    #[pyo3(signature = (path, action, *, kind="file", reason="", size=0, old_size=None, target=None))]
    fn new(path: OsString, action: &str, kind: &str, reason: &str, size: u64, old_size: Option<u64>, target: Option<OsString>) -> Self {
        Self {
            path,
            action: action.to_owned().into(),
            kind: kind.to_owned().into(),
            reason: reason.to_owned().into(),
            size,
            old_size,
            target,
        }
    }

    /// All of it by name.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = PyDict::new(py);
        fields.set_item("path", &self.path)?;
        fields.set_item("action", &*self.action)?;
        fields.set_item("kind", &*self.kind)?;
        fields.set_item("reason", &*self.reason)?;
        fields.set_item("size", self.size)?;
        fields.set_item("old_size", self.old_size)?;
        fields.set_item("target", &self.target)?;
        Ok(fields)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let this = slf.get();
        let path = slf.getattr("path")?.repr()?;
        Ok(format!("ActionEvent({path}, '{}', kind='{}', reason='{}', size={})", this.action, this.kind, this.reason, this.size))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        value::reduce(slf.as_any(), slf.get().to_dict(slf.py())?)
    }
}
