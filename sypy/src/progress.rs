//! How far a run is, as Python sees it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use sy::sync::Progress;

use crate::value::{self, Reduced};

/// How far a run is, at one moment. A progress callback gets one now and then, and a last one when the run is over.
///
/// Bytes are content bytes; rates are bytes per second; times are seconds. While the source is still being scanned, the totals are
/// what is known so far, and `percentage` and `eta_secs` are `None`.
///
/// >>> snapshot = ProgressSnapshot(bytes=1_500_000, total_bytes=6_000_000, bytes_per_sec=500_000, totals_are_final=True)
/// >>> snapshot.percentage, snapshot.eta_secs, snapshot.speed_human
/// (25.0, 9.0, '500.0 kB/s')
#[pyclass(name = "ProgressSnapshot", module = "sypy", frozen, eq, get_all)]
#[derive(Clone, PartialEq, Default)]
pub struct PyProgressSnapshot {
    /// Bytes transferred so far.
    bytes: u64,
    /// Bytes to transfer that are known of so far.
    total_bytes: u64,
    /// Speed of late, in bytes per second; in the last snapshot, that of the whole run.
    bytes_per_sec: u64,
    /// Files done.
    transfers: u64,
    /// Files to transfer that are known of so far.
    total_transfers: u64,
    /// Files being transferred right now.
    active_transfers: u64,
    /// Entries of the source looked at.
    files_scanned: u64,
    /// Seconds since the run began.
    elapsed_secs: f64,
    /// File being transferred, relative to the source, or `None`. Bytes that are not UTF-8 are surrogate escapes.
    current_file: Option<OsString>,
    /// The source is scanned: the totals will not grow any more.
    totals_are_final: bool,
}

#[pymethods]
impl PyProgressSnapshot {
    #[new]
    #[pyo3(signature = (*, bytes=0, total_bytes=0, bytes_per_sec=0, transfers=0, total_transfers=0, active_transfers=0,
                        files_scanned=0, elapsed_secs=0.0, current_file=None, totals_are_final=false))]
    #[expect(clippy::too_many_arguments, reason = "one keyword a field")]
    fn new(
        bytes: u64,
        total_bytes: u64,
        bytes_per_sec: u64,
        transfers: u64,
        total_transfers: u64,
        active_transfers: u64,
        files_scanned: u64,
        elapsed_secs: f64,
        current_file: Option<OsString>,
        totals_are_final: bool,
    ) -> Self {
        Self {
            bytes,
            total_bytes,
            bytes_per_sec,
            transfers,
            total_transfers,
            active_transfers,
            files_scanned,
            elapsed_secs,
            current_file,
            totals_are_final,
        }
    }

    /// Percent of the bytes that are done, 0.0 to 100.0; `None` while the total is not known, or 0.
    #[getter]
    fn percentage(&self) -> Option<f64> {
        let known = self.totals_are_final && self.total_bytes > 0;
        known.then(|| (self.bytes as f64 / self.total_bytes as f64 * 100.0).min(100.0))
    }

    /// Seconds that are left at this speed; `None` while that can't be known.
    #[getter]
    fn eta_secs(&self) -> Option<f64> {
        let left = self.total_bytes.saturating_sub(self.bytes);
        match self.totals_are_final && (left == 0 || self.bytes_per_sec > 0) {
            true if left == 0 => Some(0.0),
            true => Some(left as f64 / self.bytes_per_sec as f64),
            false => None,
        }
    }

    /// Files being transferred right now, as far as they are named.
    #[getter]
    fn transferring(&self) -> Vec<&OsStr> {
        self.current_file.as_deref().into_iter().collect()
    }

    /// The speed as text, such as `"10.5 MB/s"`.
    #[getter]
    fn speed_human(&self) -> String {
        format!("{}/s", human_bytes(self.bytes_per_sec))
    }

    /// `bytes` as text, such as `"1.5 GB"`.
    #[getter]
    fn bytes_human(&self) -> String {
        human_bytes(self.bytes)
    }

    /// `total_bytes` as text, such as `"10.2 GB"`.
    #[getter]
    fn total_bytes_human(&self) -> String {
        human_bytes(self.total_bytes)
    }

    fn __repr__(&self) -> String {
        let percentage = self.percentage().map_or(String::new(), |percentage| format!(", percentage={percentage:.1}"));
        format!(
            "ProgressSnapshot(bytes={}, total_bytes={}, transfers={}, total_transfers={}{percentage})",
            self.bytes, self.total_bytes, self.transfers, self.total_transfers
        )
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let (this, fields) = (slf.get(), PyDict::new(slf.py()));
        fields.set_item("bytes", this.bytes)?;
        fields.set_item("total_bytes", this.total_bytes)?;
        fields.set_item("bytes_per_sec", this.bytes_per_sec)?;
        fields.set_item("transfers", this.transfers)?;
        fields.set_item("total_transfers", this.total_transfers)?;
        fields.set_item("active_transfers", this.active_transfers)?;
        fields.set_item("files_scanned", this.files_scanned)?;
        fields.set_item("elapsed_secs", this.elapsed_secs)?;
        fields.set_item("current_file", &this.current_file)?;
        fields.set_item("totals_are_final", this.totals_are_final)?;
        value::reduce(slf.as_any(), fields)
    }
}

/// Speed smoothed over a few seconds, for one watcher.
#[derive(Debug, Default)]
pub struct Speed {
    at: Duration,
    bytes: u64,
    rate: Option<f64>,
}

impl Speed {
    /// Seconds after which an old speed counts a third.
    const MEMORY: f64 = 3.0;

    pub fn snapshot(&mut self, progress: Progress, last: bool) -> PyProgressSnapshot {
        let seconds = progress.elapsed.saturating_sub(self.at).as_secs_f64();
        let rate = if last {
            progress.bytes as f64 / progress.elapsed.as_secs_f64().max(1e-9)
        } else {
            let now = progress.bytes.saturating_sub(self.bytes) as f64 / seconds.max(1e-9);
            let weight = 1.0 - (-seconds / Self::MEMORY).exp();
            self.rate.map_or(now, |rate| rate + (now - rate) * weight)
        };
        *self = Self { at: progress.elapsed, bytes: progress.bytes, rate: Some(rate) };
        PyProgressSnapshot {
            bytes: progress.bytes,
            total_bytes: progress.total_bytes,
            bytes_per_sec: rate as u64,
            transfers: progress.transfers,
            total_transfers: progress.total_transfers,
            active_transfers: progress.active_transfers,
            files_scanned: progress.scanned,
            elapsed_secs: progress.elapsed.as_secs_f64(),
            current_file: progress.current_file.map(OsString::from_vec),
            totals_are_final: progress.totals_are_final || last,
        }
    }
}

/// `512 B`, `4.1 GB`.
pub fn human_bytes(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would print as 1000.0.
    while size >= 999.95 && unit + 1 < units.len() {
        size /= 1000.0;
        unit += 1;
    }
    format!("{size:.1} {}", units[unit])
}

/// `0.04 s`, `38.2 s`, `3 min 12 s`, `2 h 3 min`.
pub fn human_time(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 0.95 => format!("{seconds:.2} s"),
        _ if seconds < 59.95 => format!("{seconds:.1} s"),
        0..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `96 310`.
pub fn human_count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}
