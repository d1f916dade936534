//! APPEND, SEARCH, FETCH, STORE, COPY, MOVE, EXPUNGE.

use std::num::NonZeroU32;

use imap::command::*;
use imap::response::*;
use imap::*;

use crate::peer::*;

#[test]
fn appends() {
    let calls = check(
        plain,
        "A003 APPEND saved-messages (\\Seen $Junk) \" 7-Feb-1994 21:52:25 -0800\" {10}
Date: x

A004 APPEND {5+}
Trash ~{4+}
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
    assert_eq!(calls[4], Call::AppendData("a\r\nb".into()));
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
