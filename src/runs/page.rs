//! `report.html` of a run folder: the curves, pictures, results and settings of one run.

use std::fs;

use sha2::{Digest, Sha256};

use super::folder::{CONFIG, RunFolder};
use super::pictures::{Pictures, Shown};
use super::reading::{RunRecord, WEIGHTS};
use crate::drawing::plot::{Plot, Series};
use crate::drawing::{escape, page};
use crate::error::Result;
use crate::sha256::hex;

/// The name of the page.
pub const PAGE: &str = "report.html";

/// Writes the page of the run in `folder`. Without `pictures`, `reason` says why there are none.
///
/// # Errors
/// As [`RunRecord::read`]; `Error::Io` if the page cannot be written.
pub fn write(folder: &RunFolder, pictures: std::result::Result<&Pictures, &str>) -> Result<()> {
    if folder.writes() {
        folder.write(
            PAGE,
            html(&RunRecord::read(folder.path())?, pictures).as_bytes(),
        )
    } else {
        Ok(())
    }
}

/// Returns the page of a run.
pub fn html(record: &RunRecord, pictures: std::result::Result<&Pictures, &str>) -> String {
    let setting = |key| record.setting(key);
    let (command, data) = (setting("command"), setting("data.name"));
    let title = format!("{command} on {data}, seed {}", setting("seed"));
    let mut body = opening(record);
    body += &results(record);
    let plots = plots(record);
    if !plots.is_empty() {
        body += "<h2>Curves</h2>\n<div class=\"figures fit\">\n";
        for plot in &plots {
            body += &figure(plot);
        }
        body += "</div>\n";
    }
    match pictures {
        Ok(pictures) => body += &gallery(pictures),
        Err(reason) => {
            body += &format!("<p class=\"faint\">No pictures: {}.</p>\n", escape(reason))
        }
    }
    body += &settings(record);
    page(&title, &body)
}

/// The curves of a run: the loss, and other metrics that it has.
pub fn plots(record: &RunRecord) -> Vec<Plot> {
    let curve = |of: &dyn Fn(&super::folder::StepMetrics) -> f64| -> Vec<(f64, f64)> {
        let points = record.metrics.iter().map(|m| (m.step as f64, of(m)));
        points.filter(|point| point.1.is_finite()).collect()
    };
    let plot = |title: &str, y_label: &str, points: Vec<(f64, f64)>| Plot {
        title: title.to_string(),
        x_label: "step".to_string(),
        y_label: y_label.to_string(),
        series: vec![Series {
            label: y_label.to_string(),
            points,
        }],
        is_joined: true,
        level: None,
    };
    let chance = record.result("chance_loss").and_then(|loss| loss.as_f64());
    let loss = Plot {
        level: chance.map(|loss| (loss, format!("by chance, {loss:.3}"))),
        ..plot("Loss", "loss", curve(&|m| f64::from(m.loss)))
    };
    let online = record.online();
    let online = online.into_iter().map(|(step, top1)| (step, 100.0 * top1));
    let online = plot(
        "Nearest neighbours during the training",
        "top-1, %",
        online.collect(),
    );
    let rate = curve(&|m| f64::from(m.learning_rate));
    let is_constant = rate.windows(2).all(|pair| pair[0].1 == pair[1].1);
    let rate = plot(
        "Learning rate",
        "learning rate",
        if is_constant { Vec::new() } else { rate },
    );
    let all = [loss, online, rate].into_iter();
    all.filter(|plot| !plot.is_empty()).collect()
}

/// A figure of a page.
pub fn figure(plot: &Plot) -> String {
    format!("<figure>\n{}</figure>\n", plot.inline())
}

fn opening(record: &RunRecord) -> String {
    let taken = record.steps();
    let state = match (&record.summary, taken) {
        (Some(_), 0) => "It has ended.".to_string(),
        (Some(_), taken) => format!("It has ended after {taken} steps."),
        (None, taken) => format!(
            "It has not ended: {taken} of {} steps are taken.",
            record.setting("training.steps")
        ),
    };
    format!(
        "<p>The run in <code>{}</code>, under the {} protocol, on {}. {state}</p>\n",
        escape(&record.path.display().to_string()),
        escape(&record.setting("protocol")),
        escape(&record.setting("device"))
    )
}

