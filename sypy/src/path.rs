//! `SyncPath`, and how whatever names a location becomes one.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};
use sy::SyncPath;
use sy::path::Scheme;

use crate::error;
use crate::value::{bytes, text};

/// The location that an object names. Text is parsed; bytes are a local path; the rest is told apart in `sypy._paths`.
pub fn location(object: &Bound<'_, PyAny>) -> PyResult<SyncPath> {
    let py = object.py();
    let parse = |bytes: &[u8]| SyncPath::parse(bytes).map_err(|error| error::raise(py, &error));
    if let Ok(path) = object.cast::<PySyncPath>() {
        return Ok(path.get().0.clone());
    }
    if object.is_instance_of::<PyString>() {
        return parse(&bytes(object)?.unwrap_or_default());
    }
    if let Ok(raw) = object.cast::<PyBytes>() {
        let raw = raw.as_bytes();
        // What no path can be is said in the parser's words.
        return if raw.is_empty() || raw.contains(&0) { parse(raw) } else { Ok(local(raw)) };
    }
    location(&py.import("sypy._paths")?.call_method1("location", (object,))?)
}

fn local(path: &[u8]) -> SyncPath {
    SyncPath { scheme: Scheme::Local, path: path.to_vec() }
}

/// A location: a local path, a path on an SSH host, or a key in an object store.
///
/// `path` is what `sync()` takes: text such as `"/data"`, `"user@host:dir"`, `"s3://bucket/key"`, or any path object. `bytes` are
/// always a local path. Two are equal when they name the location in the same words; they are hashable and can be pickled.
/// Raises `ConfigError` (a `ValueError`) for text that names no location, `TypeError` for other objects.
///
/// >>> path = SyncPath("s3://bucket/photos/")
/// >>> path.bucket, path.key, path.has_trailing_slash
/// ('bucket', 'photos/', True)
/// >>> path / "2024" / "a.jpg"
/// SyncPath('s3://bucket/photos/2024/a.jpg')
/// >>> SyncPath("me@host:/srv").host
/// 'host'
#[pyclass(name = "SyncPath", module = "sypy", frozen, eq, hash)]
#[derive(PartialEq, Eq, Hash)]
pub struct PySyncPath(pub SyncPath);

#[pymethods]
impl PySyncPath {
    #[new]
    fn new(path: &Bound<'_, PyAny>) -> PyResult<Self> {
        location(path).map(Self)
    }

