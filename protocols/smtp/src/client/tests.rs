//! Dialogues: each is replayed with the server's octets whole, cut in two at every octet, and
//! octet by octet.

use super::*;
use crate::address::{Address, ForwardPath, HeloName, ReversePath};
use crate::call::{Body, Submitter};
use crate::dialogue::{self, Segments};
use crate::dsn::{EnvelopeId, Notify, NotifyOn, OriginalRecipient, Ret};
use crate::handling::{DeliverBy, Priority, RequireTls};
use crate::secret::Secret;

mod content;
mod failures;
mod opening;
mod properties;
mod time;
mod transactions;

pub(super) fn settings() -> Settings {
    Settings::new(HeloName::parse("c.example").expect("valid"))
}

pub(super) fn lmtp() -> Settings {
    Settings { dialect: Dialect::Lmtp, ..settings() }
}

pub(super) fn login(identity: &str, password: &str) -> Option<Login> {
    Login::new(identity, Secret::new(password.as_bytes().to_vec()))
}

/// A client with all that it put out.
pub(super) struct Run {
    pub(super) client: Client,
    pub(super) now: Duration,
    pub(super) sent: Vec<u8>,
    pub(super) events: Vec<String>,
    pub(super) closed: bool,
    tls: bool,
    wake: Option<Duration>,
}

impl Run {
    pub(super) fn new(settings: Settings) -> Self {
        let mut run = Run {
            client: Client::new(settings),
            now: Duration::ZERO,
            sent: Vec::new(),
            events: Vec::new(),
            closed: false,
            tls: false,
            wake: None,
        };
        run.drain();
        run
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            assert!(!self.closed, "{output:?} after Close");
            match output {
                Output::Send(octets) | Output::SendEnd(octets) => {
                    self.sent.extend_from_slice(&octets);
                }
                Output::StartTls => self.tls = true,
                Output::WakeAt(at) => self.wake = Some(at),
                Output::Event(event) => self.events.push(render(&event)),
                Output::Close => self.closed = true,
            }
        }
        assert_eq!(self.client.is_closed(), self.closed);
    }

    pub(super) fn feed(&mut self, input: &[u8]) {
        self.client.handle_input(self.now, input);
        self.drain();
    }

    /// Carries an action of a script out.
    fn act(&mut self, action: &str) {
        let (verb, rest) = action.split_once(' ').unwrap_or((action, ""));
        match verb {
            "begin" => {
                if let Err(error) = self.client.begin(self.now, transaction(rest)) {
                    self.events.push(format!("not begun: {error}"));
                }
            }
            "content" => self.client.content(self.now, Bytes::from(dialogue::unescape(rest))),
            "finish" => self.client.finish(self.now),
            "abort" => self.client.abort(),
            "quit" => self.client.quit(self.now),
            "closed" => self.client.handle_closed(self.now),
            "sent" => self.client.handle_sent(self.now),
            "tls" => {
                assert!(std::mem::take(&mut self.tls), "no handshake was asked for");
                self.client.handle_tls_established(self.now);
            }
            "pass" => self.now += Duration::from_secs(rest.parse().expect("seconds")),
            "timeout" => {
                let expected = self.now + Duration::from_secs(rest.parse().expect("seconds"));
                while !self.client.is_closed() {
                    let wake = self.wake.take().expect("a time to wake at");
                    self.now = wake.max(self.now);
                    self.client.handle_timeout(self.now);
                    self.drain();
                }
                assert_eq!(self.now, expected, "timed out at");
            }
            _ => panic!("unknown action {action:?}"),
        }
        self.drain();
    }
}

