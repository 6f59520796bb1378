//! Values on their way between Python and the engine's options, and what all value classes share.

use std::ffi::{OsStr, OsString};
use std::mem::discriminant;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyCFunction, PyDelta, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple, PyType};
use sy::SyncError;
use sy::cli::Value;

use crate::error;

/// Stands for a secret wherever one would be shown. It is refused as a value, so that it can't become one by mistake.
pub const REDACTED: &str = "***";

/// Bytes as Python's `str`; what is not UTF-8 becomes surrogate escapes, as in `os.fsdecode`.
pub fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    match OsStr::from_bytes(bytes).into_pyobject(py) {
        Ok(text) => text,
        Err(never) => match never {},
    }
}

/// `str`, `bytes` or `os.PathLike` as bytes, as in `os.fsencode`.
pub fn bytes(value: &Bound<'_, PyAny>) -> PyResult<Option<Vec<u8>>> {
    if value.is_instance_of::<PyString>() {
        return value.extract::<OsString>().map(|text| Some(text.into_vec()));
    }
    if let Ok(raw) = value.cast::<PyBytes>() {
        return Ok(Some(raw.as_bytes().to_vec()));
    }
    match value.hasattr("__fspath__")? {
        true => bytes(&value.call_method0("__fspath__")?),
        false => Ok(None),
    }
}

/// `None` for an object that no option could take.
fn from_py(value: &Bound<'_, PyAny>) -> PyResult<Option<Value>> {
    if value.is_none() {
        return Ok(Some(Value::None));
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(Some(Value::Bool(truth.is_true())));
    }
    if value.is_instance_of::<PyInt>() {
        return value.extract().map(|n| Some(Value::Int(n)));
    }
    if value.is_instance_of::<PyFloat>() {
        return value.extract().map(|n| Some(Value::Float(n)));
    }
    if let Some(text) = bytes(value)? {
        return Ok(Some(Value::Text(text)));
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items = value.try_iter()?.map(|item| bytes(&item?)).collect::<PyResult<Option<Vec<_>>>>()?;
        return Ok(items.map(Value::List));
    }
    if let Ok(mapping) = value.cast::<PyMapping>() {
        let mut pairs = Vec::new();
        for pair in mapping.items()? {
            let (Some(mut name), Some(value)) = (bytes(&pair.get_item(0)?)?, bytes(&pair.get_item(1)?)?) else { return Ok(None) };
            name.push(b'=');
            name.extend(value);
            pairs.push(name);
        }
        return Ok(Some(Value::List(pairs)));
    }
    if value.is_instance_of::<PyDelta>() {
        return value.call_method0("total_seconds")?.extract().map(|seconds| Some(Value::Float(seconds)));
    }
    // Whole numbers of other libraries.
    match value.hasattr("__index__")? {
        true => value.call_method0("__index__")?.extract().map(|n| Some(Value::Int(n))),
        false => Ok(None),
    }
}

