//! The other side: serves one root of this machine to whoever started it, over its standard input and output.
//!
//! Started by a fixed command; every path comes through the protocol, and everything below the root goes through
//! `local/`, which never leaves it. It ends with its connection.

mod queue;
mod read;
mod root;
mod walk;
mod write;

pub use read::FEW;
pub use write::SILENT;

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::wire::message::{GREETING, VERSION};
use super::wire::zip::When;
use super::wire::{Frame, Get, Incoming, Kind, Outgoing, Put, body, garbled};
use crate::error::{Result, SyncError};
use crate::sync::Control;

/// The word of the command line that starts an agent.
pub const COMMAND: &str = "agent";

/// So often the other side hears that all is well.
const PULSE: Duration = Duration::from_secs(10);

/// Where answers go.
pub type Out = Outgoing<File>;

/// Serves until the connection ends. `false`: it ended in the middle of something.
pub fn serve(input: File, output: File) -> bool {
    let out = Out::new(output);
    let ended = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let pulse = threads.spawn(|| {
            while !ended.load(Relaxed) {
                std::thread::park_timeout(PULSE);
                if !ended.load(Relaxed) && out.send(Kind::Ping, 0, body().0).is_err() {
                    return;
                }
            }
        });
        let served = converse(&mut Incoming::new(input), &out);
        ended.store(true, Relaxed);
        pulse.thread().unpark();
        if let Err(error) = &served {
            let _ = fail(&out, 0, error);
        }
        served.is_ok()
    })
}

fn converse(incoming: &mut Incoming<File>, out: &Out) -> Result<()> {
    let mut hello = body();
    hello.u32(VERSION);
    out.send_raw(GREETING)?;
    out.send(Kind::Hello, 0, hello.0)?;
    match incoming.next()? {
        Some(Frame { kind: Kind::Hello, body, .. }) if Get(&body).u32()? == VERSION => {
            let mut get = Get(&body);
            get.u32()?;
            out.zip(When::of(get.u8()?)?);
        }
        // It has heard our version, and says what is wrong to its user.
        Some(Frame { kind: Kind::Hello, .. }) | None => return Ok(()),
        Some(_) => return Err(garbled("no greeting")),
    }
    let mut next = incoming.next()?;
    while let Some(frame) = next {
        next = match frame.kind {
            Kind::OpenSource | Kind::OpenDest => {
                let control = Control::default();
                match root::Root::open(&frame, &control) {
                    Ok((root, answer)) => {
                        out.send(Kind::Done, frame.id, answer.0)?;
                        root.serve(&frame, incoming, out)?
                    }
                    Err(error) => {
                        fail(out, frame.id, &error)?;
                        incoming.next()?
                    }
                }
            }
            Kind::Close => {
                out.send(Kind::Done, frame.id, body().0)?;
                incoming.next()?
            }
            Kind::Ping => {
                ping(&frame, out)?;
                incoming.next()?
            }
            // What was sent ahead of hearing that nothing could be opened.
            _ => {
                fail(out, frame.id, &SyncError::config("nothing is open"))?;
                incoming.next()?
            }
        };
    }
    Ok(())
}

/// The other side asks whether anybody is there, or tells what it knows of the wire.
fn ping(frame: &Frame, out: &Out) -> Result<()> {
    if frame.body.is_empty() {
        return out.send(Kind::Done, frame.id, body().0);
    }
    out.zip(When::of(Get(&frame.body).u8()?)?);
    Ok(())
}

fn fail(out: &Out, id: u32, error: &SyncError) -> Result<()> {
    let mut answer = body();
    answer.error(error);
    out.send(Kind::Failed, id, answer.0)
}

/// Ends a request with what came of it.
fn answer(out: &Out, id: u32, outcome: Result<Put>) -> Result<()> {
    match outcome {
        Ok(answer) => out.send(Kind::Done, id, answer.0),
        Err(error) => fail(out, id, &error),
    }
}
