//! Credentials on their way into the engine: configs of both sides, and functions that are asked for fresh ones.
//!
//! The engine asks on its own threads, which don't touch Python: the question goes to the thread that waits for the run.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDateTime, PyMapping, PyString};
use sy::SyncError;
use sy::sync::Control;
use sy::transport::access::{Access, Accesses, Login, Refresh};
use sy::transport::cloud::{AzureConfig, GcsConfig, S3Config};
use sy::transport::config::Config;
use sy::transport::opendal_config::OpenDalConfig;
use sy::transport::ssh::SshConfig;

use crate::config::Fields;
use crate::error;

/// How often one who waits for an answer looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Names and values, as the engine takes them.
pub type Answer = Vec<(String, String)>;

/// A Python function that gives credentials. Two are equal if they are one.
#[derive(Clone)]
pub struct Function(Arc<Py<PyAny>>);

impl Function {
    pub fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        match object.is_callable() {
            true => Ok(Self(Arc::new(object.clone().unbind()))),
            false => Err(PyTypeError::new_err(format!("credentials must be a function or None, not {}", object.get_type().name()?))),
        }
    }

    pub fn get<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.0.bind(py)
    }

    /// Calls it, on a thread that may. `kind` says what a good answer has.
    fn call(&self, py: Python<'_>, kind: Kind) -> PyResult<Answer> {
        let given = self.get(py).call0()?;
        let Ok(given) = given.cast::<PyMapping>() else {
            let message = format!("credentials must return a mapping of names to text, not {}", given.get_type().name()?);
            return Err(PyTypeError::new_err(message));
        };
        let mut answer = Answer::new();
        for pair in given.items()? {
            let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
            let Ok(name) = name.extract::<String>() else {
                return Err(PyTypeError::new_err("credentials must return a mapping of names to text"));
            };
            if value.is_none() {
                continue;
            }
            let value = if name == "expires" { time(&value)? } else { text(&name, &value)? };
            answer.push((name, value));
        }
        kind.check(&answer).map_err(|failure| error::raise(py, &failure))?;
        Ok(answer)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ptr() == other.0.as_ptr()
    }
}

/// The value is never shown.
fn text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    match value.cast::<PyString>() {
        Ok(text) => text.extract(),
        Err(_) => Err(PyTypeError::new_err(format!("{name} of credentials must be text, not {}", value.get_type().name()?))),
    }
}

/// A time as RFC 3339. Text goes as it is; the engine judges it.
fn time(value: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = value.py();
    if value.is_instance_of::<PyString>() {
        return value.extract();
    }
    if !value.is_instance_of::<PyDateTime>() {
        let message = format!("expires of credentials must be a datetime, text or None, not {}", value.get_type().name()?);
        return Err(PyTypeError::new_err(message));
    }
    if value.call_method0("utcoffset")?.is_none() {
        let failure = SyncError::config("expires of credentials must be an aware datetime").hint("datetime.now(timezone.utc) makes such");
        return Err(error::raise(py, &failure));
    }
    let utc = py.import("datetime")?.getattr("timezone")?.getattr("utc")?;
    let text: String = value.call_method1("astimezone", (utc,))?.call_method0("isoformat")?.extract()?;
    Ok(text.replace("+00:00", "Z"))
}

/// What proves who asks, by the kind of storage.
#[derive(Clone, Copy)]
pub enum Kind {
    S3,
    Gcs,
    Azure,
}

impl Kind {
    fn check(self, answer: &Answer) -> Result<(), SyncError> {
        let (all, one): (&[&str], &[&str]) = match self {
            Self::S3 => (&["access_key_id", "secret_access_key", "session_token"], &["access_key_id", "secret_access_key"]),
            Self::Gcs => (&["token"], &["token"]),
            Self::Azure => (&["token", "sas_token", "key"], &[]),
        };
        if let Some((name, _)) = answer.iter().find(|(name, _)| name != "expires" && !all.contains(&name.as_str())) {
            let failure = SyncError::config(format!("credentials have an unknown field {name:?}"));
            return Err(failure.hint(format!("known: {}, expires", all.join(", "))));
        }
        let has = |name: &&&str| answer.iter().any(|(given, value)| given == **name && !value.is_empty());
        if let Some(missing) = one.iter().find(|name| !has(name)) {
            return Err(SyncError::config(format!("credentials must have {missing}")));
        }
        match one.is_empty() && all.iter().filter(has).count() != 1 {
            true => Err(SyncError::config(format!("credentials must have one of {}", all.join(", ")))),
            false => Ok(()),
        }
    }
}

