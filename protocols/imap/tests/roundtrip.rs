//! Commands as a client writes them are read as what was meant.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use imap::command::*;
use imap::*;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn mailbox() -> impl Strategy<Value = MailboxName> {
    prop_oneof![
        "[A-Za-z0-9/ &~.-]{1,12}",
        "\\PC{1,12}",
        Just("INBOX".to_owned()),
        Just("NIL".to_owned()),
        Just("a\"b\\c".to_owned()),
    ]
    .prop_filter_map("a name", MailboxName::new)
}

/// Text of astrings and strings, with all that has to be quoted or sent as literal.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,20}",
        any::<String>().prop_map(|text| text.replace('\0', "")),
        "[\"\\\\{}()\r\n%*+]{0,8}",
    ]
}

fn keyword() -> impl Strategy<Value = Keyword> {
    "[$A-Za-z0-9._+-]{1,12}".prop_filter_map("a keyword", |text| Keyword::new(&text))
}

fn flag() -> impl Strategy<Value = Flag> {
    prop_oneof![select(SYSTEM_FLAGS.to_vec()), keyword().prop_map(Flag::Keyword)]
}

fn flags() -> impl Strategy<Value = Vec<Flag>> {
    btree_set(flag(), 0..6).prop_map(|flags| flags.into_iter().collect())
}

fn message_set() -> impl Strategy<Value = MessageSet> {
    let ids = vec((any::<u32>(), 0u32..100), 1..8).prop_filter_map("numbers", |ranges| {
        let mut ids = IdSet::new();
        for (start, more) in ranges {
            ids.insert_range(start..=start.saturating_add(more));
        }
        SequenceSet::from_ids(ids).map(MessageSet::Set)
    });
    prop_oneof![
        ids,
        any::<u32>().prop_map(|first| MessageSet::Set(SequenceSet::from_onwards(first))),
        Just(MessageSet::Set(SequenceSet::last_message())),
        Just(MessageSet::Saved),
    ]
}

fn by() -> impl Strategy<Value = Numbering> {
    select(vec![Numbering::Sequence, Numbering::Uid])
}

fn modseq() -> impl Strategy<Value = ModSeq> {
    any::<u64>().prop_filter_map("63 bits", |n| ModSeq::new(n >> 1))
}

fn date() -> impl Strategy<Value = Date> {
    (0i64..40_000).prop_filter_map("a day", Date::from_days_since_epoch)
}

fn date_time() -> impl Strategy<Value = DateTime> {
    (0i64..4_000_000_000, -720i16..840)
        .prop_filter_map("a moment", |(seconds, offset)| DateTime::from_unix(seconds, offset))
}

fn search_key() -> impl Strategy<Value = SearchKey> {
    let leaf = prop_oneof![
        select(vec![SearchKey::All, SearchKey::New, SearchKey::Old, SearchKey::Recent]),
        message_set().prop_map(SearchKey::Sequence),
        message_set().prop_map(SearchKey::Uid),
        flag().prop_map(SearchKey::Has),
        flag().prop_map(SearchKey::Lacks),
        (text(), 0..7).prop_map(|(text, kind)| match kind {
            0 => SearchKey::Bcc(text),
            1 => SearchKey::Cc(text),
            2 => SearchKey::From(text),
            3 => SearchKey::To(text),
            4 => SearchKey::Subject(text),
            5 => SearchKey::Body(text),
            _ => SearchKey::Text(text),
        }),
        (text(), text()).prop_map(|(name, value)| SearchKey::Header { name, value }),
        (date(), 0..6).prop_map(|(date, kind)| match kind {
            0 => SearchKey::Before(date),
            1 => SearchKey::On(date),
            2 => SearchKey::Since(date),
            3 => SearchKey::SentBefore(date),
            4 => SearchKey::SentOn(date),
            _ => SearchKey::SentSince(date),
        }),
        (0..=i64::MAX as u64).prop_map(SearchKey::Larger),
        (0..=i64::MAX as u64).prop_map(SearchKey::Smaller),
        modseq().prop_map(SearchKey::ModSeq),
    ];
    leaf.prop_recursive(4, 24, 4, |key| {
        prop_oneof![
            vec(key.clone(), 2..4).prop_map(SearchKey::And),
            (key.clone(), key.clone()).prop_map(|(a, b)| SearchKey::Or(Box::new(a), Box::new(b))),
            key.prop_map(|key| SearchKey::Not(Box::new(key))),
        ]
    })
}

fn search() -> impl Strategy<Value = Search> {
    let options = vec![
        SearchReturn::Min,
        SearchReturn::Max,
        SearchReturn::All,
        SearchReturn::Count,
        SearchReturn::Save,
    ];
    (by(), option::of(btree_set(select(options), 1..5)), search_key())
        .prop_map(|(by, returns, key)| Search { by, returns, key })
}

