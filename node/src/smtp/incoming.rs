//! A message on its way in: trace fields first, then the client's bytes, into one blob.
//!
//! The stored message begins with `Return-Path`, which is ours alone, and `Received` (RFC 5321
//! §4.4); a copy for another server leaves the first [`Finished::skip`] bytes out. Where the message is
//! judged, what was found stands below them ([`super::judged`]). Memory is
//! bounded by the header gate, what is held to be judged, the blob writer's chunk and the scanner, whatever
//! the message's size; content is stored as it came, BINARYMIME (RFC 3030) and 8BITMIME (RFC 6152) alike.

use std::{net::IpAddr, sync::Arc};

use blob::{BlobId, BlobStore, BlobWriter};
use env::{Env, Timestamp};
use mail::{KeywordSet, NewEmail};
use message::Scanner;
use origin::{Digest, Digester, Purpose};
use smtp::{HeloName, QueueId, Refusal, Role, TraceInfo};

use super::{
    address,
    envelope::Envelope,
    errors, handling,
    header::{Additions, Gate, Opening},
    judged::{Ending, Held, Judged, Next, with_line_ends},
};
use crate::{
    date,
    deliver::outbound::TlsWish,
    hex::hex,
    judging::{self, Asking, Brought, Findings},
    limits,
    patience::blob_step,
    services::Services,
};

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
        hex(&self.0)
    }

    pub(super) fn queue_id(self) -> QueueId {
        QueueId::new(self.to_hex()).expect("32 hexadecimal digits are a queue id")
    }
}

/// A message being received.
pub(super) struct Incoming {
    env: Env,
    services: Services,
    brought: Brought,
    name: MessageName,
    blobs: BlobStore,
    writer: BlobWriter,
    scanner: Scanner,
    /// Until the header is whole.
    gate: Option<Gate>,
    additions: Additions,
    return_path: String,
    received: String,
    /// Bytes of `Return-Path`, once it is stored.
    skip: u64,
    /// As in [`Arrival::filter`].
    filter: String,
    /// The beginning of the header, for a report.
    header: Vec<u8>,
    /// What the header wants of TLS.
    tls: TlsWish,
    judged: Option<Box<Judged>>,
    /// Bytes of what was written above the client's own fields.
    top_bytes: u64,
    /// Of what leaves for other servers and may be signed.
    digester: Option<Digester>,
}

/// How a message ended: what was found of it, and the message, or why it is refused.
pub(super) struct Ended {
    pub(super) findings: Option<Box<Findings>>,
    pub(super) message: Result<Finished, Refusal>,
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
    /// What the header wants of TLS.
    pub(super) tls: TlsWish,
    /// What was seen of its octets.
    pub(super) facts: message::TextFacts,
    /// Of what is sent to other servers, where a user submits it.
    pub(super) digest: Option<Digest>,
}

