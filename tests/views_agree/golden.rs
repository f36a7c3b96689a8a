//! Every transform of `tests/golden/transforms.safetensors`, which torchvision made (see `tests/golden/generate.py`).

use std::collections::HashMap;

use parallax::device::Device;
use parallax::device::kernels::{ColorStep, ColorTransform, PaddedCrop, ResizedCrop};
use parallax::error::{Error, Result};
use parallax::tensor::Tensor;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::compare::{agree, get, put};
use crate::devices;

/// Absolute, on pixels in [0, 1]: torch's own float32 is within 7e-7 of its float64.
const TOLERANCE: f64 = 4e-6;

struct Golden {
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
    parameters: HashMap<String, Value>,
}

impl Golden {
    fn read() -> Self {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/transforms.safetensors"
        );
        let bytes = std::fs::read(path)
            .unwrap_or_else(|error| panic!("{path}: {error}; make it with generate.py"));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let texts = header.metadata().clone().unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        Golden {
            tensors: file
                .tensors()
                .into_iter()
                .map(|(name, view)| {
                    let values = view
                        .data()
                        .chunks_exact(4)
                        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                    (name, (view.shape().to_vec(), values.collect()))
                })
                .collect(),
            parameters: texts
                .into_iter()
                .filter_map(|(name, text)| Some((name, serde_json::from_str(&text).ok()?)))
                .collect(),
        }
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        match &self.parameters[name] {
            Value::Array(values) => values.iter().map(|v| v.as_f64().unwrap()).collect(),
            value => vec![value.as_f64().unwrap()],
        }
    }

    fn image(&self, device: &Device, name: &str) -> Tensor {
        let (shape, values) = &self.tensors[&format!("image.{name}")];
        put(device, values, &[1, shape[0], shape[1], shape[2]])
    }

    /// The transform that a tensor is named after, applied to the image that it names.
    fn make(&self, device: &Device, name: &str) -> Result<Tensor> {
        let words: Vec<&str> = name.split('.').collect();
        let x = self.image(device, words[words.len() - 1]);
        let side = x.shape()[3] as u32;
        let case = |what: &str| format!("{}.{}.{what}", words[0], words[1]);
        let color =
            |steps: &[(ColorStep, f32)]| device.color_transform(&x, &[ColorTransform::new(steps)]);
        match words[0] {
            "chain" => {
                let order = self.parameters[&case("order")].as_array().unwrap();
                let factors = &self.parameters["chain.factors"];
                let steps: Vec<_> = order
                    .iter()
                    .map(|kind| kind.as_str().unwrap())
                    .map(|kind| (step(kind), factors[kind].as_f64().unwrap() as f32))
                    .collect();
                color(&steps)
            }
            "grayscale" => color(&[(ColorStep::Grayscale, 0.0)]),
            "flip" => device.resized_crop(&x, &[crop([0, 0, side, side], 1)], side as usize),
            "normalize" => {
                let three = |name| {
                    let values = self.numbers(name);
                    [values[0] as f32, values[1] as f32, values[2] as f32]
                };
                device.normalize(&x, three("normalize.mean"), three("normalize.std"))
            }
            "rot90" => device.rotate90(&x, &[words[1].parse().unwrap()]),
            "pad_crop" => {
                let offset = self.numbers(&case("offset"));
                let crop = PaddedCrop {
                    top: offset[0] as u32,
                    left: offset[1] as u32,
                    flip: 0,
                };
                device.padded_crop(&x, 4, &[crop])
            }
            "crop32" | "crop96" => {
                let corner = self.numbers(&case("box"));
                let corner = [0, 1, 2, 3].map(|i| corner[i] as u32);
                device.resized_crop(&x, &[crop(corner, 0)], 32)
            }
            kind => color(&[(step(kind), self.numbers(&case("factor"))[0] as f32)]),
        }
    }
}

fn step(kind: &str) -> ColorStep {
    match kind {
        "brightness" => ColorStep::Brightness,
        "contrast" => ColorStep::Contrast,
        "saturation" => ColorStep::Saturation,
        "hue" => ColorStep::Hue,
        _ => panic!("{kind} is no transform"),
    }
}

fn crop([top, left, height, width]: [u32; 4], flip: u32) -> ResizedCrop {
    ResizedCrop {
        image: 0,
        top,
        left,
        height,
        width,
        flip,
    }
}

#[test]
fn every_transform_equals_torchvision() {
    let golden = Golden::read();
    let mut names: Vec<_> = golden
        .tensors
        .keys()
        .filter(|name| !name.starts_with("image."))
        .collect();
    names.sort();
    // 2 images x (10 colour changes + grey + 2 chains), and flip, normalize, 4 rotations, 3 + 5 + 5 crops.
    assert!(names.len() >= 45, "{names:?}");
    for (device_name, device) in devices::all() {
        for name in &names {
            let case = format!("{name} on {device_name}");
            let y = match golden.make(&device, name) {
                Err(Error::Device { .. })
                    if device_name == "gpu with small bindings" && name.ends_with("large") =>
                {
                    continue; // One image is more than this device binds at once.
                }
                y => y.unwrap_or_else(|error| panic!("{case}: {error}")),
            };
            let (shape, expected) = &golden.tensors[*name];
            assert_eq!(y.shape()[1..], shape[..], "{case}");
            let expected: Vec<f64> = expected.iter().copied().map(f64::from).collect();
            // Normalisation divides pixels by a fifth.
            let scale = if name.starts_with("normalize") {
                5.0
            } else {
                1.0
            };
            agree(&case, &get(&device, &y), &expected, |_| scale * TOLERANCE);
        }
    }
}
