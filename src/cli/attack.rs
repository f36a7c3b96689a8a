//! `parallax attack`: a classifier's accuracy under FGSM or PGD.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};

use super::arguments::{Place, check_classes, notice, notice_absent};
use super::device_choice::open;
use super::sheet::Sheet;
use crate::augment::CIFAR10_STATISTICS;
use crate::console::{self, say};
use crate::device::Device;
use crate::drawing::escape;
use crate::error::{Error, Result};
use crate::evaluate::attack::{AttackSettings, Units};
use crate::objectives::Protocol;
use crate::ops::copy::Slice;
use crate::paper::numbers as paper;
use crate::runs::attack::{
    Adversarial, AttackRequest, MatchClasses, PICTURED, run as run_experiment,
};
use crate::runs::image_size::check_image_size;
use crate::runs::result::AttackMetrics;
use crate::runs::settings::Attack;
use crate::runs::spec::RunSpec;
use crate::runs::weights_file::WeightsFile;
use crate::tensor::Tensor;

fn strengths(word: &str, protocol: Protocol) -> Result<Vec<f32>> {
    let ten = |last| paper::strengths(last).map(|eps| eps as f32).to_vec();
    match word {
        "fine" => Ok(ten(paper::FINE_EPS)),
        "paper" => Ok(ten(paper::PAPER_EPS)),
        list => list
            .split(',')
            .map(|word| strength(word, protocol))
            .collect(),
    }
}

/// Reads a number or a fraction such as 8/255.
fn strength(word: &str, protocol: Protocol) -> Result<f32> {
    let number = match word.split_once('/') {
        Some((above, below)) => above
            .trim()
            .parse()
            .ok()
            .zip(below.trim().parse().ok())
            .map(|(a, b): (f64, f64)| a / b),
        None => word.trim().parse().ok(),
    };
    let number: f64 = number.ok_or_else(|| {
        Error::usage(format!(
            "--eps has '{word}'; expected fine, paper, or numbers such as 0.03 or 8/255 with commas between them"
        ))
    })?;
    let [low, high] = Units::of(protocol).range();
    let most = f64::from(high - low);
    if (0.0..=most).contains(&number) {
        return Ok(number as f32);
    }
    let pixels = match Units::of(protocol) {
        Units::Pixels => "pixels are in 0..1".to_string(),
        Units::Normalized => format!("normalised pixels are in {low}..{high}"),
    };
    let meant = match number / 255.0 {
        x if (0.0..=most).contains(&x) => {
            format!("; for {word} of 255 levels, give {}/255", word.trim())
        }
        _ => String::new(),
    };
    Err(Error::usage(format!(
        "--eps is {word}, and {pixels}; expected a number from 0 to {most}{meant}"
    )))
}

pub fn run(spec: &RunSpec, run: &Attack, place: &Place) -> Result<()> {
    let (data, seed) = (&spec.common.data, spec.common.seed);
    let protocol = spec.common.protocol;
    let method = run.attack.method();
    let eps = strengths(&run.attack.eps, protocol)?;
    // Checked before anything is computed.
    for &eps in &eps {
        AttackSettings::of_protocol(protocol, method, eps)?;
    }
    let file = WeightsFile::read(&run.init)?;
    let file = file.with_normalization(spec.normalization())?;
    Units::of(protocol).check(file.normalization())?;
    let dataset = data.load(seed)?;
    check_classes(&dataset, "attack")?;
    let chosen = open(&place.device)?;
    let device = &chosen.device;
    let loaded = file.load(device)?;
    let by = run.attack.match_classes_by;
    let dataset = by.apply(&loaded, dataset)?;
    if by == MatchClasses::Name && loaded.origin.class_names.is_empty() {
        notice(&format!(
            "{} holds no class names, so the classes are matched by their order",
            loaded.source
        ));
    }
    let part = run.attack.fraction;
    dataset
        .test_members(part, seed)
        .map_err(|error| Error::usage(format!("--images {part}: {error}")))?;
    let size = [dataset.test.width, dataset.test.height];
    check_image_size("attack", size, &loaded.origin.encoder, 0)?;
    notice_absent(&dataset);
    let folder = place.start(spec, &dataset, &chosen)?;
    let strongest = eps.last().copied().unwrap_or_default();
    let request = AttackRequest {
        spec,
        settings: run,
        loaded,
        method,
        eps,
        dataset,
    };
    let path = folder.path().join("attack.svg");
    let summary = run_experiment(device, &request, &folder, |summary, images| {
        let sheet = picture(device, images, protocol, strongest)?;
        let svg = with_predictions(
            &sheet.to_png(&path)?,
            sheet.size(),
            &summary.metrics,
            strongest,
        );
        folder.write("attack.svg", svg.as_bytes())?;
        if run.attack.save {
            folder.write("adversarial.safetensors", &pack(images)?)?;
        }
        Ok(())
    })?;
    console::json(&summary);
    say!(
        "clean top-1 {:.1} % on {} images of {}, {:.0} s in all; {}",
        100.0 * summary.metrics.clean_top1,
        summary.metrics.images,
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

/// The sheet of [`picture`] with labels: the columns, and the class and the predictions of each
/// image.
fn with_predictions(
    png: &[u8],
    [width, height]: [u32; 2],
    metrics: &AttackMetrics,
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
    let attack = metrics.method.to_uppercase();
    svg.push_str(&format!(
        "<text x=\"{x}\" y=\"19\">{attack}, eps {eps}, {}</text>\n",
        metrics.units
    ));
    for (row, image) in (0..).zip(&metrics.pictured) {
        let y = HEADER + Sheet::start(row);
        let taken_for = |predicted: &str| {
            if predicted == image.class {
                format!("{predicted}, right")
            } else {
                format!("{predicted}, wrong")
            }
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
                escape(words)
            ));
        }
    }
    svg.push_str("</svg>\n");
    svg
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
    fn strengths_are_a_grid_or_numbers() {
        let fine = strengths("fine", Protocol::Sound).unwrap();
        assert_eq!((fine.len(), fine[0], fine[9]), (10, 0.0, 8.0 / 255.0));
        let paper = strengths("paper", Protocol::Paper).unwrap();
        assert_eq!((paper.len(), paper[0], paper[9]), (10, 0.0, 0.275));
        assert_eq!(strengths("0, 0.5", Protocol::Sound).unwrap(), [0.0, 0.5]);
        let eight = strengths("8/255, 0.5 / 255", Protocol::Sound).unwrap();
        assert_eq!(eight, [8.0 / 255.0, 0.5 / 255.0]);
        for word in [
            "0,much", "", "8/", "8/0", "1/2/3", "nan", "inf", "-0.1", "8", "256/255",
        ] {
            let error = strengths(word, Protocol::Sound).unwrap_err();
            assert!(
                matches!(&error, Error::Usage(m) if m.contains("--eps")),
                "{error}"
            );
        }
        let levels = strengths("8", Protocol::Sound).unwrap_err().to_string();
        assert!(
            levels.contains("pixels are in 0..1") && levels.contains("give 8/255"),
            "{levels}"
        );
        // Normalised pixels have a wider range.
        assert_eq!(strengths("5", Protocol::Paper).unwrap(), [5.0]);
        assert!(strengths("5.2", Protocol::Paper).is_err());
    }
}