/// A transaction as scripts write it: the sender, then recipients, then parameters.
pub(super) fn transaction(text: &str) -> Transaction {
    let mut words = text.split(' ');
    let sender = ReversePath::parse(words.next().expect("a sender")).expect("valid");
    let mut transaction = Transaction::new(sender, Vec::new());
    for word in words {
        if word.starts_with('<') {
            let path = ForwardPath::parse(word).expect("valid");
            transaction.recipients.push(Recipient::new(path));
            continue;
        }
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let last = transaction.recipients.last_mut();
        match name {
            "notify" => {
                last.expect("a recipient").notify = match value {
                    "never" => Notify::Never,
                    "success" => Notify::On(NotifyOn { success: true, ..NotifyOn::default() }),
                    _ => Notify::On(NotifyOn { success: true, failure: false, delay: true }),
                }
            }
            "orcpt" => last.expect("a recipient").orcpt = OriginalRecipient::parse(value),
            "size" => transaction.size = Some(value.parse().expect("a number")),
            "8bit" => transaction.body = Body::EightBitMime,
            "binary" => transaction.body = Body::BinaryMime,
            "utf8" => transaction.charset = crate::call::Charset::Utf8,
            "ret" => transaction.ret = Some(Ret::Headers),
            "envid" => transaction.envid = EnvelopeId::parse(value),
            "requiretls" => transaction.require_tls = RequireTls::Yes,
            "priority" => transaction.priority = Priority::parse(value),
            "by" => transaction.deliver_by = DeliverBy::parse(value),
            "auth" => {
                transaction.auth = Some(match Address::parse(value) {
                    Ok(address) => Submitter::Mailbox(address),
                    Err(_) => Submitter::Unknown,
                });
            }
            _ => panic!("unknown parameter {word:?}"),
        }
    }
    transaction
}

fn render(event: &Event) -> String {
    match event {
        Event::Ready(_) => "ready".to_owned(),
        Event::Content(Transfer { accepted, framing }) => {
            format!("content {framing:?} {accepted:?}")
        }
        Event::Answered(Outcome { recipients }) => {
            let each: Vec<_> = recipients.iter().map(render_outcome).collect();
            format!("answered {}", each.join(", "))
        }
        Event::Failed(failure) => format!("failed {failure}"),
    }
}

fn render_outcome(outcome: &RecipientOutcome) -> String {
    match outcome {
        RecipientOutcome::Accepted(response) => format!("accepted {response}"),
        RecipientOutcome::Refused { at, response } => format!("refused at {at} {response}"),
        RecipientOutcome::Unknown => "unknown".to_owned(),
        RecipientOutcome::NotSent => "not sent".to_owned(),
    }
}

/// Replays `script`. Its lines: `S:` the server's line, `s:` the server's octets with escapes,
/// `C:` the client's line, `c:` the client's octets with escapes, `!` an action of the caller or driver, `>` an event, `X:` the client
/// closes. What the client sends and what it tells must come in this order each.
pub(super) fn check(settings: impl Fn() -> Settings, script: &str) {
    let steps = dialogue::steps(script);
    let length: usize = steps.iter().map(|step| server_octets(step).len()).sum();
    dialogue::at_every_cut(length, |cuts, label| replay(settings(), &steps, cuts, label));
}

fn server_octets((kind, text): &(&str, &str)) -> Vec<u8> {
    match *kind {
        "S:" => dialogue::line(text),
        "s:" => dialogue::unescape(text),
        _ => Vec::new(),
    }
}

fn replay(settings: Settings, steps: &[(&str, &str)], cuts: &[usize], label: &str) {
    let mut run = Run::new(settings);
    let (mut sent, mut events, mut closes) = (String::new(), Vec::new(), false);
    let mut segments = Segments::new(cuts);
    for step in steps {
        match step.0 {
            "S:" | "s:" => segments.push(&server_octets(step)),
            "C:" | "c:" => {
                // The server answers what was asked, not what will be.
                segments.feed(|piece| run.feed(piece));
                let octets = match step.0 {
                    "C:" => dialogue::line(step.1),
                    _ => dialogue::unescape(step.1),
                };
                sent.push_str(&String::from_utf8_lossy(&octets));
            }
            ">" => events.push(step.1.to_owned()),
            "X:" => closes = true,
            "!" => {
                segments.feed(|piece| run.feed(piece));
                run.act(step.1);
            }
            kind => panic!("unknown step {kind:?}"),
        }
    }
    segments.feed(|piece| run.feed(piece));
    assert_eq!(String::from_utf8_lossy(&run.sent), sent, "sent, {label}");
    assert_eq!(run.events, events, "events, {label}");
    assert_eq!(run.closed, closes, "closed, {label}");
}

/// [`check`] from a session that is ready, with these extensions.
pub(super) fn check_ready(settings: impl Fn() -> Settings, extensions: &str, script: &str) {
    let verb = if settings().dialect == Dialect::Lmtp { "LHLO" } else { "EHLO" };
    let offered: String = extensions
        .split(',')
        .filter(|text| !text.is_empty())
        .map(|text| format!("S: 250-{text}\n"))
        .collect();
    check(
        settings,
        &format!(
            "S: 220 mx.example ESMTP
             C: {verb} c.example
             S: 250-mx.example
             {offered}
             S: 250 HELP
             > ready
             {script}"
        ),
    );
}
