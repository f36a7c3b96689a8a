// Conversions between the types of stored activations, f32 and f16.
//
//   narrow  y = x rounded to nearest f16; beyond the largest f16 number, infinity
//   widen   y = x, exactly
//
// Each invocation computes one vec4, in workgroups of 256 along one dimension. The last vec4 may
// contain padding, which no kernel reads.

enable f16;

#import grid

struct Params {
    // The number of vec4s.
    count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> wide: array<vec4f>;
@group(0) @binding(2) var<storage, read> half: array<vec4<f16>>;
@group(0) @binding(3) var<storage, read_write> to_half: array<vec4<f16>>;
@group(0) @binding(4) var<storage, read_write> to_wide: array<vec4f>;

@compute @workgroup_size(256)
fn narrow(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        to_half[i] = vec4<f16>(wide[i]);
    }
}

@compute @workgroup_size(256)
fn widen(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        to_wide[i] = vec4f(half[i]);
    }
}
