//! A figure as SVG. Our lines are solid, with markers and bars of two standard errors; the paper's
//! are dashed, in the same colour.

use std::fmt::{Result, Write};

use super::figures::{Figure, Series};
use crate::drawing::{
    COLORS, Frame, LEFT, LINE, PLOT_HEIGHT, RIGHT, STYLE, Tick, legend_text, marker, polyline,
};

/// Maximum number of characters per line of the legend.
const LEGEND_LINE: usize = 30;
/// x of the two columns of the legend.
const LEGEND_COLUMNS: [f64; 2] = [LEFT, 308.0];

/// The range of y in per cent: whole tens around every value.
fn y_range(figure: &Figure) -> (f64, f64) {
    let mut values: Vec<f64> = Vec::new();
    for series in &figure.series {
        for measured in series.ours.iter().flatten() {
            let (mean, error) = (measured.mean(), 2.0 * measured.standard_error());
            values.extend([mean - error, mean + error]);
        }
        values.extend(series.paper.iter().flatten());
    }
    let values = values.into_iter().filter(|v| v.is_finite());
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return (0.0, 100.0);
    }
    let low = (low * 10.0).floor().max(0.0) * 10.0;
    let high = ((high * 10.0).ceil().min(10.0) * 10.0).max(low + 10.0);
    (low, high)
}

/// Returns the figure as a file of its own, which follows the reader's dark or light colour scheme.
pub fn svg(figure: &Figure) -> String {
    image(figure, &format!("<style>{STYLE}</style>\n"))
}

/// Returns the figure as a part of a page that includes [`STYLE`].
pub fn inline(figure: &Figure) -> String {
    image(figure, "")
}

fn image(figure: &Figure, style: &str) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = Drawing::new(figure).draw(style, &mut out);
    out
}

/// An entry of the legend: its text, and the dash pattern of a line, a series, or neither.
type Entry<'a> = (String, Option<&'a str>, Option<(usize, &'a Series)>);

struct Drawing<'a> {
    figure: &'a Figure,
    frame: Frame<'a>,
    /// Range of the y axis in per cent.
    low: f64,
    high: f64,
}

/// Dash pattern of the paper's lines.
const PAPER_DASH: &str = "6 4";
/// Dash patterns of untrained encoders, in turn.
const UNTRAINED_DASHES: [&str; 2] = ["8 3 2 3", "2 3"];

fn dash(number: usize, series: &Series) -> &'static str {
    if series.untrained {
        UNTRAINED_DASHES[number % 2]
    } else {
        "none"
    }
}

impl<'a> Drawing<'a> {
    fn new(figure: &'a Figure) -> Self {
        let (low, high) = y_range(figure);
        Drawing {
            figure,
            frame: Frame::new(&figure.title),
            low,
            high,
        }
    }

    fn x(&self, x: f64) -> f64 {
        let place = |x: f64| {
            if self.figure.logarithmic {
                x.max(f64::MIN_POSITIVE).ln()
            } else {
                x
            }
        };
        let end = |x: Option<&f64>, default| place(x.copied().unwrap_or(default));
        let first = end(self.figure.x.first(), 1.0);
        let last = end(self.figure.x.last(), 2.0);
        let across = (last - first).max(f64::MIN_POSITIVE);
        LEFT + 16.0 + (place(x) - first) / across * (RIGHT - LEFT - 32.0)
    }

    /// Maps a fraction from 0 to 1 to a coordinate.
    fn y(&self, y: f64) -> f64 {
        let y = self.frame.bottom - (100.0 * y - self.low) / (self.high - self.low) * PLOT_HEIGHT;
        y.clamp(self.frame.top, self.frame.bottom)
    }

    fn draw(&self, style: &str, out: &mut String) -> Result {
        let mut body = String::new();
        self.axes(&mut body)?;
        for (number, series) in self.figure.series.iter().enumerate() {
            self.series(number, series, &mut body)?;
        }
        let height = self.legend(&mut body)?;
        self.frame.wrap(height, style, &body, out)
    }

    fn class(number: usize, series: &Series) -> String {
        if series.untrained {
            "fig-untrained".to_string()
        } else {
            format!("fig-{}", number % COLORS)
        }
    }

    fn series(&self, number: usize, series: &Series, out: &mut String) -> Result {
        let xs = || self.figure.x.iter().map(|&x| self.x(x));
        writeln!(out, "<g class=\"{}\">", Self::class(number, series))?;
        if let Some(paper) = &series.paper {
            let points: Vec<(f64, f64)> = xs().zip(paper.iter().map(|&y| self.y(y))).collect();
            let dashed = format!("stroke-width=\"1.6\" stroke-dasharray=\"{PAPER_DASH}\"");
            polyline(&points, &dashed, out)?;
        }
        let measured = xs().zip(&series.ours).filter_map(|(x, ours)| {
            let ours = ours.as_ref()?;
            let (mean, error) = (ours.mean(), 2.0 * ours.standard_error());
            (mean.is_finite() && error.is_finite()).then_some((x, mean, error))
        });
        let measured: Vec<(f64, f64, f64)> = measured.collect();
        let points: Vec<(f64, f64)> = measured
            .iter()
            .map(|&(x, mean, _)| (x, self.y(mean)))
            .collect();
        let dash = dash(self.style(number), series);
        let solid = format!("stroke-width=\"2.2\" stroke-dasharray=\"{dash}\"");
        polyline(&points, &solid, out)?;
        for &(x, mean, error) in measured.iter().filter(|_| !series.untrained) {
            writeln!(
                out,
                "<path d=\"M{x:.1} {:.1} V{:.1}\" stroke=\"currentColor\" stroke-width=\"1.2\"/>\
                 <g fill=\"currentColor\">{}</g>",
                self.y(mean - error),
                self.y(mean + error),
                marker(number, x, self.y(mean))
            )?;
        }
        writeln!(out, "</g>")
    }

