//! `SyncOptions`: the engine's options by name, and the few that only Python has.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString, PyTuple};
use sy::{Options, SyncError};

use crate::config::{PyAzureConfig, PyGcsConfig, PyOpenDalConfig, PyS3Config, PySshConfig};
use crate::credentials::{Functions, Side};
use crate::error;
use crate::value::{self, Reduced};

const ON_ERROR: &str = "on_error";
/// Configs: which class each takes, or any of them.
const CONFIGS: [&str; 7] = ["s3", "gcs", "azure", "ssh", "opendal", SOURCE, DEST];
const SOURCE: &str = "source_options";
const DEST: &str = "dest_options";
/// Those that are for locations of one kind, on both sides.
pub const KINDS: [&str; 5] = ["s3", "gcs", "azure", "ssh", "opendal"];
const CLASSES: [&str; 5] = ["S3Config", "GcsConfig", "AzureConfig", "SshConfig", "OpenDalConfig"];

/// What a run should do and how.
///
/// The fields are those that `sync()` takes as keywords; each has its text and default below. They are keywords only and none is
/// needed. Options are a frozen value: `==`, `hash()`, `replace(**changes)`, `to_dict()`, `from_dict()`, pickle; their `repr` shows
/// what differs from the defaults. Sizes are read back in bytes and times in seconds, whatever they were given as.
/// Raises `TypeError` for an unknown name or a wrong type, `ConfigError` (a `ValueError`) for a wrong value.
///
/// >>> options = SyncOptions(delete=True, min_size="10MB", exclude=["*.tmp"])
/// >>> options
/// SyncOptions(delete=True, exclude=('*.tmp',), min_size=10000000)
/// >>> options.replace(delete=False) == SyncOptions(min_size=10_000_000, exclude="*.tmp")
/// True
#[pyclass(name = "SyncOptions", module = "sypy", frozen)]
#[derive(Default)]
pub struct PySyncOptions {
    pub engine: Options,
    /// `on_error="collect"`: failed items are in the stats, and not raised.
    pub collect: bool,
    configs: [Option<Py<PyAny>>; CONFIGS.len()],
}

