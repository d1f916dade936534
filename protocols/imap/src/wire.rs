//! Character classes and the one writer that both responses and the commands of a client use.
//!
//! Architecture invariant: no octet that came from outside goes out but through `string`,
//! `astring`, `mailbox`, `text`, or inside a literal whose length was announced.

use std::fmt::{self, Write as _};

use bytes::BytesMut;

use crate::flag::Flag;
use crate::limits::QUOTED_BYTES_MAX;
use crate::mailbox::MailboxName;
use crate::mutf7;
use crate::text::{Text, WireString};

/// How names and quoted strings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// IMAP4rev1: ASCII, names of mailboxes in modified UTF-7.
    Ascii,
    /// IMAP4rev2 or UTF8=ACCEPT is enabled: UTF-8 in names and quoted strings.
    Utf8,
}

/// Form of a literal: servers' need nothing, clients' must not wait for a `+` that never comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LiteralForm {
    Server,
    ClientNonSync,
}

/// `ATOM-CHAR` and `]` (RFC 9051 §9 `ASTRING-CHAR` minus nothing): the callers tell `]` apart.
pub(crate) fn is_atom_char(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\')
}

/// Writes IMAP syntax into a buffer.
pub(crate) struct Writer<'a> {
    out: &'a mut BytesMut,
    dialect: Dialect,
    literals: LiteralForm,
}

impl<'a> Writer<'a> {
    pub(crate) fn server(out: &'a mut BytesMut, dialect: Dialect) -> Self {
        Self { out, dialect, literals: LiteralForm::Server }
    }

    pub(crate) fn client(out: &'a mut BytesMut, dialect: Dialect) -> Self {
        Self { out, dialect, literals: LiteralForm::ClientNonSync }
    }

    pub(crate) fn is_utf8(&self) -> bool {
        self.dialect == Dialect::Utf8
    }

    /// Syntax, or values that are known to fit it.
    pub(crate) fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn raw_fmt(&mut self, text: fmt::Arguments<'_>) {
        self.out.write_fmt(text).expect("a buffer in memory takes all");
    }

    /// The content of a literal.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// `text`: RFC 9051 §9 allows UTF-8 in it once the client has asked for it.
    pub(crate) fn text(&mut self, text: &Text) {
        match self.is_utf8() || text.as_str().is_ascii() {
            true => self.raw(text.as_str()),
            false => {
                let ascii: String =
                    text.as_str().chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
                self.raw(&ascii);
            }
        }
    }

    /// `string`: quoted where that can be, else a literal.
    pub(crate) fn string(&mut self, string: &WireString) {
        self.string_bytes(string.as_bytes());
    }

    pub(crate) fn string_bytes(&mut self, bytes: &[u8]) {
        let ascii = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
        let utf8 = || {
            self.is_utf8()
                && std::str::from_utf8(bytes).is_ok_and(|text| !text.contains(char::is_control))
        };
        if bytes.len() > QUOTED_BYTES_MAX || !(ascii || utf8()) {
            return self.literal(bytes);
        }
        self.raw("\"");
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'"' | b'\\')) {
            match piece {
                [before @ .., special @ (b'"' | b'\\')] => {
                    self.out.extend_from_slice(before);
                    self.out.extend_from_slice(&[b'\\', *special]);
                }
                _ => self.out.extend_from_slice(piece),
            }
        }
        self.raw("\"");
    }

    fn literal(&mut self, bytes: &[u8]) {
        let plus = if self.literals == LiteralForm::ClientNonSync { "+" } else { "" };
        self.raw_fmt(format_args!("{{{}{plus}}}\r\n", bytes.len()));
        self.out.extend_from_slice(bytes);
    }

    pub(crate) fn nstring(&mut self, string: Option<&WireString>) {
        match string {
            Some(string) => self.string(string),
            None => self.raw("NIL"),
        }
    }

    /// `astring`: an atom where that can be. `NIL` is quoted, or it would read as nothing.
    pub(crate) fn astring(&mut self, text: &str) {
        let atom =
            !text.is_empty() && text.bytes().all(is_atom_char) && !text.eq_ignore_ascii_case("NIL");
        match atom {
            true => self.raw(text),
            false => self.string_bytes(text.as_bytes()),
        }
    }

    pub(crate) fn mailbox(&mut self, name: &MailboxName) {
        self.name(name.as_str());
    }

    /// A name or part of one, in the encoding of the session.
    pub(crate) fn name(&mut self, name: &str) {
        match self.dialect {
            Dialect::Ascii => self.astring(&mutf7::encode(name)),
            Dialect::Utf8 => self.astring(name),
        }
    }

    /// A name where only `string` is allowed.
    pub(crate) fn mailbox_string(&mut self, name: &MailboxName) {
        match self.dialect {
            Dialect::Ascii => self.string_bytes(mutf7::encode(name.as_str()).as_bytes()),
            Dialect::Utf8 => self.string_bytes(name.as_str().as_bytes()),
        }
    }

    /// Flags without the parentheses.
    pub(crate) fn flags(&mut self, flags: &[Flag]) {
        for (index, flag) in flags.iter().enumerate() {
            self.raw(if index == 0 { "" } else { " " });
            self.raw(flag.as_str());
        }
    }

    /// Words with spaces between.
    pub(crate) fn words<'b>(&mut self, words: impl IntoIterator<Item = &'b str>) {
        for (index, word) in words.into_iter().enumerate() {
            self.raw(if index == 0 { "" } else { " " });
            self.raw(word);
        }
    }
}
