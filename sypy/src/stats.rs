//! `SyncStats`: what a run did.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple, PyType};
use sy::Stats;

use crate::details::PyDryRunDetails;
use crate::error;
use crate::progress::{human_bytes, human_count, human_time};
use crate::value::{self, Reduced};

/// What a run did; after a dry run, what it would do.
///
/// Counters are whole numbers and bytes are content bytes. `print(stats)` says it in one line. Stats can be compared and pickled.
///
/// >>> stats = SyncStats(files_created=1204, files_deleted=7, files_skipped=96310, bytes_transferred=4_100_000_000, duration_secs=38.2)
/// >>> print(stats)
/// 1 204 created, 0 updated, 7 deleted, 96 310 unchanged, 4.1 GB in 38.2 s
/// >>> stats.success
/// True
#[pyclass(name = "SyncStats", module = "sypy", frozen)]
pub struct PySyncStats {
    /// The engine's counters, in its order: a new one appears here by itself.
    counters: Vec<(&'static str, u64)>,
    duration: Duration,
    peak_memory: u64,
    errors: Py<PyTuple>,
    dry_run: bool,
    details: Option<Py<PyDryRunDetails>>,
}

impl PySyncStats {
    pub fn of(py: Python<'_>, stats: &Stats, dry_run: bool, details: Option<PyDryRunDetails>) -> PyResult<Self> {
        let errors = stats.errors.iter().map(|failed| error::exception(py, failed)).collect::<PyResult<Vec<_>>>()?;
        Ok(Self {
            counters: stats.counters().collect(),
            duration: stats.duration,
            peak_memory: stats.peak_memory,
            errors: PyTuple::new(py, errors)?.unbind(),
            dry_run,
            details: details.map(|details| Py::new(py, details)).transpose()?,
        })
    }

    /// A counter, or several together.
    fn count<const N: usize>(&self, names: [&str; N]) -> u64 {
        self.counters.iter().filter(|(name, _)| names.contains(name)).map(|(_, count)| count).sum()
    }

    pub fn failed(&self, py: Python<'_>) -> bool {
        !self.errors.bind(py).is_empty()
    }
}

#[pymethods]
impl PySyncStats {
    #[new]
    #[pyo3(signature = (*, errors=None, dry_run=false, dry_run_details=None, duration_secs=0.0, peak_memory=0, **counters))]
    fn new(
        py: Python<'_>,
        errors: Option<&Bound<'_, PyAny>>,
        dry_run: bool,
        dry_run_details: Option<Py<PyDryRunDetails>>,
        duration_secs: f64,
        peak_memory: u64,
        counters: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let mut known: Vec<(&'static str, u64)> = Stats::default().counters().collect();
        for (name, count) in counters.into_iter().flatten() {
            let name = name.cast::<PyString>()?.to_str()?;
            match known.iter_mut().find(|(known, _)| *known == name) {
                Some(counter) => counter.1 = count.extract()?,
                None => {
                    let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
                    return Err(value::unknown_keyword(py, "SyncStats", name, &names));
                }
            }
        }
        let errors = match errors {
            Some(errors) => errors.try_iter()?.collect::<PyResult<Vec<_>>>()?,
            None => Vec::new(),
        };
        for record in &errors {
            if !error::is_record(record)? {
                return Err(pyo3::exceptions::PyTypeError::new_err("errors must be SyncErrors"));
            }
        }
        Ok(Self {
            counters: known,
            duration: Duration::try_from_secs_f64(duration_secs).unwrap_or_default(),
            peak_memory,
            errors: PyTuple::new(py, errors)?.unbind(),
            dry_run,
            details: dry_run_details,
        })
    }

    /// The failed items, as a list of `SyncError`: at most `max_errors`, unless that is 0.
    #[getter]
    fn errors<'py>(&self, py: Python<'py>) -> Bound<'py, PyList> {
        self.errors.bind(py).to_list()
    }

    /// Did everything work out?
    #[getter]
    fn success(&self, py: Python<'_>) -> bool {
        !self.failed(py)
    }

    /// Was it a dry run?
    #[getter]
    fn dry_run(&self) -> bool {
        self.dry_run
    }