impl PySyncOptions {
    pub fn names() -> impl Iterator<Item = &'static str> {
        Options::NAMES.iter().copied().chain([ON_ERROR]).chain(CONFIGS)
    }

    /// Sets the field `name`; `Ok(false)` if there is none.
    pub fn assign(&mut self, name: &str, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        if name == ON_ERROR {
            let word: &str = object.extract().map_err(|_| PyTypeError::new_err("on_error must be \"raise\" or \"collect\""))?;
            self.collect = match word {
                "raise" => false,
                "collect" => true,
                _ => return Err(error::raise(object.py(), &SyncError::config("on_error must be \"raise\" or \"collect\""))),
            };
        } else if let Some(which) = CONFIGS.iter().position(|known| *known == name) {
            self.configs[which] = match object.is_none() {
                true => None,
                false if fits(object, which) => Some(object.clone().unbind()),
                false => {
                    let wanted = CLASSES.get(which).map_or_else(|| CLASSES.join(", "), |class| (*class).to_owned());
                    return Err(PyTypeError::new_err(format!("{name} must be None or {wanted}, not {}", object.get_type().name()?)));
                }
            };
        } else if Options::NAMES.contains(&name) {
            value::assign(&mut self.engine, name, object, Options::set, Options::get)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn update(&mut self, function: &str, changes: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let Some(changes) = changes else { return Ok(()) };
        for (name, object) in changes {
            let name = name.cast::<PyString>()?.to_str()?;
            if !self.assign(name, &object)? {
                return Err(value::unknown_keyword(changes.py(), function, name, &Self::names().collect::<Vec<_>>()));
            }
        }
        Ok(())
    }

    fn get<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        if name == ON_ERROR {
            return Ok(PyString::new(py, if self.collect { "collect" } else { "raise" }).into_any());
        }
        if CONFIGS.contains(&name) {
            return Ok(self.config(name).map_or_else(|| py.None(), |config| config.clone_ref(py)).into_bound(py));
        }
        value::to_py(py, self.engine.get(name).unwrap_or(sy::cli::Value::None))
    }

    fn changed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (fields, default) = (PyDict::new(py), Self::default());
        for name in Self::names() {
            let value = self.get(py, name)?;
            if !value.eq(default.get(py, name)?)? {
                fields.set_item(name, value)?;
            }
        }
        Ok(fields)
    }

    fn clone_ref(&self, py: Python<'_>) -> Self {
        let configs = self.configs.each_ref().map(|config| config.as_ref().map(|config| config.clone_ref(py)));
        Self { engine: self.engine.clone(), collect: self.collect, configs }
    }

    fn config(&self, name: &str) -> Option<&Py<PyAny>> {
        CONFIGS.iter().zip(&self.configs).find(|(known, _)| **known == name)?.1.as_ref()
    }

    /// The configs of both sides; one for a side counts more than one for both.
    pub fn sides(&self, py: Python<'_>, functions: &mut Functions) -> (Side, Side) {
        (self.side(py, functions, Some(SOURCE)), self.side(py, functions, Some(DEST)))
    }

    /// Those for both sides, then `own`.
    pub fn side(&self, py: Python<'_>, functions: &mut Functions, own: Option<&str>) -> Side {
        let mut side = Side::default();
        for (name, config) in CONFIGS.iter().zip(&self.configs) {
            if let Some(config) = config
                && (KINDS.contains(name) || own == Some(name))
            {
                side.set(config.bind(py), functions);
            }
        }
        side
    }

    /// A config for one side must be for the kind of storage that is there.
    pub fn check_sides(&self, py: Python<'_>, source: &sy::SyncPath, dest: &sy::SyncPath) -> PyResult<()> {
        use sy::path::Scheme;
        for (name, path) in [(SOURCE, source), (DEST, dest)] {
            let Some(config) = self.config(name) else { continue };
            let wanted = match path.scheme {
                Scheme::S3 { .. } => "S3Config",
                Scheme::Gcs { .. } => "GcsConfig",
                Scheme::Azure { .. } => "AzureConfig",
                Scheme::Ssh { .. } => "SshConfig",
                Scheme::OpenDal { .. } => "OpenDalConfig",
                Scheme::Local => "no config",
            };
            let given = config.bind(py).get_type().name()?;
            if given != wanted {
                let message = format!("{name} is for another kind of storage: {path} takes {wanted}, not {given}");
                return Err(error::raise(py, &SyncError::config(message)));
            }
        }
        Ok(())
    }
}

fn fits(object: &Bound<'_, PyAny>, which: usize) -> bool {
    match which {
        0 => object.is_instance_of::<PyS3Config>(),
        1 => object.is_instance_of::<PyGcsConfig>(),
        2 => object.is_instance_of::<PyAzureConfig>(),
        3 => object.is_instance_of::<PySshConfig>(),
        4 => object.is_instance_of::<PyOpenDalConfig>(),
        _ => (0..5).any(|one| fits(object, one)),
    }
}

#[pymethods]
impl PySyncOptions {
    #[new]
    #[pyo3(signature = (**fields))]
    fn new(fields: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut this = Self::default();
        this.update("SyncOptions", fields)?;
        Ok(this)
    }

    /// The same with `changes`.
    ///
    /// >>> SyncOptions(delete=True).replace(dry_run=True)
    /// SyncOptions(dry_run=True, delete=True)
    #[pyo3(signature = (**changes))]
    fn replace(&self, py: Python<'_>, changes: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut this = self.clone_ref(py);
        this.update("replace", changes)?;
        Ok(this)
    }

