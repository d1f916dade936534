//! Networks: addresses that share their first bits.
//!
//! Of IPv6 a client has all addresses that share the first 64 bits (RFC 4291 §2.5.4), so nothing
//! smaller is told apart; an IPv4 address counts by itself. Invariant: the bits behind the prefix
//! are zero.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Bits before those of an IPv4 address in its IPv6 form (RFC 4291 §2.5.5.2).
const V4_OFFSET: u8 = 96;

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// Of an IPv4 network the IPv6 form.
    bits: u128,
    /// How many of them count.
    prefix: u8,
}

/// A text names no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address or a network such as 192.0.2.0/24 or 2001:db8::/48")]
pub struct BadNetwork(pub String);

impl Network {
    fn of(address: IpAddr, prefix: u8) -> Self {
        let bits = mapped(address);
        let behind = 128 - u32::from(prefix);
        let mask = u128::MAX.checked_shl(behind).unwrap_or(0);
        Self { bits: bits & mask, prefix }
    }

    /// What one client has: an IPv4 address, or an IPv6 /64.
    pub(crate) fn client(address: IpAddr) -> Self {
        match address.to_canonical() {
            address @ IpAddr::V4(_) => Self::of(address, 128),
            address @ IpAddr::V6(_) => Self::of(address, 64),
        }
    }

    /// What one operator has: an IPv4 /24, or an IPv6 /48.
    pub(crate) fn neighbourhood(address: IpAddr) -> Self {
        match address.to_canonical() {
            address @ IpAddr::V4(_) => Self::of(address, V4_OFFSET + 24),
            address @ IpAddr::V6(_) => Self::of(address, 48),
        }
    }

    /// The operator's network that a client's lies in; `None` of one that is not smaller.
    pub(crate) fn widened(self) -> Option<Self> {
        let wide = Self::neighbourhood(self.address());
        (wide.prefix < self.prefix).then_some(wide)
    }

    /// The first address.
    pub(crate) fn address(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(self.bits)).to_canonical()
    }

    /// Whether an address lies in it.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        self.with_prefix_of(address) == Some(self)
    }

    /// Whether all of another network lies in it.
    pub(crate) fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address())
    }

    /// The network of an address that has as many bits as this one, where both are of one family.
    /// IPv4 lies in no IPv6 network, although its IPv6 form does.
    pub(crate) fn with_prefix_of(self, address: IpAddr) -> Option<Self> {
        let address = address.to_canonical();
        (address.is_ipv4() == self.is_v4()).then(|| Self::of(address, self.prefix))
    }

    /// Bits that count, in the family's own terms.
    pub(crate) fn prefix(self) -> u8 {
        if self.is_v4() { self.prefix - V4_OFFSET } else { self.prefix }
    }

    pub(crate) fn is_v4(self) -> bool {
        self.prefix >= V4_OFFSET && self.bits >> 32 == 0xffff
    }

    /// As it stands in keys: networks sort by their first address.
    pub(crate) fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [self.prefix; 17];
        bytes[..16].copy_from_slice(&self.bits.to_be_bytes());
        bytes
    }

    /// The reverse of [`Network::to_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (prefix, bits) = bytes.split_last()?;
        let bits = u128::from_be_bytes(bits.try_into().ok()?);
        (*prefix <= 128).then_some(Self { bits, prefix: *prefix })
    }

    /// Before and behind [`Network::to_bytes`] of all that lies in it.
    pub(crate) fn span(self) -> ([u8; 17], [u8; 18]) {
        let behind = u128::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
        let (mut first, mut last) = ([0; 17], [u8::MAX; 18]);
        first[..16].copy_from_slice(&self.bits.to_be_bytes());
        last[..16].copy_from_slice(&(self.bits | behind).to_be_bytes());
        (first, last)
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    /// An IPv6 address alone stands for its /64.
    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let bad = || BadNetwork(text.to_owned());
        let Some((address, prefix)) = text.split_once('/') else {
            return Ok(Self::client(text.parse().map_err(|_| bad())?));
        };
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if let Ok(address) = address.parse::<Ipv4Addr>() {
            return match prefix {
                0..=32 => Ok(Self::of(address.into(), V4_OFFSET + prefix)),
                _ => Err(bad()),
            };
        }
        let address: Ipv6Addr = address.parse().map_err(|_| bad())?;
        if prefix <= 64 { Ok(Self::of(address.into(), prefix)) } else { Err(bad()) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_v4(), self.prefix()) {
            (true, 32) => write!(f, "{}", self.address()),
            (true, prefix) => write!(f, "{}/{prefix}", self.address()),
            (false, prefix) => write!(f, "{}/{prefix}", Ipv6Addr::from_bits(self.bits)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_read_and_shown() {
        for (text, shown) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::7", "2001:db8::/64"),
            ("2001:db8:1:2::/48", "2001:db8:1::/48"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(text).to_string(), shown);
            assert_eq!(network(shown), network(text));
            assert_eq!(Network::from_bytes(&network(text).to_bytes()), Some(network(text)));
        }
        for text in ["", "x", "192.0.2.0/33", "192.0.2/24", "2001:db8::/65", "2001:db8::/-1", "/8"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_lie_in_networks() {
        assert!(network("192.0.2.0/24").contains(address("192.0.2.255")));
        assert!(network("192.0.2.0/24").contains(address("::ffff:192.0.2.1")));
        assert!(!network("192.0.2.0/24").contains(address("192.0.3.0")));
        assert!(network("2001:db8::/48").contains(address("2001:db8:0:ffff::1")));
        assert!(!network("2001:db8::/48").contains(address("2001:db8:1::1")));
        assert!(network("192.0.2.0/24").covers(network("192.0.2.9")));
        assert!(!network("192.0.2.9").covers(network("192.0.2.0/24")));
        assert!(!network("::/64").contains(address("192.0.2.1")));
        assert!(!network("::/0").covers(network("192.0.2.1")));
        let client = Network::client(address("198.51.100.7"));
        assert_eq!(client.widened(), Some(network("198.51.100.0/24")));
        assert_eq!(network("198.51.100.0/24").widened(), None);
    }

    #[test]
    fn what_lies_in_a_network_lies_in_its_span() {
        let (first, last) = network("192.0.2.0/24").span();
        let lies = |text: &str| {
            let bytes = network(text).to_bytes();
            first[..] <= bytes[..] && bytes[..] < last[..]
        };
        assert!(lies("192.0.2.0") && lies("192.0.2.255") && lies("192.0.2.0/24"));
        assert!(!lies("192.0.1.255") && !lies("192.0.3.0"));
    }
}