fn results(record: &RunRecord) -> String {
    let mut rows = Vec::new();
    for accuracy in record.accuracies() {
        let protocol = accuracy.protocol.map(|protocol| protocol.to_string());
        let protocol =
            protocol.unwrap_or_else(|| "an earlier version did not record it".to_string());
        rows.push((
            accuracy.name,
            format!("{:.2} %", 100.0 * accuracy.value),
            protocol,
        ));
    }
    if let Some(loss) = record.final_loss() {
        let words = "mean of the last ten steps, or the last epoch of a linear layer";
        rows.push(("loss", format!("{loss:.4}"), words.to_string()));
    }
    let number = |key: &str| record.result(key).and_then(|value| value.as_f64());
    if let Some(speed) = number("images_per_second") {
        let seconds = number("seconds").unwrap_or_default();
        let words = format!("{seconds:.0} s of training");
        rows.push(("speed", format!("{speed:.1} images/s"), words));
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut text = "<h2>Results</h2>\n<div class=\"wide\"><table class=\"results\">\n<thead><tr><th></th>\
                    <th class=\"number\">value</th><th>how it was measured</th></tr></thead>\n<tbody>\n"
        .to_string();
    for (name, value, words) in rows {
        text += &format!(
            "<tr><th>{name}</th><td class=\"number\">{value}</td><td>{}</td></tr>\n",
            escape(&words)
        );
    }
    text + "</tbody></table></div>\n"
}

fn gallery(pictures: &Pictures) -> String {
    let mut text = String::new();
    if !pictures.views.is_empty() {
        text += "<h2>Views</h2>\n<p>The first picture of each row is an image, the others are random views of \
                 it, as the network is trained on.</p>\n";
        for row in &pictures.views {
            text += "<div class=\"tiles\">";
            for (number, picture) in row.iter().enumerate() {
                text += &picture.html(if number == 0 { "image" } else { "view" });
            }
            text += "</div>\n";
        }
    }
    text += &format!("<h2>The encoder after {} steps</h2>\n", pictures.step);
    text += "<h3>Nearest neighbours</h3>\n<p>The first picture of each row is a test image. The others are the \
             training images with the most similar features, with the cosine similarity.</p>\n";
    for (query, found) in &pictures.neighbours {
        text += "<div class=\"tiles\">";
        text += &captioned(
            query,
            query.class.as_deref().unwrap_or("test image"),
            "query",
        );
        for (similarity, shown) in found {
            let is_same = shown.class.is_some() && shown.class == query.class;
            let class = if is_same { "same" } else { "other" };
            let name = shown.class.as_deref().unwrap_or_default();
            text += &captioned(shown, &format!("{name} {similarity:.2}"), class);
        }
        text += "</div>\n";
    }
    text += "<h3>Features in the plane</h3>\n<div class=\"figures fit\">\n";
    text += &figure(&pictures.plane());
    text += "</div>\n";
    if !pictures.filters.is_empty() {
        text += "<h3>First filters</h3>\n<p>Each picture is a filter of the first convolution. Grey is 0.</p>\n\
                 <div class=\"tiles filters\">";
        for filter in &pictures.filters {
            text += &filter.html("filter");
        }
        text += "</div>\n";
    }
    text
}

/// A picture with words below it.
fn captioned(shown: &Shown, words: &str, class: &str) -> String {
    format!(
        "<figure class=\"{class}\">{}<figcaption>{}</figcaption></figure>",
        shown.picture.html(words),
        escape(words.trim())
    )
}

fn settings(record: &RunRecord) -> String {
    let folder = record.path.display();
    let command = record.setting("command");
    let mut text = format!(
        "<h2>How to repeat it</h2>\n<pre>parallax {} --config {} --out OTHER</pre>\n\
         <p>On the same device, the other run has bitwise the same weights. ",
        escape(&command),
        escape(&record.path.join(CONFIG).display().to_string())
    );
    text += &format!(
        "The program's version was {}.</p>\n",
        escape(&record.setting("versions.parallax"))
    );
    text += "<h3>Digests</h3>\n<ul>\n";
    text += &format!(
        "<li>SHA-256 of pixels and labels: <code>{}</code></li>\n",
        escape(&record.setting("data.digest"))
    );
    for name in WEIGHTS {
        if let Ok(bytes) = fs::read(record.path.join(name)) {
            let digest = hex(&Sha256::digest(&bytes));
            text += &format!("<li>SHA-256 of {name}: <code>{digest}</code></li>\n");
        }
    }
    text += &format!(
        "</ul>\n<h2>Settings and facts</h2>\n<p>As in config.toml of {}.</p>\n<div class=\"wide\"><table>\n<tbody>\n",
        escape(&folder.to_string())
    );
    let is_shown = |key: &&String| !key.starts_with("variants.") && *key != "data.digest";
    for key in record.config.keys().filter(is_shown) {
        text += &format!(
            "<tr><th><code>{}</code></th><td>{}</td></tr>\n",
            escape(key),
            escape(&record.setting(key))
        );
    }
    text + "</tbody></table></div>\n"
}
