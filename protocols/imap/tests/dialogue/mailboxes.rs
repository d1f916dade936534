//! SELECT, LIST and the commands on mailboxes.

use imap::command::*;
use imap::response::*;
use imap::*;

use crate::peer::*;

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
        check_rev2(lister, "B LIST \"\" {9+}\nEntwürf% X", "B BAD expected RETURN and its options");
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