fn part() -> impl Strategy<Value = PartPath> {
    vec(1u32.., 0..4).prop_filter_map("a part", |numbers| {
        PartPath::new(numbers.into_iter().filter_map(NonZeroU32::new).collect())
    })
}

fn fetch_attr() -> impl Strategy<Value = FetchAttr> {
    let fields = || {
        vec(prop_oneof!["[A-Za-z-]{1,10}", "[!-9;-~]{1,6}"], 1..4)
            .prop_filter_map("names", HeaderFields::new)
    };
    let kind = prop_oneof![
        Just(SectionKind::Whole),
        Just(SectionKind::Header),
        Just(SectionKind::Text),
        Just(SectionKind::Mime),
        fields().prop_map(SectionKind::HeaderFields),
        fields().prop_map(SectionKind::HeaderFieldsNot),
    ];
    let section = || (part(), kind.clone()).prop_filter_map("valid", |(p, k)| Section::new(p, k));
    let partial = || {
        option::of((0..1u64 << 40, 1..1u64 << 40))
            .prop_map(|partial| partial.map(|(offset, length)| Partial { offset, length }))
    };
    let peek = || select(vec![Peek::Yes, Peek::No]);
    let plain = vec![
        FetchAttr::Uid,
        FetchAttr::Flags,
        FetchAttr::InternalDate,
        FetchAttr::Rfc822Size,
        FetchAttr::ModSeq,
        FetchAttr::Envelope,
        FetchAttr::Body,
        FetchAttr::BodyStructure,
        FetchAttr::Rfc822(Rfc822Part::Full),
        FetchAttr::Rfc822(Rfc822Part::Header),
        FetchAttr::Rfc822(Rfc822Part::Text),
    ];
    prop_oneof![
        select(plain),
        (section(), partial(), peek()).prop_map(|(section, partial, peek)| FetchAttr::Section {
            section,
            partial,
            peek
        }),
        (part(), partial(), peek()).prop_map(|(part, partial, peek)| FetchAttr::Binary {
            part,
            partial,
            peek
        }),
        part().prop_map(FetchAttr::BinarySize),
    ]
}

