//! Addresses that clients name, and those by which they are to be called.

use std::net::SocketAddr;

/// Pairs of addresses as text, each pair of one length, so that whatever counts the bytes around them stays right.
#[derive(Debug)]
pub(super) struct Doors(Vec<(String, String)>);

impl Doors {
    pub(super) fn new(doors: &[(SocketAddr, SocketAddr)]) -> Self {
        let texts = doors.iter().map(|(named, called)| (named.to_string(), called.to_string()));
        let pairs: Vec<_> = texts.collect();
        assert!(pairs.iter().all(|(named, called)| named.len() == called.len()), "ports of five digits: {pairs:?}");
        Doors(pairs)
    }

    /// Replaces each address, once.
    pub(super) fn rename(&self, bytes: &mut [u8]) {
        for (named, called) in &self.0 {
            let place = bytes.windows(named.len()).position(|window| window == named.as_bytes());
            if let Some(place) = place {
                bytes[place..place + called.len()].copy_from_slice(called.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_replaced_and_nothing_else() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let doors = Doors::new(&[(address("127.0.0.1:12345"), address("127.0.0.1:54321"))]);
        let mut said = *b"..127.0.0.1:12345 127.0.0.1:11111..";
        doors.rename(&mut said);
        assert_eq!(&said, b"..127.0.0.1:54321 127.0.0.1:11111..");
        let mut nothing = *b"..";
        doors.rename(&mut nothing);
        assert_eq!(&nothing, b"..");
    }
}