/// A question to the thread that may call Python.
pub struct Question {
    which: usize,
    answer: SyncSender<Answer>,
}

/// Takes questions to that thread.
pub type Ask = Arc<dyn Fn(Question) + Send + Sync>;

/// The functions of a run, by number.
#[derive(Default)]
pub struct Functions(Vec<(Function, Kind)>);

impl Functions {
    fn number(&mut self, function: &Function, kind: Kind) -> usize {
        self.0.push((function.clone(), kind));
        self.0.len() - 1
    }

    pub fn answer(&self, py: Python<'_>, question: &Question) -> PyResult<()> {
        if let Some((function, kind)) = self.0.get(question.which) {
            let answer = function.call(py, *kind)?;
            // Nobody waits for it any more: then the run is over.
            question.answer.send(answer).ok();
        }
        Ok(())
    }
}

/// A config, and the number of its function.
struct Given<C> {
    config: C,
    function: Option<usize>,
}

impl<C: Config> Given<C> {
    fn of(fields: &Fields<C>, kind: Kind, functions: &mut Functions) -> Self {
        let function = fields.credentials.as_ref().map(|function| functions.number(function, kind));
        Self { config: fields.config.clone(), function }
    }

    fn login(self, ask: &Ask, control: &Arc<Control>) -> Login<C> {
        let refresh = self.function.map(|which| -> Refresh {
            let (ask, control) = (Arc::clone(ask), Arc::clone(control));
            Arc::new(move || wait(which, &ask, &control))
        });
        Login { config: self.config, refresh }
    }
}

/// Asks and waits, until there is an answer or nobody wants it any more.
fn wait(which: usize, ask: &Ask, control: &Control) -> sy::Result<Answer> {
    if control.should_stop() {
        return Err(SyncError::cancelled());
    }
    let (sender, receiver) = sync_channel(1);
    ask(Question { which, answer: sender });
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Timeout) if !control.should_stop() => {}
            // The function failed, which ends the run, or the run has ended otherwise.
            Err(_) => return Err(SyncError::cancelled()),
        }
    }
}

/// The configs of one side, before there is a run.
#[derive(Default)]
pub struct Side {
    s3: Option<Given<S3Config>>,
    gcs: Option<Given<GcsConfig>>,
    azure: Option<Given<AzureConfig>>,
    ssh: Option<SshConfig>,
    opendal: Option<OpenDalConfig>,
}

impl Side {
    /// Takes a config in, in the place of an earlier one of its kind.
    pub fn set(&mut self, config: &Bound<'_, PyAny>, functions: &mut Functions) {
        use crate::config::{PyAzureConfig, PyGcsConfig, PyOpenDalConfig, PyS3Config, PySshConfig};
        if let Ok(config) = config.cast::<PyS3Config>() {
            self.s3 = Some(Given::of(&config.get().0, Kind::S3, functions));
        } else if let Ok(config) = config.cast::<PyGcsConfig>() {
            self.gcs = Some(Given::of(&config.get().0, Kind::Gcs, functions));
        } else if let Ok(config) = config.cast::<PyAzureConfig>() {
            self.azure = Some(Given::of(&config.get().0, Kind::Azure, functions));
        } else if let Ok(config) = config.cast::<PySshConfig>() {
            self.ssh = Some(config.get().0.config.clone());
        } else if let Ok(config) = config.cast::<PyOpenDalConfig>() {
            self.opendal = Some(config.get().0.config.clone());
        }
    }

    /// On the thread of the run.
    pub fn access(self, ask: &Ask, control: &Arc<Control>) -> Access {
        Access {
            s3: self.s3.map(|given| given.login(ask, control)),
            gcs: self.gcs.map(|given| given.login(ask, control)),
            azure: self.azure.map(|given| given.login(ask, control)),
            ssh: self.ssh,
            opendal: self.opendal,
        }
    }
}

/// Both sides.
pub fn accesses(source: Side, dest: Side, ask: &Ask, control: &Arc<Control>) -> Accesses {
    Accesses { source: source.access(ask, control), dest: dest.access(ask, control) }
}
