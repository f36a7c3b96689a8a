//! `shapes`: 32 x 32 images of ten classes that the program draws itself, so that every command
//! runs without a download.
//!
//! An image shows several copies of its class's shape, each with a position, size, rotation,
//! colours and texture of its own, over a textured background with lines and meaningless specks.
//! The class depends neither on position nor on colour, so a linear classifier on raw pixels stays
//! near chance. A random crop still shows the class, so a network can learn it without labels.
//!
//! Drawing uses only additions, multiplications, divisions, roots and floors in f32, which IEEE 754
//! fixes to the bit, and no sine or cosine. The bytes are therefore the same on every platform.

mod motif;

use super::{Dataset, Images, Split};
use crate::error::Result;
use crate::philox::Philox;
use motif::{MOTIFS, Motif, REACH};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const CLASSES: u32 = MOTIFS.len() as u32;
const TRAIN: u32 = 4_000;
const TEST: u32 = 1_000;
/// The inverted set: numbers of images, and the side of their centre crop.
const INVERTED_TRAIN: u32 = 2_000;
const INVERTED_TEST: u32 = 500;
const INVERTED_SIDE: usize = 24;

/// Saturation of colours, as a fraction of that of a random colour.
const SATURATION: f32 = 0.4;

/// Keeps this stream of random numbers apart from those of other purposes.
const PURPOSE: u32 = u32::from_le_bytes(*b"shap");

/// Samples per pixel along each axis, for smooth edges.
const SAMPLES: usize = 3;
/// Maximum copies of the shape per image; fewer if there is no room.
const COPIES: u32 = 12;
/// Minimum and maximum radius of a copy in pixels.
const RADIUS: (f32, f32) = (3.0, 5.0);

/// The 4,000 training and 1,000 test images of `seed`; image i has the class i mod 10.
pub fn generate(seed: u64) -> Result<Dataset> {
    let classes = MOTIFS.iter().map(|motif| motif.name.to_string()).collect();
    let train = split(seed, 0, TRAIN, (DARK, LIGHT));
    let test = split(seed, 1, TEST, (DARK, LIGHT));
    Dataset::new("shapes".to_string(), classes, train, test, None)
}

/// Other images with the same classes: dark shapes on a light background, 2,000 training and 500
/// test images of 24 x 24 pixels.
pub fn generate_inverted(seed: u64) -> Result<Dataset> {
    let classes = MOTIFS.iter().map(|motif| motif.name.to_string()).collect();
    let train = middle(&split(seed, 2, INVERTED_TRAIN, (LIGHT, DARK)))?;
    let test = middle(&split(seed, 3, INVERTED_TEST, (LIGHT, DARK)))?;
    Dataset::new("shapes-inverted".to_string(), classes, train, test, None)
}

/// The centre crop of every image.
fn middle(split: &Split) -> Result<Split> {
    let margin = (SIDE - INVERTED_SIDE) / 2;
    let pixels = split.pixels()?;
    let rows = pixels.chunks_exact(SIDE).enumerate();
    let kept = rows.filter(|(row, _)| (margin..margin + INVERTED_SIDE).contains(&(row % SIDE)));
    let kept = kept.flat_map(|(_, row)| &row[margin..margin + INVERTED_SIDE]);
    Ok(Split {
        images: Images::Held(kept.copied().collect()),
        labels: split.labels.clone(),
        files: Vec::new(),
        height: INVERTED_SIDE,
        width: INVERTED_SIDE,
    })
}

fn split(seed: u64, which: u32, count: u32, tones: (Tone, Tone)) -> Split {
    let mut images = Vec::with_capacity(count as usize * 3 * PLANE);
    let mut labels = Vec::with_capacity(count as usize);
    for index in 0..count {
        let label = index % CLASSES;
        let canvas = draw(
            &MOTIFS[label as usize],
            &mut Philox::new(seed, [which, index, PURPOSE]),
            tones,
        );
        for channel in 0..3 {
            images.extend(
                canvas
                    .iter()
                    .map(|pixel| (pixel[channel] * 255.0 + 0.5) as u8),
            );
        }
        labels.push(label);
    }
    Split {
        images: images.into(),
        labels: Some(labels),
        files: Vec::new(),
        height: SIDE,
        width: SIDE,
    }
}

/// Red, green and blue in [0, 1].
type Colour = [f32; 3];

/// A lightness range of colours, as luma.
#[derive(Clone, Copy)]
struct Tone(f32, f32);

