//! A message that is judged while it comes in.
//!
//! What was found goes on top of the message (RFC 8601 §4), and a blob is written from its top; but
//! whether signatures hold is known at the message's end.
//!
//! - A message of at most [`limits::JUDGED_HELD_BYTES_MAX`] is held until then: the writer would hold as much.
//!   It is put once and never read, as any other.
//! - A larger one is judged once so much of it has come: its header is there, and its body is presumed
//!   to be what its signatures say ([`origin::Digester::presume`]). What was found is written and the rest
//!   streams on. In the end the body's hashes are compared; nearly always they are right. If not, or
//!   if the message is to be sealed, which needs the whole body, it is copied below another top: the one case
//!   of a second put. The first blob has no reference, so the sweeper takes it.
//!
//! So memory is bounded whatever the message's size, and what would be refused for its header is refused
//! before the rest has come.

use std::{collections::BTreeSet, sync::Arc};

use origin::{Digest, Digester, Judge, Purpose};
use smtp::Refusal;

use super::envelope::Envelope;
use crate::{
    judging::{self, Asking, Findings},
    limits,
    services::Services,
    settings::Settings,
};

/// A message under judgement.
pub(super) struct Judged {
    services: Services,
    judge: Judge,
    settings: Arc<Settings>,
    /// Domains of ours that it is for.
    domains: BTreeSet<String>,
    /// The domain of ours that sends it on, where one does.
    forwarder: Option<String>,
    asking: Option<Asking>,
    digester: Digester,
    held: Option<Held>,
    findings: Option<Box<Findings>>,
}

/// What waits for its top.
#[derive(Default)]
pub(super) struct Held {
    pub(super) fields: Vec<u8>,
    pub(super) rest: Vec<u8>,
}

/// What is to be done with bytes that came.
pub(super) enum Next {
    /// They are held.
    Wait,
    /// So much is held that it has to be written: [`Judged::presume`].
    Presume,
    /// They go below the top, which is written.
    Store,
}

/// How a message ends.
pub(super) enum Ending {
    /// It was held: this is its top, and all of it.
    Whole(String, Held),
    /// It is written, and right.
    Written,
    /// It is written below a top that is not right; this is.
    Other(String),
}

impl Judged {
    pub(super) fn begin(services: &Services, envelope: &Envelope, asking: Asking) -> Self {
        let forwards = |it: &&super::envelope::Recipient| it.destinations_elsewhere > 0;
        let forwarder = envelope.recipients.iter().find(forwards).map(|it| it.domain.clone());
        let purpose = if forwarder.is_some() { Purpose::JudgeAndSign } else { Purpose::Judge };
        Self {
            judge: judging::judge(services),
            settings: services.settings.borrow().clone(),
            services: services.clone(),
            domains: envelope.recipients.iter().map(|it| it.domain.clone()).collect(),
            forwarder,
            asking: Some(asking),
            digester: Digester::new(purpose),
            held: None,
            findings: None,
        }
    }

    /// The header is whole.
    pub(super) fn open(&mut self, fields: Vec<u8>, rest: Vec<u8>) -> Next {
        self.digester.write(&fields);
        self.digester.write(&rest);
        self.held = Some(Held { fields, rest });
        self.next()
    }

    /// More of the body.
    pub(super) fn more(&mut self, bytes: &[u8]) -> Next {
        self.digester.write(bytes);
        if let Some(held) = &mut self.held {
            held.rest.extend_from_slice(bytes);
        }
        self.next()
    }

    fn next(&self) -> Next {
        let Some(held) = &self.held else { return Next::Store };
        let is_full = held.fields.len() + held.rest.len() > limits::JUDGED_HELD_BYTES_MAX;
        // What has no body is all there is, and the header's own bound holds for it.
        if is_full && !held.rest.is_empty() { Next::Presume } else { Next::Wait }
    }

