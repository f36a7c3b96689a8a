// Softmax cross-entropy of logits [N, K] with labels as indices.
//
//   cross_entropy           log_sum_exp_i = log sum_j exp(logits_ij)
//                           losses_i = log_sum_exp_i - logits_i,label
//   cross_entropy_backward  dlogits_ij = dloss (exp(logits_ij - log_sum_exp_i) - [j = label_i]) / N
//
// Forward: one workgroup of 64 per row. The sum is relative to the maximum of the row. A label that
// is not a class makes the loss NaN. Backward: one element per invocation. Bindings contain some of
// the rows, after row_offset (labels, log_sum_exp, losses) or offset (logits) elements.

#import grid
#import reduce64

struct Params {
    rows: u32,
    classes: u32,
    offset: u32,
    row_offset: u32,
    // The number of rows of the whole batch.
    all_rows: f32,
    // The bits of a NaN, since WGSL has no literal for it.
    nan_bits: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read> log_sum_exp: array<f32>;
@group(0) @binding(4) var<storage, read> dloss: array<f32>;
@group(0) @binding(5) var<storage, read_write> new_log_sum_exp: array<f32>;
@group(0) @binding(6) var<storage, read_write> losses: array<f32>;
@group(0) @binding(7) var<storage, read_write> dlogits: array<f32>;

@compute @workgroup_size(64)
fn cross_entropy(at: Invocation) {
    // Workgroups beyond the last row repeat it and store nothing.
    let row = min(workgroup_index(at), params.rows - 1u);
    let start = params.offset + row * params.classes;
    var largest = logits[start];
    for (var i = at.lane; i < params.classes; i += 64u) {
        largest = max(largest, logits[start + i]);
    }
    largest = workgroup_max(at.lane, largest);
    var sum = 0.0;
    for (var i = at.lane; i < params.classes; i += 64u) {
        sum += exp(logits[start + i] - largest);
    }
    sum = workgroup_sum(at.lane, sum);
    if at.lane == 0u && workgroup_index(at) < params.rows {
        let label = labels[params.row_offset + row];
        var loss = bitcast<f32>(params.nan_bits);
        if label < params.classes {
            // In this order, the loss keeps its digits if the logits are large.
            loss = (largest - logits[start + label]) + log(sum);
        }
        new_log_sum_exp[params.row_offset + row] = largest + log(sum);
        losses[params.row_offset + row] = loss;
    }
}

@compute @workgroup_size(256)
fn cross_entropy_backward(at: Invocation) {
    let i = index256(at);
    if i >= params.rows * params.classes {
        return;
    }
    let row = params.row_offset + i / params.classes;
    let target_of_row = select(0.0, 1.0, labels[row] == i % params.classes);
    let p = exp(logits[params.offset + i] - log_sum_exp[row]);
    dlogits[params.offset + i] = dloss[0] / params.all_rows * (p - target_of_row);
}
