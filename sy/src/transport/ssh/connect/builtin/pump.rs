//! Moves bytes between a channel and the two pipes of a stream.

use std::io::IoSlice;

use bytes::Bytes;
use russh::ChannelMsg;
use russh::client::Msg;
use russh::{ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::Outcome;

/// Bytes that are read from a pipe, or written to it, at once.
const CHUNK: usize = 256 << 10;
/// Of standard error, this much of the end is kept, bytes.
const TAIL: usize = 4096;

/// From the pipe to the other side, until the pipe is closed.
pub async fn send(mut from: pipe::Receiver, to: ChannelWriteHalf<Msg>) {
    loop {
        let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
        match from.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(_) if to.data_bytes(chunk.freeze()).await.is_err() => return,
            Ok(_) => {}
        }
    }
    let _ = to.eof().await;
    // What is left of the channel goes with this, so it stays until the other side has closed.
    std::future::pending::<()>().await;
}

/// From the other side into the pipe, until the channel is closed. What it tells beside the bytes goes to `outcome`.
pub async fn receive(mut from: ChannelReadHalf, to: pipe::Sender, outcome: &Outcome) {
    let mut to = Some(to);
    let mut held: Vec<Bytes> = Vec::new();
    loop {
        // What is there goes into the pipe together: each write wakes up whoever reads.
        let message = if held.is_empty() {
            from.wait().await
        } else {
            tokio::select! {
                biased;
                message = from.wait(), if held.iter().map(Bytes::len).sum::<usize>() < CHUNK => message,
                () = std::future::ready(()) => {
                    if let Some(pipe) = &mut to
                        && write(pipe, &held).await.is_err()
                    {
                        to = None;
                    }
                    held.clear();
                    continue;
                }
            }
        };
        match message {
            Some(ChannelMsg::Data { data }) => held.push(data),
            Some(ChannelMsg::ExtendedData { data, ext: 1 }) => outcome.update(|ending| {
                ending.stderr.extend_from_slice(&data);
                let excess = ending.stderr.len().saturating_sub(TAIL);
                ending.stderr.drain(..excess);
            }),
            Some(ChannelMsg::ExitStatus { exit_status }) => outcome.update(|ending| {
                ending.code = i32::try_from(exit_status).ok();
                ending.ended = true;
            }),
            Some(ChannelMsg::ExitSignal { .. }) => outcome.update(|ending| ending.ended = true),
            Some(ChannelMsg::Failure) => {
                outcome.update(|ending| {
                    ending.stderr.extend_from_slice(b"the host refused to start it");
                    ending.ended = true;
                });
                return;
            }
            None | Some(ChannelMsg::Eof | ChannelMsg::Close) => {
                if let Some(pipe) = &mut to {
                    let _ = write(pipe, &held).await;
                }
                (to, held) = (None, Vec::new());
                match message {
                    Some(ChannelMsg::Eof) => {}
                    None => return,
                    _ => return outcome.update(|ending| ending.ended = true),
                }
            }
            Some(_) => {}
        }
    }
}

async fn write(pipe: &mut pipe::Sender, pieces: &[Bytes]) -> std::io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut slices = slices.as_mut_slice();
    while !slices.is_empty() {
        let written = pipe.write_vectored(slices).await?;
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}
