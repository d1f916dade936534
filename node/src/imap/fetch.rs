//! FETCH (RFC 9051 §6.4.5). Envelope, structure, flags, dates and sizes come from records and
//! views; only bodies are read from blobs, by range, and streamed.

use std::collections::BTreeSet;

use env::probe::Planted;
use imap::{
    Completion, Numbering, Phase, Reply,
    command::{Fetch, FetchAttr},
    response::{FetchItem, FetchLiteral},
};
use mail::{
    AccountId, Keyword, KeywordChange, KeywordSet, MailboxId, MetaPart, MetaRecord, StoreError,
    StoreRequest, Uid, view::Message,
};

use super::{
    Connection, Disconnect, errors, flags,
    messages::renewed,
    section::{Opened, Pieces, Source, parts_of},
    selected::Told,
    store::targets,
    structure,
};

/// Messages whose records are read at once.
pub(super) const MESSAGES_PER_READ: usize = 50;

/// What a FETCH has come to.
struct Progress {
    /// Messages whose new flags the client has been told.
    told: Told,
    /// How the command ends.
    completion: Completion,
    /// What the items need of each message's record.
    parts: Vec<MetaPart>,
}

impl Connection {
    pub(super) async fn fetch(&mut self, fetch: &Fetch) -> Result<(), Disconnect> {
        let (mailbox, view, mut walk) = match self.walk(fetch.by, &fetch.set).await {
            Ok(found) => found,
            Err(completion) => return self.done(completion).await,
        };
        let mut progress = Progress {
            told: Told::default(),
            completion: Completion::ok(),
            parts: parts_of(&fetch.items),
        };
        let reads_bytes = fetch.items.iter().any(|item| item.literal_item().is_some());
        loop {
            let mut messages = match walk.next(&self.services.db, &view).await {
                Ok(Some(messages)) => messages,
                Ok(None) => break,
                Err(error) => return self.fail_view(&error).await,
            };
            if let Some(since) = fetch.changed_since {
                let late = u64::from(env::probe::planted(Planted::ChangedSinceOffByOne));
                messages.retain(|message| message.row.modseq.0 > since.get() + late);
            }
            for (number, chunk) in messages.chunks_mut(MESSAGES_PER_READ).enumerate() {
                if number > 0 && reads_bytes {
                    // Bytes that are in memory never make this task wait, and take their time.
                    tokio::task::yield_now().await;
                }
                self.fetch_chunk(fetch, mailbox, chunk, &mut progress).await?;
            }
        }
        self.done_after(progress.completion, &progress.told).await
    }

    async fn fetch_chunk(
        &mut self,
        fetch: &Fetch,
        mailbox: MailboxId,
        messages: &mut [Message],
        progress: &mut Progress,
    ) -> Result<(), Disconnect> {
        let sets_seen = fetch.items.iter().any(FetchAttr::sets_seen)
            && self.session.phase() == Phase::Selected(imap::Access::ReadWrite);
        let mut marked = BTreeSet::new();
        if sets_seen {
            match self.set_seen(mailbox, messages, progress).await {
                Ok(uids) => marked = uids,
                Err(completion) => progress.completion = completion,
            }
        }
        let needs_record = fetch.items.iter().any(needs_record);
        let records = if needs_record {
            match self.records(messages).await {
                Ok(records) => records,
                Err(error) => {
                    progress.completion = errors::store(&error);
                    return Ok(());
                }
            }
        } else {
            messages.iter().map(|_| None).collect()
        };
        for (message, record) in messages.iter().zip(records) {
            if needs_record && record.is_none() {
                // RFC 2180 §4.1.2: gone, and this client does not know yet. RFC 9051 §6.4.9: a
                // UID that does not exist is no error.
                if fetch.by == Numbering::Sequence {
                    progress.completion = errors::expunged();
                }
                continue;
            }
            let tell_flags = marked.contains(&message.row.uid);
            let with_uid = fetch.by == Numbering::Uid;
            let opened = record.as_ref().map(|record| Opened::new(record, &progress.parts));
            let opened = match opened.transpose() {
                Ok(opened) => opened,
                Err(completion) => {
                    progress.completion = completion;
                    continue;
                }
            };
            let one = One { message, opened, tell_flags, with_uid };
            if let Some(completion) = self.fetch_one(fetch, &one).await? {
                progress.completion = completion;
            }
        }
        Ok(())
    }

