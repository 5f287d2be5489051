//! The fields of Frenetic and what they hold.

/// A field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// The greatest value.
    pub(super) max: u64,
    pub(super) notation: Notation,
}

/// How values may be written, besides as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notation {
    Number,
    /// Also `pipe("…")` and `query("…")`, which are refused.
    Location,
    Mac,
    /// With a prefix length, in tests.
    Address,
}

/// Widths are those of Frenetic's types.
const FIELDS: [(&str, u64, Notation); 15] = [
    ("switch", u64::MAX, Notation::Number),
    ("port", 0xffff_ffff, Notation::Location),
    ("vswitch", u64::MAX, Notation::Number),
    ("vport", u64::MAX, Notation::Number),
    ("vfabric", u64::MAX, Notation::Number),
    ("ethSrc", 0xffff_ffff_ffff, Notation::Mac),
    ("ethDst", 0xffff_ffff_ffff, Notation::Mac),
    ("vlanId", 0xffff, Notation::Number),
    ("vlanPcp", 0xff, Notation::Number),
    ("ethTyp", 0xffff, Notation::Number),
    ("ipProto", 0xff, Notation::Number),
    ("ip4Src", 0xffff_ffff, Notation::Address),
    ("ip4Dst", 0xffff_ffff, Notation::Address),
    ("tcpSrcPort", 0xffff, Notation::Number),
    ("tcpDstPort", 0xffff, Notation::Number),
];

/// Fields that Frenetic has in its portless mode only.
pub(super) const PORTLESS: [&str; 2] = ["from", "loc"];

/// The field of this name.
pub(super) fn named(name: &str) -> Option<Field> {
    let found = FIELDS.iter().find(|field| field.0 == name)?;
    let (name, max, notation) = *found;
    Some(Field {
        name,
        max,
        notation,
    })
}

/// Every name of a field.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FIELDS.iter().map(|field| field.0)
}
