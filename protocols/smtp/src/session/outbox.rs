//! What waits for the driver.
//!
//! Invariant: replies are gathered and sent in few pieces (RFC 2920 §3.2), always in order, and
//! before anything that must not overtake them.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};

use crate::call::{Call, Output};
use crate::limits::REPLY_BATCH_OCTETS;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    replies: BytesMut,
    queue: VecDeque<Output>,
}

impl Outbox {
    /// Appends a reply line without its CRLF.
    pub(super) fn line(&mut self, line: &str) {
        self.replies.put_slice(line.as_bytes());
        self.replies.put_slice(b"\r\n");
        if self.replies.len() >= REPLY_BATCH_OCTETS {
            self.flush();
        }
    }

    /// Hands over the replies gathered so far.
    pub(super) fn flush(&mut self) {
        if !self.replies.is_empty() {
            let replies = self.replies.split().freeze();
            self.queue.push_back(Output::Send(replies));
        }
    }

    /// Appends an output that may overtake gathered replies.
    pub(super) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    /// Appends an output that comes after all replies so far.
    pub(super) fn push_after_replies(&mut self, output: Output) {
        self.flush();
        self.queue.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    /// Octets of replies that wait here.
    pub(super) fn reply_octets(&self) -> usize {
        let queued = self.queue.iter().map(|output| match output {
            Output::Send(octets) => octets.len(),
            _ => 0,
        });
        self.replies.len() + queued.sum::<usize>()
    }

    /// Octets of content that wait here.
    pub(super) fn content_octets(&self) -> usize {
        let queued = self.queue.iter().map(|output| match output {
            Output::Call(Call::Data(octets)) => octets.len(),
            _ => 0,
        });
        queued.sum()
    }
}