    /// All fields by name, configs as dicts. A secret in a config is `"***"`, unless `secrets=True` asks for it.
    #[pyo3(signature = (*, secrets = false))]
    fn to_dict<'py>(&self, py: Python<'py>, secrets: bool) -> PyResult<Bound<'py, PyDict>> {
        let (dict, flags) = (PyDict::new(py), PyDict::new(py));
        flags.set_item("secrets", secrets)?;
        for name in Self::names() {
            let value = self.get(py, name)?;
            if !CONFIGS.contains(&name) || value.is_none() {
                dict.set_item(name, value)?;
                continue;
            }
            let config = value.call_method("to_dict", (), Some(&flags))?;
            if name.ends_with("_options") {
                config.set_item("type", value.get_type().name()?)?;
            }
            dict.set_item(name, config)?;
        }
        Ok(dict)
    }

    /// What `to_dict()` gave, as options again. A secret that was left out is a `ConfigError`.
    ///
    /// >>> options = SyncOptions(delete=True, s3=S3Config(region="eu-west-1"))
    /// >>> SyncOptions.from_dict(options.to_dict()) == options
    /// True
    #[staticmethod]
    fn from_dict(fields: &Bound<'_, PyDict>) -> PyResult<Self> {
        let (py, fields) = (fields.py(), fields.copy()?);
        for (which, name) in CONFIGS.iter().enumerate() {
            let Some(given) = fields.get_item(name)? else { continue };
            let Ok(given) = given.cast::<PyDict>() else { continue };
            let given = given.copy()?;
            let class = match given.get_item("type")? {
                Some(class) => class.extract::<String>()?,
                None => CLASSES.get(which).copied().unwrap_or_default().to_owned(),
            };
            given.del_item("type").ok();
            if !CLASSES.contains(&class.as_str()) {
                let message = format!("{name} must say its \"type\": {}", CLASSES.join(", "));
                return Err(error::raise(py, &SyncError::config(message)));
            }
            fields.set_item(name, py.import("sypy._sypy")?.getattr(class)?.call_method1("from_dict", (given,))?)?;
        }
        Self::new(Some(&fields))
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let Ok(other) = other.cast::<Self>() else { return Ok(py.NotImplemented()) };
        let other = other.get();
        let mut same = self.engine == other.engine && self.collect == other.collect;
        for (a, b) in self.configs.iter().zip(&other.configs) {
            same = same
                && match (a, b) {
                    (Some(a), Some(b)) => a.bind(py).eq(b)?,
                    (a, b) => a.is_none() && b.is_none(),
                };
        }
        Ok(PyBool::new(py, same).to_owned().into_any().unbind())
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        PyTuple::new(py, Self::names().map(|name| self.get(py, name)).collect::<PyResult<Vec<_>>>()?)?.hash()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let changed = self.changed(py)?;
        let fields = changed.iter().map(|(name, value)| Ok((name.to_string(), value.repr()?.to_string())));
        Ok(value::repr("SyncOptions", &fields.collect::<PyResult<Vec<_>>>()?))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        value::reduce(slf.as_any(), slf.get().changed(slf.py())?)
    }

    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }
}

/// Puts the fields on the class, with their texts. An option without one here has the command line's.
pub fn install(py: Python<'_>) -> PyResult<()> {
    use clap::Args;
    let command = Options::augment_args(clap::Command::new("sypy"));
    let help = |name: &str| command.get_arguments().find(|arg| arg.get_id() == name)?.get_help().map(ToString::to_string);
    value::properties(
        &py.get_type::<PySyncOptions>(),
        PySyncOptions::names(),
        |name| value::doc_of(DOCS, name).or_else(|| help(name)).unwrap_or_default(),
        |this, name| Ok(this.cast::<PySyncOptions>()?.get().get(this.py(), name)?.unbind()),
    )
}

