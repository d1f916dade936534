//! Whole dialogues, each repeated with the input split at every octet.

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use imap::command::*;
use imap::response::*;
use imap::*;

const START: Duration = Duration::from_secs(1000);

/// A driver that answers every call at once.
type Driver = fn(&Call) -> Vec<Reply>;

struct Run {
    output: String,
    calls: Vec<Call>,
    closed: bool,
}

struct Peer {
    session: Session,
    driver: Driver,
    run: Run,
}

impl Peer {
    fn new(config: Config, driver: Driver) -> Self {
        let run = Run { output: String::new(), calls: Vec::new(), closed: false };
        let mut peer = Self { session: Session::new(config, START), driver, run };
        peer.pump();
        peer.run.output.clear();
        peer
    }

    fn input(&mut self, bytes: &[u8]) {
        self.session.handle_input(START, bytes);
        self.pump();
    }

    fn pump(&mut self) {
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

fn config() -> Config {
    Config {
        plaintext: PlaintextPolicy::Always,
        capabilities: vec![Capability::Imap4Rev1, Capability::Imap4Rev2, Capability::CondStore],
        append_limit: 1000,
        ..Config::default()
    }
}

/// `input` are the client's lines, `output` the server's, both joined by line ends; `before` is
/// input whose answer does not matter. Returns the calls of the main part.
fn check_after(
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

fn check(driver: Driver, input: &str, output: &str) -> Vec<Call> {
    check_after(&config(), driver, "l LOGIN u p\ns SELECT INBOX", input, output)
}

fn check_rev2(driver: Driver, input: &str, output: &str) -> Vec<Call> {
    check_after(&config(), driver, "l LOGIN u p\ne ENABLE IMAP4rev2\ns SELECT INBOX", input, output)
}

fn uid(n: u32) -> Uid {
    Uid::new(n).expect("not zero")
}

fn seq(n: u32) -> SeqNo {
    SeqNo::new(n).expect("not zero")
}

fn modseq(n: u64) -> ModSeq {
    ModSeq::new(n).expect("63 bits")
}

fn validity(n: u32) -> UidValidity {
    UidValidity::new(n).expect("not zero")
}

fn name(text: &str) -> MailboxName {
    MailboxName::new(text).expect("a name")
}

fn ok(code: ResponseCode, text: &'static str) -> Reply {
    Reply::Untagged(Response::Ok(Some(code), text.into()))
}

/// Says OK to everything, and takes messages.
fn plain(call: &Call) -> Vec<Reply> {
    match call {
        Call::AppendBegin(_) | Call::AppendData(_) => vec![Reply::AppendReady],
        Call::IdleBegin | Call::AuthAbort | Call::AppendAbort => vec![],
        Call::Select(select) => selected(select),
        _ => vec![Reply::Done(Completion::ok())],
    }
}

fn selected(select: &Select) -> Vec<Reply> {
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

#[test]
fn before_login() {
    let clear = Config { tls: TlsState::Available, ..Config::default() };
    let calls = check_after(
        &clear,
        plain,
        "",
        "a CAPABILITY
b LOGIN u p
c AUTHENTICATE PLAIN
d SELECT INBOX
e FETCH 1 FLAGS
f NOOP
g ID (\"name\" \"x\")
h ENABLE IMAP4rev2
i XYZZY
+ nonsense

j STARTTLS",
        "* CAPABILITY IMAP4rev1 IMAP4rev2 LITERAL+ ENABLE ID SASL-IR STARTTLS LOGINDISABLED
a OK CAPABILITY completed
b NO [PRIVACYREQUIRED] Passwords are taken only over TLS
c NO [PRIVACYREQUIRED] Passwords are taken only over TLS
d BAD This command is not valid before login
e BAD This command needs a selected mailbox
f OK NOOP completed
* ID NIL
g OK ID completed
h BAD This command is not valid before login
i BAD unknown command
* BAD expected a tag
* BAD expected a tag
j OK Begin TLS negotiation now
<TLS>",
    );
    assert_eq!(calls, []);
}

#[test]
fn what_was_sent_before_the_handshake_is_dropped() {
    let clear = Config { tls: TlsState::Available, ..Config::default() };
    let mut peer = Peer::new(clear, plain);
    peer.input(b"a STARTTLS\r\nb LOGIN u p\r\n");
    assert!(!peer.session.wants_input());
    peer.input(b"c LOGIN u p\r\n");
    let info = TlsInfo { channel_binding: ChannelBinding::Available };
    peer.session.handle_tls_established(START, info);
    peer.input(b"d LOGIN u p\r\n");
    assert_eq!(peer.run.calls.len(), 1);
    assert!(peer.run.output.contains("d OK [CAPABILITY "), "{}", peer.run.output);
    assert_eq!(peer.session.phase(), Phase::Authenticated);
}

fn sasl(call: &Call) -> Vec<Reply> {
    match call {
        Call::Authenticate { initial: None, .. } => vec![Reply::Challenge(Bytes::new())],
        Call::Authenticate { initial: Some(_), .. } => vec![Reply::Challenge("r=1".into())],
        Call::AuthResponse(secret) if secret.expose() == b"\0tim\0tanstaaftanstaaf" => {
            vec![Reply::Done(Completion::ok().with_code(ResponseCode::Alert))]
        }
        Call::AuthAbort => vec![],
        _ => vec![Reply::Done(Completion::no("No").with_code(ResponseCode::AuthenticationFailed))],
    }
}

#[test]
fn sasl_exchanges() {
    let mut config = config();
    config.mechanisms = vec!["PLAIN".into(), "SCRAM-SHA-256".into(), "SCRAM-SHA-256-PLUS".into()];
    check_after(
        &config,
        sasl,
        "",
        "a authenticate plain
*
b AUTHENTICATE SCRAM-SHA-256 bg==
!!
c AUTHENTICATE SCRAM-SHA-256 =
eA==
d AUTHENTICATE SCRAM-SHA-256-PLUS
e AUTHENTICATE PLAIN
AHRpbQB0YW5zdGFhZnRhbnN0YWFm
f AUTHENTICATE PLAIN",
        "+ 
a BAD The client gave up
+ cj0x
b BAD the SASL response is not valid base64
+ cj0x
c NO [AUTHENTICATIONFAILED] No
d NO [CANNOT] This SASL mechanism is not available
+ 
e OK [ALERT] AUTHENTICATE completed
f BAD This command is not valid after login",
    );
}

#[test]
fn guessing_ends_the_connection() {
    let mut peer = Peer::new(config(), sasl);
    for _ in 0..limits::AUTH_FAILURES_MAX {
        assert!(!peer.run.closed);
        peer.input(b"a LOGIN {1+}\r\nu \"p\\\"q\"\r\n");
    }
    assert!(peer.run.closed);
    assert!(peer.run.output.ends_with("* BYE Too many failed logins\r\n"));
    assert_eq!(
        peer.run.calls[0],
        Call::Login { user: "u".into(), password: Secret::new(b"p\"q".to_vec()) }
    );
}

#[test]
fn select_in_both_versions() {
    let input = "A142 SELECT INBOX\nA143 EXAMINE \"Entw&APw-rfe\" (CONDSTORE)";
    let calls = check_after(
        &config(),
        plain,
        "l LOGIN u p",
        input,
        "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)
* 172 EXISTS
* 0 RECENT
* OK [UNSEEN 12] Message 12 is first unseen
* OK [UIDVALIDITY 3857529045] UIDs valid
* OK [UIDNEXT 4392] Predicted next UID
* OK [HIGHESTMODSEQ 90060115205545359] Highest
* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] Limited
A142 OK [READ-WRITE] SELECT completed
* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)
* 172 EXISTS
* 0 RECENT
* OK [UNSEEN 12] Message 12 is first unseen
* OK [UIDVALIDITY 3857529045] UIDs valid
* OK [UIDNEXT 4392] Predicted next UID
* OK [HIGHESTMODSEQ 90060115205545359] Highest
* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] Limited
A143 OK [READ-ONLY] EXAMINE completed",
    );
    let select = |mailbox, mode, condstore| Call::Select(Select { mailbox, mode, condstore });
    assert_eq!(
        calls,
        [
            select(name("INBOX"), SelectMode::ReadWrite, false),
            select(name("Entwürfe"), SelectMode::ReadOnly, true)
        ]
    );
    check_after(
        &config(),
        plain,
        "l LOGIN u p\ns SELECT INBOX",
        "e ENABLE IMAP4rev2 X-NO\nA SELECT \"Entwürfe\"\nB STORE 1 FLAGS ()",
        "* ENABLED IMAP4rev2
e OK ENABLE completed
* OK [CLOSED] The previous mailbox is closed
* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)
* 172 EXISTS
* OK [UIDVALIDITY 3857529045] UIDs valid
* OK [UIDNEXT 4392] Predicted next UID
* OK [HIGHESTMODSEQ 90060115205545359] Highest
* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] Limited
* LIST () \"/\" \"Entwürfe\"
A OK [READ-WRITE] SELECT completed
B OK STORE completed",
    );
}

