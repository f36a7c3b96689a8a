//! The operators of an exported ONNX model as plain loops, by their definitions in ONNX.

use std::collections::HashMap;

use onnx_rs::ast::{Graph, Node, OpType};

/// A tensor of f32, row-major.
#[derive(Clone)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Computes every result of `graph` for the input `images`, by name.
pub fn evaluate(graph: &Graph<'_>, images: Array) -> HashMap<String, Array> {
    let stored = graph.initializer.iter().map(|tensor| {
        let shape = tensor.dims().iter().map(|&size| size as usize).collect();
        let values = tensor.as_f32().expect("it is f32").into_owned();
        (tensor.name().to_string(), Array { shape, values })
    });
    let mut known: HashMap<String, Array> = stored.collect();
    known.insert(graph.input[0].name.to_string(), images);
    for node in &graph.node {
        let inputs: Vec<&Array> = node.input.iter().map(|name| &known[*name]).collect();
        let y = apply(node, &inputs);
        let size: usize = y.shape.iter().product();
        assert_eq!(y.values.len(), size, "{}", node.name);
        assert!(known.insert(node.output[0].to_string(), y).is_none());
    }
    known
}

fn apply(node: &Node<'_>, inputs: &[&Array]) -> Array {
    let x = inputs[0];
    match node.op_type {
        OpType::Sub => per_channel(x, |c, x| x - inputs[1].values[c]),
        OpType::Div => per_channel(x, |c, x| x / inputs[1].values[c]),
        OpType::Relu => per_channel(x, |_, x| x.max(0.0)),
        OpType::BatchNormalization => {
            let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|i| &inputs[i].values);
            let epsilon = node.attribute.iter().find(|a| a.name == "epsilon");
            let epsilon = epsilon.expect("it has one").f;
            per_channel(x, |c, x| {
                (x - mean[c]) / (variance[c] + epsilon).sqrt() * gamma[c] + beta[c]
            })
        }
        OpType::Add => {
            assert_eq!(x.shape, inputs[1].shape);
            let pairs = x.values.iter().zip(&inputs[1].values);
            Array {
                shape: x.shape.clone(),
                values: pairs.map(|(a, b)| a + b).collect(),
            }
        }
        OpType::Conv => {
            let [outputs, channels, ..] = inputs[1].shape[..] else {
                panic!("a kernel has four axes");
            };
            let size: usize = inputs[1].shape[1..].iter().product();
            let kernel = |o: usize| &inputs[1].values[o * size..(o + 1) * size];
            windows(node, x, outputs, |image, o, taps| {
                let area = size / channels;
                taps.iter().fold(0.0, |sum, &(tap, at)| {
                    (0..channels).fold(sum, |sum, c| {
                        sum + kernel(o)[c * area + tap] * image[c * image.len() / channels + at]
                    })
                })
            })
        }
        OpType::MaxPool => windows(node, x, x.shape[1], |image, c, taps| {
            let plane = image.len() / x.shape[1];
            let values = taps.iter().map(|&(_, at)| image[c * plane + at]);
            values.fold(f32::NEG_INFINITY, f32::max)
        }),
        OpType::GlobalAveragePool => {
            let plane = x.shape[2] * x.shape[3];
            let mean = |values: &[f32]| values.iter().sum::<f32>() / plane as f32;
            Array {
                shape: vec![x.shape[0], x.shape[1], 1, 1],
                values: x.values.chunks_exact(plane).map(mean).collect(),
            }
        }
        OpType::Flatten => Array {
            shape: vec![x.shape[0], x.shape[1..].iter().product()],
            values: x.values.clone(),
        },
        OpType::Gemm => {
            assert_eq!(ints(node, "transB"), [1]);
            let [weight, bias] = [inputs[1], inputs[2]];
            let rows = x.values.chunks_exact(x.shape[1]);
            let values = rows.flat_map(|row| {
                let weights = weight.values.chunks_exact(x.shape[1]);
                weights.zip(&bias.values).map(move |(weights, bias)| {
                    weights.iter().zip(row).map(|(w, x)| w * x).sum::<f32>() + bias
                })
            });
            Array {
                shape: vec![x.shape[0], weight.shape[0]],
                values: values.collect(),
            }
        }
        ref other => panic!("{other} is not expected in a ResNet"),
    }
}

/// Maps each value with its channel, the second axis.
fn per_channel(x: &Array, f: impl Fn(usize, f32) -> f32) -> Array {
    let plane: usize = x.shape[2..].iter().product();
    let channel = |i: usize| i / plane % x.shape[1];
    let values = x.values.iter().enumerate();
    Array {
        shape: x.shape.clone(),
        values: values.map(|(i, &x)| f(channel(i), x)).collect(),
    }
}

/// The result of a convolution or pool. `f` gets an image, the output channel, and the elements of
/// the window that are inside the image: each with its place in the kernel, and its place in a
/// plane of the image.
fn windows(
    node: &Node<'_>,
    x: &Array,
    outputs: usize,
    f: impl Fn(&[f32], usize, &[(usize, usize)]) -> f32,
) -> Array {
    let [images, _, height, width] = x.shape[..] else {
        panic!("images have four axes");
    };
    let [side, stride, padding] =
        ["kernel_shape", "strides", "pads"].map(|name| ints(node, name)[0] as usize);
    let results = |size: usize| (size + 2 * padding - side) / stride + 1;
    let [rows, columns] = [height, width].map(results);
    let mut values = Vec::new();
    for image in x.values.chunks_exact(x.values.len() / images) {
        for output in 0..outputs {
            for (row, column) in (0..rows * columns).map(|i| (i / columns, i % columns)) {
                let taps = (0..side * side).filter_map(|tap| {
                    let y = (row * stride + tap / side).checked_sub(padding)?;
                    let x = (column * stride + tap % side).checked_sub(padding)?;
                    (y < height && x < width).then_some((tap, y * width + x))
                });
                values.push(f(image, output, &taps.collect::<Vec<_>>()));
            }
        }
    }
    Array {
        shape: vec![images, outputs, rows, columns],
        values,
    }
}

/// The numbers of an attribute, which are all the same in the models here.
fn ints(node: &Node<'_>, name: &str) -> Vec<i64> {
    let mut attributes = node.attribute.iter();
    let attribute = attributes.find(|attribute| attribute.name == name);
    let attribute = attribute.unwrap_or_else(|| panic!("{} has no {name}", node.name));
    match attribute.ints.is_empty() {
        true => vec![attribute.i],
        false => attribute.ints.clone(),
    }
}
