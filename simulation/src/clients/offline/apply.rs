//! What the server tells, applied to the copy.

use super::{Kept, Session, Stopped};
use crate::{
    What,
    clients::imap::{Answer, Fetched, Status, Untagged},
};

/// How a message's line begins that names whom the message is for.
pub(super) const MARK: &str = "For: ";

impl Session {
    /// Does a command and applies what is told.
    ///
    /// # Errors
    /// [`Stopped::Lost`].
    pub async fn command(&mut self, line: &str) -> Result<Answer, Stopped> {
        let answer = self.imap.command(line).await?;
        self.apply_answer(line, &answer);
        Ok(answer)
    }

    /// The same, of a command that has to be done.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn must(&mut self, line: &str) -> Result<Answer, Stopped> {
        let answer = self.command(line).await?;
        match answer.status {
            Status::Ok => Ok(answer),
            Status::No | Status::Bad => Err(Stopped::Refused(answer.text)),
        }
    }

    pub(super) fn apply_answer(&mut self, line: &str, answer: &Answer) {
        for told in &answer.untagged {
            self.apply(told);
        }
        if answer.status == Status::Bad {
            self.differ(format!("{line:?} is not understood: {}", answer.text));
        }
    }

    /// Applies one response.
    pub fn apply(&mut self, told: &Untagged) {
        match told {
            Untagged::Exists(count) => self.apply_exists(*count),
            Untagged::Expunge(number) => self.apply_expunge(*number),
            Untagged::Fetch(fetched) => self.apply_fetch(fetched),
            Untagged::Found(uids) => self.apply_found(uids),
            Untagged::List { .. } | Untagged::Told(_) | Untagged::Other(_) => {}
        }
    }

    fn apply_exists(&mut self, count: u32) {
        let (known, count) = (self.numbers.len(), count as usize);
        if count < known {
            self.differ(format!("{known} messages are known, and {count} exist"));
        }
        self.numbers.resize(count.max(known), 0);
    }

    fn apply_expunge(&mut self, number: u32) {
        let index = (number as usize).wrapping_sub(1);
        if index >= self.numbers.len() {
            let known = self.numbers.len();
            self.differ(format!("message {number} goes, of {known}"));
            return;
        }
        let uid = self.numbers.remove(index);
        if uid != 0 {
            self.forget(uid);
        }
    }

    /// All UIDs in order.
    fn apply_found(&mut self, uids: &[u32]) {
        if uids.len() == self.numbers.len() && uids.is_sorted() {
            self.numbers.copy_from_slice(uids);
        } else {
            let known = self.numbers.len();
            self.differ(format!("{known} messages are known, and {uids:?} are found"));
        }
    }

    pub(super) fn forget(&mut self, uid: u32) {
        if self.copy.messages.remove(&uid).is_some() {
            let (account, mailbox) = (self.account.id, self.copy.mailbox.clone());
            let uid_validity = self.copy.uid_validity;
            self.note(What::Vanished { account, mailbox, uid_validity, uid });
        }
    }

    fn apply_fetch(&mut self, fetched: &Fetched) {
        let number = fetched.number;
        let index = (number as usize).wrapping_sub(1);
        let Some(known) = self.numbers.get(index).copied() else {
            let known = self.numbers.len();
            self.differ(format!("message {number} is told of, of {known}"));
            return;
        };
        let uid = match (fetched.uid, known) {
            (Some(uid), 0) => {
                self.numbers[index] = uid;
                let ordered =
                    self.numbers.iter().filter(|uid| **uid != 0).is_sorted_by(|a, b| a < b);
                if !ordered {
                    self.differ(format!("message {number} has UID {uid}, out of order"));
                }
                uid
            }
            (Some(uid), known) if uid != known => {
                self.differ(format!("message {number} has UID {known} and has UID {uid}"));
                return;
            }
            // A message that the client has not asked about yet.
            (None, 0) => return,
            (_, known) => known,
        };
        self.apply_message(uid, fetched);
    }

    fn apply_message(&mut self, uid: u32, fetched: &Fetched) {
        let (account, mailbox) = (self.account.id, self.copy.mailbox.clone());
        let uid_validity = self.copy.uid_validity;
        let new = !self.copy.messages.contains_key(&uid);
        if new && fetched.flags.is_none() {
            return;
        }
        let before = self.copy.messages.entry(uid).or_default().clone();
        let after = renewed(&before, fetched);
        if after.modseq != 0 && before.modseq != 0 {
            if after.modseq < before.modseq {
                let (from, to) = (before.modseq, after.modseq);
                self.differ(format!("UID {uid}: MODSEQ went from {from} to {to}"));
            } else if after.modseq == before.modseq && after.flags != before.flags {
                let (from, to, at) = (&before.flags, &after.flags, after.modseq);
                self.differ(format!("UID {uid}: {from:?} and {to:?}, both at MODSEQ {at}"));
            }
        }
        if new || (after.token.is_some() && before.token.is_none()) {
            let token = after.token.clone();
            let mailbox = mailbox.clone();
            self.note(What::UidSeen { account, mailbox, uid_validity, uid, token });
        }
        if after.modseq != 0 && after.modseq != before.modseq {
            let flags = after.flags.iter().cloned().collect();
            let modseq = after.modseq;
            self.note(What::FlagsSeen { account, mailbox, uid_validity, uid, modseq, flags });
        }
        self.copy.messages.insert(uid, after);
    }
}

fn renewed(before: &Kept, fetched: &Fetched) -> Kept {
    let mut after = before.clone();
    if let Some(flags) = &fetched.flags {
        // Where no MODSEQ is told it may be another even of the same flags.
        after.modseq = 0;
        after.flags.clone_from(flags);
    }
    if let Some(modseq) = fetched.modseq {
        after.modseq = modseq;
    }
    if let Some(body) = &fetched.body {
        after.token = Some(subject(body));
    }
    after
}

/// The first word of the subject.
pub(super) fn subject(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().find_map(|line| line.strip_prefix("Subject: "));
    line.and_then(|line| line.split_whitespace().next()).unwrap_or_default().to_owned()
}

/// Whom the message says that it is for.
pub(super) fn marks(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().filter_map(|line| line.strip_prefix(MARK)).map(str::to_owned).collect()
}
