//! A client as abuse control sees it: what is looked up about it, what its mail scores, what it may
//! do, and how long its replies wait.
//!
//! Lookups of its address begin when it connects, those of names at MAIL; the first RCPT waits for
//! both. A recipient is refused by score, but for a postmaster: whoever is blocked by mistake has to
//! reach one. Limits and greylisting are asked for when all recipients are known, in one transaction
//! ([`Guard::admit`]), and refuse DATA.

use std::{net::IpAddr, time::Duration};

use env::Task;
use mail::{AccountId, directory::Address};
use smtp::{ForwardPath, HeloName, Refusal};

use super::{
    address::POSTMASTER,
    envelope::{Envelope, Recipient},
    errors,
};
use crate::{
    guard::{
        self, Admission, Admitted, Event, Guard, HeldUp, Stranger,
        network::Network,
        rate::{self, Subjects},
        score::{self, Score, Verdict},
    },
    metrics::{GuardAction, Protocol},
};

/// One client.
pub(super) struct Visitor {
    guard: Guard,
    peer: IpAddr,
    standing: Standing,
    address: Looking,
    names: Looking,
    helo: String,
    subjects: Subjects,
    /// What the transaction's mail scores, once that is known.
    judged: Option<(Score, Verdict)>,
    /// Refusals and errors that were told.
    offences: u32,
    held_up: Duration,
    place: Option<HeldUp>,
}

/// How a client is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It came to port 25 from anywhere.
    Stranger,
    /// It is one of our users, or wants to be.
    Submitter,
    /// It is not held up.
    Trusted,
}

/// A lookup and what came of it.
enum Looking {
    Unasked,
    Running(Task<Score>),
    Done(Score),
}

impl Looking {
    fn of(task: Option<Task<Score>>) -> Self {
        task.map_or(Self::Unasked, Self::Running)
    }

    async fn score(&mut self) -> Option<&Score> {
        if let Self::Running(task) = self {
            // One that broke off has found nothing.
            *self = Self::Done(task.await.unwrap_or_default());
        }
        match self {
            Self::Done(score) => Some(score),
            Self::Unasked | Self::Running(_) => None,
        }
    }
}

impl Visitor {
    pub(super) fn new(guard: &Guard, peer: IpAddr, protocol: Protocol) -> Self {
        let trusted = guard.settings().guard.trusts(peer);
        Self {
            guard: guard.clone(),
            peer,
            standing: match protocol {
                Protocol::Smtp if !trusted => Standing::Stranger,
                Protocol::Submission | Protocol::Submissions if !trusted => Standing::Submitter,
                _ => Standing::Trusted,
            },
            address: Looking::Unasked,
            names: Looking::Unasked,
            helo: String::new(),
            subjects: Subjects::default(),
            judged: None,
            offences: 0,
            held_up: Duration::ZERO,
            place: None,
        }
    }

    /// It has connected.
    pub(super) async fn connected(&mut self) -> Result<(), Refusal> {
        if self.standing != Standing::Stranger {
            return Ok(());
        }
        self.subjects.address = Some(Network::client(self.peer).to_bytes().to_vec());
        self.subjects.network = Some(Network::neighbourhood(self.peer).to_bytes().to_vec());
        let exceeded = self.guard.connected(&self.subjects).await;
        match exceeded.map_err(|error| errors::store(&error))? {
            None => {
                self.address = Looking::of(self.guard.look_up_address(self.peer));
                Ok(())
            }
            Some(scope) => {
                tracing::info!(?scope, "refused: too many connections in an hour");
                Err(Refusal::RateLimited)
            }
        }
    }

    /// It has logged in, or who it was counts no more.
    pub(super) fn is_user(&mut self, user: Option<AccountId>) {
        self.subjects.account = user.map(|account| account.0.to_be_bytes().to_vec());
    }

    /// A transaction has begun.
    pub(super) fn begins(
        &mut self,
        helo: Option<&HeloName>,
        sender: Option<&Address>,
        user: Option<AccountId>,
    ) {
        self.judged = None;
        self.is_user(user);
        self.subjects.sender = sender.map(|sender| {
            let mut hasher = blake3::Hasher::new();
            if user.is_none() {
                hasher.update(&Network::neighbourhood(self.peer).to_bytes());
            }
            hasher.update(sender.to_string().to_lowercase().as_bytes());
            hasher.finalize().as_bytes()[..16].to_vec()
        });
        if self.standing == Standing::Stranger {
            helo.map_or("", HeloName::as_str).clone_into(&mut self.helo);
            let domain = sender.map(Address::domain);
            self.names = Looking::of(self.guard.look_up_names(&self.helo, domain));
        }
    }

    /// A recipient is named, after so many that were taken.
    pub(super) async fn recipient(
        &mut self,
        path: &ForwardPath,
        taken: usize,
    ) -> Result<(), Refusal> {
        if self.is_trusted() {
            return Ok(());
        }
        let settings = self.guard.settings();
        if taken as u64 >= rate::recipients_max(&settings.guard.rates, &self.subjects) {
            return Err(Refusal::TooManyRecipients);
        }
        let action = match self.judge().await {
            Verdict::Pass | Verdict::Marked => return Ok(()),
            _ if is_postmaster(path) => return Ok(()),
            Verdict::Deferred => GuardAction::ScoreDeferred,
            Verdict::Rejected => {
                self.guard.note(self.peer, Event::Rejected);
                GuardAction::ScoreRejected
            }
        };
        self.guard.did(action);
        Err(match action {
            GuardAction::ScoreRejected => Refusal::PolicyRejected,
            _ => Refusal::PolicyDeferred,
        })
    }

