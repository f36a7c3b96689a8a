//! Files of weights as other programs write them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};

/// A tensor of a file.
#[derive(Clone)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub dtype: Dtype,
    pub bytes: Vec<u8>,
}

/// The tensors of a file, by name.
pub type StateDict = BTreeMap<String, Tensor>;

/// A tensor of F32.
pub fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor {
        shape: shape.to_vec(),
        dtype: Dtype::F32,
        bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// A tensor of small numbers that differ from each other.
pub fn noise(name: &str, shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let inputs: usize = shape[1..].iter().product();
    let scale = (2.0 / inputs.max(1) as f32).sqrt();
    let mut state = name.bytes().fold(7u32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        scale * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    let values: Vec<f32> = (0..count).map(|_| draw()).collect();
    tensor(shape, &values)
}

/// torchvision's ResNets with one of these numbers of blocks, `width` channels for 64, and the stem
/// for small images. Three convolutions per block make a bottleneck.
pub fn resnet(blocks: [usize; 4], convs: usize, width: usize) -> StateDict {
    let mut all = StateDict::new();
    let mut layer = |conv: String, norm: String, shape: [usize; 4]| {
        let name = format!("{conv}.weight");
        all.insert(name.clone(), noise(&name, &shape));
        for (part, value) in [
            ("weight", 1.0),
            ("bias", 0.0),
            ("running_mean", 0.0),
            ("running_var", 1.0),
        ] {
            let values = vec![value; shape[0]];
            all.insert(format!("{norm}.{part}"), tensor(&shape[..1], &values));
        }
    };
    layer("conv1".to_string(), "bn1".to_string(), [width, 3, 3, 3]);
    let mut inputs = width;
    for (stage, count) in blocks.into_iter().enumerate() {
        let inner = width << stage;
        for block in 0..count {
            let name = format!("layer{}.{block}", stage + 1);
            let outputs = if convs == 3 { 4 * inner } else { inner };
            let mut from = inputs;
            for conv in 1..=convs {
                let to = if conv == convs { outputs } else { inner };
                let side = if convs == 3 && conv != 2 { 1 } else { 3 };
                layer(
                    format!("{name}.conv{conv}"),
                    format!("{name}.bn{conv}"),
                    [to, from, side, side],
                );
                from = to;
            }
            if inputs != outputs {
                layer(
                    format!("{name}.downsample.0"),
                    format!("{name}.downsample.1"),
                    [outputs, inputs, 1, 1],
                );
            }
            inputs = outputs;
        }
    }
    all
}

/// ResNet-18 of the width 0.0625.
pub fn resnet18() -> StateDict {
    resnet([2, 2, 2, 2], 2, 4)
}

/// The same tensors under other names.
pub fn renamed(tensors: &StateDict, name: impl Fn(&str) -> String) -> StateDict {
    let entries = tensors.iter();
    entries
        .map(|(old, tensor)| (name(old), tensor.clone()))
        .collect()
}

/// The same tensors under a prefix.
pub fn prefixed(prefix: &str, tensors: &StateDict) -> StateDict {
    renamed(tensors, |name| format!("{prefix}{name}"))
}

/// The names of `nn.Sequential` of a network's parts, where conv1, bn1 and the stages have these
/// numbers.
pub fn numbered(tensors: &StateDict, numbers: [usize; 6]) -> StateDict {
    let parts = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"];
    renamed(tensors, |name| {
        let (part, rest) = name.split_once('.').unwrap();
        let index = parts.iter().position(|known| *known == part).unwrap();
        format!("{}.{rest}", numbers[index])
    })
}

/// The same values in another type.
pub fn converted(tensors: &StateDict, dtype: Dtype) -> StateDict {
    let convert = |x: f32| -> Vec<u8> {
        match dtype {
            Dtype::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
            Dtype::BF16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
            Dtype::F64 => f64::from(x).to_le_bytes().to_vec(),
            other => panic!("no conversion to {other}"),
        }
    };
    let entries = tensors.iter().map(|(name, tensor)| {
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&tensor.bytes);
        let bytes = values.into_iter().flat_map(convert).collect();
        let shape = tensor.shape.clone();
        (
            name.clone(),
            Tensor {
                shape,
                dtype,
                bytes,
            },
        )
    });
    entries.collect()
}

/// The bytes of a file with these tensors, and no metadata.
pub fn bytes(tensors: &StateDict) -> Vec<u8> {
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
        (name, view.expect("its shape fits"))
    });
    serialize(views, None).expect("it can be packed")
}

pub fn write(path: &Path, tensors: &StateDict) {
    fs::write(path, bytes(tensors)).unwrap();
}
