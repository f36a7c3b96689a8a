//! A network as an ONNX model, which includes the normalisation of its images.

use onnx_rs::ast::{
    Attribute, AttributeType, DataType, Dimension, Graph, Model, Node, OpType, OperatorSetId,
    StringStringEntry, TensorProto, TensorShape, TensorShapeDimension, TensorTypeProto, TypeProto,
    TypeValue, ValueInfo,
};

use super::weights_file::WeightsFile;
use crate::error::{Error, Result};
use crate::nn::{ConvShape, NORM_EPS, ResNetShape, STEM_POOL};

/// The operator set. It has the current form of every operator below.
const OPSET: i64 = 17;
/// The version of the format that belongs to the operator set.
const IR_VERSION: i64 = 8;
/// The longest message that readers of protobuf accept.
const LONGEST_FILE: usize = i32::MAX as usize;
/// Bytes that suffice for everything but the values of the tensors.
const STRUCTURE_BYTES: usize = 1 << 20;

/// The model's input, and its outputs.
pub const IMAGES: &str = "images";
pub const FEATURES: &str = "features";
pub const LOGITS: &str = "logits";

/// What the input is, as the model states it.
const INPUT: &str = "RGB images [N, 3, H, W], float32, pixel values from 0 to 1 (bytes / 255); the \
                     model normalises them as its metadata says";

/// Constants of the normalisation.
const MEAN: &str = "mean";
const STD: &str = "std";

/// An operation. It is named like its result.
struct Layer {
    op: OpType<'static>,
    inputs: Vec<String>,
    result: String,
    attributes: Vec<Attribute<'static>>,
}

/// Returns the bytes of an ONNX file of a network, which maps [`IMAGES`] to [`FEATURES`], and to
/// [`LOGITS`] if it has a classifier. The number and the size of the images are free.
///
/// # Errors
/// `Error::Usage` if the file would be longer than 2 GiB.
pub fn packed(file: &WeightsFile) -> Result<Vec<u8>> {
    let shape = file.config().shape()?;
    let classes = file.origin().classes;
    let layers = layers(&shape, classes.is_some());
    let stored = file.tensors()?;
    let bytes: usize = stored.iter().map(|tensor| tensor.bytes.len()).sum();
    if bytes > LONGEST_FILE - STRUCTURE_BYTES {
        return Err(Error::usage(format!(
            "the weights have {bytes} bytes, and an ONNX file has at most {LONGEST_FILE}; use \
             --format safetensors"
        )));
    }

    let normalization = file.normalization();
    let (mean, std) = normalization.statistics().unwrap_or(([0.0; 3], [1.0; 3]));
    let mut initializer = Vec::from([(MEAN, &mean), (STD, &std)].map(|(name, values)| {
        let per_channel = [1, values.len(), 1, 1];
        tensor(name, &per_channel, bytemuck::cast_slice(values))
    }));
    initializer.extend(stored.iter().map(|t| tensor(&t.name, &t.shape, t.bytes)));

    let [batch, height, width] = ["batch", "height", "width"].map(Dimension::Param);
    let [channels, features] = [3, shape.feature_width].map(fixed);
    let images = ValueInfo {
        doc_string: INPUT,
        ..value(IMAGES, [batch.clone(), channels, height, width])
    };
    let mut output = vec![value(FEATURES, [batch.clone(), features])];
    output.extend(classes.map(|classes| value(LOGITS, [batch, fixed(classes)])));

    let mut about = file.origin().to_map();
    if !file.is_ours() {
        // The rest is unknown.
        about.retain(|key, _| ["arch", "width", "stem"].contains(&key.as_str()));
    }
    about.insert("normalization".to_string(), normalization.to_string());
    about.insert("input".to_string(), INPUT.to_string());
    let about = about.iter();
    let model = Model {
        ir_version: IR_VERSION,
        opset_import: vec![OperatorSetId {
            domain: "",
            version: OPSET,
        }],
        producer_name: env!("CARGO_PKG_NAME"),
        producer_version: env!("CARGO_PKG_VERSION"),
        metadata_props: about
            .map(|(key, value)| StringStringEntry { key, value })
            .collect(),
        graph: Some(Graph {
            name: "resnet",
            node: layers.iter().map(node).collect(),
            initializer,
            input: vec![images],
            output,
            ..Graph::default()
        }),
        ..Model::default()
    };
    Ok(onnx_rs::encode(&model))
}

