//! What people read: a line for each change, failures as they happen, a summary, a table.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Reporter;
use super::flags::Show;
use super::human::{count, duration, size};
use super::line::Line;
use super::screen::Screen;
use crate::error::{ErrorKind, Printable, SyncError};
use crate::sync::{Action, ActionEvent, Control, Kind, Level, Observer, Outcome, Stats};

/// Failed items that are shown without `--verbose`.
const SHOWN: u64 = 20;

pub struct Human {
    screen: Arc<Screen>,
    show: Show,
    dry_run: bool,
    program: String,
    failed: AtomicU64,
}

impl Human {
    pub fn new(line: &Line, control: &Arc<Control>) -> Self {
        Self {
            screen: Screen::new(&line.show, control),
            show: line.show.clone(),
            dry_run: line.options.dry_run,
            program: line.program.clone(),
            failed: AtomicU64::new(0),
        }
    }

    fn itemizes(&self) -> bool {
        self.show.itemize_changes || self.dry_run
    }

    fn complain(&self, what: &dyn std::fmt::Display) {
        self.screen.error(&format!("{}: {what}", self.program));
    }
}

impl Observer for Human {
    fn wants_actions(&self) -> bool {
        !self.show.quiet && (self.show.verbose > 0 || self.itemizes())
    }

    fn wants_skips(&self) -> bool {
        self.show.verbose > 1
    }

    fn action(&self, event: ActionEvent) {
        self.screen.line(|out| {
            let text = if self.itemizes() { itemized(&event) } else { named(&event) };
            out.extend_from_slice(text.as_bytes());
        });
    }

    fn error(&self, error: &SyncError) {
        if self.failed.fetch_add(1, Relaxed) < SHOWN || self.show.verbose > 0 {
            self.complain(error);
        }
    }

    fn log(&self, level: Level, message: &str) {
        let wanted = match level {
            Level::Warning => !self.show.quiet,
            Level::Info | Level::Debug => self.show.verbose >= 3,
        };
        if wanted {
            let label = if level == Level::Warning { "warning: " } else { "" };
            self.complain(&format_args!("{label}{}", Printable(message.as_bytes())));
        }
    }
}

impl Reporter for Human {
    fn screen(&self) -> &Arc<Screen> {
        &self.screen
    }

    fn start(&self, _line: &Line) {}

    fn tick(&self) {
        self.screen.bar.show(&self.screen.control.progress());
    }

    fn finish(&self, outcome: &Outcome, _code: u8) {
        self.screen.bar.clear();
        let failed = self.failed.load(Relaxed);
        if failed > SHOWN && self.show.verbose == 0 {
            self.complain(&format_args!("{} more failed; -v shows all", count(failed - SHOWN)));
        }
        let stats = &outcome.stats;
        if let Some(error) = &outcome.error {
            if !(error.kind == ErrorKind::Cancelled && self.screen.is_broken()) {
                self.complain(error);
            }
            // A run that was refused has nothing to sum up.
            if stats.counters().all(|(_, n)| n == 0) {
                return;
            }
        }
        if !self.show.quiet {
            self.screen.line(|out| out.extend_from_slice(summary(stats, self.dry_run, outcome.error.is_none()).as_bytes()));
        }
        if self.show.stats {
            self.screen.line(|out| out.extend_from_slice(table(stats).as_bytes()));
        }
    }
}

/// The line of `--verbose`: `create    a/b`, and for what is skipped also why.
fn named(event: &ActionEvent) -> String {
    let why = if event.action == Action::Skip { format!("  ({})", event.reason.name()) } else { String::new() };
    format!("{:<8}  {}{why}", event.action.name(), name(event))
}

/// The line of `--itemize-changes` and `--dry-run`: `create    file        12.3 kB  a/b  (new)`.
fn itemized(event: &ActionEvent) -> String {
    let bytes = if event.kind == Kind::File { size(event.bytes) } else { String::new() };
    format!("{:<8}  {:<9}  {bytes:>8}  {}  ({})", event.action.name(), event.kind.name(), name(event), event.reason.name())
}

/// A name, safe to print: directories end in a slash, links show where they point.
fn name(event: &ActionEvent) -> String {
    let mut name = if event.key.is_empty() { ".".to_owned() } else { Printable(&event.key).to_string() };
    if event.kind == Kind::Dir {
        name.push('/');
    }
    if let Some(target) = &event.target {
        let _ = write!(name, " -> {}", Printable(target));
    }
    name
}

