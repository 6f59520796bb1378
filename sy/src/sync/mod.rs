//! A one-way run, in the order data flows: scan → compare → plan → apply → stats.

mod apply;
mod compare;
mod context;
mod control;
mod delete;
mod dir;
mod event;
mod frame;
mod hardlinks;
mod known;
mod owners;
mod plan;
mod pool;
pub(crate) mod preflight;
mod scan;
mod stats;

pub use control::{Control, Stop};
pub use dir::{Dir, Finisher, Slot};
pub use event::{Action, ActionEvent, Level, Observer, Progress, Reason, Silent};
pub use owners::Owners;
pub use stats::{Stats, Tally};

pub use crate::transport::Kind;

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use apply::Work;
use compare::Rules;
use context::Context;
use known::Known;
use owners::Renamed;
use plan::Planner;
use pool::{Closer, Pool};
use scan::ReadAhead;

use crate::cli::{Options, both_names};
use crate::error::{ErrorKind, Result, SyncError};
use crate::filter::{Filter, FilterSpec};
use crate::path::SyncPath;
use crate::transport::access::Accesses;
use crate::transport::open::{self, Opened};
use crate::transport::{Endpoint, Time};

/// How a run ended: what it did, and what ended it early, if anything.
/// Failed items stand in `stats.errors`; `error` is a refusal, a cancellation or a failure of the whole run.
#[derive(Debug)]
pub struct Outcome {
    pub stats: Stats,
    pub error: Option<SyncError>,
}

/// Makes `dest` like `source`. Blocks until done; `control` cancels and tells progress from other threads.
/// `accesses` are the credentials of both sides, where there are any to be given.
pub fn run(
    source: &SyncPath,
    dest: &SyncPath,
    options: &Options,
    accesses: &Accesses,
    control: &Control,
    observer: &dyn Observer,
) -> Outcome {
    let options = &resolved(options);
    let tally = Tally::default();
    let mut errors = Vec::new();
    let error = run_inner(source, dest, options, accesses, control, observer, &tally, &mut errors).err();
    // Whoever waits for an answer only knows that the run has to end, not why.
    let error = error.map(|error| if error.kind == ErrorKind::Cancelled { stopped(control).err().unwrap_or(error) } else { error });
    let mut stats = tally.snapshot();
    stats.errors = errors;
    stats.duration = control.elapsed();
    stats.peak_memory = peak_memory();
    Outcome { stats, error }
}

/// `archive` stands for all that the user may preserve.
fn resolved(options: &Options) -> Options {
    let mut options = options.clone();
    if options.archive {
        options.preserve_times = true;
        options.preserve_permissions = true;
        options.preserve_xattrs = true;
        options.preserve_acls = true;
        options.preserve_hardlinks = true;
        if rustix::process::geteuid().is_root() {
            options.preserve_owner = true;
            options.preserve_devices = true;
        }
    }
    options
}

#[expect(clippy::too_many_arguments, reason = "what a run is made of")]
fn run_inner(
    source: &SyncPath,
    dest: &SyncPath,
    options: &Options,
    accesses: &Accesses,
    control: &Control,
    observer: &dyn Observer,
    tally: &Tally,
    errors: &mut Vec<SyncError>,
) -> Result<()> {
    if let Some(timeout) = options.timeout {
        control.set_timeout(timeout.0);
    }
    preflight::check_options(source, dest, options)?;
    let filter = filter(options)?;
    let mut options = options.clone();
    let sides = preflight::open(source, dest, &mut options, accesses, control)?;
    let options = &options;
    sides.notes.iter().for_each(|note| observer.log(Level::Warning, note));
    let _lock = match &sides.dest {
        // The agent of a host holds one there.
        Some(dest) if !options.dry_run && !matches!(dest, Opened::Ssh(_)) => {
            let lock = match dest.local() {
                Some(dest) => crate::state::lock_tree(Path::new(OsStr::from_bytes(dest.real_path())), sides.only())?,
                None => crate::state::lock_name(&dest.endpoint().identity(), sides.only(), &dest.endpoint().path_of(b""))?,
            };
            if lock.is_none() {
                observer.log(Level::Warning, "no lock could be kept in the state directory; do not run twice into one destination");
            }
            lock
        }
        _ => None,
    };
    let owners = match &sides.dest {
        Some(dest) if options.preserve_owner && !options.numeric_ids => open::owners(&sides.source, dest),
        _ => None,
    };
    let renamed = owners.map(|owners| Renamed::new(sides.source.endpoint(), owners));
    let from = renamed.as_ref().map_or(sides.source.endpoint(), |renamed| renamed as &dyn Endpoint);
    let to = sides.dest.as_ref().map(Opened::endpoint);
    let precision = from.capabilities().mtime_precision.max(to.map_or(1, |to| to.capabilities().mtime_precision));
    let lane = match &sides.dest {
        Some(dest) => Some(open::lane(&sides.source, dest, options, precision, control, tally)?),
        None => None,
    };
    let known = Known::open(&sides, options);
    let cx = Context {
        options,
        control,
        observer,
        tally,
        source: from,
        dest: to,
        owners: renamed.as_ref().map(|renamed| &renamed.owners),
        lane: lane.as_deref(),
        rules: Rules::new(options, precision, Time::now().total_nanos()),
        source_root: from.root_meta().ok().filter(|meta| !meta.tagged).map(|meta| meta.identity()),
        dest_root: to.and_then(|dest| dest.root_meta().ok()).filter(|meta| !meta.tagged).map(|meta| meta.identity()),
        known: known.as_ref(),
        errors: Mutex::default(),
        conflicts: AtomicBool::new(false),
    };
    let outcome = sides.start(from).and_then(|start| carry_out(&cx, start, &filter, sides.spared(options)));
    if let (Some(lane), false) = (&lane, options.dry_run) {
        lane.end(sides.only());
    }
    errors.extend(cx.take_errors());
    if let (Some(known), false) = (known, options.dry_run)
        && let Err(error) = known.finish(outcome.is_ok() && !control.should_stop())
    {
        observer.log(Level::Warning, &format!("what was compared could not be remembered: {error}"));
    }
    outcome
}