    /// Seconds that the run took.
    #[getter]
    fn duration_secs(&self) -> f64 {
        self.duration.as_secs_f64()
    }

    /// Largest resident size of the process so far, in bytes.
    #[getter]
    fn peak_memory(&self) -> u64 {
        self.peak_memory
    }

    /// Bytes transferred per second.
    #[getter]
    fn transfer_rate(&self) -> f64 {
        let seconds = self.duration_secs();
        if seconds > 0.0 { self.count(["bytes_transferred"]) as f64 / seconds } else { 0.0 }
    }

    /// What a dry run would do to files and links, as counts and bytes; all 0 after a real run.
    ///
    /// >>> SyncStats(dry_run=True, files_created=3, bytes_would_add=6).dry_run_summary["would_create"]
    /// {'count': 3, 'bytes': 6}
    #[getter]
    fn dry_run_summary<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let count = |counted: u64| if self.dry_run { counted } else { 0 };
        let parts = [
            ("would_create", count(self.count(["files_created"])), self.count(["bytes_would_add"])),
            ("would_update", count(self.count(["files_updated"])), self.count(["bytes_would_change"])),
            ("would_delete", count(self.count(["files_deleted"])), self.count(["bytes_would_delete"])),
        ];
        let summary = PyDict::new(py);
        for (name, count, bytes) in parts {
            let part = PyDict::new(py);
            part.set_item("count", count)?;
            part.set_item("bytes", bytes)?;
            summary.set_item(name, part)?;
        }
        summary.set_item("total_files", parts.iter().map(|part| part.1).sum::<u64>())?;
        summary.set_item("total_bytes", parts.iter().map(|part| part.2).sum::<u64>())?;
        Ok(summary)
    }

    /// A `DryRunDetails` after a dry run, else `None`.
    #[getter]
    fn dry_run_details(&self, py: Python<'_>) -> Option<Py<PyDryRunDetails>> {
        self.details.as_ref().map(|details| details.clone_ref(py))
    }

    /// Raises a `PartialSyncError` if some items failed. Of use with `on_error="collect"`.
    ///
    /// >>> SyncStats(files_created=1).raise_for_errors()
    fn raise_for_errors(slf: &Bound<'_, Self>) -> PyResult<()> {
        match slf.get().failed(slf.py()) {
            true => Err(error::raise_partial(slf.py(), slf)),
            false => Ok(()),
        }
    }

    /// All of it as plain values that JSON has too; errors as dicts.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, count) in self.counters.iter().copied() {
            dict.set_item(name, count)?;
        }
        dict.set_item("duration_secs", self.duration_secs())?;
        dict.set_item("transfer_rate", self.transfer_rate())?;
        dict.set_item("peak_memory", self.peak_memory)?;
        dict.set_item("dry_run", self.dry_run)?;
        dict.set_item("success", self.success(py))?;
        let errors = self.errors.bind(py).iter().map(|failed| failed.call_method0("to_dict"));
        dict.set_item("errors", errors.collect::<PyResult<Vec<_>>>()?)?;
        if self.dry_run {
            dict.set_item("dry_run_summary", self.dry_run_summary(py)?)?;
        }
        Ok(dict)
    }

    /// `to_dict()` as JSON text.
    ///
    /// >>> '"files_created": 2' in SyncStats(files_created=2).to_json()
    /// True
    #[pyo3(signature = (*, indent=None))]
    fn to_json(&self, py: Python<'_>, indent: Option<usize>) -> PyResult<String> {
        let flags = PyDict::new(py);
        flags.set_item("indent", indent)?;
        py.import("json")?.call_method("dumps", (self.to_dict(py)?,), Some(&flags))?.extract()
    }

    fn __str__(&self, py: Python<'_>) -> String {
        let bytes = match self.dry_run {
            true => self.count(["bytes_would_add", "bytes_would_change"]),
            false => self.count(["bytes_transferred"]),
        };
        let mut text = format!(
            "{}{} created, {} updated, {} deleted, {} unchanged, {} in {}",
            if self.dry_run { "dry run: " } else { "" },
            human_count(self.count(["files_created"])),
            human_count(self.count(["files_updated", "files_metadata_updated"])),
            human_count(self.count(["files_deleted"])),
            human_count(self.count(["files_skipped"])),
            human_bytes(bytes),
            human_time(self.duration_secs()),
        );
        match self.errors.bind(py).len() {
            0 => {}
            failed => text.push_str(&format!(", {} failed", human_count(failed as u64))),
        }
        text
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let counted = self.counters.iter().copied().filter(|(_, count)| *count > 0);
        let mut fields: Vec<_> = counted.map(|(name, count)| (name.to_owned(), count.to_string())).collect();
        fields.push(("duration_secs".into(), format!("{:.3}", self.duration_secs())));
        if self.dry_run {
            fields.push(("dry_run".into(), "True".into()));
        }
        fields.push(("success".into(), if self.failed(py) { "False".into() } else { "True".into() }));
        value::repr("SyncStats", &fields)
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let Ok(other) = other.cast::<Self>() else { return Ok(py.NotImplemented()) };
        let other = other.get();
        let details = match (&self.details, &other.details) {
            (Some(a), Some(b)) => a.get() == b.get(),
            (a, b) => a.is_none() && b.is_none(),
        };
        let same = (&self.counters, self.duration, self.peak_memory) == (&other.counters, other.duration, other.peak_memory)
            && self.dry_run == other.dry_run
            && details
            && self.errors.bind(py).eq(other.errors.bind(py))?;
        Ok(pyo3::types::PyBool::new(py, same).to_owned().into_any().unbind())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let (py, this) = (slf.py(), slf.get());
        let fields = PyDict::new(py);
        for (name, count) in this.counters.iter().copied() {
            fields.set_item(name, count)?;
        }
        fields.set_item("peak_memory", this.peak_memory)?;
        fields.set_item("duration_secs", this.duration_secs())?;
        fields.set_item("dry_run", this.dry_run)?;
        fields.set_item("dry_run_details", this.details.as_ref().map(|details| details.bind(py)))?;
        fields.set_item("errors", this.errors.bind(py))?;
        value::reduce(slf.as_any(), fields)
    }
}

