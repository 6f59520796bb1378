//! The door into the engine: a run on a thread of its own, while the calling thread delivers what it says and looks for signals.
//!
//! Nothing here is global, so calls from many threads and from forked children don't meet. Only the calling thread touches Python.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString};
use sy::sync::{ActionEvent, Control, Level, Observer};
use sy::{SyncError, SyncPath};

use crate::credentials::{self, Ask, Functions, Question};
use crate::details::{Change, PyActionEvent, PyDryRunDetails};
use crate::error;
use crate::options::PySyncOptions;
use crate::path::location;
use crate::progress::Speed;
use crate::stats::PySyncStats;
use crate::value::{self, bytes};

/// How long a signal may wait.
const WAKE: Duration = Duration::from_millis(50);
/// How often a progress bar is drawn.
const REDRAW: Duration = Duration::from_millis(100);
/// Messages in flight. The engine waits when a callback can't keep up.
const QUEUE: usize = 1024;
/// Messages delivered before signals are looked at again.
const BATCH: usize = 64;

enum Message<T> {
    Action(ActionEvent),
    Failed(SyncError),
    Log(Level, String),
    Ask(Question),
    Done(std::thread::Result<T>),
}

/// What the engine talks to, on its own threads.
struct Queue<T> {
    sender: SyncSender<Message<T>>,
    events: bool,
    log: Level,
    /// Of a dry run.
    changes: Option<Mutex<Vec<Change>>>,
}

impl<T: Send> Queue<T> {
    /// Blocks while the queue is full. The caller's thread empties it until the run is over, also after a cancellation.
    fn send(&self, message: Message<T>) {
        self.sender.send(message).ok();
    }
}

impl<T: Send> Observer for Queue<T> {
    fn wants_actions(&self) -> bool {
        self.events || self.changes.is_some()
    }

    fn wants_skips(&self) -> bool {
        self.wants_actions()
    }

    fn action(&self, event: ActionEvent) {
        if self.events {
            self.send(Message::Action(event.clone()));
        }
        if let Some(changes) = &self.changes
            && let Some(change) = Change::of(event)
            && let Ok(mut changes) = changes.lock()
        {
            changes.push(change);
        }
    }

    fn error(&self, error: &SyncError) {
        if self.events {
            self.send(Message::Failed(error.clone()));
        }
    }

    fn log(&self, level: Level, message: &str) {
        if level >= self.log {
            self.send(Message::Log(level, message.to_owned()));
        }
    }
}

/// Who is told how far the run is.
struct Watcher {
    callback: Py<PyAny>,
    every: Duration,
    next: Instant,
    speed: Speed,
}

impl Watcher {
    fn new(callback: Py<PyAny>, every: Duration) -> Self {
        Self { callback, every, next: Instant::now() + every, speed: Speed::default() }
    }
}

/// Whom a run talks to, on the calling thread.
#[derive(Default)]
pub struct Audience {
    watchers: Vec<Watcher>,
    on_event: Option<Py<PyAny>>,
    /// A progress bar, to be closed when the run is over.
    bar: Option<Py<PyAny>>,
    /// What gives credentials.
    pub functions: Functions,
}

impl Audience {
    /// How long the calling thread may sleep.
    fn sleep(&self) -> Duration {
        let now = Instant::now();
        self.watchers.iter().map(|watcher| watcher.next.saturating_duration_since(now)).fold(WAKE, Duration::min)
    }

    fn progress(&mut self, py: Python<'_>, control: &Control, last: bool) -> PyResult<()> {
        let now = Instant::now();
        for watcher in &mut self.watchers {
            if last || watcher.next <= now {
                let snapshot = watcher.speed.snapshot(control.progress(), last);
                watcher.callback.call1(py, (snapshot,))?;
                watcher.next = now + watcher.every;
            }
        }
        Ok(())
    }

    fn deliver<T>(&self, py: Python<'_>, message: Message<T>) -> PyResult<()> {
        match message {
            Message::Action(event) => self.event(py, PyActionEvent::from(event)),
            Message::Failed(failed) => self.event(py, error::exception(py, &failed)?),
            Message::Log(level, text) => logger(py)?.call_method1("log", (number(level), text)).map(drop),
            Message::Ask(question) => self.functions.answer(py, &question),
            Message::Done(_) => Ok(()),
        }
    }

