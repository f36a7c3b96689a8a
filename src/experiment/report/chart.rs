//! A figure as SVG: ours solid with markers and two standard errors, the paper's dashed.

use std::fmt::Write;

use super::figures::Figure;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 430.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 540.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 366.0;

/// Okabe and Ito's colours that read on white and on black.
const COLORS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];

/// Text as the content of an element or attribute.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

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

fn marker(series: usize, x: f64, y: f64) -> String {
    match series % 5 {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"),
        1 => format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\"/>",
            x - 4.0,
            y - 4.0
        ),
        2 => format!("<path d=\"M{x:.1} {:.1} l5 9 h-10 z\"/>", y - 5.0),
        3 => format!("<path d=\"M{x:.1} {:.1} l5 5 l-5 5 l-5 -5 z\"/>", y - 5.0),
        _ => format!("<path d=\"M{x:.1} {:.1} l5 -9 h-10 z\"/>", y + 5.0),
    }
}

/// The figure as an SVG file, which follows the reader's choice of dark or light.
pub fn svg(figure: &Figure) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = draw(figure, &mut out);
    out
}

fn draw(figure: &Figure, out: &mut String) -> std::fmt::Result {
    let (low, high) = y_range(figure);
    let (first, last) = (
        figure.x.first().copied().unwrap_or(0.0),
        figure.x.last().copied().unwrap_or(1.0),
    );
    let across = (last - first).max(f64::MIN_POSITIVE);
    let x_at = |x: f64| LEFT + 14.0 + (x - first) / across * (RIGHT - LEFT - 28.0);
    let y_at = |y: f64| BOTTOM - (100.0 * y - low) / (high - low) * (BOTTOM - TOP);
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"img\" aria-label=\"{}\" font-family=\"sans-serif\" font-size=\"13\">",
        escape(&figure.title)
    )?;
    writeln!(
        out,
        "<style>.paper {{ fill: #ffffff }} .ink {{ fill: #1a1a1a }} .rule {{ stroke: #1a1a1a }} .grid {{ stroke: #dddddd }}\n\
         @media (prefers-color-scheme: dark) {{ .paper {{ fill: #16181c }} .ink {{ fill: #e6e6e6 }} .rule {{ stroke: #e6e6e6 }} \
         .grid {{ stroke: #3a3d44 }} }}</style>"
    )?;
    writeln!(
        out,
        "<rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>"
    )?;
    writeln!(
        out,
        "<text class=\"ink\" x=\"{LEFT}\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{}</text>",
        escape(&figure.title)
    )?;
    axes(figure, (low, high), x_at, out)?;
    for (number, series) in figure.series.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        if let Some(paper) = &series.paper {
            let points = figure.x.iter().zip(paper);
            let points: Vec<String> = points
                .map(|(&x, &y)| format!("{:.1},{:.1}", x_at(x), y_at(y)))
                .collect();
            writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\" stroke-dasharray=\"5 4\" \
                 opacity=\"0.75\"/>",
                points.join(" ")
            )?;
        }
        let points: Vec<(f64, f64, f64)> = figure
            .x
            .iter()
            .zip(&series.ours)
            .filter_map(|(&x, ours)| {
                let ours = ours.as_ref()?;
                Some((x, ours.mean(), 2.0 * ours.standard_error()))
            })
            .filter(|(_, y, error)| y.is_finite() && error.is_finite())
            .collect();
        let line: Vec<String> = points
            .iter()
            .map(|&(x, y, _)| format!("{:.1},{:.1}", x_at(x), y_at(y)))
            .collect();
        writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            line.join(" ")
        )?;
        for &(x, y, error) in &points {
            let x = x_at(x);
            writeln!(
                out,
                "<path d=\"M{x:.1} {:.1} V{:.1}\" stroke=\"{color}\" stroke-width=\"1.2\"/><g fill=\"{color}\">{}</g>",
                y_at(y - error).min(BOTTOM),
                y_at(y + error).max(TOP),
                marker(number, x, y_at(y))
            )?;
        }
    }
    legend(figure, out)?;
    writeln!(out, "</svg>")
}