/// Puts the counters on the class, with their texts.
pub fn install(py: Python<'_>) -> PyResult<()> {
    let class: Bound<'_, PyType> = py.get_type::<PySyncStats>();
    value::properties(
        &class,
        Stats::default().counters().map(|(name, _)| name),
        |name| value::doc_of(DOCS, name).unwrap_or_default(),
        |this, name| {
            let count = this.cast::<PySyncStats>()?.get().count([name]);
            Ok(count.into_pyobject(this.py())?.into_any().unbind())
        },
    )
}

const DOCS: &[(&str, &str)] = &[
    ("files_scanned", "Files, links and special files looked at in the source."),
    ("files_created", "Files that the destination did not have."),
    ("files_updated", "Files whose content was replaced."),
    ("files_metadata_updated", "Files of which only times, permissions or other metadata were set."),
    ("files_skipped", "Files that were as they should be, or that an option leaves alone."),
    ("files_deleted", "Files, links and special files removed from the destination."),
    ("dirs_created", "Directories created."),
    ("dirs_deleted", "Directories removed from the destination."),
    ("symlinks_created", "Symbolic links created."),
    ("hardlinks_created", "Names that were made another name of a file at the destination."),
    ("sources_removed", "Source files removed after their copy was in place."),
    ("bytes_transferred", "Content bytes of the files created or updated."),
    ("bytes_read", "Content bytes read from either side, comparisons and verification included."),
    ("files_delta_synced", "Files of which only differences travelled."),
    ("delta_bytes_saved", "Bytes that did not have to travel thanks to that."),
    ("files_compressed", "Files compressed on the wire."),
    ("compression_bytes_saved", "Bytes that did not have to travel thanks to that."),
    ("files_verified", "Copies read back and found equal."),
    ("verification_failures", "Copies read back and found different; each is an error as well."),
    ("retries", "Further tries of failed items."),
    ("bytes_would_add", "Bytes of the files that a dry run would create."),
    ("bytes_would_change", "Bytes of the files that a dry run would update."),
    ("bytes_would_delete", "Bytes of the files that a dry run would delete."),
];
