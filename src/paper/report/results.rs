//! `results.json`: every value of every run, for other programs.

use std::cmp::Ordering;

use serde::Serialize;

use super::runs::{Found, Run, Runs};
use crate::error::{Error, Result};
use crate::evaluate::metrics::Metrics;

/// One value. A field that does not apply is null.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Value<'a> {
    /// `pretraining`, `linear`, `transfer`, `supervised`, `finetune` or `attack`.
    pub task: &'a str,
    /// The method that trained the encoder: `simclr`, `rotnet`, `supervised` or `untrained`.
    pub method: &'a str,
    pub arch: &'a str,
    pub width: f64,
    /// The batch size in the training of the encoder or the classifier.
    pub batch_size: Option<usize>,
    /// The number of training steps of the encoder or the classifier.
    pub step: u64,
    /// The data set that the value was measured on.
    pub data: &'a str,
    /// The data set of the pretraining, if it differs from `data`.
    pub pretrained_on: Option<&'a str>,
    pub label_fraction: Option<f64>,
    pub metric: String,
    /// The strength of an attack.
    pub eps: Option<f64>,
    pub value: f64,
    /// The number of test images, if `value` is a fraction of them.
    pub images: Option<usize>,
    pub seed: u64,
    pub protocol: &'a str,
    pub device: &'a str,
    /// The run folder.
    pub run: &'a str,
}

/// Returns all values of `runs` as JSON, in a fixed order.
///
/// # Errors
/// `Error::Usage` if a value cannot be represented in JSON.
pub fn json(runs: &Runs) -> Result<String> {
    let mut values: Vec<Value<'_>> = runs.all.iter().flat_map(of_run).collect();
    values.sort_by(order);
    let mut text = serde_json::to_string_pretty(&values)
        .map_err(|e| Error::usage(format!("the results cannot be written as JSON: {e}")))?;
    text.push('\n');
    Ok(text)
}

fn order(a: &Value<'_>, b: &Value<'_>) -> Ordering {
    let number = |a: Option<f64>, b: Option<f64>| a.unwrap_or(-1.0).total_cmp(&b.unwrap_or(-1.0));
    let words = (a.task, a.method, a.arch, a.data, a.pretrained_on);
    words
        .cmp(&(b.task, b.method, b.arch, b.data, b.pretrained_on))
        .then(a.width.total_cmp(&b.width))
        .then(number(a.label_fraction, b.label_fraction))
        .then((a.batch_size, a.step).cmp(&(b.batch_size, b.step)))
        .then((a.protocol, a.seed, a.run).cmp(&(b.protocol, b.seed, b.run)))
        .then(a.metric.cmp(&b.metric))
        .then(number(a.eps, b.eps))
}

fn of_run(run: &Run) -> Vec<Value<'_>> {
    let command = &run.result.command;
    let blank = Value {
        task: "",
        method: "",
        arch: &run.result.arch,
        width: run.result.width,
        batch_size: None,
        step: 0,
        data: &run.result.data,
        pretrained_on: None,
        label_fraction: None,
        metric: String::new(),
        eps: None,
        value: 0.0,
        images: None,
        seed: run.result.seed,
        protocol: &run.result.protocol,
        device: &run.result.device,
        run: &run.folder,
    };
    let other = |data| (data != run.result.data.as_str()).then_some(data);
    match &run.result.metrics {
        Found::Pretraining(s) => {
            let of = Value {
                task: "pretraining",
                method: command,
                batch_size: Some(s.training.batch_size),
                step: s.training.steps,
                ..blank
            };
            let metrics = [
                ("flops_per_step", Some(s.flops_per_step as f64), None),
                (
                    "seconds_per_step",
                    Some(s.training.seconds / s.training.steps.max(1) as f64),
                    None,
                ),
                ("final_loss", Some(s.training.final_loss_mean), None),
                ("rotation_accuracy", s.rotation_accuracy, s.rotation_images),
                ("knn_top1", s.knn_top1, None),
            ];
            let metrics = metrics.into_iter().filter_map(|(metric, value, images)| {
                Some(Value {
                    metric: metric.to_string(),
                    value: value?,
                    images,
                    ..of.clone()
                })
            });
            metrics.collect()
        }
        Found::Classification(s) => {
            let start = s.start.as_ref();
            let of = Value {
                task: command,
                method: start.map_or("supervised", |start| &start.command),
                batch_size: Some(s.training.batch_size),
                step: s.training.steps,
                pretrained_on: start.and_then(|start| other(start.data.as_str())),
                label_fraction: Some(s.label_fraction),
                ..blank
            };
            of_metrics(&of, command, &s.test)
        }
        Found::Linear(s) => {
            let of = Value {
                task: command,
                method: &s.start.command,
                batch_size: (s.start.batch_size > 0).then_some(s.start.batch_size),
                step: s.start.steps,
                pretrained_on: other(s.start.data.as_str()),
                label_fraction: Some(s.label_fraction),
                ..blank
            };
            of_metrics(&of, "linear", &s.test)
        }
        Found::Attack(s) => {
            let points = s.curve.iter().map(|point| Value {
                task: "attack",
                method: s.start.pretrained_by.as_deref().unwrap_or(&s.start.command),
                batch_size: Some(s.start.batch_size),
                step: s.start.steps,
                label_fraction: s.start.label_fraction,
                metric: format!("{}_top1", s.method),
                eps: Some(point.eps),
                value: point.top1,
                images: Some(s.images),
                ..blank.clone()
            });
            points.collect()
        }
    }
}

/// Returns the metrics of a classifier or a linear evaluation. Their names start with `what`.
fn of_metrics<'a>(of: &Value<'a>, what: &str, metrics: &Metrics) -> Vec<Value<'a>> {
    let images: u64 = metrics.confusion.iter().flatten().sum();
    let values = [
        ("top1", metrics.top1, true),
        ("top2", metrics.top2, true),
        ("top3", metrics.top3, true),
        ("auc", metrics.auc_ovo, false),
    ];
    let values = values.map(|(metric, value, fraction)| Value {
        metric: format!("{what}_{metric}"),
        value,
        images: fraction.then_some(images as usize),
        ..of.clone()
    });
    values.to_vec()
}
