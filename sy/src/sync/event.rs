//! What a run says while it is under way: actions, failures, log records and progress.
//!
//! The engine reports to an `Observer`; a terminal, an NDJSON stream or a language binding is one.

use std::time::Duration;

use crate::error::SyncError;
use crate::transport::Kind;

/// What is done about one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Create,
    Update,
    /// Only times, permissions, owner or attributes.
    Metadata,
    Delete,
    Skip,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Metadata => "metadata",
            Self::Delete => "delete",
            Self::Skip => "skip",
        }
    }
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The destination does not have it.
    New,
    Size,
    Time,
    Content,
    /// Another kind of thing stands there.
    Kind,
    /// `ignore_times`.
    Forced,
    /// A symbolic link points elsewhere, or a device has another number.
    Target,
    /// It should be, or should not be, the same file as another name.
    HardLink,
    /// Times, permissions, owner or attributes differ.
    Metadata,
    /// The source does not have it.
    NotInSource,
    Unchanged,
    /// `update`: the destination is newer.
    DestNewer,
    /// `ignore_existing`.
    Exists,
    /// `existing`.
    Missing,
    /// `min_size`, `max_size`.
    SizeLimit,
    /// `min_age`, `max_age`.
    AgeLimit,
    /// A kind of file that was not asked for.
    NotPreserved,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Size => "size differs",
            Self::Time => "time differs",
            Self::Content => "content differs",
            Self::Kind => "kind differs",
            Self::Forced => "forced",
            Self::Target => "target differs",
            Self::HardLink => "hard link",
            Self::Metadata => "metadata differs",
            Self::NotInSource => "not in source",
            Self::Unchanged => "unchanged",
            Self::DestNewer => "destination is newer",
            Self::Exists => "exists",
            Self::Missing => "not at destination",
            Self::SizeLimit => "size limit",
            Self::AgeLimit => "age limit",
            Self::NotPreserved => "not preserved",
        }
    }
}

/// One action, planned (dry run) or done. `key` is relative to the root of the run, without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionEvent {
    pub key: Vec<u8>,
    pub kind: Kind,
    pub action: Action,
    pub reason: Reason,
    /// Content bytes: of the new file, or of the one deleted.
    pub bytes: u64,
    /// Content bytes of what the destination had, if it had it.
    pub old_bytes: Option<u64>,
    /// Target of a symbolic link.
    pub target: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Debug,
    Info,
    Warning,
}

/// Receives what a run says. Called from worker threads, so it must be quick and must not panic.
pub trait Observer: Send + Sync {
    /// Are actions wanted? When not, the engine does not build them.
    fn wants_actions(&self) -> bool {
        false
    }
    /// Are skipped files wanted as well?
    fn wants_skips(&self) -> bool {
        false
    }
    fn action(&self, _event: ActionEvent) {}
    fn error(&self, _error: &SyncError) {}
    fn log(&self, _level: Level, _message: &str) {}
}

/// An observer that does not listen.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {}

/// How far a run is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Content bytes transferred so far.
    pub bytes: u64,
    /// Content bytes to transfer that are known of so far.
    pub total_bytes: u64,
    /// Files done, and known of.
    pub transfers: u64,
    pub total_transfers: u64,
    /// Files being transferred right now.
    pub active_transfers: u64,
    /// Entries looked at.
    pub scanned: u64,
    /// The totals will not grow any more.
    pub totals_are_final: bool,
    pub current_file: Option<Vec<u8>>,
    pub elapsed: Duration,
}