impl Incoming {
    /// With what is being asked about its client and its sender, where it is judged.
    pub(super) fn begin(
        services: &Services,
        envelope: &Envelope,
        arrival: &Arrival<'_>,
        asking: Option<Asking>,
    ) -> Self {
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
            services: services.clone(),
            brought: brought(services, arrival),
            name,
            blobs: services.blobs.clone(),
            writer: services.blobs.writer(),
            scanner: Scanner::new(message::Limits::default()),
            gate: Some(Gate::default()),
            additions,
            return_path: smtp::return_path(&envelope.mail.sender),
            received,
            skip: 0,
            filter: arrival.filter.clone(),
            header: Vec::new(),
            tls: TlsWish::Usual,
            judged: asking.map(|asking| Box::new(Judged::begin(services, envelope, asking))),
            top_bytes: 0,
            digester: envelope.may_be_signed().then(|| Digester::new(Purpose::Sign)),
        }
    }

    /// Takes a piece of the content.
    pub(super) async fn push(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if let Some(gate) = &mut self.gate {
            return match gate.push(bytes, &self.additions).map_err(errors::header)? {
                None => Ok(()),
                Some(opening) => self.open(opening).await,
            };
        }
        match self.judged.as_mut().map_or(Next::Store, |judged| judged.more(bytes)) {
            Next::Wait => Ok(()),
            Next::Presume => self.presume().await,
            Next::Store => self.store(bytes).await,
        }
    }

    /// What was found of a message that is refused before its end.
    pub(super) fn findings(&mut self) -> Option<Box<Findings>> {
        self.judged.as_mut().and_then(|judged| judged.findings())
    }

    /// The content is complete.
    pub(super) async fn finish(mut self, now: Timestamp) -> Ended {
        let closed = self.close().await;
        let findings = self.findings();
        let message = match closed {
            Ok(()) => self.put(now).await,
            Err(refusal) => Err(refusal),
        };
        Ended { findings, message }
    }

    async fn close(&mut self) -> Result<(), Refusal> {
        if let Some(gate) = self.gate.take() {
            let opening = gate.finish(&self.additions).map_err(errors::header)?;
            self.open(opening).await?;
        }
        let Some(judged) = &mut self.judged else { return Ok(()) };
        match Box::pin(judged.finish()).await? {
            Ending::Whole(top, held) => self.write(&top, held).await,
            Ending::Written => Ok(()),
            Ending::Other(top) => self.rewrite(&top).await,
        }
    }

    async fn put(self, now: Timestamp) -> Result<Finished, Refusal> {
        let blob = blob_step(&self.env, self.writer.finish()).await;
        let blob = blob.map_err(|error| errors::blob(&error))?;
        let scanned = self.scanner.finish();
        let email = NewEmail::from_scan(blob, &scanned, now, KeywordSet::default());
        Ok(Finished {
            name: self.name,
            blob,
            email: Arc::new(email),
            skip: self.skip,
            header: self.header,
            tls: self.tls,
            facts: scanned.text_facts,
            digest: self.digester.map(Digester::finish),
        })
    }

    /// The header is whole.
    async fn open(&mut self, opening: Opening) -> Result<(), Refusal> {
        self.gate = None;
        let Opening { mut fields, mut rest } = opening;
        self.header = first_lines(&self.received, &fields);
        self.tls = handling::tls_of(&fields);
        if self.brought != Brought::All {
            // What is judged is what is stored.
            fields = with_line_ends(fields);
            if rest.first() == Some(&b'\n') {
                rest.insert(0, b'\r');
            }
        }
        match &mut self.judged {
            None => self.write("", Held { fields, rest }).await,
            Some(judged) => match judged.open(fields, rest) {
                Next::Presume => self.presume().await,
                Next::Wait | Next::Store => Ok(()),
            },
        }
    }

    async fn presume(&mut self) -> Result<(), Refusal> {
        let Some(judged) = &mut self.judged else { return Ok(()) };
        let (top, held) = Box::pin(judged.presume()).await?;
        self.write(&top, held).await
    }

    /// Stores the trace, what was found, the header and what came after it.
    async fn write(&mut self, top: &str, held: Held) -> Result<(), Refusal> {
        let return_path = self.return_path.clone();
        let top = format!("{}{}{top}", self.received, self.filter);
        let bytes = |field: &str| u64::try_from(field.len()).expect("fields in memory");
        self.skip = bytes(&return_path);
        self.top_bytes = self.skip + bytes(&top);
        self.store_own(return_path.as_bytes()).await?;
        self.store(top.as_bytes()).await?;
        self.store(&self.without_forgeries(held.fields)).await?;
        self.store(&held.rest).await
    }

    /// Copies what was stored below another top.
    async fn rewrite(&mut self, top: &str) -> Result<(), Refusal> {
        let below = self.top_bytes..u64::MAX;
        let first = std::mem::replace(&mut self.writer, self.blobs.writer());
        self.scanner = Scanner::new(message::Limits::default());
        self.digester = self.digester.take().map(|_| Digester::new(Purpose::Sign));
        let first = blob_step(&self.env, first.finish()).await;
        let first = first.map_err(|error| errors::blob(&error))?;
        self.write(top, Held::default()).await?;
        let reader = blob_step(&self.env, self.blobs.read(first, below)).await;
        let mut reader = reader.map_err(|error| errors::blob(&error))?;
        loop {
            let chunk = blob_step(&self.env, reader.next()).await;
            match chunk.map_err(|error| errors::blob(&error))? {
                Some(chunk) => self.store(&chunk).await?,
                None => return Ok(()),
            }
        }
    }

    /// A header without the findings that it may not bring along.
    fn without_forgeries(&self, fields: Vec<u8>) -> Vec<u8> {
        let forged = judging::forged_in(&self.services, self.brought, &fields);
        if forged.is_empty() {
            return fields;
        }
        let (mut kept, mut from) = (Vec::with_capacity(fields.len()), 0);
        for range in forged {
            kept.extend_from_slice(fields.get(from..range.start).unwrap_or_default());
            from = from.max(range.end);
        }
        kept.extend_from_slice(fields.get(from..).unwrap_or_default());
        kept
    }

    /// Stores what other servers are sent as well.
    async fn store(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if let Some(digester) = &mut self.digester {
            digester.write(bytes);
        }
        self.store_own(bytes).await
    }

    async fn store_own(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.scanner.push(bytes);
        let written = blob_step(&self.env, self.writer.write(bytes)).await;
        written.map_err(|error| errors::blob(&error))
    }
}

/// Whose findings a message may bring along.
fn brought(services: &Services, arrival: &Arrival<'_>) -> Brought {
    let is_stranger = || services.settings.borrow().judging.judges(arrival.peer);
    match arrival.role {
        Role::Lmtp => Brought::All,
        Role::Exchange if !is_stranger() => Brought::Others,
        // What users send has not been judged at all.
        Role::Exchange | Role::Submission => Brought::None,
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
