// One step of a gradient attack on images (Madry et al. 2018, section 2.1), with sign(0) = 0:
//
//   attack_step   y = clamp(clamp(x + alpha sign(dx), clean - eps, clean + eps), low, high)
//
// Each invocation computes one vec4, in workgroups of 256 along one dimension. The last vec4 may
// contain padding, which no kernel reads.

#import grid

struct Params {
    // The number of vec4s.
    count: u32,
    alpha: f32,
    eps: f32,
    low: f32,
    high: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> dx: array<vec4f>;
@group(0) @binding(3) var<storage, read> clean: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(256)
fn attack_step(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        let moved = x[i] + params.alpha * sign(dx[i]);
        let inside = min(max(moved, clean[i] - params.eps), clean[i] + params.eps);
        y[i] = min(max(inside, vec4f(params.low)), vec4f(params.high));
    }
}