fn axes(
    figure: &Figure,
    (low, high): (f64, f64),
    x_at: impl Fn(f64) -> f64,
    out: &mut String,
) -> std::fmt::Result {
    let step = if high - low > 50.0 {
        20.0
    } else if high - low > 20.0 {
        10.0
    } else {
        5.0
    };
    let mut tick = low;
    while tick <= high + 1e-9 {
        let y = BOTTOM - (tick - low) / (high - low) * (BOTTOM - TOP);
        writeln!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1} H{RIGHT}\"/><text class=\"ink\" x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{tick}</text>",
            LEFT - 8.0,
            y + 4.5
        )?;
        tick += step;
    }
    writeln!(
        out,
        "<path class=\"rule\" d=\"M{LEFT} {TOP} V{BOTTOM} H{RIGHT}\" fill=\"none\"/>"
    )?;
    // Names that would touch the one before are left out.
    let mut free = f64::MIN;
    for (&x, name) in figure.x.iter().zip(&figure.x_names) {
        let (x, half) = (x_at(x), 3.8 * name.chars().count() as f64);
        write!(out, "<path class=\"rule\" d=\"M{x:.1} {BOTTOM} v5\"/>")?;
        if x - half > free {
            free = x + half + 4.0;
            write!(
                out,
                "<text class=\"ink\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                BOTTOM + 20.0,
                escape(name)
            )?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "<text class=\"ink\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 46.0,
        escape(&figure.x_label)
    )?;
    let middle = (TOP + BOTTOM) / 2.0;
    writeln!(
        out,
        "<text class=\"ink\" transform=\"translate(18 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        escape(&figure.y_label)
    )
}

/// The longest name in one line of the legend.
const LEGEND_LINE: usize = 24;

/// A name in lines of the legend's width, broken between words.
fn broken(label: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in label.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= LEGEND_LINE => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

fn legend(figure: &Figure, out: &mut String) -> std::fmt::Result {
    let x = RIGHT + 16.0;
    let mut y = TOP + 8.0;
    for (number, series) in figure.series.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        writeln!(
            out,
            "<path d=\"M{x} {y} h28\" stroke=\"{color}\" stroke-width=\"2\"/><g fill=\"{color}\">{}</g>",
            marker(number, x + 14.0, y)
        )?;
        let missing = series.ours.iter().all(Option::is_none);
        let label = match missing {
            true => format!("{} (did not run)", series.label),
            false => series.label.clone(),
        };
        for line in broken(&label) {
            writeln!(
                out,
                "<text class=\"ink\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 36.0,
                y + 4.5,
                escape(&line)
            )?;
            y += 17.0;
        }
        y += 5.0;
    }
    y += 8.0;
    let mut notes = vec![("", "bars: two standard errors")];
    if figure.series.iter().any(|s| s.paper.is_some()) {
        notes.insert(0, ("5 4", "the paper's"));
        notes.insert(0, ("none", "ours"));
    }
    for (dash, words) in notes {
        if !dash.is_empty() {
            writeln!(
                out,
                "<path class=\"rule\" d=\"M{x} {y} h28\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>"
            )?;
        }
        let at = if dash.is_empty() { x } else { x + 36.0 };
        writeln!(
            out,
            "<text class=\"ink\" x=\"{at:.1}\" y=\"{:.1}\">{words}</text>",
            y + 4.5
        )?;
        y += 20.0;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::figures::Series;
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
            x_names: values
                .iter()
                .enumerate()
                .map(|(i, _)| i.to_string())
                .collect(),
            series: vec![Series {
                label: "a line".to_string(),
                ours: values.iter().map(measured).collect(),
                paper: None,
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
            let svg = svg(&figure(values));
            assert!(svg.contains("&lt;script&gt; &amp; co") && !svg.contains("<script>"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn the_axis_holds_every_value() {
        assert_eq!(y_range(&figure(&[Some(0.5), Some(0.72)])), (40.0, 90.0));
        assert_eq!(y_range(&figure(&[None])), (0.0, 100.0));
        assert_eq!(y_range(&figure(&[Some(0.0), Some(1.0)])), (0.0, 100.0));
    }

    #[test]
    fn long_names_are_broken_between_words() {
        assert_eq!(
            broken("CIFAR-10, JPEG copy to Imagenette-96"),
            ["CIFAR-10, JPEG copy to", "Imagenette-96"]
        );
    }
}
