//! A plot of numbers over numbers, as SVG: curves, or clouds of points.

use std::fmt::{Result, Write};

use super::{COLORS, Frame, LEFT, LINE, RIGHT, Tick, WIDTH, legend_text, mark, polyline};

/// Points of a curve that are drawn. A longer curve is drawn as the means of equal parts.
const DRAWN: usize = 300;
/// Entries of a legend.
const ENTRIES: usize = 25;
/// Dash patterns of the lines after the first five, ten and so on.
const DASHES: [&str; 4] = ["none", "7 3", "2 3", "8 3 2 3"];

/// A curve, or a cloud of points.
pub struct Series {
    pub label: String,
    pub points: Vec<(f64, f64)>,
}

/// A figure.
pub struct Plot {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub series: Vec<Series>,
    /// Whether points are joined to curves.
    pub is_joined: bool,
    /// A dotted horizontal line, with its label.
    pub level: Option<(f64, String)>,
}

impl Plot {
    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.is_empty())
    }

    /// Returns the figure as a part of a page that includes [`super::STYLE`].
    pub fn inline(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = self.draw(&mut out);
        out
    }

    fn draw(&self, out: &mut String) -> Result {
        let frame = Frame::new(&self.title);
        let drawn: Vec<Vec<(f64, f64)>> = self
            .series
            .iter()
            .map(|series| {
                if self.is_joined {
                    means(&series.points)
                } else {
                    series.points.clone()
                }
            })
            .collect();
        let all = || drawn.iter().flatten();
        let level = self.level.as_ref().map(|(level, _)| *level);
        let x_ticks = ticks(all().map(|point| point.0));
        let y_ticks = ticks(all().map(|point| point.1).chain(level));
        let place = |ticks: &[f64], value: f64, [from, to]: [f64; 2]| {
            let (low, high) = (ticks[0], ticks[ticks.len() - 1]);
            from + (value - low) / (high - low) * (to - from)
        };
        let x = |value: f64| place(&x_ticks, value, [LEFT, RIGHT]);
        let y = |value: f64| place(&y_ticks, value, [frame.bottom, frame.top]);
        let names = |ticks: &[f64], place: &dyn Fn(f64) -> f64| -> Vec<Tick> {
            let name = |&value: &f64| Tick {
                at: place(value),
                name: short(value),
                below: None,
            };
            ticks.iter().map(name).collect()
        };
        let mut body = String::new();
        let both = [&names(&x_ticks, &x)[..], &names(&y_ticks, &y)[..]];
        frame.axes(both, [&self.x_label, &self.y_label], 1, &mut body)?;
        for (number, points) in drawn.iter().enumerate() {
            let points: Vec<(f64, f64)> = points.iter().map(|&(a, b)| (x(a), y(b))).collect();
            writeln!(body, "<g class=\"fig-{}\">", number % COLORS)?;
            if self.is_joined {
                let dash = DASHES[number / COLORS % DASHES.len()];
                let line = format!("stroke-width=\"1.8\" stroke-dasharray=\"{dash}\"");
                polyline(&points, &line, &mut body)?;
            }
            if !self.is_joined || points.len() <= 30 {
                let size = if self.is_joined { 3.0 } else { 2.4 };
                writeln!(body, "<g fill=\"currentColor\" fill-opacity=\"0.75\">")?;
                for &(x, y) in &points {
                    body.push_str(&mark(shape(number), x, y, size));
                }
                writeln!(body, "</g>")?;
            }
            writeln!(body, "</g>")?;
        }
        if let Some((level, _)) = &self.level {
            writeln!(
                body,
                "<path class=\"fig-rule\" d=\"M{LEFT} {:.1} H{RIGHT}\" stroke-dasharray=\"2 4\"/>",
                y(*level)
            )?;
        }
        let height = self.legend(frame.names_end(1) + 46.0, &mut body)?;
        frame.wrap(height, "", &body, out)
    }

    /// Draws the legend below `y`, and returns the height of the figure.
    fn legend(&self, y: f64, out: &mut String) -> std::result::Result<f64, std::fmt::Error> {
        let width = |columns: usize| (WIDTH - LEFT) / columns as f64;
        let characters = |columns: usize| ((width(columns) - 30.0) / 7.0) as usize;
        // Short names of many classes take four columns, longer ones fewer.
        let most = if self.is_joined { 2 } else { 4 };
        let lengths = self.series.iter().map(|s| s.label.chars().count());
        let longest = lengths.max().unwrap_or(0);
        let fits = |columns: &usize| longest <= characters(*columns);
        let columns = (2..=most).rev().find(fits).unwrap_or(2);
        let (width, characters) = (width(columns), characters(columns));
        let mut entries: Vec<(Option<usize>, String)> = Vec::new();
        // The label of a single curve is that of its axis.
        let shown = if self.series.len() == 1 { 0 } else { ENTRIES };
        for (number, series) in self.series.iter().enumerate().take(shown) {
            entries.push((Some(number), series.label.clone()));
        }
        if self.series.len() > ENTRIES {
            entries.push((None, format!("and {} more", self.series.len() - ENTRIES)));
        }
        if let Some((_, words)) = &self.level {
            entries.push((None, format!("dotted: {words}")));
        }
        if entries.is_empty() {
            return Ok(y - LINE);
        }
        let mut y = y;
        for row in entries.chunks(columns) {
            let mut lines = 1;
            for (column, (number, label)) in row.iter().enumerate() {
                let x = LEFT + width * column as f64;
                if let Some(number) = number {
                    let dash = DASHES[number / COLORS % DASHES.len()];
                    let sign = if self.is_joined {
                        format!(
                            "<path d=\"M{x} {y} h20\" stroke=\"currentColor\" stroke-width=\"2\" \
                             stroke-dasharray=\"{dash}\"/>"
                        )
                    } else {
                        mark(shape(*number), x + 12.0, y, 4.0)
                    };
                    writeln!(
                        out,
                        "<g class=\"fig-{}\" fill=\"currentColor\">{sign}</g>",
                        number % COLORS
                    )?;
                }
                let x = if number.is_some() { x + 26.0 } else { x };
                lines = lines.max(legend_text(label, [x, y], characters, out)?);
            }
            y += LINE * lines as f64 + 4.0;
        }
        Ok((y - 4.0).round())
    }
}

