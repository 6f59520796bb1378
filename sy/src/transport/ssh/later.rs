//! Requests whose answers nobody waits for: so directories are made and finished without a round trip each. What a broken
//! connection took with it is asked again over the next one, before anything else is.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::session::{Reply, Session};
use super::wire::{Kind, Put, cut_off};
use crate::error::Result;

/// So many answers may be outstanding.
const MOST: usize = 4096;
/// So often a request goes over another connection.
const TRIES: u32 = 3;

/// What an answer says.
#[derive(Debug, Clone)]
pub enum About {
    /// Whether a directory was made.
    Made,
    /// Whether that directory differed.
    Directory(Box<[u8]>),
    Nothing,
}

#[derive(Debug)]
struct One {
    number: u64,
    kind: Kind,
    body: Put,
    about: About,
    /// `None` while somebody waits for it.
    reply: Option<Reply>,
    answer: Option<Result<Vec<u8>>>,
    tries: u32,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<One>,
    next: u64,
}

/// In the order in which they were sent.
#[derive(Debug, Default)]
pub struct Later(Mutex<Queue>);

impl One {
    /// Has the answer come?
    fn look(&mut self) {
        let (Some(reply), None) = (&mut self.reply, &self.answer) else { return };
        match reply.try_next() {
            Ok(Some(frame)) => self.answer = Some(Ok(frame.body)),
            Err(error) if reply.is_ended() => self.answer = Some(Err(error)),
            // The rest is known when somebody waits for it, or when there is another connection.
            Ok(None) | Err(_) => {}
        }
    }
}

impl Later {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn send(&self, session: &Session, kind: Kind, body: &Put, about: &About) -> Result<()> {
        let mut queue = self.lock();
        let reply = session.ask(kind, body.clone())?;
        let (body, about) = (body.clone(), about.clone());
        queue.next += 1;
        let number = queue.next;
        queue.waiting.push_back(One { number, kind, body, about, reply: Some(reply), answer: None, tries: 0 });
        Ok(())
    }

    /// Asks again what has not been answered.
    pub fn send_again(&self, session: &Session) -> Result<()> {
        for one in &mut self.lock().waiting {
            one.look();
            if one.answer.is_some() {
                continue;
            }
            one.tries += 1;
            if one.tries > TRIES {
                one.answer = Some(Err(cut_off()));
                continue;
            }
            if let (Kind::MakeDir, Some(again)) = (one.kind, one.body.0.last_mut()) {
                *again = 1;
            }
            one.reply = Some(session.ask(one.kind, one.body.clone())?);
        }
        Ok(())
    }

    /// The next answer. Without `wait` only one that is there, unless too many are outstanding. `renew` makes another connection, and sends all again, where the
    /// one that carried it is broken.
    pub fn next(&self, wait: bool, renew: &dyn Fn() -> Result<()>) -> Option<(About, Result<Vec<u8>>)> {
        loop {
            let mut queue = self.lock();
            let wait = wait || queue.waiting.len() > MOST;
            let first = queue.waiting.front_mut()?;
            first.look();
            if first.answer.is_some() {
                let first = queue.waiting.pop_front()?;
                return Some((first.about, first.answer?));
            }
            if !wait {
                return None;
            }
            let number = first.number;
            let Some(mut reply) = first.reply.take() else {
                // Another thread waits for it.
                drop(queue);
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            drop(queue);
            let answer = reply.done();
            let (ended, stopped) = (reply.is_ended(), reply.is_stopped());
            if answer.is_ok() || ended || stopped {
                self.answered(number, answer);
            } else if let Err(error) = renew() {
                self.answered(number, Err(error));
            }
        }
    }

    fn answered(&self, number: u64, answer: Result<Vec<u8>>) {
        if let Some(one) = self.lock().waiting.iter_mut().find(|one| one.number == number) {
            one.answer = Some(answer);
        }
    }
}
