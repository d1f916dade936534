//! A client's end of IMAP (RFC 9051), just enough to ask and to look at the answers.

use std::io;

use crate::{cluster::Door, server::Server, wire::Wire};

/// A session.
#[derive(Debug)]
pub struct Imap {
    wire: Wire,
    tag: u32,
}

/// One response of the server; its literals are taken out of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// The text; a literal leaves its `{count}` there.
    pub text: String,
    /// The literals' bytes, in order.
    pub literals: Vec<Vec<u8>>,
}

/// All that a command brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Untagged responses, in order, without their `* `.
    pub untagged: Vec<Line>,
    /// The tagged response without its tag: `OK …`, `NO …`, `BAD …`.
    pub status: String,
}

impl Answer {
    /// The texts of the untagged responses.
    pub fn texts(&self) -> Vec<&str> {
        self.untagged.iter().map(|line| line.text.as_str()).collect()
    }

    /// The first untagged response that has `part` in its text.
    pub fn find(&self, part: &str) -> Option<&Line> {
        self.untagged.iter().find(|line| line.text.contains(part))
    }

    /// The numbers of the first SEARCH response.
    pub fn search(&self) -> Vec<u32> {
        let numbers = |text: &str| -> Option<Vec<u32>> {
            let rest = text.strip_prefix("SEARCH")?;
            Some(rest.split_whitespace().filter_map(|number| number.parse().ok()).collect())
        };
        self.untagged.iter().find_map(|line| numbers(&line.text)).unwrap_or_default()
    }
}

impl Imap {
    /// Connects over TLS and reads the greeting.
    ///
    /// # Panics
    /// Where the server is not there or does not greet.
    pub fn connect(server: &Server) -> Self {
        let wire = Wire::connect(server.ports.imaps).expect("the server accepts");
        let mut imap = Self { wire: wire.start_tls(&server.certificate()), tag: 0 };
        let greeting = imap.response().text;
        assert!(greeting.starts_with("* OK"), "{greeting}");
        imap
    }

    /// Connects over TLS and logs in to a node that may go away meanwhile.
    ///
    /// # Errors
    /// As the operating system says, or where the node says goodbye.
    pub fn try_login_at(door: &Door, user: &str, password: &str) -> io::Result<Self> {
        let wire = Wire::connect_to(door.imaps)?.try_start_tls(&door.certificate)?;
        let mut imap = Self { wire, tag: 0 };
        let greeting = imap.try_response()?.text;
        if !greeting.starts_with("* OK") {
            return Err(io::Error::other(greeting));
        }
        imap.try_command(&format!("LOGIN {user} {password}"))?;
        Ok(imap)
    }

    /// Sends a command to a node that may go away meanwhile, and returns its untagged responses.
    ///
    /// # Errors
    /// As the operating system says, or where it is not completed with OK.
    pub fn try_command(&mut self, command: &str) -> io::Result<Vec<Line>> {
        self.tag += 1;
        let tag = format!("a{}", self.tag);
        self.wire.try_send(format!("{tag} {command}\r\n").as_bytes())?;
        let mut untagged = Vec::new();
        loop {
            let line = self.try_response()?;
            match line.text.strip_prefix(&format!("{tag} ")) {
                Some(completion) if completion.starts_with("OK") => return Ok(untagged),
                Some(completion) => return Err(io::Error::other(completion.to_owned())),
                None => untagged.push(line),
            }
        }
    }