/// One way through: plan and apply side by side, then links, second tries, deletions.
fn carry_out(cx: &Context<'_>, start: plan::Start, filter: &Filter, spared: Vec<Vec<u8>>) -> Result<()> {
    let descriptors = spare_descriptors();
    // A third of them for listings read ahead, a third for jobs (two directories each), a sixth for the directories
    // above the current one; the rest for the files themselves.
    let ahead = ReadAhead::new(descriptors / 3);
    let work = Work::new(cx, Pool::new((descriptors / 6).min(128), &ahead));
    std::thread::scope(|threads| {
        let _closer = Closer(&work.pool);
        let workers = cx.lane.and_then(|lane| lane.pace().workers).unwrap_or_else(|| workers(cx.options));
        // The planner is one of them.
        let started = work.pool.start(threads, workers.saturating_sub(1));
        started.map_err(|error| SyncError::new(ErrorKind::Io, format!("can't start a thread: {error}")))?;
        let mut planner = Planner::new(cx, &work, &ahead, (descriptors / 12).clamp(1, 64), spared);
        let walked = planner.walk(start, filter.root());
        work.pool.drain();
        walked?;
        work.settle();
        work.retry();
        work.settle();
        stopped(cx.control)?;
        if cx.control.gave_up() {
            // Not everything was looked at, so nothing may be deleted.
            cx.log(
                Level::Warning,
                &format!("stopped after {} failed items, as {} says; nothing was deleted", cx.options.max_errors, both_names("max_errors")),
            );
            work.give_up();
            return Ok(());
        }
        let deleted = delete(cx, &work, &mut planner);
        work.after_deletions(std::mem::take(&mut planner.after_deletions), matches!(deleted, Ok(true)));
        work.give_up();
        drop(planner);
        work.settle();
        deleted?;
        stopped(cx.control)?;
        match cx.lane {
            Some(lane) if cx.options.durable && !cx.dry_run() => lane.sync_all(),
            _ => Ok(()),
        }
    })
    .inspect_err(|_| work.give_up())
}

/// Judges the deletions and carries them out; `false` if they were held back.
fn delete<'r>(cx: &'r Context<'r>, work: &Work<'r>, planner: &mut Planner<'_, 'r>) -> Result<bool> {
    let doomed = planner.graveyard.len();
    if planner.incomplete && doomed > 0 {
        cx.log(Level::Warning, &format!("{doomed} deletions were held back, because not everything could be listed"));
        return Ok(false);
    }
    if cx.conflicts.load(Relaxed) && doomed > 0 {
        cx.log(Level::Warning, &format!("{doomed} deletions were held back, because the destination changed during the run"));
        return Ok(false);
    }
    delete::judge(cx, doomed, planner.dest_entries)?;
    delete::carry_out(work, cx, &mut planner.graveyard)
        .map_err(|error| SyncError::io(&error, "read the list of deletions in", std::env::temp_dir()))?;
    Ok(true)
}

/// Why the run has to end here, if it has to.
fn stopped(control: &Control) -> Result<()> {
    if control.is_cancelled() {
        Err(SyncError::cancelled())
    } else if control.timed_out() {
        Err(SyncError::new(ErrorKind::Timeout, "the run took longer than its timeout and was stopped")
            .hint("what was copied is in place; the next run goes on from here"))
    } else {
        Ok(())
    }
}

fn filter(options: &Options) -> Result<Filter> {
    let bytes = |rules: &[std::ffi::OsString]| rules.iter().map(|rule| rule.clone().into_vec()).collect();
    let spec = FilterSpec {
        filter: bytes(&options.filter),
        include: bytes(&options.include),
        exclude: bytes(&options.exclude),
        gitignore: options.gitignore,
        exclude_vcs: options.exclude_vcs,
    };
    Filter::new(&spec).map_err(|error| SyncError::config(error.to_string()))
}

/// Threads that work, the planner's among them: small files are bound by system calls, which more threads don't make fewer.
fn workers(options: &Options) -> u32 {
    let cores = std::thread::available_parallelism().map_or(2, |n| n.get() as u32);
    cores.clamp(2, 4).min(options.parallel.unwrap_or(u32::MAX)).max(1)
}

/// How many more files this process may open, less some for others.
fn spare_descriptors() -> usize {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1024);
    let open = open_descriptors().unwrap_or(16);
    most.min(4096).saturating_sub(open + 8).max(12) as usize
}

fn open_descriptors() -> Option<u64> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let dir = rustix::fs::open("/proc/self/fd", flags, rustix::fs::Mode::empty()).ok()?;
    let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
    let mut entries = rustix::fs::RawDir::new(dir, &mut buffer);
    let mut count = 0;
    while let Some(Ok(_)) = entries.next() {
        count += 1;
    }
    Some(count)
}

/// Bytes, of the whole process so far.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
