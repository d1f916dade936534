//! The client against this crate's own server, and against servers that send anything.

use proptest::prelude::*;

use super::*;
use crate::address::Domain;
use crate::call::{Call, Permanence, QueueId, Refusal, Reply};
use crate::config::{
    ChannelBinding, Config, EarlyTalkers, Extensions, Offer, Role, TlsInfo, TlsState,
};
use crate::limits::{Limits, REPLY_OCTETS_MAX};
use crate::session::Session;

/// What a server took responsibility for: sender, recipients, content.
type Message = (String, Vec<String>, Vec<u8>);

/// A driver whose answers follow from the names it is told.
#[derive(Default)]
struct Server {
    sender: String,
    recipients: Vec<String>,
    content: Vec<u8>,
    taken: Vec<Message>,
}

impl Server {
    fn answer(&mut self, call: &Call) -> Reply {
        match call {
            Call::Mail(mail) => {
                self.forget();
                self.sender = mail.sender.to_string();
                self.verdict("mail", Refusal::SenderDomainUnusable)
            }
            Call::Rcpt(rcpt) => {
                let name = rcpt.recipient.to_string();
                if name.contains("nobody") {
                    return Reply::Refused(Refusal::UnknownRecipient);
                }
                self.recipients.push(name);
                Reply::Accepted
            }
            Call::BeginData { .. } => self.verdict("begin", Refusal::InsufficientStorage),
            Call::Data(octets) => {
                self.content.extend_from_slice(octets);
                self.verdict("data", Refusal::TemporaryFailure)
            }
            Call::EndData => self.end(),
            Call::AbortData | Call::Reset => {
                self.forget();
                Reply::Accepted
            }
            _ => Reply::Accepted,
        }
    }

    fn end(&mut self) -> Reply {
        if self.sender.contains("end") {
            self.forget();
            return Reply::Refused(Refusal::PolicyRejected);
        }
        let id = QueueId::new("q").expect("valid");
        let each = self.sender.contains("each");
        let result = |name: &String| match each && name.contains("late") {
            true => Err(Refusal::MailboxFull(Permanence::Temporary)),
            false => Ok(id.clone()),
        };
        let results: Vec<_> = self.recipients.iter().map(result).collect();
        let mut taken = std::mem::take(&mut self.recipients);
        let mut verdicts = results.iter();
        taken.retain(|_| verdicts.next().is_some_and(Result::is_ok));
        let content = std::mem::take(&mut self.content);
        if !taken.is_empty() {
            self.taken.push((std::mem::take(&mut self.sender), taken, content));
        }
        if each { Reply::Deliveries(results) } else { Reply::MessageAccepted { id } }
    }

    fn verdict(&mut self, at: &str, refusal: Refusal) -> Reply {
        if self.sender.contains(at) {
            self.content.clear();
            return Reply::Refused(refusal);
        }
        Reply::Accepted
    }

    fn forget(&mut self) {
        self.sender.clear();
        self.recipients.clear();
        self.content.clear();
    }
}

/// How a conversation goes.
#[derive(Clone, Debug)]
struct Case {
    role: Role,
    encryption: Encryption,
    chunking: Chunking,
    /// Extensions whose keyword does not reach the client.
    hidden: Vec<&'static str>,
    /// Envelope and content of each message.
    messages: Vec<(String, Vec<String>, Vec<u8>)>,
    /// How the octets of content, and of either direction, are cut, over and over.
    cuts: Vec<usize>,
    /// The connection breaks when the client has had so many octets.
    breaks_at: Option<usize>,
}

/// Both sides, and the octets between them.
struct Conversation {
    case: Case,
    client: Client,
    session: Session,
    server: Server,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    delivered: usize,
    broken: bool,
    closed: bool,
    next_cut: usize,
    begun: usize,
    /// What waits to be handed in of the current message.
    content: Option<Bytes>,
    outcomes: Vec<Outcome>,
    failure: Option<Failure>,
}