    fn event<'py>(&self, py: Python<'py>, event: impl pyo3::IntoPyObjectExt<'py>) -> PyResult<()> {
        match &self.on_event {
            Some(callback) => callback.call1(py, (event.into_py_any(py)?,)).map(drop),
            None => Ok(()),
        }
    }
}

fn logger(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("logging")?.call_method1("getLogger", ("sypy",))
}

/// Python's number for a level.
fn number(level: Level) -> u8 {
    match level {
        Level::Debug => 10,
        Level::Info => 20,
        Level::Warning => 30,
    }
}

/// The least level that a log record must have. Until someone imports `logging`, that is Python's own default.
fn log_level(py: Python<'_>) -> PyResult<Level> {
    if !py.import("sys")?.getattr("modules")?.contains("logging")? {
        return Ok(Level::Warning);
    }
    let least: i64 = logger(py)?.call_method0("getEffectiveLevel")?.extract()?;
    Ok([Level::Debug, Level::Info].into_iter().find(|level| i64::from(number(*level)) >= least).unwrap_or(Level::Warning))
}

/// What a run came to, and the changes that a dry run found.
pub struct Finished<T> {
    pub value: T,
    changes: Vec<Change>,
}

/// Does `work` on another thread. An exception from a signal or a callback cancels it, waits for its clean-up, and is returned.
pub fn drive<T: Send + 'static>(
    py: Python<'_>,
    control: &Arc<Control>,
    mut audience: Audience,
    details: bool,
    work: impl FnOnce(&Arc<Control>, &dyn Observer, &Ask) -> T + Send + 'static,
) -> PyResult<Finished<T>> {
    let (sender, mut receiver) = sync_channel(QUEUE);
    let queue = Arc::new(Queue { sender, events: audience.on_event.is_some(), log: log_level(py)?, changes: details.then(Mutex::default) });
    let thread = std::thread::Builder::new().name("sypy-run".into()).spawn({
        let (queue, control) = (Arc::clone(&queue), Arc::clone(control));
        move || {
            let asked = Arc::clone(&queue);
            let ask: Ask = Arc::new(move |question| asked.send(Message::Ask(question)));
            let result = catch_unwind(AssertUnwindSafe(|| work(&control, &*queue, &ask)));
            queue.send(Message::Done(result));
        }
    });
    let thread = thread.map_err(|failure| PyRuntimeError::new_err(format!("cannot start a thread: {failure}")))?;

    let mut failure: Option<PyErr> = None;
    let fail = |failure: &mut Option<PyErr>, error: PyErr| {
        control.cancel();
        // The first is what the user did; what follows from it is not news.
        failure.get_or_insert(error);
    };
    let result = loop {
        // After a failure nobody is told how far the run is.
        let sleep = if failure.is_none() { audience.sleep() } else { WAKE };
        let first;
        (receiver, first) = py.detach(move || wait(receiver, sleep));
        let mut message = match first {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("this function holds a sender"),
        };
        let (mut done, mut left) = (None, BATCH);
        while let Some(one) = message {
            match one {
                Message::Done(result) => done = Some(result),
                // After a failure nobody listens; the queue is emptied so that the engine can end.
                _ if failure.is_some() => {}
                other => {
                    if let Err(error) = audience.deliver(py, other) {
                        fail(&mut failure, error);
                    }
                }
            }
            left -= 1;
            message = if left > 0 { receiver.try_recv().ok() } else { None };
        }
        if let Some(result) = done {
            break result;
        }
        if let Err(error) = py.check_signals() {
            fail(&mut failure, error);
        }
        if failure.is_none()
            && let Err(error) = audience.progress(py, control, false)
        {
            fail(&mut failure, error);
        }
    };
    // It has sent its last message; until it is gone, `os.fork` would warn of it.
    py.detach(|| thread.join()).ok();
    if failure.is_none() {
        failure = audience.progress(py, control, true).err();
    }
    if let Some(bar) = &audience.bar
        && let Err(error) = bar.call_method0(py, "close")
    {
        failure.get_or_insert(error);
    }
    match (failure, result) {
        (Some(error), _) => Err(error),
        (None, Ok(value)) => {
            let changes = queue.changes.as_ref().and_then(|changes| changes.lock().ok().map(|mut changes| std::mem::take(&mut *changes)));
            Ok(Finished { value, changes: changes.unwrap_or_default() })
        }
        (None, Err(panic)) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(PyRuntimeError::new_err(format!("the engine failed, which is a bug in sypy: {}", text.unwrap_or("no reason given"))))
        }
    }
}

