//! The options of DHCP messages that are looked at, cut out of what a client sent.
//!
//! The library that reads messages trusts the length of many an option: some lengths make it read
//! the next option at a wrong place, others make it panic. So the framing is checked here, strictly
//! and for both versions alike, and only options that the services know are handed on, each of a
//! length that it can have.

use super::handler::Malformed;

/// Bytes before the options of a DHCPv4 message: the fixed part and the magic cookie.
pub(crate) const FIXED4_BYTES: usize = 240;
/// Bytes before the options of a DHCPv6 message.
const FIXED6_BYTES: usize = 4;

/// DHCPv4 (RFC 2132).
mod v4 {
    pub(super) const PAD: u8 = 0;
    pub(super) const REQUESTED_ADDRESS: u8 = 50;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const CLIENT: u8 = 61;
    pub(super) const END: u8 = 255;
}

/// DHCPv6 (RFC 8415, 21).
mod v6 {
    pub(super) const CLIENT: u16 = 1;
    pub(super) const SERVER: u16 = 2;
    pub(super) const ADDRESSES: u16 = 3;
    pub(super) const TEMPORARY: u16 = 4;
    pub(super) const ADDRESS: u16 = 5;
    pub(super) const RAPID_COMMIT: u16 = 14;
    pub(super) const PREFIXES: u16 = 25;
    /// A unique identifier: its type and what it is made of (RFC 8415, 11.1).
    pub(super) const ID_BYTES: std::ops::RangeInclusive<usize> = 3..=130;
    /// Identifier and times of an association; without times for temporary addresses.
    pub(super) const ASSOCIATION_BYTES: usize = 12;
    pub(super) const TEMPORARY_BYTES: usize = 4;
    /// An address and its lifetimes.
    pub(super) const ADDRESS_BYTES: usize = 24;
}

const FRAMING: Malformed = Malformed("options");
const LENGTH: Malformed = Malformed("an option's length");

/// A DHCPv4 message with the options that are looked at.
pub(crate) fn known4(message: &[u8]) -> Result<Vec<u8>, Malformed> {
    let (fixed, mut rest) = message.split_at_checked(FIXED4_BYTES).ok_or(FRAMING)?;
    let mut known = fixed.to_vec();
    loop {
        let (code, length) = match rest {
            [] | [v4::END, ..] => break,
            [v4::PAD, padded @ ..] => {
                rest = padded;
                continue;
            }
            [code, length, ..] => (*code, usize::from(*length)),
            [_] => return Err(FRAMING),
        };
        let (option, next) = rest.split_at_checked(2 + length).ok_or(FRAMING)?;
        rest = next;
        let is_right = match code {
            v4::MESSAGE_TYPE => length == 1,
            v4::REQUESTED_ADDRESS | v4::SERVER => length == 4,
            v4::CLIENT => length >= 2,
            _ => continue,
        };
        if !is_right {
            return Err(LENGTH);
        }
        known.extend(option);
    }
    known.push(v4::END);
    Ok(known)
}

/// A DHCPv6 message with the options that are looked at, and in identity associations the
/// addresses.
pub(crate) fn known6(message: &[u8]) -> Result<Vec<u8>, Malformed> {
    let (fixed, options) = message.split_at_checked(FIXED6_BYTES).ok_or(FRAMING)?;
    let mut known = fixed.to_vec();
    for option in options_of(options) {
        let (code, value) = option?;
        match code {
            v6::CLIENT | v6::SERVER if v6::ID_BYTES.contains(&value.len()) => {
                put(&mut known, code, value);
            }
            v6::RAPID_COMMIT if value.is_empty() => put(&mut known, code, value),
            v6::ADDRESSES => {
                let association = association(value, v6::ASSOCIATION_BYTES)?;
                put(&mut known, code, &association);
            }
            v6::TEMPORARY => {
                let association = association(value, v6::TEMPORARY_BYTES)?;
                put(&mut known, code, &association);
            }
            v6::PREFIXES => {
                let fixed = value.get(..v6::ASSOCIATION_BYTES).ok_or(LENGTH)?;
                put(&mut known, code, fixed);
            }
            v6::CLIENT | v6::SERVER | v6::RAPID_COMMIT => return Err(LENGTH),
            _ => {}
        }
    }
    Ok(known)
}