#[test]
fn read_only_mailboxes_are_not_changed() {
    let calls = check_after(
        &config(),
        plain,
        "l LOGIN u p\ns EXAMINE INBOX",
        "a STORE 1 +FLAGS (\\Seen)\nb EXPUNGE\nc MOVE 1 x\nd COPY 1 x\ne CLOSE\nf FETCH 1 FLAGS",
        "a NO [CANNOT] The mailbox is selected read-only
b NO [CANNOT] The mailbox is selected read-only
c NO [CANNOT] The mailbox is selected read-only
d OK COPY completed
e OK CLOSE completed
f BAD This command needs a selected mailbox",
    );
    assert_eq!(calls[1..], [Call::Close(CloseMode::Keep)]);
}

#[test]
fn a_failed_select_leaves_nothing_selected() {
    fn driver(call: &Call) -> Vec<Reply> {
        match call {
            Call::Select(select) if select.mailbox.as_str() == "x" => vec![Reply::Done(
                Completion::no("No such mailbox").with_code(ResponseCode::NonExistent),
            )],
            call => plain(call),
        }
    }
    check(
        driver,
        "a SELECT x\nb CHECK",
        "a NO [NONEXISTENT] No such mailbox\nb BAD This command needs a selected mailbox",
    );
}

fn lister(call: &Call) -> Vec<Reply> {
    let Call::List(list) = call else {
        return plain(call);
    };
    let mut replies = Vec::new();
    for text in ["INBOX", "Entwürfe", "Foo/Bar", "Foo/a \"b\"", "&", "NIL"] {
        let mut entry = ListEntry::new(name(text), Delimiter::SLASH);
        if !list.matches(&entry.mailbox, Delimiter::SLASH) {
            continue;
        }
        if list.select.contains(&ListSelect::RecursiveMatch) {
            entry.attributes.insert(ListAttribute::NonExistent);
            entry.child_info.insert(ChildInfo::Subscribed);
            entry.old_name = Some(name("Alt/Ü"));
        }
        if list.returns.contains(&ListReturn::SpecialUse) {
            entry.attributes.insert(ListAttribute::SpecialUse(SpecialUse::Drafts));
        }
        let mailbox = entry.mailbox.clone();
        replies.push(Reply::Untagged(Response::List(entry)));
        if !list.status.is_empty() {
            let values = vec![StatusValue::Messages(17), StatusValue::Size(1 << 40)];
            replies.push(Reply::Untagged(Response::Status(MailboxStatus { mailbox, values })));
        }
    }
    replies.push(Reply::Done(Completion::ok()));
    replies
}

