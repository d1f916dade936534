//! SEARCH (RFC 9051 §6.4.4): what the view's row decides first, then the record, then the bytes.

mod text;

use imap::{
    Completion, IdSet, MessageSet, Numbering, Reply,
    command::{Search, SearchKey, SearchReturn},
    response::SearchOutcome,
};
use mail::{
    MetaRecord, SearchedMeta,
    view::{Message, View},
};

use super::{Connection, Disconnect, errors, fetch::MESSAGES_PER_READ, flags, messages::Walk};
use text::{Extent, Text};

/// What a key knows a message by; each level costs more than the one before.
struct Candidate<'a> {
    message: &'a Message,
    bounds: Bounds<'a>,
    meta: Option<&'a SearchedMeta<'a>>,
    text: Option<&'a Text>,
}

/// What sets in a key refer to.
#[derive(Clone, Copy)]
struct Bounds<'a> {
    exists: u32,
    last_uid: u32,
    saved: &'a IdSet,
}

impl Connection {
    pub(super) async fn search(&mut self, search: &Search) -> Result<(), Disconnect> {
        match self.search_all(search).await {
            Ok(outcome) => {
                self.reply(Reply::Found(outcome)).await?;
                self.done_with_updates(Completion::ok()).await
            }
            Err(completion) => {
                // RFC 5182 §2.1: NO leaves nothing saved, BAD what was saved before.
                if search.saves()
                    && completion.outcome == imap::Outcome::No
                    && let Some(selected) = &mut self.selected
                {
                    selected.saved = IdSet::new();
                }
                self.done(completion).await
            }
        }
    }

    async fn search_all(&mut self, search: &Search) -> Result<SearchOutcome, Completion> {
        let selected =
            self.selected.as_ref().ok_or_else(|| Completion::bad("No mailbox is selected"))?;
        let view = std::sync::Arc::clone(&selected.view);
        let saved = selected.saved.clone();
        check_sequences(&search.key, &view)?;
        let db = self.services.db.clone();
        let last_uid = view.last_uid(&db).await.map_err(|error| errors::view(&error))?;
        let last_uid = last_uid.map_or(0, mail::Uid::number);
        let mut matches = IdSet::new();
        let mut uids = IdSet::new();
        let mut modseqs = ModSeqs::default();
        let wants_body = wants_body(&search.key);
        let mut walk = walk_for(&search.key, &view, last_uid, &saved);
        while let Some(messages) = walk.next(&db, &view).await.map_err(|e| errors::view(&e))? {
            let bounds = Bounds { exists: view.exists(), last_uid, saved: &saved };
            for (number, chunk) in messages.chunks(MESSAGES_PER_READ).enumerate() {
                if number > 0 && wants_body {
                    // Bodies that are in memory never make this task wait, and take their time.
                    tokio::task::yield_now().await;
                }
                for found in self.matching(&search.key, bounds, chunk).await? {
                    let uid = found.row.uid.number();
                    uids.insert(uid);
                    matches.insert(match search.by {
                        Numbering::Uid => uid,
                        Numbering::Sequence => found.sequence,
                    });
                    modseqs.note(found.row.modseq.0);
                }
            }
        }
        if search.saves()
            && let Some(selected) = &mut self.selected
        {
            selected.saved = to_save(search, &uids);
        }
        let modseq = imap::ModSeq::new(modseqs.told(search))
            .filter(|_| search.key.uses_modseq() && !matches.is_empty());
        Ok(SearchOutcome { matches, modseq })
    }

    /// The messages that match: by their rows where these tell, else by their records, read
    /// together, else by their bytes.
    async fn matching<'m>(
        &self,
        key: &SearchKey,
        bounds: Bounds<'_>,
        messages: &'m [Message],
    ) -> Result<Vec<&'m Message>, Completion> {
        let by_row = |message| Candidate { message, bounds, meta: None, text: None };
        let decided: Vec<Option<bool>> =
            messages.iter().map(|message| decide(key, &by_row(message))).collect();
        let open = messages.iter().zip(&decided).filter(|(_, decided)| decided.is_none());
        let open: Vec<Message> = open.map(|(message, _)| message.clone()).collect();
        let records = if open.is_empty() {
            Vec::new()
        } else {
            self.records(&open).await.map_err(|error| errors::store(&error))?
        };
        let mut records = records.into_iter();
        let mut matching = Vec::new();
        for (message, decided) in messages.iter().zip(decided) {
            let found = match decided {
                Some(found) => found,
                None => match records.next().flatten() {
                    Some(record) => self.look_closer(key, by_row(message), &record).await?,
                    // Gone meanwhile: the client does not know yet, and it matches nothing.
                    None => false,
                },
            };
            if found {
                matching.push(message);
            }
        }
        Ok(matching)
    }

    async fn look_closer(
        &self,
        key: &SearchKey,
        candidate: Candidate<'_>,
        record: &MetaRecord,
    ) -> Result<bool, Completion> {
        let meta = record.searched().map_err(|error| errors::store(&error))?;
        let with_meta = Candidate { meta: Some(&meta), ..candidate };
        if let Some(found) = decide(key, &with_meta) {
            return Ok(found);
        }
        let extent = if wants_body(key) { Extent::Body } else { Extent::Header };
        let text = Text::read(&self.services.blobs, record, extent).await?;
        let with_text = Candidate { text: Some(&text), ..with_meta };
        Ok(decide(key, &with_text).unwrap_or(false))
    }
}