const DOCS: &[(&str, &str)] = &[
    ("dry_run", "Plan and change nothing; the stats say what would be done. `False` by default."),
    ("delete", "Remove from the destination what the source does not have. `False` by default."),
    (
        "delete_threshold",
        "Refuse to delete more than this percent of the destination's entries, 0 to 100, with a `DeleteLimitError` before the first \
         deletion. 50 by default.",
    ),
    ("max_delete", "Refuse to delete more than this many entries; `None` (default): no such limit."),
    ("force_delete", "Lift both limits on deletions. `False` by default."),
    ("trash", "Move what is deleted to the trash, or into `backup_dir` if there is one. `False` by default."),
    ("backup_dir", "Directory that replaced and deleted files are moved to, below a dated folder; `None` (default): none."),
    ("existing", "Update only what the destination has already. `False` by default."),
    ("ignore_existing", "Leave alone what the destination has already. `False` by default."),
    ("remove_source_files", "Remove each source file once its copy is verified to be in place. `False` by default."),
    ("bidirectional", "Sync both ways. `False` by default."),
    (
        "conflict_resolve",
        "Which side wins where both have changed: `\"newer\"` (default), `\"older\"`, `\"larger\"`, `\"smaller\"`, `\"source\"`, \
         `\"dest\"` or `\"rename\"`.",
    ),
    ("checksum", "Compare contents instead of size and time. `False` by default."),
    ("size_only", "Compare sizes only. `False` by default."),
    ("ignore_times", "Copy also what has the same size and time. `False` by default."),
    ("update", "Leave alone what is newer at the destination. `False` by default."),
    ("filter", "rsync filter rules in order, such as `[\"+ *.py\", \"- *\"]`; the first that matches decides. Empty by default."),
    ("include", "rsync patterns of what to take in all the same; they stand before `exclude`. Empty by default."),
    ("exclude", "rsync patterns of what to leave out. Empty by default."),
    ("gitignore", "Leave out what `.gitignore` files say. `False` by default."),
    ("exclude_vcs", "Leave out `.git`, `.hg`, `.svn` and their like. `False` by default."),
    ("min_size", "Leave out files smaller than this: bytes, or text such as `\"10MB\"` or `\"1GiB\"`; `None` (default): none."),
    ("max_size", "Leave out files larger than this: bytes, or text such as `\"10MB\"` or `\"1GiB\"`; `None` (default): none."),
    (
        "min_age",
        "Leave out files changed less than this long ago: seconds, a `timedelta`, or text such as `\"2d\"`; `None` (default): none.",
    ),
    (
        "max_age",
        "Leave out files last changed longer ago than this: seconds, a `timedelta`, or text such as `\"2d\"`; `None` (default): none.",
    ),
    ("preserve_times", "Give copies the modification times of the source. `True` by default."),
    ("preserve_permissions", "Give copies the permissions of the source. `True` by default."),
    ("preserve_xattrs", "Preserve extended attributes. `False` by default."),
    ("preserve_acls", "Preserve access control lists. `False` by default."),
    ("preserve_hardlinks", "Make names that are one file in the source one file at the destination. `False` by default."),
    ("preserve_owner", "Preserve owner and group. `False` by default."),
    ("numeric_ids", "Over SSH: owner and group by number also where both sides have names for them. `False` by default."),
    ("preserve_devices", "Preserve devices, FIFOs and sockets. `False` by default."),
    ("archive", "Preserve all that the user may. `False` by default."),
    ("links", "What becomes of symbolic links: `\"preserve\"` (default), `\"follow\"` (replaced by what they point to) or `\"skip\"`."),
    ("unsafe_links", "Let followed links lead out of the source. `False` by default."),
    ("sparse", "Keep holes in files. `True` by default."),
    ("parallel", "Transfers at a time; `None`: tuned to the storage. 10 by default. In object stores eight small objects count as one."),
    ("bwlimit", "Bytes per second at most, as int or text such as `\"10MB\"`; `None` (default): no limit."),
    ("resume", "Keep and reuse partial transfers. `True` by default."),
    ("verify", "Read each copy back and compare bytes. `False` by default."),
    ("compress", "Compress on the wire (SSH) where it helps. `False` by default."),
    ("durable", "Have everything on disk before success is reported. `False` by default."),
    ("max_errors", "Stop after this many failed items; 0: never. 100 by default."),
    ("retry", "Further tries of a failed item. 3 by default."),
    (
        "retry_delay",
        "Seconds before the first retry, longer before each next: a number, a `timedelta` or text such as `\"500ms\"`. 1 by default.",
    ),
    ("timeout", "Stop the run after this long, with a `NetworkTimeoutError`: seconds, a `timedelta` or text; `None` (default): never."),
    ("daemon_auto", "Keep the SSH connection and agent for the next run. `False` by default."),
    (
        ON_ERROR,
        "When the run is over and some items failed: `\"raise\"` (default) a `PartialSyncError` that has the stats, or `\"collect\"` \
         the errors in the stats.",
    ),
    ("s3", "An `S3Config` for locations in S3; `None` (default): the environment's credentials."),
    ("gcs", "A `GcsConfig` for locations in Google Cloud Storage; `None` (default): the environment's credentials."),
    ("azure", "An `AzureConfig` for locations in Azure; `None` (default): the environment's credentials."),
    ("ssh", "An `SshConfig` for SSH hosts; `None` (default): ssh's own configuration."),
    ("opendal", "An `OpenDalConfig` for `opendal+SERVICE://` locations; `None` (default): the environment's options."),
    ("source_options", "A config for the source alone, where both sides are of one kind; `None` by default."),
    ("dest_options", "A config for the destination alone, where both sides are of one kind; `None` by default."),
];
