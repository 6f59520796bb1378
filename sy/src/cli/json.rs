//! What programs read: events as JSON, one object a line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::line::Line;
use super::object::Object;
use super::progress::Rate;
use super::screen::Screen;
use super::{Reporter, Show, exit};
use crate::error::SyncError;
use crate::sync::{ActionEvent, Control, Level, Observer, Outcome};

pub struct Json {
    screen: Arc<Screen>,
    show: Show,
    program: String,
    /// The second of the last progress event.
    last: AtomicU64,
    rate: std::sync::Mutex<Rate>,
}

impl Json {
    pub fn new(line: &Line, control: &Arc<Control>) -> Self {
        Self {
            screen: Screen::new(&line.show, control),
            show: line.show.clone(),
            program: line.program.clone(),
            last: AtomicU64::new(0),
            rate: std::sync::Mutex::default(),
        }
    }

    fn emit(&self, event: &str, fields: impl FnOnce(&mut Object)) {
        self.screen.line(|out| {
            let mut object = Object::new(out, event);
            fields(&mut object);
            object.end();
        });
    }

    fn failure(&self, error: &SyncError, fatal: bool) {
        self.screen.line(|out| failure(out, error, fatal));
    }
}

/// The object that tells of a failure.
pub fn failure(out: &mut Vec<u8>, error: &SyncError, fatal: bool) {
    let mut o = Object::new(out, "error");
    o.text("kind", snake(&format!("{:?}", error.kind)).as_bytes());
    o.text("action", error.action.as_bytes());
    o.maybe("path", error.path.as_deref());
    o.text("message", error.message.as_bytes());
    o.maybe("hint", error.hint.as_ref().map(String::as_bytes));
    match error.errno {
        Some(errno) => o.raw("errno", errno),
        None => o.raw("errno", "null"),
    }
    o.raw("retryable", error.retryable);
    o.raw("fatal", fatal);
    o.end();
}

impl Observer for Json {
    fn wants_actions(&self) -> bool {
        true
    }

    fn wants_skips(&self) -> bool {
        self.show.verbose > 1
    }

    fn action(&self, event: ActionEvent) {
        self.emit("action", |o| {
            o.text("action", event.action.name().as_bytes());
            o.text("kind", event.kind.name().as_bytes());
            o.text("path", &event.key);
            o.text("reason", event.reason.name().as_bytes());
            o.raw("bytes", event.bytes);
            match event.old_bytes {
                Some(bytes) => o.raw("old_bytes", bytes),
                None => o.raw("old_bytes", "null"),
            }
            o.maybe("target", event.target.as_deref());
        });
    }

    fn error(&self, error: &SyncError) {
        self.failure(error, false);
    }

    fn log(&self, level: Level, message: &str) {
        let name = match level {
            Level::Warning => "warning",
            _ if self.show.verbose < 3 => return,
            Level::Info => "info",
            Level::Debug => "debug",
        };
        self.emit("log", |o| {
            o.text("level", name.as_bytes());
            o.text("message", message.as_bytes());
        });
    }
}

impl Reporter for Json {
    fn screen(&self) -> &Arc<Screen> {
        &self.screen
    }

    fn start(&self, line: &Line) {
        self.emit("start", |o| {
            o.text("source", &line.source.to_bytes());
            o.text("dest", &line.dest.to_bytes());
            o.raw("dry_run", line.options.dry_run);
            o.text("version", env!("CARGO_PKG_VERSION").as_bytes());
        });
    }

    fn tick(&self) {
        let progress = self.screen.control.progress();
        self.screen.bar.show(&progress);
        let rate = self.rate.lock().map_or(0.0, |mut rate| rate.of(&progress));
        let second = progress.elapsed.as_secs();
        if self.last.swap(second, Relaxed) == second {
            return;
        }
        self.emit("progress", |o| {
            o.raw("bytes", progress.bytes);
            o.raw("total_bytes", progress.total_bytes);
            o.raw("bytes_per_sec", rate as u64);
            o.raw("transfers", progress.transfers);
            o.raw("total_transfers", progress.total_transfers);
            o.raw("active_transfers", progress.active_transfers);
            o.raw("scanned", progress.scanned);
            o.raw("totals_are_final", progress.totals_are_final);
            o.maybe("current_file", progress.current_file.as_deref());
            o.raw("elapsed_secs", format_args!("{:.3}", progress.elapsed.as_secs_f64()));
        });
    }

    fn finish(&self, outcome: &Outcome, code: u8) {
        if let Some(error) = &outcome.error {
            self.failure(error, true);
            if code != exit::BROKEN_PIPE {
                self.screen.error(&format!("{}: {error}", self.program));
            }
        }
        let stats = &outcome.stats;
        self.emit("stats", |o| {
            for (name, n) in stats.counters() {
                o.raw(name, n);
            }
            o.raw("failed", stats.errors.len());
            o.raw("peak_memory", stats.peak_memory);
            o.raw("transfer_rate", stats.transfer_rate() as u64);
            o.raw("duration_secs", format_args!("{:.6}", stats.duration.as_secs_f64()));
            o.raw("success", code == exit::DONE);
            o.raw("exit_code", code);
        });
    }
}

/// `NotFound` → `not_found`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_error_have_stable_names() {
        assert_eq!(snake("PermissionDenied"), "permission_denied");
        assert_eq!(snake("Io"), "io");
    }
}