/// Whether the key asks for what is in bodies.
fn wants_body(key: &SearchKey) -> bool {
    key.any(&|key| matches!(key, SearchKey::Body(_) | SearchKey::Text(_)))
}

/// The mod-sequences of what was found.
#[derive(Default)]
struct ModSeqs {
    first: u64,
    last: u64,
    highest: u64,
}

impl ModSeqs {
    fn note(&mut self, modseq: u64) {
        if self.first == 0 {
            self.first = modseq;
        }
        self.last = modseq;
        self.highest = self.highest.max(modseq);
    }

    /// RFC 4731 §3.2: of the messages that the client is told of.
    fn told(&self, search: &Search) -> u64 {
        let asked = |what| search.returns.as_ref().is_some_and(|asked| asked.contains(&what));
        match (asked(SearchReturn::Min), asked(SearchReturn::Max)) {
            _ if !only_ends(search) => self.highest,
            (true, false) => self.first,
            (false, _) => self.last,
            (true, true) => self.first.max(self.last),
        }
    }
}

/// Whether MIN or MAX is asked for, and neither ALL nor COUNT.
fn only_ends(search: &Search) -> bool {
    search.returns.as_ref().is_some_and(|returns| {
        let asked = |what| returns.contains(&what);
        (asked(SearchReturn::Min) || asked(SearchReturn::Max))
            && !asked(SearchReturn::All)
            && !asked(SearchReturn::Count)
    })
}

/// The messages to look at: where the key names a set that all must be in, only these.
fn walk_for(key: &SearchKey, view: &View, last_uid: u32, saved: &IdSet) -> Walk {
    let outermost = match key {
        SearchKey::And(keys) => &keys[..],
        key => std::slice::from_ref(key),
    };
    let set = outermost.iter().find_map(|key| match key {
        SearchKey::Uid(MessageSet::Saved) | SearchKey::Sequence(MessageSet::Saved) => {
            Some(Walk::over(Numbering::Uid, saved))
        }
        SearchKey::Uid(MessageSet::Set(set)) => {
            Some(Walk::over(Numbering::Uid, &set.resolve(last_uid)))
        }
        SearchKey::Sequence(MessageSet::Set(set)) => {
            Some(Walk::over(Numbering::Sequence, &set.resolve(view.exists())))
        }
        _ => None,
    });
    set.unwrap_or_else(|| Walk::all(view))
}

/// Sequence numbers beyond the mailbox are the client's error (RFC 9051 §2.3.1.2).
fn check_sequences(key: &SearchKey, view: &View) -> Result<(), Completion> {
    let beyond = |key: &SearchKey| match key {
        SearchKey::Sequence(MessageSet::Set(set)) => {
            set.largest_number().is_some_and(|largest| largest > view.exists())
        }
        _ => false,
    };
    if key.any(&beyond) { Err(Completion::bad("No such message")) } else { Ok(()) }
}

/// RFC 5182 §2.4: with MIN or MAX and neither ALL nor COUNT only those are saved.
fn to_save(search: &Search, uids: &IdSet) -> IdSet {
    let Some(returns) = &search.returns else { return uids.clone() };
    let asked = |what| returns.contains(&what);
    if !only_ends(search) {
        return uids.clone();
    }
    let mut ends = IdSet::new();
    if asked(SearchReturn::Min)
        && let Some(first) = uids.first()
    {
        ends.insert(first);
    }
    if asked(SearchReturn::Max)
        && let Some(last) = uids.last()
    {
        ends.insert(last);
    }
    ends
}