const DARK: Tone = Tone(0.02, 0.28);
const MIDDLE: Tone = Tone(0.35, 0.55);
const LIGHT: Tone = Tone(0.65, 0.98);

/// Draws one image. The tones of its background and its shapes are far apart, so that the contrast
/// remains in a grey image.
fn draw(motif: &Motif, rng: &mut Philox, (ground, figure): (Tone, Tone)) -> Vec<Colour> {
    let mut canvas = background(rng, ground);

    for _ in 0..rng.below(3) {
        let line = Patch {
            centre: (rng.uniform(4.0, 28.0), rng.uniform(4.0, 28.0)),
            axis: direction(rng),
            radius: 1.0,
        };
        let fill = Fill::solid(colour(rng, MIDDLE));
        line.paint(&mut canvas, &fill, 64.0, |_, y| y.abs() < 0.4);
    }
    for _ in 0..2 + rng.below(4) {
        let speck = Patch {
            centre: (rng.uniform(0.0, 32.0), rng.uniform(0.0, 32.0)),
            axis: (1.0, 0.0),
            radius: rng.uniform(0.7, 1.4),
        };
        let fill = Fill::solid(colour(rng, figure));
        speck.paint(&mut canvas, &fill, 1.0, |x, y| x * x + y * y < 1.0);
    }

    for copy in place(rng) {
        let first = colour(rng, figure);
        let second = mix(first, colour(rng, figure), 0.5);
        let fill = Fill::random(rng, [first, second]);
        copy.paint(&mut canvas, &fill, REACH, motif.contains);
    }
    canvas
}

/// A field of colours that changes from corner to corner, with a faint texture. Two crops of it
/// rarely have the same colours, so colours do not identify an image.
fn background(rng: &mut Philox, tone: Tone) -> Vec<Colour> {
    let corners = [(); 4].map(|()| colour(rng, tone));
    let shade = rng.uniform(0.8, 1.0);
    let texture = Fill::random(rng, [[1.0; 3], [shade; 3]]);
    let axis = direction(rng);
    let mut canvas = Vec::with_capacity(PLANE);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let (x, y) = (
                column as f32 / (SIDE - 1) as f32,
                row as f32 / (SIDE - 1) as f32,
            );
            let (dx, dy) = (2.0 * x - 1.0, 2.0 * y - 1.0);
            let shade = texture.at(axis.0 * dx + axis.1 * dy, axis.0 * dy - axis.1 * dx);
            let top = mix(corners[0], corners[1], x);
            let bottom = mix(corners[2], corners[3], x);
            let smooth = mix(top, bottom, y);
            canvas.push([0, 1, 2].map(|channel| smooth[channel] * shade[channel]));
        }
    }
    canvas
}

/// Places the copies: each at the first random position that does not touch another copy.
fn place(rng: &mut Philox) -> Vec<Patch> {
    let mut placed: Vec<Patch> = Vec::new();
    for _ in 0..COPIES {
        let radius = rng.uniform(RADIUS.0, RADIUS.1);
        for _ in 0..20 {
            let centre = (rng.uniform(2.0, 30.0), rng.uniform(2.0, 30.0));
            let free = placed.iter().all(|other| {
                let (dx, dy) = (centre.0 - other.centre.0, centre.1 - other.centre.1);
                let gap = 1.05 * (radius + other.radius);
                dx * dx + dy * dy > gap * gap
            });
            if free {
                placed.push(Patch {
                    centre,
                    axis: tilt(rng),
                    radius,
                });
                break;
            }
        }
    }
    placed
}

/// A region of the canvas with its own coordinates: origin at `centre`, x along `axis`, `radius`
/// pixels per unit.
struct Patch {
    centre: (f32, f32),
    axis: (f32, f32),
    radius: f32,
}

