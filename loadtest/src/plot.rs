//! Plots as SVG: distributions of latencies, and what happened when.

use std::{error::Error, ops::Range};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use plotters::{
    chart::ChartContext,
    coord::{CoordTranslate, Shift},
    prelude::*,
};

/// Size of a plot, in pixels.
const SIZE: (u32, u32) = (860, 440);

/// Told apart also by who does not see red and green alike (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

/// Values of one kind.
#[derive(Debug, Clone)]
pub struct Series<T> {
    /// What it is called in the legend.
    pub name: String,
    /// The values.
    pub values: Vec<T>,
}

/// Latencies in milliseconds, as a distribution is drawn from them.
#[derive(Debug, Clone)]
pub struct Distribution {
    name: String,
    count: f64,
    /// At most so many milliseconds take so many nines of all, in order.
    points: Vec<(f64, f64)>,
}

impl Distribution {
    /// Of each value by itself.
    pub fn of_values(name: impl Into<String>, values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to count
        Self::new(name, sorted.len() as u64, |share, count| {
            sorted[((share * count) as usize).min(sorted.len() - 1)]
        })
    }

    /// Of values in microseconds.
    #[allow(clippy::cast_precision_loss)] // for the eye
    pub fn of_histogram(name: impl Into<String>, all: &Histogram<u64>) -> Self {
        Self::new(name, all.len(), |share, _| all.value_at_quantile(share) as f64 / 1000.0)
    }

    /// In steps that are even on the axis: as many points for a million messages as for a hundred.
    fn new(name: impl Into<String>, count: u64, at: impl Fn(f64, f64) -> f64) -> Self {
        const STEPS: u32 = 500;
        #[allow(clippy::cast_precision_loss)] // counts of messages
        let count = count as f64;
        let last = if count > 1.0 { nines(1.0 - 1.0 / count).min(MOST_NINES) } else { 0.0 };
        let heights = (0..=STEPS).map(|step| last * f64::from(step) / f64::from(STEPS));
        let points = heights.map(|height| (at(1.0 - 10.0_f64.powf(-height), count), height));
        let points = if count > 0.0 { points.collect() } else { vec![] };
        Self { name: name.into(), count, points }
    }
}

/// What the axis of shares ends at: p99.999.
const MOST_NINES: f64 = 5.0;

/// A point in a time line: when in the measurement, in seconds, and what, in milliseconds.
pub type Point = (f64, f64);

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// How many nines of all messages have this latency or less: 90% is 1, 99% is 2.
fn nines(share: f64) -> f64 {
    -(1.0 - share).log10()
}

/// The distribution of latencies, both axes by powers of ten, so that p99.9 has as much room as p90.
/// A line ends at its worst message; `mark_ms` are drawn as lines across.
pub fn latency_distribution(
    title: &str,
    all: &[Distribution],
    mark_ms: &[(&str, f64)],
) -> Result<String> {
    let latencies = || all.iter().flat_map(|one| one.points.iter().map(|(ms, _)| *ms));
    let least = latencies().fold(f64::INFINITY, f64::min).clamp(0.1, 1e6);
    let most = latencies().chain(mark_ms.iter().map(|(_, at)| *at)).fold(least * 2.0, f64::max);
    let top = all.iter().map(|one| one.count).fold(100.0, f64::max).log10().min(MOST_NINES);
    svg(|area| {
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((least * 0.9..most * 1.15).log_scale(), 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc("latency, ms")
            .y_desc("share of messages")
            .x_label_formatter(&|ms| number(*ms))
            .y_label_formatter(&|nines| share_name(*nines))
            .light_line_style(RGBColor(238, 238, 238))
            .bold_line_style(RGBColor(210, 210, 210))
            .label_style(("sans-serif", 13))
            .x_labels(16)
            .y_labels(6)
            .draw()?;
        for (line, (name, at)) in (0..).zip(mark_ms) {
            let grey = RGBColor(150, 150, 150);
            chart.draw_series([PathElement::new(vec![(*at, 0.0), (*at, top)], grey)])?;
            let style = TextStyle::from(("sans-serif", 12)).color(&grey);
            let place = chart.backend_coord(&(*at, top));
            // Marks may stand close to each other.
            area.draw_text(name, &style, (place.0 + 4, place.1 + 4 + 14 * line))?;
        }
        for (index, one) in all.iter().enumerate() {
            let style = ShapeStyle::from(colour(index)).stroke_width(2);
            chart
                .draw_series(LineSeries::new(one.points.iter().copied(), style))?
                .label(&one.name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
        }
        legend(&mut chart, SeriesLabelPosition::LowerRight)?;
        Ok(())
    })
}

/// Latencies over time, with the times in which something was done to the network shaded. Messages
/// that did not arrive are not points: say how many there were beside the plot.
pub fn time_line(
    title: &str,
    series: &[Series<Point>],
    shaded: &[(&str, Range<f64>)],
) -> Result<String> {
    let points = || series.iter().flat_map(|one| one.values.iter().copied());
    let seconds = points().map(|(at, _)| at).chain(shaded.iter().map(|(_, span)| span.end));
    let (begin, end) = bounds(seconds);
    let (least, most) = bounds(points().map(|(_, ms)| ms));
    let (least, most) = (least.max(0.1) * 0.8, most.max(1.0) * 1.3);
    svg(|area| {
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(begin..end, (least..most).log_scale())?;
        for (name, span) in shaded {
            let fill = RGBColor(120, 120, 120).mix(0.18).filled();
            let corners = [(span.start, least), (span.end, most)];
            chart.draw_series([Rectangle::new(corners, fill)])?;
            let style = TextStyle::from(("sans-serif", 12)).color(&RGBColor(90, 90, 90));
            let place = chart.backend_coord(&(span.start, most));
            area.draw_text(name, &style, (place.0 + 4, place.1 + 4))?;
        }
        chart
            .configure_mesh()
            .x_desc("time, s")
            .y_desc("latency, ms")
            .x_label_formatter(&|s| number(*s))
            .y_label_formatter(&|ms| number(*ms))
            .light_line_style(RGBColor(238, 238, 238))
            .bold_line_style(RGBColor(210, 210, 210))
            .label_style(("sans-serif", 13))
            .draw()?;
        for (index, one) in series.iter().enumerate() {
            let style = colour(index).mix(0.75).filled();
            chart
                .draw_series(one.values.iter().map(|point| Circle::new(*point, 2, style)))?
                .label(&one.name)
                .legend(move |(x, y)| Circle::new((x + 9, y), 4, style));
        }
        legend(&mut chart, SeriesLabelPosition::UpperRight)?;
        Ok(())
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What plotters may say.
type Drawn = Result<(), Box<dyn Error + Send + Sync>>;

fn svg(draw: impl FnOnce(Area<'_>) -> Drawn) -> Result<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let drawn = || -> Drawn {
            area.fill(&WHITE)?;
            draw(area.clone())?;
            Ok(area.present()?)
        };
        drawn().map_err(|error| anyhow!("cannot plot: {error}"))?;
    }
    Ok(text)
}

fn legend<'a, C: CoordTranslate>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, C>,
    position: SeriesLabelPosition,
) -> Drawn {
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 13))
        .margin(8)
        .draw()?;
    Ok(())
}

/// Least and most, a little apart where they are the same or there are none.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
        (least.min(value), most.max(value))
    });
    if least < most {
        (least, most)
    } else if least == most {
        (least, least + 1.0)
    } else {
        (0.0, 1.0)
    }
}

