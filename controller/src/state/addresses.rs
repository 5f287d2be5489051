//! Which subnets and addresses can be used, and which are next.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sunwire_api::{Cidr, Name, ProblemCode};

use crate::refusal::Refusal;

/// Addresses that mean something everywhere, so that no network can have them: this host,
/// loopback, link-local, multicast and reserved (RFC 6890, RFC 4291).
const RESERVED: [&str; 8] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/3",
    "::/96",
    "::ffff:0:0/96",
    "fe80::/10",
    "ff00::/8",
];

/// The gateway of a subnet: its first host address.
pub(super) fn gateway(subnet: &Cidr) -> IpAddr {
    subnet
        .nth(1)
        .expect("subnets with fewer than four addresses are refused")
}

/// Checks the subnets of one network; none make one that carries frames alone.
pub(super) fn check_subnets(subnets: &[Cidr]) -> Result<(), Refusal> {
    let invalid = |detail| Err(Refusal::new(ProblemCode::SubnetInvalid, detail));
    for (index, subnet) in subnets.iter().enumerate() {
        let others = &subnets[..index];
        if let Some(other) = others.iter().find(|other| other.overlaps(subnet)) {
            return Err(Refusal::new(
                ProblemCode::SubnetOverlap,
                format!("the subnets {other} and {subnet} overlap: write one of them"),
            ));
        }
        if let Some(other) = others
            .iter()
            .find(|other| other.same_family(subnet.address()))
        {
            return invalid(format!(
                "the subnets {other} and {subnet} are of one family: a network takes one of each"
            ));
        }
        let prefix_max = if subnet.address().is_ipv4() { 30 } else { 126 };
        if subnet.prefix() > prefix_max {
            return invalid(format!(
                "the subnet {subnet} has no room for a gateway and an endpoint: its prefix can \
                 have at most {prefix_max} bits"
            ));
        }
        let reserved = RESERVED
            .iter()
            .map(|text| text.parse::<Cidr>().expect("the list holds subnets"))
            .find(|reserved| reserved.overlaps(subnet));
        if let Some(reserved) = reserved {
            return invalid(format!(
                "the subnet {subnet} overlaps {reserved}, which is reserved: take one of \
                 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or fd00::/8"
            ));
        }
    }
    Ok(())
}

/// Checks the addresses that a client chose for an endpoint of a network.
pub(super) fn check(
    addresses: &[IpAddr],
    network: &Name,
    subnets: &[Cidr],
    taken: &BTreeSet<IpAddr>,
) -> Result<(), Refusal> {
    let invalid = |detail| Err(Refusal::new(ProblemCode::AddressInvalid, detail));
    if subnets.is_empty() {
        return match addresses.first() {
            None => Ok(()),
            Some(address) => invalid(format!(
                "network {network} has no subnet, and its endpoints no addresses that it knows: \
                 leave {address} out"
            )),
        };
    }
    if addresses.is_empty() {
        return invalid(
            "an endpoint needs an address: write one, or leave `addresses` out to have the lowest \
             free ones"
                .to_owned(),
        );
    }
    for (index, address) in addresses.iter().enumerate() {
        let others = &addresses[..index];
        if let Some(other) = others.iter().find(|a| a.is_ipv4() == address.is_ipv4()) {
            return invalid(format!(
                "{other} and {address} are of one family: an endpoint takes one of each"
            ));
        }
        let Some(subnet) = subnets.iter().find(|subnet| subnet.contains(*address)) else {
            let subnets: Vec<String> = subnets.iter().map(Cidr::to_string).collect();
            return invalid(format!(
                "{address} is outside network {network}: take one in {}",
                subnets.join(" or ")
            ));
        };
        if is_reserved(subnet, *address) {
            return invalid(format!(
                "{address} is the first, the gateway's or the broadcast address of {subnet}: take \
                 another one"
            ));
        }
        if taken.contains(address) {
            return Err(Refusal::new(
                ProblemCode::AddressTaken,
                format!("an endpoint of network {network} has {address}: take another one"),
            ));
        }
    }
    Ok(())
}

/// The lowest free address of each subnet.
pub(super) fn allocate(
    network: &Name,
    subnets: &[Cidr],
    taken: &BTreeSet<IpAddr>,
) -> Result<Vec<IpAddr>, Refusal> {
    let lowest_free = |subnet: &Cidr| {
        (2u128..)
            .map_while(|offset| subnet.nth(offset))
            .find(|address| !is_reserved(subnet, *address) && !taken.contains(address))
            .ok_or_else(|| {
                Refusal::new(
                    ProblemCode::AddressesExhausted,
                    format!("every address of {subnet} in network {network} is taken"),
                )
            })
    };
    subnets.iter().map(lowest_free).collect()
}

fn is_reserved(subnet: &Cidr, address: IpAddr) -> bool {
    address == subnet.address()
        || address == gateway(subnet)
        || (address.is_ipv4() && address == subnet.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn code(result: Result<(), Refusal>) -> Option<ProblemCode> {
        match result {
            Ok(()) => None,
            Err(Refusal::Problem(problem)) => Some(problem.code),
            Err(other) => panic!("addresses are right or wrong, never {other:?}"),
        }
    }

    #[test]
    fn allocation_fills_a_subnet_from_below_and_stops_before_broadcast() {
        let name: Name = "shop".parse().unwrap();
        let subnets = [cidr("10.0.0.0/29")];
        let mut taken = BTreeSet::new();
        for last in 2..=6 {
            let address = allocate(&name, &subnets, &taken).unwrap()[0];
            assert_eq!(address, IpAddr::from([10, 0, 0, last]));
            taken.insert(address);
        }
        assert!(allocate(&name, &subnets, &taken).is_err());
        taken.remove(&IpAddr::from([10, 0, 0, 4]));
        let address = allocate(&name, &subnets, &taken).unwrap()[0];
        assert_eq!(address, IpAddr::from([10, 0, 0, 4]));
    }

    #[test]
    fn subnets_of_one_network_neither_overlap_nor_share_a_family() {
        let check = |texts: &[&str]| {
            let subnets: Vec<Cidr> = texts.iter().map(|text| cidr(text)).collect();
            code(check_subnets(&subnets))
        };
        assert_eq!(check(&["10.0.0.0/16", "fd00::/64"]), None);
        let overlap = Some(ProblemCode::SubnetOverlap);
        let invalid = Some(ProblemCode::SubnetInvalid);
        assert_eq!(check(&["10.0.0.0/16", "10.0.1.0/24"]), overlap);
        assert_eq!(check(&["10.0.0.0/16", "10.1.0.0/16"]), invalid);
        for bad in [
            "10.0.0.0/31",
            "fd00::/127",
            "127.0.0.0/16",
            "0.0.0.0/0",
            "ff02::/16",
        ] {
            assert_eq!(check(&[bad]), invalid, "{bad}");
        }
        // A network of frames alone.
        assert_eq!(check(&[]), None);
    }
}
