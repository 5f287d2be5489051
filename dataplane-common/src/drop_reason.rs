//! Why a packet was not delivered: one enum that feeds the kernel's counters, the metrics, the
//! command line and the documentation.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $value:literal, $name:literal;)+) => {
        /// Why a packet was not delivered. The value is the index into the per-CPU drop counters;
        /// values are never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant = $value,)+
        }

        impl DropReason {
            /// Every reason, in counter order.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// The stable name used in metrics, JSON and on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// One sentence for people: what happened.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

drop_reasons! {
    /// The policy decided to drop the packet; the label counter says by which rule.
    Policy = 0, "policy";
    /// The frame ends inside a header, or a header contradicts itself.
    Malformed = 1, "malformed";
    /// The source MAC or IP address is not the endpoint's own.
    SpoofedSource = 2, "spoofed_source";
    /// The network of the endpoint or tunnel is not known on this node.
    UnknownNetwork = 3, "unknown_network";
    /// No policy is in force for the network.
    NoPolicy = 4, "no_policy";
    /// No endpoint of the network owns the destination address.
    NoOwner = 5, "no_owner";
    /// The policy let the packet through but sent it nowhere: it would leave where it came in.
    NotForwarded = 6, "not_forwarded";
    /// The destination endpoint lives here but its device is not attached.
    NotAttached = 7, "not_attached";
    /// The destination endpoint is on its way here and its device has not arrived yet.
    InTransit = 8, "in_transit";
    /// A tunnelled packet reached a node where its destination does not and did not live.
    NotHere = 9, "not_here";
    /// A tunnelled packet was forwarded too often after moves.
    HopLimit = 10, "hop_limit";
    /// A tunnelled packet came from an address that is no node of the mesh.
    UnknownPeer = 11, "unknown_peer";
    /// The inner source address does not live at the node that sent the packet.
    SourceNotThere = 12, "source_not_there";
    /// The tunnel header is malformed or sets flags that are not supported.
    BadTunnel = 13, "bad_tunnel";
    /// The packet is larger than the network's MTU.
    TooBig = 14, "too_big";
    /// The next hop toward the destination's node is not resolved.
    NoRoute = 15, "no_route";
    /// Fragments are not supported.
    Fragment = 16, "fragment";
    /// VLAN-tagged frames are not supported.
    Vlan = 17, "vlan";
    /// A broadcast or multicast frame that no policy may send to one endpoint, or that the node
    /// does not understand.
    Multicast = 18, "multicast";
    /// The kernel refused to grow or shrink the packet.
    Resize = 19, "resize";
    /// The flow tables in force are incomplete: an error of the agent.
    BadTables = 20, "bad_tables";
    /// An ARP or neighbour question for an address that nobody owns.
    NeighbourUnknown = 21, "neighbour_unknown";
    /// The policy rewrites a field that this packet does not have.
    NotRewritable = 22, "not_rewritable";
    /// An IPv6 control message (router solicitation, multicast listener report) that no one here
    /// listens to.
    Unsolicited = 23, "unsolicited";
    /// A further copy of a packet was under way while the policy changed.
    Superseded = 24, "superseded";
    /// A question to the node (DHCP, DNS) was one too many of its endpoint.
    PuntLimited = 25, "punt_limited";
    /// A question to the node found the agent's buffer full.
    PuntFull = 26, "punt_full";
    /// A question to the node (DHCP, DNS) makes no sense.
    PuntMalformed = 27, "punt_malformed";
    /// The policy in force no longer admits a connection that an earlier one had admitted; its entry
    /// is gone.
    Revoked = 28, "revoked";
    /// The reply to a translated flow would be taken for another flow of the same endpoint.
    TranslationTaken = 29, "translation_taken";
    /// A tunnelled packet came in the clear that has to be encrypted.
    Unencrypted = 30, "unencrypted";
    /// The packet has to be encrypted, and the tunnel to the destination's node is not up.
    NoTunnel = 31, "no_tunnel";
    /// A tunnelled packet for several endpoints names a set of them that this node does not know:
    /// its policy is older or newer than the entry node's.
    UnknownGroup = 32, "unknown_group";
    /// An endpoint reports more multicast groups than it, or its network on this node, may listen
    /// to: it does not get packets of those beyond.
    TooManyGroups = 33, "too_many_groups";
    /// The policy translates what comes from a node without an agent, where nobody would turn replies
    /// back.
    NotTranslatable = 34, "not_translatable";
    /// A packet on its way to another network had been on its way for too long: its time to live, or
    /// hop limit, was used up.
    Expired = 35, "expired";
    /// A frame of a wire that this node does not know: the wire was disconnected, or is not connected
    /// here yet.
    NoWire = 36, "no_wire";
    /// Another node let the packet through, and the policy in force on this one does not: its network
    /// has both decide, and the other node has another revision, or does not keep to it.
    ReceiverPolicy = 37, "receiver_policy";
    /// The packet cannot leave the cloud: it is neither TCP, UDP nor an ICMP echo, which alone are
    /// known again when they come back, nor an ICMP error about one that came.
    OutboundProtocol = 38, "outbound_protocol";
    /// The packet must not leave the cloud to this address: it is a node's, or one that routers do not
    /// forward to.
    OutboundForbidden = 39, "outbound_forbidden";
    /// The packet would leave the cloud at a node that has no address of its family.
    OutboundAddress = 40, "outbound_address";
    /// The packet would leave the cloud, and every port that the node may use towards its destination
    /// is taken by another connection.
    OutboundPorts = 41, "outbound_ports";
    /// The packet would leave the cloud, and the node has no room for more such connections.
    OutboundFull = 42, "outbound_full";
    /// A packet from outside of the cloud answers nothing that its receiver has sent, or that its policy
    /// still lets it send.
    OutboundUnasked = 43, "outbound_unasked";
    /// The packets of its network have an outer UDP checksum, and the node has no device that writes it:
    /// its status says why.
    NoChecksum = 44, "no_checksum";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_dense_and_names_unique() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            let twins = DropReason::ALL.iter().filter(|r| r.name() == reason.name());
            assert_eq!(twins.count(), 1, "{}", reason.name());
            assert!(reason.description().ends_with('.'));
        }
    }
}