impl Conversation {
    fn new(case: Case) -> Self {
        let dialect = if case.role == Role::Lmtp { Dialect::Lmtp } else { Dialect::Smtp };
        let settings = Settings {
            dialect,
            encryption: case.encryption,
            chunking: case.chunking,
            ..settings()
        };
        let config = Config {
            role: case.role,
            hostname: Domain::parse("mx.example").expect("valid"),
            tls: TlsState::Available,
            mechanisms: Vec::new(),
            early_talkers: EarlyTalkers::Refuse,
            extensions: Extensions { require_tls: Offer::Yes, ..Extensions::default() },
            // Some flights have more unknown recipients than a server puts up with.
            limits: Limits { refusals_max: u32::MAX, ..Limits::default() },
        };
        Conversation {
            case,
            client: Client::new(settings),
            session: Session::new(config),
            server: Server::default(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            delivered: 0,
            broken: false,
            closed: false,
            next_cut: 0,
            begun: 0,
            content: None,
            outcomes: Vec::new(),
            failure: None,
        }
    }

    fn cut(&mut self) -> usize {
        self.next_cut += 1;
        self.case.cuts[self.next_cut % self.case.cuts.len()]
    }

    fn run(&mut self) {
        // Each step moves something, or it is the last.
        while self.serve() | self.caller() | self.deliver() {}
    }

    fn serve(&mut self) -> bool {
        let mut moved = false;
        while let Some(output) = self.session.poll_output() {
            moved = true;
            match output {
                crate::Output::Send(octets) => {
                    let mut text = octets.to_vec();
                    for keyword in &self.case.hidden {
                        hide(&mut text, keyword.as_bytes());
                    }
                    self.to_client.extend_from_slice(&text);
                }
                crate::Output::Call(call) => {
                    let reply = self.server.answer(&call);
                    self.session.handle_reply(Duration::ZERO, reply);
                }
                crate::Output::StartTls | crate::Output::WakeAt(_) | crate::Output::Close => {}
            }
        }
        moved
    }

    fn caller(&mut self) -> bool {
        let mut moved = false;
        while let Some(output) = self.client.poll_output() {
            moved = true;
            match output {
                Output::Send(octets) | Output::SendEnd(octets) => {
                    self.to_server.extend_from_slice(&octets);
                }
                Output::StartTls => {
                    let info = TlsInfo {
                        version: "TLSv1.3".to_owned(),
                        cipher: "AES".to_owned(),
                        channel_binding: ChannelBinding::Absent,
                    };
                    self.session.handle_tls_established(Duration::ZERO, info);
                    self.client.handle_tls_established(Duration::ZERO);
                }
                Output::WakeAt(_) => {}
                Output::Event(event) => self.hear(event),
                Output::Close => self.closed = true,
            }
        }
        moved | self.write()
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Ready(_) => self.begin(),
            Event::Content(_) => {
                let content = self.case.messages[self.begun - 1].2.clone();
                self.content = Some(content.into());
            }
            Event::Answered(outcome) => {
                self.content = None;
                self.outcomes.push(outcome);
                self.begin();
            }
            Event::Failed(failure) => self.failure = Some(failure),
        }
    }

    fn begin(&mut self) {
        let Some((sender, recipients, _)) = self.case.messages.get(self.begun) else {
            return self.client.quit(Duration::ZERO);
        };
        let wish = transaction(&format!("{sender} {}", recipients.join(" ")));
        if !self.client.is_closed() {
            self.client.begin(Duration::ZERO, wish).expect("possible");
            self.begun += 1;
        }
    }

    fn write(&mut self) -> bool {
        if !self.client.wants_content() {
            return false;
        }
        let cut = self.cut();
        match self.content.as_mut() {
            None => false,
            Some(content) if content.is_empty() => {
                self.content = None;
                self.client.finish(Duration::ZERO);
                true
            }
            Some(content) => {
                let piece = content.split_to(content.len().min(cut));
                self.client.content(Duration::ZERO, piece);
                true
            }
        }
    }

    fn deliver(&mut self) -> bool {
        if self.closed || self.broken {
            return false;
        }
        let mut moved = false;
        let length = self.to_server.len().min(self.cut());
        if length > 0 && (self.session.wants_input() || self.session.is_closed()) {
            let taken = self.session.handle_input(Duration::ZERO, &self.to_server[..length]);
            self.to_server.drain(..taken);
            moved = taken > 0;
        }
        let mut length = self.to_client.len().min(self.cut());
        if let Some(left) = self.case.breaks_at.map(|at| at - self.delivered)
            && length >= left
        {
            length = left;
            self.broken = true;
        }
        let octets: Vec<u8> = self.to_client.drain(..length).collect();
        self.delivered += length;
        self.client.handle_input(Duration::ZERO, &octets);
        if self.broken {
            // What the client had written arrives all the same.
            let _ = self.session.handle_input(Duration::ZERO, &self.to_server);
            self.client.handle_closed(Duration::ZERO);
        }
        moved | (length > 0) | self.broken
    }
}