    /// The records of some messages, read together; `None` for those that are gone.
    pub(super) async fn records(
        &self,
        messages: &[Message],
    ) -> Result<Vec<Option<MetaRecord>>, StoreError> {
        let account = match env::probe::planted(Planted::ReadWithoutAccount) {
            true => AccountId(1),
            false => self.account(),
        };
        let emails: Vec<_> = messages.iter().map(|message| message.row.email).collect();
        let emails = &emails;
        let db = &self.services.db;
        db.run(|tx| async move { mail::email_records(&tx, account, emails).await }).await
    }

    /// Sets `\Seen` where it is missing (RFC 9051 §6.4.5: fetching a body does), and takes up the
    /// flags and the MODSEQ that came of it. Returns whose flags are to be told.
    async fn set_seen(
        &self,
        mailbox: MailboxId,
        messages: &mut [Message],
        progress: &mut Progress,
    ) -> Result<BTreeSet<Uid>, Completion> {
        let unseen: Vec<Message> = messages
            .iter()
            .filter(|message| !message.row.flags.keywords.is_seen())
            .cloned()
            .collect();
        if unseen.is_empty() {
            return Ok(BTreeSet::new());
        }
        let seen: KeywordSet = Keyword::new(Keyword::SEEN).into_iter().collect();
        let request = StoreRequest {
            mailbox,
            change: KeywordChange::Add,
            keywords: seen,
            deleted: None,
            unchanged_since: None,
        };
        self.store_targets(&request, &targets(&unseen)).await?;
        let newest = self.services.views.view(self.account(), mailbox).await;
        let newest = newest.map_err(|error| errors::view(&error))?;
        let now = renewed(&self.services.db, &newest, &unseen).await;
        let mut now = now.map_err(|error| errors::view(&error))?.into_iter().peekable();
        let mut marked = BTreeSet::new();
        for message in messages {
            if let Some(held) = now.next_if(|held| held.row.uid == message.row.uid) {
                *message = held;
                progress.told.note(message);
                marked.insert(message.row.uid);
            }
        }
        Ok(marked)
    }

    /// One FETCH response. Returns how the command ends where something is amiss.
    async fn fetch_one(
        &mut self,
        fetch: &Fetch,
        one: &One<'_>,
    ) -> Result<Option<Completion>, Disconnect> {
        let opened = one.opened.as_ref();
        let Some(seq) = imap::SeqNo::new(one.message.sequence) else { return Ok(None) };
        self.reply(Reply::FetchBegin(seq)).await?;
        let mut amiss = None;
        if one.with_uid && !fetch.items.contains(&FetchAttr::Uid) {
            self.fetch_item(uid_item(one.message)).await?;
        }
        for attr in &fetch.items {
            match (attr.literal_item(), opened) {
                (Some(_), Some(opened)) => {
                    let source = opened.source(&self.services.blobs, attr).await;
                    match source {
                        Ok(source) => self.fetch_bytes(attr, opened, source, &mut amiss).await?,
                        Err(completion) => amiss = Some(completion),
                    }
                }
                _ => self.fetch_item(small_item(attr, one.message, opened)).await?,
            }
        }
        if one.tell_flags && !fetch.items.contains(&FetchAttr::Flags) {
            let told = FetchItem::Flags(flags::to_wire(&one.message.row.flags));
            self.reply(Reply::FetchItem(told)).await?;
        }
        if (one.tell_flags || fetch.changed_since.is_some())
            && !fetch.items.contains(&FetchAttr::ModSeq)
        {
            // RFC 7162 §3.1.4.1: CHANGEDSINCE asks for MODSEQ as well. §3.2: flags that changed
            // come with it; the session leaves it out for clients that did not enable CONDSTORE.
            self.fetch_item(small_item(&FetchAttr::ModSeq, one.message, None)).await?;
        }
        self.reply(Reply::FetchEnd).await?;
        Ok(amiss)
    }