fn fetch() -> impl Strategy<Value = Fetch> {
    (by(), message_set(), vec(fetch_attr(), 1..6), option::of(modseq())).prop_map(
        |(by, set, wanted, changed_since)| {
            let uid = (by == Numbering::Uid).then_some(FetchAttr::Uid);
            let modseq = changed_since.map(|_| FetchAttr::ModSeq);
            let mut items = Vec::new();
            for item in uid.into_iter().chain(wanted).chain(modseq) {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            Fetch { by, set, items, changed_since }
        },
    )
}

fn status_items() -> impl Strategy<Value = Vec<StatusItem>> {
    let all = vec![
        StatusItem::Messages,
        StatusItem::Recent,
        StatusItem::UidNext,
        StatusItem::UidValidity,
        StatusItem::Unseen,
        StatusItem::Deleted,
        StatusItem::Size,
        StatusItem::HighestModSeq,
    ];
    btree_set(select(all), 1..8).prop_map(|items| items.into_iter().collect())
}

fn list() -> impl Strategy<Value = List> {
    let selects = vec![ListSelect::Subscribed, ListSelect::Remote, ListSelect::SpecialUse];
    let returns = vec![ListReturn::Subscribed, ListReturn::Children, ListReturn::SpecialUse];
    let pattern = || prop_oneof!["[a-z/%*]{0,8}", "[\\PC--&]{0,8}"].prop_map(ListPattern::new);
    (
        btree_set(select(selects), 0..3),
        "[a-zä/]{0,6}",
        vec(pattern(), 1..4),
        btree_set(select(returns), 0..3),
        option::of(status_items()),
        any::<bool>(),
    )
        .prop_map(|(select, reference, patterns, returns, status, extended)| {
            let implied = select.iter().filter_map(|option| option.implies());
            let returns: BTreeSet<_> = returns.into_iter().chain(implied).collect();
            let status = status.unwrap_or_default();
            let syntax = !select.is_empty() || patterns.len() > 1;
            let extended = extended || syntax || !returns.is_empty() || !status.is_empty();
            let form = if extended { ListForm::Extended } else { ListForm::Basic };
            List { select, reference, patterns, returns, status, form }
        })
}

fn store() -> impl Strategy<Value = Store> {
    (
        (by(), message_set(), option::of(modseq())),
        select(vec![StoreMode::Replace, StoreMode::Add, StoreMode::Remove]),
        select(vec![StoreEcho::Flags, StoreEcho::Silent]),
        flags(),
    )
        .prop_map(|((by, set, unchanged_since), mode, echo, flags)| Store {
            by,
            set,
            unchanged_since,
            mode,
            echo,
            flags,
        })
}

fn command() -> impl Strategy<Value = Command> {
    let secret = || vec(any::<u8>(), 0..20).prop_map(Secret::new);
    let copy = || {
        (by(), message_set(), mailbox()).prop_map(|(by, set, mailbox)| Copy { by, set, mailbox })
    };
    let uses = btree_set(select(SpecialUse::ALL.to_vec()), 0..4);
    let modes = vec![SelectMode::ReadWrite, SelectMode::ReadOnly];
    let plain = vec![
        Command::Capability,
        Command::Noop,
        Command::Logout,
        Command::StartTls,
        Command::Namespace,
        Command::Idle,
        Command::Check,
        Command::Close,
        Command::Unselect,
    ];
    let id_field = ("[a-z]{1,10}", option::of(text()));
    prop_oneof![
        select(plain),
        vec(id_field, 0..4).prop_map(Command::Id),
        ("[A-Z0-9-]{1,20}", option::of(secret()))
            .prop_map(|(mechanism, initial)| Command::Authenticate { mechanism, initial }),
        (text(), secret()).prop_map(|(user, password)| Command::Login { user, password }),
        vec("[A-Z0-9=]{1,10}", 1..4).prop_map(Command::Enable),
        (mailbox(), select(modes), any::<bool>()).prop_map(|(mailbox, mode, condstore)| {
            Command::Select(Select { mailbox, mode, condstore })
        }),
        (mailbox(), uses).prop_map(|(mailbox, uses)| {
            Command::Create(Create { mailbox, special_use: uses.into_iter().collect() })
        }),
        mailbox().prop_map(Command::Delete),
        (mailbox(), mailbox()).prop_map(|(from, to)| Command::Rename(Rename { from, to })),
        mailbox().prop_map(Command::Subscribe),
        mailbox().prop_map(Command::Unsubscribe),
        list().prop_map(Command::List),
        ("[a-zä/]{0,6}", "[a-zä%*]{0,6}").prop_map(|(reference, pattern)| {
            Command::Lsub(Lsub { reference, pattern: ListPattern::new(pattern) })
        }),
        (mailbox(), status_items())
            .prop_map(|(mailbox, items)| Command::Status(StatusCommand { mailbox, items })),
        option::of(message_set()).prop_map(|uids| Command::Expunge(Expunge { uids })),
        search().prop_map(Command::Search),
        fetch().prop_map(Command::Fetch),
        store().prop_map(Command::Store),
        copy().prop_map(Command::Copy),
        copy().prop_map(Command::Move),
    ]
}

fn dialect() -> impl Strategy<Value = Dialect> {
    select(vec![Dialect::Ascii, Dialect::Utf8])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn commands_round_trip(tag in "[A-Za-z0-9.]{1,8}", command in command(), dialect in dialect()) {
        let tag = Tag::new(tag).expect("a tag");
        let meant = TaggedCommand { tag, command };
        let wire = meant.encode(dialect);
        let read = TaggedCommand::parse(&wire, dialect);
        prop_assert_eq!(read, Ok(meant), "{}", String::from_utf8_lossy(&wire));
    }
}

proptest! {
    #[test]
    fn appends_round_trip(
        mailbox in mailbox(),
        flags in flags(),
        date in option::of(date_time()),
        message in vec(any::<u8>(), 1..200),
        form in select(vec![AppendForm::Literal, AppendForm::Literal8, AppendForm::Utf8]),
        piece in 1usize..64,
    ) {
        let config = Config { plaintext: PlaintextPolicy::Always, ..Config::default() };
        let mut session = Session::new(config, Default::default());
        let append = Append { mailbox, flags, date, size: message.len() as u64, form };
        let tagged = |command| TaggedCommand { tag: Tag::new("a").expect("a tag"), command };
        let login = Command::Login { user: "u".into(), password: Secret::new(b"p".to_vec()) };
        let mut input = tagged(login).encode(Dialect::Ascii);
        input.extend(tagged(Command::Append(append.clone())).encode(Dialect::Ascii));
        input.extend(&message);
        input.extend(if form == AppendForm::Utf8 { &b")\r\n"[..] } else { b"\r\n" });
        let (mut begun, mut octets, mut ended) = (None, Vec::new(), 0);
        for piece in input.chunks(piece) {
            session.handle_input(Default::default(), piece);
            while let Some(output) = session.poll_output() {
                let reply = match output {
                    Output::Call(Call::Login { .. }) => Reply::Done(Completion::ok()),
                    Output::Call(Call::AppendBegin(append)) => {
                        begun = Some(append);
                        Reply::AppendReady
                    }
                    Output::Call(Call::AppendData(data)) => {
                        octets.extend_from_slice(&data);
                        Reply::AppendReady
                    }
                    Output::Call(Call::AppendEnd) => {
                        ended += 1;
                        Reply::Done(Completion::ok())
                    }
                    Output::Call(call) => panic!("{call:?}"),
                    _ => continue,
                };
                session.handle_reply(reply);
            }
        }
        prop_assert_eq!((begun, octets, ended), (Some(append), message, 1));
    }
}
