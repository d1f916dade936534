//! What a client does with messages. The copy changes by what the server tells of it.

use super::{Session, Stopped, apply};
use crate::{
    What,
    clients::imap::{Answer, Untagged, quoted},
};

/// Whether a message stays where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// It does.
    Copy,
    /// It does not.
    Move,
}

impl Session {
    /// APPENDs a message of this token, marked as this account's.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn append(&mut self, mailbox: &str, token: &str) -> Result<(), Stopped> {
        let account = self.account.id;
        let (named, word) = (mailbox.to_owned(), token.to_owned());
        self.note(What::Appending { account, mailbox: named, token: word });
        let message = message(token, &self.account.address);
        let answer = self.imap.append(mailbox, message.as_bytes()).await?;
        self.apply_answer("APPEND", &answer);
        if !answer.is_ok() {
            return Err(Stopped::Refused(answer.text));
        }
        let words = answer.code("APPENDUID").unwrap_or_default();
        let mut numbers = words.iter().map(|word| word.parse().unwrap_or(0));
        let (uid_validity, uid) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let (mailbox, token) = (mailbox.to_owned(), token.to_owned());
        self.note(What::Appended { account, mailbox, uid_validity, uid, token });
        Ok(())
    }

    /// Changes flags: `how` is `+FLAGS`, `-FLAGS` or `FLAGS`, perhaps with `.SILENT`.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn store(&mut self, uids: &[u32], how: &str, flags: &str) -> Result<Answer, Stopped> {
        let line = format!("UID STORE {} {how} ({flags})", set(uids));
        let answer = self.imap.command(&line).await?;
        if let Some(how) = how.strip_suffix(".SILENT").filter(|_| answer.is_ok()) {
            self.assume(uids, how, flags);
        }
        self.apply_answer(&line, &answer);
        Ok(answer)
    }

    /// RFC 9051 §6.4.6: what a silent STORE does is not told, but for what others did too.
    fn assume(&mut self, uids: &[u32], how: &str, flags: &str) {
        for uid in uids {
            let Some(kept) = self.copy.messages.get_mut(uid) else { continue };
            if how == "FLAGS" {
                kept.flags.clear();
            }
            for flag in flags.split(' ') {
                if how == "-FLAGS" {
                    kept.flags.remove(flag);
                } else {
                    kept.flags.insert(flag.to_owned());
                }
            }
            kept.modseq = 0;
        }
    }

    /// Changes flags where the copy is not out of date (RFC 7162 §3.1.3).
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn store_unchanged(
        &mut self,
        uid: u32,
        since: u64,
        flags: &str,
    ) -> Result<Answer, Stopped> {
        let line = format!("UID STORE {uid} (UNCHANGEDSINCE {since}) +FLAGS ({flags})");
        let answer = self.command(&line).await?;
        if answer.code("MODIFIED").is_some() {
            env::sometimes!("a conditional STORE is refused");
        }
        Ok(answer)
    }

    /// Copies or moves messages.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn transfer(
        &mut self,
        how: Transfer,
        uids: &[u32],
        target: &str,
    ) -> Result<Answer, Stopped> {
        let tokens: Vec<(u32, Option<String>)> = uids
            .iter()
            .map(|uid| (*uid, self.copy.messages.get(uid).and_then(|kept| kept.token.clone())))
            .collect();
        let name = if how == Transfer::Copy { "COPY" } else { "MOVE" };
        let line = format!("UID {name} {} {}", set(uids), quoted(target));
        let answer = self.command(&line).await?;
        if let Some([validity, from, to]) = answer.code("COPYUID").as_deref() {
            let validity = validity.parse().unwrap_or(0);
            let pairs = expanded(from).into_iter().zip(expanded(to));
            for (from, uid) in pairs {
                let token = tokens.iter().find(|(uid, _)| *uid == from);
                let token = token.and_then(|(_, token)| token.clone());
                self.note(What::UidTold {
                    account: self.account.id,
                    mailbox: target.to_owned(),
                    uid_validity: validity,
                    uid,
                    token,
                });
            }
        }
        Ok(answer)
    }

    /// Removes messages (RFC 4315 §2.1).
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn expunge(&mut self, uids: &[u32]) -> Result<Answer, Stopped> {
        self.store(uids, "+FLAGS.SILENT", "\\Deleted").await?;
        self.command(&format!("UID EXPUNGE {}", set(uids))).await
    }

    /// Reads a whole message, and notes whom it says that it is for.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn read(&mut self, uid: u32) -> Result<(), Stopped> {
        let answer = self.command(&format!("UID FETCH {uid} (BODY.PEEK[])")).await?;
        for told in answer.untagged {
            if let Untagged::Fetch(fetched) = told
                && let Some(body) = fetched.body
            {
                let (token, marks) = (apply::subject(&body), apply::marks(&body));
                self.note(What::BytesRead { account: self.account.id, token, marks });
            }
        }
        Ok(())
    }

    /// Lists all mailboxes.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn list(&mut self) -> Result<Vec<String>, Stopped> {
        let answer = self.must("LIST \"\" \"*\"").await?;
        let names = answer.untagged.into_iter().filter_map(|it| match it {
            Untagged::List { name } => Some(name),
            _ => None,
        });
        Ok(names.collect())
    }

    /// Ends IDLE, and applies what was still told.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn end_idle(&mut self, tag: &str) -> Result<(), Stopped> {
        let answer = self.imap.done(tag).await?;
        self.apply_answer("IDLE", &answer);
        Ok(())
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        // Whether the node hears it makes no difference.
        let _heard = self.imap.command("LOGOUT").await;
    }
}

/// A message that names its token and whom it is for.
fn message(token: &str, address: &str) -> String {
    format!(
        "From: <{address}>\r\nTo: <{address}>\r\nMessage-ID: <{token}@client.test>\r\n\
         Subject: {token}\r\n\r\n{mark}{address}\r\n",
        mark = apply::MARK
    )
}

fn set(uids: &[u32]) -> String {
    let uids: Vec<String> = uids.iter().map(u32::to_string).collect();
    uids.join(",")
}

fn expanded(set: &str) -> Vec<u32> {
    crate::clients::imap::numbers(set)
}
