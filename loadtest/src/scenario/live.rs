//! The run as Prometheus sees it while it goes on: a page of gauges, renewed every second. Knows samples, not how they are
//! taken.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use prometheus::{Encoder, GaugeVec, Opts, Registry, TextEncoder};

use crate::{client::handshake, control::Progress, figures::Sample};

/// How long somebody who asks may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest question that is read.
const LONGEST: usize = 16 * 1024;

/// The page.
pub struct Live {
    registry: Registry,
    values: GaugeVec,
    latency: GaugeVec,
}

impl Live {
    /// Serves it at `address` until the program ends.
    ///
    /// # Errors
    /// Nobody can listen there.
    pub fn serve(address: SocketAddr) -> Result<Arc<Self>> {
        let listener = TcpListener::bind(address).with_context(|| format!("--prometheus {address}"))?;
        let told = format!("figures for Prometheus at http://{}/metrics", listener.local_addr()?);
        // Nobody reads a closed standard error.
        let _ = writeln!(io::stderr(), "{told}");
        let live = Arc::new(Self::new()?);
        let served = Arc::clone(&live);
        // Not joined: it waits in `accept` until the process ends.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who asks and does not listen gets nothing.
                let _ = served.answer(stream);
            }
        });
        Ok(live)
    }

    fn new() -> Result<Self> {
        let registry = Registry::new();
        let family = |name: &str, help: &str, label: &str| -> Result<GaugeVec> {
            let gauges = GaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let values = family("loadtest_value", "What the load tool sees at present.", "what")?;
        let latency = family("loadtest_latency_seconds", "Intended send to arrival, last second.", "quantile")?;
        Ok(Self { registry, values, latency })
    }

    /// Takes a new sample.
    pub(super) fn show(&self, sample: &Sample, sums: &Progress) {
        let values = [
            ("connections", Some(float(sample.connected))),
            ("failed_connections", Some(float(sums.failed))),
            ("published", Some(float(sums.published))),
            ("delivered", Some(float(sums.delivered))),
            ("published_per_second", Some(sample.publish_rate)),
            ("delivered_per_second", Some(sample.delivery_rate)),
            ("server_cores", sample.server_cores),
            ("server_resident_bytes", sample.server_rss.map(float)),
            ("generator_cores", Some(sample.generator_cores)),
        ];
        for (what, value) in values.into_iter().filter_map(|(what, value)| Some((what, value?))) {
            self.values.with_label_values(&[what]).set(value);
        }
        for (quantile, nanos) in [("0.5", sample.p50), ("0.99", sample.p99), ("0.999", sample.p999)] {
            self.latency.with_label_values(&[quantile]).set(nanos.map_or(f64::NAN, |nanos| float(nanos) / 1e9));
        }
    }

    fn answer(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut question = Vec::new();
        while handshake::head_length(&question).is_none() && question.len() < LONGEST {
            let mut chunk = [0; 1024];
            let count = stream.read(&mut chunk)?;
            anyhow::ensure!(count > 0, "it hung up");
            question.extend_from_slice(&chunk[..count]);
        }
        let mut page = Vec::new();
        let encoder = TextEncoder::new();
        encoder.encode(&self.registry.gather(), &mut page)?;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            encoder.format_type(),
            page.len()
        );
        stream.write_all(head.as_bytes())?;
        Ok(stream.write_all(&page)?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floating")]
fn float(number: u64) -> f64 {
    number as f64
}