    /// What its mail scores; asked for once a transaction.
    async fn judge(&mut self) -> Verdict {
        if self.standing != Standing::Stranger {
            return Verdict::Pass;
        }
        if let Some((_, verdict)) = &self.judged {
            return *verdict;
        }
        let mut score = Score::default();
        let mut asked = false;
        for looking in [&mut self.address, &mut self.names] {
            if let Some(found) = looking.score().await {
                asked = true;
                score.findings.extend(found.findings.iter().cloned());
            }
        }
        let verdict = score.verdict(&self.guard.settings().guard.thresholds);
        if verdict == Verdict::Marked {
            self.guard.did(GuardAction::ScoreMarked);
        }
        if !score.findings.is_empty() {
            let (total, findings) = (score.total(), score.describe());
            tracing::info!(score = total, verdict = verdict.as_str(), findings, "scored");
        }
        if asked {
            self.judged = Some((score, verdict));
        }
        verdict
    }

    /// Nobody has that name here.
    pub(super) fn asked_for_nobody(&self) {
        if self.is_held_against() {
            self.guard.note(self.peer, Event::UnknownRecipient);
        }
    }

    /// All recipients are named. Gives the field that tells what was found, or nothing where nothing
    /// was looked for.
    pub(super) async fn data(&mut self, envelope: &Envelope) -> Result<String, Refusal> {
        if self.is_trusted() {
            return Ok(String::new());
        }
        let sender = envelope.sender.as_ref().map(|it| it.to_string().to_lowercase());
        let recipients = self.recipients(envelope);
        let stranger = (self.standing == Standing::Stranger).then(|| Stranger {
            peer: self.peer,
            helo: &self.helo,
            sender: sender.as_deref().unwrap_or_default(),
            recipients: &recipients,
        });
        let message = Admission {
            subjects: &self.subjects,
            recipients: envelope.recipients.len() as u64,
            greylisted: stranger,
        };
        let admitted = self.guard.admit(&message).await.map_err(|error| errors::store(&error))?;
        let sender = sender.unwrap_or_default();
        match admitted {
            Admitted::Yes(greylist) => Ok(self.field(greylist)),
            Admitted::Exceeds(scope) => {
                tracing::info!(?scope, sender, "refused: too much mail");
                Err(Refusal::RateLimited)
            }
            Admitted::PutOff => {
                tracing::info!(sender, recipients = envelope.recipients.len(), "greylisted");
                Err(Refusal::Greylisted)
            }
        }
    }

    /// Those that greylisting is asked for: a null sender's mail to a postmaster never waits.
    fn recipients(&self, envelope: &Envelope) -> Vec<String> {
        let canonical = |recipient: &Recipient| recipient.text.to_lowercase();
        let texts = envelope.recipients.iter().map(canonical);
        let is_null = envelope.sender.is_none();
        texts.filter(|text| !(is_null && local_is_postmaster(text))).collect()
    }

    fn field(&self, greylist: score::Greylist) -> String {
        // What a user waited for before the login is nobody's business.
        let held_up = match self.standing {
            Standing::Stranger => self.held_up,
            Standing::Submitter | Standing::Trusted => Duration::ZERO,
        };
        match (&self.judged, greylist) {
            (Some((score, verdict)), _) => score.field(*verdict, greylist, held_up),
            (None, score::Greylist::Unasked) if held_up.is_zero() => String::new(),
            (None, _) => Score::default().field(Verdict::Pass, greylist, held_up),
        }
    }

    /// Whether what it does wrong counts against its address: a user's slips are no attack, and others may be
    /// behind the same address.
    fn is_held_against(&self) -> bool {
        self.standing != Standing::Trusted && self.subjects.account.is_none()
    }

    /// Those in trusted networks have no limits, unless they have logged in.
    fn is_trusted(&self) -> bool {
        self.standing == Standing::Trusted && self.subjects.account.is_none()
    }

    /// How long the next reply waits, after so many refusals and errors.
    pub(super) fn delay(&mut self, offences: u32) -> Duration {
        let bad = std::mem::replace(&mut self.offences, offences) < offences;
        if !self.is_held_against() {
            return Duration::ZERO;
        }
        let settings = self.guard.settings();
        let score = self.judged.as_ref().map_or(0, |(score, _)| score.total());
        let refusals = if bad { offences } else { 0 };
        let delay = guard::delay(&settings.guard, refusals, score, self.held_up);
        if delay.is_zero() {
            return delay;
        }
        if self.place.is_none() {
            self.place = self.guard.hold_up();
            tracing::info!(offences, score, held = self.place.is_some(), "replies are held back");
        }
        if self.place.is_none() {
            return Duration::ZERO;
        }
        self.held_up += delay;
        delay
    }

    /// It is gone, after so many lines that were no commands.
    pub(super) fn ended(&self, errors: u32) {
        if self.is_held_against() {
            for _ in 0..errors {
                self.guard.note(self.peer, Event::ProtocolError);
            }
        }
    }
}

fn is_postmaster(path: &ForwardPath) -> bool {
    match path {
        ForwardPath::Postmaster => true,
        ForwardPath::Mailbox(address) => address.local().eq_ignore_ascii_case(POSTMASTER),
    }
}

fn local_is_postmaster(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(local, _)| local == POSTMASTER)
}
