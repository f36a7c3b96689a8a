//! Every transform of `tests/golden/transforms.safetensors`, which torchvision computed (see
//! `tests/golden/generate.py`).

use std::collections::HashMap;

use safetensors::SafeTensors;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::ops::{
    ColorStep, ColorTransform, ColorTransforms, GaussianBlur, Normalize, PaddedCrop, PaddedCrops,
    ResizedCrop, ResizedCrops, Rotate90,
};
use crate::testing::{agree, devices, put};
use crate::{Device, Tensor};

/// Absolute, on pixels in [0, 1]. The float32 of torch is within 7e-7 of its float64.
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
        let (_, header) = SafeTensors::read_metadata(&bytes).expect(path);
        let texts = header.metadata().clone().expect(path);
        let file = SafeTensors::deserialize(&bytes).expect(path);
        Golden {
            tensors: file
                .tensors()
                .into_iter()
                .map(|(name, view)| {
                    let values = bytemuck::pod_collect_to_vec(view.data());
                    (name, (view.shape().to_vec(), values))
                })
                .collect(),
            parameters: texts
                .into_iter()
                .filter_map(|(name, text)| Some((name, serde_json::from_str(&text).ok()?)))
                .collect(),
        }
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        let number = |value: &Value| value.as_f64().expect(name);
        match &self.parameters[name] {
            Value::Array(values) => values.iter().map(number).collect(),
            value => vec![number(value)],
        }
    }

    fn image(&self, device: &Device, name: &str) -> Tensor {
        let (shape, values) = &self.tensors[&format!("image.{name}")];
        put(device, values, &[1, shape[0], shape[1], shape[2]])
    }

    /// Applies the transform after which a tensor is named to the image after which it is named.
    fn transformed(&self, device: &Device, name: &str) -> Result<Tensor> {
        let words: Vec<&str> = name.split('.').collect();
        let x = &self.image(device, words[words.len() - 1]);
        let side = x.shape()[3] as u32;
        let case = |what: &str| format!("{}.{}.{what}", words[0], words[1]);
        let color = |steps: &[(ColorStep, f32)]| {
            let transforms = &[ColorTransform::new(steps)];
            device.run(ColorTransforms { x, transforms })
        };
        let resize = |crop, size| {
            let crops = &[crop];
            device.run(ResizedCrops { x, crops, size })
        };
        match words[0] {
            "chain" => {
                let factors = &self.parameters["chain.factors"];
                let parse = |kind: &Value| {
                    let kind = kind.as_str()?;
                    Some((step(kind), factors[kind].as_f64()? as f32))
                };
                let order = self.parameters[&case("order")].as_array();
                let steps: Option<Vec<_>> = order.expect(name).iter().map(parse).collect();
                color(&steps.expect(name))
            }
            "grayscale" => color(&[(ColorStep::Grayscale, 0.0)]),
            "flip" => resize(crop([0, 0, side, side], 1), side as usize),
            "normalize" => {
                let three = |name| {
                    let values = self.numbers(name);
                    [values[0] as f32, values[1] as f32, values[2] as f32]
                };
                let (mean, std) = (three("normalize.mean"), three("normalize.std"));
                device.run(Normalize { x, mean, std })
            }
            "blur" => {
                let sigmas = &[self.numbers(&case("sigma"))[0] as f32];
                let kernel_size = self.numbers(&case("kernel"))[0] as usize;
                device.run(GaussianBlur {
                    x,
                    kernel_size,
                    sigmas,
                })
            }
            "rot90" => {
                let quarter_turns = &[words[1].parse().expect(name)];
                device.run(Rotate90 { x, quarter_turns })
            }
            "pad_crop" => {
                let offset = self.numbers(&case("offset"));
                let crops = &[PaddedCrop {
                    top: offset[0] as u32,
                    left: offset[1] as u32,
                    flip: 0,
                }];
                let padding = 4;
                device.run(PaddedCrops { x, padding, crops })
            }
            "crop32" | "crop96" => {
                let corner = self.numbers(&case("box"));
                resize(crop([0, 1, 2, 3].map(|i| corner[i] as u32), 0), 32)
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
fn every_transform_agrees_with_torchvision() {
    let golden = Golden::read();
    let mut names: Vec<_> = golden
        .tensors
        .keys()
        .filter(|name| !name.starts_with("image."))
        .collect();
    names.sort();
    // 2 images x (10 colour changes + grey + 2 chains + 5 blurs), flip, normalize, 4 turns, 3 + 5 +
    // 5 crops.
    assert!(names.len() >= 55, "{names:?}");
    for (device_name, device) in devices::all() {
        for name in &names {
            let case = format!("{name} on {device_name}");
            let y = match golden.transformed(&device, name) {
                // One large image is more than this device binds at once.
                Err(Error::Device { .. })
                    if device_name == devices::SLICED && name.ends_with("large") =>
                {
                    continue;
                }
                y => y.unwrap_or_else(|error| panic!("{case}: {error}")),
            };
            let (shape, expected) = &golden.tensors[*name];
            // Normalisation divides pixels by a fifth.
            let scale = if name.starts_with("normalize") {
                5.0
            } else {
                1.0
            };
            let shape = [1, shape[0], shape[1], shape[2]];
            let expected = super::within(expected, scale * TOLERANCE);
            agree(&case, &y, &shape, &expected);
        }
    }
}
