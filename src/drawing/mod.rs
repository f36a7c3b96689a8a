//! Drawing for pages and files: SVG figures, pictures, and the frame of a self-contained HTML page.

pub mod picture;
pub mod plot;

use std::fmt::{Result, Write};

/// Width of a figure.
pub const WIDTH: f64 = 560.0;
/// Ends of the x axis.
pub const LEFT: f64 = 58.0;
pub const RIGHT: f64 = 544.0;
pub const PLOT_HEIGHT: f64 = 270.0;
/// Height of a line of text.
pub const LINE: f64 = 17.0;
/// Maximum number of characters per line of the title.
const TITLE_LINE: usize = 66;

/// The colours of Okabe and Ito, and lighter ones on a dark background. Prints are always light.
pub const STYLE: &str = "\
.fig-ground { fill: #ffffff } .fig-ink { fill: #1a1a1a } .fig-faint { fill: #5c5c5c } \
.fig-rule { stroke: #1a1a1a } .fig-grid { stroke: #e2e2e2 }\n\
.fig-0 { color: #0072b2 } .fig-1 { color: #d55e00 } .fig-2 { color: #009e73 } .fig-3 { color: #cc79a7 } \
.fig-4 { color: #e69f00 } .fig-untrained { color: #767676 }\n\
@media screen and (prefers-color-scheme: dark) {\n\
.fig-ground { fill: #16181c } .fig-ink { fill: #e6e6e6 } .fig-faint { fill: #a8a8a8 } \
.fig-rule { stroke: #e6e6e6 } .fig-grid { stroke: #34373d }\n\
.fig-0 { color: #56b4e9 } .fig-1 { color: #f0803c } .fig-2 { color: #2cc295 } .fig-3 { color: #dd97be } \
.fig-4 { color: #f0b429 } .fig-untrained { color: #9a9a9a } }\n";
/// Number of colours, and of shapes of marks.
pub const COLORS: usize = 5;

const PAGE_STYLE: &str = include_str!("page.css");

/// Returns a self-contained page with `title` as its heading.
pub fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{PAGE_STYLE}{STYLE}</style>\n</head>\n<body>\n\
         <h1>{title}</h1>\n{body}</body>\n</html>\n"
    )
}

/// Text as the content of an element or attribute.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A mark at a point, of the shape of a series.
pub fn marker(series: usize, x: f64, y: f64) -> String {
    mark(series, x, y, 4.0)
}

/// A mark whose half width is about `size`.
pub fn mark(shape: usize, x: f64, y: f64, size: f64) -> String {
    let (side, width, half, height) = (2.0 * size, 2.5 * size, 1.25 * size, 2.25 * size);
    match shape % COLORS {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{size}\"/>"),
        1 => format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{side}\" height=\"{side}\"/>",
            x - size,
            y - size
        ),
        2 => format!(
            "<path d=\"M{x:.1} {:.1} l{half} {height} h-{width} z\"/>",
            y - half
        ),
        3 => format!(
            "<path d=\"M{x:.1} {:.1} l{half} {half} l-{half} {half} l-{half} -{half} z\"/>",
            y - half
        ),
        _ => format!(
            "<path d=\"M{x:.1} {:.1} l{half} -{height} h-{width} z\"/>",
            y + half
        ),
    }
}

/// Breaks text between words into lines of at most `width` characters.
pub fn broken(label: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in label.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

/// A figure without its content: the title, and the place of the plot below it.
pub struct Frame<'a> {
    pub title: &'a str,
    lines: Vec<String>,
    /// y of the upper and the lower end of the plot.
    pub top: f64,
    pub bottom: f64,
}

/// A mark of an axis: its coordinate, its name, and a second name below it.
pub struct Tick {
    pub at: f64,
    pub name: String,
    pub below: Option<String>,
}

impl<'a> Frame<'a> {
    pub fn new(title: &'a str) -> Self {
        let lines = broken(title, TITLE_LINE);
        let top = 22.0 + LINE * lines.len() as f64;
        Frame {
            title,
            lines,
            top,
            bottom: top + PLOT_HEIGHT,
        }
    }

