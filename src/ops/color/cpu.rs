//! Colour changes: one task per image.

use super::{ColorStep, ColorTransforms};
use crate::device::cpu::parallel::for_chunks;
use crate::device::{Cpu, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;

impl RunOn<Cpu> for ColorTransforms<'_> {
    fn run(&self, cpu: &Cpu, [_, _, h, w]: [usize; 4]) -> Result<Tensor> {
        let source = cpu.read(self.x)?;
        let mut y = cpu.allocate(source.len());
        y.copy_from_slice(&source);
        for_chunks(&mut y, 3 * h * w, |index, image| {
            let (red, rest) = image.split_at_mut(h * w);
            let (green, blue) = rest.split_at_mut(h * w);
            let mut image = Image { red, green, blue };
            let transform = self.transforms[index];
            for (step, factor) in transform.steps.into_iter().zip(transform.factors) {
                image.change(step, factor);
            }
        });
        Ok(cpu.floats(self.x.shape(), y))
    }
}

/// The three planes of one image.
struct Image<'a> {
    red: &'a mut [f32],
    green: &'a mut [f32],
    blue: &'a mut [f32],
}

impl Image<'_> {
    fn change(&mut self, step: u32, factor: f32) {
        const BRIGHTNESS: u32 = ColorStep::Brightness as u32;
        const CONTRAST: u32 = ColorStep::Contrast as u32;
        const SATURATION: u32 = ColorStep::Saturation as u32;
        const HUE: u32 = ColorStep::Hue as u32;
        const GRAYSCALE: u32 = ColorStep::Grayscale as u32;
        match step {
            BRIGHTNESS => self.each_pixel(|pixel| pixel.map(|value| clamp(factor * value))),
            CONTRAST => {
                let gray = self.mean_luma();
                self.each_pixel(|pixel| pixel.map(|value| blend(factor, value, gray)));
            }
            SATURATION => self.each_pixel(|pixel| {
                let gray = luma(pixel);
                pixel.map(|value| blend(factor, value, gray))
            }),
            HUE => self.each_pixel(|pixel| {
                let [hue, saturation, value] = rgb_to_hsv(pixel);
                let turned = hue + factor;
                hsv_to_rgb([turned - turned.floor(), saturation, value])
            }),
            GRAYSCALE => self.each_pixel(|pixel| [luma(pixel); 3]),
            _ => {}
        }
    }

    fn each_pixel(&mut self, change: impl Fn([f32; 3]) -> [f32; 3]) {
        let rest = self.green.iter_mut().zip(self.blue.iter_mut());
        for (red, (green, blue)) in self.red.iter_mut().zip(rest) {
            [*red, *green, *blue] = change([*red, *green, *blue]);
        }
    }

    /// The mean luma of the image, summed in float64.
    fn mean_luma(&self) -> f32 {
        let rest = self.green.iter().zip(self.blue.iter());
        let sum: f64 = (self.red.iter().zip(rest))
            .map(|(&red, (&green, &blue))| f64::from(luma([red, green, blue])))
            .sum();
        (sum / self.red.len() as f64) as f32
    }
}

fn clamp(value: f32) -> f32 {
    value.clamp(0.0, 1.0)
}

fn blend(factor: f32, value: f32, other: f32) -> f32 {
    clamp(factor * value + (1.0 - factor) * other)
}

fn luma([red, green, blue]: [f32; 3]) -> f32 {
    0.2989 * red + 0.587 * green + 0.114 * blue
}

/// Hue in turns, saturation and value, each in [0, 1]. The hue of a grey is 0.
fn rgb_to_hsv([red, green, blue]: [f32; 3]) -> [f32; 3] {
    let value = red.max(green).max(blue);
    let range = value - red.min(green).min(blue);
    if range == 0.0 {
        return [0.0, 0.0, value];
    }
    // In sixths of a turn from red.
    let sixths = if value == red {
        (green - blue) / range
    } else if value == green {
        2.0 + (blue - red) / range
    } else {
        4.0 + (red - green) / range
    };
    let hue = sixths / 6.0;
    [hue - hue.floor(), range / value, value]
}

fn hsv_to_rgb([hue, saturation, value]: [f32; 3]) -> [f32; 3] {
    let sector = (6.0 * hue).floor();
    let within = 6.0 * hue - sector;
    let low = clamp(value * (1.0 - saturation));
    let falling = clamp(value * (1.0 - saturation * within));
    let rising = clamp(value * (1.0 - saturation * (1.0 - within)));
    // A hue that was rounded up to 1 has sector 6, which equals sector 0.
    match sector as u32 % 6 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}
