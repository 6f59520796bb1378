//! Exit codes, as rsync has them where it has one.

use crate::error::{ErrorKind, SyncError};
use crate::sync::Outcome;

pub const DONE: u8 = 0;
pub const REFUSED: u8 = 1;
pub const PARTIAL: u8 = 23;
pub const VANISHED: u8 = 24;
pub const DELETE_LIMIT: u8 = 25;
pub const TIMEOUT: u8 = 30;
pub const INTERRUPTED: u8 = 130;
pub const BROKEN_PIPE: u8 = 141;

/// What `--help`, the man page and the manual say about them.
pub const TABLE: &[(&str, &str)] = &[
    ("0", "done"),
    ("1", "wrong usage, refused before anything was changed, or the run as a whole failed"),
    ("23", "some items failed; the others are done"),
    ("24", "some source files vanished before they could be read; the others are done"),
    ("25", "a limit on deletions stopped them, or the source is empty"),
    ("30", "--timeout stopped the run"),
    ("129", "stopped by SIGHUP"),
    ("130", "stopped by Ctrl-C"),
    ("141", "stopped because nobody reads the output any more"),
    ("143", "stopped by SIGTERM"),
];

/// The code for how a run ended.
pub fn code(outcome: &Outcome) -> u8 {
    let failed = &outcome.stats.errors;
    match outcome.error.as_ref().map(|error| error.kind) {
        Some(ErrorKind::DeleteLimit) => DELETE_LIMIT,
        Some(ErrorKind::Cancelled) => INTERRUPTED,
        Some(ErrorKind::Timeout) => TIMEOUT,
        Some(_) if failed.is_empty() => REFUSED,
        None if failed.is_empty() => DONE,
        None if failed.iter().all(vanished) => VANISHED,
        _ => PARTIAL,
    }
}

/// A source file went away after it was listed. A hint tells of something else, such as a link that points to nothing.
fn vanished(error: &SyncError) -> bool {
    error.kind == ErrorKind::NotFound && error.action == "read" && error.hint.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Stats;

    fn ended(error: Option<ErrorKind>, failed: &[(ErrorKind, &'static str)]) -> u8 {
        let errors = failed.iter().map(|&(kind, action)| SyncError::new(kind, "it failed").at(action, "a")).collect();
        code(&Outcome { stats: Stats { errors, ..Stats::default() }, error: error.map(|kind| SyncError::new(kind, "it ended")) })
    }

    #[test]
    fn codes() {
        use ErrorKind::{Cancelled, Config, DeleteLimit, Io, NotFound, PermissionDenied, Timeout};
        for (error, failed, code) in [
            (None, &[][..], 0),
            (Some(Config), &[], 1),
            (Some(NotFound), &[], 1),
            (None, &[(PermissionDenied, "read")], 23),
            (None, &[(NotFound, "read")], 24),
            (None, &[(NotFound, "write")], 23),
            (None, &[(NotFound, "read"), (Io, "read")], 23),
            (Some(Io), &[(Io, "write")], 23),
            (Some(DeleteLimit), &[], 25),
            (Some(DeleteLimit), &[(Io, "read")], 25),
            (Some(Timeout), &[], 30),
            (Some(Cancelled), &[(Io, "read")], 130),
        ] {
            assert_eq!(ended(error, failed), code, "{error:?} {failed:?}");
        }
    }

    #[test]
    fn a_link_that_points_to_nothing_has_not_vanished() {
        let error = SyncError::new(ErrorKind::NotFound, "No such file or directory").at("read", "a").hint("the link points to nothing");
        assert_eq!(code(&Outcome { stats: Stats { errors: vec![error], ..Stats::default() }, error: None }), PARTIAL);
    }

    #[test]
    fn every_code_is_in_the_table() {
        for code in [DONE, REFUSED, PARTIAL, VANISHED, DELETE_LIMIT, TIMEOUT, INTERRUPTED, BROKEN_PIPE] {
            assert!(TABLE.iter().any(|(listed, _)| *listed == code.to_string()), "{code}");
        }
    }
}
