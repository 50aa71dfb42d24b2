//! Figures for Prometheus, and events on stderr.
//!
//!     cargo run --package tooz --features metrics --example metrics -- memory:// 127.0.0.1:9464
//!     curl http://127.0.0.1:9464/metrics
//!
//! A dashboard for Grafana that draws them is in `grafana-dashboard.json`.

use std::net::SocketAddr;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tooz::{ConnectOptions, Lock};

/// Upper ends of the buckets of all histograms, in seconds: from a lock in shared memory to one that is waited for all night.
const BUCKETS: [f64; 12] = [0.00001, 0.0001, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0, 36_000.0];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "memory://metrics".to_owned());
    let listen: SocketAddr = arguments.next().unwrap_or_else(|| "127.0.0.1:9464".to_owned()).parse()?;
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
        .with_http_listener(listen)
        .install()?;
    let coordinator = ConnectOptions::new(&url)?
        .member(format!("metrics-{}", std::process::id()))?
        .metrics_with_names()
        .connect()
        .await?;
    println!("figures at http://{listen}/metrics until Ctrl-C");
    let lock = coordinator.lock("examples-metrics")?;
    tokio::select! {
        failed = work(&lock) => failed?,
        _ = tokio::signal::ctrl_c() => {}
    }
    coordinator.close().await?;
    Ok(())
}

async fn work(lock: &Lock) -> tooz::Result<()> {
    loop {
        let guard = lock.acquire().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        guard.release().await?;
    }
}
