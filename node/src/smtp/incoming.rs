//! A message on its way in: trace fields first, then the client's bytes, into one blob.
//!
//! The stored message begins with `Return-Path`, which is ours alone, and `Received` (RFC 5321
//! §4.4); a copy for another server leaves the first [`Finished::skip`] bytes out. Memory is
//! bounded by the header gate, the blob writer's chunk and the scanner, whatever the message's
//! size; content is stored as it came, BINARYMIME (RFC 3030) and 8BITMIME (RFC 6152) alike.

use std::{net::IpAddr, sync::Arc};

use blob::{BlobId, BlobWriter};
use env::{Env, Timestamp};
use mail::{KeywordSet, NewEmail};
use message::Scanner;
use smtp::{HeloName, QueueId, Refusal, Role, TraceInfo};

use super::{
    address,
    envelope::Envelope,
    errors,
    header::{Additions, Gate, Opening},
};
use crate::{date, limits, patience::blob_step, services::Services};

/// How a message arrives.
pub(super) struct Arrival<'a> {
    pub(super) role: Role,
    pub(super) protocol: smtp::Protocol,
    pub(super) helo: &'a HeloName,
    pub(super) peer: IpAddr,
    pub(super) tls: Option<smtp::TlsInfo>,
    /// What abuse control has found: a whole field, or nothing.
    pub(super) filter: String,
}

/// What the node calls a message, to the client, in `Received` and in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageName(pub(super) [u8; 16]);

impl MessageName {
    fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn queue_id(self) -> QueueId {
        QueueId::new(self.to_hex()).expect("32 hexadecimal digits are a queue id")
    }
}

/// A message being received.
pub(super) struct Incoming {
    env: Env,
    name: MessageName,
    writer: BlobWriter,
    scanner: Scanner,
    /// Until the header is whole.
    gate: Option<Gate>,
    additions: Additions,
    return_path: String,
    received: String,
    /// As in [`Arrival::filter`].
    filter: String,
    /// The beginning of the header, for a report.
    header: Vec<u8>,
}

/// A message that is stored and not yet anybody's.
pub(super) struct Finished {
    pub(super) name: MessageName,
    pub(super) blob: BlobId,
    pub(super) email: Arc<NewEmail>,
    /// Bytes of `Return-Path`.
    pub(super) skip: u64,
    /// Whole lines of the header, at most [`limits::REPORTED_HEADER_BYTES_MAX`].
    pub(super) header: Vec<u8>,
}

impl Incoming {
    pub(super) fn begin(services: &Services, envelope: &Envelope, arrival: &Arrival<'_>) -> Self {
        let name = MessageName(services.env.random_array());
        let hostname = address::hostname(&services.config);
        let date = date::rfc5322(services.env.wall());
        let additions = match arrival.role {
            Role::Submission => Additions::Missing {
                date: format!("Date: {date}\r\n"),
                message_id: format!("Message-ID: <{}@{hostname}>\r\n", name.to_hex()),
            },
            Role::Exchange | Role::Lmtp => Additions::Nothing,
        };
        let received = smtp::received_header(&TraceInfo {
            helo: arrival.helo,
            peer: Some(arrival.peer),
            peer_name: None,
            hostname: &hostname,
            protocol: arrival.protocol,
            tls: arrival.tls.as_ref(),
            id: &name.queue_id(),
            recipients: envelope.paths(),
            date: &date,
        });
        Self {
            env: services.env.clone(),
            name,
            writer: services.blobs.writer(),
            scanner: Scanner::new(message::Limits::default()),
            gate: Some(Gate::default()),
            additions,
            return_path: smtp::return_path(&envelope.mail.sender),
            received,
            filter: arrival.filter.clone(),
            header: Vec::new(),
        }
    }

    /// Takes a piece of the content.
    pub(super) async fn push(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let Some(gate) = &mut self.gate else { return self.store(bytes).await };
        match gate.push(bytes, &self.additions).map_err(errors::header)? {
            None => Ok(()),
            Some(opening) => self.open(&opening).await,
        }
    }

    /// The content is complete.
    pub(super) async fn finish(mut self, now: Timestamp) -> Result<Finished, Refusal> {
        if let Some(gate) = self.gate.take() {
            let opening = gate.finish(&self.additions).map_err(errors::header)?;
            self.open(&opening).await?;
        }
        let blob = blob_step(&self.env, self.writer.finish()).await;
        let blob = blob.map_err(|error| errors::blob(&error))?;
        let scanned = self.scanner.finish();
        let email = NewEmail::from_scan(blob, &scanned, now, KeywordSet::default());
        Ok(Finished {
            name: self.name,
            blob,
            email: Arc::new(email),
            skip: u64::try_from(self.return_path.len()).expect("a line is short"),
            header: self.header,
        })
    }

    /// Stores the trace, the header and what came after it.
    async fn open(&mut self, opening: &Opening) -> Result<(), Refusal> {
        self.gate = None;
        let trace = format!("{}{}{}", self.return_path, self.filter, self.received);
        self.header = first_lines(&self.received, &opening.fields);
        self.store(trace.as_bytes()).await?;
        self.store(&opening.fields).await?;
        self.store(&opening.rest).await
    }

    async fn store(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.scanner.push(bytes);
        let written = blob_step(&self.env, self.writer.write(bytes)).await;
        written.map_err(|error| errors::blob(&error))
    }
}

/// The whole lines of a header that fit a report.
fn first_lines(received: &str, fields: &[u8]) -> Vec<u8> {
    let room = limits::REPORTED_HEADER_BYTES_MAX.saturating_sub(received.len());
    let fields = match fields.get(..room) {
        None => fields,
        Some(cut) => {
            let end = cut.iter().rposition(|byte| *byte == b'\n').map_or(0, |lf| lf + 1);
            &cut[..end]
        }
    };
    [received.as_bytes(), fields].concat()
}
