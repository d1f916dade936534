//! Strings that are valid wherever the wire has them: [`WireString`] for `string`, [`Text`] for
//! human-readable text, [`Secret`] for what no log may see.

use std::borrow::Cow;
use std::fmt;

use zeroize::Zeroizing;

/// Octets of a `string` or `nstring`. NUL, which no form but literal8 can carry, is left out.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct WireString(Vec<u8>);

impl WireString {
    /// The octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WireString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl From<Vec<u8>> for WireString {
    fn from(mut bytes: Vec<u8>) -> Self {
        bytes.retain(|&byte| byte != 0);
        Self(bytes)
    }
}

impl From<&[u8]> for WireString {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl From<String> for WireString {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&str> for WireString {
    fn from(text: &str) -> Self {
        text.as_bytes().to_vec().into()
    }
}

/// Human-readable text of a response: one line, not empty, not starting with `[`, which would read
/// as a response code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Cow<'static, str>);

impl Text {
    /// Control characters become spaces; an empty text becomes `-`.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        let text = text.into();
        let starts_well = !text.is_empty() && !text.starts_with('[');
        if starts_well && !text.chars().any(char::is_control) {
            return Self(text);
        }
        let mut clean = String::with_capacity(text.len() + 1);
        if !starts_well {
            clean.push('-');
        }
        clean.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
        Self(clean.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// A password or a SASL message: never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the octets over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The octets, for the one place that verifies them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &'static str, clean: &str) {
        assert_eq!(Text::new(text).as_str(), clean);
    }

    #[test]
    fn texts_are_one_line() {
        check("done", "done");
        check("a\r\n* BYE", "a  * BYE");
        check("", "-");
        check("[ALERT] x", "-[ALERT] x");
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "Secret");
    }
}