/// Returns the operations in order.
fn layers(shape: &ResNetShape, has_classifier: bool) -> Vec<Layer> {
    let mut all = Layers(Vec::new());
    let mut x = all.add(OpType::Sub, [IMAGES, MEAN], "centred", vec![]);
    x = all.add(OpType::Div, [&x, STD], "normalized", vec![]);
    x = all.conv_norm(&x, &shape.stem, "bn1");
    x = all.add(OpType::Relu, [&x], "relu", vec![]);
    if shape.stem_pool {
        let pool = vec![
            ints("kernel_shape", [STEM_POOL.kernel; 2]),
            ints("strides", [STEM_POOL.stride; 2]),
            ints("pads", [STEM_POOL.padding; 4]),
        ];
        x = all.add(OpType::MaxPool, [&x], "maxpool", pool);
    }
    for block in &shape.blocks {
        let name = &block.name;
        let shortcut = match &block.downsample {
            Some(conv) => all.conv_norm(&x, conv, &format!("{name}.downsample.1")),
            None => x.clone(),
        };
        for (index, conv) in block.convs.iter().enumerate() {
            let number = index + 1;
            x = all.conv_norm(&x, conv, &format!("{name}.bn{number}"));
            if number == block.convs.len() {
                x = all.add(OpType::Add, [&x, &shortcut], &format!("{name}.add"), vec![]);
            }
            x = all.add(OpType::Relu, [&x], &format!("{name}.relu{number}"), vec![]);
        }
    }
    x = all.add(OpType::GlobalAveragePool, [&x], "avgpool", vec![]);
    x = all.add(OpType::Flatten, [&x], FEATURES, vec![int("axis", 1)]);
    if has_classifier {
        let inputs = [&x, "fc.weight", "fc.bias"];
        all.add(OpType::Gemm, inputs, LOGITS, vec![int("transB", 1)]);
    }
    all.0
}

struct Layers(Vec<Layer>);

impl Layers {
    /// Adds an operation, and returns the name of its result.
    fn add<const N: usize>(
        &mut self,
        op: OpType<'static>,
        inputs: [&str; N],
        result: &str,
        attributes: Vec<Attribute<'static>>,
    ) -> String {
        self.0.push(Layer {
            op,
            inputs: inputs.map(str::to_string).into(),
            result: result.to_string(),
            attributes,
        });
        result.to_string()
    }

    /// Adds a convolution and the batch norm `norm` in evaluation mode.
    fn conv_norm(&mut self, x: &str, conv: &ConvShape, norm: &str) -> String {
        let geometry = vec![
            ints("kernel_shape", [conv.kernel; 2]),
            ints("strides", [conv.stride; 2]),
            ints("pads", [conv.padding; 4]),
        ];
        let weight = format!("{}.weight", conv.name);
        let y = self.add(OpType::Conv, [x, &weight], &conv.name, geometry);
        let [gamma, beta, mean, variance] =
            ["weight", "bias", "running_mean", "running_var"].map(|part| format!("{norm}.{part}"));
        let epsilon = Attribute {
            name: "epsilon",
            r#type: AttributeType::Float,
            f: NORM_EPS,
            ..Attribute::default()
        };
        let inputs = [&y, &gamma, &beta, &mean, &variance].map(String::as_str);
        self.add(OpType::BatchNormalization, inputs, norm, vec![epsilon])
    }
}

fn node(layer: &Layer) -> Node<'_> {
    Node {
        name: &layer.result,
        op_type: layer.op.clone(),
        input: layer.inputs.iter().map(String::as_str).collect(),
        output: vec![&layer.result],
        attribute: layer.attributes.clone(),
        ..Node::default()
    }
}

fn int(name: &'static str, i: i64) -> Attribute<'static> {
    Attribute {
        name,
        r#type: AttributeType::Int,
        i,
        ..Attribute::default()
    }
}

fn ints<const N: usize>(name: &'static str, values: [usize; N]) -> Attribute<'static> {
    Attribute {
        name,
        r#type: AttributeType::Ints,
        ints: values.map(|value| value as i64).into(),
        ..Attribute::default()
    }
}

fn tensor<'a>(name: &'a str, shape: &[usize], bytes: &'a [u8]) -> TensorProto<'a> {
    let dims = shape.iter().map(|&size| size as i64).collect();
    TensorProto::from_raw(name, dims, DataType::Float, bytes)
}

fn fixed(size: usize) -> Dimension<'static> {
    Dimension::Value(size as i64)
}

/// Describes an input or an output of f32.
fn value<'a, const N: usize>(name: &'a str, shape: [Dimension<'a>; N]) -> ValueInfo<'a> {
    let dim = shape.map(|value| TensorShapeDimension {
        value,
        denotation: "",
    });
    let tensor = TensorTypeProto {
        elem_type: DataType::Float,
        shape: Some(TensorShape { dim: dim.into() }),
    };
    ValueInfo {
        name,
        r#type: Some(TypeProto {
            value: Some(TypeValue::Tensor(tensor)),
            denotation: "",
        }),
        ..ValueInfo::default()
    }
}
