// Optimisers: one pass over a parameter p, its gradient g and its state, in place. A set gate keeps
// all of them unchanged.
//
//   sgd    g = g / gradient_scale + weight_decay p; m = momentum m + g, at first m = g;
//          p -= learning_rate (nesterov ? g + momentum m : m)
//   adam   g = g / gradient_scale + weight_decay p; m = beta1 m + (1 - beta1) g;
//          v = beta2 v + (1 - beta2) g^2; p -= step_size m / (sqrt(v) / root + eps),
//          where step_size = learning_rate / (1 - beta1^t) and root = sqrt(1 - beta2^t)
//
// Each invocation computes one vec4, in workgroups of 256 along one dimension. The last vec4 may
// contain padding, which no kernel reads.

#import grid

struct Params {
    // The number of vec4s.
    count: u32,
    // sgd
    learning_rate: f32,
    momentum: f32,
    nesterov: u32,
    first: u32,
    weight_decay: f32,
    // 1 / gradient_scale, a power of two
    unscale: f32,
    // adam
    step_size: f32,
    root: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gate: array<u32>;
@group(0) @binding(2) var<storage, read> gradient: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> parameter: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> first_moment: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> second_moment: array<vec4f>;

@compute @workgroup_size(256)
fn sgd(at: Invocation) {
    let i = index256(at);
    if i >= params.count || gate[0] != 0u {
        return;
    }
    let p = parameter[i];
    let g = gradient[i] * params.unscale + params.weight_decay * p;
    let m = select(params.momentum * first_moment[i] + g, g, params.first != 0u);
    let step = select(m, g + params.momentum * m, params.nesterov != 0u);
    first_moment[i] = m;
    parameter[i] = p - params.learning_rate * step;
}

@compute @workgroup_size(256)
fn adam(at: Invocation) {
    let i = index256(at);
    if i >= params.count || gate[0] != 0u {
        return;
    }
    let p = parameter[i];
    let g = gradient[i] * params.unscale + params.weight_decay * p;
    let m = params.beta1 * first_moment[i] + (1.0 - params.beta1) * g;
    let v = params.beta2 * second_moment[i] + (1.0 - params.beta2) * g * g;
    first_moment[i] = m;
    second_moment[i] = v;
    parameter[i] = p - params.step_size * m / (sqrt(v) / params.root + params.eps);
}