fn share_name(nines: f64) -> String {
    if (nines - nines.round()).abs() > 1e-6 {
        return String::new();
    }
    number(100.0 * (1.0 - 10.0_f64.powf(-nines))) + "%"
}

fn number(value: f64) -> String {
    format!("{}", (value * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(name: &str, count: u32) -> Distribution {
        let values: Vec<_> =
            (0..count).map(|i| 50.0 + f64::from(i % 100).powi(2) / 100.0).collect();
        Distribution::of_values(name, &values)
    }

    #[test]
    fn a_distribution_has_a_line_for_each_series_and_names_the_nines() {
        let all = [some("ours", 10_000), some("TCP <cubic>", 1000)];
        let svg = latency_distribution("signal", &all, &[("least", 50.0)]).unwrap();
        assert!(svg.starts_with("<svg") && svg.matches("<polyline").count() >= 2);
        for text in ["ours", "TCP &lt;cubic&gt;", "99.9%", "latency, ms", "least"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.len() < 100_000);
    }

    #[test]
    fn a_time_line_shades_what_was_done_to_the_network() {
        let one = Series { name: "up".to_owned(), values: vec![(1.0, 50.0), (9.0, 55.0)] };
        let svg = time_line("blackout", &[one], &[("nothing passes", 3.0..8.0)]).unwrap();
        assert!(svg.contains("nothing passes") && svg.matches("<circle").count() >= 2);
    }

    #[test]
    fn nothing_to_plot_is_an_empty_plot() {
        let none = [Distribution::of_values("none", &[])];
        assert!(latency_distribution("empty", &none, &[]).is_ok());
        assert!(time_line("empty", &[], &[]).is_ok());
    }

    #[test]
    fn quantiles_of_a_distribution_are_those_of_the_numbers() {
        let mut histogram = crate::audit::histogram();
        (1..=1000).for_each(|ms| histogram.saturating_record(ms * 1000));
        let numbers: Vec<f64> = (1..=1000).map(f64::from).collect();
        for all in
            [Distribution::of_values("", &numbers), Distribution::of_histogram("", &histogram)]
        {
            assert!(all.points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
            let at = |height: f64| {
                let near = |point: &&(f64, f64)| (point.1 - height).abs() < 0.004;
                all.points.iter().find(near).unwrap().0
            };
            assert!((at(1.0) - 901.0).abs() < 3.0, "{}", at(1.0));
            assert!((at(2.0) - 991.0).abs() < 2.0, "{}", at(2.0));
            assert!((all.points.last().unwrap().0 - 1000.0).abs() < 1.0);
        }
    }
}
