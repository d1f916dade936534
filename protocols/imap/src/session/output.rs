//! What waits for the driver: small responses gathered into sends, streamed octets passed through.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::Output;
use crate::limits::{SEND_BYTES, SEND_COPY_MAX};
use crate::wire::{Dialect, Writer};

#[derive(Default)]
pub(super) struct OutputQueue {
    queue: VecDeque<Output>,
    /// Octets of the sends in `queue`.
    queued: usize,
    /// Behind everything in `queue`.
    buffer: BytesMut,
    flush: bool,
}

impl OutputQueue {
    pub(super) fn writer(&mut self, dialect: Dialect) -> Writer<'_> {
        Writer::server(&mut self.buffer, dialect)
    }

    /// Octets that wait to be sent.
    pub(super) fn len(&self) -> usize {
        self.queued + self.buffer.len()
    }

    /// What is in the buffer goes out with the next poll.
    pub(super) fn flush(&mut self) {
        self.flush = true;
    }

    /// Behind all that was written so far.
    pub(super) fn push(&mut self, output: Output) {
        self.cut();
        self.queue.push_back(output);
    }

    pub(super) fn data(&mut self, octets: Bytes) {
        if octets.len() < SEND_COPY_MAX {
            self.buffer.extend_from_slice(&octets);
            return;
        }
        self.cut();
        self.queued += octets.len();
        self.queue.push_back(Output::Send(octets));
    }

    fn cut(&mut self) {
        if !self.buffer.is_empty() {
            self.queued += self.buffer.len();
            self.queue.push_back(Output::Send(self.buffer.split().freeze()));
        }
        self.flush = false;
    }

    /// The next output. A small buffer is held back unless it is to be flushed.
    pub(super) fn pop(&mut self) -> Option<Output> {
        if self.queue.is_empty() && (self.flush || self.buffer.len() >= SEND_BYTES) {
            self.cut();
        }
        let output = self.queue.pop_front()?;
        if let Output::Send(octets) = &output {
            self.queued -= octets.len();
        }
        Some(output)
    }
}