#[test]
fn lists() {
    let input = "A LIST \"\" \"\"
B LIST \"\" *
C LIST (SUBSCRIBED RECURSIVEMATCH) \"\" (inbox Foo/b%)
D LIST Foo/ %r RETURN (CHILDREN STATUS (MESSAGES SIZE))
E LIST (RECURSIVEMATCH REMOTE) \"\" *
F LIST (SPECIAL-USE) \"\" Entw* RETURN ()
G LIST \"\"
H LIST (XYZ) \"\" *";
    check(lister, input, "* LIST (\\Noselect) \"/\" \"\"
A OK LIST completed
* LIST () \"/\" INBOX
* LIST () \"/\" Entw&APw-rfe
* LIST () \"/\" Foo/Bar
* LIST () \"/\" \"Foo/a \\\"b\\\"\"
* LIST () \"/\" &-
* LIST () \"/\" \"NIL\"
B OK LIST completed
* LIST (\\NonExistent \\Noselect) \"/\" INBOX (\"CHILDINFO\" (\"SUBSCRIBED\") \"OLDNAME\" (Alt/&ANw-))
C OK LIST completed
* LIST () \"/\" Foo/Bar
* STATUS Foo/Bar (MESSAGES 17 SIZE 1099511627776)
D OK LIST completed
E BAD RECURSIVEMATCH needs another selection option
* LIST (\\Drafts) \"/\" Entw&APw-rfe
F OK LIST completed
G BAD expected a space and further arguments
H BAD unknown selection option of LIST");
    let calls =
        check_rev2(lister, "B LIST \"\" {8+}\nEntwürf% X", "B BAD expected RETURN and its options");
    assert_eq!(calls, []);
    check_rev2(
        lister,
        "B LIST \"\" {9+}\nEntwürf%",
        "* LIST () \"/\" \"Entwürfe\"\nB OK LIST completed",
    );
}

#[test]
fn mailbox_commands() {
    let calls = check(
        plain,
        "a CREATE Sent (USE (\\Sent \\archive))
b CREATE x (USE (\\Nonsense))
c RENAME a {3}
b c
d DELETE \"\"
e SUBSCRIBE &U,BTFw-
f UNSUBSCRIBE &
g STATUS x (MESSAGES UNSEEN HIGHESTMODSEQ RECENT)
h LSUB \"\" %
i NAMESPACE
j STATUS x ()",
        "a OK CREATE completed
b NO [USEATTR] this special use is not supported
+ Ready
c OK RENAME completed
d NO [CANNOT] a mailbox name is 1 to 1024 octets without control characters
e OK SUBSCRIBE completed
f BAD a mailbox name is not valid modified UTF-7
* OK [HIGHESTMODSEQ 90060115205545359] CONDSTORE enabled
g OK STATUS completed
h OK LSUB completed
i OK NAMESPACE completed
j BAD expected an item of STATUS",
    );
    let items = vec![
        StatusItem::Messages,
        StatusItem::Unseen,
        StatusItem::HighestModSeq,
        StatusItem::Recent,
    ];
    assert_eq!(
        calls,
        [
            Call::Create(Create {
                mailbox: name("Sent"),
                special_use: vec![SpecialUse::Sent, SpecialUse::Archive]
            }),
            Call::Rename(Rename { from: name("a"), to: name("b c") }),
            Call::Subscribe(name("台北")),
            Call::Status(StatusCommand { mailbox: name("x"), items }),
            Call::Lsub(Lsub { reference: String::new(), pattern: ListPattern::new("%") }),
            Call::Namespace,
        ]
    );
}

#[test]
fn namespaces() {
    fn driver(call: &Call) -> Vec<Reply> {
        let space = |prefix: Option<&str>| Namespace {
            prefix: prefix.map(name),
            delimiter: Some(Delimiter::SLASH),
        };
        let spaces = Namespaces {
            personal: vec![space(None)],
            other_users: vec![space(Some("Other Users/"))],
            shared: vec![],
        };
        match call {
            Call::Namespace => {
                vec![Reply::Untagged(Response::Namespace(spaces)), Reply::Done(Completion::ok())]
            }
            call => plain(call),
        }
    }
    check(
        driver,
        "a NAMESPACE",
        "* NAMESPACE ((\"\" \"/\")) ((\"Other Users/\" \"/\")) NIL\na OK NAMESPACE completed",
    );
}

#[test]
fn appends() {
    let calls = check(
        plain,
        "A003 APPEND saved-messages (\\Seen $Junk) \" 7-Feb-1994 21:52:25 -0800\" {10}
Date: x

A004 APPEND {5+}
Trash ~{3+}
a
b
A005 APPEND Trash {0}

A006 APPEND Trash {3}
abcd
A007 APPEND Trash UTF8 (~{3+}
abc)
A008 APPEND Trash (\\Recent) {3+}
abc
A009 APPEND Trash {2000}
A010 APPEND Trash
A011 NOOP",
        "+ Ready
A003 OK APPEND completed
A004 OK APPEND completed
+ Ready
A005 OK APPEND completed
+ Ready
A006 BAD Expected the line end behind the message
A007 OK APPEND completed
A008 BAD a system flag that cannot be set
A009 NO [TOOBIG] The message is larger than this server takes
A010 BAD APPEND needs a mailbox and a literal
A011 OK NOOP completed",
    );
    let flags = vec![Flag::Seen, Flag::Keyword(Keyword::new("$junk").expect("an atom"))];
    let date = DateTime::from_unix(760_686_745, -480);
    assert_eq!(
        calls[..3],
        [
            Call::AppendBegin(Append {
                mailbox: name("saved-messages"),
                flags,
                date,
                size: 10,
                form: AppendForm::Literal
            }),
            Call::AppendData("Date: x\r\n\r".into()),
            Call::AppendEnd,
        ]
    );
    assert_eq!(calls[4], Call::AppendData("a\r\n".into()));
    assert_eq!(calls[10], Call::AppendAbort);
}

#[test]
fn refused_messages_are_thrown_away() {
    fn driver(call: &Call) -> Vec<Reply> {
        match call {
            Call::AppendBegin(append) if append.mailbox.as_str() == "no" => vec![Reply::Done(
                Completion::no("No such mailbox").with_code(ResponseCode::TryCreate),
            )],
            Call::AppendData(_) => {
                vec![Reply::Done(Completion::no("Full").with_code(ResponseCode::OverQuota))]
            }
            call => plain(call),
        }
    }
    check(
        driver,
        "a APPEND no {10}
b APPEND no {14+}
c LOGOUT
1234
d APPEND yes {14+}
d LOGOUT
1234
e NOOP",
        "a NO [TRYCREATE] No such mailbox
b NO [TRYCREATE] No such mailbox
d NO [OVERQUOTA] Full
e OK NOOP completed",
    );
}

#[test]
fn searches() {
    fn driver(call: &Call) -> Vec<Reply> {
        match call {
            Call::Search(search) => {
                let empty = search.key == SearchKey::Recent;
                let matches =
                    if empty { IdSet::new() } else { [2, 84, 882, 883].into_iter().collect() };
                let modseq = search.key.uses_modseq().then(|| modseq(917162500));
                let found = SearchOutcome { matches, modseq };
                vec![Reply::Found(found), Reply::Done(Completion::ok())]
            }
            call => plain(call),
        }
    }
    let input = "A282 SEARCH FLAGGED SINCE 1-Feb-1994 NOT FROM \"Smith\"
A283 SEARCH RETURN (MIN COUNT) ALL
A284 UID SEARCH RETURN () OR UNSEEN (2:4,7:* KEYWORD $x)
A285 SEARCH RETURN (SAVE) $
A286 SEARCH RECENT
A287 SEARCH RETURN (COUNT ALL) RECENT
A288 SEARCH CHARSET KOI8-R ALL
A289 SEARCH MODSEQ \"/flags/\\\\draft\" all 620162338 UNDELETED
A290 SEARCH CHARSET UTF-8 TEXT {4+}
ж\u{e9} SUBJECT \"\"
A291 SEARCH NOT
A292 SEARCH ((((((((((((((((((((((((((((((((((((((((ALL))))))))))))))))))))))))))))))))))))))))";
    let calls = check(
        driver,
        input,
        "* SEARCH 2 84 882 883
A282 OK SEARCH completed
* ESEARCH (TAG \"A283\") MIN 2 COUNT 4
A283 OK SEARCH completed
* ESEARCH (TAG \"A284\") UID ALL 2,84,882:883
A284 OK UID SEARCH completed
A285 OK SEARCH completed
* SEARCH
A286 OK SEARCH completed
* ESEARCH (TAG \"A287\") COUNT 0
A287 OK SEARCH completed
A288 NO [BADCHARSET (US-ASCII UTF-8)] this charset is not supported
* OK [HIGHESTMODSEQ 90060115205545359] CONDSTORE enabled
* SEARCH 2 84 882 883 (MODSEQ 917162500)
A289 OK SEARCH completed
* SEARCH 2 84 882 883
A290 OK SEARCH completed
A291 BAD expected a space and further arguments
A292 NO [LIMIT] SEARCH is nested too deeply",
    );
    let keys: Vec<_> = calls
        .into_iter()
        .map(|call| match call {
            Call::Search(search) => search.key,
            call => panic!("{call:?}"),
        })
        .collect();
    let and = |keys: &[SearchKey]| SearchKey::And(keys.to_vec());
    assert_eq!(
        keys[0],
        and(&[
            SearchKey::Has(Flag::Flagged),
            SearchKey::Since(Date::new(1994, 2, 1).expect("a day")),
            SearchKey::Not(Box::new(SearchKey::From("Smith".into()))),
        ])
    );
    assert_eq!(
        keys[6],
        and(&[SearchKey::ModSeq(modseq(620162338)), SearchKey::Lacks(Flag::Deleted)])
    );
    assert_eq!(keys[7], and(&[SearchKey::Text("жé".into()), SearchKey::Subject("".into())]));
    check_rev2(
        driver,
        "A SEARCH ALL\nB UID SEARCH RECENT",
        "* ESEARCH (TAG \"A\") ALL 2,84,882:883
A OK SEARCH completed
* ESEARCH (TAG \"B\") UID
B OK UID SEARCH completed",
    );
}

fn fetcher(call: &Call) -> Vec<Reply> {
    let Call::Fetch(fetch) = call else {
        return plain(call);
    };
    let mut replies = vec![Reply::FetchBegin(seq(12))];
    for item in &fetch.items {
        match (item, item.literal_item()) {
            (_, Some(item @ LiteralItem::Binary { .. })) => {
                replies.push(Reply::FetchItem(FetchItem::Nil(item)));
            }
            (_, Some(item)) => {
                replies.push(Reply::FetchLiteral(FetchLiteral { item, length: 12 }));
                replies.push(Reply::FetchData("Subject: x".into()));
                replies.push(Reply::FetchData("\r\n".into()));
            }
            (FetchAttr::Uid, _) => replies.push(Reply::FetchItem(FetchItem::Uid(uid(4)))),
            (FetchAttr::Flags, _) => {
                replies.push(Reply::FetchItem(FetchItem::Flags(vec![Flag::Seen])));
            }
            (FetchAttr::ModSeq, _) => {}
            (item, _) => panic!("{item:?}"),
        }
    }
    replies.push(Reply::FetchItem(FetchItem::ModSeq(modseq(65402))));
    replies.push(Reply::FetchEnd);
    replies.push(Reply::Done(Completion::ok()));
    replies
}

#[test]
fn fetches_are_streamed() {
    let calls = check(
        fetcher,
        "a FETCH 12 (FLAGS BODY[HEADER.FIELDS (DATE \"From\")])
b UID FETCH 4:* (BODY.PEEK[1.2.MIME]<5.12> FLAGS BINARY.PEEK[1] RFC822.HEADER)
c FETCH 12 (MODSEQ BODY[])
d UID FETCH 4 FLAGS (CHANGEDSINCE 12345)
e FETCH 1 BODY[MIME]
f FETCH 1 (FLAGS
g FETCH 0 FLAGS
h FETCH 1 BODY[1.]",
        "* 12 FETCH (FLAGS (\\Seen) BODY[HEADER.FIELDS (DATE From)] {12}
Subject: x
)
a OK FETCH completed
* 12 FETCH (UID 4 BODY[1.2.MIME]<5> {12}
Subject: x
 FLAGS (\\Seen) BINARY[1] NIL RFC822.HEADER {12}
Subject: x
)
b OK UID FETCH completed
* OK [HIGHESTMODSEQ 90060115205545359] CONDSTORE enabled
* 12 FETCH (BODY[] {12}
Subject: x
 MODSEQ (65402))
c OK FETCH completed
* 12 FETCH (UID 4 FLAGS (\\Seen) MODSEQ (65402))
d OK UID FETCH completed
e BAD MIME needs a part number before it
f BAD expected a space or )
g BAD expected a set of message numbers such as 1,3:5,9:*
h BAD a part number ends in a dot",
    );
    let part = PartPath::new([1, 2].into_iter().filter_map(NonZeroU32::new).collect());
    let section = Section::new(part.expect("short"), SectionKind::Mime).expect("has a part");
    let Call::Fetch(fetch) = &calls[1] else { panic!("{calls:?}") };
    assert_eq!(fetch.set, MessageSet::Set(SequenceSet::from_onwards(4)));
    let partial = Some(Partial { offset: 5, length: 12 });
    assert_eq!(fetch.items[1], FetchAttr::Section { section, partial, peek: Peek::Yes });
    assert!(!fetch.items[1].sets_seen());
}

#[test]
fn macros_are_expanded() {
    let calls = check(
        plain,
        "a FETCH 1 ALL\nb FETCH 1 fast\nc UID FETCH 1 FULL",
        "a OK FETCH completed\nb OK FETCH completed\nc OK UID FETCH completed",
    );
    let counts: Vec<_> = calls
        .iter()
        .map(|call| match call {
            Call::Fetch(fetch) => fetch.items.len(),
            _ => 0,
        })
        .collect();
    assert_eq!(counts, [4, 3, 6]);
}

/// What a driver must not do, and what the client sees of it.
fn check_fault(replies: fn(&Call) -> Vec<Reply>, output: &str) {
    let mut peer = Peer::new(config(), replies);
    peer.input(b"l LOGIN u p\r\ns SELECT INBOX\r\n");
    peer.run.output.clear();
    peer.input(b"a FETCH 1 BODY[]\r\n");
    assert_eq!(peer.run.output, output.replace('\n', "\r\n"));
    assert!(peer.run.closed);
    assert_eq!(peer.session.phase(), Phase::Logout);
}

#[test]
fn a_driver_at_fault_closes_the_connection() {
    fn literal(call: &Call, after: Vec<Reply>) -> Vec<Reply> {
        let Call::Fetch(fetch) = call else {
            return plain(call);
        };
        let item = fetch.items[0].literal_item().expect("a section");
        let begin =
            vec![Reply::FetchBegin(seq(1)), Reply::FetchLiteral(FetchLiteral { item, length: 3 })];
        begin.into_iter().chain(after).collect()
    }
    check_fault(
        |call| literal(call, vec![Reply::FetchData("ab".into()), Reply::FetchEnd]),
        "* 1 FETCH (BODY[] {3}\nab",
    );
    check_fault(
        |call| literal(call, vec![Reply::FetchData("abcd".into())]),
        "* 1 FETCH (BODY[] {3}\n",
    );
    check_fault(
        |call| literal(call, vec![Reply::Done(Completion::ok())]),
        "* 1 FETCH (BODY[] {3}\n",
    );
    check_fault(
        |call| match call {
            Call::Fetch(_) => vec![Reply::Untagged(Response::Expunge(seq(1)))],
            call => plain(call),
        },
        "* BYE [SERVERBUG] Internal error\n",
    );
    check_fault(
        |call| match call {
            Call::Fetch(_) => vec![Reply::AppendReady],
            call => plain(call),
        },
        "* BYE [SERVERBUG] Internal error\n",
    );
}

#[test]
fn stores_copies_and_expunges() {
    fn driver(call: &Call) -> Vec<Reply> {
        match call {
            Call::Store(store) => {
                let update =
                    FetchUpdate { seq: seq(1), items: vec![FetchItem::ModSeq(modseq(320162350))] };
                let ids = [7, 9].into_iter().collect();
                let code = SequenceSet::from_ids(ids).map(ResponseCode::Modified);
                let mut done = Completion::ok();
                done.code = code.filter(|_| store.unchanged_since.is_some());
                vec![Reply::Untagged(Response::Fetch(update)), Reply::Done(done)]
            }
            Call::Move(_) => {
                let copied = CopyUid::new(
                    validity(432432),
                    [42, 43, 69].into_iter().collect(),
                    [1202, 1203, 1204].into_iter().collect(),
                );
                vec![
                    ok(ResponseCode::CopyUid(copied.expect("pairs")), "Moved"),
                    Reply::Untagged(Response::Expunge(seq(22))),
                    Reply::Done(Completion::ok()),
                ]
            }
            call => plain(call),
        }
    }
    let calls = check(
        driver,
        "a STORE 1 FLAGS \\Seen $a
b UID STORE 7,5,9 (UNCHANGEDSINCE 320162338) +FLAGS.SILENT (\\Deleted)
c UID MOVE 42:69 foo
d UID EXPUNGE 3000:3002
e EXPUNGE
f UID NOOP
g COPY $ meeting",
        "a OK STORE completed
* OK [HIGHESTMODSEQ 90060115205545359] CONDSTORE enabled
* 1 FETCH (MODSEQ (320162350))
b OK [MODIFIED 7,9] UID STORE completed
* OK [COPYUID 432432 42:43,69 1202:1204] Moved
* 22 EXPUNGE
c OK UID MOVE completed
d OK UID EXPUNGE completed
e OK EXPUNGE completed
f BAD this command does not go with UID
g OK COPY completed",
    );
    assert_eq!(calls[4], Call::Expunge(Expunge { uids: None }));
    let copy = Copy { by: Numbering::Sequence, set: MessageSet::Saved, mailbox: name("meeting") };
    assert_eq!(calls[5], Call::Copy(copy));
}

#[test]
fn idle() {
    let calls = check(
        plain,
        "a IDLE\ndone\nb IDLE\nc NOOP\nd NOOP",
        "+ idling
a OK IDLE completed
+ idling
b BAD Expected DONE
d OK NOOP completed",
    );
    assert_eq!(calls[..2], [Call::IdleBegin, Call::IdleEnd]);

    let mut peer = Peer::new(config(), plain);
    let exists = || vec![Response::Exists(3)];
    let expunge = || vec![Response::Exists(3), Response::Expunge(seq(1))];
    assert!(peer.session.handle_event(exists()).is_err());
    peer.input(b"l LOGIN u p\r\ns SELECT INBOX\r\n");
    assert_eq!(peer.session.handle_event(expunge()), Err(EventRefused(expunge())));
    assert_eq!(peer.session.handle_event(exists()), Ok(()));
    peer.input(b"i IDLE\r\n");
    assert!(peer.session.is_idle() && peer.session.may_expunge());
    peer.run.output.clear();
    assert_eq!(peer.session.handle_event(expunge()), Ok(()));
    peer.pump();
    assert_eq!(peer.run.output, "* 3 EXISTS\r\n* 1 EXPUNGE\r\n");
}

#[test]
fn logout() {
    let mut peer = Peer::new(config(), plain);
    peer.input(b"a LOGOUT\r\nb NOOP\r\n");
    assert_eq!(peer.run.output, "* BYE Logging out\r\na OK LOGOUT completed\r\n");
    assert!(peer.run.closed);
}

#[test]
fn silence_ends_the_session() {
    let mut peer = Peer::new(config(), plain);
    peer.session.handle_timeout(START + limits::PREAUTH_TIMEOUT - Duration::from_secs(1));
    peer.input(b"a NOOP\r\nl LOGIN u p\r\n");
    // The login restarted the timer, so this is not the end yet.
    let later = START + limits::PREAUTH_TIMEOUT;
    peer.session.handle_timeout(later);
    assert_eq!(peer.session.poll_output(), Some(Output::WakeAt(later + limits::AUTOLOGOUT)));
    peer.session.handle_timeout(later + limits::AUTOLOGOUT - Duration::from_secs(1));
    peer.pump();
    assert!(!peer.run.closed);
    peer.session.handle_timeout(later + limits::AUTOLOGOUT);
    peer.pump();
    assert!(peer.run.closed);
    assert!(peer.run.output.ends_with("* BYE Autologout; the client was silent for too long\r\n"));

    let mut stranger = Peer::new(config(), plain);
    stranger.input(b"a NOOP\r\n");
    stranger.session.handle_timeout(START + limits::PREAUTH_TIMEOUT);
    stranger.pump();
    assert!(stranger.run.closed);
}

#[test]
fn a_call_is_never_timed_out() {
    let mut peer = Peer::new(config(), |call| match call {
        Call::Noop => vec![],
        call => plain(call),
    });
    peer.input(b"l LOGIN u p\r\nn NOOP\r\n");
    let far = START + 10 * limits::AUTOLOGOUT;
    peer.session.handle_timeout(far);
    peer.session.handle_shutdown("Going down");
    peer.pump();
    assert!(!peer.run.closed && peer.session.has_call());
    peer.session.handle_reply(Reply::Done(Completion::ok()));
    peer.pump();
    assert!(peer.run.output.ends_with("n OK NOOP completed\r\n* BYE Going down\r\n"));
    assert!(peer.run.closed);
}

#[test]
fn long_commands_are_refused_with_their_literals() {
    let mut peer = Peer::new(config(), plain);
    let long = "x".repeat(limits::COMMAND_BYTES_PREAUTH_MAX);
    for input in [
        format!("a LOGIN {long} {{9+}}\r\nb LOGOUT\n\r\nc NOOP\r\n"),
        format!("a LOGIN u {{{}+}}\r\n{long} {{9+}}\r\nb LOGOUT\n\r\nc NOOP\r\n", long.len()),
        format!("a LOGIN u {{{}}}\r\nc NOOP\r\n", long.len()),
    ] {
        for piece in [1, 7, 1000, input.len()] {
            peer.run.output.clear();
            input.as_bytes().chunks(piece).for_each(|piece| peer.input(piece));
            let mut lines = peer.run.output.lines();
            assert!(lines.next().is_some_and(|line| line.starts_with("a BAD The ")));
            assert_eq!(lines.next(), Some("c OK NOOP completed"));
            assert_eq!((lines.next(), peer.session.buffered_len()), (None, 0));
        }
    }
    let endless = format!("a LOGIN u {{{}+}}\r\n", limits::DRAIN_BYTES_MAX + 1);
    peer.input(endless.as_bytes());
    assert!(peer.run.closed);
}

#[test]
fn nonsense_ends_the_connection() {
    let mut peer = Peer::new(config(), plain);
    for _ in 0..limits::BAD_COMMANDS_MAX {
        assert!(!peer.run.closed);
        peer.input(b"GET / HTTP/1.1\r\n");
    }
    assert!(peer.run.output.ends_with("* BYE Too many bad commands\r\n"));
}

#[test]
fn greeting_and_capabilities_after_login() {
    let mut session = Session::new(config(), START);
    let greeting = "* OK [CAPABILITY IMAP4rev1 IMAP4rev2 SASL-IR AUTH=PLAIN] IMAP server ready\r\n";
    assert_eq!(session.poll_output(), Some(Output::Send(greeting.into())));
    assert_eq!(session.poll_output(), Some(Output::WakeAt(START + limits::PREAUTH_TIMEOUT)));
    assert_eq!(session.poll_output(), None);
    check_after(
        &config(),
        plain,
        "",
        "a LOGIN u p",
        "a OK [CAPABILITY IMAP4rev1 IMAP4rev2 CONDSTORE APPENDLIMIT=1000] LOGIN completed",
    );
}