    /// Writes the figure of this height with `body`. `style` is an element, or empty on a page that
    /// includes [`STYLE`].
    pub fn wrap(&self, height: f64, style: &str, body: &str, out: &mut String) -> Result {
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\">\n{style}\
             <rect class=\"fig-ground\" width=\"{WIDTH}\" height=\"{height}\"/>",
            escape(self.title)
        )?;
        for (i, line) in self.lines.iter().enumerate() {
            writeln!(
                out,
                "<text class=\"fig-ink\" x=\"4\" y=\"{:.1}\" font-size=\"14.5\" font-weight=\"600\">{}</text>",
                18.0 + LINE * i as f64,
                escape(line)
            )?;
        }
        writeln!(out, "{body}</svg>")
    }

    /// Draws both axes with their labels, and the lines of the grid. Names of x have `lines` lines.
    pub fn axes(
        &self,
        [x, y]: [&[Tick]; 2],
        [x_label, y_label]: [&str; 2],
        lines: usize,
        out: &mut String,
    ) -> Result {
        let (top, bottom) = (self.top, self.bottom);
        for tick in y {
            writeln!(
                out,
                "<path class=\"fig-grid\" d=\"M{LEFT} {y:.1} H{RIGHT}\"/><text class=\"fig-ink\" x=\"{:.1}\" \
                 y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                tick.at + 4.5,
                escape(&tick.name),
                y = tick.at
            )?;
        }
        writeln!(
            out,
            "<path class=\"fig-rule\" d=\"M{LEFT} {top} V{bottom} H{RIGHT}\" fill=\"none\"/>"
        )?;
        // A label that would touch the previous one is left out.
        let mut free = f64::MIN;
        for Tick { at, name, below } in x {
            let longest = name.chars().count();
            let longest = longest.max(below.as_ref().map_or(0, |name| name.len()));
            let (x, half) = (at, 3.8 * longest as f64);
            write!(out, "<path class=\"fig-rule\" d=\"M{x:.1} {bottom} v5\"/>")?;
            if x - half > free {
                free = x + half + 4.0;
                write!(
                    out,
                    "<text class=\"fig-ink\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                    bottom + 19.0,
                    escape(name)
                )?;
                if let Some(below) = below {
                    write!(
                        out,
                        "<text class=\"fig-faint\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{below}</text>",
                        bottom + 19.0 + LINE
                    )?;
                }
            }
            writeln!(out)?;
        }
        writeln!(
            out,
            "<text class=\"fig-ink\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            (LEFT + RIGHT) / 2.0,
            self.names_end(lines) + 19.0,
            escape(x_label)
        )?;
        writeln!(
            out,
            "<text class=\"fig-ink\" transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (top + bottom) / 2.0,
            escape(y_label)
        )
    }

    /// Returns the y coordinate below the names of x, which have `lines` lines.
    pub fn names_end(&self, lines: usize) -> f64 {
        self.bottom + 5.0 + LINE * lines as f64
    }
}

/// Draws a line through `points`, in the colour of the group that it is in.
pub fn polyline(points: &[(f64, f64)], attributes: &str, out: &mut String) -> Result {
    let points: Vec<String> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"currentColor\" {attributes}/>",
        points.join(" ")
    )
}

/// Writes the text of an entry of a legend, whose lines have at most `width` characters, and
/// returns the number of lines.
pub fn legend_text(
    label: &str,
    [x, y]: [f64; 2],
    width: usize,
    out: &mut String,
) -> std::result::Result<usize, std::fmt::Error> {
    let lines = broken(label, width);
    for (i, line) in lines.iter().enumerate() {
        writeln!(
            out,
            "<text class=\"fig-ink\" x=\"{x}\" y=\"{:.1}\">{}</text>",
            y + 4.5 + LINE * i as f64,
            escape(line)
        )?;
    }
    Ok(lines.len())
}

#[cfg(test)]
mod tests {
    use super::broken;

    #[test]
    fn long_names_are_broken_between_words() {
        assert_eq!(
            broken("CIFAR-10, JPEG copy to Imagenette-96", 24),
            ["CIFAR-10, JPEG copy to", "Imagenette-96"]
        );
    }
}
