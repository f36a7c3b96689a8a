// Optimisers: one pass over a parameter p, its gradient g and its state, in place. If the gate is
// set, all of them stay unchanged.
//
//   sgd    g = g / gradient_scale + weight_decay p; m = momentum m + g, at first m = g;
//          p -= learning_rate (nesterov ? g + momentum m : m)
//   adam   g = g / gradient_scale + weight_decay p; m = beta1 m + (1 - beta1) g;
//          v = beta2 v + (1 - beta2) g^2; p -= step_size m / (sqrt(v) / root + eps),
//          where step_size = learning_rate / (1 - beta1^t) and root = sqrt(1 - beta2^t)
//   lars   m = momentum m + r g + r weight_decay p; p -= learning_rate m,
//          where factors = (r, r weight_decay)
//   lars_norms    norms[k] = (largest |p|, largest |g|, sums of their squares divided by the square
//                 of the largest) of part k, which has 4,096 elements: one workgroup each
//   lars_factors  r = trust_coefficient |p| / (|g| + weight_decay |p| + eps); factors = (1, 0) if
//                 |p| or |g| is 0
//
// sgd, adam and lars compute one vec4 per invocation, in workgroups of 256 along one dimension. The
// last vec4 may contain padding, which they do not use.

#import grid

struct Params {
    // The number of vec4s; in lars_factors, the number of parts.
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
    // lars_norms: the number of elements, and the index of the first part
    elements: u32,
    norms_offset: u32,
    // lars_factors
    trust_coefficient: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gate: array<u32>;
@group(0) @binding(2) var<storage, read> gradient: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> parameter: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> first_moment: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> second_moment: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> norms: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> factors: array<vec2f>;

var<workgroup> scratch: array<vec2f, 256>;

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

@compute @workgroup_size(256)
fn lars(at: Invocation) {
    let i = index256(at);
    if i >= params.count || gate[0] != 0u {
        return;
    }
    let p = parameter[i];
    let m = params.momentum * first_moment[i] + factors[0].x * params.unscale * gradient[i]
        + factors[0].y * p;
    first_moment[i] = m;
    parameter[i] = p - params.learning_rate * m;
}

// The larger numbers of all invocations of a workgroup.
fn largest(lane: u32, own: vec2f) -> vec2f {
    scratch[lane] = own;
    workgroupBarrier();
    for (var step = 128u; step > 0u; step /= 2u) {
        if lane < step {
            scratch[lane] = max(scratch[lane], scratch[lane + step]);
        }
        workgroupBarrier();
    }
    let found = scratch[0];
    workgroupBarrier();
    return found;
}

// The sums over all invocations of a workgroup.
fn sum(lane: u32, own: vec2f) -> vec2f {
    scratch[lane] = own;
    workgroupBarrier();
    for (var step = 128u; step > 0u; step /= 2u) {
        if lane < step {
            scratch[lane] += scratch[lane + step];
        }
        workgroupBarrier();
    }
    let found = scratch[0];
    workgroupBarrier();
    return found;
}

// The magnitudes of vec4 i, 0 for the padding after the last element.
fn magnitudes(x: vec4f, i: u32) -> vec4f {
    let is_element = 4u * i + vec4u(0u, 1u, 2u, 3u) < vec4u(params.elements);
    return select(vec4f(), abs(x), is_element);
}

// A divisor that makes the largest number 1, so that no square overflows or underflows.
fn unit_of(most: vec2f) -> vec2f {
    return select(vec2f(1.0), most, most > vec2f());
}

@compute @workgroup_size(256)
fn lars_norms(at: Invocation) {
    let part = workgroup_index(at);
    let end = min((part + 1u) * 1024u, params.count);
    var most = vec2f();
    for (var i = part * 1024u + at.lane; i < end; i += 256u) {
        let p = magnitudes(parameter[i], i);
        let g = magnitudes(gradient[i], i);
        let p2 = max(p.xy, p.zw);
        let g2 = max(g.xy, g.zw);
        most = max(most, vec2f(max(p2.x, p2.y), max(g2.x, g2.y)));
    }
    most = largest(at.lane, most);
    let unit = unit_of(most);
    var squares = vec2f();
    for (var i = part * 1024u + at.lane; i < end; i += 256u) {
        let p = magnitudes(parameter[i], i) / unit.x;
        let g = magnitudes(gradient[i], i) / unit.y;
        squares += vec2f(dot(p, p), dot(g, g));
    }
    squares = sum(at.lane, squares);
    if at.lane == 0u && part * 1024u < params.count {
        norms[params.norms_offset + part] = vec4f(most, squares);
    }
}

// One workgroup.
@compute @workgroup_size(256)
fn lars_factors(at: Invocation) {
    var most = vec2f();
    for (var part = at.lane; part < params.count; part += 256u) {
        most = max(most, norms[part].xy);
    }
    most = largest(at.lane, most);
    let unit = unit_of(most);
    var squares = vec2f();
    for (var part = at.lane; part < params.count; part += 256u) {
        let share = norms[part].xy / unit;
        squares += norms[part].zw * share * share;
    }
    squares = sum(at.lane, squares);
    if at.lane == 0u {
        let norm = most * sqrt(squares);
        let p = norm.x;
        let g = norm.y * params.unscale;
        let r = params.trust_coefficient * p / (g + params.weight_decay * p + params.eps);
        let is_adapted = most.x > 0.0 && most.y > 0.0;
        factors[0] = select(vec2f(1.0, 0.0), vec2f(r, r * params.weight_decay), is_adapted);
    }
}
