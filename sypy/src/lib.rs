//! The sync engine as a Python module. It translates between Python and the crate `sy`, and does nothing else.

#![allow(missing_debug_implementations, reason = "what prints these is their repr")]

mod config;
mod credentials;
mod details;
mod error;
mod list;
mod options;
mod path;
mod progress;
mod stats;
mod sync;
mod value;

/// The native half of `sypy`.
#[pyo3::pymodule(gil_used = false)]
mod _sypy {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::config::{PyAzureConfig, PyCloudClientOptions, PyGcsConfig, PyOpenDalConfig, PyS3Config, PySshConfig};
    #[pymodule_export]
    use super::details::{PyActionEvent, PyChangeAction, PyDirectoryChange, PyDryRunDetails, PyFileChange, PySymlinkChange};
    #[pymodule_export]
    use super::list::{PyListEntry, PyListIterator, ls, ls_iter};
    #[pymodule_export]
    use super::options::PySyncOptions;
    #[pymodule_export]
    use super::path::{PySyncPath, parse_path};
    #[pymodule_export]
    use super::progress::PyProgressSnapshot;
    #[pymodule_export]
    use super::stats::PySyncStats;
    #[pymodule_export]
    use super::sync::{main, sync, sync_with_options};
    #[pymodule_export]
    use super::value::rebuild;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        super::config::install(module.py())?;
        super::options::install(module.py())?;
        super::stats::install(module.py())
    }
}