pub fn to_py(py: Python<'_>, value: Value) -> PyResult<Bound<'_, PyAny>> {
    Ok(match value {
        Value::None => py.None().into_bound(py),
        Value::Bool(truth) => PyBool::new(py, truth).to_owned().into_any(),
        Value::Int(n) => PyInt::new(py, n).into_any(),
        Value::Float(n) => PyFloat::new(py, n).into_any(),
        Value::Text(bytes) => text(py, &bytes).into_any(),
        Value::List(items) => PyTuple::new(py, items.iter().map(|item| text(py, item)))?.into_any(),
    })
}

/// Sets the field `name`: an object of the wrong type is a `TypeError`, a wrong value a `ConfigError`.
pub fn assign<T: Default>(
    target: &mut T,
    name: &str,
    object: &Bound<'_, PyAny>,
    set: fn(&mut T, &str, Value) -> sy::error::Result<()>,
    get: fn(&T, &str) -> Option<Value>,
) -> PyResult<()> {
    let py = object.py();
    let wrong_type =
        |error: &SyncError| -> PyResult<()> { Err(PyTypeError::new_err(format!("{}, not {}", error.message, object.get_type().name()?))) };
    let value = match from_py(object) {
        Ok(Some(value)) => value,
        // No field takes this number, so the answer is what the field expects.
        Ok(None) => match set(target, name, Value::Float(f64::NAN)) {
            Ok(()) => return Ok(()),
            Err(error) => return wrong_type(&error),
        },
        Err(error) if error.is_instance_of::<pyo3::exceptions::PyOverflowError>(py) => {
            return Err(error::raise(py, &SyncError::config(format!("{name} is too large: {object}"))));
        }
        Err(error) => return Err(error),
    };
    let kind = discriminant(&value);
    let Err(error) = set(target, name, value) else { return Ok(()) };
    // Was it the kind of value, or the value? A field takes the kind of its default and of whatever sample fits.
    let default = T::default();
    let samples = [Value::Bool(true), Value::Int(1), Value::Float(1.0), Value::Text("1".into()), Value::Text("http://h".into())];
    let takes = get(&default, name).is_some_and(|value| discriminant(&value) == kind)
        || samples.into_iter().any(|sample| discriminant(&sample) == kind && set(&mut T::default(), name, sample).is_ok());
    if takes { Err(error::raise(py, &error)) } else { wrong_type(&error) }
}

/// A `TypeError` in the words of Python that names the nearest of `known`.
pub fn unknown_keyword(py: Python<'_>, function: &str, name: &str, known: &[&str]) -> PyErr {
    let nearest = || -> PyResult<String> {
        let matches = py.import("difflib")?.call_method1("get_close_matches", (name, known.to_vec(), 1, 0.0))?;
        matches.get_item(0)?.extract()
    };
    match nearest() {
        Ok(nearest) => PyTypeError::new_err(format!("{function}() got an unexpected keyword argument '{name}'; did you mean '{nearest}'?")),
        Err(_) => PyTypeError::new_err(format!("{function}() got an unexpected keyword argument '{name}'")),
    }
}

/// Gives `class` a read-only property for each of `names`, with its text.
pub fn properties(
    class: &Bound<'_, PyType>,
    names: impl IntoIterator<Item = &'static str>,
    doc: impl Fn(&str) -> String,
    get: fn(&Bound<'_, PyAny>, &str) -> PyResult<Py<PyAny>>,
) -> PyResult<()> {
    let py = class.py();
    let property = py.import("builtins")?.getattr("property")?;
    for name in names {
        let getter = PyCFunction::new_closure(py, None, None, move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            get(&args.get_item(0)?, name)
        })?;
        class.setattr(name, property.call1((getter, py.None(), py.None(), doc(name)))?)?;
    }
    Ok(())
}

/// The text of a field in a list of `(name, text)`.
pub fn doc_of(docs: &[(&str, &str)], name: &str) -> Option<String> {
    docs.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
}

/// `Class(a=1, b='x')`.
pub fn repr(class: &str, fields: &[(String, String)]) -> String {
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{class}({})", fields.join(", "))
}

/// What `__reduce__` returns for a class whose constructor takes keywords.
pub type Reduced<'py> = (Bound<'py, PyAny>, (Bound<'py, PyAny>, Bound<'py, PyDict>));

pub fn reduce<'py>(object: &Bound<'py, PyAny>, fields: Bound<'py, PyDict>) -> PyResult<Reduced<'py>> {
    let rebuild = object.py().import("sypy._sypy")?.getattr("_rebuild")?;
    Ok((rebuild, (object.get_type().into_any(), fields)))
}

/// Makes an object again from the keywords that a pickle holds.
#[pyfunction]
#[pyo3(name = "_rebuild")]
pub fn rebuild<'py>(class: &Bound<'py, PyAny>, fields: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
    class.call((), Some(fields))
}
