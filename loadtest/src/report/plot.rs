//! Curves as SVG that stands within a page. Knows points, labels and how to spell an axis, no figures.

use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    element::PathElement,
    prelude::{DrawingBackend, IntoDrawingArea, SVGBackend},
    series::LineSeries,
    style::{Color, RGBColor, WHITE},
};

/// Size of a plot.
const SIZE: (u32, u32) = (820, 320);
/// Colours of the servers, in their order; the floor is the last.
const COLORS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(23, 190, 207),
];
/// The floor's.
const GREY: RGBColor = RGBColor(127, 127, 127);

/// One curve.
pub(super) struct Curve {
    pub(super) label: String,
    /// Number of its colour; `None` is the floor's.
    pub(super) color: Option<usize>,
    /// How strong it is drawn, from 0 to 1.
    pub(super) strength: f64,
    pub(super) points: Vec<(f64, f64)>,
}

/// How an axis is spelt.
pub(super) struct Axis<'a> {
    pub(super) label: &'a str,
    pub(super) show: &'a dyn Fn(&f64) -> String,
}

/// Draws curves. The vertical axis begins at 0 unless `from_least`.
///
/// # Errors
/// The library cannot draw it.
pub(super) fn draw(curves: &[Curve], across: &Axis<'_>, up: &Axis<'_>, from_least: bool) -> anyhow::Result<String> {
    let mut svg = String::new();
    let backend = SVGBackend::with_string(&mut svg, SIZE);
    draw_on(backend, curves, (across, up), from_least).map_err(|fault| anyhow::anyhow!("cannot plot: {fault}"))?;
    Ok(svg)
}

fn draw_on<B: DrawingBackend>(
    backend: B,
    curves: &[Curve],
    (across, up): (&Axis<'_>, &Axis<'_>),
    from_least: bool,
) -> Result<(), String>
where
    B::ErrorType: 'static,
{
    let area = backend.into_drawing_area();
    area.fill(&WHITE).map_err(text)?;
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let (left, right) = bounds(points().map(|point| point.0), true);
    let (bottom, top) = bounds(points().map(|point| point.1), from_least);
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(78)
        .build_cartesian_2d(left..right, bottom..top + (top - bottom) * 0.05)
        .map_err(text)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(across.label).y_desc(up.label).x_label_formatter(&across.show).y_label_formatter(&up.show);
    mesh.light_line_style(WHITE).label_style(("sans-serif", 12)).draw().map_err(text)?;
    for curve in curves {
        let color = curve.color.map_or(GREY, |nth| COLORS[nth % COLORS.len()]).mix(curve.strength);
        let style = color.stroke_width(2);
        let series = chart.draw_series(LineSeries::new(curve.points.iter().copied(), style)).map_err(text)?;
        series.label(&curve.label).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    let mut labels = chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8)).border_style(GREY);
    labels.label_font(("sans-serif", 12)).draw().map_err(text)?;
    area.present().map_err(text)
}

/// Least and greatest of some numbers, never the same; the least is 0 unless it may be another.
fn bounds(numbers: impl Iterator<Item = f64>, from_least: bool) -> (f64, f64) {
    let (least, most) = numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
    let least = if from_least && least.is_finite() { least } else { 0.0 };
    (least, if most > least { most } else { least + 1.0 })
}

fn text(fault: impl std::fmt::Display) -> String {
    fault.to_string()
}