fn hide(text: &mut [u8], keyword: &[u8]) {
    let found = text.windows(keyword.len()).position(|window| window == keyword);
    if let Some(at) = found {
        text[at] = b'X';
    }
}

fn message(role: Role) -> impl Strategy<Value = (String, Vec<String>, Vec<u8>)> {
    let mut senders =
        vec!["<s@y>", "<s@y>", "<s@y>", "<mail@y>", "<begin@y>", "<data@y>", "<end@y>"];
    if role == Role::Lmtp {
        senders.push("<each@y>");
    }
    let recipients = prop::collection::vec(
        prop::sample::select(vec!["<a@x>", "<b@x>", "<nobody@x>", "<late@x>"]),
        1..6,
    );
    let many = prop::collection::vec(prop::sample::select(vec!["<a@x>", "<nobody@x>"]), 60..90);
    let lines = prop::collection::vec("[.a\u{e4}]{0,6}", 0..100);
    let names = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    (
        prop::sample::select(senders).prop_map(str::to_owned),
        prop_oneof![9 => recipients, 1 => many].prop_map(names),
        (lines, prop_oneof![9 => 1usize..4, 1 => 200usize..400]).prop_map(|(lines, repeat)| {
            lines.iter().map(|line| format!("{line}\r\n")).collect::<String>().repeat(repeat).into()
        }),
    )
}

fn case() -> impl Strategy<Value = Case> {
    let roles = prop::sample::select(vec![Role::Exchange, Role::Lmtp]);
    roles.prop_flat_map(|role| {
        (
            prop::sample::select(vec![Encryption::Never, Encryption::IfOffered]),
            prop::sample::select(vec![Chunking::WhereNeeded, Chunking::IfOffered]),
            prop::sample::subsequence(vec!["PIPELINING", "CHUNKING", "STARTTLS", "SIZE"], 0..=4),
            prop::collection::vec(message(role), 1..5),
            prop::collection::vec(
                prop_oneof![1usize..40, 1usize..3000, 60_000usize..200_000],
                1..6,
            ),
            prop::option::weighted(0.4, 0usize..1500),
        )
            .prop_map(move |(encryption, chunking, hidden, messages, cuts, breaks_at)| {
                Case { role, encryption, chunking, hidden, messages, cuts, breaks_at }
            })
    })
}