/// A receiver can't be shared with a closure that runs detached, so it goes in and comes out.
fn wait<T>(receiver: Receiver<Message<T>>, sleep: Duration) -> (Receiver<Message<T>>, Result<Message<T>, RecvTimeoutError>) {
    let message = receiver.recv_timeout(sleep);
    (receiver, message)
}

/// What `sync` takes beside the options.
#[derive(Default)]
struct Calls<'py> {
    progress: Option<Bound<'py, PyAny>>,
    progress_callback: Option<Bound<'py, PyAny>>,
    progress_frequency_ms: Option<Bound<'py, PyAny>>,
    on_event: Option<Bound<'py, PyAny>>,
}

const CALLS: [&str; 4] = ["progress", "progress_callback", "progress_frequency_ms", "on_event"];

impl<'py> Calls<'py> {
    fn assign(&mut self, name: &str, object: &Bound<'py, PyAny>) -> bool {
        let field = match name {
            "progress" => &mut self.progress,
            "progress_callback" => &mut self.progress_callback,
            "progress_frequency_ms" => &mut self.progress_frequency_ms,
            "on_event" => &mut self.on_event,
            _ => return false,
        };
        *field = (!object.is_none()).then(|| object.clone());
        true
    }

    fn audience(&self, py: Python<'py>) -> PyResult<Audience> {
        let mut audience = Audience::default();
        let every = match &self.progress_frequency_ms {
            Some(number) => {
                let whole = number.extract::<i64>().ok().filter(|_| !number.is_instance_of::<PyBool>());
                let number = whole.ok_or_else(|| PyTypeError::new_err("progress_frequency_ms must be a whole number of milliseconds"))?;
                let positive = u64::try_from(number).ok().filter(|number| *number > 0);
                positive.ok_or_else(|| error::raise(py, &SyncError::config("progress_frequency_ms must be at least 1")))?
            }
            None => 1000,
        };
        let every = Duration::from_millis(every);
        if let Some(callback) = &self.progress_callback {
            audience.watchers.push(Watcher::new(callable("progress_callback", callback)?, every));
        }
        match self.progress.as_ref().map(|progress| (progress, progress.cast::<PyBool>())) {
            None => {}
            Some((_, Ok(wanted))) => {
                if wanted.is_true()
                    && let bar = py.import("sypy._progress")?.call_method0("bar")?
                    && !bar.is_none()
                {
                    audience.watchers.push(Watcher::new(bar.clone().unbind(), REDRAW));
                    audience.bar = Some(bar.unbind());
                }
            }
            Some((callback, Err(_))) => audience.watchers.push(Watcher::new(callable("progress", callback)?, every)),
        }
        if let Some(callback) = &self.on_event {
            audience.on_event = Some(callable("on_event", callback)?);
        }
        Ok(audience)
    }
}

fn callable(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    match object.is_callable() {
        true => Ok(object.clone().unbind()),
        false => Err(PyTypeError::new_err(format!("{name} must be callable, not {}", object.get_type().name()?))),
    }
}

fn run<'py>(
    py: Python<'py>,
    source: SyncPath,
    dest: SyncPath,
    options: &PySyncOptions,
    calls: &Calls<'py>,
) -> PyResult<Bound<'py, PySyncStats>> {
    options.check_sides(py, &source, &dest)?;
    let mut audience = calls.audience(py)?;
    let (from, to) = options.sides(py, &mut audience.functions);
    let (control, engine) = (Arc::new(Control::default()), options.engine.clone());
    let (dry_run, bwlimit) = (engine.dry_run, engine.bwlimit.map(|limit| limit.0));
    let finished = drive(py, &control, audience, dry_run, move |control, observer, ask| {
        let accesses = credentials::accesses(from, to, ask, control);
        sy::run(&source, &dest, &engine, &accesses, control, observer)
    })?;
    let outcome = finished.value;
    let details = dry_run.then_some(PyDryRunDetails { changes: finished.changes, bwlimit });
    let stats = Bound::new(py, PySyncStats::of(py, &outcome.stats, dry_run, details)?)?;
    match outcome.error {
        Some(fatal) => Err(error::raise_fatal(py, &fatal, &stats)),
        None if stats.get().failed(py) && !options.collect => Err(error::raise_partial(py, &stats)),
        None => Ok(stats),
    }
}