/// An identity association with its addresses alone.
fn association(value: &[u8], fixed_bytes: usize) -> Result<Vec<u8>, Malformed> {
    let (fixed, options) = value.split_at_checked(fixed_bytes).ok_or(LENGTH)?;
    let mut known = fixed.to_vec();
    for option in options_of(options) {
        let (code, value) = option?;
        if code == v6::ADDRESS {
            let address = value.get(..v6::ADDRESS_BYTES).ok_or(LENGTH)?;
            put(&mut known, code, address);
        }
    }
    Ok(known)
}

/// The DHCPv6 options in some bytes: code and value.
fn options_of(mut rest: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Malformed>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let option = (|| {
            let (code, behind) = rest.split_first_chunk::<2>()?;
            let (length, behind) = behind.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (value, next) = behind.split_at_checked(length)?;
            Some((u16::from_be_bytes(*code), value, next))
        })();
        match option {
            Some((code, value, next)) => {
                rest = next;
                Some(Ok((code, value)))
            }
            None => {
                rest = &[];
                Some(Err(FRAMING))
            }
        }
    })
}

fn put(into: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).expect("values are no longer than they were");
    into.extend(code.to_be_bytes());
    into.extend(length.to_be_bytes());
    into.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_options_of_right_lengths_are_handed_on() {
        let fixed = [7; FIXED4_BYTES];
        let with = |options: &[u8]| known4(&[&fixed[..], options].concat());
        let known = |options: &[u8]| Ok([&fixed[..], options].concat());
        // A host name, padding, a message type, the end and what is behind it.
        let options = [12, 3, b'w', b'e', b'b', 0, 0, 53, 1, 1, 255, 53, 9];
        assert_eq!(with(&options), known(&[53, 1, 1, 255]));
        assert_eq!(with(&[53, 1, 3]), known(&[53, 1, 3, 255]), "no end");
        assert_eq!(with(&[53, 2, 1, 1, 255]), Err(LENGTH));
        assert_eq!(with(&[50, 3, 1, 1, 1, 255]), Err(LENGTH));
        assert_eq!(with(&[61, 1, 1, 255]), Err(LENGTH));
        assert_eq!(with(&[53]), Err(FRAMING));
        assert_eq!(with(&[12, 9, b'w']), Err(FRAMING));
        assert_eq!(known4(&fixed[1..]), Err(FRAMING));
    }

    #[test]
    fn associations_are_cut_down_to_their_addresses() {
        let fixed = [1, 0, 0, 9];
        let with = |options: &[u8]| known6(&[&fixed[..], options].concat());
        let address = [0xfd; v6::ADDRESS_BYTES];
        let mut inner = vec![9; v6::ASSOCIATION_BYTES];
        put(&mut inner, 13, b"no status of a client's");
        let mut lease = address.to_vec();
        put(&mut lease, 13, b"nor in an address");
        put(&mut inner, v6::ADDRESS, &lease);
        let mut options = Vec::new();
        put(&mut options, v6::ADDRESSES, &inner);
        put(&mut options, 6, &[0, 23]);
        let mut cut = vec![9; v6::ASSOCIATION_BYTES];
        put(&mut cut, v6::ADDRESS, &address);
        let mut expected = fixed.to_vec();
        put(&mut expected, v6::ADDRESSES, &cut);
        assert_eq!(with(&options), Ok(expected));
        assert_eq!(
            with(&[0, 14, 0, 1, 0]),
            Err(LENGTH),
            "rapid commit says nothing"
        );
        assert_eq!(
            with(&[0, 1, 0, 2, 0, 3]),
            Err(LENGTH),
            "an identifier of nothing"
        );
        assert_eq!(with(&[0, 3, 0, 4, 0, 0, 0, 9]), Err(LENGTH));
        assert_eq!(with(&[0, 3, 0, 4, 0, 0]), Err(FRAMING));
        assert_eq!(with(&[0, 3, 0]), Err(FRAMING));
    }
}
