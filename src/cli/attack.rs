//! `parallax attack`: a classifier's accuracy under FGSM or PGD.

use std::collections::HashMap;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};

use super::arguments::{DataArguments, RunArguments, fraction};
use super::device_choice::open;
use super::sheet::Sheet;
use crate::augment::CIFAR10_STATISTICS;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluate::attack::{AttackSettings, Method};
use crate::objectives::Protocol;
use crate::ops::copy::Slice;
use crate::runs::attack::{Adversarial, AttackRequest, PICTURED, head, run as run_experiment};
use crate::runs::result::AttackSummary;
use crate::runs::weights_file::read;
use crate::tensor::Tensor;

/// Attack a classifier with FGSM or PGD and measure its accuracy at several strengths
///
/// The run folder gets attack.svg: images, their perturbation under the last eps (amplified, grey is none), the two
/// together, and what each is taken for.
#[derive(Args)]
pub struct Arguments {
    /// The classifier: a model.safetensors that supervised or finetune wrote
    #[arg(long, value_name = "FILE")]
    model: PathBuf,

    #[command(flatten)]
    data: DataArguments,

    /// The attack
    #[arg(long, value_name = "fgsm|pgd", default_value = "pgd", value_parser = ["fgsm", "pgd"])]
    method: String,

    /// PGD's steps
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    iterations: u32,

    /// Strengths: fine (ten from 0 to 8/255), paper (ten from 0 to 0.275), or numbers such as 0,0.01,0.03; in pixels
    /// from 0 to 1, under the paper's protocol in normalised ones [default: fine, under the paper's protocol paper]
    #[arg(long, value_name = "fine|paper|NUMBERS")]
    eps: Option<String>,

    /// The part of the test images to attack, the same of each class
    #[arg(long, value_name = "FRACTION", default_value = "1", value_parser = fraction)]
    images: f64,

    /// Write the adversarial images of the last eps, with the labels, to adversarial.safetensors in the run folder
    #[arg(long)]
    save: bool,

    #[command(flatten)]
    run: RunArguments,
}

/// Ten numbers from 0 to `last`, evenly apart.
fn ten_up_to(last: f64) -> Vec<f32> {
    (0..10)
        .map(|i| (last * f64::from(i) / 9.0) as f32)
        .collect()
}