    /// Judges what is held, for all of it. Returns the top, and what goes below it.
    pub(super) async fn presume(&mut self) -> Result<(String, Held), Refusal> {
        let digest = self.digester.presume().ok_or(Refusal::MessageMalformed)?;
        self.find(&digest).await?;
        let held = self.held.take().unwrap_or_default();
        Ok((self.top(None).await, held))
    }

    /// The message is whole.
    pub(super) async fn finish(&mut self) -> Result<Ending, Refusal> {
        let digester = std::mem::replace(&mut self.digester, Digester::new(Purpose::Judge));
        let digest = digester.finish();
        if let Some(held) = self.held.take() {
            self.find(&digest).await?;
            return Ok(Ending::Whole(self.top(Some(&digest)).await, held));
        }
        let is_right = digest.bears_out();
        if !is_right {
            self.find(&digest).await?;
        }
        if is_right && self.signer().await.is_none() {
            return Ok(Ending::Written);
        }
        Ok(Ending::Other(self.top(Some(&digest)).await))
    }

    /// What was found, also of a message that was refused.
    pub(super) fn findings(&mut self) -> Option<Box<Findings>> {
        self.findings.take()
    }

    async fn find(&mut self, digest: &Digest) -> Result<(), Refusal> {
        if digest.is_too_large() {
            // Nobody can tell which of its fields claim to be ours.
            return Err(Refusal::MessageMalformed);
        }
        let asked = match (self.findings.take(), self.asking.take()) {
            (Some(found), _) => found.asked,
            (None, Some(asking)) => asking.answer().await,
            (None, None) => return Err(Refusal::TemporaryFailure),
        };
        let settings = &self.settings.judging;
        let found = Findings::of(&self.judge, settings, asked, digest, &self.domains).await;
        let refusal = found.decision.refusal;
        self.findings = Some(Box::new(found));
        refusal.map_or(Ok(()), Err)
    }

    /// The fields that go above the message; seals need its digest.
    async fn top(&self, digest: Option<&Digest>) -> String {
        let Some(findings) = &self.findings else { return String::new() };
        let results = findings.field(&self.judge);
        let sealed = match digest {
            Some(digest) => self.seal(findings, digest).await,
            None => None,
        };
        sealed.unwrap_or_default() + &results
    }

    async fn signer(&self) -> Option<Arc<origin::Signer>> {
        let domain = self.forwarder.as_deref()?;
        self.services.signing.sealer(domain).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "a message is sent on without a seal");
            None
        })
    }

    /// RFC 8617 §5.1: what was found when it came, sealed for whoever gets it next.
    async fn seal(&self, findings: &Findings, digest: &Digest) -> Option<String> {
        let signer = self.signer().await?;
        let (results, at) = (findings.results(&self.judge), self.services.env.wall());
        let (chain, name) = (&findings.verdicts.arc, self.judge.hostname());
        signer.seal(digest, chain, name, &results, at).unwrap_or_else(|error| {
            tracing::warn!(%error, "a message is sent on without a seal");
            None
        })
    }
}

/// A header with CRLF at the end of each line: what is judged is what is stored. Bare line feeds come with
/// BINARYMIME alone.
pub(super) fn with_line_ends(text: Vec<u8>) -> Vec<u8> {
    let is_bare = |at: usize| text[at] == b'\n' && (at == 0 || text[at - 1] != b'\r');
    if !(0..text.len()).any(is_bare) {
        return text;
    }
    let mut whole = Vec::with_capacity(text.len() + 64);
    for (at, byte) in text.iter().enumerate() {
        if is_bare(at) {
            whole.push(b'\r');
        }
        whole.push(*byte);
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::with_line_ends;

    #[test]
    fn bare_line_feeds_get_their_other_half() {
        for (text, expected) in
            [("", ""), ("a\r\nb\r\n", "a\r\nb\r\n"), ("\na\n\r\nb\n", "\r\na\r\n\r\nb\r\n")]
        {
            assert_eq!(with_line_ends(text.into()), expected.as_bytes());
        }
    }
}
