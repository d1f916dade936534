//! The client and the driver of the dialogues.

use std::time::Duration;

use imap::command::*;
use imap::response::*;
use imap::*;

pub(crate) const START: Duration = Duration::from_secs(1000);

/// A driver that answers every call at once.
pub(crate) type Driver = fn(&Call) -> Vec<Reply>;

pub(crate) struct Run {
    pub(crate) output: String,
    pub(crate) calls: Vec<Call>,
    pub(crate) closed: bool,
}

pub(crate) struct Peer {
    pub(crate) session: Session,
    pub(crate) driver: Driver,
    pub(crate) run: Run,
}

impl Peer {
    pub(crate) fn new(config: Config, driver: Driver) -> Self {
        let run = Run { output: String::new(), calls: Vec::new(), closed: false };
        let mut peer = Self { session: Session::new(config, START), driver, run };
        peer.pump();
        peer.run.output.clear();
        peer
    }

    pub(crate) fn input(&mut self, bytes: &[u8]) {
        self.session.handle_input(START, bytes);
        self.pump();
    }

    pub(crate) fn pump(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Send(bytes) => {
                    self.run.output.push_str(std::str::from_utf8(&bytes).expect("text"));
                }
                Output::Call(call) => {
                    let replies = (self.driver)(&call);
                    match (self.run.calls.last_mut(), call) {
                        (Some(Call::AppendData(before)), Call::AppendData(more)) => {
                            *before = [&before[..], &more[..]].concat().into();
                        }
                        // How much of a message comes before its refusal is up to the network.
                        (_, Call::AppendData(_)) if replies != [Reply::AppendReady] => {}
                        (_, call) => self.run.calls.push(call),
                    }
                    for reply in replies {
                        self.session.handle_reply(reply);
                    }
                }
                Output::StartTls => self.run.output.push_str("<TLS>\r\n"),
                Output::WakeAt(_) => {}
                Output::Close => self.run.closed = true,
            }
        }
    }
}

pub(crate) fn config() -> Config {
    Config {
        plaintext: PlaintextPolicy::Always,
        capabilities: vec![Capability::Imap4Rev1, Capability::Imap4Rev2, Capability::CondStore],
        append_limit: 1000,
        ..Config::default()
    }
}

/// `input` are the client's lines, `output` the server's, both joined by line ends; `before` is
/// input whose answer does not matter. Returns the calls of the main part.
pub(crate) fn check_after(
    config: &Config,
    driver: Driver,
    before: &str,
    input: &str,
    output: &str,
) -> Vec<Call> {
    let lines = |text: &str| text.trim_matches('\n').replace('\n', "\r\n") + "\r\n";
    let (input, output) = (lines(input), lines(output));
    let mut calls: Option<Vec<Call>> = None;
    for split in 0..=input.len() + 1 {
        let mut peer = Peer::new(config.clone(), driver);
        if !before.is_empty() {
            peer.input(lines(before).as_bytes());
        }
        peer.run.output.clear();
        peer.run.calls.clear();
        match split {
            split if split <= input.len() => {
                let (first, rest) = input.as_bytes().split_at(split);
                peer.input(first);
                peer.input(rest);
            }
            _ => input.bytes().for_each(|byte| peer.input(&[byte])),
        }
        assert_eq!(peer.run.output, output, "split at {split}");
        let seen = calls.get_or_insert_with(|| peer.run.calls.clone());
        assert_eq!(*seen, peer.run.calls, "split at {split}");
    }
    calls.expect("at least one run")
}

pub(crate) fn check(driver: Driver, input: &str, output: &str) -> Vec<Call> {
    check_after(&config(), driver, "l LOGIN u p\ns SELECT INBOX", input, output)
}

pub(crate) fn check_rev2(driver: Driver, input: &str, output: &str) -> Vec<Call> {
    check_after(&config(), driver, "l LOGIN u p\ne ENABLE IMAP4rev2\ns SELECT INBOX", input, output)
}

pub(crate) fn uid(n: u32) -> Uid {
    Uid::new(n).expect("not zero")
}

pub(crate) fn seq(n: u32) -> SeqNo {
    SeqNo::new(n).expect("not zero")
}

pub(crate) fn modseq(n: u64) -> ModSeq {
    ModSeq::new(n).expect("63 bits")
}

pub(crate) fn validity(n: u32) -> UidValidity {
    UidValidity::new(n).expect("not zero")
}

pub(crate) fn name(text: &str) -> MailboxName {
    MailboxName::new(text).expect("a name")
}

pub(crate) fn ok(code: ResponseCode, text: &'static str) -> Reply {
    Reply::Untagged(Response::Ok(Some(code), text.into()))
}

/// Says OK to everything, and takes messages.
pub(crate) fn plain(call: &Call) -> Vec<Reply> {
    match call {
        Call::AppendBegin(_) | Call::AppendData(_) => vec![Reply::AppendReady],
        Call::IdleBegin | Call::AuthAbort | Call::AppendAbort => vec![],
        Call::Select(select) => selected(select),
        _ => vec![Reply::Done(Completion::ok())],
    }
}

pub(crate) fn selected(select: &Select) -> Vec<Reply> {
    let flags = SYSTEM_FLAGS.to_vec();
    vec![
        Reply::Untagged(Response::Flags(flags.clone())),
        Reply::Untagged(Response::Exists(172)),
        ok(ResponseCode::Unseen(seq(12)), "Message 12 is first unseen"),
        ok(ResponseCode::UidValidity(validity(3857529045)), "UIDs valid"),
        ok(ResponseCode::UidNext(uid(4392)), "Predicted next UID"),
        ok(ResponseCode::HighestModSeq(modseq(90060115205545359)), "Highest"),
        ok(ResponseCode::PermanentFlags { flags, new_keywords: NewKeywords::Allowed }, "Limited"),
        Reply::Untagged(Response::List(ListEntry::new(select.mailbox.clone(), Delimiter::SLASH))),
        Reply::Done(Completion::ok()),
    ]
}
