//! What travels between two ends of a connection: values, frames, messages.

pub mod attributes;
pub mod codec;
pub mod frame;
pub mod message;
pub mod zip;

pub use codec::{Get, Put, garbled};
pub use frame::{Frame, Incoming, Kind, Outgoing, PIECE, body, body_len, body_of, cut_off, not_what_was_sent};
