//! How the random transforms are distributed: ranges, means, shapes, and independence between
//! images, views, steps and purposes. Seeds are fixed, so these tests give the same answer each
//! time; bounds are four standard deviations.

use parallax::augment::{
    ColorJitter, PaddedCropAugmentation, RandomBlur, SimClrAugmentation, ViewKey, ViewParameters,
};
use parallax::ops::ColorStep;

const COUNT: u32 = 24_000;
/// Large enough that rounding to pixels does not show.
const SIDE: usize = 2_000;

fn key(step: u32, view: u32) -> ViewKey {
    ViewKey {
        seed: 77,
        step,
        view,
    }
}

fn draw(augmentation: &SimClrAugmentation, key: ViewKey) -> Vec<ViewParameters> {
    let samples: Vec<u32> = (0..COUNT).collect();
    augmentation.draw(key, &samples, SIDE, SIDE)
}

/// The steps of a view's colour change with their factors.
fn steps(view: &ViewParameters) -> Vec<(u32, f32)> {
    let words: [u32; 10] = bytemuck::cast(view.color);
    (0..5)
        .map(|i| (words[i], f32::from_bits(words[5 + i])))
        .filter(|&(step, _)| step != ColorStep::Nothing as u32)
        .collect()
}

fn factor(view: &ViewParameters, step: ColorStep) -> Option<f64> {
    steps(view)
        .into_iter()
        .find(|&(found, _)| found == step as u32)
        .map(|(_, factor)| f64::from(factor))
}

fn is_gray(view: &ViewParameters) -> bool {
    factor(view, ColorStep::Grayscale).is_some()
}

fn is_jittered(view: &ViewParameters) -> bool {
    factor(view, ColorStep::Hue).is_some()
}

/// Part of the image's area.
fn area(view: &ViewParameters) -> f64 {
    f64::from(view.crop.height) * f64::from(view.crop.width) / (SIDE * SIDE) as f64
}

fn log_ratio(view: &ViewParameters) -> f64 {
    (f64::from(view.crop.width) / f64::from(view.crop.height)).ln()
}

/// Where the box begins, as a part of where it could.
fn place(view: &ViewParameters) -> (f64, f64) {
    let part =
        |start: u32, length: u32| (f64::from(start) + 0.5) / f64::from(SIDE as u32 - length + 1);
    (
        part(view.crop.top, view.crop.height),
        part(view.crop.left, view.crop.width),
    )
}

/// Fails unless the counts fit a uniform distribution over their cells: chi-square, four standard
/// deviations by Wilson and Hilferty's approximation.
fn assert_even(what: &str, counts: &[u32]) {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    assert!(expected >= 5.0, "{what}: too few draws for a chi-square");
    let statistic: f64 = counts
        .iter()
        .map(|&count| (f64::from(count) - expected).powi(2) / expected)
        .sum();
    let freedom = counts.len() as f64 - 1.0;
    let spread = 2.0 / (9.0 * freedom);
    let limit = freedom * (1.0 - spread + 4.0 * spread.sqrt()).powi(3);
    assert!(
        statistic < limit,
        "{what}: {statistic} above {limit}: {counts:?}"
    );
}

/// Fails unless `values` are uniform in [low, high].
fn assert_uniform(what: &str, values: &[f64], low: f64, high: f64) {
    const CELLS: usize = 20;
    let mut counts = [0; CELLS];
    for value in values {
        let part = (value - low) / (high - low);
        assert!(
            (-1e-3..=1.001).contains(&part),
            "{what}: {value} outside [{low}, {high}]"
        );
        counts[((part * CELLS as f64) as usize).min(CELLS - 1)] += 1;
    }
    assert_even(what, &counts);
}

fn assert_rate(what: &str, happened: usize, of: usize, probability: f64) {
    let rate = happened as f64 / of as f64;
    let deviation = (probability * (1.0 - probability) / of as f64).sqrt();
    assert!(
        (rate - probability).abs() < 4.0 * deviation,
        "{what}: rate {rate}, expected {probability}"
    );
}

