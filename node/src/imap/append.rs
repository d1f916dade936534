//! APPEND (RFC 9051 §6.3.12): bytes stream into a blob, then one transaction.

use std::sync::Arc;

use blob::BlobWriter;
use env::Timestamp;
use imap::{Completion, Reply, ResponseCode, command::Append};
use mail::{MailboxId, NewEmail, OperationId, view::Flags};
use message::Scanner;

use super::{Connection, Disconnect, errors, flags, list};
use crate::{
    deliver::{self, OnFailure, Request, Target},
    patience::blob_step,
};

/// A message on its way in.
pub(super) struct Upload {
    mailbox: MailboxId,
    flags: Flags,
    received_at: Timestamp,
    writer: BlobWriter,
    scanner: Scanner,
}

impl Connection {
    pub(super) async fn append_begin(&mut self, append: Append) -> Result<(), Disconnect> {
        match self.begin_upload(append).await {
            Ok(upload) => {
                self.upload = Some(upload);
                self.reply(Reply::AppendReady).await
            }
            Err(completion) => self.done(completion).await,
        }
    }

    async fn begin_upload(&self, append: Append) -> Result<Upload, Completion> {
        let tree = self.tree().await.map_err(|error| errors::store(&error))?;
        let mailbox = tree.by_path(list::path(&append.mailbox));
        let mailbox = mailbox.ok_or_else(errors::try_create)?.id;
        if append.size == 0 {
            // RFC 9051 §6.3.12 has no empty message; RFC 3502 took a zero literal as "cancel".
            return Err(Completion::no("The message is empty"));
        }
        if append.size > self.services.limits().message_bytes_max {
            return Err(Completion::no("The message is too large").with_code(ResponseCode::TooBig));
        }
        let flags = flags::from_wire(&append.flags)
            .map_err(|error| Completion::no(error.to_string()).with_code(ResponseCode::Cannot))?;
        let received_at = append.date.map_or_else(
            || self.services.env.wall(),
            |date| Timestamp::from_unix_seconds(date.unix_seconds()),
        );
        Ok(Upload {
            mailbox,
            flags,
            received_at,
            writer: self.services.blobs.writer(),
            scanner: Scanner::new(message::Limits::default()),
        })
    }

    pub(super) async fn append_data(&mut self, bytes: &[u8]) -> Result<(), Disconnect> {
        let Some(upload) = &mut self.upload else {
            return self.done(Completion::bad("No message is being appended")).await;
        };
        upload.scanner.push(bytes);
        match blob_step(&self.services.env, upload.writer.write(bytes)).await {
            Ok(()) => self.reply(Reply::AppendReady).await,
            Err(error) => {
                self.upload = None;
                self.done(errors::blob(&error)).await
            }
        }
    }

    pub(super) async fn append_end(&mut self) -> Result<(), Disconnect> {
        let Some(upload) = self.upload.take() else {
            return self.done(Completion::bad("No message is being appended")).await;
        };
        match self.finish_upload(upload).await {
            Ok(completion) => self.done_with_updates(completion).await,
            Err(completion) => self.done(completion).await,
        }
    }

    async fn finish_upload(&self, upload: Upload) -> Result<Completion, Completion> {
        let Upload { mailbox, flags, received_at, writer, scanner } = upload;
        let blob = blob_step(&self.services.env, writer.finish()).await;
        let blob = blob.map_err(|error| errors::blob(&error))?;
        let scanned = scanner.finish();
        let mut email = NewEmail::from_scan(blob, &scanned, received_at, flags.keywords);
        email.deleted = flags.deleted;
        let request = Request {
            appends: vec![deliver::Append {
                account: self.account(),
                target: Target::Mailbox(mailbox),
                email: Arc::new(email),
                operation: OperationId::random(&self.services.env),
                recipients: Vec::new(),
                tell_success: Vec::new(),
            }],
            outbound: None,
            on_failure: OnFailure::Tell,
        };
        let delivered =
            self.services.deliverer.submit(request).await.map_err(|e| errors::deliver(&e))?;
        let appended = delivered
            .appends
            .into_iter()
            .next()
            .ok_or_else(|| Completion::no("Nothing was appended"))?
            .map_err(|refusal| errors::refusal(&refusal))?;
        let code = imap::UidValidity::new(appended.uid_validity.0)
            .zip(imap::Uid::new(appended.uid.number()))
            .map(|(validity, uid)| ResponseCode::AppendUid { validity, uid });
        Ok(match code {
            Some(code) => Completion::ok().with_code(code),
            None => Completion::ok(),
        })
    }
}
