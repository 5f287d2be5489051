//! Why something does not hold: a packet and what becomes of it, hop by hop.

use std::fmt;

use super::program::FieldDeclaration;
use super::space::Packet;

/// Which of the two programs of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The first.
    Left,
    /// The second.
    Right,
}

/// A history that one program has and the other has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample {
    /// The packet that goes in; packets have a value for every field of the program.
    pub input: Packet,
    /// The packet at each `dup`, in order.
    pub hops: Vec<Packet>,
    /// The packet that comes out.
    pub output: Packet,
    /// The program that has the history.
    pub side: Side,
    /// By field: what it is, when the question mentions it.
    pub(super) mentioned: Vec<Option<FieldDeclaration>>,
}

impl Counterexample {
    /// A packet with the fields that the question mentions, as `field=value …`.
    #[must_use]
    pub fn show(&self, packet: &Packet) -> String {
        let fields: Vec<String> = (self.mentioned.iter().zip(packet))
            .filter_map(|(field, value)| {
                let field = field.as_ref()?;
                Some(format!("{}={}", field.name, field.domain.show(*value)))
            })
            .collect();
        if fields.is_empty() {
            "any packet".to_owned()
        } else {
            fields.join(" ")
        }
    }
}

/// One line per packet: `in`, each `dup`, `out`.
impl fmt::Display for Counterexample {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "in   {}", self.show(&self.input))?;
        for hop in &self.hops {
            writeln!(formatter, "dup  {}", self.show(hop))?;
        }
        write!(formatter, "out  {}", self.show(&self.output))
    }
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Side::Left => "left",
            Side::Right => "right",
        })
    }
}