fn assert_uncorrelated(what: &str, a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    let n = a.len() as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let (mut covariance, mut variance_a, mut variance_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        covariance += (a - mean_a) * (b - mean_b);
        variance_a += (a - mean_a).powi(2);
        variance_b += (b - mean_b).powi(2);
    }
    assert!(variance_a > 0.0 && variance_b > 0.0, "{what}: constant");
    let correlation = covariance / (variance_a * variance_b).sqrt();
    assert!(correlation.abs() < 4.0 / n.sqrt(), "{what}: {correlation}");
}

/// The random numbers of one view, each by its name. Without jitter, its numbers count
/// as -1.
fn numbers(view: &ViewParameters) -> [(&'static str, f64); 9] {
    let or = |step| factor(view, step).unwrap_or(-1.0);
    [
        ("area", area(view)),
        ("ratio", log_ratio(view)),
        ("top", place(view).0),
        ("left", place(view).1),
        ("flip", f64::from(view.crop.flip)),
        ("jitter", f64::from(u8::from(is_jittered(view)))),
        ("brightness", or(ColorStep::Brightness)),
        ("hue", or(ColorStep::Hue)),
        ("grey", f64::from(u8::from(is_gray(view)))),
    ]
}

fn column(views: &[ViewParameters], index: usize) -> Vec<f64> {
    views.iter().map(|view| numbers(view)[index].1).collect()
}

#[test]
fn small_crops_are_uniform_in_area_and_log_ratio_and_place() {
    // Half of a square's area at 4:3 is narrower than the square: every first try fits.
    let augmentation = SimClrAugmentation {
        scale: [0.08, 0.5],
        ..SimClrAugmentation::sound(32)
    };
    let views = draw(&augmentation, key(0, 0));
    let limit = (4.0f64 / 3.0).ln();
    let areas: Vec<f64> = views.iter().map(area).collect();
    let ratios: Vec<f64> = views.iter().map(log_ratio).collect();
    let (tops, lefts): (Vec<f64>, Vec<f64>) = views.iter().map(place).unzip();
    assert_uniform("area", &areas, 0.08, 0.5);
    assert_uniform("logarithm of the ratio", &ratios, -limit, limit);
    assert_uniform("top", &tops, 0.0, 1.0);
    assert_uniform("left", &lefts, 0.0, 1.0);
    assert_uncorrelated("area and ratio", &areas, &ratios);
    assert_uncorrelated("top and left", &tops, &lefts);
}

#[test]
fn crops_that_do_not_fit_are_drawn_again() {
    let views = draw(&SimClrAugmentation::sound(32), key(1, 0));
    let limit = (4.0f64 / 3.0).ln();
    // Uniform over the pairs that fit a square, |log ratio| <= -ln(area): the density of area s is
    // proportional to min(limit, -ln s).
    let (mut mass, mut moment, mut square) = (0.0, 0.0, 0.0);
    for i in 0..100_000 {
        let s = 0.08 + 0.92 * (f64::from(i) + 0.5) / 1e5;
        let density = limit.min(-s.ln());
        mass += density;
        moment += density * s;
        square += density * s * s;
    }
    let mean = moment / mass;
    let deviation = ((square / mass - mean * mean) / f64::from(COUNT)).sqrt();
    let found = views.iter().map(area).sum::<f64>() / f64::from(COUNT);
    assert!(
        (found - mean).abs() < 4.0 * deviation + 1e-3,
        "{found}, expected {mean}"
    );
    for view in &views {
        assert!((0.079..=1.0).contains(&area(view)), "{view:?}");
        assert!(log_ratio(view).abs() < limit + 2e-3, "{view:?}");
        assert!(
            view.crop.top + view.crop.height <= SIDE as u32
                && view.crop.left + view.crop.width <= SIDE as u32,
            "{view:?}"
        );
    }
}

#[test]
fn where_no_box_fits_the_crop_is_centred() {
    // No box of nearly all the area fits a strip; of a square, none of more than its area.
    let cases = [
        ([0.9, 1.0], (4, 100), [0, 47, 4, 5]),
        ([0.9, 1.0], (100, 4), [47, 0, 5, 4]),
        ([2.0, 3.0], (30, 32), [0, 0, 30, 32]),
        ([1.0, 1.0], (1, 1), [0, 0, 1, 1]),
    ];
    for (scale, (height, width), [top, left, box_height, box_width]) in cases {
        let augmentation = SimClrAugmentation {
            scale,
            ..SimClrAugmentation::sound(8)
        };
        for view in augmentation.draw(key(0, 0), &[0, 1, 2], height, width) {
            let crop = view.crop;
            assert_eq!(
                [crop.top, crop.left, crop.height, crop.width],
                [top, left, box_height, box_width],
                "{height} x {width}"
            );
        }
    }
}

#[test]
fn flips_jitter_and_grey_come_at_their_rates() {
    for (augmentation, name) in [
        (SimClrAugmentation::sound(32), "sound"),
        (
            SimClrAugmentation {
                flip: 0.1,
                grayscale: 0.9,
                jitter: ColorJitter {
                    probability: 0.3,
                    ..SimClrAugmentation::sound(32).jitter
                },
                ..SimClrAugmentation::sound(32)
            },
            "other",
        ),
    ] {
        let views = draw(&augmentation, key(2, 0));
        let rate = |what: &str, probability: f32, happened: &dyn Fn(&ViewParameters) -> bool| {
            let count = views.iter().filter(|view| happened(view)).count();
            assert_rate(
                &format!("{name} {what}"),
                count,
                views.len(),
                f64::from(probability),
            );
        };
        rate("flip", augmentation.flip, &|view| view.crop.flip == 1);
        rate("jitter", augmentation.jitter.probability, &is_jittered);
        rate("grey", augmentation.grayscale, &is_gray);
    }
    // Grey is always last.
    for view in draw(&SimClrAugmentation::sound(32), key(2, 1)) {
        let steps = steps(&view);
        let gray = steps
            .iter()
            .position(|&(step, _)| step == ColorStep::Grayscale as u32);
        assert!(gray.is_none_or(|at| at + 1 == steps.len()), "{view:?}");
        assert!(matches!(steps.len(), 0 | 1 | 4 | 5), "{view:?}");
    }
}

#[test]
fn factors_are_uniform_in_their_ranges() {
    let sound = SimClrAugmentation::sound(32);
    let paper = SimClrAugmentation {
        one_draw_per_batch: false,
        ..SimClrAugmentation::paper(32)
    };
    let strong = SimClrAugmentation {
        jitter: ColorJitter {
            brightness: 1.5,
            contrast: 0.2,
            saturation: 1.0,
            hue: 0.5,
            probability: 1.0,
        },
        ..sound
    };
    for (number, augmentation) in [sound, paper, strong].iter().enumerate() {
        let views = draw(augmentation, key(3, number as u32));
        let jitter = augmentation.jitter;
        for (step, strength) in [
            (ColorStep::Brightness, jitter.brightness),
            (ColorStep::Contrast, jitter.contrast),
            (ColorStep::Saturation, jitter.saturation),
            (ColorStep::Hue, jitter.hue),
        ] {
            let strength = f64::from(strength);
            let (low, high) = match step {
                ColorStep::Hue => (-strength, strength),
                _ => ((1.0 - strength).max(0.0), 1.0 + strength),
            };
            let factors: Vec<f64> = views.iter().filter_map(|view| factor(view, step)).collect();
            assert!(factors.len() > COUNT as usize / 2);
            assert_uniform(&format!("{step:?} of {number}"), &factors, low, high);
        }
    }
}

#[test]
fn blurs_come_at_their_rate_with_a_uniform_deviation() {
    let sharp = draw(&SimClrAugmentation::sound(224), key(11, 0));
    assert!(sharp.iter().all(|view| view.blur == 0.0));
    let augmentation = SimClrAugmentation {
        blur: Some(RandomBlur::default()),
        ..SimClrAugmentation::sound(224)
    };
    let views = draw(&augmentation, key(11, 0));
    let sigmas = |views: &[ViewParameters]| -> Vec<f64> {
        views.iter().map(|view| f64::from(view.blur)).collect()
    };
    let all = sigmas(&views);
    let blurred: Vec<f64> = all.iter().copied().filter(|&sigma| sigma > 0.0).collect();
    assert_rate("blur", blurred.len(), views.len(), 0.5);
    assert_uniform("deviation", &blurred, 0.1, 2.0);
    let other = sigmas(&draw(&augmentation, key(11, 1)));
    assert_uncorrelated("blur and the other view's", &all, &other);
    for (index, (name, _)) in numbers(&views[0]).into_iter().enumerate() {
        let case = format!("blur and {name}");
        assert_uncorrelated(&case, &all, &column(&views, index));
    }
    // The blur changes no other number of a view.
    for (mut view, sharp) in views.into_iter().zip(sharp) {
        view.blur = 0.0;
        assert_eq!(view, sharp);
    }
}

#[test]
fn a_strength_of_zero_leaves_its_change_out() {
    let jitter = ColorJitter {
        brightness: 0.0,
        contrast: 0.4,
        saturation: 0.0,
        hue: 0.0,
        probability: 1.0,
    };
    let augmentation = SimClrAugmentation {
        jitter,
        grayscale: 0.0,
        ..SimClrAugmentation::sound(32)
    };
    for view in augmentation.draw(key(4, 0), &[0, 1, 2, 3], 32, 32) {
        let steps = steps(&view);
        assert_eq!(steps.len(), 1);
        assert_eq!(steps[0].0, ColorStep::Contrast as u32);
    }
}

#[test]
fn every_order_of_the_jitter_is_equally_likely() {
    let views = draw(&SimClrAugmentation::sound(32), key(5, 0));
    let mut counts = std::collections::BTreeMap::new();
    for view in views.iter().filter(|view| is_jittered(view)) {
        let order: Vec<u32> = steps(view).iter().take(4).map(|&(step, _)| step).collect();
        *counts.entry(order).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 24, "{counts:?}");
    assert_even("orders", &counts.into_values().collect::<Vec<u32>>());
}

#[test]
fn images_views_steps_seeds_and_purposes_are_independent() {
    let augmentation = SimClrAugmentation::sound(32);
    let views = draw(&augmentation, key(6, 0));
    let other_seed = ViewKey {
        seed: 78,
        ..key(6, 0)
    };
    // A seed and a step that differ in their upper bits alone.
    let far_seed = ViewKey {
        seed: 77 + (1 << 40),
        ..key(6, 0)
    };
    let others = [
        ("view", draw(&augmentation, key(6, 1))),
        ("step", draw(&augmentation, key(7, 0))),
        ("far step", draw(&augmentation, key(6 + (1 << 20), 0))),
        ("seed", draw(&augmentation, other_seed)),
        ("far seed", draw(&augmentation, far_seed)),
    ];
    for (index, (name, _)) in numbers(&views[0]).into_iter().enumerate() {
        let values = column(&views, index);
        for (what, other) in &others {
            let case = format!("{name} and the other {what}'s");
            assert_uncorrelated(&case, &values, &column(other, index));
        }
        for distance in [1, 2, 16] {
            let case = format!("{name} of images {distance} apart");
            let (first, second) = (&values[..values.len() - distance], &values[distance..]);
            assert_uncorrelated(&case, first, second);
        }
    }
    // Numbers of different purposes.
    let names = numbers(&views[0]).map(|(name, _)| name);
    let purpose = |index: usize| match index {
        0..4 => 0,
        4 => 1,
        5..8 => 2,
        _ => 3,
    };
    for a in 0..names.len() {
        for b in (a + 1..names.len()).filter(|&b| purpose(a) != purpose(b)) {
            let case = format!("{} and {}", names[a], names[b]);
            assert_uncorrelated(&case, &column(&views, a), &column(&views, b));
        }
    }
}

#[test]
fn a_view_depends_on_its_key_alone() {
    let augmentation = SimClrAugmentation::sound(32);
    let all = augmentation.draw(key(8, 1), &[5, 6, 7, 8], 32, 32);
    let some = augmentation.draw(key(8, 1), &[8, 6], 32, 32);
    for (place, (mut view, same)) in some.into_iter().zip([all[3], all[1]]).enumerate() {
        assert_eq!(view.crop.image, place as u32);
        view.crop.image = same.crop.image;
        assert_eq!(view, same);
    }
    assert_ne!(all[0].crop, all[1].crop);
}

#[test]
fn under_the_paper_protocol_one_draw_serves_a_batch() {
    let augmentation = SimClrAugmentation::paper(32);
    assert_eq!(augmentation.normalize, None);
    let mut firsts = Vec::new();
    for (step, view) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)] {
        let views = augmentation.draw(key(step, view), &[9, 4, 77, 4], 32, 32);
        for (place, view) in views.iter().enumerate() {
            assert_eq!(view.crop.image, place as u32);
            let mut view = *view;
            view.crop.image = 0;
            assert_eq!(view, views[0]);
        }
        // Another batch of the same step and view is transformed alike too.
        assert_eq!(
            augmentation.draw(key(step, view), &[1], 32, 32)[0],
            views[0]
        );
        assert!(!firsts.contains(&views[0]), "{step}, {view}");
        firsts.push(views[0]);
    }
    // The draws themselves follow the same distributions, over steps.
    let count = 4_000;
    let views: Vec<_> = (0..count)
        .map(|step| augmentation.draw(key(step, 0), &[0], SIDE, SIDE)[0])
        .collect();
    let flips = views.iter().filter(|view| view.crop.flip == 1).count();
    let jittered = views.iter().filter(|view| is_jittered(view)).count();
    assert_rate("flip over steps", flips, views.len(), 0.5);
    assert_rate("jitter over steps", jittered, views.len(), 0.8);
    let turns: Vec<f64> = views
        .iter()
        .filter_map(|v| factor(v, ColorStep::Hue))
        .collect();
    assert_uniform(
        "hue over steps",
        &turns,
        -f64::from(0.2f32),
        f64::from(0.2f32),
    );
}

#[test]
fn padded_crops_are_uniform_over_offsets_and_flip_half_the_time() {
    let samples: Vec<u32> = (0..COUNT).collect();
    let augmentation = PaddedCropAugmentation::default();
    let crops = augmentation.draw(key(9, 0), &samples);
    let mut counts = [0; 81];
    for crop in &crops {
        counts[(crop.top * 9 + crop.left) as usize] += 1;
    }
    assert_even("offsets", &counts);
    let flips = crops.iter().filter(|crop| crop.flip == 1).count();
    assert_rate("flip", flips, crops.len(), 0.5);
    let tops: Vec<f64> = crops.iter().map(|crop| f64::from(crop.top)).collect();
    let flips: Vec<f64> = crops.iter().map(|crop| f64::from(crop.flip)).collect();
    assert_uncorrelated("top and flip", &tops, &flips);
    assert_uncorrelated("tops of neighbours", &tops[1..], &tops[..tops.len() - 1]);
    let later: Vec<f64> = augmentation
        .draw(key(10, 0), &samples)
        .iter()
        .map(|crop| f64::from(crop.top))
        .collect();
    assert_uncorrelated("tops of two steps", &tops, &later);
}