/// What became of each recipient agrees with what the server has.
fn agree(conversation: &Conversation) -> Result<(), TestCaseError> {
    let Conversation { case, outcomes, server, begun, broken, .. } = conversation;
    prop_assert_eq!(outcomes.len(), *begun);
    let mut taken = server.taken.iter();
    for ((sender, recipients, content), outcome) in case.messages.iter().zip(outcomes) {
        prop_assert_eq!(outcome.recipients.len(), recipients.len());
        let zipped = || recipients.iter().zip(&outcome.recipients);
        let accepted: Vec<_> = zipped()
            .filter(|(_, outcome)| matches!(outcome, RecipientOutcome::Accepted(_)))
            .map(|(name, _)| name.clone())
            .collect();
        let unknown = zipped().any(|(_, outcome)| *outcome == RecipientOutcome::Unknown);
        prop_assert!(!unknown || *broken);
        if unknown {
            // The last transaction: the server has the message for those accepted, or none.
            if let Some((from, names, octets)) = taken.next() {
                prop_assert_eq!((from, octets), (sender, content));
                prop_assert!(accepted.iter().all(|name| names.contains(name)));
            }
        } else if !accepted.is_empty() {
            let message = taken.next();
            prop_assert_eq!(message, Some(&(sender.clone(), accepted, content.clone())));
        }
        for (name, outcome) in zipped() {
            let RecipientOutcome::Refused { at, response } = outcome else { continue };
            let (expected, code): (&[Stage], u16) = match sender.as_str() {
                "<mail@y>" => (&[Stage::Mail], 550),
                _ if name.contains("nobody") => (&[Stage::Rcpt], 550),
                "<begin@y>" => (&[Stage::Data, Stage::Content, Stage::End], 452),
                "<data@y>" => (&[Stage::Content, Stage::End], 451),
                "<end@y>" => (&[Stage::End], 550),
                _ => (&[Stage::End], 452),
            };
            prop_assert!(expected.contains(at), "{:?} at {:?}", outcome, sender);
            prop_assert_eq!(response.code, code);
        }
    }
    prop_assert_eq!(taken.next(), None);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_arrives_is_what_was_handed_in(case in case()) {
        let mut conversation = Conversation::new(case);
        conversation.run();
        prop_assert!(conversation.closed, "{:?}", conversation.client);
        if !conversation.broken {
            prop_assert_eq!(&conversation.failure, &None);
            prop_assert_eq!(conversation.begun, conversation.case.messages.len());
        }
        agree(&conversation)?;
    }

    #[test]
    fn hostile_servers_neither_panic_nor_grow(
        words in prop::collection::vec(word(), 0..60),
        sizes in prop::collection::vec(1usize..40, 1..5),
        dialect in prop::sample::select(vec![Dialect::Smtp, Dialect::Lmtp]),
        encryption in prop::sample::select(vec![
            Encryption::Never, Encryption::IfOffered, Encryption::Required, Encryption::Implicit,
        ]),
        chunking in prop::sample::select(vec![Chunking::WhereNeeded, Chunking::IfOffered]),
        logs_in: bool,
    ) {
        let login = if logs_in { login("u", "p") } else { None };
        let mut client = Client::new(Settings { dialect, encryption, chunking, login, ..settings() });
        let (mut begun, mut answered, mut ended, mut closes) = (0, 0, 0, 0);
        let input = words.concat();
        let mut rest = input.as_slice();
        for &size in sizes.iter().cycle() {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            client.handle_input(Duration::ZERO, piece);
            rest = after;
            if rest.is_empty() {
                client.handle_closed(Duration::ZERO);
            }
            while let Some(output) = client.poll_output() {
                prop_assert_eq!(closes, 0);
                match output {
                    Output::StartTls => client.handle_tls_established(Duration::ZERO),
                    Output::Event(Event::Answered(outcome)) => {
                        answered += 1;
                        prop_assert_eq!(outcome.recipients.len(), 2);
                    }
                    Output::Event(Event::Failed(_)) => ended += 1,
                    Output::Close => closes += 1,
                    _ => {}
                }
            }
            client.content(Duration::ZERO, Bytes::from_static(b"x\r\n"));
            client.finish(Duration::ZERO);
            if client.begin(Duration::ZERO, transaction("<s@y> <a@x> <b@x>")).is_ok() {
                begun += 1;
            }
            prop_assert!(client.buffered_len() <= REPLY_OCTETS_MAX + 1024);
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!((begun, ended, closes), (answered, 1, 1));
    }
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::sample::select(vec![
            "220 mx\r\n", "250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "550 no\r\n",
            "450 later\r\n", "334 \r\n", "235 in\r\n", "503 what\r\n",
            "250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n",
            "250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
            "250-mx\r\n250 LIMITS MAILMAX=2\r\n",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::sample::select(vec!["421 bye\r\n", "25", "250-", "\r\n", "\n", "\r", "2"])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ]
}

/// A server that never ends its reply.
#[test]
fn endless_replies_cost_bounded_memory() {
    for piece in ["x", "250-", "250-x\r\n", "250-\r\n", "\n", "2"] {
        let mut client = Client::new(settings());
        client.handle_input(Duration::ZERO, b"220 mx\r\n");
        let flood = piece.repeat(1000);
        let mut fed = 0;
        while !client.is_closed() {
            client.handle_input(Duration::ZERO, flood.as_bytes());
            fed += flood.len();
            assert!(client.buffered_len() <= REPLY_OCTETS_MAX + 1024, "{piece:?}");
            assert!(fed <= 2 * REPLY_OCTETS_MAX, "{piece:?}");
        }
    }
}
