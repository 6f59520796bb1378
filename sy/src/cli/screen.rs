//! Standard output and standard error, shared by the threads of a run and the progress bar.
//!
//! Lines are gathered and written by one thread, the pump, so that a reader who has stopped reading holds up the
//! run but not its cancellation. Writes go to the descriptors themselves: nothing is kept that a later call could print.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use super::flags::Show;
use super::progress::Bar;
use super::{Reporter, exit};
use crate::error::SyncError;
use crate::sync::Control;

/// How often the pump writes and progress is shown.
const TICK: Duration = Duration::from_millis(100);
/// Gathered bytes that wake the pump early, and that hold up whoever adds more.
const WAKE: usize = 64 << 10;
const FULL: usize = 1 << 20;
/// How long a reader who does not read can hold up the end of a cancelled run.
const PATIENCE: Duration = Duration::from_millis(500);

/// The lines to print and the bar.
#[derive(Debug)]
pub struct Screen {
    pub bar: Bar,
    pub control: Arc<Control>,
    lines: Mutex<Vec<u8>>,
    /// There is something to write, or the run is over.
    work: Condvar,
    /// There is room again.
    room: Condvar,
    pumping: AtomicBool,
    /// Why standard output can't be written to any more.
    failure: OnceLock<Errno>,
    /// The bar and the lines are in the same place.
    shared: bool,
}

impl Screen {
    pub fn new(show: &Show, control: &Arc<Control>) -> Arc<Self> {
        Arc::new(Self {
            bar: Bar::new(show),
            control: Arc::clone(control),
            lines: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            pumping: AtomicBool::new(false),
            failure: OnceLock::new(),
            shared: std::io::stdout().is_terminal(),
        })
    }

    /// Adds a line that `build` writes, without its newline, to standard output.
    pub fn line(&self, build: impl FnOnce(&mut Vec<u8>)) {
        if self.failure.get().is_some() {
            return;
        }
        let mut lines = self.lock();
        while lines.len() >= FULL && self.pumping.load(Relaxed) && !self.control.is_cancelled() {
            lines = self.room.wait_timeout(lines, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
        build(&mut lines);
        lines.push(b'\n');
        if lines.len() >= WAKE {
            self.work.notify_one();
        }
    }

    /// Prints a line on standard error at once.
    pub fn error(&self, text: &str) {
        self.bar.suspend(|| print_error(&format!("{text}\n")));
    }

    /// Nobody reads standard output any more.
    pub fn is_broken(&self) -> bool {
        self.failure.get() == Some(&Errno::PIPE)
    }

    /// Writes what is left. The exit code says whether all of it could be written.
    pub fn close(&self, program: &str) -> u8 {
        if self.failure.get() != Some(&Errno::TIMEDOUT) {
            self.bar.clear();
            self.flush();
        }
        match self.failure.get() {
            None | Some(&Errno::PIPE) => exit::DONE,
            Some(errno) => {
                let why = SyncError::os(*errno, "write", "").message;
                print_error(&format!("{program}: cannot write to standard output: {why}\n"));
                exit::REFUSED
            }
        }
    }

    fn flush(&self) {
        let lines = std::mem::take(&mut *self.lock());
        self.room.notify_all();
        if !lines.is_empty() && self.failure.get().is_none() {
            let print = || write(rustix::stdio::stdout(), &lines);
            if let Err(errno) = if self.shared { self.bar.suspend(print) } else { print() } {
                let _ = self.failure.set(errno);
                if errno == Errno::PIPE {
                    self.control.cancel();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that writes lines and shows progress while a run lasts.
pub struct Pump {
    reporter: Arc<dyn Reporter>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// Starts it if there will be anything to show.
    pub fn start(reporter: &Arc<dyn Reporter>) -> Self {
        let screen = reporter.screen();
        let mut thread = None;
        if screen.bar.is_on() || reporter.wants_actions() {
            screen.pumping.store(true, Relaxed);
            let reporter = Arc::clone(reporter);
            thread = std::thread::Builder::new().name("sy-screen".to_owned()).spawn(move || pump(&*reporter)).ok();
            // Without a thread, lines wait for the end.
            screen.pumping.store(thread.is_some(), Relaxed);
        }
        Self { reporter: Arc::clone(reporter), thread }
    }
}

/// Ends it when all lines are written; when the run was cancelled, soon.
impl Drop for Pump {
    fn drop(&mut self) {
        let screen = self.reporter.screen();
        let Some(thread) = self.thread.take() else { return };
        let lines = screen.lock();
        screen.pumping.store(false, Relaxed);
        drop(lines);
        screen.work.notify_one();
        let mut cancelled = None;
        while !thread.is_finished() {
            if screen.control.is_cancelled() && cancelled.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                let _ = screen.failure.set(Errno::TIMEDOUT);
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = thread.join();
    }
}

fn pump(reporter: &dyn Reporter) {
    let screen = reporter.screen();
    while screen.pumping.load(Relaxed) {
        let due = Instant::now() + TICK;
        let mut lines = screen.lock();
        while lines.len() < WAKE && screen.pumping.load(Relaxed) {
            let Some(left) = due.checked_duration_since(Instant::now()) else { break };
            lines = screen.work.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(lines);
        screen.flush();
        if screen.pumping.load(Relaxed) {
            reporter.tick();
        }
    }
    screen.flush();
}

/// Prints text on standard output. The exit code says whether it could be written; a reader who went away is no failure.
pub fn print(text: &str) -> u8 {
    match write(rustix::stdio::stdout(), text.as_bytes()) {
        Ok(()) | Err(Errno::PIPE) => exit::DONE,
        Err(_) => exit::REFUSED,
    }
}

/// Prints text on standard error. If that fails there is nobody to tell.
pub fn print_error(text: &str) {
    let _ = write(rustix::stdio::stderr(), text.as_bytes());
}

fn write(stream: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(stream, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            // A terminal or pipe that another program has made non-blocking.
            Err(Errno::AGAIN) => std::thread::sleep(Duration::from_millis(1)),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Puts /dev/null where a caller has closed standard input, output or error. Otherwise the next file that
/// the run opens would get that number, and messages would end up in a user's file.
pub fn open_standard_streams() {
    let closed = |fd: BorrowedFd<'_>| rustix::io::fcntl_getfd(fd) == Err(Errno::BADF);
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if closed(fd) {
            // The lowest free number is this one.
            if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
                std::mem::forget(null);
            }
        }
    }
}
