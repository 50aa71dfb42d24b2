//! The picture: the median of each operation beside the raw round trip, one group of bars for each backend.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::report::Report;
use crate::stats::words;
use crate::target::Measure;

/// What is drawn, in the order of the bars.
const DRAWN: [(Measure, &str); 5] = [
    (Measure::Raw, "raw round trip"),
    (Measure::Pair, "acquire + release"),
    (Measure::WakeUp, "release → waiter"),
    (Measure::Join, "join"),
    (Measure::Push, "change → watcher"),
];

/// Writes an SVG. The scale is logarithmic: from a microsecond to a second lies all that is drawn.
pub(crate) fn write(reports: &[Report], file: &Path) -> Result<()> {
    draw(reports, file).map_err(|error| anyhow!("{}: {error}", file.display()))
}

fn draw<'a>(reports: &[Report], file: &'a Path) -> Result<(), Box<dyn std::error::Error + 'a>> {
    const BARS: u32 = 5;
    let columns = u32::try_from(reports.len())?;
    let root = SVGBackend::new(file, (200 + 170 * columns.max(3), 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let end = i32::try_from(columns * (BARS + 1))?;
    let mut chart = ChartBuilder::on(&root)
        .caption("tooz: medians beside the raw round trip", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(70)
        .build_cartesian_2d(0..end, (0.5_f64..1_000_000.0).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_desc("µs, logarithmic")
        .y_label_formatter(&|micros| format!("{micros}"))
        .draw()?;
    for (index, (measure, name)) in DRAWN.into_iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let bars = reports.iter().enumerate().filter_map(|(column, report)| {
            let row = report.rows.iter().find(|row| row.measure == measure)?;
            let left = i32::try_from(column * (BARS as usize + 1) + index).ok()?;
            Some((left, row.times?.p50))
        });
        let bars: Vec<(i32, u64)> = bars.collect();
        #[allow(clippy::cast_precision_loss)]
        let micros = |nanos: u64| nanos as f64 / 1e3;
        chart
            .draw_series(
                bars.iter()
                    .map(|(left, p50)| Rectangle::new([(*left, 0.5), (*left + 1, micros(*p50))], color.filled())),
            )?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], color.filled()));
        chart.draw_series(
            bars.iter().map(|(left, p50)| {
                Text::new(words(*p50), (*left, micros(*p50) * 1.25), ("sans-serif", 10).into_font())
            }),
        )?;
    }
    for (column, report) in reports.iter().enumerate() {
        let left = i32::try_from(column * (BARS as usize + 1))?;
        chart.draw_series([Text::new(report.backend, (left + 1, 0.7), ("sans-serif", 16).into_font())])?;
    }
    let place = SeriesLabelPosition::UpperRight;
    chart.configure_series_labels().position(place).background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}