/// Whether the message matches; `None` where what is known does not tell.
fn decide(key: &SearchKey, candidate: &Candidate<'_>) -> Option<bool> {
    let row = &candidate.message.row;
    match key {
        SearchKey::All | SearchKey::Old => Some(true),
        SearchKey::And(keys) => all(keys.iter().map(|key| decide(key, candidate))),
        SearchKey::Or(a, b) => {
            let either = [decide(a, candidate), decide(b, candidate)];
            all(either.into_iter().map(|found| found.map(|found| !found))).map(|none| !none)
        }
        SearchKey::Not(key) => decide(key, candidate).map(|found| !found),
        SearchKey::Sequence(set) => Some(match set {
            MessageSet::Saved => candidate.bounds.saved.contains(row.uid.number()),
            MessageSet::Set(set) => {
                set.contains(candidate.message.sequence, candidate.bounds.exists)
            }
        }),
        SearchKey::Uid(set) => Some(match set {
            MessageSet::Saved => candidate.bounds.saved.contains(row.uid.number()),
            MessageSet::Set(set) => set.contains(row.uid.number(), candidate.bounds.last_uid),
        }),
        SearchKey::Has(flag) => Some(flags::has(&row.flags, flag)),
        SearchKey::Lacks(flag) => Some(!flags::has(&row.flags, flag)),
        // RFC 9051 removed \Recent, and no message of ours ever carries it.
        SearchKey::Recent | SearchKey::New => Some(false),
        SearchKey::Before(date) => Some(received_day(row.received_ms) < date.days_since_epoch()),
        SearchKey::On(date) => Some(received_day(row.received_ms) == date.days_since_epoch()),
        SearchKey::Since(date) => Some(received_day(row.received_ms) >= date.days_since_epoch()),
        SearchKey::Larger(size) => Some(row.size > *size),
        SearchKey::Smaller(size) => Some(row.size < *size),
        SearchKey::ModSeq(modseq) => Some(row.modseq.0 >= modseq.get()),
        SearchKey::SentBefore(date) => sent(candidate, |day| day < date.days_since_epoch()),
        SearchKey::SentOn(date) => sent(candidate, |day| day == date.days_since_epoch()),
        SearchKey::SentSince(date) => sent(candidate, |day| day >= date.days_since_epoch()),
        SearchKey::Bcc(value) => field(candidate, "bcc", value),
        SearchKey::Cc(value) => field(candidate, "cc", value),
        SearchKey::From(value) => field(candidate, "from", value),
        SearchKey::To(value) => field(candidate, "to", value),
        SearchKey::Subject(value) => field(candidate, "subject", value),
        SearchKey::Header { name, value } => field(candidate, &name.to_lowercase(), value),
        SearchKey::Body(value) => {
            candidate.text.map(|text| text.body.contains(&value.to_lowercase()))
        }
        SearchKey::Text(value) => {
            let value = value.to_lowercase();
            candidate.text.map(|text| text.header.contains(&value) || text.body.contains(&value))
        }
    }
}

/// Three-valued "and": one "no" decides.
fn all(found: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut unknown = false;
    for found in found {
        match found {
            Some(false) => return Some(false),
            Some(true) => {}
            None => unknown = true,
        }
    }
    (!unknown).then_some(true)
}

fn received_day(ms: i64) -> i64 {
    ms.div_euclid(86_400_000)
}

fn sent(candidate: &Candidate<'_>, wanted: impl Fn(i64) -> bool) -> Option<bool> {
    let meta = candidate.meta?;
    let seconds = sent_where_it_was(meta).or(meta.sent_seconds);
    Some(seconds.is_some_and(|seconds| wanted(seconds.div_euclid(86_400))))
}

/// RFC 9051 §6.4.4: the Date field counts as it stands, whatever zone it names.
fn sent_where_it_was(meta: &SearchedMeta<'_>) -> Option<i64> {
    let field = meta.headers.iter().find(|field| field.name.eq_ignore_ascii_case(b"date"))?;
    let raw = field.raw?;
    let colon = raw.iter().position(|byte| *byte == b':')?;
    let text = message::unfold(&raw[colon + 1..]);
    let clock = text.find(':')?;
    let zone = text[clock..].find(char::is_whitespace).map_or(text.len(), |at| clock + at);
    message::parse_date(format!("{} +0000", &text[..zone]).as_bytes())
}

/// Whether a header field contains the value: from the record where it has the fields whole.
fn field(candidate: &Candidate<'_>, name: &str, value: &str) -> Option<bool> {
    let value = value.to_lowercase();
    if let Some(text) = candidate.text {
        let mut named = text.fields.iter().filter(|(held, _)| held == name);
        return Some(named.any(|(_, held)| held.contains(&value)));
    }
    let meta = candidate.meta?;
    if !meta.headers_whole {
        return None;
    }
    let named: Vec<_> = meta
        .headers
        .iter()
        .filter(|held| held.name.eq_ignore_ascii_case(name.as_bytes()))
        .collect();
    if value.is_empty() {
        return Some(!named.is_empty());
    }
    let mut all_known = true;
    for field in named {
        match field.raw {
            Some(raw) => {
                let raw = raw.split_at_checked(field.name.len() + 1).map_or(raw, |(_, v)| v);
                let text = message::decode_encoded_words(&message::unfold(raw));
                if text.to_lowercase().contains(&value) {
                    return Some(true);
                }
            }
            None => all_known = false,
        }
    }
    all_known.then_some(false)
}