/// A run in a line: `1,204 created, 31 updated, 7 deleted, 96,310 unchanged, 4.1 GB in 38.2 s`.
/// `complete` is false when something ended the run early.
pub fn summary(stats: &Stats, dry_run: bool, complete: bool) -> String {
    let made = [
        (stats.files_created, "created", "create"),
        (stats.files_updated, "updated", "update"),
        (stats.files_metadata_updated, "with new metadata", "set the metadata of"),
        (stats.files_deleted, "deleted", "delete"),
    ];
    let dirs = [(stats.dirs_created, "created", "create"), (stats.dirs_deleted, "deleted", "delete")];
    let mut parts = Vec::new();
    for (n, done, to_do) in made.iter().filter(|part| part.0 > 0) {
        parts.push(if dry_run { format!("{to_do} {}", count(*n)) } else { format!("{} {done}", count(*n)) });
    }
    for (n, done, to_do) in dirs.iter().filter(|part| part.0 > 0) {
        let many = format!("{} {}", count(*n), if *n == 1 { "directory" } else { "directories" });
        parts.push(if dry_run { format!("{to_do} {many}") } else { format!("{many} {done}") });
    }
    let nothing = parts.is_empty() && stats.errors.is_empty();
    if stats.files_skipped > 0 || nothing {
        let same = count(stats.files_skipped);
        parts.push(if dry_run && !nothing { format!("leave {same} unchanged") } else { format!("{same} unchanged") });
    }
    if !stats.errors.is_empty() {
        parts.push(format!("{} failed", count(stats.errors.len() as u64)));
    }
    let bytes = if dry_run { stats.bytes_would_add + stats.bytes_would_change } else { stats.bytes_transferred };
    if bytes > 0 {
        parts.push(size(bytes) + if dry_run { " to copy" } else { "" });
    }
    let label = match (complete, nothing, dry_run) {
        (false, ..) => "stopped early: ",
        (_, true, _) => "nothing to do: ",
        (.., true) => "would ",
        _ => "",
    };
    format!("{label}{} in {}", parts.join(", "), duration(stats.duration))
}

/// All counters, a line each.
fn table(stats: &Stats) -> String {
    let mut rows: Vec<(String, String)> = stats
        .counters()
        .map(|(name, n)| {
            let exact = count(n);
            let value = if name.contains("bytes") && n >= 1000 { format!("{exact}  ({})", size(n)) } else { exact };
            (name.replace('_', " "), value)
        })
        .collect();
    rows.push(("failed".to_owned(), count(stats.errors.len() as u64)));
    rows.push(("transfer rate".to_owned(), format!("{}/s", size(stats.transfer_rate() as u64))));
    rows.push(("peak memory".to_owned(), size(stats.peak_memory)));
    rows.push(("duration".to_owned(), duration(stats.duration)));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    rows.iter().map(|(name, value)| format!("{name:<width$}  {value}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sync::Reason;

    fn event(key: &[u8], kind: Kind, action: Action, reason: Reason) -> ActionEvent {
        ActionEvent { key: key.to_vec(), kind, action, reason, bytes: 12_345, old_bytes: None, target: None }
    }

    #[test]
    fn itemized_lines() {
        let create = event(b"a/b", Kind::File, Action::Create, Reason::New);
        assert_eq!(itemized(&create), "create    file        12.3 kB  a/b  (new)");
        let delete = event(b"old", Kind::Dir, Action::Delete, Reason::NotInSource);
        assert_eq!(itemized(&delete), "delete    directory            old/  (not in source)");
        let link = ActionEvent { target: Some(b"../x".to_vec()), ..event(b"l", Kind::Symlink, Action::Update, Reason::Target) };
        assert_eq!(itemized(&link), "update    symlink              l -> ../x  (target differs)");
        assert_eq!(named(&create), "create    a/b");
        assert_eq!(named(&event(b"a\n\xff", Kind::File, Action::Skip, Reason::Unchanged)), "skip      a\\n\\xff  (unchanged)");
        assert_eq!(named(&event(b"", Kind::Dir, Action::Metadata, Reason::Metadata)), "metadata  ./");
    }

    #[test]
    fn summaries() {
        let stats = Stats { files_created: 1204, files_updated: 31, files_deleted: 7, files_skipped: 96_310, ..Stats::default() };
        let stats = Stats { bytes_transferred: 4_100_000_000, bytes_would_add: 12, duration: Duration::from_secs_f64(38.2), ..stats };
        assert_eq!(summary(&stats, false, true), "1,204 created, 31 updated, 7 deleted, 96,310 unchanged, 4.1 GB in 38.2 s");
        assert_eq!(summary(&stats, true, true), "would create 1,204, update 31, delete 7, leave 96,310 unchanged, 12 B to copy in 38.2 s");
        let errors = vec![SyncError::cancelled()];
        let dirs = Stats { dirs_created: 1, dirs_deleted: 2, files_metadata_updated: 3, errors, ..Stats::default() };
        assert_eq!(summary(&dirs, false, true), "3 with new metadata, 1 directory created, 2 directories deleted, 1 failed in 0 ms");
        let same = Stats { files_skipped: 2, duration: Duration::from_millis(80), ..Stats::default() };
        assert_eq!(summary(&same, false, true), "nothing to do: 2 unchanged in 80 ms");
        assert_eq!(summary(&same, true, true), "nothing to do: 2 unchanged in 80 ms");
        assert_eq!(summary(&same, false, false), "stopped early: 2 unchanged in 80 ms");
        assert_eq!(summary(&Stats::default(), false, true), "nothing to do: 0 unchanged in 0 ms");
    }
}
