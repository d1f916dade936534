//! Who a node is: its name, and the epoch that tells one of its lives from the next.

/// One life of a node. Numbers ascend and are never reused, so a claim or a wake-up that names an
/// epoch can never mean another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Epoch> for mail::ListenerId {
    fn from(epoch: Epoch) -> Self {
        Self(epoch.0)
    }
}

impl From<mail::ListenerId> for Epoch {
    fn from(listener: mail::ListenerId) -> Self {
        Self(listener.0)
    }
}

/// What people call a node. It may be used again as soon as they like: the node that registers
/// last has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

/// Bytes of a node's name: as many as a host's name has at most (RFC 1035 §2.3.4).
pub const NODE_NAME_BYTES_MAX: usize = 253;

/// The name is empty, too long, or holds other characters than a host's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a node's name is 1 to {NODE_NAME_BYTES_MAX} letters, digits, dots, hyphens and underscores"
)]
pub struct InvalidNodeName;

impl NodeName {
    /// Checks a name and folds it to lower case.
    ///
    /// # Errors
    /// [`InvalidNodeName`].
    pub fn parse(name: &str) -> Result<Self, InvalidNodeName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if name.is_empty() || name.len() > NODE_NAME_BYTES_MAX || !name.bytes().all(allowed) {
            return Err(InvalidNodeName);
        }
        Ok(Self(name.to_ascii_lowercase()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_and_checked() {
        assert_eq!(NodeName::parse("MX-1.Example.com").unwrap().as_str(), "mx-1.example.com");
        for bad in ["", "a b", "ü", "a/b", &"x".repeat(254)] {
            assert_eq!(NodeName::parse(bad), Err(InvalidNodeName), "{bad}");
        }
    }
}
