//! Metrics as agents and the controller expose them: names begin with `sunwire_`, units are base units
//! (bytes, seconds) and stand at the end of names, totals end in `_total`.
//!
//! The text is that of OpenMetrics 1.0, which Prometheus reads.

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::sync::atomic::AtomicU64;

/// Media type of the text.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(String, String)>;

/// A text under construction.
#[derive(Debug)]
pub struct Exposition(Registry);

impl Default for Exposition {
    fn default() -> Self {
        Exposition(Registry::with_prefix("sunwire"))
    }
}

impl Exposition {
    /// Adds totals that only rise, `sunwire_NAME_total`, each with the values of `labels`.
    pub fn totals<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        totals: impl IntoIterator<Item = ([String; N], u64)>,
    ) {
        let family = Family::<Labels, Counter>::default();
        for (values, total) in totals {
            family.get_or_create(&named(labels, values)).inc_by(total);
        }
        self.0.register(name, help, family);
    }

    /// Adds one total that only rises, `sunwire_NAME_total`.
    pub fn total(&mut self, name: &str, help: &str, total: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(total);
        self.0.register(name, help, counter);
    }

    /// Adds values of now, `sunwire_NAME`, each with the values of `labels`.
    pub fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        gauges: impl IntoIterator<Item = ([String; N], f64)>,
    ) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (values, value) in gauges {
            family.get_or_create(&named(labels, values)).set(value);
        }
        self.0.register(name, help, family);
    }

    /// Adds one value of now, `sunwire_NAME`.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.0).expect("a string takes whatever is written");
        text
    }
}

fn named<const N: usize>(labels: [&str; N], values: [String; N]) -> Labels {
    let labels = labels.into_iter().map(str::to_owned);
    labels.zip(values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let mut exposition = Exposition::default();
        exposition.totals(
            "dropped_packets",
            "Packets dropped",
            ["reason"],
            [(["say \"no\"\n".to_owned()], 7)],
        );
        exposition.gauge("revision", "Last revision applied", 12.0);
        assert_eq!(
            exposition.text(),
            "# HELP sunwire_dropped_packets Packets dropped.\n\
             # TYPE sunwire_dropped_packets counter\n\
             sunwire_dropped_packets_total{reason=\"say \\\"no\\\"\\n\"} 7\n\
             # HELP sunwire_revision Last revision applied.\n\
             # TYPE sunwire_revision gauge\n\
             sunwire_revision 12.0\n\
             # EOF\n"
        );
    }
}