/// Makes `dest` like `source`, and says what it did.
///
/// `source` and `dest` are locations: text, `bytes`, path objects or `SyncPath`. A source directory with a trailing slash means its
/// contents; without one, the directory itself goes inside `dest`. Everything else is a keyword:
///
/// - each field of `SyncOptions`, such as `delete=True`, `exclude=["*.tmp"]`, `checksum=True` or `dry_run=True`; see there for all
///   of them, their units and defaults;
/// - `progress=True` draws a bar (rich in a terminal, a widget in a notebook, nothing elsewhere); any callable is called with a
///   `ProgressSnapshot`. `None` by default;
/// - `progress_callback`: a callable that gets a `ProgressSnapshot` every `progress_frequency_ms` milliseconds (1000 by default)
///   and once at the end;
/// - `on_event`: a callable that gets an `ActionEvent` for each entry and a `SyncError` for each failed item.
///
/// Callbacks run on the calling thread; an exception in one stops the run and is raised. Log records go to the logger `"sypy"`.
/// Ctrl-C stops the run within a second and leaves no half-written file under its final name. The GIL is free meanwhile.
///
/// Returns `SyncStats`. Raises `PartialSyncError` when some items failed (its `.stats` has the rest; `on_error="collect"` returns
/// the stats instead), another `SyncError` when the run was refused or could not go on, `TypeError` for an unknown keyword or a wrong
/// type, and `ConfigError` (a `ValueError`) for a wrong value.
///
/// >>> import pathlib, tempfile
/// >>> with tempfile.TemporaryDirectory() as folder:
/// ...     source = pathlib.Path(folder, "photos")
/// ...     source.mkdir()
/// ...     _ = source.joinpath("a.jpg").write_text("picture")
/// ...     stats = sync(source, f"{folder}/backup/")
/// ...     copied = pathlib.Path(folder, "backup/photos/a.jpg").read_text()
/// >>> stats.files_created, copied
/// (1, 'picture')
#[pyfunction]
#[pyo3(signature = (source, dest, **options))]
pub fn sync<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    dest: &Bound<'py, PyAny>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PySyncStats>> {
    let (mut fields, mut calls) = (PySyncOptions::default(), Calls::default());
    for (name, object) in options.into_iter().flatten() {
        let name = name.cast::<PyString>()?.to_str()?;
        if !calls.assign(name, &object) && !fields.assign(name, &object)? {
            let known: Vec<_> = PySyncOptions::names().chain(CALLS).collect();
            return Err(value::unknown_keyword(py, "sync", name, &known));
        }
    }
    run(py, location(source)?, location(dest)?, &fields, &calls)
}

/// The same as `sync()`, with the options as one object.
///
/// `options` is a `SyncOptions`; the callback and its frequency are those of `sync()`. Returns and raises what `sync()` does.
///
/// >>> import os, tempfile
/// >>> with tempfile.TemporaryDirectory() as folder:
/// ...     sync_with_options(os.__file__, folder, SyncOptions(dry_run=True)).files_created
/// 1
#[pyfunction]
#[pyo3(signature = (source, dest, options, progress_callback=None, progress_frequency_ms=None), text_signature = "(source, dest, options, progress_callback=None, progress_frequency_ms=1000)")]
pub fn sync_with_options<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    dest: &Bound<'py, PyAny>,
    options: &Bound<'py, PyAny>,
    progress_callback: Option<Bound<'py, PyAny>>,
    progress_frequency_ms: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PySyncStats>> {
    let options = options
        .cast::<PySyncOptions>()
        .map_err(|_| PyTypeError::new_err("options must be a SyncOptions; sync() takes them as keywords"))?;
    let calls = Calls { progress_callback, progress_frequency_ms, ..Calls::default() };
    run(py, location(source)?, location(dest)?, options.get(), &calls)
}

/// Runs a command line, the program's name first, and returns its exit code. `sypy._cli` says what signals do.
#[pyfunction]
pub fn main(py: Python<'_>, argv: Vec<Bound<'_, PyAny>>) -> PyResult<u8> {
    let words = argv.iter().map(|word| {
        let word = bytes(word)?.ok_or_else(|| PyTypeError::new_err("a command line is made of text"))?;
        match word.contains(&0) {
            true => Err(PyValueError::new_err("a command line must not hold a NUL")),
            false => Ok(OsString::from_vec(word)),
        }
    });
    let words = words.collect::<PyResult<Vec<_>>>()?;
    let control = Arc::new(Control::default());
    drive(py, &control, Audience::default(), false, move |control, _, _| sy::cli::main(words, control)).map(|finished| finished.value)
}