/// The shape of a series' marks: each pair of a colour and a shape occurs once among 25 series.
fn shape(number: usize) -> usize {
    number + number / COLORS
}

/// Returns the means of at most [`DRAWN`] parts of a curve.
fn means(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let part = points.len().div_ceil(DRAWN).max(1);
    let mean = |points: &[(f64, f64)]| {
        let sum = points
            .iter()
            .fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
        (sum.0 / points.len() as f64, sum.1 / points.len() as f64)
    };
    points.chunks(part).map(mean).collect()
}

/// Returns round numbers in equal steps, of which the first and the last enclose all finite values.
fn ticks(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
    let (low, high) = match high - low {
        range if range > 0.0 => (low, high),
        0.0 => (low - 0.5, high + 0.5),
        _ => (0.0, 1.0),
    };
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = step.into_iter().find(|&step| step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
    // Rounding to the step's digits removes the error of the product.
    let digits = 10f64.powf(2.0 - step.log10().floor());
    let round = |x: f64| (x * digits).round() / digits;
    (first..=last.max(first + 1))
        .map(|i| round(i as f64 * step))
        .collect()
}

/// A number as a tick shows it.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 10_000.0 && value % 1000.0 == 0.0 => format!("{}k", value / 1000.0),
        size if size > 0.0 && size < 1e-3 => format!("{value:e}"),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_enclose_the_values() {
        assert_eq!(
            ticks([0.3, 4.2].into_iter()),
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        );
        assert_eq!(
            ticks([-0.02, 0.05].into_iter()),
            [-0.02, 0.0, 0.02, 0.04, 0.06]
        );
        assert_eq!(ticks([1.0, 150.0].into_iter()), [0.0, 50.0, 100.0, 150.0]);
        for values in [
            vec![],
            vec![2.0],
            vec![f64::NAN, f64::INFINITY],
            vec![0.0, 1e-9],
        ] {
            let ticks = ticks(values.into_iter());
            assert!(
                ticks.len() >= 2 && ticks.iter().all(|x| x.is_finite()),
                "{ticks:?}"
            );
            assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]), "{ticks:?}");
        }
        assert_eq!([50_000.0, 0.5, 2e-5].map(short), ["50k", "0.5", "2e-5"]);
    }

    #[test]
    fn long_curves_are_drawn_as_means() {
        let points: Vec<(f64, f64)> = (0..1000).map(|i| (i as f64, 2.0 * i as f64)).collect();
        let drawn = means(&points);
        assert_eq!(drawn.len(), 250);
        assert_eq!(drawn[0], (1.5, 3.0));
        assert_eq!(means(&points[..300]), points[..300]);
    }

    #[test]
    fn text_is_escaped_and_numbers_are_numbers() {
        for points in [vec![(1.0, 0.5), (2.0, 0.25)], vec![(1.0, 1.0)], vec![]] {
            for is_joined in [false, true] {
                let svg = Plot {
                    title: "<script> & co".to_string(),
                    x_label: "<x>".to_string(),
                    y_label: "y".to_string(),
                    series: (0..30)
                        .map(|i| Series {
                            label: format!("<{i}>"),
                            points: points.clone(),
                        })
                        .collect(),
                    is_joined,
                    level: Some((0.7, "<level>".to_string())),
                }
                .inline();
                assert!(svg.contains("&lt;script&gt; &amp; co") && svg.contains("and 5 more"));
                assert!(!svg.contains("<script>") && !svg.contains("<level>"));
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn a_legend_has_as_many_columns_as_its_names_allow() {
        for (length, columns) in [(13, 4), (16, 3), (20, 2), (60, 2)] {
            let series = (0..4).map(|_| Series {
                label: "n".repeat(length),
                points: vec![(1.0, 1.0)],
            });
            let svg = Plot {
                title: "Features".to_string(),
                x_label: "first".to_string(),
                y_label: "second".to_string(),
                series: series.collect(),
                is_joined: false,
                level: None,
            }
            .inline();
            let names = |column: usize| {
                let x = LEFT + (WIDTH - LEFT) / columns as f64 * column as f64 + 26.0;
                let start = format!("<text class=\"fig-ink\" x=\"{x}\"");
                svg.matches(&start).count()
            };
            let rows = 4_usize.div_ceil(columns);
            assert_eq!(
                [names(0), names(columns - 1)],
                [rows, 4 / columns],
                "{length}"
            );
        }
    }
}