    /// Connects without TLS and reads the greeting, which it returns too.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn connect_plain(server: &Server) -> io::Result<(Self, String)> {
        let mut imap = Self { wire: Wire::connect(server.ports.imap)?, tag: 0 };
        let greeting = imap.try_response()?.text;
        Ok((imap, greeting))
    }

    /// Connects over TLS and logs in.
    ///
    /// # Panics
    /// Where the server is not there or refuses.
    pub fn login(server: &Server, user: &str, password: &str) -> Self {
        let mut imap = Self::connect(server);
        imap.ok(&format!("LOGIN {user} {password}"));
        imap
    }

    /// Shakes hands over TLS, after STARTTLS was accepted.
    #[must_use]
    pub fn start_tls(self, server: &Server) -> Self {
        Self { wire: self.wire.start_tls(&server.certificate()), tag: self.tag }
    }

    /// The connection below.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Reads one response with its literals.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn try_response(&mut self) -> io::Result<Line> {
        let mut response = Line::default();
        loop {
            let line = self.wire.try_line()?;
            response.text.push_str(&line);
            let Some(count) = literal(&line) else { return Ok(response) };
            response.literals.push(self.wire.bytes(count));
        }
    }

    /// Reads one response with its literals.
    ///
    /// # Panics
    /// Where none comes.
    #[track_caller]
    pub fn response(&mut self) -> Line {
        self.try_response().expect("the server responds")
    }

    /// Sends a command with a new tag, which it returns.
    pub fn send(&mut self, command: &str) -> String {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        self.wire.send(format!("{tag} {command}\r\n").as_bytes());
        tag
    }

    /// Reads up to the tagged response.
    ///
    /// # Panics
    /// Where it does not come.
    #[track_caller]
    pub fn answer(&mut self, tag: &str) -> Answer {
        let mut untagged = Vec::new();
        loop {
            let mut response = self.response();
            if let Some(rest) = response.text.strip_prefix("* ") {
                response.text = rest.to_owned();
                untagged.push(response);
            } else if let Some(status) = response.text.strip_prefix(&format!("{tag} ")) {
                return Answer { untagged, status: status.to_owned() };
            } else {
                panic!("neither untagged nor {tag}: {:?}", response.text);
            }
        }
    }

    /// Sends a command and reads all that it brings.
    ///
    /// # Panics
    /// Where it is not answered.
    #[track_caller]
    pub fn command(&mut self, command: &str) -> Answer {
        let tag = self.send(command);
        self.answer(&tag)
    }

    /// Sends a command that has to succeed.
    ///
    /// # Panics
    /// Where it does not.
    #[track_caller]
    pub fn ok(&mut self, command: &str) -> Answer {
        let answer = self.command(command);
        assert!(answer.status.starts_with("OK"), "{command}: {answer:?}");
        answer
    }

    /// Appends a message (RFC 9051 §6.3.12) with a synchronizing literal.
    ///
    /// # Panics
    /// Where it is refused.
    #[track_caller]
    pub fn append(&mut self, mailbox: &str, flags: &str, message: &[u8]) -> Answer {
        let answer = self.try_append(mailbox, flags, message);
        assert!(answer.status.starts_with("OK"), "{answer:?}");
        answer
    }

    /// Appends a message, or is told why not.
    ///
    /// # Panics
    /// Where the server does not want to read it.
    #[track_caller]
    pub fn try_append(&mut self, mailbox: &str, flags: &str, message: &[u8]) -> Answer {
        let tag = self.send(&format!("APPEND {mailbox} ({flags}) {{{}}}", message.len()));
        let more = self.response().text;
        assert!(more.starts_with('+'), "{more}");
        self.wire.send(message);
        self.wire.send(b"\r\n");
        self.answer(&tag)
    }

    /// The bytes of one whole message of the selected mailbox.
    ///
    /// # Panics
    /// Where there is none.
    #[track_caller]
    pub fn body(&mut self, uid: u32) -> Vec<u8> {
        let mut answer = self.ok(&format!("UID FETCH {uid} BODY.PEEK[]"));
        let at = answer.untagged.iter().position(|line| !line.literals.is_empty());
        let at = at.unwrap_or_else(|| panic!("no body of {uid}: {:?}", answer.texts()));
        answer.untagged.swap_remove(at).literals.swap_remove(0)
    }

    /// Begins IDLE (RFC 2177), and returns its tag.
    ///
    /// # Panics
    /// Where it is refused.
    #[track_caller]
    pub fn idle(&mut self) -> String {
        let tag = self.send("IDLE");
        loop {
            let line = self.response().text;
            if line.starts_with('+') {
                return tag;
            }
            assert!(line.starts_with("* "), "{line}");
        }
    }

    /// Ends IDLE.
    ///
    /// # Panics
    /// Where it is not answered.
    #[track_caller]
    pub fn done(&mut self, tag: &str) -> Answer {
        self.wire.send(b"DONE\r\n");
        self.answer(tag)
    }

    /// Reads responses up to one that has `part` in it.
    ///
    /// # Panics
    /// Where it does not come.
    #[track_caller]
    pub fn wait_for(&mut self, part: &str) -> Line {
        loop {
            let line = self.response();
            if line.text.contains(part) {
                return line;
            }
        }
    }
}

/// The count of a literal at the line's end (RFC 9051 §4.3; `~` is RFC 3516's).
fn literal(line: &str) -> Option<usize> {
    let (_, count) = line.strip_suffix('}')?.rsplit_once('{')?;
    count.parse().ok()
}

/// The number after `key` in a text such as `UID 7 MODSEQ (12)`.
///
/// # Panics
/// Where there is none.
#[track_caller]
pub fn number_after(text: &str, key: &str) -> u64 {
    let at = text.find(key).unwrap_or_else(|| panic!("no {key} in {text:?}"));
    let digits: String = text[at + key.len()..]
        .chars()
        .skip_while(|character| matches!(character, ' ' | '('))
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap_or_else(|_| panic!("no number after {key} in {text:?}"))
}