    /// The path or key by itself, without host or bucket. Bytes that are not UTF-8 are surrogate escapes.
    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        text(py, &self.0.path)
    }

    /// The kind of storage: `"file"`, `"ssh"`, `"sftp"`, `"s3"`, `"gs"`, `"az"` or `"opendal+SERVICE"`.
    #[getter]
    fn scheme(&self) -> String {
        match &self.0.scheme {
            Scheme::Local => "file".into(),
            Scheme::Ssh { sftp: false, .. } => "ssh".into(),
            Scheme::Ssh { sftp: true, .. } => "sftp".into(),
            Scheme::S3 { .. } => "s3".into(),
            Scheme::Gcs { .. } => "gs".into(),
            Scheme::Azure { .. } => "az".into(),
            Scheme::OpenDal { scheme, .. } => format!("opendal+{scheme}"),
        }
    }

    /// Is it on this machine?
    #[getter]
    fn is_local(&self) -> bool {
        self.0.is_local()
    }

    /// Is it on an SSH host?
    #[getter]
    fn is_remote(&self) -> bool {
        matches!(self.0.scheme, Scheme::Ssh { .. })
    }

    /// Is it in an S3 bucket?
    #[getter]
    fn is_s3(&self) -> bool {
        matches!(self.0.scheme, Scheme::S3 { .. })
    }

    /// Is it in a Google Cloud Storage bucket?
    #[getter]
    fn is_gcs(&self) -> bool {
        matches!(self.0.scheme, Scheme::Gcs { .. })
    }

    /// Does it name a daemon's socket? No location does; the attribute is for scripts that ask.
    #[getter]
    fn is_daemon(&self) -> bool {
        false
    }

    /// Does it end in a slash? As a source, that means the contents of the directory.
    #[getter]
    fn has_trailing_slash(&self) -> bool {
        self.0.has_trailing_slash()
    }

    /// The SSH host, or `None`.
    #[getter]
    fn host(&self) -> Option<&str> {
        match &self.0.scheme {
            Scheme::Ssh { host, .. } => Some(host),
            _ => None,
        }
    }

    /// The user on the SSH host, or `None`.
    #[getter]
    fn user(&self) -> Option<&str> {
        match &self.0.scheme {
            Scheme::Ssh { user, .. } => user.as_deref(),
            _ => None,
        }
    }

    /// The port of the SSH host if one was named, or `None`.
    #[getter]
    fn port(&self) -> Option<u16> {
        match self.0.scheme {
            Scheme::Ssh { port, .. } => port,
            _ => None,
        }
    }

    /// The bucket, or the container on Azure, or `None`.
    #[getter]
    fn bucket(&self) -> Option<&str> {
        match &self.0.scheme {
            Scheme::S3 { bucket } | Scheme::Gcs { bucket } | Scheme::Azure { container: bucket } => Some(bucket),
            _ => None,
        }
    }

    /// The key in a bucket, or `None` for what is not in one.
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        match self.0.scheme {
            Scheme::Local | Scheme::Ssh { .. } => None,
            _ => Some(text(py, &self.0.path)),
        }
    }

    /// The last component; empty for a root.
    #[getter]
    fn name<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        text(py, self.0.name())
    }

    /// The location that holds this one; a root is its own parent.
    ///
    /// >>> SyncPath("s3://bucket/a/b").parent
    /// SyncPath('s3://bucket/a')
    #[getter]
    fn parent(&self) -> Self {
        Self(self.0.parent())
    }

    /// This location with `parts` below it, one after the other. An absolute part stays below it all the same.
    ///
    /// >>> SyncPath("host:dir").joinpath("a", "b")
    /// SyncPath('host:dir/a/b')
    #[pyo3(signature = (*parts))]
    fn joinpath(&self, parts: &Bound<'_, PyTuple>) -> PyResult<Self> {
        let mut path = self.0.clone();
        for part in parts {
            let name = bytes(&part)?.ok_or_else(|| PyTypeError::new_err(format!("a part of a path must be text, not {part:?}")))?;
            path = path.join(name);
        }
        Ok(Self(path))
    }

    fn __truediv__<'py>(&self, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = name.py();
        match bytes(name)? {
            Some(name) => Ok(Bound::new(py, Self(self.0.join(name)))?.into_any()),
            None => Ok(py.NotImplemented().into_bound(py)),
        }
    }

    fn __fspath__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        match self.0.is_local() {
            true => Ok(text(py, &self.0.path)),
            false => Err(PyTypeError::new_err(format!("{} is not on this machine", self.0))),
        }
    }

    fn __str__<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        text(py, &self.0.to_bytes())
    }

    fn __bytes__(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("SyncPath({})", self.__str__(py).repr()?.to_str()?))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyAny>, (Bound<'py, PyAny>,)) {
        let (py, path) = (slf.py(), &slf.get().0);
        let name = match path.is_local() {
            true => PyBytes::new(py, &path.path).into_any(),
            false => text(py, &path.to_bytes()).into_any(),
        };
        (slf.get_type().into_any(), (name,))
    }
}

/// The location that `path` names.
///
/// The same as `SyncPath(path)`; raises what that raises.
///
/// >>> parse_path("gs://bucket/key").is_gcs
/// True
#[pyfunction]
pub fn parse_path(path: &Bound<'_, PyAny>) -> PyResult<PySyncPath> {
    PySyncPath::new(path)
}
