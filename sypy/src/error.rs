//! The engine's errors as the exceptions of `sypy._errors`, which are written in Python because they have two bases.

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use sy::{ErrorKind, SyncError};

use crate::stats::PySyncStats;
use crate::value::text;

static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    MODULE.get_or_try_init(py, || py.import("sypy._errors").map(Bound::unbind))?.bind(py).getattr(name)
}

fn class_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "NotFoundError",
        ErrorKind::AlreadyExists => "AlreadyExistsError",
        ErrorKind::PermissionDenied => "PermissionDeniedError",
        ErrorKind::Authentication => "AuthenticationError",
        ErrorKind::HostKey => "HostKeyError",
        ErrorKind::NoSpace => "NoSpaceError",
        ErrorKind::Network => "NetworkError",
        ErrorKind::Timeout => "NetworkTimeoutError",
        ErrorKind::Verification => "VerificationError",
        ErrorKind::SourceChanged => "SourceChangedError",
        ErrorKind::Conflict => "ConflictError",
        ErrorKind::DeleteLimit => "DeleteLimitError",
        ErrorKind::Unsupported => "UnsupportedError",
        ErrorKind::Config => "ConfigError",
        ErrorKind::Locked => "LockedError",
        ErrorKind::Cancelled | ErrorKind::Io => "SyncError",
    }
}

/// The exception that stands for one error, as a record or to be raised.
pub fn exception<'py>(py: Python<'py>, error: &SyncError) -> PyResult<Bound<'py, PyAny>> {
    let fields = PyDict::new(py);
    if let Some(path) = &error.path {
        fields.set_item("path", text(py, path))?;
    }
    fields.set_item("action", error.action)?;
    fields.set_item("errno", error.errno)?;
    fields.set_item("hint", error.hint.as_deref())?;
    fields.set_item("retryable", error.retryable)?;
    class(py, class_of(error.kind))?.call((&error.message,), Some(&fields))
}

pub fn raise(py: Python<'_>, error: &SyncError) -> PyErr {
    match exception(py, error) {
        Ok(exception) => PyErr::from_value(exception),
        Err(failure) => failure,
    }
}

/// What ended a run, with what it had done until then. A cancellation that no signal explains is an interrupt all the same.
pub fn raise_fatal(py: Python<'_>, error: &SyncError, stats: &Bound<'_, PySyncStats>) -> PyErr {
    if error.kind == ErrorKind::Cancelled {
        return PyKeyboardInterrupt::new_err(error.message.clone());
    }
    let attach = || -> PyResult<PyErr> {
        let exception = exception(py, error)?;
        exception.setattr("stats", stats)?;
        Ok(PyErr::from_value(exception))
    };
    attach().unwrap_or_else(|failure| failure)
}

/// Some items failed.
pub fn raise_partial(py: Python<'_>, stats: &Bound<'_, PySyncStats>) -> PyErr {
    match class(py, "PartialSyncError").and_then(|class| class.call_method1("_of", (stats,))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(failure) => failure,
    }
}

/// Is this object an error record?
pub fn is_record(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    object.is_instance(&class(object.py(), "SyncError")?)
}