impl Patch {
    /// Paints the points that are `inside` with `fill`. They are less than `reach` from the origin.
    /// A pixel becomes the mean of its samples.
    fn paint(
        &self,
        canvas: &mut [Colour],
        fill: &Fill,
        reach: f32,
        inside: impl Fn(f32, f32) -> bool,
    ) {
        let reach = reach * self.radius;
        let range = |centre: f32| {
            let end = (centre + reach + 1.0).clamp(0.0, SIDE as f32) as usize;
            (centre - reach).clamp(0.0, SIDE as f32) as usize..end
        };
        let scale = 1.0 / self.radius;
        let share = 1.0 / (SAMPLES * SAMPLES) as f32;
        for row in range(self.centre.1) {
            for column in range(self.centre.0) {
                let mut sum = [0.0f32; 3];
                let mut hits = 0;
                for sample in 0..SAMPLES * SAMPLES {
                    let offset = |i: usize| (i as f32 + 0.5) / SAMPLES as f32;
                    let dx = column as f32 + offset(sample % SAMPLES) - self.centre.0;
                    let dy = row as f32 + offset(sample / SAMPLES) - self.centre.1;
                    let x = (self.axis.0 * dx + self.axis.1 * dy) * scale;
                    let y = (self.axis.0 * dy - self.axis.1 * dx) * scale;
                    if inside(x, y) {
                        hits += 1;
                        let colour = fill.at(x, y);
                        for channel in 0..3 {
                            sum[channel] += colour[channel];
                        }
                    }
                }
                let kept = (SAMPLES * SAMPLES - hits) as f32 * share;
                let pixel = &mut canvas[row * SIDE + column];
                for channel in 0..3 {
                    pixel[channel] = pixel[channel] * kept + sum[channel] * share;
                }
            }
        }
    }
}

/// Two colours, and their texture on a patch.
struct Fill {
    texture: Texture,
    colours: [Colour; 2],
    /// Repetitions per unit of length.
    frequency: f32,
    phase: f32,
}

enum Texture {
    Solid,
    Gradient,
    Stripes,
    Checks,
    Dots,
}

impl Fill {
    fn solid(colour: Colour) -> Self {
        Fill {
            texture: Texture::Solid,
            colours: [colour; 2],
            frequency: 1.0,
            phase: 0.0,
        }
    }

    fn random(rng: &mut Philox, colours: [Colour; 2]) -> Self {
        let texture = match rng.below(5) {
            0 => Texture::Solid,
            1 => Texture::Gradient,
            2 => Texture::Stripes,
            3 => Texture::Checks,
            _ => Texture::Dots,
        };
        Fill {
            texture,
            colours,
            frequency: rng.uniform(1.0, 3.0),
            phase: rng.unit(),
        }
    }

    /// The colour at (x, y) in the patch's coordinates.
    fn at(&self, x: f32, y: f32) -> Colour {
        let cell = |v: f32| v * self.frequency + self.phase;
        let odd = |v: f32| (v.floor() * 0.5).fract() != 0.0;
        let from_centre = |v: f32| v - v.floor() - 0.5;
        let second = match self.texture {
            Texture::Solid => false,
            Texture::Gradient => {
                let t = (0.5 + 0.5 * x).clamp(0.0, 1.0);
                let [a, b] = self.colours;
                return mix(a, b, t);
            }
            Texture::Stripes => odd(cell(x)),
            Texture::Checks => odd(cell(x)) != odd(cell(y)),
            Texture::Dots => {
                let (u, v) = (from_centre(cell(x)), from_centre(cell(y)));
                u * u + v * v < 0.09
            }
        };
        self.colours[usize::from(second)]
    }
}

/// Interpolates from `a` (`t` = 0) to `b` (`t` = 1).
fn mix(a: Colour, b: Colour, t: f32) -> Colour {
    [0, 1, 2].map(|channel| a[channel] + (b[channel] - a[channel]) * t)
}

/// A random colour whose luma is in `tone`.
fn colour(rng: &mut Philox, tone: Tone) -> Colour {
    loop {
        let colour = [rng.unit(), rng.unit(), rng.unit()];
        let luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2];
        if (tone.0..tone.1).contains(&luma) {
            return mix([luma; 3], colour, SATURATION);
        }
    }
}

/// A unit vector near (1, 0): up to 15 degrees to either side.
fn tilt(rng: &mut Philox) -> (f32, f32) {
    let slope = rng.uniform(-0.27, 0.27);
    let scale = 1.0 / (1.0 + slope * slope).sqrt();
    (scale, slope * scale)
}

/// A unit vector of uniform direction, without a sine: a point of the disc, scaled to length 1.
fn direction(rng: &mut Philox) -> (f32, f32) {
    loop {
        let (x, y) = (rng.uniform(-1.0, 1.0), rng.uniform(-1.0, 1.0));
        let squared = x * x + y * y;
        if (0.01..1.0).contains(&squared) {
            let scale = 1.0 / squared.sqrt();
            return (x * scale, y * scale);
        }
    }
}