fn strengths(word: Option<&str>, protocol: Protocol) -> Result<Vec<f32>> {
    let word = word.unwrap_or(match protocol {
        Protocol::Sound => "fine",
        Protocol::Paper => "paper",
    });
    match word {
        "fine" => Ok(ten_up_to(8.0 / 255.0)),
        "paper" => Ok(ten_up_to(0.275)),
        list => list
            .split(',')
            .map(|number| {
                number.trim().parse().map_err(|_| {
                    Error::usage(format!(
                        "--eps has '{number}'; expected fine, paper, or numbers with commas between them"
                    ))
                })
            })
            .collect(),
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { data, run, .. } = arguments;
    run.stop.listen()?;
    let method = match arguments.method.as_str() {
        "fgsm" => Method::Fgsm,
        _ => Method::Pgd {
            iterations: arguments.iterations,
        },
    };
    let eps = strengths(arguments.eps.as_deref(), run.protocol)?;
    // Said before anything is computed.
    for &eps in &eps {
        AttackSettings::of_protocol(run.protocol, method, eps)?;
    }
    let dataset = data.load(run.seed)?;
    let chosen = open(&run.device)?;
    let device = &chosen.device;
    let loaded = read(device, &arguments.model)?;
    head(&loaded, &dataset)?;
    let folder = run.start("attack", (data.data, &dataset), &chosen)?;
    let strongest = eps.last().copied().unwrap_or_default();
    let request = AttackRequest {
        protocol: run.protocol,
        loaded,
        method,
        eps,
        images: arguments.images,
        seed: run.seed,
        data: data.data,
        dataset,
    };
    let path = folder.path().join("attack.svg");
    let summary = run_experiment(device, &request, &folder, |summary, images| {
        let sheet = picture(device, images, run.protocol, strongest)?;
        let svg = with_predictions(&sheet.to_png(&path)?, sheet.size(), summary, strongest);
        folder.write("attack.svg", svg.as_bytes())?;
        if arguments.save {
            folder.write("adversarial.safetensors", &pack(images)?)?;
        }
        Ok(())
    })?;
    println!(
        "clean top-1 {:.1} % on {} images of {}, {:.0} s in all; {}",
        100.0 * summary.clean_top1,
        summary.images,
        summary.data,
        summary.total_seconds,
        path.display()
    );
    Ok(())
}

/// A row an image: clean, perturbation, adversarial.
fn picture(device: &Device, images: &Adversarial, protocol: Protocol, eps: f32) -> Result<Sheet> {
    let count = PICTURED.min(images.labels.len());
    let shown = |x: &Tensor| device.run(Slice { x, start: 0, count })?.to_vec::<f32>();
    let (clean, adversarial) = (shown(&images.clean)?, shown(&images.adversarial)?);
    let shape = [&[count], &images.clean.shape()[1..]].concat();
    let plane: usize = shape[2..].iter().product();
    let (mean, std) = CIFAR10_STATISTICS;
    let pixel = |(i, &x): (usize, &f32)| match protocol {
        Protocol::Sound => x,
        Protocol::Paper => (x * std[i / plane % 3] + mean[i / plane % 3]).clamp(0.0, 1.0),
    };
    // Grey where nothing changed, black and white at -eps and +eps.
    let difference = |(&a, &c): (&f32, &f32)| match eps {
        0.0 => 0.5,
        eps => (0.5 + 0.5 * (a - c) / eps).clamp(0.0, 1.0),
    };
    let columns = [
        clean.iter().enumerate().map(pixel).collect::<Vec<f32>>(),
        adversarial.iter().zip(&clean).map(difference).collect(),
        adversarial.iter().enumerate().map(pixel).collect(),
    ];
    let mut sheet = Sheet::new(3, count as u32);
    for (column, values) in (0..).zip(&columns) {
        sheet.draw_column(column, &Tensor::from_slice(values, &shape, device)?)?;
    }
    Ok(sheet)
}

/// The sheet of [`picture`] with words: what the columns are, and what each image is and is taken for.
fn with_predictions(
    png: &[u8],
    [width, height]: [u32; 2],
    summary: &AttackSummary,
    eps: f32,
) -> String {
    const HEADER: u32 = 28;
    const WORDS: u32 = 260;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
         font-family=\"sans-serif\" font-size=\"14\" fill=\"#111\">\n\
         <rect width=\"{w}\" height=\"{h}\" fill=\"#fff\"/>\n\
         <image y=\"{HEADER}\" width=\"{width}\" height=\"{height}\" href=\"data:image/png;base64,{}\"/>\n",
        STANDARD.encode(png),
        w = width + WORDS,
        h = height + HEADER,
    );
    for (column, title) in (0..).zip(["image", "perturbation", "attacked"]) {
        let x = Sheet::start(column);
        svg.push_str(&format!("<text x=\"{x}\" y=\"19\">{title}</text>\n"));
    }
    let x = width + 8;
    let attack = summary.method.to_uppercase();
    svg.push_str(&format!(
        "<text x=\"{x}\" y=\"19\">{attack}, eps {eps}, {}</text>\n",
        summary.units
    ));
    for (row, image) in (0..).zip(&summary.pictured) {
        let y = HEADER + Sheet::start(row);
        let taken_for = |predicted: &str| match predicted == image.class {
            true => format!("{predicted}, right"),
            false => format!("{predicted}, wrong"),
        };
        let lines = [
            image.class.clone(),
            format!("taken for {}", taken_for(&image.predicted_clean)),
            format!("attacked: {}", taken_for(&image.predicted_adversarial)),
        ];
        for (line, words) in (0..).zip(&lines) {
            let weight = if line == 0 { "bold" } else { "normal" };
            svg.push_str(&format!(
                "<text x=\"{x}\" y=\"{}\" font-weight=\"{weight}\">{}</text>\n",
                y + 30 + 22 * line,
                escaped(words)
            ));
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Words as the content of an element.
fn escaped(words: &str) -> String {
    words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn pack(images: &Adversarial) -> Result<Vec<u8>> {
    let values = images.adversarial.to_vec::<f32>()?;
    let shape = images.adversarial.shape().to_vec();
    let failed = |error| Error::usage(format!("adversarial images cannot be packed: {error}"));
    let pixels = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(&values));
    let bytes = bytemuck::cast_slice(&images.labels);
    let labels = TensorView::new(Dtype::U32, vec![images.labels.len()], bytes);
    let views = [
        ("images", pixels.map_err(failed)?),
        ("labels", labels.map_err(failed)?),
    ];
    serialize(views, None::<HashMap<String, String>>).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_text_and_no_markup() {
        assert_eq!(escaped("a<b> & c"), "a&lt;b&gt; &amp; c");
    }

    #[test]
    fn strengths_are_a_grid_or_numbers() {
        let fine = strengths(None, Protocol::Sound).unwrap();
        assert_eq!((fine.len(), fine[0], fine[9]), (10, 0.0, 8.0 / 255.0));
        let paper = strengths(None, Protocol::Paper).unwrap();
        assert_eq!((paper.len(), paper[0], paper[9]), (10, 0.0, 0.275));
        assert_eq!(
            strengths(Some("0, 0.5"), Protocol::Sound).unwrap(),
            [0.0, 0.5]
        );
        assert!(strengths(Some("0,much"), Protocol::Sound).is_err());
        assert!(strengths(Some(""), Protocol::Sound).is_err());
    }
}
