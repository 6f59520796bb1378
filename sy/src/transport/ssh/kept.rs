//! Connections that wait for the next run of this process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::SshConfig;
use super::connect::Target;
use super::session::Session;
use crate::sync::Stop;

/// After so long without a run a connection ends.
pub const IDLE: Duration = Duration::from_secs(60);
/// So many wait at most; the oldest gives way.
const MOST: usize = 8;

struct Kept {
    /// A forked child has the descriptors, but neither the thread that reads nor the right to write.
    process: u32,
    target: Target,
    config: SshConfig,
    session: Arc<Session>,
    since: Instant,
}

static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// A connection of that kind, if one waits.
pub fn take(target: &Target, config: &SshConfig, stop: &Stop) -> Option<Arc<Session>> {
    let process = std::process::id();
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    forget_inherited(&mut kept, process);
    kept.retain(|one| one.since.elapsed() < IDLE && !one.session.is_dead());
    let found = kept.iter().position(|one| (&one.target, &one.config) == (target, config))?;
    let session = kept.swap_remove(found).session;
    session.belongs_to(stop);
    Some(session)
}

/// Keeps a connection on which nothing is open.
pub fn keep(target: &Target, config: &SshConfig, session: Arc<Session>) {
    session.rest();
    let process = std::process::id();
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    forget_inherited(&mut kept, process);
    if kept.len() >= MOST {
        kept.remove(0);
    }
    kept.push(Kept { process, target: target.clone(), config: config.clone(), session, since: Instant::now() });
}

/// What a parent process left is not for this one to end.
fn forget_inherited(kept: &mut Vec<Kept>, process: u32) {
    for one in kept.extract_if(.., |one| one.process != process) {
        std::mem::forget(one);
    }
}
