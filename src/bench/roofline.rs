//! A roofline: the rate of each kernel over its FLOP per byte, below the ceilings of arithmetic and
//! memory.

use std::fmt::{Result, Write};

use super::{Results, Row, Unit};
use crate::device::gpu::variants::Variant;
use crate::drawing::{STYLE, escape, marker};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 360.0;

/// Returns the figure, or `None` if no kernel or no ceiling was measured.
pub fn svg(results: &Results) -> Option<String> {
    let points: Vec<Point> = results.rows.iter().filter_map(Point::new).collect();
    let (arithmetic, copy) = (results.ceilings.f32?, results.ceilings.copy?);
    let first = points.first()?;
    let [mut x, mut y] = [(first.x, first.x), (first.y, first.y)];
    let ridge = arithmetic / copy;
    let corners = [(ridge, arithmetic), (1.0 / 8.0, copy / 8.0)];
    let all = points.iter().map(|point| (point.x, point.y)).chain(corners);
    for (px, py) in all.chain(results.ceilings.f16.map(|rate| (ridge, rate))) {
        x = (x.0.min(px), x.1.max(px));
        y = (y.0.min(py), y.1.max(py));
    }
    let figure = Figure {
        results,
        points,
        x: [x.0.log10().floor(), x.1.log10().ceil()],
        y: [y.0.log10().floor(), y.1.log10().ceil()],
    };
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = figure.draw(&mut out);
    Some(out)
}

/// A kernel: FLOP per byte, FLOP per second, and what it is.
struct Point<'a> {
    x: f64,
    y: f64,
    row: &'a Row,
}

impl<'a> Point<'a> {
    fn new(row: &'a Row) -> Option<Self> {
        let (x, rate) = (row.intensity?, row.rate?);
        let y = match row.unit? {
            Unit::Flops => rate,
            Unit::Bytes => rate * x,
            Unit::Views => return None,
        };
        (x > 0.0 && y > 0.0).then_some(Point { x, y, row })
    }

    /// The number of its marker and colour.
    fn series(&self) -> usize {
        match self.row.variant {
            None => 0,
            Some(variant) => 1 + Variant::ALL.iter().position(|v| *v == variant).unwrap_or(0),
        }
    }
}

struct Figure<'a> {
    results: &'a Results,
    points: Vec<Point<'a>>,
    /// Exponents of ten at the ends of the axes.
    x: [f64; 2],
    y: [f64; 2],
}

impl Figure<'_> {
    fn at_x(&self, x: f64) -> f64 {
        let [low, high] = self.x;
        LEFT + (x.log10() - low) / (high - low) * (RIGHT - LEFT)
    }

    fn at_y(&self, y: f64) -> f64 {
        let [low, high] = self.y;
        BOTTOM - (y.log10() - low) / (high - low) * (BOTTOM - TOP)
    }

    fn draw(&self, out: &mut String) -> Result {
        let text = "font-family=\"sans-serif\" font-size=\"12\"";
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" {text}>\n\
             <style>{STYLE}</style>\n\
             <rect class=\"fig-ground\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
             <text class=\"fig-ink\" x=\"{LEFT}\" y=\"24\" font-size=\"14\">Kernels of ResNet-50 on {}</text>",
            escape(&self.results.device)
        )?;
        self.axes(out)?;
        self.roofs(out)?;
        for point in &self.points {
            let series = point.series();
            let title = format!(
                "{}{}: {}",
                point.row.name,
                point
                    .row
                    .variant
                    .map_or(String::new(), |v| format!(", {v}")),
                super::rate(point.y, Unit::Flops)
            );
            writeln!(
                out,
                "<g class=\"fig-{}\" fill=\"currentColor\" fill-opacity=\"0.7\">{}<title>{}</title></g>",
                series % 5,
                marker(series, self.at_x(point.x), self.at_y(point.y)),
                escape(&title)
            )?;
        }
        self.legend(out)?;
        writeln!(out, "</svg>")
    }

    fn axes(&self, out: &mut String) -> Result {
        for exponent in self.x[0] as i32..=self.x[1] as i32 {
            let value = 10f64.powi(exponent);
            let x = self.at_x(value);
            writeln!(
                out,
                "<path class=\"fig-grid\" d=\"M{x:.1} {TOP} V{BOTTOM}\"/>\
                 <text class=\"fig-faint\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>",
                BOTTOM + 17.0
            )?;
        }
        for exponent in self.y[0] as i32..=self.y[1] as i32 {
            let value = 10f64.powi(exponent);
            let y = self.at_y(value);
            writeln!(
                out,
                "<path class=\"fig-grid\" d=\"M{LEFT} {y:.1} H{RIGHT}\"/>\
                 <text class=\"fig-faint\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                super::rate(value, Unit::Flops).replace("FLOP/s", "")
            )?;
        }
        writeln!(
            out,
            "<text class=\"fig-ink\" x=\"{RIGHT}\" y=\"{}\" text-anchor=\"end\">FLOP per byte of the operands</text>\
             <text class=\"fig-ink\" x=\"{LEFT}\" y=\"{}\">FLOP/s</text>",
            BOTTOM + 34.0,
            TOP - 6.0
        )
    }

    /// The ceilings: copied bytes times FLOP per byte up to the rate of arithmetic.
    fn roofs(&self, out: &mut String) -> Result {
        let ceilings = &self.results.ceilings;
        let copy = ceilings.copy.unwrap_or(0.0);
        for (name, rate) in [("f32", ceilings.f32), ("f16", ceilings.f16)] {
            let Some(rate) = rate.filter(|_| copy > 0.0) else {
                continue;
            };
            // From the corner at which the sloped roof enters the plot.
            let low = 10f64.powf(self.x[0]).max(10f64.powf(self.y[0]) / copy);
            let high = 10f64.powf(self.x[1]);
            let ridge = (rate / copy).clamp(low, high);
            writeln!(
                out,
                "<path class=\"fig-rule\" fill=\"none\" d=\"M{:.1} {:.1} L{:.1} {:.1} H{RIGHT}\"/>\
                 <text class=\"fig-ink\" x=\"{RIGHT}\" y=\"{:.1}\" text-anchor=\"end\">{name} {}</text>",
                self.at_x(low),
                self.at_y(low * copy),
                self.at_x(ridge),
                self.at_y(rate.min(ridge * copy)),
                self.at_y(rate) - 5.0,
                super::rate(rate, Unit::Flops)
            )?;
        }
        Ok(())
    }

    fn legend(&self, out: &mut String) -> Result {
        let mut series: Vec<usize> = self.points.iter().map(Point::series).collect();
        series.sort_unstable();
        series.dedup();
        for (place, series) in series.into_iter().enumerate() {
            let name = match series {
                0 => "no variants",
                number => Variant::ALL[number - 1].name(),
            };
            let (x, y) = (LEFT + 125.0 * place as f64, BOTTOM + 60.0);
            writeln!(
                out,
                "<g class=\"fig-{}\" fill=\"currentColor\">{}</g>\
                 <text class=\"fig-ink\" x=\"{:.1}\" y=\"{y}\">{name}</text>",
                series % 5,
                marker(series, x, y - 4.0),
                x + 10.0
            )?;
        }
        Ok(())
    }
}