    async fn fetch_item(&mut self, item: Option<FetchItem>) -> Result<(), Disconnect> {
        match item {
            Some(item) => self.reply(Reply::FetchItem(item)).await,
            None => Ok(()),
        }
    }

    /// Streams an item's bytes. Once its length is told, only the connection's end can take it
    /// back: damage found later closes it, so that no client keeps a wrong message.
    async fn fetch_bytes(
        &mut self,
        attr: &FetchAttr,
        opened: &Opened<'_>,
        source: Source,
        amiss: &mut Option<Completion>,
    ) -> Result<(), Disconnect> {
        let Some(item) = attr.literal_item() else { return Ok(()) };
        let length = source.len();
        let bytes = match source {
            Source::Nothing => return self.reply(Reply::FetchItem(FetchItem::Nil(item))).await,
            Source::Ready(bytes) => {
                return self.reply(Reply::FetchItem(FetchItem::Octets(item, bytes.into()))).await;
            }
            Source::Range(_) | Source::Decoded(..) => {
                Pieces::open(&self.services.blobs, opened.blob, &source).await
            }
        };
        let mut pieces = match bytes {
            Ok(Some(pieces)) => pieces,
            Ok(None) => return self.reply(Reply::FetchItem(FetchItem::Nil(item))).await,
            Err(completion) => {
                *amiss = Some(completion);
                return Ok(());
            }
        };
        self.reply(Reply::FetchLiteral(FetchLiteral { item, length })).await?;
        loop {
            match pieces.next().await {
                Ok(Some(bytes)) => self.reply(Reply::FetchData(bytes)).await?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::error!(%error, "a message's bytes cannot be read");
                    return Err(Disconnect::Closed);
                }
            }
        }
    }
}

/// What one FETCH response is made of.
struct One<'a> {
    message: &'a Message,
    opened: Option<Opened<'a>>,
    tell_flags: bool,
    with_uid: bool,
}

fn uid_item(message: &Message) -> Option<FetchItem> {
    imap::Uid::new(message.row.uid.number()).map(FetchItem::Uid)
}

/// Whether an item needs more than the view's row.
fn needs_record(attr: &FetchAttr) -> bool {
    !matches!(
        attr,
        FetchAttr::Uid
            | FetchAttr::Flags
            | FetchAttr::InternalDate
            | FetchAttr::Rfc822Size
            | FetchAttr::ModSeq
    )
}

fn small_item(
    attr: &FetchAttr,
    message: &Message,
    opened: Option<&Opened<'_>>,
) -> Option<FetchItem> {
    let row = &message.row;
    let structure = || opened.and_then(|opened| opened.structure.as_ref());
    match attr {
        FetchAttr::Uid => uid_item(message),
        FetchAttr::Flags => Some(FetchItem::Flags(flags::to_wire(&row.flags))),
        FetchAttr::InternalDate => imap::DateTime::from_unix(row.received_ms.div_euclid(1000), 0)
            .map(FetchItem::InternalDate),
        FetchAttr::Rfc822Size => Some(FetchItem::Rfc822Size(row.size)),
        FetchAttr::ModSeq => imap::ModSeq::new(row.modseq.0).map(FetchItem::ModSeq),
        FetchAttr::Envelope => {
            let envelope = opened?.envelope.as_ref()?;
            Some(FetchItem::Envelope(Box::new(structure::envelope(envelope))))
        }
        FetchAttr::Body => {
            structure().map(|held| FetchItem::Body(Box::new(structure::body(&held.root))))
        }
        FetchAttr::BodyStructure => {
            structure().map(|held| FetchItem::BodyStructure(Box::new(structure::body(&held.root))))
        }
        FetchAttr::BinarySize(part) => {
            let size = opened?.binary_size(part)?;
            Some(FetchItem::BinarySize(part.clone(), size))
        }
        FetchAttr::Section { .. } | FetchAttr::Binary { .. } | FetchAttr::Rfc822(_) => None,
    }
}