    fn axes(&self, out: &mut String) -> Result {
        let step = match self.high - self.low {
            range if range > 50.0 => 20.0,
            range if range > 20.0 => 10.0,
            _ => 5.0,
        };
        let mut y = Vec::new();
        let mut tick = self.low;
        while tick <= self.high + 1e-9 {
            y.push(Tick {
                at: self.y(tick / 100.0),
                name: tick.to_string(),
                below: None,
            });
            tick += step;
        }
        let names = self.figure.x.iter().zip(&self.figure.x_names);
        let x = names.enumerate().map(|(i, (&x, name))| Tick {
            at: self.x(x),
            name: name.clone(),
            below: self
                .figure
                .paper_names
                .as_ref()
                .and_then(|n| n.get(i).cloned()),
        });
        let label = match self.figure.paper_names {
            Some(_) => format!("{} (below: the paper's)", self.figure.x_label),
            None => self.figure.x_label.clone(),
        };
        let labels = [label.as_str(), &self.figure.y_label];
        let x: Vec<Tick> = x.collect();
        self.frame.axes([&x, &y], labels, self.name_lines(), out)
    }

    /// Lines of the names of x.
    fn name_lines(&self) -> usize {
        1 + usize::from(self.figure.paper_names.is_some())
    }

    /// The number by which the series `number` is styled: an untrained encoder counts only others.
    fn style(&self, number: usize) -> usize {
        let series = &self.figure.series;
        if series[number].untrained {
            series[..number].iter().filter(|s| s.untrained).count()
        } else {
            number
        }
    }

    /// Draws the legend and returns the height of the figure.
    fn legend(&self, out: &mut String) -> std::result::Result<f64, std::fmt::Error> {
        let mut entries: Vec<Entry<'_>> = Vec::new();
        for (number, series) in self.figure.series.iter().enumerate() {
            let missing = series.ours.iter().all(Option::is_none);
            let note = if missing { " (not run)" } else { "" };
            let label = format!("{}{note}", series.label);
            entries.push((label, None, Some((self.style(number), series))));
        }
        if self.figure.series.iter().any(|s| s.paper.is_some()) {
            entries.push(("ours".to_string(), Some("none"), None));
            entries.push(("the paper's".to_string(), Some(PAPER_DASH), None));
        }
        entries.push(("bars: two standard errors".to_string(), None, None));
        let mut y = self.frame.names_end(self.name_lines()) + 46.0;
        for pair in entries.chunks(2) {
            let mut lines = 1;
            for (entry, x) in pair.iter().zip(LEGEND_COLUMNS) {
                lines = lines.max(legend_entry(entry, x, y, out)?);
            }
            y += LINE * lines as f64 + 4.0;
        }
        Ok((y - 4.0).round())
    }
}

/// Draws an entry of the legend and returns its number of text lines.
fn legend_entry(
    (label, own_dash, series): &Entry<'_>,
    x: f64,
    y: f64,
    out: &mut String,
) -> std::result::Result<usize, std::fmt::Error> {
    let mut text_x = x + 38.0;
    match (series, own_dash) {
        (Some((number, series)), _) => {
            let dash = dash(*number, series);
            let marker = if series.untrained {
                String::new()
            } else {
                marker(*number, x + 15.0, y)
            };
            writeln!(
                out,
                "<g class=\"{}\"><path d=\"M{x} {y} h30\" stroke=\"currentColor\" stroke-width=\"2.2\" \
                 stroke-dasharray=\"{dash}\"/><g fill=\"currentColor\">{marker}</g></g>",
                Drawing::class(*number, series)
            )?;
        }
        (None, Some(dash)) => writeln!(
            out,
            "<path class=\"fig-rule\" d=\"M{x} {y} h30\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>"
        )?,
        (None, None) => text_x = x,
    }
    legend_text(label, [text_x, y], LEGEND_LINE, out)
}

#[cfg(test)]
mod tests {
    use super::super::statistics::Measured;
    use super::*;

    fn figure(values: &[Option<f64>]) -> Figure {
        let measured = |value: &Option<f64>| {
            value.map(|value| Measured {
                values: vec![value],
                images: Some(100),
                runs: vec![0],
            })
        };
        Figure {
            id: "fig",
            title: "<script> & co".to_string(),
            x_label: "x".to_string(),
            y_label: "y".to_string(),
            x: (0..values.len()).map(|i| i as f64).collect(),
            logarithmic: false,
            x_names: (0..values.len()).map(|i| i.to_string()).collect(),
            paper_names: None,
            kind: "line",
            series: vec![Series {
                label: "a line".to_string(),
                ours: values.iter().map(measured).collect(),
                paper: None,
                untrained: false,
            }],
        }
    }

    #[test]
    fn text_is_escaped_and_numbers_are_numbers() {
        for values in [
            &[Some(0.5), None, Some(0.7)][..],
            &[None],
            &[Some(f64::NAN)],
            &[],
        ] {
            for logarithmic in [false, true] {
                let svg = svg(&Figure {
                    logarithmic,
                    ..figure(values)
                });
                assert!(svg.contains("&lt;script&gt; &amp; co") && !svg.contains("<script>"));
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn the_axis_holds_every_value() {
        assert_eq!(y_range(&figure(&[Some(0.5), Some(0.72)])), (40.0, 90.0));
        assert_eq!(y_range(&figure(&[None])), (0.0, 100.0));
        assert_eq!(y_range(&figure(&[Some(0.0), Some(1.0)])), (0.0, 100.0));
    }
}
