//! Values of numeric fields: ranges, names, sets.

use super::{Local, MAX_DEPTH, Resolver, Scope};
use crate::ast::{Value, ValueKind};
use crate::diagnostic::Code;
use crate::field::Field;
use crate::nearest::nearest;

impl<'d> Resolver<'d> {
    /// The ranges that a value of a numeric field means: sorted, disjoint, not adjacent.
    pub(super) fn ranges(
        &mut self,
        field: Field,
        value: &Value,
        scope: &Scope<'d>,
    ) -> Option<Box<[(u64, u64)]>> {
        let mut out = Vec::new();
        self.collect_ranges(field, value, scope, &mut out)?;
        out.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (first, last) in out {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last)
                }
                _ => merged.push((first, last)),
            }
        }
        Some(merged.into())
    }

    /// The one number that an assignment needs.
    pub(super) fn one_number(
        &mut self,
        field: Field,
        value: &Value,
        scope: &Scope<'d>,
    ) -> Option<u64> {
        let ranges = self.ranges(field, value, scope)?;
        match *ranges {
            [(first, last)] if first == last => Some(first),
            _ => {
                self.sink
                    .report(
                        Code::WrongKind,
                        value.span,
                        format!("`{}` can be assigned one value, not several", field.name()),
                    )
                    .hint("write `(f := a) + (f := b)` to send a copy with each");
                None
            }
        }
    }

    fn collect_ranges(
        &mut self,
        field: Field,
        value: &Value,
        scope: &Scope<'d>,
        out: &mut Vec<(u64, u64)>,
    ) -> Option<()> {
        if self.exhausted || !self.spend(1, value.span) {
            return None;
        }
        if self.depth >= MAX_DEPTH {
            self.too_deep(value.span);
            return None;
        }
        self.depth += 1;
        let result = self.collect_kind(field, value, scope, out);
        self.depth -= 1;
        result
    }

    fn collect_kind(
        &mut self,
        field: Field,
        value: &Value,
        scope: &Scope<'d>,
        out: &mut Vec<(u64, u64)>,
    ) -> Option<()> {
        let is_mac = matches!(field, Field::EthSource | Field::EthDestination);
        match &value.kind {
            ValueKind::Number(number) => self.checked(field, *number, *number, value, out),
            ValueKind::Range(first, last) => self.checked(field, *first, *last, value, out),
            ValueKind::Mac(mac) if is_mac => {
                out.push((*mac, *mac));
                Some(())
            }
            ValueKind::Set(elements) => {
                let mut all = Some(());
                for element in elements {
                    all = all.and(self.collect_ranges(field, element, scope, out));
                }
                all
            }
            ValueKind::Name(name) => match self.local(scope, name) {
                Some(Local::Argument(argument, outer)) => match argument.as_value() {
                    Some(bound) => self.collect_ranges(field, &bound, &outer, out),
                    None => self.wrong_kind(field, value),
                },
                Some(_) => self.wrong_kind(field, value),
                None => self.named_number(field, name, value, out),
            },
            ValueKind::Text(name) => self.object_number(field, name, value, out),
            ValueKind::Labels(labels) if matches!(field, Field::Port) || is_mac => {
                for endpoint in self.labelled(labels) {
                    let number = if is_mac {
                        endpoint.mac_number()
                    } else {
                        endpoint.number.into()
                    };
                    out.push((number, number));
                }
                Some(())
            }
            ValueKind::Error => None,
            _ => self.wrong_kind(field, value),
        }
    }

    fn checked(
        &mut self,
        field: Field,
        first: u64,
        last: u64,
        value: &Value,
        out: &mut Vec<(u64, u64)>,
    ) -> Option<()> {
        let message = if last > field.max() {
            format!(
                "{last} does not fit `{}`, whose greatest value is {}",
                field.name(),
                field.max()
            )
        } else if first > last {
            format!("the range {first}-{last} is empty")
        } else {
            out.push((first, last));
            return Some(());
        };
        self.sink.report(Code::ValueOutOfRange, value.span, message);
        None
    }

    fn wrong_kind(&mut self, field: Field, value: &Value) -> Option<()> {
        let needs = match field {
            Field::EthSource | Field::EthDestination => "MAC addresses, such as 02:00:00:00:00:01",
            Field::Port => "endpoints or their numbers",
            Field::Node => "nodes or their numbers",
            Field::Connection => "`new`, `established` or `related`",
            _ => "numbers or ranges, such as 80 or 1024-65535",
        };
        self.sink.report(
            Code::WrongKind,
            value.span,
            format!("`{}` takes {needs}", field.name()),
        );
        None
    }

    /// A bare name: a set, a protocol, an endpoint or a node.
    fn named_number(
        &mut self,
        field: Field,
        name: &str,
        value: &Value,
        out: &mut Vec<(u64, u64)>,
    ) -> Option<()> {
        if let Some(set) = self.sets.get(name) {
            let inner = set.value;
            return self.collect_ranges(field, inner, &Scope::default(), out);
        }
        let known = match (field, name) {
            (Field::Protocol, "tcp") => Some(6),
            (Field::Protocol, "udp") => Some(17),
            (Field::Protocol, "icmp" | "icmp4") => Some(1),
            (Field::Protocol, "icmp6") => Some(58),
            (Field::EtherType, "ip" | "ipv4") => Some(0x0800),
            (Field::EtherType, "arp") => Some(0x0806),
            (Field::EtherType, "ipv6") => Some(0x86dd),
            (Field::Connection, name) => crate::field::Connection::named(name).map(|c| c as u64),
            _ => None,
        };
        match known {
            Some(number) => {
                out.push((number, number));
                Some(())
            }
            None => self.object_number(field, name, value, out),
        }
    }

    /// The number of an endpoint or node, or the MAC address of an endpoint.
    fn object_number(
        &mut self,
        field: Field,
        name: &str,
        value: &Value,
        out: &mut Vec<(u64, u64)>,
    ) -> Option<()> {
        let number = match field {
            Field::Node => {
                let nodes = &self.environment.nodes;
                match nodes.iter().find(|node| node.name == name) {
                    Some(node) => u64::from(node.number),
                    None => {
                        let near = nearest(name, nodes.iter().map(|node| node.name.as_str()));
                        let report = self.sink.report(
                            Code::UnknownName,
                            value.span,
                            format!("there is no node `{}`", crate::token::shorten(name)),
                        );
                        if let Some(near) = near {
                            report.hint(format!("did you mean `{near}`?"));
                        }
                        return None;
                    }
                }
            }
            Field::Port => self.endpoint(name, value.span)?.number.into(),
            Field::EthSource | Field::EthDestination => {
                self.endpoint(name, value.span)?.mac_number()
            }
            _ => return self.wrong_kind(field, value),
        };
        out.push((number, number));
        Some(())
    }
}
