//! Moves bytes between a channel and the two pipes of a stream.

use russh::ChannelMsg;
use russh::client::Msg;
use russh::{ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::Outcome;

/// Bytes that are read from the pipe at once.
const CHUNK: usize = 64 * 1024;
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
    while let Some(message) = from.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                if let Some(pipe) = &mut to
                    && pipe.write_all(&data).await.is_err()
                {
                    to = None;
                }
            }
            ChannelMsg::ExtendedData { data, ext: 1 } => outcome.update(|ending| {
                ending.stderr.extend_from_slice(&data);
                let excess = ending.stderr.len().saturating_sub(TAIL);
                ending.stderr.drain(..excess);
            }),
            ChannelMsg::ExitStatus { exit_status } => outcome.update(|ending| {
                ending.code = i32::try_from(exit_status).ok();
                ending.ended = true;
            }),
            ChannelMsg::ExitSignal { .. } => outcome.update(|ending| ending.ended = true),
            ChannelMsg::Failure => {
                outcome.update(|ending| {
                    ending.stderr.extend_from_slice(b"the host refused to start it");
                    ending.ended = true;
                });
                return;
            }
            ChannelMsg::Eof => to = None,
            ChannelMsg::Close => {
                outcome.update(|ending| ending.ended = true);
                return;
            }
            _ => {}
        }
    }
}
