//! Pictures of latencies: how many of a class's deliveries took at most so long.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use plotters::{coord::Shift, prelude::*};

const SIZE: (u32, u32) = (900, 540);
const FONT: &str = "sans-serif";

/// Steps between two quantiles that are drawn.
const STEPS_PER_HALVING: u32 = 8;

/// Draws the latencies of each class as an SVG file.
pub fn latencies(path: &Path, by_class: &BTreeMap<&'static str, Histogram<u64>>) -> Result<()> {
    let curves = by_class.iter().filter(|(_, all)| !all.is_empty());
    let curves: Vec<_> = curves.map(|(class, all)| (*class, curve(all))).collect();
    // The library's errors borrow its backend.
    draw(&SVGBackend::new(path, SIZE).into_drawing_area(), &curves)
        .map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

type Curve = Vec<(f64, f64)>;

fn draw<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    curves: &[(&str, Curve)],
) -> Result<(), Box<dyn std::error::Error + 'a>> {
    area.fill(&WHITE)?;
    let all = || curves.iter().flat_map(|(_, curve)| curve).map(|(ms, _)| *ms);
    let (min, max) = (all().fold(1.0, f64::min), all().fold(10.0, f64::max));
    let mut chart = ChartBuilder::on(area)
        .caption("One-way latency, call to callback", (FONT, 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d((min..max).log_scale(), 0.0..100.0)?;
    chart
        .configure_mesh()
        .x_desc("milliseconds")
        .y_desc("% of deliveries")
        .x_label_formatter(&|ms| format!("{ms}"))
        .draw()?;
    for (n, (class, curve)) in curves.iter().enumerate() {
        let style = Palette99::pick(n).stroke_width(2);
        chart
            .draw_series(LineSeries::new(curve.iter().copied(), style))?
            .label(*class)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}

/// Milliseconds, and the percentage of values up to there.
#[allow(clippy::cast_precision_loss)] // for the eye
fn curve(all: &Histogram<u64>) -> Curve {
    let points = all.iter_quantiles(STEPS_PER_HALVING);
    let points = points.map(|point| {
        (point.value_iterated_to() as f64 / 1000.0, point.quantile_iterated_to() * 100.0)
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::histogram;

    #[test]
    fn a_curve_rises_to_all_and_the_picture_names_the_classes() {
        let mut all = histogram();
        (1..=1000).for_each(|ms| all.saturating_record(ms * 1000));
        let points = curve(&all);
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
        assert_eq!(points.last().map(|(_, percent)| *percent), Some(100.0));
        let file = tempfile::NamedTempFile::new().unwrap();
        latencies(file.path(), &BTreeMap::from([("signal", all), ("chat", histogram())])).unwrap();
        let svg = std::fs::read_to_string(file.path()).unwrap();
        assert!(svg.contains("<svg") && svg.contains("signal") && !svg.contains("chat"));
    }
}
